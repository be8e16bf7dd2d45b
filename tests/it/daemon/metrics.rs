//! What `/metrics` tells, held to what the simulator was asked and what stands in the database.

mod prometheus;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use catalog_sync::{
    metrics::MOST_PROJECTS,
    simulator::{Fault, FaultKind},
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{task::block_in_place, time::timeout};

use super::fixture::{
    Daemon, GENEROUS, Gate, SHORT_LEASE, Sql, add_all, app_id, house, key_id, teams,
};
use crate::{
    house::{Backend, House, on_both_stores},
    postgres::own,
};

on_both_stores!(
    what_was_asked_done_and_written_is_counted_exactly,
    leases_that_ran_out_are_counted_by_who_takes_over,
    a_write_is_counted_that_came_too_late,
    how_all_projects_fare_is_counted_and_fifty_are_named,
);

/// What a page says: each series and its value.
struct Page {
    text: String,
    series: BTreeMap<String, String>,
}

impl Page {
    async fn of(address: &str) -> Self {
        let answer = reqwest::get(format!("http://{address}/metrics")).await;
        let text = answer.unwrap().text().await.unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let series = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let series = series.strip_prefix("catalog_sync_").unwrap();
            (series.to_owned(), value.to_owned())
        });
        Self {
            series: series.collect(),
            text,
        }
    }

    #[track_caller]
    fn text_of(&self, series: &str) -> &str {
        let value = self.series.get(series);
        value.unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    #[track_caller]
    fn seconds(&self, series: &str) -> f64 {
        self.text_of(series).parse().unwrap()
    }

    #[track_caller]
    fn value(&self, series: &str) -> u64 {
        self.text_of(series).parse().unwrap()
    }

    /// The series of that name that are not 0: labels' values with commas between them, and how many.
    fn by_labels(&self, name: &str) -> BTreeMap<String, u64> {
        let of_name = self.series.iter().filter_map(|(series, value)| {
            let labels = series.strip_prefix(name)?.strip_prefix('{')?;
            let values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
            let value: u64 = value.parse().unwrap();
            (value > 0).then(|| (values.join(","), value))
        });
        of_name.collect()
    }

    /// The labels of all series of that name.
    fn labels(&self, name: &str) -> BTreeSet<&str> {
        let of_name = self
            .series
            .keys()
            .filter_map(|series| series.strip_prefix(name)?.strip_prefix('{'));
        of_name.collect()
    }

    fn sum(&self, name: &str) -> u64 {
        self.by_labels(name).values().sum()
    }

    /// The names of what is on it, as they are scraped.
    fn names(&self) -> BTreeSet<String> {
        let types = self
            .text
            .lines()
            .filter_map(|it| it.strip_prefix("# TYPE "));
        types
            .map(|described| match described.split_once(' ').unwrap() {
                (name, "counter") => format!("{name}_total"),
                (name, _) => name.to_owned(),
            })
            .collect()
    }
}

/// A daemon at work, and where it answers.
async fn start(house: &House, variables: &[(&str, &str)]) -> (Daemon, String) {
    let listen = [("CATALOG_SYNC_HEALTH__LISTEN", "127.0.0.1:0")];
    let mut daemon = Daemon::spawn(house, &[&listen, variables].concat());
    let listening = daemon.event("health.listening").await;
    daemon.event("daemon.started").await;
    (daemon, listening["address"].as_str().unwrap().to_owned())
}

/// The line with the first count of all projects, which may have come before the daemon was at work.
async fn first_count(daemon: &mut Daemon) -> Value {
    match daemon.so_far("fleet.counted").into_iter().next() {
        Some(told) => told,
        None => daemon.event("fleet.counted").await,
    }
}

/// Waits until the page is as it should be.
async fn until(address: &str, is: impl Fn(&Page) -> bool) -> Page {
    let mut page = Page::of(address).await;
    let looking = async {
        while !is(&page) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            page = Page::of(address).await;
        }
    };
    let came = timeout(2 * GENEROUS, looking).await;
    assert!(came.is_ok(), "the page does not come to it:\n{}", page.text);
    page
}

/// What a query gives that has a name and a count in each row, with a comma between them.
async fn counted(sql: &mut Sql, query: &str) -> BTreeMap<String, u64> {
    let rows = sql.texts(query).await;
    rows.iter()
        .map(|row| {
            let (name, count) = row.rsplit_once(',').unwrap();
            (name.to_owned(), count.parse().unwrap())
        })
        .collect()
}

