//! The programs of integration.md, run as a reader would run them.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use super::{
    blocks::{blocks, root},
    stories::state,
};
use crate::{
    daemon::fixture::{Daemon, GENEROUS},
    house::{Backend, House},
};

fn program(language: &str) -> String {
    let blocks = blocks(Path::new("docs/integration.md"));
    let mut programs = blocks
        .into_iter()
        .filter(|block| block.language == language);
    programs.next().unwrap().text
}

/// Whether the command can be run; says so where it cannot.
fn can(command: &mut std::process::Command, what: &str) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: {what} is not there");
    }
    can
}

async fn house() -> (House, Daemon) {
    let house = House::new(state(), Backend::Postgres).await;
    house.add("acme").await.expect(0);
    let mut daemon = Daemon::start(&house, &[]).await;
    daemon.finished("acme", "succeeded").await;
    (house, daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_asks_waits_and_reads() {
    // Debian's, which has python3-psycopg2.
    let python = "/usr/bin/python3";
    if !can(
        std::process::Command::new(python).args(["-c", "import psycopg2"]),
        "python3-psycopg2",
    ) {
        return;
    }
    let (house, daemon) = house().await;
    house.write("example.py", program("python"));
    let run = async |project: &str| {
        Command::new(python)
            .args(["example.py", project])
            .current_dir(house.folder())
            .env("DATABASE_URL", house.store_url())
            .output()
            .await
            .unwrap()
    };
    let output = timeout(GENEROUS, run("acme")).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let products = house.json(&["catalog", "acme"], 0).await["products"].clone();
    assert_eq!(
        said.lines().count(),
        products.as_array().unwrap().len(),
        "{said}"
    );
    let runs = house.json(&["runs", "acme"], 0).await;
    assert_eq!(runs[0]["trigger"], "request");
    assert!(!run("nobody").await.status.success());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_javascript_follows_the_changes() {
    let modules = root().join("target/node");
    if !modules.join("node_modules/pg").exists()
        && !can(
            std::process::Command::new("npm")
                .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&modules)
                .arg("pg@8"),
            "npm, or the package pg,",
        )
    {
        return;
    }
    let (house, mut daemon) = house().await;
    house.write("example.js", program("javascript"));
    let mut child = Command::new("node")
        .args(["example.js", "acme", "0"])
        .current_dir(house.folder())
        .env("DATABASE_URL", house.store_url())
        .env("NODE_PATH", modules.join("node_modules"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || next(&mut lines).await;

    let history = house.json(&["history", "acme", "--limit", "500"], 0).await;
    for _ in history.as_array().unwrap() {
        let told = line().await;
        assert!(told.starts_with("1 added "), "{told}");
    }
    house.simulator.edit(|state| {
        state.teams[0].apps[0].in_app_purchases[0].name = "Renamed".to_owned();
    });
    house.run(&["resync", "acme"]).await.expect(0);
    daemon.finished("acme", "succeeded").await;
    let told = line().await;
    assert!(told.starts_with("2 updated in_app_purchase "), "{told}");
    child.kill().await.unwrap();
    daemon.stop().await;
}

async fn next(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) -> String {
    timeout(GENEROUS + Duration::from_secs(30), lines.next_line())
        .await
        .expect("a notification tells at once, and a look each minute tells too")
        .unwrap()
        .unwrap()
}
