//! What signs the tokens of one key.
//!
//! What must hold: no key is kept open. It is there for the length of one signature, some minutes apart, and for that of one hash when a
//! session begins: sessions of the same key share a token, and ciphertexts do not tell which are the same.

use std::sync::Arc;

use aws_lc_rs::digest;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::token::{KeyName, SigningError};
use crate::{
    credential::{Identity, PrivateKey},
    diagnosis::Diagnosis,
};

/// What signs the tokens of one key. It says which key that is, and gives nothing of it away.
pub struct Signer {
    identity: Identity,
    fingerprint: [u8; digest::SHA256_OUTPUT_LEN],
    open: Arc<Open>,
}

type Open = dyn Fn() -> Result<PrivateKey, Diagnosis> + Send + Sync;

impl Signer {
    /// Signs with the key that `open` opens: now, to learn which it is, and again for each token.
    ///
    /// # Errors
    /// When it does not open.
    pub fn new(
        identity: Identity,
        open: impl Fn() -> Result<PrivateKey, Diagnosis> + Send + Sync + 'static,
    ) -> Result<Self, Diagnosis> {
        let fingerprint = sha256(&[open()?.der()]);
        Ok(Self {
            identity,
            fingerprint,
            open: Arc::new(open),
        })
    }

    /// Which key it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The same key as an individual one.
    #[must_use]
    pub fn without_issuer(&self) -> Self {
        Self {
            identity: Identity {
                issuer_id: None,
                ..self.identity.clone()
            },
            fingerprint: self.fingerprint,
            open: Arc::clone(&self.open),
        }
    }

    pub(super) fn name(&self) -> KeyName {
        let Identity { key_id, issuer_id } = &self.identity;
        KeyName(sha256(&[
            key_id.as_bytes(),
            b"\0",
            issuer_id.as_deref().unwrap_or_default().as_bytes(),
            b"\0",
            &self.fingerprint,
        ]))
    }

    /// The token of these claims. The key is open for just that long.
    pub(super) fn sign(
        &self,
        header: &Header,
        claims: &impl Serialize,
    ) -> Result<Zeroizing<String>, SigningError> {
        let key = (self.open)().map_err(|why| SigningError::Sealed(Box::new(why)))?;
        // It copies the key, and zeroizes its copy.
        let key = EncodingKey::from_ec_der(key.der());
        Ok(Zeroizing::new(jsonwebtoken::encode(header, claims, &key)?))
    }
}

#[cfg(test)]
lacks!(Signer: Clone, std::fmt::Debug, std::fmt::Display, Serialize);

fn sha256(parts: &[&[u8]]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; digest::SHA256_OUTPUT_LEN];
    output.copy_from_slice(context.finish().as_ref());
    output
}
