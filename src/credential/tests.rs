use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

const ISSUER: &str = "69a6de7f-0000-47e3-e053-5b8c7c11a4d1";
const P256: &str = include_str!("../../tests/fixtures/p256.pem");

fn given(private_key: &[u8]) -> Given<'_> {
    Given {
        key_id: Some("2X9R4HXF34"),
        issuer_id: Some(ISSUER),
        private_key: Some(private_key),
        file_name: None,
    }
}

fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.contains("-----")).collect()
}

fn wrap(body: &str, width: usize, end: &str) -> String {
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(width)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    lines.join(end)
}

#[test]
fn every_form_in_which_a_key_arrives_is_read() {
    let der = STANDARD.decode(body(P256)).unwrap();
    let base64 = body(P256);
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("as it is", P256.into()),
        ("no last line end", P256.trim_end().into()),
        ("CRLF", P256.replace('\n', "\r\n").into()),
        ("old Mac line ends", P256.replace('\n', "\r").into()),
        ("blanks around", format!("\n\n  {P256}\t\n ").into()),
        ("byte order mark", format!("\u{feff}{P256}").into()),
        ("escapes", P256.replace('\n', "\\n").into()),
        ("CRLF escapes", P256.replace('\n', "\\r\\n").into()),
        ("escaped twice", P256.replace('\n', "\\\\n").into()),
        ("as a JSON string", serde_json::to_vec(P256).unwrap()),
        ("escaped slashes", P256.replace('/', "\\/").into()),
        ("a shell's line ends", P256.replace('\n', "\\\n").into()),
        ("single quotes", format!("'{P256}'").into()),
        ("indented", P256.replace('\n', "\n    ").into()),
        ("one line", P256.replace('\n', " ").into()),
        ("one line without blanks", P256.replace('\n', "").into()),
        (
            "curly quotes and dashes",
            format!("“{}”", P256.replace("-----", "—–")).into(),
        ),
        ("hyphens lost", P256.replace("-----", "").into()),
        ("no-break spaces", P256.replace('\n', "\u{a0}\n").into()),
        (
            "a no-break space of Windows-1252",
            [b"\xa0", P256.as_bytes()].concat(),
        ),
        ("zero-width space", P256.replace('\n', "\u{200b}\n").into()),
        ("no END line", P256.split("-----END").next().unwrap().into()),
        ("no BEGIN line", P256.split_once('\n').unwrap().1.into()),
        (
            "text before",
            format!("Bag Attributes: none\n{P256}").into(),
        ),
        ("twice the same", format!("{P256}{P256}").into()),
        (
            "a certificate beside it",
            format!(
                "{}{P256}",
                include_str!("../../tests/fixtures/certificate.pem")
            )
            .into(),
        ),
        ("body", base64.clone().into()),
        ("body unpadded", base64.trim_end_matches('=').into()),
        ("body in lines of 76", wrap(&base64, 76, "\n").into()),
        ("body in lines of 7, CRLF", wrap(&base64, 7, "\r\n").into()),
        ("body with blanks", wrap(&base64, 10, " ").into()),
        ("base64 of the PEM", STANDARD.encode(P256).into()),
        (
            "base64 of the PEM in lines",
            wrap(&STANDARD.encode(P256), 76, "\n").into(),
        ),
        (
            "base64 of the PEM with escapes",
            STANDARD.encode(P256.replace('\n', "\\n")).into(),
        ),
        ("DER", der.clone()),
    ];
    for (name, form) in forms {
        let credential = read(given(&form)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(credential.private_key.der(), der, "{name}");
        assert_eq!(credential.key_id, "2X9R4HXF34", "{name}");
        assert_eq!(credential.issuer_id.as_deref(), Some(ISSUER), "{name}");
    }
}

