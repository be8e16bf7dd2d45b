//! The log as it is written, in each form and with each filter.

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
        dispatch(&log, stderr, Speaks::Command, None, move || writer.clone()).unwrap();
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
    assert_eq!(first["spans"][0]["run.id"], 7);
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
                dispatch(&log, stderr, Speaks::Log, None, move || writer.clone()).unwrap();
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
        init(&log, Stderr::Plain, Speaks::Command, None),
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
            dispatch(&log, stderr, Speaks::Log, None, move || writer.clone()).unwrap();
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
            dispatch(&log(""), stderr, Speaks::Log, None, move || writer.clone()).unwrap();
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

#[test]
fn a_text_from_elsewhere_is_no_line_of_its_own_and_moves_no_cursor() {
    let written = Written::default();
    let writer = written.clone();
    let log = Log::default();
    let (dispatch, _) = dispatch(&log, Stderr::Plain, Speaks::Log, None, move || {
        writer.clone()
    })
    .unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let name = "a\u{1b}[2J\r\n2026-01-01T00:00:00.000Z ERROR b";
        tracing::info!(event = "a.b", project.id = %name, count = 2, "of {name}");
    });
    let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(!said.contains(['\u{1b}', '\r']), "{said:?}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("INFO of a"), "{said}");
    assert!(
        lines[1].starts_with("    2026") && lines[1].contains(" a.b project.id=a"),
        "{said}"
    );
    assert!(
        lines[2].starts_with("    2026") && lines[2].ends_with(" count=2"),
        "{said}"
    );
}
