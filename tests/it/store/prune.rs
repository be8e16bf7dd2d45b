//! What is deleted for good, and what never is.

use catalog_sync::{
    catalog::Kind,
    clock::Instant,
    project::ProjectId,
    store::{Mark, Old, SinkLease, Store},
};
use chrono::SecondsFormat;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    raw::Raw,
    sample::{
        TTL, add, add_settled, at, claim, coins, grace_period, group, history, subscription, sync,
    },
};

/// In minutes.
pub(crate) const DAY: i64 = 24 * 60;

/// So many days into the story.
pub(crate) fn day(number: i64) -> Instant {
    at(number * DAY)
}

/// Goes through a table, three rows at a time, years later. Gives how many rows went.
pub(crate) async fn prune_all(store: &dyn Store, old: Old, before: Instant) -> u64 {
    let (mut mark, mut deleted) = (Mark::Start, 0);
    loop {
        let pruned = store.prune(old, before, &mark, 3, day(3650)).await.unwrap();
        assert!(pruned.deleted <= 3);
        deleted += pruned.deleted;
        if pruned.is_done {
            return deleted;
        }
        mark = pruned.mark;
    }
}

/// What stands of a project in `entries`, with a sign for what was removed.
async fn entries(raw: &mut Raw) -> Vec<String> {
    raw.texts(
        "select case when removed_at is null then '' else '-' end || store_id from entries order by store_id",
    )
    .await
}

/// Days, kinds of change and ids, the oldest first.
async fn log(store: &dyn Store, id: &ProjectId) -> Vec<String> {
    let lines = history(store, id).await.into_iter().rev();
    lines
        .map(|line| {
            let days = (line.at - day(0)).num_days();
            format!("{days} {} {}", line.op, line.store_id)
        })
        .collect()
}

async fn log_is_whole_since(raw: &mut Raw, id: &ProjectId) -> Vec<String> {
    let texts = (0..100).map(|number| {
        let text = day(number).to_rfc3339_opts(SecondsFormat::Millis, true);
        format!("when log_since = '{text}' then 'day {number}'")
    });
    let cases: Vec<String> = texts.collect();
    raw.texts(&format!(
        "select case when log_since is null then 'ever' {} else '?' end from project_state where project_id = '{id}'",
        cases.join(" ")
    ))
    .await
}

async fn count(raw: &mut Raw, table: &str) -> usize {
    raw.texts(&format!("select 'row' from {table}")).await.len()
}

pub(crate) async fn what_was_removed_long_ago_is_deleted_for_good(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, ["1", "2", "3"].map(coins)).await;
    sync(store, &acme, 10 * DAY, ["2", "3"].map(coins)).await;
    sync(store, &acme, 11 * DAY, [coins("3")]).await;
    assert_eq!(entries(raw).await, ["-1", "-2", "3"]);

    assert_eq!(prune_all(store, Old::Entries, at(10 * DAY - 1)).await, 0);
    assert_eq!(prune_all(store, Old::Entries, day(10)).await, 1);
    assert_eq!(entries(raw).await, ["-2", "3"]);
    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 1);
    assert_eq!(entries(raw).await, ["3"]);

    sync(store, &acme, 100 * DAY, ["1", "3"].map(coins)).await;
    let back = history(store, &acme).await.remove(0);
    assert_eq!((back.op.as_str(), back.store_id.as_str()), ("added", "1"));
}

pub(crate) async fn nothing_is_deleted_that_was_removed_within_30_days(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, ["1", "2"].map(coins)).await;
    sync(store, &acme, DAY, [coins("2")]).await;
    // Whatever it is asked to do.
    for (now, left) in [(at(31 * DAY - 1), 2), (day(31), 1)] {
        for before in [now, day(3650)] {
            let pruned = store.prune(Old::Entries, before, &Mark::Start, 9, now);
            pruned.await.unwrap();
        }
        assert_eq!(count(raw, "entries").await, left);
    }
}

