use std::borrow::Cow;

use proptest::prelude::{any, prop};
use serde_json::{Value, json};

use super::{redact, redact_bytes};

const LINE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcanarycanarycana";
const LAST: &str = "rycanarycanary0+/aQ=";
const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ";

fn pem(newline: &str) -> String {
    [
        "-----BEGIN PRIVATE KEY-----",
        LINE,
        LINE,
        LAST,
        "-----END PRIVATE KEY-----",
    ]
    .join(newline)
}

/// Fields and URLs with a secret, and what is left of them.
const FIELDS: &[(&str, &str)] = &[
    (
        "+ KEY=k2026-1:canaryABCDEFGHIJKLMNOPQRSTUVWXYZ+/012345678=",
        "+ KEY=k2026-1:[redacted]",
    ),
    ("Authorization: Bearer canary", "Authorization: [redacted]"),
    ("authorization=Bearer canary", "authorization=[redacted]"),
    (
        "proxy-authorization: Basic Y2FuYXJ5==",
        "proxy-authorization: [redacted]",
    ),
    ("AUTHORIZATION:canary", "AUTHORIZATION:[redacted]"),
    (
        r#""authorization":"Bearer canary""#,
        r#""authorization":"[redacted]""#,
    ),
    (
        r#"{"authorization": "Bearer canary"}"#,
        r#"{"authorization": "[redacted]"}"#,
    ),
    (
        r#"\"authorization\": \"Bearer canary\""#,
        r#"\"authorization\": \"[redacted]\""#,
    ),
    (
        r#""authorization":["Bearer canary"]"#,
        r#""authorization":["[redacted]"]"#,
    ),
    (
        r#"("authorization", "Bearer canary")"#,
        r#"("authorization", "[redacted]")"#,
    ),
    (
        r#"authorization: Some("Bearer canary")"#,
        r#"authorization: Some("[redacted]")"#,
    ),
    (
        "authorization=\"Bearer canary\"",
        "authorization=\"[redacted]\"",
    ),
    (
        "\u{1b}[3mauthorization\u{1b}[0m\u{1b}[2m=\u{1b}[0mBearer canary",
        "\u{1b}[3mauthorization\u{1b}[0m\u{1b}[2m=\u{1b}[0m[redacted]",
    ),
    ("Bearer canary-0123456789", "Bearer [redacted]"),
    ("postgres://me:canary@db/x", "postgres://me:[redacted]@db/x"),
    (
        "postgres://me:can@ary@db/x",
        "postgres://me:[redacted]@db/x",
    ),
    (
        "postgres://me:canary/1@db/x",
        "postgres://me:[redacted]@db/x",
    ),
    (
        "postgres://me:12/canary@db/x",
        "postgres://me:[redacted]@db/x",
    ),
    ("http://:canary@proxy:3128", "http://:[redacted]@proxy:3128"),
    (
        r"https:\/\/me:canary@proxy",
        r"https:\/\/me:[redacted]@proxy",
    ),
    ("nats://canary@a:4222", "nats://[redacted]@a:4222"),
    (
        "nats://a:canary@b,tls://canary@c",
        "nats://a:[redacted]@b,tls://[redacted]@c",
    ),
    (
        "postgres://db/x?user=me&password=canary&a=b",
        "postgres://db/x?user=me&password=[redacted]&a=b",
    ),
    (r#""password":"canary""#, r#""password":"[redacted]""#),
];

/// Every form of a secret, and what is left of it.
fn forms() -> Vec<(String, String)> {
    let mut forms = Vec::new();
    for newline in [
        "\n",
        "\r\n",
        "\\n",
        "\\\\n",
        "\\\\\\\\n",
        "\\r\\n",
        "\\u000a",
        " ",
        "",
    ] {
        forms.push((pem(newline), "[redacted]".to_owned()));
        // Cut off before its END.
        let whole = pem(newline);
        let cut = whole.split("-----END").next().unwrap().trim_end();
        forms.push((
            cut.trim_end_matches(newline).to_owned(),
            "[redacted]".to_owned(),
        ));
        let bare = [LINE, LINE, LAST].join(newline);
        forms.push((format!("key={bare}"), "key=[redacted]".to_owned()));
    }
    let same = |text: &str| (text.to_owned(), "[redacted]".to_owned());
    forms.extend([
        same(&pem("\n").replace("PRIVATE KEY", "EC PRIVATE KEY")),
        same(&pem("\n").replace('/', "\\/")),
        same("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,CANARY\n\ncanarycanary\n-----END EC PRIVATE KEY-----"),
        same("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCmNhbmFyeQ=="),
        same("MHcCAQEEIcanarycanarycanarycanarycanary"),
        same("MIGTAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBHkwdwIBAQQgcanary"),
        same(JWT),
    ]);
    forms.extend(
        FIELDS
            .iter()
            .map(|&(given, left)| (given.to_owned(), left.to_owned())),
    );
    forms
}

#[test]
fn every_form_of_a_secret_is_taken_out_and_the_rest_of_the_line_is_left() {
    for (given, left) in forms() {
        assert_eq!(redact(&given), left, "{given}");
        for (before, after) in [
            ("sync of acme failed: ", ""),
            ("(", ") run.id=7"),
            ("é\"", "\" ü\n"),
            ("x ", "\nnext line\n"),
        ] {
            let redacted = redact(&format!("{before}{given}{after}")).into_owned();
            assert_eq!(redacted, format!("{before}{left}{after}"), "{given}");
            assert!(
                !redacted.to_ascii_lowercase().contains("canary"),
                "{redacted}"
            );
            assert_eq!(
                redact(&redacted),
                redacted,
                "what was redacted is left alone"
            );
        }
    }
}

#[test]
fn a_field_that_follows_is_left() {
    for (given, left) in [
        (
            "authorization=Bearer canary project.id=acme",
            "authorization=[redacted] project.id=acme",
        ),
        (
            "authorization=canary project.id=acme",
            "authorization=[redacted] project.id=acme",
        ),
        (
            "Authorization: Bearer canary, Accept: a",
            "Authorization: [redacted], Accept: a",
        ),
    ] {
        assert_eq!(redact(given), left);
    }
}

#[test]
fn json_stays_json_however_often_the_secret_was_escaped() {
    for (given, _) in forms() {
        let mut value =
            json!({ "message": given, "n": 7, "fields": { given.clone(): [given, null] } });
        for _ in 0..3 {
            let line = value.to_string();
            let redacted = redact(&line);
            let read: Value = serde_json::from_str(&redacted)
                .unwrap_or_else(|error| panic!("{error}: {redacted}"));
            assert!(!redacted.contains("canary"), "{redacted}");
            if value["n"] == 7 {
                assert_eq!(read["n"], 7);
            }
            value = json!({ "inner": line, "n": 7 });
        }
    }
}

#[test]
fn a_text_without_a_secret_is_passed_on_as_it_is() {
    for text in [
        "",
        "sync finished project.id=acme duration_ms=12",
        "{\"level\":\"INFO\",\"message\":\"sync finished\",\"project.id\":\"acme\"}",
        "Apple does not accept key ABC1234567 of issuer ..9f1e: 401 NOT_AUTHORIZED.",
        "give the file with its -----BEGIN PRIVATE KEY----- and END lines",
        "https://api.appstoreconnect.apple.com:443/v1/apps?limit=200 answered",
        "http://[::1]:8080/a@b",
        "http://127.0.0.1:8080/a@b",
        "postgres://me@db:5432/x",
        "postgres://db:5432/x?a=b",
        "eyJ.",
        "eyJhbGciOiJFUzI1NiJ9.only-two",
        "bearer of bad news",
        "Bearer authentication-is-missing",
        "the authorization was refused",
        "{\"authorization\":null,\"password\":true}",
        "password: refused",
        "src/sync/mod.rs:12:34",
        "std::fmt::Debug",
        "é ü ‘’",
        "MIGH",
        "----------",
        "a: b:// c",
    ] {
        assert!(
            matches!(redact(text), Cow::Borrowed(same) if same == text),
            "{text}: {}",
            redact(text)
        );
    }
}

#[test]
fn the_longest_texts_take_no_longer_than_their_length() {
    // Each of these would take an hour if what was read in vain were read again from each next place.
    for piece in [
        "eyJ",
        "eyJ.",
        "eyJ.eyJ",
        "://a:b/",
        "://a:b",
        "-----BEGIN A-----",
        "-----BEGIN A-----\\",
        "-----BEGIN A",
        "-----",
        "\\",
        "authorization",
        "authorization\\",
        "authorization: ",
        "authorization:[",
        "bearer ",
        "bearer a",
        "bearer",
        "MIGHAgEAMBMGBy",
        "MIGHAgEAMBMGBy ",
        "MIGHAgEAMBMGBy\\n!",
        "password=",
        "password",
        "\u{1b}[",
        "authorization\u{1b}[3",
        "postgres://a:1",
        "nats://",
        "\"",
        "a@",
        "://a:b@",
    ] {
        let text = piece.repeat((256 << 10) / piece.len());
        assert!(redact(&text).len() <= text.len() * 4);
        for lead in [
            "-----BEGIN A-----",
            "eyJ",
            "authorization: ",
            "://",
            "MIGHAgEAMBMGBy",
        ] {
            assert!(!redact(&format!("{lead}{text}")).is_empty());
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(redact_bytes(&bytes));
    }

    #[test]
    fn no_mixture_of_the_forms_makes_it_panic_or_breaks_json(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "-----BEGIN ", "PRIVATE KEY", "-----", "-----END ", "MIGHAgEAMBMGBy", "qGSM49AgEGCCqGSM49AwEH", "eyJ", ".", "a", "\\", "\"", "n", "u000a", "/",
            "authorization", "password", ":", "=", " ", "Bearer ", "Some(", "[", "://", "@", "nats", "\n", "é", "\u{1b}[3m", ",", "'", "[redacted]", "7", "null",
        ]), 0..24),
    ) {
        let text = pieces.concat();
        drop(redact(&text));
        for line in [json!({ "a": text, "b": [text, 1] }).to_string(), json!({ "a": json!({ &text: text }).to_string() }).to_string()] {
            let redacted = redact(&line);
            proptest::prop_assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{} from {}", redacted, line);
        }
    }

    #[test]
    fn a_key_is_found_wherever_it_stands(before in "[ -~]{0,40}", after in "[ -~]{0,40}") {
        let text = format!("{before}{}{after} {JWT}", pem("\n"));
        let redacted = redact(&text).into_owned();
        proptest::prop_assert!(!redacted.contains(LINE) && !redacted.contains("c2lnbmF0dXJl"), "{}", redacted);
    }
}
