//! What confirms a removal, against App Store Connect as it answers by id; and what a person decides.

use catalog_sync::{
    catalog::{Answer, Confirmation, Reason, Turn},
    run::HoldEnd,
    simulator::{Key, Role},
    store::{Ended, Removed},
};
use chrono::TimeDelta;

use super::*;

on_both_stores!(
    what_is_gone_is_asked_for_and_goes_in_the_same_run,
    what_a_listing_leaves_out_and_is_there_stays,
    what_cannot_be_asked_for_goes_with_the_second_listing,
    a_page_that_is_not_apples_is_no_404,
    fifty_are_asked_for_in_a_run,
    what_is_asked_for_leaves_the_reserve_alone,
    what_is_removed_from_sale_stays,
    another_app_removes_nothing_of_the_first,
    another_key_removes_nothing_at_once,
    what_is_discarded_stays_until_it_is_listed_again,
    what_was_discarded_can_be_approved_after_all,
    an_approval_refuses_when_a_thing_answers_again,
    a_preview_tells_what_waits,
);

fn purchases(count: usize) -> App {
    App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(count)
        .with_grace_period()
}

/// A listing that looks complete and has all but the first few.
fn leaving_out(bench: &Bench, first: usize) -> Fault {
    let state = bench.simulator.state();
    let listed: Vec<_> = state.app(APP).unwrap().in_app_purchases[first..]
        .iter()
        .map(|it| {
            json!({ "type": "inAppPurchases", "id": it.id, "attributes": {
                "name": it.name, "productId": it.product_id,
            } })
        })
        .collect();
    let body = json!({ "data": listed, "meta": { "paging": { "total": listed.len() } } });
    Fault::new("inAppPurchasesV2", FaultKind::Body(body.to_string()))
}

impl Bench {
    /// The paths asked for since requests were last forgotten that name one thing.
    fn asked(&self) -> usize {
        let requests = self.simulator.requests();
        let by_id = |path: &str| {
            path.contains("/v2/inAppPurchases/") || path.contains("/v1/subscriptions/")
        };
        requests
            .iter()
            .filter(|request| by_id(&request.path))
            .count()
    }

    /// The same project, by a worker that believes a second listing at once.
    fn impatient(&self) -> Engine {
        Engine {
            confirmation: Confirmation {
                again_after: TimeDelta::zero(),
                ..Confirmation::default()
            },
            ..self.engine.clone()
        }
    }

    async fn approve(&self, hold: &catalog_sync::catalog::Hold) -> Report {
        let meter = Arc::new(Meter::default());
        let digest = Some(&hold.digest);
        let run = self.engine.run(&self.id, Trigger::Command, digest, &meter);
        run.await.unwrap()
    }
}

async fn what_is_gone_is_asked_for_and_goes_in_the_same_run(backend: Backend) {
    let bench = Bench::new(purchases(20).with_groups(4, 2), backend).await;
    bench.sync().await;
    bench.edit(|app| {
        app.in_app_purchases.drain(..2);
        app.subscription_groups.remove(0);
    });
    bench.simulator.forget_requests();
    let report = bench.sync().await;
    assert_eq!(report.run.counts.total().removed, 2 + 1 + 2);
    assert_eq!(report.run.cost.requests, 3 + 5);
    assert_eq!(bench.asked(), 4, "and the group by its list");
    assert_eq!(
        (report.run.missing, report.run.outcome),
        (0, Outcome::Succeeded)
    );
    let state = bench.simulator.state();
    assert_eq!(bench.present().await, upstream(state.app(APP).unwrap()));
    let again = bench.sync().await;
    assert_eq!((again.committed.rows, again.run.cost.requests), (0, 3));
}

