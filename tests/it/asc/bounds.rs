//! The limits of one answer, at their edges.

use super::*;
use crate::raw::{Raw, Script};

/// What comes of a page of in-app purchases with this body.
async fn read(simulator: &Simulator, body: String) -> (Result<usize, Failure>, u64) {
    simulator.clear_faults();
    simulator.inject(Fault::new("inAppPurchasesV2", FaultKind::Body(body)));
    let (session, meter) = session(simulator);
    let listed = session.fetch_in_app_purchases(APP).await;
    let listed = listed.map(|entries| entries.len()).map_err(|error| {
        let told = error.diagnosis(session.identity());
        assert_eq!(told.code, Code::UpstreamUnexpected, "{told}");
        error.failure
    });
    (listed, requests(&meter))
}

/// A page with this attribute.
fn page_with(attribute: &str) -> String {
    format!(
        "{{\"data\":[{{\"type\":\"inAppPurchases\",\"id\":\"1\",\"attributes\":{{\"a\":{attribute}}}}}]}}"
    )
}

#[tokio::test]
async fn a_body_may_have_16_mib_and_no_more() {
    let simulator = serving(app()).await;
    let page = page_with("1");
    for (length, taken) in [(Limit::BODY, true), (Limit::BODY + 1, false)] {
        let blanks = " ".repeat(length - page.len());
        let (listed, requests) = read(&simulator, page.clone() + &blanks).await;
        match listed {
            Ok(count) => assert_eq!((count, taken), (1, true)),
            Err(failure) => {
                let over = matches!(failure, Failure::OverLimit(Limit::Body));
                assert!(over && !taken, "{length}: {failure}");
                assert_eq!(failure.to_string(), "a body of more than 16 MiB");
            }
        }
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn values_may_stand_64_deep_and_no_deeper() {
    let simulator = serving(app()).await;
    // The document, its rows, the row and its attributes are four.
    for (open, depth, taken) in [
        ("[", 60, true),
        ("[", 61, false),
        ("[", 5_000_000, false),
        ("{\"a\":", 60, true),
        ("{\"a\":", 61, false),
        ("{\"a\":", 1_000_000, false),
    ] {
        let (inner, close) = if open == "[" { ("", "]") } else { ("0", "}") };
        let nested = open.repeat(depth) + inner + &close.repeat(depth);
        let (listed, requests) = read(&simulator, page_with(&nested)).await;
        match listed {
            Ok(count) => assert_eq!((count, taken), (1, true)),
            Err(failure) => {
                let over = matches!(failure, Failure::OverLimit(Limit::Depth));
                assert!(over && !taken, "{depth}: {failure}");
                assert!(failure.to_string().contains("more than 64 "), "{failure}");
            }
        }
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn what_would_fill_the_memory_is_not_decoded() {
    let simulator = serving(app()).await;
    let many = |value: &str, count: usize| {
        let values = format!("{value},").repeat(count);
        page_with(&format!("[{values}0]"))
    };
    for (value, fits, too_many) in [
        ("0", 800_000, 1_000_000),
        ("[]", 800_000, 1_000_000),
        ("\"\"", 800_000, 1_000_000),
        ("[0]", 200_000, 300_000),
        ("{\"a\":0}", 70_000, 90_000),
        ("{\"a\":{\"a\":{}}}", 35_000, 50_000),
    ] {
        assert_eq!(
            read(&simulator, many(value, fits)).await.0.ok(),
            Some(1),
            "{value}"
        );
        let (listed, requests) = read(&simulator, many(value, too_many)).await;
        let failure = listed.unwrap_err();
        let over = matches!(failure, Failure::OverLimit(Limit::Memory));
        assert!(over, "{value}: {failure}");
        assert!(
            failure.to_string().contains("more than 64 MiB"),
            "{failure}"
        );
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn the_pages_of_a_listing_share_its_memory() {
    let simulator = serving(app()).await;
    let page = |number: usize| {
        json!({
            "data": [{ "type": "inAppPurchases", "id": number.to_string(), "attributes": { "a": vec![0; 90_000] } }],
            "links": { "next": format!("{}/v1/apps/{APP}/inAppPurchasesV2?cursor={number}", simulator.base_url()) },
        })
    };
    for number in 0..20 {
        simulator.inject(Fault::new("", FaultKind::Body(page(number).to_string())).times(1));
    }
    let (session, meter) = session(&simulator);
    let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
    let over = matches!(error.failure, Failure::OverLimit(Limit::Memory));
    assert!(over, "{error}");
    // Each takes a tenth of it by the reckoning.
    assert_eq!(requests(&meter), 11);
}

#[tokio::test]
async fn the_lists_of_all_groups_that_were_cut_share_their_memory() {
    let simulator = serving(app()).await;
    // None of their subscriptions comes with them.
    let group = |number: usize| {
        let subscriptions = json!({
            "data": [{ "type": "subscriptions", "id": format!("s{number}") }],
            "meta": { "paging": { "total": 1, "limit": 50 } },
        });
        json!({ "type": "subscriptionGroups", "id": number.to_string(), "relationships": { "subscriptions": subscriptions } })
    };
    for (groups, taken) in [(8, true), (20, false)] {
        simulator.clear_faults();
        let listing = json!({ "data": (0..groups).map(group).collect::<Vec<_>>() });
        let path = format!("apps/{APP}/subscriptionGroups");
        simulator.inject(Fault::new(path, FaultKind::Body(listing.to_string())));
        for number in 0..groups {
            let page = json!({
                "data": [{ "type": "subscriptions", "id": format!("s{number}"), "attributes": { "a": vec![0; 90_000] } }],
            });
            let path = format!("subscriptionGroups/{number}/subscriptions");
            simulator.inject(Fault::new(path, FaultKind::Body(page.to_string())));
        }
        let (session, _) = session(&simulator);
        let listed = session.fetch_groups(APP).await.unwrap().subscriptions;
        match listed {
            Ok(subscriptions) => assert_eq!((subscriptions.len(), taken), (8, true)),
            Err(error) => {
                let over = matches!(error.failure, Failure::OverLimit(Limit::Memory));
                assert!(over && !taken, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn the_largest_page_that_apple_can_send_is_taken() {
    // 200 groups of 50 subscriptions, with every attribute, and the links that Apple adds.
    let simulator = serving(app().with_groups(200, 50)).await;
    let (session, meter) = session(&simulator);
    let groups = session.fetch_groups(APP).await.unwrap();
    assert_eq!(groups.subscriptions.unwrap().len(), 10_000);
    assert_eq!(requests(&meter), 1);
}

#[tokio::test]
async fn of_an_error_64_kib_are_read() {
    let document = json!({ "errors": [{ "id": "told", "code": "FORBIDDEN_ERROR" }] }).to_string();
    let simulator = serving(app()).await;
    for (length, known) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let body = document.clone() + &" ".repeat(length - document.len());
        let raw = Raw::serving(move || Script::answer(403, "", [body.clone().into_bytes()])).await;
        let options = Options {
            base_url: Url::parse(&format!("http://{}", raw.address)).unwrap(),
            ..options(&simulator)
        };
        let error = session_with(&simulator, options)
            .0
            .fetch_apps()
            .await
            .unwrap_err();
        assert!(
            matches!(error.failure, Failure::Forbidden { .. }),
            "{error}"
        );
        assert_eq!(error.apple_error_id.is_some(), known, "{length}");
    }
}
