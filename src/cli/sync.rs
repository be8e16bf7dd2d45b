//! `sync`, `plan`, `approve`.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Verdict,
    output::{BOLD, GREEN, Output, RED, YELLOW, counted},
    wiring::Wiring,
};
use crate::{
    asc::Meter,
    catalog::{Digest, Kind},
    project::ProjectId,
    run::{Outcome, Trigger},
    sync::{Engine, Report},
};

/// Which projects to sync.
#[derive(Args)]
pub(super) struct SyncArgs {
    /// The projects
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<ProjectId>,
    /// All projects that are not paused
    #[arg(long)]
    all: bool,
}

/// Syncs projects now, several at once.
pub(super) async fn sync(
    args: SyncArgs,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let engine = wiring.engine().await?;
    let ids = if args.all {
        let (paused, active): (Vec<_>, Vec<_>) = engine
            .store
            .list_projects()
            .await?
            .into_iter()
            .partition(|project| project.paused_at.is_some());
        if !paused.is_empty() {
            output.say(format_args!(
                "{} left out",
                counted(paused.len() as u64, "paused project")
            ))?;
        }
        active.into_iter().map(|project| project.id).collect()
    } else {
        args.ids
    };
    run(&ids, &engine, wiring.config.sync.concurrency, output).await
}

/// Syncs these projects, telling each as it ends.
pub(super) async fn run(
    ids: &[ProjectId],
    engine: &Engine,
    concurrency: usize,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let progress = Progress::start(ids, output);
    let mut runs = stream::iter(ids)
        .map(async |id| {
            let meter = progress.meter();
            (id, engine.run(id, Trigger::Command, None, &meter).await)
        })
        .buffer_unordered(concurrency);
    let mut verdict = Verdict::Done;
    let mut answers = Vec::new();
    while let Some((id, result)) = runs.next().await {
        progress.bar.inc(1);
        let (outcome, answer) = match result {
            Ok(report) => {
                progress.bar.suspend(|| tell(id, &report, output))?;
                (verdict_of(&report), answer(id, &report))
            }
            Err(error) => {
                progress.bar.suspend(|| {
                    output.say(format_args!(
                        "{BOLD}{id}{BOLD:#} {RED}not synced{RED:#}: {error}"
                    ))
                })?;
                (
                    Verdict::Failed,
                    json!({ "project": id, "error": { "sentence": error.to_string() } }),
                )
            }
        };
        verdict = worse(verdict, outcome);
        answers.push(answer);
    }
    progress.bar.finish_and_clear();
    output.json(&answers)?;
    Ok(verdict)
}

/// Shows what a sync would change.
pub(super) async fn plan(
    id: &ProjectId,
    engine: &Engine,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let progress = Progress::start(std::slice::from_ref(id), output);
    let meter = progress.meter();
    let preview = engine.preview(id, &meter).await;
    progress.bar.finish_and_clear();
    let preview = preview?;
    let changes = preview.plan.changes();
    output.changes(changes)?;
    if let Some(hold) = &preview.hold {
        output.hold(id, hold)?;
    }
    output.say(format_args!(
        "{BOLD}{id}{BOLD:#} would have: {} ({})",
        changes.counts(),
        counted(preview.cost.requests, "request")
    ))?;
    for (kind, why) in &preview.failures {
        output.say(format_args!(
            "{YELLOW}{} could not be compared{YELLOW:#}",
            kind.noun(2)
        ))?;
        output.diagnosis(why)?;
    }
    output.json(&json!({
        "project": id,
        "changes": changes,
        "counts": changes.counts(),
        "hold": preview.hold,
        "failures": preview.failures,
        "cost": preview.cost,
    }))?;
    Ok(
        match (&preview.error, changes.is_empty() && preview.hold.is_none()) {
            (Some(_), _) if preview.failures.len() == Kind::ALL.len() => Verdict::Failed,
            (_, false) => Verdict::Undecided,
            (Some(_), true) => Verdict::Failed,
            (None, true) => Verdict::Done,
        },
    )
}

