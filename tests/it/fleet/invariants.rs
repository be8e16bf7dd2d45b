//! What must hold, whatever was broken: one function for each promise.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use catalog_sync::{
    catalog::{Catalog, Kind},
    simulator::{App, State},
    store::HistoryFilter,
};
use chrono::TimeDelta;
use serde_json::Value;

use super::{
    broker::Published,
    diary::Diary,
    place::Place,
    tables::{Logged, Run, Tables},
    workers::Account,
};
use crate::{
    secrecy::{canary::Search, given},
    store::replay,
};

/// How many projects' change logs are replayed.
const SAMPLE: usize = 200;

/// The part of its budget that no run of ours takes from a key.
const RESERVE_PERCENT: usize = 5;

/// After so many stops of workers, some of what they still wrote must have been refused: else the stops prove nothing.
pub(super) const STOPS_THAT_BITE: usize = 100;

/// A worker may take so much more of the machine than once it had settled. Each of 32 runs at once may leave three connections
/// upstream open for a while.
const MORE_DESCRIPTORS: usize = 3 * 32 + 10;
const MORE_THREADS: u64 = 20;
const MORE_BYTES: u64 = 64 << 20;

/// I1: no two writes of one project come from interleaved leases, and the epoch never falls. Nor is a key in two hands.
pub(super) fn i1_epochs_are_not_interleaved(
    runs: &[Run],
    by_project: &BTreeMap<&str, Vec<&Run>>,
    changes: &[Logged],
) {
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
    the_epoch_never_falls(changes);
}

/// I1, whatever the clocks did: in the order in which changes were written.
fn the_epoch_never_falls(changes: &[Logged]) {
    for pair in changes.windows(2) {
        let is_one_project = pair[0].project_id == pair[1].project_id;
        assert!(
            !is_one_project || pair[0].epoch <= pair[1].epoch,
            "{pair:#?}"
        );
    }
}

/// I1: no epoch was finished twice, or by a worker that no table knows of.
pub(super) fn i1_what_workers_finished_is_in_the_tables(
    by_project: &BTreeMap<&str, Vec<&Run>>,
    events: &[Value],
) {
    let mut said = HashSet::new();
    for event in events.iter().filter(|it| it["event"] == "sync.finished") {
        let project = event["project.id"].as_str().unwrap();
        let epoch = event["epoch"].as_i64().unwrap();
        assert!(said.insert((project, epoch)), "finished twice: {event}");
        let known = by_project[project].iter().any(|run| run.epoch == epoch);
        assert!(known, "finished, and in no table: {event}");
    }
}

/// I2: each accepted request has a run that began after it was sent. Gives how long each waited for it.
pub(super) fn i2_no_request_is_lost(
    diary: &Diary,
    by_project: &BTreeMap<&str, Vec<&Run>>,
) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut lost = Vec::new();
    for (project, asked) in &diary.asked {
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

/// I3: a slot has one run, and the database would not take a second.
pub(super) async fn i3_a_slot_has_one_run(tables: &mut Tables) {
    assert_eq!(tables.doubled_slots().await, [], "slots with two runs");
    assert!(tables.has_slot_index().await);
}

/// I4: with upstream quiet, each catalog is what is upstream.
pub(super) async fn i4_catalogs_are_what_is_upstream(place: &Place) {
    let state = place.simulator.state();
    for (project, app) in &place.projects {
        let id = project.parse().unwrap();
        let catalog = place.store.load_catalog(&id).await.unwrap();
        assert_eq!(named(&catalog), upstream(&state, app), "{project}");
    }
}

/// I5: revisions rise by one without a gap, and the log replayed from nothing gives the catalog.
pub(super) async fn i5_the_log_leads_to_the_catalog(
    place: &Place,
    by_project: &BTreeMap<&str, Vec<&Run>>,
    changes: &[Logged],
) {
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
    for (project, _) in place.projects.iter().take(SAMPLE) {
        let id = project.parse().unwrap();
        let catalog = place.store.load_catalog(&id).await.unwrap();
        let filter = HistoryFilter::default();
        let log = place.store.read_history(&id, &filter).await.unwrap();
        assert_eq!(replay(log), catalog.logged(), "{project}");
    }
}

/// I6: nothing was removed from a catalog that was never taken away upstream.
pub(super) fn i6_nothing_was_removed_that_upstream_had(diary: &Diary, changes: &[Logged]) {
    let taken_away: HashSet<&str> = diary.taken_away.iter().map(String::as_str).collect();
    let removed = changes.iter().filter(|change| change.op == "removed");
    let falsely: Vec<_> = removed
        .filter(|change| !taken_away.contains(change.store_id.as_str()))
        .collect();
    assert!(falsely.is_empty(), "{falsely:#?}");
}

/// I7: in any rolling hour no key has more requests than its limit less the reserve, as upstream counts them.
pub(super) fn i7_keys_stay_within_their_budget(place: &Place) {
    let mut by_key = HashMap::<String, Vec<_>>::new();
    for request in place.simulator.requests() {
        if let Some(key_id) = request.key_id {
            by_key.entry(key_id).or_default().push(request.at);
        }
    }
    let state = place.simulator.state();
    for (key_id, mut at) in by_key {
        let (_, key) = state.key(&key_id).unwrap();
        let limit = usize::try_from(key.hourly_limit.unwrap()).unwrap();
        at.sort();
        let mut first = 0;
        for (last, now) in at.iter().enumerate() {
            while *now - at[first] >= TimeDelta::hours(1) {
                first += 1;
            }
            let used = last + 1 - first;
            let most = limit - limit * RESERVE_PERCENT / 100;
            assert!(used <= most, "{key_id}: {used} of {limit} at {now}");
        }
    }
}

/// I9: private keys, tokens and master keys are in no log, no diary and no file of the database.
pub(super) fn i9_no_secret_was_written(place: &Place) {
    let master_keys = place.folder.join("master.key");
    let canaries = given::of(&place.simulator, &master_keys);
    let witness = &place.projects[0].0;
    let mut search = Search::new(&canaries, witness);
    search.through_folder("folder", place.folder.path(), |file| file == master_keys);
    let mut expected = vec![("folder", 3, 10 << 10, true)];
    if let Some(line) = &place.database {
        search.through_folder("database", &line.server.folder, |_| false);
        expected.push(("database", 100, 1 << 20, true));
    }
    if let Some(broker) = &place.broker {
        search.through_folder("broker", &broker.line.server.folder, |_| false);
        expected.push(("broker", 2, 1 << 10, true));
    }
    search.assert_clean(&expected);
}

/// I10: a worker takes no more of the machine in the end than once it had settled.
pub(super) fn i10_workers_do_not_grow(account: &Account) {
    for (settled, latest) in &account.footprints {
        let descriptors = settled.descriptors + MORE_DESCRIPTORS;
        assert!(latest.descriptors <= descriptors, "{settled:?} {latest:?}");
        let threads = settled.threads + MORE_THREADS;
        assert!(latest.threads <= threads, "{settled:?} {latest:?}");
        let bytes = settled.resident_bytes + MORE_BYTES;
        assert!(latest.resident_bytes <= bytes, "{settled:?} {latest:?}");
    }
}

/// Every change was published, in the order of its project. Gives how many were published more than once.
pub(super) fn every_change_was_published(changes: &[Logged], published: &[Published]) -> usize {
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
