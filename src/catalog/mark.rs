//! What tells a listing from another before it is read: the digests of its pages, as they came.
//!
//! A fleet's listings are nearly all as they were the last time. Bytes that came before mean what they meant then: they need not be
//! decoded, nor what they say be compared with a catalog that was brought in line with them.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Kind;

/// After this time everything is compared again, whatever the marks say: what nobody should have done to the catalog, as an edit
/// by hand, is mended within a day.
const COMPARED_EVERY: TimeDelta = TimeDelta::days(1);

/// What a page was, as it came: BLAKE3, of which half is kept, in hexadecimal.
///
/// SHA-256 takes half as long as all the rest of an unchanged run where the processor has no instructions for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageDigest(String);

impl PageDigest {
    /// Of a body as it came.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut hex = blake3::hash(body).to_hex();
        hex.truncate(32);
        Self(hex.as_str().to_owned())
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What came.
    pub digest: PageDigest,
    /// Where it said that the listing goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A listing, page by page.
pub type Mark = Vec<Page>;

/// The listings that a run got, whose catalog is as they said. One listing can be of several kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listings {
    /// By the kind that it is named for.
    pub marks: BTreeMap<Kind, Mark>,
    /// How many entries each kind had.
    pub counts: BTreeMap<Kind, usize>,
}

/// What a run leaves for the next one to know its listings again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The epoch of the run's lease: only the very next holder of a lease may go by them, for nobody was there in between.
    pub epoch: i64,
    /// The version that read them: another may read more out of the same bytes.
    pub version: String,
    /// When all of it was last compared with the catalog.
    pub compared_at: DateTime<Utc>,
    /// What was listed.
    #[serde(flatten)]
    pub listings: Listings,
}

impl Marks {
    /// What a run under this epoch may go by.
    #[must_use]
    pub fn usable(&self, epoch: i64, version: &str, now: DateTime<Utc>) -> Option<&Listings> {
        let age = now - self.compared_at;
        let is_recent = age >= TimeDelta::zero() && age < COMPARED_EVERY;
        (self.epoch + 1 == epoch && self.version == version && is_recent).then_some(&self.listings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_for_the_next_holder_of_the_lease_the_same_version_and_a_day() {
        let at: DateTime<Utc> = "2027-01-15T08:00:00Z".parse().unwrap();
        let marks = Marks {
            epoch: 7,
            version: "1.0.0".to_owned(),
            compared_at: at,
            listings: Listings::default(),
        };
        let day = TimeDelta::days(1);
        let usable = |epoch, version, now| marks.usable(epoch, version, now).is_some();
        assert!(usable(8, "1.0.0", at));
        assert!(usable(8, "1.0.0", at + day - TimeDelta::seconds(1)));
        assert!(!usable(8, "1.0.0", at + day));
        // A clock that was set back says nothing of how long ago it was.
        assert!(!usable(8, "1.0.0", at - TimeDelta::seconds(1)));
        assert!(!usable(9, "1.0.0", at));
        assert!(!usable(7, "1.0.0", at));
        assert!(!usable(8, "1.0.1", at));
    }

    #[test]
    fn a_digest_is_half_of_blake3() {
        // The first vector of BLAKE3's own list: the hash of nothing.
        assert_eq!(
            serde_json::to_string(&PageDigest::of(b"")).unwrap(),
            "\"af1349b9f5f9a1a6a0404dea36dcc949\""
        );
        assert_ne!(PageDigest::of(b"a"), PageDigest::of(b"b"));
    }
}
