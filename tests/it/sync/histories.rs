//! Generated histories of edits upstream, with faults on the way.

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;

/// One thing that happens upstream.
#[derive(Clone, Debug)]
enum Step {
    Add(u16),
    Delete(prop::sample::Index),
    Rename(prop::sample::Index),
    DeleteGroup(prop::sample::Index),
    Move(prop::sample::Index),
    /// A sync with a fault at a request.
    Fault(FaultKind, usize),
    Sync,
}

fn a_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let fault = prop_oneof![
        Just(FaultKind::Reset),
        Just(FaultKind::CutBody),
        Just(FaultKind::Html200),
        Just(FaultKind::RepeatRow),
        Just(FaultKind::SkipRow),
        Just(FaultKind::ReorderedPage),
        Just(FaultKind::DropIncluded),
        Just(FaultKind::NoTotal),
        Just(FaultKind::Unauthorized),
        Just(FaultKind::TotalOff(-1)),
        (400..600_u16).prop_map(FaultKind::status),
    ];
    prop_oneof![
        2 => any::<u16>().prop_map(Step::Add),
        2 => index().prop_map(Step::Delete),
        2 => index().prop_map(Step::Rename),
        1 => index().prop_map(Step::DeleteGroup),
        2 => index().prop_map(Step::Move),
        4 => (fault, 0..4_usize).prop_map(|(kind, after)| Step::Fault(kind, after)),
        3 => Just(Step::Sync),
    ]
}

/// Makes the change; what needs something that is not there changes nothing.
fn change(app: &mut App, step: &Step) {
    let purchases = app.in_app_purchases.len();
    let groups = app.subscription_groups.len();
    match step {
        Step::Add(number) => {
            let id = format!("7{number:05}");
            if app.in_app_purchases.iter().all(|it| it.id != id) {
                app.in_app_purchases.push(InAppPurchase::new(
                    &id,
                    format!("com.example.{id}"),
                    "Another",
                ));
            }
        }
        Step::Delete(index) if purchases > 0 => {
            drop(app.in_app_purchases.remove(index.index(purchases)));
        }
        Step::Rename(index) if purchases > 0 => {
            app.in_app_purchases[index.index(purchases)].name.push('!');
        }
        Step::DeleteGroup(index) if groups > 0 => {
            drop(app.subscription_groups.remove(index.index(groups)));
        }
        Step::Move(index) if groups > 1 => {
            let from = index.index(groups);
            if let Some(subscription) = app.subscription_groups[from].subscriptions.pop() {
                app.subscription_groups[(from + 1) % groups]
                    .subscriptions
                    .push(subscription);
            }
        }
        _ => {}
    }
}

/// Whatever happens upstream and on the way, nothing that upstream always had is removed; and once it is quiet, one run
/// brings the catalog to what upstream has. `SkipRow` hides a row and no total tells of it only together with `NoTotal`.
#[test]
fn nothing_is_removed_wrongly_and_quiet_converges() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        ..ProptestConfig::default()
    });
    let histories = prop::collection::vec(a_step(), 1..16);
    // The guard would hold back what these histories are about.
    let limits = Limits {
        removed_percent: 100,
        percent_from: usize::MAX,
        removed_max: usize::MAX,
        descendants_max: usize::MAX,
    };
    let result = runner.run(&histories, |history| {
        runtime.block_on(async {
            // Enough for several pages of each list.
            let many = app()
                .with_in_app_purchases(390)
                .with_groups(1, 49)
                .with_groups(2, 60);
            let bench = Bench::with_limits(many, Backend::Sqlite, limits).await;
            bench.sync().await;
            for step in &history {
                bench.edit(|app| change(app, step));
                if let Step::Fault(kind, after) = step {
                    bench
                        .simulator
                        .inject(Fault::new("", kind.clone()).after(*after).times(2));
                }
                if matches!(step, Step::Fault(..) | Step::Sync) {
                    let there = upstream(bench.simulator.state().app(APP).unwrap());
                    let before = bench.present().await;
                    bench.sync().await;
                    bench.simulator.clear_faults();
                    let after = bench.present().await;
                    let lost: Vec<_> = before
                        .intersection(&there)
                        .filter(|it| !after.contains(it))
                        .collect();
                    prop_assert!(lost.is_empty(), "{step:?} lost {lost:?}");
                }
            }
            let report = bench.sync().await;
            let there = upstream(bench.simulator.state().app(APP).unwrap());
            let held = report.run.hold.map_or(0, |hold| hold.removals);
            let there_or_held = bench.present().await.difference(&there).count();
            prop_assert_eq!(
                there_or_held,
                held,
                "what is not upstream is there only because it is held"
            );
            prop_assert!(there.is_subset(&bench.present().await));
            Ok(())
        })
    });
    result.unwrap();
}
