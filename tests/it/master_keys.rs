//! Master keys: added, rotated and retired while workers sign, and told from wrong ones.

mod rotation;

use std::fs;

use catalog_sync::vault::{Source, Vault};
use serde_json::json;

use crate::{
    daemon::fixture::{Daemon, Sql, house, teams},
    house::{Backend, House, on_both_stores},
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

on_both_stores!(
    a_rotation_goes_from_adding_a_key_to_retiring_the_old_one,
    a_wrong_master_key_is_told_by_its_name,
    one_damaged_key_locks_nobody_out,
);

fn ids(house: &House) -> Vec<String> {
    let source = Source::File(house.path("master.key"));
    Vault::open(&[source]).unwrap().master_key_ids()
}

async fn a_rotation_goes_from_adding_a_key_to_retiring_the_old_one(backend: Backend) {
    let house = house(teams(3), backend).await;
    let [old] = &*ids(&house) else {
        panic!("one key")
    };
    let mut daemon = Daemon::start(&house, &[]).await;
    house.json(&["resync", "p1", "--wait"], 0).await;

    let refused = house.run(&["master-key", "retire", old]).await.expect(1);
    assert!(
        refused.stderr.contains("is the one that encrypts"),
        "{}",
        refused.stderr
    );
    let added = house.json(&["master-key", "add"], 0).await;
    let new = added["id"].as_str().unwrap();
    assert_eq!(ids(&house), [old, new]);
    let listed = house.json(&["master-key", "list"], 0).await;
    let told: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            (
                key["id"].clone(),
                key["role"].clone(),
                key["api_keys"].clone(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (json!(old), json!("encrypts"), json!(3)),
            (json!(new), json!("decrypts"), json!(0))
        ]
    );

    // Without its id, the new one is not put first, nor taken for one that is not needed.
    let rotated = house.run(&["master-key", "rotate"]).await.expect(0).stdout;
    assert!(
        rotated.contains(&format!("{old} is still the first; to change to {new}: ")),
        "{rotated}"
    );
    assert!(!rotated.contains("retire"), "{rotated}");
    let rotated = house.json(&["master-key", "rotate", new], 0).await;
    assert_eq!(
        rotated,
        json!({ "id": new, "resealed": 3, "failed": [], "unused": [old] })
    );
    // The daemon takes the new key up by itself.
    house.json(&["resync", "p2", "--wait"], 0).await;
    daemon.event("master_key.found").await;
    let again = house.run(&["master-key", "rotate"]).await.expect(0);
    assert!(
        again
            .stdout
            .starts_with(&format!("sealed 0 API keys with {new}")),
        "{}",
        again.stdout
    );
    let status = house.run(&["status"]).await.expect(0);
    assert!(
        status.stdout.contains(&format!(
            "master keys: {old} seals 0 API keys, {new} seals 3 API keys"
        )),
        "{}",
        status.stdout
    );

    let retired = house.run(&["master-key", "retire", old]).await.expect(0);
    assert!(
        retired.stdout.contains("it is a comment now"),
        "{}",
        retired.stdout
    );
    assert_eq!(ids(&house), [new]);
    house.json(&["resync", "p3", "--wait"], 0).await;
    // One that was retired encrypts nothing again, also when it is brought back.
    let text = fs::read_to_string(house.path("master.key")).unwrap();
    let today = catalog_sync::clock::now()
        .format("# retired %Y-%m-%d ")
        .to_string();
    house.write("master.key", text.replace(&today, ""));
    let refused = house.json(&["master-key", "rotate", old], 1).await;
    assert_eq!(refused["error"]["code"], "master_key_retired", "{refused}");
    let refused = house.json(&["master-key", "retire", "unheard-of"], 1).await;
    assert_eq!(refused["error"]["code"], "unknown_master_key", "{refused}");
    let brought_back = fs::read_to_string(house.path("master.key")).unwrap();
    let first = brought_back
        .lines()
        .find(|line| !line.starts_with('#'))
        .unwrap();
    assert!(first.starts_with(new), "the file was not changed");
    daemon.stop().await;
    house.run(&["sync", "--all"]).await.expect(0);
    let listed = house.run(&["master-key", "list"]).await.expect(0).stdout;
    assert!(listed.contains(&format!("{old}\tretired\t0")), "{listed}");
}

async fn a_wrong_master_key_is_told_by_its_name(backend: Backend) {
    let house = house(teams(2), backend).await;
    let [id] = &*ids(&house) else {
        panic!("one key")
    };
    let right = fs::read(house.path("master.key")).unwrap();
    house.write("master.key", format!("{id}:{KEY}\n"));
    let expected =
        format!("master.key has another master key '{id}' than the one that sealed keys");
    for args in [
        &["sync", "p1"][..],
        &["project", "verify", "p1"],
        &["master-key", "rotate"],
        &["check-config"],
    ] {
        let answer = house.run(args).await.expect(1);
        let told = format!("{}{}", answer.stdout, answer.stderr);
        assert!(told.contains(&expected), "{args:?}: {told}");
    }
    let (status, log) = Daemon::spawn(&house, &[]).exit().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&expected), "{log}");

    // Also where the first look at it is by the wrong one.
    let mut sql = Sql::connect(&house).await;
    sql.execute("delete from master_key_checks").await;
    let answer = house.run(&["sync", "p1"]).await.expect(1);
    assert!(answer.stderr.contains(&expected), "{}", answer.stderr);
    assert_eq!(
        sql.text("select count(*) from master_key_checks").await,
        "0"
    );

    // One that no stored key needs does not start a daemon; it may be what keys are given anew with.
    house.write("master.key", format!("other:{KEY}\n"));
    let checked = house.run(&["check-config"]).await.expect(1).stdout;
    assert!(
        checked.contains(&format!("were sealed with the master key '{id}'")),
        "{checked}"
    );
    let (status, log) = Daemon::spawn(&house, &[]).exit().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains(&format!(
            "were sealed with the master key '{id}', and at hand is 'other'"
        )),
        "{log}"
    );
    let (team, key) = {
        let state = house.simulator.state();
        (
            state.teams[0].issuer_id.clone(),
            state.teams[0].keys[0].file_name(),
        )
    };
    house
        .run(&[
            "project",
            "set-key",
            "p1",
            "--issuer-id",
            &team,
            "--private-key",
            &key,
        ])
        .await
        .expect(0);
    let mut daemon = Daemon::start(&house, &[]).await;
    let missing = &daemon.so_far("master_key.missing")[0];
    assert_eq!(
        (&missing["master_key.id"], &missing["api_keys"]),
        (&json!(id), &json!(1)),
        "{missing}"
    );
    house.json(&["resync", "p1", "--wait"], 0).await;
    daemon.stop().await;

    house.write("master.key", right);
    house.run(&["sync", "p2"]).await.expect(0);
}

