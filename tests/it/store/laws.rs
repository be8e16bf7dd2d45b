//! Laws that hold for any catalog.

use catalog_sync::{
    catalog::{Attributes, Catalog, Entry, Kind, Snapshot, diff},
    store::Store,
};
use proptest::{
    collection, option, prelude::*, sample::subsequence, strategy::ValueTree as _,
    test_runner::TestRunner,
};
use serde_json::Value;

use super::{
    commits::replay,
    sample::{add, aftermath, claim, history, plan, run},
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
