//! What happens by the clock: projects fall due, and the house is kept.
//!
//! tokio-cron-scheduler gives the ticks, in UTC. What is due stands in rows: a tick that is late, lost or doubled does no harm.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::{
    LONGEST_SILENCE, Shared,
    clocks::{Clocks, SET_BACK},
    pulse::Beat,
};
use crate::{clock, schedule::Schedule, store};

/// How many projects are looked at in one transaction.
const BATCH: u32 = 500;

/// When no tick comes for so long, the loops go round without.
const WITHOUT_TICKS: Duration = Duration::from_secs(90);

/// A broker that no worker has named for so long is not told of changes any more.
const SINK_FORGOTTEN: TimeDelta = TimeDelta::days(7);

/// How often the database is told that this worker is at work.
const BETWEEN_NOTES: Duration = Duration::from_secs(15);

/// How long it may take to tell the database of it.
const NOTED_WITHIN: Duration = Duration::from_secs(2);

/// The ticks.
#[derive(Default)]
struct Ticks {
    /// Every five seconds: whether a project is due.
    due: Arc<Notify>,
    /// Every minute: the house.
    minute: Arc<Notify>,
    /// Every hour: whether appointments are still what the schedule says.
    hour: Arc<Notify>,
}

pub(super) async fn run(shared: Arc<Shared>, sinks: Vec<&'static str>) {
    let ticks = Ticks::default();
    let scheduler = match start(&ticks).await {
        Ok(scheduler) => scheduler,
        Err(error) => {
            tracing::warn!(event = "ticks.failed", error.sentence = %error, "the schedule goes on at a slower pace");
            None
        }
    };
    tokio::join!(
        issue(&shared, &ticks),
        keep_appointments(&shared, &ticks),
        keep_house(&shared, &ticks, &sinks),
        say_at_work(&shared)
    );
    if let Some(mut scheduler) = scheduler
        && let Err(error) = scheduler.shutdown().await
    {
        tracing::debug!(event = "ticks.not_stopped", error.sentence = %error, "the process ends anyhow");
    }
}

