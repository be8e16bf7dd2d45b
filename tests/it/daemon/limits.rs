//! What keys and App Store Connect can bear.

use catalog_sync::simulator::{Fault, FaultKind, Key, Role};
use chrono::{DateTime, TimeDelta};

use super::fixture::{Daemon, Sql, house, key_id, team_of, teams};
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    projects_with_one_key_take_turns,
    no_more_projects_run_at_once_than_are_allowed,
    a_rejected_key_is_left_alone_until_it_is_replaced,
    scheduled_work_leaves_a_part_of_the_budget,
);

async fn projects_with_one_key_take_turns(backend: Backend) {
    let house = house(team_of(2), backend).await;
    house
        .simulator
        .set_latency(std::time::Duration::from_millis(50));
    let one = Daemon::start(&house, &[]).await;
    let other = Daemon::start(&house, &[]).await;
    for _ in 0..3 {
        house.run(&["resync", "--all", "--wait"]).await.expect(0);
    }
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    assert!(sql.number("select count(*) from sync_runs").await >= 6);
    let overlaps = "select count(*) from sync_runs a join sync_runs b on a.run_id <> b.run_id
         where a.started_at < b.finished_at and b.started_at < a.finished_at";
    assert_eq!(sql.number(overlaps).await, 0);
    one.stop().await;
    other.stop().await;
}

async fn no_more_projects_run_at_once_than_are_allowed(backend: Backend) {
    let house = house(teams(6), backend).await;
    house
        .simulator
        .set_latency(std::time::Duration::from_millis(100));
    let two = [("CATALOG_SYNC_SYNC__CONCURRENCY", "2")];
    let daemon = Daemon::start(&house, &two).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    assert_eq!(sql.number("select count(*) from sync_runs").await, 6);
    let at_once = "select max(beside) from (
             select (
                 select count(*) from sync_runs b
                 where b.started_at <= a.started_at and b.finished_at > a.started_at
             ) as beside
             from sync_runs a
         ) as counted";
    assert_eq!(sql.number(at_once).await, 2);
    daemon.stop().await;
}

async fn a_rejected_key_is_left_alone_until_it_is_replaced(backend: Backend) {
    let mut state = teams(2);
    let new = Key::new("SIMULATE99", Role::Admin);
    let new_file = new.file_name();
    state.teams[0].keys.push(new);
    let house = house(state, backend).await;
    let debug = [("CATALOG_SYNC_LOG__FILTER", "debug")];
    let mut daemon = Daemon::start(&house, &debug).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    house
        .simulator
        .edit(|state| state.key_mut(&key_id(1)).unwrap().revoked = true);
    // As after refusals over ten minutes.
    sql.execute(
        "update project_state set outcome = 'failed', error_code = 'key_rejected' where project_id = 'p1'",
    )
    .await;
    house.simulator.forget_requests();
    sql.make_due(None).await;
    let issued = daemon
        .event_where("slots.issued", |event| event["passed_over"] == 1)
        .await;
    assert_eq!(issued["asked"], 1, "{issued}");
    let done = daemon
        .event_where("sync.finished", |event| event["trigger.kind"] == "schedule")
        .await;
    assert_eq!(done["project.id"], "p2", "{done}");
    sql.until_all_is_done().await;
    assert_eq!(sql.runs("p1").await, 1);
    let bad = Some(key_id(1));
    assert!(house.simulator.requests().iter().all(|it| it.key_id != bad));

    let issuer_id = house.issuer_id();
    let set_key = [
        "project",
        "set-key",
        "p1",
        "--issuer-id",
        &issuer_id,
        "--private-key",
        &new_file,
    ];
    house.run(&set_key).await.expect(0);
    let done = daemon.finished("p1", "succeeded").await;
    assert_eq!(done["trigger.kind"], "request", "{done}");
    daemon.stop().await;
}

async fn scheduled_work_leaves_a_part_of_the_budget(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    // Another program spends most of the hour, and the next run learns of it.
    house.simulator.spend_budget(&key_id(1), 3_200);
    house.run(&["resync", "p1", "--wait"]).await.expect(0);
    sql.make_due(None).await;
    let deferred = daemon.event("sync.deferred").await;
    assert_eq!(deferred["project.id"], "p1", "{deferred}");
    let waits =
        "select count(*) from pending_syncs where trigger = 'schedule' and ready_at > requested_at";
    assert_eq!(sql.number(waits).await, 1);
    assert_eq!(sql.runs("p1").await, 2);

    let done = house.json(&["resync", "p1", "--wait"], 0).await;
    assert_eq!(done[0]["run"]["trigger"], "request", "{done}");
    // It has stood for the slot as well.
    sql.until_all_is_done().await;
    assert_eq!(sql.runs("p1").await, 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_app_store_connect_is_waited_for() {
    let house = house(teams(4), Backend::Sqlite).await;
    let outage = Fault::new("", FaultKind::status(503));
    house.simulator.forget_requests();
    house.simulator.inject(outage);
    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.event("upstream.down").await;
    let mut sql = Sql::connect(&house).await;
    let retries = "select count(*) from pending_syncs where trigger = 'retry'";
    sql.until(retries, 4).await;
    // The first wait is a minute.
    for project in ["p1", "p2", "p3", "p4"] {
        let instant = |text: String| DateTime::parse_from_rfc3339(&text).unwrap();
        let ready_at = format!("select ready_at from pending_syncs where project_id = '{project}'");
        let failed_at = format!("select finished_at from sync_runs where project_id = '{project}'");
        let wait = instant(sql.text(&ready_at).await) - instant(sql.text(&failed_at).await);
        assert!(wait >= TimeDelta::minutes(1), "{wait}");
        assert!(wait <= TimeDelta::minutes(2), "{wait}");
    }
    let sent = house.simulator.requests().len();
    assert!(
        sent <= 48,
        "{sent} requests: four tries of three each at most"
    );

    // Whoever asks now waits until it is known to be up again, which one request finds out.
    house.run(&["resync", "--all"]).await.expect(0);
    house.simulator.clear_faults();
    daemon.event("upstream.up").await;
    let well = "select count(*) from project_status where outcome = 'succeeded'";
    sql.until(well, 4).await;
    let all = house.simulator.requests().len();
    assert_eq!(
        all,
        sent + 4 * 3,
        "one request finds out, and none is sent in vain"
    );
    daemon.stop().await;
}
