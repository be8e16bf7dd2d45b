//! Holds from run to run.

use super::*;
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    a_hold_lapses_when_the_things_return_and_not_before,
    a_hold_stays_whatever_is_added_meanwhile,
    what_is_printed_is_what_can_be_approved,
    a_held_group_stays_held_while_its_subscriptions_cannot_be_listed,
);

async fn a_hold_lapses_when_the_things_return_and_not_before(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    let all = bench
        .simulator
        .state()
        .app(APP)
        .unwrap()
        .in_app_purchases
        .clone();
    bench.edit(|app| app.in_app_purchases.truncate(10));
    assert_eq!(bench.sync().await.run.outcome, Outcome::Held);
    let held = async || bench.engine.store.load_state(&bench.id).await.unwrap().hold;
    let first = held().await.unwrap();
    assert_eq!(first.removals.len(), 10);

    // A run that could not look keeps what was held.
    bench.simulator.inject(fault("inAppPurchasesV2", 403));
    assert_eq!(bench.sync().await.run.outcome, Outcome::Partial);
    assert_eq!(held().await.as_ref(), Some(&first));
    bench
        .simulator
        .inject(Fault::new("", FaultKind::Unauthorized));
    assert_eq!(bench.sync().await.run.outcome, Outcome::Failed);
    assert_eq!(held().await.as_ref(), Some(&first));
    bench.simulator.clear_faults();

    bench.edit(|app| app.in_app_purchases = all);
    assert_eq!(bench.sync().await.run.outcome, Outcome::Succeeded);
    assert_eq!(held().await, None);
}

async fn a_hold_stays_whatever_is_added_meanwhile(backend: Backend) {
    let bench = Bench::new(
        App::new(APP, "com.example.app", "Example").with_in_app_purchases(3),
        backend,
    )
    .await;
    bench.sync().await;
    let before: BTreeSet<_> = bench.present().await;
    bench.edit(|app| {
        app.in_app_purchases.clear();
        for id in 9000..9040 {
            app.in_app_purchases.push(InAppPurchase::new(
                id.to_string(),
                format!("new.{id}"),
                "New",
            ));
        }
    });
    for _ in 0..3 {
        let report = bench.sync().await;
        assert_eq!(report.run.outcome, Outcome::Held);
        assert_eq!(report.run.hold.unwrap().removals, 3);
        assert!(before.is_subset(&bench.present().await), "held is held");
    }
    let hold = bench
        .engine
        .store
        .load_state(&bench.id)
        .await
        .unwrap()
        .hold
        .unwrap();
    let meter = Arc::new(Meter::default());
    let approved = bench
        .engine
        .run(&bench.id, Trigger::Command, Some(&hold.digest), &meter)
        .await
        .unwrap();
    assert_eq!(approved.run.counts.total().removed, 3);
    assert_eq!(
        bench.engine.store.load_state(&bench.id).await.unwrap().hold,
        None
    );
}

async fn what_is_printed_is_what_can_be_approved(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    bench.edit(|app| app.in_app_purchases.clear());
    bench.sync().await;
    bench.simulator.inject(fault("inAppPurchasesV2", 403));
    bench.edit(|app| app.subscription_groups.clear());
    let shown = bench.sync().await.hold.unwrap();
    assert_eq!(
        shown.removals.len(),
        20 + 3 + 12,
        "those that could not be looked at too"
    );
    let preview = bench
        .engine
        .preview(&bench.id, &Arc::new(Meter::default()))
        .await
        .unwrap();
    assert_eq!(preview.hold.as_ref(), Some(&shown));

    let meter = || Arc::new(Meter::default());
    let run = bench
        .engine
        .run(&bench.id, Trigger::Command, Some(&shown.digest), &meter())
        .await
        .unwrap()
        .run;
    assert_eq!(
        run.counts.total().removed,
        15,
        "the kinds that were looked at"
    );
    let rest = run.hold.unwrap();
    assert_eq!(rest.removals, 20);
    bench.simulator.clear_faults();
    let run = bench
        .engine
        .run(&bench.id, Trigger::Command, Some(&rest.digest), &meter())
        .await
        .unwrap()
        .run;
    assert_eq!((run.counts.total().removed, run.hold), (20, None));
}

async fn a_held_group_stays_held_while_its_subscriptions_cannot_be_listed(backend: Backend) {
    let app = App::new(APP, "com.example.app", "Example")
        .with_groups(1, 11)
        .with_groups(1, 60);
    let bench = Bench::new(app, backend).await;
    bench.sync().await;
    let group = bench
        .simulator
        .state()
        .app(APP)
        .unwrap()
        .subscription_groups[0]
        .clone();
    let is_there = async || {
        bench
            .present()
            .await
            .contains(&(Kind::SubscriptionGroup, group.id.clone()))
    };

    bench.edit(|app| drop(app.subscription_groups.remove(0)));
    let shown = bench.sync().await.hold.unwrap();
    assert_eq!(shown.removals.len(), 12);
    bench.simulator.inject(fault("/subscriptions", 503));
    assert_eq!(
        bench.sync().await.hold.as_ref(),
        Some(&shown),
        "the same digest"
    );
    let preview = bench
        .engine
        .preview(&bench.id, &Arc::new(Meter::default()))
        .await
        .unwrap();
    assert!(preview.stands && preview.hold.as_ref() == Some(&shown));
    let meter = Arc::new(Meter::default());
    let blind = bench
        .engine
        .run(&bench.id, Trigger::Command, Some(&shown.digest), &meter)
        .await
        .unwrap();
    assert_eq!(
        (blind.committed.rows, blind.hold.as_ref()),
        (0, Some(&shown))
    );
    bench.simulator.clear_faults();

    // Its subscriptions return elsewhere: the group alone is still held.
    bench.edit(|app| {
        app.subscription_groups[0]
            .subscriptions
            .extend(group.subscriptions.clone());
    });
    let rest = bench.sync().await.hold.unwrap();
    assert_eq!(rest.removals.len(), 1);
    assert!(is_there().await);
    bench
        .engine
        .run(&bench.id, Trigger::Command, Some(&rest.digest), &meter)
        .await
        .unwrap();
    assert!(!is_there().await);
}
