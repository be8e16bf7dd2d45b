//! Schedule and leases by virtual time: five schedulers with clocks of their own, which are set, stopped and killed, over seven
//! days in which the clocks of Berlin change, on the real SQLite store. No real time is waited for.
//!
//! `CATALOG_SYNC_SIMULATION_SEED` gives another history; the same seed gives the same.

mod slots;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::clock::Instant;
use chrono::TimeDelta;

use self::{
    slots::SPREAD,
    world::{History, World},
};

/// Within this time, while anybody is up, a slot has its run: a tick, a queue for room, a lease that runs out.
const DELAY: TimeDelta = TimeDelta::minutes(12);

/// A clock that was set wrong is right again within three hours, or its scheduler died and is back: then whoever had it looks all
/// appointments over.
const RIGHTED: TimeDelta = TimeDelta::hours(4);

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where another seed is given"
)]
fn seed() -> u64 {
    std::env::var("CATALOG_SYNC_SIMULATION_SEED").map_or(7, |text| text.parse().unwrap())
}

#[tokio::test]
async fn every_slot_has_one_run_in_the_week_of_the_spring_change() {
    let start = "2027-03-25T00:00:00Z".parse().unwrap();
    judge(&World::new(start, seed()).await.run().await);
}

#[tokio::test]
async fn every_slot_has_one_run_in_the_week_of_the_autumn_change() {
    let start = "2027-10-28T00:00:00Z".parse().unwrap();
    judge(&World::new(start, seed() + 1).await.run().await);
}

fn judge(history: &History) {
    let mut slots = 0;
    let mut early = 0;
    let mut slowest = TimeDelta::zero();
    for (project, times) in &history.projects {
        let runs = &history.runs[project];
        let taken: Vec<Instant> = runs.iter().filter_map(|run| run.slot_at).collect();
        let once: BTreeSet<Instant> = taken.iter().copied().collect();
        assert_eq!(once.len(), taken.len(), "{project}: a slot has two runs");
        assert!(
            runs.is_sorted_by(|one, next| one.epoch < next.epoch),
            "{project}: epochs"
        );

        let known: BTreeSet<Instant> = times
            .slots(history.start - TimeDelta::days(1), 9)
            .into_iter()
            .collect();
        let invented: Vec<_> = once.difference(&known).collect();
        assert!(invented.is_empty(), "{project}: no slots: {invented:?}");

        for slot in times.slots(history.start, world::DAYS) {
            let due_by = slot + SPREAD;
            let was_wrong = history.was_wrong(slot - world::LONGEST_STEP, due_by);
            let delay = if was_wrong { RIGHTED } else { DELAY };
            let Some(deadline) = history.up_after(due_by, delay) else {
                continue; // The story ends before.
            };
            slots += 1;
            // A wrong clock may have brought the slot's own run, or a later one's. Once clocks are right, only its own counts.
            let is_calm = !history.was_wrong(slot - world::SKEW, deadline);
            let answers = |run: &&world::Done| {
                run.slot_at >= Some(slot)
                    && run.recorded_start >= slot
                    && (run.slot_at == Some(slot)
                        || run.started_at >= slot - world::SKEW
                        || !is_calm)
            };
            let answer = runs.iter().filter(answers).min_by_key(|run| run.ended_at);
            let Some(run) = answer.filter(|run| run.ended_at <= deadline) else {
                let near: Vec<_> = runs
                    .iter()
                    .filter(|run| (run.ended_at - slot).abs() < TimeDelta::hours(6))
                    .collect();
                panic!("{project} {times:?}: the slot {slot} is missed by {deadline}: {near:#?}");
            };
            if run.started_at < slot - world::SKEW {
                assert!(was_wrong, "{project}: {slot} was run early: {run:?}");
                early += 1;
            } else if !was_wrong && history.up_after(due_by, TimeDelta::zero()) == Some(due_by) {
                slowest = slowest.max(run.ended_at - due_by);
            }
        }
    }
    let caught_up = one_run_catches_up(history);
    println!(
        "simulation from {}: {slots} slots, {} runs, {early} early by a wrong clock, {caught_up} caught up once, latest {} s \
         after the spread; {} claims, {} of them after a lost lease, {} fenced off; {} crashes, {} pauses, {} clock steps",
        history.start.date_naive(),
        history.runs.values().map(Vec::len).sum::<usize>(),
        slowest.num_seconds(),
        history.claims,
        history.lost,
        history.fenced,
        history.crashes,
        history.pauses,
        history.wrong.len(),
    );
    // What the story is about has happened.
    assert!(history.lost > 0 && history.fenced > 0 && early > 0);
}

/// After a time in which nobody was up, each project that missed something has one run for it, however much it missed.
fn one_run_catches_up(history: &History) -> usize {
    let (from, to) = history.outage;
    let mut caught_up = 0;
    for (project, times) in &history.projects {
        let missed: BTreeMap<Instant, usize> = history.runs[project]
            .iter()
            .filter_map(|run| {
                run.slot_at
                    .filter(|slot| *slot < to)
                    .filter(|_| run.started_at >= to)
            })
            .fold(BTreeMap::new(), |mut counted, slot| {
                *counted.entry(slot).or_default() += 1;
                counted
            });
        let there_were = times
            .slots(history.start, world::DAYS)
            .into_iter()
            .any(|slot| slot > from && slot + SPREAD < to);
        assert!(
            missed.len() <= 1,
            "{project}: caught up more than once: {missed:?}"
        );
        assert_eq!(missed.len() == 1, there_were, "{project}");
        caught_up += missed.len();
    }
    caught_up
}
