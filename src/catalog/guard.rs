//! What stands between a diff and the catalog: additions and updates pass; removals pass when they are confirmed, and those that
//! look like an accident are held.
//!
//! Only [`review`] makes a [`Plan`], and a store commits nothing else.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use super::limits::{Limits, OwnLimits};
use super::{
    Absence, Catalog, Change, ChangeSet, Confirmation, Hold, Key, Kind, StoreId,
    absence::{Answer, Answers},
    hold::{Reason, Standing},
    source::Turn,
};

/// What may be written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Plan {
    changes: ChangeSet,
    #[serde(skip)]
    absences: Absences,
}

/// What is to be noted of things that were not listed, or that are listed again: then it is none.
pub type Absences = BTreeMap<Key, Option<Absence>>;

impl Plan {
    /// A plan to change nothing, for a run that could not compare anything.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            changes: ChangeSet::default(),
            absences: Absences::new(),
        }
    }

    /// What is to be written.
    #[must_use]
    pub fn changes(&self) -> &ChangeSet {
        &self.changes
    }

    /// What is to be noted beside it. Notes are no changes: they are in no log, and make no revision.
    #[must_use]
    pub fn absences(&self) -> &Absences {
        &self.absences
    }

    /// What is known of present things that are not listed, once the plan is carried out.
    #[must_use]
    pub fn absent_after(&self, local: &Catalog) -> BTreeMap<Key, Absence> {
        let mut absent = local.absent.clone();
        for (key, absence) in &self.absences {
            match absence {
                Some(absence) => absent.insert(key.clone(), *absence),
                None => absent.remove(key),
            };
        }
        for change in &self.changes {
            absent.remove(change.key());
        }
        absent
    }
}

/// What [`review`] makes of a change set.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// What may be written.
    pub plan: Plan,
    /// What is held back, if anything.
    pub hold: Option<Hold>,
    /// Whether what was approved is let through, as far as it could be looked at.
    pub is_approved: bool,
}

/// What a run knows of removals, beside the changes.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The kinds that were listed completely.
    pub looked_at: &'a BTreeSet<Kind>,
    /// When each kind was last listed completely before.
    pub seen_at: &'a BTreeMap<Kind, DateTime<Utc>>,
    /// What was said of things that were not listed.
    pub answers: &'a Answers,
    /// The kinds that are listed otherwise than ever before, with what was changed: nothing of them is removed unless it is approved.
    pub turns: &'a BTreeMap<Kind, Turn>,
    /// When the absence of a thing is believed.
    pub confirmation: Confirmation,
    /// When the run ended.
    pub now: DateTime<Utc>,
}

