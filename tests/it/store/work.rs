//! Asking for syncs: none is lost, and none is done twice (I2).

use std::time::Duration;

use catalog_sync::{
    catalog::Plan,
    run::Trigger,
    schedule::Schedule,
    store::{Ask, Error, Request, Store},
};
use futures_util::future::join_all;

use super::sample::{
    TTL, add, add_settled, aftermath, ask, at, fail, finish, id, key_of, names, pending, project,
    run, settle, take, take_one,
};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn a_new_project_has_asked_for_its_first_sync(store: &dyn Store) {
    let acme = add(store, "acme").await;

    let status = store.read_status(&acme).await.unwrap();

    let asked_at = project("acme").created_at;
    let first = Request {
        trigger: Trigger::Request,
        reason: None,
        requested_at: asked_at,
        ready_at: asked_at,
        slot_at: None,
    };
    assert_eq!((status.pending, status.served), (Some(first), 0));
}

pub(crate) async fn a_project_has_one_request_however_often_it_is_asked_for(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let mut last = 0;
    for minute in 0..5 {
        last = ask(store, &acme, at(minute)).await;
    }

    let claim = take_one(store, 6).await;
    finish(store, &claim, 6).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.pending, status.served), (None, last));
    assert!(names(&take(store, 9, at(7)).await).is_empty());
}

pub(crate) async fn the_first_instant_and_the_first_reason_stay(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    for (minute, reason) in [(1, None), (2, Some("a new price")), (3, Some("another"))] {
        let ask = Ask {
            project: acme.clone(),
            reason: reason.map(str::to_owned),
        };
        store.ask(&[ask], at(minute)).await.unwrap();
    }
    let request = pending(store, &acme).await.unwrap();
    assert_eq!(request.requested_at, at(1));
    assert_eq!(request.ready_at, at(1));
    assert_eq!(request.reason.as_deref(), Some("a new price"));
}

pub(crate) async fn one_call_may_name_a_project_twice(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let before = store.read_status(&acme).await.unwrap().served;
    let asks = [None, Some("first"), Some("second")].map(|reason| Ask {
        project: acme.clone(),
        reason: reason.map(str::to_owned),
    });

    let asked = store.ask(&asks, at(1)).await.unwrap();

    assert_eq!(asked.tickets, [(acme.clone(), before + 1)].into());
    let request = pending(store, &acme).await.unwrap();
    assert_eq!(request.reason.as_deref(), Some("first"));
}

pub(crate) async fn unknown_projects_are_named_and_the_others_are_asked(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let asks = ["ghost", "acme", "phantom"].map(|name| Ask {
        project: id(name),
        reason: None,
    });

    let asked = store.ask(&asks, at(1)).await.unwrap();

    assert_eq!(asked.unknown, [id("ghost"), id("phantom")]);
    assert_eq!(asked.tickets.into_keys().collect::<Vec<_>>(), [acme]);
    assert_eq!(names(&take(store, 9, at(1)).await), ["acme"]);
    assert_eq!(store.ask(&[], at(1)).await.unwrap(), <_>::default());
}

pub(crate) async fn a_reason_in_odd_text_spoils_nobodys_request(store: &dyn Store) {
    for name in ["a", "b"] {
        add_settled(store, name).await;
    }
    let asks = [
        ("a", "it's \u{0} \"odd\" \\u0000 \u{1F4B0}"),
        ("b", "price"),
    ]
    .map(|(name, reason)| Ask {
        project: id(name),
        reason: Some(reason.to_owned()),
    });
    let asked = store.ask(&asks, at(1)).await.unwrap();
    assert_eq!(asked.tickets.len(), 2);
    // U+0000 is left out, which Postgres cannot hold.
    let request = pending(store, &id("a")).await.unwrap();
    assert_eq!(
        request.reason.as_deref(),
        Some("it's  \"odd\" \\u0000 \u{1F4B0}")
    );
}

pub(crate) async fn all_who_write_the_list_at_once_get_through(store: &dyn Store) {
    let mut asks = Vec::new();
    for number in 0..60 {
        let project = add_settled(store, &format!("p{number}")).await;
        asks.push(Ask {
            project,
            reason: None,
        });
    }
    let hourly = Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    for round in 0..10 {
        let now = at(60 * round);
        let schedule = Schedule::new(&format!("{round} * * * *"), "UTC", Duration::ZERO).unwrap();
        let everyone = (0..12).map(async |number| match number % 4 {
            0 => drop(store.ask(&asks, now).await.unwrap()),
            1 => drop(store.reschedule(&schedule, None, 100, now).await.unwrap()),
            2 => drop(store.issue_slots(&hourly, now, 100, now).await.unwrap()),
            _ => {
                for claim in take(store, 20, now).await.claims {
                    store.release(&claim.lease).await.unwrap();
                }
            }
        });
        join_all(everyone).await;
    }
    let statuses = store.read_statuses().await.unwrap();
    assert!(statuses.iter().all(|status| status.pending.is_some()));
}

