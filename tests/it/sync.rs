//! One project's run, by the library: what fails stays out of scope, what is stale cannot write, and quiet converges.

pub(crate) mod histories;
mod holds;
mod limits;
mod marks;
mod removals;
mod sparing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use catalog_sync::{
    asc::{Client, Meter},
    catalog::{Catalog, Confirmation, Kind, Limits, OwnLimits},
    clock,
    diagnosis::Code,
    metrics::Metrics,
    project::{self, Project, ProjectId},
    run::{Outcome, Trigger},
    simulator::{
        App, Fault, FaultKind, GracePeriod, InAppPurchase, Simulator, State, Subscription,
        SubscriptionGroup,
    },
    store::{self, Store},
    sync::{Engine, Error, Report},
    vault::{self, Vault},
};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    asc::{fault, options},
    house::{Backend, handed_over, on_both_stores},
};

const APP: &str = "1000000001";

fn app() -> App {
    App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(20)
        .with_groups(3, 4)
        .with_grace_period()
}

/// An engine with one project, against a simulator.
struct Bench {
    engine: Engine,
    id: ProjectId,
    simulator: Simulator,
    url: String,
    _folder: TempDir,
    _postgres: Option<crate::postgres::Database>,
}

impl Bench {
    async fn new(app: App, backend: Backend) -> Self {
        Self::with_limits(app, backend, Limits::default()).await
    }

    async fn with_limits(app: App, backend: Backend, limits: Limits) -> Self {
        let simulator = Simulator::start(State::with_app(app)).await.unwrap();
        let folder = folder();
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(crate::postgres::database().await),
        };
        let file = format!("sqlite:{}", folder.path().join("catalog-sync.db").display());
        let url = postgres
            .as_ref()
            .map_or(file.as_str(), |database| database.url());
        let store = store::open_migrated(url, &store::Options::default())
            .await
            .unwrap();
        let key_file = folder.path().join("master.key");
        vault::create(&key_file, clock::now()).unwrap();
        let vault = Vault::open(&[vault::Source::File(key_file)]).unwrap();

        let id: ProjectId = "acme".parse().unwrap();
        add_project(&*store, &vault, &id, &simulator.state()).await;
        let engine = Engine {
            store,
            vault: Arc::new(vault),
            client: Client::new(options(&simulator)).unwrap(),
            metrics: Metrics::default(),
            limits,
            confirmation: Confirmation::default(),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self {
            engine,
            id,
            simulator,
            url: url.to_owned(),
            _folder: folder,
            _postgres: postgres,
        }
    }

    async fn sync(&self) -> Report {
        self.try_sync(&self.engine).await.unwrap()
    }

    async fn try_sync(&self, engine: &Engine) -> Result<Report, Error> {
        engine
            .run(
                &self.id,
                Trigger::Command,
                None,
                &Arc::new(Meter::default()),
            )
            .await
    }

    async fn catalog(&self) -> Catalog {
        self.engine.store.load_catalog(&self.id).await.unwrap()
    }

    /// Kinds and ids that are present.
    async fn present(&self) -> BTreeSet<(Kind, String)> {
        let catalog = self.catalog().await;
        catalog
            .present
            .into_keys()
            .map(|key| (key.kind, key.store_id.to_string()))
            .collect()
    }

    fn edit(&self, change: impl FnOnce(&mut App)) {
        self.simulator
            .edit(|state| change(state.app_mut(APP).unwrap()));
    }
}

/// In memory, where there is such a place: nothing here has to outlive the test.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Adds a project for the app, with the first key of the first team.
async fn add_project(store: &dyn Store, vault: &Vault, id: &ProjectId, state: &State) {
    let credential = handed_over(state, &state.teams[0].keys[0].key_id);
    let project = Project {
        id: id.clone(),
        app: project::App {
            id: APP.to_owned(),
            bundle_id: "com.example.app".to_owned(),
            name: "Example".to_owned(),
        },
        key_id: credential.key_id.clone(),
        issuer_id: credential.issuer_id.clone(),
        cron: None,
        guard: OwnLimits::default(),
        paused_at: None,
        created_at: clock::now(),
    };
    store
        .add_project(&project, &vault.seal(id, &credential).unwrap())
        .await
        .unwrap();
}

