//! The laws of the catalog, and every boundary of the guard.

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::catalog::{
    Catalog, Change, ChangeSet, Entry, Hold, Kind, Limits, NotAListing, Op, Plan, Snapshot, diff,
    guard::{self, Reason, Review, Standing},
    unforeseen,
};
use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::{Value, json};

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
        Catalog { present, removed }
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
        let Review { plan, hold } = guard::review(changes.clone(), &local, remote.covers(), &limits, Standing::Nothing);
        let held = hold.as_ref().map_or(0, |hold| hold.removals.len());
        // A parent waits while its descendants were not looked at.
        let waits = |change: &Change| {
            change.op() == Op::Removed
                && local.present.values().any(|entry| {
                    entry.key.kind.parent() == Some(change.key().kind)
                        && entry.parent.as_ref() == Some(&change.key().store_id)
                        && !remote.covers().contains(&entry.key.kind)
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
            let standing = Standing::of(Some(&hold), Some(&hold.digest));
            let approved = guard::review(changes.clone(), &local, remote.covers(), &limits, standing);
            for change in &changes {
                let is_planned = approved.plan.changes().iter().any(|planned| planned == change);
                prop_assert_eq!(is_planned, !waits(change));
                prop_assert!(is_planned || is_held_by(&approved.hold, change) || !is_held_by(&Some(hold.clone()), change));
            }
        }
    }
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
fn what_is_not_known_is_told() {
    let entry = Entry::new(Kind::Subscription, "1")
        .with("state", "APPROVED")
        .with("subscriptionPeriod", "TWO_WEEKS")
        .with("colour", "red")
        .with("groupLevel", 1.5)
        .with("familySharable", "yes")
        .with("marketSettings", json!(["APP_STORE", "MOON"]))
        .with("name", "anything");
    let found: Vec<_> = unforeseen(&entry).map(|(name, _)| name).collect();
    assert_eq!(
        found,
        [
            "colour",
            "familySharable",
            "groupLevel",
            "marketSettings",
            "subscriptionPeriod"
        ]
    );

    let known = Entry::new(Kind::Subscription, "1")
        .with("groupLevel", 1)
        .with("familySharable", false)
        .with("marketSettings", json!(["APP_STORE"]));
    assert_eq!(unforeseen(&known).count(), 0);
}

// The guard.

/// What the default guard makes of what differs.
fn review(local: &Catalog, remote: &Snapshot, standing: Standing<'_>) -> Review {
    guard::review(
        diff(local, remote),
        local,
        remote.covers(),
        &Limits::default(),
        standing,
    )
}

fn products(count: usize) -> Catalog {
    let mut catalog = Catalog::default();
    for index in 0..count {
        let entry = Entry::new(Kind::InAppPurchase, format!("{index:05}"));
        catalog.present.insert(entry.key.clone(), entry);
    }
    catalog
}

/// What the guard makes of `removed` of `present` in-app purchases vanishing.
fn vanishing(present: usize, removed: usize) -> Review {
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

#[test]
fn every_boundary_of_the_guard() {
    let cases = [
        // (present, removed, held)
        (1, 0, false),
        (1, 1, true), // everything
        (2, 1, false),
        (9, 8, false), // below 10, percentages say nothing
        (9, 9, true),
        (10, 3, false), // 30.0 %
        (10, 4, true),
        (11, 3, false),
        (11, 4, true),
        (1000, 300, false), // 30.0 %
        (1000, 301, true),  // 30.1 %
        (10_000, 500, false),
        (10_000, 501, true),
        (1600, 480, false),
        (1600, 481, true),
    ];
    for (present, removed, held) in cases {
        let Review { plan, hold } = vanishing(present, removed);
        assert_eq!(hold.is_some(), held, "{removed} of {present}");
        assert_eq!(
            plan.changes().len(),
            if held { 0 } else { removed },
            "{removed} of {present}"
        );
    }
}

#[test]
fn a_hold_gives_numbers() {
    let says = |present, removed| vanishing(present, removed).hold.unwrap().to_string();
    assert_eq!(
        says(1, 1),
        "1 removal held: the only in-app purchase would go"
    );
    assert_eq!(
        says(40, 40),
        "40 removals held: all 40 in-app purchases would go"
    );
    assert_eq!(
        says(1000, 301),
        "301 removals held: 301 of 1000 in-app purchases would go (30.1 %, limit 30 %)"
    );
    assert_eq!(
        says(9999, 501),
        "501 removals held: 501 in-app purchases would go (limit 500)"
    );
    // Never rounded down to the limit.
    assert!(says(1600, 481).contains("(30.1 %, limit 30 %)"));
}

fn groups(groups: usize, subscriptions: usize) -> Catalog {
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
fn group_vanishing(local: &Catalog) -> Review {
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

#[test]
fn a_parent_with_more_than_10_descendants_is_held_with_them() {
    let small = group_vanishing(&groups(20, 10));
    assert_eq!(small.hold, None);
    assert_eq!(small.plan.changes().len(), 11);

    let large = group_vanishing(&groups(20, 11));
    assert!(large.plan.changes().is_empty());
    let hold = large.hold.unwrap();
    assert_eq!(hold.removals.len(), 12);
    assert_eq!(
        hold.reasons,
        [Reason::Descendants {
            kind: Kind::SubscriptionGroup,
            store_id: "g0".into(),
            descendants: 11,
            limit: 10
        }]
    );
}

#[test]
fn a_parent_stays_while_what_is_in_it_is_held() {
    // 8 of 16 subscriptions are too many; the group alone, one of two, would pass.
    let Review { plan, hold } = group_vanishing(&groups(2, 8));
    assert!(plan.changes().is_empty());
    assert_eq!(hold.unwrap().removals.len(), 9);
}

#[test]
fn additions_and_updates_pass_beside_a_hold() {
    let local = products(20);
    let mut remote = Snapshot::new();
    let kept = local
        .present
        .values()
        .take(1)
        .map(|entry| entry.clone().with("name", "new name"));
    remote
        .cover(
            Kind::InAppPurchase,
            kept.chain([Entry::new(Kind::InAppPurchase, "new")]),
        )
        .unwrap();
    let Review { plan, hold } = review(&local, &remote, Standing::Nothing);
    let ops: Vec<_> = plan.changes().iter().map(Change::op).collect();
    assert_eq!(ops, [Op::Updated, Op::Added]);
    assert_eq!(hold.unwrap().removals.len(), 19);
}

#[test]
fn an_approval_releases_just_what_was_shown() {
    let shown = vanishing(10, 4).hold.unwrap();
    let moved_on = vanishing(10, 5).hold.unwrap();
    assert_ne!(shown.digest, moved_on.digest);

    let local = products(10);
    let mut remote = Snapshot::new();
    remote
        .cover(Kind::InAppPurchase, local.present.values().skip(5).cloned())
        .unwrap();
    let approving = |hold| {
        review(
            &local,
            &remote,
            Standing::of(Some(hold), Some(&hold.digest)),
        )
    };
    assert_eq!(approving(&shown).hold.unwrap().digest, moved_on.digest);
    assert_eq!(approving(&moved_on).plan.changes().len(), 5);
    let mistyped = review(
        &local,
        &remote,
        Standing::of(Some(&moved_on), Some(&"000000000000".into())),
    );
    assert_eq!(mistyped.hold, Some(moved_on));
}

#[test]
fn an_approval_counts_for_the_kinds_that_were_looked_at() {
    let mut local = products(20);
    local.present.extend(groups(2, 8).present);
    // Everything of both kinds had vanished and was shown; now only the groups can be looked at.
    let purchases = vanishing(20, 20).hold;
    let mut remote = Snapshot::new();
    remote.cover(Kind::SubscriptionGroup, []).unwrap();
    remote.cover(Kind::Subscription, []).unwrap();
    let of_groups = review(&local, &remote, Standing::Nothing).hold;
    let shown = Hold::after(purchases.clone(), of_groups, remote.covers()).unwrap();

    let approved = review(&local, &remote, Standing::Approved(&shown));
    assert_eq!(
        (approved.plan.changes().len(), approved.hold.clone()),
        (18, None)
    );
    assert_eq!(
        Hold::after(Some(shown), approved.hold, remote.covers()),
        purchases,
        "the rest stays held"
    );
}

#[test]
fn a_held_parent_that_must_wait_stays_held_under_the_same_digest() {
    let local = groups(20, 11);
    let shown = group_vanishing(&local).hold.unwrap();
    // The same, but the subscriptions cannot be looked at.
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::SubscriptionGroup,
            local.of_kind(Kind::SubscriptionGroup).skip(1).cloned(),
        )
        .unwrap();
    for standing in [Standing::Held(&shown), Standing::Approved(&shown)] {
        let blind = review(&local, &remote, standing);
        assert!(blind.plan.changes().is_empty(), "{standing:?}");
        assert_eq!(
            Hold::after(Some(shown.clone()), blind.hold, remote.covers())
                .unwrap()
                .digest,
            shown.digest
        );
    }
}

#[test]
fn a_parent_waits_until_what_is_in_it_can_be_looked_at() {
    let local = groups(5, 2);
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::SubscriptionGroup,
            local.of_kind(Kind::SubscriptionGroup).skip(1).cloned(),
        )
        .unwrap();
    assert_eq!(
        review(&local, &remote, Standing::Nothing),
        Review {
            plan: Plan::nothing(),
            hold: None
        }
    );

    let stays = |entry: &&Entry| entry.parent != Some("g0".into());
    remote
        .cover(
            Kind::Subscription,
            local.of_kind(Kind::Subscription).filter(stays).cloned(),
        )
        .unwrap();
    assert_eq!(
        review(&local, &remote, Standing::Nothing)
            .plan
            .changes()
            .len(),
        3
    );
}

/// A catalog, and what the guard makes of these ids being listed now.
fn listing(local: &Catalog, ids: &[&str], before: Option<&Hold>) -> Review {
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::InAppPurchase,
            ids.iter().map(|id| Entry::new(Kind::InAppPurchase, *id)),
        )
        .unwrap();
    review(local, &remote, Standing::of(before, None))
}

#[test]
fn a_hold_does_not_dissolve_because_the_catalog_grew() {
    let mut local = products(3);
    let first = listing(&local, &["new1", "new2", "new3"], None);
    let hold = first.hold.unwrap();
    assert_eq!(hold.removals.len(), 3);
    local.apply(first.plan.changes());
    assert_eq!(local.count(Kind::InAppPurchase), 6);

    // 3 of 6 would pass by the numbers; held is held.
    let second = listing(&local, &["new1", "new2", "new3"], Some(&hold));
    assert!(second.plan.changes().is_empty());
    assert_eq!(
        second.hold,
        Some(hold.clone()),
        "the same digest, for the same reason"
    );

    // What vanishes beside it joins it, under another digest.
    let third = listing(&local, &["new1", "new2"], Some(&hold))
        .hold
        .unwrap();
    assert_eq!(third.removals.len(), 4);
    assert_ne!(third.digest, hold.digest);

    // One returns: the others stay held. All return: it lapses.
    let ids = ["00000", "new1", "new2", "new3"];
    assert_eq!(
        listing(&local, &ids, Some(&hold))
            .hold
            .unwrap()
            .removals
            .len(),
        2
    );
    let ids = ["00000", "00001", "00002", "new1", "new2", "new3"];
    assert_eq!(
        listing(&local, &ids, Some(&hold)),
        Review {
            plan: Plan::nothing(),
            hold: None
        }
    );
    // And with nothing held, one of six may go.
    let ids = ["00000", "00001", "00002", "new1", "new2"];
    assert_eq!(listing(&local, &ids, None).plan.changes().len(), 1);
}

#[test]
fn a_hold_stays_for_kinds_that_were_not_looked_at() {
    let purchases = vanishing(20, 10).hold;
    let groups = group_vanishing(&groups(2, 8)).hold;
    let only = |kind| BTreeSet::from([kind]);
    let subscriptions = BTreeSet::from([Kind::SubscriptionGroup, Kind::Subscription]);

    assert_eq!(
        Hold::after(None, purchases.clone(), &only(Kind::InAppPurchase)),
        purchases
    );
    assert_eq!(
        Hold::after(purchases.clone(), None, &subscriptions),
        purchases
    );
    assert_eq!(
        Hold::after(purchases.clone(), None, &BTreeSet::new()),
        purchases
    );
    assert_eq!(
        Hold::after(purchases.clone(), None, &only(Kind::InAppPurchase)),
        None
    );

    let both = Hold::after(purchases.clone(), groups.clone(), &subscriptions).unwrap();
    assert_eq!(both.removals.len(), 10 + 9);
    assert_eq!(
        both.reasons.len(),
        purchases.unwrap().reasons.len() + groups.unwrap().reasons.len()
    );
}
