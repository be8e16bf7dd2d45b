//! Workers: processes of the binary, and what they said.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use catalog_sync::clock::{self, Instant};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;
use tokio::process::{Child, Command};

use super::{
    Size,
    place::Place,
    tables::{Held, Tables},
};

/// A worker told to stop ends within this time, whatever it has in hand.
const PATIENCE: Duration = Duration::from_mins(1);

/// So many lost runs before this one, and the project would be set aside, as is right: such a worker is let live.
const LOST_TWICE: i64 = 2;

pub(super) struct Workers {
    binary: PathBuf,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    at_work: Vec<Worker>,
    logs: Vec<PathBuf>,
}

struct Worker {
    process: Child,
    log: PathBuf,
    /// Ends the names of this process and of no other.
    suffix: String,
}

/// A worker was killed.
pub(super) struct Kill {
    pub(super) at: Instant,
    /// Ends its name.
    pub(super) suffix: String,
    /// What it had in hand.
    pub(super) held: Vec<Held>,
}

impl Workers {
    pub(super) fn start(place: &Place, size: &Size) -> Self {
        let mut workers = Self {
            binary: size.binary.clone(),
            folder: place.folder.path().to_owned(),
            environment: place.environment(size),
            at_work: Vec::new(),
            logs: Vec::new(),
        };
        for _ in 0..size.workers {
            let worker = workers.spawn();
            workers.at_work.push(worker);
        }
        workers
    }

    fn spawn(&mut self) -> Worker {
        let log = self.folder.join(format!("worker-{}.log", self.logs.len()));
        let process = Command::new(&self.binary)
            .arg("run")
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let suffix = format!(":{}", process.id().unwrap());
        self.logs.push(log.clone());
        Worker {
            process,
            log,
            suffix,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.at_work.len()
    }

    /// Kills a worker without a warning, and starts another in its place. None if the worker is spared, because its death would
    /// rightly set a project aside.
    pub(super) async fn kill(&mut self, which: usize, tables: &mut Tables) -> Option<Kill> {
        let suffix = self.at_work[which].suffix.clone();
        let in_hand = |held: Vec<Held>| -> Vec<Held> {
            held.into_iter()
                .filter(|held| held.lease_worker.ends_with(&suffix))
                .collect()
        };
        let before = in_hand(tables.held().await);
        if before.iter().any(|held| held.losses >= LOST_TWICE) {
            return None;
        }
        let worker = &mut self.at_work[which];
        worker.process.start_kill().unwrap();
        let status = worker.process.wait().await.unwrap();
        let at = clock::now();
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "a worker ended by itself: {status}, {}",
            last_lines(&worker.log)
        );
        let held = in_hand(tables.held().await);
        self.at_work[which] = self.spawn();
        Some(Kill { at, suffix, held })
    }

    /// Tells all to stop, and waits until they have ended in order. Gives all that workers ever said.
    pub(super) async fn stop(mut self) -> Vec<Value> {
        for worker in &self.at_work {
            let id = worker
                .process
                .id()
                .unwrap_or_else(|| panic!("a worker ended by itself: {}", last_lines(&worker.log)));
            let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
            kill_process(id, Signal::TERM).unwrap();
        }
        for worker in &mut self.at_work {
            let ended = tokio::time::timeout(PATIENCE, worker.process.wait()).await;
            let status = ended
                .unwrap_or_else(|_| panic!("it does not end: {}", last_lines(&worker.log)))
                .unwrap();
            assert!(status.success(), "{status}: {}", last_lines(&worker.log));
        }
        self.logs.iter().flat_map(read).collect()
    }
}

/// The events of a log. The last line of a worker that was killed may be cut.
fn read(log: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| {
        serde_json::from_str(line).unwrap_or_else(|_| panic!("{}: no event: {line}", log.display()))
    };
    whole.lines().map(parse).collect()
}

fn last_lines(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
