//! What stands between a diff and the catalog: additions and updates pass, removals that look like an accident are held.
//!
//! Only [`review`] makes a [`Plan`], and a store commits nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

pub use super::limits::{Limits, OwnLimits};
use super::{Catalog, Change, ChangeSet, Key, Kind, StoreId};

/// Changes that may be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Plan {
    changes: ChangeSet,
}

impl Plan {
    /// A plan to change nothing, for a run that could not compare anything.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// What is to be written.
    #[must_use]
    pub fn changes(&self) -> &ChangeSet {
        &self.changes
    }
}

/// What [`review`] makes of a change set.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// What may be written.
    pub plan: Plan,
    /// What is held back, if anything.
    pub hold: Option<Hold>,
}

/// Removals held back until somebody approves them or the things return.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Names exactly these removals; an approval quotes it.
    pub digest: Digest,
    /// Why they are held, with numbers.
    pub reasons: Vec<Reason>,
    /// What would be removed, in order.
    pub removals: Vec<Held>,
}

impl Hold {
    /// What is held after a run: what it holds itself, and what was held before of the kinds that it could not look at.
    #[must_use]
    pub fn after(
        before: Option<Self>,
        now: Option<Self>,
        looked_at: &BTreeSet<Kind>,
    ) -> Option<Self> {
        let not_looked_at = |kind: Kind| !looked_at.contains(&kind);
        let Some(mut kept) = before else { return now };
        let reasons = kept.reasons.clone();
        kept.reasons.retain(|reason| not_looked_at(reason.kind()));
        kept.removals.retain(|held| not_looked_at(held.key.kind));
        if let Some(now) = now {
            kept.reasons.extend(now.reasons);
            kept.removals.extend(now.removals);
        }
        if kept.reasons.is_empty() {
            kept.reasons = reasons;
        }
        kept.removals.sort_by(|a, b| a.key.cmp(&b.key));
        kept.digest = Digest::of(kept.removals.iter().map(|held| &held.key));
        (!kept.removals.is_empty()).then_some(kept)
    }
}

/// One removal held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What would be removed.
    #[serde(flatten)]
    pub key: Key,
    /// Its product id, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Names a set of removals: the first 12 hexadecimal digits of SHA-256 over their kinds and ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for key in keys {
            context.update(key.kind.as_str().as_bytes());
            context.update(b"/");
            context.update(key.store_id.as_str().as_bytes());
            context.update(b"\n");
        }
        let mut hex = String::new();
        for byte in context.finish().as_ref().iter().take(6) {
            write!(hex, "{byte:02x}").expect("a string takes any write");
        }
        Self(hex)
    }
}

