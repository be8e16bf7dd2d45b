//! When removals are held: the limits of all projects, and those that a project has of its own.

use serde::{Deserialize, Serialize};

/// When removals are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Removals of a kind are held when they are more than this percentage of what is present..
    pub removed_percent: usize,
    /// ..and at least this many are present.
    pub percent_from: usize,
    /// Removals of a kind are held when there are more than this many of them.
    pub removed_max: usize,
    /// The removal of a parent is held when it has more descendants than this.
    pub descendants_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            removed_percent: 30,
            percent_from: 10,
            removed_max: 500,
            descendants_max: 10,
        }
    }
}

impl Limits {
    /// The most that [`Limits::removed_percent`] may be.
    pub const MOST_PERCENT: usize = 100;

    /// The limits of a project that has these of its own.
    #[must_use]
    pub fn with(&self, own: &OwnLimits) -> Self {
        let OwnLimits {
            removed_percent,
            percent_from,
            removed_max,
            descendants_max,
        } = *own;
        Self {
            removed_percent: removed_percent.unwrap_or(self.removed_percent),
            percent_from: percent_from.unwrap_or(self.percent_from),
            removed_max: removed_max.unwrap_or(self.removed_max),
            descendants_max: descendants_max.unwrap_or(self.descendants_max),
        }
    }
}

/// Limits that a project has of its own; for those that are none, the limits of all hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnLimits {
    /// In place of [`Limits::removed_percent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_percent: Option<usize>,
    /// In place of [`Limits::percent_from`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent_from: Option<usize>,
    /// In place of [`Limits::removed_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_max: Option<usize>,
    /// In place of [`Limits::descendants_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descendants_max: Option<usize>,
}

impl OwnLimits {
    /// Whether the limits of all hold throughout.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and of those that are none here the others.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            removed_percent: self.removed_percent.or(others.removed_percent),
            percent_from: self.percent_from.or(others.percent_from),
            removed_max: self.removed_max.or(others.removed_max),
            descendants_max: self.descendants_max.or(others.descendants_max),
        }
    }
}
