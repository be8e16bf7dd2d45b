//! What people get wrong: each gets an error that names what is wrong and the way out, and nothing is lost.

use std::os::unix::fs::PermissionsExt as _;

use catalog_sync::simulator::State;

use crate::house::{Backend, House, on_both_stores};

async fn house() -> House {
    House::with_project(State::sample(), Backend::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_key_of_the_configuration_names_the_nearest() {
    let house = house().await;
    house.write("worker.toml", "[sync]\n\nconcurency = 4\n");
    let answer = house.run(&["status"]).await.expect(1);
    for part in ["worker.toml:3", "sync.concurency", "sync.concurrency"] {
        assert!(answer.stderr.contains(part), "{}", answer.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_url_without_tls_is_refused_away_from_the_loopback() {
    let house = house().await;
    for url in [
        "http://api.appstoreconnect.apple.com",
        "http://10.0.0.1:8080",
        "ftp://127.0.0.1",
    ] {
        let answer = house
            .run_with(
                &["sync", "acme"],
                &[("CATALOG_SYNC_APP_STORE__BASE_URL", url)],
                "",
            )
            .await
            .expect(1);
        assert!(
            answer.stderr.contains("app_store.base_url") && answer.stderr.contains("https"),
            "{}",
            answer.stderr
        );
    }
}

on_both_stores!(an_unknown_project_names_the_nearest);

async fn an_unknown_project_names_the_nearest(backend: Backend) {
    let house = House::with_project(State::sample(), backend).await;
    for args in [
        &["catalog", "acmee"][..],
        &["status", "acmee"],
        &["plan", "acmee"],
        &["project", "pause", "acmee"],
    ] {
        let answer = house.run(args).await.expect(1);
        assert!(
            answer
                .stderr
                .contains("there is no project 'acmee'; did you mean 'acme'?"),
            "{}",
            answer.stderr
        );
    }
    let answer = house.run(&["sync", "acmee", "acme"]).await.expect(1);
    assert!(
        answer.stdout.contains("did you mean 'acme'?") && answer.stdout.contains("succeeded"),
        "{}",
        answer.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_master_key_nothing_starts_that_needs_one() {
    let house = house().await;
    std::fs::rename(house.path("master.key"), house.path("elsewhere.key")).unwrap();
    for args in [
        &["sync", "acme"][..],
        &["plan", "acme"],
        &["project", "verify", "acme"],
    ] {
        let answer = house.run(args).await.expect(1);
        assert!(
            answer.stderr.contains("master key") && answer.stderr.contains("init"),
            "{}",
            answer.stderr
        );
    }
    house.run(&["catalog", "acme"]).await.expect(0);

    // A new one is not made in passing, for it does not open what the old one sealed.
    let refused = house.run(&["init"]).await.expect(1);
    assert!(
        refused.stderr.contains("1 project") && refused.stderr.contains("--new-master-key"),
        "{}",
        refused.stderr
    );
    assert!(!house.path("master.key").exists());
    house.run(&["init", "--new-master-key"]).await.expect(0);
    assert_eq!(
        house.error_code(&["project", "verify", "acme"]).await,
        "key_sealed"
    );
    std::fs::rename(house.path("elsewhere.key"), house.path("master.key")).unwrap();
    house.run(&["sync", "acme"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_that_others_can_read_is_refused() {
    let house = house().await;
    let mode = |mode| {
        std::fs::set_permissions(
            house.path("master.key"),
            std::fs::Permissions::from_mode(mode),
        )
        .unwrap();
    };
    mode(0o644);
    let answer = house.run(&["sync", "acme"]).await.expect(1);
    assert!(
        answer.stderr.contains("chmod 600 master.key"),
        "{}",
        answer.stderr
    );
    mode(0o600);
    house.run(&["sync", "acme"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_made_by_init_and_not_by_a_question() {
    let house = House::bare(State::sample(), Backend::Sqlite).await;
    let answer = house.run(&["status"]).await.expect(1);
    assert!(
        answer.stderr.contains("there is no database file") && answer.stderr.contains("init"),
        "{}",
        answer.stderr
    );
    assert!(!house.path("catalog-sync.db").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_again_changes_nothing() {
    let house = house().await;
    let before = std::fs::read(house.path("master.key")).unwrap();
    let again = house.run(&["init"]).await.expect(0);
    assert_eq!(again.stdout.matches("kept").count(), 3, "{}", again.stdout);
    assert_eq!(std::fs::read(house.path("master.key")).unwrap(), before);
    house.run(&["sync", "acme"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_postgres_is_named_without_its_password() {
    let house = house().await;
    // Port 1 is where nothing listens.
    let url = [(
        "CATALOG_SYNC_STORE__URL",
        "postgres://worker:s3cr3t@127.0.0.1:1/catalogs",
    )];
    let answer = house.run_with(&["status"], &url, "").await.expect(1);
    assert!(
        answer.stderr.contains("127.0.0.1:1") && answer.stderr.contains("catalogs"),
        "{}",
        answer.stderr
    );
    assert!(!answer.stderr.contains("s3cr3t"), "{}", answer.stderr);
    let shown = house.run_with(&["check-config"], &url, "").await.expect(1);
    assert!(!shown.stdout.contains("s3cr3t"), "{}", shown.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_without_the_schema_says_migrate() {
    let house = House::bare(State::sample(), Backend::Postgres).await;
    let answer = house.run(&["status"]).await.expect(1);
    assert!(
        answer.stderr.contains("catalog-sync migrate"),
        "{}",
        answer.stderr
    );
    house.run(&["migrate"]).await.expect(0);
    house.run(&["status"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_file_is_named() {
    let house = house().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.path("catalog-sync.db"));
    let mut other = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .unwrap();
    sqlx::query("begin exclusive")
        .execute(&mut other)
        .await
        .unwrap();
    let soon = [("CATALOG_SYNC_STORE__BUSY_TIMEOUT_MS", "50")];
    let answer = house
        .run_with(&["project", "pause", "acme"], &soon, "")
        .await
        .expect(1);
    assert!(
        answer.stderr.contains("catalog-sync.db") && answer.stderr.contains("another process"),
        "{}",
        answer.stderr
    );
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    house
        .run_with(&["project", "pause", "acme"], &soon, "")
        .await
        .expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_use_is_a_failure_and_not_a_decision() {
    let house = house().await;
    for args in [
        &["syncc"][..],
        &["sync"],
        &["history", "acme", "--kind", "product"],
        &["catalog", "a/b"],
    ] {
        let answer = house.run(args).await.expect(1);
        assert!(!answer.stderr.is_empty());
    }
    house.run(&["--help"]).await.expect(0);
    house.run(&["--version"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_is_not_there_points_to_what_a_lost_key_needs() {
    let house = house().await;
    let answer = house
        .run(&[
            "project",
            "add",
            "new",
            "--private-key",
            "AuthKey_LOST000001.p8",
        ])
        .await
        .expect(1);
    for part in ["AuthKey_LOST000001.p8", "explain key_lost"] {
        assert!(answer.stderr.contains(part), "{}", answer.stderr);
    }
    let told = house.run(&["explain", "key_lost"]).await.expect(0);
    assert!(told.stdout.contains("keeps no copy"), "{}", told.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_put_to_another_database_leaves_it_alone() {
    let house = house().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(house.path("other.db"))
        .create_if_missing(true);
    let mut other = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .unwrap();
    sqlx::query("create table mine (a)")
        .execute(&mut other)
        .await
        .unwrap();
    let elsewhere = [("CATALOG_SYNC_STORE__URL", "sqlite:other.db")];
    for args in [
        &["status"][..],
        &["sync", "acme"],
        &["project", "list"],
        &["check-config"],
    ] {
        house.run_with(args, &elsewhere, "").await.expect(1);
    }
    let tables: Vec<String> = sqlx::query_scalar("select name from sqlite_schema")
        .fetch_all(&mut other)
        .await
        .unwrap();
    assert_eq!(tables, ["mine"]);
    let mode: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(mode, "delete", "not even its journal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_by_name() {
    let house = house().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.path("catalog-sync.db"));
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .unwrap();
    let newer = "insert into catalog_sync_migrations select 99, description, installed_on, success, checksum, execution_time
                 from catalog_sync_migrations where version = 1";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    for args in [
        &["status"][..],
        &["sync", "acme"],
        &["migrate"],
        &["init"],
        &["check-config"],
    ] {
        let answer = house.run(args).await.expect(1);
        let told = answer.stdout + &answer.stderr;
        assert!(
            told.contains("schema 99") && told.contains("upgrade catalog-sync"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_names_is_checked() {
    let house = house().await;
    let checked = house.run(&["check-config"]).await.expect(0);
    assert_eq!(
        checked.stdout.matches("sound").count(),
        3,
        "{}",
        checked.stdout
    );
    let missing = [("CATALOG_SYNC_APP_STORE__CA_FILE", "nowhere.pem")];
    let failed = house
        .run_with(&["check-config"], &missing, "")
        .await
        .expect(1);
    assert!(failed.stdout.contains("nowhere.pem"), "{}", failed.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_get_one_json_document_whatever_happens() {
    let house = house().await;
    for args in [
        &["explain", "zzz", "--json"][..],
        &["sync", "--json"],
        &["history", "acme", "--limit", "x", "--json"],
    ] {
        assert_eq!(
            house.run(args).await.expect(1).json()["error"]["code"],
            "usage"
        );
    }
    assert_eq!(
        house.error_code(&["catalog", "nobody"]).await,
        "unknown_project"
    );
    let synced = house.json(&["sync", "nobody", "acme"], 1).await;
    let codes: Vec<_> = synced
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["error"]["code"].clone())
        .collect();
    assert!(codes.contains(&"unknown_project".into()), "{synced}");
    assert_eq!(house.json(&["demo"], 0).await.as_array().unwrap().len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_that_was_not_synced_leaves_a_line() {
    let house = house().await;
    house.run(&["project", "pause", "acme"]).await.expect(0);
    for (id, code) in [("acme", "project_paused"), ("nobody", "unknown_project")] {
        let answer = house.run(&["sync", id]).await.expect(1);
        let [aborted] = &answer.events()[..] else {
            panic!("{}", answer.stderr)
        };
        assert_eq!(
            (&aborted["event"], &aborted["error.code"]),
            (&"sync.aborted".into(), &code.into())
        );
        assert_eq!(aborted["project.id"], id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_does_not_stop_the_work() {
    let house = house().await;
    let mut child = house.command(&["sync", "acme"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().await.unwrap().success());
    assert_eq!(
        house
            .json(&["runs", "acme"], 0)
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_sync_gives_its_lease_back() {
    let house = house().await;
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        house.simulator.forget_requests();
        house.simulator.inject(catalog_sync::simulator::Fault::new(
            "",
            catalog_sync::simulator::FaultKind::Hang,
        ));
        let child = house.command(&["sync", "acme", "--json"]).spawn().unwrap();
        house.simulator.wait_for_requests(3).await;
        let pid =
            rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer[0]["error"]["code"], "stopped");
        house.simulator.clear_faults();
        house.run(&["sync", "acme"]).await.expect(0);
    }
}
