//! What a file holds where the private key should be, told by its form.
//!
//! Only the outermost shape of DER is read, as far as it takes to name the thing; nothing of its content is kept.

use crate::diagnosis::{Code, Diagnosis};

/// What was found instead of an App Store Connect private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Empty,
    TooLarge,
    Truncated,
    Damaged,
    SeveralKeys,
    Sec1,
    Rsa,
    OtherCurve,
    OtherAlgorithm,
    Encrypted,
    PublicKey,
    Certificate,
    Request,
    OpenSsh,
    Pkcs12,
    Pkcs7,
    OtherPem,
    OtherDer,
    Html,
    Json,
    Token,
    KeyId,
    IssuerId,
    FileName,
    Text,
    Utf16,
    Zip,
    Binary,
}

impl Found {
    /// What to tell whoever handed it over.
    pub(super) fn diagnosis(self) -> Diagnosis {
        let sentence = match self {
            Self::Empty => "The private key is empty.".to_owned(),
            Self::TooLarge => {
                "The file has more than 64 KiB; a private key has about 250 bytes.".to_owned()
            }
            Self::Truncated => {
                "The private key is cut short, or characters of it are missing.".to_owned()
            }
            Self::Damaged => {
                "The private key is damaged: characters of it were changed.".to_owned()
            }
            other => format!(
                "The file holds {} instead of an App Store Connect private key.",
                other.noun()
            ),
        };
        let diagnosis = Diagnosis::new(Code::KeyUnreadable, sentence);
        match self.advice() {
            Some(advice) => diagnosis.advise(advice),
            None => diagnosis,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::TooLarge | Self::Truncated | Self::Damaged => "a broken key",
            Self::SeveralKeys => "several private keys",
            Self::Sec1 => "an EC private key in the SEC1 form (BEGIN EC PRIVATE KEY)",
            Self::Rsa => "an RSA private key",
            Self::OtherCurve => "an EC private key of another curve than P-256",
            Self::OtherAlgorithm => "a private key that is not EC P-256",
            Self::Encrypted => "a private key that is encrypted with a password",
            Self::PublicKey => "a public key",
            Self::Certificate => "a certificate",
            Self::Request => "a certificate signing request",
            Self::OpenSsh => "an OpenSSH key",
            Self::Pkcs12 => "a PKCS#12 file (.p12 or .pfx)",
            Self::Pkcs7 => "a PKCS#7 file",
            Self::OtherPem => "a PEM block of another kind",
            Self::OtherDer => "DER of another kind",
            Self::Html => "a web page or XML",
            Self::Json => "JSON",
            Self::Token => "a token (JWT)",
            Self::KeyId => "10 characters that look like a Key ID",
            Self::IssuerId => "an Issuer ID",
            Self::FileName => "the name of a file",
            Self::Text => "some other text",
            Self::Utf16 => "text in UTF-16",
            Self::Zip => "an archive",
            Self::Binary => "binary data",
        }
    }

    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Sec1
            | Self::Rsa
            | Self::OtherCurve
            | Self::OtherAlgorithm
            | Self::Encrypted
            | Self::OpenSsh => Some(
                "Give the .p8 file as App Store Connect let it be downloaded, not a key made or converted elsewhere.",
            ),
            Self::SeveralKeys => Some("Give one key alone."),
            Self::Html => Some(
                "A page was saved in place of the file; download the key again if App Store Connect still offers it.",
            ),
            Self::Json => {
                Some("Give the private key alone: the text of its field, from BEGIN to END.")
            }
            Self::FileName => Some("Give what the file contains, with its BEGIN and END lines."),
            Self::Utf16 => {
                Some("Save the file as UTF-8 or give the .p8 file as it was downloaded.")
            }
            Self::Zip => Some("Unpack it and give the .p8 file in it."),
            _ => None,
        }
    }

    /// What a PEM label names, where it is not the one wanted.
    pub(super) fn of_label(label: &str) -> Self {
        match label {
            "EC PRIVATE KEY" | "EC PARAMETERS" => Self::Sec1,
            "RSA PRIVATE KEY" => Self::Rsa,
            "DSA PRIVATE KEY" => Self::OtherAlgorithm,
            "ENCRYPTED PRIVATE KEY" => Self::Encrypted,
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "SSH2 PUBLIC KEY" => Self::PublicKey,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Self::Certificate,
            "OPENSSH PRIVATE KEY" | "SSH2 ENCRYPTED PRIVATE KEY" => Self::OpenSsh,
            "PKCS7" | "CMS" => Self::Pkcs7,
            _ => Self::OtherPem,
        }
    }

    /// What binary data is, where it is no text.
    pub(super) fn of_binary(bytes: &[u8]) -> Self {
        match bytes {
            [0x30, ..] => Self::of_der(bytes),
            [b'P', b'K', 3 | 5, 4 | 6, ..] | [0x1f, 0x8b, ..] => Self::Zip,
            _ => Self::Binary,
        }
    }

    /// What DER is, where it is not a PKCS#8 EC P-256 key that can be used.
    pub(super) fn of_der(der: &[u8]) -> Self {
        let outer = match element(der) {
            Ok(Element {
                tag: SEQUENCE,
                content,
                ..
            }) => content,
            Ok(_) => return Self::OtherDer,
            Err(Broken::Cut) => return Self::Truncated,
            Err(Broken::NotDer) => return Self::Damaged,
        };
        let Ok(first) = element(outer) else {
            return Self::Damaged;
        };
        match first.tag {
            INTEGER => of_versioned(&first),
            SEQUENCE => of_sequences(&first),
            OBJECT_ID => Self::Pkcs7,
            _ => Self::OtherDer,
        }
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// A version, then: an algorithm (PKCS#8), an octet string (SEC1), a modulus (PKCS#1), or content (PKCS#12).
fn of_versioned(version: &Element<'_>) -> Found {
    let Ok(second) = element(version.rest) else {
        return Found::Damaged;
    };
    match (version.content, second.tag) {
        ([3], SEQUENCE) => Found::Pkcs12,
        (_, SEQUENCE) => of_algorithm(second.content),
        (_, OCTET_STRING) => Found::Sec1,
        (_, INTEGER) => Found::Rsa,
        _ => Found::OtherDer,
    }
}

fn of_algorithm(algorithm: &[u8]) -> Found {
    let Ok(id) = element(algorithm) else {
        return Found::Damaged;
    };
    match id.content {
        EC_PUBLIC_KEY => match element(id.rest) {
            Ok(curve) if curve.content == P256 => Found::Damaged,
            Ok(_) => Found::OtherCurve,
            Err(_) => Found::Damaged,
        },
        RSA_ENCRYPTION => Found::Rsa,
        _ => Found::OtherAlgorithm,
    }
}

/// A sequence, then: a bit string (a public key), an octet string (an encrypted key), or a signature.
fn of_sequences(first: &Element<'_>) -> Found {
    let Ok(inner) = element(first.content) else {
        return Found::Damaged;
    };
    if inner.tag == OBJECT_ID {
        return match element(first.rest).map(|second| second.tag) {
            Ok(BIT_STRING) => Found::PublicKey,
            Ok(OCTET_STRING) => Found::Encrypted,
            _ => Found::OtherDer,
        };
    }
    match inner.tag {
        CONTEXT_0 => Found::Certificate,
        // A certificate of version 1 has its signature's algorithm here, a request its subject.
        INTEGER => match element(inner.rest).and_then(|second| element(second.content)) {
            Ok(Element { tag: OBJECT_ID, .. }) => Found::Certificate,
            _ => Found::Request,
        },
        _ => Found::OtherDer,
    }
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

enum Broken {
    /// It goes on after the end of the input.
    Cut,
    NotDer,
}

/// The first element of the input.
fn element(input: &[u8]) -> Result<Element<'_>, Broken> {
    let (&tag, input) = input.split_first().ok_or(Broken::Cut)?;
    let (&first, input) = input.split_first().ok_or(Broken::Cut)?;
    let (length, input) = match first {
        0..=0x7f => (usize::from(first), input),
        0x81..=0x84 => {
            let (bytes, input) = input
                .split_at_checked(usize::from(first & 0x7f))
                .ok_or(Broken::Cut)?;
            let length = bytes
                .iter()
                .fold(0_usize, |length, &byte| (length << 8) | usize::from(byte));
            (length, input)
        }
        _ => return Err(Broken::NotDer),
    };
    let (content, rest) = input.split_at_checked(length).ok_or(Broken::Cut)?;
    Ok(Element { tag, content, rest })
}

/// The length of the one element that the input should be.
pub(super) fn is_one_element(input: &[u8]) -> bool {
    element(input).is_ok_and(|element| element.rest.is_empty())
}
