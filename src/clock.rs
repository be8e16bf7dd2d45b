//! The wall clock, read in one place. What decides by time takes `now` as a value.

#[cfg(feature = "simulator")]
pub mod simulated;

use chrono::{DateTime, SubsecRound as _, Utc};

/// An instant, in whole milliseconds so that every store gives back what it was given.
pub type Instant = DateTime<Utc>;

/// The time of day.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    #[cfg(feature = "simulator")]
    if let Some(shown) = simulated::now() {
        return shown;
    }
    Utc::now().trunc_subsecs(3)
}
