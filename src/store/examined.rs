//! What a database is, for those who look after it.

use serde::Serialize;

use crate::clock::Instant;

/// A database as [`super::Store::examine`] found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examined {
    /// What it runs on, such as `PostgreSQL 15.14`.
    pub server: String,
    /// What time it is there, where it has a clock of its own.
    pub clock: Option<Instant>,
    /// How a file keeps its journal.
    pub journal: Option<String>,
    /// The disk that a file is on.
    pub disk: Option<Disk>,
    /// Rights that this user needs and lacks, such as `insert on changes`.
    pub lacks: Vec<String>,
}

/// The disk that a file is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its file system, such as `ext4`; the number that the system gives it, for one that has no name here.
    pub file_system: String,
    /// How much room there is for this user.
    pub free_bytes: u64,
}

/// A migration that this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
}

/// A migration that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub migration: Migration,
    /// The how manieth of those to be applied it is; 1 for the first.
    pub number: usize,
    /// How many are to be applied.
    pub of: usize,
}
