//! The log: where it goes, in which form, and how much of it.
//!
//! It goes to standard error. Each line carries the time in UTC as RFC 3339, and nothing that looks like a secret.

mod panics;
mod redact;
mod text;
#[cfg_attr(not(feature = "otlp"), path = "telemetry/untraced.rs")]
mod traces;

use std::{
    fmt::Debug,
    io::{self, Write},
    time::Duration,
};

use chrono::SecondsFormat;
use tracing::{
    Dispatch,
    field::{DisplayValue, display},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::ParseError,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::Registry,
    reload,
    util::SubscriberInitExt as _,
};

pub use self::{panics::tell_panics, redact::redact, traces::Traces};
use crate::{
    clock::Instant,
    config::{Format, Log},
};

/// Dependencies whose every step would drown ours. A directive of their own brings them back: `debug,sqlx=debug`.
const QUIET: &str = "async_nats=warn,h2=warn,hyper=warn,hyper_util=warn,lapin=warn,reqwest=warn,rustls=warn,sqlx=warn,\
     tokio_cron_scheduler=warn,tower=warn";

/// Traces the frames that are sent to `RabbitMQ`, the one with the password among them. Whatever is asked for, it does not.
const NEVER: &str = "lapin::frames=warn,lapin::io_loop=warn";

/// What standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// A terminal that shows colours.
    Colour,
    /// A terminal whose user wants none (`NO_COLOR`).
    Plain,
    /// A file, a pipe or a log collector.
    NoTerminal,
}

/// Who speaks to the person at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The command itself, so that no log is wanted there unless it is asked for.
    Command,
    /// The log, as of a daemon.
    Log,
}

/// Why there is no log, or not the one that is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not understood.
    #[error("log.filter is not understood: {0}")]
    Filter(#[from] ParseError),
    /// The filter cannot be changed any more.
    #[error("the log's filter cannot be changed")]
    Gone(#[source] reload::Error),
    /// Traces cannot be sent to where they are to go.
    #[error("traces.endpoint cannot be used")]
    Traces(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is a log already.
    #[error("the log was set up already")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A duration as a log tells it: in whole milliseconds, and a number. What is wider than 64 bits would be written as a text.
#[must_use]
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An instant as a log tells it: RFC 3339, in UTC.
#[must_use]
pub fn at(instant: Instant) -> DisplayValue<String> {
    display(instant.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Starts the log of this process, and the traces, if any.
///
/// # Errors
///
/// When the filter is not understood, or the log was started already.
pub fn init(
    log: &Log,
    stderr: Stderr,
    speaks: Speaks,
    traces: Option<&Traces>,
) -> Result<Reload, Error> {
    let traces = traces.map(Traces::layer);
    let (dispatch, reload) = dispatch(log, stderr, speaks, traces, io::stderr)?;
    dispatch
        .try_init()
        .map_err(|error| Error::Again(error.into()))?;
    Ok(reload)
}

/// Changes the log of this process while it runs.
pub struct Reload {
    stderr: Stderr,
    speaks: Speaks,
    set: SetFilter,
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

impl Reload {
    /// Logs as much as this says from now on. The form of a line stays as it is.
    ///
    /// # Errors
    ///
    /// When the filter is not understood; the one before then stays.
    pub fn filter(&self, log: &Log) -> Result<(), Error> {
        let filter = filter(log, self.stderr, self.speaks)?;
        (self.set)(filter).map_err(Error::Gone)
    }
}

impl Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload")
            .field("stderr", &self.stderr)
            .field("speaks", &self.speaks)
            .finish_non_exhaustive()
    }
}

/// One of those that hear of events and spans. Each has a filter of its own.
type Hearer = Box<dyn Layer<Registry> + Send + Sync>;

fn dispatch<W>(
    log: &Log,
    stderr: Stderr,
    speaks: Speaks,
    traces: Option<Hearer>,
    writer: W,
) -> Result<(Dispatch, Reload), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(log, stderr, speaks)?);
    let lines = fmt::layer().with_writer(Redacted(writer));
    let json = match log.format {
        Format::Auto => stderr == Stderr::NoTerminal,
        Format::Text => false,
        Format::Json => true,
    };
    let lines = if json {
        let lines = lines.json().flatten_event(true).with_current_span(false);
        lines.with_filter(filter).boxed()
    } else {
        let lines = lines
            .with_ansi(stderr == Stderr::Colour)
            .with_target(false)
            .with_timer(text::Clock)
            .fmt_fields(text::fields());
        lines.with_filter(filter).boxed()
    };
    let hearers: Vec<Hearer> = [lines].into_iter().chain(traces).collect();
    let reload = Reload {
        stderr,
        speaks,
        set: Box::new(move |filter| handle.reload(filter)),
    };
    Ok((Dispatch::new(Registry::default().with(hearers)), reload))
}

/// What is written through it has no secrets.
struct Redacted<T>(T);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Redacted<W> {
    type Writer = Redacted<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacted(self.0.make_writer())
    }
}

impl<W: Write> Write for Redacted<W> {
    /// An event comes whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&redact::redact_bytes(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn filter(log: &Log, stderr: Stderr, speaks: Speaks) -> Result<EnvFilter, ParseError> {
    let wanted = match (log.filter.trim(), stderr, speaks) {
        ("", Stderr::Colour | Stderr::Plain, Speaks::Command) => "off",
        ("", _, _) => "info",
        (wanted, _, _) => wanted,
    };
    let general = wanted
        .split(',')
        .filter_map(|directive| directive.trim().parse().ok())
        .next_back()
        .unwrap_or(LevelFilter::OFF);
    // Where less than that is wanted, the list would make them louder.
    let quiet = if general > LevelFilter::WARN {
        QUIET
    } else {
        ""
    };
    let never = if wanted.contains("lapin") { NEVER } else { "" };
    EnvFilter::builder().parse(format!("{quiet},{wanted},{never}"))
}

#[cfg(test)]
mod tests;