pub(crate) async fn an_entry_that_returned_is_left_alone(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, ["1", "2"].map(coins)).await;
    sync(store, &acme, DAY, [coins("2")]).await;
    sync(store, &acme, 2 * DAY, ["1", "2"].map(coins)).await;
    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 0);
    assert_eq!(entries(raw).await, ["1", "2"]);
    let shelf = store.load_catalog(&acme).await.unwrap();
    assert_eq!(shelf.count(Kind::InAppPurchase), 2);
}

pub(crate) async fn no_more_rows_are_looked_at_than_wanted(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    let ids = ["1", "2", "3", "4", "5", "6"];
    sync(store, &acme, 0, ids.map(coins)).await;
    sync(
        store,
        &acme,
        DAY,
        ids.map(|id| coins(id).with("name", "New")),
    )
    .await;
    sync(store, &acme, 2 * DAY, [coins("6")]).await;

    let (mut mark, mut pages) = (Mark::Start, Vec::new());
    loop {
        let pruned = store.prune(Old::Changes, day(99), &mark, 4, day(99));
        let pruned = pruned.await.unwrap();
        pages.push((pruned.deleted, pruned.is_done));
        mark = pruned.mark;
        if pruned.is_done {
            break;
        }
    }
    // 6 were added, 6 changed, and of 6 more 5 removed: four pages of four, and two left.
    let expected = [(4, false), (4, false), (4, false), (0, false), (0, true)];
    assert_eq!(pages, expected);
    let again = store.prune(Old::Changes, day(99), &mark, 4, day(99));
    assert_eq!(again.await.unwrap().mark, mark);

    let mut pages = Vec::new();
    for _ in 0..3 {
        let pruned = store.prune(Old::Entries, day(99), &Mark::Start, 2, day(99));
        let pruned = pruned.await.unwrap();
        pages.push((pruned.deleted, pruned.is_done));
    }
    assert_eq!(pages, [(2, false), (2, false), (1, true)]);
    assert_eq!(entries(raw).await, ["6"]);
}

pub(crate) async fn a_change_goes_once_another_has_overwritten_it_before_the_cutoff(
    store: &dyn Store,
    _: &mut Raw,
) {
    let acme = add(store, "acme").await;
    let named = |name: &str| [coins("1").with("name", name), coins("2")];
    sync(store, &acme, 0, named("A")).await;
    sync(store, &acme, 10 * DAY, named("B")).await;
    sync(store, &acme, 20 * DAY, named("C")).await;
    let all = ["0 added 1", "0 added 2", "10 updated 1", "20 updated 1"];

    assert_eq!(prune_all(store, Old::Changes, day(10)).await, 0);
    assert_eq!(log(store, &acme).await, all);
    assert_eq!(prune_all(store, Old::Changes, at(10 * DAY + 1)).await, 1);
    assert_eq!(log(store, &acme).await, all[1..]);
    assert_eq!(prune_all(store, Old::Changes, day(20)).await, 0);
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 1);
    assert_eq!(log(store, &acme).await, [all[1], all[3]]);
}

pub(crate) async fn the_log_is_whole_since_the_latest_cutoff(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    let other = add_settled(store, "other").await;
    for (number, name) in (0..5).zip(["A", "B", "C", "D", "E"]) {
        sync(store, &acme, number * DAY, [coins("1").with("name", name)]).await;
    }
    sync(store, &other, 0, [coins("1")]).await;
    assert_eq!(log_is_whole_since(raw, &acme).await, ["ever"]);
    prune_all(store, Old::Changes, day(0)).await;
    assert_eq!(log_is_whole_since(raw, &acme).await, ["ever"]);
    prune_all(store, Old::Changes, day(3)).await;
    assert_eq!(log_is_whole_since(raw, &acme).await, ["day 3"]);
    // Nothing is lost that a later cutoff has not told of.
    raw.run(
        "update project_state set log_since = '2028-01-01T00:00:00.000Z' where project_id = 'acme'",
    )
    .await;
    assert_eq!(prune_all(store, Old::Changes, day(4)).await, 1);
    assert_eq!(log_is_whole_since(raw, &acme).await, ["?"]);
    assert_eq!(log_is_whole_since(raw, &other).await, ["ever"]);
}

