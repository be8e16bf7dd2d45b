//! A rotation that is killed again and again, while workers sign.

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
    project::{ProjectId, SealedKey},
    store::{self, Store},
    vault::{self, Source, Vault},
};
use tokio::task::JoinSet;

use super::ids;
use crate::{
    daemon::fixture::{Sql, teams},
    house::{Backend, House, handed_over, on_both_stores},
};

on_both_stores!(ten_thousand_keys_are_rotated_under_fifty_kills);

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
    let credential = handed_over(&state, "SIMULATE01");
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
