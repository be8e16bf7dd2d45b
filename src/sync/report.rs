//! What a run did, and the lines that tell of it.

use std::collections::BTreeSet;

use crate::{
    catalog::{self, ChangeSet, Hold, Plan},
    project::ProjectId,
    run::{Outcome, Run},
    store::Committed,
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
    /// The catalog's revision, and how many rows it took.
    pub committed: Committed,
}

impl Report {
    /// The one line that tells what this run did. `reason` is why it was asked for, in the words of who asked.
    pub(super) fn log(&self, id: &ProjectId, held_before: Option<&Hold>, reason: Option<&str>) {
        let Self {
            run,
            epoch,
            plan,
            committed,
        } = self;
        log_unforeseen(id, plan.changes());
        let total = run.counts.total();
        let held = run.hold.as_ref().map_or(0, |hold| hold.removals.len());
        if let Some(hold) = run
            .hold
            .as_ref()
            .filter(|hold| held_before.is_none_or(|before| before.digest != hold.digest))
        {
            tracing::error!(
                event = "removals.held",
                project.id = %id,
                run.id = %run.id,
                hold.digest = %hold.digest,
                held,
                reason = %hold,
                "removals are held; 'catalog-sync approve {id} {}' lets them through",
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

/// Tells of what Apple sent that this version does not know. It is kept, and told when it first comes.
fn log_unforeseen(id: &ProjectId, changes: &ChangeSet) {
    let mut told = BTreeSet::new();
    for change in changes {
        let Some(after) = change.after() else {
            continue;
        };
        for (attribute, value) in catalog::unforeseen(after) {
            let before = change
                .before()
                .and_then(|before| before.attributes.get(attribute));
            if before != Some(value) && told.insert((after.key.kind, attribute, value.to_string()))
            {
                tracing::warn!(
                    event = "value.unforeseen",
                    project.id = %id,
                    kind = %after.key.kind,
                    attribute,
                    %value,
                    "Apple sent a value that this version does not know; it is kept as it is"
                );
            }
        }
    }
}
