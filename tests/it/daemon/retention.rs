//! What is old goes, and nothing else.

use super::fixture::{Daemon, Sql, app_id, house, teams};
use crate::house::{Backend, House, on_both_stores};

on_both_stores!(
    what_is_older_than_it_is_to_be_kept_is_deleted,
    what_is_kept_for_ever_stays,
);

const LONG_AGO: &str = "2001-01-01T00:00:00.000Z";

const A_DAY_LATER: &str = "2001-01-02T00:00:00.000Z";

/// Two projects with two runs each, of which the second renamed one thing and removed another; and for each a hold and a refused
/// request. All that is of `p1` is old.
async fn an_old_and_a_young_project(backend: Backend) -> (House, Sql) {
    let house = house(teams(2), backend).await;
    let mut sql = Sql::connect(&house).await;
    house.run(&["sync", "--all"]).await.expect(0);
    house.simulator.edit(|state| {
        for number in [1, 2] {
            let app = state.app_mut(&app_id(number)).unwrap();
            app.in_app_purchases[0].name = "New".to_owned();
            app.in_app_purchases.pop();
        }
    });
    house.run(&["sync", "--all"]).await.expect(0);
    sql.execute(&format!(
        "insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at, ended_at)
         select project_id, '0123456789ab', 'why', '[]', '[]', 1, finished_at, finished_at from runs where revision = 2;
         insert into refused_requests (project_id, requested_at, refused_at, why)
         select project_id, finished_at, finished_at, 'why' from runs where revision = 2;
         update changes set at = '{LONG_AGO}' where project_id = 'p1' and revision = 1;
         update changes set at = '{A_DAY_LATER}' where project_id = 'p1' and revision = 2;
         update runs set finished_at = '{LONG_AGO}' where project_id = 'p1' and revision = 1;
         update runs set finished_at = '{A_DAY_LATER}' where project_id = 'p1' and revision = 2;
         update entries set removed_at = '{A_DAY_LATER}' where project_id = 'p1' and removed_at is not null;
         update removal_holds set ended_at = '{A_DAY_LATER}' where project_id = 'p1';
         update refused_requests set refused_at = '{A_DAY_LATER}' where project_id = 'p1'"
    ))
    .await;
    (house, sql)
}

/// How many rows of it there are in each table.
async fn rows(sql: &mut Sql, project: &str) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in [
        "entries",
        "changes",
        "removal_holds",
        "runs",
        "refused_requests",
    ] {
        let query = format!("select count(*) from {table} where project_id = '{project}'");
        rows.push(sql.number(&query).await);
    }
    rows
}

async fn what_is_older_than_it_is_to_be_kept_is_deleted(backend: Backend) {
    let (house, mut sql) = an_old_and_a_young_project(backend).await;
    let young = rows(&mut sql, "p2").await;
    assert_eq!(young, [7, 9, 1, 2, 1]);
    assert_eq!(rows(&mut sql, "p1").await, young);

    let kept = [("CATALOG_SYNC_RETENTION__CHANGES_DAYS", "30")];
    let mut daemon = Daemon::start(&house, &kept).await;
    let pruned = daemon.event("retention.pruned").await;
    for (table, count) in [
        ("entries", 1),
        ("changes", 2),
        ("removal_holds", 1),
        ("runs", 1),
        ("refused_requests", 1),
    ] {
        assert_eq!(pruned[table], count, "{table}: {pruned}");
    }
    assert_eq!(pruned["level"], "INFO", "{pruned}");
    assert!(pruned["duration_ms"].is_number(), "{pruned}");
    assert_eq!(rows(&mut sql, "p1").await, [6, 7, 0, 1, 0]);
    assert_eq!(rows(&mut sql, "p2").await, young);
    let whole_since = "select project_id from project_state where log_since is not null";
    assert_eq!(sql.texts(whole_since).await, ["p1"]);
    // What is left is what is there.
    house.run(&["plan", "p1"]).await.expect(0);
    daemon.stop().await;
}

async fn what_is_kept_for_ever_stays(backend: Backend) {
    let (house, mut sql) = an_old_and_a_young_project(backend).await;
    let kept = [
        ("CATALOG_SYNC_RETENTION__REMOVED_DAYS", "0"),
        ("CATALOG_SYNC_RETENTION__CHANGES_DAYS", "0"),
        ("CATALOG_SYNC_RETENTION__RUNS_DAYS", "0"),
    ];
    let mut daemon = Daemon::start(&house, &kept).await;
    let pruned = daemon.event("retention.pruned").await;
    assert_eq!(pruned["refused_requests"], 1, "{pruned}");
    assert_eq!(rows(&mut sql, "p1").await, [7, 9, 1, 2, 0]);
    daemon.stop().await;
}
