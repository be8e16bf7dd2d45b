//! Daemons that die in the middle of their work.

use catalog_sync::simulator::{Fault, FaultKind};

use super::fixture::{Daemon, GENEROUS, Gate, SHORT_LEASE, Sql, house, key_id, teams};
use crate::house::{Backend, House, on_both_stores};

on_both_stores!(
    what_a_dead_daemon_had_in_hand_is_done_by_another,
    a_project_whose_runs_kill_their_workers_is_set_aside,
);

async fn what_a_dead_daemon_had_in_hand_is_done_by_another(backend: Backend) {
    let mut house = house(teams(2), backend).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    let dead = Daemon::start(&house, &SHORT_LEASE).await;
    gate.arrival().await;
    let mut sql = Sql::connect(&house).await;
    sql.until("select count(*) from pending_syncs where running", 2)
        .await;
    dead.kill().await;
    gate.open();

    let mut daemon = Daemon::start(&house, &SHORT_LEASE).await;
    for _ in 0..2 {
        let lost = daemon.event("lease.lost").await;
        assert_eq!(lost["epoch"], 1, "{lost}");
        assert!(lost["worker"].is_string(), "{lost}");
    }
    sql.until_all_is_done().await;
    for project in ["p1", "p2"] {
        assert_eq!(sql.runs(project).await, 1);
    }
    let epochs = sql.texts("select epoch from sync_runs").await;
    assert_eq!(epochs, ["2", "2"]);
    // A run that ends clears the count.
    assert_eq!(sql.number("select sum(losses) from project_state").await, 0);
    daemon.stop().await;
}

/// Waits until this key has sent something since requests were last forgotten.
async fn sent(house: &House, key_id: &str) {
    let sending = async {
        let mut seen = 0;
        loop {
            let requests = house.simulator.requests();
            if requests
                .iter()
                .any(|request| request.key_id.as_deref() == Some(key_id))
            {
                return;
            }
            seen = requests.len().max(seen) + 1;
            house.simulator.wait_for_requests(seen).await;
        }
    };
    tokio::time::timeout(2 * GENEROUS, sending)
        .await
        .expect("nothing was sent");
}

async fn a_project_whose_runs_kill_their_workers_is_set_aside(backend: Backend) {
    let house = house(teams(2), backend).await;
    let bad = key_id(1);
    house
        .simulator
        .inject(Fault::new("", FaultKind::Hang).of_key(&bad));
    for _ in 0..3 {
        house.simulator.forget_requests();
        let dead = Daemon::start(&house, &SHORT_LEASE).await;
        sent(&house, &bad).await;
        dead.kill().await;
    }
    let mut daemon = Daemon::start(&house, &SHORT_LEASE).await;
    let aside = daemon.event("project.set_aside").await;
    assert_eq!(aside["project.id"], "p1", "{aside}");
    house.json(&["resync", "p2", "--wait"], 0).await;
    let answer = house.json(&["resync", "p1", "--wait"], 1).await;
    assert_eq!(answer[0]["error"]["code"], "set_aside", "{answer}");
    let status = house.run(&["status", "p1"]).await;
    assert!(status.stdout.contains("set aside"), "{}", status.stdout);
    assert!(
        status.stdout.contains("catalog-sync project resume p1"),
        "{}",
        status.stdout
    );
    let mut sql = Sql::connect(&house).await;
    // It stays aside when it falls due.
    sql.make_due(None).await;
    sql.until_none_is_due().await;
    house.json(&["resync", "p2", "--wait"], 0).await;
    assert_eq!(sql.runs("p1").await, 0);

    house.simulator.clear_faults();
    house.run(&["project", "resume", "p1"]).await.expect(0);
    daemon.finished("p1", "succeeded").await;
    daemon.stop().await;
}
