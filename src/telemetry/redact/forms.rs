//! The forms in which a secret is found.
//!
//! Each begins with a byte that is looked for. None reads on behind what it takes, unless it remembers how far it looked in vain, so
//! that no byte is read more than a few times.

use std::ops::Range;

use super::MARK;

/// How the base64 of an EC P-256 private key begins: as PKCS#8 in the three lengths that are met, and in the older SEC1 form; and
/// that of a whole PEM.
const KEYS: &[&[u8]] = &[
    b"MIGHAgEAMBMGBy",
    b"MIGTAgEAMBMGBy",
    b"MEECAQAwEwYHKo",
    b"MHcCAQEEI",
    b"LS0tLS1CRUdJTi",
];

/// Text of fewer characters is a word and not a line of base64, unless it ends a line.
const LONG: usize = 16;

/// The secrets of a text, in their order.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// No token begins before this.
    no_token_before: usize,
    /// There is no `@` from `at` to this.
    no_at_before: usize,
}

impl Iterator for Scan<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let found = match byte {
                b'-' => pem(self.bytes, self.at),
                b'M' | b'L' => bare_key(self.bytes, self.at),
                b'e' => self.token(),
                b'a' | b'A' => field(self.bytes, self.at, b"authorization", b":="),
                b'b' | b'B' => bearer(self.bytes, self.at),
                b'p' | b'P' => field(self.bytes, self.at, b"password", b"="),
                b':' => self
                    .password_in_url()
                    .or_else(|| master_key(self.bytes, self.at)),
                _ => None,
            };
            if let Some(found) = found {
                self.at = found.end;
                return Some(found);
            }
            self.at += 1;
        }
        None
    }
}

impl<'a> Scan<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            no_token_before: 0,
            no_at_before: 0,
        }
    }

    /// A JWT: three parts or more.
    fn token(&mut self) -> Option<Range<usize>> {
        let (bytes, start) = (self.bytes, self.at);
        if start < self.no_token_before || !starts_with(bytes, start, b"eyJ") {
            return None;
        }
        let first = run(bytes, start, is_base64url);
        let second = run(bytes, first + 1, is_base64url);
        if byte(bytes, first) != b'.' || second <= first + 1 || byte(bytes, second) != b'.' {
            // A later start in the same part comes to the same end.
            self.no_token_before = first;
            return None;
        }
        let mut end = run(bytes, second + 1, is_base64url);
        while byte(bytes, end) == b'.' && is_base64url(byte(bytes, end + 1)) {
            end = run(bytes, end + 1, is_base64url);
        }
        // The `e` may be the end of an escape, which is no part of the token.
        let is_escape = bytes
            .get(..start)
            .is_some_and(|before| before.ends_with(b"\\u000"));
        Some(start + usize::from(is_escape)..end)
    }

    /// What stands between the user's name and the host; for NATS a user without a password is a token.
    fn password_in_url(&mut self) -> Option<Range<usize>> {
        let (bytes, colon) = (self.bytes, self.at);
        let start = slash(bytes, slash(bytes, colon + 1)?)?;
        let is_word = |byte: u8| !byte.is_ascii_whitespace() && !ends_value(byte) && byte != b'\\';
        let authority = run(bytes, start, |byte| {
            is_word(byte) && !matches!(byte, b'/' | b'?' | b'#')
        });
        let secret = |at: usize| match find(bytes, start..at, b':') {
            Some(colon) => colon + 1..at,
            None if is_nats(bytes, colon) => start..at,
            None => at..at,
        };
        let found = if let Some(at) = rfind(bytes, start..authority, b'@') {
            secret(at)
        } else {
            // A password with a slash in it reads as a host's name and an impossible port.
            let port = find(bytes, start..authority, b':')? + 1;
            let is_port = run(bytes, port, |byte| byte.is_ascii_digit()) == authority;
            let is_host = byte(bytes, start) == b'[' || (is_port && is_http(bytes, colon));
            if is_host || authority < self.no_at_before {
                return None;
            }
            let end = run(bytes, authority, is_word);
            let Some(at) = rfind(bytes, authority..end, b'@') else {
                self.no_at_before = end;
                return None;
            };
            secret(at)
        };
        let is_marked = bytes.get(found.clone()) == Some(MARK.as_bytes());
        (!found.is_empty() && !is_marked).then_some(found)
    }
}

