//! The real binary: a history that proves itself, and the catalog as it was.

use catalog_sync::simulator::{App, State};
use serde_json::{Value, json};

use crate::{
    house::{Backend, House, on_both_stores},
    store::raw::Raw,
};

const APP: &str = "1000000001";

on_both_stores!(
    a_history_is_verified,
    a_history_that_was_tampered_with_is_found,
    a_history_after_retention_is_verified_from_its_instant_on,
    the_catalog_is_shown_as_it_was,
    a_time_that_cannot_be_told_of_is_refused,
);

/// 21 entries, synced; then two changes, a removal and another grace period, synced.
async fn house(backend: Backend) -> House {
    let app = App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(12)
        .with_groups(2, 3)
        .with_grace_period();
    let house = House::with_project(State::with_app(app), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    house
}

async fn edit(house: &House) {
    house.simulator.edit(|state| {
        let app = state.app_mut(APP).unwrap();
        app.in_app_purchases[0].name = "Renamed".to_owned();
        app.in_app_purchases.remove(1);
        app.subscription_groups[1].reference_name = "Other".to_owned();
        app.grace_period = None;
    });
    house.run(&["sync", "acme"]).await.expect(0);
}

async fn raw(house: &House) -> Raw {
    if house.store_url().starts_with("sqlite:") {
        let file = house.path("catalog-sync.db");
        Raw::connect(&format!("sqlite:{}", file.display())).await
    } else {
        Raw::connect(house.store_url()).await
    }
}

/// When a revision was written.
async fn instant_of(house: &House, revision: i64) -> String {
    let history = house.json(&["history", "acme"], 0).await;
    let lines = history.as_array().unwrap();
    let line = lines.iter().find(|line| line["revision"] == revision);
    line.unwrap()["at"].as_str().unwrap().to_owned()
}

async fn a_history_is_verified(backend: Backend) {
    let house = house(backend).await;
    let verify = ["history", "acme", "--verify"];
    assert_eq!(
        house.run(&verify).await.expect(0).stdout,
        "verified: 21 changes in 1 revision give the catalog's 21 entries and 0 removed ones\n"
    );
    edit(&house).await;
    assert_eq!(
        house.run(&verify).await.expect(0).stdout,
        "verified: 25 changes in 2 revisions give the catalog's 20 entries and 1 removed one\n"
    );
    let expected = json!({
        "verified": true, "changes": 25, "revisions": 2, "present": 20, "removed": 1,
        "log_since": null, "contradictions": [], "more": 0,
    });
    assert_eq!(house.json(&verify, 0).await, expected);
    house
        .run(&["history", "nobody", "--verify"])
        .await
        .expect(1);
}

async fn a_history_that_was_tampered_with_is_found(backend: Backend) {
    let house = house(backend).await;
    edit(&house).await;
    let verify = ["history", "acme", "--verify"];
    let mut raw = raw(&house).await;
    raw.run("update changes set op = 'updated' where op = 'removed'")
        .await;
    let found = house.run(&verify).await.expect(1).stdout;
    assert!(
        found.starts_with("not verified: 2 contradictions in 25 changes in 2 revisions\n"),
        "{found}"
    );
    for part in [
        "the line tells no change: it has a side before alone, which no updated change has\n",
        "stored: in_app_purchase ",
        ": the log has it as present, the catalog as removed\n",
    ] {
        assert!(found.contains(part), "{found}");
    }

    raw.run("update changes set op = 'removed' where after is null")
        .await;
    raw.run(
        "update entries set product_id = 'zzz' where product_id is not null and removed_at is null",
    )
    .await;
    let found = house.run(&verify).await.expect(1).stdout;
    assert!(
        found.contains("readers find it under another product id"),
        "{found}"
    );

    raw.run("update changes set revision = revision + seq")
        .await;
    let found = house.run(&verify).await.expect(1).stdout;
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 23, "{found}");
    assert!(lines[22].contains("the next sync sets right"), "{found}");
    let more = lines[21].strip_prefix("  and ").unwrap();
    assert!(more.ends_with(" more"), "{found}");
    let answer = house.json(&verify, 1).await;
    assert_eq!(answer["verified"], false);
    let contradictions = answer["contradictions"].as_array().unwrap();
    assert_eq!(contradictions.len(), 20);
    assert_eq!(more, format!("{} more", answer["more"].as_u64().unwrap()));
    let skip = &contradictions[0];
    assert_eq!(
        (&skip["rule"], &skip["before"]),
        (&json!("revision_skips"), &json!(0)),
        "{skip}"
    );
    assert!(lines[1].ends_with(skip["sentence"].as_str().unwrap()));
}

