//! A store that is slow, refuses, loses its answer, or has its worker die or stand still in the middle of a call.
//!
//! What it does is done by the real store, while the simulated time stands still.

use std::{
    future::{Future, pending},
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use catalog_sync::{
    budget::Ledger,
    catalog::{Catalog, Digest, Hold, OwnLimits, Plan},
    clock::Instant,
    project::{App, Project, ProjectId, SealedKey},
    run::Run,
    schedule::{Cron, Schedule},
    store::{
        Aftermath, Ask, Asked, Claim, Claimed, Committed, Ended, Error, Examined, Fleet,
        GracePeriodPast, HistoryFilter, Inbox, Issued, KnownMasterKey, LastChance, Lease, LogEnd,
        LoggedChange, Mark, Old, Pruned, RecordedHold, RecordedRun, Removed, Resealed, Schema,
        SealedWith, Shelf, Sight, SinkLease, Spent, State, Status, Step, Store, Untold, Worker,
    },
};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use super::{
    life::{Halt, Life},
    world::{Inner, World},
};

/// Where the real store is at work: it needs a runtime whose time goes.
static REAL: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
});

/// Waits for something real. The thread is blocked, so no simulated time passes.
pub(super) fn wait_for<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| REAL.block_on(work)).join().unwrap())
}

/// One worker's way to the database.
pub(super) struct FaultyStore {
    pub(super) real: Arc<dyn Store>,
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    /// Somebody looks at what is held, and lets it go.
    pub(super) approves: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It did not happen.
    Refused,
    /// It happened, and nobody hears of it.
    Unknown,
    DiesBefore,
    DiesAfter,
}

impl FaultyStore {
    fn draw(&self, op: &'static str) -> (Duration, Fate) {
        let mut inner = self.world.lock();
        let longest = if inner.random.below(30) == 0 {
            3_000
        } else {
            60
        };
        let delay = Duration::from_millis(inner.random.next() % longest + 1);
        let rates = inner.rates;
        let writes = op == "commit";
        if inner.one_in(rates.refused) {
            inner.tally.count("call refused");
            return (delay, Fate::Refused);
        }
        if inner.one_in(if writes {
            rates.unknown / 4
        } else {
            rates.unknown
        }) {
            inner.tally.count("answer lost");
            match op {
                "commit" => inner.tally.count("commit unknown"),
                "claim" => inner.tally.count("claim unknown"),
                _ => {}
            }
            return (delay, Fate::Unknown);
        }
        if writes && inner.one_in(rates.crash) {
            inner.tally.count("crash before a commit");
            return (delay, Fate::DiesBefore);
        }
        if writes && inner.one_in(rates.crash) {
            inner.tally.count("crash after a commit");
            return (delay, Fate::DiesAfter);
        }
        (delay, Fate::Done)
    }

    /// Past the lease, now and then, just before it writes.
    fn may_stall(&self, op: &'static str) {
        let mut inner = self.world.lock();
        let rate = inner.rates.stall;
        if op == "commit" && inner.one_in(rate) {
            inner.tally.count("stall before a commit");
            let ms = inner.random.between(5_000, 90_000);
            drop(inner);
            self.life.halt(Halt::Stall(ms));
        }
    }

