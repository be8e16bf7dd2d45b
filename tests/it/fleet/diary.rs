//! What happened, line by line as it happens: what was accepted, what was broken, and at the end what stands in the tables.
//!
//! A file of JSON lines to which things are only added. It goes with the fleet's folder, which stays when a check fails.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use catalog_sync::clock::{self, Instant};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{tables::Held, workers::Kill};

pub(super) struct Diary {
    file: File,
    /// When each request was sent that was then accepted, by project.
    pub(super) asked: HashMap<String, Vec<Instant>>,
    /// Requests whose answer was lost: they may have a run, and need not.
    pub(super) maybe: usize,
    pub(super) kills: Vec<Kill>,
    pub(super) stops: Vec<Stop>,
    /// How long each worker took to end that was told to, and whether it was told twice.
    pub(super) endings: Vec<(Duration, bool)>,
    pub(super) outages: Vec<Outage>,
    /// Projects that three kills in a row left alone, which is told and is no loss. They were resumed in the end.
    pub(super) set_aside: Vec<String>,
    /// Apple's ids of what was taken away upstream.
    pub(super) taken_away: Vec<String>,
    pub(super) edits: usize,
}

/// A worker stood still for longer than its leases.
pub(super) struct Stop {
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// What it had in hand.
    pub(super) held: Vec<Held>,
}

/// A server could not be reached by any worker.
pub(super) struct Outage {
    pub(super) what: &'static str,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Diary {
    pub(super) fn begin(folder: &Path) -> Self {
        let path = folder.join("diary.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        Self {
            file,
            asked: HashMap::new(),
            maybe: 0,
            kills: Vec::new(),
            stops: Vec::new(),
            endings: Vec::new(),
            outages: Vec::new(),
            set_aside: Vec::new(),
            taken_away: Vec::new(),
            edits: 0,
        }
    }

    /// Adds a line, with the time and what it is about.
    pub(super) fn note(&mut self, what: &str, of: Value) {
        let mut line = json!({"at": clock::now(), "what": what});
        if let (Value::Object(line), Value::Object(of)) = (&mut line, of) {
            line.extend(of);
        }
        // One write a line, so that each is there whole or not at all.
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// A request was sent at that time, and the answer was that it is kept; or there was no answer.
    pub(super) fn asked(&mut self, project: &str, door: &str, sent_at: Instant, is_accepted: bool) {
        let what = if is_accepted { "accepted" } else { "maybe" };
        self.note(
            what,
            json!({"project": project, "door": door, "sent_at": sent_at}),
        );
        if is_accepted {
            let asked = self.asked.entry(project.to_owned()).or_default();
            asked.push(sent_at);
        } else {
            self.maybe += 1;
        }
    }

    /// Whether a server could not be reached, or a worker stood still, at some time in between.
    pub(super) fn was_troubled(&self, from: Instant, until: Instant) -> bool {
        let outages = self.outages.iter().map(|it| (it.from, it.until));
        let stops = self.stops.iter().map(|it| (it.from, it.until));
        outages
            .chain(stops)
            .any(|(begin, end)| begin <= until && from <= end)
    }
}

/// A folder that is removed in the end, but for when a check fails.
pub(super) struct Folder(Option<TempDir>);

impl Folder {
    pub(super) fn new() -> Self {
        Self(Some(
            tempfile::Builder::new()
                .prefix("catalog-sync-fleet-")
                .tempdir()
                .unwrap(),
        ))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            let kept = folder.keep();
            println!(
                "the diary and the workers' logs are kept: {}",
                kept.display()
            );
        }
    }
}
