//! The master key file: its form, and who may read it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use catalog_sync::{
    clock::Instant,
    vault::{self, Error, Source, Vault},
};
use tempfile::TempDir;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const OTHER: &str = "IB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";

fn open(path: &Path) -> Result<Vault, Error> {
    Vault::open(&[Source::File(path.to_owned())])
}

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
    assert_eq!(open(&path).unwrap().master_key_ids(), [id]);
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
    assert_eq!(open(&path).unwrap().master_key_id(), "old");

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
    let error = open(Path::new("/nonexistent/master.key")).unwrap_err();
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
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{mode:o}: {error}");
        assert!(
            error
                .to_string()
                .ends_with(&format!("(mode {mode:03o}): chmod 600 {}", path.display()))
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        open(&file(&folder, format!("a:{KEY}"), mode)).unwrap();
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
        (
            format!("a:{}=", "A".repeat(43)),
            ":1: the key is one byte over and over",
        ),
        (format!("a:{}", KEY.repeat(100)), ":1: the key is not"),
        (String::new(), "holds no key"),
        ("# nothing\n\n".to_owned(), "holds no key"),
    ];
    for (content, expected) in cases {
        let error = open(&file(&folder, &content, 0o600)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected), "{content:?}: {text}");
        assert!(!text.contains(&KEY[..8]), "{text}");
    }
    let long_id = "a".repeat(32);
    open(&file(&folder, format!("{long_id}:{KEY}"), 0o600)).unwrap();
}

#[test]
fn what_is_no_such_file_is_told() {
    let folder = folder();
    assert!(matches!(open(folder.path()), Err(Error::Io { .. })));
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    assert!(
        matches!(open(&pipe), Err(Error::Io { .. })),
        "it is not waited for"
    );
    let huge = file(&folder, "#".repeat(65 * 1024), 0o600);
    assert!(matches!(open(&huge), Err(Error::Io { .. })));
    let binary = file(&folder, [0xff; 100], 0o600);
    assert!(matches!(
        open(&binary),
        Err(Error::Malformed { line: 1, .. })
    ));
}

#[test]
fn all_sources_are_read_and_the_very_first_key_encrypts() {
    let folder = folder();
    let old = file(&folder, format!("old:{KEY}\n"), 0o600);
    let printing = |text: &str| Source::Command(["printf", text].map(str::to_owned).to_vec());
    let vault = Vault::open(&[
        printing(&format!("new:{OTHER}\\nold:{KEY}\\n")),
        Source::File(old.clone()),
    ])
    .unwrap();
    assert_eq!(vault.master_key_ids(), ["new", "old"]);
    let places: Vec<_> = vault
        .master_keys()
        .unwrap()
        .into_iter()
        .map(|key| key.place)
        .collect();
    assert!(places[0].starts_with("command:printf"), "{places:?}");

    // Both have it, and one of them is wrong: which, nobody can tell.
    let error =
        Vault::open(&[Source::File(old.clone()), printing(&format!("old:{OTHER}"))]).unwrap_err();
    assert!(matches!(error, Error::Contradiction { .. }), "{error}");
    let error = Vault::open(&[printing(""), printing("#")]).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    let failing = Source::Command(vec!["false".to_owned()]);
    let error = Vault::open(&[Source::File(old), failing])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "command:false gives no master keys: it failed (exit status: 1)"
    );
}

#[test]
fn a_key_that_is_added_decrypts_and_one_that_is_promoted_encrypts() {
    let folder = folder();
    let content = format!("# ours\n\nold:{KEY}\n# of last year\nolder:{OTHER}");
    let path = file(&folder, &content, 0o400);
    let new = vault::add(&path, now()).unwrap();
    assert_eq!(
        open(&path).unwrap().master_key_ids(),
        ["old", "older", &new]
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&format!("{content}\n{new}:")), "{text}");

    assert!(vault::promote(&path, &new).unwrap());
    assert_eq!(
        open(&path).unwrap().master_key_ids(),
        [&new, "old", "older"]
    );
    assert!(vault::promote(&path, &new).unwrap(), "again");
    assert_eq!(
        open(&path).unwrap().master_key_ids(),
        [&new, "old", "older"]
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&format!("# ours\n\n{new}:")), "{text}");
    assert!(
        text.ends_with(&format!("\nold:{KEY}\n# of last year\nolder:{OTHER}\n")),
        "{text}"
    );

    assert!(vault::retire(&path, "old", now()).unwrap());
    assert!(!vault::retire(&path, "old", now()).unwrap());
    assert!(!vault::promote(&path, "old").unwrap());
    assert_eq!(open(&path).unwrap().master_key_ids(), [&new, "older"]);
    let text = fs::read_to_string(&path).unwrap();
    let comment = format!("\n# retired 2026-11-23 old:{KEY}\n");
    assert!(text.contains(&comment), "it is not lost: {text}");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o400, "the mode stays");
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["master.key"], "nothing is left beside it");
}

#[test]
fn the_last_key_stays_and_a_link_stays_a_link() {
    let folder = folder();
    let path = file(&folder, format!("a:{KEY}\n"), 0o600);
    assert!(!vault::retire(&path, "a", now()).unwrap());
    assert_eq!(open(&path).unwrap().master_key_ids(), ["a"]);

    let link = folder.path().join("link.key");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let new = vault::add(&link, now()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(open(&path).unwrap().master_key_ids(), ["a", &new]);
}

#[test]
fn a_file_that_is_wrong_or_is_being_changed_is_left_alone() {
    let folder = folder();
    for (content, mode) in [
        (format!("a:{KEY}\nb"), 0o600),
        (format!("a:{KEY}\n"), 0o644),
    ] {
        let path = file(&folder, &content, mode);
        vault::add(&path, now()).unwrap_err();
        vault::promote(&path, "a").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let path = file(&folder, format!("a:{KEY}\n"), 0o600);
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    let error = vault::add(&path, now()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    drop(held);
    vault::add(&path, now()).unwrap();
}

#[test]
fn a_key_that_was_added_meanwhile_is_found_when_it_is_needed() {
    let folder = folder();
    let path = file(&folder, format!("a:{KEY}\n"), 0o600);
    let vault = open(&path).unwrap();
    let new = vault::add(&path, now()).unwrap();
    assert!(!vault.has(&new));
    vault.look_for(&new).unwrap();
    assert!(vault.has(&new) && vault.has("a"));

    // A run under way may still need what was retired meanwhile.
    assert!(vault::promote(&path, &new).unwrap() && vault::retire(&path, "a", now()).unwrap());
    let newer = vault::add(&path, now()).unwrap();
    vault.look_for(&newer).unwrap();
    assert_eq!(vault.master_key_ids(), [&new, &newer, "a"]);

    // Another key of an id that is in use takes nothing's place.
    let text = fs::read_to_string(&path).unwrap();
    let wrong = text
        .replace("# retired 2026-11-23 a:", "a:")
        .replace(KEY, OTHER);
    fs::write(&path, wrong).unwrap();
    let error = vault.look_for("another").unwrap_err();
    assert!(matches!(error, Error::Contradiction { .. }), "{error}");
    assert_eq!(vault.master_key_ids(), [&new, &newer, "a"]);

    fs::write(&path, "nonsense").unwrap();
    vault.look_for("another").unwrap_err();
    assert!(vault.has(&new), "what is at hand stays so");
}
