//! What waits for a person, and what becomes of it: held, approved, kept.

use catalog_sync::catalog::{Answer, Entry, Kind, Reason, Snapshot, Source, StoreId, Turn};

use crate::{
    at,
    bench::{Bench, key, product, removed, without},
    groups, products,
};

#[test]
fn what_is_held_is_noted_as_absent_and_waits_for_a_person_however_long() {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 4);
    for run in 0..5 {
        let review = bench.run(&remote, at(run * 60));
        assert!(review.plan.changes().is_empty());
        assert_eq!(review.hold.unwrap().removals.len(), 4);
        assert_eq!(bench.local.absent.len(), 4);
    }
}

#[test]
fn an_approval_confirms_what_it_lets_through() {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 4);
    bench.run(&remote, at(0));
    bench.approves = true;
    let review = bench.run(&remote, at(1));
    assert!(review.is_approved);
    assert_eq!(review.plan.changes().len(), 4);
    assert_eq!(review.hold, None);
    assert!(bench.local.absent.is_empty());
}

#[test]
fn an_approval_counts_for_nothing_when_one_thing_has_returned_or_gone() {
    for moved in [3, 5] {
        let mut bench = Bench::of(products(10));
        bench.run(&without(&bench.local, 4), at(0));
        bench.approves = true;
        let remote = without(&bench.local, moved);
        let review = bench.run(&remote, at(1));
        assert!(!review.is_approved);
        assert!(review.plan.changes().is_empty());
        assert_eq!(review.hold.unwrap().removals.len(), moved);
    }
}

#[test]
fn what_is_listed_of_something_else_removes_nothing_that_nobody_approved() {
    for (turn, words) in [
        (Turn::App, "the app was changed"),
        (Turn::Key, "the API key was changed"),
        (Turn::Read, "the version of Apple's API was changed"),
    ] {
        let mut bench = Bench::of(products(100)).answered(&product(0), Answer::Gone);
        bench.turns.insert(Kind::InAppPurchase, turn);
        let remote = without(&bench.local, 1);
        let review = bench.run(&remote, at(0));
        assert!(review.plan.changes().is_empty());
        let hold = review.hold.unwrap();
        assert_eq!(
            hold.reasons,
            [Reason::Generation {
                kind: Kind::InAppPurchase,
                removed: 1,
                turn
            }]
        );
        assert_eq!(
            hold.to_string(),
            format!("1 removal held: 1 in-app purchase would go that was not seen since {words}")
        );
        // It stays so when the next run lists the same.
        assert_eq!(bench.run(&remote, at(60)).hold, Some(hold));
        bench.approves = true;
        assert_eq!(removed(&bench.run(&remote, at(120))), ["00000"]);
        // And from then on the usual rules hold.
        bench.answers.insert(product(1), Answer::Gone);
        let remote = without(&bench.local, 1);
        assert_eq!(removed(&bench.run(&remote, at(180))), ["00001"]);
    }
    let mut two = Bench::of(products(100));
    two.turns.insert(Kind::InAppPurchase, Turn::App);
    let hold = two.run(&without(&two.local, 2), at(0)).hold.unwrap();
    assert!(
        hold.to_string()
            .contains("2 in-app purchases would go that were not seen")
    );
}

#[test]
fn what_is_another_source_is_told_the_gravest_first() {
    let source = |app: &str, key: &str, read: &str| Source {
        app: app.to_owned(),
        key: key.to_owned(),
        read: read.to_owned(),
    };
    let before = source("1", "K", "/v1/x");
    assert_eq!(source("1", "K", "/v1/x").turn(&before), None);
    assert_eq!(source("1", "K", "/v2/x").turn(&before), Some(Turn::Read));
    assert_eq!(source("1", "L", "/v2/x").turn(&before), Some(Turn::Key));
    assert_eq!(source("2", "L", "/v2/x").turn(&before), Some(Turn::App));
}

/// The hold of the first 4 of 10, discarded.
fn discarded() -> Bench {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 4);
    bench.run(&remote, at(0));
    for held in bench.hold.take().unwrap().removals {
        bench.local.absent.get_mut(&held.key).unwrap().kept_at = Some(at(1));
    }
    bench
}

