//! How all projects fare together, and the worst of them.

use chrono::TimeDelta;
use comfy_table::Color;
use serde::Serialize;
use serde_json::json;

use super::{
    super::output::{DIM, Output, RED, YELLOW, counted, or_dash},
    next::{needs_a_person, next_try, products},
    words::lasting,
};
use crate::{
    clock::{self, Instant},
    diagnosis::Code,
    schedule::Schedule,
    store::{Condition, Fleet, KnownMasterKey, Status, Store, Worker},
};

/// More daemons than these are only counted.
const WORKERS_NAMED: usize = 8;

const STATE_COLUMN: usize = 1;

/// How a line of the head is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Warning,
    Bad,
}

/// A row of the table, for machines.
#[derive(Serialize)]
struct Shown<'a> {
    condition: Condition,
    next_try_at: Option<Instant>,
    #[serde(flatten)]
    status: &'a Status,
}

pub(super) async fn show(
    most: u32,
    schedule: &Schedule,
    blocked_every: TimeDelta,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<()> {
    let now = clock::now();
    let fleet = store.read_fleet(schedule, 0, now).await?;
    let worst = store.read_worst(schedule, most, now).await?;
    let master_keys = store.list_master_keys().await?;
    let shown: Vec<Shown<'_>> = worst
        .iter()
        .map(|status| {
            let cron = status.project.cron.as_ref();
            Shown {
                condition: Condition::of(status, schedule.stale_before(cron, now)),
                next_try_at: next_try(status, schedule, blocked_every),
                status,
            }
        })
        .collect();
    let keys: Vec<_> = master_keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id,
                "api_keys": key.api_keys,
                "first_seen_at": key.first_seen_at,
                "retired_at": key.retired_at,
            })
        })
        .collect();
    output.json(&json!({ "fleet": fleet, "master_keys": keys, "projects": shown }))?;

    for (tone, line) in head(&fleet, &master_keys, now) {
        output.say(match tone {
            Tone::Plain => line,
            Tone::Warning => format!("{YELLOW}{line}{YELLOW:#}"),
            Tone::Bad => format!("{RED}{line}{RED:#}"),
        })?;
    }
    if shown.is_empty() {
        return Ok(output.say(
            "add a project with 'catalog-sync project add ID --issuer-id .. --private-key AuthKey_..p8'",
        )?);
    }
    output.say("")?;
    output.coloured_table(
        &[
            "project",
            "state",
            "last_success",
            "last_attempt",
            "error",
            "next_run",
            "products",
            "held",
            "missing",
        ],
        shown.iter().map(|shown| row(shown, now)).collect(),
        |row, column| {
            let shown = shown.get(row).filter(|_| column == STATE_COLUMN)?;
            Some(colour(shown.condition))
        },
    )?;
    let all = fleet.fresh + fleet.stale + fleet.new + fleet.paused;
    match all.saturating_sub(shown.len() as u64) {
        0 => {}
        more => output.say(format_args!(
            "{DIM}and {more} more that fare no worse: --all or --limit N shows them{DIM:#}"
        ))?,
    }
    Ok(())
}

/// What there is to say before the table: the sum, and what is not as it should be.
fn head(fleet: &Fleet, master_keys: &[KnownMasterKey], now: Instant) -> Vec<(Tone, String)> {
    let mut lines = vec![(Tone::Plain, sum(fleet))];
    if !fleet.failing.is_empty() {
        let of_each = fleet.failing.iter().map(|(code, projects)| {
            let mark = match code.parse::<Code>() {
                Ok(code) if code.needs_a_person() => " (needs a person)",
                _ => "",
            };
            format!("{projects} with {code}{mark}")
        });
        let of_each: Vec<String> = of_each.collect();
        lines.push((Tone::Bad, format!("failing: {}", of_each.join(", "))));
    }
    if fleet.set_aside > 0 {
        lines.push((
            Tone::Bad,
            format!(
                "set aside: {}, as each of their last runs lost its worker",
                counted(fleet.set_aside, "project")
            ),
        ));
    }
    if fleet.held > 0 {
        lines.push((
            Tone::Warning,
            format!(
                "held: {} of {}, which wait for a decision: 'catalog-sync holds' shows them",
                counted(fleet.held_removals, "removal"),
                counted(fleet.held, "project")
            ),
        ));
    }
    lines.push(daemons(&fleet.workers, now));
    if fleet.pending > 0 {
        lines.push((Tone::Plain, pending(fleet, now)));
    }
    if fleet.spent_keys > 0 {
        lines.push((
            Tone::Warning,
            format!(
                "budget: {} little left of the hour, and scheduled syncs wait until there is more",
                if fleet.spent_keys == 1 {
                    "1 API key has".to_owned()
                } else {
                    format!("{} API keys have", fleet.spent_keys)
                }
            ),
        ));
    }
    for outbox in fleet.outboxes.iter().filter(|outbox| outbox.untold > 0) {
        let since = outbox.oldest_at.map_or(String::new(), |oldest_at| {
            format!(", the first of them since {}", lasting(now - oldest_at))
        });
        lines.push((
            Tone::Warning,
            format!(
                "{} is yet to be told of {}{since}",
                outbox.sink,
                counted(outbox.untold, "revision")
            ),
        ));
    }
    let in_use: Vec<String> = master_keys
        .iter()
        .filter(|key| key.retired_at.is_none())
        .map(|key| format!("{} seals {}", key.id, counted(key.api_keys, "API key")))
        .collect();
    if !in_use.is_empty() {
        lines.push((Tone::Plain, format!("master keys: {}", in_use.join(", "))));
    }
    lines
}

