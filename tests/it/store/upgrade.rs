//! A database that version 0.1.0 wrote, with plain SQL as that version did.

use catalog_sync::{
    catalog::Kind,
    run::{KeyHealth, Trigger},
    schedule::Schedule,
    store::{self, Options, Schema, Store},
};
use sqlx::{
    Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection,
    migrate::{Migrate, Migration, MigrationType, Migrator},
};

use super::{
    raw::Raw,
    sample::{
        TTL, add_with_key, ask, at, coins, finish, history, id, key_of, names, pending, project,
        sync, take, take_one,
    },
};
use crate::postgres;

async fn migrate_to_1(connection: &mut impl Migrate, text: &'static str) {
    let catalog = Migration::new(
        1,
        "catalog".into(),
        MigrationType::Simple,
        text.into_sql_str(),
        false,
    );
    let mut migrator = Migrator::with_migrations(vec![catalog]);
    migrator.dangerous_set_table_name("catalog_sync_migrations");
    migrator.set_locking(false);
    migrator.run_direct(None, connection, false).await.unwrap();
}

/// A project with a product and a log, one that is paused and was never synced, and two that share a key.
fn rows(sealed: &str) -> String {
    let run_id = "01993b6c-1a2b-7c3d-8e4f-0123456789ab";
    format!(
        r#"
insert into projects (id, app_id, bundle_id, app_name, paused_at, created_at) values
    ('acme', '6446901002', 'com.example.acme', 'acme''s app', null, '2027-01-15T07:50:00.123Z'),
    ('idle', '6446901002', 'com.example.idle', 'idle''s app', '2027-01-15T07:55:00.123Z', '2027-01-15T07:50:00.123Z');
insert into api_keys (project_id, key_id, issuer_id, master_key_id, sealed) values
    ('acme', '2X9R4HXF34', '57246542-96fe-1a63-e053-0824d011072a', 'mk-1', {sealed}),
    ('idle', '2X9R4HXF34', '57246542-96fe-1a63-e053-0824d011072a', 'mk-1', {sealed});
insert into project_state (project_id, key_worked_at) values ('idle', '2027-01-15T07:50:00.123Z');
insert into project_state
    (project_id, epoch, revision, last_attempt_at, last_success_at, outcome, covered_at, key_worked_at)
values
    ('acme', 3, 1, '2027-01-15T07:52:00.123Z', '2027-01-15T07:52:00.123Z', 'succeeded',
     '{{"in_app_purchase": "2027-01-15T07:52:00.123Z"}}', '2027-01-15T07:52:00.123Z');
insert into entries (project_id, kind, store_id, product_id, attributes, first_seen_at, updated_at) values
    ('acme', 'in_app_purchase', '1', 'com.example.coins1',
     '{{"productId": "com.example.coins1", "name": "100 Coins", "inAppPurchaseType": "CONSUMABLE", "state": "APPROVED",
       "familySharable": false}}',
     '2027-01-15T07:52:00.123Z', '2027-01-15T07:52:00.123Z');
insert into changes (project_id, revision, run_id, at, kind, store_id, product_id, op, after) values
    ('acme', 1, '{run_id}', '2027-01-15T07:52:00.123Z', 'in_app_purchase', '1', 'com.example.coins1', 'added',
     '{{"attributes": {{"productId": "com.example.coins1", "name": "100 Coins"}}}}');
insert into runs
    (id, project_id, trigger, started_at, finished_at, duration_ms, outcome, epoch, revision, added, updated, removed,
     restored, held, requests, retries, throttled, bytes, budget_left, detail)
values
    ('{run_id}', 'acme', 'command', '2027-01-15T07:51:58.123Z', '2027-01-15T07:52:00.123Z', 2000, 'succeeded', 3, 1, 1, 0,
     0, 0, 0, 5, 0, 0, 12345, 3499,
     '{{"covered": ["in_app_purchase"], "listed": {{"in_app_purchase": 1}}, "failures": {{}}, "error": null, "counts": {{}},
       "hold": null, "resume_at": null}}');
