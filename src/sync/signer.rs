//! Signing with a key that stays sealed between two tokens.

use std::sync::Arc;

use crate::{
    asc::Signer,
    credential::Identity,
    diagnosis::Diagnosis,
    project::{ProjectId, SealedKey},
    vault::Vault,
};

/// Signs with this project's key, which is unsealed for each token and not kept.
///
/// # Errors
/// `key_sealed`, when it does not open.
pub fn signer(
    vault: &Arc<Vault>,
    project: &ProjectId,
    key: &SealedKey,
) -> Result<Signer, Diagnosis> {
    let (vault, project, key) = (Arc::clone(vault), project.clone(), key.clone());
    let identity = Identity {
        key_id: key.key_id.clone(),
        issuer_id: key.issuer_id.clone(),
    };
    Signer::new(identity, move || match vault.unseal(&project, &key) {
        Ok(credential) => Ok(credential.private_key),
        Err(error) => Err(Diagnosis::from(&error)),
    })
}
