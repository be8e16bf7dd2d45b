use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use tokio::time::advance;
use uuid::Uuid;

use super::*;
use crate::{
    clock::Instant as At,
    diagnosis::Diagnosis,
    run::Cost,
    store::{AGES, Ages, FailingProject, HeldProject, Outbox, Stalest, Worker},
};

fn at(seconds: i64) -> At {
    At::UNIX_EPOCH + TimeDelta::seconds(1_800_000_000 + seconds)
}

/// A fleet of which every number is there.
fn fleet() -> Fleet {
    Fleet {
        read_at: at(0),
        fresh: 90,
        stale: 3,
        new: 2,
        paused: 5,
        failing: BTreeMap::from([("key_rejected".to_owned(), 4)]),
        set_aside: 1,
        held: 2,
        held_removals: 17,
        ages: Ages {
            projects: 95,
            seconds: 4000,
            oldest: Some(at(-9000)),
            up_to: [80, 90, 90, 94, 94, 94, 94, 94],
        },
        stalest: vec![Stalest {
            project_id: "stalest".parse().unwrap(),
            since: at(-9000),
        }],
        failing_projects: vec![FailingProject {
            project_id: "failing".parse().unwrap(),
            error_code: "key_rejected".to_owned(),
        }],
        held_projects: vec![HeldProject {
            project_id: "held".parse().unwrap(),
            removals: 16,
        }],
        pending: 7,
        ready_since: Some(at(-90)),
        spent_keys: 6,
        outboxes: vec![
            Outbox {
                sink: "nats".to_owned(),
                untold: 8,
                oldest_at: Some(at(-30)),
            },
            Outbox {
                sink: "rabbitmq".to_owned(),
                untold: 0,
                oldest_at: None,
            },
        ],
        workers: vec![Worker {
            name: "here:1".to_owned(),
            version: "1.0.0".to_owned(),
            started_at: at(-60),
            seen_at: at(-5),
        }],
    }
}

fn master_key(id: &str) -> KnownMasterKey {
    KnownMasterKey {
        id: id.to_owned(),
        check_value: None,
        api_keys: 9,
        first_seen_at: None,
        retired_at: None,
    }
}

/// The lines of the page that name this, in its order.
fn lines_with(metrics: &Metrics, part: &str) -> Vec<String> {
    let page = metrics.page();
    let of_samples = page.lines().filter(|line| !line.starts_with('#'));
    let with = of_samples.filter(|line| line.contains(part));
    with.map(str::to_owned).collect()
}

/// The value of a series, as it is written.
fn value(metrics: &Metrics, series: &str) -> String {
    let page = metrics.page();
    let found = page.lines().find_map(|line| {
        let value = line.strip_prefix("catalog_sync_")?.strip_prefix(series)?;
        value.strip_prefix(' ')
    });
    found
        .unwrap_or_else(|| panic!("no {series} in\n{page}"))
        .to_owned()
}

