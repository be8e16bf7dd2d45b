//! What is true in a story, whatever its workers believe: the time, what was written in which order, and what went wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::tally::Tally;
use crate::random::Random;
use catalog_sync::{
    catalog::{Catalog, Change, Kind, Limits, Op, Plan},
    clock::Instant,
    diagnosis::Code,
    project::ProjectId,
    run::{Outcome, Run},
    store::{Claim, Lease},
};

/// How often calls of the database go wrong, one in so many; never, if that is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) crash: usize,
    pub(super) stall: usize,
    /// The same for the connections to App Store Connect.
    pub(super) unconnected: usize,
}

/// All that workers of a story share.
pub(super) struct World {
    inner: Mutex<Inner>,
    pub(super) start: Instant,
}

pub(super) struct Inner {
    pub(super) random: Random,
    pub(super) rates: Rates,
    pub(super) tally: Tally,
    pub(super) trace: Vec<String>,
    /// What must not have happened.
    pub(super) wrong: Vec<String>,
    pub(super) works: BTreeMap<ProjectId, Work>,
    /// Numbers what happens to the database.
    moment: u64,
}

/// What befell one project, in the order of the database.
#[derive(Default)]
pub(super) struct Work {
    /// The newest epoch, and when it was claimed.
    epoch: i64,
    claimed: u64,
    pub(super) runs: Vec<Done>,
    /// When it was asked for.
    pub(super) asked: Vec<u64>,
    /// From when until when another project's key stood in its row.
    pub(super) swapped: Option<(u64, u64)>,
}

/// A run that was committed.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) claimed: u64,
    pub(super) slot_at: Option<Instant>,
    pub(super) outcome: Outcome,
    pub(super) code: Option<Code>,
}

impl World {
    pub(super) fn new(start: Instant, seed: u64, rates: Rates) -> Self {
        Self {
            inner: Mutex::new(Inner {
                random: Random(seed),
                rates,
                tally: Tally::default(),
                trace: Vec::new(),
                wrong: Vec::new(),
                works: BTreeMap::new(),
                moment: 0,
            }),
            start,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(super) fn tell(&mut self, at: Instant, who: &str, what: &str) {
        let mut line = at.format("%H:%M:%S%.3f").to_string();
        write!(line, " {who:<8} {what}").unwrap();
        self.trace.push(line);
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.trace.push(format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    /// Whether that happens now.
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        count > 0 && self.random.below(count) == 0
    }

    pub(super) fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub(super) fn work(&mut self, id: &ProjectId) -> &mut Work {
        self.works.entry(id.clone()).or_default()
    }

    pub(super) fn asked(&mut self, id: &ProjectId) {
        let moment = self.moment();
        self.work(id).asked.push(moment);
        self.tally.asked += 1;
    }

    /// A project was claimed. The epoch rises (I1).
    pub(super) fn claimed(&mut self, claim: &Claim) {
        let (id, epoch) = (&claim.lease.project, claim.lease.epoch);
        let moment = self.moment();
        let work = self.work(id);
        let before = std::mem::replace(&mut work.epoch, epoch);
        work.claimed = moment;
        self.tally.claims += 1;
        if epoch <= before {
            self.wrong(format!(
                "I1: {id} was claimed with epoch {epoch} after {before}"
            ));
        }
    }

    pub(super) fn renewed(&mut self, lease: &Lease) {
        let epoch = self.work(&lease.project).epoch;
        if lease.epoch != epoch {
            self.wrong(format!(
                "I1: {lease:?} was renewed, and the epoch is {epoch}"
            ));
        }
    }

    /// A run was committed to the catalog that was this before. Nobody else had claimed the project (I1), and nothing that the guard
    /// is to hold went unless somebody approved it.
    pub(super) fn committed(
        &mut self,
        lease: &Lease,
        plan: &Plan,
        run: &Run,
        before: &Catalog,
        is_approved: bool,
    ) {
        self.moment();
        let id = &lease.project;
        let (epoch, claimed) = (self.work(id).epoch, self.work(id).claimed);
        if lease.epoch != epoch {
            self.wrong(format!(
                "I1: {id} was written under epoch {}, and the epoch is {epoch}",
                lease.epoch
            ));
        }
        if !is_approved && let Some(kind) = suspicious(plan, before) {
            self.wrong(format!("guard: {id} lost {kind} that were to be held"));
        }
        let code = run.error.as_ref().map(|error| error.code);
        let done = Done {
            claimed,
            slot_at: run.slot_at,
            outcome: run.outcome,
            code,
        };
        self.tally.count_run(run, plan);
        self.work(id).runs.push(done);
    }
}

/// A kind of which so much goes that its removals are to be held: what the guard promises, found in another way.
fn suspicious(plan: &Plan, before: &Catalog) -> Option<Kind> {
    let limits = Limits::default();
    Kind::ALL.into_iter().find(|&kind| {
        let going: BTreeSet<_> = plan
            .changes()
            .iter()
            .filter(|change| change.op() == Op::Removed)
            .map(Change::key)
            .filter(|key| key.kind == kind)
            .collect();
        let present = before.of_kind(kind).count();
        let is_most =
            present >= limits.percent_from && going.len() * 100 > limits.removed_percent * present;
        !going.is_empty() && (going.len() == present || is_most)
    })
}