/// What follows the id in a line of a master key file: the base64 of 32 bytes, and nothing more.
fn master_key(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    const DIGITS: usize = 43;
    let before = byte(bytes, colon.checked_sub(1)?);
    let start = colon + 1;
    let end = start + DIGITS;
    let digits = bytes.get(start..end)?;
    let fits = (before.is_ascii_lowercase() || before.is_ascii_digit())
        && digits
            .iter()
            .all(|&digit| is_base64(digit) && digit != b'=')
        && byte(bytes, end) == b'='
        && byte(bytes, end + 1) != b'='
        && !is_base64(byte(bytes, end + 1));
    fits.then_some(start..end + 1)
}

fn is_nats(bytes: &[u8], colon: usize) -> bool {
    ends_with_scheme(bytes, colon, &[b"nats", b"tls"])
}

fn is_http(bytes: &[u8], colon: usize) -> bool {
    ends_with_scheme(bytes, colon, &[b"http", b"https"])
}

fn ends_with_scheme(bytes: &[u8], colon: usize, schemes: &[&[u8]]) -> bool {
    let before = bytes.get(..colon).unwrap_or_default();
    schemes.iter().any(|scheme| {
        let from = before.len().saturating_sub(scheme.len());
        before
            .get(from..)
            .is_some_and(|end| end.eq_ignore_ascii_case(scheme))
    })
}

/// A PEM block, cut off or whole.
fn pem(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    if !starts_with(bytes, start, BEGIN) {
        return None;
    }
    let label = run(bytes, start + BEGIN.len(), is_label);
    let body = run(bytes, label, |byte| byte == b'-');
    if body == label {
        return None;
    }
    let end = end_of_pem(bytes, body).or_else(|| base64_lines(bytes, body))?;
    Some(start..end)
}

/// The end of the END line that follows, if nothing stands before it that no PEM has.
fn end_of_pem(bytes: &[u8], body: usize) -> Option<usize> {
    const END: &[u8] = b"-----END ";
    let mut at = body;
    loop {
        at = match byte(bytes, at) {
            b'-' if starts_with(bytes, at, END) => break,
            b'-' if starts_with(bytes, at, b"-----") => return None,
            // The headers of an encrypted key: `Proc-Type: 4,ENCRYPTED`.
            b'-' | b':' | b',' => at + 1,
            found if is_base64(found) => at + 1,
            _ => match blank(bytes, at) {
                Some(after) => after,
                None => escaped_slash(bytes, at)?,
            },
        };
    }
    let label = run(bytes, at + END.len(), is_label);
    Some(run(bytes, label, |byte| byte == b'-'))
}

fn bare_key(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    if !KEYS.iter().any(|key| starts_with(bytes, start, key)) {
        return None;
    }
    base64_lines(bytes, start).map(|end| start..end)
}

/// The end of the base64 that begins here, over as many lines as it goes on; none when there is none.
fn base64_lines(bytes: &[u8], from: usize) -> Option<usize> {
    let mut end = None;
    loop {
        let before = end.unwrap_or(from);
        let word = blanks(bytes, before);
        let after = base64_word(bytes, word);
        let is_line = word == before || run(bytes, before, |byte| byte == b' ') < word;
        let ends_line = matches!(
            byte(bytes, after),
            0 | b'\n' | b'\r' | b'"' | b'\'' | b'\\' | b'-'
        );
        let is_key = after - word >= LONG || (is_line && ends_line);
        if after == word || !is_key {
            return end;
        }
        end = Some(after);
    }
}

