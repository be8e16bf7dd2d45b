//! The database: projects, sealed keys, catalogs, change logs and run records, in SQLite or Postgres.
//!
//! What must hold throughout:
//! - One method is one transaction; no transaction leaves this module.
//! - A catalog is written by [`Store::commit`] alone, from an approved [`Plan`], under a [`Lease`] whose epoch is still the
//!   project's: entries, change log, revision and run record appear together or not at all (I1, I5).
//! - `now` is a value passed in: what decides by time can be tested.
//!
//! Both databases run one body, `database/`, compiled once for each; `sqlite/` and `postgres/` hold what differs: how to
//! connect, the few statements whose text is not the same, and what their errors mean.

mod error;
mod examined;
mod fleet;
mod master_keys;
mod nearest;
mod open;
mod postgres;
mod proof;
mod retention;
mod run_detail;
mod shelf;
mod sqlite;
mod value;
mod views;
mod work;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    budget::{Budget, Ledger},
    catalog::{Catalog, Digest, Hold, Kind, Marks, OwnLimits, Plan, Sources, Unforeseen},
    clock::Instant,
    project::{App, Project, ProjectId, SealedKey},
    run::{HoldEnd, KeyHealth, Run, Trigger},
    schedule::{Cron, Schedule},
};

pub use error::Error;
pub use examined::{Disk, Examined, Migration, Step};
pub use fleet::{
    AGES, Ages, Condition, FailingProject, Fleet, HeldProject, Outbox, Stalest, UNTOLD_COUNTED,
    Worker,
};
pub use master_keys::{KnownMasterKey, Resealed, SealedWith};
pub use open::{Missing, Options, is_absent, migrations, open, open_migrated};
pub use proof::verify;
pub use retention::{Mark, Old, Pruned, Retention};
pub use views::{
    Ended, GracePeriod, GracePeriodPast, HistoryFilter, LogEnd, LoggedChange, Product,
    RecordedHold, RecordedRun, Removed, Shelf, Status, SubscriptionGroup,
};
pub use work::{Ask, Asked, Claimed, Inbox, Issued, Loss, Request, Sight, SinkLease, Untold};

/// A statement that takes longer is logged by the driver, for who asks for its `debug`: counting a million projects is slow, and no fault.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// The right to write one project's catalog, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The project.
    pub project: ProjectId,
    /// Rises by one with each claim and never falls; every write checks it.
    pub epoch: i64,
    /// Random for each claim, so that no two holders are ever alike.
    pub token: Uuid,
    /// Until when others must wait.
    pub until: Instant,
}

/// A claimed project: the right to write its catalog, and all that a run begins with, as they were in the same moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The right to write.
    pub lease: Lease,
    /// The project.
    pub project: Project,
    /// Its key.
    pub key: SealedKey,
    /// What earlier runs left.
    pub state: State,
    /// The request that this claim answers, if there was one.
    pub request: Option<Request>,
    /// The project's last two runs lost their workers: one more, and it is set aside.
    pub is_last_chance: bool,
}

impl Claim {
    /// What asked for its run.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        let request = self.request.as_ref();
        request.map_or(Trigger::Schedule, |request| request.trigger)
    }
}

/// What a run needs to know of its project beside the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The catalog's revision: it rises by one with each commit that changes something; 0 before the first.
    pub revision: i64,
    /// How the key has fared.
    pub key_health: KeyHealth,
    /// What is held back, if anything.
    pub hold: Option<Hold>,
    /// Whether it was begun by hand, and no daemon's log has told of it.
    pub hold_is_untold: bool,
    /// How many runs in a row were to be repeated because they failed.
    pub retries: u32,
    /// When each kind was last listed completely.
    pub covered_at: BTreeMap<Kind, Instant>,
    /// Of what each kind was last listed completely.
    pub listed_with: Sources,
    /// By what the last run's listings are known again, if the catalog was as they said.
    pub marks: Option<Marks>,
}

