//! What readers see.

use catalog_sync::{
    catalog::{Entry, Kind, Plan},
    run::{Outcome, Run},
    store::{Aftermath, GracePeriod, HistoryFilter, Product, Removed, Shelf, Store},
};
use serde_json::{Value, json};

use super::sample::{
    add, aftermath, at, claim, coins, grace_period, group, history, id, refusal, run, subscription,
    sync,
};

async fn shelf(store: &dyn Store) -> Shelf {
    store
        .read_shelf(&id("acme"), Removed::LeftOut)
        .await
        .unwrap()
}

pub(crate) async fn products_have_typed_columns(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let kinds = [
        ("CONSUMABLE", "consumable"),
        ("NON_CONSUMABLE", "non_consumable"),
        ("NON_RENEWING_SUBSCRIPTION", "non_renewing_subscription"),
    ];
    let periods = [
        ("ONE_WEEK", "P1W"),
        ("ONE_MONTH", "P1M"),
        ("TWO_MONTHS", "P2M"),
        ("THREE_MONTHS", "P3M"),
        ("SIX_MONTHS", "P6M"),
        ("ONE_YEAR", "P1Y"),
    ];
    let purchases = (1..)
        .zip(kinds)
        .map(|(number, (apple, _))| coins(&number.to_string()).with("inAppPurchaseType", apple));
    let subscriptions = (11..).zip(periods).map(|(number, (apple, _))| {
        subscription(&number.to_string(), "7").with("subscriptionPeriod", apple)
    });
    let entries: Vec<Entry> = purchases
        .chain(subscriptions)
        .chain([group("7", "Pro")])
        .collect();
    sync(store, &acme, 3, entries).await;

    let products = shelf(store).await.products;
    let first = Product {
        project_id: "acme".to_owned(),
        product_id: Some("com.example.coins1".to_owned()),
        store_id: "1".to_owned(),
        kind: Some("consumable".to_owned()),
        name: Some("100 Coins".to_owned()),
        state: Some("APPROVED".to_owned()),
        period: None,
        group_id: None,
        group_name: None,
        group_level: None,
        family_sharable: Some(false),
        first_seen_at: at(3),
        updated_at: at(3),
        removed_at: None,
        attributes: serde_json::to_value(coins("1").attributes).unwrap(),
        missing_since: None,
        kept_since: None,
    };
    assert_eq!(products[0], first);
    let seen: Vec<_> = products
        .iter()
        .map(|product| (product.kind.as_deref().unwrap(), product.period.as_deref()))
        .collect();
    let expected: Vec<_> = kinds
        .iter()
        .map(|(_, kind)| (*kind, None))
        .chain(
            periods
                .iter()
                .map(|(_, period)| ("auto_renewable_subscription", Some(*period))),
        )
        .collect();
    assert_eq!(seen, expected);
    let monthly = &products[4];
    assert_eq!(monthly.group_id.as_deref(), Some("7"));
    assert_eq!(monthly.group_name.as_deref(), Some("Pro"));
    assert_eq!(monthly.group_level, Some(1));
    assert_eq!(monthly.family_sharable, Some(true));
    assert_eq!(monthly.state.as_deref(), Some("READY_TO_SUBMIT"));
}

pub(crate) async fn unknown_names_give_null(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let entries = [
        coins("1")
            .with("inAppPurchaseType", "NEWER_TYPE")
            .with("state", "A_STATE_OF_THE_FUTURE"),
        coins("2").with("inAppPurchaseType", "consumable"),
        group("7", "Pro"),
        subscription("8", "7").with("subscriptionPeriod", "ONE_DECADE"),
        subscription("9", "7").with("subscriptionPeriod", Value::Null),
        subscription("10", "77"),
        grace_period()
            .with("duration", "FORTY_DAYS")
            .with("renewalType", "SOME_RENEWALS"),
    ];
    sync(store, &acme, 0, entries).await;

    let shelf = shelf(store).await;
    let by_id = |store_id: &str| {
        let found = shelf.products.iter().find(|one| one.store_id == store_id);
        found.unwrap()
    };
    assert_eq!(by_id("1").kind, None);
    assert_eq!(by_id("1").state.as_deref(), Some("A_STATE_OF_THE_FUTURE"));
    assert_eq!(by_id("1").attributes["inAppPurchaseType"], "NEWER_TYPE");
    assert_eq!(by_id("2").kind, None);
    assert_eq!(by_id("8").period, None);
    assert_eq!(by_id("8").attributes["subscriptionPeriod"], "ONE_DECADE");
    assert_eq!(by_id("9").period, None);
    assert_eq!(by_id("10").group_id.as_deref(), Some("77"));
    assert_eq!(by_id("10").group_name, None);
    let grace = shelf.grace_period.unwrap();
    assert_eq!((grace.duration_days, grace.renewal_type), (None, None));
    assert_eq!(grace.attributes["duration"], "FORTY_DAYS");
}

