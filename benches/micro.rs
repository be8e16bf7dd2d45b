//! What the pieces of a run cost, each alone: a page decoded, catalogs compared, a key sealed, a token minted, a catalog committed.
//!
//! Only the public API is used, so some pieces are measured with what stands around them; each says so. What holds on any machine
//! is how they compare to each other; the times hold on this one.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a benchmark that cannot run is to say why and end"
)]

#[path = "fleet/postgres.rs"]
#[expect(dead_code, reason = "no processor time is counted here")]
mod postgres;
#[path = "fleet/process.rs"]
#[expect(dead_code, reason = "no processor time is counted here")]
mod process;

use std::{fs, hint::black_box, num::NonZeroU32, sync::Arc, time::Duration};

use axum::http;
use catalog_sync::{
    asc::{self, Client, InProcess, Meter, Session, Terms},
    catalog::{
        Catalog, Confirmation, Entry, Kind, Limits, OwnLimits, Plan, Snapshot, Standing, diff,
        guard::{self, Evidence},
    },
    clock,
    credential::{self, Credential, Given},
    project::{self, Project, ProjectId},
    run::{Cost, Outcome, Run, Trigger},
    simulator::{self, Simulator},
    store::{self, Aftermath, Lease, Store},
    sync,
    vault::{self, Vault},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use reqwest::Url;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use self::postgres::Postgres;

const APP: &str = "1000000";
const KEY: &str = "PIECES0001";
const ISSUER: &str = "5a1e0000-0000-4000-8000-000000000001";
/// A page of App Store Connect at its longest.
const PAGE: usize = 200;
/// A catalog at its largest: as many in-app purchases as Apple lets an app have.
const MANY: usize = 10_000;
const TTL: Duration = Duration::from_secs(30);

criterion_group!(pieces, page, compare, seal, token, commit);
criterion_main!(pieces);

fn page(bench: &mut Criterion) {
    let runtime = runtime();
    let keys = Keys::new();
    let page = runtime.block_on(keys.page());
    let bytes = page.len();
    let session = keys.session(&client(page));
    let _entered = runtime.enter();
    let fetched = || {
        let listed = session.fetch_in_app_purchases(APP).now_or_never();
        listed.expect("nothing is waited for").expect("it is right")
    };
    assert_eq!(fetched().len(), PAGE);
    let mut group = bench.benchmark_group("page of 200 in-app purchases");
    group.throughput(Throughput::Bytes(
        bytes.try_into().expect("a page is small"),
    ));
    // With what a request costs that comes from memory: "request" below.
    group.bench_function("decode", |bench| bench.iter(fetched));
    group.finish();
}

fn compare(bench: &mut Criterion) {
    let entries = || (0..MANY).map(|number| purchase(number, "Coins"));
    let catalog = |entries: Vec<Entry>| {
        let changes = diff(&Catalog::default(), &snapshot(entries));
        catalog_sync::catalog::log::replay(changes.iter().cloned())
    };
    let local = catalog(entries().collect());
    let one = entries().map(|entry| match entry.key.store_id.as_str() {
        "5000" => entry.with("name", "Gems"),
        _ => entry,
    });
    let all = (0..MANY).map(|number| purchase(number, "Gems"));
    let rounds = [
        ("none changed", snapshot(entries()), 0),
        ("one changed", snapshot(one), 1),
        ("all changed", snapshot(all), MANY),
    ];
    let mut group = bench.benchmark_group("diff of 10,000 entries");
    for (name, remote, changes) in rounds {
        assert_eq!(diff(&local, &remote).len(), changes);
        group.bench_function(name, |bench| {
            bench.iter_with_large_drop(|| diff(black_box(&local), black_box(&remote)));
        });
    }
    group.finish();
}

fn seal(bench: &mut Criterion) {
    let Keys {
        vault,
        project,
        credential,
        ..
    } = Keys::new();
    let sealed = vault.seal(&project, &credential).expect("it can be sealed");
    let mut group = bench.benchmark_group("key");
    group.bench_function("seal", |bench| {
        bench.iter(|| vault.seal(&project, &credential));
    });
    group.bench_function("unseal", |bench| {
        bench.iter(|| vault.unseal(&project, &sealed).expect("it opens"));
    });
    group.finish();
}

/// The difference of both is a token of ES256 and the unsealing of its key.
fn token(bench: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let keys = Keys::new();
    let ask = |session: &Session| {
        let asked = session.probe_catalog(APP).now_or_never();
        asked.expect("nothing is waited for").expect("it is right");
    };
    let answer = br#"{"data":[]}"#.to_vec();
    let warm = keys.session(&client(answer.clone()));
    let mut group = bench.benchmark_group("request");
    group.bench_function("with the token at hand", |bench| bench.iter(|| ask(&warm)));
    group.bench_function("with a token minted", |bench| {
        bench.iter_batched_ref(
            || keys.session(&client(answer.clone())),
            |session| ask(session),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn commit(bench: &mut Criterion) {
    let runtime = runtime();
    let folder = folder();
    let server = Postgres::start().expect("Postgres starts");
    let file = folder.path().join("catalog.db");
    let places = [
        ("SQLite", format!("sqlite:{}", file.display())),
        ("Postgres", server.url()),
    ];
    let plan = plan((0..MANY).map(|number| purchase(number, "Coins")));
    assert_eq!(plan.changes().len(), MANY);
    let mut group = bench.benchmark_group("commit of 10,000 new entries");
    group.sample_size(10);
    for (name, url) in places {
        let store = runtime.block_on(async {
            let store = store::open(&url, &store::Options::default()).await?;
            store.migrate().await?;
            Ok::<_, store::Error>(store)
        });
        let store = store.expect("it opens");
        group.bench_function(name, |bench| {
            bench.iter_batched(
                || runtime.block_on(begin(&*store)),
                |lease| {
                    let run = run(&plan);
                    let aftermath = Aftermath::default();
                    let written = store.commit(&lease, &plan, &run, &aftermath);
                    runtime.block_on(written).expect("the lease is ours")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A key in the three forms that it has: as Apple gives it, as the simulator knows it, and sealed.
struct Keys {
    simulator: Simulator,
    vault: Arc<Vault>,
    project: ProjectId,
    credential: Credential,
    _folder: TempDir,
}

impl Keys {
    fn new() -> Self {
        let app = simulator::App::new(APP, "com.example.app", "App").with_in_app_purchases(PAGE);
        let key = simulator::Key::new(KEY, simulator::Role::Admin);
        let team = simulator::Team::new("Team", ISSUER)
            .with_key(key)
            .with_app(app);
        let state = simulator::State::new().with_team(team);
        let simulator = Simulator::in_process(state, BASE_URL).expect("the state is right");
        let folder = folder();
        simulator
            .state()
            .write_keys(folder.path())
            .expect("there is room");
        let pem = fs::read(folder.path().join(format!("AuthKey_{KEY}.p8"))).expect("it is there");
        let credential = credential::read(Given {
            key_id: Some(KEY),
            issuer_id: Some(ISSUER),
            private_key: Some(&pem),
            file_name: None,
        });
        let master_key = folder.path().join("master.key");
        vault::create(&master_key, clock::now()).expect("there is room");
        let vault = Vault::open(&[vault::Source::File(master_key)]);
        Self {
            simulator,
            vault: Arc::new(vault.expect("it was just made")),
            project: "pieces".parse().expect("it is a name"),
            credential: credential.expect("the simulator's keys are right"),
            _folder: folder,
        }
    }

    /// As a run has it: the key is unsealed for each token.
    fn session(&self, client: &Client) -> Session {
        let sealed = self.vault.seal(&self.project, &self.credential);
        let sealed = sealed.expect("it can be sealed");
        let signer = sync::signer(&self.vault, &self.project, &sealed).expect("it opens");
        client.session(signer, Arc::new(Meter::default()), Terms::on_demand())
    }

    /// The bytes of the simulator's first page.
    async fn page(&self) -> Vec<u8> {
        let asked = Arc::new(std::sync::Mutex::new(None));
        let seen = Arc::clone(&asked);
        // What the client asks for, and as whom, is what the simulator is asked.
        let asks: InProcess = Arc::new(move |url, authorization| {
            *seen.lock().expect("nobody panics") = Some((url, authorization));
            futures_util::future::ready(Err(catalog_sync::metrics::Unanswered::Refused)).boxed()
        });
        let mut options = options();
        options.retry.fault = Duration::ZERO;
        let session = self.session(&Client::in_process(options, asks));
        session
            .fetch_in_app_purchases(APP)
            .await
            .expect_err("nobody answers");
        let (url, authorization) = asked
            .lock()
            .expect("nobody panics")
            .take()
            .expect("it was asked");
        let answer = self.simulator.answer(&url, authorization).await;
        let body = answer
            .expect("the simulator answers")
            .bytes()
            .await
            .expect("it is whole");
        body.to_vec()
    }
}

const BASE_URL: &str = "http://appstoreconnect.test";

fn options() -> asc::Options {
    let mut options = asc::Options::new(Url::parse(BASE_URL).expect("it is a URL"));
    // What is measured here would wait for its turn.
    options.burst_per_key = NonZeroU32::MAX;
    options.requests_per_second_per_key = NonZeroU32::MAX;
    options
}

/// Whatever it asks for, it gets that.
fn client(answer: Vec<u8>) -> Client {
    let answers: InProcess = Arc::new(move |_, _| {
        let body = reqwest::Body::from(answer.clone());
        futures_util::future::ready(Ok(http::Response::new(body).into())).boxed()
    });
    Client::in_process(options(), answers)
}

/// Alike to what Apple says of one.
fn purchase(number: usize, name: &str) -> Entry {
    Entry::new(Kind::InAppPurchase, number.to_string())
        .with("productId", format!("com.example.product{number}"))
        .with("name", name)
        .with("inAppPurchaseType", "CONSUMABLE")
        .with("state", "APPROVED")
        .with("reviewNote", serde_json::Value::Null)
        .with("familySharable", false)
        .with("contentHosting", false)
}

fn snapshot(entries: impl IntoIterator<Item = Entry>) -> Snapshot {
    let mut snapshot = Snapshot::new();
    snapshot
        .cover(Kind::InAppPurchase, entries)
        .expect("each is there once");
    snapshot
}

/// What a first run makes of these.
fn plan(entries: impl IntoIterator<Item = Entry>) -> Plan {
    let (catalog, snapshot) = (Catalog::default(), snapshot(entries));
    let evidence = Evidence {
        looked_at: snapshot.covers(),
        seen_at: &[].into(),
        answers: &[].into(),
        turns: &[].into(),
        confirmation: Confirmation::default(),
        now: clock::now(),
    };
    let changes = diff(&catalog, &snapshot);
    guard::review(
        changes,
        &catalog,
        &evidence,
        &Limits::default(),
        Standing::Nothing,
    )
    .plan
}

/// A project more, and the right to write its catalog.
async fn begin(store: &dyn Store) -> Lease {
    let now = clock::now();
    let id: ProjectId = Uuid::now_v7().to_string().parse().expect("it is a name");
    let project = Project {
        id: id.clone(),
        app: project::App {
            id: APP.to_owned(),
            bundle_id: "com.example.app".to_owned(),
            name: "App".to_owned(),
        },
        key_id: KEY.to_owned(),
        issuer_id: Some(ISSUER.to_owned()),
        cron: None,
        guard: OwnLimits::default(),
        paused_at: None,
        created_at: now,
    };
    let key = project::SealedKey {
        key_id: KEY.to_owned(),
        issuer_id: project.issuer_id.clone(),
        master_key_id: "mk-1".to_owned(),
        sealed: vec![0; 256],
    };
    let added = store.add_project(&project, &key).await;
    added.expect("it is new");
    let claim = store.acquire(&id, TTL, now).await;
    claim.expect("nobody else has it").lease
}

fn run(plan: &Plan) -> Run {
    let now = clock::now();
    Run {
        id: Uuid::now_v7(),
        trigger: Trigger::Schedule,
        requested_at: None,
        slot_at: None,
        started_at: now,
        finished_at: now,
        outcome: Outcome::Succeeded,
        covered: [Kind::InAppPurchase].into(),
        listed: [(Kind::InAppPurchase, MANY)].into(),
        failures: [].into(),
        error: None,
        counts: plan.changes().counts(),
        resume_at: None,
        hold: None,
        missing: 0,
        cost: Cost {
            requests: 52,
            retries: 0,
            throttled: 0,
            bytes: 5_000_000,
            budget_left: Some(3_500),
        },
    }
}

/// On the disk of the build, and not in memory, where /tmp may be.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room")
}

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build().expect("threads can be had")
}
