//! Counts all projects now and then: for `/metrics`, and for those who watch the log alone.
//!
//! What must hold: however many projects and workers there are, the database has a multiple of the time free of it that it takes, up to
//! readings of six seconds; and a reading that fails is no outage, for syncs may well go on.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{LONGEST_SILENCE, Shared};
use crate::{
    clock,
    metrics::MOST_PROJECTS,
    store::{self, Fleet, KnownMasterKey},
    telemetry::ms,
};

/// How often they are counted where somebody may look at the numbers.
pub const FOR_METRICS: Duration = Duration::from_secs(15);

/// How often they are counted for the log alone.
pub const FOR_LOG: Duration = TOLD_EVERY;

/// How often the log tells of them.
const TOLD_EVERY: Duration = Duration::from_mins(5);

/// All workers together rest for so many times what a reading took.
const REST: u32 = 20;

/// But no worker for longer: the numbers are left out when they are five minutes old.
const LONGEST_REST: Duration = Duration::from_mins(2);

/// How often it says that it goes round.
const BETWEEN_BEATS: Duration = Duration::from_secs(10);

pub(super) async fn run(shared: Arc<Shared>, every: Duration) {
    let beat = shared.pulse.register("fleet", LONGEST_SILENCE);
    let mut told_at: Option<Instant> = None;
    let mut workers = 1;
    loop {
        beat.beat();
        let began = Instant::now();
        let read = tokio::select! {
            biased;
            () = shared.stop().cancelled() => return,
            read = read(&shared) => read,
        };
        match read {
            Ok((fleet, master_keys)) => {
                workers = u32::try_from(fleet.workers.len().max(1)).unwrap_or(u32::MAX);
                if told_at.is_none_or(|at| began - at >= TOLD_EVERY) {
                    told_at = Some(began);
                    tell(&fleet);
                }
                shared.engine.metrics.counted(fleet, master_keys);
            }
            Err(error) => tracing::warn!(
                event = "fleet.unread",
                error.sentence = %error,
                duration_ms = ms(began.elapsed()),
                "how all projects fare could not be read; it is tried again"
            ),
        }
        let rest = began.elapsed().saturating_mul(REST.saturating_mul(workers));
        let until = Instant::now() + every.max(rest.min(LONGEST_REST));
        while Instant::now() < until {
            let rest = until - Instant::now();
            if shared.stopped_within(rest.min(BETWEEN_BEATS)).await {
                return;
            }
            beat.beat();
        }
    }
}

async fn read(shared: &Shared) -> Result<(Fleet, Vec<KnownMasterKey>), store::Error> {
    let store = &shared.engine.store;
    let schedule = shared.settings.borrow().schedule.clone();
    let now = clock::now();
    let fleet = store.read_fleet(&schedule, MOST_PROJECTS, now).await?;
    Ok((fleet, store.list_master_keys().await?))
}

fn tell(fleet: &Fleet) {
    let ms_since =
        |at: Option<clock::Instant>| at.map(|at| (fleet.read_at - at).num_milliseconds().max(0));
    tracing::info!(
        event = "fleet.counted",
        projects = fleet.fresh + fleet.stale + fleet.new + fleet.paused,
        fresh = fleet.fresh,
        stale = fleet.stale,
        new = fleet.new,
        failing = fleet.failing.values().sum::<u64>(),
        held = fleet.held,
        set_aside = fleet.set_aside,
        paused = fleet.paused,
        pending = fleet.pending,
        oldest_pending_ms = ms_since(fleet.ready_since),
        oldest_success_age_ms = ms_since(fleet.ages.oldest),
        spent_keys = fleet.spent_keys,
        workers = fleet.workers.len(),
        "all projects, counted"
    );
}
