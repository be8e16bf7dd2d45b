//! What is known of a thing that was there and that a complete listing did not have.
//!
//! What must hold: a listing that looks complete is not believed at once. A thing is gone when App Store Connect says so of the
//! thing itself, or when two complete listings some time apart did not have it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize, Serializer};

use super::{Catalog, Change, ChangeSet, Hold, Key, Kind};

/// A present thing that the latest complete listing of its kind did not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// When a complete listing first did not have it.
    #[serde(serialize_with = "in_milliseconds")]
    pub since: DateTime<Utc>,
    /// When a listing last had it, where that is known.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "some_in_milliseconds"
    )]
    pub seen_at: Option<DateTime<Utc>>,
    /// What App Store Connect last said when it was asked for by its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Since when it stays, though it is gone, because somebody discarded its removal.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "some_in_milliseconds"
    )]
    pub kept_at: Option<DateTime<Utc>>,
}

/// What App Store Connect says of a thing that is asked for by its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is there, whatever the listing says.
    There,
    /// 404: there is none.
    Gone,
}

/// What App Store Connect said of things that it did not list. A thing that was not asked for, or of which nothing could be
/// learned, is not in it.
pub type Answers = BTreeMap<Key, Answer>;

/// When the absence of a thing is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// How many things are asked for by their own ids in a run.
    pub asked_max: usize,
    /// How long after the first complete listing without a thing another one confirms that it is gone.
    pub again_after: TimeDelta,
}

impl Default for Confirmation {
    fn default() -> Self {
        Self {
            asked_max: 50,
            again_after: TimeDelta::minutes(5),
        }
    }
}

impl Confirmation {
    /// The things to ask for, of those that would be removed: never those of which a 404 is known, nor those that a person is to
    /// decide about or has decided about. First those that were never asked for.
    #[must_use]
    pub fn to_ask(
        &self,
        changes: &ChangeSet,
        local: &Catalog,
        standing: Option<&Hold>,
        mut is_new: impl FnMut(Kind) -> bool,
    ) -> Vec<Key> {
        let held: BTreeSet<&Key> = standing
            .iter()
            .flat_map(|hold| &hold.removals)
            .map(|held| &held.key)
            .collect();
        let mut asked: Vec<(bool, &Key)> = changes
            .iter()
            .filter(|change| matches!(change, Change::Removed { .. }))
            .map(Change::key)
            .filter(|key| key.kind != Kind::GracePeriod && !is_new(key.kind) && !held.contains(key))
            .filter_map(|key| match local.absent.get(key) {
                None => Some((false, key)),
                Some(absence) if absence.kept_at.is_some() => None,
                Some(absence) => match absence.answer {
                    Some(Answer::Gone) => None,
                    Some(Answer::There) => Some((true, key)),
                    None => Some((false, key)),
                },
            })
            .collect();
        asked.sort_unstable();
        asked
            .into_iter()
            .take(self.asked_max)
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// Whether a thing that this run did not find listed is gone. `answers` are this run's.
    pub(super) fn confirms(
        &self,
        key: &Key,
        before: Option<&Absence>,
        answers: &Answers,
        now: DateTime<Utc>,
    ) -> bool {
        let said = answers
            .get(key)
            .copied()
            .or_else(|| before.and_then(|absence| absence.answer));
        match (said, before) {
            (Some(Answer::Gone), _) => true,
            (Some(Answer::There), _) | (None, None) => false,
            (None, Some(absence)) => {
                // A listing without a thing that is there is not complete, however it looks: it confirms nothing.
                let is_refuted = answers
                    .iter()
                    .any(|(other, answer)| other.kind == key.kind && *answer == Answer::There);
                !is_refuted && now - absence.since >= self.again_after
            }
        }
    }
}

/// As the databases write instants, so that views can show them as they are.
fn in_milliseconds<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn some_in_milliseconds<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => in_milliseconds(at, serializer),
        None => serializer.serialize_none(),
    }
}
