//! Listings that came before as they are: what is gone by, and when all is compared nevertheless.
//!
//! Whether a run compared is seen by an entry that was deleted by hand: who compares finds it lacking and adds it.

use super::*;

on_both_stores!(
    what_came_before_as_it_is_is_compared_when_somebody_asks_by_hand,
    what_is_changed_upstream_is_seen_beside_what_is_not,
    a_change_on_a_late_page_is_seen,
    who_had_the_project_in_between_is_reason_to_compare,
    a_kind_that_could_not_be_listed_has_no_mark,
    what_is_held_is_compared_each_time,
);

const LOST: &str = "delete from entries where kind = 'in_app_purchase' and store_id = ";

impl Bench {
    async fn on_schedule(&self) -> Report {
        let meter = Arc::new(Meter::default());
        let run = self.engine.run(&self.id, Trigger::Schedule, None, &meter);
        let report = run.await.unwrap();
        assert_eq!(report.run.outcome, Outcome::Succeeded);
        report
    }

    /// Deletes an in-app purchase behind everybody's back.
    async fn lose_one(&self) {
        let id = self.first();
        let mut raw = crate::store::raw::Raw::connect(&self.url).await;
        raw.run(&format!("{LOST}'{id}'")).await;
        assert!(!self.has_it().await);
    }

    fn first(&self) -> String {
        let state = self.simulator.state();
        state.app(APP).unwrap().in_app_purchases[0].id.clone()
    }

    async fn has_it(&self) -> bool {
        let lost = (Kind::InAppPurchase, self.first());
        self.present().await.contains(&lost)
    }

    async fn marked(&self) -> Vec<Kind> {
        let state = self.engine.store.load_state(&self.id).await.unwrap();
        let marks = state.marks.map(|marks| marks.listings.marks);
        marks.unwrap_or_default().into_keys().collect()
    }
}

async fn what_came_before_as_it_is_is_compared_when_somebody_asks_by_hand(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    let first = bench.on_schedule().await;
    bench.lose_one().await;
    for _ in 0..3 {
        let again = bench.on_schedule().await;
        assert_eq!(again.run.listed, first.run.listed);
        assert_eq!(again.run.covered, first.run.covered);
        assert_eq!(again.run.cost.requests, 3);
        assert_eq!(again.committed.revision, first.committed.revision);
        assert!(!bench.has_it().await, "it was compared");
    }
    let by_hand = bench.sync().await;
    assert_eq!(by_hand.committed.revision, first.committed.revision + 1);
    assert!(bench.has_it().await);
}

async fn what_is_changed_upstream_is_seen_beside_what_is_not(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.on_schedule().await;
    bench.on_schedule().await;
    bench.edit(|app| app.subscription_groups[0].reference_name = "Renamed".to_owned());
    let changed = bench.on_schedule().await;
    assert_eq!(changed.run.counts.total().updated, 1);
    assert_eq!(changed.run.covered.len(), Kind::ALL.len());
    bench.edit(|app| drop(app.in_app_purchases.remove(3)));
    let removed = bench.on_schedule().await;
    assert_eq!(removed.run.counts.total().removed, 1);
    bench.edit(|app| app.grace_period = None);
    assert_eq!(bench.on_schedule().await.run.counts.total().updated, 1);
    let state = bench.simulator.state();
    assert_eq!(bench.present().await, upstream(state.app(APP).unwrap()));
    assert_eq!(bench.on_schedule().await.committed.rows, 0);
}

async fn a_change_on_a_late_page_is_seen(backend: Backend) {
    let app = App::new(APP, "com.example.app", "Example").with_in_app_purchases(450);
    let bench = Bench::new(app, backend).await;
    bench.on_schedule().await;
    for place in [449, 200, 0] {
        bench.edit(|app| app.in_app_purchases[place].name = format!("Renamed {place}"));
        let changed = bench.on_schedule().await;
        let total = changed.run.counts.total();
        assert_eq!((total.updated, total.removed, total.added), (1, 0, 0));
        assert_eq!(changed.run.listed[&Kind::InAppPurchase], 450);
        assert_eq!(changed.run.cost.requests, 5);
    }
    bench.lose_one().await;
    assert_eq!(bench.on_schedule().await.committed.rows, 0);
}

async fn who_had_the_project_in_between_is_reason_to_compare(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.on_schedule().await;
    bench.lose_one().await;
    let store = &bench.engine.store;
    let claim = store
        .acquire(&bench.id, bench.engine.lease, clock::now())
        .await
        .unwrap();
    store.release(&claim.lease).await.unwrap();
    bench.on_schedule().await;
    assert!(bench.has_it().await);
}

async fn a_kind_that_could_not_be_listed_has_no_mark(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.simulator.inject(fault("inAppPurchasesV2", 403));
    assert_eq!(bench.sync().await.run.outcome, Outcome::Partial);
    assert_eq!(
        bench.marked().await,
        [Kind::SubscriptionGroup, Kind::GracePeriod]
    );
    bench.simulator.clear_faults();
    bench.on_schedule().await;
    assert_eq!(bench.marked().await.len(), 3);
    let state = bench.simulator.state();
    assert_eq!(bench.present().await, upstream(state.app(APP).unwrap()));
}

async fn what_is_held_is_compared_each_time(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    assert_eq!(bench.marked().await.len(), 3);
    bench.edit(|app| app.in_app_purchases.clear());
    for _ in 0..2 {
        assert_eq!(bench.sync().await.run.outcome, Outcome::Held);
        assert_eq!(bench.marked().await, []);
    }
}
