//! Opening, migrating, and what goes wrong with either; and rows that no version of ours wrote.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use catalog_sync::store::{self, Error, HistoryFilter, Options, Removed, Schema, Store};
use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::{
    fresh_postgres, fresh_sqlite, open_migrated,
    sample::{add, at, claim, coins, everything, grace_period, id, sync},
};
use crate::postgres;

/// Too short to wait for, and long enough to ask.
fn impatient() -> Options {
    Options {
        busy_timeout: Duration::from_millis(1),
        ..Options::default()
    }
}

fn url_of(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

async fn open_error(url: &str) -> Error {
    match store::open(url, &impatient()).await {
        Ok(_) => panic!("{url} opened"),
        Err(error) => error,
    }
}

/// The message of [`Error::Unusable`], each part of which must be in it.
fn unusable(error: &Error, parts: &[&str]) {
    assert!(matches!(error, Error::Unusable(_)), "{error:?}");
    holds(error, parts);
}

fn unavailable(error: &Error, parts: &[&str]) {
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    holds(error, parts);
}

fn holds(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

async fn migrates_an_empty_database_once(url: &str) {
    let store = store::open(url, &Options::default()).await.unwrap();
    let known = store.schema().await.unwrap().known;
    let empty = Schema { applied: 0, known };
    let full = Schema {
        applied: known,
        known,
    };
    assert!(known >= 1);
    assert_eq!(store.schema().await.unwrap(), empty);
    assert_eq!(store.migrate().await.unwrap(), empty);
    assert_eq!(store.schema().await.unwrap(), full);
    let acme = add(&*store, "acme").await;
    sync(&*store, &acme, 0, [coins("1")]).await;
    let before = everything(&*store, &acme).await;

    assert_eq!(store.migrate().await.unwrap(), full);
    let again = open_migrated(url).await;
    assert_eq!(everything(&*again, &acme).await, before);
}

#[tokio::test]
async fn sqlite_migrates_an_empty_database_once() {
    let folder = tempfile::tempdir().unwrap();
    migrates_an_empty_database_once(&url_of(&folder.path().join("new.db"))).await;
}

#[tokio::test]
async fn postgres_migrates_an_empty_database_once() {
    let database = postgres::empty_database().await;
    migrates_an_empty_database_once(database.url()).await;
}

async fn migrators_that_meet_take_turns(url: &str) {
    let stores =
        join_all((0..4).map(|_| async { store::open(url, &Options::default()).await.unwrap() }))
            .await;
    let before = join_all(stores.iter().map(|store| store.migrate())).await;
    let applied: Vec<i64> = before
        .into_iter()
        .map(|schema| schema.unwrap().applied)
        .collect();
    let first = applied.iter().filter(|applied| **applied == 0).count();
    assert_eq!(first, 1, "{applied:?}");
}

#[tokio::test]
async fn sqlite_migrators_that_meet_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    migrators_that_meet_take_turns(&url_of(&folder.path().join("new.db"))).await;
}

#[tokio::test]
async fn postgres_migrators_that_meet_take_turns() {
    let database = postgres::empty_database().await;
    migrators_that_meet_take_turns(database.url()).await;
}

const NEWER: &str =
    "insert into catalog_sync_migrations (version, description, success, checksum, execution_time)
     values (1000, 'of the future', true, '', 0)";

async fn refuses_a_newer_schema(store: &dyn Store, url: &str) {
    let schema = store.schema().await.unwrap();
    assert_eq!(schema.applied, 1000);
    let refused = store.migrate().await;
    assert!(
        matches!(refused, Err(Error::NewerSchema { applied: 1000, known }) if known == schema.known)
    );
    let refused = store::open_migrated(url, &Options::default()).await;
    assert!(matches!(refused.err(), Some(Error::NewerSchema { .. })));
}

#[tokio::test]
async fn sqlite_refuses_a_newer_schema() {
    let fresh = fresh_sqlite().await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    sqlx::query(NEWER).execute(&mut raw).await.unwrap();
    refuses_a_newer_schema(&*fresh.store, &fresh.url).await;
}

#[tokio::test]
async fn postgres_refuses_a_newer_schema() {
    let fresh = fresh_postgres().await;
    let mut raw = PgConnection::connect(&fresh.url).await.unwrap();
    sqlx::query(NEWER).execute(&mut raw).await.unwrap();
    refuses_a_newer_schema(&*fresh.store, &fresh.url).await;
}

#[tokio::test]
async fn postgres_is_migrated_only_when_told() {
    let database = postgres::empty_database().await;
    let refused = store::open_migrated(database.url(), &Options::default()).await;
    let error = refused.err().unwrap();
    assert!(matches!(error, Error::OlderSchema { applied: 0, .. }));
    holds(&error, &["run 'catalog-sync migrate'"]);
}

#[tokio::test]
async fn postgres_can_keep_everything_in_a_schema_of_its_own() {
    let database = postgres::empty_database().await;
    let mut raw = PgConnection::connect(database.url()).await.unwrap();
    // The host's own, with names that would collide.
    for statement in [
        "create table products (id int)",
        "create table _sqlx_migrations (version int)",
        "create schema catalog",
    ] {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    let url = format!("{}&options[search_path]=catalog", database.url());
    let store = store::open(&url, &Options::default()).await.unwrap();
    store.migrate().await.unwrap();
    let acme = add(&*store, "acme").await;
    sync(&*store, &acme, 0, [coins("1")]).await;

    let products: i64 = sqlx::query_scalar("select count(*) from catalog.products")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(products, 1);
}

#[tokio::test]
async fn a_url_of_neither_database_is_refused_without_being_told() {
    for url in ["mysql://u:secret@h/d", "catalog.db", "", "/var/lib/secret"] {
        let error = open_error(url).await;
        unusable(&error, &["sqlite:", "postgres://"]);
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_sqlite_file_and_its_log_are_for_its_owner_alone() {
    let fresh = fresh_sqlite().await;
    add(&*fresh.store, "acme").await;
    let file = fresh.url.strip_prefix("sqlite:").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mode = std::fs::metadata(format!("{file}{suffix}"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn sqlite_keeps_a_log_and_its_foreign_keys() {
    let fresh = fresh_sqlite().await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    let mode: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
    let broken: Vec<String> = sqlx::query_scalar("select \"table\" from pragma_foreign_key_check")
        .fetch_all(&mut raw)
        .await
        .unwrap();
    assert_eq!(broken, [""; 0]);
}

#[tokio::test]
async fn a_locked_sqlite_file_is_unavailable_until_it_is_free() {
    let fresh = fresh_sqlite().await;
    let acme = add(&*fresh.store, "acme").await;
    let impatient = store::open(&fresh.url, &impatient()).await.unwrap();
    let mut other = SqliteConnection::connect(&fresh.url).await.unwrap();
    let lock = other.begin_with("begin immediate").await.unwrap();

    let refused = impatient.pause(&acme, at(1)).await.unwrap_err();
    unavailable(&refused, &["catalog.db", "another process"]);
    // Readers are not kept out.
    impatient.load_project(&acme).await.unwrap();

    lock.rollback().await.unwrap();
    impatient.pause(&acme, at(1)).await.unwrap();
}

#[tokio::test]
async fn a_sqlite_file_held_for_good_does_not_open() {
    let fresh = fresh_sqlite().await;
    let file = fresh.url.clone();
    drop(fresh.store);
    let mut other = SqliteConnection::connect(&file).await.unwrap();
    for statement in ["pragma locking_mode = exclusive", "begin exclusive"] {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    }
    unavailable(&open_error(&file).await, &["catalog.db", "another process"]);
}

#[tokio::test]
async fn what_is_no_sqlite_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    let notes = "These are notes, and no database. ".repeat(100);
    std::fs::write(&file, &notes).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();

    let error = open_error(&url_of(&file)).await;

    unusable(&error, &["notes.txt", "is not a SQLite database"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), notes);
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/catalog.db");
    unusable(
        &open_error(&url_of(&missing)).await,
        &["missing' of the database file", "does not exist"],
    );
    unusable(
        &open_error(&url_of(folder.path())).await,
        &["is a folder: name a file"],
    );
    for url in ["sqlite::memory:", "sqlite://file?mode=memory", "sqlite:"] {
        unusable(&open_error(url).await, &["names no file"]);
    }
}

#[tokio::test]
async fn postgres_that_does_not_answer_is_unavailable() {
    // Bound and freed: nothing listens there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = open_error(&format!("postgres://u:secret@127.0.0.1:{port}/shop")).await;
    let at = format!("'shop' at 127.0.0.1:{port} refuses the connection");
    unavailable(&error, &[&at]);
    assert!(!error.to_string().contains("secret"));

    let error = open_error("postgres://u:secret@host.invalid/shop").await;
    unavailable(
        &error,
        &["'shop' at host.invalid:5432", "no such host is known"],
    );
    assert!(!error.to_string().contains("secret"));

    let error = open_error("postgres://u@localhost/shop?host=/nowhere/at/all").await;
    unavailable(&error, &["at socket /nowhere/at/all", "no socket there"]);
}

#[tokio::test]
async fn postgres_tells_of_a_database_and_a_user_it_does_not_have() {
    let url = postgres::database().await.url().to_owned();
    let (server, folder) = url.split_once('?').unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();

    let error = open_error(&format!("{server}/nosuchdatabase?{folder}")).await;
    unavailable(&error, &["'nosuchdatabase'", "does not exist"]);
    let stranger = format!("postgres://stranger:secret@localhost/postgres?{folder}");
    let error = open_error(&stranger).await;
    unavailable(&error, &["does not let user 'stranger' in"]);
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_server_that_falls_silent_does_not_hold_a_call_for_ever() {
    // Accepts a connection, by the kernel's backlog, and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let options = Options {
        connect_timeout: Duration::from_millis(1),
        ..Options::default()
    };
    let url = format!("postgres://u@127.0.0.1:{port}/shop?sslmode=disable");
    let error = store::open(&url, &options).await.err().unwrap();
    unavailable(
        &error,
        &["'shop' at 127.0.0.1", "gave no answer within 1ms"],
    );
}

#[tokio::test]
async fn a_call_that_waits_too_long_ends_and_takes_nothing() {
    let fresh = fresh_postgres().await;
    let acme = add(&*fresh.store, "acme").await;
    let options = Options {
        call_timeout: Duration::from_millis(50),
        max_connections: 1,
        ..Options::default()
    };
    let hasty = store::open(&fresh.url, &options).await.unwrap();
    let mut other = PgConnection::connect(&fresh.url).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("select 1 from project_state for update")
        .execute(&mut *lock)
        .await
        .unwrap();

    let refused = hasty
        .acquire(&acme, Duration::from_secs(30), super::sample::at(0))
        .await
        .unwrap_err();
    unavailable(&refused, &["gave no answer within 50ms"]);

    lock.rollback().await.unwrap();
    let patient = open_migrated(&fresh.url).await;
    claim(&*patient, &acme, 0).await;
}

#[tokio::test]
async fn a_row_locked_for_too_long_is_unavailable() {
    let fresh = fresh_postgres().await;
    let acme = add(&*fresh.store, "acme").await;
    let options = Options {
        lock_timeout: Duration::from_millis(1),
        ..Options::default()
    };
    let impatient = store::open(&fresh.url, &options).await.unwrap();
    let mut other = PgConnection::connect(&fresh.url).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("select 1 from project_state for update")
        .execute(&mut *lock)
        .await
        .unwrap();

    let refused = impatient.remove_project(&acme).await.unwrap_err();
    unavailable(&refused, &["was too busy and did nothing"]);

    lock.rollback().await.unwrap();
    impatient.remove_project(&acme).await.unwrap();
}

/// After [`ODD_ROWS`].
async fn names_the_row_it_cannot_read(store: &dyn Store) {
    let acme = id("acme");
    let catalog = store.load_catalog(&acme).await.unwrap_err();
    let runs = store.read_runs(&acme, 1).await.unwrap_err();
    let status = store.read_status(&acme).await.unwrap_err();
    let run_id = &store
        .read_history(&acme, &HistoryFilter::default())
        .await
        .unwrap()[0]
        .run_id;
    for (error, parts) in [
        (&catalog, ["kind of entry 'acme/widget/1'", "not a kind"]),
        (&runs, [&*format!("outcome of run '{run_id}'"), "'odd'"]),
        (&status, ["covered_at of project 'acme'", "premature"]),
    ] {
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
        holds(error, &parts);
    }
    store.read_shelf(&acme, Removed::Included).await.unwrap();
}

/// They make rows that no version of ours wrote.
const ODD_ROWS: [&str; 3] = [
    "update entries set kind = 'widget' where store_id = '1'",
    "update runs set outcome = 'odd'",
    r#"update project_state set covered_at = '{"subscription": "2027"}'"#,
];

#[tokio::test]
async fn sqlite_names_the_row_it_cannot_read() {
    let fresh = fresh_sqlite().await;
    let acme = add(&*fresh.store, "acme").await;
    sync(&*fresh.store, &acme, 0, [coins("1"), grace_period()]).await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    for statement in ODD_ROWS {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    names_the_row_it_cannot_read(&*fresh.store).await;
}

#[tokio::test]
async fn postgres_names_the_row_it_cannot_read() {
    let fresh = fresh_postgres().await;
    let acme = add(&*fresh.store, "acme").await;
    sync(&*fresh.store, &acme, 0, [coins("1"), grace_period()]).await;
    let mut raw = PgConnection::connect(&fresh.url).await.unwrap();
    for statement in ODD_ROWS {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    names_the_row_it_cannot_read(&*fresh.store).await;
}

#[tokio::test]
async fn two_processes_may_share_one_sqlite_file() {
    let fresh = fresh_sqlite().await;
    let acme = add(&*fresh.store, "acme").await;
    let other = open_migrated(&fresh.url).await;
    let each = async |store: &dyn Store| {
        for minute in 0..30 {
            // Never busy, whoever holds the lease.
            match store
                .acquire(&acme, Duration::from_secs(1), super::sample::at(minute))
                .await
            {
                Ok(claim) => store.release(&claim.lease).await.unwrap(),
                Err(Error::Leased { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    futures_util::future::join(each(&*fresh.store), each(&*other)).await;
}

#[tokio::test]
async fn a_lease_dated_by_hand_ends_all_the_same() {
    let fresh = fresh_sqlite().await;
    let acme = add(&*fresh.store, "acme").await;
    let held = claim(&*fresh.store, &acme, 0).await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    // Without the fraction, which sorts after any fraction of the same second.
    sqlx::query(
        "update project_state set lease_until = strftime('%Y-%m-%dT%H:%M:%SZ', lease_until)",
    )
    .execute(&mut raw)
    .await
    .unwrap();

    let refused = fresh
        .store
        .acquire(&acme, super::sample::TTL, held.until)
        .await;
    assert!(matches!(refused, Err(Error::Leased { .. })), "{refused:?}");
    claim(&*fresh.store, &acme, 1).await;
}
