//! `project guard`: the limits that a project has of its own.

use clap::Args;
use serde_json::json;

use super::{
    Verdict,
    output::{BOLD, Output},
    wiring::Wiring,
};
use crate::{
    catalog::{Limits, OwnLimits},
    project::ProjectId,
};

#[derive(Args)]
pub(super) struct GuardArgs {
    /// The project
    id: ProjectId,
    /// Hold when more than this percentage of its products (or groups) would go at once..
    #[arg(long, value_name = "N", value_parser = percent)]
    removed_percent: Option<usize>,
    /// ..if it has at least this many of them
    #[arg(long, value_name = "N")]
    percent_from: Option<usize>,
    /// Hold when more than this many of its products (or groups) would go at once
    #[arg(long, value_name = "N")]
    removed_max: Option<usize>,
    /// Hold when a group would go that has more subscriptions than this
    #[arg(long, value_name = "N")]
    descendants_max: Option<usize>,
    /// Forget its own limits, so that those of worker.toml hold
    #[arg(
        long,
        conflicts_with_all = ["removed_percent", "percent_from", "removed_max", "descendants_max"]
    )]
    default: bool,
}

fn percent(text: &str) -> Result<usize, String> {
    let most = Limits::MOST_PERCENT;
    text.parse()
        .ok()
        .filter(|percent| *percent <= most)
        .ok_or_else(|| format!("it must be 0 to {most}"))
}

/// Sets the limits that were given, if any, and shows which hold.
pub(super) async fn guard(
    args: &GuardArgs,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let GuardArgs {
        id,
        removed_percent,
        percent_from,
        removed_max,
        descendants_max,
        default,
    } = args;
    let given = OwnLimits {
        removed_percent: *removed_percent,
        percent_from: *percent_from,
        removed_max: *removed_max,
        descendants_max: *descendants_max,
    };
    let store = wiring.store().await?;
    let before = store.load_project(id).await?.guard;
    let own = if *default { given } else { given.or(&before) };
    if own != before {
        store.set_guard(id, &own).await?;
    }
    let limits = wiring.config.guard.with(&own);
    output.say(if own.is_empty() {
        format!("{BOLD}{id}{BOLD:#} has the limits of all")
    } else {
        format!("{BOLD}{id}{BOLD:#} has limits of its own")
    })?;
    let rows = [
        (
            "removed_percent",
            limits.removed_percent,
            own.removed_percent,
        ),
        ("percent_from", limits.percent_from, own.percent_from),
        ("removed_max", limits.removed_max, own.removed_max),
        (
            "descendants_max",
            limits.descendants_max,
            own.descendants_max,
        ),
    ];
    let rows = rows.map(|(name, limit, own)| {
        let from = own.map_or("worker.toml", |_| "its own");
        vec![name.to_owned(), limit.to_string(), from.to_owned()]
    });
    output.table(&["limit", "value", "from"], rows.into())?;
    output.json(&json!({ "project": id, "limits": limits, "own": own }))?;
    Ok(Verdict::Done)
}

/// `removed_percent 50, removed_max 3`.
pub(super) fn listed(own: &OwnLimits) -> String {
    let OwnLimits {
        removed_percent,
        percent_from,
        removed_max,
        descendants_max,
    } = *own;
    [
        ("removed_percent", removed_percent),
        ("percent_from", percent_from),
        ("removed_max", removed_max),
        ("descendants_max", descendants_max),
    ]
    .into_iter()
    .filter_map(|(name, limit)| Some(format!("{name} {}", limit?)))
    .collect::<Vec<_>>()
    .join(", ")
}
