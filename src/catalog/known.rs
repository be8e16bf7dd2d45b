//! What this version knows of Apple's attributes, so that what it does not know is told once and kept.
//!
//! Source: Apple's OpenAPI description of the App Store Connect API, 4.5.1.

use serde_json::Value as Json;

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

/// What an attribute's value can be.
enum Value {
    Text,
    Flag,
    Integer,
    OneOf(&'static [&'static str]),
    Some(&'static [&'static str]),
}

type Attribute = (&'static str, Value);

const IN_APP_PURCHASE: &[Attribute] = &[
    ("name", Value::Text),
    ("productId", Value::Text),
    (
        "inAppPurchaseType",
        Value::OneOf(&["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"]),
    ),
    ("state", Value::OneOf(STATES)),
    ("reviewNote", Value::Text),
    ("familySharable", Value::Flag),
    ("contentHosting", Value::Flag),
];
const SUBSCRIPTION_GROUP: &[Attribute] = &[("referenceName", Value::Text)];
const SUBSCRIPTION: &[Attribute] = &[
    ("name", Value::Text),
    ("productId", Value::Text),
    ("familySharable", Value::Flag),
    ("state", Value::OneOf(STATES)),
    (
        "subscriptionPeriod",
        Value::OneOf(&[
            "ONE_WEEK",
            "ONE_MONTH",
            "TWO_MONTHS",
            "THREE_MONTHS",
            "SIX_MONTHS",
            "ONE_YEAR",
        ]),
    ),
    ("reviewNote", Value::Text),
    ("groupLevel", Value::Integer),
    ("multiSeatStatus", Value::OneOf(&["ENABLED", "DISABLED"])),
    (
        "marketSettings",
        Value::Some(&["APPLE_SCHOOL", "APP_STORE", "APPLE_BUSINESS"]),
    ),
];
const GRACE_PERIOD: &[Attribute] = &[
    ("optIn", Value::Flag),
    ("sandboxOptIn", Value::Flag),
    (
        "duration",
        Value::OneOf(&["THREE_DAYS", "SIXTEEN_DAYS", "TWENTY_EIGHT_DAYS"]),
    ),
    (
        "renewalType",
        Value::OneOf(&["ALL_RENEWALS", "PAID_TO_PAID_ONLY"]),
    ),
];

impl Value {
    fn takes(&self, value: &Json) -> bool {
        let among = |known: &[&str], value: &Json| {
            value.as_str().is_some_and(|value| known.contains(&value))
        };
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Integer => value.is_i64(),
            Self::OneOf(known) => among(known, value),
            Self::Some(known) => value
                .as_array()
                .is_some_and(|all| all.iter().all(|value| among(known, value))),
        }
    }
}

impl Value {
    /// What is told of a value that it does not take: of free texts, numbers and flags just what it is, for there are many.
    fn told(&self, value: &Json) -> String {
        match (self, value) {
            (Self::OneOf(_) | Self::Some(_), value) => value.to_string(),
            (_, Json::Null) => "(nothing)".to_owned(),
            (_, Json::Bool(_)) => "(true or false)".to_owned(),
            (_, Json::Number(_)) => "(a number)".to_owned(),
            (_, Json::String(_)) => "(a text)".to_owned(),
            (_, Json::Array(_)) => "(a list)".to_owned(),
            (_, Json::Object(_)) => "(an object)".to_owned(),
        }
    }
}

/// What Apple sent that this version does not know. It is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unforeseen {
    /// The kind of the entry that has it.
    pub kind: Kind,
    /// The attribute, by Apple's name.
    pub attribute: String,
    /// Its value, as JSON, where an attribute has one of a few; else its type. None when the attribute itself is not known, whatever its
    /// values.
    pub value: Option<String>,
}

/// What of an entry's attributes this version does not know.
pub fn unforeseen(entry: &Entry) -> impl Iterator<Item = Unforeseen> {
    let known = match entry.key.kind {
        Kind::InAppPurchase => IN_APP_PURCHASE,
        Kind::SubscriptionGroup => SUBSCRIPTION_GROUP,
        Kind::Subscription => SUBSCRIPTION,
        Kind::GracePeriod => GRACE_PERIOD,
    };
    entry.attributes.iter().filter_map(|(name, value)| {
        let expected = known.iter().find(|(known, _)| known == name);
        if expected.is_some_and(|(_, expected)| expected.takes(value)) {
            return None;
        }
        Some(Unforeseen {
            kind: entry.key.kind,
            attribute: name.clone(),
            value: expected.map(|(_, expected)| expected.told(value)),
        })
    })
}