pub(crate) async fn a_ticket_is_served_once_its_run_has_ended(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let first = ask(store, &acme, at(1)).await;
    let claim = take_one(store, 1).await;
    let second = ask(store, &acme, at(1) + SECOND).await;
    assert!(second > first);
    let served = async || store.read_status(&acme).await.unwrap().served;
    assert!(served().await < first);

    finish(store, &claim, 1).await;
    let after_one = served().await;
    assert!(first <= after_one && after_one < second);

    finish(store, &take_one(store, 2).await, 2).await;
    assert!(second <= served().await);
}

pub(crate) async fn a_new_key_asks(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let project = store.load_project(&acme).await.unwrap();
    store
        .replace_key(&acme, &project.app, &key_of(&project), at(3))
        .await
        .unwrap();
    let request = pending(store, &acme).await.unwrap();
    assert_eq!(
        (request.trigger, request.requested_at),
        (Trigger::Request, at(3))
    );
}

pub(crate) async fn a_new_key_leaves_what_its_lost_run_was_to_answer(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    take_one(store, 1).await;
    let project = store.load_project(&acme).await.unwrap();
    store
        .replace_key(&acme, &project.app, &key_of(&project), at(1) + SECOND)
        .await
        .unwrap();

    let next = take_one(store, 1).await;
    assert_eq!(next.request.as_ref().unwrap().requested_at, at(1));
    finish(store, &next, 1).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn resuming_asks(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    store.pause(&acme, at(1)).await.unwrap();
    assert_eq!(pending(store, &acme).await, None);
    store.resume(&acme, at(2)).await.unwrap();
    let request = pending(store, &acme).await.unwrap();
    assert_eq!(request.requested_at, at(2));
}

pub(crate) async fn pausing_does_not_lose_a_request(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    store.pause(&acme, at(2)).await.unwrap();
    assert!(names(&take(store, 9, at(2)).await).is_empty());

    store.resume(&acme, at(3)).await.unwrap();

    let claim = take_one(store, 3).await;
    assert_eq!(claim.request.unwrap().requested_at, at(1));
}

pub(crate) async fn resuming_what_was_not_paused_asks_nothing(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    store.resume(&acme, at(1)).await.unwrap();
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn requests_during_a_run_make_one_more_run_after_it(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let claim = take_one(store, 1).await;
    for second in 1..=10 {
        ask(store, &acme, at(1) + second * SECOND).await;
    }
    assert!(names(&take(store, 9, at(1) + 11 * SECOND).await).is_empty());
    finish(store, &claim, 1).await;

    let next = take_one(store, 2).await;
    let request = next.request.as_ref().unwrap();
    assert_eq!(request.requested_at, at(1) + SECOND);
    finish(store, &next, 2).await;
    assert_eq!(pending(store, &acme).await, None);
    assert!(names(&take(store, 9, at(3)).await).is_empty());
}

pub(crate) async fn a_request_during_a_run_that_fails_is_not_put_off(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let claim = take_one(store, 1).await;
    ask(store, &acme, at(1) + SECOND).await;
    fail(store, &claim, 1, at(60)).await;

    let next = take_one(store, 2).await;
    assert_eq!(next.request.as_ref().unwrap().trigger, Trigger::Request);
    finish(store, &next, 2).await;
    // Its success makes the repetition needless.
    assert!(names(&take(store, 9, at(60)).await).is_empty());
}

pub(crate) async fn a_request_after_a_workers_death_is_answered_by_the_takeover(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    take_one(store, 1).await;
    let ticket = ask(store, &acme, at(2)).await;

    let takeover = take_one(store, 3).await;
    assert_eq!(takeover.request.as_ref().unwrap().requested_at, at(1));
    finish(store, &takeover, 3).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.pending, status.served), (None, ticket));
}

pub(crate) async fn a_request_during_a_run_that_dies_is_answered_by_the_takeover(
    store: &dyn Store,
) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    take_one(store, 1).await;
    let ticket = ask(store, &acme, at(1) + SECOND).await;

    finish(store, &take_one(store, 3).await, 3).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.pending, status.served), (None, ticket));
}