fn sum(fleet: &Fleet) -> String {
    let all = fleet.fresh + fleet.stale + fleet.new + fleet.paused;
    let parts = [
        (fleet.fresh, "fresh"),
        (fleet.stale, "stale"),
        (fleet.new, "new"),
        (fleet.paused, "paused"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match parts.as_slice() {
        [] => "no projects".to_owned(),
        parts => format!("{}: {}", counted(all, "project"), parts.join(", ")),
    }
}

fn daemons(workers: &[Worker], now: Instant) -> (Tone, String) {
    if workers.is_empty() {
        let none = "no daemon was heard of within the last minute: start one with 'catalog-sync run', or see in the log of the one \
                    that runs why it cannot write to the database";
        return (Tone::Bad, none.to_owned());
    }
    let named: Vec<String> = workers
        .iter()
        .take(WORKERS_NAMED)
        .map(|worker| {
            let since = lasting(now - worker.started_at);
            format!("{} ({}, for {since})", worker.name, worker.version)
        })
        .collect();
    let more = match workers.len().saturating_sub(WORKERS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let at_work = counted(workers.len() as u64, "daemon");
    (
        Tone::Plain,
        format!("{at_work} at work: {}{more}", named.join(", ")),
    )
}

fn pending(fleet: &Fleet, now: Instant) -> String {
    let waits = match fleet.ready_since {
        Some(since) => format!(
            ", and the one that waits the longest could have begun {} ago",
            lasting(now - since)
        ),
        None => ", and none of them has to wait for a worker".to_owned(),
    };
    format!("requests: {} to be answered{waits}", fleet.pending)
}

fn row(shown: &Shown<'_>, now: Instant) -> Vec<String> {
    let Shown {
        condition, status, ..
    } = shown;
    let ago = |at: Option<Instant>| {
        at.map_or_else(
            || "never".to_owned(),
            |at| format!("{} ago", lasting(now - at)),
        )
    };
    let next = match shown.next_try_at {
        _ if status.leased_until.is_some_and(|until| until > now) => "under way".to_owned(),
        None => "-".to_owned(),
        Some(at) if at <= now => "waits".to_owned(),
        Some(at) => format!("in {}", lasting(at - now)),
    };
    let cells = [
        status.project.id.to_string(),
        state(*condition, status).to_owned(),
        ago(status.last_success_at),
        ago(status.last_attempt_at),
        or_dash(status.error.as_ref().map(|error| error.code)),
        next,
        products(status).to_string(),
        or_dash(status.hold.as_ref().map(|hold| hold.removals)),
        status.missing.to_string(),
    ];
    cells.into()
}

fn state(condition: Condition, status: &Status) -> &'static str {
    match condition {
        Condition::SetAside => "set aside",
        Condition::Failing if needs_a_person(status) => "failing, needs a person",
        Condition::Failing => "failing",
        Condition::Held => "held",
        Condition::Partial => "partly synced",
        Condition::Stale => "stale",
        Condition::New => "not synced yet",
        Condition::Fresh => "fresh",
        Condition::Paused => "paused",
    }
}

fn colour(condition: Condition) -> Color {
    match condition {
        Condition::SetAside | Condition::Failing => Color::Red,
        Condition::Held | Condition::Partial | Condition::Stale => Color::Yellow,
        Condition::New | Condition::Paused => Color::DarkGrey,
        Condition::Fresh => Color::Green,
    }
}
