//! What this worker counts, for Prometheus: the page `/metrics`. docs/metrics.md describes each number.
//!
//! What must hold: labels are bounded, and none is a secret: no key's id and no issuer's, and a project's id in the capped series
//! of `fleet` alone. Counting costs a lock that nobody holds for longer than a number takes, and never across an await. What is
//! known before it happens is on the page as 0 from the start, as an increase from nothing is none.

mod fleet;
mod request;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use tokio::time::Instant;

use self::{fleet::Counted, request::STATUSES};
pub use self::{
    fleet::MOST_PROJECTS,
    request::{Sent, Unanswered},
};
use crate::{
    budget::Budget,
    catalog::{Counts, Kind, Op, Tally},
    diagnosis::Code,
    run::{Outcome, Run, Timings, Trigger},
    store::{Fleet, KnownMasterKey},
};

/// What the page is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// App Store Connect, among what a worker depends on.
pub const APP_STORE_CONNECT: &str = "app_store_connect";

/// The code of a run that ended in a panic.
pub const PANICKED: &str = "panicked";

/// What ends runs without a record, where it is of a kind that a worker meets in good health.
const UNRECORDED: [&str; 5] = [
    "lease_lost",
    "stopped",
    "database_unavailable",
    "database_failed",
    PANICKED,
];

/// A typical run takes three requests, so one or two seconds; one that waits for its key's limits takes minutes.
const RUN_SECONDS: [f64; 11] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0,
];

/// The catalog of a typical project is read and written in milliseconds; a call to a database is given up after 12 s, to a file
/// that others write later.
const DATABASE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 12.0, 45.0];

/// Free workers claim within a second, or the poll. What waits for longer waits for workers, for its key, or for a wrong clock.
const QUEUE_SECONDS: [f64; 9] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];

/// Apple answers in a quarter of a second; a try is given up after 30 s.
const REQUEST_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A connection that is free is had at once; it is waited for up to 5 s, of a file up to 20 s.
const WAIT_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0];

/// On demand a key is used down to a twentieth, on schedule down to a fifth.
const BUDGET_RATIOS: [f64; 8] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The numbers of one process. Clones are of the same process.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Registry,
    histograms: Histograms,
    runs: Family<Labels<2>, Counter>,
    run_failures: Family<Labels<1>, Counter>,
    runs_under_way: Gauge,
    changes: Family<Labels<2>, Counter>,
    requests: Family<Labels<1>, Counter>,
    retries: Counter,
    bytes: Counter,
    fenced_writes: Counter,
    takeovers: Counter,
    dependency_up: Family<Labels<1>, Gauge>,
    fleet: Arc<Counted>,
}

