//! Every boundary of the guard, and what becomes of a hold. All that vanishes here is confirmed.

use std::collections::BTreeSet;

use catalog_sync::catalog::{
    Catalog, Change, Entry, Hold, Kind, Op, Plan, Reason, Snapshot, Standing, guard::Review,
};

use crate::{group_vanishing, groups, products, review, vanishing};

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
        let Review { plan, hold, .. } = vanishing(present, removed);
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
    let Review { plan, hold, .. } = group_vanishing(&groups(2, 8));
    assert!(plan.changes().is_empty());
    assert_eq!(hold.unwrap().removals.len(), 9);
}

#[test]
fn what_vanished_with_a_held_parent_is_held_with_it_and_stays_so() {
    let local = groups(1, 3);
    let mut remote = Snapshot::new();
    remote.cover(Kind::SubscriptionGroup, []).unwrap();
    let moved = |id: &str| Entry::new(Kind::Subscription, id).within("new");
    remote
        .cover(Kind::Subscription, [moved("s0-0"), moved("s0-1")])
        .unwrap();

    let first = review(&local, &remote, Standing::Nothing);
    let hold = first.hold.unwrap();
    let ids: Vec<_> = hold
        .removals
        .iter()
        .map(|held| held.key.store_id.as_str())
        .collect();
    // The only group vanished, which is held; its last subscription could go by itself, but went with it.
    assert_eq!(ids, ["g0", "s0-2"]);
    let again = review(&local, &remote, Standing::Held(&hold));
    assert_eq!(again.hold.unwrap().digest, hold.digest);
    let approved = review(&local, &remote, Standing::Approved(&hold));
    assert!(approved.is_approved);
    assert_eq!(approved.hold, None);
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
    let Review { plan, hold, .. } = review(&local, &remote, Standing::Nothing);
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
    let blind = review(&local, &remote, Standing::Nothing);
    assert!(blind.plan.changes().is_empty());
    assert_eq!(blind.hold, None);

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
            hold: None,
            is_approved: false
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

#[test]
fn a_reason_is_told_once_and_as_long_as_something_of_its_kind_is_held() {
    let mut local = products(20);
    local.present.extend(groups(2, 8).present);
    let gone = |purchases: usize, subscriptions: usize| {
        let mut remote = Snapshot::new();
        for (kind, first) in [
            (Kind::InAppPurchase, purchases),
            (Kind::Subscription, subscriptions),
        ] {
            remote
                .cover(kind, local.of_kind(kind).skip(first).cloned())
                .unwrap();
        }
        remote
    };
    let kinds = |hold: &Hold| -> Vec<_> {
        let of = |reason: &Reason| match reason {
            Reason::Percent { kind, removed, .. } => (*kind, *removed),
            other => panic!("{other:?}"),
        };
        hold.reasons.iter().map(of).collect()
    };
    let both = review(&local, &gone(7, 8), Standing::Nothing).hold.unwrap();
    assert_eq!(
        kinds(&both),
        [(Kind::InAppPurchase, 7), (Kind::Subscription, 8)]
    );

    // The same again: each kind is told once.
    let again = review(&local, &gone(7, 8), Standing::Held(&both))
        .hold
        .unwrap();
    assert_eq!(again, both);
    // More of one, and fewer of the other, which no rule is broken by any more: told as it was, for it is held still.
    let moved = review(&local, &gone(8, 2), Standing::Held(&both))
        .hold
        .unwrap();
    assert_eq!(
        kinds(&moved),
        [(Kind::InAppPurchase, 8), (Kind::Subscription, 8)]
    );
    // All of one kind returned: nothing is told of it.
    let one = review(&local, &gone(7, 0), Standing::Held(&both))
        .hold
        .unwrap();
    assert_eq!(kinds(&one), [(Kind::InAppPurchase, 7)]);
}

#[test]
fn what_was_held_with_its_parent_keeps_the_reason_when_the_parent_returns() {
    let local = groups(20, 11);
    let shown = group_vanishing(&local).hold.unwrap();
    let stays = |entry: &&Entry| entry.parent != Some("g0".into());
    let mut remote = Snapshot::new();
    let all = local.of_kind(Kind::SubscriptionGroup).cloned();
    remote.cover(Kind::SubscriptionGroup, all).unwrap();
    let subscriptions = local.of_kind(Kind::Subscription).filter(stays).cloned();
    remote.cover(Kind::Subscription, subscriptions).unwrap();
    let rest = review(&local, &remote, Standing::Held(&shown))
        .hold
        .unwrap();
    assert_eq!(rest.removals.len(), 11);
    assert_eq!(rest.reasons, shown.reasons);
}
