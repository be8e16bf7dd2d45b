//! What holds for every catalog and every listing.

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::catalog::{
    Catalog, Change, ChangeSet, Counts, Digest, Entry, Hold, Kind, Limits, NotAListing, Op,
    Snapshot, Standing, Tally, Unforeseen, diff, guard::Review, unforeseen,
};
use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::{Value, json};

use crate::{products, review_within};

fn a_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4i64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        Just(json!(["APP_STORE", {"nested": null}])),
    ]
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let kind = prop::sample::select(&Kind::ALL[..]);
    let attributes =
        prop::collection::btree_map("name|state|productId|referenceName|new", a_value(), 0..4);
    (kind, 0..12u32, prop::option::of(0..3u32), attributes).prop_map(
        |(kind, id, parent, attributes)| {
            let mut entry = Entry::new(kind, id.to_string());
            if kind == Kind::Subscription {
                entry.parent = parent.map(|parent| parent.to_string().into());
            }
            attributes
                .into_iter()
                .fold(entry, |entry, (name, value)| entry.with(name, value))
        },
    )
}

fn entries() -> impl Strategy<Value = BTreeMap<catalog_sync::catalog::Key, Entry>> {
    vec(an_entry(), 0..30).prop_map(|entries| {
        entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect()
    })
}

fn a_catalog() -> impl Strategy<Value = Catalog> {
    (entries(), entries()).prop_map(|(present, mut removed)| {
        removed.retain(|key, _| !present.contains_key(key));
        Catalog {
            present,
            removed,
            ..Catalog::default()
        }
    })
}

fn a_snapshot() -> impl Strategy<Value = Snapshot> {
    (entries(), subsequence(&Kind::ALL[..], 0..=Kind::ALL.len())).prop_map(|(entries, kinds)| {
        let mut snapshot = Snapshot::new();
        for kind in kinds {
            snapshot
                .cover(
                    kind,
                    entries
                        .values()
                        .filter(|entry| entry.key.kind == kind)
                        .cloned(),
                )
                .unwrap();
        }
        snapshot
    })
}

