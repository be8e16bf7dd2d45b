//! `catalog`, `runs`, `holds`: what the database says.

use anyhow::bail;

use super::{
    Verdict,
    output::{BOLD, Output, at, or_dash},
};
use crate::{
    clock::{self, Instant},
    project::ProjectId,
    store::{Ended, GracePeriod, RecordedHold, Removed, Shelf, Store},
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
