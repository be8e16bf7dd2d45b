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
    /// What App Store Connect last said when it was asked for by its own id: never that nothing could be learned.
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
    /// Nothing could be learned.
    Unknown,
}

/// What App Store Connect said of things that it did not list. A thing that was not asked for is not in it.
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
    /// decide about or has decided about. Of those that were there when they were last asked for, at least half of a run's are
    /// asked for again; from turn to turn others, when there are more than can be asked for.
    #[must_use]
    pub fn to_ask(
        &self,
        changes: &ChangeSet,
        local: &Catalog,
        standing: Option<&Hold>,
        mut is_new: impl FnMut(Kind) -> bool,
        turn: i64,
    ) -> Vec<Key> {
        let held: BTreeSet<&Key> = standing
            .iter()
            .flat_map(|hold| &hold.removals)
            .map(|held| &held.key)
            .collect();
        let (mut unknown, mut there) = (Vec::new(), Vec::new());
        for key in changes
            .iter()
            .filter(|change| matches!(change, Change::Removed { .. }))
            .map(Change::key)
            .filter(|key| key.kind != Kind::GracePeriod && !is_new(key.kind) && !held.contains(key))
            .filter(|key| !local.is_kept(key))
        {
            match local.absent.get(key).and_then(|absence| absence.answer) {
                Some(Answer::Gone) => {}
                Some(Answer::There) => there.push(key),
                Some(Answer::Unknown) | None => unknown.push(key),
            }
        }
        let again = there.len().min(self.asked_max / 2);
        let first = unknown.len().min(self.asked_max - again);
        let again = there.len().min(self.asked_max - first);
        let mut asked = rotated(&unknown, turn, first);
        asked.extend(rotated(&there, turn, again));
        asked
    }

    /// Whether a thing that this run did not find listed is gone. `said` is what was last said of it; `is_refuted` tells that the
    /// listing leaves out other things that are there.
    pub(super) fn confirms(
        &self,
        said: Option<Answer>,
        before: Option<&Absence>,
        is_refuted: bool,
        now: DateTime<Utc>,
    ) -> bool {
        match (said, before) {
            (Some(Answer::Gone), _) => true,
            (Some(Answer::There), _) | (_, None) => false,
            // A listing without a thing that is there is not complete, however it looks: it confirms nothing.
            (Some(Answer::Unknown) | None, Some(absence)) => {
                !is_refuted && now - absence.since >= self.again_after
            }
        }
    }
}

/// So many of the keys, beginning further on from turn to turn.
fn rotated(keys: &[&Key], turn: i64, most: usize) -> Vec<Key> {
    let turn = usize::try_from(turn).unwrap_or_default();
    let from = turn.wrapping_mul(most).checked_rem(keys.len()).unwrap_or(0);
    keys.iter()
        .cycle()
        .skip(from)
        .take(most)
        .map(|key| (*key).clone())
        .collect()
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
