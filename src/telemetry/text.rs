//! A line for people: when, how bad, what; then, dimmed, the event and its fields.
//!
//! What must hold: no text that came from elsewhere moves the cursor, changes colours or looks like another line.

use std::fmt::{self, Debug};

use chrono::SecondsFormat;
use tracing::field::Field;
use tracing_subscriber::fmt::{
    FormatFields,
    format::{self, Writer},
    time::FormatTime,
};

use crate::clock;

/// The time of a line, in milliseconds.
pub(super) struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = clock::now();
        writer.write_str(&now.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// How a line's fields are written. The message comes first.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let (dim, plain) = if writer.has_ansi_escapes() && field.name() != "message" {
            ("\u{1b}[2m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        let gap = if field.index() == 0 { "" } else { " " };
        write!(writer, "{gap}{dim}{}{plain}", told(field, value))
    })
}

fn told(field: &Field, value: &dyn Debug) -> String {
    let value = format!("{value:?}").replace('\n', "\n    ");
    let value = value.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
    match field.name() {
        "message" => value,
        // Of all fields the one that is looked for by its value.
        "event" => value.trim_matches('"').to_owned(),
        name => format!("{name}={value}"),
    }
}