pub(crate) async fn what_a_broker_is_still_to_be_told_stays(store: &dyn Store, _: &mut Raw) {
    let acme = add(store, "acme").await;
    let named = |name: &str| [coins("1").with("name", name)];
    sync(store, &acme, 0, named("A")).await;
    sync(store, &acme, DAY, named("B")).await;
    store.name_sinks(&["nats"], day(0), day(1)).await.unwrap();
    sync(store, &acme, 2 * DAY, named("C")).await;
    sync(store, &acme, 3 * DAY, named("D")).await;

    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 2);
    let untold = store.read_untold("nats", 9).await.unwrap();
    assert_eq!(untold.len(), 2);
    assert_eq!(
        log(store, &acme).await,
        ["2 updated 1", "3 updated 1"],
        "what is to be told"
    );

    let lease = SinkLease {
        sink: "nats".to_owned(),
        token: Uuid::now_v7(),
    };
    assert!(store.hold_sink(&lease, TTL, day(4)).await.unwrap());
    assert!(store.told(&lease, &untold).await.unwrap());
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 1);
    assert_eq!(log(store, &acme).await, ["3 updated 1"]);
}

pub(crate) async fn changes_of_the_grace_period_are_kept_for_ever(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add(store, "acme").await;
    let of = |duration: &str| [grace_period().with("duration", duration)];
    sync(store, &acme, 0, of("THREE_DAYS")).await;
    sync(store, &acme, DAY, of("SIXTEEN_DAYS")).await;
    sync(store, &acme, 2 * DAY, []).await;
    raw.run("delete from entries").await;
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 0);
    assert_eq!(history(store, &acme).await.len(), 3);
}

pub(crate) async fn the_removal_of_what_is_gone_for_good_goes_too(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, ["1", "2", "3"].map(coins)).await;
    sync(store, &acme, DAY, ["1"].map(coins)).await;
    assert_eq!(prune_all(store, Old::Changes, day(2)).await, 2);
    let left = ["0 added 1", "1 removed 2", "1 removed 3"];
    assert_eq!(log(store, &acme).await, left, "they are remembered");

    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 2);
    sync(store, &acme, 40 * DAY, ["1", "3"].map(coins)).await;
    assert_eq!(prune_all(store, Old::Changes, day(1)).await, 0);
    assert_eq!(prune_all(store, Old::Changes, day(30)).await, 1);
    let left = ["0 added 1", "1 removed 3", "40 added 3"];
    assert_eq!(log(store, &acme).await, left, "until then it was not there");
    assert_eq!(log_is_whole_since(raw, &acme).await, ["day 30"]);
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 1);
    assert_eq!(log(store, &acme).await, [left[0], left[2]]);
}

pub(crate) async fn a_removal_goes_after_what_it_removed(store: &dyn Store, _: &mut Raw) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, ["1", "2"].map(coins)).await;
    sync(store, &acme, DAY, [coins("1")]).await;
    sync(store, &acme, 2 * DAY, [coins("1"), coins("3")]).await;
    prune_all(store, Old::Entries, day(99)).await;
    let all = ["0 added 1", "1 removed 2", "2 added 3"];
    // By itself, the first would tell that it is there.
    for left in [&all[..], &[all[0], all[2]]] {
        let pruned = store.prune(Old::Changes, day(99), &Mark::Start, 9, day(99));
        assert_eq!(pruned.await.unwrap().deleted, 1);
        assert_eq!(log(store, &acme).await, left);
    }
}

