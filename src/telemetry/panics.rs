//! What is told of a panic.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::Write as _,
    panic,
};

use tracing::Level;

use super::redact;

/// Tells of panics in the log, as one event; on standard error where the log is silent. Like all else without secrets.
pub fn tell_panics() {
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let at = at.as_deref().unwrap_or("an unknown place");
        let reason = panic.payload_as_str().unwrap_or("for no reason given");
        let backtrace = Backtrace::capture();
        let is_wanted = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = is_wanted.then_some(backtrace);
        if tracing::enabled!(Level::ERROR) {
            tracing::error!(
                event = "panicked",
                location = at,
                error.sentence = reason,
                backtrace = backtrace.as_ref().map(tracing::field::display),
                "this is a defect: please report it"
            );
            return;
        }
        let backtrace = backtrace.map_or_else(String::new, |backtrace| format!("\n{backtrace}"));
        let text = format!("error: panicked at {at}: {reason}{backtrace}");
        // Nobody is left to be told.
        writeln!(std::io::stderr(), "{}", redact(&text)).ok();
    }));
}
