//! The change log as proof: replayed from nothing, a project's log gives its catalog.
//!
//! [`Verification`] walks a log in order and tells of everything that contradicts that. It keeps the catalog that the lines
//! lead to, and never the lines: a log of any length is verified in the memory that its catalog takes.
//!
//! Retention may have deleted lines from before an instant, from which on the log is *whole*. What is older has for each entry
//! its latest change alone, so that the first change of a key is taken there as it is, and revisions may skip. The last of them
//! stays, so that from the instant on none does. Retention also deletes what is stored of entries that were removed long ago
//! ([`REMOVED_KEPT`]).

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde::Serialize;
use uuid::Uuid;

use super::{Catalog, Change, ChangeSet, Entry, Key, UnknownKind, UnknownOp};
use crate::clock::Instant;

/// How long at least a removed entry stays stored; what returns after that may be added instead of restored.
pub const REMOVED_KEPT: TimeDelta = TimeDelta::days(30);

/// How many contradictions are kept; the others are counted.
const CONTRADICTIONS_KEPT: usize = 20;

/// The catalog that a log leads to, from nothing and in order.
pub fn replay(log: impl IntoIterator<Item = Change>) -> Catalog {
    let mut catalog = Catalog::default();
    for change in log {
        catalog.apply(&ChangeSet::new(vec![change]));
    }
    catalog
}

/// A line of a project's change log.
#[derive(Debug)]
pub struct Line {
    /// Its number, which rises.
    pub seq: i64,
    /// The catalog's revision that its run led to.
    pub revision: i64,
    /// The run.
    pub run_id: Uuid,
    /// When the run ended.
    pub at: Instant,
    /// What it tells.
    pub change: Result<Change, NotAChange>,
}

/// Why a line of a log tells no change.
#[derive(Debug, thiserror::Error)]
pub enum NotAChange {
    /// A newer version wrote it, or nobody of ours.
    #[error(transparent)]
    Kind(#[from] UnknownKind),
    /// A newer version wrote it, or nobody of ours.
    #[error(transparent)]
    Op(#[from] UnknownOp),
    /// The entry as it was or as it is cannot be read.
    #[error("one of its sides cannot be read: {0}")]
    Side(#[from] serde_json::Error),
    /// It has not just the sides that its name asks for.
    #[error("it has {}, which no {op} change has", sides(*.before, *.after))]
    Sides {
        /// Its name.
        op: super::Op,
        /// Whether it tells how the entry was.
        before: bool,
        /// Whether it tells how the entry is.
        after: bool,
    },
}

fn sides(before: bool, after: bool) -> &'static str {
    match (before, after) {
        (true, true) => "both sides",
        (true, false) => "a side before alone",
        (false, true) => "a side after alone",
        (false, false) => "neither side",
    }
}

/// What does not agree, and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contradiction {
    /// The line of the log; none of what its end and the stored catalog do not agree in.
    pub seq: Option<i64>,
    /// The entry, where one is concerned.
    #[serde(flatten)]
    pub key: Option<Key>,
    /// What is wrong.
    #[serde(flatten)]
    pub what: Wrong,
}

/// `line 17: subscription 8: it was updated, but was not there`.
impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "line {seq}: ")?,
            None => f.write_str("stored: ")?,
        }
        if let Some(key) = &self.key {
            write!(f, "{} {}: ", key.kind, key.store_id)?;
        }
        write!(f, "{}", self.what)
    }
}

/// What is wrong with a log, or with what is stored beside it.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Wrong {
    #[error("revision {revision} comes after revision {before}")]
    RevisionFalls { before: i64, revision: i64 },
    #[error("revision {revision} comes after revision {before}: what lies between is missing")]
    RevisionSkips { before: i64, revision: i64 },
    #[error("revision {revision} is of the same run as the revision before")]
    RunRepeats { revision: i64 },
    #[error("revision {revision} is of two runs")]
    TwoRuns { revision: i64 },
    #[error("revision {revision} is of two instants")]
    TwoInstants { revision: i64 },
    #[error("it changed twice in revision {revision}")]
    ChangedTwice { revision: i64 },
    #[error("the line tells no change: {why}")]
    Unreadable { why: String },
    #[error("readers find it under another product id than its attributes have")]
    ProductId,
    #[error("it was added, but was there")]
    AddedWhatIsThere,
    #[error("it was added and not restored, but was removed as lately as {removed_at}")]
    AddedWhatWasRemoved { removed_at: Instant },
    #[error("it was {op}, but was not there")]
    ChangedWhatIsNotThere { op: super::Op },
    #[error("it was restored, but was not removed")]
    RestoredWhatWasNotRemoved,
    #[error("what it is said to have been is not what it was: {}", .fields.join(", "))]
    BeforeDiffers { fields: Vec<String> },
    #[error("the log ends with revision {log}, the catalog has revision {stored}")]
    LastRevision { log: i64, stored: i64 },
    #[error("the log has it, the catalog does not")]
    NotStored,
    #[error("it was removed as lately as {removed_at}, and is not stored any more")]
    ForgottenTooSoon { removed_at: Instant },
    #[error("the catalog has it, the log does not")]
    NotLogged,
    #[error("the log has it as removed, the catalog as present")]
    StoredAsPresent,
    #[error("the log has it as present, the catalog as removed")]
    StoredAsRemoved,
    #[error("the catalog has it otherwise than the log: {}", .fields.join(", "))]
    StoredDiffers { fields: Vec<String> },
}

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// How many lines the log has.
    pub changes: usize,
    /// How many revisions they are of.
    pub revisions: usize,
    /// How many entries the catalog has.
    pub present: usize,
    /// How many removed entries are stored.
    pub removed: usize,
    /// From when on the log is whole, if lines from before that were deleted.
    pub log_since: Option<Instant>,
    /// What does not agree, the first of it.
    pub contradictions: Vec<Contradiction>,
    /// How many contradictions there are beside these.
    pub more: usize,
}

