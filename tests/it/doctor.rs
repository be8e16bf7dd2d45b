//! `doctor`: what is sound, what is not, and that one thing that fails hides no other.

use catalog_sync::simulator::State;
use serde_json::Value;

use crate::{
    daemon::fixture::{Daemon, Sql},
    house::{Backend, House, on_both_stores},
};

on_both_stores!(
    what_is_sound_is_told_as_that,
    what_waits_for_a_person_is_a_warning,
    a_daemon_of_another_version_is_a_warning,
);

/// The states of a check, as it was found.
fn states<'a>(found: &'a Value, check: &str) -> Vec<&'a str> {
    let checks = found["checks"].as_array().unwrap().iter();
    checks
        .filter(|finding| finding["check"] == check)
        .map(|finding| finding["state"].as_str().unwrap())
        .collect()
}

/// The sentence and the way out of what was not sound of a check.
fn told(found: &Value, check: &str) -> String {
    let checks = found["checks"].as_array().unwrap().iter();
    let unsound = checks.filter(|it| it["check"] == check && it["state"] != "ok");
    unsound.map(ToString::to_string).collect()
}

async fn what_is_sound_is_told_as_that(backend: Backend) {
    let house = House::with_project(State::sample(), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    let daemon = Daemon::start(&house, &[]).await;
    Sql::connect(&house)
        .await
        .until("select count(*) from worker_beats", 1)
        .await;
    let found = house.json(&["doctor"], 0).await;
    for check in [
        "configuration",
        "database",
        "master keys",
        "brokers",
        "App Store Connect",
        "clock",
        "daemons",
        "projects",
    ] {
        let states = states(&found, check);
        assert!(!states.is_empty(), "no {check} in {found}");
        assert!(
            states.iter().all(|state| *state == "ok"),
            "{check}: {found}"
        );
    }
    let said = house.run(&["doctor"]).await.expect(0).stdout;
    assert!(said.ends_with("All is sound.\n"), "{said}");
    daemon.stop().await;
}

async fn what_waits_for_a_person_is_a_warning(backend: Backend) {
    let house = House::with_project(State::sample(), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    Sql::connect(&house)
        .await
        .execute("update project_state set outcome = 'failed', error_code = 'role_too_low'")
        .await;
    let found = house.json(&["doctor"], 0).await;
    assert!(
        told(&found, "projects")
            .contains("1 project with an error that will not pass by itself: role_too_low 1"),
        "{found}"
    );
    assert!(
        told(&found, "daemons").contains("catalog-sync run"),
        "{found}"
    );
}

async fn a_daemon_of_another_version_is_a_warning(backend: Backend) {
    let house = House::new(State::sample(), backend).await;
    let mut sql = Sql::connect(&house).await;
    sql.execute(
        "insert into worker_beats (name, version, started_at, seen_at)
         values ('old', '0.0.9', '2026-01-01T00:00:00.000Z', '9000-01-01T00:00:00.000Z'),
                ('new', '99.0.0', '2026-01-01T00:00:00.000Z', '9000-01-01T00:00:00.000Z')",
    )
    .await;
    let found = house.json(&["doctor"], 0).await;
    let told = told(&found, "daemons");
    assert!(
        told.contains("old is of version 0.0.9, older than this one"),
        "{told}"
    );
    assert!(
        told.contains("new is of version 99.0.0, newer than this one"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thing_that_fails_hides_no_other() {
    let mut house = House::with_project(State::sample(), Backend::Sqlite).await;
    house.point_to("http://127.0.0.1:1");
    std::fs::remove_file(house.path("master.key")).unwrap();
    house.write("worker.toml", "[nats]\nurl = \"nats://127.0.0.1:1\"\n");
    let found = house.json(&["doctor"], 1).await;
    for check in ["master keys", "brokers", "App Store Connect"] {
        assert_eq!(states(&found, check), ["failed"], "{found}");
    }
    assert!(!states(&found, "database").contains(&"failed"), "{found}");
    assert!(states(&found, "projects").contains(&"ok"), "{found}");
    assert!(told(&found, "brokers").contains("nats"), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_is_told_and_the_rest_is_left_out() {
    let house = House::new(State::sample(), Backend::Sqlite).await;
    house.write("worker.toml", "[stor]\nurl = \"sqlite:other.db\"\n");
    let found = house.json(&["doctor"], 1).await;
    assert!(told(&found, "configuration").contains("stor"), "{found}");
    for check in ["database", "brokers", "projects"] {
        assert_eq!(states(&found, check), ["left_out"], "{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_or_not_this_versions_is_told_with_the_way_out() {
    let house = House::bare(State::sample(), Backend::Sqlite).await;
    let found = house.json(&["doctor"], 1).await;
    assert!(
        told(&found, "database").contains("catalog-sync init"),
        "{found}"
    );
    assert_eq!(states(&found, "App Store Connect"), ["ok"], "{found}");
    assert_eq!(states(&found, "projects"), ["left_out"], "{found}");
    assert!(!house.path("catalog-sync.db").exists());

    let house = House::bare(State::sample(), Backend::Postgres).await;
    let found = house.json(&["doctor"], 1).await;
    assert!(
        told(&found, "database").contains("catalog-sync migrate"),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_of_each_table() {
    let mut house = House::new(State::sample(), Backend::Postgres).await;
    let mut sql = Sql::connect(&house).await;
    let database = sql.text("select current_database()").await;
    let reader = format!("reader_{database}");
    sql.execute(&format!(
        "create role {reader} login; grant select on all tables in schema public to {reader}"
    ))
    .await;
    let tables = sql
        .texts(
            "select tablename::text from pg_tables
             where schemaname = 'public' and tablename <> 'catalog_sync_migrations'",
        )
        .await;
    let url = house
        .store_url()
        .replace("postgres@", &format!("{reader}@"));
    house.use_store(&url);
    let found = house.json(&["doctor"], 1).await;
    let told = told(&found, "database");
    assert!(tables.len() >= 15, "{tables:?}");
    for table in tables {
        assert!(
            told.contains(&format!("insert on {table}")),
            "{table} is not in {told}"
        );
        assert!(!told.contains(&format!("select on {table}")), "{told}");
    }
}