struct Histograms {
    run: Histogram,
    run_upstream: Histogram,
    run_database: Histogram,
    queue: Family<Labels<1>, Histogram, fn() -> Histogram>,
    request: Histogram,
    budget_left: Histogram,
    database_wait: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A run that is under way until this is dropped.
#[derive(Debug)]
#[must_use = "a run that drops it counts as ended"]
pub struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A wait that lasts until this is dropped.
#[derive(Debug)]
#[must_use = "a wait that drops it counts as over"]
pub struct Wait {
    began: Instant,
    seconds: Histogram,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Metrics {
    /// The page.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "a text takes all that is written to it"
    )]
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.0.registry).expect("a text takes all");
        page
    }

    /// A request is sent to App Store Connect.
    pub fn request(&self) -> Sent {
        Sent::now(self)
    }

    /// The request repeats one before.
    pub fn count_retry(&self) {
        self.0.retries.inc();
    }

    /// A body came, of so many bytes.
    pub fn count_bytes(&self, bytes: usize) {
        self.0.bytes.inc_by(bytes as u64);
    }

    /// A run begins.
    pub fn run_begins(&self) -> UnderWay {
        self.0.runs_under_way.inc();
        UnderWay(self.0.runs_under_way.clone())
    }

    /// A project was claimed, so long after its request was ready.
    pub fn queued(&self, trigger: Trigger, waited: Duration) {
        let labels = [("trigger", trigger.as_str())];
        let waits = self.0.histograms.queue.get_or_create(&labels);
        waits.observe(waited.as_secs_f64());
    }

    /// A run ended and left a record.
    pub fn run_recorded(&self, run: &Run, timings: Timings, budget: Option<Budget>) {
        let counted = &*self.0;
        counted
            .runs
            .get_or_create(&run_labels(run.trigger, run.outcome))
            .inc();
        if let Some(error) = &run.error {
            self.count_failure(error.code.as_str());
        }
        self.count_changes(&run.counts);
        let times = &counted.histograms;
        let Timings {
            total,
            upstream,
            database,
        } = timings;
        times.run.observe(total.as_secs_f64());
        times.run_upstream.observe(upstream.as_secs_f64());
        times.run_database.observe(database.as_secs_f64());
        if let Some(ratio) = budget.and_then(left_of) {
            times.budget_left.observe(ratio);
        }
    }

    /// A run ended without a record.
    pub fn run_unrecorded(&self, code: &'static str) {
        self.count_failure(code);
    }

    /// Leases of other workers had run out.
    pub fn count_takeovers(&self, leases: usize) {
        self.0.takeovers.inc_by(leases as u64);
    }

    /// A write under a lease was refused, because the lease was another's by then.
    pub fn count_fenced_write(&self) {
        self.0.fenced_writes.inc();
    }

    /// A connection to the database is waited for, in vain too, until this is dropped.
    pub fn await_database(&self) -> Wait {
        Wait {
            began: Instant::now(),
            seconds: self.0.histograms.database_wait.clone(),
        }
    }

    /// What the worker depends on works.
    pub fn dependency_up(&self, name: &'static str) {
        self.dependency(name).set(1);
    }

    /// What the worker depends on does not work.
    pub fn dependency_down(&self, name: &'static str) {
        self.dependency(name).set(0);
    }

    /// All projects were counted a moment ago.
    pub fn counted(&self, fleet: Fleet, master_keys: Vec<KnownMasterKey>) {
        self.0.fleet.put(fleet, master_keys);
    }

    fn count_failure(&self, code: &'static str) {
        self.0.run_failures.get_or_create(&[("code", code)]).inc();
    }

    fn count_changes(&self, counts: &Counts) {
        for (&kind, &tally) in &counts.0 {
            for (labels, count) in by_op(kind, tally) {
                self.0.changes.get_or_create(&labels).inc_by(count as u64);
            }
        }
    }

    fn dependency(&self, name: &'static str) -> Gauge {
        let labels = [("dependency", name)];
        self.0.dependency_up.get_or_create_owned(&labels)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("catalog_sync");
        let fleet = Arc::<Counted>::default();
        registry.register_collector(Box::new(Arc::clone(&fleet)));
        let build = put(
            &mut registry,
            "build_info",
            "The version of this worker",
            Family::<Labels<1>, Gauge>::default(),
        );
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        let metrics = Self(Arc::new(Shared {
            histograms: Histograms::on(&mut registry),
            runs: put(
                &mut registry,
                "runs",
                "Runs that left a record",
                Family::default(),
            ),
            run_failures: put(
                &mut registry,
                "run_failures",
                "Runs with an error, and runs that left no record",
                Family::default(),
            ),
            runs_under_way: put(
                &mut registry,
                "runs_under_way",
                "Runs under way",
                Gauge::default(),
            ),
            changes: put(
                &mut registry,
                "changes",
                "Changes of catalogs that were written",
                Family::default(),
            ),
            requests: put(
                &mut registry,
                "upstream_requests",
                "Requests sent to App Store Connect, each try counted",
                Family::default(),
            ),
            retries: put(
                &mut registry,
                "upstream_retries",
                "Requests that repeated one before",
                Counter::default(),
            ),
            bytes: put(
                &mut registry,
                "upstream_bytes",
                "Bytes of bodies that App Store Connect sent, after decompression",
                Counter::default(),
            ),
            fenced_writes: put(
                &mut registry,
                "fenced_writes",
                "Writes refused because the lease was another's by then",
                Counter::default(),
            ),
            takeovers: put(
                &mut registry,
                "lease_takeovers",
                "Leases found run out when their projects were claimed",
                Counter::default(),
            ),
            dependency_up: put(
                &mut registry,
                "dependency_up",
                "Whether what this worker depends on can be used",
                Family::default(),
            ),
            fleet,
            registry,
        }));
        metrics.begin_at_nothing();
        metrics
    }
}

