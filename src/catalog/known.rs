//! What this version knows of Apple's attributes, so that what it does not know is told once and kept.
//!
//! Source: Apple's OpenAPI description of the App Store Connect API, 4.5.1.

use serde_json::Value;

use super::{Entry, Kind};

const STATES: &[&str] = &[
    "MISSING_METADATA",
    "WAITING_FOR_UPLOAD",
    "PROCESSING_CONTENT",
    "READY_TO_SUBMIT",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "DEVELOPER_ACTION_NEEDED",
    "PENDING_BINARY_APPROVAL",
    "APPROVED",
    "DEVELOPER_REMOVED_FROM_SALE",
    "REMOVED_FROM_SALE",
    "REJECTED",
];

/// An attribute's name, and the values it can have where they are few.
type Attribute = (&'static str, Option<&'static [&'static str]>);

const IN_APP_PURCHASE: &[Attribute] = &[
    ("name", None),
    ("productId", None),
    (
        "inAppPurchaseType",
        Some(&["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"]),
    ),
    ("state", Some(STATES)),
    ("reviewNote", None),
    ("familySharable", None),
    ("contentHosting", None),
];
const SUBSCRIPTION_GROUP: &[Attribute] = &[("referenceName", None)];
const SUBSCRIPTION: &[Attribute] = &[
    ("name", None),
    ("productId", None),
    ("familySharable", None),
    ("state", Some(STATES)),
    (
        "subscriptionPeriod",
        Some(&[
            "ONE_WEEK",
            "ONE_MONTH",
            "TWO_MONTHS",
            "THREE_MONTHS",
            "SIX_MONTHS",
            "ONE_YEAR",
        ]),
    ),
    ("reviewNote", None),
    ("groupLevel", None),
    ("multiSeatStatus", Some(&["ENABLED", "DISABLED"])),
    ("marketSettings", None),
];
const GRACE_PERIOD: &[Attribute] = &[
    ("optIn", None),
    ("sandboxOptIn", None),
    (
        "duration",
        Some(&["THREE_DAYS", "SIXTEEN_DAYS", "TWENTY_EIGHT_DAYS"]),
    ),
    ("renewalType", Some(&["ALL_RENEWALS", "PAID_TO_PAID_ONLY"])),
];

/// The attributes of an entry that this version does not know, or whose values it does not know. They are kept as they are.
pub fn unforeseen(entry: &Entry) -> impl Iterator<Item = (&str, &Value)> {
    let known = match entry.key.kind {
        Kind::InAppPurchase => IN_APP_PURCHASE,
        Kind::SubscriptionGroup => SUBSCRIPTION_GROUP,
        Kind::Subscription => SUBSCRIPTION,
        Kind::GracePeriod => GRACE_PERIOD,
    };
    entry
        .attributes
        .iter()
        .filter(
            |(name, value)| match known.iter().find(|(known, _)| known == name) {
                None => true,
                Some((_, None)) => false,
                Some((_, Some(values))) => {
                    !value.as_str().is_some_and(|value| values.contains(&value))
                }
            },
        )
        .map(|(name, value)| (name.as_str(), value))
}