/// Splits the changes into what may be written, what is held, and what waits.
///
/// A removal is written when it is confirmed and nobody need look at it; until then the thing stays, noted as absent. What was
/// asked for by its own id and is there is not removed at all, and neither is what somebody decided to keep.
///
/// What was held before stays held until it is approved or returns, and with it every other removal of its kinds: a hold does not
/// dissolve because the catalog grew meanwhile. An approval lets through what was shown, as far as its kinds were
/// `looked_at`, and nothing else: when more or less than that has vanished, it counts for nothing. It confirms what it lets through.
///
/// A parent is not removed while anything in it stays; it is held, if that is held.
#[must_use]
pub fn review(
    changes: ChangeSet,
    local: &Catalog,
    evidence: &Evidence<'_>,
    limits: &Limits,
    standing: Standing<'_>,
) -> Review {
    let absent: BTreeSet<&Key> = changes
        .iter()
        .filter(|change| matches!(change, Change::Removed { .. }))
        .map(Change::key)
        .collect();
    let vanished: BTreeSet<&Key> = absent
        .iter()
        .copied()
        .filter(|key| !local.is_kept(key) && answer(key, local, evidence) != Some(Answer::There))
        .collect();
    let refuted: BTreeSet<Kind> = absent
        .iter()
        .filter(|key| answer(key, local, evidence) == Some(Answer::There))
        .map(|key| key.kind)
        .collect();

    let moved: BTreeSet<&Key> = changes
        .iter()
        .filter(|change| matches!(change, Change::Updated { before, after } if before.parent != after.parent))
        .map(Change::key)
        .collect();
    let (mut reasons, held_parents) = broken_rules(&vanished, &moved, local, evidence, limits);
    let mut held = held(&vanished, local, &mut reasons, &held_parents, standing);
    let mut approved = BTreeSet::new();
    if let Standing::Approved(shown) = standing {
        let shown = shown
            .removals
            .iter()
            .map(|held| &held.key)
            .filter(|key| evidence.looked_at.contains(&key.kind));
        if held.iter().copied().eq(shown) {
            approved = std::mem::take(&mut held);
        }
    }

    let mut going: BTreeSet<&Key> = vanished
        .iter()
        .copied()
        .filter(|key| {
            let is_confirmed = || {
                evidence.confirmation.confirms(
                    answer(key, local, evidence),
                    local.absent.get(*key),
                    refuted.contains(&key.kind),
                    evidence.now,
                )
            };
            approved.contains(key) || (!held.contains(key) && is_confirmed())
        })
        .collect();
    for child in local.present.values() {
        if going.contains(&child.key) || moved.contains(&child.key) {
            continue;
        }
        // What stays keeps its parent; one that was approved is held on.
        let parent = parent_key(&child.key, child.parent.as_ref());
        if let Some(parent) = parent.and_then(|parent| going.take(&parent)) {
            held.extend(approved.take(parent));
        }
    }

    let absences = absences(&absent, &going, local, evidence);
    let going: BTreeSet<Key> = going.into_iter().cloned().collect();
    let held: BTreeSet<Key> = held.into_iter().cloned().collect();
    let is_approved = !approved.is_empty();
    let (changes, stays) = changes.partition(|change| {
        !matches!(change, Change::Removed { .. }) || going.contains(change.key())
    });
    let (stays, _) = stays.partition(|change| held.contains(change.key()));
    Review {
        plan: Plan { changes, absences },
        hold: (!stays.is_empty())
            .then(|| Hold::of(reasons, &stays, |key| answer(key, local, evidence))),
        is_approved,
    }
}

/// What is held of what vanished: what breaks rules, and what was held before, whose reasons are added.
fn held<'a>(
    vanished: &BTreeSet<&'a Key>,
    local: &Catalog,
    reasons: &mut Vec<Reason>,
    held_parents: &BTreeSet<Key>,
    standing: Standing<'_>,
) -> BTreeSet<&'a Key> {
    let mut held_kinds: BTreeSet<Kind> = reasons
        .iter()
        .filter(|reason| reason.is_of_the_kind())
        .map(Reason::kind)
        .collect();
    let mut still_held = BTreeSet::new();
    if let Standing::Held(before) | Standing::Approved(before) = standing {
        still_held = before
            .removals
            .iter()
            .filter_map(|held| vanished.get(&held.key).copied())
            .collect();
        let kinds: BTreeSet<Kind> = still_held.iter().map(|key| key.kind).collect();
        let told = |earlier: &Reason| {
            let same = |reason: &Reason| {
                reason.kind() == earlier.kind()
                    && reason.is_of_the_kind() == earlier.is_of_the_kind()
            };
            reasons.iter().any(same)
        };
        let earlier: Vec<Reason> = before
            .reasons
            .iter()
            .filter(|reason| kinds.contains(&reason.kind()) && !told(reason))
            .cloned()
            .collect();
        // Of a kind that was held for what is in one parent, other removals are none of its business.
        held_kinds.extend(
            earlier
                .iter()
                .filter(|it| it.is_of_the_kind())
                .map(Reason::kind),
        );
        reasons.extend(earlier);
        if reasons.is_empty() && !kinds.is_empty() {
            // What was its reason has returned; what was held with it has not.
            reasons.clone_from(&before.reasons);
        }
    }
    let parent_of = |key: &Key| parent_key(key, local.present.get(key)?.parent.as_ref());
    let mut held: BTreeSet<&Key> = vanished
        .iter()
        .copied()
        .filter(|key| {
            held_kinds.contains(&key.kind) || held_parents.contains(key) || still_held.contains(key)
        })
        .collect();
    // A parent stays as long as anything in it stays..
    let parents: Vec<&Key> = held
        .iter()
        .filter_map(|key| vanished.get(&parent_of(key)?).copied())
        .collect();
    held.extend(parents);
    // ..and what vanished with a parent is held with it, so that the next look at the same things shows the same hold.
    let children: Vec<&Key> = vanished
        .iter()
        .copied()
        .filter(|key| parent_of(key).is_some_and(|parent| held.contains(&parent)))
        .collect();
    held.extend(children);
    held
}

