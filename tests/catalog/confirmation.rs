//! What confirms a removal, what refutes it, and what waits.

use std::collections::BTreeSet;

use catalog_sync::catalog::{Absence, Answer, Entry, Key, Kind, Snapshot, Turn};
use chrono::TimeDelta;

use crate::{
    at,
    bench::{Bench, key, product, removed, without},
    groups, products,
};

#[test]
fn a_404_removes_at_once() {
    let mut bench = Bench::of(products(10)).answered(&product(0), Answer::Gone);
    let remote = without(&bench.local, 1);
    let review = bench.run(&remote, at(0));
    assert_eq!(removed(&review), ["00000"]);
    assert!(review.plan.absences().is_empty());
    assert!(bench.local.absent.is_empty());
}

#[test]
fn what_was_not_asked_for_goes_with_a_second_listing_five_minutes_later() {
    let second = |after: TimeDelta| {
        let mut bench = Bench::of(products(10));
        let remote = without(&bench.local, 1);
        let first = bench.run(&remote, at(0));
        assert!(first.plan.changes().is_empty() && first.hold.is_none());
        assert_eq!(bench.absence(&product(0)).since, at(0));
        assert_eq!(bench.local.present.len(), 10);
        let review = bench.run(&remote, at(0) + after);
        (removed(&review).len(), bench.local.absent.len())
    };
    let five = TimeDelta::minutes(5);
    assert_eq!(second(five - TimeDelta::milliseconds(1)), (0, 1));
    assert_eq!(second(five), (1, 0));
    assert_eq!(second(TimeDelta::hours(1)), (1, 0));
}

#[test]
fn a_clock_that_was_ahead_puts_nothing_off() {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 1);
    bench.run(&remote, at(60 * 24 * 365));
    let corrected = bench.run(&remote, at(0));
    assert!(corrected.plan.changes().is_empty());
    assert_eq!(bench.absence(&product(0)).since, at(0));
    assert_eq!(removed(&bench.run(&remote, at(5))), ["00000"]);
}

#[test]
fn a_listing_that_is_not_complete_confirms_nothing() {
    let mut bench = Bench::of(products(10));
    let remote = without(&bench.local, 1);
    bench.run(&remote, at(0));
    let noted = bench.local.absent.clone();
    let review = bench.run(&Snapshot::new(), at(60));
    assert!(review.plan.changes().is_empty() && review.plan.absences().is_empty());
    assert_eq!(bench.local.absent, noted);
}

#[test]
fn what_is_listed_again_was_never_away() {
    let mut bench = Bench::of(products(10));
    let whole = without(&bench.local, 0);
    let remote = without(&bench.local, 1);
    bench.run(&remote, at(0));
    let review = bench.run(&whole, at(3));
    assert_eq!(review.plan.absences()[&product(0)], None);
    assert!(bench.local.absent.is_empty());
    // The time counts anew.
    let again = bench.run(&remote, at(6));
    assert!(again.plan.changes().is_empty());
    assert_eq!(bench.absence(&product(0)).since, at(6));
}

#[test]
fn what_is_there_when_asked_for_is_not_removed_however_often_it_is_not_listed() {
    let mut bench = Bench::of(products(10)).answered(&product(0), Answer::There);
    let remote = without(&bench.local, 1);
    for run in 0..5 {
        let review = bench.run(&remote, at(run * 60));
        assert!(review.plan.changes().is_empty(), "run {run}");
        assert_eq!(bench.absence(&product(0)).answer, Some(Answer::There));
    }
    // It is asked for again each time, and a 404 ends it.
    assert_eq!(bench.to_ask(&remote), [product(0)]);
    bench.answers.insert(product(0), Answer::Gone);
    assert_eq!(removed(&bench.run(&remote, at(600))), ["00000"]);
}

#[test]
fn a_listing_that_left_out_what_is_there_confirms_no_other_absence() {
    let mut bench = Bench::of(products(20));
    let remote = without(&bench.local, 2);
    bench.run(&remote, at(0));
    bench.answers.insert(product(0), Answer::There);
    let refuted = bench.run(&remote, at(60));
    assert!(refuted.plan.changes().is_empty());
    // Of another kind it says nothing.
    let mut other = Bench::of(products(20)).answered(&key(Kind::Subscription, "9"), Answer::There);
    other.run(&remote, at(0));
    other
        .answers
        .insert(key(Kind::Subscription, "9"), Answer::There);
    assert_eq!(removed(&other.run(&remote, at(60))).len(), 2);
}

