//! What must change so that the catalog is as Apple listed it.

use std::cmp::Ordering;

use super::{Catalog, Change, ChangeSet, Snapshot};

/// Compares the catalog with a snapshot, kind by kind within the snapshot's scope. Total and ordered by key: the same two
/// sides always give the same changes in the same order.
#[must_use]
pub fn diff(local: &Catalog, remote: &Snapshot) -> ChangeSet {
    let mut here = local
        .present
        .values()
        .filter(|entry| remote.covers().contains(&entry.key.kind))
        .peekable();
    let mut there = remote.entries().values().peekable();
    let mut changes = Vec::new();
    loop {
        let side = match (here.peek(), there.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.key.cmp(&after.key),
        };
        let before = here.next_if(|_| side.is_le());
        let after = there.next_if(|_| side.is_ge());
        changes.extend(match (before, after) {
            (Some(before), Some(after)) if before == after => None,
            (Some(before), Some(after)) => Some(Change::Updated {
                before: before.clone(),
                after: after.clone(),
            }),
            (Some(before), None) => Some(Change::Removed {
                before: before.clone(),
            }),
            (None, Some(after)) => Some(match local.removed.get(&after.key) {
                Some(before) => Change::Restored {
                    before: before.clone(),
                    after: after.clone(),
                },
                None => Change::Added {
                    after: after.clone(),
                },
            }),
            (None, None) => None,
        });
    }
    ChangeSet::new(changes)
}