proptest! {
    #[test]
    fn applying_a_diff_gives_the_remote_within_its_scope_and_leaves_the_rest(
        local in a_catalog(), remote in a_snapshot()
    ) {
        let mut after = local.clone();
        after.apply(&diff(&local, &remote));
        for kind in Kind::ALL {
            let there: Vec<_> = after.of_kind(kind).collect();
            if remote.covers().contains(&kind) {
                let listed: Vec<_> = remote.entries().values().filter(|entry| entry.key.kind == kind).collect();
                prop_assert_eq!(there, listed);
            } else {
                prop_assert_eq!(there, local.of_kind(kind).collect::<Vec<_>>());
            }
        }
        prop_assert!(after.present.keys().all(|key| !after.removed.contains_key(key)));
    }

    #[test]
    fn what_is_equal_has_no_diff(local in a_catalog(), remote in a_snapshot()) {
        let mut after = local.clone();
        after.apply(&diff(&local, &remote));
        prop_assert_eq!(diff(&after, &remote), ChangeSet::default());
    }

    #[test]
    fn the_order_is_that_of_the_keys_and_each_key_changes_once(local in a_catalog(), remote in a_snapshot()) {
        let changes = diff(&local, &remote);
        let keys: Vec<_> = changes.iter().map(Change::key).collect();
        prop_assert!(keys.is_sorted());
        prop_assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        prop_assert_eq!(&changes, &diff(&local, &remote));
    }

    #[test]
    fn replaying_the_log_from_nothing_gives_the_catalog(remotes in vec(a_snapshot(), 0..6)) {
        let mut catalog = Catalog::default();
        let mut log = Vec::new();
        for remote in &remotes {
            let changes = diff(&catalog, remote);
            catalog.apply(&changes);
            log.push(changes);
        }
        let mut replayed = Catalog::default();
        for changes in &log {
            replayed.apply(changes);
        }
        prop_assert_eq!(replayed, catalog);
    }

    #[test]
    fn a_thing_that_returns_is_restored_and_one_never_seen_is_added(local in a_catalog(), remote in a_snapshot()) {
        for change in &diff(&local, &remote) {
            match change.op() {
                Op::Added => prop_assert!(!local.removed.contains_key(change.key())),
                Op::Restored => prop_assert_eq!(change.before(), local.removed.get(change.key())),
                Op::Updated => prop_assert!(!change.fields().is_empty()),
                Op::Removed => prop_assert_eq!(change.before(), local.present.get(change.key())),
            }
        }
    }

    #[test]
    fn the_guard_splits_and_loses_nothing(local in a_catalog(), remote in a_snapshot()) {
        let changes = diff(&local, &remote);
        let limits = Limits { removed_percent: 20, percent_from: 3, removed_max: 3, descendants_max: 1 };
        let Review { plan, hold, .. } = review_within(&local, &remote, &limits, Standing::Nothing);
        let held = hold.as_ref().map_or(0, |hold| hold.removals.len());
        // A parent waits while anything in it stays: it was not looked at, or is listed still.
        let waits = |change: &Change| {
            change.op() == Op::Removed
                && local.present.values().any(|entry| {
                    let now = remote.entries().get(&entry.key);
                    let moved = now.is_some_and(|now| now.parent != entry.parent);
                    let stays = now.is_some() || !remote.covers().contains(&entry.key.kind);
                    entry.key.kind.parent() == Some(change.key().kind)
                        && entry.parent.as_ref() == Some(&change.key().store_id)
                        && stays && !moved
                })
        };
        let is_held_by = |hold: &Option<Hold>, change: &Change| {
            hold.iter().flat_map(|hold| &hold.removals).any(|held| held.key == *change.key())
        };
        let waiting = changes.iter().filter(|change| waits(change) && !is_held_by(&hold, change)).count();
        prop_assert_eq!(plan.changes().len() + held + waiting, changes.len());
        for change in &changes {
            let is_held = is_held_by(&hold, change);
            let is_planned = plan.changes().iter().any(|planned| planned == change);
            prop_assert_eq!(!is_planned, is_held || waits(change));
            prop_assert!(!is_held || change.op() == Op::Removed);
        }
        if let Some(hold) = hold {
            let again = review_within(&local, &remote, &limits, Standing::Held(&hold));
            prop_assert_eq!(again.hold.map(|again| again.digest), Some(hold.digest.clone()));
            let standing = Standing::of(Some(&hold), Some(&hold.digest));
            let approved = review_within(&local, &remote, &limits, standing);
            for change in &changes {
                let is_planned = approved.plan.changes().iter().any(|planned| planned == change);
                prop_assert_eq!(is_planned, !waits(change));
                prop_assert!(is_planned || is_held_by(&approved.hold, change) || !is_held_by(&Some(hold.clone()), change));
            }
        }
    }
}

#[test]
fn a_snapshot_counts_kind_by_kind() {
    let mut remote = Snapshot::new();
    let all: Vec<_> = products(3).present.into_values().collect();
    remote.cover(Kind::InAppPurchase, all).unwrap();
    let group = Entry::new(Kind::SubscriptionGroup, "7");
    remote.cover(Kind::SubscriptionGroup, [group]).unwrap();
    let counts = Kind::ALL.map(|kind| remote.count(kind));
    assert_eq!(counts, [3, 1, 0, 0]);
}

#[test]
fn a_kind_is_covered_whole_or_not_at_all() {
    let mut snapshot = Snapshot::new();
    let product = || Entry::new(Kind::InAppPurchase, "1");
    let repeated = snapshot.cover(Kind::InAppPurchase, [product(), product()]);
    assert_eq!(
        repeated,
        Err(NotAListing::Repeated {
            kind: Kind::InAppPurchase,
            store_id: "1".into()
        })
    );
    let stray = snapshot.cover(Kind::Subscription, [product()]);
    assert!(matches!(stray, Err(NotAListing::Stray { .. })));
    assert_eq!(snapshot, Snapshot::new());
}

#[test]
fn absence_outside_the_scope_means_nothing() {
    let local = products(20);
    let mut remote = Snapshot::new();
    remote.cover(Kind::SubscriptionGroup, []).unwrap();
    assert!(diff(&local, &remote).is_empty());
}

