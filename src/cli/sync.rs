//! `sync`, `plan`, `approve`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::{
    Verdict,
    output::{BOLD, GREEN, Output, RED, YELLOW, counted, plain},
    wiring::Wiring,
};
use crate::{
    asc::Meter,
    catalog::{Answer, Digest, Hold, Kind},
    diagnosis::Diagnosis,
    project::ProjectId,
    run::{Outcome, Trigger},
    sync::{Engine, Error, Report, Unrecorded, Waiting},
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
    let extent = if args.all { Extent::All } else { Extent::Named };
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
        let mut seen = HashSet::new();
        args.ids
            .into_iter()
            .filter(|id| seen.insert(id.clone()))
            .collect::<Vec<_>>()
    };
    stoppable(
        &engine,
        run(
            &ids,
            extent,
            &engine,
            wiring.config.sync.concurrency,
            output,
        ),
    )
    .await
}

/// Does the work; at the first SIGINT or SIGTERM it ends without writing more and gives its leases back, at the second at once.
async fn stoppable<T>(
    engine: &Engine,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut work = Box::pin(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        anyhow::ensure!(
            !engine.cut.is_cancelled(),
            "stopped at once; leases run out by themselves"
        );
        engine.stop.cancel();
        engine.cut.cancel();
    }
}

/// How projects came to be synced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// By name: each is to be synced by this command.
    Named,
    /// As all there are: it does as well if another worker has one in hand.
    All,
}

/// Syncs these projects, telling each as it ends.
pub(super) async fn run(
    ids: &[ProjectId],
    extent: Extent,
    engine: &Engine,
    concurrency: usize,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let progress = Progress::start(ids, output);
    let mut runs = stream::iter(ids)
        .map(async |id| {
            let meter = progress.meter();
            let began = Instant::now();
            let run = engine.run(id, Trigger::Command, None, &meter).await;
            (id, began.elapsed(), run)
        })
        .buffer_unordered(concurrency);
    let mut verdict = Verdict::Done;
    let mut answers = Vec::new();
    while let Some((id, lasted, result)) = runs.next().await {
        progress.bar.inc(1);
        let (outcome, answer) = match result {
            Ok(report) => {
                progress.bar.suspend(|| tell(id, &report, output))?;
                (verdict_of(&report), answer(id, &report))
            }
            Err(error @ Error::Leased { .. }) if extent == Extent::All => {
                progress.bar.suspend(|| {
                    output.say(format_args!("{BOLD}{id}{BOLD:#} left to another: {error}"))
                })?;
                (
                    Verdict::Done,
                    json!({ "project": id, "left": { "code": error.code(), "sentence": error.to_string() } }),
                )
            }
            Err(error) => {
                unrecorded(id, engine, lasted).log(&error);
                let line = format!("{BOLD}{id}{BOLD:#} {RED}not synced{RED:#}: {error}");
                progress.bar.suspend(|| output.say(line))?;
                let why = json!({ "code": error.code(), "sentence": error.to_string() });
                (Verdict::Failed, json!({ "project": id, "error": why }))
            }
        };
        verdict = worse(verdict, outcome);
        answers.push(answer);
    }
    progress.bar.finish_and_clear();
    output.json(&answers)?;
    Ok(verdict)
}

