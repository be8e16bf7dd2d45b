//! `resync`: asks the daemon for syncs.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Verdict,
    output::{BOLD, GREEN, Output, RED, YELLOW, counted},
    sync::worse,
};
use crate::{
    clock,
    project::ProjectId,
    run::Outcome,
    store::{Ask, RecordedRun, Status, Store},
};

/// Which syncs to ask for.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The projects
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<ProjectId>,
    /// All projects that are not paused
    #[arg(long)]
    all: bool,
    /// Why, for the log
    #[arg(long)]
    reason: Option<String>,
    /// Wait until they are done, and show what they came to
    #[arg(long)]
    wait: bool,
}

/// How often it is looked whether they are done.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// After so many looks at which nothing was under way, it is said that no daemon may be there.
const LOOKS_TO_WONDER: u32 = 12;

pub(super) async fn resync(
    args: Args,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let ids = if args.all {
        let projects = store.list_projects().await?.into_iter();
        projects
            .filter(|project| project.paused_at.is_none())
            .map(|project| project.id)
            .collect()
    } else {
        for id in &args.ids {
            let project = store.load_project(id).await?;
            anyhow::ensure!(
                project.paused_at.is_none(),
                crate::store::Error::Paused(project.id)
            );
        }
        args.ids
    };
    let asks: Vec<Ask> = ids
        .into_iter()
        .map(|project| Ask {
            project,
            reason: args.reason.clone(),
        })
        .collect();
    let tickets = store.ask(&asks, clock::now()).await?.tickets;
    output.say(format_args!(
        "{} asked for",
        counted(tickets.len() as u64, "sync")
    ))?;
    if args.wait {
        return wait(tickets, store, output).await;
    }
    output.json(&json!({ "asked": tickets.keys().collect::<Vec<_>>() }))?;
    Ok(Verdict::Done)
}

async fn wait(
    mut tickets: BTreeMap<ProjectId, i64>,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Done;
    let mut answers: Vec<Value> = Vec::new();
    let mut idle = 0;
    while !tickets.is_empty() {
        let began = Instant::now();
        let statuses = look(&tickets, store).await?;
        let mut moves = statuses.len() < tickets.len();
        let (there, removed): (BTreeMap<_, _>, BTreeMap<_, _>) = tickets
            .into_iter()
            .partition(|(id, _)| statuses.contains_key(id));
        tickets = there;
        for id in removed.keys() {
            verdict = Verdict::Failed;
            let why = "it was removed meanwhile";
            output.say(format_args!(
                "{BOLD}{id}{BOLD:#} {RED}not synced{RED:#}: {why}"
            ))?;
            answers.push(
                json!({ "project": id, "error": { "code": "unknown_project", "sentence": why } }),
            );
        }
        for (id, status) in &statuses {
            if tickets
                .get(id)
                .is_some_and(|ticket| status.served >= *ticket)
            {
                tickets.remove(id);
                moves = true;
                let Some(done) = store.read_runs(id, 1).await?.into_iter().next() else {
                    continue;
                };
                verdict = worse(verdict, tell(id, &done, output)?);
                answers.push(json!({ "project": id, "run": done }));
            } else if status.set_aside_at.is_some() {
                tickets.remove(id);
                moves = true;
                verdict = Verdict::Failed;
                let why = format!(
                    "it is set aside, because its runs lose their workers; 'catalog-sync project resume {id}' takes it up again"
                );
                output.say(format_args!(
                    "{BOLD}{id}{BOLD:#} {RED}not synced{RED:#}: {why}"
                ))?;
                answers.push(
                    json!({ "project": id, "error": { "code": "set_aside", "sentence": why } }),
                );
            }
            moves |= status
                .leased_until
                .is_some_and(|until| until > clock::now());
        }
        idle = if moves { 0 } else { idle + 1 };
        if idle == LOOKS_TO_WONDER {
            output.say(format_args!(
                "{YELLOW}nothing is under way: is 'catalog-sync run' running on this database?{YELLOW:#}"
            ))?;
        }
        if !tickets.is_empty() {
            // Looking at thousands of projects is not to keep the database busy.
            tokio::time::sleep(BETWEEN_LOOKS.max(9 * began.elapsed())).await;
        }
    }
    output.json(&answers)?;
    Ok(verdict)
}

async fn look(
    tickets: &BTreeMap<ProjectId, i64>,
    store: &dyn Store,
) -> anyhow::Result<BTreeMap<ProjectId, Status>> {
    let statuses = match tickets.first_key_value() {
        Some((id, _)) if tickets.len() == 1 => match store.read_status(id).await {
            Ok(status) => vec![status],
            Err(crate::store::Error::UnknownProject { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        },
        _ => store.read_statuses().await?,
    };
    Ok(statuses
        .into_iter()
        .map(|status| (status.project.id.clone(), status))
        .filter(|(id, _)| tickets.contains_key(id))
        .collect())
}

fn tell(id: &ProjectId, done: &RecordedRun, output: &Output) -> std::io::Result<Verdict> {
    let run = &done.run;
    let (style, verdict) = match run.outcome {
        Outcome::Succeeded => (GREEN, Verdict::Done),
        Outcome::Held => (YELLOW, Verdict::Undecided),
        Outcome::Partial => (YELLOW, Verdict::Failed),
        Outcome::Failed => (RED, Verdict::Failed),
    };
    output.say(format_args!(
        "{BOLD}{id}{BOLD:#} {style}{}{style:#}: {} ({}, revision {})",
        run.outcome,
        run.counts,
        counted(run.cost.requests, "request"),
        done.revision
    ))?;
    if let Some(hold) = &run.hold {
        output.hold_summary(id, hold)?;
    }
    if let Some(error) = &run.error {
        output.diagnosis(error)?;
    }
    Ok(verdict)
}
