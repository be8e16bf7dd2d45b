//! The host's door: rows that it inserts, and what it can read of the work list.

use std::collections::BTreeSet;

use catalog_sync::{
    run::Trigger,
    store::{Inbox, Old, Store},
};
use futures_util::future::join_all;

use super::{
    WORKER,
    prune::prune_all,
    raw::Raw,
    sample::{add, add_settled, at, finish, id, names, pending, take, take_one},
};

/// As the host does it. `at(0)` is 08:00:00.123 of this day.
async fn insert(raw: &mut Raw, project: &str, reason: Option<&str>, requested_at: &str) {
    let reason = reason.map_or_else(|| "null".to_owned(), |reason| format!("'{reason}'"));
    raw.run(&format!(
        "insert into sync_requests (project_id, reason, requested_at) values ('{project}', {reason}, '{requested_at}')"
    ))
    .await;
}

async fn refused(raw: &mut Raw) -> Vec<String> {
    raw.texts("select project_id || ': ' || why from refused_requests order by id")
        .await
}

pub(crate) async fn a_row_asks_for_its_project_and_goes(store: &dyn Store, raw: &mut Raw) {
    let acme = add_settled(store, "acme").await;
    let waits = async || store.look(at(1)).await.unwrap().inbox;
    assert!(!waits().await);
    raw.run("insert into sync_requests (project_id) values ('acme')")
        .await;
    assert!(waits().await);

    let inbox = store.take_inbox(9, at(1)).await.unwrap();

    let taken = Inbox {
        taken: 1,
        refused: vec![],
    };
    assert_eq!(inbox, taken);
    assert!(!waits().await);
    let request = pending(store, &acme).await.unwrap();
    assert_eq!((request.trigger, request.reason), (Trigger::Request, None));
    finish(store, &take_one(store, 1).await, 1).await;
    assert_eq!(store.take_inbox(9, at(1)).await.unwrap(), Inbox::default());
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn many_rows_of_a_project_are_one_request(store: &dyn Store, raw: &mut Raw) {
    let acme = add_settled(store, "acme").await;
    for (reason, requested_at) in [
        (Some("second"), "2027-01-15T07:30:00.000Z"),
        (Some("third"), "2027-01-15T07:40:00.000Z"),
        (None, "2027-01-15T07:20:00.000Z"),
    ] {
        insert(raw, "acme", reason, requested_at).await;
    }
    assert_eq!(store.take_inbox(9, at(0)).await.unwrap().taken, 3);

    let request = pending(store, &acme).await.unwrap();
    assert_eq!(request.requested_at, at(-40) - at_fraction());
    assert_eq!(request.reason.as_deref(), Some("second"));
    assert_eq!(request.ready_at, at(0));
    finish(store, &take_one(store, 0).await, 0).await;
    assert_eq!(pending(store, &acme).await, None);
}

/// What `at` has beyond the whole second.
fn at_fraction() -> chrono::TimeDelta {
    chrono::TimeDelta::milliseconds(123)
}

pub(crate) async fn an_instant_to_come_counts_as_now(store: &dyn Store, raw: &mut Raw) {
    let acme = add_settled(store, "acme").await;
    insert(raw, "acme", None, "2100-01-01T00:00:00.000Z").await;
    store.take_inbox(9, at(0)).await.unwrap();
    assert_eq!(pending(store, &acme).await.unwrap().requested_at, at(0));
}

pub(crate) async fn rows_that_name_no_project_are_put_aside_with_the_cause(
    store: &dyn Store,
    raw: &mut Raw,
) {
    let acme = add_settled(store, "acme").await;
    for name in ["ghost", "acme", "../etc", ""] {
        insert(raw, name, Some("price"), "2027-01-15T07:30:00.000Z").await;
    }

    let inbox = store.take_inbox(9, at(0)).await.unwrap();

    assert_eq!(inbox.taken, 4);
    let told: BTreeSet<&str> = inbox.refused.iter().map(|(name, _)| &**name).collect();
    assert_eq!(told, ["ghost", "../etc", ""].into());
    assert!(pending(store, &acme).await.is_some());
    let kept = refused(raw).await;
    assert_eq!(kept.len(), 3, "{kept:?}");
    for part in [
        "ghost: there is no project 'ghost'",
        "../etc: '../etc' cannot be a project id",
        ": '' cannot be a project id",
    ] {
        assert!(kept.iter().any(|row| row.starts_with(part)), "{kept:?}");
    }
    assert!(!store.look(at(0)).await.unwrap().inbox);
}

pub(crate) async fn no_more_rows_are_taken_than_wanted_the_oldest_first(
    store: &dyn Store,
    raw: &mut Raw,
) {
    for name in ["c", "a", "b"] {
        add_settled(store, name).await;
        insert(raw, name, None, "2027-01-15T07:30:00.000Z").await;
    }
    assert_eq!(store.take_inbox(2, at(0)).await.unwrap().taken, 2);
    assert_eq!(pending(store, &id("b")).await, None);
    assert!(store.look(at(0)).await.unwrap().inbox);
    assert_eq!(store.take_inbox(2, at(0)).await.unwrap().taken, 1);
    assert!(pending(store, &id("b")).await.is_some());
}

pub(crate) async fn takers_that_meet_take_each_row_once(store: &dyn Store, raw: &mut Raw) {
    add(store, "acme").await;
    for number in 0..40 {
        let name = if number % 2 == 0 { "acme" } else { "ghost" };
        insert(raw, name, None, "2027-01-15T07:30:00.000Z").await;
    }
    let taker = async || {
        let mut taken = 0;
        loop {
            match store.take_inbox(3, at(0)).await.unwrap().taken {
                0 => return taken,
                more => taken += more,
            }
        }
    };
    let rows: usize = join_all((0..8).map(|_| taker())).await.into_iter().sum();
    assert_eq!(rows + taker().await, 40);
    assert_eq!(refused(raw).await.len(), 20);
}

pub(crate) async fn odd_instants_do_no_harm(store: &dyn Store, raw: &mut Raw) {
    let odd: &[&str] = match raw {
        Raw::Sqlite(_) => &["yesterday", "", "5", "2027-01-15", "-0044-03-15T00:00:00Z"],
        Raw::Postgres(_) => &["infinity", "-infinity", "0044-03-15 BC", "294000-01-01"],
    };
    for (number, requested_at) in odd.iter().enumerate() {
        let acme = add_settled(store, &format!("acme-{number}")).await;
        insert(raw, acme.as_str(), Some("price"), requested_at).await;
        let inbox = store.take_inbox(9, at(0)).await.unwrap();
        assert_eq!((inbox.taken, inbox.refused), (1, vec![]), "{requested_at}");
        let request = pending(store, &acme).await.unwrap();
        assert!(request.requested_at <= at(0), "{requested_at}");
        finish(store, &take_one(store, 0).await, 0).await;
    }
}

pub(crate) async fn texts_that_are_none_hold_up_nothing(store: &dyn Store, raw: &mut Raw) {
    let acme = add_settled(store, "acme").await;
    let Raw::Sqlite(_) = raw else {
        return; // Postgres takes none.
    };
    raw.run(
        "insert into sync_requests (project_id, reason)
         values (cast(x'ff' as text), 'price'), ('acme', cast(x'fffe' as text))",
    )
    .await;
    let inbox = store.take_inbox(9, at(0)).await.unwrap();
    assert_eq!(inbox.taken, 2);
    assert_eq!(refused(raw).await.len(), 1);
    assert_eq!(pending(store, &acme).await.unwrap().reason, None);
}

pub(crate) async fn a_row_during_a_run_causes_another(store: &dyn Store, raw: &mut Raw) {
    let acme = add(store, "acme").await;
    let claim = take_one(store, 0).await;
    insert(raw, "acme", None, "2027-01-15T08:00:01.000Z").await;
    store.take_inbox(9, at(0)).await.unwrap();
    finish(store, &claim, 0).await;
    finish(store, &take_one(store, 1).await, 1).await;
    assert_eq!(pending(store, &acme).await, None);
}

pub(crate) async fn what_was_put_aside_is_forgotten_in_time(store: &dyn Store, raw: &mut Raw) {
    for minute in [0, 10] {
        insert(raw, "ghost", None, "2027-01-15T07:30:00.000Z").await;
        store.take_inbox(9, at(minute)).await.unwrap();
    }
    assert_eq!(prune_all(store, Old::Requests, at(10)).await, 1);
    assert_eq!(refused(raw).await.len(), 1);
    assert_eq!(prune_all(store, Old::Requests, at(10)).await, 0);
}

const PENDING: &str =
        "select project_id || ' ' || trigger || ' ' || reason || ' ' || case when running then 'runs' else 'waits' end
         from pending_syncs";

const LEASED: &str = "select leased_by from project_status where leased_until is not null";

const ASIDE: &str = "select project_id from project_status where set_aside_at is not null";

pub(crate) async fn the_host_can_read_what_waits_and_what_runs(store: &dyn Store, raw: &mut Raw) {
    add(store, "a").await;
    insert(raw, "a", Some("price"), "2027-01-15T07:30:00.000Z").await;
    store.take_inbox(9, at(0)).await.unwrap();
    assert_eq!(raw.texts(PENDING).await, ["a request price waits"]);
    let claim = take_one(store, 0).await;
    assert_eq!(raw.texts(PENDING).await, ["a request price runs"]);
    assert_eq!(raw.texts(LEASED).await, [WORKER]);
    finish(store, &claim, 0).await;
    assert_eq!(raw.texts(PENDING).await, [""; 0]);
    assert_eq!(raw.texts(LEASED).await, [""; 0]);
}

pub(crate) async fn the_host_can_read_what_is_set_aside(store: &dyn Store, raw: &mut Raw) {
    add(store, "acme").await;
    for minute in 0..3 {
        take_one(store, minute).await;
        assert_eq!(raw.texts(ASIDE).await, [""; 0]);
    }
    assert!(names(&take(store, 9, at(3)).await).is_empty());
    assert_eq!(raw.texts(ASIDE).await, ["acme"]);
}
