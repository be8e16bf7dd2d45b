//! Answers that are not what was asked for: none of them is taken for a complete listing.

use super::*;

/// A simulator whose next answer to requests of this path has this body.
async fn answering(path: &str, body: serde_json::Value) -> Simulator {
    let app = app()
        .with_in_app_purchases(2)
        .with_groups(2, 2)
        .with_grace_period();
    let simulator = serving(app).await;
    simulator.inject(Fault::new(path, FaultKind::Body(body.to_string())));
    simulator
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_no_listing() {
    let other = |kind: &str| json!({ "data": [{ "type": kind, "id": "1" }], "links": {} });
    let purchases = |body| async move {
        let simulator = answering("inAppPurchasesV2", body).await;
        session(&simulator)
            .0
            .fetch_in_app_purchases(APP)
            .await
            .map(|entries| entries.len())
    };
    for body in [
        other("apps"),
        other("subscriptions"),
        other(""),
        json!({ "data": [{ "type": "inAppPurchases", "id": "" }] }),
        json!({ "data": [{ "type": "inAppPurchases", "id": "1\u{0}" }] }),
        json!({ "data": [{ "type": "inAppPurchases", "id": 1 }] }),
        json!({ "data": [{ "type": "inAppPurchases" }] }),
        json!({ "data": null }),
        json!({ "data": {} }),
        json!({}),
        json!([]),
    ] {
        let error = purchases(body.clone()).await.unwrap_err();
        assert!(
            matches!(error.failure, Failure::Unexpected(_)),
            "{body}: {error}"
        );
    }
    assert_eq!(purchases(json!({ "data": [] })).await.unwrap(), 0);

    let simulator = answering("/subscriptionGroups", other("subscriptions")).await;
    assert!(session(&simulator).0.fetch_groups(APP).await.is_err());
    let simulator = answering("/v1/apps$", other("inAppPurchases")).await;
    assert!(session(&simulator).0.fetch_apps().await.is_err());
}

#[tokio::test]
async fn another_app_is_not_this_one() {
    for (kind, id) in [("apps", "999"), ("inAppPurchases", APP)] {
        let simulator =
            answering("1000000001$", json!({ "data": { "type": kind, "id": id } })).await;
        let error = session(&simulator).0.fetch_app(APP).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Unexpected(_)), "{error}");
    }
}

#[tokio::test]
async fn a_grace_period_is_never_guessed_to_be_unset() {
    let app = |relationship: serde_json::Value| json!({ "data": { "type": "apps", "id": APP, "relationships": { "subscriptionGracePeriod": relationship } } });
    // Linked, and it did not come.
    for included in [json!(null), json!([])] {
        let mut body = app(json!({ "data": { "type": "subscriptionGracePeriods", "id": APP } }));
        body["included"] = included;
        let simulator = answering("1000000001$", body).await;
        let error = session(&simulator).0.fetch_app(APP).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Unexpected(_)), "{error}");
    }
    // Told to be unset.
    for relationship in [json!({}), json!({ "data": null })] {
        let simulator = answering("1000000001$", app(relationship)).await;
        let (session, meter) = session(&simulator);
        assert!(
            session
                .fetch_app(APP)
                .await
                .unwrap()
                .1
                .attributes
                .is_empty()
        );
        assert_eq!(requests(&meter), 1);
    }
    // Not told: it is asked for by itself.
    let untold = json!({ "data": { "type": "apps", "id": APP } });
    let simulator = answering("1000000001$", untold.clone()).await;
    assert_eq!(
        session(&simulator)
            .0
            .fetch_app(APP)
            .await
            .unwrap()
            .1
            .attributes["duration"],
        "SIXTEEN_DAYS"
    );
    let simulator = serving(super::app()).await;
    simulator.inject(Fault::new(
        "1000000001$",
        FaultKind::Body(untold.to_string()),
    ));
    assert!(
        session(&simulator)
            .0
            .fetch_app(APP)
            .await
            .unwrap()
            .1
            .attributes
            .is_empty()
    );
}

#[tokio::test]
async fn a_subscription_in_two_groups_or_in_none_is_a_torn_listing() {
    let group = |id: &str, subscription: &str| {
        let data = json!([{ "type": "subscriptions", "id": subscription }]);
        json!({ "type": "subscriptionGroups", "id": id, "relationships": { "subscriptions": { "data": data } } })
    };
    let subscription = |id: &str| json!({ "type": "subscriptions", "id": id });
    let two =
        json!({ "data": [group("1", "7"), group("2", "7")], "included": [subscription("7")] });
    let none =
        json!({ "data": [group("1", "7")], "included": [subscription("7"), subscription("8")] });
    for body in [none, two] {
        let simulator = answering("subscriptionGroups$", body.clone()).await;
        // The second group, for the subscription that the first took, is paged.
        simulator.inject(Fault::new(
            "/subscriptions",
            FaultKind::Body(json!({ "data": [subscription("7")] }).to_string()),
        ));
        let error = session(&simulator).0.fetch_groups(APP).await.err().unwrap();
        assert!(matches!(error.failure, Failure::Torn(_)), "{error}");
    }
}