/// What is not noted yet, as after an upgrade, is not held against one damaged key.
async fn one_damaged_key_locks_nobody_out(backend: Backend) {
    let house = house(teams(1), backend).await;
    let mut sql = Sql::connect(&house).await;
    sql.execute("delete from master_key_checks").await;
    let damaged = match backend {
        Backend::Sqlite => "x'01'",
        Backend::Postgres => "decode('01', 'hex')",
    };
    sql.execute(&format!("update api_keys set sealed = {damaged}"))
        .await;
    house.run(&["master-key", "list"]).await.expect(0);
    assert_eq!(
        house.error_code(&["project", "verify", "p1"]).await,
        "key_sealed"
    );
    let failed = house.run(&["master-key", "add"]).await.expect(0).stdout;
    assert!(failed.contains("it decrypts"), "{failed}");
    let (issuer_id, key_file) = (house.issuer_id(), house.key_file());
    let set_key = [
        "project",
        "set-key",
        "p1",
        "--issuer-id",
        &issuer_id,
        "--private-key",
        &key_file,
    ];
    house.run(&set_key).await.expect(0);
    house.run(&["sync", "p1"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_keys_come_from_a_variable_a_credential_or_a_command() {
    let house = house(teams(1), Backend::Sqlite).await;
    let content = fs::read_to_string(house.path("master.key")).unwrap();
    let line = content.lines().find(|line| !line.starts_with('#')).unwrap();
    fs::create_dir(house.path("credentials")).unwrap();
    fs::rename(house.path("master.key"), house.path("credentials/keys")).unwrap();
    let credentials = house.path("credentials").display().to_string();
    let with = async |source: &str, code: i32| {
        let variables = [
            ("CATALOG_SYNC_VAULT__MASTER_KEYS", source),
            ("CREDENTIALS_DIRECTORY", &credentials),
            ("OUR_KEYS", line),
            ("PATH", "/usr/bin:/bin"),
            ("CATALOG_SYNC_LOG__FORMAT", "json"),
        ];
        house
            .run_with(&["sync", "p1"], &variables, "")
            .await
            .expect(code)
    };
    for source in [
        "credential:keys",
        "env:OUR_KEYS",
        "command:cat credentials/keys",
    ] {
        let answer = with(source, 0).await;
        let warned = answer
            .events()
            .iter()
            .any(|event| event["event"] == "master_key.in_environment");
        assert_eq!(warned, source.starts_with("env:"), "{}", answer.stderr);
        assert!(!answer.stderr.contains(line), "{}", answer.stderr);
    }
    for (source, told) in [
        ("credential:others", "there is no master key file"),
        ("env:NOBODYS", "the environment has no variable NOBODYS"),
        (
            "command:cat nothing",
            "command:cat nothing gives no master keys: it failed (exit status: 1): cat: nothing: No such file",
        ),
        ("command:false", "it failed (exit status: 1)"),
    ] {
        let answer = with(source, 1).await;
        assert!(answer.stderr.contains(told), "{source}: {}", answer.stderr);
    }
    // A program is not told what the configuration is, nor what another source is.
    let script = "#!/bin/sh\nenv > seen\ncat credentials/keys\n";
    house.write("print.sh", script);
    let run = "command:sh print.sh";
    let variables = [
        (
            "CATALOG_SYNC_VAULT__MASTER_KEYS",
            &*format!("['env:OUR_KEYS', '{run}']"),
        ),
        ("OUR_KEYS", line),
        ("OUR_REGION", "eu"),
        ("PATH", "/usr/bin:/bin"),
    ];
    house
        .run_with(&["sync", "p1"], &variables, "")
        .await
        .expect(0);
    let seen = fs::read_to_string(house.path("seen")).unwrap();
    assert!(seen.contains("OUR_REGION=eu"), "{seen}");
    assert!(
        !seen.contains("OUR_KEYS") && !seen.contains("CATALOG_SYNC_"),
        "{seen}"
    );
    // Only a file can be changed here.
    let variables = [(
        "CATALOG_SYNC_VAULT__MASTER_KEYS",
        "command:/bin/cat credentials/keys",
    )];
    let answer = house
        .run_with(&["master-key", "add"], &variables, "")
        .await
        .expect(1);
    assert!(
        answer.stderr.contains("no master key file is set up"),
        "{}",
        answer.stderr
    );
}