pub(crate) async fn what_a_run_under_way_has_loaded_stays(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    let other = add(store, "other").await;
    for id in [&acme, &other] {
        sync(store, id, 0, ["1", "2"].map(coins)).await;
        sync(store, id, DAY, [coins("1")]).await;
        sync(store, id, 2 * DAY, [coins("1"), coins("3")]).await;
    }
    let pass = async |now: Instant| {
        let mut deleted = [0, 0];
        for _ in 0..2 {
            for (old, deleted) in [Old::Entries, Old::Changes].into_iter().zip(&mut deleted) {
                let pruned = store.prune(old, day(60), &Mark::Start, 99, now).await;
                *deleted += pruned.unwrap().deleted;
            }
        }
        deleted
    };
    let everything = async |raw: &mut Raw| {
        raw.texts("select store_id || coalesce(op, '') from changes where project_id = 'acme' order by seq")
            .await
    };
    let before = everything(raw).await;
    let lease = claim(store, &acme, 99 * DAY).await;
    assert_eq!(pass(day(99)).await, [1, 2], "what the other had");
    assert_eq!(everything(raw).await, before);
    let lease = store.renew(&lease, TTL, at(99 * DAY + 1)).await.unwrap();
    assert_eq!(pass(at(99 * DAY + 1)).await, [0, 0]);
    assert_eq!(count(raw, "entries").await, 3 + 2);

    store.release(&lease).await.unwrap();
    assert_eq!(pass(at(99 * DAY + 1)).await, [1, 2]);

    // A lease that ran out is nobody's.
    sync(store, &acme, 100 * DAY, [coins("1")]).await;
    sync(store, &acme, 101 * DAY, [coins("1"), coins("4")]).await;
    let lease = claim(store, &acme, 200 * DAY).await;
    let until = lease.until;
    for (now, gone) in [(until - TTL / 2, 0), (until, 1)] {
        let pruned = store.prune(Old::Entries, day(150), &Mark::Start, 9, now);
        assert_eq!(pruned.await.unwrap().deleted, gone);
    }
}

pub(crate) async fn old_runs_go_but_for_a_projects_latest(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    let other = add(store, "other").await;
    for number in 0..5 {
        sync(store, &acme, number * DAY, [coins("1")]).await;
    }
    sync(store, &other, 0, []).await;
    let epochs = async |id| -> Vec<i64> {
        let runs = store.read_runs(id, 9).await.unwrap();
        runs.iter().map(|run| run.epoch).collect()
    };
    assert_eq!(prune_all(store, Old::Runs, day(2)).await, 2);
    assert_eq!(epochs(&acme).await, [5, 4, 3]);
    assert_eq!(prune_all(store, Old::Runs, day(99)).await, 2);
    assert_eq!(epochs(&acme).await, [5]);
    assert_eq!(epochs(&other).await, [1]);
    // By the clock, another would be the latest.
    sync(store, &acme, 10 * DAY, []).await;
    sync(store, &acme, 9 * DAY, []).await;
    prune_all(store, Old::Runs, day(99)).await;
    assert_eq!(epochs(&acme).await, [7]);
    assert_eq!(count(raw, "runs").await, 2);
}

pub(crate) async fn runs_that_ended_at_once_are_looked_at_page_by_page(
    store: &dyn Store,
    raw: &mut Raw,
) {
    // The first of each can go and the second cannot, whatever the page that it is on.
    for number in 0..7 {
        let id = add(store, &format!("p{number}")).await;
        sync(store, &id, 0, []).await;
        sync(store, &id, 0, []).await;
    }
    let (mut mark, mut pages) = (Mark::Start, 0);
    loop {
        let pruned = store.prune(Old::Runs, day(1), &mark, 2, day(1)).await;
        let pruned = pruned.unwrap();
        pages += 1;
        mark = pruned.mark;
        if pruned.is_done {
            break;
        }
    }
    assert_eq!(pages, 8);
    assert_eq!(count(raw, "runs").await, 7);
}