async fn what_a_listing_leaves_out_and_is_there_stays(backend: Backend) {
    let bench = Bench::new(purchases(20), backend).await;
    bench.sync().await;
    let before = bench.present().await;
    let impatient = bench.impatient();
    for _ in 0..3 {
        bench.simulator.inject(leaving_out(&bench, 3));
        let report = bench.try_sync(&impatient).await.unwrap();
        assert_eq!((report.run.missing, report.waiting.len()), (3, 3));
        assert_eq!(report.run.counts.total().removed, 0);
        bench.simulator.clear_faults();
    }
    assert_eq!(bench.present().await, before);
    let absent = bench.catalog().await.absent;
    assert!(absent.values().all(|it| it.answer == Some(Answer::There)));

    let whole = bench.sync().await;
    assert_eq!(whole.run.missing, 0);
    assert!(bench.catalog().await.absent.is_empty());
}

async fn what_cannot_be_asked_for_goes_with_the_second_listing(backend: Backend) {
    let bench = Bench::new(purchases(20), backend).await;
    bench.sync().await;
    bench.edit(|app| drop(app.in_app_purchases.remove(0)));
    for status in [403, 503] {
        bench.simulator.inject(fault("/v2/inAppPurchases/", status));
        for _ in 0..2 {
            let report = bench.sync().await;
            // What could not be learned of one thing is no failure of the run.
            assert_eq!(report.run.outcome, Outcome::Succeeded);
            assert_eq!(
                (report.run.missing, report.run.counts.total().removed),
                (1, 0)
            );
        }
    }
    let report = bench.try_sync(&bench.impatient()).await.unwrap();
    assert_eq!(
        (report.run.missing, report.run.counts.total().removed),
        (0, 1)
    );
}

async fn a_page_that_is_not_apples_is_no_404(backend: Backend) {
    let bench = Bench::new(purchases(20), backend).await;
    bench.sync().await;
    let before = bench.present().await;
    bench.simulator.inject(leaving_out(&bench, 1));
    bench.simulator.inject(Fault::new(
        "/v2/inAppPurchases/",
        FaultKind::Status {
            status: 404,
            code: None,
            retry_after: None,
            html: true,
            empty: false,
        },
    ));
    let report = bench.sync().await;
    assert_eq!(
        (report.run.missing, report.run.counts.total().removed),
        (1, 0)
    );
    assert_eq!(bench.present().await, before);
}

async fn fifty_are_asked_for_in_a_run(backend: Backend) {
    let bench = Bench::new(purchases(200), backend).await;
    bench.sync().await;
    bench.edit(|app| drop(app.in_app_purchases.drain(..55)));
    bench.simulator.forget_requests();
    let first = bench.sync().await;
    assert_eq!(bench.asked(), 50);
    assert_eq!(
        (first.run.counts.total().removed, first.waiting.len()),
        (50, 5)
    );
    let second = bench.sync().await;
    assert_eq!(
        (second.run.counts.total().removed, second.waiting.len()),
        (5, 0)
    );
}

async fn what_is_asked_for_leaves_the_reserve_alone(backend: Backend) {
    let bench = Bench::new(purchases(100), backend).await;
    bench.sync().await;
    bench.edit(|app| drop(app.in_app_purchases.drain(..30)));
    bench.simulator.edit(|state| {
        state.key_mut("SIMULATOR1").unwrap().hourly_limit = Some(30);
    });
    let meter = Arc::new(Meter::default());
    let run = bench.engine.run(&bench.id, Trigger::Schedule, None, &meter);
    let report = run.await.unwrap();
    assert_eq!(
        report.run.outcome,
        Outcome::Succeeded,
        "the listings are whole"
    );
    let total = report.run.counts.total();
    assert!(total.removed > 0 && report.waiting.len() > 1, "{total:?}");
    assert_eq!(total.removed + report.waiting.len(), 30);
    assert!(
        report.run.cost.budget_left >= Some(1),
        "a key's last requests are others'"
    );
}