impl Proof {
    /// Whether nothing contradicts that the log gives the catalog.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.contradictions.is_empty()
    }
}

/// A walk through a log.
#[derive(Debug)]
pub struct Verification {
    log_since: Option<Instant>,
    replayed: Catalog,
    removed_at: BTreeMap<Key, Instant>,
    latest: Option<Revision>,
    changes: usize,
    revisions: usize,
    contradictions: Vec<Contradiction>,
    more: usize,
}

/// The revision that the walk has come to.
#[derive(Debug)]
struct Revision {
    number: i64,
    run_id: Uuid,
    at: Instant,
    keys: BTreeSet<Key>,
}

impl Verification {
    /// At the beginning of a log, which is whole from that instant on, or from its beginning.
    #[must_use]
    pub fn new(log_since: Option<Instant>) -> Self {
        Self {
            log_since,
            replayed: Catalog::default(),
            removed_at: BTreeMap::new(),
            latest: None,
            changes: 0,
            revisions: 0,
            contradictions: Vec::new(),
            more: 0,
        }
    }

    /// Takes the next line. After a contradiction, what the line says stands, so that one is told once.
    pub fn take(&mut self, line: Line) {
        self.changes += 1;
        let is_thinned = self.log_since.is_some_and(|since| line.at < since);
        for wrong in self.place(&line, is_thinned) {
            self.blame(Some(line.seq), None, wrong);
        }
        let change = match line.change {
            Ok(change) => change,
            Err(why) => {
                let why = why.to_string();
                self.blame(Some(line.seq), None, Wrong::Unreadable { why });
                return;
            }
        };
        let key = change.key().clone();
        let revision = line.revision;
        let is_new =
            (self.latest.as_mut()).is_none_or(|latest| latest.keys.insert(change.key().clone()));
        let twice = (!is_new).then_some(Wrong::ChangedTwice { revision });
        let wrongs = [twice, self.contradicts(&change, line.at, is_thinned)];
        for wrong in wrongs.into_iter().flatten() {
            self.blame(Some(line.seq), Some(&key), wrong);
        }
        match change {
            Change::Removed { .. } => self.removed_at.insert(key, line.at),
            Change::Added { .. } | Change::Updated { .. } | Change::Restored { .. } => {
                self.removed_at.remove(&key)
            }
        };
        self.replayed.apply(&ChangeSet::new(vec![change]));
    }

