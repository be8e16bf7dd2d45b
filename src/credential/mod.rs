//! What a customer hands over: a Key ID, an Issuer ID and a private key, as people really paste them.
//!
//! [`read`] takes what a form, a file or an environment holds and says precisely what is wrong with it before Apple is
//! asked anything. What must hold throughout: no message and no `Debug` contains key material, or quotes a field that
//! could hold it by mistake; what held a private key is zeroized when it is dropped.

mod found;
mod private_key;

use std::fmt;

use uuid::Uuid;

use crate::diagnosis::{Code, Diagnosis};

pub use private_key::{NotAKey, PrivateKey};

/// An App Store Connect API key, checked for form.
pub struct Credential {
    /// The Key ID: 10 of `[A-Z0-9]`.
    pub key_id: String,
    /// The Issuer ID, a UUID in lower case; none for an individual key.
    pub issuer_id: Option<String>,
    /// The private key.
    pub private_key: PrivateKey,
}

/// Names the key and hides its secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("key_id", &self.key_id)
            .field("issuer_id", &self.issuer_id)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Which key it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            key_id: self.key_id.clone(),
            issuer_id: self.issuer_id.clone(),
        }
    }
}

#[cfg(test)]
lacks!(Credential: Clone, fmt::Display, serde::Serialize);

/// Which key it is, and nothing of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The Key ID.
    pub key_id: String,
    /// The Issuer ID; none for an individual key.
    pub issuer_id: Option<String>,
}

/// Names a key without telling it: `key ABC1234567 of issuer ..9f1e`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.issuer_id {
            None => write!(f, "individual key {}", self.key_id),
            Some(issuer) => {
                let start = issuer
                    .char_indices()
                    .rev()
                    .nth(3)
                    .map_or(0, |(index, _)| index);
                write!(
                    f,
                    "key {} of issuer ..{}",
                    self.key_id,
                    issuer.get(start..).unwrap_or_default()
                )
            }
        }
    }
}

/// What was given, as it was given. Blank is the same as not given.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    /// The Key ID; where it is missing, the name of the file tells it.
    pub key_id: Option<&'a str>,
    /// The Issuer ID; none for an individual key.
    pub issuer_id: Option<&'a str>,
    /// The content of the .p8 file.
    pub private_key: Option<&'a [u8]>,
    /// The name of the file, with or without its folders.
    pub file_name: Option<&'a str>,
}

/// Makes a credential of what was given.
///
/// # Errors
///
/// `wrong_key_kind`, `key_incomplete`, `key_id_mismatch` or `key_unreadable`, in this order.
pub fn read(given: Given<'_>) -> Result<Credential, Diagnosis> {
    let file_name = given.file_name.map(base_name);
    if file_name.is_some_and(is_subscription_key) {
        return Err(Diagnosis::new(
            Code::WrongKeyKind,
            "The file's name begins with SubscriptionKey_: this is an In-App Purchase key, which App Store Connect does \
             not accept.",
        ));
    }
    let in_file_name = file_name.and_then(key_id_in_file_name);
    let in_field = given.key_id.map(bare).filter(|text| !text.is_empty());
    let private_key = given
        .private_key
        .filter(|bytes| !bytes.trim_ascii().is_empty());
    let (key_id, private_key) = match (in_field.or(in_file_name.as_deref()), private_key) {
        (Some(key_id), Some(private_key)) => (key_id, private_key),
        (None, Some(_)) => return Err(incomplete("The Key ID is missing.")),
        (Some(_), None) => {
            return Err(incomplete(
                "The private key is missing, or its file is empty.",
            ));
        }
        (None, None) => return Err(incomplete("The Key ID and the private key are missing.")),
    };
    let issuer_id = given.issuer_id.map(bare).filter(|text| !text.is_empty());

    check_key_id(key_id, issuer_id)?;
    if let Some(named) = in_file_name.as_deref()
        && named != key_id
    {
        return Err(Diagnosis::new(
            Code::KeyIdMismatch,
            format!("The file says {named}, the field says {key_id}."),
        )
        .advise("Give the file and the Key ID of one key; the Key ID is the 10 characters in the file's name."));
    }
    let issuer_id = issuer_id
        .map(|text| parse_issuer_id(text, key_id))
        .transpose()?;
    Ok(Credential {
        key_id: key_id.to_owned(),
        issuer_id,
        private_key: private_key::read(private_key).map_err(found::Found::diagnosis)?,
    })
}