#[test]
fn the_shape_that_apple_writes_and_that_of_our_library_are_read_and_can_sign() {
    let generated =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .unwrap();
    let apple = include_bytes!("../../tests/fixtures/p256_apple_shape.pem");
    for form in [apple.as_slice(), generated.as_ref()] {
        let credential = read(given(form)).unwrap();
        let key = jsonwebtoken::EncodingKey::from_ec_der(credential.private_key.der());
        assert!(!key.as_bytes().is_empty());
        EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            credential.private_key.der(),
        )
        .unwrap()
        .sign(&SystemRandom::new(), b"message")
        .unwrap();
    }
}

fn read_named(key_id: Option<&str>, file_name: Option<&str>) -> Result<Credential, Diagnosis> {
    read(Given {
        key_id,
        file_name,
        ..given(P256.as_bytes())
    })
}

#[test]
fn the_key_id_comes_from_the_field_or_the_file_name() {
    for (key_id, file_name) in [
        (Some(" 2X9R4HXF34\n"), None),
        (Some("\"2X9R4HXF34\""), None),
        (Some("\u{feff}2X9R4HXF34\u{200b}"), None),
        (Some("2X9R4HXF34"), Some("key.p8")),
        (Some("2X9R4HXF34"), Some("AuthKey_2X9R4HXF34.p8")),
        (Some("2X9R4HXF34"), Some("authkey_2x9r4hxf34.p8")),
        (None, Some("/tmp/AuthKey_2X9R4HXF34 (1).p8")),
        (Some("  "), Some("C:\\Keys\\AuthKey_2X9R4HXF34-2.p8.txt")),
    ] {
        let credential = read_named(key_id, file_name).unwrap();
        assert_eq!(credential.key_id, "2X9R4HXF34", "{key_id:?} {file_name:?}");
    }
    for file_name in [
        None,
        Some("key.p8"),
        Some("AuthKey_2X9R4HXF345.p8"),
        Some("AuthKey_é.p8"),
    ] {
        let error = read_named(None, file_name).unwrap_err();
        assert_eq!(error.code, Code::KeyIncomplete);
        assert_eq!(error.sentence, "The Key ID is missing.");
    }
}

#[test]
fn a_key_id_of_another_form_or_another_file_is_told() {
    for (key_id, expected) in [
        ("2x9r4hxf34", "lower-case"),
        ("Production", "key's name"),
        ("Server key", "key's name"),
        ("App Store Sync", "14 characters"),
        ("2X9R4HXF3", "9 characters; a Key ID has 10."),
        ("2X9R4HXF345", "11 characters; a Key ID has 10."),
        ("AuthKey_2X9R4HXF34.p8", "a file's name"),
        (ISSUER, "holds an Issuer ID"),
        (P256, "perhaps the private key"),
    ] {
        let error = read_named(Some(key_id), None).unwrap_err();
        assert_eq!(error.code, Code::KeyIdMismatch, "{error}");
        assert!(error.sentence.contains(expected), "{error}");
    }
    let error = read_named(Some("2X9R4HXF34"), Some("AuthKey_ABCDEF1234 (1).p8")).unwrap_err();
    assert_eq!(error.code, Code::KeyIdMismatch);
    assert_eq!(
        error.sentence,
        "The file says ABCDEF1234, the field says 2X9R4HXF34."
    );
}

#[test]
fn an_in_app_purchase_key_is_told_before_anything_else() {
    for file_name in [
        "SubscriptionKey_X.p8",
        "~/Downloads/SubscriptionKey_2X9R4HXF34 (2).p8",
    ] {
        let given = Given {
            file_name: Some(file_name),
            ..Given::default()
        };
        assert_eq!(read(given).unwrap_err().code, Code::WrongKeyKind);
    }
    let error = read_named(Some("no key id"), Some("SubscriptionKey_X.p8")).unwrap_err();
    assert_eq!(error.code, Code::WrongKeyKind);
    assert!(
        error
            .advice
            .contains("Users and Access > Integrations > App Store Connect API")
    );
}