/// None in a simulation: ticks come by the machine's clock.
async fn start(ticks: &Ticks) -> Result<Option<JobScheduler>, JobSchedulerError> {
    #[cfg(feature = "simulator")]
    if clock::simulated::is_on() {
        return Ok(None);
    }
    let scheduler = JobScheduler::new().await?;
    for (cron, tick) in [
        ("*/5 * * * * *", &ticks.due),
        ("30 * * * * *", &ticks.minute),
        ("0 30 * * * *", &ticks.hour),
    ] {
        let tick = Arc::clone(tick);
        let job = Job::new(cron, move |_, _| tick.notify_one())?;
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    Ok(Some(scheduler))
}

/// Waits for a tick; false when it is time to stop.
async fn tick(shared: &Shared, tick: &Notify, at_most: Duration) -> bool {
    tokio::select! {
        biased;
        () = shared.stop().cancelled() => false,
        _ = tokio::time::timeout(at_most, tick.notified()) => true,
    }
}

/// Asks for the syncs of projects that are due.
async fn issue(shared: &Shared, ticks: &Ticks) {
    let beat = shared.pulse.register("schedule", LONGEST_SILENCE);
    loop {
        beat.beat();
        let (schedule, blocked_every) = {
            let settings = shared.settings.borrow();
            (settings.schedule.clone(), settings.blocked_every)
        };
        match issue_due(shared, &beat, &schedule, blocked_every).await {
            // It was a transaction that may write: a database that only answers questions would have refused it.
            Ok(()) => {
                shared.database.works();
                shared.readiness.database_answered();
            }
            Err(error) => shared.database.failed(&error),
        }
        if !tick(shared, &ticks.due, WITHOUT_TICKS).await {
            return;
        }
    }
}

async fn issue_due(
    shared: &Shared,
    beat: &Beat,
    schedule: &Schedule,
    blocked_every: Duration,
) -> Result<(), store::Error> {
    loop {
        beat.beat();
        let now = clock::now();
        let issued = shared
            .engine
            .store
            .issue_slots(schedule, now - blocked_every, BATCH, now)
            .await?;
        if issued.asked > 0 {
            shared.work.notify_one();
        }
        for (id, why) in &issued.unreadable {
            tracing::error!(
                event = "project.unreadable",
                project.id = %id,
                error.sentence = why,
                "it gets no slot as it is; it is looked at again later"
            );
        }
        if issued.due > 0 {
            tracing::debug!(
                event = "slots.issued",
                due = issued.due,
                asked = issued.asked,
                passed_over = issued.passed_over,
                "projects fell due"
            );
        }
        if issued.due < BATCH as usize || shared.stop().is_cancelled() {
            return Ok(());
        }
    }
}

/// Sets appointments anew when the schedule was changed or the clock set back, and looks them over at the start and every hour.
async fn keep_appointments(shared: &Shared, ticks: &Ticks) {
    let mut settings = shared.settings.clone();
    let mut clocks = Clocks::read();
    let (mut is_due, mut is_roused) = (true, true);
    let mut schedule = settings.borrow_and_update().schedule.clone();
    let beat = shared.pulse.register("appointments", LONGEST_SILENCE);
    loop {
        beat.beat();
        if !is_roused {
            match rouse(shared).await {
                Ok(()) => is_roused = true,
                Err(error) => shared.database.failed(&error),
            }
        }
        if is_due {
            match reschedule(shared, &schedule).await {
                Ok(()) => is_due = false,
                Err(error) => shared.database.failed(&error),
            }
        }
        tokio::select! {
            biased;
            () = shared.stop().cancelled() => return,
            () = ticks.hour.notified() => is_due = true,
            changed = settings.changed() => {
                if changed.is_err() {
                    // Nobody can set anything any more.
                    shared.stop().cancelled().await;
                    return;
                }
                let new = settings.borrow_and_update().schedule.clone();
                is_due |= new != schedule;
                schedule = new;
            }
            () = tokio::time::sleep(Duration::from_secs(5)) => {
                let now = Clocks::read();
                if let Some(by) = clocks.set_back(&now) {
                    tracing::warn!(
                        event = "clock.set_back",
                        by_ms = by.num_milliseconds(),
                        "appointments are looked over, and nothing waits for the old time"
                    );
                    is_due = true;
                    is_roused = false;
                }
                clocks = now;
            }
        }
    }
}

/// Where the database has a clock of its own that this one now disagrees with, this one is wrong, and nothing is touched.
async fn rouse(shared: &Shared) -> Result<(), store::Error> {
    let store = &shared.engine.store;
    let now = clock::now();
    let database = store.look(now).await?.clock;
    let is_wrong = database.is_some_and(|at| (now - at).abs() > SET_BACK);
    if is_wrong {
        return Ok(());
    }
    store.rouse(shared.engine.lease, now).await
}

async fn reschedule(shared: &Shared, schedule: &Schedule) -> Result<(), store::Error> {
    let mut after = None;
    loop {
        after = shared
            .engine
            .store
            .reschedule(schedule, after.as_ref(), BATCH, clock::now())
            .await?;
        if after.is_none() || shared.stop().is_cancelled() {
            return Ok(());
        }
    }
}

/// Notes that this worker is at work, for those who ask which are.
pub(super) async fn note_at_work(shared: &Shared) {
    let store = &shared.engine.store;
    let noted = store.note_worker(env!("CARGO_PKG_VERSION"), shared.started_at, clock::now());
    // It is for people: nothing waits for it, a stop least of all.
    let noted = tokio::select! {
        biased;
        () = shared.stop().cancelled() => return,
        noted = tokio::time::timeout(NOTED_WITHIN, noted) => noted,
    };
    if let Ok(Err(error)) = noted {
        shared.database.failed(&error);
    }
}

/// Goes on noting it, and at the end that it is no more.
async fn say_at_work(shared: &Shared) {
    let store = &shared.engine.store;
    while !shared.stopped_within(BETWEEN_NOTES).await {
        note_at_work(shared).await;
    }
    // A database that is silent is not waited for: the stop is to be quick, and who is not heard of counts as gone.
    if !matches!(
        tokio::time::timeout(NOTED_WITHIN, store.forget_worker()).await,
        Ok(Ok(()))
    ) {
        tracing::debug!(
            event = "worker.not_forgotten",
            "the database keeps it as one that is not heard of"
        );
    }
}

async fn keep_house(shared: &Shared, ticks: &Ticks, sinks: &[&'static str]) {
    let beat = shared.pulse.register("house", 2 * LONGEST_SILENCE);
    while tick(shared, &ticks.minute, WITHOUT_TICKS).await {
        beat.beat();
        name_sinks(shared, sinks).await;
    }
}

/// Names the brokers that are to be told of changes; whether that was done.
pub(super) async fn name_sinks(shared: &Shared, sinks: &[&'static str]) -> bool {
    let now = clock::now();
    let named = shared
        .engine
        .store
        .name_sinks(sinks, now - SINK_FORGOTTEN, now)
        .await;
    match named {
        Ok(forgotten) => {
            for sink in forgotten {
                tracing::warn!(
                    event = "sink.forgotten",
                    sink,
                    "no worker has named it for a week; what it was not told of is in catalog_changes alone"
                );
            }
            true
        }
        Err(error) => {
            shared.database.failed(&error);
            false
        }
    }
}
