//! Seals private keys for the store, and unseals them for a run.
//!
//! Each secret is encrypted with AES-256-GCM under a random data key of its own, and that data key under a master key from
//! the master key file. Both layers carry the project, the Key ID and the Issuer ID as associated data, so that a
//! ciphertext that is moved to another row, or beside another Key ID, does not open.
//!
//! What must hold throughout: keys and plaintexts live in buffers that are zeroized; no error tells anything of them; no
//! input makes it panic; what this version seals, every later one opens.
//!
//! The sealed form, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the version, 1 |
//! | 1 | n, the length of the master key's id, 1 to 32 |
//! | n | the master key's id, ASCII |
//! | 12 | nonce of the data key |
//! | 32 + 16 | the data key, encrypted with the master key, and its tag |
//! | 12 | nonce of the secret |
//! | m + 16 | the private key as PKCS#8 DER, encrypted with the data key, and its tag |
//!
//! The associated data is, each text with its length before it in four bytes, the most significant first: the text
//! `catalog-sync data key` or `catalog-sync private key`; the version byte; the project's id; the Key ID; then a byte 0
//! for no Issuer ID, or a byte 1 and the Issuer ID.

mod file;
mod keyring;
mod program;
mod sealed;
mod source;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use crate::{
    credential::{Credential, PrivateKey},
    diagnosis::{Code, Diagnosis},
    project::{ProjectId, SealedKey},
};

pub use file::{add, create, promote, retire};
use keyring::Keyring;
pub use source::{InvalidSource, Source};

/// A program is run again for its keys at most this often.
const BETWEEN_READS: Duration = Duration::from_secs(5);

/// The master keys at hand.
pub struct Vault {
    sources: Vec<Source>,
    keyring: RwLock<Arc<Keyring>>,
    reread_at: Mutex<Option<Instant>>,
}

/// The ids of its keys.
impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault")
            .field(&self.master_key_ids())
            .finish()
    }
}

/// A master key at hand, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKey {
    /// Its id.
    pub id: String,
    /// What tells it from another key of the same id.
    pub check_value: String,
    /// Where it was found.
    pub place: String,
}

/// Why the vault does not open, or a key in it does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no master key file.
    #[error(
        "there is no master key file {}: 'catalog-sync init' makes the first that vault.master_keys names. If keys are stored already, bring back the old \
         file: without it they cannot be opened", path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Others than its owner may read the master key file.
    #[error(
        "the master key file {path} can be read by others than its owner (mode {mode:03o}): chmod 600 {path}",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The master key file is not as it should be.
    #[error("{place}:{line}: {what}; a line is an id, a colon and the base64 of 32 bytes")]
    Malformed {
        /// Where it is.
        place: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it, without its content.
        what: &'static str,
    },
    /// No source holds a key.
    #[error(
        "there is no master key: {} holds no key. Bring back what it held; if that is lost for good, delete the empty file: \
         'catalog-sync init --new-master-key' makes a new one", places.join(", ")
    )]
    Empty {
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// Two sources have different keys of one id.
    #[error("{} and {} have different master keys of the id '{id}'", places[0], places[1])]
    Contradiction {
        /// The id.
        id: String,
        /// Where they are.
        places: [String; 2],
    },
    /// The variable is not set.
    #[error("the environment has no variable {name}, which is to hold the master keys")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// systemd handed over no credentials.
    #[error(
        "the master keys are to be in the credential '{name}', and $CREDENTIALS_DIRECTORY is not set: start it by systemd, with \
         LoadCredential={name}:FILE in the unit"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// The program gives no master keys.
    #[error("{place} gives no master keys: {why}")]
    Command {
        /// The source.
        place: String,
        /// Why.
        why: String,
    },
    /// A master key is not the one that the database knows by its id.
    #[error(
        "{place} has another master key '{id}' than the one that sealed keys in this database: bring the right one back; what is \
         sealed stays as it is"
    )]
    WrongMasterKey {
        /// The id.
        id: String,
        /// Where it was found.
        place: String,
    },
    /// A master key file is never overwritten.
    #[error("{} exists; it is left as it is, as stored keys cannot be opened without it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("the master key file {} cannot be {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The system gives no random bytes, or encryption fails.
    #[error("the system's cryptography failed")]
    Crypto,
    /// A key was sealed with a master key that is not at hand.
    #[error("it was sealed with the master key '{id}', which is not at hand (there are {})", known.join(", "))]
    UnknownMasterKey {
        /// The master key it needs.
        id: String,
        /// The master keys at hand.
        known: Vec<String>,
    },
    /// A key was sealed by a later version.
    #[error("it was sealed by a later version of catalog-sync (format {version})")]
    UnknownVersion {
        /// The version of its format.
        version: u8,
    },
    /// A ciphertext is damaged, or belongs to another project, Key ID or Issuer ID, or the master key is another of this id.
    #[error(
        "it was changed, or moved here from another project or Key ID, or sealed with another master key of this id"
    )]
    DoesNotOpen,
}

impl From<&Error> for Diagnosis {
    fn from(error: &Error) -> Self {
        Self::new(
            Code::KeySealed,
            format!("The stored key cannot be opened: {error}."),
        )
    }
}