impl<S: Into<String>> From<S> for Digest {
    fn from(text: S) -> Self {
        Self(text.into().to_lowercase())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why removals are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Reason {
    /// Nothing of the kind would be left.
    Everything {
        /// The kind.
        kind: Kind,
        /// How many would be removed.
        removed: usize,
    },
    /// Too large a part of the kind would go.
    Percent {
        /// The kind.
        kind: Kind,
        /// How many would be removed.
        removed: usize,
        /// How many are present.
        present: usize,
        /// The limit.
        limit_percent: usize,
    },
    /// Too many of the kind would go.
    Count {
        /// The kind.
        kind: Kind,
        /// How many would be removed.
        removed: usize,
        /// The limit.
        limit: usize,
    },
    /// A parent would go and with it many others.
    Descendants {
        /// The parent's kind.
        kind: Kind,
        /// The parent's id.
        store_id: StoreId,
        /// How many belong to it.
        descendants: usize,
        /// The limit.
        limit: usize,
    },
}

impl Reason {
    fn kind(&self) -> Kind {
        match self {
            Self::Everything { kind, .. }
            | Self::Percent { kind, .. }
            | Self::Count { kind, .. }
            | Self::Descendants { kind, .. } => *kind,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything { kind, removed: 1 } => {
                write!(f, "the only {} would go", kind.noun(1))
            }
            Self::Everything { kind, removed } => {
                write!(f, "all {removed} {} would go", kind.noun(*removed))
            }
            Self::Percent {
                kind,
                removed,
                present,
                limit_percent,
            } => {
                // One decimal, rounded up, so that what is over a limit never reads as the limit.
                let tenths = (removed * 1000).div_ceil(*present);
                write!(
                    f,
                    "{removed} of {present} {} would go ({}.{} %, limit {limit_percent} %)",
                    kind.noun(*present),
                    tenths / 10,
                    tenths % 10
                )
            }
            Self::Count {
                kind,
                removed,
                limit,
            } => {
                write!(
                    f,
                    "{removed} {} would go (limit {limit})",
                    kind.noun(*removed)
                )
            }
            Self::Descendants {
                kind,
                store_id,
                descendants,
                limit,
            } => {
                write!(
                    f,
                    "{} {store_id} would go with {descendants} things in it (limit {limit})",
                    kind.noun(1)
                )
            }
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.removals.len();
        write!(
            f,
            "{count} removal{} held: ",
            if count == 1 { "" } else { "s" }
        )?;
        for (index, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// What was held before a run.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// Nothing.
    Nothing,
    /// This, and nobody has approved it.
    Held(&'a Hold),
    /// This, and somebody has approved it as it was shown.
    Approved(&'a Hold),
}

impl<'a> Standing<'a> {
    /// What stands of a hold for a run that brings along this approval, if any.
    #[must_use]
    pub fn of(hold: Option<&'a Hold>, approved: Option<&Digest>) -> Self {
        match hold {
            None => Self::Nothing,
            Some(hold) if approved == Some(&hold.digest) => Self::Approved(hold),
            Some(hold) => Self::Held(hold),
        }
    }
}

/// Splits the changes into what may be written and what is held.
///
/// What was held before stays held until it is approved or returns, and with it every other removal of its kinds: a hold does not
/// dissolve because the catalog grew meanwhile. An approval lets through what was shown, as far as its kinds were
/// `looked_at`, and nothing else: when more or less than that has vanished, it counts for nothing.
///
/// The removal of a parent whose descendants were not looked at waits until they are; held, if it is held.
#[must_use]
pub fn review(
    changes: ChangeSet,
    local: &Catalog,
    looked_at: &BTreeSet<Kind>,
    limits: &Limits,
    standing: Standing<'_>,
) -> Review {
    let parent_of = |key: &Key| parent_key(key, local.present.get(key)?.parent.as_ref());
    let waiting: BTreeSet<Key> = local
        .present
        .keys()
        .filter(|key| !looked_at.contains(&key.kind))
        .filter_map(parent_of)
        .collect();

    let removed: BTreeSet<&Key> = changes
        .iter()
        .filter(|change| matches!(change, Change::Removed { .. }))
        .map(Change::key)
        .collect();
    let (mut reasons, mut held_kinds, held_parents) = reasons(&removed, local, limits);
    if let Standing::Held(before) | Standing::Approved(before) = standing {
        let still_gone = before
            .removals
            .iter()
            .filter(|held| removed.contains(&held.key));
        let kinds: BTreeSet<Kind> = still_gone.map(|held| held.key.kind).collect();
        let told: BTreeSet<Kind> = reasons.iter().map(Reason::kind).collect();
        let earlier = before
            .reasons
            .iter()
            .filter(|reason| kinds.contains(&reason.kind()) && !told.contains(&reason.kind()));
        reasons.extend(earlier.cloned());
        if reasons.is_empty() && !kinds.is_empty() {
            // What was its reason has returned; what was held with it has not.
            reasons.clone_from(&before.reasons);
        }
        held_kinds.extend(kinds);
    }
    let mut held: BTreeSet<Key> = removed
        .iter()
        .filter(|key| {
            held_kinds.contains(&key.kind)
                || held_parents.contains(**key)
                || parent_of(key).is_some_and(|parent| held_parents.contains(&parent))
        })
        .map(|&key| key.clone())
        .collect();
    // A parent stays as long as anything in it stays.
    let parents: BTreeSet<Key> = held
        .iter()
        .filter_map(parent_of)
        .filter(|parent| removed.contains(parent))
        .collect();
    held.extend(parents);

    if let Standing::Approved(shown) = standing {
        let shown = shown
            .removals
            .iter()
            .map(|held| &held.key)
            .filter(|key| looked_at.contains(&key.kind));
        if held.iter().eq(shown) {
            // Approved, but for the parents that must wait.
            held.retain(|key| waiting.contains(key));
        }
    }
    let (changes, _) = changes.partition(|change| {
        let key = change.key();
        !matches!(change, Change::Removed { .. }) || held.contains(key) || !waiting.contains(key)
    });
    if held.is_empty() {
        return Review {
            plan: Plan { changes },
            hold: None,
        };
    }
    let (held, passed) = changes.partition(|change| held.contains(change.key()));
    let removals: Vec<Held> = held
        .iter()
        .map(|change| Held {
            key: change.key().clone(),
            product_id: change.entry().product_id().map(str::to_owned),
            name: change.entry().name().map(str::to_owned),
        })
        .collect();
    let digest = Digest::of(removals.iter().map(|held| &held.key));
    Review {
        plan: Plan { changes: passed },
        hold: Some(Hold {
            digest,
            reasons,
            removals,
        }),
    }
}

fn parent_key(key: &Key, parent: Option<&StoreId>) -> Option<Key> {
    Some(Key {
        kind: key.kind.parent()?,
        store_id: parent?.clone(),
    })
}

/// The rules that are broken, the kinds of which all removals are held, and the parents that are held with all in them.
fn reasons(
    removed: &BTreeSet<&Key>,
    local: &Catalog,
    limits: &Limits,
) -> (Vec<Reason>, BTreeSet<Kind>, BTreeSet<Key>) {
    let mut reasons = Vec::new();
    let mut held_kinds = BTreeSet::new();
    let mut held_parents = BTreeSet::new();

    let mut removed_by_kind = BTreeMap::<Kind, usize>::new();
    for key in removed {
        *removed_by_kind.entry(key.kind).or_default() += 1;
    }
    for (kind, removed) in removed_by_kind {
        let present = local.count(kind);
        let broken = if removed == present {
            Some(Reason::Everything { kind, removed })
        } else if removed > limits.removed_max {
            Some(Reason::Count {
                kind,
                removed,
                limit: limits.removed_max,
            })
        } else if present >= limits.percent_from && removed * 100 > limits.removed_percent * present
        {
            Some(Reason::Percent {
                kind,
                removed,
                present,
                limit_percent: limits.removed_percent,
            })
        } else {
            None
        };
        if let Some(reason) = broken {
            reasons.push(reason);
            held_kinds.insert(kind);
        }
    }

    let mut descendants = BTreeMap::<Key, usize>::new();
    for entry in local.present.values() {
        if let Some(parent) = parent_key(&entry.key, entry.parent.as_ref()) {
            *descendants.entry(parent).or_default() += 1;
        }
    }
    for (parent, descendants) in descendants {
        if removed.contains(&parent) && descendants > limits.descendants_max {
            reasons.push(Reason::Descendants {
                kind: parent.kind,
                store_id: parent.store_id.clone(),
                descendants,
                limit: limits.descendants_max,
            });
            held_parents.insert(parent);
        }
    }
    (reasons, held_kinds, held_parents)
}
