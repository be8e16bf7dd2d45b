//! The schedule: each slot is issued once, and what was missed is caught up once (I3).

use std::time::Duration;

use catalog_sync::{
    catalog::Plan,
    clock::Instant,
    diagnosis::{Code, Diagnosis},
    project::ProjectId,
    run::{Outcome, Run, Trigger},
    schedule::Schedule,
    store::{Error, Issued, Store},
};
use futures_util::future::join_all;

use super::sample::{
    TTL, add_settled, aftermath, ask, at, end, fail, finish, id, names, pending, run_for, settle,
    take, take_one,
};

/// Due at once in every hour.
fn hourly() -> Schedule {
    Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap()
}

/// Minute 0 is some milliseconds past a full hour.
fn hour(hour: i64) -> Instant {
    at(60 * hour) - Duration::from_millis(123)
}

/// With no key that waits for a person.
async fn tick(store: &dyn Store, minute: i64) -> Issued {
    store
        .issue_slots(&hourly(), at(minute), 100, at(minute))
        .await
        .unwrap()
}

fn issued(due: usize, asked: usize) -> Issued {
    Issued {
        due,
        asked,
        passed_over: 0,
        unreadable: Vec::new(),
    }
}

async fn reschedule(store: &dyn Store, minute: i64) {
    let rest = store
        .reschedule(&hourly(), None, 100, at(minute))
        .await
        .unwrap();
    assert_eq!(rest, None);
}

async fn next_due_at(store: &dyn Store, project: &ProjectId) -> Option<Instant> {
    store.read_status(project).await.unwrap().next_due_at
}

/// With its appointment in the first hour.
async fn appointed(store: &dyn Store, name: &str) -> ProjectId {
    let project = add_settled(store, name).await;
    tick(store, 0).await;
    project
}

