//! What a run did, and the lines that tell of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    catalog::{self, Absence, ChangeSet, Hold, Key, Plan, Unforeseen},
    project::ProjectId,
    run::{HoldEnd, Outcome, Run, Timings, Trigger},
    store::{Committed, Seen, State},
};

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its record.
    pub run: Run,
    /// The lease epoch under which it wrote.
    pub epoch: i64,
    /// What was written.
    pub plan: Plan,
    /// What is held back after it.
    pub hold: Option<Hold>,
    /// How the hold ended that stood before, if it did.
    pub hold_ended: Option<HoldEnd>,
    /// What is not listed and stays, being neither held nor kept.
    pub waiting: Vec<Waiting>,
    /// The catalog's revision, and how many rows it took.
    pub committed: Committed,
    /// Where its time went.
    pub timings: Timings,
}

/// A thing that is not listed and stays: it waits until its absence is confirmed, or App Store Connect says that it is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// What it is.
    #[serde(flatten)]
    pub key: Key,
    /// Its product id, where it has one.
    pub product_id: Option<String>,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What is known of its absence.
    #[serde(flatten)]
    pub absence: Absence,
}

impl Report {
    /// The one line that tells what this run did. `reason` is why it was asked for, in the words of who asked.
    pub(super) fn log(&self, id: &ProjectId, state: &State, reason: Option<&str>) {
        let held_before = state.hold.as_ref();
        let Self {
            run,
            epoch,
            plan: _,
            hold,
            hold_ended,
            waiting,
            committed,
            timings: _,
        } = self;
        log_unforeseen(id, &committed.unforeseen);
        let total = run.counts.total();
        let held = run.hold.as_ref().map_or(0, |hold| hold.removals);
        if let (Some(ended), Some(before)) = (hold_ended, held_before) {
            tracing::info!(
                event = "removals.released",
                project.id = %id,
                run.id = %run.id,
                hold.digest = %before.digest,
                hold.ended = %ended,
                held = before.removals.len(),
                "a hold ended"
            );
        }
        // What was begun by hand was told to the hand alone.
        let is_untold = state.hold_is_untold && run.trigger != Trigger::Command;
        let is_new = |hold: &&Hold| held_before.is_none_or(|before| !hold.is_as(before));
        if let Some(hold) = hold.as_ref().filter(|hold| is_untold || is_new(hold)) {
            tracing::error!(
                event = "removals.held",
                project.id = %id,
                run.id = %run.id,
                hold.digest = %hold.digest,
                held,
                reason = %hold,
                "removals are held; 'catalog-sync holds {id}' shows them, 'catalog-sync approve {id} {}' lets them \
                 through, 'catalog-sync discard {id} {}' keeps the things",
                hold.digest,
                hold.digest
            );
        }
        macro_rules! closing {
            ($level:ident) => {
                tracing::$level!(
                    event = "sync.finished",
                    project.id = %id,
                    run.id = %run.id,
                    trigger.kind = %run.trigger,
                    reason,
                    slot_at = run.slot_at.map(tracing::field::display),
                    queued_ms = run.requested_at.map(|at| (run.started_at - at).num_milliseconds().max(0)),
                    outcome = %run.outcome,
                    error.code = run.error.as_ref().map(|error| error.code.as_str()),
                    error.sentence = run.error.as_ref().map(|error| error.sentence.as_str()),
                    error.advice = run.error.as_ref().map(|error| error.advice.as_str()),
                    added = total.added,
                    updated = total.updated,
                    removed = total.removed,
                    restored = total.restored,
                    held,
                    missing = run.missing,
                    waiting = waiting.len(),
                    requests = run.cost.requests,
                    retries = run.cost.retries,
                    throttled = run.cost.throttled,
                    bytes = run.cost.bytes,
                    budget_left = run.cost.budget_left,
                    rows_written = committed.rows,
                    revision = committed.revision,
                    epoch,
                    duration_ms = (run.finished_at - run.started_at).num_milliseconds(),
                    "sync finished"
                )
            };
        }
        match run.outcome {
            Outcome::Succeeded | Outcome::Held => closing!(info),
            Outcome::Partial | Outcome::Failed => closing!(warn),
        }
    }
}

/// What came that this version does not know, each once and in order, as far as it is new to its entry.
pub(super) fn unforeseen(changes: &ChangeSet) -> Vec<Seen> {
    let mut seen = BTreeMap::new();
    for change in changes {
        let Some(after) = change.after() else {
            continue;
        };
        for what in catalog::unforeseen(after) {
            let value = after.attributes.get(&what.attribute);
            let before = change.before();
            if before.and_then(|before| before.attributes.get(&what.attribute)) != value {
                seen.entry(what)
                    .or_insert_with(|| after.key.store_id.to_string());
            }
        }
    }
    seen.into_iter()
        .map(|(what, store_id)| Seen { what, store_id })
        .collect()
}

/// Tells of what no project had before.
fn log_unforeseen(id: &ProjectId, unforeseen: &[Unforeseen]) {
    for Unforeseen {
        kind,
        attribute,
        value,
    } in unforeseen
    {
        tracing::warn!(
            event = "value.unforeseen",
            project.id = %id,
            kind = %kind,
            attribute,
            value,
            "Apple sends {} that this version does not know; it is kept as it is, in every project",
            if value.is_some() { "a value" } else { "an attribute" }
        );
    }
}