fn incomplete(sentence: &str) -> Diagnosis {
    Diagnosis::new(Code::KeyIncomplete, sentence)
}

/// The text without the blanks, quotes and invisible characters that come along when it is copied.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || is_invisible(c) || matches!(c, '"' | '\'' | '`' | '“' | '”')
    })
}

/// Characters that no editor shows: zero-width spaces and joiners, the byte order mark, the soft hyphen.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}'
    )
}

fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path).trim()
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_subscription_key(file_name: &str) -> bool {
    strip_prefix_ignoring_case(file_name, "SubscriptionKey_").is_some()
}

/// The Key ID in `AuthKey_<ID>.p8`, also where a browser or a file manager made it `AuthKey_<ID> (1).p8`.
fn key_id_in_file_name(file_name: &str) -> Option<String> {
    let rest = strip_prefix_ignoring_case(file_name, "AuthKey_")?;
    let (id, rest) = rest.split_at_checked(10)?;
    let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    (ends && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| id.to_ascii_uppercase())
}

fn is_key_id(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Nothing is quoted: a private key pasted here would be quoted as well.
fn check_key_id(key_id: &str, issuer_id: Option<&str>) -> Result<(), Diagnosis> {
    if is_key_id(key_id) {
        return Ok(());
    }
    let length = key_id.chars().count();
    let sentence = if Uuid::try_parse(key_id).is_ok() {
        if issuer_id.is_some_and(is_key_id) {
            "The Key ID and the Issuer ID are swapped.".to_owned()
        } else {
            "The Key ID field holds an Issuer ID.".to_owned()
        }
    } else if key_id_in_file_name(key_id).is_some() || key_id.to_ascii_lowercase().ends_with(".p8")
    {
        "The Key ID field holds a file's name.".to_owned()
    } else if key_id.contains("PRIVATE KEY") || length > 60 {
        "The Key ID field holds a long text, perhaps the private key.".to_owned()
    } else if length == 10 && is_key_id(&key_id.to_ascii_uppercase()) {
        "The Key ID has lower-case letters; a Key ID has capitals and digits alone. Perhaps it is the key's name."
            .to_owned()
    } else if length == 10 {
        "The Key ID has characters other than capital letters and digits; it looks like the key's name.".to_owned()
    } else if key_id
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    {
        format!("The Key ID has {length} characters; a Key ID has 10.")
    } else {
        format!(
            "The Key ID has {length} characters; a Key ID has 10, all capital letters and digits. It looks like the \
             key's name."
        )
    };
    Err(Diagnosis::new(Code::KeyIdMismatch, sentence))
}

/// The Issuer ID in lower case with its hyphens.
fn parse_issuer_id(text: &str, key_id: &str) -> Result<String, Diagnosis> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Ok(uuid.hyphenated().to_string());
    }
    let sentence = if text == key_id {
        "The Issuer ID field holds the Key ID again."
    } else if is_key_id(text) {
        "The Issuer ID field holds 10 characters: that is a Key ID or a Team ID."
    } else if text.contains("PRIVATE KEY") || text.len() > 60 {
        "The Issuer ID field holds a long text, perhaps the private key."
    } else {
        "The Issuer ID is not a UUID (8-4-4-4-12 hexadecimal digits)."
    };
    Err(incomplete(sentence).advise(
        "Copy the Issuer ID that stands above the keys under Users and Access > Integrations > App Store Connect API, \
         or leave it out for an individual key.",
    ))
}

#[cfg(test)]
mod tests;
