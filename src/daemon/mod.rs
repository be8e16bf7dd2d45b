//! The worker as a daemon: it syncs what is due and what is asked for, until it is told to stop.
//!
//! | loop | what it does |
//! |---|---|
//! | `dispatcher` | takes requests from the database, claims projects, runs them |
//! | `clockwork` | asks for the syncs of projects that are due; keeps house |
//! | `intake` | takes requests from brokers: the row is committed, then the message is acknowledged |
//! | `outbox` | tells brokers what changed |
//! | `fleet` | counts all projects, for `/metrics` and for the log |
//! | `retention` | deletes what is older than it is to be kept |
//! | [`health`], [`systemd`], [`signals`] | tell how it fares, and hear when to stop |
//!
//! What must hold throughout: rows are the truth, so that any number of daemons can share a database and any of them can die at
//! any moment; whatever is spawned is owned by [`Daemon::run`]; a database or a broker that is down is waited for, and told of
//! once a minute; nothing is begun once a stop is asked for.

mod clocks;
mod clockwork;
mod dispatcher;
pub mod fleet;
pub mod health;
mod intake;
mod outage;
mod outbox;
pub mod pulse;
mod retention;
pub mod signals;
pub mod systemd;

use std::{
    any::Any,
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub use self::outage::Outage;
use self::{
    clocks::{ClockWatch, Clocks},
    health::{Phase, Readiness},
    pulse::Pulse,
};
use crate::{
    catalog::Limits, clock, queue::Queue, retry::Patience, schedule::Schedule, store::Retention,
    sync::Engine,
};

/// A loop that is silent for longer hangs: every call out of the process ends sooner.
const LONGEST_SILENCE: Duration = Duration::from_mins(2);

/// The database does not answer when it has not for so long; it is asked every five seconds.
pub const DATABASE_SILENCE: Duration = Duration::from_secs(15);

/// How long after the cut what does not end is left behind.
const ABANDONED_AFTER: Duration = Duration::from_secs(8);

/// What can be set while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// When projects are due.
    pub schedule: Schedule,
    /// How often a project is looked at whose key waits for a person.
    pub blocked_every: Duration,
    /// How many projects are synced at once.
    pub concurrency: usize,
    /// When removals are held.
    pub limits: Limits,
    /// How long what is old is kept.
    pub retention: Retention,
    /// How often the database is asked for work.
    pub poll: Duration,
}

/// All that a daemon needs.
pub struct Daemon {
    /// What syncs a project; its `stop` and `cut` stop the daemon.
    pub engine: Engine,
    /// The brokers, if any.
    pub queues: Vec<Arc<dyn Queue>>,
    /// What can be set while it runs.
    pub settings: watch::Receiver<Settings>,
    /// How often all projects are counted: [`fleet::FOR_METRICS`] or [`fleet::FOR_LOG`].
    pub count_every: Duration,
    /// What tells that the database is away, which it may have been before the daemon began.
    pub database: Outage,
    /// Whether its loops go round, for those who tell of it.
    pub pulse: Pulse,
    /// Whether it does its work, for those who tell of it.
    pub readiness: Readiness,
}

/// Why a daemon ended that was not told to.
#[derive(Debug, thiserror::Error)]
#[error("the daemon's {part} ended: {why}")]
pub struct Crash {
    part: &'static str,
    why: String,
}

/// What the loops share.
struct Shared {
    engine: Engine,
    settings: watch::Receiver<Settings>,
    pulse: Pulse,
    readiness: Readiness,
    database: Outage,
    clock: Mutex<ClockWatch>,
    started_at: clock::Instant,
    /// There may be work.
    work: Notify,
    /// Rises when there may be changes to tell of: each broker is to hear of them.
    changes: watch::Sender<u64>,
}

impl Shared {
    fn stop(&self) -> &CancellationToken {
        &self.engine.stop
    }

    /// Whether to act by this machine's clock now; `database` is the time that the database told a moment ago, where it has a clock.
    fn trusts_clock(&self, database: Option<clock::Instant>) -> bool {
        let mut watch = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        watch.allows(database, Clocks::read())
    }

    /// Whether it is time to stop, after that long at most.
    async fn stopped_within(&self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.stop().cancelled())
            .await
            .is_ok()
    }
}

