//! The log: where it goes, in which form, and how much of it.
//!
//! It goes to standard error. Each line carries the time in UTC as RFC 3339.

use std::io;

use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{self, MakeWriter},
    util::SubscriberInitExt as _,
};

use crate::config::{Format, Log};

/// Dependencies whose every step would drown ours. A directive of their own brings them back: `debug,sqlx=debug`.
const QUIET: &str = "async_nats=warn,h2=warn,hyper=warn,hyper_util=warn,lapin=warn,reqwest=warn,rustls=warn,sqlx=warn,\
     tokio_cron_scheduler=warn,tower=warn";

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

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not understood.
    #[error("log.filter is not understood: {0}")]
    Filter(#[from] ParseError),
    /// There is a log already.
    #[error("the log was set up already")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts the log of this process.
///
/// # Errors
///
/// When the filter is not understood, or the log was started already.
pub fn init(log: &Log, stderr: Stderr) -> Result<(), Error> {
    dispatch(log, stderr, io::stderr)?
        .try_init()
        .map_err(|error| Error::Again(error.into()))
}

fn dispatch<W>(log: &Log, stderr: Stderr, writer: W) -> Result<Dispatch, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt::Subscriber::builder()
        .with_env_filter(filter(log, stderr)?)
        .with_writer(writer);
    let json = match log.format {
        Format::Auto => stderr == Stderr::NoTerminal,
        Format::Text => false,
        Format::Json => true,
    };
    Ok(if json {
        builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .into()
    } else {
        builder
            .with_ansi(stderr == Stderr::Colour)
            .with_target(false)
            .into()
    })
}

fn filter(log: &Log, stderr: Stderr) -> Result<EnvFilter, ParseError> {
    let wanted = match (log.filter.trim(), stderr) {
        ("", Stderr::NoTerminal) => "info",
        // Commands speak for themselves there.
        ("", Stderr::Colour | Stderr::Plain) => "off",
        (wanted, _) => wanted,
    };
    let general = wanted
        .split(',')
        .filter_map(|directive| directive.trim().parse().ok())
        .next_back()
        .unwrap_or(LevelFilter::OFF);
    // Where less than that is wanted, the list would make them louder.
    if general > LevelFilter::WARN {
        EnvFilter::builder().parse(format!("{QUIET},{wanted}"))
    } else {
        EnvFilter::builder().parse(wanted)
    }
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
        let dispatch = dispatch(&log, stderr, move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info_span!("run", run.id = 7).in_scope(|| {
                tracing::info!(project.id = "acme", duration_ms = 12, "sync finished");
            });
            tracing::warn!("key refused");
            tracing::debug!("page read");
            tracing::info!(target: "sqlx::query", "a statement");
            tracing::warn!(target: "sqlx::query", "a slow statement");
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
        assert_eq!(of("error"), "");
        assert_eq!(of("off"), "");
        assert_eq!(of("catalog_sync=warn"), "key refused");
        assert_eq!(of("info,sqlx=off"), "sync finished, key refused");
        let log = Log {
            filter: "a=b=c".to_owned(),
            format: Format::Auto,
        };
        assert!(matches!(init(&log, Stderr::Plain), Err(Error::Filter(_))));
    }
}