#[test]
fn the_issuer_id_is_a_uuid_or_nothing() {
    type Case = (
        Option<&'static str>,
        Result<Option<&'static str>, &'static str>,
    );
    let cases: &[Case] = &[
        (None, Ok(None)),
        (Some(""), Ok(None)),
        (Some(" \n"), Ok(None)),
        (
            Some(" 69A6DE7F-0000-47E3-E053-5B8C7C11A4D1 "),
            Ok(Some(ISSUER)),
        ),
        (Some("69a6de7f000047e3e0535b8c7c11a4d1"), Ok(Some(ISSUER))),
        (Some("2X9R4HXF34"), Err("holds the Key ID again")),
        (Some("A1B2C3D4E5"), Err("a Key ID or a Team ID")),
        (Some("69a6de7f-0000-47e3-e053"), Err("not a UUID")),
        (Some("Acme Inc."), Err("not a UUID")),
        (Some(P256), Err("perhaps the private key")),
    ];
    for &(issuer_id, expected) in cases {
        match (
            read(Given {
                issuer_id,
                ..given(P256.as_bytes())
            }),
            expected,
        ) {
            (Ok(credential), Ok(issuer)) => assert_eq!(credential.issuer_id.as_deref(), issuer),
            (Err(error), Err(part)) => {
                assert_eq!(error.code, Code::KeyIncomplete);
                assert!(error.sentence.contains(part), "{issuer_id:?}: {error}");
            }
            (got, _) => panic!("{issuer_id:?}: {got:?}"),
        }
    }
    let swapped = Given {
        key_id: Some(ISSUER),
        issuer_id: Some("2X9R4HXF34"),
        ..given(P256.as_bytes())
    };
    let error = read(swapped).unwrap_err();
    assert_eq!(error.sentence, "The Key ID and the Issuer ID are swapped.");
}

#[test]
fn no_message_holds_any_part_of_the_key() {
    let base64 = body(P256);
    let der = STANDARD.decode(&base64).unwrap();
    let runs: Vec<&str> = (0..=base64.len() - 8)
        .map(|at| &base64[at..at + 8])
        .collect();
    let assert_silent = |text: &str| {
        for run in &runs {
            assert!(!text.contains(run), "{text}");
        }
    };
    let try_as = |bytes: &[u8]| {
        let as_text = String::from_utf8_lossy(bytes);
        for given in [
            given(bytes),
            Given {
                key_id: Some(&as_text),
                ..given(P256.as_bytes())
            },
            Given {
                issuer_id: Some(&as_text),
                ..given(P256.as_bytes())
            },
            Given {
                file_name: Some(&as_text),
                ..given(bytes)
            },
        ] {
            match read(given) {
                // A piece of 10 capitals and digits cannot be told from a Key ID.
                Ok(credential) => assert_silent(&format!("{credential:?}")),
                Err(error) => assert_silent(&format!("{error} {error:?}")),
            }
        }
    };
    for end in 0..=base64.len() {
        try_as(&base64.as_bytes()[..end]);
        try_as(&base64.as_bytes()[end..]);
        try_as(format!("-----BEGIN PRIVATE KEY-----\n{}", &base64[..end]).as_bytes());
        try_as(format!("-----BEGIN {}", &base64[end..]).as_bytes());
    }
    for end in 0..=der.len() {
        try_as(&der[..end]);
        try_as(&der[end..]);
    }
    assert!(
        PrivateKey::from_der(&der[..der.len() - 1]).is_err_and(|error| {
            assert_silent(&format!("{error} {error:?}"));
            true
        })
    );
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_given_makes_it_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        text in "[-\\\\\"A-Za-z0-9+/= \n{<]{0,80}|-----BEGIN [A-Z ]{0,20}-----[A-Za-z0-9+/\\\\n ]{0,60}",
    ) {
        drop(read(given(&bytes)));
        drop(read(given(text.as_bytes())));
        let fields = Given { key_id: Some(&text), issuer_id: Some(&text), file_name: Some(&text), ..given(&bytes) };
        drop(read(fields));
    }

    #[test]
    fn der_with_a_changed_byte_is_told_without_a_panic(at in 0_usize..121, to in proptest::prelude::any::<u8>()) {
        let mut der = STANDARD.decode(body(P256)).unwrap();
        der[at] = to;
        drop(read(given(&der)));
    }
}