/// Kinds and ids that an app has upstream.
fn upstream(app: &App) -> BTreeSet<(Kind, String)> {
    let purchases = app
        .in_app_purchases
        .iter()
        .map(|it| (Kind::InAppPurchase, it.id.clone()));
    let groups = app
        .subscription_groups
        .iter()
        .map(|it| (Kind::SubscriptionGroup, it.id.clone()));
    let subscriptions = app
        .subscription_groups
        .iter()
        .flat_map(|group| &group.subscriptions);
    let subscriptions = subscriptions.map(|it| (Kind::Subscription, it.id.clone()));
    purchases
        .chain(groups)
        .chain(subscriptions)
        .chain([(Kind::GracePeriod, app.id.clone())])
        .collect()
}

on_both_stores!(
    what_fails_is_out_of_scope_and_the_rest_is_synced,
    a_run_where_nothing_can_be_listed_changes_nothing,
    a_stale_worker_writes_nothing,
    a_worker_waits_for_another,
    a_catalog_of_thousands_comes_whole,
    a_long_run_keeps_its_lease,
    a_run_that_is_cut_gives_its_lease_back,
    a_part_that_is_not_found_does_not_hide_the_app,
    a_grace_period_does_not_go_on_a_hint,
    a_product_id_is_never_lost,
);

async fn what_fails_is_out_of_scope_and_the_rest_is_synced(backend: Backend) {
    let cases = [
        (
            "inAppPurchasesV2",
            fault("", 403).kind,
            Kind::InAppPurchase,
            Code::RoleTooLow,
        ),
        (
            "inAppPurchasesV2",
            fault("", 500).kind,
            Kind::InAppPurchase,
            Code::UpstreamUnavailable,
        ),
        (
            "inAppPurchasesV2",
            FaultKind::TotalOff(1),
            Kind::InAppPurchase,
            Code::UpstreamUnexpected,
        ),
        (
            "inAppPurchasesV2",
            FaultKind::Html200,
            Kind::InAppPurchase,
            Code::UpstreamUnexpected,
        ),
        (
            "inAppPurchasesV2",
            FaultKind::CutBody,
            Kind::InAppPurchase,
            Code::UpstreamUnavailable,
        ),
        (
            "inAppPurchasesV2",
            FaultKind::Body("{\"data\":null}".to_owned()),
            Kind::InAppPurchase,
            Code::UpstreamUnexpected,
        ),
        (
            "1000000001$",
            fault("", 403).kind,
            Kind::GracePeriod,
            Code::GracePeriodUnreadable,
        ),
        (
            "1000000001$",
            fault("", 404).kind,
            Kind::GracePeriod,
            Code::GracePeriodUnreadable,
        ),
        (
            "1000000001$",
            fault("", 503).kind,
            Kind::GracePeriod,
            Code::UpstreamUnavailable,
        ),
    ];
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    let before = bench.catalog().await;
    for (round, (path, kind, left_alone, code)) in cases.into_iter().enumerate() {
        bench.edit(|app| {
            app.in_app_purchases[0].name = format!("Name {round}");
            app.subscription_groups[0].reference_name = format!("Group {round}");
            app.grace_period.as_mut().unwrap().opt_in = Some(round % 2 == 0);
        });
        bench.simulator.inject(Fault::new(path, kind.clone()));
        let run = bench.sync().await.run;
        bench.simulator.clear_faults();

        assert_eq!(run.outcome, Outcome::Partial, "{kind:?}");
        assert_eq!(
            run.failures[&left_alone].code, code,
            "{kind:?}: {}",
            run.failures[&left_alone]
        );
        assert_eq!(run.error.map(|error| error.code), Some(code));
        let covered: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|it| *it != left_alone)
            .collect();
        assert_eq!(run.covered.into_iter().collect::<Vec<_>>(), covered);
        let after = bench.catalog().await;
        let of_kind = |catalog: &Catalog| catalog.of_kind(left_alone).cloned().collect::<Vec<_>>();
        if round == 0 {
            assert_eq!(of_kind(&before), of_kind(&after));
        }
        let group = after.of_kind(Kind::SubscriptionGroup).next().unwrap();
        assert_eq!(
            group.name(),
            Some(format!("Group {round}").as_str()),
            "the others are synced"
        );
        assert_eq!(
            after.present.len(),
            before.present.len(),
            "nothing is removed"
        );
        bench.sync().await;
    }
}

