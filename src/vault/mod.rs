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

mod keyring;
mod sealed;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    credential::{Credential, PrivateKey},
    diagnosis::{Code, Diagnosis},
    project::{ProjectId, SealedKey},
};

use keyring::Keyring;
pub use keyring::create;

/// The master keys at hand.
#[derive(Debug)]
pub struct Vault {
    keyring: Keyring,
}

/// Why the vault does not open, or a key in it does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no master key file.
    #[error(
        "there is no master key file {}: 'catalog-sync init' makes one. If keys are stored already, bring back the old \
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
    #[error("{}:{line}: {what}; a line is an id, a colon and the base64 of 32 bytes", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it, without its content.
        what: &'static str,
    },
    /// The master key file holds no key.
    #[error("the master key file {} holds no key", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
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
    #[error("it was sealed with the master key '{id}', which is not in the master key file (which has {})", known.join(", "))]
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
    /// Reads the master keys: one a line, `id:base64`, the first of which encrypts and all of which decrypt.
    ///
    /// # Errors
    ///
    /// When the file is missing, may be read by others, or is not of this form.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            keyring: Keyring::load(path)?,
        })
    }

    /// A vault with the master keys of this text.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            keyring: Keyring::of_text(text),
        }
    }

    /// The id of the master key that encrypts.
    #[must_use]
    pub fn master_key_id(&self) -> &str {
        &self.keyring.first().id
    }

    /// The ids of all master keys, the one that encrypts first.
    #[must_use]
    pub fn master_key_ids(&self) -> Vec<String> {
        self.keyring.ids()
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
        let master = self.keyring.first();
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
        let bound = sealed::Bound {
            project: project.as_str(),
            key_id: &key.key_id,
            issuer_id: key.issuer_id.as_deref(),
        };
        let parts = sealed::Parts::parse(&key.sealed)?;
        if parts.master_key_id != key.master_key_id {
            return Err(Error::DoesNotOpen);
        }
        let master =
            self.keyring
                .find(parts.master_key_id)
                .ok_or_else(|| Error::UnknownMasterKey {
                    id: key.master_key_id.clone(),
                    known: self.keyring.ids(),
                })?;
        Ok(Credential {
            key_id: key.key_id.clone(),
            issuer_id: key.issuer_id.clone(),
            private_key: PrivateKey::from_sealed(parts.open(master, &bound)?),
        })
    }
}

#[cfg(test)]
mod tests;
