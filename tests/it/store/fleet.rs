//! How all projects fare together, who is at work, and which project fares the worst.

use std::{collections::BTreeMap, time::Duration};

use catalog_sync::{
    budget::Budget,
    catalog::Plan,
    clock::Instant,
    diagnosis::{Code, Diagnosis},
    project::ProjectId,
    run::{Outcome, Run},
    schedule::Schedule,
    store::{
        AGES, Aftermath, Condition, FailingProject, Fleet, HeldProject, HoldTurn, Stalest, Store,
    },
};
use chrono::TimeDelta;

use super::{
    WORKER,
    commits::hold,
    losses::set_aside_at_three,
    sample::{
        add, add_with_key, aftermath, ask, at, claim, coins, end, fail, finish, id, refusal, run,
        run_for, sync, take_one,
    },
};

/// Every hour, in the first ten minutes of it.
fn hourly() -> Schedule {
    Schedule::new("0 * * * *", "UTC", Duration::from_mins(10)).unwrap()
}

async fn fleet(store: &dyn Store, now: Instant) -> Fleet {
    store.read_fleet(&hourly(), 2, now).await.unwrap()
}

/// A project that was synced then.
async fn synced(store: &dyn Store, name: &str, minute: i64) -> ProjectId {
    let project = add(store, name).await;
    sync(store, &project, minute, [coins(name)]).await;
    project
}

/// A project whose last run, at that minute, could list nothing.
async fn failed(store: &dyn Store, name: &str, minute: i64) -> ProjectId {
    let project = add(store, name).await;
    fails(store, &project, minute, refusal()).await;
    project
}

/// A run that could list nothing.
async fn fails(store: &dyn Store, project: &ProjectId, minute: i64, error: Diagnosis) {
    let lease = claim(store, project, minute).await;
    let nothing = Plan::nothing();
    let run = Run {
        outcome: Outcome::Failed,
        error: Some(error),
        ..run(&nothing, minute)
    };
    store
        .commit(&lease, &nothing, &run, &aftermath())
        .await
        .unwrap();
}

/// A project with removals that are held since that minute.
async fn held(store: &dyn Store, name: &str, minute: i64) -> (ProjectId, u64) {
    let project = add(store, name).await;
    let lease = claim(store, &project, minute).await;
    let nothing = Plan::nothing();
    let run = Run {
        outcome: Outcome::Held,
        hold: Some(hold().summary()),
        ..run(&nothing, minute)
    };
    let after = Aftermath {
        hold: HoldTurn {
            begun: Some(hold()),
            ..HoldTurn::default()
        },
        ..aftermath()
    };
    store.commit(&lease, &nothing, &run, &after).await.unwrap();
    let removals = hold().removals.len().try_into().unwrap();
    (project, removals)
}

pub(crate) async fn no_projects_are_counted_as_none(store: &dyn Store) {
    let fleet = fleet(store, at(0)).await;
    assert_eq!(
        (fleet.fresh, fleet.stale, fleet.new, fleet.paused),
        (0, 0, 0, 0)
    );
    assert_eq!(fleet.ages.projects, 0);
    assert_eq!(fleet.ages.oldest, None);
    assert_eq!((fleet.pending, fleet.ready_since), (0, None));
    assert!(fleet.workers.is_empty() && fleet.outboxes.is_empty());
}

pub(crate) async fn each_project_is_fresh_stale_new_or_paused(store: &dyn Store) {
    // The samples begin at 08:00; the projects were added then.
    let now = at(6 * 60);
    synced(store, "fresh", 5 * 60).await;
    synced(store, "stale", 60).await;
    synced(store, "staler", 30).await;
    let asleep = synced(store, "asleep", 40).await;
    store.pause(&asleep, at(50)).await.unwrap();
    add(store, "never").await;

    let fleet = fleet(store, now).await;

    assert_eq!(
        (fleet.fresh, fleet.stale, fleet.new, fleet.paused),
        (1, 3, 0, 1)
    );
    let stalest: Vec<_> = fleet
        .stalest
        .iter()
        .map(|one| one.project_id.as_str())
        .collect();
    assert_eq!(
        stalest,
        ["never", "staler"],
        "two at most, the stalest first"
    );
    assert_eq!(
        fleet.stalest[1],
        Stalest {
            project_id: id("staler"),
            since: at(30)
        }
    );
    let early = store.read_fleet(&hourly(), 2, at(61)).await.unwrap();
    assert_eq!((early.stale, early.new), (0, 1));
}