pub(crate) async fn a_release_leaves_the_request_and_counts_nothing(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let before = pending(store, &acme).await;
    for _ in 0..4 {
        let claimed = take(store, 9, at(1)).await;
        assert_eq!(names(&claimed), ["acme"]);
        assert_eq!((claimed.lost, claimed.set_aside), (vec![], vec![]));
        assert_eq!(claimed.claims[0].request, before);
        store.release(&claimed.claims[0].lease).await.unwrap();
        assert_eq!(pending(store, &acme).await, before);
    }
}

pub(crate) async fn what_was_asked_before_and_during_a_released_run_is_one_run(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let claim = take_one(store, 1).await;
    let ticket = ask(store, &acme, at(1) + SECOND).await;
    store.release(&claim.lease).await.unwrap();

    finish(store, &take_one(store, 2).await, 2).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.pending, status.served), (None, ticket));
}

pub(crate) async fn a_sync_by_hand_answers_what_was_asked_before_it(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let ticket = ask(store, &acme, at(1)).await;
    let claim = store.acquire(&acme, TTL, at(2)).await.unwrap();
    assert_eq!(claim.request.as_ref().unwrap().requested_at, at(1));
    let later = ask(store, &acme, at(2) + SECOND).await;
    finish(store, &claim, 2).await;

    let status = store.read_status(&acme).await.unwrap();
    assert!(ticket <= status.served && status.served < later);
    assert_eq!(status.pending.unwrap().requested_at, at(2) + SECOND);
}

pub(crate) async fn a_stale_commit_serves_nothing(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    ask(store, &acme, at(1)).await;
    let stale = take_one(store, 1).await;
    let takeover = take_one(store, 3).await;
    let before = store.read_status(&acme).await.unwrap();

    let late = run(&Plan::nothing(), 3);
    let refused = store
        .commit(&stale.lease, &Plan::nothing(), &late, &aftermath())
        .await;

    assert!(matches!(refused, Err(Error::LeaseLost { .. })));
    assert_eq!(store.read_status(&acme).await.unwrap(), before);
    finish(store, &takeover, 3).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn what_there_is_to_do_can_be_seen(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let ready = async |minute| store.look(at(minute)).await.unwrap().ready;
    assert!(!ready(1).await);
    ask(store, &acme, at(1)).await;
    assert!(ready(1).await);
    let claim = take_one(store, 1).await;
    fail(store, &claim, 1, at(10)).await;
    assert!(!ready(9).await);
    assert!(ready(10).await);
}

pub(crate) async fn a_run_to_be_repeated_waits_for_its_instant(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let claim = store.acquire(&acme, TTL, at(1)).await.unwrap();
    fail(store, &claim, 1, at(10)).await;

    let expected = Request {
        trigger: Trigger::Retry,
        reason: None,
        requested_at: at(1),
        ready_at: at(10),
        slot_at: None,
    };
    assert_eq!(pending(store, &acme).await, Some(expected));
    assert!(names(&take(store, 9, at(10) - SECOND).await).is_empty());
    take_one(store, 10).await;
}

pub(crate) async fn repetitions_in_a_row_are_counted(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let retries = async || store.load_state(&acme).await.unwrap().retries;
    ask(store, &acme, at(0)).await;
    for minute in 0..3 {
        let claim = take_one(store, minute).await;
        assert_eq!(i64::from(claim.state.retries), minute);
        fail(store, &claim, minute, at(minute + 1)).await;
    }
    assert_eq!(retries().await, 3);
    finish(store, &take_one(store, 3).await, 3).await;
    assert_eq!(retries().await, 0);
}

pub(crate) async fn a_request_replaces_a_repetition_that_would_come_later(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let claim = store.acquire(&acme, TTL, at(1)).await.unwrap();
    fail(store, &claim, 1, at(60)).await;
    ask(store, &acme, at(5)).await;

    let claim = take_one(store, 5).await;
    assert_eq!(claim.request.as_ref().unwrap().trigger, Trigger::Request);
    finish(store, &claim, 5).await;
    assert!(names(&take(store, 9, at(60)).await).is_empty());
}

pub(crate) async fn a_sync_by_hand_makes_a_repetition_needless(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    let claim = store.acquire(&acme, TTL, at(1)).await.unwrap();
    fail(store, &claim, 1, at(60)).await;
    settle(store, &acme, 2).await;
    assert_eq!(pending(store, &acme).await, None);
}