#[test]
fn a_plan_prints_itself_field_by_field() {
    let coins = Entry::new(Kind::InAppPurchase, "1")
        .with("productId", "com.example.coins")
        .with("name", "Coins");
    let monthly = Entry::new(Kind::Subscription, "2")
        .within("9")
        .with("productId", "com.example.monthly")
        .with("name", "Monthly")
        .with("state", "READY_TO_SUBMIT");
    let gone = Entry::new(Kind::SubscriptionGroup, "3").with("referenceName", "Old");
    let back = Entry::new(Kind::InAppPurchase, "4").with("productId", "com.example.back");
    let mut local = Catalog::default();
    for entry in [monthly.clone(), gone.clone()] {
        local.present.insert(entry.key.clone(), entry);
    }
    local.removed.insert(back.key.clone(), back.clone());
    let mut remote = Snapshot::new();
    remote
        .cover(Kind::InAppPurchase, [coins, back.with("name", "Back")])
        .unwrap();
    remote.cover(Kind::SubscriptionGroup, []).unwrap();
    let moved = monthly
        .within("8")
        .with("state", "APPROVED")
        .with("groupLevel", 1);
    remote.cover(Kind::Subscription, [moved]).unwrap();

    insta::assert_snapshot!(diff(&local, &remote), @r#"
    + in_app_purchase    com.example.coins "Coins"
    + in_app_purchase    com.example.back "Back" (restored)
        name: (none) -> "Back"
    - subscription_group 3 "Old"
    ~ subscription       com.example.monthly "Monthly"
        subscription_group: "9" -> "8"
        groupLevel: (none) -> 1
        state: "READY_TO_SUBMIT" -> "APPROVED"
    1 added, 1 updated, 1 removed, 1 restored
    "#);
    let json = serde_json::to_value(diff(&local, &remote)).unwrap();
    assert_eq!(
        json[3],
        json!({
            "op": "updated", "kind": "subscription", "store_id": "2", "product_id": "com.example.monthly",
            "before": { "parent": "9", "attributes":
                { "name": "Monthly", "productId": "com.example.monthly", "state": "READY_TO_SUBMIT" } },
            "after": { "parent": "8", "attributes":
                { "name": "Monthly", "productId": "com.example.monthly", "state": "APPROVED", "groupLevel": 1 } },
        })
    );
}

#[test]
fn names_are_read_as_they_are_written() {
    for op in [Op::Added, Op::Updated, Op::Removed, Op::Restored] {
        assert_eq!(op.as_str().parse::<Op>().unwrap(), op);
    }
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
    }
    assert!("Added".parse::<Op>().is_err() && "group".parse::<Kind>().is_err());
    let digest = Digest::from("0123456789AB");
    assert_eq!(digest.to_string(), "0123456789ab");
}

#[test]
fn counts_are_told_in_a_line() {
    let of = |added, updated, removed, restored| {
        let tally = Tally {
            added,
            updated,
            removed,
            restored,
        };
        Counts([(Kind::InAppPurchase, tally)].into()).to_string()
    };
    assert_eq!(of(0, 0, 0, 0), "no changes");
    assert_eq!(of(1, 2, 3, 0), "1 added, 2 updated, 3 removed");
    assert_eq!(of(0, 0, 0, 1), "0 added, 0 updated, 0 removed, 1 restored");
}

#[test]
fn what_is_not_known_is_told() {
    let entry = Entry::new(Kind::Subscription, "1")
        .with("state", "APPROVED")
        .with("subscriptionPeriod", "TWO_WEEKS")
        .with("colour", "red")
        .with("groupLevel", 1.5)
        .with("familySharable", "yes")
        .with("marketSettings", json!(["APP_STORE", "MOON"]))
        .with("name", "anything");
    let found: Vec<_> = unforeseen(&entry).collect();
    let of = |attribute: &str, value: Option<&str>| Unforeseen {
        kind: Kind::Subscription,
        attribute: attribute.to_owned(),
        value: value.map(str::to_owned),
    };
    assert_eq!(
        found,
        [
            of("colour", None),
            of("familySharable", Some("(a text)")),
            of("groupLevel", Some("(a number)")),
            of("marketSettings", Some("[\"APP_STORE\",\"MOON\"]")),
            of("subscriptionPeriod", Some("\"TWO_WEEKS\"")),
        ]
    );

    let known = Entry::new(Kind::Subscription, "1")
        .with("groupLevel", 1)
        .with("familySharable", false)
        .with("marketSettings", json!(["APP_STORE"]));
    assert_eq!(unforeseen(&known).count(), 0);
}
