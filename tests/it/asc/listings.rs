//! Lists: complete or an error, whatever their pages say.

use super::*;

#[tokio::test]
async fn in_app_purchases_come_whole_at_a_request_for_200() {
    for (count, cost) in [(0, 1), (1, 1), (200, 1), (201, 2), (1000, 5)] {
        let simulator = serving(app().with_in_app_purchases(count)).await;
        let (session, meter) = session(&simulator);
        let entries = session.fetch_in_app_purchases(APP).await.unwrap();
        assert_eq!(ids(&entries).len(), count);
        assert_eq!(requests(&meter), cost, "{count} in-app purchases");
    }
}

#[tokio::test]
async fn only_cut_groups_are_paged() {
    // (subscriptions in each of two groups, requests)
    for (each, cost) in [
        (0, 1),
        (1, 1),
        (49, 1),
        (50, 1),
        (51, 3),
        (60, 3),
        (200, 3),
        (201, 5),
    ] {
        let simulator = serving(app().with_groups(2, each)).await;
        let (session, meter) = session(&simulator);
        let groups = session.fetch_groups(APP).await.unwrap();
        let subscriptions = groups.subscriptions.unwrap();
        assert_eq!(
            (groups.groups.len(), ids(&subscriptions).len()),
            (2, 2 * each)
        );
        assert_eq!(requests(&meter), cost, "{each} subscriptions in each group");
        for entry in &subscriptions {
            let parent = entry.parent.as_ref().unwrap();
            let state = simulator.state();
            let group = state
                .app(APP)
                .unwrap()
                .subscription_groups
                .iter()
                .find(|group| group.id == parent.as_str());
            assert!(
                group
                    .unwrap()
                    .subscriptions
                    .iter()
                    .any(|it| it.id == entry.key.store_id.as_str())
            );
        }
    }
}

#[tokio::test]
async fn many_cut_groups_leave_another_listing_a_place_at_each_page() {
    const GROUPS: usize = 40;
    let simulator = serving(app().with_in_app_purchases(2_000).with_groups(GROUPS, 60)).await;
    simulator.set_latency(Duration::from_millis(20));
    let (session, _) = session(&simulator);
    let (purchases, groups) = tokio::join!(
        session.fetch_in_app_purchases(APP),
        session.fetch_groups(APP)
    );
    assert_eq!(purchases.unwrap().len(), 2_000);
    assert_eq!(groups.unwrap().subscriptions.unwrap().len(), 60 * GROUPS);

    let sent: Vec<bool> = simulator
        .requests()
        .iter()
        .map(|it| it.path.ends_with("/inAppPurchasesV2"))
        .collect();
    let between = sent.split(|is_page_of_purchases| *is_page_of_purchases);
    // Without a place of its own a page stood behind all that were left.
    let most = between.map(<[bool]>::len).rev().skip(1).max().unwrap();
    assert!(
        most < GROUPS / 2,
        "{most} lists of groups between two pages"
    );
}

#[tokio::test]
async fn without_totals_a_group_of_just_50_may_be_cut_and_one_of_49_is_not() {
    for (each, cost) in [(49, 1), (50, 2), (51, 2)] {
        let simulator = serving(app().with_groups(1, each)).await;
        simulator.inject(Fault::new("", FaultKind::NoTotal));
        let (session, meter) = session(&simulator);
        let subscriptions = session
            .fetch_groups(APP)
            .await
            .unwrap()
            .subscriptions
            .unwrap();
        assert_eq!(ids(&subscriptions).len(), each);
        assert_eq!(requests(&meter), cost, "{each} subscriptions");
    }
}

#[tokio::test]
async fn a_group_with_a_linked_subscription_missing_is_paged() {
    let simulator = serving(app().with_groups(2, 3)).await;
    simulator.inject(Fault::new("subscriptionGroups", FaultKind::DropIncluded).times(1));
    let (session, _) = session(&simulator);
    let subscriptions = session
        .fetch_groups(APP)
        .await
        .unwrap()
        .subscriptions
        .unwrap();
    assert_eq!(ids(&subscriptions).len(), 6);
}

