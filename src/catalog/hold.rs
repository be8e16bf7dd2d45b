//! Removals that are held back: what, why, and how a person names just those.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::{Answer, Body, ChangeSet, Key, Kind, StoreId, source::Turn};

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
    /// A hold of these removals.
    pub(super) fn of(
        reasons: Vec<Reason>,
        removals: &ChangeSet,
        answer: impl Fn(&Key) -> Option<Answer>,
    ) -> Self {
        let removals: Vec<Held> = removals
            .iter()
            .map(|change| {
                let entry = change.entry();
                Held {
                    key: entry.key.clone(),
                    product_id: entry.product_id().map(str::to_owned),
                    name: entry.name().map(str::to_owned),
                    answer: answer(&entry.key),
                    before: Some(entry.body()),
                }
            })
            .collect();
        Self {
            digest: Digest::of(removals.iter().map(|held| &held.key)),
            reasons,
            removals,
        }
    }

    /// Whether the other holds the same, by the same rules: their numbers may differ.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let rules = |hold: &Self| -> Vec<_> {
            let rule = |reason: &Reason| (reason.kind(), std::mem::discriminant(reason));
            hold.reasons.iter().map(rule).collect()
        };
        self.digest == other.digest && rules(self) == rules(other)
    }

    /// The hold without what it holds.
    #[must_use]
    pub fn summary(&self) -> HoldSummary {
        HoldSummary {
            digest: self.digest.clone(),
            reasons: self.reasons.clone(),
            removals: self.removals.len(),
        }
    }

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What App Store Connect said when it was asked for by its own id, before it was held; none if it was not, or nothing was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// All of it, as it is in the catalog; a hold that an earlier version stored has not kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Body>,
}

/// A hold, without what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSummary {
    /// Names exactly these removals; an approval quotes it.
    pub digest: Digest,
    /// Why they are held, with numbers.
    pub reasons: Vec<Reason>,
    /// How many.
    pub removals: usize,
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
    /// The things were last seen before the app, the key or the version of the API was changed.
    Generation {
        /// The kind.
        kind: Kind,
        /// How many would be removed.
        removed: usize,
        /// What was changed.
        turn: Turn,
    },
}

impl Reason {
    /// Whether all removals of the kind are held for it.
    pub(super) fn is_of_the_kind(&self) -> bool {
        !matches!(self, Self::Descendants { .. })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Everything { kind, .. }
            | Self::Percent { kind, .. }
            | Self::Count { kind, .. }
            | Self::Descendants { kind, .. }
            | Self::Generation { kind, .. } => *kind,
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
            Self::Generation {
                kind,
                removed,
                turn,
            } => {
                write!(
                    f,
                    "{removed} {} would go that {} not seen since {turn}",
                    kind.noun(*removed),
                    if *removed == 1 { "was" } else { "were" }
                )
            }
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

/// `7 removals held: 7 of 12 in-app purchases would go (58.4 %, limit 30 %)`.
impl fmt::Display for HoldSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.removals;
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
