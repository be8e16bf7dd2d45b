//! Secrets are written nowhere: everything happens once, at trace level, with canaries for secrets, and then whatever was
//! written is searched for them in every form.
//!
//! The files that hold secrets on purpose (.p8, `master.key`, what `url_file` names, the brokers' own configuration) are left
//! out, and nothing else.

pub(crate) mod canary;
pub(crate) mod given;
mod stage;

use catalog_sync::simulator::{Fault, FaultKind};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::block_in_place;

use self::{
    canary::{Canary, Search},
    stage::Stage,
};
use crate::{
    daemon::fixture::{Daemon, GENEROUS, Sql, app_id},
    house::Backend,
};

/// What stands in the catalog, in paths and in every change of the grace period.
const WITNESS: &str = "1000000001";

/// Enough that the log can only be a trace of everything.
const LOG_BYTES: usize = 1 << 18;

/// The dependencies through which secrets pass and that trace what they do.
const TRACED: [&str; 5] = ["async_nats", "h2", "hyper_util", "lapin", "sqlx"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_written_anywhere_on_sqlite() {
    no_secret_is_written_anywhere(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_written_anywhere_on_postgres() {
    no_secret_is_written_anywhere(Backend::Postgres).await;
}

async fn no_secret_is_written_anywhere(backend: Backend) {
    let mut stage = Stage::set(backend).await;
    projects_are_added_and_keys_are_refused(&mut stage).await;
    what_is_given_is_no_key_or_in_the_wrong_field(&mut stage).await;
    commands_show_all_that_there_is(&mut stage).await;
    a_daemon_goes_through_everything(&mut stage).await;
    passwords_are_wrong(&mut stage).await;
    commands_show_all_that_there_is(&mut stage).await;

    let canaries = given::canaries(&stage.house);
    let tokens = canaries.iter().filter(|it| it.name.starts_with("token"));
    assert!(tokens.count() >= 8, "few tokens were sent");
    let mut search = Search::new(&canaries, WITNESS);
    stage.search(&mut search);
    println!("{} canaries in {:#?}", canaries.len(), search.looked);
    let mut expected = vec![
        ("answers", 90, LOG_BYTES, true),
        ("daemon log", 2, LOG_BYTES, true),
        ("probes", 2, 2, false),
        ("working folder", 2, 500, false),
        ("nats", 3, 1 << 10, true),
        ("rabbitmq", 5, 1 << 10, true),
    ];
    if cfg!(target_os = "linux") {
        expected.push(("process", 2, 100, false));
    }
    match backend {
        Backend::Sqlite => expected.push(("live database", 3, 100 << 10, true)),
        Backend::Postgres => {
            expected.push(("database dump", 1, 10 << 10, true));
            expected.push(("database files", 100, 1 << 20, true));
        }
    }
    search.assert_clean(&expected);
    for dependency in TRACED {
        let target = format!("\"target\":\"{dependency}");
        assert!(stage.is_logged(&target), "{dependency} logs nothing");
    }
    every_canary_would_have_been_found(&canaries);
}

/// The very search that found nothing finds each of the secrets in a log into which it was put.
fn every_canary_would_have_been_found(canaries: &[Canary]) {
    let mut search = Search::new(canaries, WITNESS);
    for canary in canaries {
        for (form, text) in canary.forms() {
            let before = search.hits.len();
            let line = [b"{\"message\":\"", text.as_slice(), b"\"}"].concat();
            search.through("planted", &canary.name, &line);
            assert!(search.hits.len() > before, "{} as {form}", canary.name);
        }
    }
}

async fn projects_are_added_and_keys_are_refused(stage: &mut Stage) {
    stage.run(&["init"], 0).await;
    stage.run(&["check-config"], 0).await;
    stage.add("p1", 1, 0).await;
    // From standard input, with all that belongs to it in fields.
    let (issuer, pem) = (stage.issuer(2), stage.pem("SIMULATE02"));
    let by_hand = ["--key-id", "SIMULATE02", "--issuer-id", &issuer];
    let args = [
        &["project", "add", "p2", "--private-key", "-"][..],
        &by_hand,
    ]
    .concat();
    stage.run_with(&args, &pem, 0).await;

    // Refused by Apple: revoked, another role, a missing agreement, another key's name, an In-App Purchase key.
    for (id, team) in [("revoked", 3), ("role", 4), ("agreement", 5)] {
        stage.add(id, team, 1).await;
    }
    stage.copy_key("SIMULATE01", "AuthKey_SIMULATE02.p8.p8");
    stage.copy_key("SIMULATE01", "SubscriptionKey_SIMULATE01.p8");
    for file in ["AuthKey_SIMULATE02.p8.p8", "SubscriptionKey_SIMULATE01.p8"] {
        let args = [
            "project",
            "add",
            "other",
            "--issuer-id",
            &issuer,
            "--private-key",
            file,
        ];
        stage.run(&args, 1).await;
    }
    stage
        .run(
            &[
                "project",
                "add",
                "lost",
                "--private-key",
                "AuthKey_LOST000001.p8",
            ],
            1,
        )
        .await;

    // A new key for a project, and one that is refused.
    let issuer = stage.issuer(1);
    for (file, code) in [("AuthKey_NEWKEY0001.p8", 0), ("AuthKey_BADKEY0001.p8", 1)] {
        let args = [
            "project",
            "set-key",
            "p1",
            "--issuer-id",
            &issuer,
            "--private-key",
            file,
        ];
        stage.run(&args, code).await;
    }
}

async fn what_is_given_is_no_key_or_in_the_wrong_field(stage: &mut Stage) {
    let (issuer, pem) = (stage.issuer(2), stage.pem("SIMULATE02"));
    for fixture in given::WRONG_KEYS {
        let path = format!("{}/tests/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
        let args = [
            "project",
            "add",
            "wrong",
            "--key-id",
            "SIMULATE01",
            "--private-key",
            &path,
        ];
        stage.run(&args, 1).await;
    }
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let cut = &pem[..150];
    let doubled = format!("{pem}{}", stage.pem("SIMULATE01"));
    for input in [cut, &doubled, &format!("{{\"key\":\"{body}\"}}")] {
        let args = [
            "project",
            "add",
            "wrong",
            "--key-id",
            "SIMULATE02",
            "--private-key",
            "-",
        ];
        stage.run_with(&args, input, 1).await;
    }
    for pasted in [&pem, &body, &body[60..100].to_owned()] {
        for field in ["--key-id", "--issuer-id", "--app-id", "--bundle-id"] {
            let mut args = vec!["project", "add", "pasted", "--private-key", "-"];
            if field != "--key-id" {
                args.extend(["--key-id", "SIMULATE02"]);
            }
            if field != "--issuer-id" {
                args.extend(["--issuer-id", &issuer]);
            }
            args.extend([field, pasted]);
            stage.run_with(&args, &pem, 1).await;
        }
        stage.run(&["explain", pasted], 1).await;
    }

    for pasted in [&pem, &body] {
        stage.run(&["project", "show", pasted], 1).await;
        stage.run(&["sync", "p1", pasted], 1).await;
    }
}

async fn commands_show_all_that_there_is(stage: &mut Stage) {
    for args in [
        &["project", "verify", "p1"][..],
        &["sync", "p1", "p2"],
        &["project", "list"],
        &["project", "show", "p1"],
        &["catalog", "p1"],
        &["history", "p1"],
        &["history", "p1", "--verify"],
        &["runs", "p1"],
        &["holds"],
        &["status"],
        &["status", "p1"],
        &["check-config"],
        &["plan", "p1"],
    ] {
        stage.run(args, 0).await;
    }
    // An answer that cannot be read, one that fails, and a key that is refused once it is stored.
    let faults = [
        FaultKind::status(401),
        FaultKind::status(500),
        FaultKind::Html200,
        FaultKind::Reset,
        FaultKind::NextElsewhere("https://127.0.0.1:1/v1/apps".to_owned()),
        FaultKind::Redirect("https://127.0.0.1:1/v1/apps".to_owned()),
    ];
    for fault in faults {
        stage.house.simulator.inject(Fault::new("", fault));
        stage.run(&["sync", "p1"], 1).await;
        stage.house.simulator.clear_faults();
    }
    stage.run(&["sync", "p1"], 0).await;
}

async fn a_daemon_goes_through_everything(stage: &mut Stage) {
    stage.prepare_brokers().await;
    let mut daemon = stage.daemon().await;
    let mut sql = Sql::connect(&stage.house).await;
    sql.until_all_is_done().await;

    // By schedule, by a row, by messages.
    sql.make_due(None).await;
    daemon
        .event_where("sync.finished", |event| event["trigger.kind"] == "schedule")
        .await;
    sql.execute("insert into sync_requests (project_id, reason) values ('p1', 'by row')")
        .await;
    until_finished(&mut daemon, "by row").await;
    for reason in ["by nats", "by rabbitmq"] {
        stage.rename(reason);
        let request = json!({ "version": 1, "project": "p1", "reason": reason });
        stage
            .send(reason, &[&request.to_string(), "not JSON"])
            .await;
        until_finished(&mut daemon, reason).await;
    }
    while daemon.so_far("request.refused").len() < 2 {
        daemon.event("request.refused").await;
    }
    sql.until("select count(*) from outbox", 0).await;

    // Each thing it depends on is gone for a while.
    for (name, broker) in stage.brokers() {
        block_in_place(|| broker.kill());
        let is_it = |event: &serde_json::Value| event["dependency"] == name;
        daemon.event_where("dependency.down", is_it).await;
        block_in_place(|| broker.restart());
        daemon.event_where("dependency.up", is_it).await;
    }
    let mut sql = Sql::connect(&stage.house).await;
    stage
        .house
        .simulator
        .inject(Fault::new("", FaultKind::status(503)).times(3));
    sql.execute("insert into sync_requests (project_id, reason) values ('p2', 'in an outage')")
        .await;
    until_finished(&mut daemon, "in an outage").await;

    // A configuration that is broken, with a URL in it.
    let sound = stage.break_configuration();
    daemon.signal(Signal::HUP);
    daemon.event("config.rejected").await;
    stage.house.write("worker.toml", sound);
    daemon.signal(Signal::HUP);
    daemon.event("config.reloaded").await;

    // While it is at work: what the system shows of it, what it shows of itself, and files before they are tidied up.
    stage.rename("at work");
    sql.execute("insert into sync_requests (project_id, reason) values ('p1', 'at work')")
        .await;
    until_finished(&mut daemon, "at work").await;
    stage.look_at_process(daemon.pid());
    stage.look_at_probes(&mut daemon).await;
    stage.look_at_files("before the end");
    daemon.signal(Signal::KILL);
    let (_, log) = daemon.exit().await;
    stage.keep_log(log);
    stage.look_at_files("after kill -9");
}

async fn until_finished(daemon: &mut Daemon, reason: &str) {
    let finished = daemon.event_where("sync.finished", |event| event["reason"] == reason);
    tokio::time::timeout(2 * GENEROUS, finished)
        .await
        .unwrap_or_else(|_| panic!("no run {reason}"));
}

async fn passwords_are_wrong(stage: &mut Stage) {
    let right = stage.spoil_passwords();
    if stage.has_server() {
        stage.run(&["status"], 1).await;
        stage.run(&["check-config"], 1).await;
    }
    stage.restore_password(&right, "database.url");
    let mut daemon = stage.daemon().await;
    daemon
        .event_of_each("dependency.down", "dependency", &["nats", "rabbitmq"])
        .await;
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.exit().await;
    assert_eq!(status.code(), Some(0));
    stage.keep_log(log);
    for file in ["nats.url", "rabbitmq.url"] {
        stage.restore_password(&right, file);
    }
    assert_eq!(app_id(1), WITNESS);
}
