//! Text that a server chose, before it goes into an id, a message, a row or a log line.

use serde::{Deserialize, Deserializer, de};

/// The longest id or type taken, and the most that is quoted of anything else, in characters.
const LIMIT: usize = 200;

/// How a token begins: `{"` in base64. A server can echo what it was sent.
const TOKEN: &str = "eyJ";

/// The text in one line of bounded length: control characters are replaced, what is too long is cut, and so is everything
/// from what looks like a token on.
pub(super) fn quotable(text: &str) -> String {
    if let Some((before, _)) = text.split_once(TOKEN) {
        return quotable(before) + "[token]";
    }
    let clean = |character: char| {
        if character.is_control() {
            '\u{fffd}'
        } else {
            character
        }
    };
    let mut quoted: String = text.chars().take(LIMIT).map(clean).collect();
    if text.chars().nth(LIMIT).is_some() {
        quoted.push_str("..");
    }
    quoted
}

/// A name that identifies something: not empty, not long, and without blanks or control characters.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty()
        || text.chars().any(|c| c.is_control() || c.is_whitespace())
        || text.chars().nth(LIMIT).is_some()
    {
        return Err(de::Error::custom("an id or type that cannot be one"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_fits_a_line() {
        assert_eq!(quotable("as it is"), "as it is");
        assert_eq!(
            quotable("a\u{1b}[31m\nb\0"),
            "a\u{fffd}[31m\u{fffd}b\u{fffd}"
        );
        assert_eq!(
            quotable("Authorization: Bearer eyJhbGciOi.J9.x is bad"),
            "Authorization: Bearer [token]"
        );
        assert_eq!(quotable(&"é".repeat(LIMIT)), "é".repeat(LIMIT));
        assert_eq!(quotable(&"é".repeat(LIMIT + 1)), "é".repeat(LIMIT) + "..");
    }
}