/// What is to be noted of each thing that was not listed and is not removed now, and of those that are listed again.
fn absences(
    absent: &BTreeSet<&Key>,
    going: &BTreeSet<&Key>,
    local: &Catalog,
    evidence: &Evidence<'_>,
) -> Absences {
    let listed_again = local
        .absent
        .keys()
        .filter(|key| evidence.looked_at.contains(&key.kind) && !absent.contains(key))
        .map(|key| (key.clone(), None));
    let noted = absent.difference(going).filter_map(|key| {
        let before = local.absent.get(*key);
        let absence = Absence {
            // Not ahead of now: a clock that was wrong would have it wait for years.
            since: before.map_or(evidence.now, |absence| absence.since.min(evidence.now)),
            seen_at: match before {
                Some(absence) => absence.seen_at,
                None => evidence.seen_at.get(&key.kind).copied(),
            },
            answer: answer(key, local, evidence),
            kept_at: before.and_then(|absence| absence.kept_at),
        };
        (before != Some(&absence)).then(|| ((*key).clone(), Some(absence)))
    });
    listed_again.chain(noted).collect()
}

/// What was last said of a thing that is not listed, by which something was learned.
fn answer(key: &Key, local: &Catalog, evidence: &Evidence<'_>) -> Option<Answer> {
    let now = evidence.answers.get(key).copied();
    let before = || local.absent.get(key)?.answer;
    now.filter(|answer| *answer != Answer::Unknown)
        .or_else(before)
}

fn parent_key(key: &Key, parent: Option<&StoreId>) -> Option<Key> {
    Some(Key {
        kind: key.kind.parent()?,
        store_id: parent?.clone(),
    })
}

/// The rules that are broken, and the parents that are held with all in them.
fn broken_rules(
    removed: &BTreeSet<&Key>,
    moved: &BTreeSet<&Key>,
    local: &Catalog,
    evidence: &Evidence<'_>,
    limits: &Limits,
) -> (Vec<Reason>, BTreeSet<Key>) {
    let mut reasons = Vec::new();
    let mut held_parents = BTreeSet::new();
    if crate::sabotage::is_out(crate::sabotage::Safeguard::Guard) {
        return (reasons, held_parents);
    }

    let mut removed_by_kind = BTreeMap::<Kind, usize>::new();
    for key in removed {
        *removed_by_kind.entry(key.kind).or_default() += 1;
    }
    for (kind, removed) in removed_by_kind {
        let present = local
            .of_kind(kind)
            .filter(|entry| !local.is_kept(&entry.key))
            .count();
        let broken = if let Some(&turn) = evidence.turns.get(&kind) {
            Some(Reason::Generation {
                kind,
                removed,
                turn,
            })
        } else if removed == present {
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
        reasons.extend(broken);
    }

    let mut descendants = BTreeMap::<Key, usize>::new();
    for entry in local.present.values() {
        if let Some(parent) = parent_key(&entry.key, entry.parent.as_ref())
            && !moved.contains(&entry.key)
        {
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
    (reasons, held_parents)
}
