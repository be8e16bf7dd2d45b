//! What a store knows of master keys: never the keys.

use crate::{
    clock::Instant,
    project::{ProjectId, SealedKey},
};

/// A master key that keys are or were sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMasterKey {
    /// Its id.
    pub id: String,
    /// What tells it from another key of its id; none until it was at hand once.
    pub check_value: Option<String>,
    /// How many API keys are sealed with it.
    pub api_keys: u64,
    /// When it was at hand for the first time.
    pub first_seen_at: Option<Instant>,
    /// Since when nothing may be sealed with it.
    pub retired_at: Option<Instant>,
}

/// Which sealed keys.
#[derive(Clone, Copy, Debug)]
pub enum SealedWith<'a> {
    /// Those sealed with this master key.
    This(&'a str),
    /// Those sealed with any other.
    AnyBut(&'a str),
}

/// A sealed key, and what is to stand in its place.
#[derive(Clone, Debug)]
pub struct Resealed {
    /// Whose it is.
    pub project: ProjectId,
    /// As it was read.
    pub before: SealedKey,
    /// The same private key under another master key.
    pub after: SealedKey,
}
