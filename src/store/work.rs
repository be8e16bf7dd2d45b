//! What is to be done: requests for syncs, and the claims that answer them; and changes that brokers are to be told of.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::{Claim, LoggedChange};
use crate::{
    catalog::{Kind, Op},
    clock::Instant,
    project::ProjectId,
    run::Trigger,
};

/// The pending request of a project: there is one at most, whatever asked for it, and however often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// What asked for it; the most urgent, if several did.
    pub trigger: Trigger,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// When it was first asked for.
    pub requested_at: Instant,
    /// Not to be claimed before this instant.
    pub ready_at: Instant,
    /// The slot of the schedule that it stands for, if any.
    pub slot_at: Option<Instant>,
}

/// Somebody asks for a sync now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Of this project.
    pub project: ProjectId,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// What came of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// For each project, the number of its request: it is answered when [`super::Status::served`] has come to it.
    pub tickets: BTreeMap<ProjectId, i64>,
    /// The projects that there are not.
    pub unknown: Vec<ProjectId>,
}

/// What was taken from the table that the host writes its requests to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// How many rows were taken.
    pub taken: usize,
    /// Those that ask for no project there is, and why they were put aside.
    pub refused: Vec<(String, String)>,
}

/// What there may be to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The host has asked for syncs: [`super::Store::take_inbox`].
    pub inbox: bool,
    /// A request is ready: [`super::Store::claim`]. Its project may be paused, and its key in use.
    pub ready: bool,
    /// What time it is at the database, where that has a clock of its own.
    pub clock: Option<Instant>,
}

/// What came of claiming.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The projects that are now this worker's.
    pub claims: Vec<Claim>,
    /// Projects whose key has too little of its hourly budget left, and until when they wait.
    pub deferred: Vec<(ProjectId, Instant)>,
    /// Leases that ran out: their workers died, or could not reach the database.
    pub lost: Vec<Loss>,
    /// Projects that are left alone from now on, because each of their last runs lost its worker.
    pub set_aside: Vec<ProjectId>,
    /// Projects whose rows hold what this version cannot read, and what: they are looked at again later.
    pub unreadable: Vec<(ProjectId, String)>,
}

/// A lease that ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The project.
    pub project: ProjectId,
    /// The epoch of the lease that ran out.
    pub epoch: i64,
    /// Who had it.
    pub worker: Option<String>,
    /// When it ran out.
    pub until: Instant,
}

/// What a tick of the schedule came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// How many projects were due.
    pub due: usize,
    /// How many of them were asked to sync.
    pub asked: usize,
    /// How many were passed over: their key waits for a person, and was looked at a short while ago.
    pub passed_over: usize,
    /// Projects whose rows hold what this version cannot read, and what: they are looked at again later.
    pub unreadable: Vec<(ProjectId, String)>,
}

/// The right to tell a broker of changes, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkLease {
    /// The broker.
    pub sink: String,
    /// Random for each holder.
    pub token: Uuid,
}

/// A change that a broker is to be told of.
#[derive(Clone, Debug, PartialEq)]
pub struct Untold {
    /// The row of the outbox that it belongs to.
    pub outbox_id: i64,
    /// The project.
    pub project: ProjectId,
    /// What sort of thing changed.
    pub kind: Kind,
    /// What happened to it.
    pub op: Op,
    /// The change.
    pub change: LoggedChange,
}
