//! What a simulated App Store Connect holds: teams, their keys, their apps and catalogs.
//!
//! Plain data with public fields: a test builds it, changes it while the server runs, and reads it back. Values are kept as
//! they go over the wire (`"APPROVED"`, `"ONE_MONTH"`), so that a value nobody knows yet can be served too. What is left
//! empty and is needed (ids, key ids, issuer ids, private keys) is made up by [`State::complete`].

mod build;
mod complete;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

pub(super) use complete::public_key;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Calls that a key may make in a rolling hour, unless set otherwise.
pub const DEFAULT_HOURLY_LIMIT: u32 = 3600;

/// Everything that the simulator knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// How an attribute without a value appears in a body.
    pub nulls: Nulls,
    /// The form of the `X-Rate-Limit` header.
    pub rate_limit_header: RateLimitHeader,
    /// Calls in a rolling hour for keys that do not set their own.
    pub hourly_limit: u32,
    /// The most rows on a page and the most linked resources of one resource, whatever `limit` asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_limit: Option<NonZeroU32>,
    /// The highest id that was ever there: Apple never uses one again, whatever was deleted.
    pub last_id: u64,
    /// The developer teams.
    pub teams: Vec<Team>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            nulls: Nulls::default(),
            rate_limit_header: RateLimitHeader::default(),
            hourly_limit: DEFAULT_HOURLY_LIMIT,
            page_limit: None,
            last_id: 0,
            teams: Vec::new(),
        }
    }
}

/// How an attribute without a value appears in a body; live bodies do both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// The attribute is left out.
    #[default]
    Absent,
    /// The attribute is there and is `null`.
    Explicit,
}

/// The form of the `X-Rate-Limit` header; all of them have been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitHeader {
    /// `user-hour-lim:3600;user-hour-rem:3545;`
    #[default]
    Plain,
    /// No header.
    Absent,
    /// The header comes twice.
    Twice,
    /// The hour and the minute, joined by a comma.
    Joined,
    /// The hour and the minute in one list.
    WithMinute,
    /// Something that no one can read.
    Malformed,
}

/// A developer team: one issuer, some keys, some apps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Team {
    /// The team's name, for people.
    pub name: String,
    /// The issuer id (a UUID) that every team key sends as `iss`.
    pub issuer_id: String,
    /// The Account Holder has an agreement to sign: the whole team is answered 403.
    pub agreement_missing: bool,
    /// The team's API keys.
    pub keys: Vec<Key>,
    /// The team's apps.
    pub apps: Vec<App>,
}

/// An API key.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// Ten characters of `A-Z0-9`, sent as `kid`.
    pub key_id: String,
    /// The key's name, for people.
    pub name: String,
    /// What the key may read.
    pub role: Role,
    /// An individual key: no `iss`, `sub: "user"`.
    pub individual: bool,
    /// The wrong kind of key: an In-App Purchase key, which this API refuses.
    pub in_app_purchase: bool,
    /// Revoked keys are refused.
    pub revoked: bool,
    /// The ids of the apps that an individual key sees (none, when absent). Team keys see every app of the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apps: Option<Vec<String>>,
    /// Calls in a rolling hour, when other than [`State::hourly_limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly_limit: Option<u32>,
    /// The private key, PKCS#8 PEM on P-256. Made up when empty.
    pub private_key: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("key_id", &self.key_id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("individual", &self.individual)
            .field("in_app_purchase", &self.in_app_purchase)
            .field("revoked", &self.revoked)
            .field("apps", &self.apps)
            .field("hourly_limit", &self.hourly_limit)
            .finish_non_exhaustive()
    }
}

/// The role of a key, which cannot be edited in App Store Connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// Reads everything.
    #[default]
    Admin,
    /// Reads everything.
    AppManager,
    /// Lists apps, and is refused the catalog.
    Developer,
    /// Lists apps, and is refused the catalog.
    Finance,
    /// Lists apps, and is refused the catalog.
    Sales,
    /// Lists apps, and is refused the catalog.
    Marketing,
    /// Lists apps, and is refused the catalog.
    CustomerSupport,
}