impl Vault {
    /// Reads the master keys of all sources: one a line, `id:base64`, the very first of which encrypts and all of which decrypt.
    ///
    /// It may block, for as long as a program takes.
    ///
    /// # Errors
    ///
    /// When a source is missing, may be read by others, or is not of this form.
    pub fn open(sources: &[Source]) -> Result<Self, Error> {
        Ok(Self {
            keyring: RwLock::new(Arc::new(Keyring::load(sources)?)),
            sources: sources.to_owned(),
            reread_at: Mutex::default(),
        })
    }

    /// Reads the sources again, when a master key is not at hand: it may have been added meanwhile. A program is not run again at
    /// once. What is at hand stays so, also what the sources have no more.
    ///
    /// It may block, for as long as a program takes.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn look_for(&self, master_key_id: &str) -> Result<(), Error> {
        let mut reread_at = self
            .reread_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let runs_a_program = self
            .sources
            .iter()
            .any(|source| matches!(source, Source::Command(_)));
        let was_just_now = reread_at.is_some_and(|at| at.elapsed() < BETWEEN_READS);
        if self.has(master_key_id) || (runs_a_program && was_just_now) {
            return Ok(());
        }
        let read = Keyring::load(&self.sources);
        // Not from when it began: a program may take long.
        *reread_at = Some(Instant::now());
        let keyring = Arc::new(read?.keeping(&self.keyring())?);
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = keyring;
        Ok(())
    }

    /// Whether a master key is at hand.
    #[must_use]
    pub fn has(&self, master_key_id: &str) -> bool {
        self.keyring().find(master_key_id).is_some()
    }

    /// A vault with the master keys of this text.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            sources: Vec::new(),
            keyring: RwLock::new(Arc::new(Keyring::of_text(text))),
            reread_at: Mutex::default(),
        }
    }

    /// The id of the master key that encrypts.
    #[must_use]
    pub fn master_key_id(&self) -> String {
        self.keyring().first().id.clone()
    }

    /// The ids of all master keys, the one that encrypts first.
    #[must_use]
    pub fn master_key_ids(&self) -> Vec<String> {
        self.keyring().ids()
    }

    /// All master keys without their secrets, the one that encrypts first.
    ///
    /// # Errors
    ///
    /// Only when the system's cryptography fails.
    pub fn master_keys(&self) -> Result<Vec<MasterKey>, Error> {
        self.keyring()
            .places()
            .map(|(key, place)| {
                Ok(MasterKey {
                    id: key.id.clone(),
                    check_value: key.check_value()?,
                    place: place.to_owned(),
                })
            })
            .collect()
    }

    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Encrypts a private key for this project, Key ID and Issuer ID.
    ///
    /// # Errors
    ///
    /// Only when the system gives no random bytes.
    pub fn seal(&self, project: &ProjectId, credential: &Credential) -> Result<SealedKey, Error> {
        let bound = sealed::Bound {
            project: project.as_str(),
            key_id: &credential.key_id,
            issuer_id: credential.issuer_id.as_deref(),
        };
        let keyring = self.keyring();
        let master = keyring.first();
        Ok(SealedKey {
            key_id: credential.key_id.clone(),
            issuer_id: credential.issuer_id.clone(),
            master_key_id: master.id.clone(),
            sealed: sealed::seal(master, &bound, credential.private_key.der())?,
        })
    }

    /// Decrypts a private key that was sealed for this project.
    ///
    /// # Errors
    ///
    /// When the master key is not at hand, or the ciphertext is not what was sealed for this project, Key ID and Issuer ID.
    pub fn unseal(&self, project: &ProjectId, key: &SealedKey) -> Result<Credential, Error> {
        let keyring = self.keyring();
        let (parts, master) = take_apart(&keyring, key)?;
        Ok(Credential {
            key_id: key.key_id.clone(),
            issuer_id: key.issuer_id.clone(),
            private_key: PrivateKey::from_sealed(parts.open(master, &bound(project, key))?),
        })
    }

    /// Seals a sealed key anew, with the master key that encrypts. The private key itself is not decrypted: its data key is.
    ///
    /// # Errors
    ///
    /// As [`Self::unseal`], but for damage to the private key's own ciphertext, which is carried over as it is.
    pub fn reseal(&self, project: &ProjectId, key: &SealedKey) -> Result<SealedKey, Error> {
        let keyring = self.keyring();
        let (parts, master) = take_apart(&keyring, key)?;
        let first = keyring.first();
        Ok(SealedKey {
            master_key_id: first.id.clone(),
            sealed: parts.rewrap(master, first, &bound(project, key))?,
            ..key.clone()
        })
    }
}

fn bound<'a>(project: &'a ProjectId, key: &'a SealedKey) -> sealed::Bound<'a> {
    sealed::Bound {
        project: project.as_str(),
        key_id: &key.key_id,
        issuer_id: key.issuer_id.as_deref(),
    }
}

fn take_apart<'a>(
    keyring: &'a Keyring,
    key: &'a SealedKey,
) -> Result<(sealed::Parts<'a>, &'a keyring::MasterKey), Error> {
    let parts = sealed::Parts::parse(&key.sealed)?;
    if parts.master_key_id != key.master_key_id {
        return Err(Error::DoesNotOpen);
    }
    let master = keyring
        .find(parts.master_key_id)
        .ok_or_else(|| Error::UnknownMasterKey {
            id: key.master_key_id.clone(),
            known: keyring.ids(),
        })?;
    Ok((parts, master))
}

#[cfg(test)]
mod tests;
