//! A Prometheus of our own, as Debian has it, that scrapes a daemon.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::daemon::fixture::GENEROUS;

/// Whether the program can be run; says so where it cannot.
pub(crate) fn is_there(program: &str) -> bool {
    let asked = StdCommand::new(program).arg("--version").output();
    if asked.is_err() {
        println!("skipped: {program} is not on this machine (Debian's package prometheus)");
    }
    asked.is_ok()
}

pub(crate) struct Prometheus {
    url: String,
    /// It ends with this.
    _child: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// One that scrapes this address, and judges it by these files of rules each second.
    pub(crate) fn scraping(address: &str, rules: &[PathBuf]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global:\n  evaluation_interval: 1s\nrule_files: {rules:?}\nscrape_configs:\n  - job_name: catalog-sync\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    static_configs:\n      - targets: ['{address}']\n"
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
    pub(crate) async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let request = reqwest::Client::builder().build().unwrap();
        let request = request
            .get(format!("{}/{path}", self.url))
            .query(parameters);
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        Some(answer["data"].clone())
    }

    pub(crate) async fn query(&self, query: &str) -> Value {
        let data = self.ask("query", &[("query", query)]).await.unwrap();
        data["result"].clone()
    }

    /// Waits until the query gives this.
    pub(crate) async fn until(&self, query: &str, value: &str) {
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
