//! How the daemon starts, what it tells the service manager, and what its log does not tell.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use tokio::{net::UnixDatagram, time::timeout};

use super::fixture::{Daemon, GENEROUS, add_all, house, teams};
use crate::house::{Backend, House, on_both_stores};

on_both_stores!(
    without_its_master_key_it_refuses_to_start,
    the_service_manager_is_told,
    the_log_holds_no_key_material,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nothing_at_all_it_makes_what_it_needs_and_syncs_what_is_added() {
    let house = House::bare(teams(1), Backend::Sqlite).await;
    let mut daemon = Daemon::spawn(&house, &[]);
    let made = daemon.event("master_key.made").await;
    assert_eq!(made["level"], "WARN", "{made}");
    daemon.event("store.made").await;
    daemon.event("daemon.started").await;
    let key = std::fs::metadata(house.path("master.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    add_all(&house).await;
    let done = daemon.finished("p1", "succeeded").await;
    assert_eq!(done["trigger.kind"], "request", "{done}");
    assert_eq!(done["revision"], 1, "{done}");
    daemon.stop().await;

    // The second time there is nothing to make.
    let mut daemon = Daemon::start(&house, &[]).await;
    assert!(daemon.so_far("master_key.made").is_empty());
    assert!(daemon.so_far("store.made").is_empty());
    house.json(&["resync", "p1", "--wait"], 0).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_died_half_way_is_no_obstacle() {
    let house = House::bare(teams(1), Backend::Sqlite).await;
    house.run(&["init"]).await.expect(0);
    std::fs::remove_file(house.path("catalog-sync.db")).unwrap();
    let mut daemon = Daemon::start(&house, &[]).await;
    assert!(daemon.so_far("master_key.made").is_empty());
    add_all(&house).await;
    daemon.finished("p1", "succeeded").await;
    daemon.stop().await;
}

async fn without_its_master_key_it_refuses_to_start(backend: Backend) {
    let house = house(teams(1), backend).await;
    std::fs::remove_file(house.path("master.key")).unwrap();
    let (status, log) = Daemon::spawn(&house, &[]).exit().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("daemon.not_started"), "{log}");
    assert!(log.contains("master.key"), "{log}");
    assert!(!log.contains("error:"), "it is told once: {log}");
    assert!(!house.path("master.key").exists());
}

async fn the_service_manager_is_told(backend: Backend) {
    let house = house(teams(1), backend).await;
    let socket = UnixDatagram::bind(house.path("notify")).unwrap();
    let told = async |what: &str| {
        let mut message = [0; 4096];
        let reading = async {
            loop {
                let length = socket.recv(&mut message).await.unwrap();
                let lines = String::from_utf8_lossy(&message[..length]).into_owned();
                if lines.lines().any(|line| line == what) {
                    return lines;
                }
            }
        };
        timeout(GENEROUS, reading).await.expect(what)
    };
    let path = house.path("notify");
    let daemon = Daemon::start(
        &house,
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "1000000"),
        ],
    )
    .await;
    assert!(told("READY=1").await.contains("STATUS="));
    told("WATCHDOG=1").await;
    daemon.signal(Signal::HUP);
    assert!(told("RELOADING=1").await.contains("MONOTONIC_USEC="));
    told("READY=1").await;
    told("WATCHDOG=1").await;
    daemon.signal(Signal::TERM);
    told("STOPPING=1").await;
    assert_eq!(daemon.exit_code().await, 0);
}

async fn the_log_holds_no_key_material(backend: Backend) {
    let house = house(teams(2), backend).await;
    let mut daemon = Daemon::start(&house, &[("CATALOG_SYNC_LOG__FILTER", "trace")]).await;
    daemon.event("sync.finished").await;
    daemon.event("sync.finished").await;
    house.run(&["resync", "--all", "--wait"]).await.expect(0);
    house.simulator.edit(|state| {
        state.teams[0].keys[0].revoked = true;
    });
    house.run(&["resync", "p1", "--wait"]).await.expect(1);
    let log = daemon.stop().await;
    assert!(log.contains("\"level\":\"DEBUG\""), "{log}");
    let master_key = std::fs::read_to_string(house.path("master.key")).unwrap();
    // The second is how every token begins.
    let mut secrets = vec!["PRIVATE KEY".to_owned(), "eyJ".to_owned()];
    secrets.extend(long_lines(&master_key));
    for team in house.simulator.state().teams {
        secrets.extend(long_lines(&team.keys[0].private_key));
    }
    assert!(secrets.len() >= 2 + 1 + 2 * 2, "{} secrets", secrets.len());
    for secret in secrets {
        assert!(!log.contains(&secret), "the log tells a secret");
    }
}

/// The words of a file that are long enough to be a part of a key.
fn long_lines(text: &str) -> impl Iterator<Item = String> {
    text.split(|it: char| it.is_whitespace() || it == '"')
        .filter(|word| word.len() >= 20 && !word.starts_with('-'))
        .map(str::to_owned)
}
