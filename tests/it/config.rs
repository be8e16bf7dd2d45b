//! Which file is read, and what is in the files it names.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use catalog_sync::{
    config::{Config, Error},
    environment,
};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

fn file(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn variable(name: &str, value: impl AsRef<Path>) -> [(String, String); 1] {
    [(name.to_owned(), value.as_ref().display().to_string())]
}

#[test]
fn the_command_line_names_the_file_before_the_environment_does() {
    let folder = tempfile::tempdir().unwrap();
    let one = file(&folder, "one.toml", "[sync]\nconcurrency = 1\n");
    let two = file(&folder, "two.toml", "[sync]\nconcurrency = 2\n");
    let env = || variable("CATALOG_SYNC_CONFIG", &two);
    assert_eq!(Config::load(Some(&one), env()).unwrap().sync.concurrency, 1);
    assert_eq!(Config::load(None, env()).unwrap().sync.concurrency, 2);
    // The tests run where the shipped file is.
    let shipped = Config::load(None, []).unwrap();
    assert_eq!(shipped.redacted(), Config::default().redacted());
    assert_eq!(shipped.file(), Some(Path::new("worker.toml")));
    assert_eq!(
        Config::load(None, variable("CATALOG_SYNC_CONFIG", "")).unwrap(),
        shipped
    );
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    for error in [
        Config::load(Some(&missing), []).unwrap_err(),
        Config::load(None, variable("CATALOG_SYNC_CONFIG", &missing)).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unreadable { .. }));
        assert!(error.to_string().contains("missing.toml"), "{error}");
    }
}

#[test]
fn an_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "mine.toml", "# mine\n[store]\nulr = ''\n");
    let error = Config::load(Some(&path), []).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}:3: unknown key 'store.ulr'; did you mean 'store.url'?",
            path.display()
        )
    );
}

#[test]
fn the_stores_url_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = file(&folder, "url", "postgres://me:canary@db/catalog\n");
    let config = Config::load(None, variable("CATALOG_SYNC_STORE__URL_FILE", &secret)).unwrap();
    assert_eq!(
        config.store_url().unwrap().expose_secret(),
        "postgres://me:canary@db/catalog"
    );
    assert!(!format!("{config:?} {:?}", config.store_url()).contains("canary"));

    fs::write(&secret, "canary").unwrap();
    let error = config.store_url().unwrap_err().to_string();
    assert!(
        error.contains("store.url_file") && !error.contains("canary"),
        "{error}"
    );
    fs::remove_file(&secret).unwrap();
    assert!(matches!(config.store_url(), Err(Error::Unreadable { .. })));
    assert_eq!(
        Config::default().store_url().unwrap().expose_secret(),
        "sqlite:catalog-sync.db"
    );
}

#[test]
#[cfg(all(feature = "nats", feature = "rabbitmq"))]
fn a_brokers_url_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let nats = file(&folder, "nats", " tls://me:canary@a,tls://me:canary@b\n");
    let rabbitmq = file(&folder, "rabbitmq", "amqps://me:canary@rabbit\n");
    let load = || {
        let [one] = variable("CATALOG_SYNC_NATS__URL_FILE", &nats);
        let [two] = variable("CATALOG_SYNC_RABBITMQ__URL_FILE", &rabbitmq);
        Config::load(None, [one, two]).unwrap()
    };
    let config = load();
    assert_eq!(
        config.nats_url().unwrap().unwrap().expose_secret(),
        "tls://me:canary@a,tls://me:canary@b"
    );
    assert_eq!(
        config.rabbitmq_url().unwrap().unwrap().expose_secret(),
        "amqps://me:canary@rabbit"
    );
    assert!(Config::default().nats_url().unwrap().is_none());
    assert!(Config::default().rabbitmq_url().unwrap().is_none());

    fs::write(&nats, "canary").unwrap();
    fs::remove_file(&rabbitmq).unwrap();
    let error = config.nats_url().unwrap_err().to_string();
    assert!(
        error.contains("nats.url_file") && !error.contains("canary"),
        "{error}"
    );
    let error = config.rabbitmq_url().unwrap_err().to_string();
    assert!(error.contains("rabbitmq.url_file"), "{error}");
}

#[test]
fn the_environment_of_the_process_is_read() {
    assert!(environment::all().any(|(name, _)| name == "PATH"));
}