impl Role {
    /// Whether in-app purchases, subscriptions and the grace period may be read.
    #[must_use]
    pub const fn reads_catalog(self) -> bool {
        matches!(self, Self::Admin | Self::AppManager)
    }
}

/// An app and its catalog.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct App {
    /// The App Store id, digits.
    pub id: String,
    /// The bundle id.
    pub bundle_id: String,
    /// The name.
    pub name: String,
    /// The SKU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The primary locale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_locale: Option<String>,
    /// Attributes as they go over the wire, over the ones above.
    #[serde(with = "extra", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: Extra,
    /// The billing grace period, when the team ever set one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GracePeriod>,
    /// Consumables, non-consumables and non-renewing subscriptions.
    pub in_app_purchases: Vec<InAppPurchase>,
    /// The subscription groups.
    pub subscription_groups: Vec<SubscriptionGroup>,
}

/// An app's billing grace period. Its id is the app's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GracePeriod {
    /// On in production.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_in: Option<bool>,
    /// On in the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_opt_in: Option<bool>,
    /// `THREE_DAYS`, `SIXTEEN_DAYS` or `TWENTY_EIGHT_DAYS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// `ALL_RENEWALS` or `PAID_TO_PAID_ONLY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_type: Option<String>,
    /// Attributes as they go over the wire, over the ones above.
    #[serde(with = "extra", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: Extra,
}

/// An in-app purchase that is not an auto-renewing subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InAppPurchase {
    /// The id, digits.
    pub id: String,
    /// The product id.
    pub product_id: String,
    /// The internal reference name.
    pub name: String,
    /// `CONSUMABLE`, `NON_CONSUMABLE` or `NON_RENEWING_SUBSCRIPTION`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Such as `APPROVED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The note to the reviewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_note: Option<String>,
    /// Whether Family Sharing is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_sharable: Option<bool>,
    /// Whether Apple hosts content for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hosting: Option<bool>,
    /// Attributes as they go over the wire, over the ones above.
    #[serde(with = "extra", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: Extra,
}

/// A subscription group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionGroup {
    /// The id, digits.
    pub id: String,
    /// The internal reference name.
    pub reference_name: String,
    /// Attributes as they go over the wire, over the ones above.
    #[serde(with = "extra", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: Extra,
    /// The subscriptions of the group.
    pub subscriptions: Vec<Subscription>,
}

/// An auto-renewing subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subscription {
    /// The id, digits.
    pub id: String,
    /// The product id.
    pub product_id: String,
    /// The internal reference name.
    pub name: String,
    /// Such as `APPROVED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Such as `ONE_MONTH`; a draft has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// The level in the group, 1 the highest; a draft has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_level: Option<u32>,
    /// Whether Family Sharing is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_sharable: Option<bool>,
    /// The note to the reviewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_note: Option<String>,
    /// `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_seat_status: Option<String>,
    /// `APP_STORE`, `APPLE_SCHOOL`, `APPLE_BUSINESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market_settings: Option<Vec<String>>,
    /// Attributes as they go over the wire, over the ones above.
    #[serde(with = "extra", skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: Extra,
}

/// Attributes by their name on the wire. A null is sent as an explicit null; in a file it is written `{}`, as TOML has none.
pub type Extra = BTreeMap<String, Value>;

/// Reads and writes [`Extra`], with `{}` for null.
mod extra {
    use super::{Deserialize, Deserializer, Extra, Serialize, Serializer, Value};

    pub(super) fn serialize<S: Serializer>(extra: &Extra, to: S) -> Result<S::Ok, S::Error> {
        let written: Extra = extra
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::Null => Value::Object(serde_json::Map::new()),
                    other => other.clone(),
                };
                (name.clone(), value)
            })
            .collect();
        written.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Extra, D::Error> {
        let mut extra = Extra::deserialize(from)?;
        for value in extra.values_mut() {
            if value.as_object().is_some_and(serde_json::Map::is_empty) {
                *value = Value::Null;
            }
        }
        Ok(extra)
    }
}
