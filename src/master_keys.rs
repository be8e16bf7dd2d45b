//! Master keys against the database: the right ones are at hand, what is sealed moves to the first, and one that nothing needs goes.

use crate::{
    clock::Instant,
    project::ProjectId,
    store::{self, KnownMasterKey, Resealed, SealedWith, Store},
    vault::{self, MasterKey, Vault},
};

/// How many keys are sealed anew in one transaction.
const BATCH: u32 = 100;

/// How many sealed keys are tried with a master key that is seen for the first time: one may be damaged.
const TRIED: u32 = 10;

/// Why master keys cannot be used, or moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The master keys at hand.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// No key that is stored could be opened.
    #[error(
        "the keys of this database were sealed with the master {}, and at hand {}: bring back what it was; without it, each \
         project's key must be given again with 'catalog-sync project set-key'",
        named(needed),
        are(at_hand)
    )]
    NoneFits {
        /// The master keys that are needed.
        needed: Vec<String>,
        /// The master keys at hand.
        at_hand: Vec<String>,
    },
    /// The master key is the first.
    #[error(
        "the master key '{0}' is the one that encrypts: 'catalog-sync master-key rotate ID' puts another first"
    )]
    Encrypts(String),
}

fn named(ids: &[String]) -> String {
    let noun = if ids.len() == 1 { "key" } else { "keys" };
    format!("{noun} '{}'", ids.join("', '"))
}

fn are(ids: &[String]) -> String {
    let verb = if ids.len() == 1 { "is" } else { "are" };
    format!("{verb} '{}'", ids.join("', '"))
}

/// Compares the master keys at hand with those that the database knows, and notes those that are new.
///
/// # Errors
///
/// [`vault::Error::WrongMasterKey`] when one is another than the one known by its id.
pub async fn check(vault: &Vault, store: &dyn Store, now: Instant) -> Result<(), Error> {
    let known = store.list_master_keys().await?;
    for key in vault.master_keys()? {
        let before = known.iter().find(|known| known.id == key.id);
        let noted = match before.and_then(|known| known.check_value.clone()) {
            Some(noted) => noted,
            None if opens_none(vault, store, &key).await? => return Err(wrong(key)),
            None => {
                store
                    .note_master_key(&key.id, &key.check_value, now)
                    .await?
            }
        };
        if noted != key.check_value {
            return Err(wrong(key));
        }
    }
    Ok(())
}

fn wrong(key: MasterKey) -> Error {
    let MasterKey { id, place, .. } = key;
    vault::Error::WrongMasterKey { id, place }.into()
}

/// Whether keys were sealed with a key of this id and the one at hand opens none of them. If it is but one key, that may be damaged.
async fn opens_none(vault: &Vault, store: &dyn Store, key: &MasterKey) -> Result<bool, Error> {
    let sealed = store
        .list_sealed(SealedWith::This(&key.id), None, TRIED)
        .await?;
    Ok(sealed.len() > 1
        && sealed
            .iter()
            .all(|(project, sealed)| vault.reseal(project, sealed).is_err()))
}

/// The master keys that are needed and not at hand.
///
/// # Errors
///
/// [`Error::NoneFits`] when no key that is stored could be opened.
pub async fn missing(vault: &Vault, store: &dyn Store) -> Result<Vec<KnownMasterKey>, Error> {
    let needed: Vec<KnownMasterKey> = store
        .list_master_keys()
        .await?
        .into_iter()
        .filter(|known| known.api_keys > 0)
        .collect();
    let (here, missing): (Vec<_>, Vec<_>) =
        needed.into_iter().partition(|known| vault.has(&known.id));
    if here.is_empty() && !missing.is_empty() {
        return Err(Error::NoneFits {
            needed: missing.into_iter().map(|known| known.id).collect(),
            at_hand: vault.master_key_ids(),
        });
    }
    Ok(missing)
}

/// What a rotation came to.
#[derive(Debug, Default)]
pub struct Rotated {
    /// How many keys were sealed anew.
    pub resealed: u64,
    /// Those that could not be, and why; they are as they were.
    pub failed: Vec<(ProjectId, vault::Error)>,
}

/// Seals every key that another master key seals with the one that encrypts, a batch at a time, while others work with them. What was
/// done stays done when it is cut off. `progress` is told of each batch.
///
/// # Errors
///
/// When the database fails, or [`store::Error::MasterKeyRetired`].
pub async fn rotate(
    vault: &Vault,
    store: &dyn Store,
    mut progress: impl FnMut(u64),
) -> Result<Rotated, Error> {
    let first = vault.master_key_id();
    refuse_retired(store, &first).await?;
    let mut rotated = Rotated::default();
    loop {
        let (mut after, mut lost_races) = (None, false);
        rotated.failed.clear();
        loop {
            let batch = store
                .list_sealed(SealedWith::AnyBut(&first), after.as_ref(), BATCH)
                .await?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(last.clone());
            let mut resealed = Vec::new();
            for (project, before) in batch {
                match vault.reseal(&project, &before) {
                    Ok(after) => resealed.push(Resealed {
                        project,
                        before,
                        after,
                    }),
                    Err(error) => rotated.failed.push((project, error)),
                }
            }
            let done = store.reseal(&resealed).await?;
            lost_races |= done < resealed.len() as u64;
            rotated.resealed += done;
            progress(done);
        }
        // A key that was replaced meanwhile may have been sealed by a process that read the master keys before.
        if !lost_races {
            return Ok(rotated);
        }
    }
}

/// Fails when nothing may be sealed with a master key.
///
/// # Errors
///
/// [`store::Error::MasterKeyRetired`].
pub async fn refuse_retired(store: &dyn Store, id: &str) -> Result<(), store::Error> {
    let known = store.list_master_keys().await?;
    let is_retired = |known: &KnownMasterKey| known.id == id && known.retired_at.is_some();
    if known.iter().any(is_retired) {
        return Err(store::Error::MasterKeyRetired(id.to_owned()));
    }
    Ok(())
}

/// Says for good that nothing may be sealed with a master key.
///
/// # Errors
///
/// [`Error::Encrypts`], [`store::Error::MasterKeyInUse`], [`store::Error::UnknownMasterKey`], or
/// [`store::Error::MasterKeyRetired`] of the first one, in whose favour it would be.
pub async fn retire(vault: &Vault, store: &dyn Store, id: &str, now: Instant) -> Result<(), Error> {
    if vault.master_key_id() == id {
        return Err(Error::Encrypts(id.to_owned()));
    }
    refuse_retired(store, &vault.master_key_id()).await?;
    Ok(store.retire_master_key(id, now).await?)
}