/// The end of the base64 that begins here; the same place, when it is something else that begins here.
fn base64_word(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = match byte(bytes, at) {
            b'=' => break,
            found if is_base64(found) => at + 1,
            b'-' | b'_' if is_base64url(byte(bytes, at + 1)) && byte(bytes, at + 1) != b'-' => {
                at + 1
            }
            b'\\' => match escaped_slash(bytes, at) {
                Some(after) => after,
                None => return at,
            },
            _ => return at,
        };
    }
    let end = run(bytes, at, |byte| byte == b'=');
    // A name and its value.
    let is_field = at - from < LONG && is_base64(byte(bytes, end));
    if is_field { from } else { end }
}

/// The value of a field with this name, in a header, a text log, JSON, or what Rust prints for people who debug.
fn field(bytes: &[u8], start: usize, name: &[u8], separators: &[u8]) -> Option<Range<usize>> {
    let after = start + name.len();
    if !bytes.get(start..after)?.eq_ignore_ascii_case(name) {
        return None;
    }
    let closed = quote(bytes, after);
    let separator = gap(bytes, closed.as_ref().map_or(after, |quote| quote.end));
    let separates = match byte(bytes, separator) {
        b':' if closed.is_some() => true,
        b',' if closed.is_some() => is_in_tuple(bytes, start),
        found => separators.contains(&found),
    };
    if !separates {
        return None;
    }
    let mut value = gap(bytes, separator + 1);
    loop {
        if starts_with(bytes, value, MARK.as_bytes()) {
            return None;
        }
        value = match byte(bytes, value) {
            b'[' | b'(' => value + 1,
            b'S' if starts_with(bytes, value, b"Some(") => value + 5,
            _ => break,
        };
    }
    let opened = quote(bytes, value);
    let found = match &opened {
        Some(opened) => {
            let is_of_name = closed
                .as_ref()
                .is_none_or(|closed| closed.len() == opened.len());
            // This one ends the text in which the name stands.
            let is_end = matches!(
                byte(bytes, opened.end),
                0 | b',' | b'}' | b']' | b':' | b'\n' | b'\r'
            );
            if is_end || !is_of_name {
                return None;
            }
            opened.end..run(bytes, opened.end, |byte| !ends_value(byte) && byte != b'\\')
        }
        None => value..words(bytes, value),
    };
    let text = bytes.get(found.clone())?;
    let is_literal = closed.is_some() && opened.is_none() && is_literal(text);
    let is_marked = text.starts_with(MARK.as_bytes());
    (!found.is_empty() && !is_literal && !is_marked).then_some(found)
}

/// Whether it is the first of two, as in `("authorization", "..")`.
fn is_in_tuple(bytes: &[u8], name: usize) -> bool {
    let mut before = bytes.get(..name).unwrap_or_default().iter().rev();
    let is_quote = matches!(before.next(), Some(b'"' | b'\''));
    is_quote && before.find(|&&byte| byte != b'\\') == Some(&b'(')
}

/// Whether JSON takes it without quotation marks.
fn is_literal(text: &[u8]) -> bool {
    let is_number = matches!(text.first(), Some(b'0'..=b'9' | b'-'))
        && text
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    is_number || matches!(text, b"null" | b"true" | b"false")
}

/// A word, and the next one when the first names a scheme, such as `Bearer`, and the next is not another field.
fn words(bytes: &[u8], from: usize) -> usize {
    let is_word = |byte: u8| {
        !byte.is_ascii_whitespace()
            && !ends_value(byte)
            && !matches!(byte, b'\\' | b',' | b';' | b'&' | b')' | b']' | b'{' | b'}')
    };
    let first = run(bytes, from, is_word);
    let scheme = bytes.get(from..first).unwrap_or_default();
    let is_scheme = (1..=20).contains(&scheme.len())
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let second = gap(bytes, first);
    let end = run(bytes, second, is_word);
    let next = bytes.get(second..end).unwrap_or_default();
    let name = next
        .iter()
        .position(|byte| !byte.is_ascii_lowercase() && !matches!(byte, b'.' | b'_'))
        .unwrap_or(next.len());
    let is_field = byte(next, name) == b'=' && !matches!(byte(next, name + 1), 0 | b'=');
    if is_scheme && second > first && end > second && !is_field {
        end
    } else {
        first
    }
}

