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

/// A master key that was added since the start is taken up now.
pub(super) async fn look_for_master_key(vault: &Arc<Vault>, id: &str) {
    if vault.has(id) {
        return;
    }
    let (looking, wanted) = (Arc::clone(vault), id.to_owned());
    let looked = tokio::task::spawn_blocking(move || looking.look_for(&wanted)).await;
    let looked = looked
        .map_err(|error| error.to_string())
        .and_then(|read| read.map_err(|error| error.to_string()));
    match looked {
        Ok(()) if vault.has(id) => {
            tracing::info!(
                event = "master_key.found",
                master_key.id = id,
                "a new master key is at hand"
            );
        }
        // The key that it does not open tells that.
        Ok(()) => {}
        Err(error) => tracing::error!(
            event = "master_key.unreadable",
            master_key.id = id,
            error.sentence = error,
            "the master keys could not be read again"
        ),
    }
}