pub(crate) async fn a_project_is_stale_by_its_own_schedule(store: &dyn Store) {
    let daily = synced(store, "daily", 0).await;
    let hourly_one = synced(store, "hourly", 0).await;
    store
        .set_cron(&daily, Some(&"0 4 * * *".parse().unwrap()))
        .await
        .unwrap();
    let after = async |hours: i64| fleet(store, at(60 * hours)).await.stalest;
    let names = |stalest: Vec<Stalest>| -> Vec<ProjectId> {
        stalest.into_iter().map(|one| one.project_id).collect()
    };
    assert!(after(2).await.is_empty());
    assert_eq!(names(after(24).await), std::slice::from_ref(&hourly_one));
    assert_eq!(names(after(48).await), [daily, hourly_one]);
}

pub(crate) async fn ages_are_counted_by_how_old_they_are(store: &dyn Store) {
    let now = at(10 * 24 * 60);
    for (number, age) in AGES.into_iter().enumerate() {
        // One just as old as the bound, and one older.
        synced(
            store,
            &format!("just{number}"),
            (now - at(0) - age).num_minutes(),
        )
        .await;
        synced(
            store,
            &format!("older{number}"),
            (now - at(0) - age).num_minutes() - 1,
        )
        .await;
    }
    let ages = fleet(store, now).await.ages;
    let number = |count: usize| u64::try_from(count).unwrap();
    let expected: Vec<u64> = (0..AGES.len()).map(|bound| number(2 * bound + 1)).collect();
    assert_eq!(ages.up_to.to_vec(), expected);
    assert_eq!(ages.projects, number(2 * AGES.len()));
    let seconds: i64 = AGES.iter().map(|age| 2 * age.num_seconds() + 60).sum();
    assert_eq!(ages.seconds, seconds.unsigned_abs());
    let oldest = now - *AGES.last().unwrap() - TimeDelta::minutes(1);
    assert_eq!(ages.oldest, Some(oldest));
    let id: ProjectId = format!("older{}", AGES.len() - 1).parse().unwrap();
    store.pause(&id, now).await.unwrap();
    let ages = fleet(store, now).await.ages;
    assert_eq!(ages.oldest, Some(oldest + TimeDelta::minutes(1)));
}

pub(crate) async fn failing_projects_are_counted_by_their_code(store: &dyn Store) {
    synced(store, "good", 0).await;
    for (name, minute) in [("bad1", 0), ("bad2", 0), ("bad3", 0)] {
        failed(store, name, minute).await;
    }
    let asleep = failed(store, "asleep", 0).await;
    store.pause(&asleep, at(1)).await.unwrap();

    let fleet = fleet(store, at(2)).await;

    let code = refusal().code.as_str().to_owned();
    assert_eq!(fleet.failing, BTreeMap::from([(code.clone(), 3)]));
    let expected = ["bad1", "bad2"].map(|name| FailingProject {
        project_id: id(name),
        error_code: code.clone(),
    });
    assert_eq!(fleet.failing_projects, expected);
}

pub(crate) async fn what_broke_last_is_named_before_what_is_old_or_passes(store: &dyn Store) {
    for (name, minute) in [("old", 1), ("newer", 2), ("newest", 3)] {
        synced(store, name, minute).await;
        fails(store, &id(name), minute + 10, refusal()).await;
    }
    synced(store, "passing", 9).await;
    let outage = Diagnosis::of(Code::UpstreamUnavailable);
    fails(store, &id("passing"), 19, outage).await;

    let now = at(12 * 60);
    let named = store.read_fleet(&hourly(), 9, now).await.unwrap();

    let failing = named.failing_projects.iter();
    let failing: Vec<&str> = failing.map(|one| one.project_id.as_str()).collect();
    assert_eq!(failing, ["newest", "newer", "old", "passing"]);
    let stalest = named.stalest.iter();
    let stalest: Vec<&str> = stalest.map(|one| one.project_id.as_str()).collect();
    assert_eq!(stalest, ["passing"], "of the others it is known why");
    assert_eq!(named.stale, 4);
}

pub(crate) async fn holds_and_what_is_set_aside_are_counted(store: &dyn Store) {
    let acme = set_aside_at_three(store).await;
    assert_eq!(fleet(store, at(4)).await.set_aside, 1);
    store.remove_project(&acme).await.unwrap();
    let (project, removals) = held(store, "big", 5).await;

    let fleet = fleet(store, at(9)).await;

    assert_eq!((fleet.held, fleet.held_removals), (1, removals));
    let expected = HeldProject {
        project_id: project,
        removals,
    };
    assert_eq!(fleet.held_projects, [expected]);
    assert_eq!(fleet.set_aside, 0);
}

