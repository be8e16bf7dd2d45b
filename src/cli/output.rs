//! What people and machines are shown: tables and colour on a terminal, plain lines in a pipe, one JSON document with
//! `--json`. Answers go to standard output, errors and progress to standard error.

use std::{
    cell::RefCell,
    fmt,
    io::{self, IsTerminal as _, Write as _},
};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    catalog::{Answer, Change, ChangeSet, Digest, Hold, HoldSummary, Op},
    clock::{self, Instant},
    diagnosis::Diagnosis,
    store,
    telemetry::redact,
};

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(super) const RED: Style = AnsiColor::Red.on_default();

/// How many changes are shown before the rest is only counted.
const CHANGES_SHOWN: usize = 40;

/// Where a command's answer goes.
pub(super) struct Output {
    json: bool,
    terminal: bool,
    /// Answers of several commands that are to be one document.
    gathered: RefCell<Option<Vec<Value>>>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal() && !json,
            gathered: RefCell::default(),
        }
    }

    /// Keeps the answers for machines until [`Output::finish`], which writes them as one.
    #[cfg(feature = "simulator")]
    pub(super) fn gather(&self) {
        self.gathered.replace(Some(Vec::new()));
    }

    /// Writes what was gathered.
    #[cfg(feature = "simulator")]
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        match self.gathered.take() {
            Some(answers) => self.json(&answers),
            None => Ok(()),
        }
    }

    /// Whether somebody is there to be asked.
    pub(super) fn can_ask(&self) -> bool {
        self.terminal && io::stdin().is_terminal()
    }

    /// Whether somebody watches the progress.
    pub(super) fn shows_progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// A line for people.
    pub(super) fn say(&self, line: impl fmt::Display) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        unless_closed(writeln!(anstream::stdout(), "{line}"))
    }

    /// The answer for machines.
    pub(super) fn json(&self, answer: &impl Serialize) -> anyhow::Result<()> {
        if !self.json {
            return Ok(());
        }
        let answer = serde_json::to_value(answer)?;
        if let Some(gathered) = self.gathered.borrow_mut().as_mut() {
            gathered.push(answer);
            return Ok(());
        }
        Ok(unless_closed(writeln!(io::stdout(), "{answer:#}"))?)
    }

    /// A table for people; in a pipe, lines with tabs between the columns.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let rows = rows
            .into_iter()
            .map(|row| row.into_iter().map(|cell| plain(&cell)).collect::<Vec<_>>());
        if !self.terminal {
            let lines = rows.map(|row| row.join("\t"));
            let lines: Vec<String> = [header.join("\t")].into_iter().chain(lines).collect();
            return unless_closed(writeln!(io::stdout(), "{}", lines.join("\n")));
        }
        let mut table = Table::new();
        // Lines that are too long are for the terminal to break: cells broken in their midst cannot be read or copied.
        table
            .load_preset(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled);
        for lines in [
            TableComponent::HorizontalLines,
            TableComponent::MiddleIntersections,
            TableComponent::LeftBorderIntersections,
            TableComponent::RightBorderIntersections,
        ] {
            table.remove_style(lines);
        }
        table
            .set_header(header.iter().map(|title| title.replace('_', " ")))
            .add_rows(rows);
        unless_closed(writeln!(anstream::stdout(), "{table}"))
    }

    /// Changes, field by field.
    pub(super) fn changes(&self, changes: &ChangeSet) -> io::Result<()> {
        for change in changes.iter().take(CHANGES_SHOWN) {
            let style = change_style(change);
            self.say(format_args!(
                "{style}{}{style:#}",
                change.to_string().replace('\n', "\n  ")
            ))?;
        }
        match changes.len().saturating_sub(CHANGES_SHOWN) {
            0 => Ok(()),
            more => self.say(format_args!("  and {more} more")),
        }
    }

    /// A hold that stands: why, what, and the ways out.
    pub(super) fn hold(&self, project: &impl fmt::Display, hold: &Hold) -> io::Result<()> {
        self.held(hold)?;
        self.ways_out(project, &hold.digest)
    }

    /// A hold that stands: why, and the ways out.
    pub(super) fn hold_summary(
        &self,
        project: &impl fmt::Display,
        hold: &HoldSummary,
    ) -> io::Result<()> {
        self.say(format_args!("{RED}! {hold}{RED:#}"))?;
        self.say(format_args!(
            "  to see them:          catalog-sync holds {project}"
        ))?;
        self.ways_out(project, &hold.digest)
    }

    fn ways_out(&self, project: &impl fmt::Display, digest: &Digest) -> io::Result<()> {
        self.say("  Nothing of it is removed, and it lapses when the things return. It is for you to decide:")?;
        self.say(format_args!(
            "  to let them go:       catalog-sync approve {project} {digest}"
        ))?;
        self.say(format_args!(
            "  to keep the things:   catalog-sync discard {project} {digest}"
        ))
    }

    /// What is held, or would be, and why.
    pub(super) fn held(&self, hold: &Hold) -> io::Result<()> {
        self.say(format_args!("{RED}! {hold}{RED:#}"))?;
        let gone = hold
            .removals
            .iter()
            .filter(|held| held.answer == Some(Answer::Gone))
            .count();
        self.say(format_args!(
            "  asked for by their own ids, Apple answered 404 for {gone} of them{}",
            if gone < hold.removals.len() {
                "; the others were not asked for, or gave no answer"
            } else {
                ""
            }
        ))?;
        for held in hold.removals.iter().take(CHANGES_SHOWN) {
            let id = plain(
                held.product_id
                    .as_deref()
                    .unwrap_or(held.key.store_id.as_str()),
            );
            self.say(format_args!(
                "  - {:<18} {id} {}",
                held.key.kind,
                quoted(held.name.as_deref())
            ))?;
        }
        if let more @ 1.. = hold.removals.len().saturating_sub(CHANGES_SHOWN) {
            self.say(format_args!("  and {more} more"))?;
        }
        Ok(())
    }

    /// What is wrong, and the way out.
    pub(super) fn diagnosis(&self, diagnosis: &Diagnosis) -> io::Result<()> {
        self.say(format_args!(
            "  {RED}{}{RED:#} {}",
            diagnosis.code, diagnosis.sentence
        ))?;
        self.say(format_args!("  {} {}", diagnosis.advice, origin(diagnosis)))
    }

    /// Tells machines why the command failed, and people nothing.
    pub(super) fn fail_in_json(&self, error: &anyhow::Error) {
        let code = error.downcast_ref::<store::Error>().map(store::Error::code);
        let answer = match error.downcast_ref::<Diagnosis>() {
            Some(diagnosis) => json!({ "error": diagnosis }),
            None => json!({ "error": { "code": code, "sentence": format!("{error:#}") } }),
        };
        // What is redacted is JSON still.
        let answer = serde_json::from_str(&redact(&answer.to_string())).unwrap_or(answer);
        self.json(&answer).ok();
    }

    /// Tells why the command failed.
    pub(super) fn fail(&self, error: &anyhow::Error) {
        if self.json {
            return self.fail_in_json(error);
        }
        let diagnosis = error.downcast_ref::<Diagnosis>();
        let text = match diagnosis {
            Some(diagnosis) => format!(
                "{RED}error:{RED:#} {}\n  {}\n  {DIM}code {}{} - 'catalog-sync explain {}' says more{DIM:#}",
                diagnosis.sentence,
                diagnosis.advice,
                diagnosis.code,
                match origin(diagnosis) {
                    origin if origin.is_empty() => origin,
                    origin => format!(" {origin}"),
                },
                diagnosis.code,
            ),
            None => format!("{RED}error:{RED:#} {error:#}"),
        };
        // Nobody is left to be told.
        writeln!(anstream::stderr(), "{}", redact(&text)).ok();
    }
}

/// Whoever read the output has read enough; the work goes on all the same.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Text that somebody upstream chose, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

pub(super) fn change_style(change: &Change) -> Style {
    match change.op() {
        Op::Added | Op::Restored => GREEN,
        Op::Updated => YELLOW,
        Op::Removed => RED,
    }
}

fn quoted(name: Option<&str>) -> String {
    name.map(|name| format!("{name:?}")).unwrap_or_default()
}

fn origin(diagnosis: &Diagnosis) -> String {
    match (&diagnosis.endpoint, &diagnosis.apple_error_id) {
        (None, None) => String::new(),
        (Some(endpoint), None) => format!("({endpoint})"),
        (None, Some(id)) => format!("(Apple's error id {id})"),
        (Some(endpoint), Some(id)) => format!("({endpoint}, Apple's error id {id})"),
    }
}

/// `2026-11-23 05:44 UTC`.
pub(super) fn at(instant: Instant) -> String {
    instant.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// `4 min ago`, or `never`.
pub(super) fn ago(instant: Option<Instant>) -> String {
    let Some(instant) = instant else {
        return "never".to_owned();
    };
    let seconds = (clock::now() - instant).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// What stands in a cell for no value.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `1 request`, `3 requests`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
