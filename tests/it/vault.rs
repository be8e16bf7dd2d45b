//! The master key file: its form, and who may read it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use catalog_sync::{
    clock::Instant,
    vault::{self, Error, Vault},
};
use tempfile::TempDir;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn now() -> Instant {
    "2026-11-23T23:59:59Z".parse().unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &TempDir, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = folder.path().join("master.key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_new_file_is_its_owners_alone_and_opens() {
    let folder = folder();
    let path = folder.path().join("master.key");
    let id = vault::create(&path, now()).unwrap();
    assert!(id.starts_with("k20261123-") && id.len() == 14, "{id}");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(Vault::open(&path).unwrap().master_key_ids(), [id]);
}

#[test]
fn two_new_files_hold_different_keys() {
    let [one, two] = [folder(), folder()].map(|folder| {
        let path = folder.path().join("master.key");
        vault::create(&path, now()).unwrap();
        fs::read_to_string(path).unwrap()
    });
    assert_ne!(one, two);
}

#[test]
fn a_file_is_never_overwritten() {
    let folder = folder();
    let path = file(&folder, format!("old:{KEY}\n"), 0o600);
    let error = vault::create(&path, now()).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(Vault::open(&path).unwrap().master_key_id(), "old");

    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(matches!(
        vault::create(&link, now()),
        Err(Error::Exists { .. })
    ));
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let error = vault::create(Path::new("/nonexistent/master.key"), now()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert_eq!(
        error.to_string(),
        "the master key file /nonexistent/master.key cannot be made"
    );
}

#[test]
fn a_missing_file_says_what_makes_one_and_what_is_lost() {
    let error = Vault::open(Path::new("/nonexistent/master.key")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Missing { .. }));
    assert!(
        text.contains("'catalog-sync init'") && text.contains("cannot be opened"),
        "{text}"
    );
}

#[test]
fn a_file_that_others_may_touch_is_refused_with_the_way_out() {
    let folder = folder();
    for mode in [0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o777] {
        let path = file(&folder, format!("a:{KEY}"), mode);
        let error = Vault::open(&path).unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{mode:o}: {error}");
        assert!(
            error
                .to_string()
                .ends_with(&format!("(mode {mode:03o}): chmod 600 {}", path.display()))
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        Vault::open(&file(&folder, format!("a:{KEY}"), mode)).unwrap();
        fs::remove_file(folder.path().join("master.key")).unwrap();
    }
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_its_line() {
    let folder = folder();
    let long = "a".repeat(33);
    let cases = [
        (format!("a:{KEY}\nb {KEY}"), ":2: there is no colon"),
        (format!("\n# c\nA:{KEY}"), ":3: the id is not"),
        (format!(":{KEY}"), ":1: the id is not"),
        (format!("{long}:{KEY}"), ":1: the id is not"),
        (format!("k_1:{KEY}"), ":1: the id is not"),
        (
            format!("a:{KEY}\nb:{KEY}\na:{KEY}"),
            ":3: this id is there twice",
        ),
        ("a:".to_owned(), ":1: the key is not the base64 of 32 bytes"),
        (format!("a:{KEY}{KEY}"), ":1: the key is not"),
        (format!("a:{}", &KEY[..40]), ":1: the key is not"),
        (format!("a:{}!", &KEY[..43]), ":1: the key is not"),
        (format!("a:{}", KEY.repeat(100)), ":1: the key is not"),
        (String::new(), "holds no key"),
        ("# nothing\n\n".to_owned(), "holds no key"),
    ];
    for (content, expected) in cases {
        let error = Vault::open(&file(&folder, &content, 0o600)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected), "{content:?}: {text}");
        assert!(!text.contains(&KEY[..8]), "{text}");
    }
    let long_id = "a".repeat(32);
    Vault::open(&file(&folder, format!("{long_id}:{KEY}"), 0o600)).unwrap();
}

#[test]
fn what_is_no_such_file_is_told() {
    let folder = folder();
    assert!(matches!(Vault::open(folder.path()), Err(Error::Io { .. })));
    let huge = file(&folder, "#".repeat(65 * 1024), 0o600);
    assert!(matches!(Vault::open(&huge), Err(Error::Io { .. })));
    let binary = file(&folder, [0xff; 100], 0o600);
    assert!(matches!(
        Vault::open(&binary),
        Err(Error::Malformed { line: 1, .. })
    ));
}