pub(crate) async fn unexpected_types_give_null(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let odd = [
        json!(7),
        json!(1.5),
        json!(true),
        json!("text"),
        json!(["CONSUMABLE"]),
        json!({"name": "x"}),
        json!(u64::MAX),
        json!(1e300),
        json!("12"),
        json!(-1_000_000_000_000_000_000_i64),
    ];
    let mut entries = Vec::new();
    for (number, value) in odd.iter().enumerate() {
        let every = |mut entry: Entry| {
            for name in [
                "productId",
                "name",
                "referenceName",
                "state",
                "inAppPurchaseType",
                "subscriptionPeriod",
                "groupLevel",
                "familySharable",
            ] {
                entry = entry.with(name, value.clone());
            }
            entry
        };
        entries.push(every(coins(&number.to_string())));
        entries.push(every(subscription(
            &number.to_string(),
            &number.to_string(),
        )));
        entries.push(every(group(&number.to_string(), "")));
    }
    let mut settings = grace_period();
    for name in ["optIn", "sandboxOptIn", "duration", "renewalType"] {
        settings = settings.with(name, json!([true]));
    }
    entries.push(settings);
    sync(store, &acme, 0, entries).await;

    let shelf = shelf(store).await;
    assert_eq!(shelf.products.len(), 2 * odd.len());
    for product in &shelf.products {
        let value = &product.attributes["name"];
        let text = value.as_str();
        assert_eq!(product.product_id.as_deref(), text, "{value}");
        assert_eq!(product.name.as_deref(), text, "{value}");
        assert_eq!(product.state.as_deref(), text, "{value}");
        assert_eq!(product.period, None, "{value}");
        let seven = (value == &json!(7)).then_some(7);
        assert_eq!(product.group_level, seven, "{value}");
        assert_eq!(product.family_sharable, value.as_bool(), "{value}");
        if product.group_id.is_some() {
            assert_eq!(product.group_name.as_deref(), text, "{value}");
        } else {
            assert_eq!(product.kind, None, "{value}");
        }
    }
    for group in &shelf.subscription_groups {
        let value = &group.attributes["referenceName"];
        assert_eq!(group.name.as_deref(), value.as_str());
    }
    let grace = shelf.grace_period.unwrap();
    let settings = (grace.opt_in, grace.sandbox_opt_in, grace.duration_days);
    assert_eq!(settings, (None, None, None));
    assert_eq!(grace.renewal_type, None);
}

pub(crate) async fn groups_name_their_subscriptions(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(
        store,
        &acme,
        0,
        [
            group("7", "Pro"),
            group("6", "Basic"),
            subscription("8", "7"),
        ],
    )
    .await;
    let names = async || {
        let shelf = shelf(store).await;
        let groups = shelf
            .subscription_groups
            .into_iter()
            .map(|group| group.name.unwrap());
        (
            groups.collect::<Vec<_>>(),
            shelf.products[0].group_name.clone().unwrap(),
        )
    };
    assert_eq!(
        names().await,
        (vec!["Basic".to_owned(), "Pro".to_owned()], "Pro".to_owned())
    );
    sync(
        store,
        &acme,
        1,
        [
            group("7", "Plus"),
            group("6", "Basic"),
            subscription("8", "7"),
        ],
    )
    .await;
    assert_eq!(names().await.1, "Plus");
    // What is gone still has a name.
    sync(store, &acme, 2, [group("6", "Basic")]).await;
    let shelf = store.read_shelf(&acme, Removed::Included).await.unwrap();
    assert!(shelf.products[0].removed_at.is_some());
    assert_eq!(shelf.products[0].group_name.as_deref(), Some("Plus"));
}

