//! The private key, and the many forms in which its file arrives.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::found::{self, Found};

/// More than this is no key file.
const MAX_BYTES: usize = 64 * 1024;

/// Takes any padding and ignores the unused bits at the end: what is wrong is told by the DER inside.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An EC P-256 private key as PKCS#8 DER, zeroized when it is dropped. It is not to be copied or shown: there is no way to.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

/// The bytes are no PKCS#8 EC P-256 private key.
#[derive(Debug, thiserror::Error)]
#[error("not an EC P-256 private key in PKCS#8")]
pub struct NotAKey;

impl PrivateKey {
    /// Takes PKCS#8 DER of an EC P-256 key.
    ///
    /// # Errors
    ///
    /// When it is anything else.
    pub fn from_der(der: &[u8]) -> Result<Self, NotAKey> {
        Self::of_checked(Zeroizing::new(der.to_vec())).map_err(|_| NotAKey)
    }

    /// Takes what was checked when it was sealed, and not changed since. Checking again costs as much as a signature.
    pub(crate) fn from_sealed(der: Zeroizing<Vec<u8>>) -> Self {
        Self(der)
    }

    /// The key as PKCS#8 DER, which `jsonwebtoken::EncodingKey::from_ec_der` takes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    fn of_checked(der: Zeroizing<Vec<u8>>) -> Result<Self, Found> {
        let usable = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).is_ok();
        if usable && found::is_one_element(&der) {
            Ok(Self(der))
        } else {
            Err(Found::of_der(&der))
        }
    }
}

#[cfg(test)]
lacks!(PrivateKey: Clone, std::fmt::Debug, std::fmt::Display, serde::Serialize);

/// Finds the private key in what was given.
pub(super) fn read(given: &[u8]) -> Result<PrivateKey, Found> {
    if given.len() > MAX_BYTES {
        return Err(Found::TooLarge);
    }
    if is_utf16(given) {
        return Err(Found::Utf16);
    }
    match std::str::from_utf8(given) {
        Ok(text) if text.contains('\0') => Err(Found::Binary),
        Ok(text) => read_text(text, Nested::May),
        // Quotes and blanks of an old Windows code page around a PEM.
        Err(_) if given.windows(6).any(|window| window == b"BEGIN ") => {
            let text = Zeroizing::new(String::from_utf8_lossy(given).into_owned());
            read_text(&text, Nested::May)
        }
        Err(_) if given.first() == Some(&0x30) => {
            PrivateKey::of_checked(Zeroizing::new(given.to_vec()))
        }
        Err(_) => Err(Found::of_binary(given)),
    }
}

fn is_utf16(bytes: &[u8]) -> bool {
    let marked = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let of_ascii = bytes.len() >= 2
        && bytes
            .chunks_exact(2)
            .all(|pair| matches!(pair, [0, 1..=0xff] | [1..=0xff, 0]));
    marked || of_ascii
}

/// Whether the text may be the base64 of another text.
#[derive(Clone, Copy)]
enum Nested {
    May,
    MayNot,
}

fn read_text(text: &str, nested: Nested) -> Result<PrivateKey, Found> {
    let text = plain(text);
    if text.is_empty() {
        return Err(Found::Empty);
    }
    if text.starts_with('<') {
        return Err(Found::Html);
    }
    if text.starts_with(['{', '[']) {
        return Err(Found::Json);
    }
    let blocks = pem_blocks(&text);
    if blocks.is_empty() {
        return read_bare(&text, nested);
    }
    let mut keys = blocks
        .iter()
        .filter(|block| block.label == "PRIVATE KEY")
        .map(|block| block.body);
    match keys.next() {
        Some(body) if keys.all(|other| other == body) => {
            let der = decode(body).ok_or(Found::Damaged)?;
            if der.is_empty() {
                return Err(Found::Truncated);
            }
            PrivateKey::of_checked(der)
        }
        Some(_) => Err(Found::SeveralKeys),
        None => Err(blocks
            .iter()
            .find(|block| block.label.ends_with("PRIVATE KEY"))
            .or(blocks.first())
            .map_or(Found::OtherPem, |block| Found::of_label(block.label))),
    }
}