#[tokio::test]
async fn every_form_of_the_last_page_ends_the_list() {
    for form in [NextForm::Absent, NextForm::Null, NextForm::Empty] {
        let simulator = serving(app().with_in_app_purchases(201)).await;
        simulator.inject(Fault::new("", FaultKind::NextForm(form)));
        let (session, meter) = session(&simulator);
        assert_eq!(
            session.fetch_in_app_purchases(APP).await.unwrap().len(),
            201
        );
        assert_eq!(requests(&meter), 2, "{form:?}");
    }
}

#[tokio::test]
async fn a_torn_listing_is_read_again() {
    let torn = [
        FaultKind::RepeatRow,
        FaultKind::SkipRow,
        FaultKind::TotalOff(1),
        FaultKind::TotalOff(-1),
        FaultKind::TotalPerPage(vec![401, 402, 402]),
    ];
    for kind in torn {
        let simulator = serving(app().with_in_app_purchases(401)).await;
        let pages = if matches!(kind, FaultKind::TotalPerPage(_)) {
            2
        } else {
            1
        };
        simulator.inject(Fault::new("inAppPurchasesV2", kind.clone()).times(pages));
        let (session, meter) = session(&simulator);
        assert_eq!(
            ids(&session.fetch_in_app_purchases(APP).await.unwrap()).len(),
            401,
            "{kind:?}"
        );
        assert!(
            (4..=6).contains(&requests(&meter)),
            "{kind:?}: {}",
            requests(&meter)
        );
        assert_eq!(
            meter.cost().retries,
            0,
            "reading again is no retry of a request"
        );
    }
}

#[tokio::test]
async fn a_listing_that_is_torn_each_time_is_an_error() {
    let simulator = serving(app().with_in_app_purchases(3)).await;
    simulator.inject(Fault::new("inAppPurchasesV2", FaultKind::TotalOff(1)));
    let (session, meter) = session(&simulator);
    let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Torn(_)), "{error}");
    assert_eq!(requests(&meter), 3);
    assert_eq!(
        error.diagnosis(session.identity()).code,
        Code::UpstreamUnexpected
    );
}

#[tokio::test]
async fn an_edit_between_two_pages_is_noticed() {
    let simulator = serving(app().with_in_app_purchases(399)).await;
    // The first page comes slowly enough for an edit to happen before the second is asked for.
    let (session, _) = session(&simulator);
    let edit = async {
        simulator.wait_for_requests(1).await;
        simulator.edit(|state| state.app_mut(APP).unwrap().in_app_purchases.remove(0));
    };
    let (entries, ()) = tokio::join!(session.fetch_in_app_purchases(APP), edit);
    let state = simulator.state();
    let there: BTreeSet<_> = state
        .app(APP)
        .unwrap()
        .in_app_purchases
        .iter()
        .map(|it| it.id.as_str())
        .collect();
    let entries = entries.unwrap();
    // Depending on who was first, the edit came before, between or after the pages; nothing is missing in any case.
    assert!(there.is_subset(&ids(&entries)));
}

#[tokio::test]
async fn a_list_without_end_is_refused_at_a_thousand_pages() {
    // Each page names another one, and none repeats.
    let simulator = serving(app()).await;
    let page = |number: usize| {
        let next = format!(
            "{}/v1/apps/{APP}/inAppPurchasesV2?cursor={number}",
            simulator.base_url()
        );
        json!({ "data": [{ "type": "inAppPurchases", "id": number.to_string() }], "links": { "next": next } })
    };
    for number in 0..1001 {
        simulator.inject(Fault::new("", FaultKind::Body(page(number).to_string())).times(1));
    }
    let (session, meter) = session(&simulator);
    let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
    assert!(
        matches!(error.failure, Failure::OverLimit(Limit::Pages)),
        "{error}"
    );
    let told = error.diagnosis(session.identity());
    assert!(told.sentence.contains("more than 1000 pages"), "{told}");
    assert_eq!(requests(&meter), 1000);
}