/// What a run leaves behind in its project's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aftermath {
    /// How the key has fared, this run included.
    pub key_health: KeyHealth,
    /// What becomes of what was held; nothing, if it stays as it is.
    pub hold: HoldTurn,
    /// Of what the kinds were listed for which that is another than before.
    pub listed_with: Sources,
    /// By what the next run knows its listings again.
    pub marks: Option<Marks>,
    /// When each kind was last listed completely before this run.
    pub covered_before: BTreeMap<Kind, Instant>,
    /// What Apple sent that this version does not know, each once and in order.
    pub unforeseen: Vec<Seen>,
    /// What was left of the key's hourly budget at the last answer that told.
    pub budget: Option<Budget>,
    /// When the project is to be synced again because this run failed, if nothing asks for it sooner.
    pub retry_at: Option<Instant>,
}

/// What a run makes of what was held before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HoldTurn {
    /// How the hold ended that stood before, if it did.
    pub ended: Option<HoldEnd>,
    /// The hold that begins.
    pub begun: Option<Hold>,
    /// The hold that stands or begins is told of by a daemon's log.
    pub is_told: bool,
}

/// Something that this version does not know, and the first entry of a run that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub what: Unforeseen,
    /// Apple's id of the entry.
    pub store_id: String,
}

/// What a run spent of its key's hourly budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How many requests it sent.
    pub requests: u64,
    /// What was left at the last answer that told.
    pub budget: Option<Budget>,
}

/// What a commit wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// The catalog's revision afterwards.
    pub revision: i64,
    /// Rows of the catalog and its change log that were written, notes of what was not listed among them; 0 when there was nothing to
    /// write.
    pub rows: u64,
    /// What this version does not know, of what came for the first time in any project.
    #[serde(skip)]
    pub unforeseen: Vec<Unforeseen>,
}

/// A database's schema against what this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// The newest migration applied; 0 in an empty database.
    pub applied: i64,
    /// The newest migration this version has.
    pub known: i64,
}

/// A database. Every method is one transaction.
///
/// Methods that take a [`ProjectId`] fail with [`Error::UnknownProject`] when there is none; a lease on a project that was
/// removed is lost. A method whose future is dropped has done all of its work or nothing.
#[async_trait]
pub trait Store: Send + Sync {
    /// The name with which this worker marks its leases and runs.
    fn worker(&self) -> &str;

    /// Which migrations the database has.
    async fn schema(&self) -> Result<Schema, Error>;

    /// Applies the migrations that the database lacks, all in one transaction; gives what it had before. Fails with
    /// [`Error::NewerSchema`].
    async fn migrate(&self) -> Result<Schema, Error> {
        self.migrate_telling(&|_| {}).await
    }

    /// The same, telling of each migration as it begins.
    async fn migrate_telling(&self, tell: &(dyn Fn(Step) + Send + Sync)) -> Result<Schema, Error>;

    /// What the database is, and whether this user may do there what is to be done.
    async fn examine(&self) -> Result<Examined, Error>;

    /// Adds a project with its key, which counts as having worked when it was created, or fails with [`Error::ProjectExists`], or
    /// with [`Error::MasterKeyRetired`].
    async fn add_project(&self, project: &Project, key: &SealedKey) -> Result<(), Error>;

    /// One project.
    async fn load_project(&self, id: &ProjectId) -> Result<Project, Error>;

    /// All projects, by id.
    async fn list_projects(&self) -> Result<Vec<Project>, Error>;

    /// The other projects that use the key with this Key ID, by id. The project itself need not have been added yet.
    async fn list_sharing_key(&self, id: &ProjectId, key_id: &str)
    -> Result<Vec<ProjectId>, Error>;

    /// A project's sealed key.
    async fn load_key(&self, id: &ProjectId) -> Result<SealedKey, Error>;

