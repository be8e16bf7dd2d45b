//! The walk of an operator who never saw the code: deployed as docs/deploy.md says, a key breaks, and the log, `status` and the alert
//! say which project, why and what to do; it is mended, and they say so.
//!
//! systemd's part is played by variables: it hands the master key over as a credential, and runs the daemon with the shipped
//! configuration.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use catalog_sync::simulator::{App, Key, Role, State, Team};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use crate::{
    daemon::fixture::{Daemon, GENEROUS},
    house::{Backend, House},
    prometheus::{Prometheus, is_there},
};

const ISSUER: &str = "5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e11";

/// Two customers, of which one will break his key.
fn customers() -> State {
    let app = |id: &str, name: &str| {
        App::new(id, format!("com.example.{name}"), name)
            .with_in_app_purchases(3)
            .with_grace_period()
    };
    State::new()
        .with_team(
            Team::new("Acme", ISSUER)
                .with_key(Key::new("ABC123DEFG", Role::Admin))
                .with_key(Key::new("NEWKEY4567", Role::Admin))
                .with_app(app("6446901002", "acme")),
        )
        .with_team(
            Team::new("Globex", "5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e12")
                .with_key(Key::new("GLOBEX7890", Role::Admin))
                .with_app(app("6446901003", "globex")),
        )
}

/// A machine on which the package is installed, as far as it is to be had without being root.
struct Machine {
    house: House,
    credentials: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let house = House::bare(customers(), Backend::Sqlite).await;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/worker.toml");
        let config = fs::read_to_string(shipped)
            .unwrap()
            .replace("/var/lib/catalog-sync", house.folder().to_str().unwrap())
            .replace("127.0.0.1:9464", "127.0.0.1:0");
        house.write("worker.toml", config);
        Self {
            house,
            credentials: tempfile::tempdir().unwrap(),
        }
    }

    /// The program as systemd, or `catalog-sync-admin`, runs it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.house.command(args);
        command
            .env_remove("CATALOG_SYNC_STORE__URL")
            .env("CREDENTIALS_DIRECTORY", self.credentials.path());
        command
    }

    async fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self
            .command(args)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    async fn does(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args).await;
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    /// `init`, as `catalog-sync-admin` does it: the key is made as a file, and put where systemd takes it from.
    async fn init(&self) {
        let key = self.credentials.path().join("master.key");
        let file = format!("[\"file:{}\"]", key.display());
        let mut command = self.command(&["init"]);
        let output = command
            .env("CATALOG_SYNC_VAULT__MASTER_KEYS", file)
            .output()
            .await
            .unwrap();
        assert!(output.status.success());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    }
}

/// The alerts that fire, with the project of each.
async fn firing(prometheus: &Prometheus) -> Vec<Value> {
    let alerts = prometheus.ask("alerts", &[]).await;
    let alerts = alerts.map(|data| data["alerts"].clone());
    let alerts = alerts.and_then(|alerts| alerts.as_array().cloned());
    let mut firing = alerts.unwrap_or_default();
    firing.retain(|alert| alert["state"] == "firing");
    firing
}

async fn until_firing(prometheus: &Prometheus, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let looking = async {
        loop {
            let firing = firing(prometheus).await;
            if is(&firing) {
                return firing;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(3 * GENEROUS, looking)
        .await
        .expect("the alerts come to it")
}

async fn the_alert_says_it(prometheus: &Prometheus) {
    let alerts = until_firing(prometheus, |firing| !firing.is_empty()).await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(
        alerts[0]["labels"]["alertname"],
        "CatalogSyncProjectFailing"
    );
    assert_eq!(alerts[0]["labels"]["project"], "acme");
    assert_eq!(alerts[0]["labels"]["code"], "not_authorized");
    let description = alerts[0]["annotations"]["description"].as_str().unwrap();
    for way in [
        "catalog-sync explain not_authorized",
        "catalog-sync status acme",
    ] {
        assert!(description.contains(way), "{description}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_key_is_seen_by_whom_it_is_why_and_what_to_do_and_is_mended() {
    let machine = Machine::new().await;
    machine.init().await;
    assert!(machine.does(&["check-config"]).await.contains("sound"));
    let add = |project, issuer, key| {
        [
            "project",
            "add",
            project,
            "--issuer-id",
            issuer,
            "--private-key",
            key,
        ]
    };
    machine
        .does(&add("acme", ISSUER, "AuthKey_ABC123DEFG.p8"))
        .await;
    let globex = "5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e12";
    machine
        .does(&add("globex", globex, "AuthKey_GLOBEX7890.p8"))
        .await;
    let mut daemon = Daemon::of(machine.command(&["run"]));
    let address = daemon.event("health.listening").await["address"].clone();
    let first = daemon
        .event_of_each("sync.finished", "project.id", &["acme", "globex"])
        .await;
    assert!(first.iter().all(|run| run["outcome"] == "succeeded"));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yaml");
    let prometheus = if is_there("prometheus") {
        Some(Prometheus::scraping(address.as_str().unwrap(), &[rules]))
    } else {
        None
    };
    if let Some(prometheus) = &prometheus {
        prometheus
            .until("max(catalog_sync_projects{state=\"fresh\"})", "2")
            .await;
        assert_eq!(firing(prometheus).await, [] as [Value; 0]);
    }

    // The customer revokes the key, and somebody asks for a sync.
    machine
        .house
        .simulator
        .edit(|state| state.teams[0].keys[0].revoked = true);
    let (code, said) = machine.run(&["resync", "acme", "--wait"]).await;
    assert_eq!(code, 1, "{said}");

    let line = daemon.finished("acme", "failed").await;
    assert_eq!(line["error.code"], "not_authorized");
    assert!(
        line["error.advice"]
            .as_str()
            .unwrap()
            .contains("probably revoked")
    );

    let fleet = machine.does(&["status"]).await;
    let acme = fleet.lines().position(|line| line.starts_with("acme\t"));
    let globex = fleet.lines().position(|line| line.starts_with("globex\t"));
    assert!(acme < globex, "the worst first:\n{fleet}");
    assert!(
        fleet
            .lines()
            .any(|line| line.starts_with("acme\t") && line.contains("not_authorized"))
    );
    let story = machine.does(&["status", "acme"]).await;
    for part in ["not_authorized", "probably revoked", "project set-key"] {
        assert!(story.contains(part), "{part}:\n{story}");
    }

    if let Some(prometheus) = &prometheus {
        the_alert_says_it(prometheus).await;
    }
    let explained = machine.does(&["explain", "not_authorized"]).await;
    assert!(explained.contains("a revoked key"), "{explained}");

    // The customer makes a new key.
    let new = [
        "project",
        "set-key",
        "acme",
        "--issuer-id",
        ISSUER,
        "--private-key",
        "AuthKey_NEWKEY4567.p8",
    ];
    machine.does(&new).await;
    daemon.finished("acme", "succeeded").await;
    let story = machine.does(&["status", "acme"]).await;
    assert!(
        story.starts_with("acme (acme, com.example.acme) is fresh"),
        "{story}"
    );
    if let Some(prometheus) = &prometheus {
        until_firing(prometheus, <[Value]>::is_empty).await;
    }
    daemon.stop().await;
}