/// Syncs with the hold of this digest released; refuses when upstream has moved since it was shown.
pub(super) async fn approve(
    id: &ProjectId,
    digest: &Digest,
    engine: &Engine,
    output: &Output,
) -> anyhow::Result<Verdict> {
    match engine.store.load_state(id).await?.hold {
        None => anyhow::bail!("nothing of project '{id}' is held"),
        Some(hold) if hold.digest != *digest => {
            anyhow::bail!(
                "no hold of project '{id}' has digest {digest}; the one there is has {}: {hold}",
                hold.digest
            )
        }
        Some(_) => {}
    }
    let report = engine
        .run(
            id,
            Trigger::Command,
            Some(digest),
            &Arc::new(Meter::default()),
        )
        .await?;
    tell(id, &report, output)?;
    if let Some(hold) = &report.run.hold {
        output.say(format_args!(
            "{YELLOW}Not approved: upstream has moved since. What is held now has digest {}{YELLOW:#}",
            hold.digest
        ))?;
    }
    output.json(&answer(id, &report))?;
    Ok(verdict_of(&report))
}

fn verdict_of(report: &Report) -> Verdict {
    match report.run.outcome {
        Outcome::Failed | Outcome::Partial => Verdict::Failed,
        Outcome::Held => Verdict::Undecided,
        Outcome::Succeeded => Verdict::Done,
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
        (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
        (Verdict::Done, Verdict::Done) => Verdict::Done,
    }
}

/// Tells what a run did.
pub(super) fn tell(id: &ProjectId, report: &Report, output: &Output) -> std::io::Result<()> {
    let Report {
        run,
        plan,
        committed,
        epoch: _,
    } = report;
    let style = match run.outcome {
        Outcome::Succeeded => GREEN,
        Outcome::Held | Outcome::Partial => YELLOW,
        Outcome::Failed => RED,
    };
    output.changes(plan.changes())?;
    if let Some(hold) = &run.hold {
        output.hold(id, hold)?;
    }
    output.say(format_args!(
        "{BOLD}{id}{BOLD:#} {style}{}{style:#}: {} ({}, {}, revision {}, {})",
        run.outcome,
        run.counts,
        counted(run.cost.requests, "request"),
        match committed.rows {
            0 => "0 rows written".to_owned(),
            rows => counted(rows, "row") + " written",
        },
        committed.revision,
        lasting(run.finished_at - run.started_at)
    ))?;
    if run.outcome == Outcome::Failed {
        return run
            .error
            .as_ref()
            .map_or(Ok(()), |why| output.diagnosis(why));
    }
    for (kind, why) in &run.failures {
        output.say(format_args!(
            "{YELLOW}{} left as they were{YELLOW:#}",
            kind.noun(2)
        ))?;
        output.diagnosis(why)?;
    }
    Ok(())
}

fn lasting(duration: TimeDelta) -> String {
    match duration.num_milliseconds() {
        milliseconds @ ..1000 => format!("{milliseconds} ms"),
        milliseconds => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
    }
}

fn answer(id: &ProjectId, report: &Report) -> Value {
    json!({
        "project": id,
        "run": report.run,
        "epoch": report.epoch,
        "revision": report.committed.revision,
        "rows_written": report.committed.rows,
        "changes": report.plan.changes(),
    })
}

/// A bar on a terminal for several projects, a spinner that counts requests for one, and nothing in a pipe.
struct Progress {
    bar: ProgressBar,
    meter: Arc<Meter>,
    shared: bool,
}

impl Progress {
    fn start(ids: &[ProjectId], output: &Output) -> Self {
        let meter = Arc::new(Meter::default());
        let shared = ids.len() == 1;
        if !output.shows_progress() {
            return Self {
                bar: ProgressBar::hidden(),
                meter,
                shared,
            };
        }
        let counting = Arc::clone(&meter);
        let (bar, template) = match ids {
            [id] => (
                ProgressBar::new_spinner().with_message(id.to_string()),
                "{spinner} {msg}: {requests} {elapsed}",
            ),
            ids => (
                ProgressBar::new(ids.len() as u64),
                "{bar:30} {pos}/{len} projects, {per_sec}, {eta} left",
            ),
        };
        let style = ProgressStyle::with_template(template)
            .expect("the templates above are valid")
            .with_key(
                "requests",
                move |_: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
                    let counted = counted(counting.cost().requests, "request");
                    write!(text, "{counted}").ok();
                },
            );
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, meter, shared }
    }

    /// The meter of one run: the one that is shown, when there is only one run.
    fn meter(&self) -> Arc<Meter> {
        if self.shared {
            Arc::clone(&self.meter)
        } else {
            Arc::new(Meter::default())
        }
    }
}
