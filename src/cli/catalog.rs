//! `catalog`, `runs`, `status`, `holds`: what the database says.

use std::collections::BTreeMap;

use anyhow::bail;

use super::{
    Verdict,
    output::{BOLD, DIM, GREEN, Output, RED, YELLOW, ago, at, counted, or_dash, plain},
};
use crate::{
    catalog::Kind,
    clock::{self, Instant},
    project::ProjectId,
    run::Outcome,
    store::{Ended, GracePeriod, RecordedHold, Removed, Shelf, Status, Store},
};

/// Shows the rows of the views.
pub(super) async fn catalog(
    id: &ProjectId,
    removed: bool,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let shelf = store
        .read_shelf(
            id,
            if removed {
                Removed::Included
            } else {
                Removed::LeftOut
            },
        )
        .await?;
    output.json(&shelf)?;
    tell_things(&shelf, removed, output)?;
    output.say(match &shelf.grace_period {
        None => "billing grace period: not read yet".to_owned(),
        Some(grace) => format!("billing grace period: {}", grace_sentence(grace)),
    })?;
    if removed {
        let present_since = shelf.grace_period.map(|grace| grace.changed_at);
        for past in store.read_grace_periods(id).await? {
            let since = past.first_seen_at;
            if present_since != Some(since) {
                let sentence = grace_sentence(&past.into());
                output.say(format_args!("  from {}: {sentence}", at(since)))?;
            }
        }
    }
    Ok(Verdict::Done)
}

/// Shows the same as it was.
pub(super) async fn catalog_at(
    id: &ProjectId,
    removed: bool,
    then: Instant,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    if then > clock::now() {
        bail!("{} is in the future: name a time that has been", at(then));
    }
    let shelf = store.read_shelf_at(id, then).await?;
    let shelf = if removed { shelf } else { shelf.present() };
    output.json(&shelf)?;
    output.say(format_args!("{BOLD}{id}{BOLD:#} as it was on {}", at(then)))?;
    tell_things(&shelf, removed, output)?;
    output.say(match &shelf.grace_period {
        None => "billing grace period: not read by then".to_owned(),
        Some(grace) => format!("billing grace period: {}", grace_sentence(grace)),
    })?;
    Ok(Verdict::Done)
}

