//! The catalog as it was at an instant: what readers saw then.

use catalog_sync::{
    catalog::{Entry, Snapshot},
    project::{App, Project, ProjectId},
    store::{Removed, Shelf, Store},
};
use proptest::{strategy::Strategy as _, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{
    laws::snapshots,
    sample::{
        add, aftermath, at, claim, coins, grace_period, group, key_of, plan, project, run,
        subscription, sync,
    },
};

/// What is read now, as far as it can be told of the past.
pub(crate) async fn now(store: &dyn Store, id: &ProjectId) -> Shelf {
    let mut shelf = store.read_shelf(id, Removed::Included).await.unwrap();
    if let Some(grace) = &mut shelf.grace_period {
        grace.checked_at = None;
    }
    shelf
}

pub(crate) async fn then(store: &dyn Store, id: &ProjectId, minute: i64) -> Shelf {
    store.read_shelf_at(id, at(minute)).await.unwrap()
}

/// A project whose app's id is one of those that random entries have.
pub(crate) async fn add_random(store: &dyn Store, name: &str) -> ProjectId {
    let project = Project {
        app: App {
            id: "3".to_owned(),
            ..project(name).app
        },
        ..project(name)
    };
    store
        .add_project(&project, &key_of(&project))
        .await
        .unwrap();
    project.id
}

/// Random listings, one after another.
pub(crate) fn listings(runner: &mut TestRunner) -> Vec<Snapshot> {
    snapshots().new_tree(runner).unwrap().current()
}

/// A whole run that finds this.
pub(crate) async fn find(store: &dyn Store, id: &ProjectId, minute: i64, snapshot: &Snapshot) {
    let plan = plan(&store.load_catalog(id).await.unwrap(), snapshot);
    let lease = claim(store, id, minute).await;
    store
        .commit(&lease, &plan, &run(&plan, minute), &aftermath())
        .await
        .unwrap();
}

pub(crate) async fn the_shelf_of_now_is_the_shelf(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let other = add(store, "other").await;
    sync(store, &other, 0, [coins("9"), group("7", "Theirs")]).await;
    let all = [
        coins("1"),
        coins("2"),
        group("6", "Old"),
        group("7", "Pro"),
        subscription("8", "7"),
        grace_period(),
    ];
    sync(store, &acme, 0, all.clone()).await;
    sync(store, &acme, 1, all[1..].to_vec()).await;
    sync(store, &acme, 2, [coins("2"), group("7", "Plus")]).await;
    sync(store, &acme, 3, all[..3].to_vec()).await;

    let shelf = then(store, &acme, 9).await;
    assert_eq!(shelf, now(store, &acme).await);
    assert_eq!(
        (shelf.products.len(), shelf.subscription_groups.len()),
        (3, 2)
    );
    assert_eq!(
        shelf.present(),
        store.read_shelf(&acme, Removed::LeftOut).await.unwrap()
    );
}

pub(crate) async fn whatever_values_there_are_the_past_is_read_like_the_present(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let odd = [
        Value::Null,
        json!(7),
        json!(1.5),
        json!(7.0),
        json!(1e300),
        json!(-0.0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(999_999_999_999_999_999_i64),
        json!(1_000_000_000_000_000_000_i64),
        json!(-999_999_999_999_999_999_i64),
        json!(-1_000_000_000_000_000_000_i64),
        json!(true),
        json!(false),
        json!(""),
        json!(" "),
        json!("7"),
        json!("true"),
        json!("null"),
        json!("B"),
        json!("a"),
        json!("ä"),
        json!("\u{1}\t\n\"\\'$.name{}[]\u{2028}👩‍👩‍👧‍👦"),
        json!("CONSUMABLE"),
        json!("consumable"),
        json!("ONE_MONTH"),
        json!("one_month"),
        json!("THREE_DAYS"),
        json!("ALL_RENEWALS"),
        json!(["CONSUMABLE"]),
        json!(["ONE_MONTH", null]),
        json!({"name": "x", "$": null}),
        json!([]),
        json!({}),
    ];
    let names = [
        "productId",
        "name",
        "referenceName",
        "state",
        "inAppPurchaseType",
        "subscriptionPeriod",
        "groupLevel",
        "familySharable",
        "optIn",
        "sandboxOptIn",
        "duration",
        "renewalType",
        "$.name",
        "",
    ];
    let every = |mut entry: Entry, value: &Value| {
        for name in names {
            entry = entry.with(name, value.clone());
        }
        entry
    };
    let mut entries = Vec::new();
    for (number, value) in odd.iter().enumerate() {
        let id = number.to_string();
        // Of two kinds with one id, and so one product id: what orders them is the kind.
        entries.push(every(coins(&id), value));
        entries.push(every(subscription(&id, &id), value));
        entries.push(every(group(&id, ""), value));
    }
    for (minute, value) in (0..).zip(&odd) {
        let mut found = entries.clone();
        found.push(every(grace_period(), value));
        sync(store, &acme, minute, found).await;
        assert_eq!(
            then(store, &acme, minute).await,
            now(store, &acme).await,
            "{value}"
        );
    }
}

pub(crate) async fn after_each_revision_the_shelf_was_as_it_is_read_now(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    let mut grace_periods = 0;
    for case in 0..40 {
        let project = add_random(store, &format!("case-{case}")).await;
        let listings = listings(&mut runner);
        let mut shelves = Vec::new();
        for (minute, snapshot) in (0..).zip(&listings) {
            find(store, &project, minute, snapshot).await;
            shelves.push(now(store, &project).await);
        }
        for (minute, shelf) in (0..).zip(shelves) {
            grace_periods += usize::from(shelf.grace_period.is_some());
            let past = then(store, &project, minute).await;
            assert_eq!(past, shelf, "case {case}, minute {minute}: {listings:#?}");
        }
    }
    assert!(grace_periods > 0, "none of the cases has a grace period");
}

pub(crate) async fn before_the_first_change_the_shelf_is_empty(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let empty = Shelf {
        products: vec![],
        subscription_groups: vec![],
        grace_period: None,
    };
    assert_eq!(then(store, &acme, 9).await, empty);
    sync(store, &acme, 1, [coins("1"), grace_period()]).await;
    assert_eq!(then(store, &acme, 0).await, empty);
    assert_eq!(then(store, &acme, 1).await, now(store, &acme).await);
}

pub(crate) async fn a_group_has_the_name_that_it_had(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let monthly = subscription("8", "7");
    sync(store, &acme, 0, [group("7", "Pro"), monthly.clone()]).await;
    sync(store, &acme, 1, [group("7", "Plus"), monthly.clone()]).await;
    sync(store, &acme, 2, []).await;
    let name = async |minute| {
        let shelf = then(store, &acme, minute).await;
        let group = &shelf.subscription_groups[0];
        assert_eq!(shelf.products[0].group_name, group.name);
        (group.name.clone().unwrap(), group.removed_at)
    };
    assert_eq!(name(0).await, ("Pro".to_owned(), None));
    assert_eq!(name(1).await, ("Plus".to_owned(), None));
    assert_eq!(name(2).await, ("Plus".to_owned(), Some(at(2))));
}

pub(crate) async fn what_returned_was_gone_in_between(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [coins("1")]).await;
    sync(store, &acme, 10, []).await;
    sync(store, &acme, 20, [coins("1")]).await;
    for (minute, updated, removed) in [(5, 0, None), (15, 10, Some(at(10))), (25, 20, None)] {
        let shelf = then(store, &acme, minute).await;
        let product = &shelf.products[0];
        assert_eq!(
            (
                product.first_seen_at,
                product.updated_at,
                product.removed_at
            ),
            (at(0), at(updated), removed)
        );
        assert_eq!(
            shelf.clone().present().products.is_empty(),
            removed.is_some()
        );
    }
}

pub(crate) async fn a_grace_period_was_what_it_was_and_never_another_apps(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(store, &acme, 0, [grace_period()]).await;
    sync(
        store,
        &acme,
        1,
        [grace_period().with("duration", "THREE_DAYS")],
    )
    .await;
    let days = async |minute| {
        let grace = then(store, &acme, minute).await.grace_period;
        grace.map(|grace| (grace.duration_days, grace.changed_at, grace.checked_at))
    };
    assert_eq!(days(0).await, Some((Some(16), at(0), None)));
    assert_eq!(days(1).await, Some((Some(3), at(1), None)));

    let project = store.load_project(&acme).await.unwrap();
    let app = App {
        id: "9".to_owned(),
        ..project.app.clone()
    };
    store
        .replace_key(&acme, &app, &key_of(&project), at(2))
        .await
        .unwrap();
    assert_eq!(days(1).await, None);
    let mut theirs = grace_period();
    theirs.key.store_id = "9".into();
    sync(store, &acme, 3, [theirs]).await;
    assert_eq!(days(3).await, Some((Some(16), at(3), None)));
    assert_eq!(days(1).await, None);
}

pub(crate) async fn a_clock_that_was_set_back_mixes_no_revisions(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let named = |name: &str| coins("1").with("name", name);
    sync(store, &acme, 5, [named("first")]).await;
    let first = now(store, &acme).await;
    sync(store, &acme, 9, [named("second"), coins("2")]).await;
    sync(store, &acme, 7, [named("second"), coins("2"), coins("3")]).await;
    let last = now(store, &acme).await;
    assert_eq!(then(store, &acme, 6).await, first);
    for minute in [7, 8, 9] {
        assert_eq!(then(store, &acme, minute).await, last);
    }
}
