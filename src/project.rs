//! A customer of the host: its id, its app, and the key it handed over.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

use crate::{catalog::OwnLimits, clock::Instant, schedule::Cron};

/// The host's name for a project: 1 to 64 of letters, digits, `.`, `_` and `-`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(String);

/// Why a text is no project id.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' cannot be a project id: use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
)]
pub struct InvalidProjectId(String);

impl ProjectId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectId {
    type Err = InvalidProjectId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidProjectId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ProjectId {
    type Error = InvalidProjectId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The app whose catalog a project keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The App Store ID, a numeric string.
    pub id: String,
    /// The bundle id.
    pub bundle_id: String,
    /// The name in App Store Connect.
    pub name: String,
}

/// A customer of the host, without its key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Project {
    /// The host's name for it.
    pub id: ProjectId,
    /// Its app.
    pub app: App,
    /// The Key ID of the API key in use.
    pub key_id: String,
    /// The Issuer ID of the API key in use; none for an individual key.
    pub issuer_id: Option<String>,
    /// When it is due, if not by the schedule of all.
    #[serde(serialize_with = "as_written")]
    pub cron: Option<Cron>,
    /// The limits of its own by which its removals are held.
    pub guard: OwnLimits,
    /// Since when scheduled and requested syncs leave it alone, if they do.
    pub paused_at: Option<Instant>,
    /// When it was added.
    pub created_at: Instant,
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn as_written<S: Serializer>(cron: &Option<Cron>, serializer: S) -> Result<S::Ok, S::Error> {
    cron.as_ref().map(ToString::to_string).serialize(serializer)
}

/// A private key as the store keeps it: sealed, with the public parts that it is bound to.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// The Key ID.
    pub key_id: String,
    /// The Issuer ID; none for an individual key.
    pub issuer_id: Option<String>,
    /// The id of the master key that wraps it.
    pub master_key_id: String,
    /// The ciphertext, in the vault's format.
    pub sealed: Vec<u8>,
}

/// Without the ciphertext, which tells nobody anything.
impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedKey")
            .field("key_id", &self.key_id)
            .field("issuer_id", &self.issuer_id)
            .field("master_key_id", &self.master_key_id)
            .finish_non_exhaustive()
    }
}