impl Histograms {
    fn on(registry: &mut Registry) -> Self {
        Self {
            run: put(
                registry,
                "run_duration_seconds",
                "How long recorded runs took",
                Histogram::new(RUN_SECONDS),
            ),
            run_upstream: put(
                registry,
                "run_upstream_seconds",
                "How long recorded runs looked at App Store Connect, waits included",
                Histogram::new(RUN_SECONDS),
            ),
            run_database: put(
                registry,
                "run_database_seconds",
                "How long recorded runs loaded and committed",
                Histogram::new(DATABASE_SECONDS),
            ),
            queue: put(
                registry,
                "queue_wait_seconds",
                "How long requests were ready before their projects were claimed",
                Family::new_with_constructor(|| Histogram::new(QUEUE_SECONDS)),
            ),
            request: put(
                registry,
                "upstream_request_duration_seconds",
                "How long requests to App Store Connect took, bodies included",
                Histogram::new(REQUEST_SECONDS),
            ),
            budget_left: put(
                registry,
                "budget_left_ratio",
                "What was left of a key's hourly budget at the end of a run",
                Histogram::new(BUDGET_RATIOS),
            ),
            database_wait: put(
                registry,
                "database_wait_seconds",
                "How long a database connection was waited for, and the turn to write",
                Histogram::new(WAIT_SECONDS),
            ),
        }
    }
}

impl Metrics {
    /// Makes what is known before it happens, as 0.
    fn begin_at_nothing(&self) {
        let counted = &*self.0;
        let triggers = [
            Trigger::Command,
            Trigger::Schedule,
            Trigger::Request,
            Trigger::Retry,
        ];
        let outcomes = [
            Outcome::Succeeded,
            Outcome::Held,
            Outcome::Partial,
            Outcome::Failed,
        ];
        for trigger in triggers {
            for outcome in outcomes {
                drop(counted.runs.get_or_create(&run_labels(trigger, outcome)));
            }
        }
        // Nobody queues what is begun by hand.
        for trigger in triggers.iter().skip(1) {
            let labels = [("trigger", trigger.as_str())];
            drop(counted.histograms.queue.get_or_create(&labels));
        }
        let codes = Code::ALL.iter().map(|code| code.as_str());
        for code in codes.chain(UNRECORDED) {
            drop(counted.run_failures.get_or_create(&[("code", code)]));
        }
        for kind in Kind::ALL {
            for (labels, _) in by_op(kind, Tally::default()) {
                drop(counted.changes.get_or_create(&labels));
            }
        }
        for status in STATUSES {
            drop(counted.requests.get_or_create(&[("status", status)]));
        }
        // It counts as up until it is known to be down.
        self.dependency_up(APP_STORE_CONNECT);
    }
}

/// Puts it on the page.
fn put<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn run_labels(trigger: Trigger, outcome: Outcome) -> Labels<2> {
    [("trigger", trigger.as_str()), ("outcome", outcome.as_str())]
}

fn by_op(kind: Kind, tally: Tally) -> [(Labels<2>, usize); 4] {
    let Tally {
        added,
        updated,
        removed,
        restored,
    } = tally;
    [
        (Op::Added, added),
        (Op::Updated, updated),
        (Op::Removed, removed),
        (Op::Restored, restored),
    ]
    .map(|(op, count)| ([("kind", kind.as_str()), ("op", op.as_str())], count))
}

/// What part of it is left; none where Apple grants nothing, which says nothing.
fn left_of(Budget { limit, left }: Budget) -> Option<f64> {
    let number = |requests: u64| f64::from(u32::try_from(requests).unwrap_or(u32::MAX));
    (limit > 0).then(|| (number(left) / number(limit)).min(1.0))
}

#[cfg(test)]
mod tests;
