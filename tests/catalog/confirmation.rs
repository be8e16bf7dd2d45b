//! What confirms a removal, what refutes it, what waits, and what a person decided.

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::catalog::{
    Absence, Answer, Answers, Catalog, Confirmation, Entry, Hold, Key, Kind, Limits, Reason,
    Snapshot, Source, Standing, StoreId, Turn, diff,
    guard::{self, Evidence, Review},
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::{at, groups, products};

/// A project between runs.
#[derive(Clone, Default)]
struct Bench {
    local: Catalog,
    hold: Option<Hold>,
    answers: Answers,
    turns: BTreeMap<Kind, Turn>,
    seen_at: BTreeMap<Kind, DateTime<Utc>>,
    approves: bool,
    turn: i64,
}

impl Bench {
    fn of(local: Catalog) -> Self {
        Self {
            local,
            ..Self::default()
        }
    }

    fn answered(mut self, key: &Key, answer: Answer) -> Self {
        self.answers.insert(key.clone(), answer);
        self
    }

    /// One run, which leaves what it notes and writes.
    fn run(&mut self, remote: &Snapshot, now: DateTime<Utc>) -> Review {
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

    fn absence(&self, key: &Key) -> Absence {
        self.local.absent[key]
    }

    fn to_ask(&self, remote: &Snapshot) -> Vec<Key> {
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
fn without(local: &Catalog, first: usize) -> Snapshot {
    let mut remote = Snapshot::new();
    remote
        .cover(
            Kind::InAppPurchase,
            local.of_kind(Kind::InAppPurchase).skip(first).cloned(),
        )
        .unwrap();
    remote
}

fn key(kind: Kind, id: &str) -> Key {
    Entry::new(kind, id).key
}

fn product(index: usize) -> Key {
    key(Kind::InAppPurchase, &format!("{index:05}"))
}

fn removed(review: &Review) -> Vec<&str> {
    review
        .plan
        .changes()
        .iter()
        .map(|change| change.key().store_id.as_str())
        .collect()
}

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
