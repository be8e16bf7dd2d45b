//! How far a long command is, on a terminal; nothing in a pipe.

use std::{cell::Cell, fmt::Write, sync::Arc, time::Duration};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::output::{Output, counted};
use crate::{asc::Meter, project::ProjectId, store::Step};

/// How often what shows the time is drawn.
const TICK: Duration = Duration::from_millis(100);

/// A bar for so many things, with their rate and the time left; its message comes last.
pub(super) fn bar(length: u64, noun: &str, output: &Output) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{pos}}/{{len}} {noun}, {{rate}}, {{left}}{{msg}}");
    let style = style(&template)
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
            write!(text, "{:.1} a second", state.per_sec()).ok();
        })
        .with_key("left", |state: &ProgressState, text: &mut dyn Write| {
            // Of nothing done yet nobody knows how long the rest takes.
            match state.pos() {
                0 => write!(text, "just begun"),
                _ => write!(text, "{} left", HumanDuration(state.eta())),
            }
            .ok();
        });
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// A sign of life with the time it has taken, for what has no length.
pub(super) fn spinner(output: &Output) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}, {elapsed}"));
    bar.enable_steady_tick(TICK);
    bar
}

/// What a migration is told as.
pub(super) fn step(step: Step) -> String {
    let Step {
        migration,
        number,
        of,
    } = step;
    format!(
        "migration {number} of {of}: {:04} {}",
        migration.version, migration.name
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this module are valid")
}

/// A bar for several projects, and a spinner that counts requests for one.
pub(super) struct Progress {
    pub(super) bar: ProgressBar,
    meter: Arc<Meter>,
    shared: bool,
    failed: Cell<u64>,
}

impl Progress {
    pub(super) fn start(ids: &[ProjectId], output: &Output) -> Self {
        let meter = Arc::new(Meter::default());
        let bar = match ids {
            [id] => {
                let counting = Arc::clone(&meter);
                let requests = move |_: &ProgressState, text: &mut dyn Write| {
                    let counted = counted(counting.cost().requests, "request");
                    write!(text, "{counted}").ok();
                };
                let bar = spinner(output).with_message(id.to_string());
                bar.set_style(
                    style("{spinner} {msg}: {requests} {elapsed}").with_key("requests", requests),
                );
                bar
            }
            ids => bar(ids.len() as u64, "projects", output),
        };
        Self {
            bar,
            meter,
            shared: ids.len() == 1,
            failed: Cell::default(),
        }
    }

    /// The meter of one run: the one that is shown, when there is only one run.
    pub(super) fn meter(&self) -> Arc<Meter> {
        if self.shared {
            Arc::clone(&self.meter)
        } else {
            Arc::new(Meter::default())
        }
    }

    /// One more of them failed.
    pub(super) fn fail(&self) {
        let failed = self.failed.get() + 1;
        self.failed.set(failed);
        if !self.shared {
            self.bar.set_message(format!(", {failed} failed"));
        }
    }
}
