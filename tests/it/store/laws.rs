//! Laws that hold for any catalog.

use std::collections::BTreeSet;

use catalog_sync::{
    catalog::{Attributes, Catalog, Entry, Kind, Snapshot, diff},
    clock::Instant,
    store::{LoggedChange, Old, Store},
};
use proptest::{
    collection, option, prelude::*, sample::subsequence, strategy::ValueTree as _,
    test_runner::TestRunner,
};
use serde_json::Value;

use super::{
    commits::replay,
    prune::{DAY, day, prune_all},
    sample::{add, aftermath, at, claim, history, plan, run},
};

/// Text without U+0000, which Postgres cannot hold.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,4}", "[^\\u{0}]{0,8}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            collection::vec(option::of(inner.clone()), 0..3)
                .prop_map(|items| items.into_iter().map(Option::unwrap_or_default).collect()),
            collection::btree_map(text(), inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let names = prop_oneof![
        Just("productId".to_owned()),
        Just("name".to_owned()),
        Just("referenceName".to_owned()),
        Just("groupLevel".to_owned()),
        Just("familySharable".to_owned()),
        text(),
    ];
    collection::btree_map(names, value(), 0..5)
}

/// A listing of some of the kinds, with ids from so few that they meet again.
pub(crate) fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    let listing = collection::btree_map("[1-6]", (option::of("[1-3]"), attributes()), 0..5);
    let snapshot = (
        subsequence(Kind::ALL.to_vec(), 0..=4),
        collection::vec(listing, 4),
    )
        .prop_map(|(kinds, listings)| {
            let mut snapshot = Snapshot::new();
            for (kind, listing) in kinds.into_iter().zip(listings) {
                let entries = listing.into_iter().map(|(store_id, (parent, attributes))| {
                    let mut entry = Entry::new(kind, store_id);
                    entry.attributes = attributes;
                    entry.parent = parent.map(Into::into);
                    entry
                });
                snapshot.cover(kind, entries).unwrap();
            }
            snapshot
        });
    collection::vec(snapshot, 1..5)
}

pub(crate) async fn a_committed_catalog_is_the_applied_one(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    for case in 0..40 {
        let project = add(store, &format!("case-{case}")).await;
        let listings = snapshots().new_tree(&mut runner).unwrap().current();
        let mut applied = Catalog::default();
        let mut revision = 0;
        for (minute, snapshot) in (0..).zip(&listings) {
            let plan = plan(&applied, snapshot);
            let lease = claim(store, &project, minute).await;
            let committed = store
                .commit(&lease, &plan, &run(&plan, minute), &aftermath())
                .await
                .unwrap();
            applied.apply(plan.changes());
            revision += i64::from(!plan.changes().is_empty());

            let loaded = store.load_catalog(&project).await.unwrap();
            assert_eq!(loaded, applied, "case {case}: {listings:#?}");
            assert_eq!(committed.revision, revision);
            assert_eq!(committed.rows, 2 * plan.changes().len() as u64);
            assert!(diff(&loaded, snapshot).is_empty());
        }
        assert_eq!(
            replay(history(store, &project).await),
            applied,
            "case {case}"
        );
        store
            .read_shelf(&project, catalog_sync::store::Removed::Included)
            .await
            .unwrap();
    }
}

/// What was there at an instant, by the log, newest line first.
fn then(log: &[LoggedChange], now: Instant) -> Catalog {
    let lines = log.iter().filter(|line| line.at <= now);
    let mut catalog = replay(lines.cloned().collect());
    catalog.removed.clear();
    catalog
}

pub(crate) async fn replaying_what_is_left_gives_the_catalog_then_and_since(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    let mut deleted = 0;
    for case in 0..30 {
        let project = add(store, &format!("case-{case}")).await;
        let cases = (
            snapshots(),
            snapshots(),
            0..10_i64,
            0..10_i64,
            any::<bool>(),
        );
        let (mut listings, more, first, second, forgets) =
            cases.new_tree(&mut runner).unwrap().current();
        listings.extend(more);
        // One after another: the log is in the order of time.
        let begin = 20 * case;
        for (number, snapshot) in (begin..).zip(&listings) {
            let local = store.load_catalog(&project).await.unwrap();
            let plan = plan(&local, snapshot);
            let lease = claim(store, &project, number * DAY).await;
            let run = run(&plan, number * DAY);
            let done = store.commit(&lease, &plan, &run, &aftermath()).await;
            done.unwrap();
        }
        let before = history(store, &project).await;
        let (first, second) = (begin + first, begin + second);
        for cutoff in [first, second].map(|number| at(number * DAY + 1)) {
            if forgets {
                prune_all(store, Old::Entries, cutoff).await;
            }
            deleted += prune_all(store, Old::Changes, cutoff).await;
        }
        let after = history(store, &project).await;

        let cutoff = first.max(second);
        for number in cutoff..=begin + 10 {
            let now = at(number * DAY + 1);
            assert_eq!(
                then(&after, now),
                then(&before, now),
                "case {case}, day {number}, cutoff {cutoff}: {listings:#?}"
            );
        }
        let catalog = store.load_catalog(&project).await.unwrap();
        assert_eq!(then(&after, day(9999)).present, catalog.present);
        // Of each entry, one line at most is left from before the cutoff, but for the grace period.
        let mut seen = BTreeSet::new();
        for line in after.iter().filter(|line| line.at < day(cutoff)) {
            let is_kept = line.kind == Kind::GracePeriod.as_str();
            let is_only = seen.insert((line.kind.clone(), line.store_id.clone()));
            assert!(is_kept || is_only, "{line:?}");
        }
    }
    assert!(deleted > 100, "{deleted}");
}
