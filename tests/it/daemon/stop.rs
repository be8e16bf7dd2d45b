//! How the daemon stops.

use rustix::process::Signal;

use super::fixture::{Daemon, Gate, Sql, house, teams};
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    an_idle_daemon_stops_at_once,
    a_run_that_ends_within_the_grace_is_written,
    a_run_that_does_not_end_is_cut_and_done_elsewhere,
    the_second_signal_ends_it_at_once,
);

const LEASED: &str = "select count(*) from project_status where leased_until is not null";
const LOSSES: &str = "select sum(losses) from project_state";

async fn an_idle_daemon_stops_at_once(backend: Backend) {
    let house = house(teams(1), backend).await;
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = Daemon::start(&house, &[]).await;
        Sql::connect(&house).await.until_all_is_done().await;
        daemon.signal(signal);
        let (status, log) = daemon.exit().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("daemon.stopped"), "{log}");
        assert!(!log.contains("daemon.cutting"), "{log}");
    }
}

async fn a_run_that_ends_within_the_grace_is_written(backend: Backend) {
    let mut house = house(teams(1), backend).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    let mut daemon = Daemon::start(&house, &[("CATALOG_SYNC_DAEMON__GRACE_MS", "120000")]).await;
    gate.arrival().await;
    // All three of its requests are on their way.
    gate.arrival().await;
    gate.arrival().await;
    daemon.signal(Signal::TERM);
    daemon.event("daemon.stopping").await;
    gate.open();
    let (status, log) = daemon.exit().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("daemon.cutting"), "{log}");
    let mut sql = Sql::connect(&house).await;
    assert_eq!(sql.number(LEASED).await, 0);
    assert_eq!(sql.number(LOSSES).await, 0);
    // Either it had been listed, or it is still to be done: nothing is lost.
    let done = sql.runs("p1").await;
    let pending = sql.number("select count(*) from pending_syncs").await;
    assert_eq!(done + pending, 1, "{log}");
    assert_eq!(log.contains("sync.given_back"), pending == 1, "{log}");
}

async fn a_run_that_does_not_end_is_cut_and_done_elsewhere(backend: Backend) {
    let mut house = house(teams(1), backend).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    let mut one = Daemon::start(&house, &[("CATALOG_SYNC_DAEMON__GRACE_MS", "300")]).await;
    gate.arrival().await;
    let mut other = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    assert_eq!(sql.number(LEASED).await, 1);
    one.signal(Signal::TERM);
    one.event("sync.given_back").await;
    gate.open();
    // Its lease would have lasted for thirty seconds.
    let done = other.finished("p1", "succeeded").await;
    assert_eq!(done["epoch"], 2, "{done}");
    assert!(other.so_far("lease.lost").is_empty());
    let (status, log) = one.exit().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("daemon.cutting"), "{log}");
    assert!(log.contains("daemon.stopped"), "{log}");
    assert_eq!(sql.number(LOSSES).await, 0);
    assert_eq!(sql.runs("p1").await, 1);
    other.stop().await;

    gate.close();
    house.run(&["resync", "p1"]).await.expect(0);
    let last = Daemon::start(&house, &[("CATALOG_SYNC_DAEMON__GRACE_MS", "300")]).await;
    gate.arrival().await;
    last.stop().await;
    // With nobody to take it up it waits, and the lease is free.
    assert_eq!(sql.number("select count(*) from pending_syncs").await, 1);
    assert_eq!(sql.number(LEASED).await, 0);
    assert_eq!(sql.number(LOSSES).await, 0);
}

async fn the_second_signal_ends_it_at_once(backend: Backend) {
    let mut house = house(teams(1), backend).await;
    let mut gate = Gate::before(&mut house).await;
    let patient = [
        ("CATALOG_SYNC_DAEMON__GRACE_MS", "300000"),
        ("CATALOG_SYNC_SYNC__LEASE_MS", "1000"),
        ("CATALOG_SYNC_SYNC__HEARTBEAT_MS", "100"),
    ];
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        gate.close();
        house.run(&["resync", "p1"]).await.expect(0);
        let mut daemon = Daemon::start(&house, &patient).await;
        gate.arrival().await;
        daemon.signal(Signal::TERM);
        daemon.event("daemon.stopping").await;
        daemon.signal(signal);
        assert_eq!(daemon.exit_code().await, code);
    }
}