    /// Whether the line's revision, run and instant follow from those before, and goes on from there.
    fn place(&mut self, line: &Line, is_thinned: bool) -> Vec<Wrong> {
        let revision = line.revision;
        if let Some(latest) = &self.latest
            && latest.number == revision
        {
            let two_runs = latest.run_id != line.run_id;
            let two_instants = !two_runs && latest.at != line.at;
            return [
                two_runs.then_some(Wrong::TwoRuns { revision }),
                two_instants.then_some(Wrong::TwoInstants { revision }),
            ]
            .into_iter()
            .flatten()
            .collect();
        }
        let before = self.latest.as_ref().map_or(0, |latest| latest.number);
        let falls = revision <= before;
        let skips = revision > before + 1 && !is_thinned;
        let repeats = (self.latest.as_ref()).is_some_and(|latest| latest.run_id == line.run_id);
        self.revisions += 1;
        self.latest = Some(Revision {
            number: revision,
            run_id: line.run_id,
            at: line.at,
            keys: BTreeSet::new(),
        });
        [
            falls.then_some(Wrong::RevisionFalls { before, revision }),
            skips.then_some(Wrong::RevisionSkips { before, revision }),
            repeats.then_some(Wrong::RunRepeats { revision }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What the lines before say against this change.
    fn contradicts(&self, change: &Change, at: Instant, is_thinned: bool) -> Option<Wrong> {
        let key = change.key();
        let present = self.replayed.present.get(key);
        let removed = self.replayed.removed.get(key);
        let is_first = present.is_none() && removed.is_none();
        let (was, said) = match change {
            Change::Added { .. } if present.is_some() => return Some(Wrong::AddedWhatIsThere),
            Change::Added { .. } => {
                let removed_at = *self.removed_at.get(key)?;
                let is_lately = at - removed_at < REMOVED_KEPT;
                return is_lately.then_some(Wrong::AddedWhatWasRemoved { removed_at });
            }
            _ if is_first && is_thinned => return None,
            Change::Restored { before, .. } => (removed, before),
            Change::Updated { before, .. } | Change::Removed { before } => (present, before),
        };
        match was {
            None if matches!(change, Change::Restored { .. }) => {
                Some(Wrong::RestoredWhatWasNotRemoved)
            }
            None => Some(Wrong::ChangedWhatIsNotThere { op: change.op() }),
            Some(was) => (was != said).then(|| Wrong::BeforeDiffers {
                fields: differing(was, said),
            }),
        }
    }

    /// That readers find an entry under another product id than its attributes have.
    pub fn misname(&mut self, key: &Key) {
        self.blame(None, Some(key), Wrong::ProductId);
    }

    /// At the end of the log: compares what it leads to with what is stored of the same moment.
    #[must_use]
    pub fn finish(mut self, stored: &Catalog, revision: i64, now: Instant) -> Proof {
        let log = self.latest.as_ref().map_or(0, |latest| latest.number);
        if log != revision {
            let stored = revision;
            self.blame(None, None, Wrong::LastRevision { log, stored });
        }
        let keys: BTreeSet<Key> = [&self.replayed, stored]
            .into_iter()
            .flat_map(|catalog| catalog.present.keys().chain(catalog.removed.keys()))
            .cloned()
            .collect();
        for key in keys {
            if let Some(wrong) = self.misses(&key, stored, now) {
                self.blame(None, Some(&key), wrong);
            }
        }
        Proof {
            changes: self.changes,
            revisions: self.revisions,
            present: stored.present.len(),
            removed: stored.removed.len(),
            log_since: self.log_since,
            contradictions: self.contradictions,
            more: self.more,
        }
    }

    /// What is stored of an entry otherwise than the log has it.
    fn misses(&self, key: &Key, stored: &Catalog, now: Instant) -> Option<Wrong> {
        let logged = &self.replayed;
        let (log, catalog) = match (logged.present.get(key), stored.present.get(key)) {
            (Some(log), Some(catalog)) => (log, catalog),
            (Some(_), None) if stored.removed.contains_key(key) => {
                return Some(Wrong::StoredAsRemoved);
            }
            (Some(_), None) => return Some(Wrong::NotStored),
            (None, Some(_)) if logged.removed.contains_key(key) => {
                return Some(Wrong::StoredAsPresent);
            }
            (None, Some(_)) => return Some(Wrong::NotLogged),
            (None, None) => match (logged.removed.get(key), stored.removed.get(key)) {
                (Some(log), Some(catalog)) => (log, catalog),
                (None, _) => return Some(Wrong::NotLogged),
                (Some(_), None) => {
                    let removed_at = *self.removed_at.get(key)?;
                    let is_lately = now - removed_at < REMOVED_KEPT;
                    return is_lately.then_some(Wrong::ForgottenTooSoon { removed_at });
                }
            },
        };
        (log != catalog).then(|| Wrong::StoredDiffers {
            fields: differing(log, catalog),
        })
    }

    fn blame(&mut self, seq: Option<i64>, key: Option<&Key>, what: Wrong) {
        if self.contradictions.len() == CONTRADICTIONS_KEPT {
            self.more += 1;
            return;
        }
        let key = key.cloned();
        self.contradictions.push(Contradiction { seq, key, what });
    }
}

/// The names of what two forms of an entry do not have in common.
fn differing(one: &Entry, other: &Entry) -> Vec<String> {
    let parent = (one.parent != other.parent).then(|| "parent".to_owned());
    let names: BTreeSet<&String> = (one.attributes.keys())
        .chain(other.attributes.keys())
        .filter(|name| one.attributes.get(*name) != other.attributes.get(*name))
        .collect();
    parent
        .into_iter()
        .chain(names.into_iter().cloned())
        .collect()
}
