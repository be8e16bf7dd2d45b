//! The systemd unit, the Debian package, and the command for its administrator.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use catalog_sync::{config::Config, vault::Source};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{ask, no, path, shipped, words, yes};

const UNIT: &str = "deploy/catalog-sync.service";
const ADMIN: &str = "deploy/catalog-sync-admin";

/// The value of a key of the unit.
fn set_in_unit(unit: &str, key: &str) -> String {
    let mut lines = unit.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value
        .unwrap_or_else(|| panic!("the unit has no {key}"))
        .to_owned()
}

#[test]
fn systemd_takes_the_unit_and_finds_it_as_hardened_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let unit = "catalog-sync.service";
    let analyze = |arguments: &[&str]| {
        ask(Command::new("systemd-analyze")
            .args(arguments)
            .current_dir(folder.path()))
    };
    let Some(version) = analyze(&["--version"]) else {
        return;
    };
    // It wants the program to be there.
    let text = shipped(UNIT).replace("/usr/bin/catalog-sync", env!("CARGO_BIN_EXE_catalog-sync"));
    fs::write(folder.path().join(unit), &text).unwrap();
    let verify = || analyze(&["verify", "--recursive-errors=no", unit]).unwrap();
    let verified = yes(&verify());
    assert!(!verified.contains("catalog-sync"), "{verified}");

    // From 0, the best, to 10. Another version than the one of the header may look at more.
    let (_, stated) = text.split_once("of systemd 252 gives ").unwrap();
    let stated: f64 = stated.split(',').next().unwrap().parse().unwrap();
    let said = yes(&analyze(&["security", "--offline=true", unit]).unwrap());
    let (_, found) = said
        .split_once("Overall exposure level for catalog-sync.service: ")
        .unwrap();
    let found: f64 = found.split(' ').next().unwrap().parse().unwrap();
    if yes(&version).starts_with("systemd 252 ") {
        assert!(found <= stated, "{found} is worse than {stated}");
    }
    assert!(found <= 1.5, "{found}");
    assert!(text.contains("\n[Install]\nWantedBy=multi-user.target\n"));

    fs::write(
        folder.path().join(unit),
        text.replace("PrivateTmp=", "PrivateTemp="),
    )
    .unwrap();
    let refused = verify();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PrivateTemp"));
}

