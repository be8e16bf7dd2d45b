//! Tokens, judged as App Store Connect judges them.
//!
//! The caller learns nothing but 401; the reason is kept for [`Request::refused_because`](super::Request).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::state::{App, Key, State, Team, public_key};

const AUDIENCE: &str = "appstoreconnect-v1";
const LONGEST_LIFE_S: i64 = 1200;

/// Whose request it is.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) team: &'a Team,
    pub(super) key: &'a Key,
}

impl<'a> Caller<'a> {
    /// The apps that the key sees.
    pub(super) fn apps(self) -> impl Iterator<Item = &'a App> {
        self.team.apps.iter().filter(move |app| self.sees(app))
    }

    fn sees(self, app: &App) -> bool {
        !self.key.individual
            || self
                .key
                .apps
                .as_ref()
                .is_some_and(|apps| apps.contains(&app.id))
    }
}

/// The key id that the request claims, before anything is checked.
pub(super) fn claimed_key_id(headers: &HeaderMap) -> Option<String> {
    let header = decode(bearer(headers)?.split('.').next()?)?;
    Some(header.get("kid")?.as_str()?.to_owned())
}

/// Public keys by private key, as working one out costs as much as checking a signature.
#[derive(Debug, Default)]
pub(super) struct PublicKeys(Mutex<HashMap<String, Vec<u8>>>);

impl PublicKeys {
    fn of(&self, private_key: &str) -> Option<Vec<u8>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(public) = known.get(private_key) {
            return Some(public.clone());
        }
        let public = public_key(private_key)?;
        known.insert(private_key.to_owned(), public.clone());
        Some(public)
    }
}

/// Finds out who calls, or why the token is refused. `now` is in UNIX seconds.
pub(super) fn verify<'a>(
    state: &'a State,
    headers: &HeaderMap,
    now: i64,
    public_keys: &PublicKeys,
) -> Result<Caller<'a>, &'static str> {
    let token = bearer(headers).ok_or("no bearer token")?;
    let (message, signature) = token.rsplit_once('.').ok_or("the token is not a JWT")?;
    let (header, claims) = message.split_once('.').ok_or("the token is not a JWT")?;
    let header = decode(header).ok_or("the token's header is not JSON")?;
    let claims = decode(claims).ok_or("the token's claims are not JSON")?;
    if text(&header, "alg") != Some("ES256") {
        return Err("alg is not ES256");
    }
    if text(&header, "typ") != Some("JWT") {
        return Err("typ is not JWT");
    }
    let key_id = text(&header, "kid").ok_or("no kid")?;
    let (team, key) = state.key(key_id).ok_or("no key has this kid")?;
    if key.in_app_purchase {
        return Err("an In-App Purchase key");
    }
    if key.revoked {
        return Err("the key is revoked");
    }
    let public = public_keys
        .of(&key.private_key)
        .ok_or("the simulator cannot read its key")?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| "the signature is not base64url")?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| "signed with another key")?;
    verify_claims(&claims, team, key, now)?;
    Ok(Caller { team, key })
}

fn verify_claims(
    claims: &Map<String, Value>,
    team: &Team,
    key: &Key,
    now: i64,
) -> Result<(), &'static str> {
    if key.individual {
        if claims.contains_key("iss") {
            return Err("an individual key sends no iss");
        }
        if text(claims, "sub") != Some("user") {
            return Err("an individual key sends sub: user");
        }
    } else {
        if claims.contains_key("sub") {
            return Err("a team key sends no sub");
        }
        if text(claims, "iss") != Some(team.issuer_id.as_str()) {
            return Err("iss is not the issuer id of the key's team");
        }
    }
    if text(claims, "aud") != Some(AUDIENCE) {
        return Err("aud is not appstoreconnect-v1");
    }
    let issued = seconds(claims, "iat").ok_or("no iat")?;
    let expires = seconds(claims, "exp").ok_or("no exp")?;
    if issued > now {
        return Err("iat is in the future");
    }
    if expires <= now {
        return Err("exp is past");
    }
    if expires.saturating_sub(issued) > LONGEST_LIFE_S {
        return Err("exp is more than 20 minutes after iat");
    }
    Ok(())
}

/// The token, whatever it is.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
        .map(str::trim)
}

fn decode(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

fn seconds(object: &Map<String, Value>, name: &str) -> Option<i64> {
    object.get(name)?.as_i64()
}
