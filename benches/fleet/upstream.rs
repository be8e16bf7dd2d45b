//! App Store Connect in a process of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use catalog_sync::simulator::{App, Key, Options, Role, Simulator, State, Team};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Size, process};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,
    #[arg(long)]
    https: bool,
    #[arg(long)]
    keys: PathBuf,
}

/// What it says of itself once it listens.
#[derive(Serialize, Deserialize)]
struct Served {
    base_url: String,
    ca_pem: Option<String>,
}

/// The process, from outside.
pub(crate) struct Upstream {
    pub(crate) base_url: String,
    pub(crate) keys: TempDir,
    pub(crate) ca_file: Option<PathBuf>,
    process: Child,
    /// It serves until this is closed.
    _stays: ChildStdin,
}

pub(crate) fn key_id(project: usize) -> String {
    format!("FLEET{project:05}")
}

pub(crate) fn issuer_id(project: usize) -> String {
    format!("5a1e0000-0000-4000-8000-{project:012}")
}

pub(crate) fn app_id(project: usize) -> String {
    (1_000_000 + project).to_string()
}

fn state(size: &Size) -> State {
    (0..size.projects).fold(State::new(), |state, project| {
        let key = Key::new(key_id(project), Role::Admin).with_hourly_limit(1_000_000);
        let app = App::new(
            app_id(project),
            format!("com.example.app{project}"),
            format!("App {project}"),
        );
        let app = app
            .with_in_app_purchases(size.purchases)
            .with_groups(size.groups, size.subscriptions)
            .with_grace_period();
        let team = Team::new(format!("Team {project}"), issuer_id(project));
        state.with_team(team.with_key(key).with_app(app))
    })
}

/// The role.
pub(crate) async fn serve(given: &Arguments) -> anyhow::Result<()> {
    let options = Options {
        https: given.https,
        ..Options::default()
    };
    let simulator = Simulator::start_with(state(&given.size), options).await?;
    simulator.set_latency(Duration::from_millis(given.size.latency));
    simulator.state().write_keys(&given.keys)?;
    let served = Served {
        base_url: simulator.base_url().to_owned(),
        ca_pem: simulator.ca_pem().map(str::to_owned),
    };
    println!("{}", serde_json::to_string(&served)?);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

impl Upstream {
    pub(crate) fn start(size: &Size, https: bool) -> anyhow::Result<Self> {
        let keys = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("upstream").arg("--keys").arg(keys.path());
        if https {
            command.arg("--https");
        }
        let mut process = command
            .args(size.as_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stays = process.stdin.take().context("it has standard input")?;
        let stdout = process.stdout.take().context("it has standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Served { base_url, ca_pem } =
            serde_json::from_str(&line).context("the simulator did not start")?;
        let ca_file = match ca_pem {
            None => None,
            Some(pem) => {
                let file = keys.path().join("ca.pem");
                fs::File::create(&file)?.write_all(pem.as_bytes())?;
                Some(file)
            }
        };
        Ok(Self {
            base_url,
            keys,
            ca_file,
            process,
            _stays: stays,
        })
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.process.id())
    }

    pub(crate) fn ca_pem(&self) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.ca_file.as_ref().map(fs::read).transpose()?)
    }

    /// The path and query of each request so far, by project.
    pub(crate) async fn requests(&self, projects: usize) -> anyhow::Result<Vec<Vec<String>>> {
        #[derive(Deserialize)]
        struct Request {
            path: String,
            query: Vec<(String, String)>,
            key_id: String,
        }
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(pem) = self.ca_pem()? {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        let url = format!("{}/_simulator/requests", self.base_url);
        let body = client.build()?.get(url).send().await?.bytes().await?;
        let requests: Vec<Request> = serde_json::from_slice(&body)?;
        let mut by_project = vec![Vec::new(); projects];
        for Request {
            path,
            query,
            key_id,
        } in requests
        {
            let project: usize = key_id.trim_start_matches("FLEET").parse()?;
            let mut url = path;
            for (number, (name, value)) in query.iter().enumerate() {
                let sign = if number == 0 { '?' } else { '&' };
                write!(url, "{sign}{name}={value}")?;
            }
            by_project
                .get_mut(project)
                .context("a project that there is not")?
                .push(url);
        }
        Ok(by_project)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It is this program, and has nothing to lose.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the simulator could not be ended: {error}");
        }
    }
}

impl Size {
    fn as_arguments(&self) -> Vec<String> {
        [
            ("--projects", self.projects),
            ("--purchases", self.purchases),
            ("--groups", self.groups),
            ("--subscriptions", self.subscriptions),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .chain([format!("--latency={}", self.latency)])
        .collect()
    }
}
