//! What readers see: the rows of the views, and which of them to read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Request;
use crate::{
    catalog::{
        Body, Catalog, Change, Digest, Entry, Held, Hold, HoldSummary, Key, Kind, Op, Reason,
        log::{Line, NotAChange},
    },
    clock::Instant,
    diagnosis::Diagnosis,
    project::{Project, ProjectId},
    run::{HoldEnd, Outcome, Run},
};

/// One line of a project's change log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "these are the columns of the view catalog_changes"
)]
pub struct LoggedChange {
    pub seq: i64,
    pub revision: i64,
    pub run_id: Uuid,
    pub at: DateTime<Utc>,
    pub kind: String,
    pub store_id: String,
    pub product_id: Option<String>,
    pub op: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub before_seen_at: Option<DateTime<Utc>>,
}

impl LoggedChange {
    /// The change that the line tells.
    ///
    /// # Errors
    /// When it is of a kind that only a newer version knows, or was not written by us.
    pub fn change(&self) -> Result<Change, NotAChange> {
        let key = Key {
            kind: self.kind.parse()?,
            store_id: self.store_id.as_str().into(),
        };
        let op: Op = self.op.parse()?;
        let entry = |body: &Option<Value>| {
            let body = body.as_ref().map(Body::deserialize).transpose()?;
            Ok::<_, NotAChange>(body.map(|body| Entry::from_body(key.clone(), body)))
        };
        Ok(match (op, entry(&self.before)?, entry(&self.after)?) {
            (Op::Added, None, Some(after)) => Change::Added { after },
            (Op::Updated, Some(before), Some(after)) => Change::Updated { before, after },
            (Op::Removed, Some(before), None) => Change::Removed { before },
            (Op::Restored, Some(before), Some(after)) => Change::Restored { before, after },
            (op, before, after) => {
                return Err(NotAChange::Sides {
                    op,
                    before: before.is_some(),
                    after: after.is_some(),
                });
            }
        })
    }

    /// The line as a verification takes it.
    #[must_use]
    pub fn line(&self) -> Line {
        Line {
            seq: self.seq,
            revision: self.revision,
            run_id: self.run_id,
            at: self.at,
            change: self.change(),
        }
    }
}

/// Where a project's change log ends, and what it must have come to: all as of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEnd {
    /// The number of its last line; 0 when it has none.
    pub seq: i64,
    /// The catalog's revision.
    pub revision: i64,
    /// From when on it is whole, if lines from before that were deleted.
    pub log_since: Option<Instant>,
    /// The catalog, removed entries included.
    pub catalog: Catalog,
    /// Entries that readers find under another product id than their attributes have.
    pub misnamed: Vec<Key>,
}

/// A row of the view `products`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct Product {
    pub project_id: String,
    pub product_id: Option<String>,
    pub store_id: String,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub state: Option<String>,
    pub period: Option<String>,
    pub group_id: Option<String>,
    pub group_name: Option<String>,
    pub group_level: Option<i64>,
    pub family_sharable: Option<bool>,
    pub first_seen_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub removed_at: Option<DateTime<Utc>>,
    pub attributes: Value,
    pub missing_since: Option<DateTime<Utc>>,
    pub kept_since: Option<DateTime<Utc>>,
}

/// A row of the view `subscription_groups`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct SubscriptionGroup {
    pub project_id: String,
    pub store_id: String,
    pub name: Option<String>,
    pub first_seen_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub removed_at: Option<DateTime<Utc>>,
    pub attributes: Value,
    pub missing_since: Option<DateTime<Utc>>,
    pub kept_since: Option<DateTime<Utc>>,
}

/// A row of the view `grace_periods`. All settings are null when none is set at Apple.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct GracePeriod {
    pub project_id: String,
    pub opt_in: Option<bool>,
    pub sandbox_opt_in: Option<bool>,
    pub duration_days: Option<i64>,
    pub renewal_type: Option<String>,
    pub checked_at: Option<DateTime<Utc>>,
    pub changed_at: DateTime<Utc>,
    pub attributes: Value,
}

