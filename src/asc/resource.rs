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
    links: Option<Links>,
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

/// What a group says of its subscriptions.
pub(super) struct Linked<'a> {
    /// Those that are linked.
    pub(super) ids: Vec<&'a str>,
    /// How many there are, where that is told.
    pub(super) total: Option<usize>,
    /// Whether these are all: the group was not cut.
    pub(super) is_whole: bool,
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
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<Value>,
}

/// Where a list or a linkage goes on.
#[derive(Deserialize)]
pub(super) struct Links {
    #[serde(default)]
    pub(super) next: Option<String>,
}

impl Meta {
    pub(super) fn total(&self) -> Option<usize> {
        self.paging.as_ref()?.total
    }

    /// The most that the server lets come at once.
    pub(super) fn limit(&self) -> Option<usize> {
        self.paging.as_ref()?.limit
    }

    /// Whether there is more, by a cursor.
    pub(super) fn goes_on(&self) -> bool {
        let cursor = self
            .paging
            .as_ref()
            .and_then(|paging| paging.next_cursor.as_ref());
        cursor.is_some_and(|cursor| !cursor.is_null() && cursor.as_str() != Some(""))
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

    /// What a group says of its subscriptions.
    ///
    /// A cut is silent. It shows in a total above what came, in a link to more, or, where there is neither, in exactly as many
    /// having come as the server lets come.
    pub(super) fn linked_subscriptions(&self) -> Linked<'_> {
        let Some(link) = self
            .relationships
            .as_ref()
            .and_then(|it| it.subscriptions.as_ref())
        else {
            return Linked {
                ids: Vec::new(),
                total: None,
                is_whole: false,
            };
        };
        let ids: Vec<&str> = link
            .data
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|linkage| linkage.id.as_str())
            .collect();
        let total = link.meta.as_ref().and_then(Meta::total);
        let limit = link
            .meta
            .as_ref()
            .and_then(Meta::limit)
            .unwrap_or(INCLUDED_SUBSCRIPTIONS);
        let is_whole = match total {
            Some(total) => ids.len() == total,
            None => link.data.is_some() && ids.len() < limit.min(INCLUDED_SUBSCRIPTIONS),
        };
        let goes_on = link
            .links
            .as_ref()
            .and_then(|links| links.next.as_ref())
            .is_some_and(|next| !next.is_empty());
        let goes_on = goes_on || link.meta.as_ref().is_some_and(Meta::goes_on);
        Linked {
            ids,
            total,
            is_whole: is_whole && !goes_on,
        }
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