    async fn call<T: Send>(
        &self,
        op: &'static str,
        work: BoxFuture<'_, Result<T, Error>>,
        observe: impl FnOnce(&mut Inner, &T) + Send,
    ) -> Result<T, Error> {
        let (delay, fate) = self.draw(op);
        self.may_stall(op);
        tokio::time::sleep(delay).await;
        if fate == Fate::DiesBefore {
            self.life.halt(Halt::Crash);
        }
        if self.life.is_over() {
            return pending().await;
        }
        let done = match fate {
            Fate::Refused => Err(Error::Unavailable(
                "the simulated database refuses".to_owned(),
            )),
            _ => wait_for(work),
        };
        {
            let mut inner = self.world.lock();
            let told = match (&done, fate) {
                (_, Fate::Refused) => "refused".to_owned(),
                (Ok(_), _) => "done".to_owned(),
                (Err(error), _) => error.code().to_owned(),
            };
            let lost = if fate == Fate::Unknown {
                ", and nobody hears of it"
            } else {
                ""
            };
            inner.tell(
                self.life.now(),
                &self.life.name,
                &format!("{op}: {told}{lost}"),
            );
            match &done {
                Ok(done) => observe(&mut inner, done),
                Err(Error::LeaseLost { .. }) => inner.tally.count("write fenced off"),
                Err(_) => {}
            }
        }
        match fate {
            Fate::DiesAfter => {
                self.life.halt(Halt::Crash);
                pending().await
            }
            Fate::Unknown => Err(Error::Unavailable(
                "the simulated answer is lost".to_owned(),
            )),
            _ => done,
        }
    }
}

/// A store whose further methods are those of the real one, called with the same faults.
macro_rules! faulty {
    ({ $($own:tt)* } $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            $($own)*
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> {
                let work = self.real.$name($($arg),*);
                self.call(stringify!($name), work, |_, _| {}).await
            })*
        }
    };
}

