//! How all projects fare together: what `status` and the metrics begin with.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Serialize;

use super::Status;
use crate::{clock::Instant, project::ProjectId, run::Outcome};

/// The ages by which projects are counted.
pub const AGES: [TimeDelta; 8] = [
    TimeDelta::hours(1),
    TimeDelta::hours(2),
    TimeDelta::hours(3),
    TimeDelta::hours(6),
    TimeDelta::hours(12),
    TimeDelta::days(1),
    TimeDelta::days(2),
    TimeDelta::days(7),
];

/// More changes than these that a broker was not told of are not counted.
pub const UNTOLD_COUNTED: u64 = 100_000;

/// How all projects fare. A project that is paused is in [`Fleet::paused`] and counted nowhere else but among holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// When this was read.
    pub read_at: Instant,
    /// Projects that were synced since the last slot of their schedule but one.
    pub fresh: u64,
    /// Projects that were not: they have missed two slots in a row.
    pub stale: u64,
    /// Projects that were added since then, and not synced yet.
    pub new: u64,
    /// Projects that are paused.
    pub paused: u64,
    /// Projects whose last run could not list everything, by its error code.
    pub failing: BTreeMap<String, u64>,
    /// Projects that are left alone because their runs lose their workers.
    pub set_aside: u64,
    /// Projects with removals that are held, and how many those are.
    pub held: u64,
    /// How many removals are held in all of them.
    pub held_removals: u64,
    /// How long ago projects were last synced.
    pub ages: Ages,
    /// The stalest of those that are stale, up to the number asked for; without those whose last run says why, and that it will not pass
    /// by itself. These are failing.
    pub stalest: Vec<Stalest>,
    /// Of [`Fleet::failing`], up to the number asked for: first those that will not pass by themselves, those that broke last at
    /// the head, so that what is new is named however much is old.
    pub failing_projects: Vec<FailingProject>,
    /// The newest of [`Fleet::held`], up to the number asked for.
    pub held_projects: Vec<HeldProject>,
    /// Projects with a request that waits or is under way.
    pub pending: u64,
    /// Since when the request waits that could have been claimed the longest.
    pub ready_since: Option<Instant>,
    /// Keys that had no more of their hourly budget left than is left to others, by an answer within the hour.
    pub spent_keys: u64,
    /// What brokers are to be told.
    pub outboxes: Vec<Outbox>,
    /// The daemons that were heard of within the last minute, by name.
    pub workers: Vec<Worker>,
}

/// How long ago projects were last synced; of those that never were, how long ago they were added. Paused ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ages {
    /// How many projects.
    pub projects: u64,
    /// The sum of their ages in seconds.
    pub seconds: u64,
    /// When the stalest of them was last synced, or else added.
    pub oldest: Option<Instant>,
    /// How many of them are as old as each of [`AGES`] or younger.
    pub up_to: [u64; AGES.len()],
}

/// A project that is stale.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stalest {
    pub project_id: ProjectId,
    /// When it was last synced, or else added.
    pub since: Instant,
}

/// A project whose last run could not list everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FailingProject {
    pub project_id: ProjectId,
    pub error_code: String,
}

/// A project with removals that are held.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct HeldProject {
    pub project_id: ProjectId,
    pub removals: u64,
}

/// What one broker is to be told of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outbox {
    /// The broker.
    pub sink: String,
    /// How many revisions it was not told of, or [`UNTOLD_COUNTED`].
    pub untold: u64,
    /// When the first of them was written.
    pub oldest_at: Option<Instant>,
}

/// A daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// Its name: host and process id.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Instant,
    /// When it last said that it is at work.
    pub seen_at: Instant,
}

/// What a project is in a word, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Left alone because its runs lose their workers.
    SetAside,
    /// Its last run listed nothing.
    Failing,
    /// Removals are held.
    Held,
    /// Its last run could not list everything.
    Partial,
    /// It has missed two slots of its schedule in a row.
    Stale,
    /// Not synced yet.
    New,
    /// Synced as it should be.
    Fresh,
    /// Paused.
    Paused,
}

impl Condition {
    /// Of a project that is stale when it was last synced before `stale_before`.
    #[must_use]
    pub fn of(status: &Status, stale_before: Instant) -> Self {
        let since = status.last_success_at.unwrap_or(status.project.created_at);
        match status.outcome {
            _ if status.project.paused_at.is_some() => Self::Paused,
            _ if status.set_aside_at.is_some() => Self::SetAside,
            Some(Outcome::Failed) => Self::Failing,
            _ if status.hold.is_some() => Self::Held,
            Some(Outcome::Partial) => Self::Partial,
            _ if since < stale_before => Self::Stale,
            _ if status.last_success_at.is_none() => Self::New,
            Some(Outcome::Succeeded | Outcome::Held) | None => Self::Fresh,
        }
    }
}
