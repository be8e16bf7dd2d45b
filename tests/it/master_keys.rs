//! Master keys: added, rotated and retired while workers sign, and told from wrong ones.

use std::{
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use catalog_sync::{
    credential::{self, Given},
    project::{ProjectId, SealedKey},
    store::{self, Store},
    vault::{self, Source, Vault},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    daemon::fixture::{Daemon, Sql, house, teams},
    house::{Backend, House, on_both_stores},
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

on_both_stores!(
    a_rotation_goes_from_adding_a_key_to_retiring_the_old_one,
    a_wrong_master_key_is_told_by_its_name,
    one_damaged_key_locks_nobody_out,
    ten_thousand_keys_are_rotated_under_fifty_kills,
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
        (&missing["id"], &missing["api_keys"]),
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

const SECRETS: usize = 10_000;
const KILLS: usize = 50;

/// Opens a key as a run does, and signs with it.
async fn sign(store: &dyn Store, vault: &Vault, project: &ProjectId) -> Result<(), String> {
    let sealed = store
        .load_key(project)
        .await
        .map_err(|error| error.to_string())?;
    vault
        .look_for(&sealed.master_key_id)
        .map_err(|error| error.to_string())?;
    let credential = vault
        .unseal(project, &sealed)
        .map_err(|error| error.to_string())?;
    EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        credential.private_key.der(),
    )
    .map_err(|error| error.to_string())?
    .sign(&SystemRandom::new(), b"a token")
    .map_err(|error| error.to_string())?;
    Ok(())
}

async fn ten_thousand_keys_are_rotated_under_fifty_kills(backend: Backend) {
    let house = House::new(teams(1), backend).await;
    let source = Source::File(house.path("master.key"));
    let url = match backend {
        Backend::Sqlite => format!("sqlite:{}", house.path("catalog-sync.db").display()),
        Backend::Postgres => house.store_url().to_owned(),
    };
    let store = store::open_migrated(&url, &store::Options::default())
        .await
        .unwrap();
    let mut sql = Sql::connect(&house).await;
    let projects = fill(
        &house,
        &mut sql,
        &Vault::open(std::slice::from_ref(&source)).unwrap(),
    )
    .await;

    // Workers sign all the while.
    let (stop, signed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut workers = JoinSet::new();
    for worker in 0..2 {
        let (store, stop, signed) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&signed));
        let vault = Vault::open(std::slice::from_ref(&source)).unwrap();
        let projects = projects.clone();
        workers.spawn(async move {
            let mut index = worker;
            while !stop.load(Ordering::Relaxed) {
                index = (index * 31 + 7) % projects.len();
                sign(&*store, &vault, &projects[index]).await?;
                signed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, String>(())
        });
    }

    let (mut kills, mut rotations) = (0, 0);
    while kills < KILLS {
        let first = vault::add(&house.path("master.key"), catalog_sync::clock::now()).unwrap();
        rotations += 1;
        loop {
            let left = left(&mut sql, &first).await;
            if left == 0 {
                break;
            }
            let mut child = house
                .command(&["master-key", "rotate", &first])
                .spawn()
                .unwrap();
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    assert!(status.success(), "it failed without being killed");
                    break;
                }
                if kills < KILLS && self::left(&mut sql, &first).await < left {
                    child.kill().await.unwrap();
                    kills += 1;
                    break;
                }
            }
        }
        house.run(&["master-key", "rotate", &first]).await.expect(0);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap().expect("a worker could not sign");
    }
    let signed = signed.load(Ordering::Relaxed);
    assert!(signed > 100, "{signed}");

    let ids = ids(&house);
    for old in &ids[1..] {
        house.run(&["master-key", "retire", old]).await.expect(0);
    }
    let vault = Vault::open(&[source]).unwrap();
    assert_eq!(vault.master_key_ids(), ids[..1]);
    if let Backend::Sqlite = backend {
        // What the old key sealed is overwritten, and not left in the file.
        sql.execute("pragma wal_checkpoint(truncate)").await;
        let file = fs::read(house.path("catalog-sync.db")).unwrap();
        let sealed_with =
            |id: &str| [&[1, u8::try_from(id.len()).unwrap()], id.as_bytes()].concat();
        let count = |id: &str| {
            let head = sealed_with(id);
            file.windows(head.len())
                .filter(|part| *part == head)
                .count()
        };
        assert_eq!(count(&ids[0]), SECRETS);
        for old in &ids[1..] {
            assert_eq!(count(old), 0, "{old}");
        }
    }
    for project in &projects {
        sign(&*store, &vault, project).await.unwrap();
    }
    println!(
        "{backend:?}: {kills} kills in {rotations} rotations of {SECRETS} keys, {signed} tokens signed meanwhile, 0 failures"
    );
}

async fn left(sql: &mut Sql, first: &str) -> u64 {
    let query = format!("select count(*) from api_keys where master_key_id <> '{first}'");
    sql.text(&query).await.parse().unwrap()
}

/// Fills the database with projects, each with the same key sealed for itself.
async fn fill(house: &House, sql: &mut Sql, vault: &Vault) -> Vec<ProjectId> {
    let state = house.simulator.state();
    let (team, key) = state.key("SIMULATE01").unwrap();
    let credential = credential::read(Given {
        key_id: Some(&key.key_id),
        issuer_id: Some(&team.issuer_id),
        private_key: Some(key.private_key.as_bytes()),
        file_name: None,
    })
    .unwrap();
    let hex = match sql {
        Sql::Sqlite(_) => |hex: String| format!("x'{hex}'"),
        Sql::Postgres(_) => |hex: String| format!("decode('{hex}', 'hex')"),
    };
    let mut projects = Vec::new();
    for chunk in 0..SECRETS / 500 {
        let mut rows = [Vec::new(), Vec::new(), Vec::new()];
        for number in 0..500 {
            let project: ProjectId = format!("p{:05}", chunk * 500 + number).parse().unwrap();
            let SealedKey {
                key_id,
                issuer_id,
                master_key_id,
                sealed,
            } = vault.seal(&project, &credential).unwrap();
            let sealed = sealed.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            let issuer_id = issuer_id.unwrap();
            rows[0].push(format!(
                "('{project}', '1', 'com.example', 'App', '2026-11-23T00:00:00.000Z')"
            ));
            rows[1].push(format!(
                "('{project}', '{key_id}', '{issuer_id}', '{master_key_id}', {})",
                hex(sealed)
            ));
            rows[2].push(format!("('{project}')"));
            projects.push(project);
        }
        let [names, keys, states] = rows.map(|rows| rows.join(", "));
        sql.execute(&format!(
            "begin;
             insert into projects (id, app_id, bundle_id, app_name, created_at) values {names};
             insert into api_keys (project_id, key_id, issuer_id, master_key_id, sealed) values {keys};
             insert into project_state (project_id) values {states};
             commit"
        ))
        .await;
    }
    projects
}
