//! What must hold of whatever comes from outside: a function for each fuzz target, which panics when it does not hold.
//!
//! `fuzz/` feeds them with what a fuzzer makes up. The tests feed them with every file under `fuzz/corpus/`, whole, cut and
//! changed, so that what was found once is tried with each test run.

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    asc::{self, rate},
    budget::{Ledger, Reserve},
    clock::Instant,
    credential::{self, Credential, Given, PrivateKey},
    project::{ProjectId, SealedKey},
    vault::{self, Vault},
};

const KEY_ID: &str = "2X9R4HXF34";
const ISSUER: &str = "69a6de7f-0000-47e3-e053-5b8c7c11a4d1";
const PEM: &[u8] = include_bytes!("../tests/fixtures/p256.pem");

/// As much of a key in a message would be a leak.
const LEAK: usize = 8;

/// No key waits for longer, whatever an answer says of its budget.
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(75);

/// The body of an answer of App Store Connect.
pub fn page(body: &[u8]) {
    asc::fuzz::page(body);
}

/// The headers of an answer, a line each.
///
/// # Panics
///
/// When what they are taken for is out of bounds.
pub fn headers(block: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in block.split(|&byte| byte == b'\n') {
        let mut halves = line.splitn(2, |&byte| byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            headers.append(name, value);
        }
    }
    for now in instants() {
        if let Some(budget) = rate::budget(&headers) {
            assert!(
                budget.limit > 0 && budget.left <= budget.limit,
                "{budget:?}"
            );
            let mut ledger = Ledger::default();
            ledger.record(now, 3, Some(budget), None);
            let left = ledger.left(now);
            assert!(left.left <= left.limit, "{left:?}");
            for reserve in [Reserve::Scheduled, Reserve::OnDemand] {
                if let Some(ready_at) = ledger.ready_at(reserve, now) {
                    assert!(
                        ready_at > now && ready_at - now <= LONGEST_WAIT,
                        "{ready_at}"
                    );
                }
            }
        }
        if let Some(wait) = rate::retry_after(&headers, now) {
            assert!((1..=3600).contains(&wait.as_secs()), "{wait:?}");
            assert_eq!(wait.min(std::time::Duration::from_hours(1)), wait);
        }
        if let Some(ahead) = rate::clock_ahead(&headers, now) {
            let date = now - TimeDelta::seconds(ahead);
            // HTTP dates are from 1970 to 9999, and the difference is cut to whole seconds.
            let years = DateTime::UNIX_EPOCH - TimeDelta::seconds(1)..=end_of_dates();
            assert!(years.contains(&date), "{ahead}");
        }
    }
}

fn instants() -> [Instant; 3] {
    let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(1_795_000_000_123);
    [DateTime::UNIX_EPOCH, now, end_of_dates()]
}

/// The last second of the year 9999.
fn end_of_dates() -> Instant {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(253_402_300_799)
}

/// What a customer hands over as the private key, and in any other field by mistake.
///
/// # Panics
///
/// When a message tells some of it, or a key is taken that does not sign.
pub fn key(given: &[u8]) {
    let text = String::from_utf8_lossy(given);
    let usual = Given {
        key_id: Some(KEY_ID),
        issuer_id: Some(ISSUER),
        private_key: Some(PEM),
        file_name: None,
    };
    let fields = [
        Given {
            private_key: Some(given),
            ..usual
        },
        Given {
            key_id: Some(&text),
            ..usual
        },
        Given {
            issuer_id: Some(&text),
            ..usual
        },
        Given {
            file_name: Some(&text),
            private_key: Some(given),
            ..usual
        },
        Given {
            key_id: None,
            file_name: Some(&text),
            ..usual
        },
    ];
    for given in fields {
        match credential::read(given) {
            Ok(credential) => {
                assert_silent(&format!("{} {credential:?}", credential.identity()), &text);
                assert_signs(&credential);
            }
            Err(why) => assert_silent(&format!("{why} {why:?}"), &text),
        }
    }
}

/// No run of characters that can only be key material is in the message. Words have no digit between letters of both cases, and
/// a Key ID, which may be told, has no small letter.
fn assert_silent(message: &str, given: &str) {
    for run in message.as_bytes().windows(LEAK) {
        let could_be_material = run
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
            && run.iter().any(u8::is_ascii_uppercase)
            && run.iter().any(u8::is_ascii_lowercase)
            && run.iter().any(u8::is_ascii_digit);
        let is_told = could_be_material && given.as_bytes().windows(LEAK).any(|part| part == run);
        assert!(!is_told, "{message:?} tells {}", run.escape_ascii());
    }
}

/// The key signs a token that its public half verifies, and is read from its own bytes as the same key.
fn assert_signs(credential: &Credential) {
    let der = credential.private_key.der().to_vec();
    let again = PrivateKey::from_der(&der).expect("what was taken is taken again");
    assert_eq!(again.der(), der);
    let [_, now, _] = instants();
    let token = asc::fuzz::token(credential, now);
    let (message, signature) = token.rsplit_once('.').expect("a token has three parts");
    let signature = BASE64_URL_SAFE_NO_PAD
        .decode(signature)
        .expect("a signature is base64url");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .expect("what was taken is a key pair");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
        .verify(message.as_bytes(), &signature)
        .expect("the public half verifies it");
}