#[test]
fn a_404_of_an_earlier_run_counts() {
    // A group is gone, but a subscription in it waits: the group stays until that is gone too.
    let mut bench =
        Bench::of(groups(4, 2)).answered(&key(Kind::SubscriptionGroup, "g0"), Answer::Gone);
    let stays =
        |entry: &&Entry| entry.parent != Some("g0".into()) && entry.key.store_id.as_str() != "g0";
    let mut remote = Snapshot::new();
    for kind in [Kind::SubscriptionGroup, Kind::Subscription] {
        remote
            .cover(kind, bench.local.of_kind(kind).filter(stays).cloned())
            .unwrap();
    }
    let first = bench.run(&remote, at(0));
    assert!(first.plan.changes().is_empty() && first.hold.is_none());
    assert_eq!(
        bench.absence(&key(Kind::SubscriptionGroup, "g0")).answer,
        Some(Answer::Gone)
    );
    let asked: BTreeSet<Key> = bench.to_ask(&remote).into_iter().collect();
    let expected = ["s0-0", "s0-1"].map(|id| key(Kind::Subscription, id));
    assert_eq!(
        asked,
        expected.clone().into(),
        "never what a 404 is known of"
    );
    for key in expected {
        bench.answers.insert(key, Answer::Gone);
    }
    assert_eq!(removed(&bench.run(&remote, at(1))), ["g0", "s0-0", "s0-1"]);
}

#[test]
fn a_parent_goes_once_its_children_have_moved() {
    let mut bench =
        Bench::of(groups(2, 1)).answered(&key(Kind::SubscriptionGroup, "g0"), Answer::Gone);
    let moved = bench.local.present[&key(Kind::Subscription, "s0-0")]
        .clone()
        .within("g1");
    let stays = bench.local.present[&key(Kind::Subscription, "s1-0")].clone();
    let group = bench.local.present[&key(Kind::SubscriptionGroup, "g1")].clone();
    let mut remote = Snapshot::new();
    remote.cover(Kind::SubscriptionGroup, [group]).unwrap();
    remote.cover(Kind::Subscription, [moved, stays]).unwrap();
    assert_eq!(removed(&bench.run(&remote, at(0))), ["g0", "s0-0"]);
    assert_eq!(bench.local.count(Kind::Subscription), 2);
}

#[test]
fn a_parent_with_many_children_that_moved_is_no_loss() {
    let mut bench =
        Bench::of(groups(4, 11)).answered(&key(Kind::SubscriptionGroup, "g0"), Answer::Gone);
    let mut remote = Snapshot::new();
    let subscriptions = bench.local.of_kind(Kind::Subscription).map(|entry| {
        let moved = entry.clone();
        if entry.parent == Some("g0".into()) {
            moved.within("g1")
        } else {
            moved
        }
    });
    remote.cover(Kind::Subscription, subscriptions).unwrap();
    let groups = bench.local.of_kind(Kind::SubscriptionGroup).skip(1);
    remote
        .cover(Kind::SubscriptionGroup, groups.cloned())
        .unwrap();
    let review = bench.run(&remote, at(0));
    assert_eq!(review.hold, None);
    assert_eq!(review.plan.changes().len(), 12);
}

#[test]
fn what_is_not_listed_is_noted_with_when_it_was_last_seen() {
    let mut bench = Bench::of(products(10));
    bench.run(&without(&bench.local, 0), at(10));
    let remote = without(&bench.local, 1);
    bench.run(&remote, at(20));
    let mut logged = bench.local.clone();
    logged.absent.clear();
    assert_eq!(
        bench.local.clone().logged(),
        logged,
        "all but what is noted"
    );
    assert!(!logged.present.is_empty());
    let noted = Absence {
        since: at(20),
        seen_at: Some(at(10)),
        answer: None,
        kept_at: None,
    };
    assert_eq!(bench.absence(&product(0)), noted);
    // A later run has nothing new to note, but for what it was told.
    let mut later = bench.clone();
    let mut same = later.local.clone();
    let review = later.run(&remote, at(21));
    assert!(review.plan.absences().is_empty());
    same.absent.insert(product(0), noted);
    assert_eq!(later.local, same);
    bench.answers.insert(product(0), Answer::There);
    let review = bench.run(&remote, at(22));
    let told = Absence {
        answer: Some(Answer::There),
        ..noted
    };
    assert_eq!(review.plan.absences()[&product(0)], Some(told));
}

#[test]
fn fifty_are_asked_for_those_that_were_there_last_among_them() {
    let mut bench = Bench::of(products(200));
    let remote = without(&bench.local, 55);
    assert_eq!(
        bench.to_ask(&remote),
        (0..50).map(product).collect::<Vec<_>>()
    );

    for index in 0..3 {
        bench.answers.insert(product(index), Answer::There);
    }
    bench.run(&remote, at(0));
    let again = bench.to_ask(&remote);
    assert_eq!(again, (3..50).chain(0..3).map(product).collect::<Vec<_>>());
    let nearly = without(&bench.local, 5);
    let again = bench.to_ask(&nearly);
    assert_eq!(
        again,
        [3, 4, 0, 1, 2].map(product),
        "and those that were there last"
    );
}