"#
    )
}

async fn keeps_what_was_there_and_goes_on(url: &str) {
    let opened = store::open(url, &Options::default()).await.unwrap();
    let before = opened.migrate().await.unwrap();
    assert_eq!(
        before,
        Schema {
            applied: 1,
            known: 5
        }
    );
    let store: &dyn Store = &*opened;
    let (acme, idle) = (id("acme"), id("idle"));

    let mut paused = project("idle");
    paused.paused_at = Some(at(-5));
    assert_eq!(
        store.list_projects().await.unwrap(),
        [project("acme"), paused]
    );
    assert_eq!(
        store.load_key(&acme).await.unwrap(),
        key_of(&project("acme"))
    );
    assert_eq!(history(store, &acme).await.len(), 1);
    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(catalog.present.len(), 1);
    let runs = store.read_runs(&acme, 9).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].run.trigger, Trigger::Command);
    assert_eq!((&runs[0].worker, runs[0].run.slot_at), (&None, None));
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.revision, status.served), (1, 0));
    assert_eq!((&status.pending, status.set_aside_at), (&None, None));
    assert_eq!(status.covered_at, [(Kind::InAppPurchase, at(-8))].into(),);
    let state = store.load_state(&acme).await.unwrap();
    assert_eq!(state.key_health, KeyHealth::worked(at(-8)));
    assert_eq!(state.retries, 0);

    // Nothing was asked for; the schedule finds it.
    assert!(names(&take(store, 9, at(0)).await).is_empty());
    let hourly = Schedule::new("0 * * * *", "UTC", std::time::Duration::ZERO).unwrap();
    for (minute, asked) in [(0, 0), (60, 1)] {
        let issued = store.issue_slots(&hourly, at(minute), 9, at(minute)).await;
        assert_eq!(issued.unwrap().asked, asked);
    }
    let claim = take_one(store, 60).await;
    assert_eq!(claim.lease.epoch, 4);
    assert_eq!(claim.request.as_ref().unwrap().trigger, Trigger::Schedule);
    finish(store, &claim, 60).await;
    // An unchanged catalog is still that, and a changed one is written on top.
    assert_eq!(sync(store, &acme, 61, [coins("1")]).await.rows, 0);
    let committed = sync(store, &acme, 62, [coins("1"), coins("2")]).await;
    assert_eq!((committed.revision, committed.rows), (2, 2));

    store.resume(&idle, at(63)).await.unwrap();
    ask(store, &acme, at(63)).await;
    let first = take_one(store, 63).await; // They share a key.
    finish(store, &first, 63).await;
    finish(store, &take_one(store, 64).await, 64).await;
    assert_eq!(pending(store, &idle).await, None);
    add_with_key(store, "new", "NEW").await;
    store.acquire(&id("new"), TTL, at(64)).await.unwrap();
}

#[tokio::test]
async fn sqlite_of_version_0_1_0_is_kept_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("old.db").display());
    let text = include_str!("../../../migrations/sqlite/0001_catalog.sql");
    let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc"))
        .await
        .unwrap();
    migrate_to_1(&mut connection, text).await;
    connection.close().await.unwrap();
    let owners_alone = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("old.db"), owners_alone).unwrap();
    let mut raw = Raw::connect(&url).await;
    raw.run(&rows("x'000102ff0027'")).await;
    keeps_what_was_there_and_goes_on(&url).await;
}

#[tokio::test]
async fn postgres_of_version_0_1_0_is_kept_and_goes_on() {
    let database = postgres::empty_database().await;
    let text = include_str!("../../../migrations/postgres/0001_catalog.sql");
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    migrate_to_1(&mut connection, text).await;
    connection.close().await.unwrap();
    let mut raw = Raw::connect(database.url()).await;
    raw.run(&rows(r"'\x000102ff0027'")).await;
    keeps_what_was_there_and_goes_on(database.url()).await;
}