fn unrecorded<'a>(project: &'a ProjectId, engine: &'a Engine, lasted: Duration) -> Unrecorded<'a> {
    Unrecorded {
        project,
        trigger: Trigger::Command,
        epoch: None,
        worker: engine.store.worker(),
        lasted,
    }
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
    match &preview.hold {
        Some(hold) if preview.stands => output.hold(id, hold)?,
        Some(hold) => {
            output.held(hold)?;
            output.say("  A sync would hold them, and say how to let them through.")?;
        }
        None => {}
    }
    tell_waiting(&preview.waiting, output)?;
    let requests = counted(preview.cost.requests, "request");
    let failed = preview.failures.len() == Kind::ALL.len();
    output.say(if failed {
        format!("{BOLD}{id}{BOLD:#} {RED}cannot be compared{RED:#} ({requests})")
    } else {
        format!(
            "{BOLD}{id}{BOLD:#} would have: {} ({requests})",
            changes.counts()
        )
    })?;
    tell_failures(&preview.failures, "could not be compared", output)?;
    output.json(&json!({
        "project": id,
        "changes": changes,
        "counts": changes.counts(),
        "hold": preview.hold,
        "waiting": preview.waiting,
        "failures": preview.failures,
        "cost": preview.cost,
    }))?;
    Ok(if failed {
        Verdict::Failed
    } else if !changes.is_empty() || preview.hold.is_some() {
        Verdict::Undecided
    } else if preview.error.is_some() {
        Verdict::Failed
    } else {
        Verdict::Done
    })
}

/// Syncs with the hold of this digest released; refuses when upstream has moved since it was shown.
pub(super) async fn approve(
    id: &ProjectId,
    digest: &Digest,
    engine: &Engine,
    output: &Output,
) -> anyhow::Result<Verdict> {
    match engine.store.load_state(id).await?.hold {
        None if engine.reopen(id, digest).await? => {
            output.say("The decision to keep these things is taken back; they are held again.")?;
        }
        None => anyhow::bail!(
            "nothing of project '{id}' is held under {digest}; 'catalog-sync holds {id} --all' shows what was"
        ),
        Some(hold) if hold.digest != *digest => {
            return Err(other_digest(id, digest, &hold));
        }
        Some(_) => {}
    }
    let meter = Arc::new(Meter::default());
    let run = async {
        let began = Instant::now();
        let run = engine.run(id, Trigger::Command, Some(digest), &meter);
        Ok(run
            .await
            .inspect_err(|error| unrecorded(id, engine, began.elapsed()).log(error))?)
    };
    let report = Box::pin(stoppable(engine, run)).await?;
    tell(id, &report, output)?;
    if let Some(hold) = &report.hold {
        let looked = hold
            .removals
            .iter()
            .all(|held| report.run.covered.contains(&held.key.kind));
        output.say(format_args!(
            "{YELLOW}{}; what is held now has digest {}{YELLOW:#}",
            if looked {
                "Not approved: upstream has moved since"
            } else {
                "Not approved for what could not be looked at in this run"
            },
            hold.digest
        ))?;
    }
    let still_held = report.run.hold.as_ref().map_or(0, |hold| hold.removals);
    let removed = report.run.counts.total().removed;
    output.json(
        &json!({ "removed": removed, "still_held": still_held, "sync": answer(id, &report) }),
    )?;
    Ok(verdict_of(&report))
}

/// Decides that what is held stays in the catalog.
pub(super) async fn discard(
    id: &ProjectId,
    digest: &Digest,
    engine: &Engine,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let Some(hold) = engine.discard(id, digest).await? else {
        return Err(match engine.store.load_state(id).await?.hold {
            Some(hold) => other_digest(id, digest, &hold),
            None => anyhow::anyhow!(
                "nothing of project '{id}' is held under {digest}; 'catalog-sync holds {id} --all' shows what was"
            ),
        });
    };
    let kept = hold.removals.len();
    output.say(format_args!(
        "{BOLD}{id}{BOLD:#} keeps {}, though Apple does not list {} any more; 'catalog-sync approve {id} {digest}' \
         takes that back and removes {}",
        if kept == 1 { "1 thing".to_owned() } else { format!("{kept} things") },
        if kept == 1 { "it" } else { "them" },
        if kept == 1 { "it" } else { "them" },
    ))?;
    output.json(&json!({ "project": id, "kept": kept, "digest": digest }))?;
    Ok(Verdict::Done)
}

fn other_digest(id: &ProjectId, digest: &Digest, hold: &Hold) -> anyhow::Error {
    anyhow::anyhow!(
        "no hold of project '{id}' has digest {digest}; the one there is has {}: {hold}; 'catalog-sync holds {id}' shows it",
        hold.digest
    )
}

