//! One change of an entry, and a set of them: what a plan shows, a commit writes and the change log keeps.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    str::FromStr,
};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use super::{Entry, Key, Kind};

/// What happened to an entry, with both sides of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Seen for the first time.
    Added {
        /// As it is now.
        after: Entry,
    },
    /// Seen before, and different now.
    Updated {
        /// As it was.
        before: Entry,
        /// As it is now.
        after: Entry,
    },
    /// Gone from a complete listing.
    Removed {
        /// As it was last seen.
        before: Entry,
    },
    /// Once removed, and back.
    Restored {
        /// As it was when it was removed.
        before: Entry,
        /// As it is now.
        after: Entry,
    },
}

/// The name of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Seen for the first time.
    Added,
    /// Different from before.
    Updated,
    /// Gone.
    Removed,
    /// Back.
    Restored,
}

impl Op {
    /// The name used in the database and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Updated => "updated",
            Self::Removed => "removed",
            Self::Restored => "restored",
        }
    }

    /// The mark that stands before a change in a plan.
    #[must_use]
    pub const fn sigil(self) -> char {
        match self {
            Self::Added | Self::Restored => '+',
            Self::Updated => '~',
            Self::Removed => '-',
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Op {
    type Err = UnknownOp;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Added, Self::Updated, Self::Removed, Self::Restored]
            .into_iter()
            .find(|op| op.as_str() == name)
            .ok_or_else(|| UnknownOp(name.to_owned()))
    }
}

/// A name that is no change's.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a change: use added, updated, removed or restored")]
pub struct UnknownOp(String);

/// One field of an updated entry: its name, and its values before and after.
pub type FieldChange<'a> = (&'a str, Option<Value>, Option<Value>);

impl Change {
    /// The name of this change.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::Added { .. } => Op::Added,
            Self::Updated { .. } => Op::Updated,
            Self::Removed { .. } => Op::Removed,
            Self::Restored { .. } => Op::Restored,
        }
    }

    /// The entry as it was, where it was there before.
    #[must_use]
    pub fn before(&self) -> Option<&Entry> {
        match self {
            Self::Added { .. } => None,
            Self::Updated { before, .. }
            | Self::Removed { before }
            | Self::Restored { before, .. } => Some(before),
        }
    }

    /// The entry as it is, where it is still there.
    #[must_use]
    pub fn after(&self) -> Option<&Entry> {
        match self {
            Self::Removed { .. } => None,
            Self::Added { after } | Self::Updated { after, .. } | Self::Restored { after, .. } => {
                Some(after)
            }
        }
    }

    /// The entry in its latest known form.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Removed { before } => before,
            Self::Added { after } | Self::Updated { after, .. } | Self::Restored { after, .. } => {
                after
            }
        }
    }

    /// What changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.entry().key
    }

    /// The fields whose values differ between the two sides, in order; the parent comes first, under its kind's name.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldChange<'_>> {
        let parent = |entry: Option<&Entry>| {
            entry
                .and_then(|entry| entry.parent.as_ref())
                .map(|id| Value::from(id.as_str()))
        };
        let value = |entry: Option<&Entry>, name: &str| {
            entry.and_then(|entry| entry.attributes.get(name).cloned())
        };
        let names = [self.before(), self.after()]
            .into_iter()
            .flatten()
            .flat_map(|entry| entry.attributes.keys())
            .collect::<std::collections::BTreeSet<_>>();
        let parents = self
            .key()
            .kind
            .parent()
            .map(|kind| (kind.as_str(), parent(self.before()), parent(self.after())));
        let attributes = names.into_iter().map(|name| {
            (
                name.as_str(),
                value(self.before(), name),
                value(self.after(), name),
            )
        });
        parents
            .into_iter()
            .chain(attributes)
            .filter(|(_, before, after)| before != after)
            .collect()
    }
}

/// `{"op", "kind", "store_id", "product_id", "before", "after"}`, the sides as [`super::Body`] or null.
impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut change = serializer.serialize_struct("Change", 6)?;
        change.serialize_field("op", &self.op())?;
        change.serialize_field("kind", &self.key().kind)?;
        change.serialize_field("store_id", &self.key().store_id)?;
        change.serialize_field("product_id", &self.entry().product_id())?;
        change.serialize_field("before", &self.before().map(Entry::body))?;
        change.serialize_field("after", &self.after().map(Entry::body))?;
        change.end()
    }
}

/// `+ in_app_purchase com.example.coins "100 Coins"`, and for an update a line for each field with both values.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry();
        let id = entry
            .product_id()
            .unwrap_or(entry.key.store_id.as_str())
            .replace(char::is_control, "\u{fffd}");
        write!(f, "{} {:<18} {id}", self.op().sigil(), entry.key.kind)?;
        if let Some(name) = entry.name() {
            write!(f, " {name:?}")?;
        }
        if self.op() == Op::Restored {
            f.write_str(" (restored)")?;
        }
        if matches!(self, Self::Added { .. } | Self::Removed { .. }) {
            return Ok(());
        }
        for (name, before, after) in self.fields() {
            write!(
                f,
                "\n    {name}: {} -> {}",
                Shown(before.as_ref()),
                Shown(after.as_ref())
            )?;
        }
        Ok(())
    }
}

struct Shown<'a>(Option<&'a Value>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(value) => write!(f, "{value}"),
        }
    }
}

/// Changes in order of their keys, at most one for each.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ChangeSet {
    changes: Vec<Change>,
}

impl ChangeSet {
    /// The changes, put in order.
    #[must_use]
    pub fn new(mut changes: Vec<Change>) -> Self {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        Self { changes }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.changes.iter()
    }

    /// Those that satisfy the condition, and the others.
    #[must_use]
    pub fn partition(self, condition: impl FnMut(&Change) -> bool) -> (Self, Self) {
        let (yes, no) = self.changes.into_iter().partition(condition);
        (Self { changes: yes }, Self { changes: no })
    }

    /// How many changes there are by kind and name.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for change in &self.changes {
            let tally = counts.0.entry(change.key().kind).or_default();
            match change.op() {
                Op::Added => tally.added += 1,
                Op::Updated => tally.updated += 1,
                Op::Removed => tally.removed += 1,
                Op::Restored => tally.restored += 1,
            }
        }
        counts
    }
}

impl<'a> IntoIterator for &'a ChangeSet {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        write!(f, "{}", self.counts())
    }
}

/// How many entries of a kind were added, updated, removed and restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tally {
    pub added: usize,
    pub updated: usize,
    pub removed: usize,
    pub restored: usize,
}

/// How many changes there are, by kind; a kind without changes is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Counts(pub BTreeMap<Kind, Tally>);

impl Counts {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.0.values().fold(Tally::default(), |sum, tally| Tally {
            added: sum.added + tally.added,
            updated: sum.updated + tally.updated,
            removed: sum.removed + tally.removed,
            restored: sum.restored + tally.restored,
        })
    }
}

/// `2 added, 1 updated, 0 removed`, and the restored where there are any.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        if total == Tally::default() {
            return f.write_str("no changes");
        }
        let Tally {
            added,
            updated,
            removed,
            restored,
        } = total;
        let mut line = String::new();
        write!(line, "{added} added, {updated} updated, {removed} removed")?;
        if restored > 0 {
            write!(line, ", {restored} restored")?;
        }
        f.pad(&line)
    }
}
