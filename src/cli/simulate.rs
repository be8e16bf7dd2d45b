//! `simulate`: an App Store Connect to rehearse against.

use std::{fs, io::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::json;

use super::{
    Verdict,
    output::{BOLD, DIM, Output},
};
use crate::simulator::{Options, Simulator, State};

/// What to serve, and where.
#[derive(ClapArgs)]
pub(super) struct Args {
    /// The teams, keys, apps and catalogs to serve, as docs/simulator.toml describes them [default: a sample]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Serve HTTPS, with a certificate authority that is written beside the keys
    #[arg(long)]
    https: bool,
    /// The folder for the .p8 files of the simulated keys
    #[arg(long, value_name = "DIR", default_value = "simulator-keys")]
    keys: PathBuf,
}

/// Serves until it is interrupted.
pub(super) async fn simulate(args: Args, output: &Output) -> anyhow::Result<Verdict> {
    let state = match &args.state {
        None => State::sample(),
        Some(file) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            State::from_toml(&text).with_context(|| file.display().to_string())?
        }
    };
    let options = Options {
        listen: args.listen,
        https: args.https,
        ..Options::default()
    };
    let simulator = Simulator::start_with(state, options).await?;
    let state = simulator.state();
    fs::create_dir_all(&args.keys)
        .with_context(|| format!("{} cannot be made", args.keys.display()))?;
    state.write_keys(&args.keys)?;
    let ca_file = match simulator.ca_pem() {
        None => None,
        Some(pem) => {
            let file = args.keys.join("ca.pem");
            fs::write(&file, pem)
                .with_context(|| format!("{} cannot be written", file.display()))?;
            Some(file)
        }
    };

    output.say(format_args!(
        "App Store Connect is simulated at {BOLD}{}{BOLD:#}",
        simulator.base_url()
    ))?;
    output.say("Use it with this environment:")?;
    output.say(format_args!(
        "  export CATALOG_SYNC_APP_STORE__BASE_URL={}",
        simulator.base_url()
    ))?;
    if let Some(file) = &ca_file {
        output.say(format_args!(
            "  export CATALOG_SYNC_APP_STORE__CA_FILE={}",
            file.display()
        ))?;
    }
    for team in &state.teams {
        output.say(format_args!(
            "{} {DIM}issuer {}{DIM:#}",
            team.name, team.issuer_id
        ))?;
        for key in &team.keys {
            let issuer = if key.individual {
                String::new()
            } else {
                format!(" --issuer-id {}", team.issuer_id)
            };
            let file = args.keys.join(key.file_name());
            output.say(format_args!(
                "  catalog-sync project add ID{issuer} --private-key {}",
                file.display()
            ))?;
        }
    }
    output.say("It serves until it is interrupted. docs/simulator.md says how to edit it and make it misbehave.")?;
    output.json(
        &json!({ "base_url": simulator.base_url(), "keys": args.keys, "ca_file": ca_file }),
    )?;
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    simulator.stop().await;
    Ok(Verdict::Done)
}