/// A row of the view `grace_period_history`. All settings are null when none was set at Apple.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct GracePeriodPast {
    pub project_id: String,
    pub app_id: String,
    pub opt_in: Option<bool>,
    pub sandbox_opt_in: Option<bool>,
    pub duration_days: Option<i64>,
    pub renewal_type: Option<String>,
    pub first_seen_at: DateTime<Utc>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub attributes: Value,
}

/// The value as it was when it was last seen.
impl From<GracePeriodPast> for GracePeriod {
    fn from(past: GracePeriodPast) -> Self {
        Self {
            project_id: past.project_id,
            opt_in: past.opt_in,
            sandbox_opt_in: past.sandbox_opt_in,
            duration_days: past.duration_days,
            renewal_type: past.renewal_type,
            checked_at: past.last_seen_at,
            changed_at: past.first_seen_at,
            attributes: past.attributes,
        }
    }
}

/// What readers see of one project: the rows of the views.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shelf {
    /// In-app purchases and subscriptions, by product id.
    pub products: Vec<Product>,
    /// Subscription groups, by name.
    pub subscription_groups: Vec<SubscriptionGroup>,
    /// The grace period, once it has been read.
    pub grace_period: Option<GracePeriod>,
}

impl Shelf {
    /// The same without what is removed.
    #[must_use]
    pub fn present(mut self) -> Self {
        self.products.retain(|product| product.removed_at.is_none());
        self.subscription_groups
            .retain(|group| group.removed_at.is_none());
        self
    }
}

/// A run as it was recorded: the view `sync_runs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordedRun {
    /// What the run did.
    #[serde(flatten)]
    pub run: Run,
    /// The lease epoch under which it wrote.
    pub epoch: i64,
    /// The catalog's revision after it.
    pub revision: i64,
    /// Who did it: the worker's name.
    pub worker: Option<String>,
}

/// A row of the view `project_status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct Status {
    pub project: Project,
    pub revision: i64,
    pub last_attempt_at: Option<Instant>,
    pub last_success_at: Option<Instant>,
    pub outcome: Option<Outcome>,
    pub error: Option<Diagnosis>,
    pub consecutive_failures: i64,
    pub next_due_at: Option<Instant>,
    /// When each kind was last listed completely.
    pub covered_at: BTreeMap<Kind, Instant>,
    /// How many entries of each kind are present; every kind is listed.
    pub present: BTreeMap<Kind, i64>,
    pub hold: Option<HoldSummary>,
    pub held_since: Option<Instant>,
    /// How many present entries the latest complete listing of their kind did not have, those held included.
    pub missing: i64,
    /// How many of those stay because a hold was discarded.
    pub kept: i64,
    /// The change log has lost what was overwritten before this instant, if it has lost anything.
    pub log_since: Option<Instant>,
    /// Until when a worker holds the project's lease, if one does.
    pub leased_until: Option<Instant>,
    /// Its name.
    pub leased_by: Option<String>,
    /// What waits to be claimed, or is under way.
    pub pending: Option<Request>,
    /// Up to which request runs have answered.
    pub served: i64,
    /// Since when the project is left alone because its runs lose their workers, if it is.
    pub set_aside_at: Option<Instant>,
}

/// A row of the view `holds`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "these are the columns of the view")]
pub struct RecordedHold {
    pub project_id: ProjectId,
    pub digest: Digest,
    pub reason: String,
    pub reasons: Vec<Reason>,
    pub removals: Vec<Held>,
    pub held_at: Instant,
    pub run_id: Option<String>,
    pub ended_at: Option<Instant>,
    pub ended: Option<HoldEnd>,
    pub ended_run_id: Option<String>,
}

impl RecordedHold {
    /// What it holds, and why.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold {
            digest: self.digest.clone(),
            reasons: self.reasons.clone(),
            removals: self.removals.clone(),
        }
    }
}

/// Whether holds are wanted that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Only those that stand.
    LeftOut,
    /// Those too, the newest first.
    Included,
}

/// Which lines of a change log to read: the newest first.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this product id, or store id for kinds that have none.
    pub product: Option<String>,
    /// Not before this instant.
    pub since: Option<Instant>,
    /// Before this instant.
    pub until: Option<Instant>,
    /// At most this many.
    pub limit: Option<u32>,
}

/// Whether removed entries are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Only what is present.
    LeftOut,
    /// Those too, with the time at which they were removed.
    Included,
}