    /// Replaces a project's key and what is known of its app; the key's health begins anew, as having worked at `now`. A run
    /// that still uses the old key loses its lease. Fails with [`Error::MasterKeyRetired`] too.
    async fn replace_key(
        &self,
        id: &ProjectId,
        app: &App,
        key: &SealedKey,
        now: Instant,
    ) -> Result<(), Error>;

    /// The master keys that keys are or were sealed with, those longest known first.
    async fn list_master_keys(&self) -> Result<Vec<KnownMasterKey>, Error>;

    /// Notes what tells a master key from another of its id, unless that is known; gives what is known.
    async fn note_master_key(
        &self,
        id: &str,
        check_value: &str,
        now: Instant,
    ) -> Result<String, Error>;

    /// Says that nothing may be sealed with a master key from now on. Fails with [`Error::MasterKeyInUse`] while anything is.
    async fn retire_master_key(&self, id: &str, now: Instant) -> Result<(), Error>;

    /// Up to `most` sealed keys of the projects whose ids come after `after`, by project.
    async fn list_sealed(
        &self,
        with: SealedWith<'_>,
        after: Option<&ProjectId>,
        most: u32,
    ) -> Result<Vec<(ProjectId, SealedKey)>, Error>;

    /// Puts sealed keys, all under one master key, in the place of others that are still as they were read; gives how many were.
    async fn reseal(&self, keys: &[Resealed]) -> Result<u64, Error>;

    /// Pauses a project. Pausing a paused project changes nothing.
    async fn pause(&self, id: &ProjectId, now: Instant) -> Result<(), Error>;

    /// Ends a pause, and takes up again a project that was set aside; asks for a sync if there was either.
    async fn resume(&self, id: &ProjectId, now: Instant) -> Result<(), Error>;

    /// Gives a project a cron of its own, or the schedule's when that is none.
    async fn set_cron(&self, id: &ProjectId, cron: Option<&Cron>) -> Result<(), Error>;

    /// Gives a project limits of its own in place of those that it had; those that are none are the configuration's.
    async fn set_guard(&self, id: &ProjectId, own: &OwnLimits) -> Result<(), Error>;

    /// Removes a project with its key, catalog, change log and run records.
    async fn remove_project(&self, id: &ProjectId) -> Result<(), Error>;

    /// Claims a project: a new epoch and token. What was asked for so far is answered by this claim's run. Fails with
    /// [`Error::Leased`] while another lease lasts at `now`, and with [`Error::Paused`].
    async fn acquire(&self, id: &ProjectId, ttl: Duration, now: Instant) -> Result<Claim, Error>;

    /// Asks for syncs now, on demand. However often a project is asked for, it has one pending request; one that comes during a run
    /// causes another run, which starts after it.
    async fn ask(&self, asks: &[Ask], now: Instant) -> Result<Asked, Error>;

    /// Takes up to `most` of the rows that the host inserted into `sync_requests`, as [`Store::ask`] does. Those that name no project
    /// go to `refused_requests`.
    async fn take_inbox(&self, most: u32, now: Instant) -> Result<Inbox, Error>;

    /// Waits until the host has inserted a request, where the database can tell; else for ever. It may miss some: polling is the
    /// truth.
    async fn await_inbox(&self) -> Result<(), Error>;

    /// Asks for the syncs of up to `most` projects that are due, and sets when they are due next, in one transaction: whatever the
    /// number of workers, a slot is issued once, and what was missed is caught up once. A project whose key waits for a person
    /// is passed over if it was looked at after `blocked_since`.
    async fn issue_slots(
        &self,
        schedule: &Schedule,
        blocked_since: Instant,
        most: u32,
        now: Instant,
    ) -> Result<Issued, Error>;

    /// Sets anew when projects are due whose appointment is not the one that the schedule gives from `now` on: the schedule was
    /// changed, or a clock was set back. Looks at up to `most` projects whose ids come after `after`, and gives the last, if there
    /// may be more.
    async fn reschedule(
        &self,
        schedule: &Schedule,
        after: Option<&ProjectId>,
        most: u32,
        now: Instant,
    ) -> Result<Option<ProjectId>, Error>;

