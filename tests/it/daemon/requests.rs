//! Requests: what asks for a sync gets a run that started after it, and one request at most waits.

use catalog_sync::simulator::{Fault, FaultKind};
use serde_json::json;

use super::fixture::{Daemon, Gate, Sql, app_id, house, key_id, teams};
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    a_resync_is_asked_for_and_waited_for,
    what_cannot_be_synced_is_refused,
    a_row_of_the_host_asks_once_it_is_committed,
    a_row_that_names_no_project_is_put_aside,
    a_request_during_a_run_causes_one_more_after_it,
);

async fn a_resync_is_asked_for_and_waited_for(backend: Backend) {
    let house = house(teams(3), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;

    let asked = house.json(&["resync", "p1"], 0).await;
    assert_eq!(asked, json!({ "asked": ["p1"] }));
    sql.until_all_is_done().await;
    assert_eq!(sql.runs("p1").await, 2);

    let done = house.json(&["resync", "p1", "--wait"], 0).await;
    assert_eq!(done[0]["project"], "p1", "{done}");
    assert_eq!(done[0]["run"]["outcome"], "succeeded", "{done}");
    assert_eq!(done[0]["run"]["trigger"], "request", "{done}");
    assert_eq!(sql.runs("p1").await, 3);

    house.simulator.edit(|state| {
        let app = state.app_mut(&app_id(2)).unwrap();
        app.in_app_purchases.clear();
    });
    let held = house.json(&["resync", "p2", "--wait"], 2).await;
    assert_eq!(held[0]["run"]["outcome"], "held", "{held}");
    assert!(held[0]["run"]["hold"]["digest"].is_string(), "{held}");

    let agreement = Fault::new("", FaultKind::RequiredAgreement).of_key(key_id(3));
    house.simulator.inject(agreement);
    let failed = house.json(&["resync", "p3", "--wait"], 1).await;
    assert_eq!(failed[0]["run"]["outcome"], "failed", "{failed}");
    let shown = house.run(&["resync", "p3", "--wait"]).await.expect(1);
    assert!(shown.stdout.contains("p3 failed"), "{}", shown.stdout);

    // The worst of them decides, and each is told.
    let all = house.json(&["resync", "--all", "--wait"], 1).await;
    let mut outcomes: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["project"].as_str(), it["run"]["outcome"].as_str()))
        .collect();
    outcomes.sort_unstable();
    let expected = [("p1", "succeeded"), ("p2", "held"), ("p3", "failed")];
    let expected = expected.map(|(project, outcome)| (Some(project), Some(outcome)));
    assert_eq!(outcomes, expected);

    house.simulator.clear_faults();
    house.run(&["project", "pause", "p2"]).await.expect(0);
    let all = house.json(&["resync", "--all", "--wait"], 0).await;
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert!(daemon.so_far("sync.aborted").is_empty());
    daemon.stop().await;
}

async fn what_cannot_be_synced_is_refused(backend: Backend) {
    let house = house(teams(2), backend).await;
    house.run(&["project", "pause", "p1"]).await.expect(0);
    let code = async |args: &[&str]| house.error_code(args).await;
    assert_eq!(code(&["resync", "p3"]).await, "unknown_project");
    assert_eq!(code(&["resync", "p3", "--wait"]).await, "unknown_project");
    assert_eq!(code(&["resync", "p1"]).await, "project_paused");
    // Nothing is asked for when a part of it cannot be.
    assert_eq!(code(&["resync", "p2", "p1"]).await, "project_paused");

    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.finished("p2", "succeeded").await;
    let mut sql = Sql::connect(&house).await;
    // The host need not know that it is paused: the row waits until it is resumed.
    sql.execute("insert into sync_requests (project_id) values ('p1')")
        .await;
    sql.until("select count(*) from sync_requests", 0).await;
    house.json(&["resync", "p2", "--wait"], 0).await;
    assert_eq!(sql.runs("p1").await, 0);
    assert_eq!(sql.runs("p2").await, 2);
    house.run(&["project", "resume", "p1"]).await.expect(0);
    daemon.finished("p1", "succeeded").await;
    daemon.stop().await;
}

async fn a_row_of_the_host_asks_once_it_is_committed(backend: Backend) {
    let house = house(teams(2), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.event("sync.finished").await;
    daemon.event("sync.finished").await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;

    sql.execute("begin").await;
    sql.execute("insert into sync_requests (project_id, reason) values ('p1', 'too early')")
        .await;
    if let Backend::Postgres = backend {
        // The daemon goes round, and sees nothing. With SQLite it could not write meanwhile.
        house.run(&["resync", "p2", "--wait"]).await.expect(0);
    }
    sql.execute("rollback").await;
    sql.execute(
        "begin;
         insert into sync_requests (project_id, reason) values ('p1', 'the customer asked');
         insert into sync_requests (project_id, reason) values ('p1', 'and again');
         commit",
    )
    .await;
    let done = daemon.finished("p1", "succeeded").await;
    assert_eq!(done["trigger.kind"], "request", "{done}");
    assert_eq!(done["reason"], "the customer asked", "{done}");
    sql.until_all_is_done().await;
    assert_eq!(sql.runs("p1").await, 2);
    let left = sql.number("select count(*) from sync_requests").await;
    assert_eq!(left, 0);
    daemon.stop().await;
}

async fn a_row_that_names_no_project_is_put_aside(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.execute(
        "insert into sync_requests (project_id, reason) values ('nobody', 'a'), ('No Id!', 'b'), ('p1', 'c')",
    )
    .await;
    for asked in ["nobody", "No Id!"] {
        let refused = daemon
            .event_where("request.refused", |event| event["request"] == asked)
            .await;
        assert_eq!(refused["source"], "sync_requests", "{refused}");
    }
    daemon.finished("p1", "succeeded").await;
    let whys = sql
        .texts("select why from refused_requests order by id")
        .await;
    assert_eq!(whys[0], "there is no project 'nobody'");
    assert_eq!(whys.len(), 2, "{whys:?}");
    sql.until_all_is_done().await;
    daemon.stop().await;
}

async fn a_request_during_a_run_causes_one_more_after_it(backend: Backend) {
    let mut house = house(teams(1), backend).await;
    let mut gate = Gate::before(&mut house).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    daemon.finished("p1", "succeeded").await;
    sql.until_all_is_done().await;

    for requests in [1, 10] {
        let before = sql.runs("p1").await;
        gate.close();
        house.run(&["resync", "p1"]).await.expect(0);
        gate.arrival().await;
        for _ in 0..requests {
            sql.execute("insert into sync_requests (project_id) values ('p1')")
                .await;
        }
        sql.until("select count(*) from sync_requests", 0).await;
        gate.open();
        daemon.finished("p1", "succeeded").await;
        daemon.finished("p1", "succeeded").await;
        sql.until_all_is_done().await;
        assert_eq!(sql.runs("p1").await, before + 2);
    }
    let overlaps = "select count(*) from sync_runs a join sync_runs b on a.epoch < b.epoch
         where b.started_at < a.finished_at";
    assert_eq!(sql.number(overlaps).await, 0);
    daemon.stop().await;
}
