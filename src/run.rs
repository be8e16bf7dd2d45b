//! What one sync of one project did, as it is recorded, logged and shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    catalog::{Counts, HoldSummary, Kind},
    clock::Instant,
    diagnosis::Diagnosis,
};

/// What asked for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person, on the command line.
    Command,
    /// The schedule.
    Schedule,
    /// A queue message, a row the host inserted, or `catalog-sync resync`.
    Request,
    /// A run before it, which failed.
    Retry,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every kind was listed, and the catalog is as Apple listed it.
    Succeeded,
    /// Every kind was listed, and removals are held back.
    Held,
    /// Some kinds could not be listed; the others are up to date.
    Partial,
    /// Nothing could be listed; the catalog is untouched.
    Failed,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldEnd {
    /// Somebody approved it, and what it held was removed.
    Approved,
    /// Somebody decided that what it held stays.
    Discarded,
    /// What it held returned.
    Lapsed,
    /// More or less than it held was missing in a later run, which holds that.
    Replaced,
}

macro_rules! named {
    ($type:ident, $($variant:ident = $name:literal),*) => {
        impl $type {
            /// The name used in the database and in logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(UnknownName(name.to_owned())),
                }
            }
        }
    };
}

named!(
    Trigger,
    Command = "command",
    Schedule = "schedule",
    Request = "request",
    Retry = "retry"
);
named!(
    Outcome,
    Succeeded = "succeeded",
    Held = "held",
    Partial = "partial",
    Failed = "failed"
);

named!(
    HoldEnd,
    Approved = "approved",
    Discarded = "discarded",
    Lapsed = "lapsed",
    Replaced = "replaced"
);

/// A name that is no trigger's, outcome's or end's.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a name this version knows")]
pub struct UnknownName(String);

/// What a run cost upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// HTTP requests sent, every try counted.
    pub requests: u64,
    /// Those of them that repeated one before.
    pub retries: u64,
    /// Answers with status 429.
    pub throttled: u64,
    /// Bytes of response bodies, after decompression.
    pub bytes: u64,
    /// What was left of the key's hourly budget at the last answer that told.
    pub budget_left: Option<u64>,
}

/// Where the time of a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking at App Store Connect, with waits for its limits and with repeated requests.
    pub upstream: Duration,
    /// Loading the catalog and writing what the run came to.
    pub database: Duration,
    /// All of it.
    pub total: Duration,
}

/// How a key has fared, so that one refusal condemns nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHealth {
    /// When Apple last accepted it.
    pub worked_at: Option<Instant>,
    /// Since when every run was refused.
    pub refused_since: Option<Instant>,
    /// How many runs in a row were refused.
    pub refusals: u32,
}

impl KeyHealth {
    /// Of a key that Apple has just accepted.
    #[must_use]
    pub fn worked(now: Instant) -> Self {
        Self {
            worked_at: Some(now),
            refused_since: None,
            refusals: 0,
        }
    }
}

/// One run's record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Its id: a version 7 UUID.
    pub id: Uuid,
    /// What asked for it.
    pub trigger: Trigger,
    /// When it was asked for, if it was.
    pub requested_at: Option<Instant>,
    /// The slot of the schedule that it stands for, if any: a slot has one run.
    pub slot_at: Option<Instant>,
    /// When it began.
    pub started_at: Instant,
    /// When it ended.
    pub finished_at: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// The kinds that were listed completely.
    pub covered: BTreeSet<Kind>,
    /// How many entries Apple listed, by kind covered.
    pub listed: BTreeMap<Kind, usize>,
    /// What is wrong, for the kinds that were not.
    pub failures: BTreeMap<Kind, Diagnosis>,
    /// The failure that explains the run best.
    pub error: Option<Diagnosis>,
    /// What was written.
    pub counts: Counts,
    /// What is held back after this run: by it, or before it and of kinds that it could not look at.
    pub hold: Option<HoldSummary>,
    /// How many present entries the latest complete listing of their kind did not have, those held included.
    pub missing: usize,
    /// Before when another run is no use, where Apple said so.
    pub resume_at: Option<Instant>,
    /// What it cost upstream.
    pub cost: Cost,
}
