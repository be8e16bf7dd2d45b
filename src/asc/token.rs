//! What the sessions of one key share: its token, its place in line, its pace, its retries.
//!
//! Tokens are ES256, minted rarely and reused, because Apple sometimes refuses a fresh one for a moment.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use jsonwebtoken::{Algorithm, Header, crypto::aws_lc};
use reqwest::header::HeaderValue;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use super::signer::Signer;
use crate::{clock::Instant, credential::Identity, diagnosis::Diagnosis, retry::Allowance};

/// Apple refuses a token issued in the future; a clock that is this much fast still works.
const BACKDATED: TimeDelta = TimeDelta::seconds(60);
/// Apple refuses a lifetime over 20 minutes.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// A token as it is sent. It is a secret: there is no way to print it.
pub(super) struct Token {
    text: Zeroizing<String>,
    issued_at: Instant,
}

impl Token {
    #[cfg(any(test, fuzzing))]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// As it goes into `Authorization`.
    pub(super) fn bearer(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", &*self.text))
            .expect("base64url and dots are allowed in a header");
        value.set_sensitive(true);
        value
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now < self.issued_at + LIFETIME / 2 && now >= self.issued_at
    }
}

#[cfg(test)]
lacks!(Token: Clone, std::fmt::Debug, std::fmt::Display, Serialize);

/// Why a token cannot be minted from a key that was accepted at intake.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The key does not open any more.
    #[error("{0}")]
    Sealed(Box<Diagnosis>),
    /// It signs nothing.
    #[error("no token could be signed with this key: {0}")]
    Unusable(#[from] jsonwebtoken::errors::Error),
}

/// Names a key for good: the same Key ID with another private key or issuer is another key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyName(pub(super) [u8; 32]);

/// How fast one key may go.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// How many requests may be under way at once.
    pub(super) in_flight: usize,
    /// How many may be sent a second, once..
    pub(super) per_second: NonZeroU32,
    /// ..this many were sent as fast as they came.
    pub(super) burst: NonZeroU32,
}

/// What all sessions of one key share.
pub(super) struct Key {
    pub(super) name: KeyName,
    token: Mutex<Option<Arc<Token>>>,
    /// One for each request that may be under way.
    permits: Semaphore,
    pace: DefaultDirectRateLimiter,
    retries: Mutex<Allowance>,
}

impl Key {
    fn new(name: KeyName, pace: Pace) -> Self {
        let quota = Quota::per_second(pace.per_second).allow_burst(pace.burst);
        Self {
            name,
            token: Mutex::default(),
            permits: Semaphore::new(pace.in_flight),
            pace: RateLimiter::direct(quota),
            retries: Mutex::default(),
        }
    }