/// What is not listed any more and stays for now.
fn tell_waiting(waiting: &[Waiting], output: &Output) -> std::io::Result<()> {
    for said in [Some(Answer::There), Some(Answer::Gone), None] {
        let of: Vec<&Waiting> = waiting
            .iter()
            .filter(|waiting| waiting.absence.answer == said)
            .collect();
        let Some(first) = of.first() else { continue };
        let id = first
            .product_id
            .as_deref()
            .unwrap_or(first.key.store_id.as_str());
        let and = match of.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = match said {
            Some(Answer::There) => {
                "not listed, yet there when asked for by id: Apple's listing leaves it out, it stays"
            }
            Some(Answer::Gone) => "gone at Apple; it stays until what is in it is gone too",
            Some(Answer::Unknown) | None => {
                "not listed any more; it stays until a later listing, five minutes from now or more, confirms that"
            }
        };
        output.say(format_args!(
            "  {YELLOW}? {}{and}{YELLOW:#} {why}",
            plain(id)
        ))?;
    }
    Ok(())
}

fn verdict_of(report: &Report) -> Verdict {
    match report.run.outcome {
        Outcome::Failed | Outcome::Partial => Verdict::Failed,
        Outcome::Held => Verdict::Undecided,
        Outcome::Succeeded => Verdict::Done,
    }
}

pub(super) fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
        (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
        _ => Verdict::Done,
    }
}

/// Tells what a run did.
pub(super) fn tell(id: &ProjectId, report: &Report, output: &Output) -> std::io::Result<()> {
    let Report {
        run,
        plan,
        hold,
        committed,
        hold_ended: _,
        waiting,
        epoch: _,
        timings: _,
    } = report;
    let style = match run.outcome {
        Outcome::Succeeded => GREEN,
        Outcome::Held | Outcome::Partial => YELLOW,
        Outcome::Failed => RED,
    };
    output.changes(plan.changes())?;
    if let Some(hold) = hold {
        output.hold(id, hold)?;
    }
    tell_waiting(waiting, output)?;
    for unforeseen in &committed.unforeseen {
        output.say(format_args!(
            "  {YELLOW}Apple sends what this version does not know{YELLOW:#}: {} {} {}; it is kept as it is",
            unforeseen.kind,
            plain(&unforeseen.attribute),
            plain(unforeseen.value.as_deref().unwrap_or("(an attribute)"))
        ))?;
    }
    let what = if run.outcome == Outcome::Failed {
        String::new()
    } else {
        format!(": {}", run.counts)
    };
    let rows = match committed.rows {
        0 => "0 rows written".to_owned(),
        rows => counted(rows, "row") + " written",
    };
    output.say(format_args!(
        "{BOLD}{id}{BOLD:#} {style}{}{style:#}{what} ({}, {rows}, revision {}, {})",
        run.outcome,
        counted(run.cost.requests, "request"),
        committed.revision,
        lasting(run.finished_at - run.started_at)
    ))?;
    match &run.error {
        Some(why) if run.outcome == Outcome::Failed => output.diagnosis(why),
        _ => tell_failures(&run.failures, "left as they were", output),
    }
}

/// Tells each failure once, with all the kinds that it is about.
fn tell_failures(
    failures: &BTreeMap<Kind, Diagnosis>,
    what: &str,
    output: &Output,
) -> std::io::Result<()> {
    let mut told: Vec<(&Diagnosis, Vec<&str>)> = Vec::new();
    for (kind, why) in failures {
        let noun = kind.noun(2);
        match told
            .iter_mut()
            .find(|(told, _)| (told.code, &told.sentence) == (why.code, &why.sentence))
        {
            Some((_, nouns)) => nouns.push(noun),
            None => told.push((why, vec![noun])),
        }
    }
    for (why, nouns) in told {
        output.say(format_args!(
            "{YELLOW}{} {what}{YELLOW:#}",
            nouns.join(", ")
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
        "hold": report.hold,
        "waiting": report.waiting,
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
