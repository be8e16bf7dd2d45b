//! The real binary at work.

use std::{
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{place::Place, process, upstream::Upstream};

pub(crate) struct Worker {
    process: Child,
    log: BufReader<ChildStderr>,
    cpu: Duration,
    upstream_cpu: Duration,
    database_cpu: Duration,
}

/// What a round over all projects cost, or several.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) runs: usize,
    /// From the first run's claim to the last one's end.
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) upstream_cpu: Duration,
    pub(crate) database_cpu: Duration,
    pub(crate) requests: u64,
    /// Of the catalog and its log.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The most memory that the worker ever had, in bytes.
    pub(crate) memory: u64,
}

impl AddAssign for Round {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.upstream_cpu += other.upstream_cpu;
        self.database_cpu += other.database_cpu;
        self.requests += other.requests;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.memory = self.memory.max(other.memory);
    }
}

impl Worker {
    pub(crate) fn start(
        place: &Place,
        upstream: &Upstream,
        concurrency: usize,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catalog-sync"));
        command
            .arg("run")
            .current_dir(place.folder.path())
            .env("CATALOG_SYNC_STORE__URL", &place.url)
            .env("CATALOG_SYNC_APP_STORE__BASE_URL", &upstream.base_url)
            .env("CATALOG_SYNC_SYNC__CONCURRENCY", concurrency.to_string())
            .env("CATALOG_SYNC_DAEMON__POLL_MS", "100")
            // Only what is asked for is synced.
            .env("CATALOG_SYNC_SCHEDULE__CRON", "0 0 29 2 *")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(file) = &upstream.ca_file {
            command.env("CATALOG_SYNC_APP_STORE__CA_FILE", file);
        }
        let upstream_cpu = upstream.cpu()?;
        let database_cpu = place.cpu()?;
        let mut process = command.spawn()?;
        let log = process.stderr.take().context("it has standard error")?;
        Ok(Self {
            process,
            log: BufReader::new(log),
            cpu: Duration::ZERO,
            upstream_cpu,
            database_cpu,
        })
    }

    /// Waits until so many runs have ended, and tells what was spent since the last time.
    pub(crate) fn finish(
        &mut self,
        place: &Place,
        upstream: &Upstream,
        runs: usize,
    ) -> anyhow::Result<Round> {
        let began = Instant::now();
        let mut first_after = None;
        let (mut requests, mut rows, mut bytes) = (0, 0, 0);
        let mut ended = 0;
        let mut line = String::new();
        while ended < runs {
            line.clear();
            let read = self.log.read_line(&mut line)?;
            ensure!(read > 0, "the worker ended");
            let event: Value = serde_json::from_str(&line).context("a line is no JSON")?;
            ensure!(event.get("level") != Some(&json!("ERROR")), "{line}");
            if event.get("event") != Some(&json!("sync.finished")) {
                continue;
            }
            ensure!(event.get("outcome") == Some(&json!("succeeded")), "{line}");
            let count = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
            let lasted = Duration::from_millis(count("duration_ms"));
            first_after.get_or_insert_with(|| began.elapsed().saturating_sub(lasted));
            requests += count("requests");
            rows += count("rows_written");
            bytes += count("bytes");
            ended += 1;
        }
        let wall = began
            .elapsed()
            .saturating_sub(first_after.unwrap_or_default());
        let id = self.process.id();
        let (cpu, upstream_cpu, database_cpu) = (process::cpu(id)?, upstream.cpu()?, place.cpu()?);
        let round = Round {
            runs,
            wall,
            cpu: cpu.saturating_sub(self.cpu),
            upstream_cpu: upstream_cpu.saturating_sub(self.upstream_cpu),
            database_cpu: database_cpu.saturating_sub(self.database_cpu),
            requests,
            rows,
            bytes,
            memory: process::peak_memory(id)?,
        };
        self.forget(place, upstream)?;
        Ok(round)
    }

    /// Counts anew from here on.
    pub(crate) fn forget(&mut self, place: &Place, upstream: &Upstream) -> anyhow::Result<()> {
        self.cpu = process::cpu(self.process.id())?;
        self.upstream_cpu = upstream.cpu()?;
        self.database_cpu = place.cpu()?;
        Ok(())
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.process.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let id = id.context("it has an id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        // Its last lines have to go somewhere.
        std::io::copy(&mut self.log, &mut std::io::sink())?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the worker ended with {status}");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only after a failure; else it has ended.
        if let Ok(None) = self.process.try_wait()
            && let Err(error) = self.process.kill().and_then(|()| self.process.wait())
        {
            eprintln!("the worker could not be ended: {error}");
        }
    }
}