/// The text with one blank for any white space or `\n` escape, plain hyphens for dashes, and no quotes or invisible
/// characters.
fn plain(text: &str) -> Zeroizing<String> {
    // Nothing grows (a dash becomes shorter), so the buffer never moves and leaves no copy behind.
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut blank = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                while chars.next_if_eq(&'\\').is_some() {}
                // `\/` and a backslash at a line's end stand for themselves without the backslash.
                blank |= chars.next_if(|c| matches!(c, 'n' | 'r' | 't')).is_some();
            }
            '"' | '\'' | '`' | '“' | '”' | '‘' | '’' | char::REPLACEMENT_CHARACTER => {}
            c if super::is_invisible(c) => {}
            c if c.is_whitespace() => blank = true,
            c => {
                if blank && !plain.is_empty() {
                    plain.push(' ');
                }
                blank = false;
                let is_dash = matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}');
                plain.push(if is_dash { '-' } else { c });
            }
        }
    }
    plain
}

struct Block<'a> {
    label: &'a str,
    body: &'a str,
}

/// The PEM blocks of a plain text; a missing END line, or hyphens lost on the way, are left to the DER to tell.
fn pem_blocks(text: &str) -> Vec<Block<'_>> {
    text.split("BEGIN ")
        .skip(1)
        .map(|after| {
            let label = LABELS
                .iter()
                .find(|label| after.starts_with(**label))
                .map_or("", |label| *label);
            let body = after
                .strip_prefix(label)
                .unwrap_or(after)
                .trim_start_matches(['-', ' ']);
            let end = body.find('-').or_else(|| body.rfind(" END "));
            let body = end.and_then(|end| body.get(..end)).unwrap_or(body);
            Block {
                label,
                body: body.trim_end(),
            }
        })
        .collect()
}

/// The labels that are told apart.
const LABELS: &[&str] = &[
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "EC PARAMETERS",
    "RSA PRIVATE KEY",
    "DSA PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
    "SSH2 ENCRYPTED PRIVATE KEY",
    "PUBLIC KEY",
    "RSA PUBLIC KEY",
    "SSH2 PUBLIC KEY",
    "CERTIFICATE REQUEST",
    "NEW CERTIFICATE REQUEST",
    "CERTIFICATE",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "PKCS7",
    "CMS",
];

/// A text without a BEGIN line: the base64 of the key, of a whole PEM, or something else.
fn read_bare(text: &str, nested: Nested) -> Result<PrivateKey, Found> {
    if super::is_key_id(text) {
        return Err(Found::KeyId);
    }
    if Uuid::try_parse(text).is_ok() {
        return Err(Found::IssuerId);
    }
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if lower.ends_with(".p8") || lower.ends_with(".pem") {
        return Err(Found::FileName);
    }
    if lower.starts_with("ssh-") || lower.starts_with("ecdsa-sha2-") {
        return Err(Found::OpenSsh);
    }
    if text.starts_with("eyJ") && text.contains('.') {
        return Err(Found::Token);
    }
    // The BEGIN line may be lost and the END line left.
    let body = text.split_once("-----END").map_or(text, |(body, _)| body);
    let der = decode(body)
        .filter(|der| der.len() >= 12)
        .ok_or(Found::Text)?;
    if der.first() == Some(&0x30) {
        return PrivateKey::of_checked(der);
    }
    match (std::str::from_utf8(&der), nested) {
        (Ok(inner), Nested::May) if inner.contains("BEGIN ") => read_text(inner, Nested::MayNot),
        _ => Err(Found::Text),
    }
}

/// Base64 with or without padding and blanks; one character too many is left out, as the DER will be found cut.
fn decode(base64: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut compact = Zeroizing::new(String::with_capacity(base64.len()));
    compact.extend(base64.chars().filter(|&c| c != ' ' && c != '='));
    if compact.len() % 4 == 1 {
        compact.pop();
    }
    let mut der = Zeroizing::new(Vec::with_capacity(compact.len()));
    LENIENT.decode_vec(compact.as_bytes(), &mut der).ok()?;
    Some(der)
}