/// Name as scraped, type and labels of what is on a page.
fn described(page: &str) -> BTreeSet<(String, String, BTreeSet<String>)> {
    let mut found: Vec<(String, String, BTreeSet<String>)> = Vec::new();
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            let name = format!("{name}{suffix}");
            found.push((name, kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{')
        {
            let (labels, _) = labels.rsplit_once('}').unwrap();
            let names = labels
                .split("\",")
                .map(|label| label.split_once('=').unwrap().0);
            let own = names.filter(|name| *name != "le").map(str::to_owned);
            found.last_mut().unwrap().2.extend(own);
        }
    }
    found.into_iter().collect()
}

/// The same of the tables of docs/metrics.md.
fn documented() -> BTreeSet<(String, String, BTreeSet<String>)> {
    let rows = include_str!("../../docs/metrics.md").lines();
    rows.filter(|line| line.starts_with("| `catalog_sync_"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let labels = cells[3]
                .split(',')
                .map(|label| label.trim().trim_matches('`'));
            (
                cells[1].trim_matches('`').to_owned(),
                cells[2].to_owned(),
                labels
                    .filter(|label| !label.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        })
        .collect()
}

#[tokio::test]
async fn every_number_is_documented_with_its_type_and_labels_and_no_other() {
    let metrics = Metrics::default();
    metrics.counted(fleet(), vec![master_key("main")]);
    let page = metrics.page();
    assert_eq!(described(&page), documented());
    let explained = page.matches("# HELP ").count();
    assert_eq!(explained, documented().len());
}

#[tokio::test]
async fn all_projects_are_on_the_page_as_they_were_counted() {
    let metrics = Metrics::default();
    assert_eq!(value(&metrics, "fleet_read_timestamp_seconds"), "0.0");
    metrics.counted(fleet(), vec![master_key("main"), master_key("a \"b\" \\")]);
    for (series, expected) in [
        (r#"projects{state="fresh"}"#, "90"),
        (r#"projects{state="stale"}"#, "3"),
        (r#"projects{state="new"}"#, "2"),
        (r#"projects{state="paused"}"#, "5"),
        (r#"projects_failing{code="key_rejected"}"#, "4"),
        ("projects_held", "2"),
        ("projects_set_aside", "1"),
        ("held_removals", "17"),
        (r#"project_staleness_seconds{project="stalest"}"#, "9000.0"),
        (
            r#"project_failing{project="failing",code="key_rejected"}"#,
            "1",
        ),
        (r#"project_held{project="held"}"#, "16"),
        ("pending_projects", "7"),
        ("oldest_pending_seconds", "90.0"),
        ("waiting_for_budget_keys", "6"),
        (r#"outbox_untold{dependency="nats"}"#, "8"),
        (r#"outbox_oldest_seconds{dependency="nats"}"#, "30.0"),
        (r#"outbox_untold{dependency="rabbitmq"}"#, "0"),
        (r#"outbox_oldest_seconds{dependency="rabbitmq"}"#, "0.0"),
        (r#"api_keys{master_key="main"}"#, "9"),
        (r#"api_keys{master_key="a \"b\" \\"}"#, "9"),
        ("workers", "1"),
        ("fleet_read_timestamp_seconds", "1800000000.0"),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
}

#[tokio::test]
async fn ages_are_a_histogram_whose_last_bucket_has_them_all() {
    let metrics = Metrics::default();
    metrics.counted(fleet(), Vec::new());
    let lines = lines_with(&metrics, "catalog_sync_staleness_seconds");
    let expected = [
        "_sum 4000.0",
        "_count 95",
        r#"_bucket{le="3600.0"} 80"#,
        r#"_bucket{le="7200.0"} 90"#,
        r#"_bucket{le="10800.0"} 90"#,
        r#"_bucket{le="21600.0"} 94"#,
        r#"_bucket{le="43200.0"} 94"#,
        r#"_bucket{le="86400.0"} 94"#,
        r#"_bucket{le="172800.0"} 94"#,
        r#"_bucket{le="604800.0"} 94"#,
        r#"_bucket{le="+Inf"} 95"#,
    ];
    assert_eq!(expected.len(), AGES.len() + 3);
    let expected = expected.map(|line| format!("catalog_sync_staleness_seconds{line}"));
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_is_mended_is_gone_from_the_page() {
    let metrics = Metrics::default();
    metrics.counted(fleet(), vec![master_key("main")]);
    let mended = Fleet {
        failing: BTreeMap::new(),
        stalest: Vec::new(),
        failing_projects: Vec::new(),
        held_projects: Vec::new(),
        outboxes: Vec::new(),
        ..fleet()
    };
    let named = |metrics: &Metrics| {
        let parts = ["project=", "projects_failing{", "outbox_"];
        parts.map(|part| lines_with(metrics, part).len())
    };
    assert_eq!(named(&metrics), [3, 1, 4]);
    metrics.counted(mended, Vec::new());
    assert_eq!(named(&metrics), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_were_read_five_minutes_ago_are_left_out() {
    let metrics = Metrics::default();
    metrics.counted(fleet(), vec![master_key("main")]);
    let of_all = |metrics: &Metrics| {
        let page = metrics.page();
        let rows = page.lines().skip_while(|line| {
            !line.starts_with("# HELP catalog_sync_fleet_read_timestamp_seconds")
        });
        rows.filter(|line| line.starts_with("# TYPE")).count()
    };
    advance(Duration::from_mins(5)).await;
    assert_eq!(of_all(&metrics), 17);
    advance(Duration::from_millis(1)).await;
    assert_eq!(of_all(&metrics), 1);
    let timestamp = value(&metrics, "fleet_read_timestamp_seconds");
    assert_eq!(timestamp, "1800000000.0");
    metrics.counted(fleet(), Vec::new());
    assert_eq!(of_all(&metrics), 17);
}

fn run(outcome: Outcome, error: Option<Code>, counts: Counts) -> Run {
    Run {
        id: Uuid::nil(),
        trigger: Trigger::Schedule,
        requested_at: None,
        slot_at: None,
        started_at: at(0),
        finished_at: at(1),
        outcome,
        covered: BTreeSet::new(),
        listed: BTreeMap::new(),
        failures: BTreeMap::new(),
        error: error.map(|code| Diagnosis::new(code, "so it is")),
        counts,
        hold: None,
        missing: 0,
        resume_at: None,
        cost: Cost::default(),
    }
}

#[tokio::test]
async fn a_run_is_counted_by_what_it_came_to() {
    let metrics = Metrics::default();
    let tally = Tally {
        added: 3,
        updated: 2,
        removed: 1,
        restored: 4,
    };
    let changed = Counts(BTreeMap::from([(Kind::Subscription, tally)]));
    let timings = Timings {
        total: Duration::from_secs(7),
        upstream: Duration::from_secs(6),
        database: Duration::from_millis(20),
    };
    let budget = |left| Some(Budget { limit: 3600, left });
    let good = run(Outcome::Succeeded, None, changed);
    let bad = run(Outcome::Failed, Some(Code::KeyRejected), Counts::default());
    metrics.run_recorded(&good, timings, budget(900));
    metrics.run_recorded(&bad, timings, None);
    metrics.run_unrecorded(PANICKED);
    for (series, expected) in [
        (r#"runs_total{trigger="schedule",outcome="succeeded"}"#, "1"),
        (r#"runs_total{trigger="schedule",outcome="failed"}"#, "1"),
        (r#"runs_total{trigger="request",outcome="failed"}"#, "0"),
        (r#"run_failures_total{code="key_rejected"}"#, "1"),
        (r#"run_failures_total{code="panicked"}"#, "1"),
        (r#"run_failures_total{code="lease_lost"}"#, "0"),
        (r#"changes_total{kind="subscription",op="added"}"#, "3"),
        (r#"changes_total{kind="subscription",op="updated"}"#, "2"),
        (r#"changes_total{kind="subscription",op="removed"}"#, "1"),
        (r#"changes_total{kind="subscription",op="restored"}"#, "4"),
        (r#"changes_total{kind="grace_period",op="added"}"#, "0"),
        ("run_duration_seconds_sum", "14.0"),
        ("run_upstream_seconds_sum", "12.0"),
        ("run_database_seconds_sum", "0.04"),
        ("budget_left_ratio_sum", "0.25"),
        ("budget_left_ratio_count", "1"),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
}

#[tokio::test]
async fn a_run_is_under_way_until_it_is_dropped() {
    let metrics = Metrics::default();
    let one = metrics.run_begins();
    let other = metrics.run_begins();
    assert_eq!(value(&metrics, "runs_under_way"), "2");
    drop(one);
    drop(other);
    assert_eq!(value(&metrics, "runs_under_way"), "0");
}

#[tokio::test]
async fn what_was_not_used_yet_is_neither_up_nor_down() {
    let metrics = Metrics::default();
    let known = |metrics: &Metrics| lines_with(metrics, "dependency_up{");
    let upstream = "catalog_sync_dependency_up{dependency=\"app_store_connect\"} 1";
    assert_eq!(known(&metrics), [upstream]);
    metrics.dependency_down("nats");
    assert_eq!(value(&metrics, r#"dependency_up{dependency="nats"}"#), "0");
    metrics.dependency_up("nats");
    assert_eq!(value(&metrics, r#"dependency_up{dependency="nats"}"#), "1");
}

#[test]
fn a_budget_of_nothing_says_nothing() {
    let left_of = |limit, left| super::left_of(Budget { limit, left });
    assert_eq!(left_of(0, 0), None);
    assert_eq!(left_of(3600, 0), Some(0.0));
    assert_eq!(left_of(3600, 3600), Some(1.0));
    assert_eq!(left_of(3600, 4000), Some(1.0));
}
