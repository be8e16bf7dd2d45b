//! Files that hold secrets: whose they are, and what is said of those that everybody can open.

use std::{fs, os::unix::fs::PermissionsExt as _};

use catalog_sync::simulator::{App, State};

use crate::house::{Backend, House};

async fn house() -> House {
    let app = App::new("1000000001", "com.example.app", "Example").with_in_app_purchases(2);
    House::with_project(State::with_app(app), Backend::Sqlite).await
}

fn chmod(house: &House, name: &str, mode: u32) {
    fs::set_permissions(house.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// What the commands say that open the database, all of which fail.
async fn refusals(house: &House) -> Vec<String> {
    let mut said = Vec::new();
    for command in [
        &["check-config"][..],
        &["run"],
        &["sync", "acme"],
        &["status"],
    ] {
        let answer = house.run(command).await.expect(1);
        said.push(format!("{}{}", answer.stdout, answer.stderr));
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_everybody_can_open_is_refused_with_the_way_out() {
    let house = house().await;
    for name in [
        "catalog-sync.db",
        "catalog-sync.db-wal",
        "catalog-sync.db-shm",
    ] {
        for mode in [0o604, 0o602, 0o644, 0o666] {
            if !house.path(name).exists() {
                house.write(name, "");
            }
            chmod(&house, name, mode);
            for said in refusals(&house).await {
                assert!(
                    said.contains(&format!("{name}: chmod 600"))
                        || said.contains(&format!("chmod 600 '{name}'")),
                    "{said}"
                );
                assert!(said.contains(&format!("mode {mode:o}")), "{said}");
            }
        }
        chmod(&house, name, 0o660);
        house.run(&["status"]).await.expect(0);
        house.run(&["check-config"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_which_everybody_may_write_is_refused_unless_files_stay_their_owners() {
    let house = house().await;
    for mode in [0o777, 0o702, 0o2777] {
        chmod(&house, "", mode);
        for said in refusals(&house).await {
            assert!(
                said.contains("chmod o-w '.'") && said.contains("mkdir -m 700"),
                "{said}"
            );
        }
    }
    for mode in [0o1777, 0o770, 0o755] {
        chmod(&house, "", mode);
        house.run(&["status"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_database_is_its_owners_alone_however_the_umask_is() {
    let house = house().await;
    let mut command = tokio::process::Command::new("sh");
    let own = house.command(&["init"]);
    let output = command
        .args(["-c", "umask 000; exec \"$0\" init"])
        .arg(own.as_std().get_program())
        .current_dir(house.path(""))
        .env("CATALOG_SYNC_STORE__URL", "sqlite:other.db")
        .env("CATALOG_SYNC_VAULT__MASTER_KEYS", "file:other.key")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["other.db", "other.key"] {
        let mode = fs::metadata(house.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_password_that_everybody_can_open_is_refused() {
    let house = house().await;
    let url = "postgres://me:canary@db/catalog";
    for (key, content) in [
        ("STORE__URL_FILE", url),
        ("NATS__URL_FILE", "nats://canary@db"),
        ("NATS__CREDENTIALS_FILE", "canary"),
        ("RABBITMQ__URL_FILE", "amqps://me:canary@db"),
    ] {
        house.write("secret", content);
        let variable = format!("CATALOG_SYNC_{key}");
        let variables = [
            (variable.as_str(), "secret"),
            (
                "CATALOG_SYNC_NATS__URL",
                if key == "NATS__CREDENTIALS_FILE" {
                    "nats://a"
                } else {
                    ""
                },
            ),
        ];
        let named = key.to_lowercase().replace("__", ".");
        for command in ["check-config", "run", "status"] {
            chmod(&house, "secret", 0o644);
            let answer = house.run_with(&[command], &variables, "").await.expect(1);
            let said = format!("{}{}", answer.stdout, answer.stderr);
            for part in [&named, "chmod 600 secret", "mode 644", "defaultMode: 0440"] {
                assert!(said.contains(part), "{part} in {said}");
            }
            assert!(!said.contains("canary"), "{said}");
        }
        chmod(&house, "secret", 0o440);
        let answer = house.run_with(&["check-config"], &variables, "").await;
        assert!(!answer.stderr.contains("chmod"), "{}", answer.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_everybody_can_write_is_refused() {
    let house = house().await;
    house.write("worker.toml", "[sync]\nconcurrency = 4\n");
    for (mode, code) in [(0o602, 1), (0o666, 1), (0o664, 0), (0o644, 0)] {
        chmod(&house, "worker.toml", mode);
        for command in ["check-config", "status"] {
            let answer = house.run(&[command]).await.expect(code);
            let said = answer.stderr.contains("chmod o-w worker.toml");
            assert_eq!(said, code == 1, "{mode:o}: {}", answer.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_a_password_that_everybody_can_open_is_refused() {
    let house = house().await;
    for (section, key, value, elsewhere) in [
        (
            "store",
            "url",
            "postgres://me:canary@db/catalog",
            "store.url_file",
        ),
        ("nats", "url", "nats://canary@db", "nats.url_file"),
        (
            "rabbitmq",
            "url",
            "amqps://me:canary@db",
            "rabbitmq.url_file",
        ),
        (
            "app_store",
            "proxy",
            "http://me:canary@proxy",
            "CATALOG_SYNC_APP_STORE__PROXY",
        ),
    ] {
        house.write("worker.toml", format!("[{section}]\n{key} = \"{value}\"\n"));
        chmod(&house, "worker.toml", 0o644);
        for command in ["check-config", "run", "status"] {
            let answer = house.run(&[command]).await.expect(1);
            let said = format!("{}{}", answer.stdout, answer.stderr);
            for part in [
                &format!("{section}.{key}"),
                "chmod 600 worker.toml",
                elsewhere,
            ] {
                assert!(said.contains(part), "{part} in {said}");
            }
            assert!(!said.contains("canary"), "{said}");
        }
        chmod(&house, "worker.toml", 0o640);
        let answer = house.run(&["check-config"]).await;
        assert!(!answer.stderr.contains("chmod"), "{}", answer.stderr);
    }
    house.write(
        "worker.toml",
        "[store]\nurl = \"postgres://me@db/catalog\"\n[app_store]\nproxy = \"\"\n",
    );
    chmod(&house, "worker.toml", 0o644);
    house.run(&["check-config"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_everybody_can_read_is_told_once_its_key_is_stored() {
    let house = House::new(
        State::with_app(App::new("1000000001", "com.example.app", "Example")),
        Backend::Sqlite,
    )
    .await;
    let key = house.key_file();
    chmod(&house, &key, 0o644);
    let added = house.add("acme").await.expect(0);
    let warning = format!("others can read {key} (mode 644)");
    assert!(added.stdout.contains(&warning), "{}", added.stdout);
    assert!(
        added.stderr.contains("key_file.exposed"),
        "{}",
        added.stderr
    );
    let issuer_id = house.issuer_id();
    let args = [
        "project",
        "set-key",
        "acme",
        "--issuer-id",
        &issuer_id,
        "--private-key",
        &key,
    ];
    let replaced = house.run(&args).await.expect(0);
    assert!(replaced.stdout.contains(&warning), "{}", replaced.stdout);
    chmod(&house, &key, 0o640);
    let replaced = house.run(&args).await.expect(0);
    assert!(
        !replaced.stdout.contains("others can read"),
        "{}",
        replaced.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pasted_in_the_wrong_place_is_not_told_again() {
    let house = house().await;
    let key = house.simulator.state().teams[0].keys[0].private_key.clone();
    let flat = key.replace('\n', "\\n");
    let bare: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    for pasted in [&key, &flat, &bare] {
        for args in [
            &["project", "add", "other", pasted][..],
            &["project", "add", pasted],
            &["project", "add", "other", "--private-key", pasted],
            &[
                "project",
                "add",
                "other",
                "--key-id",
                pasted,
                "--issuer-id",
                pasted,
            ],
            &["sync", pasted],
            &["approve", "acme", pasted],
            &["--config", pasted, "status"],
            &[pasted],
        ] {
            for json in [&[][..], &["--json"]] {
                let args: Vec<_> = args.iter().chain(json).copied().collect();
                let answer = house.run(&args).await;
                assert_ne!(answer.code, 0, "{args:?}");
                let said = format!("{}{}", answer.stdout, answer.stderr);
                for line in bare.as_bytes().chunks(24).filter(|line| line.len() == 24) {
                    assert!(
                        !said.contains(str::from_utf8(line).unwrap()),
                        "{args:?}: {said}"
                    );
                }
                if !json.is_empty() {
                    answer.json();
                }
            }
        }
    }
}

#[test]
#[ignore = "the next test runs it in a process of its own"]
fn a_process_that_panics() {
    use catalog_sync::{
        config::{Format, Log},
        telemetry::{self, Speaks, Stderr},
    };
    telemetry::tell_panics();
    let panics =
        || panic!("no key: -----BEGIN PRIVATE KEY-----\nMIGHcanary\n-----END PRIVATE KEY-----");
    std::panic::catch_unwind(panics).unwrap_err();
    let log = Log {
        filter: "info".to_owned(),
        format: Format::Json,
    };
    telemetry::init(&log, Stderr::NoTerminal, Speaks::Log, None).unwrap();
    std::panic::catch_unwind(panics).unwrap_err();
}

#[test]
fn a_panic_is_told_without_a_secret_as_an_event_where_there_is_a_log() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "exposed::a_process_that_panics",
            "--ignored",
            "--nocapture",
        ])
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("error: panicked at tests/it/exposed.rs:"),
        "{said}"
    );
    assert!(lines[0].ends_with("no key: [redacted]"), "{said}");
    let event: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(event["event"], "panicked");
    assert_eq!(event["level"], "ERROR");
    assert_eq!(event["error.sentence"], "no key: [redacted]");
    assert_eq!(lines.len(), 2, "{said}");
}