#[test]
fn nobody_is_asked_about_a_grace_period_or_about_what_is_listed_otherwise_or_is_held() {
    let grace_period = Entry::new(Kind::GracePeriod, "1");
    let mut local = products(20);
    local.present.insert(grace_period.key.clone(), grace_period);
    let mut bench = Bench::of(local);
    let mut remote = without(&bench.local, 20);
    remote
        .cover(Kind::GracePeriod, [Entry::new(Kind::GracePeriod, "2")])
        .unwrap();
    assert_eq!(bench.to_ask(&remote).len(), 20);

    bench.turns.insert(Kind::InAppPurchase, Turn::Key);
    assert!(bench.to_ask(&remote).is_empty());
    bench.turns.clear();

    bench.run(&remote, at(0));
    assert!(bench.hold.is_some());
    assert!(bench.to_ask(&remote).is_empty());
}

#[test]
fn what_answers_is_in_no_hold() {
    let mut bench = Bench::of(products(10)).answered(&product(0), Answer::There);
    let remote = without(&bench.local, 4);
    let review = bench.run(&remote, at(0));
    // 3 of 10 are no accident.
    assert_eq!(review.hold, None);
    assert!(review.plan.changes().is_empty());
    assert_eq!(bench.local.absent.len(), 4);
}

#[test]
fn an_absence_is_stored_as_views_show_it() {
    let absence = Absence {
        since: at(1),
        seen_at: Some(at(0)),
        answer: Some(Answer::Gone),
        kept_at: Some(at(2)),
    };
    let stored = serde_json::to_value(absence).unwrap();
    assert_eq!(
        stored,
        serde_json::json!({
            "since": "1970-01-01T00:01:00.000Z",
            "seen_at": "1970-01-01T00:00:00.000Z",
            "answer": "gone",
            "kept_at": "1970-01-01T00:02:00.000Z",
        })
    );
    assert_eq!(serde_json::from_value::<Absence>(stored).unwrap(), absence);
}

#[test]
fn a_product_removed_from_sale_stays_with_that_state() {
    let mut bench = Bench::of(products(2));
    let mut remote = Snapshot::new();
    let entries = bench.local.present.values().map(|entry| {
        let state = "DEVELOPER_REMOVED_FROM_SALE";
        entry.clone().with("state", state)
    });
    remote.cover(Kind::InAppPurchase, entries).unwrap();
    let review = bench.run(&remote, at(0));
    assert_eq!(review.plan.changes().counts().total().updated, 2);
    assert_eq!(bench.local.present.len(), 2);
}

#[test]
fn what_was_there_once_refutes_a_listing_that_still_lacks_it() {
    // 61 of 300 are left out; 50 were asked for and are there. Then nothing can be learned for hours.
    let mut bench = Bench::of(products(300));
    let remote = without(&bench.local, 61);
    for key in bench.to_ask(&remote) {
        bench.answers.insert(key, Answer::There);
    }
    bench.run(&remote, at(0));
    for run in 1..5 {
        bench.answers.insert(product(55), Answer::Unknown);
        let review = bench.run(&remote, at(run * 60));
        assert!(review.plan.changes().is_empty(), "run {run}");
        assert_eq!(review.hold, None);
        assert_eq!(bench.absence(&product(0)).answer, Some(Answer::There));
        assert_eq!(bench.absence(&product(55)).answer, None);
    }
}

#[test]
fn what_was_there_when_last_asked_for_is_in_no_hold() {
    let mut bench = Bench::of(products(100));
    let remote = without(&bench.local, 40);
    for index in 0..40 {
        bench.answers.insert(product(index), Answer::There);
    }
    bench.run(&remote, at(0));
    let review = bench.run(&remote, at(60));
    assert_eq!(review.hold, None);
    assert_eq!(bench.to_ask(&remote).len(), 40);
    // Now they are gone: that is a mass deletion.
    for index in 0..40 {
        bench.answers.insert(product(index), Answer::Gone);
    }
    assert_eq!(bench.run(&remote, at(120)).hold.unwrap().removals.len(), 40);
}

#[test]
fn everything_is_asked_for_in_its_turn() {
    let mut bench = Bench::of(products(1000));
    let remote = without(&bench.local, 60);
    for index in 0..60 {
        bench.answers.insert(product(index), Answer::There);
    }
    bench.run(&remote, at(0));
    let asked = |turns: std::ops::Range<i64>, bench: &mut Bench| {
        let mut asked = BTreeSet::new();
        for turn in turns {
            bench.turn = turn;
            let keys = bench.to_ask(&remote);
            assert_eq!(keys.len(), 50);
            asked.extend(keys);
        }
        asked.len()
    };
    assert_eq!(asked(7..9, &mut bench), 60);
    // Nor do those of which nothing can be learned take up all places.
    let more = without(&bench.local, 160);
    bench.run(&more, at(1));
    let mut seen = BTreeSet::new();
    for turn in 0..8 {
        bench.turn = turn;
        let keys = bench.to_ask(&more);
        assert_eq!(keys.len(), 50);
        let again = keys.iter().filter(|key| **key < product(60)).count();
        assert_eq!(again, 25);
        seen.extend(keys);
    }
    assert_eq!(seen.len(), 160);
}