async fn a_run_where_nothing_can_be_listed_changes_nothing(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    let before = bench.catalog().await;
    for kind in [
        FaultKind::Unauthorized,
        FaultKind::RequiredAgreement,
        fault("", 500).kind,
        FaultKind::Body("{}".to_owned()),
    ] {
        bench.simulator.inject(Fault::new("", kind.clone()));
        let report = bench.sync().await;
        bench.simulator.clear_faults();
        assert_eq!(
            (report.run.outcome, report.committed.rows),
            (Outcome::Failed, 0),
            "{kind:?}"
        );
        assert_eq!(bench.catalog().await, before);
        assert_eq!(
            bench
                .engine
                .store
                .read_status(&bench.id)
                .await
                .unwrap()
                .consecutive_failures,
            1
        );
        bench.sync().await;
    }
    // Each left a record.
    assert_eq!(
        bench
            .engine
            .store
            .read_runs(&bench.id, 100)
            .await
            .unwrap()
            .len(),
        9
    );
}

async fn a_stale_worker_writes_nothing(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    // Its lease is over at once, and it never renews it.
    let slow = Engine {
        lease: Duration::from_millis(1),
        heartbeat: Duration::from_hours(1),
        ..bench.engine.clone()
    };
    bench.simulator.set_latency(Duration::from_secs(8));
    let stale = bench.try_sync(&slow);
    let other = async {
        bench.simulator.wait_for_requests(3).await;
        bench.simulator.set_latency(Duration::ZERO);
        bench.edit(|app| app.in_app_purchases[0].name = "Newer".to_owned());
        bench.sync().await
    };
    let (stale, other) = tokio::join!(stale, other);
    assert_eq!(other.run.outcome, Outcome::Succeeded);
    let error = stale.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { .. }), "{error}");

    let after = bench.catalog().await;
    let names: Vec<_> = after
        .of_kind(Kind::InAppPurchase)
        .filter_map(|entry| entry.name())
        .collect();
    assert!(names.contains(&"Newer"), "{names:?}");
    let status = bench.engine.store.read_status(&bench.id).await.unwrap();
    assert_eq!(status.revision, 1);
    assert_eq!(
        bench
            .engine
            .store
            .read_runs(&bench.id, 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn a_worker_waits_for_another(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.simulator.set_latency(Duration::from_secs(8));
    let second = async {
        bench.simulator.wait_for_requests(3).await;
        bench.try_sync(&bench.engine).await
    };
    let (first, second) = tokio::join!(bench.try_sync(&bench.engine), second);
    assert_eq!(first.unwrap().run.outcome, Outcome::Succeeded);
    assert!(matches!(second, Err(Error::Leased { .. })));
    bench.sync().await;
}

async fn a_catalog_of_thousands_comes_whole(backend: Backend) {
    let app = App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(1000)
        .with_groups(150, 20);
    let mut app = app.with_groups(2, 60).with_groups(1, 250);
    app.subscription_groups.swap(0, 151);
    let bench = Bench::new(app.clone(), backend).await;
    let report = bench.sync().await;
    // 1 + ceil(1000/200) + ceil(153/200) + 1 + 1 + ceil(250/200)
    assert_eq!(
        (report.run.cost.requests, report.run.cost.retries),
        (1 + 5 + 1 + 1 + 1 + 2, 0)
    );
    assert_eq!(bench.present().await, upstream(&app));
    let again = bench.sync().await;
    assert_eq!((again.committed.rows, again.run.cost.requests), (0, 11));
}

async fn a_long_run_keeps_its_lease(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    let engine = Engine {
        lease: Duration::from_secs(5),
        heartbeat: Duration::from_millis(100),
        ..bench.engine.clone()
    };
    // The answers come well after the lease would have run out.
    bench.simulator.set_latency(Duration::from_secs(8));
    let store = &bench.engine.store;
    let others = async {
        bench.simulator.wait_for_requests(3).await;
        let mut refused = 0;
        loop {
            match store
                .acquire(&bench.id, Duration::from_secs(1), clock::now())
                .await
            {
                Err(Error::Leased { .. }) => refused += 1,
                Ok(claim) => break (refused, claim),
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let (report, (refused, claim)) = tokio::join!(bench.try_sync(&engine), others);
    assert_eq!(report.unwrap().run.outcome, Outcome::Succeeded);
    assert_eq!(
        claim.state.revision, 1,
        "nobody had it before the run was committed"
    );
    assert!(refused > 0);
}

async fn a_run_that_is_cut_gives_its_lease_back(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    let engine = Engine {
        cut: CancellationToken::new(),
        ..bench.engine.clone()
    };
    bench
        .simulator
        .inject(Fault::new("inAppPurchasesV2", FaultKind::Hang));
    let stop = async {
        bench.simulator.wait_for_requests(3).await;
        engine.cut.cancel();
    };
    let (stopped, ()) = tokio::join!(bench.try_sync(&engine), stop);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    bench.simulator.clear_faults();
    assert_eq!(
        bench.sync().await.run.outcome,
        Outcome::Succeeded,
        "at once"
    );
}

async fn a_part_that_is_not_found_does_not_hide_the_app(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    bench.simulator.inject(fault("inAppPurchasesV2", 404));
    let run = bench.sync().await.run;
    assert_eq!(run.error.unwrap().code, Code::UpstreamUnexpected);
    bench.simulator.clear_faults();

    // All of it is not found, and what the key sees cannot be asked for: then nothing is said of it.
    bench.simulator.inject(fault(APP, 404));
    let sees = bench.sync().await.run.error.unwrap();
    assert!(
        sees.code == Code::AppNotVisible && sees.sentence.contains("which sees Example"),
        "{sees}"
    );
    bench.simulator.inject(fault("/v1/apps$", 503));
    let unknown = bench.sync().await.run.error.unwrap();
    assert!(
        unknown.code == Code::AppNotVisible && !unknown.sentence.contains("sees"),
        "{unknown}"
    );
}

async fn a_grace_period_does_not_go_on_a_hint(backend: Backend) {
    let bench = Bench::new(app(), backend).await;
    bench.sync().await;
    let setting = async || {
        bench
            .catalog()
            .await
            .of_kind(Kind::GracePeriod)
            .next()
            .unwrap()
            .attributes
            .clone()
    };
    let known = setting().await;
    for relationship in [json!({ "links": {} }), json!({ "data": null }), json!({})] {
        let app = json!({ "type": "apps", "id": APP, "relationships": { "subscriptionGracePeriod": relationship } });
        bench.simulator.inject(Fault::new(
            "1000000001$",
            FaultKind::Body(json!({ "data": app }).to_string()),
        ));
        let run = bench.sync().await.run;
        bench.simulator.clear_faults();
        assert_eq!(
            (run.outcome, run.cost.requests),
            (Outcome::Succeeded, 4),
            "it was asked for by itself"
        );
        assert_eq!(setting().await, known);
    }
    // When it goes in earnest, one more request tells; from then on it is known to be unset.
    bench.edit(|app| app.grace_period = None);
    assert_eq!(bench.sync().await.run.cost.requests, 4);
    assert!(setting().await.is_empty());
    assert_eq!(bench.sync().await.run.cost.requests, 3);
}

async fn a_product_id_is_never_lost(backend: Backend) {
    let bench = Bench::new(
        App::new(APP, "com.example.app", "Example").with_in_app_purchases(3),
        backend,
    )
    .await;
    bench.sync().await;
    let before = bench.catalog().await;
    let state = bench.simulator.state();
    let bare: Vec<_> = state
        .app(APP)
        .unwrap()
        .in_app_purchases
        .iter()
        .map(|it| json!({ "type": "inAppPurchases", "id": it.id }))
        .collect();
    bench.simulator.inject(Fault::new(
        "inAppPurchasesV2",
        FaultKind::Body(json!({ "data": bare }).to_string()),
    ));
    let run = bench.sync().await.run;
    assert_eq!(
        run.failures[&Kind::InAppPurchase].code,
        Code::UpstreamUnexpected
    );
    assert_eq!(bench.catalog().await, before);
}