pub(crate) async fn what_waits_is_told_from_what_is_under_way(store: &dyn Store) {
    let waits = add(store, "waits").await;
    assert_eq!(
        fleet(store, at(0)).await.pending,
        1,
        "a new project is asked for"
    );
    let claimed = take_one(store, 0).await;
    let under_way = fleet(store, at(0)).await;
    assert_eq!((under_way.pending, under_way.ready_since), (1, None));
    finish(store, &claimed, 1).await;
    assert_eq!(fleet(store, at(2)).await.pending, 0);

    ask(store, &waits, at(3)).await;
    assert_eq!(fleet(store, at(9)).await.ready_since, Some(at(3)));
    let claimed = take_one(store, 9).await;
    fail(store, &claimed, 10, at(20)).await;
    let later = fleet(store, at(19)).await;
    assert_eq!(
        (later.pending, later.ready_since),
        (1, None),
        "it is to wait"
    );
    assert_eq!(fleet(store, at(21)).await.ready_since, Some(at(20)));
    store.pause(&waits, at(22)).await.unwrap();
    assert_eq!(fleet(store, at(23)).await.pending, 0);
}

pub(crate) async fn a_key_with_little_left_is_counted_for_an_hour(store: &dyn Store) {
    let left = async |name: &str, left| {
        let project = add_with_key(store, name, name).await;
        ask(store, &project, at(0)).await;
        let claimed = take_one(store, 0).await;
        let spent = Aftermath {
            budget: Some(Budget { limit: 3600, left }),
            ..aftermath()
        };
        end(store, &claimed, &run_for(&claimed, 1), &spent).await;
    };
    left("spent", 720).await;
    left("enough", 721).await;
    assert_eq!(fleet(store, at(2)).await.spent_keys, 1);
    assert_eq!(fleet(store, at(62)).await.spent_keys, 0);
}

pub(crate) async fn an_outbox_tells_how_much_waits_and_since_when(store: &dyn Store) {
    store.name_sinks(&["nats"], at(-60), at(0)).await.unwrap();
    let acme = add(store, "acme").await;
    let empty = fleet(store, at(0)).await.outboxes;
    assert_eq!((empty[0].untold, empty[0].oldest_at), (0, None));
    sync(store, &acme, 1, [coins("1")]).await;
    sync(store, &acme, 5, [coins("1"), coins("2")]).await;
    let outboxes = fleet(store, at(9)).await.outboxes;
    assert_eq!(outboxes.len(), 1);
    assert_eq!(outboxes[0].sink, "nats");
    assert_eq!(
        (outboxes[0].untold, outboxes[0].oldest_at),
        (2, Some(at(1)))
    );
}

pub(crate) async fn a_worker_is_at_work_while_it_says_so(store: &dyn Store) {
    let at_work = async |now| fleet(store, now).await.workers;
    store.note_worker("0.1.0", at(0), at(0)).await.unwrap();
    store.note_worker("0.1.1", at(1), at(3)).await.unwrap();
    let workers = at_work(at(3)).await;
    assert_eq!(workers.len(), 1);
    assert_eq!(
        (workers[0].name.as_str(), workers[0].version.as_str()),
        (WORKER, "0.1.1")
    );
    assert_eq!((workers[0].started_at, workers[0].seen_at), (at(1), at(3)));
    assert_eq!(at_work(at(4)).await, [], "it has been silent for a minute");
    assert_eq!(at_work(at(4) - TimeDelta::seconds(1)).await.len(), 1);
    store.forget_worker().await.unwrap();
    assert_eq!(at_work(at(3)).await, []);
}

pub(crate) async fn the_worst_come_first(store: &dyn Store) {
    let aside = set_aside_at_three(store).await;
    let (held_one, _) = held(store, "held", 24 * 60 - 2).await;
    let now = at(24 * 60);
    failed(store, "failing", 24 * 60 - 1).await;
    synced(store, "fresh", 24 * 60 - 1).await;
    synced(store, "stale", 60).await;
    synced(store, "staler", 30).await;
    let paused = synced(store, "paused", 0).await;
    store.pause(&paused, at(1)).await.unwrap();

    let schedule = hourly();
    let statuses = store.read_worst(&schedule, 99, now).await.unwrap();

    let names: Vec<&str> = statuses
        .iter()
        .map(|status| status.project.id.as_str())
        .collect();
    let (aside, held) = (aside.as_str(), held_one.as_str());
    assert_eq!(
        names,
        [aside, "failing", held, "staler", "stale", "fresh", "paused"]
    );
    let conditions: Vec<Condition> = statuses
        .iter()
        .map(|status| {
            let own = status.project.cron.as_ref();
            Condition::of(status, schedule.stale_before(own, now))
        })
        .collect();
    assert_eq!(
        conditions,
        [
            Condition::SetAside,
            Condition::Failing,
            Condition::Held,
            Condition::Stale,
            Condition::Stale,
            Condition::Fresh,
            Condition::Paused
        ]
    );
    let worst = store.read_worst(&schedule, 2, now).await.unwrap();
    assert_eq!(worst, statuses[..2], "no more than are asked for");
    for status in &statuses {
        let one = store.read_status(&status.project.id).await.unwrap();
        assert_eq!(*status, one);
    }
}
