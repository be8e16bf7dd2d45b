//! What a run did, and the lines that tell of it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::Error;
use crate::{
    budget::Budget,
    catalog::{self, Absence, ChangeSet, Counts, Hold, Key, Kind, Plan, Tally, Unforeseen},
    project::ProjectId,
    run::{HoldEnd, Outcome, Run, Timings, Trigger},
    store::{Claim, Committed, Seen, State},
    telemetry::{at as told_at, ms},
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

/// A run that left no record, for the line that tells of it in place of a report.
#[derive(Clone, Copy, Debug)]
pub struct Unrecorded<'a> {
    /// Whose it was.
    pub project: &'a ProjectId,
    /// What asked for it.
    pub trigger: Trigger,
    /// The epoch of its lease, where that is known.
    pub epoch: Option<i64>,
    /// Who had it in hand.
    pub worker: &'a str,
    /// How long it took.
    pub lasted: Duration,
}

impl Report {
    /// The one line that tells what this run did; before it, what of it is news to a person.
    pub(super) fn log(&self, claim: &Claim, budget: Option<Budget>, worker: &str) {
        let id = &claim.project.id;
        log_unforeseen(id, &self.committed.unforeseen);
        self.log_hold(id, &claim.state);
        self.close(claim, budget, worker);
    }

    fn log_hold(&self, id: &ProjectId, state: &State) {
        let run = &self.run;
        let held_before = state.hold.as_ref();
        if let (Some(ended), Some(before)) = (self.hold_ended, held_before) {
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
        if let Some(hold) = self.hold.as_ref().filter(|hold| is_untold || is_new(hold)) {
            tracing::error!(
                event = "removals.held",
                project.id = %id,
                run.id = %run.id,
                hold.digest = %hold.digest,
                hold.reason = %hold,
                held = run.hold.as_ref().map_or(0, |hold| hold.removals),
                "removals are held; 'catalog-sync holds {id}' shows them, 'catalog-sync approve {id} {}' lets them \
                 through, 'catalog-sync discard {id} {}' keeps the things",
                hold.digest,
                hold.digest
            );
        }
    }

    fn close(&self, claim: &Claim, budget: Option<Budget>, worker: &str) {
        let Self {
            run,
            epoch,
            plan: _,
            hold: _,
            hold_ended: _,
            waiting,
            committed,
            timings,
        } = self;
        let error = run.error.as_ref();
        let request = claim.request.as_ref();
        let total = run.counts.total();
        let of = |kind| Told::of(&run.counts, kind);
        let in_app_purchase = of(Kind::InAppPurchase);
        let subscription_group = of(Kind::SubscriptionGroup);
        let subscription = of(Kind::Subscription);
        let grace_period = of(Kind::GracePeriod);
        macro_rules! closing {
            ($level:ident) => {
                tracing::$level!(
                    event = "sync.finished",
                    project.id = %claim.project.id,
                    run.id = %run.id,
                    trigger.kind = %run.trigger,
                    reason = request.and_then(|request| request.reason.as_deref()),
                    slot_at = run.slot_at.map(told_at),
                    outcome = %run.outcome,
                    error.code = error.map(|error| error.code.as_str()),
                    error.sentence = error.map(|error| error.sentence.as_str()),
                    error.advice = error.map(|error| error.advice.as_str()),
                    not_listed = not_listed(run),
                    added = total.added,
                    updated = total.updated,
                    removed = total.removed,
                    restored = total.restored,
                    in_app_purchase.added = in_app_purchase.added,
                    in_app_purchase.updated = in_app_purchase.updated,
                    in_app_purchase.removed = in_app_purchase.removed,
                    in_app_purchase.restored = in_app_purchase.restored,
                    subscription_group.added = subscription_group.added,
                    subscription_group.updated = subscription_group.updated,
                    subscription_group.removed = subscription_group.removed,
                    subscription_group.restored = subscription_group.restored,
                    subscription.added = subscription.added,
                    subscription.updated = subscription.updated,
                    subscription.removed = subscription.removed,
                    subscription.restored = subscription.restored,
                    grace_period.added = grace_period.added,
                    grace_period.updated = grace_period.updated,
                    grace_period.removed = grace_period.removed,
                    grace_period.restored = grace_period.restored,
                    held = run.hold.as_ref().map_or(0, |hold| hold.removals),
                    missing = run.missing,
                    waiting = waiting.len(),
                    requests = run.cost.requests,
                    retries = run.cost.retries,
                    throttled = run.cost.throttled,
                    bytes = run.cost.bytes,
                    budget_left = budget.map(|budget| budget.left),
                    budget_limit = budget.map(|budget| budget.limit),
                    rows_written = committed.rows,
                    revision = committed.revision,
                    epoch,
                    worker,
                    queued_ms = run.requested_at.map(|at| (run.started_at - at).num_milliseconds().max(0)),
                    upstream_ms = ms(timings.upstream),
                    database_ms = ms(timings.database),
                    duration_ms = ms(timings.total),
                    "{}: {}",
                    claim.project.id,
                    told(run)
                )
            };
        }
        match (run.outcome, error) {
            (Outcome::Succeeded | Outcome::Held, _) => closing!(info),
            (Outcome::Partial | Outcome::Failed, Some(error)) if error.code.needs_a_person() => {
                closing!(error);
            }
            (Outcome::Partial | Outcome::Failed, _) => closing!(warn),
        }
    }
}

impl Unrecorded<'_> {
    /// Why it did not happen, or left no record.
    pub fn log(&self, error: &Error) {
        let Self {
            project,
            trigger,
            epoch,
            worker,
            lasted,
        } = self;
        if matches!(error, Error::Stopped) {
            tracing::info!(
                event = "sync.given_back",
                project.id = %project,
                trigger.kind = %trigger,
                epoch,
                worker,
                duration_ms = ms(*lasted),
                "{project}: stopped before it was done; it is still to be done"
            );
            return;
        }
        macro_rules! aborted {
            ($level:ident) => {
                tracing::$level!(
                    event = "sync.aborted",
                    project.id = %project,
                    trigger.kind = %trigger,
                    epoch,
                    worker,
                    error.code = error.code(),
                    error.sentence = %error,
                    duration_ms = ms(*lasted),
                    "{project}: not synced"
                )
            };
        }
        match error {
            // The next run mends it, or the one of who has it now.
            Error::LeaseLost { .. } | Error::Leased { .. } | Error::Unavailable(_) => {
                aborted!(warn);
            }
            _ => aborted!(error),
        }
    }