pub(crate) async fn holds_go_once_they_ended_long_ago(store: &dyn Store, raw: &mut Raw) {
    for name in ["a", "b"] {
        add(store, name).await;
    }
    let instant = |number| day(number).to_rfc3339_opts(SecondsFormat::Millis, true);
    let holds = [
        ("a", None),
        ("b", Some(1)),
        ("b", Some(9)),
        ("b", Some(2)),
        ("b", Some(3)),
    ];
    for (project, ended) in holds {
        let ended = ended.map_or("null".to_owned(), |number| format!("'{}'", instant(number)));
        raw.run(&format!(
            "insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at, ended_at)
             values ('{project}', '0123456789ab', 'why', '[]', '[]', 1, '{}', {ended})",
            instant(0)
        ))
        .await;
    }
    let left = async |raw: &mut Raw| {
        raw.texts("select cast(id as text) from removal_holds order by id")
            .await
    };
    assert_eq!(prune_all(store, Old::Holds, day(3)).await, 2);
    assert_eq!(left(raw).await, ["1", "3", "5"]);
    assert_eq!(prune_all(store, Old::Holds, day(99)).await, 2);
    assert_eq!(left(raw).await, ["1"]);
}

pub(crate) async fn workers_that_meet_delete_everything_once(store: &dyn Store, raw: &mut Raw) {
    let ids: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for name in ["a", "b", "c"] {
        let id = add(store, name).await;
        sync(store, &id, 0, ids.iter().map(|id| coins(id))).await;
        sync(store, &id, 1, [coins("00")]).await;
        sync(store, &id, 2, [coins("00").with("name", "New")]).await;
    }
    for (old, table, expected) in [
        (Old::Entries, "entries", 3 * 39),
        // All but the latest of what is there.
        (Old::Changes, "changes", 3 * (39 * 2 + 1)),
        (Old::Runs, "runs", 3 * 2),
    ] {
        let rows = count(raw, table).await;
        let workers = (0..8).map(|_| prune_all(store, old, day(99)));
        let mut deleted: u64 = join_all(workers).await.into_iter().sum();
        // What one had locked, another left out; and a removal waits for what it removed.
        for _ in 0..2 {
            deleted += prune_all(store, old, day(99)).await;
        }
        assert_eq!(deleted, expected, "{table}");
        let left = rows - usize::try_from(expected).unwrap();
        assert_eq!(count(raw, table).await, left, "{table}");
    }
}

pub(crate) async fn what_is_locked_is_left_for_later(store: &dyn Store, raw: &mut Raw) {
    let Raw::Postgres(_) = raw else {
        return; // A file has one writer.
    };
    for name in ["a", "b"] {
        let id = add(store, name).await;
        sync(store, &id, 0, ["1", "2"].map(coins)).await;
        let new = coins("1").with("name", "New");
        sync(store, &id, 1, [new.clone()]).await;
        sync(store, &id, 2, [new, coins("3")]).await;
    }
    raw.run("begin; select 1 from project_state where project_id = 'a' for update")
        .await;
    assert_eq!(prune_all(store, Old::Changes, day(99)).await, 2);
    raw.run("commit; begin; select 1 from entries where project_id = 'b' for update")
        .await;
    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 1);
    raw.run("commit").await;
    assert_eq!(prune_all(store, Old::Entries, day(99)).await, 1);
    // The one that was left, and what is gone for good now.
    let first = prune_all(store, Old::Changes, day(99)).await;
    let second = prune_all(store, Old::Changes, day(99)).await;
    assert_eq!(first + second, 2 + 2);
}

pub(crate) async fn projects_that_are_removed_meanwhile_do_no_harm(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let mut projects = Vec::new();
    for number in 0..10 {
        let id = add(store, &format!("p{number}")).await;
        for (minute, name) in (0..).zip(["A", "B", "C", "D"]) {
            let pro = [group("7", name), subscription("8", "7").with("name", name)];
            sync(store, &id, minute, pro).await;
        }
        projects.push(id);
    }
    let pruning = async {
        for old in Old::ALL {
            prune_all(store, old, day(99)).await;
        }
    };
    let removing = async {
        for id in &projects {
            store.remove_project(id).await.unwrap();
        }
    };
    tokio::join!(pruning, removing);
    for table in ["changes", "runs", "entries"] {
        assert_eq!(count(raw, table).await, 0);
    }
}
