//! One project's whole story.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{
    super::output::{BOLD, DIM, GREEN, Output, RED, YELLOW, at, or_dash},
    next::next_try,
    story::{Facts, LastChange, Tone, story},
};
use crate::{
    budget::Reserve,
    clock::{self, Instant},
    project::ProjectId,
    run::Trigger,
    schedule::Schedule,
    store::{Condition, Ended, HistoryFilter, RecordedRun, Store},
};

/// How many runs are shown.
const RUNS_SHOWN: usize = 5;

/// Up to how many runs are looked through for the first of those that failed.
const RUNS_READ: u32 = 200;

pub(super) async fn show(
    id: &ProjectId,
    schedule: &Schedule,
    blocked_every: TimeDelta,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<()> {
    let status = store.read_status(id).await?;
    let now = clock::now();
    let failures = u32::try_from(status.consecutive_failures).unwrap_or(RUNS_READ);
    let most = failures.clamp(u32::try_from(RUNS_SHOWN)?, RUNS_READ);
    let runs = store.read_runs(id, most).await?;
    let holds = store.read_holds(Some(id), Ended::LeftOut).await?;
    let ledger = store.load_ledger(id).await?;
    let shared_with = store.list_sharing_key(id, &status.project.key_id).await?;
    let latest = HistoryFilter {
        limit: Some(1),
        ..HistoryFilter::default()
    };
    let last_change = store.read_history(id, &latest).await?;
    let fleet_workers = store.read_workers(now).await?;
    let reserve = match status.pending.as_ref().map(|pending| pending.trigger) {
        Some(Trigger::Request | Trigger::Command) => Reserve::OnDemand,
        Some(Trigger::Schedule | Trigger::Retry) | None => Reserve::Scheduled,
    };
    let cron = status.project.cron.as_ref();
    let facts = Facts {
        condition: Condition::of(&status, schedule.stale_before(cron, now)),
        failing_since: failing_since(failures, &runs),
        last_change: last_change.first().map(|logged| LastChange {
            at: logged.at,
            counts: runs
                .iter()
                .find(|recorded| recorded.run.id == logged.run_id)
                .map(|recorded| recorded.run.counts.clone()),
        }),
        last_run: runs.first(),
        budget: ledger.left(now),
        budget_ready_at: ledger.ready_at(reserve, now),
        reserve,
        shared_with: &shared_with,
        next_try: next_try(&status, schedule, blocked_every),
        workers: fleet_workers.len(),
        status: &status,
    };
    let sentences = story(&facts, now);
    let shown = runs.get(..RUNS_SHOWN.min(runs.len())).unwrap_or_default();

    let mut answer = serde_json::to_value(&status)?;
    if let Value::Object(fields) = &mut answer {
        let more = BTreeMap::from([
            ("condition", json!(facts.condition)),
            ("story", json!(sentences)),
            ("failing_since", json!(facts.failing_since)),
            ("next_try_at", json!(facts.next_try)),
            (
                "budget",
                json!({
                    "limit": facts.budget.limit,
                    "left": facts.budget.left,
                    "ready_at": facts.budget_ready_at,
                    "shared_with": shared_with,
                }),
            ),
            ("last_change_at", json!(last_change.first().map(|it| it.at))),
            ("holds", json!(holds)),
            ("runs", json!(shown)),
            ("workers", json!(fleet_workers)),
        ]);
        fields.extend(
            more.into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    output.json(&answer)?;

    for sentence in &sentences {
        let style = match sentence.tone {
            Tone::Plain => anstyle::Style::new(),
            Tone::Good => GREEN,
            Tone::Warning => YELLOW,
            Tone::Bad => RED,
        };
        let text = &sentence.text;
        output.say(match sentence.label {
            "" => format!("{style}{BOLD}{text}{BOLD:#}{style:#}"),
            label => format!("  {DIM}{label:<14}{DIM:#}{style}{text}{style:#}"),
        })?;
    }
    for recorded in &holds {
        output.held(&recorded.hold())?;
    }
    if shown.is_empty() {
        return Ok(());
    }
    output.say("")?;
    output.table(
        &[
            "run", "trigger", "outcome", "error", "changes", "requests", "ms",
        ],
        shown.iter().map(row).collect(),
    )?;
    Ok(())
}

/// When the first of the last runs ended that all failed; none when it is not known any more, or there is none.
fn failing_since(failures: u32, runs: &[RecordedRun]) -> Option<Instant> {
    let first = usize::try_from(failures).ok()?.checked_sub(1)?;
    Some(runs.get(first)?.run.finished_at)
}

fn row(recorded: &RecordedRun) -> Vec<String> {
    let run = &recorded.run;
    vec![
        at(run.started_at),
        run.trigger.to_string(),
        run.outcome.to_string(),
        or_dash(run.error.as_ref().map(|error| error.code)),
        run.counts.to_string(),
        run.cost.requests.to_string(),
        (run.finished_at - run.started_at)
            .num_milliseconds()
            .to_string(),
    ]
}
