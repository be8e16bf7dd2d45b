//! What a real Prometheus makes of the page.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{Page, start, until};
use crate::{
    daemon::fixture::{house, teams},
    house::Backend,
    prometheus::{Prometheus, is_there},
};

fn page_of_docs() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    fs::read_to_string(page).unwrap()
}

/// The names in the tables of docs/metrics.md.
pub(super) fn documented() -> BTreeSet<String> {
    let page = page_of_docs();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .filter(|name| name.starts_with("catalog_sync_"))
        .collect()
}

/// The queries of docs/metrics.md.
fn queries() -> Vec<String> {
    let page = page_of_docs();
    let (_, block) = page.split_once("```promql\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let lines = block.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_what_is_documented_and_answers_the_questions() {
    if !is_there("prometheus") {
        return;
    }
    let house = house(teams(2), Backend::Sqlite).await;
    let (daemon, address) = start(&house, &[]).await;
    let server = Prometheus::scraping(&address, &[]);
    server.until("up", "1").await;
    server.until("sum(catalog_sync_runs_total)", "2").await;
    server.until("sum(catalog_sync_projects)", "2").await;
    assert_eq!(
        server.query("catalog_sync_build_info").await[0]["metric"]["version"],
        env!("CARGO_PKG_VERSION")
    );

    let metadata = server.ask("metadata", &[]).await.unwrap();
    let known = metadata
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, described)| {
            let is_counter = described[0]["type"] == "counter";
            format!("{name}{}", if is_counter { "_total" } else { "" })
        });
    let known: BTreeSet<String> = known
        .filter(|name| name.starts_with("catalog_sync_"))
        .collect();
    assert_eq!(known, documented());
    let queries = queries();
    assert!(queries.len() > 8, "{queries:?}");
    for query in queries {
        server.query(&query).await;
    }
    let fresh = server.query("1 - max(catalog_sync_projects{state=\"stale\"}) / sum(max by (state) (catalog_sync_projects{state!=\"paused\"}))").await;
    assert_eq!(fresh[0]["value"][1], "1", "{fresh}");
    let young = server.query("max(catalog_sync_staleness_seconds_bucket{le=\"10800.0\"}) / max(catalog_sync_staleness_seconds_count)").await;
    assert_eq!(young[0]["value"][1], "1", "{young}");
    daemon.stop().await;
}

/// Tools that know the older format alone read the page as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_reads_the_page_in_the_older_format() {
    if !is_there("promtool") {
        return;
    }
    let house = house(teams(1), Backend::Sqlite).await;
    let (mut daemon, address) = start(&house, &[]).await;
    daemon.finished("p1", "succeeded").await;
    let page: Page = until(&address, |page| page.sum("runs_total") >= 1).await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(page.text.as_bytes()).await.unwrap();
    drop(input);
    let said = promtool.wait_with_output().await.unwrap();
    // 3 is for what it would name otherwise: it takes counters, which end in _total there, for something else.
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(matches!(said.status.code(), Some(0 | 3)), "{told}");
    assert!(!told.contains("error while linting"), "{told}");
    daemon.stop().await;
}
