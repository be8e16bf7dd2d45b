//! What must be found in the tables, at the broker and in the logs when it is over, and the figures of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use catalog_sync::clock::Instant;
use serde_json::{Value, json};

use super::{
    Size,
    diary::Diary,
    invariants as inv,
    place::Place,
    story::Aftermath,
    tables::{Run, Tables},
    workers::Account,
};

/// A killed worker's project is in other hands so long after its lease has run out, at the latest.
const GRACE: Duration = Duration::from_secs(10);

/// After an outage only a hang takes longer than this until the next run begins.
const RESUMED_WITHIN: Duration = Duration::from_mins(2);

pub(super) async fn check(
    place: &Place,
    size: &Size,
    tables: &mut Tables,
    diary: &mut Diary,
    account: &Account,
    aftermath: &Aftermath,
) {
    let events = &account.events;
    let runs = tables.runs().await;
    let changes = tables.changes().await;
    let by_project = by_project(&runs);
    for run in &runs {
        let of = json!({
            "project": run.project_id, "epoch": run.epoch, "started_at": run.started_at,
            "finished_at": run.finished_at, "revision": run.revision, "outcome": run.outcome,
        });
        diary.note("committed", of);
    }

    nothing_went_wrong(diary, &runs, events);
    nobody_was_turned_away_by_a_lock(events);
    assert_eq!(tables.integrity().await, ["ok"]);
    assert_eq!(tables.partial_runs().await, 0);
    who_was_set_aside_lost_three_workers(diary, events);
    assert_eq!(tables.set_aside().await, [""; 0]);
    let left = tables.held().await;
    assert!(left.is_empty(), "leases are left: {left:?}");
    inv::i1_epochs_are_not_interleaved(&runs, &by_project, &changes);
    inv::i1_what_workers_finished_is_in_the_tables(&by_project, events);
    let waits = inv::i2_no_request_is_lost(diary, &by_project);
    inv::i3_a_slot_has_one_run(tables).await;
    inv::i4_catalogs_are_what_is_upstream(place).await;
    inv::i5_the_log_leads_to_the_catalog(place, &by_project, &changes).await;
    inv::i6_nothing_was_removed_that_upstream_had(diary, &changes);
    inv::i7_keys_stay_within_their_budget(place);
    inv::i9_no_secret_was_written(place);
    inv::i10_workers_do_not_grow(account);
    let takeovers = every_killed_worker_is_followed(size, diary, &by_project, events);
    let resumed = work_resumes_after_each_outage(diary, &runs);
    let published = match &place.broker {
        None => None,
        Some(broker) => {
            assert_eq!(broker.untaken().await, 0, "requests are left at the broker");
            let published = broker.published().await;
            for change in &published {
                let of = json!({"project": change.project, "id": change.id});
                diary.note("published", of);
            }
            Some(inv::every_change_was_published(&changes, &published))
        }
    };
    let fenced = account.fenced;
    if diary.stops.len() >= inv::STOPS_THAT_BITE {
        assert!(fenced > 0, "no fault led to a write that was refused");
    }

    let count = |trigger: &str| runs.iter().filter(|run| run.trigger == trigger).count();
    let slots = runs.iter().filter(|run| run.slot_at.is_some()).count();
    let most = by_project.values().map(Vec::len).max().unwrap();
    let events = |name: &str| events.iter().filter(|it| it["event"] == name).count();
    println!("  kills                    {}", diary.kills.len());
    println!("  leases lost to them      {}", takeovers.len());
    println!("  takeover median / max    {}", spread(&takeovers));
    println!("  set aside, resumed       {}", diary.set_aside.len());
    println!("  stops past the lease     {}", diary.stops.len());
    for (what, is_twice) in [("told to stop", false), ("told twice", true)] {
        let endings = diary.endings.iter().filter(|it| it.1 == is_twice);
        let took: Vec<Duration> = endings.map(|it| it.0).collect();
        println!("  {what:<24} {}", took.len());
        println!("    ended after            {}", spread(&took));
    }
    let held: usize = diary.stops.iter().map(|stop| stop.held.len()).sum();
    println!("    with leases in hand    {held}");
    println!("  writes fenced off        {fenced}");
    println!("  runs given up            {}", events("sync.aborted"));
    for (what, resumed) in &resumed {
        println!("  {what:<24} {}", resumed.len());
        println!("    resumed after          {}", spread(resumed));
    }
    println!("  requests accepted        {}", waits.len());
    println!("  answers lost             {}", diary.maybe);
    println!("  until their run began    {}", spread(&waits));
    println!("  runs                     {}", runs.len());
    println!("    on demand              {}", count("request"));
    println!("    scheduled              {}", count("schedule"));
    println!("    again                  {}", count("retry"));
    println!("    of one project at most {most}");
    println!("  slots that had a run     {slots}");
    println!("  upstream edits           {}", diary.edits);
    println!("  changes logged           {}", changes.len());
    if let Some(repeats) = published {
        println!("  changes published twice  {repeats}");
    }
    println!(
        "  done after the load in   {:.1?}",
        aftermath.answered_after
    );
    println!("  told after the load in   {:.1?}", aftermath.told_after);
}

/// The median and the most.
pub(super) fn spread(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(max)) => format!("{median:.1?} / {max:.1?}"),
        _ => "none".to_owned(),
    }
}

