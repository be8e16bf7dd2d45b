//! Runs that send less: those that are to stop, and those with a key that was refused.

use catalog_sync::run::{KeyHealth, Run};
use chrono::TimeDelta;
use uuid::Uuid;

use super::*;

on_both_stores!(
    a_run_that_is_to_stop_ends_at_a_page,
    a_run_that_has_listed_everything_is_written_though_it_is_to_stop,
    a_key_that_is_bad_for_good_is_rejected_within_ten_requests,
    a_doubtful_key_lists_all_that_an_accepted_one_may,
);

async fn a_run_that_is_to_stop_ends_at_a_page(backend: Backend) {
    let app = App::new(APP, "com.example.app", "Example").with_in_app_purchases(401);
    let bench = Bench::new(app, backend).await;
    bench.simulator.set_latency(Duration::from_secs(8));
    let engine = Engine {
        stop: CancellationToken::new(),
        ..bench.engine.clone()
    };
    let stop = async {
        bench.simulator.wait_for_requests(3).await;
        engine.stop.cancel();
        bench.simulator.set_latency(Duration::ZERO);
    };
    let (stopped, ()) = tokio::join!(bench.try_sync(&engine), stop);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let statuses: Vec<_> = bench
        .simulator
        .requests()
        .iter()
        .map(|it| it.status)
        .collect();
    assert_eq!(statuses, [Some(200); 3], "what was under way has ended");
    assert!(matches!(bench.try_sync(&engine).await, Err(Error::Stopped)));
    let store = &bench.engine.store;
    assert_eq!(store.read_runs(&bench.id, 10).await.unwrap().len(), 0);
    assert_eq!(
        bench.sync().await.run.outcome,
        Outcome::Succeeded,
        "at once"
    );
}

async fn a_run_that_has_listed_everything_is_written_though_it_is_to_stop(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.simulator.set_latency(Duration::from_secs(8));
    let stop = async {
        bench.simulator.wait_for_requests(3).await;
        bench.engine.stop.cancel();
        bench.simulator.set_latency(Duration::ZERO);
    };
    let (report, ()) = tokio::join!(bench.try_sync(&bench.engine), stop);
    assert_eq!(report.unwrap().run.outcome, Outcome::Succeeded);
    let state = bench.simulator.state();
    assert_eq!(bench.present().await, upstream(state.app(APP).unwrap()));
}

/// Moves the first refusal back in time, which no test can wait for.
async fn refused_since(bench: &Bench, report: &Report, minutes: i64) {
    let store = &bench.engine.store;
    let claim = store
        .acquire(&bench.id, Duration::from_secs(30), clock::now())
        .await
        .unwrap();
    let run = Run {
        id: Uuid::now_v7(),
        ..report.run.clone()
    };
    let aftermath = store::Aftermath {
        key_health: KeyHealth {
            refused_since: Some(clock::now() - TimeDelta::minutes(minutes)),
            ..claim.state.key_health
        },
        ..store::Aftermath::default()
    };
    store
        .commit(&claim.lease, &report.plan, &run, &aftermath)
        .await
        .unwrap();
}

async fn a_key_that_is_bad_for_good_is_rejected_within_ten_requests(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    let revoke = |revoked| {
        bench
            .simulator
            .edit(|state| state.teams[0].keys[0].revoked = revoked);
    };
    revoke(true);
    bench.simulator.forget_requests();
    let mut ran = Vec::new();
    for _ in 0..3 {
        if let [.., report] = ran.as_slice() {
            refused_since(&bench, report, 10).await;
        }
        let report = bench.sync().await;
        assert_eq!(report.run.failures.len(), Kind::ALL.len());
        ran.push(report);
    }
    let told: Vec<_> = ran
        .iter()
        .map(|report| {
            let error = report.run.error.as_ref().unwrap();
            (report.run.outcome, error.code, report.run.cost.requests)
        })
        .collect();
    assert_eq!(
        told,
        [
            (Outcome::Failed, Code::NotAuthorized, 6),
            (Outcome::Failed, Code::NotAuthorized, 2),
            (Outcome::Failed, Code::KeyRejected, 2),
        ]
    );
    assert_eq!(bench.simulator.requests().len(), 10);

    revoke(false);
    let run = bench.sync().await.run;
    assert_eq!((run.outcome, run.cost.requests), (Outcome::Succeeded, 3));
}

async fn a_doubtful_key_lists_all_that_an_accepted_one_may(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    // (what the app answers, how the run ends, requests)
    let cases = [
        (fault("1000000001$", 403).kind, Outcome::Partial, 3),
        (fault("1000000001$", 400).kind, Outcome::Partial, 3),
        (FaultKind::Body("{}".to_owned()), Outcome::Partial, 6),
        (FaultKind::Unauthorized, Outcome::Failed, 2),
        (fault("1000000001$", 503).kind, Outcome::Failed, 4),
    ];
    for (kind, outcome, requests) in cases {
        bench
            .simulator
            .inject(Fault::new("", FaultKind::Unauthorized));
        assert_eq!(bench.sync().await.run.outcome, Outcome::Failed);
        bench.simulator.clear_faults();
        bench
            .simulator
            .inject(Fault::new("1000000001$", kind.clone()));
        // Its own client, for the retries of its own.
        let engine = Engine {
            client: Client::new(options(&bench.simulator)).unwrap(),
            ..bench.engine.clone()
        };
        let run = bench.try_sync(&engine).await.unwrap().run;
        assert_eq!(
            (run.outcome, run.cost.requests),
            (outcome, requests),
            "{kind:?}"
        );
        bench.simulator.clear_faults();
        assert_eq!(bench.sync().await.run.outcome, Outcome::Succeeded);
    }
}