#[test]
fn what_is_kept_is_neither_removed_nor_held_nor_asked_for_until_it_is_listed_again() {
    let mut bench = discarded();
    let whole = without(&bench.local, 0);
    let remote = without(&bench.local, 4);
    for run in 1..4 {
        assert!(bench.to_ask(&remote).is_empty());
        let review = bench.run(&remote, at(run * 60));
        assert!(review.plan.changes().is_empty() && review.plan.absences().is_empty());
        assert_eq!(review.hold, None);
        assert!(bench.local.is_kept(&product(0)) && !bench.local.is_kept(&product(4)));
    }
    bench.run(&whole, at(300));
    assert!(bench.local.absent.is_empty());
    assert!(bench.run(&remote, at(360)).hold.is_some());
}

#[test]
fn what_is_kept_does_not_count_for_the_others() {
    // 6 are left beside the 4 that are kept: 5 of them may go below 10, all 6 may not.
    let mut bench = discarded();
    let mut remote = without(&bench.local, 9);
    for index in 4..9 {
        bench.answers.insert(product(index), Answer::Gone);
    }
    let review = bench.run(&remote, at(10));
    assert_eq!((review.plan.changes().len(), review.hold), (5, None));
    remote = without(&bench.local, 10);
    bench.answers.insert(product(9), Answer::Gone);
    let hold = bench.run(&remote, at(20)).hold.unwrap();
    assert_eq!(
        hold.reasons,
        [Reason::Everything {
            kind: Kind::InAppPurchase,
            removed: 1
        }]
    );
    assert_eq!(hold.removals.len(), 1);
}

#[test]
fn a_hold_keeps_all_that_it_holds() {
    let mut local = products(1);
    for entry in local.present.values_mut() {
        *entry = entry
            .clone()
            .with("productId", "com.example.coins")
            .with("name", "Coins");
    }
    let entry = local.present.values().next().unwrap().clone();
    let mut bench = Bench::of(local);
    let hold = bench.run(&without(&bench.local, 1), at(0)).hold.unwrap();
    let removal = &hold.removals[0];
    assert_eq!(removal.before.as_ref(), Some(&entry.body()));
    assert_eq!(removal.product_id.as_deref(), Some("com.example.coins"));
    assert_eq!(removal.name.as_deref(), Some("Coins"));
    let summary = hold.summary();
    assert_eq!((summary.removals, &summary.digest), (1, &hold.digest));
    assert_eq!(summary.to_string(), hold.to_string());
}

#[test]
fn what_is_held_for_one_parent_holds_nothing_else_of_its_kind() {
    let mut bench = Bench::of(groups(20, 11));
    let listed = |without: &[&str]| {
        let local = groups(20, 11);
        let stays = |entry: &&Entry| {
            let id = entry.key.store_id.as_str();
            let parent = entry.parent.as_ref().map(StoreId::as_str);
            !without.contains(&id) && parent != Some("g0")
        };
        let mut remote = Snapshot::new();
        for kind in [Kind::SubscriptionGroup, Kind::Subscription] {
            remote
                .cover(kind, local.of_kind(kind).filter(stays).cloned())
                .unwrap();
        }
        remote
    };
    let first = bench.run(&listed(&["g0"]), at(0)).hold.unwrap();
    assert_eq!(first.removals.len(), 12);
    bench
        .answers
        .insert(key(Kind::Subscription, "s5-1"), Answer::Gone);
    let second = bench.run(&listed(&["g0", "s5-1"]), at(60));
    assert_eq!(removed(&second), ["s5-1"]);
    assert_eq!(second.hold, Some(first), "under the same digest");
}

#[test]
fn the_same_things_held_by_another_rule_are_another_hold() {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 4);
    let first = bench.run(&remote, at(0)).hold.unwrap();
    bench.turns.insert(Kind::InAppPurchase, Turn::Key);
    let second = bench.run(&remote, at(60)).hold.unwrap();
    assert_eq!(second.digest, first.digest);
    assert!(!second.is_as(&first) && first.is_as(&first));
    let mut counted = first.clone();
    for reason in &mut counted.reasons {
        if let Reason::Percent { present, .. } = reason {
            *present += 1;
        }
    }
    assert!(counted.is_as(&first), "numbers may differ");
}
