//! How values are written, so that each comes back as it was.

use std::io;

use chrono::{SecondsFormat, SubsecRound as _};
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::clock::Instant;

/// An instant as the databases keep it, in whole milliseconds.
pub(super) fn instant(at: Instant) -> Instant {
    at.trunc_subsecs(3)
}

/// An instant as text within JSON, which sorts by time.
pub(super) fn instant_text(at: Instant) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A value as JSON text.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PlainFloats);
    value
        .serialize(&mut serializer)
        .expect("what is stored has text for keys and a buffer takes any write");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Floats with a point and without an exponent: `1e16` in a `jsonb` comes back as the integer 10000000000000000, and an
/// entry that differs from what was written would read as updated in every run.
struct PlainFloats;

impl Formatter for PlainFloats {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let text = value.to_string();
        let point = if text.contains('.') { "" } else { ".0" };
        write!(writer, "{text}{point}")
    }
}

/// A count as the databases' 64-bit signed integers hold it.
pub(super) fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn floats_have_a_point_and_no_exponent() {
        assert_eq!(
            super::json(&json!([0.5, 3.0, 1e16, 1e-7, 7])),
            "[0.5,3.0,10000000000000000.0,0.0000001,7]"
        );
    }
}
