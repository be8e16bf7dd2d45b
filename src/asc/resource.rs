//! Apple's resources as they come, and the catalog's entries made of them.
//!
//! The API promises `type` and `id` and nothing else: what is absent or null stays away, what is unknown is kept.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{endpoint::INCLUDED_SUBSCRIPTIONS, text};
use crate::{
    catalog::{Attributes, Entry, Kind},
    project::App,
};

/// A resource of Apple's, with those of its relationships that matter here.
#[derive(Deserialize)]
pub(super) struct Resource {
    #[serde(rename = "type", deserialize_with = "text::name")]
    pub(super) kind: String,
    #[serde(deserialize_with = "text::name")]
    pub(super) id: String,
    #[serde(default)]
    attributes: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    relationships: Option<Relationships>,
}

#[derive(Deserialize)]
struct Relationships {
    #[serde(default)]
    subscriptions: Option<ToMany>,
    #[serde(default, rename = "subscriptionGracePeriod")]
    grace_period: Option<ToOne>,
}

#[derive(Deserialize)]
struct ToMany {
    #[serde(default)]
    data: Option<Vec<Linkage>>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct ToOne {
    #[serde(default)]
    data: Option<Linkage>,
}

#[derive(Deserialize)]
struct Linkage {
    #[serde(deserialize_with = "text::name")]
    id: String,
}

/// What an app says of its grace period.
pub(super) enum GracePeriodLink<'a> {
    /// There is one, with this id.
    Set(&'a str),
    /// There is none: the relationship is there, and its data absent or null.
    Unset,
    /// The relationship is missing, though it was asked for.
    Untold,
}

/// What a list or a linkage says of itself.
#[derive(Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    #[serde(default)]
    total: Option<usize>,
}

impl Meta {
    pub(super) fn total(&self) -> Option<usize> {
        self.paging.as_ref()?.total
    }
}

impl Resource {
    /// The entry of this kind that the resource describes.
    pub(super) fn into_entry(self, kind: Kind) -> Entry {
        Entry {
            attributes: attributes(self.attributes),
            ..Entry::new(kind, self.id)
        }
    }

    /// The ids of a group's subscriptions, when all of them were linked: the group was not cut.
    ///
    /// A cut is silent. It shows in a total above what came or, where there is no total, in exactly the limit having come.
    pub(super) fn whole_group(&self) -> Option<Vec<&str>> {
        let subscriptions = self.relationships.as_ref()?.subscriptions.as_ref()?;
        let linked = subscriptions.data.as_deref().unwrap_or_default();
        let whole = match subscriptions.meta.as_ref().and_then(Meta::total) {
            Some(total) => linked.len() == total,
            None => subscriptions.data.is_some() && linked.len() < INCLUDED_SUBSCRIPTIONS,
        };
        whole.then(|| linked.iter().map(|linkage| linkage.id.as_str()).collect())
    }

    /// What an app says of its grace period.
    pub(super) fn grace_period(&self) -> GracePeriodLink<'_> {
        let link = self
            .relationships
            .as_ref()
            .and_then(|relationships| relationships.grace_period.as_ref());
        match link {
            None => GracePeriodLink::Untold,
            Some(ToOne { data: None }) => GracePeriodLink::Unset,
            Some(ToOne {
                data: Some(linkage),
            }) => GracePeriodLink::Set(&linkage.id),
        }
    }

    /// The app that the resource describes. An app without a bundle id or name is shown by what there is.
    pub(super) fn into_app(self) -> App {
        let mut attributes = attributes(self.attributes);
        let mut text = |name| match attributes.remove(name) {
            Some(Value::String(text)) => text::quotable(&text),
            _ => String::new(),
        };
        App {
            bundle_id: text("bundleId"),
            name: text("name"),
            id: self.id,
        }
    }
}

/// Attributes without the explicit nulls, and without NUL characters, which Postgres cannot store.
fn attributes(sent: Option<BTreeMap<String, Value>>) -> Attributes {
    sent.unwrap_or_default()
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (storable(name), storable_value(value)))
        .collect()
}

fn storable_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(text)),
        Value::Array(values) => Value::Array(values.into_iter().map(storable_value).collect()),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (storable(name), storable_value(value)))
            .collect(),
        value => value,
    }
}

fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}
