//! The log: where it goes, in which form, and how much of it.
//!
//! It goes to standard error. Each line carries the time in UTC as RFC 3339, and nothing that looks like a secret.

mod panics;
mod redact;

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
    EnvFilter,
    filter::ParseError,
    fmt::{self, FormatEvent, FormatFields, MakeWriter, SubscriberBuilder},
    registry::Registry,
    reload,
    util::SubscriberInitExt as _,
};

pub use self::{panics::tell_panics, redact::redact};
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

/// Starts the log of this process.
///
/// # Errors
///
/// When the filter is not understood, or the log was started already.
pub fn init(log: &Log, stderr: Stderr, speaks: Speaks) -> Result<Reload, Error> {
    let (dispatch, reload) = dispatch(log, stderr, speaks, io::stderr)?;
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

fn dispatch<W>(
    log: &Log,
    stderr: Stderr,
    speaks: Speaks,
    writer: W,
) -> Result<(Dispatch, Reload), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt::Subscriber::builder()
        .with_env_filter(filter(log, stderr, speaks)?)
        .with_writer(Redacted(writer));
    let json = match log.format {
        Format::Auto => stderr == Stderr::NoTerminal,
        Format::Text => false,
        Format::Json => true,
    };
    let (dispatch, set) = if json {
        reloadable(builder.json().flatten_event(true).with_span_list(false))
    } else {
        let text = builder.with_ansi(stderr == Stderr::Colour);
        reloadable(text.with_target(false))
    };
    let reload = Reload {
        stderr,
        speaks,
        set,
    };
    Ok((dispatch, reload))
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

/// The log that is built so, and what sets its filter.
fn reloadable<N, E, W>(builder: SubscriberBuilder<N, E, EnvFilter, W>) -> (Dispatch, SetFilter)
where
    N: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    E: FormatEvent<Registry, N> + Send + Sync + 'static,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    let set = move |filter| handle.reload(filter);
    (builder.into(), Box::new(set))
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
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of a few events.
    fn written(filter: &str, format: Format, stderr: Stderr) -> String {
        let log = Log {
            filter: filter.to_owned(),
            format,
        };
        let written = Written::default();
        let writer = written.clone();
        let (dispatch, _) =
            dispatch(&log, stderr, Speaks::Command, move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info_span!("run", run.id = 7).in_scope(|| {
                tracing::info!(project.id = "acme", duration_ms = 12, "sync finished");
            });
            tracing::warn!("key refused");
            tracing::debug!("page read");
            tracing::info!(target: "sqlx::query", "a statement");
            tracing::warn!(target: "sqlx::query", "a slow statement");
            tracing::trace!(target: "lapin::io_loop", "a frame with a password");
            tracing::trace!(target: "lapin::channel", "a step");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_collector_gets_an_object_a_line() {
        let text = written("", Format::Auto, Stderr::NoTerminal);
        assert_eq!(text, text.replace('\u{1b}', ""));
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let first = &lines[0];
        assert_eq!(first["message"], "sync finished");
        assert_eq!(first["project.id"], "acme");
        assert_eq!(first["duration_ms"], 12);
        assert_eq!(first["level"], "INFO");
        assert_eq!(first["span"]["run.id"], 7);
        let at: crate::clock::Instant = first["timestamp"].as_str().unwrap().parse().unwrap();
        assert!((crate::clock::now() - at).num_seconds().abs() < 60);
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
        let messages: Vec<_> = lines
            .iter()
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        assert_eq!(
            messages,
            ["sync finished", "key refused", "a slow statement"]
        );
    }

    #[test]
    fn no_level_and_no_form_of_the_log_tells_a_secret() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGcanary+/\n-----END PRIVATE KEY-----";
        let secrets = [
            pem,
            "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHcanary",
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJjYW5hcnkifQ.canary",
            "Authorization: Bearer canary",
            "postgres://me:canary@db/catalog",
        ];
        for (format, stderr) in [
            (Format::Json, Stderr::NoTerminal),
            (Format::Text, Stderr::NoTerminal),
            (Format::Text, Stderr::Colour),
        ] {
            for secret in secrets {
                let log = Log {
                    filter: "trace".to_owned(),
                    format,
                };
                let written = Written::default();
                let writer = written.clone();
                let (dispatch, _) =
                    dispatch(&log, stderr, Speaks::Log, move || writer.clone()).unwrap();
                tracing::dispatcher::with_default(&dispatch, || {
                    let cause = io::Error::other(secret);
                    tracing::trace!("{secret}");
                    tracing::debug!(reason = secret, "asked");
                    tracing::info!(reason = ?secret, "asked");
                    tracing::warn!(reason = %cause, cause = ?cause, "asked");
                    tracing::error!(authorization = "Bearer canary", "asked: {cause:?}");
                    tracing::error_span!("run", run.id = 7, secret).in_scope(|| {
                        tracing::error!(answer = 42, "{cause}");
                    });
                });
                let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
                assert!(!said.contains("canary"), "{secret}: {said}");
                assert!(said.matches("[redacted]").count() >= 7, "{said}");
                for level in ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"] {
                    assert!(said.contains(level), "{said}");
                }
                assert!(said.contains("42"), "{said}");
                if format == Format::Json {
                    for line in said.lines() {
                        serde_json::from_str::<serde_json::Value>(line).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn a_terminal_gets_text_with_colours_unless_they_are_unwanted() {
        let colour = written("warn", Format::Auto, Stderr::Colour);
        assert!(
            colour.contains('\u{1b}') && colour.contains("key refused"),
            "{colour}"
        );
        assert!(!colour.contains("sync finished"), "{colour}");
        let plain = written("warn", Format::Auto, Stderr::Plain);
        assert!(
            !plain.contains('\u{1b}') && plain.contains("WARN key refused"),
            "{plain}"
        );
    }

    #[test]
    fn a_terminal_gets_nothing_unless_it_is_wanted() {
        assert_eq!(written("", Format::Auto, Stderr::Colour), "");
        assert_ne!(written("", Format::Auto, Stderr::NoTerminal), "");
    }

    #[test]
    fn the_format_can_be_chosen() {
        assert!(written("warn", Format::Json, Stderr::Colour).starts_with('{'));
        let text = written("", Format::Text, Stderr::NoTerminal);
        assert!(
            !text.contains(['{', '\u{1b}']) || text.contains("run{run.id=7}"),
            "{text}"
        );
        assert!(text.contains("INFO run{run.id=7}: sync finished"), "{text}");
    }

    #[test]
    fn the_filter_decides_and_dependencies_stay_quiet_unless_named() {
        let of = |filter| {
            let text = written(filter, Format::Json, Stderr::NoTerminal);
            let messages: Vec<String> = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .map(|line| line["message"].as_str().unwrap().to_owned())
                .collect();
            messages.join(", ")
        };
        assert_eq!(
            of("debug"),
            "sync finished, key refused, page read, a slow statement"
        );
        assert_eq!(
            of("info,sqlx=info"),
            "sync finished, key refused, a statement, a slow statement"
        );
        assert_eq!(of("warn"), "key refused, a slow statement");
        assert_eq!(
            of("warn,lapin=trace"),
            "key refused, a slow statement, a step"
        );
        for all in [
            "trace,lapin=trace",
            "trace,lapin::io_loop=trace,lapin=trace",
        ] {
            let written = of(all);
            assert!(
                written.ends_with("a step") && !written.contains("password"),
                "{written}"
            );
        }
        assert_eq!(of("error"), "");
        assert_eq!(of("off"), "");
        assert_eq!(of("catalog_sync=warn"), "key refused");
        assert_eq!(of("info,sqlx=off"), "sync finished, key refused");
        let log = Log {
            filter: "a=b=c".to_owned(),
            format: Format::Auto,
        };
        assert!(matches!(
            init(&log, Stderr::Plain, Speaks::Command),
            Err(Error::Filter(_))
        ));
    }

    #[test]
    fn a_daemon_logs_to_a_terminal_too() {
        for (stderr, is_text) in [
            (Stderr::Colour, true),
            (Stderr::Plain, true),
            (Stderr::NoTerminal, false),
        ] {
            let written = Written::default();
            let writer = written.clone();
            let log = Log::default();
            let (dispatch, _) =
                dispatch(&log, stderr, Speaks::Log, move || writer.clone()).unwrap();
            tracing::dispatcher::with_default(&dispatch, || {
                tracing::debug!("a page");
                tracing::info!("a run");
            });
            let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(said.contains("a run") && !said.contains("a page"), "{said}");
            assert_eq!(said.starts_with('{'), !is_text, "{said}");
        }
    }

    #[test]
    fn the_filter_can_be_changed_at_run_time() {
        let log = |filter: &str| Log {
            filter: filter.to_owned(),
            format: Format::Auto,
        };
        for stderr in [Stderr::Plain, Stderr::NoTerminal] {
            let written = Written::default();
            let writer = written.clone();
            let (dispatch, reload) =
                dispatch(&log(""), stderr, Speaks::Log, move || writer.clone()).unwrap();
            let said = || {
                written.0.lock().unwrap().clear();
                tracing::debug!("a page");
                tracing::info!("a run");
                tracing::warn!("a fault");
                let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
                ["a page", "a run", "a fault"].map(|message| said.contains(message))
            };
            tracing::dispatcher::with_default(&dispatch, || {
                assert_eq!(said(), [false, true, true]);
                reload.filter(&log("debug")).unwrap();
                assert_eq!(said(), [true, true, true]);
                reload.filter(&log("warn")).unwrap();
                assert_eq!(said(), [false, false, true]);
                let error = reload.filter(&log("a=b=c")).unwrap_err();
                assert!(matches!(error, Error::Filter(_)));
                assert_eq!(said(), [false, false, true]);
                reload.filter(&log("")).unwrap();
                assert_eq!(said(), [false, true, true]);
            });
            drop(dispatch);
            assert!(matches!(reload.filter(&log("")), Err(Error::Gone(_))));
        }
    }
}
