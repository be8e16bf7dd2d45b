//! Upgrades under way: a newer schema under a running daemon, an older one before a starting one, and two migrations at once.

use tokio::join;

use crate::{
    daemon::fixture::{Daemon, Sql, house, teams},
    house::{Backend, House, on_both_stores},
};
use catalog_sync::simulator::State;

on_both_stores!(
    a_running_daemon_goes_on_when_the_schema_grows,
    what_starts_anew_on_a_newer_schema_refuses_by_name,
    two_migrations_at_once_are_one,
    a_check_of_the_schema_names_what_lacks_and_writes_nothing,
);

/// Adds what a migration may add: a table, a view, a column and an index.
async fn apply_a_newer_migration(sql: &mut Sql) {
    let checksum = match sql {
        Sql::Sqlite(_) => "x'00'",
        Sql::Postgres(_) => "'\\x00'",
    };
    sql.execute(&format!(
        "create table later (id integer not null primary key);
         create view laters as select id from later;
         alter table runs add column later text;
         alter table project_state add column later integer not null default 0;
         create index runs_later on runs (later);
         insert into catalog_sync_migrations (version, description, success, checksum, execution_time)
         values (999, 'later', true, {checksum}, 0);"
    ))
    .await;
}

/// Takes the schema back by one migration.
async fn take_back_the_last_migration(sql: &mut Sql) {
    sql.execute(
        "alter table project_state drop column marks;
         delete from catalog_sync_migrations where version = 6;",
    )
    .await;
}

async fn ask(sql: &mut Sql) {
    sql.execute("insert into sync_requests (project_id) values ('p1')")
        .await;
}

async fn a_running_daemon_goes_on_when_the_schema_grows(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.finished("p1", "succeeded").await;
    let mut sql = Sql::connect(&house).await;

    apply_a_newer_migration(&mut sql).await;
    ask(&mut sql).await;
    daemon.finished("p1", "succeeded").await;

    if let Sql::Postgres(_) = &sql {
        // Connections that are made anew meet the newer schema too.
        sql.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
        ask(&mut sql).await;
        daemon.finished("p1", "succeeded").await;
    }
    daemon.stop().await;
}

async fn what_starts_anew_on_a_newer_schema_refuses_by_name(backend: Backend) {
    let house = house(teams(1), backend).await;
    apply_a_newer_migration(&mut Sql::connect(&house).await).await;

    let daemon = Daemon::spawn(&house, &[]);
    let (status, log) = daemon.exit().await;
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["the database has schema 999", "upgrade catalog-sync"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    for command in [
        &["status"][..],
        &["sync", "p1"],
        &["migrate"],
        &["migrate", "--check"],
    ] {
        assert_eq!(
            house.error_code(command).await,
            "newer_schema",
            "{command:?}"
        );
    }
}

async fn two_migrations_at_once_are_one(backend: Backend) {
    let house = House::bare(State::sample(), backend).await;
    let (one, other) = join!(house.run(&["migrate"]), house.run(&["migrate"]));
    let said = [one.expect(0).stdout, other.expect(0).stdout];
    let applied = said.iter().filter(|said| said.contains("schema 0 -> 6"));
    assert_eq!(applied.count(), 1, "{said:?}");
    let mut sql = Sql::connect(&house).await;
    let versions = sql
        .texts("select version from catalog_sync_migrations order by version")
        .await;
    assert_eq!(versions, ["1", "2", "3", "4", "5", "6"]);
}

async fn a_check_of_the_schema_names_what_lacks_and_writes_nothing(backend: Backend) {
    let bare = House::bare(State::sample(), backend).await;
    match backend {
        // It may be in another folder.
        Backend::Sqlite => {
            bare.run(&["migrate", "--check"]).await.expect(1);
            assert!(!bare.path("catalog-sync.db").exists());
        }
        Backend::Postgres => {
            let lacking = bare.json(&["migrate", "--check"], 2).await;
            assert_eq!(lacking["schema"], 0);
            assert_eq!(lacking["lacking"].as_array().unwrap().len(), 6);
        }
    }

    bare.run(&["migrate"]).await.expect(0);
    let none = bare.run(&["migrate", "--check"]).await.expect(0).stdout;
    assert_eq!(none, "schema 6 is up to date\n");

    let mut sql = Sql::connect(&bare).await;
    take_back_the_last_migration(&mut sql).await;
    for _ in 0..2 {
        let said = bare.run(&["migrate", "--check"]).await.expect(2).stdout;
        assert_eq!(said, "schema 5 lacks 1 migration:\n  0006 marks\n");
    }
}

/// In a rolling upgrade workers may start before whoever migrates is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_waits_for_a_migration_and_says_so() {
    let house = house(teams(1), Backend::Postgres).await;
    take_back_the_last_migration(&mut Sql::connect(&house).await).await;
    let mut daemon = Daemon::spawn(&house, &[]);
    let waits = daemon.event("dependency.down").await;
    let why = waits.to_string();
    assert!(why.contains("has schema 5 and needs 6"), "{why}");
    assert!(why.contains("catalog-sync migrate"), "{why}");

    house.run(&["migrate"]).await.expect(0);
    daemon.event("daemon.started").await;
    daemon.finished("p1", "succeeded").await;
    daemon.stop().await;
}
