//! What must be found in the tables, at the broker and in the logs when it is over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use catalog_sync::{
    catalog::{Catalog, Kind},
    clock::Instant,
    simulator::{App, State},
    store::HistoryFilter,
};
use serde_json::Value;

use super::{
    Size,
    place::Place,
    story::Record,
    tables::{Logged, Run, Tables},
};
use crate::store::replay;

/// A killed worker's project is in other hands so long after its lease has run out, at the latest.
const GRACE: Duration = Duration::from_secs(10);

/// How many projects' change logs are replayed.
const SAMPLE: usize = 200;

pub(super) async fn check(
    place: &Place,
    size: &Size,
    tables: &mut Tables,
    record: &Record,
    events: &[Value],
) {
    let runs = tables.runs().await;
    let changes = tables.changes().await;
    let by_project = by_project(&runs);

    nothing_went_wrong(&runs, events);
    assert_eq!(tables.set_aside().await, 0, "projects were set aside");
    let left = tables.held().await;
    assert!(left.is_empty(), "leases are left: {left:?}");
    let waits = every_request_has_its_run(record, &by_project);
    assert_eq!(tables.doubled_slots().await, [], "slots with two runs");
    assert!(tables.has_slot_index().await);
    nobody_is_in_two_hands(&runs, &by_project);
    logs_agree(&by_project, events);
    let takeovers = every_killed_worker_is_followed(size, record, &by_project, events);
    revisions_have_no_gap(&by_project, &changes);
    catalogs_are_what_is_upstream(place).await;
    let published = match &place.broker {
        None => None,
        Some(broker) => {
            assert_eq!(broker.untaken().await, 0, "requests are left at the broker");
            Some(every_change_was_published(
                &changes,
                &broker.published().await,
            ))
        }
    };

    let count = |trigger: &str| runs.iter().filter(|run| run.trigger == trigger).count();
    let slots = runs.iter().filter(|run| run.slot_at.is_some()).count();
    let most = by_project.values().map(Vec::len).max().unwrap();
    let events = |name: &str| events.iter().filter(|it| it["event"] == name).count();
    println!("  kills                    {}", record.kills.len());
    println!("  leases lost to them      {}", takeovers.len());
    println!("  takeover median / max    {}", spread(&takeovers));
    println!("  requests accepted        {}", waits.len());
    println!("  until their run began    {}", spread(&waits));
    println!("  runs                     {}", runs.len());
    println!("    on demand              {}", count("request"));
    println!("    scheduled              {}", count("schedule"));
    println!("    again                  {}", count("retry"));
    println!("    of one project at most {most}");
    println!("  slots that had a run     {slots}");
    println!("  upstream edits           {}", record.edits);
    println!("  changes logged           {}", changes.len());
    if let Some(repeats) = published {
        println!("  changes published twice  {repeats}");
    }
    println!("  runs fenced off          {}", events("sync.aborted"));
    println!("  done after the load in   {:.1?}", record.answered_after);
    println!("  told after the load in   {:.1?}", record.told_after);
}

fn spread(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(max)) => format!("{median:.1?} / {max:.1?}"),
        _ => "none".to_owned(),
    }
}

/// Each project's runs, in the order of their epochs.
fn by_project(runs: &[Run]) -> BTreeMap<&str, Vec<&Run>> {
    let mut by_project = BTreeMap::<&str, Vec<&Run>>::new();
    for run in runs {
        by_project.entry(&run.project_id).or_default().push(run);
    }
    by_project
}

/// A worker says "error" when somebody must act. A run that lost its lease, because the machine was too busy to renew it, is
/// repeated; all else is a defect.
fn nothing_went_wrong(runs: &[Run], events: &[Value]) {
    let errors: Vec<&Value> = events
        .iter()
        .filter(|event| event["level"] == "ERROR" && event["error.code"] != "lease_lost")
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let failed: Vec<&Run> = runs
        .iter()
        .filter(|run| run.outcome != "succeeded")
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// I2. Gives how long each waited for its run to begin.
fn every_request_has_its_run(
    record: &Record,
    by_project: &BTreeMap<&str, Vec<&Run>>,
) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut lost = Vec::new();
    for (project, asked) in &record.asked {
        let runs = by_project.get(project.as_str());
        for &sent_at in asked {
            let starts = runs.into_iter().flatten().map(|run| run.started_at);
            match starts.filter(|&started_at| started_at >= sent_at).min() {
                Some(started_at) => waits.push((started_at - sent_at).to_std().unwrap()),
                None => lost.push((project, sent_at)),
            }
        }
    }
    assert!(lost.is_empty(), "requests without a run: {lost:?}");
    waits
}

/// I1, by project and by key.
fn nobody_is_in_two_hands(runs: &[Run], by_project: &BTreeMap<&str, Vec<&Run>>) {
    for runs in by_project.values() {
        for pair in runs.windows(2) {
            assert!(pair[0].epoch < pair[1].epoch, "{pair:#?}");
            assert!(pair[0].finished_at <= pair[1].started_at, "{pair:#?}");
        }
    }
    let mut by_key = HashMap::<&str, Vec<&Run>>::new();
    for run in runs {
        by_key.entry(&run.key_id).or_default().push(run);
    }
    for runs in by_key.values_mut() {
        runs.sort_by_key(|run| (run.started_at, run.finished_at));
        for pair in runs.windows(2) {
            assert!(pair[0].finished_at <= pair[1].started_at, "{pair:#?}");
        }
    }
}