/// Sealed keys of a vault with one master key: the bytes as they are, and as changes of a key that opens.
///
/// # Panics
///
/// When anything opens but what was sealed, or fails otherwise than it should.
pub fn unseal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_opens_only_if(SEALED == bytes, &known(bytes));
    // The master key that the bytes name, so that all that follows its name is read as well.
    let named = bytes
        .get(1)
        .and_then(|&length| bytes.get(2..2 + usize::from(length)))
        .map(String::from_utf8_lossy);
    let named = SealedKey {
        master_key_id: named.unwrap_or_default().into_owned(),
        ..known(bytes)
    };
    assert_opens_only_if(SEALED == bytes, &named);

    let mut changed = SEALED.to_vec();
    let edits = bytes.chunks_exact(3);
    changed.extend_from_slice(edits.remainder());
    for edit in edits {
        if let &[high, low, bits] = edit {
            let at = usize::from(u16::from_be_bytes([high, low])) % changed.len();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= bits;
            }
        }
    }
    assert_opens_only_if(SEALED == changed, &known(&changed));
    let cut = SEALED.get(..bytes.len()).unwrap_or_default();
    assert_opens_only_if(SEALED == cut, &known(cut));

    let moved = SealedKey {
        key_id: text.clone().into_owned(),
        ..known(SEALED)
    };
    assert_opens_only_if(text == KEY_ID, &moved);
    let moved = SealedKey {
        issuer_id: Some(text.clone().into_owned()),
        ..known(SEALED)
    };
    assert_opens_only_if(text == ISSUER, &moved);
}

/// The key of `tests/fixtures/p256.pem`, sealed for the project `acme`.
const SEALED: &[u8] = include_bytes!("../fuzz/corpus/unseal/team_key");

fn known(sealed: &[u8]) -> SealedKey {
    SealedKey {
        key_id: KEY_ID.to_owned(),
        issuer_id: Some(ISSUER.to_owned()),
        master_key_id: "k20261123".to_owned(),
        sealed: sealed.to_vec(),
    }
}

fn assert_opens_only_if(may_open: bool, key: &SealedKey) {
    static VAULT: LazyLock<Vault> =
        LazyLock::new(|| Vault::of_text("k20261123:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="));
    static PROJECT: LazyLock<ProjectId> =
        LazyLock::new(|| "acme".parse().expect("it is an id of a project"));
    match VAULT.unseal(&PROJECT, key) {
        Ok(opened) => {
            assert!(may_open, "{key:?} opens");
            assert_signs(&opened);
        }
        Err(
            error @ (vault::Error::DoesNotOpen
            | vault::Error::UnknownVersion { .. }
            | vault::Error::UnknownMasterKey { .. }),
        ) => assert!(!may_open, "{error}"),
        Err(error) => unreachable!("{error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, panic::catch_unwind, path::Path};

    use super::*;

    type Check = fn(&[u8]);

    /// Larger files would make the cuts slow.
    const LARGEST: usize = 8 << 10;

    fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| {
                let file = file.unwrap();
                let name = format!("{target}/{}", file.file_name().display());
                (name, fs::read(file.path()).unwrap())
            })
            .collect();
        assert!(files.len() >= 15, "{target}: {} files", files.len());
        files
    }

    #[track_caller]
    fn assert_holds(check: Check, bytes: &[u8], what: &str) {
        assert!(catch_unwind(|| check(bytes)).is_ok(), "{what}");
    }

    /// Each file as it is, cut at every length, and with single bytes changed.
    fn assert_corpus_holds(target: &str, check: Check) {
        for (name, bytes) in corpus(target) {
            assert!(bytes.len() <= LARGEST, "{name} has {} bytes", bytes.len());
            assert_holds(check, &bytes, &name);
            for length in 0..bytes.len() {
                assert_holds(check, &bytes[..length], &format!("{name} cut at {length}"));
            }
            for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
                for bits in [1, 0x20, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= bits;
                    assert_holds(check, &changed, &format!("{name}, {at} ^ {bits:#x}"));
                }
            }
        }
    }

    #[test]
    fn every_page_of_the_corpus_holds() {
        assert_corpus_holds("page", page);
    }

    #[test]
    fn every_header_of_the_corpus_holds() {
        assert_corpus_holds("headers", headers);
    }

    #[test]
    fn every_key_of_the_corpus_holds() {
        assert_corpus_holds("key", key);
    }

    #[test]
    fn every_sealed_key_of_the_corpus_holds() {
        assert_corpus_holds("unseal", unseal);
    }

    #[test]
    fn each_target_has_a_corpus_and_each_corpus_a_target() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let names = |folder: &str| {
            let mut names: Vec<String> = fs::read_dir(fuzz.join(folder))
                .unwrap()
                .map(|it| it.unwrap().path())
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        let targets = ["headers", "key", "page", "unseal"];
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")));
        }
    }

    #[test]
    fn a_message_that_tells_of_a_key_is_caught() {
        let material = "MIGHAgEAMBMGByqGSM49AgEG";
        let told = |message: String| catch_unwind(|| assert_silent(&message, material)).is_err();
        assert!(told(format!("cannot read {}", &material[14..14 + LEAK])));
        assert!(!told(format!("cannot read {}", &material[14..13 + LEAK])));
        assert!(!told("The private key is cut short.".to_owned()));
    }

    #[test]
    fn the_corpus_holds_what_is_taken_and_what_is_not() {
        let count = |target: &str, is_taken: fn(&[u8]) -> bool| {
            let files = corpus(target);
            let taken = files.iter().filter(|(_, bytes)| is_taken(bytes)).count();
            (taken, files.len() - taken)
        };
        let keys = count("key", |bytes| {
            credential::read(Given {
                key_id: Some(KEY_ID),
                private_key: Some(bytes),
                ..Given::default()
            })
            .is_ok()
        });
        assert!(keys.0 >= 5 && keys.1 >= 5, "{keys:?}");
        assert!(corpus("unseal").iter().any(|(_, bytes)| bytes == SEALED));
    }
}
