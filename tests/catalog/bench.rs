//! A project between runs.

use std::collections::BTreeMap;

use catalog_sync::catalog::{
    Absence, Answer, Answers, Catalog, Confirmation, Entry, Hold, Key, Kind, Limits, Snapshot,
    Standing, Turn, diff,
    guard::{self, Evidence, Review},
};
use chrono::{DateTime, Utc};

/// A project between runs.
#[derive(Clone, Default)]
pub(crate) struct Bench {
    pub(crate) local: Catalog,
    pub(crate) hold: Option<Hold>,
    pub(crate) answers: Answers,
    pub(crate) turns: BTreeMap<Kind, Turn>,
    pub(crate) seen_at: BTreeMap<Kind, DateTime<Utc>>,
    pub(crate) approves: bool,
    pub(crate) turn: i64,
}

impl Bench {
    pub(crate) fn of(local: Catalog) -> Self {
        Self {
            local,
            ..Self::default()
        }
    }

    pub(crate) fn answered(mut self, key: &Key, answer: Answer) -> Self {
        self.answers.insert(key.clone(), answer);
        self
    }

    /// One run, which leaves what it notes and writes.
    pub(crate) fn run(&mut self, remote: &Snapshot, now: DateTime<Utc>) -> Review {
        let evidence = Evidence {
            looked_at: remote.covers(),
            seen_at: &self.seen_at,
            answers: &std::mem::take(&mut self.answers),
            turns: &std::mem::take(&mut self.turns),
            confirmation: Confirmation::default(),
            now,
        };
        let hold = self.hold.take();
        let digest = hold.as_ref().map(|hold| hold.digest.clone());
        let approved = std::mem::take(&mut self.approves);
        let standing = Standing::of(hold.as_ref(), digest.as_ref().filter(|_| approved));
        let changes = diff(&self.local, remote);
        let review = guard::review(
            changes,
            &self.local,
            &evidence,
            &Limits::default(),
            standing,
        );
        self.local.absent = review.plan.absent_after(&self.local);
        self.local.apply(review.plan.changes());
        self.seen_at
            .extend(remote.covers().iter().map(|&kind| (kind, now)));
        self.hold = Hold::after(hold, review.hold.clone(), remote.covers());
        review
    }

    pub(crate) fn absence(&self, key: &Key) -> Absence {
        self.local.absent[key]
    }

    pub(crate) fn to_ask(&self, remote: &Snapshot) -> Vec<Key> {
        Confirmation::default().to_ask(
            &diff(&self.local, remote),
            &self.local,
            self.hold.as_ref(),
            |kind| self.turns.contains_key(&kind),
            self.turn,
        )
    }
}

/// A complete listing of in-app purchases that leaves out the first few.
pub(crate) fn without(local: &Catalog, first: usize) -> Snapshot {
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::InAppPurchase,
            local.of_kind(Kind::InAppPurchase).skip(first).cloned(),
        )
        .unwrap();
    remote
}

pub(crate) fn key(kind: Kind, id: &str) -> Key {
    Entry::new(kind, id).key
}

pub(crate) fn product(index: usize) -> Key {
    key(Kind::InAppPurchase, &format!("{index:05}"))
}

pub(crate) fn removed(review: &Review) -> Vec<&str> {
    review
        .plan
        .changes()
        .iter()
        .map(|change| change.key().store_id.as_str())
        .collect()
}
