//! Tokens for App Store Connect: ES256, minted rarely and reused, because Apple sometimes refuses a fresh one for a moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto::aws_lc};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{clock::Instant, credential::Credential};

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
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now < self.issued_at + LIFETIME / 2 && now >= self.issued_at
    }
}

/// What is wrong when a token cannot be minted from a key that was accepted at intake.
#[derive(Debug, thiserror::Error)]
#[error("no token could be signed with this key: {0}")]
pub struct SigningError(#[from] jsonwebtoken::errors::Error);

/// The tokens in use, one for each key.
#[derive(Default)]
pub(super) struct Tokens {
    by_key: Mutex<HashMap<KeyName, Arc<Token>>>,
}

/// Names a key for good: the same Key ID with another private key or issuer is another key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyName([u8; 32]);

impl KeyName {
    pub(super) fn of(credential: &Credential) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [
            credential.key_id.as_bytes(),
            b"\0",
            credential
                .issuer_id
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
            b"\0",
            credential.private_key.der(),
        ] {
            context.update(part);
        }
        let mut name = [0; 32];
        name.copy_from_slice(context.finish().as_ref());
        Self(name)
    }
}

impl Tokens {
    /// The key's token, minted anew past half its life.
    pub(super) fn current(
        &self,
        name: &KeyName,
        key: &Credential,
        now: Instant,
    ) -> Result<Arc<Token>, SigningError> {
        let mut tokens = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(name).filter(|token| token.is_fresh(now)) {
            return Ok(Arc::clone(token));
        }
        tokens.retain(|_, token| token.is_fresh(now));
        let token = Arc::new(mint(key, now)?);
        tokens.insert(name.clone(), Arc::clone(&token));
        Ok(token)
    }

    /// Forgets a token that was refused, unless another has taken its place.
    pub(super) fn forget(&self, name: &KeyName, refused: &Arc<Token>) {
        let mut tokens = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens
            .get(name)
            .is_some_and(|token| Arc::ptr_eq(token, refused))
        {
            tokens.remove(name);
        }
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

fn mint(credential: &Credential, now: Instant) -> Result<Token, SigningError> {
    // Whoever comes second finds it installed, and it is the same.
    aws_lc::DEFAULT_PROVIDER.install_default().ok();
    let issued_at = now - BACKDATED;
    let claims = Claims {
        iss: credential.issuer_id.as_deref(),
        sub: credential.issuer_id.is_none().then_some("user"),
        iat: issued_at.timestamp(),
        exp: (issued_at + LIFETIME).timestamp(),
        aud: "appstoreconnect-v1",
    };
    let header = Header {
        kid: Some(credential.key_id.clone()),
        ..Header::new(Algorithm::ES256)
    };
    let key = EncodingKey::from_ec_der(credential.private_key.der());
    let text = Zeroizing::new(jsonwebtoken::encode(&header, &claims, &key)?);
    Ok(Token { text, issued_at })
}
