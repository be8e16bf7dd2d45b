//! Takes out of a text what looks like a secret, as the last thing before it is written.
//!
//! It is a net under code that writes no secrets: whatever a dependency or a defect says, a PEM block, the bare base64 of a
//! private key, a master key, a token, an `Authorization` and a password in a URL stay here.
//!
//! What must hold: it takes time in proportion to the text; no bytes make it panic; a text without secrets is passed on as it is,
//! without a copy; a line of JSON stays one.

mod forms;

use std::{borrow::Cow, ops::Range};

use forms::Scan;

/// What stands in the place of a secret.
const MARK: &str = "[redacted]";

/// The text without what looks like a secret.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    match redact_bytes(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // A secret begins and ends at an ASCII character, so that what is left is as it was.
        Cow::Owned(bytes) => Cow::Owned(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

/// The same for bytes, whatever they are.
pub(super) fn redact_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut scan = Scan::of(bytes);
    let Some(first) = scan.next() else {
        return Cow::Borrowed(bytes);
    };
    let mut redacted = Vec::with_capacity(bytes.len());
    let mut rest = 0;
    for Range { start, end } in std::iter::once(first).chain(scan) {
        redacted.extend_from_slice(bytes.get(rest..start).unwrap_or_default());
        redacted.extend_from_slice(MARK.as_bytes());
        rest = end;
    }
    redacted.extend_from_slice(bytes.get(rest..).unwrap_or_default());
    Cow::Owned(redacted)
}

#[cfg(test)]
mod tests;
