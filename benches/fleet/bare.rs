//! Fetching the same pages bare: the same client, the same requests, as many at once, and nothing done with what comes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    ops::AddAssign,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use catalog_sync::{asc, clock};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Url, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    Size, process,
    upstream::{self, Upstream},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the orders are.
    orders: PathBuf,
}

/// What is to be fetched, and how.
#[derive(Serialize, Deserialize)]
struct Orders {
    base_url: String,
    ca_pem: Option<Vec<u8>>,
    concurrency: usize,
    projects: Vec<Project>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Project {
    bearer: String,
    requests: Vec<String>,
}

/// What a round cost, or several.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) projects: usize,
    pub(crate) cpu: Duration,
}

impl AddAssign for Fetched {
    fn add_assign(&mut self, other: Self) {
        self.projects += other.projects;
        self.cpu += other.cpu;
    }
}

/// The role: fetches everything once for each line of standard input, and answers it with the bytes that came.
pub(crate) async fn fetch(given: &Arguments) -> anyhow::Result<()> {
    let orders: Orders = serde_json::from_slice(&std::fs::read(&given.orders)?)?;
    let mut options = asc::Options::new(Url::parse(&orders.base_url)?);
    options.ca_pem = orders.ca_pem;
    let client = asc::http_client(&options)?;
    let base_url: Arc<str> = orders.base_url.into();
    let mut lines = BufReader::new(std::io::stdin()).lines();
    while let Some(line) = tokio::task::block_in_place(|| lines.next()) {
        line?;
        let bytes: usize = stream::iter(&orders.projects)
            .map(|project| {
                let (client, base_url) = (client.clone(), Arc::clone(&base_url));
                let project = project.clone();
                // As the worker: a task for each project, a request for each kind at once.
                async move {
                    let mut task = JoinSet::new();
                    task.spawn(fetch_project(client, base_url, project));
                    task.join_next().await.context("it was spawned")??
                }
            })
            .buffer_unordered(orders.concurrency)
            .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
            .await?;
        println!("{bytes}");
    }
    Ok(())
}

async fn fetch_project(
    client: reqwest::Client,
    base_url: Arc<str>,
    project: Project,
) -> anyhow::Result<usize> {
    let requests = project.requests.iter().map(|path| {
        let url = format!("{base_url}{path}");
        let request = client.get(url).header(AUTHORIZATION, &project.bearer);
        async move {
            let mut response = request.send().await?;
            ensure!(response.status().is_success(), "{}", response.status());
            let mut bytes = 0;
            while let Some(chunk) = response.chunk().await? {
                bytes += chunk.len();
            }
            Ok(bytes)
        }
    });
    Ok(futures_util::future::try_join_all(requests)
        .await?
        .iter()
        .sum())
}

/// The process, from outside.
pub(crate) struct Fetcher {
    projects: usize,
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _file: tempfile::NamedTempFile,
}

impl Fetcher {
    /// Takes what the worker asked for up to now as what to fetch.
    pub(crate) async fn start(
        upstream: &Upstream,
        size: &Size,
        concurrency: usize,
    ) -> anyhow::Result<Self> {
        let requests = upstream.requests(size.projects).await?;
        let projects = requests.into_iter().enumerate();
        let orders = Orders {
            base_url: upstream.base_url.clone(),
            ca_pem: upstream.ca_pem()?,
            concurrency,
            projects: projects
                .map(|(number, requests)| {
                    Ok(Project {
                        bearer: format!("Bearer {}", token(upstream, number)?),
                        requests,
                    })
                })
                .collect::<anyhow::Result<_>>()?,
        };
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&serde_json::to_vec(&orders)?)?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("bare")
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().context("it has standard input")?;
        let stdout = process.stdout.take().context("it has standard output")?;
        Ok(Self {
            projects: size.projects,
            process,
            orders,
            answers: BufReader::new(stdout),
            _file: file,
        })
    }

    pub(crate) fn fetch(&mut self) -> anyhow::Result<Fetched> {
        let pid = self.process.id();
        let cpu = process::cpu(pid)?;
        writeln!(self.orders)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let bytes: usize = line.trim().parse().context("the bare fetch failed")?;
        ensure!(bytes > 0, "nothing was fetched");
        Ok(Fetched {
            projects: self.projects,
            cpu: process::cpu(pid)?.saturating_sub(cpu),
        })
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the bare fetch could not be ended: {error}");
        }
    }
}

/// A token as the worker signs it.
fn token(upstream: &Upstream, project: usize) -> anyhow::Result<String> {
    // Unless another token was made before.
    jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER
        .install_default()
        .ok();
    let key_id = upstream::key_id(project);
    let pem = std::fs::read(upstream.keys.path().join(format!("AuthKey_{key_id}.p8")))?;
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key_id);
    let now = clock::now().timestamp();
    let claims = serde_json::json!({
        "iss": upstream::issuer_id(project),
        "iat": now,
        "exp": now + 19 * 60,
        "aud": "appstoreconnect-v1",
    });
    Ok(jsonwebtoken::encode(
        &header,
        &claims,
        &EncodingKey::from_ec_pem(&pem)?,
    )?)
}
