//! The command line: parse, wire, print.
//!
//! Exit codes: 0 done, 1 failed, 2 a decision is needed (changes, a hold, several apps); 130 and 143: a second signal ended the
//! daemon at once.

mod catalog;
#[cfg(feature = "simulator")]
mod demo;
mod doctor;
mod guard;
mod history;
mod key;
mod master_key;
mod memory;
mod output;
mod progress;
mod project;
mod resync;
mod run;
mod setup;
#[cfg(feature = "simulator")]
mod simulate;
mod status;
mod sync;
mod wiring;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::json;

use self::{output::Output, wiring::Wiring};
use crate::{
    clock::Instant,
    daemon::signals::Stop,
    diagnosis::Code,
    project::ProjectId,
    telemetry::{redact, tell_panics},
};

/// Keeps the App Store catalogs of many customers right in a SQL database.
#[derive(Parser)]
#[command(version, max_term_width = 100, propagate_version = true)]
struct Cli {
    /// The configuration file [default: worker.toml in this folder, if there is one]
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "CATALOG_SYNC_CONFIG"
    )]
    config: Option<PathBuf>,
    /// Answer in JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: a simulated App Store Connect, a first sync, edits, a held mass removal. Needs no account
    #[cfg(feature = "simulator")]
    Demo,
    /// Make worker.toml, a master key and the database, whichever are missing
    Init {
        /// Make a new master key though stored keys need a lost one; each of them must then be given again
        #[arg(long)]
        new_master_key: bool,
    },
    /// Add and look after projects and their keys
    #[command(subcommand)]
    Project(project::Command),
    /// Add, rotate and retire the master keys that API keys are sealed with
    #[command(subcommand)]
    MasterKey(master_key::Command),
    /// Sync what is due and what is asked for, until told to stop: the daemon
    Run,
    /// Sync projects now
    Sync(sync::SyncArgs),
    /// Ask the daemon to sync projects
    Resync(resync::Args),
    /// Show what a sync would change; exits with 2 when something would
    Plan {
        /// The project
        id: ProjectId,
    },
    /// Show removals that are held back
    Holds {
        /// Only this project's
        id: Option<ProjectId>,
        /// Show those too that have ended
        #[arg(long)]
        all: bool,
    },
    /// Let through the removals that a hold shows, if they are still just those
    Approve {
        /// The project
        id: ProjectId,
        /// The hold's digest
        digest: String,
    },
    /// Keep what a hold shows in the catalog, though it is gone, until it is listed again; 'approve' takes that back
    Discard {
        /// The project
        id: ProjectId,
        /// The hold's digest
        digest: String,
    },
    /// Show a project's products, subscription groups and grace period, as they are or as they were
    Catalog {
        /// The project
        id: ProjectId,
        /// Show removed ones too
        #[arg(long)]
        removed: bool,
        /// As it was at this time, such as 2026-11-01 or 2026-11-01T12:00Z
        #[arg(long, value_name = "TIME", value_parser = parse_instant)]
        at: Option<Instant>,
    },
    /// Show what changed in a project's catalog, the newest first, or verify that it tells all
    History(history::HistoryArgs),
    /// Show a project's runs, the newest first
    Runs {
        /// The project
        id: ProjectId,
        /// At most this many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show how projects fare, the worst first, or one project's whole story
    Status(status::Args),
    /// Explain an error code, or list them all
    Explain {
        /// The code
        #[arg(value_parser = a_code())]
        code: Option<Code>,
    },
    /// Bring the database's schema up to date
    Migrate {
        /// Say which migrations lack, and change nothing; exits with 2 when any does
        #[arg(long)]
        check: bool,
    },
    /// Check the configuration and what it names on this side, and show it as it is understood; 'doctor' looks at all around it
    CheckConfig,
    /// Check all that a worker needs: what 'check-config' does, and brokers, Apple, clocks, daemons and projects beside
    Doctor,
    /// Serve a simulated App Store Connect to rehearse against: Apple offers no sandbox for this API
    #[cfg(feature = "simulator")]
    Simulate(simulate::Args),
}

/// What a command came to, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Done.
    Done,
    /// Something failed, and was told.
    Failed,
    /// A person must decide.
    Undecided,
    /// A second signal ended the process at once, whatever was under way.
    Aborted(Stop),
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::SUCCESS,
            Verdict::Failed => Self::from(1),
            Verdict::Undecided => Self::from(2),
            Verdict::Aborted(stop) => Self::from(stop.exit_code()),
        }
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return misused(&usage).into(),
    };
    let output = Output::new(cli.json);
    tell_panics();
    if let Err(error) = memory::keep() {
        output.fail(&error);
        return Verdict::Failed.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(cli.run(&output));
            if matches!(result, Ok(Verdict::Aborted(_))) {
                runtime.shutdown_background(); // Dropping it would wait for what is blocked.
            }
            result
        }
        Err(error) => Err(anyhow::Error::from(error).context("no runtime could be started")),
    };
    match result {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            output.fail(&error);
            Verdict::Failed.into()
        }
    }
}