    /// What there may be to do. It only reads.
    async fn look(&self, now: Instant) -> Result<Sight, Error>;

    /// Claims up to `most` projects with a request that is ready, on demand before scheduled, then the longest waiting; one of those
    /// that share a key, and none whose key has too little of its budget left. Who finds a lease that ran out counts it: a
    /// project that lost three in a row within a day is set aside instead, and one that lost two is given only while
    /// `last_chance` allows, so that the run that kills its workers is told from those beside it.
    async fn claim(
        &self,
        most: u32,
        last_chance: LastChance,
        ttl: Duration,
        now: Instant,
    ) -> Result<Claimed, Error>;

    /// Lengthens a lease to `now + ttl`, or fails with [`Error::LeaseLost`]. It has a connection of its own.
    async fn renew(&self, lease: &Lease, ttl: Duration, now: Instant) -> Result<Lease, Error>;

    /// Gives a lease back without a run record: what was asked for is still to be done. A lease that was lost is no error:
    /// there is nothing to give back.
    async fn release(&self, lease: &Lease) -> Result<(), Error>;

    /// Gives a lease back after a run that could not be recorded: what was asked for is to be done, but not before `until`; the wait
    /// counts as a retry. A lease that was lost is no error.
    async fn postpone(
        &self,
        lease: &Lease,
        until: Instant,
        spent: &Spent,
        now: Instant,
    ) -> Result<(), Error>;

    /// After this machine's clock was set back: what was to wait until an instant that is far ahead now waits no longer, and no lease
    /// lasts longer than a new one would.
    async fn rouse(&self, ttl: Duration, now: Instant) -> Result<(), Error>;

    /// What a run needs to know of its project.
    async fn load_state(&self, id: &ProjectId) -> Result<State, Error>;

    /// The catalog as the next run compares it, removed entries included.
    async fn load_catalog(&self, id: &ProjectId) -> Result<Catalog, Error>;

    /// Writes the plan's changes, the change log, the revision, the run's record, the project's state, what the run spent of its
    /// key's budget and what brokers are to be told, and gives the lease back, all together. Fails with [`Error::LeaseLost`], writing nothing, when the lease's epoch or token is no
    /// longer the project's. A plan without changes writes no row of the catalog or its log and leaves the revision. The
    /// number of statements does not depend on the number of changes.
    async fn commit(
        &self,
        lease: &Lease,
        plan: &Plan,
        run: &Run,
        aftermath: &Aftermath,
    ) -> Result<Committed, Error>;

    /// Ends the hold that stands with this digest: what it holds stays, noted as kept, until it is listed again. Gives the lease
    /// back. None, changing nothing else, when no hold stands with that digest.
    async fn discard(
        &self,
        lease: &Lease,
        digest: &Digest,
        now: Instant,
    ) -> Result<Option<Hold>, Error>;

    /// Takes back the latest discarding of a hold with this digest: what it held is held again, as a hold anew. Gives the lease back. False, changing nothing
    /// else, when there is none, or another hold stands.
    async fn reopen(&self, lease: &Lease, digest: &Digest) -> Result<bool, Error>;

    /// The holds of one project, or of all by project, the newest first.
    async fn read_holds(
        &self,
        id: Option<&ProjectId>,
        ended: Ended,
    ) -> Result<Vec<RecordedHold>, Error>;

    /// Names the brokers that are to be told of changes from now on. Those not named for longer than `forget_before` are forgotten,
    /// and what they were to be told; their names are given.
    async fn name_sinks(
        &self,
        sinks: &[&str],
        forget_before: Instant,
        now: Instant,
    ) -> Result<Vec<String>, Error>;

    /// Deletes for good what is old, from before that instant: looks at up to `most` rows after that mark, and gives the next. It
    /// waits for no other transaction: what one has locked is left out, and found when the table is looked through again. So are entries
    /// and changes of a project that is leased at `now`. Where a project's log lost something, its `log_since` rises to `before`.
    async fn prune(
        &self,
        old: Old,
        before: Instant,
        after: &Mark,
        most: u32,
        now: Instant,
    ) -> Result<Pruned, Error>;

