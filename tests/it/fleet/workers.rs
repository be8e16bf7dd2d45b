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
use tokio::{
    process::{Child, Command},
    time::Instant as Moment,
};

use super::{
    Size,
    place::Place,
    tables::{Held, Tables},
};

/// A worker told to stop ends within this time, whatever it has in hand.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// Only a hang takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A worker has what it needs for good after this time.
const SETTLED: Duration = Duration::from_secs(5);

/// So many lost runs before this one, and the project would be set aside, as is right: such a worker is let live.
const LOST_TWICE: i64 = 2;

pub(super) struct Workers {
    binary: PathBuf,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    at_work: Vec<Worker>,
    logs: Vec<PathBuf>,
    /// Writes under a lease that the database refused, as workers counted them.
    fenced: u64,
    /// What each worker took of the machine, at first and later, while it lived.
    footprints: Vec<(Footprint, Footprint)>,
}

struct LastWords {
    fenced: u64,
    footprints: Option<(Footprint, Footprint)>,
}

/// What the workers did, and took.
pub(super) struct Account {
    /// All that they ever said.
    pub(super) events: Vec<Value>,
    pub(super) fenced: u64,
    pub(super) footprints: Vec<(Footprint, Footprint)>,
}

struct Worker {
    process: Child,
    log: PathBuf,
    /// Ends the names of this process and of no other.
    suffix: String,
    /// Once it had settled, and the latest.
    footprints: Option<(Footprint, Footprint)>,
    since: Moment,
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
            fenced: 0,
            footprints: Vec::new(),
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
            footprints: None,
            since: Moment::now(),
        }
    }

    /// What is in a worker's hands; in anyone's, when none is named. None if a project among it lost its workers so often
    /// that it would rightly be set aside now: such a fault is left out.
    pub(super) async fn in_hand(
        &self,
        which: Option<usize>,
        tables: &mut Tables,
    ) -> Option<Vec<Held>> {
        let mut held = tables.held().await;
        if let Some(which) = which {
            held = of(&self.at_work[which].suffix, held);
        }
        let may_be_lost = held.iter().all(|held| held.losses < LOST_TWICE);
        may_be_lost.then_some(held)
    }

    /// Stops a worker where it stands, or lets it go on.
    pub(super) fn signal(&self, which: usize, signal: Signal) {
        let worker = &self.at_work[which];
        let id = worker
            .process
            .id()
            .unwrap_or_else(|| panic!("a worker ended by itself: {}", last_lines(&worker.log)));
        let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Takes down what each worker has of the machine.
    pub(super) fn measure(&mut self) {
        for worker in &mut self.at_work {
            if worker.since.elapsed() < SETTLED {
                continue;
            }
            let Some(now) = worker.process.id().and_then(Footprint::of) else {
                continue;
            };
            let (_, latest) = worker.footprints.get_or_insert((now, now));
            *latest = now;
        }
    }

    /// What a worker would take with it. Asked for while it still answers, and before it is looked what it has in hand.
    async fn last_words(&self, which: usize) -> LastWords {
        let worker = &self.at_work[which];
        LastWords {
            fenced: fenced(&worker.log).await,
            footprints: worker.footprints,
        }
    }

    fn remember(&mut self, words: &LastWords) {
        self.fenced += words.fenced;
        self.footprints.extend(words.footprints);
    }

    /// Has a person let a project be synced again that was set aside.
    pub(super) async fn resume(&self, project: &str) {
        let resumed = Command::new(&self.binary)
            .args(["project", "resume", project])
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .output()
            .await
            .unwrap();
        assert!(resumed.status.success(), "{resumed:?}");
    }

    /// Kills a worker without a warning, and starts another in its place. None if the worker is spared, because its death would
    /// rightly set a project aside.
    pub(super) async fn kill(&mut self, which: usize, tables: &mut Tables) -> Option<Kill> {
        let words = self.last_words(which).await;
        self.in_hand(Some(which), tables).await?;
        self.remember(&words);
        let suffix = self.at_work[which].suffix.clone();
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
        let held = of(&suffix, tables.held().await);
        self.at_work[which] = self.spawn();
        Some(Kill { at, suffix, held })
    }

    /// Tells a worker to stop, and at times again after a while, and starts another in its place. Gives how long it took to end,
    /// and what it left behind: nothing, unless it was told twice.
    pub(super) async fn terminate(
        &mut self,
        which: usize,
        again_after: Option<Duration>,
        tables: &mut Tables,
    ) -> Option<(Duration, Kill)> {
        let words = self.last_words(which).await;
        let before = self.in_hand(Some(which), tables).await?;
        self.remember(&words);
        self.signal(which, Signal::TERM);
        let mut told_at = Moment::now();
        let suffix = self.at_work[which].suffix.clone();
        if let Some(again_after) = again_after {
            let process = &mut self.at_work[which].process;
            // It may have ended by then, as it was told.
            if tokio::time::timeout(again_after, process.wait())
                .await
                .is_err()
            {
                self.signal(which, Signal::TERM);
                told_at = Moment::now();
            }
        }
        let worker = &mut self.at_work[which];
        let ended = tokio::time::timeout(ENDED_WITHIN, worker.process.wait()).await;
        let status = ended
            .unwrap_or_else(|_| panic!("it does not end: {}", last_lines(&worker.log)))
            .unwrap();
        let took = told_at.elapsed();
        let held = of(&suffix, tables.held().await);
        let code = status.code();
        if again_after.is_none() || code == Some(0) {
            assert_eq!(code, Some(0), "{}", last_lines(&worker.log));
            assert!(held.is_empty(), "{held:?} of {before:?} is left");
        } else {
            assert_eq!(code, Some(143), "{}", last_lines(&worker.log));
        }
        self.at_work[which] = self.spawn();
        let at = clock::now();
        Some((took, Kill { at, suffix, held }))
    }

    /// Tells all to stop, and waits until they have ended in order.
    pub(super) async fn stop(mut self) -> Account {
        self.measure();
        for which in 0..self.at_work.len() {
            let words = self.last_words(which).await;
            self.remember(&words);
            self.signal(which, Signal::TERM);
        }
        for worker in &mut self.at_work {
            let ended = tokio::time::timeout(PATIENCE, worker.process.wait()).await;
            let status = ended
                .unwrap_or_else(|_| panic!("it does not end: {}", last_lines(&worker.log)))
                .unwrap();
            assert!(status.success(), "{status}: {}", last_lines(&worker.log));
        }
        Account {
            events: self.logs.iter().flat_map(read).collect(),
            fenced: self.fenced,
            footprints: self.footprints,
        }
    }
}

/// Those in the hands of the worker with that name.
fn of(suffix: &str, held: Vec<Held>) -> Vec<Held> {
    held.into_iter()
        .filter(|held| held.lease_worker.ends_with(suffix))
        .collect()
}

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footprint {
    pub(super) descriptors: usize,
    pub(super) threads: u64,
    pub(super) resident_bytes: u64,
}

impl Footprint {
    /// None if it is gone, or where there is no /proc.
    fn of(process: u32) -> Option<Self> {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Some(Self {
            descriptors,
            threads: number("Threads:")?,
            resident_bytes: number("VmRSS:")? << 10,
        })
    }
}

/// How many writes of a worker were refused, as it tells Prometheus; 0 of one that does not tell yet.
async fn fenced(log: &PathBuf) -> u64 {
    let listening = read(log)
        .into_iter()
        .find(|event| event["event"] == "health.listening");
    let Some(listening) = listening else { return 0 };
    let url = format!("http://{}/metrics", listening["address"].as_str().unwrap());
    let page = tokio::time::timeout(PATIENCE, async { reqwest::get(url).await?.text().await });
    let page = page.await.expect("it tells no metrics").unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("catalog_sync_fenced_writes_total "));
    line.unwrap().parse().unwrap()
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