async fn a_history_after_retention_is_verified_from_its_instant_on(backend: Backend) {
    let house = house(backend).await;
    edit(&house).await;
    let since = instant_of(&house, 2).await;
    let mut raw = raw(&house).await;
    raw.run(&format!("update project_state set log_since = '{since}'"))
        .await;
    let shown = house
        .run(&["history", "acme", "--verify"])
        .await
        .expect(0)
        .stdout;
    let day_and_minute = format!("{} {} UTC", &since[..10], &since[11..16]);
    assert!(
        shown.ends_with(&format!(
            "and 1 removed one; the log is whole since {day_and_minute}\n"
        )),
        "{shown}"
    );

    let told_of = ["catalog", "acme", "--at", &since, "--removed"];
    house.run(&told_of).await.expect(0);
    let too_early = ["catalog", "acme", "--at", "2020-01-01"];
    assert_eq!(house.error_code(&too_early).await, "before_the_log");
}

async fn the_catalog_is_shown_as_it_was(backend: Backend) {
    let house = house(backend).await;
    let unchecked = |mut shelf: Value| {
        if !shelf["grace_period"].is_null() {
            shelf["grace_period"]["checked_at"] = Value::Null;
        }
        shelf
    };
    let read = async |args: &[&str]| unchecked(house.json(args, 0).await);
    let first = read(&["catalog", "acme"]).await;
    edit(&house).await;
    let second = read(&["catalog", "acme", "--removed"]).await;
    let (first_at, second_at) = (instant_of(&house, 1).await, instant_of(&house, 2).await);

    assert_eq!(read(&["catalog", "acme", "--at", &first_at]).await, first);
    let removed = ["catalog", "acme", "--at", &second_at, "--removed"];
    assert_eq!(read(&removed).await, second);
    let present = read(&["catalog", "acme", "--at", &second_at]).await;
    assert_eq!(present, read(&["catalog", "acme"]).await);
    assert_eq!(second["products"].as_array().unwrap().len(), 18);
    assert_eq!(present["products"].as_array().unwrap().len(), 17);

    let minute = format!("{} {} UTC", &first_at[..10], &first_at[11..16]);
    let shown = house
        .run(&["catalog", "acme", "--at", &first_at])
        .await
        .expect(0)
        .stdout;
    assert!(
        shown.starts_with(&format!("acme as it was on {minute}\nproduct_id\t")),
        "{shown}"
    );
    assert!(shown.contains("Product 00001") && !shown.contains("Renamed"));
    assert!(shown.contains("billing grace period: 16 days"), "{shown}");
    let shown = house
        .run(&["catalog", "acme", "--at", "2020-01-01"])
        .await
        .expect(0)
        .stdout;
    assert!(
        shown.contains("billing grace period: not read by then"),
        "{shown}"
    );

    // What the grace period was is shown with what else is gone.
    let past = format!("  from {minute}: 16 days");
    let shown = house.run(&["catalog", "acme", "--removed"]).await.expect(0);
    assert!(shown.stdout.contains("billing grace period: none set"));
    assert!(shown.stdout.contains(&past), "{}", shown.stdout);
    let shown = house.run(&["catalog", "acme"]).await.expect(0);
    assert!(!shown.stdout.contains(&past), "{}", shown.stdout);
}

async fn a_time_that_cannot_be_told_of_is_refused(backend: Backend) {
    let house = house(backend).await;
    let future = house
        .run(&["catalog", "acme", "--at", "2999-01-01"])
        .await
        .expect(1);
    assert!(
        future
            .stderr
            .contains("2999-01-01 00:00 UTC is in the future"),
        "{}",
        future.stderr
    );
    house
        .run(&["catalog", "acme", "--at", "yesterday"])
        .await
        .expect(1);
    house
        .run(&["catalog", "nobody", "--at", "2020-01-01"])
        .await
        .expect(1);
    for filter in [
        &["--kind", "grace_period"][..],
        &["--product", "1"],
        &["--since", "2020-01-01"],
        &["--until", "2020-01-01"],
        &["--limit", "9"],
    ] {
        let args = [&["history", "acme", "--verify"], filter].concat();
        assert_eq!(house.error_code(&args).await, "usage", "{filter:?}");
    }
}
