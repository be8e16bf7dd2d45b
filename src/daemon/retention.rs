//! Deletes for good what is older than it is to be kept: a pass soon after the start, and one every hour.
//!
//! What must hold throughout: a pass is many short transactions with a pause after each, so that it stands in nobody's way however
//! much there is; it goes on only while the clock can be trusted, for what is deleted by a wrong one does not come back. Several
//! workers may be at it at once: each deletes what is left.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{LONGEST_SILENCE, Shared};
use crate::{
    clock,
    store::{self, Mark, Old, Pruned},
    telemetry::ms,
};

/// How many rows are looked at in one transaction.
const BATCH: u32 = 500;

/// What a start brings goes first.
const FIRST_AFTER: Duration = Duration::from_secs(5);

const BETWEEN_PASSES: Duration = Duration::from_hours(1);

/// A pass goes on where the one before ended, and so often from the beginning: what was kept for a broker, or was not overwritten
/// yet, is looked at again.
const PASSES_TO_BEGIN_ANEW: usize = 24;

/// For other processes that wait to write to an `SQLite` file: they try again by chance.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut marks = BTreeMap::new();
    let mut wait = FIRST_AFTER;
    for number in (0..PASSES_TO_BEGIN_ANEW).cycle() {
        if shared.stopped_within(wait).await {
            return;
        }
        if number == 0 {
            marks.clear();
        }
        pass(&shared, &mut marks).await;
        wait = BETWEEN_PASSES;
    }
}

async fn pass(shared: &Shared, marks: &mut BTreeMap<Old, Mark>) {
    let began = Instant::now();
    let mut deleted = BTreeMap::<Old, u64>::new();
    for old in Old::ALL {
        let mark = marks.entry(old).or_default();
        let count = deleted.entry(old).or_default();
        if let Err(error) = prune(shared, old, mark, count).await {
            tracing::warn!(
                event = "retention.failed",
                table = table(old),
                error.sentence = %error,
                "what is old stays there for now; it is tried again in an hour"
            );
            if let store::Error::Unavailable(_) = error {
                break;
            }
        }
    }
    if deleted.values().any(|count| *count > 0) {
        let of = |old| deleted.get(&old).copied().unwrap_or_default();
        tracing::info!(
            event = "retention.pruned",
            entries = of(Old::Entries),
            changes = of(Old::Changes),
            removal_holds = of(Old::Holds),
            runs = of(Old::Runs),
            refused_requests = of(Old::Requests),
            duration_ms = ms(began.elapsed()),
            "what was older than it is to be kept is deleted"
        );
    }
}

/// Goes through a table to its end, until it is time to stop or the clock is in doubt.
async fn prune(
    shared: &Shared,
    old: Old,
    mark: &mut Mark,
    deleted: &mut u64,
) -> Result<(), store::Error> {
    let beat = shared.pulse.register("retention", LONGEST_SILENCE);
    loop {
        beat.beat();
        let pruned = tokio::select! {
            biased;
            () = shared.stop().cancelled() => return Ok(()),
            pruned = prune_page(shared, old, mark) => pruned?,
        };
        let Some(pruned) = pruned else {
            return Ok(());
        };
        *deleted += pruned.deleted;
        *mark = pruned.mark;
        if pruned.is_done || shared.stopped_within(PAUSE).await {
            return Ok(());
        }
    }
}

/// None when nothing is to be deleted, or not now.
async fn prune_page(
    shared: &Shared,
    old: Old,
    mark: &Mark,
) -> Result<Option<Pruned>, store::Error> {
    let store = &shared.engine.store;
    let retention = shared.settings.borrow().retention;
    let sight = store.look(clock::now()).await?;
    // At once, for the database's time is the one of a moment ago.
    if !shared.trusts_clock(sight.clock) {
        return Ok(None);
    }
    let now = clock::now();
    let Some(before) = retention.cutoff(old, now) else {
        return Ok(None);
    };
    let pruned = store.prune(old, before, mark, BATCH, now).await?;
    Ok(Some(pruned))
}

/// What the log calls it.
fn table(old: Old) -> &'static str {
    match old {
        Old::Entries => "entries",
        Old::Changes => "changes",
        Old::Holds => "removal_holds",
        Old::Runs => "runs",
        Old::Requests => "refused_requests",
    }
}