    /// It panicked. Its lease is left to run out, and counts as one that lost its worker.
    pub fn log_panic(&self, said: &str) {
        let Self {
            project,
            trigger,
            epoch,
            worker,
            lasted,
        } = self;
        tracing::error!(
            event = "sync.panicked",
            project.id = %project,
            trigger.kind = %trigger,
            epoch,
            worker,
            error.sentence = said,
            duration_ms = ms(*lasted),
            "{project}: not synced; this is a defect of catalog-sync"
        );
    }
}

/// How many entries of one kind were changed: no number in place of 0, which leaves the field out.
struct Told {
    added: Option<usize>,
    updated: Option<usize>,
    removed: Option<usize>,
    restored: Option<usize>,
}

impl Told {
    fn of(counts: &Counts, kind: Kind) -> Self {
        let Tally {
            added,
            updated,
            removed,
            restored,
        } = counts.0.get(&kind).copied().unwrap_or_default();
        let some = |count| Some(count).filter(|count| *count > 0);
        Self {
            added: some(added),
            updated: some(updated),
            removed: some(removed),
            restored: some(restored),
        }
    }
}

/// The kinds of which nothing is known after the run.
fn not_listed(run: &Run) -> Option<String> {
    let kinds = Kind::ALL.iter().filter(|kind| !run.covered.contains(kind));
    let kinds: Vec<&str> = kinds.map(|kind| kind.as_str()).collect();
    Some(kinds.join(", ")).filter(|kinds| !kinds.is_empty())
}

/// What a run came to, for people.
fn told(run: &Run) -> String {
    let (outcome, counts) = (run.outcome, &run.counts);
    match (outcome, &run.error, &run.hold) {
        (Outcome::Failed, Some(error), _) => format!("{outcome}: {}", error.sentence),
        (_, Some(error), _) => format!("{outcome}, {counts}: {}", error.sentence),
        (_, None, Some(hold)) => format!("{outcome}, {counts}: {hold}"),
        (_, None, None) => format!("{outcome}, {counts}"),
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