    /// Waits until another request may be sent; it is under way until the permit is dropped.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        let permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        while let Err(not_yet) = self.pace.check() {
            tokio::time::sleep(not_yet.wait_time_from(self.pace.clock().now())).await;
        }
        permit
    }

    /// A request was sent that is no retry.
    pub(super) fn earn_retry(&self) {
        lock(&self.retries).earn();
    }

    /// Takes one of the key's retries, if there is one.
    pub(super) fn take_retry(&self, now: Instant) -> bool {
        lock(&self.retries).take(now)
    }

    /// The key's token, minted anew past half its life.
    pub(super) fn token(&self, signer: &Signer, now: Instant) -> Result<Arc<Token>, SigningError> {
        let mut current = lock(&self.token);
        if let Some(token) = current.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(mint(signer, now)?);
        *current = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Forgets a token that was refused, unless another has taken its place.
    pub(super) fn forget(&self, refused: &Arc<Token>) {
        let mut current = lock(&self.token);
        if current
            .as_ref()
            .is_some_and(|token| Arc::ptr_eq(token, refused))
        {
            *current = None;
        }
    }

    /// Whether nothing is lost when the key is made anew for its next session. Its burst is back long before that, unless
    /// it is set to hundreds of seconds' worth.
    fn is_idle(&self, now: Instant) -> bool {
        lock(&self.token)
            .as_ref()
            .is_none_or(|token| !token.is_fresh(now))
            && lock(&self.retries).may_be_forgotten(now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys in use. One that no session holds goes when its token has had half its life, and its retries are back or were
/// last drawn on an hour ago.
pub(super) struct Keys {
    table: Mutex<Table>,
    pace: Pace,
}

struct Table {
    by_name: HashMap<KeyName, Arc<Key>>,
    /// Idle keys are looked for when there are this many: twice as many as were left the last time.
    sweep_at: usize,
}

/// As long as there are no more keys than this, idle ones may stay.
const FEW: usize = 64;

impl Keys {
    pub(super) fn new(pace: Pace) -> Self {
        let table = Table {
            by_name: HashMap::new(),
            sweep_at: FEW,
        };
        Self {
            table: Mutex::new(table),
            pace,
        }
    }

    /// What the sessions of this key share.
    pub(super) fn of(&self, name: KeyName, now: Instant) -> Arc<Key> {
        let mut table = lock(&self.table);
        if table.by_name.len() >= table.sweep_at {
            table
                .by_name
                .retain(|_, key| Arc::strong_count(key) > 1 || !key.is_idle(now));
            table.sweep_at = FEW.max(2 * table.by_name.len());
        }
        let key = table
            .by_name
            .entry(name)
            .or_insert_with(|| Arc::new(Key::new(name, self.pace)));
        Arc::clone(key)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    /// An individual key has no issuer, and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'static str>,
    iat: i64,
    exp: i64,
    aud: &'static str,
}

pub(super) fn mint(signer: &Signer, now: Instant) -> Result<Token, SigningError> {
    // Whoever comes second finds it installed, and it is the same.
    aws_lc::DEFAULT_PROVIDER.install_default().ok();
    let issued_at = now - BACKDATED;
    let Identity { key_id, issuer_id } = signer.identity();
    let claims = Claims {
        iss: issuer_id.as_deref(),
        sub: issuer_id.is_none().then_some("user"),
        iat: issued_at.timestamp(),
        exp: (issued_at + LIFETIME).timestamp(),
        aud: "appstoreconnect-v1",
    };
    let header = Header {
        kid: Some(key_id.clone()),
        ..Header::new(Algorithm::ES256)
    };
    let text = signer.sign(&header, &claims)?;
    Ok(Token { text, issued_at })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    use super::*;
    use crate::{clock, credential::PrivateKey};

    const PACE: Pace = Pace {
        in_flight: 4,
        per_second: NonZeroU32::MIN,
        burst: NonZeroU32::MIN,
    };

    fn key(issuer_id: Option<&str>) -> Signer {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let identity = Identity {
            key_id: "ABCDE12345".to_owned(),
            issuer_id: issuer_id.map(str::to_owned),
        };
        Signer::new(identity, move || {
            Ok(PrivateKey::from_der(pkcs8.as_ref()).unwrap())
        })
        .unwrap()
    }

    fn part(token: &Token, index: usize) -> Value {
        let part = token.text().split('.').nth(index).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_team_key_names_its_issuer_and_an_individual_key_its_user() {
        let now = clock::now();
        let issued = now.timestamp() - 60;
        let team = mint(&key(Some("issuer")), now).unwrap();
        assert_eq!(
            part(&team, 0),
            json!({ "alg": "ES256", "kid": "ABCDE12345", "typ": "JWT" })
        );
        assert_eq!(
            part(&team, 1),
            json!({ "iss": "issuer", "iat": issued, "exp": issued + 600, "aud": "appstoreconnect-v1" })
        );
        let individual = mint(&key(None), now).unwrap();
        assert_eq!(
            part(&individual, 1),
            json!({ "sub": "user", "iat": issued, "exp": issued + 600, "aud": "appstoreconnect-v1" })
        );
    }

    #[test]
    fn a_token_is_reused_until_half_its_life() {
        let keys = Keys::new(PACE);
        let signer = key(Some("issuer"));
        let now = clock::now();
        let after = |seconds| {
            let now = now + TimeDelta::seconds(seconds);
            keys.of(signer.name(), now).token(&signer, now).unwrap()
        };
        let first = after(0);
        assert!(Arc::ptr_eq(&first, &after(239)));
        let second = after(240);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &after(479)));
        // The clock was set back: what was issued in the future of now would be refused.
        assert!(!Arc::ptr_eq(&second, &after(-3600)));
    }

    #[test]
    fn a_refused_token_is_forgotten_once() {
        let signer = key(Some("issuer"));
        let key = Key::new(signer.name(), PACE);
        let now = clock::now();
        let first = key.token(&signer, now).unwrap();
        key.forget(&first);
        let second = key.token(&signer, now).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        key.forget(&first);
        assert!(Arc::ptr_eq(&second, &key.token(&signer, now).unwrap()));
    }

    #[test]
    fn keys_that_nobody_uses_do_not_pile_up() {
        let keys = Keys::new(PACE);
        let now = clock::now();
        let held = key(Some("issuer"));
        let held_key = keys.of(held.name(), now);
        for _ in 0..1000 {
            let passing = key(Some("issuer"));
            keys.of(passing.name(), now);
        }
        let count = keys.table.lock().unwrap().by_name.len();
        assert!(count <= FEW, "{count} keys");
        assert!(Arc::ptr_eq(&held_key, &keys.of(held.name(), now)));
    }

    #[test]
    fn a_key_that_drew_on_its_retries_is_not_made_anew_within_the_hour() {
        let keys = Keys::new(PACE);
        let now = clock::now();
        let drawn = key(Some("issuer"));
        assert!(keys.of(drawn.name(), now).take_retry(now));
        let retries_left = |now| {
            for _ in 0..FEW {
                keys.of(key(Some("issuer")).name(), now);
            }
            let key = keys.of(drawn.name(), now);
            (0..20).filter(|_| key.take_retry(now)).count()
        };
        assert_eq!(retries_left(now), 9);
        assert_eq!(retries_left(now + TimeDelta::minutes(59)), 0);
        assert_eq!(retries_left(now + TimeDelta::minutes(119)), 10);
    }

    #[test]
    fn the_same_key_id_with_another_key_or_issuer_is_another_key() {
        let (a, b) = (key(Some("issuer")), key(Some("issuer")));
        assert!(a.name() != b.name());
        assert!(a.name() != a.without_issuer().name());
        assert!(a.name() == a.name());
    }
}
