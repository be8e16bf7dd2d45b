//! The two sides of a comparison: what the store holds and what Apple listed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Absence, Change, ChangeSet, Entry, Key, Kind, StoreId};

/// What the store holds of a project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// What is there.
    pub present: BTreeMap<Key, Entry>,
    /// What was there, as it was last seen: a thing that returns is restored, not added.
    pub removed: BTreeMap<Key, Entry>,
    /// What is known of those present that the latest complete listing did not have. It is no part of the log.
    pub absent: BTreeMap<Key, Absence>,
}

impl Catalog {
    /// How many entries of a kind are present.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.of_kind(kind).count()
    }

    /// Without what is no part of the log.
    #[must_use]
    pub fn logged(self) -> Self {
        Self {
            absent: BTreeMap::new(),
            ..self
        }
    }

    /// Whether it stays though it is gone, because somebody discarded its removal.
    #[must_use]
    pub fn is_kept(&self, key: &Key) -> bool {
        self.absent
            .get(key)
            .is_some_and(|absence| absence.kept_at.is_some())
    }

    /// The present entries of a kind, in order.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.present
            .values()
            .filter(move |entry| entry.key.kind == kind)
    }

    /// Brings the changes about. Replaying a project's whole change log onto an empty catalog gives what is [`Self::logged`] of its
    /// catalog.
    pub fn apply(&mut self, changes: &ChangeSet) {
        for change in changes {
            let key = change.key();
            match change {
                Change::Added { after }
                | Change::Updated { after, .. }
                | Change::Restored { after, .. } => {
                    self.removed.remove(key);
                    self.present.insert(key.clone(), after.clone());
                }
                Change::Removed { before } => {
                    self.present.remove(key);
                    self.removed.insert(key.clone(), before.clone());
                }
            }
        }
    }
}

/// What Apple listed: entries, and the kinds of which nothing is missing.
///
/// Only [`Snapshot::cover`] adds entries, and it takes a kind whole: absence from a snapshot means something, because a
/// kind that was cut, refused or torn is not in it at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    covers: BTreeSet<Kind>,
    entries: BTreeMap<Key, Entry>,
}

/// Two entries of one listing have the same id, or an entry is of another kind than the listing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAListing {
    /// The same thing twice: the listing moved while it was read.
    #[error("{kind} {store_id} is listed twice")]
    Repeated {
        /// The listing's kind.
        kind: Kind,
        /// The id that came twice.
        store_id: StoreId,
    },
    /// A thing that does not belong in this listing.
    #[error("{found} {store_id} stands in a listing of {kind}")]
    Stray {
        /// The listing's kind.
        kind: Kind,
        /// The stray's kind.
        found: Kind,
        /// The stray's id.
        store_id: StoreId,
    },
}

impl Snapshot {
    /// A snapshot that covers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the complete listing of one kind, replacing what it had of that kind.
    ///
    /// # Errors
    /// When an id repeats or an entry is of another kind; the snapshot is then as before.
    pub fn cover(
        &mut self,
        kind: Kind,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<(), NotAListing> {
        let mut listed = BTreeMap::new();
        for entry in entries {
            let store_id = entry.key.store_id.clone();
            if entry.key.kind != kind {
                return Err(NotAListing::Stray {
                    kind,
                    found: entry.key.kind,
                    store_id,
                });
            }
            if listed.insert(entry.key.clone(), entry).is_some() {
                return Err(NotAListing::Repeated { kind, store_id });
            }
        }
        self.entries.retain(|key, _| key.kind != kind);
        self.entries.append(&mut listed);
        self.covers.insert(kind);
        Ok(())
    }

    /// The kinds listed completely.
    #[must_use]
    pub fn covers(&self) -> &BTreeSet<Kind> {
        &self.covers
    }

    /// How many entries of a kind were listed.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.entries.keys().filter(|key| key.kind == kind).count()
    }

    /// What was listed, in order.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }
}