impl Daemon {
    /// Works until the engine's `stop` is cancelled, then until runs under way have ended and their leases are given back.
    ///
    /// # Errors
    /// When a part of it ended by itself, which is a defect; the rest has been stopped in order then.
    pub async fn run(self) -> Result<(), Crash> {
        let Self {
            engine,
            queues,
            settings,
            count_every,
            database,
            pulse,
            readiness,
        } = self;
        let (stop, cut) = (engine.stop.clone(), engine.cut.clone());
        let shared = Arc::new(Shared {
            clock: Mutex::new(ClockWatch::new(engine.lease, engine.heartbeat)),
            started_at: clock::now(),
            settings,
            pulse,
            readiness,
            engine,
            database,
            work: Notify::new(),
            changes: watch::Sender::new(0),
        });
        let mut loops = Loops::default();
        let share = || Arc::clone(&shared);
        // First, so that no change is committed before it is known who is to be told.
        let names: Vec<&'static str> = queues.iter().map(|queue| queue.name()).collect();
        let mut patience = Patience::default();
        while !clockwork::name_sinks(&shared, &names).await {
            if shared.stopped_within(patience.wait()).await {
                return Ok(());
            }
        }
        // Before the first count of workers, which is to have this one.
        clockwork::note_at_work(&shared).await;
        loops.own("dispatcher", dispatcher::run(share()));
        loops.own("ear", dispatcher::listen(share()));
        loops.own("clockwork", clockwork::run(share(), names));
        loops.own("retention", retention::run(share()));
        loops.own("fleet", fleet::run(share(), count_every));
        for queue in queues {
            let outage = Outage::of(queue.name()).shown_in(&shared.engine.metrics);
            let outage = Arc::new(outage);
            loops.own(
                "intake",
                intake::run(share(), Arc::clone(&queue), Arc::clone(&outage)),
            );
            loops.own("outbox", outbox::run(share(), queue, outage));
        }
        shared.readiness.enter(Phase::Ready);
        tracing::info!(event = "daemon.started", "at work");

        let crash = loops.until_stopped(&stop).await;
        shared.readiness.enter(Phase::Stopping);
        // A crash stops the others in order.
        stop.cancel();
        let abandoned = async {
            cut.cancelled().await;
            tokio::time::sleep(ABANDONED_AFTER).await;
        };
        tokio::select! {
            () = loops.drain() => {}
            () = abandoned => return Err(Crash {
                part: "stop",
                why: "the database did not take back in time what was in hand; leases run out by themselves".to_owned(),
            }),
        }
        if let Some(crash) = crash {
            return Err(crash);
        }
        tracing::info!(event = "daemon.stopped", "nothing is left in hand");
        Ok(())
    }
}

/// The daemon's tasks.
#[derive(Default)]
struct Loops {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Loops {
    fn own(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the stop. A task that ends before it is a crash.
    async fn until_stopped(&mut self, stop: &CancellationToken) -> Option<Crash> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            Some(ended) = self.tasks.join_next_with_id() => Some(self.crash(ended)),
        }
    }

    fn crash(&self, ended: Result<(Id, ()), JoinError>) -> Crash {
        let (id, why) = match ended {
            Ok((id, ())) => (id, "nothing told it to".to_owned()),
            Err(error) => (error.id(), panic_text(error)),
        };
        let part = self.names.get(&id).copied().unwrap_or("work");
        Crash { part, why }
    }

    /// Waits for the tasks to end.
    async fn drain(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if ended.is_err() {
                let Crash { part, why } = self.crash(ended);
                tracing::error!(
                    event = "daemon.part_crashed",
                    part,
                    error.sentence = why,
                    "while stopping"
                );
            }
        }
    }
}

/// What a task said when it panicked.
fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => said(&*panic),
        Err(error) => error.to_string(),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_a_crash() {
        let mut loops = Loops::default();
        loops.own("dispatcher", pending());
        loops.own("clockwork", async {});
        let crash = loops.until_stopped(&CancellationToken::new()).await;
        let told = crash.map(|crash| crash.to_string());
        assert_eq!(
            told.as_deref(),
            Some("the daemon's clockwork ended: nothing told it to")
        );
    }

    #[tokio::test]
    async fn a_part_that_panics_says_why() {
        let mut loops = Loops::default();
        loops.own("outbox", async { panic!("no such {}", "thing") });
        let crash = loops.until_stopped(&CancellationToken::new()).await;
        let told = crash.map(|crash| crash.to_string());
        assert_eq!(
            told.as_deref(),
            Some("the daemon's outbox ended: no such thing")
        );
    }

    #[tokio::test]
    async fn a_stop_waits_for_all_parts() {
        let mut loops = Loops::default();
        let stop = CancellationToken::new();
        let work = stop.clone();
        loops.own("dispatcher", async move { work.cancelled().await });
        stop.cancel();
        assert!(loops.until_stopped(&stop).await.is_none());
        loops.drain().await;
        assert!(loops.tasks.is_empty());
    }
}
