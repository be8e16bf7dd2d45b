//! Times in words.

use chrono::TimeDelta;

use crate::clock::Instant;

/// `40 s`, `4 min`, `3 h`, `12 days`.
pub(super) fn lasting(duration: TimeDelta) -> String {
    match duration.num_seconds().max(0) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `14:02 UTC`, with the date if it is not today's.
pub(super) fn time(at: Instant, now: Instant) -> String {
    if at.date_naive() == now.date_naive() {
        at.format("%H:%M UTC").to_string()
    } else {
        at.format("%Y-%m-%d %H:%M UTC").to_string()
    }
}

/// `14:02 UTC, 3 h ago`
pub(super) fn ago(at: Instant, now: Instant) -> String {
    format!("{}, {} ago", time(at, now), lasting(now - at))
}
