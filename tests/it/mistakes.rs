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

    // A new one does not open what the old one sealed, and says so.
    house.run(&["init"]).await.expect(0);
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
    let shown = house.run_with(&["check-config"], &url, "").await.expect(0);
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