async fn what_is_removed_from_sale_stays(backend: Backend) {
    let bench = Bench::new(purchases(3), backend).await;
    bench.sync().await;
    bench.edit(|app| {
        for purchase in &mut app.in_app_purchases {
            purchase.state = Some("DEVELOPER_REMOVED_FROM_SALE".to_owned());
        }
    });
    let total = bench.sync().await.run.counts.total();
    assert_eq!((total.updated, total.removed), (3, 0));
    let shelf = bench
        .engine
        .store
        .read_shelf(&bench.id, Removed::LeftOut)
        .await;
    let products = shelf.unwrap().products;
    assert_eq!(products.len(), 3);
    let states = products.iter().map(|product| product.state.as_deref());
    assert!(
        states
            .into_iter()
            .all(|state| state == Some("DEVELOPER_REMOVED_FROM_SALE"))
    );
}

async fn another_app_removes_nothing_of_the_first(backend: Backend) {
    const OTHER: &str = "1000000002";
    let bench = Bench::new(purchases(2), backend).await;
    bench.sync().await;
    let before = bench.present().await;
    let mut other = App::new(OTHER, "com.example.other", "Other")
        .with_in_app_purchases(20)
        .with_grace_period();
    for purchase in &mut other.in_app_purchases {
        purchase.id = format!("77{}", purchase.id);
    }
    bench
        .simulator
        .edit(|state| state.teams[0].apps.push(other.clone()));
    let app = project::App {
        id: OTHER.to_owned(),
        bundle_id: other.bundle_id.clone(),
        name: other.name.clone(),
    };
    let store = &bench.engine.store;
    let key = store.load_key(&bench.id).await.unwrap();
    store
        .replace_key(&bench.id, &app, &key, clock::now())
        .await
        .unwrap();

    // By the numbers 2 of 22 would pass in the second run, and both are there when asked for.
    for _ in 0..2 {
        let report = bench.try_sync(&bench.impatient()).await.unwrap();
        assert_eq!(report.run.counts.total().removed, 0);
        let hold = report.hold.unwrap();
        assert_eq!(
            hold.removals.len(),
            3,
            "the grace period of the first app too"
        );
        let is_turn = |reason: &Reason| {
            matches!(
                reason,
                Reason::Generation {
                    turn: Turn::App,
                    ..
                }
            )
        };
        assert!(hold.reasons.iter().all(is_turn), "{hold}");
    }
    assert!(before.is_subset(&bench.present().await));
    // Readers see the setting of the app that the project has.
    let setting = store.read_shelf(&bench.id, Removed::LeftOut).await.unwrap();
    assert!(setting.grace_period.unwrap().opt_in.is_some());

    let hold = store.load_state(&bench.id).await.unwrap().hold.unwrap();
    let approved = bench.approve(&hold).await;
    assert_eq!(approved.run.counts.total().removed, 3);
    assert_eq!(bench.present().await, upstream(&other));
}

async fn another_key_removes_nothing_at_once(backend: Backend) {
    let bench = Bench::new(purchases(100), backend).await;
    bench.sync().await;
    let second = Key::new("SIMULATOR2", Role::Admin);
    bench
        .simulator
        .edit(|state| state.teams[0].keys.push(second));
    let state = bench.simulator.state();
    let credential = handed_over(&state, "SIMULATOR2");
    let store = &bench.engine.store;
    let app = store.load_project(&bench.id).await.unwrap().app;
    let sealed = bench.engine.vault.seal(&bench.id, &credential).unwrap();
    store
        .replace_key(&bench.id, &app, &sealed, clock::now())
        .await
        .unwrap();
    bench.edit(|app| drop(app.in_app_purchases.remove(0)));
    bench.simulator.forget_requests();

    let report = bench.sync().await;
    assert_eq!(bench.asked(), 0);
    let hold = report.hold.unwrap();
    assert_eq!(hold.removals.len(), 1);
    assert!(
        hold.to_string().contains("since the API key was changed"),
        "{hold}"
    );
    // What goes later goes as usual.. but joins what is held of its kind until that is decided.
    assert_eq!(bench.approve(&hold).await.run.counts.total().removed, 1);
    bench.edit(|app| drop(app.in_app_purchases.remove(0)));
    assert_eq!(bench.sync().await.run.counts.total().removed, 1);
}

