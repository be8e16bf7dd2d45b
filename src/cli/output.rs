//! What people and machines are shown: tables and colour on a terminal, plain lines in a pipe, one JSON document with
//! `--json`. Answers go to standard output, errors and progress to standard error.

use std::{
    cell::{self, RefCell},
    fmt,
    io::{self, IsTerminal as _, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, Color, ContentArrangement, Table, TableComponent, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    catalog::{Answer, Change, ChangeSet, Digest, Hold, HoldSummary, Op},
    clock::{self, Instant},
    diagnosis::Diagnosis,
    environment, store,
    telemetry::redact,
};

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(super) const RED: Style = AnsiColor::Red.on_default();

/// How many changes are shown before the rest is only counted.
const CHANGES_SHOWN: usize = 40;

/// Whether a line is kept for later.
enum Kept {
    Yes,
    No,
}

/// Where a command's answer goes.
pub(super) struct Output {
    json: bool,
    terminal: bool,
    /// Answers of several commands that are to be one document.
    gathered: RefCell<Option<Vec<Value>>>,
    /// What is to be shown at once.
    frame: RefCell<Option<String>>,
    /// Whoever read the answers has gone.
    closed: cell::Cell<bool>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal() && !json,
            gathered: RefCell::default(),
            frame: RefCell::default(),
            closed: cell::Cell::default(),
        }
    }

    /// Keeps what is said until [`Output::end_frame`]. An answer for machines is a line then.
    pub(super) fn begin_frame(&self) {
        self.frame.replace(Some(String::new()));
    }

    /// What was said since [`Output::begin_frame`].
    pub(super) fn end_frame(&self) -> String {
        self.frame.take().unwrap_or_default()
    }

    /// Whether what was shown can be drawn over.
    pub(super) fn can_redraw(&self) -> bool {
        self.terminal && environment::variable("TERM").is_some_and(|terminal| terminal != "dumb")
    }

    pub(super) fn has_colour(&self) -> bool {
        self.terminal && AutoStream::choice(&io::stdout()) != ColorChoice::Never
    }

    /// Whether nobody reads what is written any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
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
        self.line(line)
    }

    /// A frame that was kept.
    pub(super) fn frame(&self, frame: &str) -> io::Result<()> {
        let frame = frame.trim_end_matches('\n');
        if self.json {
            self.raw(frame)
        } else {
            self.line(frame)
        }
    }

    /// A line whose colours are for terminals alone.
    fn line(&self, line: impl fmt::Display) -> io::Result<()> {
        match self.keep(&line) {
            Kept::Yes => Ok(()),
            Kept::No => self.unless_closed(writeln!(anstream::stdout(), "{line}")),
        }
    }

    /// A line as it is.
    fn raw(&self, line: impl fmt::Display) -> io::Result<()> {
        match self.keep(&line) {
            Kept::Yes => Ok(()),
            Kept::No => self.unless_closed(writeln!(io::stdout(), "{line}")),
        }
    }

    fn keep(&self, line: &impl fmt::Display) -> Kept {
        match self.frame.borrow_mut().as_mut() {
            None => Kept::No,
            Some(frame) => {
                frame.push_str(&line.to_string());
                frame.push('\n');
                Kept::Yes
            }
        }
    }

    /// Whoever read the output has read enough; the work goes on all the same.
    fn unless_closed(&self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.set(true);
                Ok(())
            }
            written => written,
        }
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
        let in_a_line = self.frame.borrow().is_some();
        if in_a_line {
            self.raw(answer)?;
        } else {
            self.raw(format_args!("{answer:#}"))?;
        }
        Ok(())
    }

    /// A table for people; in a pipe, lines with tabs between the columns.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        self.coloured_table(header, rows, |_, _| None)
    }

    /// The same with colours for some cells, by row and column.
    pub(super) fn coloured_table(
        &self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        colour: impl Fn(usize, usize) -> Option<Color>,
    ) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let rows = rows
            .into_iter()
            .map(|row| row.into_iter().map(|cell| plain(&cell)).collect::<Vec<_>>());
        if !self.terminal {
            let lines = rows.map(|row| row.join("\t"));
            let lines: Vec<String> = [header.join("\t")].into_iter().chain(lines).collect();
            return self.raw(lines.join("\n"));
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
            .add_rows(rows.enumerate().map(|(row, cells)| {
                let cells = cells.into_iter().enumerate();
                let cells = cells.map(|(column, text)| match colour(row, column) {
                    Some(colour) => Cell::new(text).fg(colour),
                    None => Cell::new(text),
                });
                cells.collect::<Vec<_>>()
            }));
        self.line(table)
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
