//! What happens by the clock, and what is set anew while the daemon runs.

use rustix::process::Signal;

use super::fixture::{Daemon, SHORT_LEASE, Sql, house, teams};
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    a_slot_runs_once_whatever_the_number_of_daemons,
    a_project_that_is_paused_is_not_due,
    the_schedule_is_set_anew_at_sighup,
    a_broken_file_leaves_everything_as_it_was,
    the_log_filter_is_set_anew_at_sighup,
);

async fn a_slot_runs_once_whatever_the_number_of_daemons(backend: Backend) {
    let house = house(teams(2), backend).await;
    let one = Daemon::start(&house, &SHORT_LEASE).await;
    let other = Daemon::start(&house, &SHORT_LEASE).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    let by_schedule = "select count(*) from sync_runs where trigger = 'schedule'";
    let slots = "select count(distinct slot_at) from sync_runs where trigger = 'schedule'
         and slot_at is not null and started_at >= slot_at";
    // The second time it is due for a slot that has had its run.
    for _ in 0..2 {
        sql.make_due(None).await;
        sql.until_none_is_due().await;
        sql.until(by_schedule, 2).await;
        sql.until_all_is_done().await;
        assert_eq!(sql.number(by_schedule).await, 2);
        assert_eq!(sql.number(slots).await, 1);
    }
    assert_eq!(sql.runs("p1").await, 2);
    one.stop().await;
    other.stop().await;
}

async fn a_project_that_is_paused_is_not_due(backend: Backend) {
    let house = house(teams(2), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    house.run(&["project", "pause", "p1"]).await.expect(0);
    sql.make_due(None).await;
    let done = daemon
        .event_where("sync.finished", |event| event["trigger.kind"] == "schedule")
        .await;
    assert_eq!(done["project.id"], "p2", "{done}");
    house.run(&["resync", "p2", "--wait"]).await.expect(0);
    assert_eq!(sql.runs("p1").await, 1);
    daemon.stop().await;
}

async fn the_schedule_is_set_anew_at_sighup(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    sql.until_none_is_due().await;
    let at_four =
        "select count(*) from project_status where cast(next_due_at as text) like '%-07-04%'";
    assert_eq!(sql.number(at_four).await, 0);
    house.write(
        "worker.toml",
        "[schedule]\ncron = \"0 12 4 7 *\"\n[sync]\nlease_ms = 20000\nheartbeat_ms = 5000\n",
    );
    daemon.signal(Signal::HUP);
    let reloaded = daemon.event("config.reloaded").await;
    let needs_restart = reloaded["needs_restart"].as_str().unwrap();
    assert!(needs_restart.contains("sync"), "{reloaded}");
    sql.until(at_four, 1).await;

    // A project's own cron is not the schedule's.
    house
        .run(&["project", "schedule", "p1", "0 12 5 8 *"])
        .await
        .expect(0);
    let own = "select count(*) from project_status where cast(next_due_at as text) like '%-08-05%'";
    sql.until(own, 1).await;
    house.write("worker.toml", "[schedule]\ncron = \"0 12 6 9 *\"\n");
    daemon.signal(Signal::HUP);
    daemon.event("config.reloaded").await;
    house.run(&["resync", "p1", "--wait"]).await.expect(0);
    assert_eq!(sql.number(own).await, 1);
    daemon.stop().await;
}

async fn a_broken_file_leaves_everything_as_it_was(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    house.write("worker.toml", "[schedule]\ncron = \"at noon\"\n");
    daemon.signal(Signal::HUP);
    let rejected = daemon.event("config.rejected").await;
    let why = rejected["error.sentence"].as_str().unwrap();
    assert!(why.contains("worker.toml:2"), "{why}");
    house.write("worker.toml", "[schedule\n");
    daemon.signal(Signal::HUP);
    daemon.event("config.rejected").await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    sql.execute("insert into sync_requests (project_id, reason) values ('p1', 'still there')")
        .await;
    daemon
        .event_where("sync.finished", |event| event["reason"] == "still there")
        .await;
    sql.until_none_is_due().await;
    let due = "select count(*) from project_status where cast(next_due_at as text) like '%-01-01%'";
    assert_eq!(sql.number(due).await, 1);
    daemon.stop().await;
}

async fn the_log_filter_is_set_anew_at_sighup(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_none_is_due().await;
    sql.until_all_is_done().await;
    assert!(daemon.so_far("slots.issued").is_empty());
    house.write("worker.toml", "[log]\nfilter = \"debug\"\n");
    daemon.signal(Signal::HUP);
    daemon.event("config.reloaded").await;
    sql.make_due(None).await;
    let issued = daemon.event("slots.issued").await;
    assert_eq!(issued["level"], "DEBUG", "{issued}");
    let answered = daemon.event("request.answered").await;
    assert_eq!(answered["spans"][0]["project.id"], "p1", "{answered}");
    house.write("worker.toml", "[log]\nfilter = \"warn\"\n");
    daemon.signal(Signal::HUP);
    // It is not told any more, so the rows tell.
    sql.until_all_is_done().await;
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.exit().await;
    assert_eq!(status.code(), Some(0), "{log}");
}