/// Each project's runs, in the order of their epochs.
pub(super) fn by_project(runs: &[Run]) -> BTreeMap<&str, Vec<&Run>> {
    let mut by_project = BTreeMap::<&str, Vec<&Run>>::new();
    for run in runs {
        by_project.entry(&run.project_id).or_default().push(run);
    }
    by_project
}

/// A worker says "error" when somebody must act. A run that lost its lease, because the machine was too busy to renew it, is
/// repeated, and a server that is down is told; all else is a defect.
fn nothing_went_wrong(diary: &Diary, runs: &[Run], events: &[Value]) {
    let is_expected = |event: &Value| match event["event"].as_str() {
        // Lines of libraries have no event.
        Some("dependency.down") | None => !diary.outages.is_empty(),
        Some("project.set_aside") => true,
        Some(_) => event["error.code"] == "lease_lost",
    };
    let errors: Vec<&Value> = events
        .iter()
        .filter(|event| event["level"] == "ERROR" && !is_expected(event))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let failed: Vec<&Run> = runs
        .iter()
        .filter(|run| run.outcome != "succeeded")
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A project is set aside when its runs lose their workers three times in a row, as is promised, and for nothing else.
fn who_was_set_aside_lost_three_workers(diary: &Diary, events: &[Value]) {
    for project in &diary.set_aside {
        let is_lost = |it: &&Value| it["event"] == "lease.lost" && it["project.id"] == **project;
        let lost = events.iter().filter(is_lost).count();
        assert!(lost >= 3, "{project} was set aside after {lost} losses");
    }
}

/// Several processes share an SQLite file, and somebody else locks it for a while: they wait for each other.
fn nobody_was_turned_away_by_a_lock(events: &[Value]) {
    let is_busy = |event: &&Value| {
        let sentence = event["error.sentence"].as_str().unwrap_or_default();
        sentence.contains("locked") || sentence.contains("busy")
    };
    let busy: Vec<&Value> = events.iter().filter(is_busy).collect();
    assert!(busy.is_empty(), "{busy:#?}");
}

/// Gives, for each kind of outage, how long after each one the next run began.
fn work_resumes_after_each_outage(
    diary: &Diary,
    runs: &[Run],
) -> BTreeMap<&'static str, Vec<Duration>> {
    let mut resumed = BTreeMap::<_, Vec<_>>::new();
    for outage in &diary.outages {
        let starts = runs.iter().map(|run| run.started_at);
        let next = starts.filter(|start| *start >= outage.until).min();
        let next =
            next.unwrap_or_else(|| panic!("no run after {} at {}", outage.what, outage.until));
        let after = (next - outage.until).to_std().unwrap();
        assert!(
            after < RESUMED_WITHIN,
            "{} at {}: {after:?}",
            outage.what,
            outage.until
        );
        resumed.entry(outage.what).or_default().push(after);
    }
    resumed
}

/// Gives how long after the kill each project of a killed worker was claimed again, or another with its key: one of them is
/// synced at a time, and that one may lose its worker in turn.
fn every_killed_worker_is_followed(
    size: &Size,
    diary: &Diary,
    by_project: &BTreeMap<&str, Vec<&Run>>,
    events: &[Value],
) -> Vec<Duration> {
    // Who claims a project whose lease ran out says so.
    let lost: Vec<(&str, i64, &str, Instant)> = events
        .iter()
        .filter(|event| event["event"] == "lease.lost")
        .map(|event| {
            (
                event["project.id"].as_str().unwrap(),
                event["epoch"].as_i64().unwrap(),
                event["worker"].as_str().unwrap(),
                event["timestamp"].as_str().unwrap().parse().unwrap(),
            )
        })
        .collect();
    let mut takeovers = Vec::new();
    for kill in &diary.kills {
        let of_worker = lost.iter().filter(|it| it.2.ends_with(&kill.suffix));
        let told: BTreeSet<(&str, i64)> = of_worker.map(|it| (it.0, it.1)).collect();
        let held = kill
            .held
            .iter()
            .map(|it| (it.project_id.as_str(), it.epoch));
        for (project, epoch) in told.into_iter().chain(held).collect::<BTreeSet<_>>() {
            // Its commit was on its way.
            if by_project[project].iter().any(|run| run.epoch == epoch) {
                continue;
            }
            let told_at = lost
                .iter()
                .find(|it| (it.0, it.1) == (project, epoch))
                .map(|it| it.3);
            // A worker may be killed between the claim and the line: then a later run tells, or a later kill.
            let has_key =
                |other: &str| by_project[other][0].key_id == by_project[project][0].key_id;
            let later_runs = by_project
                .iter()
                .filter(|(other, _)| has_key(other))
                .flat_map(|(_, runs)| runs)
                .map(|run| run.started_at);
            let later_kills = diary
                .kills
                .iter()
                .filter(|later| later.held.iter().any(|held| has_key(&held.project_id)))
                .map(|later| later.at);
            let later = later_runs.chain(later_kills).filter(|at| *at > kill.at);
            let again_at = told_at.into_iter().chain(later).min();
            let again_at = again_at.unwrap_or_else(|| panic!("{project} {epoch} is left"));
            let after = (again_at - kill.at).to_std().unwrap_or_default();
            assert!(
                after <= size.lease + GRACE || diary.was_troubled(kill.at, again_at),
                "{project} {epoch} was claimed again {after:?} after its worker was killed"
            );
            takeovers.push(after);
        }
    }
    takeovers
}
