//! A Prometheus of our own, as Debian has it, that scrapes a daemon.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::timeout,
};

use super::{Page, start, until};
use crate::{
    daemon::fixture::{GENEROUS, house, teams},
    house::Backend,
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
    let (_, block) = page.split_once("<!-- queries -->\n```promql\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let lines = block.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn is_there(program: &str) -> bool {
    let asked = StdCommand::new(program).arg("--version").output();
    if asked.is_err() {
        println!("skipped: {program} is not on this machine (Debian's package prometheus)");
    }
    asked.is_ok()
}

struct Prometheus {
    url: String,
    /// It ends with this.
    _child: Child,
    _folder: TempDir,
}

impl Prometheus {
    fn scraping(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "scrape_configs:\n  - job_name: catalog-sync\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    static_configs:\n      - targets: ['{address}']\n"
        );
        let file: PathBuf = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|free| free.local_addr())
            .unwrap()
            .port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            url: format!("http://127.0.0.1:{port}/api/v1"),
            _child: child,
            _folder: folder,
        }
    }

    /// The answer's data; none while it starts.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let request = reqwest::Client::builder().build().unwrap();
        let request = request
            .get(format!("{}/{path}", self.url))
            .query(parameters);
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        Some(answer["data"].clone())
    }

    async fn query(&self, query: &str) -> Value {
        let data = self.ask("query", &[("query", query)]).await.unwrap();
        data["result"].clone()
    }

    /// Waits until the query gives this.
    async fn until(&self, query: &str, value: &str) {
        let looking = async {
            loop {
                let data = self.ask("query", &[("query", query)]).await;
                if data.is_some_and(|data| data["result"][0]["value"][1] == value) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(2 * GENEROUS, looking)
            .await
            .unwrap_or_else(|_| panic!("{query} does not come to {value}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_what_is_documented_and_answers_the_questions() {
    if !is_there("prometheus") {
        return;
    }
    let house = house(teams(2), Backend::Sqlite).await;
    let (daemon, address) = start(&house, &[]).await;
    let server = Prometheus::scraping(&address);
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
