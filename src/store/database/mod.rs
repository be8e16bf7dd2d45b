//! A store over one database, written once: this folder is compiled as a module of `sqlite` and again as a module of
//! `postgres`, each of which gives it `Db`, its statements (`sql`) and its [`Place`].
//!
//! What must hold throughout:
//! - A write is one transaction, which ends whole or leaves nothing, also when its future is dropped.
//! - Reading that takes several statements sees one moment.
//! - Every call has a deadline: a database can fall silent, and writers of one file wait for each other.
//! - Errors of the database leave through [`Place::explain`].

mod asks;
mod catalog;
mod claims;
mod commit;
mod endings;
mod examine;
mod fleet;
mod gather;
mod holds;
mod inbox;
mod leases;
mod lent;
mod master_keys;
mod outbox;
mod past;
mod projects;
mod prune;
mod rows;
mod schema;
mod slots;
mod status;
mod unforeseen;
mod usage;
mod views;
mod writer;

use std::{ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::Pool;

use self::{
    endings::{Ending, Revisions},
    gather::Gatherer,
    lent::Lent,
    writer::Writer,
};
use super::{Db, Place, sql};
use crate::{
    budget::Ledger,
    catalog::{Catalog, Digest, Hold, OwnLimits, Plan},
    clock::Instant,
    project::{App, Project, ProjectId, SealedKey},
    run::Run,
    schedule::{Cron, Schedule},
    store::{
        Aftermath, Ask, Asked, Claim, Claimed, Committed, Ended, Error, Examined, Fleet,
        GracePeriodPast, HistoryFilter, Inbox, Issued, KnownMasterKey, LastChance, Lease, LogEnd,
        LoggedChange, Mark, Old, Options, Pruned, RecordedHold, RecordedRun, Removed, Resealed,
        Schema, SealedWith, Shelf, Sight, SinkLease, Spent, State, Status, Step, Store, Untold,
        Worker,
    },
};

type Connection = <Db as sqlx::Database>::Connection;

/// One statement that only reads.
macro_rules! read {
    ($self:ident, |$connection:ident| $work:expr) => {
        $self
            .deadline(async {
                let wait = $self.metrics.await_database();
                let mut lent = Lent::plain(&$self.pool).await?;
                drop(wait);
                let $connection = &mut *lent;
                let done = $work.await;
                lent.end(done)
            })
            .await
    };
}

/// A transaction.
macro_rules! transaction {
    ($self:ident, $begin:path, |$connection:ident| $work:expr) => {
        $self
            .deadline(async {
                let wait = $self.metrics.await_database();
                let _turn = $self.place.turn($begin).await;
                transaction!($self.pool, wait, $begin, |$connection| $work)
            })
            .await
    };
    ($owner:ident.$pool:ident, $wait:ident, $begin:path, |$connection:ident| $work:expr) => {{
        let mut lent = Lent::within(&$owner.$pool, $begin).await?;
        drop($wait);
        let $connection = &mut *lent;
        let done = $work.await;
        lent.settle(done).await
    }};
}

/// A pool of connections to one database.
pub(super) struct Database {
    writer: Writer,
    /// One connection, for the renewal of leases alone: it does not wait behind other work.
    beats: Pool<Db>,
    gatherer: Gatherer,
    pause: Duration,
}

impl Database {
    pub(super) fn new(pool: Pool<Db>, beats: Pool<Db>, place: Place, options: &Options) -> Self {
        Self {
            writer: Writer {
                pool,
                place: Arc::new(place),
                worker: options.worker.as_str().into(),
                metrics: options.metrics.clone(),
            },
            beats,
            gatherer: Gatherer::default(),
            pause: options.gather,
        }
    }
}

impl Deref for Database {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl Writer {
    /// How several runs ended, in a transaction. What the database answers to that is not explained yet.
    async fn write(&self, endings: &[Ending]) -> Result<Revisions, Error> {
        self.in_time(async {
            let wait = self.metrics.await_database();
            let _turn = self.place.turn(sql::BEGIN_WRITE).await;
            transaction!(self.pool, wait, sql::BEGIN_WRITE, |connection| {
                endings::write(connection, &self.worker, endings)
            })
        })
        .await
    }
}

#[async_trait]
impl Store for Database {
    fn worker(&self) -> &str {
        &self.worker
    }

    async fn schema(&self) -> Result<Schema, Error> {
        read!(self, |connection| schema::read(connection))
    }

    async fn migrate_telling(&self, tell: &(dyn Fn(Step) + Send + Sync)) -> Result<Schema, Error> {
        // A connection of its own: a migration that is cut off ends with it, whatever it was doing.
        match schema::migrate(&self.pool.connect_options(), tell).await {
            Err(Error::Database(error)) => Err(self.place.explain(error).await),
            other => other,
        }
    }

    async fn examine(&self) -> Result<Examined, Error> {
        let disk = self.place.disk();
        read!(self, |connection| examine::examine(connection, disk))
    }

    async fn add_project(&self, project: &Project, key: &SealedKey) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::add(
            connection, project, key
        ))
    }

    async fn load_project(&self, id: &ProjectId) -> Result<Project, Error> {
        read!(self, |connection| projects::load(connection, id))
    }

    async fn list_projects(&self) -> Result<Vec<Project>, Error> {
        read!(self, |connection| projects::list(connection))
    }

    async fn list_sharing_key(
        &self,
        id: &ProjectId,
        key_id: &str,
    ) -> Result<Vec<ProjectId>, Error> {
        read!(self, |connection| projects::list_sharing_key(
            connection, id, key_id
        ))
    }

    async fn load_key(&self, id: &ProjectId) -> Result<SealedKey, Error> {
        read!(self, |connection| projects::load_key(connection, id))
    }

    async fn replace_key(
        &self,
        id: &ProjectId,
        app: &App,
        key: &SealedKey,
        now: Instant,
    ) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::replace_key(
            connection, id, app, key, now
        ))
    }

    async fn list_master_keys(&self) -> Result<Vec<KnownMasterKey>, Error> {
        read!(self, |connection| master_keys::list(connection))
    }

    async fn note_master_key(
        &self,
        id: &str,
        check_value: &str,
        now: Instant,
    ) -> Result<String, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| master_keys::note(
            connection,
            id,
            check_value,
            now
        ))
    }

    async fn retire_master_key(&self, id: &str, now: Instant) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| master_keys::retire(
            connection, id, now
        ))
    }

    async fn list_sealed(
        &self,
        with: SealedWith<'_>,
        after: Option<&ProjectId>,
        most: u32,
    ) -> Result<Vec<(ProjectId, SealedKey)>, Error> {
        read!(self, |connection| master_keys::list_sealed(
            connection, with, after, most
        ))
    }

    async fn reseal(&self, keys: &[Resealed]) -> Result<u64, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| master_keys::reseal(
            connection, keys
        ))
    }

    async fn pause(&self, id: &ProjectId, now: Instant) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::pause(
            connection, id, now
        ))
    }

    async fn resume(&self, id: &ProjectId, now: Instant) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::resume(
            connection, id, now
        ))
    }

    async fn set_cron(&self, id: &ProjectId, cron: Option<&Cron>) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::set_cron(
            connection, id, cron
        ))
    }

    async fn set_guard(&self, id: &ProjectId, own: &OwnLimits) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::set_guard(
            connection, id, own
        ))
    }

    async fn remove_project(&self, id: &ProjectId) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| projects::remove(
            connection, id
        ))
    }

    async fn acquire(&self, id: &ProjectId, ttl: Duration, now: Instant) -> Result<Claim, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| leases::acquire(
            connection,
            &self.worker,
            id,
            ttl,
            now
        ))
    }

    async fn ask(&self, asks: &[Ask], now: Instant) -> Result<Asked, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| asks::ask(
            connection, asks, now
        ))
    }

    async fn take_inbox(&self, most: u32, now: Instant) -> Result<Inbox, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| inbox::take(
            connection, most, now
        ))
    }

    async fn await_inbox(&self) -> Result<(), Error> {
        self.place.await_inbox().await
    }

    async fn issue_slots(
        &self,
        schedule: &Schedule,
        blocked_since: Instant,
        most: u32,
        now: Instant,
    ) -> Result<Issued, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| slots::issue(
            connection,
            schedule,
            blocked_since,
            most,
            now
        ))
    }

    async fn reschedule(
        &self,
        schedule: &Schedule,
        after: Option<&ProjectId>,
        most: u32,
        now: Instant,
    ) -> Result<Option<ProjectId>, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| slots::reschedule(
            connection, schedule, after, most, now
        ))
    }

    async fn look(&self, now: Instant) -> Result<Sight, Error> {
        read!(self, |connection| asks::look(connection, now))
    }

    async fn claim(
        &self,
        most: u32,
        last_chance: LastChance,
        ttl: Duration,
        now: Instant,
    ) -> Result<Claimed, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| claims::claim(
            connection,
            &self.worker,
            most,
            last_chance,
            ttl,
            now
        ))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration, now: Instant) -> Result<Lease, Error> {
        // Out of turn: it is short, and everything else can wait for it.
        self.deadline(async {
            let wait = self.metrics.await_database();
            transaction!(self.beats, wait, sql::BEGIN_WRITE, |connection| {
                leases::renew(connection, lease, ttl, now)
            })
        })
        .await
    }

    async fn release(&self, lease: &Lease) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| leases::release(
            connection, lease
        ))
    }

    async fn postpone(
        &self,
        lease: &Lease,
        until: Instant,
        spent: &Spent,
        now: Instant,
    ) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| leases::postpone(
            connection, lease, until, spent, now
        ))
    }

    async fn rouse(&self, ttl: Duration, now: Instant) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| leases::rouse(
            connection, ttl, now
        ))
    }

    async fn load_state(&self, id: &ProjectId) -> Result<State, Error> {
        read!(self, |connection| catalog::load_state(connection, id))
    }

    async fn load_catalog(&self, id: &ProjectId) -> Result<Catalog, Error> {
        read!(self, |connection| catalog::load(connection, id))
    }

    async fn commit(
        &self,
        lease: &Lease,
        plan: &Plan,
        run: &Run,
        aftermath: &Aftermath,
    ) -> Result<Committed, Error> {
        if commit::is_ending_alone(plan, aftermath) {
            let ending = Ending::of(lease, plan, run, aftermath);
            let written = self.gatherer.write(&self.writer, self.pause, ending);
            let revision = self.deadline(written).await?;
            return Ok(Committed {
                revision,
                rows: 0,
                unforeseen: Vec::new(),
            });
        }
        transaction!(self, sql::BEGIN_WRITE, |connection| commit::commit(
            connection,
            &self.worker,
            lease,
            plan,
            run,
            aftermath
        ))
    }

    async fn name_sinks(
        &self,
        sinks: &[&str],
        forget_before: Instant,
        now: Instant,
    ) -> Result<Vec<String>, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| outbox::name_sinks(
            connection,
            sinks,
            forget_before,
            now
        ))
    }

    async fn prune(
        &self,
        old: Old,
        before: Instant,
        after: &Mark,
        most: u32,
        now: Instant,
    ) -> Result<Pruned, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| prune::prune(
            connection, old, before, after, most, now
        ))
    }

    async fn hold_sink(
        &self,
        lease: &SinkLease,
        ttl: Duration,
        now: Instant,
    ) -> Result<bool, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| outbox::hold_sink(
            connection,
            lease,
            now + ttl,
            now
        ))
    }

    async fn release_sink(&self, lease: &SinkLease) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| outbox::release_sink(
            connection, lease
        ))
    }

    async fn read_untold(&self, sink: &str, most: u32) -> Result<Vec<Untold>, Error> {
        read!(self, |connection| outbox::read_untold(
            connection, sink, most
        ))
    }

    async fn told(&self, lease: &SinkLease, told: &[Untold]) -> Result<bool, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| outbox::told(
            connection, lease, told
        ))
    }

    async fn read_shelf(&self, id: &ProjectId, removed: Removed) -> Result<Shelf, Error> {
        transaction!(self, sql::BEGIN_READ, |connection| views::read_shelf(
            connection, id, removed
        ))
    }

    async fn read_shelf_at(&self, id: &ProjectId, at: Instant) -> Result<Shelf, Error> {
        transaction!(self, sql::BEGIN_READ, |connection| past::read_shelf(
            connection, id, at
        ))
    }

    async fn read_grace_periods(&self, id: &ProjectId) -> Result<Vec<GracePeriodPast>, Error> {
        read!(self, |connection| past::read_grace_periods(connection, id))
    }

    async fn read_log(
        &self,
        id: &ProjectId,
        after_seq: i64,
        most: u32,
    ) -> Result<Vec<LoggedChange>, Error> {
        read!(self, |connection| past::read_log(
            connection, id, after_seq, most
        ))
    }

    async fn load_log_end(&self, id: &ProjectId) -> Result<LogEnd, Error> {
        transaction!(self, sql::BEGIN_READ, |connection| past::load_log_end(
            connection, id
        ))
    }

    async fn read_history(
        &self,
        id: &ProjectId,
        filter: &HistoryFilter,
    ) -> Result<Vec<LoggedChange>, Error> {
        read!(self, |connection| views::read_history(
            connection, id, filter
        ))
    }

    async fn read_runs(&self, id: &ProjectId, limit: u32) -> Result<Vec<RecordedRun>, Error> {
        read!(self, |connection| views::read_runs(connection, id, limit))
    }

    async fn discard(
        &self,
        lease: &Lease,
        digest: &Digest,
        now: Instant,
    ) -> Result<Option<Hold>, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| holds::discard(
            connection, lease, digest, now
        ))
    }

    async fn reopen(&self, lease: &Lease, digest: &Digest) -> Result<bool, Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| holds::reopen(
            connection, lease, digest
        ))
    }

    async fn read_holds(
        &self,
        id: Option<&ProjectId>,
        ended: Ended,
    ) -> Result<Vec<RecordedHold>, Error> {
        read!(self, |connection| holds::read(connection, id, ended))
    }

    async fn read_statuses(&self) -> Result<Vec<Status>, Error> {
        read!(self, |connection| status::read_all(connection))
    }

    async fn read_worst(
        &self,
        schedule: &Schedule,
        most: u32,
        now: Instant,
    ) -> Result<Vec<Status>, Error> {
        transaction!(self, sql::BEGIN_READ, |connection| status::read_worst(
            connection, schedule, most, now
        ))
    }

    async fn read_fleet(
        &self,
        schedule: &Schedule,
        most: u32,
        now: Instant,
    ) -> Result<Fleet, Error> {
        transaction!(self, sql::BEGIN_READ, |connection| fleet::read(
            connection, schedule, most, now
        ))
    }

    async fn read_workers(&self, now: Instant) -> Result<Vec<Worker>, Error> {
        read!(self, |connection| fleet::workers(connection, now))
    }

    async fn note_worker(
        &self,
        version: &str,
        started_at: Instant,
        now: Instant,
    ) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| fleet::note_worker(
            connection,
            &self.worker,
            version,
            started_at,
            now
        ))
    }

    async fn forget_worker(&self) -> Result<(), Error> {
        transaction!(self, sql::BEGIN_WRITE, |connection| fleet::forget_worker(
            connection,
            &self.worker
        ))
    }

    async fn load_ledger(&self, id: &ProjectId) -> Result<Ledger, Error> {
        read!(self, |connection| usage::load(connection, id))
    }

    async fn read_status(&self, id: &ProjectId) -> Result<Status, Error> {
        read!(self, |connection| status::read_one(connection, id))
    }
}
