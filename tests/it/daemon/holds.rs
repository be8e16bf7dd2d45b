//! A mass deletion upstream, while daemons come and go.

use catalog_sync::simulator::App;

use super::fixture::{Daemon, Sql, app_id, house, teams};
use crate::house::{Backend, House, on_both_stores};

on_both_stores!(a_hold_outlives_its_daemon_and_is_told_once);

fn edit(house: &House, change: impl FnOnce(&mut App)) {
    house
        .simulator
        .edit(|state| change(state.app_mut(&app_id(1)).unwrap()));
}

async fn a_hold_outlives_its_daemon_and_is_told_once(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.finished("p1", "succeeded").await;

    edit(&house, |app| {
        app.in_app_purchases.clear();
        app.subscription_groups[0].reference_name.push('!');
    });
    house.json(&["resync", "p1", "--wait"], 2).await;
    let held = daemon.event_of("removals.held", "p1").await;
    assert_eq!(
        (&held["level"], &held["held"]),
        (&"ERROR".into(), &3.into())
    );
    let digest = held["hold.digest"].as_str().unwrap().to_owned();
    for way_out in [
        "holds p1",
        &format!("approve p1 {digest}"),
        &format!("discard p1 {digest}"),
    ] {
        let line = held["message"].as_str().unwrap();
        assert!(line.contains(way_out), "{line}");
    }
    let first = daemon.finished("p1", "held").await;
    assert_eq!(
        (&first["updated"], &first["removed"]),
        (&1.into(), &0.into())
    );
    daemon.kill().await;

    // It stands in the database, for all to see.
    let mut sql = Sql::connect(&house).await;
    let status = "select held || ' ' || missing || ' ' || hold_digest from project_status";
    assert_eq!(sql.text(status).await, format!("3 3 {digest}"));
    let reason = sql.text("select hold_reason from project_status").await;
    assert!(
        reason.contains("all 3 in-app purchases would go"),
        "{reason}"
    );
    let told = house.run(&["status", "p1"]).await.expect(0).stdout;
    for part in [
        "is held: 3 removals wait for a decision",
        "held since",
        "latest listing: 3 held, 0 kept",
        &digest,
    ] {
        assert!(told.contains(part), "no {part:?} in:\n{told}");
    }
    let plan = house.run(&["plan", "p1"]).await.expect(2).stdout;
    assert!(
        plan.contains(&digest) && plan.contains("approve p1"),
        "{plan}"
    );

    let mut daemon = Daemon::start(&house, &[]).await;
    house.json(&["resync", "p1", "--wait"], 2).await;
    daemon.finished("p1", "held").await;
    assert!(daemon.so_far("removals.held").is_empty(), "it was told");
    house.run(&["approve", "p1", &digest]).await.expect(0);
    assert_eq!(
        sql.number("select count(*) from products where removed_at is null")
            .await,
        2
    );

    // What is held and returns is held no more.
    edit(&house, |app| {
        let group = app.subscription_groups[0].clone();
        app.subscription_groups.clear();
        app.subscription_groups
            .push(catalog_sync::simulator::SubscriptionGroup {
                subscriptions: Vec::new(),
                ..group
            });
    });
    house.json(&["resync", "p1", "--wait"], 2).await;
    daemon.event_of("removals.held", "p1").await;
    daemon.finished("p1", "held").await;
    let upstream = teams(1);
    let subscriptions = &upstream.app(&app_id(1)).unwrap().subscription_groups[0].subscriptions;
    edit(&house, |app| {
        app.subscription_groups[0]
            .subscriptions
            .clone_from(subscriptions);
    });
    house.json(&["resync", "p1", "--wait"], 0).await;
    let released = daemon.event_of("removals.released", "p1").await;
    assert_eq!(released["hold.ended"], "lapsed");
    daemon.finished("p1", "succeeded").await;
    let ends = sql.texts("select ended from holds order by held_at").await;
    assert_eq!(ends, ["approved", "lapsed"]);
    daemon.stop().await;
}
