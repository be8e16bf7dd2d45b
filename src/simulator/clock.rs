//! The simulator's clock: the machine's, moved by a settable number of seconds; or one that a simulation sets.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

#[derive(Debug, Default)]
pub(super) struct Clock {
    offset_s: AtomicI64,
    stopped_at: Mutex<Option<DateTime<Utc>>>,
}

impl Clock {
    pub(super) fn set_offset(&self, seconds: i64) {
        self.offset_s.store(seconds, Ordering::SeqCst);
    }

    pub(super) fn stop_at(&self, at: DateTime<Utc>) {
        let mut stopped_at = self
            .stopped_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *stopped_at = Some(at);
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let stopped_at = *self
            .stopped_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = stopped_at.unwrap_or_else(wall_clock);
        TimeDelta::try_seconds(self.offset_s.load(Ordering::SeqCst))
            .and_then(|offset| now.checked_add_signed(offset))
            .unwrap_or(now)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other side has a clock of its own; this is the one place that reads it"
)]
fn wall_clock() -> DateTime<Utc> {
    Utc::now()
}
