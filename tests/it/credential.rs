//! What is said of a file that is not an App Store Connect key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use catalog_sync::{
    credential::{Given, read},
    diagnosis::Code,
};

const P256: &str = include_str!("../fixtures/p256.pem");

fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.contains("-----")).collect()
}

fn der(pem: &str) -> Vec<u8> {
    STANDARD.decode(body(pem)).unwrap()
}

fn relabelled(pem: &str, label: &str) -> String {
    let body = body(pem);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn assert_unreadable(name: &str, bytes: &[u8], expected: &str) {
    let error = read(Given {
        key_id: Some("2X9R4HXF34"),
        private_key: Some(bytes),
        ..Given::default()
    })
    .expect_err(name);
    assert_eq!(error.code, Code::KeyUnreadable, "{name}: {error}");
    assert!(error.sentence.contains(expected), "{name}: {error}");
}

#[test]
fn another_key_or_certificate_is_named_in_any_form() {
    macro_rules! cases {
        ($($name:literal $expected:literal)*) => {
            [$(($name, include_str!(concat!("../fixtures/", $name)), $expected)),*]
        };
    }
    let cases = cases! {
        "certificate.pem" "holds a certificate instead"
        "request.pem" "a certificate signing request"
        "public_key.pem" "a public key"
        "sec1.pem" "SEC1"
        "rsa.pem" "an RSA private key"
        "rsa_pkcs1.pem" "an RSA private key"
        "ed25519.pem" "not EC P-256"
        "p384.pem" "another curve"
        "encrypted.pem" "encrypted with a password"
    };
    for (name, pem, expected) in cases {
        assert_unreadable(name, pem.as_bytes(), expected);
        assert_unreadable(name, body(pem).as_bytes(), expected);
        assert_unreadable(name, &der(pem), expected);
        assert_unreadable(name, relabelled(pem, "PRIVATE KEY").as_bytes(), expected);
        assert_unreadable(name, STANDARD.encode(pem).as_bytes(), expected);
    }
}

#[test]
fn a_file_of_several_blocks_is_named_by_its_key() {
    let parameters = include_str!("../fixtures/ec_parameters.pem");
    assert_unreadable("EC PARAMETERS first", parameters.as_bytes(), "SEC1");
    let certificate = include_str!("../fixtures/certificate.pem");
    let rsa = include_str!("../fixtures/rsa_pkcs1.pem");
    assert_unreadable(
        "a certificate and a key",
        format!("{certificate}{rsa}").as_bytes(),
        "RSA",
    );
    let two = format!("{P256}{}", include_str!("../fixtures/p256_apple_shape.pem"));
    assert_unreadable("two keys", two.as_bytes(), "several private keys");
}

#[test]
fn a_broken_key_is_told_from_another_one() {
    let base64 = body(P256);
    let mut changed = der(P256);
    *changed.last_mut().unwrap() ^= 1;
    let trailing = [der(P256), vec![0]].concat();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("cut PEM", P256[..150].into(), "cut short"),
        ("BEGIN line alone", P256[..27].into(), "cut short"),
        ("cut body", base64[..100].into(), "cut short"),
        (
            "body cut at an odd place",
            base64[..101].into(),
            "cut short",
        ),
        (
            "characters lost",
            P256.replacen(&base64[20..24], "", 1).into(),
            "cut short",
        ),
        (
            "characters changed",
            P256.replacen(&base64[20..24], "****", 1).into(),
            "damaged",
        ),
        ("public part changed", changed.clone(), "damaged"),
        (
            "public part changed, base64",
            STANDARD.encode(&changed).into(),
            "damaged",
        ),
        ("something after it", trailing, "damaged"),
    ];
    for (name, bytes, expected) in cases {
        assert_unreadable(name, bytes, expected);
    }
}

#[test]
fn what_is_no_key_at_all_is_named() {
    let utf16 = |bom: &[u8], to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let units = P256.encode_utf16().flat_map(to_bytes);
        bom.iter().copied().chain(units).collect()
    };
    let json = format!("{{\"key\": {}}}", serde_json::to_string(P256).unwrap());
    let cases: &[(Vec<u8>, &str)] = &[
        (include_bytes!("../fixtures/openssh.pem").into(), "OpenSSH"),
        (
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@home".into(),
            "OpenSSH",
        ),
        (include_bytes!("../fixtures/key.p12").into(), "PKCS#12"),
        (
            b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n".into(),
            "PEM block of another kind",
        ),
        ("\u{feff}\"\"".into(), "is empty"),
        (b"<!DOCTYPE html><html>Sign in".into(), "a web page"),
        (json.into(), "JSON"),
        (
            b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln".into(),
            "a token (JWT)",
        ),
        (b"2X9R4HXF34".into(), "a Key ID"),
        (
            b"69a6de7f-0000-47e3-e053-5b8c7c11a4d1".into(),
            "an Issuer ID",
        ),
        (
            b"/home/me/AuthKey_2X9R4HXF34.p8\n".into(),
            "the name of a file",
        ),
        (b"hello, world".into(), "some other text"),
        (b"MIDNIGHT".into(), "some other text"),
        (
            b"the quick brown fox jumps over the lazy dog".into(),
            "some other text",
        ),
        (
            STANDARD.encode(STANDARD.encode(P256)).into(),
            "some other text",
        ),
        (utf16(&[0xff, 0xfe], u16::to_le_bytes), "UTF-16"),
        (utf16(&[0xfe, 0xff], u16::to_be_bytes), "UTF-16"),
        (utf16(&[], u16::to_le_bytes), "UTF-16"),
        (b"PK\x03\x04\x14\0\x08\x08\xff".into(), "an archive"),
        (vec![0xde, 0xad, 0xbe, 0xef], "binary data"),
        (vec![0; 300], "binary data"),
        (P256.repeat(300).into(), "more than 64 KiB"),
    ];
    for (bytes, expected) in cases {
        let start = String::from_utf8_lossy(bytes.get(..30).unwrap_or(bytes));
        assert_unreadable(&start, bytes, expected);
    }
}

#[test]
fn a_key_that_is_not_there_is_missing_not_unreadable() {
    for private_key in [None, Some(b"".as_slice()), Some(b" \r\n\t")] {
        let error = read(Given {
            key_id: Some("2X9R4HXF34"),
            private_key,
            ..Given::default()
        })
        .unwrap_err();
        assert_eq!(error.code, Code::KeyIncomplete);
        assert!(error.sentence.contains("private key is missing"), "{error}");
    }
}
