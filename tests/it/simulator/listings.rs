//! Listings: pages, cursors, cut includes, filters, sorts, and the parameters that are refused.

use std::num::NonZeroU32;

use catalog_sync::simulator::{App, InAppPurchase, Simulator, State};
use serde_json::json;

use super::client::{Client, KEY};

const APP: &str = "/v1/apps/1000000001";

async fn start(app: App) -> (Simulator, Client) {
    let simulator = Simulator::start(State::with_app(app)).await.unwrap();
    let client = Client::of(&simulator);
    (simulator, client)
}

fn app() -> App {
    App::new("1000000001", "com.example.app", "Example")
}

#[tokio::test]
async fn a_thousand_products_come_in_five_pages() {
    let (simulator, client) = start(app().with_in_app_purchases(1000)).await;
    let pages = client
        .pages(&format!(
            "{APP}/inAppPurchasesV2?limit=200&sort=name&fields[inAppPurchases]=name"
        ))
        .await;
    assert_eq!(pages.len(), 5);
    let mut ids = Vec::new();
    for page in &pages {
        assert_eq!(page.body["meta"]["paging"]["total"], 1000);
        assert_eq!(page.body["meta"]["paging"]["limit"], 200);
        assert_eq!(
            page.body["data"][0]["attributes"]
                .as_object()
                .unwrap()
                .len(),
            1,
            "next keeps the fields"
        );
        let cursor = page.body["meta"]["paging"]["nextCursor"].as_str();
        assert_eq!(cursor.is_some(), page.next().is_some());
        if let Some(next) = page.next() {
            assert!(
                next.starts_with(&format!("{}{APP}/inAppPurchasesV2?", simulator.base_url())),
                "{next}"
            );
            assert!(next.contains(cursor.unwrap()));
        }
        ids.extend(page.ids());
    }
    let held: Vec<String> = simulator.edit(|state| {
        state
            .app("1000000001")
            .unwrap()
            .in_app_purchases
            .iter()
            .map(|p| p.id.clone())
            .collect()
    });
    assert_eq!(ids, held);
    let asked = simulator.requests();
    assert_eq!(asked.len(), 5);
    assert!(
        asked
            .iter()
            .all(|request| request.parameter("limit") == Some("200"))
    );
    assert!(
        asked
            .iter()
            .all(|request| request.status == Some(200) && request.key_id.as_deref() == Some(KEY))
    );
    assert_eq!(
        asked
            .iter()
            .filter(|request| request.parameter("cursor").is_some())
            .count(),
        4
    );
}

