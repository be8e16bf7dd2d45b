//! Runs that lose their workers: counted, told, and after three in a row left alone.

use std::slice;

use catalog_sync::{
    project::ProjectId,
    store::{Claimed, LastChance, Loss, Store},
};

use super::{
    WORKER,
    sample::{TTL, add_settled, ask, at, claim, finish, names, pending, settle, take, take_one},
};

const DAY: i64 = 24 * 60;

async fn asked(store: &dyn Store, name: &str, minute: i64) -> ProjectId {
    let project = add_settled(store, name).await;
    ask(store, &project, at(minute)).await;
    project
}

/// So many workers die of the only project, one each minute; the last death has yet to be found.
async fn die(store: &dyn Store, minute: i64, workers: i64) {
    for minute in minute..minute + workers {
        take_one(store, minute).await;
    }
}

pub(crate) async fn set_aside_at_three(store: &dyn Store) -> ProjectId {
    let acme = asked(store, "acme", 0).await;
    die(store, 0, 3).await;
    let claimed = take(store, 9, at(3)).await;
    assert_eq!(claimed.set_aside, slice::from_ref(&acme));
    acme
}

pub(crate) async fn a_lease_that_ran_out_is_told(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    let dead = take_one(store, 0).await.lease;

    let claimed = take(store, 9, at(1)).await;

    let loss = Loss {
        project: acme,
        epoch: dead.epoch,
        worker: Some(WORKER.to_owned()),
        until: dead.until,
    };
    assert_eq!(claimed.lost, [loss]);
    assert_eq!(claimed.claims[0].lease.epoch, dead.epoch + 1);
}

pub(crate) async fn three_in_a_row_set_a_project_aside(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    die(store, 0, 3).await;

    let claimed = take(store, 9, at(3)).await;

    assert!(names(&claimed).is_empty());
    assert_eq!(claimed.set_aside, slice::from_ref(&acme));
    assert_eq!(claimed.lost.len(), 1);
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.set_aside_at, Some(at(3)));
    assert_eq!((status.leased_until, status.leased_by), (None, None));
    assert!(status.pending.is_some());
    let Claimed {
        claims,
        lost,
        set_aside,
        ..
    } = take(store, 9, at(4)).await;
    assert_eq!((claims, lost, set_aside), (vec![], vec![], vec![]));
}

pub(crate) async fn a_run_that_ends_in_between_begins_the_count_anew(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    die(store, 0, 2).await;
    let survivor = take_one(store, 2).await;
    finish(store, &survivor, 2).await;
    ask(store, &acme, at(3)).await;
    die(store, 3, 3).await;
    assert_eq!(store.read_status(&acme).await.unwrap().set_aside_at, None);
}

pub(crate) async fn losses_of_other_days_do_not_count(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    die(store, 0, 2).await;
    // The second of these is found two days later, and another follows it.
    die(store, 2 * DAY, 2).await;
    assert_eq!(store.read_status(&acme).await.unwrap().set_aside_at, None);
    let claimed = take(store, 9, at(2 * DAY + 2)).await;
    assert_eq!(claimed.set_aside, [acme]);
}

pub(crate) async fn a_last_chance_is_not_given_beside_another(store: &dyn Store) {
    asked(store, "a", 0).await;
    die(store, 0, 2).await;
    let other = asked(store, "b", 2).await;

    let beside = store.claim(9, LastChance::None, TTL, at(3)).await.unwrap();
    assert_eq!(names(&beside), ["b"]);
    assert_eq!(beside.lost, []);
    store.release(&beside.claims[0].lease).await.unwrap();
    settle(store, &other, 3).await;

    let alone = store.claim(9, LastChance::One, TTL, at(3)).await.unwrap();
    assert_eq!(names(&alone), ["a"]);
    assert_eq!(alone.lost.len(), 1);
}

pub(crate) async fn last_chances_are_given_one_at_a_time(store: &dyn Store) {
    for name in ["a", "b"] {
        let project = asked(store, name, 0).await;
        for minute in 0..2 {
            claim(store, &project, minute).await;
        }
    }
    assert_eq!(names(&take(store, 9, at(2)).await).len(), 1);
}

pub(crate) async fn a_last_chance_does_not_stand_in_the_way_of_others(store: &dyn Store) {
    asked(store, "a", 0).await;
    die(store, 0, 2).await;
    asked(store, "b", 2).await;
    let beside = store.claim(1, LastChance::None, TTL, at(3)).await.unwrap();
    assert_eq!(names(&beside), ["b"]);
}

pub(crate) async fn resuming_takes_a_project_up_again(store: &dyn Store) {
    let acme = set_aside_at_three(store).await;
    store.resume(&acme, at(10)).await.unwrap();
    assert_eq!(store.read_status(&acme).await.unwrap().set_aside_at, None);

    let claimed = take(store, 9, at(10)).await;
    assert_eq!(names(&claimed), ["acme"]);
    assert_eq!(claimed.lost, []);
    // And counts from nothing.
    die(store, 11, 2).await;
}

pub(crate) async fn a_project_set_aside_may_be_synced_by_hand(store: &dyn Store) {
    let acme = set_aside_at_three(store).await;
    settle(store, &acme, 10).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.set_aside_at, status.pending), (None, None));
    ask(store, &acme, at(11)).await;
    take_one(store, 11).await;
}

pub(crate) async fn asking_does_not_take_a_project_up_again(store: &dyn Store) {
    let acme = set_aside_at_three(store).await;
    ask(store, &acme, at(10)).await;
    assert!(names(&take(store, 9, at(10)).await).is_empty());
    assert!(pending(store, &acme).await.is_some());
}

pub(crate) async fn a_sync_by_hand_that_dies_counts_too(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    for minute in 0..3 {
        claim(store, &acme, minute).await;
    }
    assert_eq!(take(store, 9, at(3)).await.set_aside, [acme]);
}

pub(crate) async fn losses_are_kept_over_a_release(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    for minute in 0..3 {
        claim(store, &acme, minute).await;
    }
    store.release(&claim(store, &acme, 3).await).await.unwrap();

    let claimed = take(store, 9, at(4)).await;
    assert!(names(&claimed).is_empty());
    assert_eq!((claimed.set_aside, claimed.lost), (vec![acme], vec![]));
}

pub(crate) async fn a_late_commit_of_a_lease_that_nobody_took_is_no_loss(store: &dyn Store) {
    let acme = asked(store, "acme", 0).await;
    let slow = take_one(store, 0).await;
    finish(store, &slow, 5).await;
    ask(store, &acme, at(6)).await;
    assert_eq!(take(store, 9, at(6)).await.lost, []);
}

pub(crate) async fn a_renewed_lease_is_no_loss(store: &dyn Store) {
    asked(store, "acme", 0).await;
    let alive = take_one(store, 0).await;
    for minute in 1..5 {
        store.renew(&alive.lease, TTL, at(minute)).await.unwrap();
        let claimed = take(store, 9, at(minute)).await;
        assert!(names(&claimed).is_empty() && claimed.lost.is_empty());
    }
    finish(store, &alive, 5).await;
}
