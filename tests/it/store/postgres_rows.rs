//! What only Postgres can do: several transactions at once, rows that one of them has locked, and telling who listens.

use std::{pin::pin, time::Duration};

use catalog_sync::{
    catalog::Plan,
    run::Run,
    store::{self, Aftermath, Claim, Error, Options},
};
use futures_util::{FutureExt as _, future::join};
use serde_json::Value;
use sqlx::postgres::PgListener;
use uuid::Uuid;

use super::{
    Fresh, fresh_postgres,
    outbox::{hold, read},
    raw::Raw,
    sample::{
        add, add_settled, add_with_key, ask, at, coins, finish, history, id, names, pending, run,
        sync, take, take_one,
    },
};
use crate::postgres;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_mins(1);

async fn fresh() -> (Fresh<postgres::Database>, Raw) {
    let fresh = fresh_postgres().await;
    let raw = Raw::connect(&fresh.url).await;
    (fresh, raw)
}

/// Asks until there is an answer.
async fn until_some(raw: &mut Raw, query: &str) -> Vec<String> {
    let asking = async {
        loop {
            let rows = raw.texts(query).await;
            if !rows.is_empty() {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

const LISTENERS: &str = "select pid::text from pg_stat_activity
     where datname = current_database() and query ilike 'listen%' and state = 'idle'";

const WAITERS: &str = "select pid::text from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'";

#[tokio::test]
async fn a_project_whose_row_is_locked_is_passed_by() {
    let (fresh, mut raw) = fresh().await;
    for name in ["a", "b"] {
        add_with_key(&*fresh.store, name, name).await;
    }
    raw.run("begin; select 1 from project_state where project_id = 'a' for update")
        .await;
    assert_eq!(names(&take(&*fresh.store, 9, at(0)).await), ["b"]);
    raw.run("rollback").await;
    assert_eq!(names(&take(&*fresh.store, 9, at(0)).await), ["a"]);
}

/// Ends of runs that are written together: one whose row is locked does not take the others with it.
#[tokio::test]
async fn a_row_that_is_locked_holds_up_its_own_run_alone() {
    let (fresh, mut raw) = fresh().await;
    let options = Options {
        gather: Duration::from_secs(1),
        lock_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let store = store::open(&fresh.url, &options).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        add_with_key(&*store, name, name).await;
    }
    let claims = take(&*store, 9, at(0)).await.claims;
    let plan = Plan::nothing();
    let run = run(&plan, 1);
    let end = |claim: &Claim| {
        let (lease, run) = (
            claim.lease.clone(),
            Run {
                id: Uuid::now_v7(),
                ..run.clone()
            },
        );
        let (store, plan) = (&store, &plan);
        async move {
            store
                .commit(&lease, plan, &run, &Aftermath::default())
                .await
        }
    };
    // The next ones wait for each other after this.
    end(&claims[0]).await.unwrap();
    raw.run("begin; select 1 from project_state where project_id = 'b' for update")
        .await;
    let (locked, one, other) = tokio::join!(end(&claims[1]), end(&claims[2]), end(&claims[3]));
    assert!(matches!(locked, Err(Error::Unavailable(_))), "{locked:?}");
    one.unwrap();
    other.unwrap();
    raw.run("rollback").await;
    end(&claims[1]).await.unwrap();
    let again = end(&claims[2]).await;
    assert!(matches!(again, Err(Error::LeaseLost { .. })), "{again:?}");
}

#[tokio::test]
async fn a_key_whose_row_is_locked_is_passed_by() {
    let (fresh, mut raw) = fresh().await;
    for (name, key_id) in [("a", "shared"), ("b", "shared"), ("c", "other")] {
        add_with_key(&*fresh.store, name, key_id).await;
    }
    raw.run("begin; select 1 from key_usage where key_id = 'shared' for update")
        .await;
    assert_eq!(names(&take(&*fresh.store, 9, at(0)).await), ["c"]);
    raw.run("rollback").await;
    assert_eq!(take(&*fresh.store, 9, at(0)).await.claims.len(), 1);
}

#[tokio::test]
async fn a_row_that_is_not_committed_yet_is_neither_seen_nor_waited_for() {
    let (fresh, mut raw) = fresh().await;
    let acme = add_settled(&*fresh.store, "acme").await;
    let other = add_settled(&*fresh.store, "other").await;
    raw.run("begin; insert into sync_requests (project_id, reason) values ('acme', 'price')")
        .await;
    let mut second = Raw::connect(&fresh.url).await;
    second
        .run("insert into sync_requests (project_id) values ('other')")
        .await;

    assert_eq!(fresh.store.take_inbox(9, at(0)).await.unwrap().taken, 1);
    assert!(pending(&*fresh.store, &other).await.is_some());
    assert!(!fresh.store.look(at(0)).await.unwrap().inbox);

    raw.run("commit").await;
    assert!(fresh.store.look(at(0)).await.unwrap().inbox);
    assert_eq!(fresh.store.take_inbox(9, at(0)).await.unwrap().taken, 1);
    let request = pending(&*fresh.store, &acme).await.unwrap();
    assert_eq!(request.reason.as_deref(), Some("price"));
}

#[tokio::test]
async fn who_waits_is_woken_when_the_host_commits() {
    let (fresh, mut raw) = fresh().await;
    for _ in 0..2 {
        let mut waiting = pin!(fresh.store.await_inbox());
        assert!(waiting.as_mut().now_or_never().is_none());
        let insert = async {
            until_some(&mut raw, LISTENERS).await;
            raw.run("begin; insert into sync_requests (project_id) values ('acme')")
                .await;
            raw.run("commit").await;
        };
        let (woken, ()) = join(tokio::time::timeout(PATIENCE, &mut waiting), insert).await;
        woken.unwrap().unwrap();
    }
    assert_eq!(fresh.store.take_inbox(9, at(0)).await.unwrap().taken, 2);
}

#[tokio::test]
async fn who_waits_is_not_woken_by_what_the_host_takes_back() {
    let (fresh, mut raw) = fresh().await;
    let mut waiting = pin!(fresh.store.await_inbox());
    assert!(waiting.as_mut().now_or_never().is_none());
    let take_back = async {
        until_some(&mut raw, LISTENERS).await;
        raw.run("begin; insert into sync_requests (project_id) values ('acme'); rollback")
            .await;
    };
    // The wait goes on beside it, and is not over first.
    tokio::select! {
        biased;
        woken = &mut waiting => panic!("{woken:?}"),
        () = take_back => {}
    }
    raw.run("insert into sync_requests (project_id) values ('acme')")
        .await;
    let woken = tokio::time::timeout(PATIENCE, waiting).await;
    woken.unwrap().unwrap();
    assert_eq!(fresh.store.take_inbox(9, at(0)).await.unwrap().taken, 1);
}

#[tokio::test]
async fn a_lost_connection_ends_the_wait_and_the_next_has_another() {
    let (fresh, mut raw) = fresh().await;
    let waiting = fresh.store.await_inbox();
    let end = async {
        let listeners = until_some(&mut raw, LISTENERS).await;
        raw.run(&format!("select pg_terminate_backend({})", listeners[0]))
            .await;
        listeners
    };
    let (ended, listeners) = join(tokio::time::timeout(PATIENCE, waiting), end).await;
    // An error or not: whoever waited looks, which finds what may have been missed.
    drop(ended.unwrap());

    let gone = listeners[0].clone();
    let insert = async {
        until_some(&mut raw, &format!("{LISTENERS} and pid <> {gone}")).await;
        raw.run("insert into sync_requests (project_id) values ('acme')")
            .await;
    };
    let next = tokio::time::timeout(PATIENCE, fresh.store.await_inbox());
    let (woken, ()) = join(next, insert).await;
    woken.unwrap().unwrap();
    // The pool's connections may have been lost too.
    assert_eq!(fresh.store.take_inbox(9, at(0)).await.unwrap().taken, 1);
}

#[tokio::test]
async fn the_store_works_again_after_its_connections_were_cut() {
    let (fresh, mut raw) = fresh().await;
    add(&*fresh.store, "acme").await;
    raw.run(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    let recovered = async {
        loop {
            if let Ok(sight) = fresh.store.look(at(0)).await {
                return sight;
            }
        }
    };
    let sight = tokio::time::timeout(PATIENCE, recovered).await.unwrap();
    assert!(sight.ready);
    finish(&*fresh.store, &take_one(&*fresh.store, 0).await, 0).await;
}

#[tokio::test]
async fn listeners_are_told_of_each_commit_with_changes() {
    let (fresh, _) = fresh().await;
    let acme = add(&*fresh.store, "acme").await;
    let mut listener = PgListener::connect(&fresh.url).await.unwrap();
    listener.listen("catalog_sync_changes").await.unwrap();
    sync(&*fresh.store, &acme, 0, [coins("1")]).await;
    sync(&*fresh.store, &acme, 1, [coins("1")]).await;
    sync(&*fresh.store, &acme, 2, [coins("1"), coins("2")]).await;

    for revision in 1..=2 {
        let told = tokio::time::timeout(PATIENCE, listener.recv()).await;
        let note: Value = serde_json::from_str(told.unwrap().unwrap().payload()).unwrap();
        assert_eq!(note["version"], 1);
        assert_eq!(note["project"], "acme");
        assert_eq!(note["revision"], revision);
        // What is told of has been committed.
        let log = history(&*fresh.store, &acme).await;
        let change = log.iter().find(|change| change.revision == revision);
        assert_eq!(note["run_id"], change.unwrap().run_id.to_string());
    }
}

/// Two projects' commits may end in another order than they were given their numbers.
#[tokio::test]
async fn a_change_that_is_committed_while_a_broker_is_told_is_not_lost() {
    let (fresh, mut raw) = fresh().await;
    let store = &*fresh.store;
    let slow = add_with_key(store, "slow", "A").await;
    let quick = add_with_key(store, "quick", "B").await;
    sync(store, &slow, 0, [coins("1")]).await;
    store.name_sinks(&["queue"], at(-9), at(0)).await.unwrap();
    raw.run(
        "begin;
         insert into outbox (sink, project_id, revision, after_seq) values ('queue', 'slow', 1, 0)",
    )
    .await;
    sync(store, &quick, 1, [coins("2")]).await;
    let untold = read(store, "queue").await;
    assert_eq!(untold[0].project, quick);

    raw.run("commit").await;
    let right = hold(store, "queue").await;
    assert!(store.told(&right, &untold).await.unwrap());

    let rest = read(store, "queue").await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].project, slow);
}

#[tokio::test]
async fn a_broker_that_is_forgotten_meanwhile_does_not_spoil_a_commit() {
    let (fresh, mut raw) = fresh().await;
    let store = &*fresh.store;
    let acme = add(store, "acme").await;
    store
        .name_sinks(&["stays", "goes"], at(-9), at(0))
        .await
        .unwrap();
    raw.run("begin; delete from sinks where name = 'goes'")
        .await;
    let commit = sync(store, &acme, 0, [coins("1")]);
    let forget = async {
        until_some(&mut Raw::connect(&fresh.url).await, WAITERS).await;
        raw.run("commit").await;
    };
    let (committed, ()) = join(commit, forget).await;
    assert_eq!(committed.revision, 1);
    assert_eq!(read(store, "stays").await.len(), 1);
}

/// As when one worker removes a key's last project while another adds one with the same key.
#[tokio::test]
async fn a_key_that_another_project_begins_to_use_is_not_forgotten() {
    let (fresh, mut raw) = fresh().await;
    let store = &*fresh.store;
    let first = add_with_key(store, "first", "shared").await;
    add_with_key(store, "second", "other").await;
    raw.run(
        "begin;
         update api_keys set key_id = 'shared' where project_id = 'second';
         insert into key_usage (key_id) values ('shared') on conflict (key_id) do update set key_id = excluded.key_id",
    )
    .await;
    let begin_to_use = async {
        until_some(&mut Raw::connect(&fresh.url).await, WAITERS).await;
        raw.run("commit").await;
    };
    let (removed, ()) = join(store.remove_project(&first), begin_to_use).await;
    removed.unwrap();

    ask(store, &id("second"), at(0)).await;
    finish(store, &take_one(store, 0).await, 0).await;
}