#[tokio::test]
async fn a_group_has_what_its_listing_says() {
    let rows = |count: usize| -> Vec<_> {
        (0..count)
            .map(|id| json!({ "type": "subscriptions", "id": format!("s{id}") }))
            .collect()
    };
    // (what the group says of its subscriptions, what its own list has, whether that is believed)
    let linkage = |count: usize| rows(count);
    let cases = [
        (
            json!({ "data": linkage(50), "meta": { "paging": { "total": 60 } } }),
            60,
            true,
        ),
        (
            json!({ "data": linkage(50), "meta": { "paging": { "total": 60 } } }),
            50,
            false,
        ),
        (
            json!({ "data": linkage(3), "meta": { "paging": { "total": 4 } } }),
            3,
            false,
        ),
        (
            json!({ "data": linkage(10), "meta": { "paging": { "limit": 10 } } }),
            13,
            true,
        ),
        (
            json!({ "data": linkage(10), "links": { "next": "https://h/v1/x" } }),
            13,
            true,
        ),
        (json!({ "data": linkage(50) }), 49, false),
        (json!({ "meta": { "paging": { "total": 2 } } }), 2, true),
        (json!({}), 2, true),
    ];
    for (linkage, listed, believed) in cases {
        let group = json!({ "type": "subscriptionGroups", "id": "1", "relationships": { "subscriptions": linkage } });
        let body = json!({ "data": [group], "included": rows(linkage["data"].as_array().map_or(0, Vec::len)) });
        let simulator = answering("subscriptionGroups$", body).await;
        let list = json!({ "data": rows(listed) }).to_string();
        simulator.inject(Fault::new("/subscriptions", FaultKind::Body(list)));
        let groups = session(&simulator).0.fetch_groups(APP).await;
        match groups {
            Ok(groups) => assert_eq!(
                (groups.subscriptions.unwrap().len(), believed),
                (listed, true),
                "{linkage}"
            ),
            Err(error) => {
                assert!(
                    !believed && matches!(error.failure, Failure::Torn(_)),
                    "{linkage}: {error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_list_that_may_go_on_is_not_taken_for_all() {
    let rows: Vec<_> = (0..50)
        .map(|id| json!({ "type": "inAppPurchases", "id": id.to_string() }))
        .collect();
    let cases = [
        (json!({ "limit": 200, "nextCursor": "AB" }), false),
        (
            json!({ "limit": 200, "nextCursor": "AB", "total": 50 }),
            false,
        ),
        (json!({ "limit": 50 }), false),
        (json!({ "limit": 50, "total": 50 }), true),
        (
            json!({ "limit": 50, "total": 50, "nextCursor": null }),
            true,
        ),
        (json!({ "limit": 200, "nextCursor": "" }), true),
        (json!({ "limit": 200 }), true),
    ];
    for (paging, whole) in cases {
        let simulator = answering(
            "inAppPurchasesV2",
            json!({ "data": rows, "meta": { "paging": paging } }),
        )
        .await;
        let listed = session(&simulator).0.fetch_in_app_purchases(APP).await;
        assert_eq!(listed.is_ok(), whole, "{paging}");
    }
}

#[tokio::test]
async fn a_group_that_goes_while_it_is_read_is_a_torn_listing() {
    let simulator = serving(app().with_groups(2, 51)).await;
    simulator.inject(Fault::new("/subscriptions", status(404)).times(1));
    let (session, _) = session(&simulator);
    let groups = session.fetch_groups(APP).await.unwrap();
    assert_eq!(
        groups.subscriptions.unwrap().len(),
        102,
        "it was read again"
    );
}

#[tokio::test]
async fn a_5xx_is_asked_again_when_it_says_and_not_before() {
    let unavailable = |retry_after: &str| FaultKind::Status {
        status: 503,
        code: None,
        retry_after: Some(retry_after.to_owned()),
        html: true,
        empty: false,
    };
    let simulator = serving(app()).await;
    simulator.inject(Fault::new("", unavailable("1")).times(1));
    let (session, meter) = session(&simulator);
    session.fetch_app(APP).await.unwrap();
    let sent = simulator.requests();
    assert!(
        (sent[1].at - sent[0].at).num_milliseconds() >= 1000,
        "it did not wait"
    );

    simulator.inject(Fault::new("", unavailable("3000")));
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Unavailable(_)), "{error}");
    assert_eq!(
        (error.resume_in, requests(&meter)),
        (Some(Duration::from_mins(50)), 3)
    );
}

#[tokio::test]
async fn what_a_server_says_is_bounded_and_never_a_token() {
    let simulator = serving(app()).await;
    let detail = format!(
        "you sent Bearer eyJhbGciOiJFUzI1NiJ9.e30.x {}",
        "x".repeat(1 << 20)
    );
    let body =
        json!({ "errors": [{ "id": "i".repeat(5000), "code": "C\u{1b}[31m", "detail": detail }] });
    let (session, _) = session(&simulator);
    for kind in [
        FaultKind::Body(body.to_string()),
        FaultKind::Body(format!("\"{}", "y".repeat(1 << 20))),
    ] {
        simulator.inject(Fault::new("inAppPurchasesV2", kind));
        let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
        let told = error.diagnosis(session.identity()).to_string();
        simulator.clear_faults();
        assert!(
            told.len() < 2000 && !told.contains("eyJ") && !told.contains('\u{1b}'),
            "{told}"
        );
    }
}