pub(crate) async fn a_grace_period_is_read_or_unset_or_unknown(store: &dyn Store) {
    let acme = add(store, "acme").await;
    assert_eq!(shelf(store).await.grace_period, None);

    let settings = [
        ("THREE_DAYS", 3, "ALL_RENEWALS", "all_renewals"),
        ("SIXTEEN_DAYS", 16, "PAID_TO_PAID_ONLY", "paid_to_paid_only"),
        ("TWENTY_EIGHT_DAYS", 28, "ALL_RENEWALS", "all_renewals"),
    ];
    for (minute, (duration, days, apple, renewal)) in (0..).zip(settings) {
        let entry = grace_period()
            .with("duration", duration)
            .with("renewalType", apple);
        sync(store, &acme, minute, [entry.clone()]).await;
        let expected = GracePeriod {
            project_id: "acme".to_owned(),
            opt_in: Some(true),
            sandbox_opt_in: Some(false),
            duration_days: Some(days),
            renewal_type: Some(renewal.to_owned()),
            checked_at: Some(at(minute)),
            changed_at: at(minute),
            attributes: serde_json::to_value(entry.attributes).unwrap(),
        };
        assert_eq!(shelf(store).await.grace_period, Some(expected));
    }

    let unset = Entry::new(Kind::GracePeriod, "6446901002");
    sync(store, &acme, 9, [unset]).await;
    let grace = shelf(store).await.grace_period.unwrap();
    assert_eq!((grace.opt_in, grace.duration_days), (None, None));
    assert_eq!(grace.attributes, json!({}));
    assert_eq!(grace.checked_at, Some(at(9)));
}

pub(crate) async fn removed_entries_are_left_out_unless_asked_for(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(
        store,
        &acme,
        0,
        [coins("1"), coins("2"), group("6", "Old"), group("7", "Pro")],
    )
    .await;
    sync(store, &acme, 1, [coins("2"), group("7", "Pro")]).await;

    let left = shelf(store).await;
    assert_eq!(
        (left.products.len(), left.subscription_groups.len()),
        (1, 1)
    );
    assert_eq!(left.products[0].store_id, "2");
    let all = store.read_shelf(&acme, Removed::Included).await.unwrap();
    assert_eq!((all.products.len(), all.subscription_groups.len()), (2, 2));
    assert_eq!(all.products[0].removed_at, Some(at(1)));
    assert_eq!(all.subscription_groups[0].removed_at, Some(at(1)));
    assert_eq!(all.products[1].removed_at, None);
}

pub(crate) async fn products_come_by_product_id(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let named = |store_id: &str, product_id: &str| coins(store_id).with("productId", product_id);
    let entries = [
        named("1", "b"),
        named("2", "a.b"),
        named("3", "B"),
        named("4", "a"),
        named("5", "a-b"),
        named("6", "ä"),
        coins("0").with("productId", Value::Null),
    ];
    sync(store, &acme, 0, entries).await;
    let products = shelf(store).await.products;
    let order: Vec<_> = products
        .iter()
        .map(|one| one.product_id.as_deref())
        .collect();
    assert_eq!(
        order,
        [
            Some("B"),
            Some("a"),
            Some("a-b"),
            Some("a.b"),
            Some("b"),
            Some("ä"),
            None
        ]
    );
}

