//! Limits that a project has of its own.

use catalog_sync::{catalog::OwnLimits, run::Outcome};

use super::{Bench, app};
use crate::house::{Backend, on_both_stores};

on_both_stores!(
    a_limit_of_its_own_lets_pass_what_that_of_all_would_hold,
    a_limit_of_its_own_holds_what_that_of_all_would_let_pass,
);

impl Bench {
    async fn set_guard(&self, own: OwnLimits) {
        let set = self.engine.store.set_guard(&self.id, &own).await;
        set.unwrap();
    }
}

async fn a_limit_of_its_own_lets_pass_what_that_of_all_would_hold(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    // Half of twenty: the limit of all is 30 %.
    bench.edit(|app| app.in_app_purchases.truncate(10));
    let percent = |percent| OwnLimits {
        removed_percent: Some(percent),
        ..OwnLimits::default()
    };
    bench.set_guard(percent(49)).await;
    let held = |preview: catalog_sync::sync::Preview| preview.hold.map(|it| it.removals.len());
    let meter = std::sync::Arc::default();
    let preview = bench.engine.preview(&bench.id, &meter).await.unwrap();
    assert_eq!(held(preview), Some(10));

    bench.set_guard(percent(50)).await;
    let preview = bench.engine.preview(&bench.id, &meter).await.unwrap();
    assert_eq!(held(preview), None);
    let report = bench.sync().await;
    assert_eq!(report.run.outcome, Outcome::Succeeded);
    assert_eq!(report.run.counts.total().removed, 10);
}

async fn a_limit_of_its_own_holds_what_that_of_all_would_let_pass(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    bench
        .set_guard(OwnLimits {
            removed_max: Some(1),
            ..OwnLimits::default()
        })
        .await;
    bench.edit(|app| app.in_app_purchases.truncate(19));
    assert_eq!(bench.sync().await.run.outcome, Outcome::Succeeded);
    bench.edit(|app| app.in_app_purchases.truncate(17));
    let held = bench.sync().await.run;
    assert_eq!(held.outcome, Outcome::Held);
    assert_eq!(
        held.hold.unwrap().to_string(),
        "2 removals held: 2 in-app purchases would go (limit 1)"
    );
}