async fn what_is_discarded_stays_until_it_is_listed_again(backend: Backend) {
    let bench = Bench::new(purchases(10), backend).await;
    bench.sync().await;
    let state = bench.simulator.state();
    let all = state.app(APP).unwrap().in_app_purchases.clone();
    bench.edit(|app| app.in_app_purchases.truncate(5));
    let hold = bench.sync().await.hold.unwrap();
    let wrong = bench
        .engine
        .discard(&bench.id, &"0123456789ab".into())
        .await;
    assert_eq!(wrong.unwrap(), None);
    let discarded = bench.engine.discard(&bench.id, &hold.digest).await;
    assert_eq!(discarded.unwrap(), Some(hold));

    for _ in 0..2 {
        let report = bench.try_sync(&bench.impatient()).await.unwrap();
        assert_eq!(report.run.outcome, Outcome::Succeeded);
        assert_eq!((report.hold, report.committed.rows), (None, 0));
        assert_eq!((report.run.missing, report.waiting.len()), (5, 0));
    }
    assert_eq!(bench.present().await.len(), 11);
    bench.edit(|app| app.in_app_purchases = all);
    bench.sync().await;
    assert!(bench.catalog().await.absent.is_empty());
}

async fn what_was_discarded_can_be_approved_after_all(backend: Backend) {
    let bench = Bench::new(purchases(10), backend).await;
    bench.sync().await;
    bench.edit(|app| app.in_app_purchases.truncate(5));
    let hold = bench.sync().await.hold.unwrap();
    bench.engine.discard(&bench.id, &hold.digest).await.unwrap();
    bench.sync().await;
    assert!(bench.engine.reopen(&bench.id, &hold.digest).await.unwrap());
    let report = bench.approve(&hold).await;
    assert_eq!((report.run.counts.total().removed, report.hold), (5, None));
    let holds = bench
        .engine
        .store
        .read_holds(Some(&bench.id), Ended::Included)
        .await;
    let ends: Vec<_> = holds.unwrap().iter().map(|hold| hold.ended).collect();
    assert_eq!(ends, [Some(HoldEnd::Approved), Some(HoldEnd::Discarded)]);
    assert!(!bench.engine.reopen(&bench.id, &hold.digest).await.unwrap());
}

async fn an_approval_refuses_when_a_thing_answers_again(backend: Backend) {
    let bench = Bench::new(purchases(10), backend).await;
    bench.sync().await;
    let gone = bench.simulator.state().app(APP).unwrap().in_app_purchases[9].clone();
    bench.edit(|app| app.in_app_purchases.truncate(5));
    let hold = bench.sync().await.hold.unwrap();
    bench.edit(|app| app.in_app_purchases.push(gone));
    let report = bench.approve(&hold).await;
    assert_eq!(report.run.counts.total().removed, 0);
    let rest = report.hold.unwrap();
    assert_eq!(
        (rest.removals.len(), report.hold_ended),
        (4, Some(HoldEnd::Replaced))
    );
    assert_eq!(bench.approve(&rest).await.run.counts.total().removed, 4);
}

async fn a_preview_tells_what_waits(backend: Backend) {
    let bench = Bench::new(purchases(20), backend).await;
    bench.sync().await;
    bench.simulator.inject(leaving_out(&bench, 2));
    let meter = Arc::new(Meter::default());
    let preview = bench.engine.preview(&bench.id, &meter).await.unwrap();
    assert_eq!(
        (preview.waiting.len(), preview.plan.changes().len()),
        (2, 18)
    );
    assert!(
        bench.catalog().await.absent.is_empty(),
        "a preview notes nothing"
    );
}
