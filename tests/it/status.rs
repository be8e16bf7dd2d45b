//! `status`: all projects at a glance, one project's story, and both again and again.

use std::process::Stdio;

use catalog_sync::simulator::State;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    daemon::fixture::{Daemon, GENEROUS, Sql},
    house::{Backend, House, on_both_stores},
};

on_both_stores!(
    the_worst_come_first_below_what_there_is_to_say_of_all,
    one_projects_answer_has_its_story_its_runs_and_its_budget,
    what_is_paused_has_no_next_run_and_is_decided_after_the_pause,
);

/// A house with `acme`, which was synced, and `broken`, whose key Apple refuses.
async fn two_projects(backend: Backend) -> House {
    let house = House::with_project(State::sample(), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    house.add("broken").await.expect(0);
    let mut sql = Sql::connect(&house).await;
    sql.execute(
        "update project_state set outcome = 'failed', error_code = 'role_too_low', last_success_at = null,
             diagnosis = '{\"code\": \"role_too_low\", \"sentence\": \"It may not.\", \"advice\": \"Make another.\"}',
             consecutive_failures = 2, last_attempt_at = '2026-11-01T00:00:00.000Z'
         where project_id = 'broken'",
    )
    .await;
    house
}

async fn the_worst_come_first_below_what_there_is_to_say_of_all(backend: Backend) {
    let house = two_projects(backend).await;
    let said = house.run(&["status"]).await.expect(0).stdout;
    for line in [
        "2 projects: ",
        "failing: 1 with role_too_low (needs a person)",
        "no daemon was heard of within the last minute: start one with 'catalog-sync run'",
        "requests: 1 to be answered",
        "master keys: ",
    ] {
        assert!(
            said.lines().any(|it| it.starts_with(line)),
            "no {line:?} in:\n{said}"
        );
    }
    let rows: Vec<&str> = said.lines().filter(|line| line.contains('\t')).collect();
    assert!(rows[0].starts_with("project\tstate\t"), "{said}");
    assert!(
        rows[1].starts_with("broken\tfailing, needs a person\tnever\t"),
        "{said}"
    );
    assert!(rows[2].starts_with("acme\tfresh\t"), "{said}");

    let one = house
        .run(&["status", "--limit", "1"])
        .await
        .expect(0)
        .stdout;
    assert!(one.contains("and 1 more that fare no worse"), "{one}");
    assert!(!one.contains("acme"), "{one}");
    let all = house.run(&["status", "--all"]).await.expect(0).stdout;
    assert!(
        all.contains("\nacme\t") && !all.contains("more that fare"),
        "{all}"
    );

    let daemon = Daemon::start(&house, &[]).await;
    Sql::connect(&house)
        .await
        .until("select count(*) from worker_beats", 1)
        .await;
    let found = house.json(&["status"], 0).await;
    assert_eq!(found["fleet"]["workers"].as_array().unwrap().len(), 1);
    assert_eq!(found["master_keys"][0]["api_keys"], 2);
    assert_eq!(found["projects"].as_array().unwrap().len(), 2);
    daemon.stop().await;
}

async fn one_projects_answer_has_its_story_its_runs_and_its_budget(backend: Backend) {
    let house = two_projects(backend).await;
    let found = house.json(&["status", "acme"], 0).await;
    assert_eq!(found["condition"], "fresh");
    assert_eq!(found["outcome"], "succeeded", "what was there before");
    assert_eq!(found["runs"][0]["outcome"], "succeeded");
    assert_eq!(found["budget"]["limit"], 3600);
    assert_eq!(found["budget"]["shared_with"][0], "broken");
    assert!(found["last_change_at"].is_string(), "{found}");
    let story = found["story"].to_string();
    assert!(story.contains("is fresh: last synced"), "{story}");

    let said = house.run(&["status", "broken"]).await.expect(0).stdout;
    for part in [
        "each run fails, 2 in a row, with role_too_low",
        "It may not.",
        "Make another. 'catalog-sync explain role_too_low' says more.",
        "No daemon is at work to do it.",
        "shared with acme",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

async fn what_is_paused_has_no_next_run_and_is_decided_after_the_pause(backend: Backend) {
    let house = two_projects(backend).await;
    house.run(&["project", "pause", "acme"]).await.expect(0);
    let found = house.json(&["status", "acme"], 0).await;
    assert_eq!(found["next_try_at"], Value::Null);
    let said = house.run(&["status", "acme"]).await.expect(0).stdout;
    assert!(
        said.contains("project resume acme") && !said.contains("next run"),
        "{said}"
    );
    for command in ["approve", "discard"] {
        let answer = house
            .run(&[command, "acme", "3f754c3810e5"])
            .await
            .expect(1);
        assert!(
            answer.stderr.contains("'acme' is paused")
                && answer.stderr.contains("project resume acme"),
            "{command}: {}",
            answer.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_pipe_it_is_told_again_and_again_until_nobody_reads() {
    let house = two_projects(Backend::Sqlite).await;
    for (arguments, separator) in [
        (&["status", "--watch=1"][..], "--- "),
        (&["status", "acme", "--watch=1"], "--- "),
        (&["status", "--watch=1", "--json"], "{"),
    ] {
        let mut child = house.command(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 2 {
            let line = timeout(GENEROUS, lines.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            if line.starts_with(separator) {
                seen += 1;
            }
            if separator == "{" {
                serde_json::from_str::<Value>(&line).expect("a document is a line");
            }
        }
        drop(lines);
        let status = timeout(GENEROUS, child.wait())
            .await
            .expect("it goes on for nobody");
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_it_is_drawn_over_and_the_terminal_is_as_it_was_in_the_end() {
    let house = two_projects(Backend::Sqlite).await;
    let own = house.command(&["status", "--watch"]);
    let program = own.as_std().get_program().to_str().unwrap();
    let mut child = match Command::new("script")
        .args([
            "-qec",
            &format!("stty -a; {program} status --watch; stty -a"),
            "/dev/null",
        ])
        .current_dir(house.folder())
        .env("TERM", "xterm")
        .env("CATALOG_SYNC_STORE__URL", house.store_url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            println!("skipped: there is no script(1): {error}");
            return;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    let drawn = |shown: &[u8]| String::from_utf8_lossy(shown).matches("\x1b[J").count();
    let reading = async {
        while drawn(&shown) < 2 {
            let mut some = [0; 4096];
            let length = stdout.read(&mut some).await.unwrap();
            assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&some[..length]);
        }
    };
    timeout(GENEROUS, reading)
        .await
        .expect("it is not drawn twice");
    stdin.write_all(b"q").await.unwrap();
    timeout(GENEROUS, stdout.read_to_end(&mut shown))
        .await
        .expect("'q' does not end it")
        .unwrap();
    let shown = String::from_utf8_lossy(&shown);
    let (entered, left) = (
        shown.find("\x1b[?1049h").unwrap(),
        shown.rfind("\x1b[?1049l").unwrap(),
    );
    assert!(shown[entered..left].contains("broken"), "{shown}");
    assert!(
        shown[left - 8..].contains("\x1b[?25h"),
        "the cursor is not back: {shown}"
    );
    let modes = |text: &str| -> Vec<String> {
        let words = text
            .split_whitespace()
            .map(|word| word.trim_end_matches(';'));
        words
            .filter(|word| ["icanon", "-icanon", "echo", "-echo"].contains(word))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(modes(&shown[..entered]), ["icanon", "echo"], "{shown}");
    assert_eq!(modes(&shown[left..]), ["icanon", "echo"], "{shown}");
}
