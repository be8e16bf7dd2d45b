//! A database that is not there for a while, and one that tells of requests.

use std::time::Duration;

use tokio::{task::block_in_place, time::timeout};

use super::fixture::{Daemon, GENEROUS, Sql, add_all, house, teams};
use crate::{
    house::{Backend, House},
    postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_wakes_the_daemon_long_before_it_polls() {
    let house = house(teams(1), Backend::Postgres).await;
    let rarely = [("CATALOG_SYNC_DAEMON__POLL_MS", "60000")];
    let mut daemon = Daemon::start(&house, &rarely).await;
    daemon.finished("p1", "succeeded").await;
    let mut sql = Sql::connect(&house).await;
    let listens = "select count(*) from pg_stat_activity
         where datname = current_database() and query like 'LISTEN%'";
    sql.until(listens, 1).await;
    for _ in 0..3 {
        sql.execute("insert into sync_requests (project_id) values ('p1')")
            .await;
        timeout(GENEROUS / 2, daemon.finished("p1", "succeeded"))
            .await
            .expect("it was not told");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_are_made_again() {
    let house = house(teams(1), Backend::Postgres).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    for _ in 0..5 {
        sql.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
        house.run(&["resync", "p1", "--wait"]).await.expect(0);
    }
    assert!(daemon.so_far("daemon.crashed").is_empty());
    daemon.stop().await;
}

/// Waits until a probe is answered so.
async fn until_answered(url: &str, status: u16) {
    let asking = async {
        while reqwest::get(url).await.unwrap().status() != status {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(2 * GENEROUS, asking)
        .await
        .unwrap_or_else(|_| panic!("{url} is not answered with {status}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_dies_is_waited_for() {
    let (mut server, url) = block_in_place(postgres::own);
    let house = House::at(teams(2), &url).await;
    add_all(&house).await;
    let listen = [("CATALOG_SYNC_HEALTH__LISTEN", "127.0.0.1:0")];
    let mut daemon = Daemon::spawn(&house, &listen);
    let listening = daemon.event("health.listening").await;
    let address = listening["address"].as_str().unwrap().to_owned();
    daemon.event("daemon.started").await;
    daemon.finished("p1", "succeeded").await;
    let (readyz, livez) = (
        format!("http://{address}/readyz"),
        format!("http://{address}/livez"),
    );
    until_answered(&readyz, 200).await;

    for round in 1..=2 {
        block_in_place(|| server.kill());
        daemon.event("dependency.down").await;
        if round == 1 {
            until_answered(&readyz, 503).await;
            assert_eq!(reqwest::get(&livez).await.unwrap().status(), 200);
        }
        let told = daemon.so_far("dependency.down");
        assert_eq!(told.len(), round, "{told:?}");
        block_in_place(|| server.restart());
        let up = daemon.event("dependency.up").await;
        assert_eq!(up["dependency"], "database", "{up}");
        until_answered(&readyz, 200).await;
        house.run(&["resync", "p1", "--wait"]).await.expect(0);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_starts_before_its_database() {
    let (mut server, url) = block_in_place(postgres::own);
    let house = House::at(teams(1), &url).await;
    add_all(&house).await;
    block_in_place(|| server.kill());
    let mut daemon = Daemon::spawn(&house, &[]);
    let down = daemon.event("dependency.down").await;
    assert_eq!(down["dependency"], "database", "{down}");
    block_in_place(|| server.restart());
    daemon.event("daemon.started").await;
    daemon.finished("p1", "succeeded").await;
    let up = daemon.event("dependency.up").await;
    assert_eq!(up["dependency"], "database", "{up}");
    assert_eq!(daemon.so_far("dependency.down").len(), 1);
    daemon.stop().await;
}