#[tokio::test]
async fn a_page_has_fifty_rows_unless_asked() {
    let (_simulator, client) = start(app().with_in_app_purchases(51)).await;
    let pages = client.pages(&format!("{APP}/inAppPurchasesV2")).await;
    assert_eq!(
        pages
            .iter()
            .map(|page| page.ids().len())
            .collect::<Vec<_>>(),
        [50, 1]
    );
    assert_eq!(
        client
            .pages(&format!("{APP}/inAppPurchasesV2?limit=51"))
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn a_listing_is_not_a_snapshot() {
    let (simulator, client) = start(app().with_in_app_purchases(4)).await;
    let first = client
        .good(&format!("{APP}/inAppPurchasesV2?limit=2&sort=name"))
        .await;
    simulator.edit(|state| {
        let purchases = &mut state.app_mut("1000000001").unwrap().in_app_purchases;
        purchases.push(InAppPurchase::new(
            "",
            "com.example.app.early",
            "A product that sorts first",
        ));
    });
    let second = client.good(first.next().unwrap()).await;
    assert_eq!(
        first.ids()[1],
        second.ids()[0],
        "a row came, so one is repeated"
    );
    assert_eq!(second.body["meta"]["paging"]["total"], 5);

    let removed = first.ids()[0].clone();
    assert!(simulator.edit(|state| state.remove_product(&removed)));
    assert!(!simulator.edit(|state| state.remove_product(&removed)));
    assert_eq!(
        client
            .get(&format!("/v2/inAppPurchases/{removed}"))
            .await
            .code(),
        "NOT_FOUND"
    );
    let shrunk = simulator.edit(|state| {
        state
            .app_mut("1000000001")
            .unwrap()
            .in_app_purchases
            .drain(..)
            .count()
    });
    assert_eq!(shrunk, 4);
    let past_the_end = client.good(first.next().unwrap()).await;
    assert_eq!((past_the_end.ids().len(), past_the_end.next()), (0, None));
}

#[tokio::test]
async fn an_include_is_cut_without_a_word_but_its_total() {
    for (each, asked, come) in [
        (9, "", 9),
        (10, "", 10),
        (11, "", 10),
        (50, "&limit[subscriptions]=50", 50),
        (51, "&limit[subscriptions]=50", 50),
        (60, "&limit[subscriptions]=50", 50),
    ] {
        let (_simulator, client) = start(app().with_groups(2, each)).await;
        let answer = client
            .good(&format!(
                "{APP}/subscriptionGroups?include=subscriptions{asked}"
            ))
            .await;
        for group in answer.body["data"].as_array().unwrap() {
            let linkage = &group["relationships"]["subscriptions"];
            assert_eq!(linkage["data"].as_array().unwrap().len(), come);
            assert_eq!(linkage["meta"]["paging"]["total"], each);
            assert_eq!(
                linkage["meta"]["paging"]["limit"],
                if asked.is_empty() { 10 } else { 50 }
            );
        }
        assert_eq!(answer.body["included"].as_array().unwrap().len(), 2 * come);
        let group = &answer.ids()[0];
        let all = client
            .all_ids(&format!(
                "/v1/subscriptionGroups/{group}/subscriptions?limit=200&sort=name"
            ))
            .await;
        assert_eq!(all.len(), each, "the group's own listing has them all");
    }
}

#[tokio::test]
async fn parameters_that_this_request_does_not_take_are_refused_by_name() {
    let (_simulator, client) = start(app().with_in_app_purchases(3).with_groups(1, 1)).await;
    let list = format!("{APP}/inAppPurchasesV2");
    let groups = format!("{APP}/subscriptionGroups");
    let foreign_cursor = {
        let page = client.good(&format!("{list}?limit=1")).await;
        page.body["meta"]["paging"]["nextCursor"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let cases = [
        (format!("{list}?limit=201"), "limit", "INVALID"),
        (format!("{list}?limit=0"), "limit", "INVALID"),
        (format!("{list}?limit=-1"), "limit", "INVALID"),
        (format!("{list}?limit=many"), "limit", "INVALID"),
        (format!("{list}?limit="), "limit", "INVALID"),
        (
            format!("{groups}?include=subscriptions&limit[subscriptions]=51"),
            "limit[subscriptions]",
            "INVALID",
        ),
        (format!("{list}?cursor=bm9uc2Vuc2U"), "cursor", "INVALID"),
        (
            format!("{groups}?cursor={foreign_cursor}"),
            "cursor",
            "INVALID",
        ),
        (format!("{list}?page=2"), "page", "ILLEGAL"),
        (format!("{list}?limit=10&limit=10"), "limit", "ILLEGAL"),
        (
            format!("{list}?include=subscriptions"),
            "include",
            "ILLEGAL",
        ),
        (format!("{groups}?include=prices"), "include", "ILLEGAL"),
        (format!("{list}?sort=productId"), "sort", "ILLEGAL"),
        (
            format!("{list}?fields[inAppPurchases]=name,price"),
            "fields[inAppPurchases]",
            "ILLEGAL",
        ),
        (
            format!("{list}?filter[inAppPurchaseType]=AUTO_RENEWABLE"),
            "filter[inAppPurchaseType]",
            "ILLEGAL",
        ),
        (format!("{APP}?limit=1"), "limit", "ILLEGAL"),
    ];
    for (path, parameter, code) in cases {
        let answer = client.get(&path).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, format!("PARAMETER_ERROR.{code}").as_str()),
            "{path}"
        );
        assert_eq!(
            answer.body["errors"][0]["source"],
            json!({ "parameter": parameter })
        );
        assert!(
            answer.body["errors"][0]["detail"]
                .as_str()
                .unwrap()
                .contains(parameter),
            "{}",
            answer.text
        );
        assert!(
            answer.header("x-rate-limit").ends_with(';'),
            "it was spent all the same"
        );
    }
}

#[tokio::test]
async fn filters_and_sorts_are_kept_over_pages() {
    let (_simulator, client) = start(app().with_in_app_purchases(9)).await;
    let path = format!(
        "{APP}/inAppPurchasesV2?filter[inAppPurchaseType]=CONSUMABLE,NON_CONSUMABLE&sort=-name&limit=2"
    );
    let names: Vec<String> = client
        .pages(&path)
        .await
        .iter()
        .flat_map(|page| page.body["data"].as_array().unwrap().clone())
        .map(|row| row["attributes"]["name"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = [8, 7, 5, 4, 2, 1]
        .iter()
        .map(|n| format!("Product {n:05}"))
        .collect();
    assert_eq!(names, expected);
    let by_type = client
        .good(&format!(
            "{APP}/inAppPurchasesV2?sort=-inAppPurchaseType,name"
        ))
        .await
        .body;
    assert_eq!(
        by_type["data"][0]["attributes"]["inAppPurchaseType"],
        "NON_RENEWING_SUBSCRIPTION"
    );
    assert_eq!(by_type["data"][8]["attributes"]["name"], "Product 00007");
    let one = client
        .good(&format!(
            "{APP}/inAppPurchasesV2?filter[productId]=com.example.app.product.00003"
        ))
        .await;
    assert_eq!(
        (one.ids().len(), &one.body["meta"]["paging"]["total"]),
        (1, &json!(1))
    );
    let none = client
        .good("/v1/apps?filter[bundleId]=com.example.none")
        .await;
    assert_eq!(none.body["data"], json!([]));
    assert_eq!(
        client
            .all_ids("/v1/apps?filter[bundleId]=com.example.app,com.example.none")
            .await,
        ["1000000001"]
    );
    assert_eq!(
        client
            .all_ids("/v1/apps?filter[id]=1000000001&sort=-sku")
            .await,
        ["1000000001"]
    );
}

#[tokio::test]
async fn no_page_is_longer_than_the_state_allows() {
    let (simulator, client) = start(app().with_in_app_purchases(5).with_groups(3, 3)).await;
    simulator.edit(|state| state.page_limit = NonZeroU32::new(2));
    let rows = async |listing: &str| -> Vec<usize> {
        let pages = client.pages(&format!("{APP}/{listing}")).await;
        for page in &pages {
            assert_eq!(page.body["meta"]["paging"]["limit"], 2);
        }
        pages.iter().map(|page| page.ids().len()).collect()
    };
    assert_eq!(rows("inAppPurchasesV2?limit=200").await, [2, 2, 1]);
    assert_eq!(rows("inAppPurchasesV2").await, [2, 2, 1]);
    assert_eq!(rows("subscriptionGroups?limit=200").await, [2, 1]);

    let page = client
        .good(&format!(
            "{APP}/subscriptionGroups?include=subscriptions&limit[subscriptions]=50"
        ))
        .await;
    let linked = &page.body["data"][0]["relationships"]["subscriptions"];
    assert_eq!(linked["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        linked["meta"]["paging"],
        json!({ "total": 3, "limit": 2 }),
        "a cut tells its total"
    );
    assert_eq!(page.body["included"].as_array().unwrap().len(), 4);

    // Who asks for less gets less.
    assert_eq!(
        client
            .good(&format!("{APP}/inAppPurchasesV2?limit=1"))
            .await
            .ids()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_edit_can_wait_for_a_page() {
    let (simulator, client) = start(app().with_in_app_purchases(4)).await;
    simulator.edit(|state| state.page_limit = NonZeroU32::new(2));
    let first_goes = |state: &mut State| {
        let purchases = &mut state.app_mut("1000000001").unwrap().in_app_purchases;
        drop(purchases.remove(0));
    };
    simulator.edit_at("inAppPurchasesV2", 1, first_goes);
    simulator.edit_at("inAppPurchasesV2?cursor=", 5, |_| panic!("it never comes"));
    client.good(&format!("{APP}/subscriptionGroups")).await;
    let listing = format!("{APP}/inAppPurchasesV2?sort=name");
    let lengths = async || -> Vec<_> {
        let pages = client.pages(&listing).await;
        pages
            .iter()
            .map(|page| {
                (
                    page.ids().len(),
                    page.body["meta"]["paging"]["total"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(
        lengths().await,
        [(2, json!(4)), (1, json!(3))],
        "a row is skipped"
    );
    assert_eq!(
        lengths().await,
        [(2, json!(3)), (1, json!(3))],
        "it is made once"
    );

    simulator.edit_at("inAppPurchasesV2", 0, first_goes);
    simulator.clear_edits();
    assert_eq!(
        lengths().await.len(),
        2,
        "one that was not made can be forgotten"
    );
}