/// The longest argument that a message may quote, which is a UUID. A longer one may be a private key in the wrong place.
const LONGEST_QUOTED: usize = 36;

/// As much of a long argument in a message is no accident, as the name of an option would be.
const PART: usize = 16;

/// Whether the text has a part of a long argument in it.
fn quotes(text: &str, argument: &str) -> bool {
    let mut parts = argument.as_bytes().windows(PART);
    argument.len() > LONGEST_QUOTED
        && parts.any(|part| text.as_bytes().windows(PART).any(|it| it == part))
}

/// Tells of a wrong use, or shows the help or version asked for. Not with clap's own exit code for it, 2, which means here that a
/// decision is needed.
fn misused(usage: &clap::Error) -> Verdict {
    let text = usage.to_string();
    let quotes_long = usage.use_stderr() && std::env::args().any(|it| quotes(&text, &it));
    let sentence = if quotes_long {
        format!(
            "{}: it is long, perhaps a private key, and not shown",
            usage.kind()
        )
    } else {
        text.trim().trim_start_matches("error: ").to_owned()
    };
    if usage.use_stderr() && std::env::args().any(|argument| argument == "--json") {
        Output::new(true)
            .json(&json!({ "error": { "code": "usage", "sentence": redact(&sentence) } }))
            .ok();
        return Verdict::Failed;
    }
    if quotes_long {
        writeln!(anstream::stderr(), "error: {sentence}").ok();
        return Verdict::Failed;
    }
    if usage.use_stderr() {
        let text = usage.render().ansi().to_string();
        write!(anstream::stderr(), "{}", redact(&text)).ok();
        Verdict::Failed
    } else if usage.print().is_err() {
        Verdict::Failed
    } else {
        Verdict::Done
    }
}

impl Cli {
    async fn run(self, output: &Output) -> anyhow::Result<Verdict> {
        // These need no configuration, nor a sound one.
        match self.command {
            #[cfg(feature = "simulator")]
            Command::Demo => return demo::demo(output).await,
            #[cfg(feature = "simulator")]
            Command::Simulate(args) => return simulate::simulate(args, output).await,
            Command::Explain { code } => return setup::explain(code, output),
            _ => {}
        }
        match self.command {
            Command::Run => return run::run(self.config.as_deref(), output).await,
            Command::Doctor => return doctor::doctor(self.config.as_deref(), output).await,
            _ => {}
        }
        let wiring = Wiring::load(self.config.as_deref())?;
        match self.command {
            #[cfg(feature = "simulator")]
            Command::Demo | Command::Simulate(_) => Ok(Verdict::Done),
            Command::Explain { .. } | Command::Run | Command::Doctor => Ok(Verdict::Done),
            Command::Resync(args) => resync::resync(args, &*wiring.store().await?, output).await,
            Command::Init { new_master_key } => setup::init(new_master_key, &wiring, output).await,
            Command::Project(command) => command.run(&wiring, output).await,
            Command::MasterKey(command) => command.run(&wiring, output).await,
            Command::Sync(args) => sync::sync(args, &wiring, output).await,
            Command::Plan { id } => sync::plan(&id, &wiring.engine().await?, output).await,
            Command::Holds { id, all } => {
                catalog::holds(id.as_ref(), all, &*wiring.store().await?, output).await
            }
            Command::Approve { id, digest } => {
                sync::approve(&id, &digest.into(), &wiring.engine().await?, output).await
            }
            Command::Discard { id, digest } => {
                sync::discard(&id, &digest.into(), &wiring.engine().await?, output).await
            }
            Command::Catalog { id, removed, at } => {
                let store = &*wiring.store().await?;
                match at {
                    None => catalog::catalog(&id, removed, store, output).await,
                    Some(at) => catalog::catalog_at(&id, removed, at, store, output).await,
                }
            }
            Command::History(args) => history::history(args, &*wiring.store().await?, output).await,
            Command::Runs { id, limit } => {
                catalog::runs(&id, limit, &*wiring.store().await?, output).await
            }
            Command::Status(args) => status::status(args, &wiring, output).await,
            Command::Migrate { check: true } => setup::check_schema(&wiring, output).await,
            Command::Migrate { check: false } => setup::migrate(&wiring, output).await,
            Command::CheckConfig => setup::check_config(&wiring, output).await,
        }
    }
}

/// Takes the codes there are, and suggests the nearest for another.
fn a_code() -> impl TypedValueParser<Value = Code> {
    PossibleValuesParser::new(Code::ALL.iter().map(|code| code.as_str()))
        .try_map(|name| name.parse::<Code>())
}

/// Reads `2026-11-01`, `2026-11-01T12:00Z` or a full RFC 3339 instant.
fn parse_instant(text: &str) -> Result<Instant, String> {
    let midnight = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map(|at| at.and_utc());
    let minutes = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%MZ")
        .ok()
        .map(|at| at.and_utc());
    let full = chrono::DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|at| at.to_utc());
    midnight
        .or(minutes)
        .or(full)
        .ok_or_else(|| "write 2026-11-01, 2026-11-01T12:00Z or 2026-11-01T12:00:00Z".to_owned())
}
