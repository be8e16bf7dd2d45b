//! What goes wrong with one project, or with a clock, holds up nobody.

use std::time::Duration;

use catalog_sync::store::{Spent, Store};

use super::{
    raw::Raw,
    sample::{TTL, add_with_key, ask, at, finish, names, take, take_one},
};

pub(crate) async fn a_run_that_could_not_be_recorded_waits(store: &dyn Store, _: &mut Raw) {
    let acme = add_with_key(store, "acme", "A").await;
    let claim = take_one(store, 0).await;
    let spent = Spent {
        requests: 3,
        budget: None,
    };
    store
        .postpone(&claim.lease, at(2), &spent, at(1))
        .await
        .unwrap();

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.leased_until, None);
    assert_eq!(status.pending.unwrap().ready_at, at(2));
    assert_eq!(store.load_state(&acme).await.unwrap().retries, 1);
    assert!(names(&take(store, 9, at(1)).await).is_empty());
    let again = take_one(store, 2).await;
    assert!(!again.is_last_chance);
    // One that was lost by then is no matter.
    store
        .postpone(&claim.lease, at(9), &spent, at(2))
        .await
        .unwrap();
    finish(store, &again, 2).await;
    assert_eq!(store.load_state(&acme).await.unwrap().retries, 0);
}

pub(crate) async fn a_project_that_cannot_be_read_holds_up_no_other(
    store: &dyn Store,
    raw: &mut Raw,
) {
    add_with_key(store, "a-odd", "A").await;
    add_with_key(store, "b-sound", "B").await;
    raw.run("update projects set cron = 'whenever' where id = 'a-odd'")
        .await;

    let claimed = take(store, 9, at(1)).await;

    assert_eq!(names(&claimed), ["b-sound"]);
    let (id, why) = &claimed.unreadable[0];
    assert_eq!(id.as_str(), "a-odd");
    assert!(why.contains("cron"), "{why}");
    assert!(take(store, 9, at(2)).await.unreadable.is_empty());
    assert_eq!(take(store, 9, at(12)).await.unreadable.len(), 1);

    let schedule =
        catalog_sync::schedule::Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    let tick = async |minute| {
        store
            .issue_slots(&schedule, at(0), 9, at(minute))
            .await
            .unwrap()
    };
    let first = tick(1).await;
    assert_eq!((first.due, first.unreadable.len()), (2, 1));
    assert_eq!(tick(2).await.due, 0);
    let later = tick(65).await;
    assert_eq!((later.asked, later.unreadable.len()), (1, 1));
}

pub(crate) async fn a_clock_set_back_leaves_nothing_waiting(store: &dyn Store, _: &mut Raw) {
    let held = add_with_key(store, "held", "A").await;
    let asked = add_with_key(store, "asked", "B").await;
    let ahead = store.claim(1, LASTING, TTL, at(60)).await.unwrap();
    assert_eq!(names(&ahead).len(), 1);
    ask(store, &asked, at(60)).await;
    ask(store, &held, at(60)).await;

    store.rouse(TTL, at(1)).await.unwrap();

    assert_eq!(names(&take(store, 9, at(2)).await).len(), 2);
}

const LASTING: catalog_sync::store::LastChance = catalog_sync::store::LastChance::One;

pub(crate) async fn a_slot_that_was_issued_twice_has_one_run(store: &dyn Store, raw: &mut Raw) {
    let acme = add_with_key(store, "acme", "A").await;
    for minute in [1, 2] {
        raw.run(
            "update project_state set slot_at = '2027-01-15T08:00:00.000Z', asked = asked + 1, ready_at = '2027-01-15T08:00:00.000Z'",
        )
        .await;
        let claim = take_one(store, minute).await;
        finish(store, &claim, minute).await;
    }
    let runs = store.read_runs(&acme, 9).await.unwrap();
    assert_eq!(runs.len(), 2);
    let slots = runs.iter().filter(|run| run.run.slot_at.is_some());
    assert_eq!(slots.count(), 1);
}

pub(crate) async fn a_request_during_a_run_does_not_bring_its_slot_back(
    store: &dyn Store,
    _: &mut Raw,
) {
    let acme = add_with_key(store, "acme", "A").await;
    finish(store, &take_one(store, 0).await, 0).await;
    let schedule =
        catalog_sync::schedule::Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    for minute in [0, 60] {
        store
            .issue_slots(&schedule, at(0), 9, at(minute))
            .await
            .unwrap();
    }
    let claim = take_one(store, 60).await;
    assert!(claim.request.as_ref().unwrap().slot_at.is_some());
    ask(store, &acme, at(60)).await;
    // A worker whose clock is behind sees the slot come once more.
    store.reschedule(&schedule, None, 9, at(20)).await.unwrap();
    let again = store
        .issue_slots(&schedule, at(0), 9, at(60))
        .await
        .unwrap();
    assert_eq!(again.asked, 0, "{again:?}");
}