    /// Claims the right to tell a broker of changes, or lengthens it. False while another worker has it.
    async fn hold_sink(
        &self,
        lease: &SinkLease,
        ttl: Duration,
        now: Instant,
    ) -> Result<bool, Error>;

    /// Gives that right back.
    async fn release_sink(&self, lease: &SinkLease) -> Result<(), Error>;

    /// Up to `most` changes that the broker is to be told of, in order for each project.
    async fn read_untold(&self, sink: &str, most: u32) -> Result<Vec<Untold>, Error>;

    /// That the broker was told of these, which are the first that [`Store::read_untold`] gave, and of nothing else. False, and
    /// nothing is changed, if the right to tell it was lost.
    async fn told(&self, lease: &SinkLease, told: &[Untold]) -> Result<bool, Error>;

    /// What readers see: the rows of the views. Removed entries are left out unless asked for.
    async fn read_shelf(&self, id: &ProjectId, removed: Removed) -> Result<Shelf, Error>;

    /// What [`Store::read_shelf`] gave, removed entries included, once the last run that ended by that instant had ended; of the grace
    /// period, it is not known when it was checked. Fails with [`Error::BeforeTheLog`] when the change log does not reach
    /// back so far.
    async fn read_shelf_at(&self, id: &ProjectId, at: Instant) -> Result<Shelf, Error>;

    /// Every value that the grace period had, in order.
    async fn read_grace_periods(&self, id: &ProjectId) -> Result<Vec<GracePeriodPast>, Error>;

    /// Up to `most` lines of a project's change log, in order, that come after the line with that number.
    async fn read_log(
        &self,
        id: &ProjectId,
        after_seq: i64,
        most: u32,
    ) -> Result<Vec<LoggedChange>, Error>;

    /// Where the change log ends.
    async fn load_log_end(&self, id: &ProjectId) -> Result<LogEnd, Error>;

    /// A project's change log, newest first.
    async fn read_history(
        &self,
        id: &ProjectId,
        filter: &HistoryFilter,
    ) -> Result<Vec<LoggedChange>, Error>;

    /// A project's latest runs, newest first.
    async fn read_runs(&self, id: &ProjectId, limit: u32) -> Result<Vec<RecordedRun>, Error>;

    /// Every project's status, by id.
    async fn read_statuses(&self) -> Result<Vec<Status>, Error>;

    /// The status of up to `most` projects: the worst first, in the order of [`Condition`], then the one whose last success is the
    /// longest ago.
    async fn read_worst(
        &self,
        schedule: &Schedule,
        most: u32,
        now: Instant,
    ) -> Result<Vec<Status>, Error>;

    /// How all projects fare. It names up to `most` of those that are stale, of those that fail, and of those with a hold.
    async fn read_fleet(
        &self,
        schedule: &Schedule,
        most: u32,
        now: Instant,
    ) -> Result<Fleet, Error>;

    /// The daemons that were heard of within the last minute, by name.
    async fn read_workers(&self, now: Instant) -> Result<Vec<Worker>, Error>;

    /// Says that this worker, a daemon, is at work.
    async fn note_worker(
        &self,
        version: &str,
        started_at: Instant,
        now: Instant,
    ) -> Result<(), Error>;

    /// Says that this worker has ended.
    async fn forget_worker(&self) -> Result<(), Error>;

    /// What is known of the hourly budget of a project's key, over all projects that use it.
    async fn load_ledger(&self, id: &ProjectId) -> Result<Ledger, Error>;

    /// One project's status.
    async fn read_status(&self, id: &ProjectId) -> Result<Status, Error>;
}

/// Whether a project may be claimed whose last two runs lost their workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastChance {
    /// One of them.
    One,
    /// None: this worker has one already.
    None,
}
