//! One thing in a catalog: an in-app purchase, a subscription group, a subscription, or the grace period setting.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What sort of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A consumable, non-consumable or non-renewing subscription.
    InAppPurchase,
    /// A group of subscriptions of which a customer holds at most one.
    SubscriptionGroup,
    /// An auto-renewable subscription; its parent is its group.
    Subscription,
    /// The app's billing grace period setting; its store id is the app's, and a complete listing always has exactly one.
    GracePeriod,
}

impl Kind {
    /// Every kind, in the order in which people read them.
    pub const ALL: [Self; 4] = [
        Self::InAppPurchase,
        Self::SubscriptionGroup,
        Self::Subscription,
        Self::GracePeriod,
    ];

    /// The name used in the database, in logs and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InAppPurchase => "in_app_purchase",
            Self::SubscriptionGroup => "subscription_group",
            Self::Subscription => "subscription",
            Self::GracePeriod => "grace_period",
        }
    }

    /// What people call one or several of them.
    #[must_use]
    pub const fn noun(self, count: usize) -> &'static str {
        match (self, count) {
            (Self::InAppPurchase, 1) => "in-app purchase",
            (Self::InAppPurchase, _) => "in-app purchases",
            (Self::SubscriptionGroup, 1) => "subscription group",
            (Self::SubscriptionGroup, _) => "subscription groups",
            (Self::Subscription, 1) => "subscription",
            (Self::Subscription, _) => "subscriptions",
            (Self::GracePeriod, 1) => "grace period",
            (Self::GracePeriod, _) => "grace periods",
        }
    }

    /// The kind whose entries are the parents of this one's.
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Subscription => Some(Self::SubscriptionGroup),
            Self::InAppPurchase | Self::SubscriptionGroup | Self::GracePeriod => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A name that is no kind's.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not a kind: use in_app_purchase, subscription_group, subscription or grace_period"
)]
pub struct UnknownKind(String);

/// Apple's id of a thing: a numeric string, unique within its kind, never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(String);

impl StoreId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Into<String>> From<S> for StoreId {
    fn from(id: S) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What identifies an entry within a project, and orders entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What sort of thing it is.
    pub kind: Kind,
    /// Apple's id.
    pub store_id: StoreId,
}

/// Attributes by Apple's own names, values as they came. An explicit null is the same as no value and is left out, so that
/// a body that flips between the two makes no change.
pub type Attributes = BTreeMap<String, Value>;

/// One thing in a catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What identifies it.
    pub key: Key,
    /// The store id of the thing it belongs to, for kinds that have a parent.
    pub parent: Option<StoreId>,
    /// Everything Apple says of it.
    pub attributes: Attributes,
}

/// What the change log keeps of an entry, beside its key: `{"parent": "123", "attributes": {..}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The store id of the parent, for kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<StoreId>,
    /// Attributes by Apple's names.
    #[serde(default)]
    pub attributes: Attributes,
}

impl Entry {
    /// An entry with no parent and no attributes.
    #[must_use]
    pub fn new(kind: Kind, store_id: impl Into<StoreId>) -> Self {
        Self {
            key: Key {
                kind,
                store_id: store_id.into(),
            },
            parent: None,
            attributes: Attributes::new(),
        }
    }

    /// The same entry within a parent.
    #[must_use]
    pub fn within(mut self, parent: impl Into<StoreId>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// The same entry with one attribute set; null removes it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => self.attributes.remove(&name.into()),
            value => self.attributes.insert(name.into(), value),
        };
        self
    }

    /// The product id that apps ask for, where the kind has one.
    #[must_use]
    pub fn product_id(&self) -> Option<&str> {
        match self.key.kind {
            Kind::InAppPurchase | Kind::Subscription => self.text("productId"),
            Kind::SubscriptionGroup | Kind::GracePeriod => None,
        }
    }

    /// The name that people gave it, where it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self.key.kind {
            Kind::InAppPurchase | Kind::Subscription => self.text("name"),
            Kind::SubscriptionGroup => self.text("referenceName"),
            Kind::GracePeriod => None,
        }
    }

    fn text(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).and_then(Value::as_str)
    }

    /// What the change log keeps of it.
    #[must_use]
    pub fn body(&self) -> Body {
        Body {
            parent: self.parent.clone(),
            attributes: self.attributes.clone(),
        }
    }

    /// The entry that a log's key and body describe.
    #[must_use]
    pub fn from_body(key: Key, body: Body) -> Self {
        Self {
            key,
            parent: body.parent,
            attributes: body.attributes,
        }
    }
}
