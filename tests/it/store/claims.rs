//! Claiming what was asked for: the most urgent first, and no key used twice at a time.

use std::{collections::BTreeSet, time::Duration};

use catalog_sync::{
    catalog::Plan,
    schedule::Schedule,
    store::{Error, Store},
};
use futures_util::future::join_all;

use super::{
    WORKER,
    sample::{
        TTL, add_settled, add_with_key, aftermath, ask, at, claim, fail, finish, id, names, run,
        take, take_one,
    },
};

pub(crate) async fn on_demand_comes_before_scheduled_before_repeated(store: &dyn Store) {
    let repeated = add_settled(store, "a-repeated").await;
    add_settled(store, "b-scheduled").await;
    let asked = add_settled(store, "c-asked").await;
    let rarely = "0 0 1 1 *".parse().unwrap();
    for project in [&repeated, &asked] {
        store.set_cron(project, Some(&rarely)).await.unwrap();
    }
    let schedule = Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    let claim = store.acquire(&repeated, TTL, at(0)).await.unwrap();
    fail(store, &claim, 0, at(1)).await;
    for minute in [0, 61] {
        store
            .issue_slots(&schedule, at(0), 9, at(minute))
            .await
            .unwrap();
    }
    ask(store, &asked, at(62)).await;

    let claimed = take(store, 9, at(63)).await;

    assert_eq!(names(&claimed), ["c-asked", "b-scheduled", "a-repeated"]);
}

pub(crate) async fn who_has_waited_longest_comes_first(store: &dyn Store) {
    for (name, minute) in [("a", 2), ("b", 1), ("c", 3)] {
        let project = add_settled(store, name).await;
        ask(store, &project, at(minute)).await;
    }
    for name in ["b", "a", "c"] {
        assert_eq!(names(&take(store, 1, at(4)).await), [name]);
    }
    assert!(names(&take(store, 1, at(4)).await).is_empty());
}

pub(crate) async fn no_more_are_claimed_than_wanted(store: &dyn Store) {
    for name in ["a", "b", "c"] {
        add_with_key(store, name, name).await;
    }
    assert_eq!(names(&take(store, 2, at(0)).await).len(), 2);
    assert_eq!(names(&take(store, 2, at(0)).await).len(), 1);
    assert!(names(&take(store, 0, at(60)).await).is_empty());
}

pub(crate) async fn a_paused_project_is_left_alone(store: &dyn Store) {
    let paused = add_with_key(store, "a", "A").await;
    add_with_key(store, "b", "B").await;
    store.pause(&paused, at(0)).await.unwrap();
    assert_eq!(names(&take(store, 9, at(1)).await), ["b"]);
}

pub(crate) async fn a_claimed_project_is_nobody_elses(store: &dyn Store) {
    let acme = add_with_key(store, "acme", "A").await;
    let held = take_one(store, 0).await.lease;
    assert_eq!((held.epoch, held.until), (1, at(0) + TTL));
    let last_moment = held.until - Duration::from_millis(1);
    assert!(names(&take(store, 9, last_moment).await).is_empty());
    let refused = store.acquire(&acme, TTL, last_moment).await;
    assert!(matches!(refused, Err(Error::Leased { until, .. }) if until == held.until));

    let next = take(store, 9, held.until).await.claims.remove(0).lease;
    assert_eq!(next.epoch, 2);
    assert_ne!(next.token, held.token);
}

pub(crate) async fn projects_that_share_a_key_take_turns(store: &dyn Store) {
    for name in ["a", "b", "c"] {
        add_with_key(store, name, "shared").await;
    }
    add_with_key(store, "d", "its own").await;
    let mut first = take(store, 9, at(0)).await;
    assert_eq!(first.claims.len(), 2, "{first:?}");
    assert!(names(&first).contains(&"d"));
    // None by another batch either, while one is under way.
    assert!(names(&take(store, 9, at(0)).await).is_empty());

    first.claims.retain(|claim| claim.project.id != id("d"));
    finish(store, &first.claims[0], 0).await;
    let second = take_one(store, 0).await;
    store.release(&second.lease).await.unwrap();
    let third = take_one(store, 0).await;
    assert_ne!(third.project.id, first.claims[0].project.id);
}

