//! What can go wrong with a store.

use crate::{clock::Instant, project::ProjectId};

/// What can go wrong with a store, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No project has this id.
    #[error("there is no project '{id}'{}", nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    UnknownProject {
        /// The id asked for.
        id: ProjectId,
        /// The most similar id there is, if any is similar.
        nearest: Option<ProjectId>,
    },
    /// A project has this id already.
    #[error("project '{0}' exists already; 'catalog-sync project set-key {0}' replaces its key")]
    ProjectExists(ProjectId),
    /// The project is paused.
    #[error("project '{0}' is paused; 'catalog-sync project resume {0}' resumes it")]
    Paused(ProjectId),
    /// Another worker has the project.
    #[error(
        "project '{project}' is being synced by another worker; try again when that is done: its lease lasts until {until}"
    )]
    Leased {
        /// The project.
        project: ProjectId,
        /// Until when the lease lasts, unless it is renewed.
        until: Instant,
    },
    /// The lease went to another worker: nothing was written.
    #[error(
        "the lease on project '{project}' (epoch {epoch}) was lost: another worker took it over, or the project's key was replaced; nothing of this run was written"
    )]
    LeaseLost {
        /// The project.
        project: ProjectId,
        /// The epoch that is no longer current.
        epoch: i64,
    },
    /// The process was asked to stop before the run was done; nothing of it was written.
    #[error("stopped before it was done; nothing of this run was written")]
    Stopped,
    /// No master key of this id was ever at hand.
    #[error(
        "no master key '{0}' is known to this database; 'catalog-sync master-key list' shows those that are"
    )]
    UnknownMasterKey(String),
    /// Keys are sealed with the master key.
    #[error(
        "the master key '{id}' still seals {api_keys} API key{}; 'catalog-sync master-key rotate' seals them with the first one", if *api_keys == 1 { "" } else { "s" }
    )]
    MasterKeyInUse {
        /// Its id.
        id: String,
        /// How many.
        api_keys: u64,
    },
    /// Nothing may be sealed with the master key any more.
    #[error(
        "the master key '{0}' was retired, and nothing is sealed with it any more: put another key first (this process may have read \
         the master keys before that)"
    )]
    MasterKeyRetired(String),
    /// The change log does not reach back to the instant asked for: what was before was deleted.
    #[error(
        "the change log of project '{project}' can tell what was from {since} on: what is older was deleted"
    )]
    BeforeTheLog {
        /// The project.
        project: ProjectId,
        /// The first instant of which it can tell.
        since: Instant,
    },
    /// The database was made by a newer version.
    #[error(
        "the database has schema {applied}, and this catalog-sync knows schemas up to {known}: upgrade catalog-sync"
    )]
    NewerSchema {
        /// The newest migration applied.
        applied: i64,
        /// The newest migration this version has.
        known: i64,
    },
    /// The database lacks migrations.
    #[error("the database has schema {applied} and needs {known}: run 'catalog-sync migrate'")]
    OlderSchema {
        /// The newest migration applied.
        applied: i64,
        /// The newest migration this version has.
        known: i64,
    },
    /// The database cannot be used as it is: the sentence says why and what to do.
    #[error("{0}")]
    Unusable(String),
    /// The database cannot be reached or is locked: the sentence says which and what to do. Trying again can help.
    #[error("{0}")]
    Unavailable(String),
    /// A row holds what this version cannot read.
    #[error("{what} in the database cannot be read: {why}")]
    Unreadable {
        /// Which value of which row.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else that the database says.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

// Not `#[from]`: that would make it the source too, and a chain that is printed would say it twice.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Error {
    /// A stable name, for logs and for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownProject { .. } => "unknown_project",
            Self::ProjectExists(_) => "project_exists",
            Self::Paused(_) => "project_paused",
            Self::Leased { .. } => "project_leased",
            Self::LeaseLost { .. } => "lease_lost",
            Self::UnknownMasterKey(_) => "unknown_master_key",
            Self::MasterKeyInUse { .. } => "master_key_in_use",
            Self::MasterKeyRetired(_) => "master_key_retired",
            Self::BeforeTheLog { .. } => "before_the_log",
            Self::NewerSchema { .. } => "newer_schema",
            Self::OlderSchema { .. } => "older_schema",
            Self::Unusable(_) => "database_unusable",
            Self::Unavailable(_) => "database_unavailable",
            Self::Unreadable { .. } => "database_unreadable",
            Self::Stopped => "stopped",
            Self::Database(_) => "database_failed",
        }
    }
}
