//! How long what is old is kept, and how it is deleted for good: a few rows at a time.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// How many days what is old is kept; 0 for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Entries that were removed.
    pub removed_days: u32,
    /// Changes that later ones of the same entry overwrote, and holds that ended.
    pub changes_days: u32,
    /// Records of runs.
    pub runs_days: u32,
    /// Requests of the host that named no project.
    pub requests_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            removed_days: 365,
            changes_days: 0,
            runs_days: 90,
            requests_days: 30,
        }
    }
}

impl Retention {
    /// The fewest days for which removed entries and changes can be kept, unless for ever.
    pub const LEAST_DAYS: u32 = 30;

    /// From before when that is to be deleted, if it is not kept for ever.
    #[must_use]
    pub fn cutoff(&self, old: Old, now: Instant) -> Option<Instant> {
        let days = match old {
            Old::Entries => self.removed_days,
            Old::Changes | Old::Holds => self.changes_days,
            Old::Runs => self.runs_days,
            Old::Requests => self.requests_days,
        };
        (days > 0)
            .then(|| now.checked_sub_signed(TimeDelta::days(days.into())))
            .flatten()
    }
}

/// What is deleted once it is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Old {
    /// Entries that were removed. Never those that were removed less than [`Retention::LEAST_DAYS`] ago.
    Entries,
    /// Changes that a later one of the same entry overwrote before the cutoff, so that the state then and since can still be told; and
    /// removals of entries that are gone for good, once nothing comes before them. Never those of the grace period, nor what a broker is
    /// still to be told, nor a project's latest change from before the cutoff: revisions go on from it without a gap.
    Changes,
    /// Holds that ended. Never one that was discarded while its project has something that was kept: it can be taken back.
    Holds,
    /// Records of runs. Never a project's latest.
    Runs,
    /// Requests of the host that named no project.
    Requests,
}

impl Old {
    /// All of it. Entries come first: their last change can go once they are gone.
    pub const ALL: [Self; 5] = [
        Self::Entries,
        Self::Changes,
        Self::Holds,
        Self::Runs,
        Self::Requests,
    ];
}

/// Up to where a table was looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Its beginning.
    #[default]
    Start,
    /// The row with this number.
    Row(i64),
    /// The run that ended then, with this id.
    Run(Instant, String),
}

/// What one short transaction deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// How many rows.
    pub deleted: u64,
    /// After what to go on.
    pub mark: Mark,
    /// Whether nothing old comes after that.
    pub is_done: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_ever_has_no_cutoff() {
        let now = crate::clock::now();
        let retention = Retention {
            removed_days: 30,
            changes_days: 0,
            runs_days: 1,
            requests_days: u32::MAX,
        };
        let cutoffs = Old::ALL.map(|old| retention.cutoff(old, now));
        let days = |days| Some(now - TimeDelta::days(days));
        assert_eq!(cutoffs, [days(30), None, None, days(1), None]);
    }
}
