//! A wall clock for a simulation: on one thread, the time goes as that of its runtime does.
//!
//! What must hold: a thread that was given no such clock, as every thread of the binary, has the machine's.

use std::cell::Cell;

use chrono::SubsecRound as _;
use tokio::time;

use super::Instant;

/// A clock that showed this at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed..
    pub shown: Instant,
    /// ..when the runtime's time was this.
    pub at: time::Instant,
}

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// Gives this thread a clock, or its machine's back.
pub fn set(clock: Option<Clock>) {
    CLOCK.set(clock);
}

/// Whether this thread is a simulation: what is drawn by chance elsewhere is not here, so that it can be repeated.
#[must_use]
pub fn is_on() -> bool {
    CLOCK.get().is_some()
}

pub(super) fn now() -> Option<Instant> {
    let Clock { shown, at } = CLOCK.get()?;
    Some((shown + at.elapsed()).trunc_subsecs(3))
}
