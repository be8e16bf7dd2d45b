//! Makes up what a state needs and leaves empty, and refuses what could not be told apart.

use std::collections::HashSet;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::Error;
use super::State;

const FIRST_ID: u64 = 6_440_000_001;

impl State {
    /// Gives ids, key ids, issuer ids and private keys to whatever has none, the same ones each time but for private keys.
    ///
    /// # Errors
    /// When two things of one kind share an id, a key id is not ten characters of `A-Z0-9`, or a private key cannot be read
    /// or made.
    pub fn complete(&mut self) -> Result<(), Error> {
        self.fill()?;
        self.check()
    }

    /// The first half of [`State::complete`], for after an edit.
    pub(in super::super) fn fill(&mut self) -> Result<(), Error> {
        self.name_teams();
        self.number_catalogs();
        for key in self.teams.iter_mut().flat_map(|team| &mut team.keys) {
            if key.private_key.trim().is_empty() {
                key.private_key = new_private_key().ok_or(Error::Randomness)?;
            }
        }
        Ok(())
    }

    fn name_teams(&mut self) {
        let mut taken: HashSet<String> = self
            .teams
            .iter()
            .map(|team| team.issuer_id.clone())
            .collect();
        for team in self
            .teams
            .iter_mut()
            .filter(|team| team.issuer_id.is_empty())
        {
            team.issuer_id = fresh(&mut taken, 1, |n| {
                format!("5a1e0000-0000-4000-8000-{n:012}")
            });
        }
        let keys = || self.teams.iter().flat_map(|team| &team.keys);
        let mut taken: HashSet<String> = keys().map(|key| key.key_id.clone()).collect();
        for key in self
            .teams
            .iter_mut()
            .flat_map(|team| &mut team.keys)
            .filter(|key| key.key_id.is_empty())
        {
            key.key_id = fresh(&mut taken, 1, |n| format!("SIMKEY{n:04}"));
        }
    }

    fn number_catalogs(&mut self) {
        let mut taken = HashSet::new();
        self.each_id(|id| {
            taken.insert(id.clone());
        });
        let mut next = self.last_id.max(FIRST_ID - 1) + 1;
        self.each_id(|id| {
            if id.is_empty() {
                *id = fresh(&mut taken, next, |n| n.to_string());
                next = id.parse().unwrap_or(next);
            }
        });
        self.remember_ids();
    }

    /// Before anything is deleted, and after anything is added.
    pub(super) fn remember_ids(&mut self) {
        let mut last = self.last_id;
        self.each_id(|id| last = last.max(id.parse().unwrap_or_default()));
        self.last_id = last;
    }

    /// An id that nothing has yet.
    pub(in super::super) fn free_id(&mut self) -> String {
        let mut taken = HashSet::new();
        self.each_id(|id| {
            taken.insert(id.clone());
        });
        self.remember_ids();
        fresh(&mut taken, self.last_id.max(FIRST_ID - 1) + 1, |n| {
            n.to_string()
        })
    }

    fn each_id(&mut self, mut f: impl FnMut(&mut String)) {
        for app in self.teams.iter_mut().flat_map(|team| &mut team.apps) {
            f(&mut app.id);
            for purchase in &mut app.in_app_purchases {
                f(&mut purchase.id);
            }
            for group in &mut app.subscription_groups {
                f(&mut group.id);
                for subscription in &mut group.subscriptions {
                    f(&mut subscription.id);
                }
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        let mut keys = Seen::new("key_id");
        let mut apps = Seen::new("id of an app");
        let mut purchases = Seen::new("id of an in-app purchase");
        let mut groups = Seen::new("id of a subscription group");
        let mut subscriptions = Seen::new("id of a subscription");
        for (t, team) in self.teams.iter().enumerate() {
            for (k, key) in team.keys.iter().enumerate() {
                let place = || format!("teams[{t}].keys[{k}]");
                keys.add(&key.key_id, place)?;
                if key.key_id.len() != 10
                    || !key
                        .key_id
                        .bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                {
                    return Err(Error::State(format!(
                        "{}.key_id: `{}` is not ten characters of A-Z and 0-9",
                        place(),
                        key.key_id
                    )));
                }
                if public_key(&key.private_key).is_none() {
                    return Err(Error::State(format!(
                        "{}.private_key: not a PKCS#8 PEM of a P-256 key; leave it out to have one made",
                        place()
                    )));
                }
            }
            for (a, app) in team.apps.iter().enumerate() {
                let app_place = format!("teams[{t}].apps[{a}]");
                apps.add(&app.id, || app_place.clone())?;
                for (i, purchase) in app.in_app_purchases.iter().enumerate() {
                    purchases.add(&purchase.id, || {
                        format!("{app_place}.in_app_purchases[{i}]")
                    })?;
                }
                for (g, group) in app.subscription_groups.iter().enumerate() {
                    let group_place = format!("{app_place}.subscription_groups[{g}]");
                    groups.add(&group.id, || group_place.clone())?;
                    for (s, subscription) in group.subscriptions.iter().enumerate() {
                        subscriptions.add(&subscription.id, || {
                            format!("{group_place}.subscriptions[{s}]")
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Seen<'a> {
    what: &'static str,
    ids: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            ids: HashSet::new(),
        }
    }

    fn add(&mut self, id: &'a str, place: impl Fn() -> String) -> Result<(), Error> {
        if self.ids.insert(id) {
            return Ok(());
        }
        Err(Error::State(format!(
            "{}: `{id}` is already the {}",
            place(),
            self.what
        )))
    }
}

fn fresh(taken: &mut HashSet<String>, from: u64, form: impl Fn(u64) -> String) -> String {
    let mut n = from;
    loop {
        let id = form(n);
        if taken.insert(id.clone()) {
            return id;
        }
        n += 1;
    }
}

/// A new P-256 key as PKCS#8 PEM, or nothing when the system gives no randomness.
pub(super) fn new_private_key() -> Option<String> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .ok()?;
    let body = STANDARD.encode(key.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = body.as_str();
    while let Some((line, tail)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Some(pem)
}

/// The public point that belongs to a private key in PKCS#8 PEM.
pub(in super::super) fn public_key(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let key = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &STANDARD.decode(body).ok()?,
    )
    .ok()?;
    Some(key.public_key().as_ref().to_vec())
}