faulty! {
    {
        fn worker(&self) -> &str {
            &self.life.name
        }

        async fn schema(&self) -> Result<Schema, Error> {
            self.call("schema", self.real.schema(), |_, _| {}).await
        }

        async fn migrate_telling(&self, tell: &(dyn Fn(Step) + Send + Sync)) -> Result<Schema, Error> {
            self.call("migrate", self.real.migrate_telling(tell), |_, _| {}).await
        }

        async fn examine(&self) -> Result<Examined, Error> {
            self.call("examine", self.real.examine(), |_, _| {}).await
        }

        /// It is for people alone, and would be a third of all calls.
        async fn note_worker(&self, _: &str, _: Instant, _: Instant) -> Result<(), Error> {
            let (delay, _) = self.draw("note_worker");
            tokio::time::sleep(delay).await;
            Ok(())
        }

        async fn await_inbox(&self) -> Result<(), Error> {
            pending().await
        }

        async fn acquire(&self, id: &ProjectId, ttl: Duration, now: Instant) -> Result<Claim, Error> {
            let work = self.real.acquire(id, ttl, now);
            self.call("acquire", work, Inner::claimed).await
        }

        async fn claim(
            &self,
            most: u32,
            last_chance: LastChance,
            ttl: Duration,
            now: Instant,
        ) -> Result<Claimed, Error> {
            let work = self.real.claim(most, last_chance, ttl, now);
            let at = self.life.now();
            self.call("claim", work, |inner, claimed| {
                for claim in &claimed.claims {
                    inner.claimed(claim);
                    let told = format!("claims {} with epoch {}", claim.project.id, claim.lease.epoch);
                    inner.tell(at, &self.life.name, &told);
                }
                for _ in &claimed.set_aside {
                    inner.tally.count("set aside");
                }
            })
            .await
        }

        async fn renew(&self, lease: &Lease, ttl: Duration, now: Instant) -> Result<Lease, Error> {
            let work = self.real.renew(lease, ttl, now);
            self.call("renew", work, |inner, _| inner.renewed(lease)).await
        }

        async fn commit(
            &self,
            lease: &Lease,
            plan: &Plan,
            run: &Run,
            aftermath: &Aftermath,
        ) -> Result<Committed, Error> {
            let work = async {
                let before = self.real.load_catalog(&lease.project).await?;
                let committed = self.real.commit(lease, plan, run, aftermath).await?;
                Ok((committed, before))
            };
            let at = self.life.now();
            let done = self.call("commit", Box::pin(work), |inner, (committed, before)| {
                let told = format!(
                    "{} {} with epoch {}, revision {}, {:?}",
                    lease.project, run.outcome, lease.epoch, committed.revision,
                    run.error.as_ref().map(|error| error.code.as_str())
                );
                inner.tell(at, &self.life.name, &told);
                inner.committed(lease, plan, run, before, self.approves);
            });
            Ok(done.await?.0)
        }
    }
    add_project(project: &Project, key: &SealedKey) -> ();
    load_project(id: &ProjectId) -> Project;
    list_projects() -> Vec<Project>;
    list_sharing_key(id: &ProjectId, key_id: &str) -> Vec<ProjectId>;
    load_key(id: &ProjectId) -> SealedKey;
    replace_key(id: &ProjectId, app: &App, key: &SealedKey, now: Instant) -> ();
    list_master_keys() -> Vec<KnownMasterKey>;
    note_master_key(id: &str, check_value: &str, now: Instant) -> String;
    retire_master_key(id: &str, now: Instant) -> ();
    list_sealed(with: SealedWith<'_>, after: Option<&ProjectId>, most: u32) -> Vec<(ProjectId, SealedKey)>;
    reseal(keys: &[Resealed]) -> u64;
    pause(id: &ProjectId, now: Instant) -> ();
    resume(id: &ProjectId, now: Instant) -> ();
    set_cron(id: &ProjectId, cron: Option<&Cron>) -> ();
    set_guard(id: &ProjectId, own: &OwnLimits) -> ();
    remove_project(id: &ProjectId) -> ();
    ask(asks: &[Ask], now: Instant) -> Asked;
    take_inbox(most: u32, now: Instant) -> Inbox;
    issue_slots(schedule: &Schedule, blocked_since: Instant, most: u32, now: Instant) -> Issued;
    reschedule(schedule: &Schedule, after: Option<&ProjectId>, most: u32, now: Instant) -> Option<ProjectId>;
    look(now: Instant) -> Sight;
    release(lease: &Lease) -> ();
    postpone(lease: &Lease, until: Instant, spent: &Spent, now: Instant) -> ();
    rouse(ttl: Duration, now: Instant) -> ();
    load_state(id: &ProjectId) -> State;
    load_catalog(id: &ProjectId) -> Catalog;
    discard(lease: &Lease, digest: &Digest, now: Instant) -> Option<Hold>;
    reopen(lease: &Lease, digest: &Digest) -> bool;
    read_holds(id: Option<&ProjectId>, ended: Ended) -> Vec<RecordedHold>;
    name_sinks(sinks: &[&str], forget_before: Instant, now: Instant) -> Vec<String>;
    prune(old: Old, before: Instant, after: &Mark, most: u32, now: Instant) -> Pruned;
    hold_sink(lease: &SinkLease, ttl: Duration, now: Instant) -> bool;
    release_sink(lease: &SinkLease) -> ();
    read_untold(sink: &str, most: u32) -> Vec<Untold>;
    told(lease: &SinkLease, told: &[Untold]) -> bool;
    read_shelf(id: &ProjectId, removed: Removed) -> Shelf;
    read_shelf_at(id: &ProjectId, at: Instant) -> Shelf;
    read_grace_periods(id: &ProjectId) -> Vec<GracePeriodPast>;
    read_log(id: &ProjectId, after_seq: i64, most: u32) -> Vec<LoggedChange>;
    load_log_end(id: &ProjectId) -> LogEnd;
    read_history(id: &ProjectId, filter: &HistoryFilter) -> Vec<LoggedChange>;
    read_runs(id: &ProjectId, limit: u32) -> Vec<RecordedRun>;
    read_statuses() -> Vec<Status>;
    read_worst(schedule: &Schedule, most: u32, now: Instant) -> Vec<Status>;
    read_fleet(schedule: &Schedule, most: u32, now: Instant) -> Fleet;
    read_workers(now: Instant) -> Vec<Worker>;
    forget_worker() -> ();
    load_ledger(id: &ProjectId) -> Ledger;
    read_status(id: &ProjectId) -> Status;
}