fn tell_things(shelf: &Shelf, removed: bool, output: &Output) -> anyhow::Result<()> {
    let columns = |header: &[&'static str]| -> Vec<&'static str> {
        header
            .iter()
            .copied()
            .chain(removed.then_some("removed"))
            .collect()
    };
    let row = |cells: Vec<String>, removed_at: Option<Instant>| -> Vec<String> {
        cells
            .into_iter()
            .chain(removed.then(|| or_dash(removed_at.map(at))))
            .collect()
    };
    output.table(
        &columns(&[
            "product_id",
            "kind",
            "name",
            "state",
            "period",
            "group",
            "level",
            "store_id",
        ]),
        shelf
            .products
            .iter()
            .map(|product| {
                let cells = vec![
                    or_dash(product.product_id.as_ref()),
                    or_dash(product.kind.as_ref()),
                    or_dash(product.name.as_ref()),
                    mark(
                        or_dash(product.state.as_ref()),
                        product.missing_since,
                        product.kept_since,
                    ),
                    or_dash(product.period.as_ref()),
                    or_dash(product.group_name.as_ref()),
                    or_dash(product.group_level),
                    product.store_id.clone(),
                ];
                row(cells, product.removed_at)
            })
            .collect(),
    )?;
    output.table(
        &columns(&["subscription_group", "store_id"]),
        shelf
            .subscription_groups
            .iter()
            .map(|group| {
                row(
                    vec![
                        mark(
                            or_dash(group.name.as_ref()),
                            group.missing_since,
                            group.kept_since,
                        ),
                        group.store_id.clone(),
                    ],
                    group.removed_at,
                )
            })
            .collect(),
    )?;
    Ok(())
}

/// Says beside a value that the latest listing did not have the thing.
fn mark(value: String, missing_since: Option<Instant>, kept_since: Option<Instant>) -> String {
    match (missing_since, kept_since) {
        (None, _) => value,
        (Some(_), None) => format!("{value} (missing)"),
        (Some(_), Some(_)) => format!("{value} (missing, kept)"),
    }
}

fn grace_sentence(grace: &GracePeriod) -> String {
    let setting = match (grace.opt_in, grace.duration_days) {
        (Some(true), Some(days)) => format!("{days} days"),
        (Some(true), None) => "on, length unknown".to_owned(),
        (Some(false), _) => "off".to_owned(),
        (None, _)
            if grace
                .attributes
                .as_object()
                .is_some_and(|attributes| !attributes.is_empty()) =>
        {
            "unknown whether on or off".to_owned()
        }
        (None, _) => "none set".to_owned(),
    };
    let renewals = grace
        .renewal_type
        .as_ref()
        .map(|kind| format!(", for {}", kind.replace('_', " ")));
    let sandbox = grace.sandbox_opt_in.map(|on| {
        if on {
            ", sandbox too"
        } else {
            ", not in the sandbox"
        }
    });
    let checked = grace
        .checked_at
        .map(|checked_at| format!(" (checked {})", at(checked_at)));
    [Some(setting), renewals, sandbox.map(str::to_owned), checked]
        .into_iter()
        .flatten()
        .collect()
}

/// Shows a project's runs, the newest first.
pub(super) async fn runs(
    id: &ProjectId,
    limit: u32,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let runs = store.read_runs(id, limit).await?;
    output.json(&runs)?;
    let rows = runs
        .iter()
        .map(|recorded| {
            let run = &recorded.run;
            vec![
                at(run.started_at),
                run.trigger.to_string(),
                run.outcome.to_string(),
                or_dash(run.error.as_ref().map(|error| error.code)),
                run.counts.to_string(),
                or_dash(run.hold.as_ref().map(|hold| hold.removals)),
                run.cost.requests.to_string(),
                run.cost.retries.to_string(),
                (run.finished_at - run.started_at)
                    .num_milliseconds()
                    .to_string(),
                recorded.revision.to_string(),
            ]
        })
        .collect();
    output.table(
        &[
            "started", "trigger", "outcome", "error", "changes", "held", "requests", "retries",
            "ms", "revision",
        ],
        rows,
    )?;
    Ok(Verdict::Done)
}

/// Shows how all projects fare, the worst first, or one project's story.
pub(super) async fn status(
    id: Option<&ProjectId>,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let Some(id) = id else {
        let mut statuses = store.read_statuses().await?;
        statuses.sort_by_key(|status| (severity(status), status.last_success_at));
        output.json(&statuses)?;
        let rows = statuses
            .iter()
            .map(|status| {
                vec![
                    status.project.id.to_string(),
                    state(status).to_owned(),
                    ago(status.last_success_at),
                    ago(status.last_attempt_at),
                    or_dash(status.error.as_ref().map(|error| error.code)),
                    products(&status.present).to_string(),
                    or_dash(status.hold.as_ref().map(|hold| hold.removals)),
                    status.missing.to_string(),
                ]
            })
            .collect();
        output.table(
            &[
                "project",
                "state",
                "last_success",
                "last_attempt",
                "error",
                "products",
                "held",
                "missing",
            ],
            rows,
        )?;
        let master_keys: Vec<String> = store
            .list_master_keys()
            .await?
            .into_iter()
            .filter(|known| known.retired_at.is_none())
            .map(|known| format!("{} seals {}", known.id, counted(known.api_keys, "API key")))
            .collect();
        if !master_keys.is_empty() {
            output.say(format_args!(
                "{DIM}master keys: {}{DIM:#}",
                master_keys.join(", ")
            ))?;
        }
        return Ok(Verdict::Done);
    };
    let status = store.read_status(id).await?;
    let holds = store.read_holds(Some(id), Ended::LeftOut).await?;
    output.json(&status)?;
    tell(&status, &holds, output)?;
    Ok(Verdict::Done)
}

fn tell(status: &Status, holds: &[RecordedHold], output: &Output) -> anyhow::Result<()> {
    let project = &status.project;
    let style = match severity(status) {
        0 => RED,
        1..=3 => YELLOW,
        _ => GREEN,
    };
    output.say(format_args!(
        "{BOLD}{}{BOLD:#} is {style}{}{style:#}",
        project.id,
        state(status)
    ))?;
    output.say(format_args!(
        "  app           {} ({}, {})",
        project.app.name, project.app.id, project.app.bundle_id
    ))?;
    output.say(format_args!(
        "  key           {}{}",
        project.key_id,
        if project.issuer_id.is_none() {
            ", an individual key"
        } else {
            ""
        }
    ))?;
    output.say(format_args!(
        "  last success  {}",
        when(status.last_success_at)
    ))?;
    output.say(format_args!(
        "  last attempt  {}",
        when(status.last_attempt_at)
    ))?;
    let counts: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::GracePeriod)
        .map(|kind| {
            let count = status.present.get(&kind).copied().unwrap_or_default();
            format!(
                "{count} {}",
                kind.noun(usize::try_from(count).unwrap_or_default())
            )
        })
        .collect();
    output.say(format_args!(
        "  catalog       {}; revision {}",
        counts.join(", "),
        status.revision
    ))?;
    if status.missing > 0 {
        let held = status.hold.as_ref().map_or(0, |hold| hold.removals);
        output.say(format_args!(
            "  missing       {} not in Apple's latest listing: {held} held, {} kept; 'catalog-sync catalog {}' marks them, \
             'catalog-sync holds {} --all' tells what was decided",
            status.missing, status.kept, project.id, project.id
        ))?;
    }
    if status.consecutive_failures > 0 {
        output.say(format_args!(
            "  failures      {} in a row",
            status.consecutive_failures
        ))?;
    }
    tell_work(status, output)?;
    if let Some(error) = &status.error {
        output.diagnosis(error)?;
    }
    for recorded in holds {
        output.say(format_args!(
            "  held since    {}",
            when(Some(recorded.held_at))
        ))?;
        output.hold(&project.id, &recorded.hold())?;
    }
    Ok(())
}