pub(crate) async fn a_key_is_free_again_when_its_lease_ran_out(store: &dyn Store) {
    for name in ["a", "b"] {
        add_with_key(store, name, "shared").await;
    }
    take_one(store, 0).await;
    assert!(names(&take(store, 9, at(0)).await).is_empty());
    let next = take_one(store, 1).await;
    finish(store, &next, 1).await;
    assert_ne!(take_one(store, 1).await.project.id, next.project.id);
}

pub(crate) async fn a_sync_by_hand_keeps_its_key_from_others(store: &dyn Store) {
    let by_hand = add_with_key(store, "a", "shared").await;
    add_with_key(store, "b", "shared").await;
    let lease = claim(store, &by_hand, 0).await;
    assert!(names(&take(store, 9, at(0)).await).is_empty());
    store
        .commit(
            &lease,
            &Plan::nothing(),
            &run(&Plan::nothing(), 0),
            &aftermath(),
        )
        .await
        .unwrap();
    assert_eq!(names(&take(store, 9, at(0)).await), ["b"]);
}

pub(crate) async fn a_busy_key_does_not_stand_in_the_way_of_others(store: &dyn Store) {
    for name in ["a", "b", "c"] {
        let project = add_with_key(store, name, "shared").await;
        ask(store, &project, at(0)).await;
    }
    let other = add_settled(store, "z").await;
    ask(store, &other, at(1)).await;
    assert_eq!(take(store, 1, at(2)).await.claims.len(), 1);
    assert_eq!(names(&take(store, 1, at(2)).await), ["z"]);
}

pub(crate) async fn of_sixteen_claimers_at_once_each_has_other_projects(store: &dyn Store) {
    for number in 0..100 {
        add_with_key(store, &format!("p{number}"), &format!("key {number}")).await;
    }
    let claimer = async || {
        let mut mine = Vec::new();
        loop {
            let claimed = take(store, 4, at(0)).await;
            if claimed.claims.is_empty() {
                return mine;
            }
            mine.extend(claimed.claims.into_iter().map(|claim| claim.project.id));
        }
    };
    let mut taken: Vec<_> = join_all((0..16).map(|_| claimer()))
        .await
        .into_iter()
        .flatten()
        .collect();
    // What was passed over in passing, because another looked at it in that moment.
    taken.extend(claimer().await);
    assert_eq!(taken.len(), 100);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 100);
}

pub(crate) async fn of_sixteen_claimers_at_once_one_has_the_key(store: &dyn Store) {
    for number in 0..8 {
        add_with_key(store, &format!("p{number}"), "shared").await;
    }
    for minute in 0..3 {
        let claims = join_all((0..16).map(|_| take(store, 2, at(minute)))).await;
        let won: Vec<_> = claims.iter().flat_map(|claimed| &claimed.claims).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        finish(store, won[0], minute).await;
    }
}

pub(crate) async fn a_claim_brings_what_acquiring_brings(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let claimed = take_one(store, 1).await;
    store.release(&claimed.lease).await.unwrap();
    let mut acquired = store.acquire(&acme, TTL, at(1)).await.unwrap();

    assert_eq!(acquired.lease.epoch, claimed.lease.epoch + 1);
    acquired.lease = claimed.lease.clone();
    assert_eq!(acquired, claimed);
    assert_eq!(claimed.project, store.load_project(&acme).await.unwrap());
    assert_eq!(claimed.key, store.load_key(&acme).await.unwrap());
}

pub(crate) async fn a_worker_is_named_where_it_works_and_where_it_worked(store: &dyn Store) {
    let acme = add_with_key(store, "acme", "A").await;
    let claim = take_one(store, 0).await;
    let worker = async || store.read_status(&acme).await.unwrap().leased_by;
    assert_eq!(worker().await.as_deref(), Some(WORKER));
    finish(store, &claim, 0).await;
    assert_eq!(worker().await, None);
    let runs = store.read_runs(&acme, 1).await.unwrap();
    assert_eq!(runs[0].worker.as_deref(), Some(WORKER));
}

pub(crate) async fn a_removed_project_is_not_claimed(store: &dyn Store) {
    let acme = add_with_key(store, "acme", "A").await;
    store.remove_project(&acme).await.unwrap();
    assert!(names(&take(store, 9, at(0)).await).is_empty());
}
