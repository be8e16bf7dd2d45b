//! JSON:API resources, as App Store Connect writes them.
//!
//! Without `fields[...]` a resource has all its attributes, and its relationships with links. With it, only what is named:
//! a relationship left out there loses its linkage too, even when it is included.

use serde_json::{Map, Value, json};

use super::endpoint::{
    APPS, GRACE_PERIODS, IN_APP_PURCHASES, Kind, SUBSCRIPTION_GROUPS, SUBSCRIPTIONS,
};
use super::query::Query;
use super::state::{
    App, Extra, GracePeriod, InAppPurchase, Nulls, Subscription, SubscriptionGroup,
};

/// How resources are written for one request.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    /// Scheme, host and port, for links.
    pub(super) base: &'a str,
    pub(super) query: &'a Query<'a>,
    pub(super) nulls: Nulls,
}

type Attributes = Vec<(&'static str, Option<Value>)>;

impl Writer<'_> {
    pub(super) fn app(self, app: &App) -> Value {
        let mut linkages = Vec::new();
        if self.query.includes("subscriptionGracePeriod") {
            let data = app
                .grace_period
                .as_ref()
                .map(|_| identifier(&GRACE_PERIODS, &app.id));
            linkages.push(("subscriptionGracePeriod", json!({ "data": data })));
        }
        let attributes = vec![
            ("bundleId", some(&app.bundle_id)),
            ("name", some(&app.name)),
            ("sku", app.sku.as_ref().and_then(some)),
            ("primaryLocale", app.primary_locale.as_ref().and_then(some)),
            ("isOrEverWasMadeForKids", Some(Value::Bool(false))),
        ];
        self.resource(&APPS, &app.id, attributes, &app.extra, linkages)
    }

    pub(super) fn grace_period(self, app_id: &str, grace_period: &GracePeriod) -> Value {
        let attributes = vec![
            ("optIn", grace_period.opt_in.map(Value::Bool)),
            ("sandboxOptIn", grace_period.sandbox_opt_in.map(Value::Bool)),
            ("duration", grace_period.duration.as_ref().and_then(some)),
            (
                "renewalType",
                grace_period.renewal_type.as_ref().and_then(some),
            ),
        ];
        self.resource(
            &GRACE_PERIODS,
            app_id,
            attributes,
            &grace_period.extra,
            Vec::new(),
        )
    }

    pub(super) fn in_app_purchase(self, purchase: &InAppPurchase) -> Value {
        let attributes = vec![
            ("name", some(&purchase.name)),
            ("productId", some(&purchase.product_id)),
            ("inAppPurchaseType", purchase.kind.as_ref().and_then(some)),
            ("state", purchase.state.as_ref().and_then(some)),
            ("reviewNote", purchase.review_note.as_ref().and_then(some)),
            ("familySharable", purchase.family_sharable.map(Value::Bool)),
            ("contentHosting", purchase.content_hosting.map(Value::Bool)),
        ];
        self.resource(
            &IN_APP_PURCHASES,
            &purchase.id,
            attributes,
            &purchase.extra,
            Vec::new(),
        )
    }

    /// A group; its linkage, when included, is cut at the limit without a word but its total.
    pub(super) fn group(self, group: &SubscriptionGroup) -> Value {
        let mut linkages = Vec::new();
        if self.query.includes("subscriptions") {
            let limit = self.query.linked_limit("subscriptions");
            let data: Vec<Value> = self
                .linked(group)
                .iter()
                .map(|linked| identifier(&SUBSCRIPTIONS, &linked.id))
                .collect();
            let paging = json!({ "total": group.subscriptions.len(), "limit": limit });
            linkages.push((
                "subscriptions",
                json!({ "data": data, "meta": { "paging": paging } }),
            ));
        }
        let attributes = vec![("referenceName", some(&group.reference_name))];
        self.resource(
            &SUBSCRIPTION_GROUPS,
            &group.id,
            attributes,
            &group.extra,
            linkages,
        )
    }

    /// The subscriptions of a group that the limit lets through.
    pub(super) fn linked(self, group: &SubscriptionGroup) -> &[Subscription] {
        let limit = self.query.linked_limit("subscriptions");
        group
            .subscriptions
            .get(..limit)
            .unwrap_or(&group.subscriptions)
    }

    pub(super) fn subscription(self, subscription: &Subscription, group_id: &str) -> Value {
        let mut linkages = Vec::new();
        if self.query.includes("group") {
            linkages.push((
                "group",
                json!({ "data": identifier(&SUBSCRIPTION_GROUPS, group_id) }),
            ));
        }
        let attributes = vec![
            ("name", some(&subscription.name)),
            ("productId", some(&subscription.product_id)),
            (
                "familySharable",
                subscription.family_sharable.map(Value::Bool),
            ),
            ("state", subscription.state.as_ref().and_then(some)),
            (
                "subscriptionPeriod",
                subscription.period.as_ref().and_then(some),
            ),
            (
                "reviewNote",
                subscription.review_note.as_ref().and_then(some),
            ),
            ("groupLevel", subscription.group_level.map(Value::from)),
            (
                "multiSeatStatus",
                subscription.multi_seat_status.as_ref().and_then(some),
            ),
            (
                "marketSettings",
                subscription.market_settings.clone().map(Value::from),
            ),
        ];
        self.resource(
            &SUBSCRIPTIONS,
            &subscription.id,
            attributes,
            &subscription.extra,
            linkages,
        )
    }

    fn resource(
        self,
        kind: &Kind,
        id: &str,
        attributes: Attributes,
        extra: &Extra,
        linkages: Vec<(&'static str, Value)>,
    ) -> Value {
        let own = format!("{}{}/{id}", self.base, kind.path);
        let mut resource = json!({ "type": kind.name, "id": id, "links": { "self": own } });
        let Some(object) = resource.as_object_mut() else {
            return resource;
        };
        let attributes = self.attributes(kind, attributes, extra);
        if !attributes.is_empty() {
            object.insert("attributes".to_owned(), Value::Object(attributes));
        }
        let mut relationships = Map::new();
        for name in kind
            .relationships
            .iter()
            .filter(|name| self.query.shows(kind, name))
        {
            let links = json!({ "self": format!("{own}/relationships/{name}"), "related": format!("{own}/{name}") });
            relationships.insert((*name).to_owned(), json!({ "links": links }));
        }
        for (name, linkage) in linkages
            .into_iter()
            .filter(|(name, _)| self.query.shows(kind, name))
        {
            let relationship = relationships.entry(name).or_insert_with(|| json!({}));
            if let (Some(relationship), Value::Object(linkage)) =
                (relationship.as_object_mut(), linkage)
            {
                relationship.extend(linkage);
            }
        }
        if !relationships.is_empty() {
            object.insert("relationships".to_owned(), Value::Object(relationships));
        }
        resource
    }

    fn attributes(self, kind: &Kind, attributes: Attributes, extra: &Extra) -> Map<String, Value> {
        let mut written = Map::new();
        for (name, value) in attributes {
            match value {
                Some(value) => written.insert(name.to_owned(), value),
                None if self.nulls == Nulls::Explicit => {
                    written.insert(name.to_owned(), Value::Null)
                }
                None => None,
            };
        }
        written.extend(
            extra
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        written.retain(|name, _| self.query.shows(kind, name));
        written
    }
}

/// A resource identifier object.
fn identifier(kind: &Kind, id: &str) -> Value {
    json!({ "type": kind.name, "id": id })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands in a list with values that may be missing"
)]
fn some(text: impl AsRef<str>) -> Option<Value> {
    Some(Value::String(text.as_ref().to_owned()))
}
