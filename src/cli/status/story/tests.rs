//! Each case is a project in some trouble, or none, and what a person is told.

use std::time::Duration;

use chrono::TimeDelta;
use insta::assert_snapshot;

use super::{super::next::next_try, *};
use crate::{
    catalog::{Digest, HoldSummary, OwnLimits, Reason, Tally},
    diagnosis::Code,
    project::{App, Project},
    run::{Cost, Run},
    schedule::Schedule,
    store::Request,
};

fn now() -> Instant {
    "2026-11-23T17:00:00Z".parse().unwrap()
}

fn before(minutes: i64) -> Instant {
    now() - TimeDelta::minutes(minutes)
}

fn status() -> Status {
    Status {
        project: Project {
            id: "acme".parse().unwrap(),
            app: App {
                id: "1600000001".to_owned(),
                bundle_id: "com.example.lumen".to_owned(),
                name: "Lumen".to_owned(),
            },
            key_id: "2X9R4HXF34".to_owned(),
            issuer_id: Some("57246542-96fe-1a63-e053-0824d011072a".to_owned()),
            cron: None,
            guard: OwnLimits::default(),
            paused_at: None,
            created_at: before(30 * 24 * 60),
        },
        revision: 7,
        last_attempt_at: Some(before(4)),
        last_success_at: Some(before(4)),
        outcome: Some(Outcome::Succeeded),
        error: None,
        consecutive_failures: 0,
        next_due_at: Some(before(-56)),
        covered_at: Kind::ALL
            .into_iter()
            .map(|kind| (kind, before(4)))
            .collect(),
        present: [
            (Kind::InAppPurchase, 13),
            (Kind::SubscriptionGroup, 1),
            (Kind::Subscription, 6),
            (Kind::GracePeriod, 1),
        ]
        .into(),
        hold: None,
        held_since: None,
        missing: 0,
        kept: 0,
        log_since: None,
        leased_until: None,
        leased_by: None,
        pending: None,
        served: 9,
        set_aside_at: None,
    }
}

fn failing(code: Code, runs: i64) -> Status {
    Status {
        outcome: Some(Outcome::Failed),
        error: Some(Diagnosis {
            endpoint: Some("/v1/apps/1600000001".to_owned()),
            ..Diagnosis::of(code)
        }),
        consecutive_failures: runs,
        last_success_at: Some(before(180)),
        ..status()
    }
}

fn held() -> Status {
    Status {
        outcome: Some(Outcome::Held),
        hold: Some(HoldSummary {
            digest: Digest::from("3f754c3810e5".to_owned()),
            reasons: vec![Reason::Everything {
                kind: Kind::InAppPurchase,
                removed: 13,
            }],
            removals: 13,
        }),
        held_since: Some(before(124)),
        missing: 13,
        ..status()
    }
}

fn pending(trigger: Trigger, ready_at: Instant) -> Request {
    Request {
        trigger,
        reason: None,
        requested_at: before(3),
        ready_at,
        slot_at: None,
    }
}

fn facts(status: &Status) -> Facts<'_> {
    let hourly = Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    let stale_before = hourly.stale_before(None, now());
    Facts {
        condition: Condition::of(status, stale_before),
        failing_since: (status.consecutive_failures > 0).then(|| before(178)),
        last_run: None,
        last_change: None,
        budget: Budget {
            limit: 3600,
            left: 3545,
        },
        budget_ready_at: None,
        reserve: Reserve::Scheduled,
        shared_with: &[],
        next_try: next_try(status, &hourly, TimeDelta::hours(6)),
        workers: 1,
        status,
    }
}

