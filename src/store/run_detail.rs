//! The parts of a run's record that have no column of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Counts, HoldSummary, Kind},
    clock::Instant,
    diagnosis::Diagnosis,
    run::Run,
};

/// What the column `detail` of the view `sync_runs` holds, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct RunDetail {
    pub(super) covered: BTreeSet<Kind>,
    pub(super) listed: BTreeMap<Kind, usize>,
    pub(super) failures: BTreeMap<Kind, Diagnosis>,
    pub(super) error: Option<Diagnosis>,
    pub(super) counts: Counts,
    pub(super) hold: Option<HoldSummary>,
    pub(super) resume_at: Option<Instant>,
}

impl RunDetail {
    pub(super) fn of(run: &Run) -> Self {
        Self {
            covered: run.covered.clone(),
            listed: run.listed.clone(),
            failures: run.failures.clone(),
            error: run.error.clone(),
            counts: run.counts.clone(),
            hold: run.hold.clone(),
            resume_at: run.resume_at,
        }
    }
}