/// What workers said they finished is what stands in the tables: no epoch was finished twice, or by a worker that no table knows of.
fn logs_agree(by_project: &BTreeMap<&str, Vec<&Run>>, events: &[Value]) {
    let mut said = HashSet::new();
    for event in events.iter().filter(|it| it["event"] == "sync.finished") {
        let project = event["project.id"].as_str().unwrap();
        let epoch = event["epoch"].as_i64().unwrap();
        assert!(said.insert((project, epoch)), "finished twice: {event}");
        let known = by_project[project].iter().any(|run| run.epoch == epoch);
        assert!(known, "finished, and in no table: {event}");
    }
}

/// Gives how long after the kill each project of a killed worker was claimed again, or another with its key: one of them is
/// synced at a time, and that one may lose its worker in turn.
fn every_killed_worker_is_followed(
    size: &Size,
    record: &Record,
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
    for kill in &record.kills {
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
            let later_kills = record
                .kills
                .iter()
                .filter(|later| later.held.iter().any(|held| has_key(&held.project_id)))
                .map(|later| later.at);
            let later = later_runs.chain(later_kills).filter(|at| *at > kill.at);
            let again_at = told_at.into_iter().chain(later).min();
            let again_at = again_at.unwrap_or_else(|| panic!("{project} {epoch} is left"));
            let after = (again_at - kill.at).to_std().unwrap_or_default();
            assert!(
                after <= size.lease + GRACE,
                "{project} {epoch} was claimed again {after:?} after its worker was killed"
            );
            takeovers.push(after);
        }
    }
    takeovers
}

/// I5, as far as numbers go.
fn revisions_have_no_gap(by_project: &BTreeMap<&str, Vec<&Run>>, changes: &[Logged]) {
    let mut logged = BTreeMap::<&str, BTreeSet<i64>>::new();
    for change in changes {
        let revisions = logged.entry(&change.project_id).or_default();
        revisions.insert(change.revision);
        assert_eq!(revisions.last(), Some(&change.revision), "out of order");
    }
    for (project, runs) in by_project {
        let last = runs.last().unwrap().revision;
        let revisions: Vec<i64> = logged[project].iter().copied().collect();
        assert_eq!(revisions, (1..=last).collect::<Vec<_>>(), "{project}");
        assert!(runs.is_sorted_by_key(|run| run.revision), "{project}");
    }
}

/// I4 for every project, and I5 for some.
async fn catalogs_are_what_is_upstream(place: &Place) {
    let state = place.simulator.state();
    for (number, (project, app)) in place.projects.iter().enumerate() {
        let id = project.parse().unwrap();
        let catalog = place.store.load_catalog(&id).await.unwrap();
        assert_eq!(named(&catalog), upstream(&state, app), "{project}");
        if number < SAMPLE {
            let log = place
                .store
                .read_history(&id, &HistoryFilter::default())
                .await;
            assert_eq!(replay(log.unwrap()), catalog.logged(), "{project}");
        }
    }
}

type Named = BTreeSet<(Kind, String, Option<String>)>;

fn named(catalog: &Catalog) -> Named {
    catalog
        .present
        .values()
        .map(|entry| {
            let name = entry.name().map(str::to_owned);
            (entry.key.kind, entry.key.store_id.to_string(), name)
        })
        .collect()
}

fn upstream(state: &State, app: &str) -> Named {
    let App {
        id,
        in_app_purchases,
        subscription_groups,
        ..
    } = state.app(app).unwrap();
    let mut named = Named::from([(Kind::GracePeriod, id.clone(), None)]);
    for it in in_app_purchases {
        named.insert((Kind::InAppPurchase, it.id.clone(), Some(it.name.clone())));
    }
    for group in subscription_groups {
        let name = group.reference_name.clone();
        named.insert((Kind::SubscriptionGroup, group.id.clone(), Some(name)));
        for it in &group.subscriptions {
            named.insert((Kind::Subscription, it.id.clone(), Some(it.name.clone())));
        }
    }
    named
}

/// Gives how many were published more than once.
fn every_change_was_published(changes: &[Logged], published: &[super::broker::Published]) -> usize {
    let mut seen = HashSet::new();
    let mut last = HashMap::<&str, i64>::new();
    for change in published.iter().filter(|it| seen.insert(it.id.as_str())) {
        let before = last.insert(&change.project, change.seq);
        assert!(before < Some(change.seq), "{} is out of order", change.id);
    }
    let logged: HashSet<&str> = changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(logged.len(), changes.len());
    let missing: Vec<_> = logged.difference(&seen).collect();
    assert!(missing.is_empty(), "never published: {missing:?}");
    assert!(seen.is_subset(&logged), "published, and in no log");
    published.len() - seen.len()
}