pub(crate) async fn history_can_be_narrowed(store: &dyn Store) {
    let acme = add(store, "acme").await;
    sync(
        store,
        &acme,
        0,
        [coins("1"), group("7", "Pro"), subscription("8", "7")],
    )
    .await;
    sync(
        store,
        &acme,
        1,
        [
            coins("1").with("name", "x"),
            group("7", "Plus"),
            subscription("8", "7"),
        ],
    )
    .await;
    sync(
        store,
        &acme,
        2,
        [group("7", "Plus"), subscription("8", "7")],
    )
    .await;

    let found = async |filter: HistoryFilter| {
        let lines = store.read_history(&acme, &filter).await.unwrap();
        lines
            .into_iter()
            .map(|line| format!("{} {} {}", line.revision, line.op, line.store_id))
            .collect::<Vec<_>>()
    };
    let all = HistoryFilter::default();
    assert_eq!(
        found(all.clone()).await,
        [
            "3 removed 1",
            "2 updated 7",
            "2 updated 1",
            "1 added 8",
            "1 added 7",
            "1 added 1"
        ]
    );
    let kind = HistoryFilter {
        kind: Some(Kind::SubscriptionGroup),
        ..all.clone()
    };
    assert_eq!(found(kind).await, ["2 updated 7", "1 added 7"]);
    let product = |name: &str| HistoryFilter {
        product: Some(name.to_owned()),
        ..HistoryFilter::default()
    };
    assert_eq!(
        found(product("com.example.coins1")).await,
        ["3 removed 1", "2 updated 1", "1 added 1"]
    );
    assert_eq!(found(product("7")).await, ["2 updated 7", "1 added 7"]);
    assert_eq!(found(product("1")).await, [""; 0], "it has a product id");
    let between = HistoryFilter {
        since: Some(at(1)),
        until: Some(at(2)),
        ..all.clone()
    };
    assert_eq!(found(between).await, ["2 updated 7", "2 updated 1"]);
    let newest = HistoryFilter {
        limit: Some(2),
        ..all
    };
    assert_eq!(found(newest).await, ["3 removed 1", "2 updated 7"]);
    assert_eq!(history(store, &acme).await.len(), 6);
}

pub(crate) async fn a_status_tells_how_a_project_fares(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let entries = [
        coins("1"),
        coins("2"),
        group("7", "Pro"),
        subscription("8", "7"),
        subscription("9", "7"),
        subscription("10", "7"),
        grace_period(),
    ];
    sync(store, &acme, 0, entries.clone()).await;
    sync(store, &acme, 1, entries.into_iter().skip(1)).await;
    let lease = claim(store, &acme, 2).await;
    let nothing = Plan::nothing();
    let failed = Run {
        outcome: Outcome::Failed,
        covered: [].into(),
        error: Some(refusal()),
        ..run(&nothing, 2)
    };
    let after = Aftermath { ..aftermath() };
    store
        .commit(&lease, &nothing, &failed, &after)
        .await
        .unwrap();
    let held = claim(store, &acme, 3).await;

    let status = store.read_status(&acme).await.unwrap();
    assert_eq!(status.project, store.load_project(&acme).await.unwrap());
    assert_eq!(status.revision, 2);
    assert_eq!(status.last_attempt_at, Some(at(2)));
    assert_eq!(status.last_success_at, Some(at(1)));
    assert_eq!(status.outcome, Some(Outcome::Failed));
    assert_eq!(status.error, Some(refusal()));
    assert_eq!(status.consecutive_failures, 1);
    assert_eq!(status.next_due_at, None);
    assert_eq!(
        status.covered_at,
        Kind::ALL.map(|kind| (kind, at(1))).into()
    );
    let present = [
        (Kind::InAppPurchase, 1),
        (Kind::SubscriptionGroup, 1),
        (Kind::Subscription, 3),
        (Kind::GracePeriod, 1),
    ];
    assert_eq!(status.present, present.into());
    assert_eq!(status.hold, None);
    assert_eq!(status.leased_until, Some(held.until));
}

pub(crate) async fn statuses_come_by_id(store: &dyn Store) {
    assert_eq!(store.read_statuses().await.unwrap(), []);
    for name in ["b", "C", "a"] {
        let project = add(store, name).await;
        sync(store, &project, 0, [coins("1")]).await;
    }
    let statuses = store.read_statuses().await.unwrap();
    let mut expected = Vec::new();
    for name in ["C", "a", "b"] {
        expected.push(store.read_status(&id(name)).await.unwrap());
    }
    assert_eq!(statuses, expected);
}