/// What is under way, waits, or is due.
fn tell_work(status: &Status, output: &Output) -> anyhow::Result<()> {
    let project = &status.project;
    if let Some(until) = status
        .leased_until
        .filter(|until| *until > crate::clock::now())
    {
        output.say(format_args!(
            "  being synced  by {} with a lease until {}",
            status.leased_by.as_deref().unwrap_or("a worker"),
            at(until)
        ))?;
    }
    if let Some(pending) = &status.pending {
        output.say(format_args!(
            "  asked for     {} ({}{})",
            when(Some(pending.requested_at)),
            pending.trigger,
            pending
                .reason
                .as_ref()
                .map(|reason| format!(": {}", plain(reason)))
                .unwrap_or_default()
        ))?;
        if pending.ready_at > crate::clock::now() {
            output.say(format_args!("  not before    {}", at(pending.ready_at)))?;
        }
    }
    if let Some(next) = status.next_due_at {
        let by = match &project.cron {
            Some(cron) => format!("its own schedule, '{cron}'"),
            None => "the schedule of all".to_owned(),
        };
        output.say(format_args!("  next due      {} by {by}", at(next)))?;
    }
    if let Some(since) = status.set_aside_at {
        output.say(format_args!(
            "  {RED}set aside{RED:#}     since {}: its last three runs lost their workers; \
             'catalog-sync project resume {}' takes it up again",
            at(since),
            project.id
        ))?;
    }
    Ok(())
}

fn when(instant: Option<Instant>) -> String {
    instant.map_or_else(
        || "never".to_owned(),
        |instant| format!("{} ({})", at(instant), ago(Some(instant))),
    )
}

fn products(present: &BTreeMap<Kind, i64>) -> i64 {
    [Kind::InAppPurchase, Kind::Subscription]
        .iter()
        .filter_map(|kind| present.get(kind))
        .sum()
}

/// The worst first: failing or set aside, held, partial, new, fine, paused.
fn severity(status: &Status) -> u8 {
    match status.outcome {
        _ if status.project.paused_at.is_some() => 5,
        _ if status.set_aside_at.is_some() => 0,
        Some(Outcome::Failed) => 0,
        _ if status.hold.is_some() => 1,
        Some(Outcome::Partial) => 2,
        None => 3,
        Some(Outcome::Succeeded | Outcome::Held) => 4,
    }
}

fn state(status: &Status) -> &'static str {
    match severity(status) {
        0 if status.set_aside_at.is_some() => "set aside",
        0 => "failing",
        1 => "held",
        2 => "partly synced",
        3 => "not synced yet",
        4 => "fine",
        _ => "paused",
    }
}

/// Shows what is held back; with `all`, also what was.
pub(super) async fn holds(
    id: Option<&ProjectId>,
    all: bool,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let ended = if all { Ended::Included } else { Ended::LeftOut };
    let holds = store.read_holds(id, ended).await?;
    output.json(&holds)?;
    for recorded in &holds {
        let RecordedHold {
            project_id, digest, ..
        } = recorded;
        output.say(format_args!(
            "{BOLD}{project_id}{BOLD:#} digest {digest}, held since {}",
            at(recorded.held_at)
        ))?;
        match (recorded.ended, recorded.ended_at) {
            (Some(ended), Some(ended_at)) => {
                output.say(format_args!(
                    "  {ended} {}: {}",
                    at(ended_at),
                    recorded.reason
                ))?;
            }
            _ => output.hold(project_id, &recorded.hold())?,
        }
    }
    if holds.is_empty() {
        output.say("nothing is held")?;
    }
    let stands = holds.iter().any(|hold| hold.ended_at.is_none());
    Ok(if stands {
        Verdict::Undecided
    } else {
        Verdict::Done
    })
}