async fn what_was_asked_done_and_written_is_counted_exactly(backend: Backend) {
    let house = house(teams(4), backend).await;
    let mut sql = Sql::connect(&house).await;
    house.simulator.forget_requests();
    house
        .simulator
        .edit(|state| state.key_mut(&key_id(2)).unwrap().revoked = true);
    let later = FaultKind::RateLimited {
        retry_after: Some("3000".to_owned()),
    };
    for fault in [
        Fault::new("", later).of_key(key_id(3)),
        Fault::new("", FaultKind::status(503))
            .of_key(key_id(4))
            .once(),
        Fault::new("", FaultKind::Reset).of_key(key_id(1)).once(),
    ] {
        house.simulator.inject(fault);
    }
    let (mut daemon, address) = start(&house, &[]).await;
    for _ in 0..4 {
        daemon.event("sync.finished").await;
    }
    // Something is held: all in-app purchases of p1 would go.
    house.simulator.edit(|state| {
        let app = state.app_mut(&app_id(1)).unwrap();
        app.in_app_purchases.clear();
        app.subscription_groups[0].reference_name.push('!');
    });
    house.run(&["resync", "p1", "--wait"]).await.expect(2);
    let page = until(&address, |page| {
        page.sum("runs_total") >= 5 && page.value("runs_under_way") == 0
    })
    .await;

    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    for request in house.simulator.requests() {
        let status = request
            .status
            .map_or("lost".to_owned(), |it| it.to_string());
        *asked.entry(status).or_default() += 1;
    }
    assert_eq!(page.by_labels("upstream_requests_total"), asked);
    for status in ["200", "401", "429", "503", "lost"] {
        assert!(asked.contains_key(status), "{asked:?}");
    }
    let all: u64 = asked.values().sum();
    assert_eq!(page.value("upstream_request_duration_seconds_count"), all);

    let runs = "select trigger || ',' || outcome || ',' || count(*) from sync_runs group by trigger, outcome";
    let runs = counted(&mut sql, runs).await;
    assert_eq!(page.by_labels("runs_total"), runs);
    assert!(runs.keys().any(|it| it.ends_with(",held")), "{runs:?}");
    let count: u64 = runs.values().sum();
    for histogram in [
        "run_duration_seconds_count",
        "run_upstream_seconds_count",
        "run_database_seconds_count",
    ] {
        assert_eq!(page.value(histogram), count, "{histogram}");
    }
    assert_eq!(page.sum("queue_wait_seconds_count"), count);
    let whole = page.seconds("run_duration_seconds_sum");
    let parts = ["run_upstream_seconds_sum", "run_database_seconds_sum"];
    assert!(parts.iter().map(|part| page.seconds(part)).sum::<f64>() <= whole);
    let failures = "select error_code || ',' || count(*) from sync_runs where error_code is not null group by error_code";
    let failures = counted(&mut sql, failures).await;
    assert_eq!(page.by_labels("run_failures_total"), failures);
    assert_eq!(failures.get("rate_limited"), Some(&1), "{failures:?}");
    let changes =
        "select kind || ',' || op || ',' || count(*) from catalog_changes group by kind, op";
    let changes = counted(&mut sql, changes).await;
    assert_eq!(page.by_labels("changes_total"), changes);
    assert!(
        changes.contains_key("subscription_group,updated"),
        "{changes:?}"
    );
    for (series, column) in [
        ("upstream_retries_total", "retries"),
        ("upstream_bytes_total", "bytes"),
    ] {
        let sum = format!("select cast(sum({column}) as bigint) from sync_runs");
        assert_eq!(page.text_of(series), sql.text(&sum).await, "{series}");
        assert!(page.value(series) > 0, "{series}");
    }
    assert!(page.value("budget_left_ratio_count") > 0);
    assert!(page.value("database_wait_seconds_count") > count);
    assert_eq!(page.value(r#"dependency_up{dependency="database"}"#), 1);
    assert_eq!(page.value("fenced_writes_total"), 0);
    assert_eq!(page.value("lease_takeovers_total"), 0);
    for secret in [key_id(1), house.issuer_id(), "5a1e".to_owned()] {
        assert!(!page.text.contains(&secret), "{secret} in\n{}", page.text);
    }
    daemon.stop().await;
}

async fn leases_that_ran_out_are_counted_by_who_takes_over(backend: Backend) {
    let mut house = house(teams(2), backend).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    let (dead, address) = start(&house, &SHORT_LEASE).await;
    until(&address, |page| page.value("runs_under_way") == 2).await;
    dead.kill().await;
    gate.open();
    let (daemon, address) = start(&house, &SHORT_LEASE).await;
    let page = until(&address, |page| page.sum("runs_total") >= 2).await;
    assert_eq!(page.value("lease_takeovers_total"), 2);
    assert_eq!(page.value("fenced_writes_total"), 0);
    daemon.stop().await;
}

/// Not on SQLite, whose file nobody can write while a process stands still that was writing it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_lease_counts_a_failure_and_no_run() {
    let mut house = house(teams(1), Backend::Postgres).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    let (mut slow, slow_address) = start(&house, &SHORT_LEASE).await;
    gate.arrival().await;
    slow.signal(Signal::STOP);
    gate.open();
    let (quick, address) = start(&house, &SHORT_LEASE).await;
    let page = until(&address, |page| page.sum("runs_total") >= 1).await;
    assert_eq!(page.value("lease_takeovers_total"), 1);
    slow.signal(Signal::CONT);
    let aborted = slow.event_of("sync.aborted", "p1").await;
    assert_eq!(aborted["error.code"], "lease_lost", "{aborted}");
    let lost = r#"run_failures_total{code="lease_lost"}"#;
    let page = until(&slow_address, |page| page.value(lost) == 1).await;
    assert_eq!(page.sum("runs_total"), 0);
    assert_eq!(page.value("run_duration_seconds_count"), 0);
    let mut sql = Sql::connect(&house).await;
    assert_eq!(sql.runs("p1").await, 1);
    slow.stop().await;
    quick.stop().await;
}

async fn a_write_is_counted_that_came_too_late(backend: Backend) {
    let mut house = house(teams(1), backend).await;
    let mut gate = Gate::before(&mut house).await;
    gate.close();
    // It believes in its lease for long, and renews it often.
    let lease = [
        ("CATALOG_SYNC_SYNC__LEASE_MS", "60000"),
        ("CATALOG_SYNC_SYNC__HEARTBEAT_MS", "200"),
    ];
    let (mut daemon, address) = start(&house, &lease).await;
    gate.arrival().await;
    // As another worker does that takes it over; a day later is soon enough for the next try.
    let mut sql = Sql::connect(&house).await;
    sql.execute(
        "update project_state set epoch = epoch + 1, lease_token = 'another', lease_until = '2999-01-01T00:00:00.000Z'",
    )
    .await;
    daemon.event_of("sync.aborted", "p1").await;
    let lost = r#"run_failures_total{code="lease_lost"}"#;
    let page = until(&address, |page| page.value(lost) == 1).await;
    assert_eq!(page.value("fenced_writes_total"), 1, "one renewal");
    assert_eq!(sql.runs("p1").await, 0);
    gate.open();
    daemon.stop().await;
}

/// Copies a project that is there, often; the copies have never been synced for years, and no worker touches them.
async fn copy_project(sql: &mut Sql, times: u32) {
    for number in 1..=times {
        let id = format!("copy{number}");
        sql.execute(&format!(
            "insert into projects (id, app_id, bundle_id, app_name, created_at)
             select '{id}', app_id, bundle_id, app_name, '2020-01-01T00:00:00.000Z' from projects where id = 'p1'"
        ))
        .await;
        sql.execute(&format!(
            "insert into project_state (project_id, set_aside_at, outcome, error_code)
             values ('{id}', '2026-01-01T00:00:00.000Z', 'failed', 'key_rejected')"
        ))
        .await;
    }
}

async fn how_all_projects_fare_is_counted_and_fifty_are_named(backend: Backend) {
    let house = house(teams(2), backend).await;
    let mut sql = Sql::connect(&house).await;
    // What was read when it started stays until it is read again.
    let (mut daemon, address) = start(&house, &[]).await;
    until(&address, |page| page.sum("runs_total") >= 2).await;
    let told = first_count(&mut daemon).await;
    assert_eq!(told["projects"], 2, "{told}");
    let counted = |page: &Page| page.seconds("fleet_read_timestamp_seconds") > 0.0;
    let first = until(&address, counted).await;
    assert_eq!(first.labels("project_staleness_seconds").len(), 0);
    daemon.stop().await;

    copy_project(&mut sql, MOST_PROJECTS + 15).await;
    sql.execute(
        "update project_state set error_code = 'upstream_unavailable' where project_id in ('copy1', 'copy2', 'copy3')",
    )
    .await;
    house.run(&["project", "pause", "p2"]).await.expect(0);
    let (mut daemon, address) = start(&house, &[]).await;
    let page = until(&address, counted).await;
    let states = [("fresh", 1), ("paused", 1), ("stale", 65)];
    assert_eq!(
        page.by_labels("projects"),
        states
            .map(|(state, count)| (state.to_owned(), count))
            .into()
    );
    assert_eq!(page.value(r#"projects_failing{code="key_rejected"}"#), 62);
    assert_eq!(
        page.value(r#"projects_failing{code="upstream_unavailable"}"#),
        3
    );
    assert_eq!(page.value("projects_set_aside"), 65);
    assert_eq!(page.value("workers"), 1);
    assert_eq!(page.value("staleness_seconds_count"), 66);
    assert_eq!(page.value(r#"staleness_seconds_bucket{le="604800.0"}"#), 1);
    assert_eq!(page.sum("api_keys"), 2);
    // What a person must mend comes first, and tells by itself why these are stale.
    let failing = page.by_labels("project_failing");
    assert_eq!(failing.len(), MOST_PROJECTS as usize);
    assert!(failing.keys().all(|it| it.ends_with(",key_rejected")));
    let stale = page.labels("project_staleness_seconds");
    let passing = ["copy1", "copy2", "copy3"].map(|name| format!("project=\"{name}\"}}"));
    assert_eq!(stale, passing.iter().map(String::as_str).collect());
    let told = first_count(&mut daemon).await;
    for (field, count) in [
        ("projects", 67),
        ("fresh", 1),
        ("stale", 65),
        ("new", 0),
        ("failing", 65),
        ("held", 0),
        ("set_aside", 65),
        ("paused", 1),
        ("pending", 0),
        ("spent_keys", 0),
        ("workers", 1),
    ] {
        assert_eq!(told[field], count, "{field} in {told}");
    }
    let years = told["oldest_success_age_ms"].as_i64().unwrap();
    assert!(years > 6 * 365 * 86_400_000, "{told}");
    assert!(told["oldest_pending_ms"].is_null(), "{told}");
    assert_eq!(page.names(), prometheus::documented());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_projects_are_counted_for_the_log_where_nobody_listens() {
    let house = house(teams(1), Backend::Sqlite).await;
    let mut daemon = Daemon::start(&house, &[]).await;
    let told = first_count(&mut daemon).await;
    assert_eq!(
        (&told["level"], &told["projects"]),
        (&"INFO".into(), &1.into()),
        "{told}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_dies_is_told_on_the_page_which_needs_none() {
    let (mut server, url) = block_in_place(own);
    let house = House::at(teams(1), &url).await;
    add_all(&house).await;
    let (mut daemon, address) = start(&house, &[]).await;
    daemon.finished("p1", "succeeded").await;
    let database = r#"dependency_up{dependency="database"}"#;
    until(&address, |page| {
        page.series.get(database).is_some_and(|it| it == "1")
    })
    .await;
    block_in_place(|| server.kill());
    let page = until(&address, |page| page.value(database) == 0).await;
    assert_eq!(
        page.value(r#"dependency_up{dependency="app_store_connect"}"#),
        1
    );
    block_in_place(|| server.restart());
    until(&address, |page| page.value(database) == 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_before_its_database_says_so() {
    let (mut server, url) = block_in_place(own);
    let house = House::at(teams(1), &url).await;
    block_in_place(|| server.kill());
    let listen = [("CATALOG_SYNC_HEALTH__LISTEN", "127.0.0.1:0")];
    let mut daemon = Daemon::spawn(&house, &listen);
    let listening = daemon.event("health.listening").await;
    let address = listening["address"].as_str().unwrap();
    let database = r#"dependency_up{dependency="database"}"#;
    let page = until(address, |page| page.series.contains_key(database)).await;
    assert_eq!(page.value(database), 0);
    assert_eq!(page.text_of("fleet_read_timestamp_seconds"), "0.0");
    block_in_place(|| server.restart());
    until(address, |page| page.value(database) == 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_store_connect_is_down_on_the_page_while_it_fails_for_everybody() {
    let house = house(teams(4), Backend::Sqlite).await;
    house
        .simulator
        .inject(Fault::new("", FaultKind::status(503)));
    let (daemon, address) = start(&house, &[]).await;
    let upstream = r#"dependency_up{dependency="app_store_connect"}"#;
    assert_eq!(Page::of(&address).await.value(upstream), 1);
    until(&address, |page| page.value(upstream) == 0).await;
    house.run(&["resync", "--all"]).await.expect(0);
    house.simulator.clear_faults();
    until(&address, |page| page.value(upstream) == 1).await;
    daemon.stop().await;
}