#[test]
fn the_unit_hands_over_the_key_that_the_configuration_names() {
    let (unit, folder) = (shipped(UNIT), tempfile::tempdir().unwrap());
    // As the package installs it.
    let file = folder.path().join("worker.toml");
    fs::write(&file, shipped("deploy/worker.toml")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let config = Config::load(Some(&file), []).unwrap();
    let credential = set_in_unit(&unit, "LoadCredential");
    let (name, from) = credential.split_once(':').unwrap();
    assert_eq!(
        config.vault.master_keys,
        [Source::Credential(name.to_owned())]
    );

    let home = set_in_unit(&unit, "WorkingDirectory");
    assert_eq!(
        home,
        format!("/var/lib/{}", set_in_unit(&unit, "StateDirectory"))
    );
    assert_eq!(config.store.url, format!("sqlite:{home}/catalog-sync.db"));
    let started = set_in_unit(&unit, "ExecStart");
    let (_, config_file) = started.split_once(" --config ").unwrap();
    let stop: u64 = set_in_unit(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(1000 * stop > config.daemon.grace_ms + 15_000);

    let admin = shipped(ADMIN);
    for line in [
        format!("user={}", set_in_unit(&unit, "User")),
        format!("home={home}"),
        format!("config={config_file}"),
        format!("key={from}"),
    ] {
        assert!(admin.lines().any(|it| it == line), "{line}");
    }
}

#[test]
fn the_recipe_in_the_unit_installs_what_is_shipped() {
    let unit = shipped(UNIT);
    let recipe: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .collect();
    let named: Vec<_> = recipe
        .iter()
        .flat_map(|line| line.split(' '))
        .filter(|word| word.starts_with("deploy/"))
        .collect();
    assert_eq!(named.len(), 3, "{recipe:?}");
    for name in named {
        assert!(path(name).is_file(), "{name}");
    }
    let started = set_in_unit(&unit, "ExecStart");
    let program = started.split(' ').next().unwrap();
    let (folder, name) = program.rsplit_once('/').unwrap();
    assert!(recipe.contains(&&*format!("install -m 755 target/release/{name} {folder}/")));
}

fn manifest() -> Table {
    shipped("Cargo.toml").parse().unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect()
}

#[test]
fn the_package_has_all_that_it_names_and_no_simulator() {
    let manifest = manifest();
    let package = &manifest["package"]["metadata"]["deb"];
    let mut installed = BTreeSet::new();
    for asset in package["assets"].as_array().unwrap() {
        let (from, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        let from = Path::new(from);
        let name = from.file_name().unwrap().to_str().unwrap();
        installed.insert(format!("/{to}{name}"));
        if from.starts_with("target/release") {
            assert_eq!(name, manifest["package"]["name"].as_str().unwrap());
        } else if let Some((_, extension)) = name.split_once('*') {
            let mut files = fs::read_dir(path(from.parent().unwrap().to_str().unwrap())).unwrap();
            let has = |file: PathBuf| file.to_str().unwrap().ends_with(extension);
            assert!(files.any(|file| has(file.unwrap().path())), "{from:?}");
        } else {
            assert!(path(from.to_str().unwrap()).is_file(), "{from:?}");
        }
    }
    for file in strings(&package["conf-files"]) {
        assert!(installed.contains(file), "{file}");
    }
    let unit = &package["systemd-units"];
    let unit = format!(
        "{}{}.service",
        unit["unit-scripts"].as_str().unwrap(),
        unit["unit-name"].as_str().unwrap()
    );
    assert_eq!(unit, UNIT);

    assert_eq!(package["default-features"].as_bool(), Some(false));
    assert_eq!(strings(&package["features"]), ["production"]);
    let features = &manifest["features"];
    assert_eq!(strings(&features["default"]), ["production", "simulator"]);
    let production = strings(&features["production"]);
    assert!(
        production
            .iter()
            .all(|it| features.get(it).is_some() && *it != "simulator")
    );
}

#[test]
fn every_script_is_one() {
    let mut scripts = vec![path(ADMIN), path("tests/run"), path(".ci/run")];
    let maintainers = fs::read_dir(path("deploy/debian")).unwrap();
    for script in maintainers.map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&script).unwrap();
        // What cargo-deb adds for the unit goes there.
        assert!(
            text.starts_with("#!/bin/sh\nset -e\n") && text.ends_with("\n#DEBHELPER#\n"),
            "{script:?}"
        );
        scripts.push(script);
    }
    assert_eq!(scripts.len(), 6);
    for script in scripts {
        let text = fs::read_to_string(&script).unwrap();
        let shell = words(text.lines().next().unwrap(), |it| it.is_ascii_alphabetic())
            .last()
            .unwrap();
        yes(&Command::new(shell).arg("-n").arg(&script).output().unwrap());
    }
}

/// The command in a folder of its own, with a user that has nothing.
struct Admin {
    folder: TempDir,
}

impl Admin {
    /// None where the tests do not run as root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can run a command as another user");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let admin = Self { folder };
        for name in ["", "run", "etc", "home"] {
            fs::create_dir_all(admin.path(name)).unwrap();
            fs::set_permissions(admin.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::chown(admin.path("home"), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_catalog-sync"),
            admin.path("catalog-sync"),
        )
        .unwrap();
        let home = admin.path("home");
        let config =
            shipped("deploy/worker.toml").replace("/var/lib/catalog-sync", home.to_str().unwrap());
        fs::write(admin.path("etc/worker.toml"), config).unwrap();
        Some(admin)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command, with this in the script once it has run.
    fn run_with(&self, arguments: &[&str], then: &str) -> Output {
        let here = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let ran = "\"$@\" > \"$folder/said\" || code=$?\n";
        let script = shipped(ADMIN);
        assert!(script.contains(ran));
        let script = script
            .replace(ran, &format!("{ran}{then}\n"))
            .replace("user=catalog-sync", "user=nobody")
            .replace("/var/lib/catalog-sync", &here("home"))
            .replace("/etc/catalog-sync", &here("etc"))
            .replace("/usr/bin/catalog-sync", &here("catalog-sync"))
            .replace("/run/catalog-sync-admin", &here("run/catalog-sync-admin"));
        let file = self.path("catalog-sync-admin");
        fs::write(&file, script).unwrap();
        let output = Command::new("sh")
            .arg(file)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(
            fs::read_dir(self.path("run")).unwrap().count(),
            0,
            "a key is left behind"
        );
        output
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    /// The ids of the master keys, in their order.
    fn keys(&self) -> Vec<String> {
        let file = self.path("etc/master.key");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, 0));
        let text = fs::read_to_string(file).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect()
    }
}

/// The user `nobody` and its group.
const NOBODY: u32 = 65534;

#[test]
fn an_administrator_works_as_the_service_does_with_a_key_that_is_roots() {
    let Some(admin) = Admin::new() else {
        return;
    };
    no(&admin.run(&["check-config"]));
    let said = yes(&admin.run(&["init"]));
    assert!(
        said.contains(&format!("made {}", admin.path("etc/master.key").display())),
        "{said}"
    );
    assert_eq!(admin.keys().len(), 1);
    let database = fs::metadata(admin.path("home/catalog-sync.db")).unwrap();
    assert_eq!((database.mode() & 0o777, database.uid()), (0o600, NOBODY));
    yes(&admin.run(&["check-config"]));
    yes(&admin.run(&["status"]));
    let unchanged = admin.keys();
    yes(&admin.run(&["init"]));
    assert_eq!(admin.keys(), unchanged);
    assert_eq!(admin.run(&["plan", "nothing"]).status.code(), Some(1));

    yes(&admin.run(&["master-key", "add"]));
    let keys = admin.keys();
    assert_eq!(keys[..1], unchanged);
    assert_eq!(keys.len(), 2);
    yes(&admin.run(&["master-key", "rotate", &keys[1]]));
    assert_eq!(admin.keys(), [keys[1].clone(), keys[0].clone()]);
    yes(&admin.run(&["master-key", "retire", &keys[0]]));
    assert_eq!(admin.keys(), keys[1..]);
    let listed = yes(&admin.run(&["master-key", "list"]));
    assert!(listed.contains("credential:master.key"), "{listed}");
}

#[test]
fn a_master_key_file_that_somebody_else_changes_meanwhile_keeps_what_they_wrote() {
    let Some(admin) = Admin::new() else {
        return;
    };
    yes(&admin.run(&["init"]));
    let before = admin.keys();
    let said = no(&admin.run_with(&["master-key", "add"], "echo '# by hand' >> \"$key\""));
    assert!(said.contains("has changed meanwhile"), "{said}");
    assert_eq!(admin.keys(), before);
    let text = fs::read_to_string(admin.path("etc/master.key")).unwrap();
    assert!(text.ends_with("# by hand\n"));
    let kept = fs::read_to_string(admin.path("etc/master.key.conflict")).unwrap();
    assert_eq!(
        kept.lines().filter(|line| !line.starts_with('#')).count(),
        2
    );
}

#[test]
fn what_the_user_of_the_service_puts_in_the_way_is_not_followed() {
    let Some(admin) = Admin::new() else {
        return;
    };
    yes(&admin.run(&["init"]));
    let before = admin.keys();
    fs::write(admin.path("secret"), "root's own\n").unwrap();
    fs::set_permissions(admin.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let secret = admin.path("secret");
    let link = format!("ln -sf {} \"$folder/keys/master.key\"", secret.display());
    no(&admin.run_with(&["master-key", "add"], &link));
    assert_eq!(admin.keys(), before);
}
