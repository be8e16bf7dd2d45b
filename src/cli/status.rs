//! `status`: how all projects fare, the worst first, or one project's story; once, or again and again.

mod fleet;
mod next;
mod project;
mod story;
mod watch;
mod words;

use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::value_parser;

use super::{Verdict, output::Output, wiring::Wiring};
use crate::{config::Config, project::ProjectId, store::Store};

/// What to show.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this project, with its whole story
    id: Option<ProjectId>,
    /// Show at most this many projects
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        conflicts_with_all = ["all", "id"],
        value_parser = value_parser!(u32).range(1..)
    )]
    limit: u32,
    /// Show all projects
    #[arg(long, conflicts_with = "id")]
    all: bool,
    /// Show it anew every two seconds, or every so many, until ctrl-c or 'q'
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
}

pub(super) async fn status(
    args: Args,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let config = &wiring.config;
    let most = if args.all { u32::MAX } else { args.limit };
    let show = async || match &args.id {
        None => {
            fleet::show(
                most,
                &config.schedule.parse()?,
                blocked_every(config)?,
                &*store,
                output,
            )
            .await
        }
        Some(id) => project(id, config, &*store, output).await,
    };
    match args.watch {
        None => show().await?,
        Some(seconds) => watch::watch(Duration::from_secs(seconds), output, show).await?,
    }
    Ok(Verdict::Done)
}

/// Tells one project's story.
pub(super) async fn project(
    id: &ProjectId,
    config: &Config,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<()> {
    project::show(
        id,
        &config.schedule.parse()?,
        blocked_every(config)?,
        store,
        output,
    )
    .await
}

/// How often the schedule has a project looked at that waits for a person.
fn blocked_every(config: &Config) -> anyhow::Result<TimeDelta> {
    let minutes = i64::try_from(config.schedule.blocked_minutes)?;
    TimeDelta::try_minutes(minutes).context("schedule.blocked_minutes is too large")
}
