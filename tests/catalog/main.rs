//! The catalog: what holds for every listing, every boundary of the guard, and what confirms a removal.
//!
//! A target of its own, so that mutation testing of `src/catalog` builds no more than this.
#![cfg(test)]

mod bench;
mod confirmation;
mod decisions;
mod guard;
mod laws;
mod limits;
mod log;

use catalog_sync::catalog::{
    Answer, Answers, Catalog, Change, Confirmation, Entry, Kind, Limits, Op, Snapshot, Standing,
    diff,
    guard::{Evidence, Review},
};
use chrono::{DateTime, TimeDelta, Utc};

/// So many minutes after the beginning.
pub(crate) fn at(minute: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
}

/// Of everything that is not listed, App Store Connect says that it is gone.
pub(crate) fn all_gone(local: &Catalog, remote: &Snapshot) -> Answers {
    diff(local, remote)
        .iter()
        .filter(|change| change.op() == Op::Removed)
        .map(|change: &Change| (change.key().clone(), Answer::Gone))
        .collect()
}

/// What the guard makes of what differs, all removals being confirmed.
pub(crate) fn review_within(
    local: &Catalog,
    remote: &Snapshot,
    limits: &Limits,
    standing: Standing<'_>,
) -> Review {
    let evidence = Evidence {
        looked_at: remote.covers(),
        seen_at: &[].into(),
        answers: &all_gone(local, remote),
        turns: &[].into(),
        confirmation: Confirmation::default(),
        now: at(0),
    };
    catalog_sync::catalog::guard::review(diff(local, remote), local, &evidence, limits, standing)
}

/// As [`review_within`] the default limits.
pub(crate) fn review(local: &Catalog, remote: &Snapshot, standing: Standing<'_>) -> Review {
    review_within(local, remote, &Limits::default(), standing)
}

pub(crate) fn products(count: usize) -> Catalog {
    let mut catalog = Catalog::default();
    for index in 0..count {
        let entry = Entry::new(Kind::InAppPurchase, format!("{index:05}"));
        catalog.present.insert(entry.key.clone(), entry);
    }
    catalog
}

/// What the guard makes of `removed` of `present` in-app purchases vanishing.
pub(crate) fn vanishing(present: usize, removed: usize) -> Review {
    let local = products(present);
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::InAppPurchase,
            local.present.values().skip(removed).cloned(),
        )
        .unwrap();
    review(&local, &remote, Standing::Nothing)
}

pub(crate) fn groups(groups: usize, subscriptions: usize) -> Catalog {
    let mut catalog = Catalog::default();
    for group in 0..groups {
        let parent = Entry::new(Kind::SubscriptionGroup, format!("g{group}"));
        for index in 0..subscriptions {
            let entry = Entry::new(Kind::Subscription, format!("s{group}-{index}"))
                .within(parent.key.store_id.as_str());
            catalog.present.insert(entry.key.clone(), entry);
        }
        catalog.present.insert(parent.key.clone(), parent);
    }
    catalog
}

/// What the guard makes of the first group vanishing with all that is in it.
pub(crate) fn group_vanishing(local: &Catalog) -> Review {
    let stays =
        |entry: &&Entry| entry.key.store_id.as_str() != "g0" && entry.parent != Some("g0".into());
    let mut remote = Snapshot::new();
    for kind in [Kind::SubscriptionGroup, Kind::Subscription] {
        remote
            .cover(kind, local.of_kind(kind).filter(stays).cloned())
            .unwrap();
    }
    review(local, &remote, Standing::Nothing)
}
