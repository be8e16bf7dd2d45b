//! One life of a worker: the real daemon on a runtime of its own, whose time is driven from outside.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catalog_sync::{
    asc::{Client, Options},
    catalog::{Confirmation, Limits},
    clock::{Instant, simulated},
    daemon::{Crash, Daemon, Outage, Settings, health::Readiness, pulse::Pulse},
    metrics::Metrics,
    store::Store,
    sync::Engine,
    vault::Vault,
};
use chrono::TimeDelta;
use tokio::{
    runtime::Runtime,
    sync::{Notify, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{faulty_store::FaultyStore, network::Network, world::World};

pub(super) const LEASE: Duration = Duration::from_secs(12);
const HEARTBEAT: Duration = Duration::from_secs(4);

/// What a worker needs from the world.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) world: Arc<World>,
    pub(super) network: Arc<Network>,
    pub(super) vault: Arc<Vault>,
    pub(super) real: Arc<dyn Store>,
    pub(super) settings: watch::Receiver<Settings>,
}

/// What interrupts a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It dies here.
    Crash,
    /// It stands still for so many milliseconds; time goes on.
    Stall(i64),
}

/// What is known of a life from within.
pub(super) struct Life {
    pub(super) name: String,
    born_at: Instant,
    born: time::Instant,
    halted: Notify,
    halt: Mutex<Option<Halt>>,
}

impl Life {
    /// True time.
    pub(super) fn now(&self) -> Instant {
        self.born_at + self.born.elapsed()
    }

    pub(super) fn halt(&self, halt: Halt) {
        {
            let mut before = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
            if *before != Some(Halt::Crash) {
                *before = Some(halt);
            }
        }
        self.halted.notify_one();
    }

    pub(super) fn is_over(&self) -> bool {
        let halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        *halt == Some(Halt::Crash)
    }

    fn take_halt(&self) -> Option<Halt> {
        let mut halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        halt.take()
    }
}

/// A worker that is alive.
pub(super) struct Alive {
    runtime: Runtime,
    pub(super) life: Arc<Life>,
    pub(super) engine: Engine,
    daemon: Option<JoinHandle<Result<(), Crash>>>,
    /// How far its clock is from the truth.
    pub(super) skew: TimeDelta,
}

impl Alive {
    /// Is born at this time. One that approves has no daemon: somebody sits there.
    pub(super) fn born(
        name: &str,
        at: Instant,
        skew: TimeDelta,
        place: &Place,
        approves: bool,
    ) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let (life, engine, daemon) = runtime.block_on(async {
            let life = Arc::new(Life {
                name: name.to_owned(),
                born_at: at,
                born: time::Instant::now(),
                halted: Notify::new(),
                halt: Mutex::default(),
            });
            let shown = at + skew;
            simulated::set(Some(simulated::Clock {
                shown,
                at: life.born,
            }));
            let engine = engine(&life, place, approves);
            let daemon = (!approves).then(|| {
                let daemon = Daemon {
                    engine: engine.clone(),
                    queues: Vec::new(),
                    settings: place.settings.clone(),
                    count_every: Duration::from_hours(24),
                    database: Outage::of("database"),
                    pulse: Pulse::default(),
                    readiness: Readiness::new(catalog_sync::daemon::DATABASE_SILENCE),
                };
                // Owned by the runtime, which dies with it.
                #[expect(clippy::disallowed_methods, reason = "it is a process of its own")]
                tokio::spawn(daemon.run())
            });
            (life, engine, daemon)
        });
        simulated::set(None);
        Self {
            runtime,
            life,
            engine,
            daemon,
            skew,
        }
    }

    /// Lets it live until that true time, and says what stopped it before.
    pub(super) fn live(&mut self, until: Instant) -> Option<Halt> {
        loop {
            let life = Arc::clone(&self.life);
            let wait = (until - life.born_at).to_std().unwrap_or_default();
            let is_through = self.within(async move {
                tokio::select! {
                    biased;
                    () = life.halted.notified() => false,
                    () = time::sleep_until(life.born + wait) => true,
                }
            });
            let halt = self.life.take_halt();
            if is_through || halt.is_some() {
                return halt;
            }
        }
    }

    /// Wakes up at that true time: what it slept through is behind it at once.
    pub(super) fn wake(&mut self, at: Instant) {
        let life = Arc::clone(&self.life);
        self.within(async move {
            let slept = (at - life.now()).to_std().unwrap_or_default();
            time::advance(slept).await;
        });
    }

    /// Does something within its time.
    pub(super) fn within<T>(&mut self, work: impl Future<Output = T>) -> T {
        let shown = self.life.born_at + self.skew;
        let clock = simulated::Clock {
            shown,
            at: self.life.born,
        };
        simulated::set(Some(clock));
        let done = self.runtime.block_on(work);
        simulated::set(None);
        done
    }

    /// Whether it ends in order by then, having been told to stop. One that was to die in the call that it stood still in may.
    pub(super) fn ends_by(&mut self, until: Instant) -> bool {
        loop {
            match self.live(until) {
                Some(Halt::Crash) => return true,
                Some(Halt::Stall(_)) => {}
                None => return matches!(self.ended(), Some(Ok(()))),
            }
        }
    }

    /// Why its daemon ended, if it did.
    pub(super) fn ended(&mut self) -> Option<Result<(), String>> {
        let daemon = self.daemon.take_if(|daemon| daemon.is_finished())?;
        let ended = self.within(daemon);
        Some(match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(crash)) => Err(crash.to_string()),
            Err(panic) => Err(panic.to_string()),
        })
    }
}

fn engine(life: &Arc<Life>, place: &Place, approves: bool) -> Engine {
    let store = FaultyStore {
        real: Arc::clone(&place.real),
        world: Arc::clone(&place.world),
        life: Arc::clone(life),
        approves,
    };
    let options = Options {
        // The pace of keys goes by the machine's clock.
        burst_per_key: std::num::NonZeroU32::MAX,
        request_timeout: Duration::from_secs(20),
        ..Options::new(super::network::HOME.parse().unwrap())
    };
    let client = Client::in_process(options, Network::line(&place.network, life));
    Engine {
        store: Arc::new(store),
        vault: Arc::clone(&place.vault),
        client,
        metrics: Metrics::default(),
        limits: Limits::default(),
        confirmation: Confirmation::default(),
        lease: LEASE,
        heartbeat: HEARTBEAT,
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
    }
}