/// The story, without what is the same in all of them.
fn told(facts: &Facts<'_>) -> String {
    let sentences = story(facts, now()).into_iter();
    let lines = sentences
        .filter(|sentence| !["catalog", "key"].contains(&sentence.label))
        .map(|Sentence { label, text, .. }| match label {
            "" => text,
            label => format!("{label}: {text}"),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_fresh_project_is_told_in_two_lines_beside_its_catalog_and_key() {
    let status = status();
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is fresh: last synced 16:56 UTC, 4 min ago.
    next run: 17:56 UTC, in 56 min. Now: 'catalog-sync resync acme --wait'.
    "#);
}

#[test]
fn its_catalog_its_last_change_and_its_key_are_told() {
    let status = status();
    let shared_with: Vec<ProjectId> = ["b", "c", "d", "e", "f", "g"]
        .map(|id| id.parse().unwrap())
        .into();
    let tally = Tally {
        added: 1,
        updated: 2,
        ..Tally::default()
    };
    let facts = Facts {
        last_change: Some(LastChange {
            at: before(26 * 60),
            counts: Some(Counts([(Kind::InAppPurchase, tally)].into())),
        }),
        shared_with: &shared_with,
        ..facts(&status)
    };
    assert_snapshot!(format!("{}\n{}", catalog(&facts, now()).text, key(&facts).text), @r#"
    13 in-app purchases, 1 subscription group, 6 subscriptions; revision 7. It changed last at 2026-11-22 15:00 UTC, 26 h ago: 1 added, 2 updated, 0 removed.
    2X9R4HXF34 has 3545 of 3600 requests left this hour, shared with b, c, d, e, f and 1 more.
    "#);
}

#[test]
fn a_new_project_waits_for_its_first_sync() {
    let mut status = Status {
        last_attempt_at: None,
        last_success_at: None,
        outcome: None,
        pending: Some(pending(Trigger::Request, before(2))),
        ..status()
    };
    status.project.created_at = before(2);
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is new: it was added 2 min ago and is not synced yet.
    asked for: A sync was asked for 16:57 UTC, 3 min ago. It waits for a worker that has room.
    "#);
}

#[test]
fn what_fails_and_passes_by_itself_asks_nothing_of_anybody() {
    let status = Status {
        pending: Some(pending(Trigger::Retry, before(-5))),
        ..failing(Code::UpstreamUnavailable, 3)
    };
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) has not been synced for 3 h: each run fails since 14:02 UTC, 3 in a row, with upstream_unavailable.
    why: App Store Connect cannot be reached or fails. This is not a problem of the key. (/v1/apps/1600000001)
    asked for: A run is to be repeated, which failed 16:57 UTC, 3 min ago. It waits until 17:05 UTC, in 5 min.
    what to do: Nothing, if it does not last. It resumes by itself. 'catalog-sync explain upstream_unavailable' says more.
    "#);
}

#[test]
fn what_a_person_must_mend_is_told_with_the_way_out_and_the_next_try() {
    let status = failing(Code::RoleTooLow, 6);
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) has not been synced for 3 h: each run fails since 14:02 UTC, 6 in a row, with role_too_low.
    why: The key's role may not read this. (/v1/apps/1600000001)
    what to do: Make a new key with the role App Manager or Admin (a key's role cannot be edited) and give it with 'catalog-sync project set-key'. 'catalog-sync explain role_too_low' says more.
    next run: 23:00 UTC, in 6 h; before that it is of little use. Now: 'catalog-sync resync acme --wait'.
    "#);
}

#[test]
fn what_never_worked_and_failed_once_says_so() {
    let status = Status {
        last_success_at: None,
        ..failing(Code::UpstreamUnexpected, 1)
    };
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) was never synced since it was added 30 days ago: its last run failed at 14:02 UTC, with upstream_unexpected.
    why: App Store Connect answered something this version does not understand. (/v1/apps/1600000001)
    what to do: Report it with the request and Apple's error id: it is a bug here or a change of the API. 'catalog-sync explain upstream_unexpected' says more.
    next run: 17:56 UTC, in 56 min. Now: 'catalog-sync resync acme --wait'.
    "#);
}

#[test]
fn a_partial_run_tells_what_it_did_not_read_and_of_when_that_is() {
    let mut status = Status {
        outcome: Some(Outcome::Partial),
        error: Some(Diagnosis::of(Code::GracePeriodUnreadable)),
        last_success_at: Some(before(64)),
        ..status()
    };
    status.covered_at.insert(Kind::GracePeriod, before(64));
    let nothing = Run {
        id: uuid::Uuid::nil(),
        trigger: Trigger::Schedule,
        requested_at: None,
        slot_at: None,
        started_at: before(4),
        finished_at: before(4),
        outcome: Outcome::Partial,
        covered: [].into(),
        listed: [].into(),
        failures: [(
            Kind::GracePeriod,
            Diagnosis::of(Code::GracePeriodUnreadable),
        )]
        .into(),
        error: None,
        counts: Counts::default(),
        hold: None,
        missing: 0,
        resume_at: None,
        cost: Cost::default(),
    };
    let run = RecordedRun {
        run: nothing,
        epoch: 1,
        revision: 7,
        worker: None,
    };
    let facts = Facts {
        last_run: Some(&run),
        ..facts(&status)
    };
    assert_snapshot!(told(&facts), @r#"
    acme (Lumen, com.example.lumen) is partly synced: the last run could not read everything (grace_period_unreadable); whole it was last synced 15:56 UTC, 1 h ago.
    why: The billing grace period could not be read; the rest was.
    what to do: Nothing, if it does not last. The last known setting is kept, with its date, and read again in the next run. 'catalog-sync explain grace_period_unreadable' says more.
    next run: 17:56 UTC, in 56 min. Now: 'catalog-sync resync acme --wait'.
    not read: The billing grace period could not be read; what is shown is of 15:56 UTC, 1 h ago.
    "#);
}

#[test]
fn a_hold_tells_why_and_how_to_decide() {
    let status = held();
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is held: 13 removals wait for a decision, held since 14:56 UTC, 2 h ago; last synced 16:56 UTC, 4 min ago.
    why held: all 13 in-app purchases would go. Nothing of it is removed, and the hold lapses when the things return.
    what to do: To let them go: 'catalog-sync approve acme 3f754c3810e5'. To keep the things: 'catalog-sync discard acme 3f754c3810e5'.
    next run: 17:56 UTC, in 56 min. Now: 'catalog-sync resync acme --wait'.
    missing: 13 not in Apple's latest listing: 13 held, 0 kept. 'catalog-sync catalog acme' marks them, 'catalog-sync holds acme --all' tells what was decided.
    "#);
}

#[test]
fn a_paused_project_has_no_next_run() {
    let mut status = status();
    status.project.paused_at = Some(before(26 * 60));
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is paused since 2026-11-22 15:00 UTC, 26 h ago: nothing syncs it; last synced 16:56 UTC, 4 min ago.
    what to do: 'catalog-sync project resume acme' takes it up again.
    "#);
}

#[test]
fn a_hold_of_a_paused_project_is_decided_after_the_pause() {
    let mut status = held();
    status.project.paused_at = Some(before(1));
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is paused since 16:59 UTC, 1 min ago: nothing syncs it; last synced 16:56 UTC, 4 min ago.
    why held: all 13 in-app purchases would go. Nothing of it is removed, and the hold lapses when the things return.
    what to do: 'catalog-sync project resume acme' takes it up again.
    what to do: Resume the project first. To let them go: 'catalog-sync approve acme 3f754c3810e5'. To keep the things: 'catalog-sync discard acme 3f754c3810e5'.
    missing: 13 not in Apple's latest listing: 13 held, 0 kept. 'catalog-sync catalog acme' marks them, 'catalog-sync holds acme --all' tells what was decided.
    "#);
}

#[test]
fn a_project_that_is_set_aside_is_told_how_to_be_taken_up_again() {
    let status = Status {
        set_aside_at: Some(before(61)),
        last_success_at: Some(before(200)),
        pending: Some(pending(Trigger::Schedule, before(60))),
        ..status()
    };
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is set aside since 15:59 UTC, 1 h ago: each of its last three runs lost its worker, so it is left alone.
    asked for: A sync fell due 16:57 UTC, 3 min ago.
    what to do: See in the workers' logs why they ended (too little memory?). 'catalog-sync project resume acme' takes it up again.
    "#);
}

#[test]
fn what_is_stale_because_no_daemon_is_at_work_is_told_as_that() {
    let status = Status {
        last_attempt_at: Some(before(300)),
        last_success_at: Some(before(300)),
        next_due_at: Some(before(240)),
        ..status()
    };
    let facts = Facts {
        workers: 0,
        ..facts(&status)
    };
    assert_snapshot!(told(&facts), @r#"
    acme (Lumen, com.example.lumen) has not been synced for 5 h, though its last run did not fail: it is stale.
    why: No daemon is at work on this database.
    what to do: Start a daemon with 'catalog-sync run', or sync it here with 'catalog-sync sync acme'.
    next run: due since 13:00 UTC. No daemon is at work: 'catalog-sync sync acme' does it here.
    "#);
}

#[test]
fn what_is_stale_with_daemons_at_work_is_told_how_to_go_first() {
    let status = Status {
        last_attempt_at: Some(before(300)),
        last_success_at: Some(before(300)),
        pending: Some(pending(Trigger::Schedule, before(100))),
        ..status()
    };
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) has not been synced for 5 h, though its last run did not fail: it is stale.
    asked for: A sync fell due 16:57 UTC, 3 min ago. It waits for a worker that has room.
    what to do: See whether the daemons keep up: 'catalog-sync status'. 'catalog-sync resync acme --wait' has it synced before others.
    "#);
}

#[test]
fn a_project_that_is_being_synced_names_who_does_it() {
    let status = Status {
        leased_until: Some(now() + TimeDelta::seconds(25)),
        leased_by: Some("host-1:4711".to_owned()),
        pending: Some(Request {
            reason: Some("the customer\u{1b} asked".to_owned()),
            ..pending(Trigger::Request, before(3))
        }),
        ..status()
    };
    assert_snapshot!(told(&facts(&status)), @r#"
    acme (Lumen, com.example.lumen) is fresh: last synced 16:56 UTC, 4 min ago.
    being synced: host-1:4711 is syncing it, with a lease until 17:00:25 UTC.
    asked for: A sync was asked for 16:57 UTC, 3 min ago ("the customer� asked").
    "#);
}

#[test]
fn what_waits_for_its_keys_budget_tells_how_much_is_left_and_until_when() {
    let status = Status {
        pending: Some(pending(Trigger::Schedule, before(-9))),
        ..status()
    };
    let facts = Facts {
        budget: Budget {
            limit: 3600,
            left: 700,
        },
        budget_ready_at: Some(before(-9)),
        ..facts(&status)
    };
    assert_snapshot!(told(&facts), @r#"
    acme (Lumen, com.example.lumen) is fresh: last synced 16:56 UTC, 4 min ago.
    asked for: A sync fell due 16:57 UTC, 3 min ago. It waits for its key, which has 700 of 3600 requests left this hour, and leaves 720 to others: until 17:09 UTC, in 9 min.
    "#);
}

#[test]
fn what_waits_with_no_daemon_at_work_is_told_how_to_start_one() {
    let status = Status {
        pending: Some(pending(Trigger::Request, before(3))),
        ..status()
    };
    let facts = Facts {
        workers: 0,
        ..facts(&status)
    };
    assert_snapshot!(told(&facts), @r#"
    acme (Lumen, com.example.lumen) is fresh: last synced 16:56 UTC, 4 min ago.
    asked for: A sync was asked for 16:57 UTC, 3 min ago. No daemon is at work to do it.
    what to do: Start a daemon with 'catalog-sync run', or sync it here with 'catalog-sync sync acme'.
    "#);
}

#[test]
fn the_next_try_of_what_waits_for_a_person_is_the_first_slot_after_the_wait() {
    let hourly = Schedule::new("0 * * * *", "UTC", Duration::ZERO).unwrap();
    let next = |status: &Status| next_try(status, &hourly, TimeDelta::hours(6)).unwrap();
    // It was looked at at 16:56; the slots are at the full hour.
    assert_eq!(
        next(&failing(Code::RoleTooLow, 6)).to_rfc3339(),
        "2026-11-23T23:00:00+00:00"
    );
    let passing = failing(Code::UpstreamUnavailable, 6);
    assert_eq!(Some(next(&passing)), passing.next_due_at);
}
