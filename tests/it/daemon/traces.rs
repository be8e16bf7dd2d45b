//! Traces, as a collector gets them: OTLP over HTTP.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use rustix::process::Signal;
use tokio::{net::TcpListener, task::JoinSet};

use super::fixture::{Daemon, house, key_id, teams};
use crate::house::Backend;

/// A collector, with what it was sent.
struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    _server: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let take = async |State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| {
            bodies.lock().unwrap().push(body);
            StatusCode::OK
        };
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&bodies));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            endpoint,
            bodies,
            _server: server,
        }
    }

    /// What came, decoded.
    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies.lock().unwrap();
        let decoded = bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()));
        decoded.map(Result::unwrap).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter();
        let resources = requests.flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// An attribute as text.
fn of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_traced_with_its_parts_and_no_secret() {
    let house = house(teams(1), Backend::Sqlite).await;
    let collector = Collector::start().await;
    let traces = [("CATALOG_SYNC_TRACES__ENDPOINT", collector.endpoint.as_str())];
    let mut daemon = Daemon::start(&house, &traces).await;
    let finished = daemon.finished("p1", "succeeded").await;
    let log = daemon.stop().await;
    assert!(!log.contains("traces."), "{log}");
    assert!(
        !log.contains("\"spans\""),
        "the log's lines are as without: {log}"
    );

    let spans = collector.spans();
    let named =
        |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let [sync] = named("sync")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(sync.parent_span_id, Vec::<u8>::new());
    for (attribute, expected) in [
        ("project.id", "p1".to_owned()),
        ("outcome", "succeeded".to_owned()),
        ("run.id", finished["run.id"].as_str().unwrap().to_owned()),
        (
            "trigger.kind",
            finished["trigger.kind"].as_str().unwrap().to_owned(),
        ),
        ("epoch", finished["epoch"].to_string()),
    ] {
        assert_eq!(
            of(&sync.attributes, attribute),
            Some(expected),
            "{attribute}"
        );
    }
    let only = |part| match named(part)[..] {
        [span] => span,
        _ => panic!("{part}: {spans:?}"),
    };
    for (part, within) in [
        ("fetch", sync),
        ("load", only("fetch")),
        ("review", sync),
        ("commit", sync),
    ] {
        let span = only(part);
        assert_eq!(span.parent_span_id, within.span_id, "{part}");
        assert_eq!(span.trace_id, sync.trace_id, "{part}");
    }
    let requests = named("request");
    assert_eq!(requests.len().to_string(), finished["requests"].to_string());
    for request in requests {
        assert_eq!(request.parent_span_id, named("fetch")[0].span_id);
        let attribute = |key| of(&request.attributes, key).unwrap();
        assert_eq!(
            (attribute("method"), attribute("status")),
            ("GET".to_owned(), "200".to_owned())
        );
        assert_eq!(attribute("attempt"), "1");
        assert!(attribute("endpoint").starts_with("/v"), "{request:?}");
        assert_eq!(request.kind, 3, "a client's");
    }
    let resource = collector.requests()[0].resource_spans[0]
        .resource
        .clone()
        .unwrap();
    assert_eq!(
        of(&resource.attributes, "service.name").unwrap(),
        "catalog-sync"
    );
    assert_eq!(
        of(&resource.attributes, "service.instance.id").unwrap(),
        finished["worker"].as_str().unwrap()
    );
    // The first is how every token begins; no query string is there.
    let sent = format!("{spans:?}");
    let team = &house.simulator.state().teams[0];
    for secret in [
        "eyJ",
        "Bearer",
        "PRIVATE KEY",
        "?",
        key_id(1).as_str(),
        team.issuer_id.as_str(),
    ] {
        assert!(!sent.contains(secret), "{secret}: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_is_traced_as_an_error() {
    let house = house(teams(1), Backend::Sqlite).await;
    house
        .simulator
        .edit(|state| state.teams[0].keys[0].revoked = true);
    let collector = Collector::start().await;
    let traces = [("CATALOG_SYNC_TRACES__ENDPOINT", collector.endpoint.as_str())];
    let mut daemon = Daemon::start(&house, &traces).await;
    daemon.finished("p1", "failed").await;
    daemon.stop().await;
    let spans = collector.spans();
    let sync = spans.iter().find(|span| span.name == "sync").unwrap();
    assert_eq!(
        of(&sync.attributes, "error.code").unwrap(),
        "not_authorized"
    );
    for name in ["sync", "request"] {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        assert_eq!(span.status.as_ref().unwrap().code, 2, "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_traced_where_none_is_wanted() {
    let house = house(teams(1), Backend::Sqlite).await;
    let collector = Collector::start().await;
    let traces = [
        ("CATALOG_SYNC_TRACES__ENDPOINT", collector.endpoint.as_str()),
        ("CATALOG_SYNC_TRACES__PERCENT", "0"),
    ];
    let mut daemon = Daemon::start(&house, &traces).await;
    daemon.finished("p1", "succeeded").await;
    daemon.stop().await;
    assert_eq!(collector.spans(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_is_told_once_and_stops_nothing() {
    let house = house(teams(1), Backend::Sqlite).await;
    let traces = [("CATALOG_SYNC_TRACES__ENDPOINT", "http://127.0.0.1:9")];
    let mut daemon = Daemon::start(&house, &traces).await;
    daemon.finished("p1", "succeeded").await;
    let down = daemon.event("traces.down").await;
    assert_eq!(down["level"], "WARN", "{down}");
    house.run(&["resync", "p1", "--wait"]).await.expect(0);
    daemon.finished("p1", "succeeded").await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("traces.down").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_holds_nothing_up() {
    let house = house(teams(1), Backend::Sqlite).await;
    // Connections are made by the system, and nobody answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    let mut daemon = Daemon::start(&house, &[("CATALOG_SYNC_TRACES__ENDPOINT", &endpoint)]).await;
    daemon.finished("p1", "succeeded").await;
    for _ in 0..3 {
        house.run(&["resync", "p1", "--wait"]).await.expect(0);
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code().await, 0);
}