/// What follows the word `Bearer`, when it is no word itself.
fn bearer(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let after = start + b"bearer".len();
    if !bytes.get(start..after)?.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    let token = gap(bytes, after);
    if token == after {
        return None;
    }
    let end = run(bytes, token, |byte| {
        is_base64url(byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=')
    });
    let text = bytes.get(token..end)?;
    let is_token = text.len() >= LONG && text.iter().any(u8::is_ascii_digit);
    is_token.then_some(token..end)
}

/// The byte here; 0 at the end.
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

fn starts_with(bytes: &[u8], at: usize, prefix: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(prefix))
}

/// The end of the bytes that are so.
fn run(bytes: &[u8], from: usize, is_so: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest
        .iter()
        .position(|&byte| !is_so(byte))
        .unwrap_or(rest.len())
}

fn find(bytes: &[u8], within: Range<usize>, wanted: u8) -> Option<usize> {
    let start = within.start;
    let found = bytes.get(within)?.iter().position(|&byte| byte == wanted)?;
    Some(start + found)
}

fn rfind(bytes: &[u8], within: Range<usize>, wanted: u8) -> Option<usize> {
    let start = within.start;
    let found = bytes
        .get(within)?
        .iter()
        .rposition(|&byte| byte == wanted)?;
    Some(start + found)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' '
}

/// No value goes beyond these, quoted or not.
fn ends_value(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>')
}

/// Behind the backslashes that begin here, however often what holds them was escaped; none without any.
fn backslashes(bytes: &[u8], at: usize) -> Option<usize> {
    let after = run(bytes, at, |byte| byte == b'\\');
    (after > at).then_some(after)
}

/// A quotation mark, with the backslashes that escape it.
fn quote(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let mark = backslashes(bytes, at).unwrap_or(at);
    matches!(byte(bytes, mark), b'"' | b'\'').then_some(at..mark + 1)
}

/// Behind a slash, escaped or not.
fn slash(bytes: &[u8], at: usize) -> Option<usize> {
    let at = backslashes(bytes, at).unwrap_or(at);
    (byte(bytes, at) == b'/').then_some(at + 1)
}

fn escaped_slash(bytes: &[u8], at: usize) -> Option<usize> {
    slash(bytes, backslashes(bytes, at)?)
}

/// Behind one blank, a line's end, or either as an escape: `\n`, `\\n`, `\u000a`.
fn blank(bytes: &[u8], at: usize) -> Option<usize> {
    if matches!(byte(bytes, at), b' ' | b'\t' | b'\r' | b'\n') {
        return Some(at + 1);
    }
    let escape = backslashes(bytes, at)?;
    match byte(bytes, escape) {
        b'n' | b'r' | b't' => Some(escape + 1),
        b'u' if starts_with(bytes, escape, b"u00") => {
            let code = bytes.get(escape + 1..escape + 5)?;
            matches!(
                code,
                b"000a" | b"000A" | b"000d" | b"000D" | b"0009" | b"0020"
            )
            .then_some(escape + 5)
        }
        _ => None,
    }
}

fn blanks(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(after) = blank(bytes, at) {
        at = after;
    }
    at
}

/// Behind the blanks of a line, and the sequences by which a terminal shows colours, escaped or not.
fn gap(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = match byte(bytes, at) {
            b' ' | b'\t' => at + 1,
            _ => match colour(bytes, at) {
                Some(after) => after,
                None => return at,
            },
        };
    }
}

fn colour(bytes: &[u8], at: usize) -> Option<usize> {
    const ESCAPES: &[&[u8]] = &[b"u001b[", b"u001B[", b"x1b["];
    let start = if starts_with(bytes, at, b"\x1b[") {
        at + 2
    } else {
        let escape = backslashes(bytes, at)?;
        let form = ESCAPES
            .iter()
            .find(|form| starts_with(bytes, escape, form))?;
        escape + form.len()
    };
    let end = run(bytes, start, |byte| byte.is_ascii_digit() || byte == b';');
    (byte(bytes, end) == b'm').then_some(end + 1)
}