pub(crate) async fn a_new_project_gets_an_appointment_and_no_slot(store: &dyn Store) {
    let acme = add_settled(store, "acme").await;
    assert_eq!(next_due_at(store, &acme).await, None);
    assert_eq!(tick(store, 0).await, issued(1, 0));
    assert_eq!(next_due_at(store, &acme).await, Some(hour(1)));
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_slot_that_is_due_is_issued_once(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    assert_eq!(tick(store, 59).await, issued(0, 0));
    assert_eq!(tick(store, 60).await, issued(1, 1));
    assert_eq!(tick(store, 61).await, issued(0, 0));

    assert_eq!(next_due_at(store, &acme).await, Some(hour(2)));
    let claim = take_one(store, 61).await;
    let request = claim.request.as_ref().unwrap();
    assert_eq!(request.trigger, Trigger::Schedule);
    assert_eq!(request.slot_at, Some(hour(1)));
    finish(store, &claim, 61).await;
    let runs = store.read_runs(&acme, 1).await.unwrap();
    assert_eq!(runs[0].run.slot_at, Some(hour(1)));
    assert!(names(&take(store, 9, at(62)).await).is_empty());
}

pub(crate) async fn schedulers_that_meet_issue_each_slot_once(store: &dyn Store) {
    for number in 0..20 {
        add_settled(store, &format!("p{number}")).await;
    }
    tick(store, 0).await;
    for round in 1..4 {
        let ticks = join_all((0..8).map(|_| tick(store, 60 * round))).await;
        assert_eq!(ticks.iter().map(|tick| tick.asked).sum::<usize>(), 20);
        let claimed = take(store, 100, at(60 * round)).await;
        assert_eq!(claimed.claims.len(), 20);
        for claim in &claimed.claims {
            let request = claim.request.as_ref().unwrap();
            assert_eq!(request.slot_at, Some(hour(round)));
            finish(store, claim, 60 * round).await;
        }
    }
}

pub(crate) async fn what_was_missed_is_caught_up_once(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    assert_eq!(tick(store, 60 * 5 + 1).await, issued(1, 1));
    assert_eq!(tick(store, 60 * 5 + 1).await, issued(0, 0));
    let claim = take_one(store, 60 * 5 + 1).await;
    assert_eq!(claim.request.as_ref().unwrap().slot_at, Some(hour(5)));
    finish(store, &claim, 60 * 5 + 1).await;
    assert_eq!(pending(store, &acme).await, None);
    assert_eq!(next_due_at(store, &acme).await, Some(hour(6)));
}

pub(crate) async fn a_clock_set_back_repeats_no_slot(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    finish(store, &take_one(store, 60).await, 60).await;

    reschedule(store, 30).await;
    assert_eq!(next_due_at(store, &acme).await, Some(hour(1)));

    assert_eq!(tick(store, 60).await, issued(1, 0));
    assert_eq!(pending(store, &acme).await, None);
    assert_eq!(next_due_at(store, &acme).await, Some(hour(2)));
}

pub(crate) async fn a_slot_that_waits_or_is_under_way_is_not_issued_again(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    let waiting = pending(store, &acme).await;
    reschedule(store, 30).await;
    assert_eq!(tick(store, 60).await, issued(1, 0));
    assert_eq!(pending(store, &acme).await, waiting);

    let claim = take_one(store, 60).await;
    reschedule(store, 30).await;
    assert_eq!(tick(store, 60).await, issued(1, 0));
    finish(store, &claim, 60).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_paused_project_catches_up_once_when_resumed(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    store.pause(&acme, at(10)).await.unwrap();
    assert_eq!(tick(store, 60 * 3).await, issued(0, 0));

    store.resume(&acme, at(60 * 3 + 5)).await.unwrap();
    assert_eq!(tick(store, 60 * 3 + 5).await, issued(1, 1));

    let claim = take_one(store, 60 * 3 + 5).await;
    let request = claim.request.as_ref().unwrap();
    assert_eq!(request.trigger, Trigger::Request);
    assert_eq!(request.slot_at, Some(hour(3)));
    finish(store, &claim, 60 * 3 + 5).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_project_set_aside_gets_no_slots_until_resumed(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    ask(store, &acme, at(0)).await;
    for minute in 0..3 {
        take_one(store, minute).await;
    }
    assert!(names(&take(store, 9, at(3)).await).is_empty());
    assert_eq!(tick(store, 60).await, issued(0, 0));
    store.resume(&acme, at(61)).await.unwrap();
    assert_eq!(tick(store, 61).await, issued(1, 1));
    take_one(store, 61).await;
}

pub(crate) async fn a_project_keeps_to_its_own_cron(store: &dyn Store) {
    let own = appointed(store, "own").await;
    let other = appointed(store, "other").await;
    let half_past = "30 * * * *".parse().unwrap();
    store.set_cron(&own, Some(&half_past)).await.unwrap();
    let project = store.load_project(&own).await.unwrap();
    assert_eq!(project.cron, Some(half_past));

    // A new appointment is no slot that was missed.
    assert_eq!(tick(store, 10).await, issued(1, 0));
    let half_hour = Duration::from_mins(30);
    assert_eq!(next_due_at(store, &own).await, Some(hour(0) + half_hour));
    assert_eq!(next_due_at(store, &other).await, Some(hour(1)));
    assert_eq!(tick(store, 30).await, issued(1, 1));
    let claim = take_one(store, 30).await;
    assert_eq!(claim.request.unwrap().slot_at, Some(hour(0) + half_hour));

    store.set_cron(&own, None).await.unwrap();
    assert_eq!(tick(store, 31).await, issued(1, 0));
    assert_eq!(next_due_at(store, &own).await, Some(hour(1)));
    let unknown = store.set_cron(&id("ghost"), None).await;
    assert!(matches!(unknown, Err(Error::UnknownProject { .. })));
}

pub(crate) async fn a_changed_schedule_moves_appointments_page_by_page(store: &dyn Store) {
    let mut projects = Vec::new();
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        projects.push(appointed(store, name).await);
    }
    let half_past = Schedule::new("30 * * * *", "UTC", Duration::ZERO).unwrap();
    let mut after = None;
    for last in [Some("p2"), Some("p4"), None] {
        after = store
            .reschedule(&half_past, after.as_ref(), 2, at(1))
            .await
            .unwrap();
        assert_eq!(after, last.map(id));
    }
    for project in &projects {
        let expected = hour(0) + Duration::from_mins(30);
        assert_eq!(next_due_at(store, project).await, Some(expected));
        assert_eq!(pending(store, project).await, None);
    }
}

pub(crate) async fn an_unchanged_schedule_changes_no_appointment(store: &dyn Store) {
    for name in ["a", "b"] {
        appointed(store, name).await;
    }
    let before = store.read_statuses().await.unwrap();
    reschedule(store, 10).await;
    assert_eq!(store.read_statuses().await.unwrap(), before);
}

pub(crate) async fn what_is_due_already_is_left_to_the_tick(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    reschedule(store, 90).await;
    assert_eq!(next_due_at(store, &acme).await, Some(hour(1)));
    assert_eq!(tick(store, 90).await, issued(1, 1));
    // Neither is one made for a project that has none yet, lest it be taken for one that missed a slot.
    let fresh = add_settled(store, "fresh").await;
    reschedule(store, 90).await;
    assert_eq!(next_due_at(store, &fresh).await, None);
}

async fn fail_with(store: &dyn Store, project: &ProjectId, minute: i64, code: Code) {
    let claim = store.acquire(project, TTL, at(minute)).await.unwrap();
    let run = Run {
        outcome: Outcome::Failed,
        error: Some(Diagnosis::new(code, "It failed.")),
        ..run_for(&claim, minute)
    };
    end(store, &claim, &run, &aftermath()).await;
}

pub(crate) async fn a_key_that_waits_for_a_person_is_passed_over_for_a_while(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    fail_with(store, &acme, 5, Code::KeyRejected).await;

    let tick_since = async |since: i64, minute: i64| {
        store
            .issue_slots(&hourly(), at(since), 9, at(minute))
            .await
            .unwrap()
    };
    let passed_over = Issued {
        due: 1,
        asked: 0,
        passed_over: 1,
        unreadable: Vec::new(),
    };
    assert_eq!(tick_since(4, 60).await, passed_over);
    assert_eq!(next_due_at(store, &acme).await, Some(hour(2)));
    assert_eq!(pending(store, &acme).await, None);
    // It has not been looked at for long enough now.
    assert_eq!(tick_since(5, 120).await, issued(1, 1));
}

pub(crate) async fn a_key_that_waits_for_a_person_is_looked_at_on_demand(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    fail_with(store, &acme, 5, Code::KeyRejected).await;
    ask(store, &acme, at(6)).await;
    take_one(store, 6).await;
}

pub(crate) async fn a_failure_that_passes_by_itself_is_not_passed_over(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    fail_with(store, &acme, 5, Code::UpstreamUnavailable).await;
    let tick = store.issue_slots(&hourly(), at(0), 9, at(60)).await;
    assert_eq!(tick.unwrap(), issued(1, 1));
}

pub(crate) async fn a_slot_has_one_run(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    let claim = take_one(store, 60).await;
    finish(store, &claim, 60).await;
    let forged = store.acquire(&acme, TTL, at(61)).await.unwrap();

    let run = Run {
        slot_at: Some(hour(1)),
        ..run_for(&forged, 61)
    };
    store
        .commit(&forged.lease, &Plan::nothing(), &run, &aftermath())
        .await
        .unwrap();

    let runs = store.read_runs(&acme, 2).await.unwrap();
    let slots: Vec<_> = runs.iter().map(|run| run.run.slot_at).collect();
    assert_eq!(slots, [None, Some(hour(1))]);
}

pub(crate) async fn no_more_slots_are_issued_than_wanted_at_once(store: &dyn Store) {
    for name in ["a", "b", "c", "d", "e"] {
        appointed(store, name).await;
    }
    for due in [2, 2, 1, 0] {
        let tick = store.issue_slots(&hourly(), at(60), 2, at(60)).await;
        assert_eq!(tick.unwrap(), issued(due, due));
    }
}

pub(crate) async fn a_slot_replaces_a_repetition_that_would_come_later(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    let claim = store.acquire(&acme, TTL, at(1)).await.unwrap();
    fail(store, &claim, 1, at(600)).await;
    tick(store, 60).await;

    let claim = take_one(store, 60).await;
    let request = claim.request.as_ref().unwrap();
    assert_eq!(request.trigger, Trigger::Schedule);
    assert_eq!(request.slot_at, Some(hour(1)));
    assert_eq!(claim.state.retries, 1);
    finish(store, &claim, 60).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_repetition_is_no_second_run_of_its_slot(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    let claim = take_one(store, 60).await;
    fail(store, &claim, 60, at(62)).await;
    let again = take_one(store, 62).await;
    assert_eq!(again.request.as_ref().unwrap().slot_at, None);
    finish(store, &again, 62).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_slot_joins_what_waits_already(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    ask(store, &acme, at(59)).await;
    tick(store, 60).await;

    let claim = take_one(store, 60).await;
    let request = claim.request.as_ref().unwrap();
    assert_eq!(request.trigger, Trigger::Request);
    assert_eq!(request.requested_at, at(59));
    assert_eq!(request.slot_at, Some(hour(1)));
    finish(store, &claim, 60).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn a_slot_that_comes_during_a_run_has_a_run_of_its_own(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    let long = take_one(store, 60).await;
    store.renew(&long.lease, 180 * TTL, at(60)).await.unwrap();
    tick(store, 120).await;
    finish(store, &long, 121).await;

    let next = take_one(store, 121).await;
    assert_eq!(next.request.as_ref().unwrap().slot_at, Some(hour(2)));
    finish(store, &next, 121).await;
    let slots: Vec<_> = store.read_runs(&acme, 2).await.unwrap();
    let slots: Vec<_> = slots.iter().map(|run| run.run.slot_at).collect();
    assert_eq!(slots, [Some(hour(2)), Some(hour(1))]);
}

pub(crate) async fn a_dead_runs_slot_is_the_takeovers(store: &dyn Store) {
    let acme = appointed(store, "acme").await;
    tick(store, 60).await;
    take_one(store, 60).await;
    let takeover = take_one(store, 61).await;
    assert_eq!(takeover.request.as_ref().unwrap().slot_at, Some(hour(1)));
    finish(store, &takeover, 61).await;
    settle(store, &acme, 62).await;
    assert_eq!(tick(store, 62).await, issued(0, 0));
}

pub(crate) async fn a_slot_is_not_issued_before_the_projects_place_in_the_spread(
    store: &dyn Store,
) {
    let acme = add_settled(store, "acme").await;
    let spread = Schedule::new("0 * * * *", "UTC", Duration::from_mins(50)).unwrap();
    let slot = spread.next(&acme, None, at(0)).unwrap();
    let tick = async |now| store.issue_slots(&spread, now, 9, now).await.unwrap();
    tick(at(0)).await;
    assert_eq!(next_due_at(store, &acme).await, Some(slot.due_at));
    let moment_before = slot.due_at - Duration::from_millis(1);
    assert_eq!(tick(moment_before).await, issued(0, 0));
    assert_eq!(tick(slot.due_at).await, issued(1, 1));
    let request = pending(store, &acme).await.unwrap();
    assert_eq!(request.slot_at, Some(slot.at));
}
