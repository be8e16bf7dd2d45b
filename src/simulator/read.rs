//! Answers a checked request from the state: listings page by page, and single resources.
//!
//! A cursor is an offset into the rows as they are now, so rows that come, go or move between two pages are skipped or
//! repeated, as at Apple.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::document::Writer;
use super::endpoint::{
    APPS, Endpoint, GRACE_PERIODS, IN_APP_PURCHASES, Read, SUBSCRIPTION_GROUPS, SUBSCRIPTIONS,
};
use super::query::Query;
use super::refusal::Refusal;
use super::state::{App, GracePeriod, InAppPurchase, Subscription, SubscriptionGroup};

/// One request, checked.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) endpoint: &'static Endpoint,
    pub(super) id: &'a str,
    pub(super) caller: Caller<'a>,
    pub(super) writer: Writer<'a>,
    /// How many rows too far (or, negative, too near) the next page begins: a fault.
    pub(super) drift: isize,
}

impl<'a> Reading<'a> {
    pub(super) fn document(self) -> Result<Value, Refusal> {
        match self.endpoint.read {
            Read::Apps => Ok(self.apps()),
            Read::App => {
                let app = self.app()?;
                Ok(self.single(
                    self.writer.app(app),
                    self.included_grace_period(app).into_iter().collect(),
                ))
            }
            Read::InAppPurchases => Ok(self.in_app_purchases(self.app()?)),
            Read::InAppPurchase => {
                let purchase = self
                    .in_app_purchase()
                    .ok_or_else(|| Refusal::not_found(IN_APP_PURCHASES.name, self.id))?;
                Ok(self.single(self.writer.in_app_purchase(purchase), Vec::new()))
            }
            Read::Groups => Ok(self.groups(self.app()?)),
            Read::GroupSubscriptions => {
                let group = self
                    .all_groups()
                    .find(|group| group.id == self.id)
                    .ok_or_else(|| Refusal::not_found(SUBSCRIPTION_GROUPS.name, self.id))?;
                Ok(self.group_subscriptions(group))
            }
            Read::Subscription => {
                let (group, subscription) = self
                    .subscription()
                    .ok_or_else(|| Refusal::not_found(SUBSCRIPTIONS.name, self.id))?;
                let included = self
                    .query()
                    .includes("group")
                    .then(|| self.writer.group(group));
                Ok(self.single(
                    self.writer.subscription(subscription, &group.id),
                    included.into_iter().collect(),
                ))
            }
            Read::GracePeriodOfApp | Read::GracePeriod => {
                let grace_period = self
                    .grace_period()
                    .ok_or_else(|| Refusal::not_found(GRACE_PERIODS.name, self.id))?;
                Ok(self.single(self.writer.grace_period(self.id, grace_period), Vec::new()))
            }
        }
    }

    fn apps(self) -> Value {
        let query = self.query();
        let mut rows: Vec<&App> = self
            .caller
            .apps()
            .filter(|app| {
                query.admits("filter[id]", Some(&app.id))
                    && query.admits("filter[bundleId]", Some(&app.bundle_id))
                    && query.admits("filter[name]", Some(&app.name))
                    && query.admits("filter[sku]", app.sku.as_deref())
            })
            .collect();
        self.sort(&mut rows, |app, by| match by {
            "bundleId" => Some(&app.bundle_id),
            "sku" => app.sku.as_deref(),
            _ => Some(&app.name),
        });
        self.listing(
            &rows,
            |app| self.writer.app(app),
            |app| self.included_grace_period(app).into_iter().collect(),
        )
    }

    fn in_app_purchases(self, app: &App) -> Value {
        let query = self.query();
        let mut rows: Vec<&InAppPurchase> = app
            .in_app_purchases
            .iter()
            .filter(|purchase| {
                query.admits("filter[productId]", Some(&purchase.product_id))
                    && query.admits("filter[name]", Some(&purchase.name))
                    && query.admits("filter[state]", purchase.state.as_deref())
                    && query.admits("filter[inAppPurchaseType]", purchase.kind.as_deref())
            })
            .collect();
        self.sort(&mut rows, |purchase, by| match by {
            "inAppPurchaseType" => purchase.kind.as_deref(),
            _ => Some(&purchase.name),
        });
        self.listing(
            &rows,
            |purchase| self.writer.in_app_purchase(purchase),
            |_| Vec::new(),
        )
    }

    fn groups(self, app: &App) -> Value {
        let query = self.query();
        let has_state = |group: &SubscriptionGroup| {
            let filter = "filter[subscriptions.state]";
            query.value(filter).is_none()
                || group
                    .subscriptions
                    .iter()
                    .any(|subscription| query.admits(filter, subscription.state.as_deref()))
        };
        let mut rows: Vec<&SubscriptionGroup> = app
            .subscription_groups
            .iter()
            .filter(|group| {
                query.admits("filter[referenceName]", Some(&group.reference_name))
                    && has_state(group)
            })
            .collect();
        self.sort(&mut rows, |group, _| Some(&group.reference_name));
        let included = |group: &SubscriptionGroup| {
            if !query.includes("subscriptions") {
                return Vec::new();
            }
            let linked = self.writer.linked(group).iter();
            linked
                .map(|subscription| self.writer.subscription(subscription, &group.id))
                .collect()
        };
        self.listing(&rows, |group| self.writer.group(group), included)
    }

    fn group_subscriptions(self, group: &SubscriptionGroup) -> Value {
        let query = self.query();
        let mut rows: Vec<&Subscription> = group
            .subscriptions
            .iter()
            .filter(|subscription| {
                query.admits("filter[productId]", Some(&subscription.product_id))
                    && query.admits("filter[name]", Some(&subscription.name))
                    && query.admits("filter[state]", subscription.state.as_deref())
            })
            .collect();
        self.sort(&mut rows, |subscription, _| Some(&subscription.name));
        let included = |_: &Subscription| {
            query
                .includes("group")
                .then(|| self.writer.group(group))
                .into_iter()
                .collect()
        };
        self.listing(
            &rows,
            |subscription| self.writer.subscription(subscription, &group.id),
            included,
        )
    }

    fn query(self) -> &'a Query<'a> {
        self.writer.query
    }

    fn app(self) -> Result<&'a App, Refusal> {
        self.caller
            .apps()
            .find(|app| app.id == self.id)
            .ok_or_else(|| Refusal::not_found(APPS.name, self.id))
    }

    fn in_app_purchase(self) -> Option<&'a InAppPurchase> {
        self.caller
            .apps()
            .flat_map(|app| &app.in_app_purchases)
            .find(|purchase| purchase.id == self.id)
    }

    fn all_groups(self) -> impl Iterator<Item = &'a SubscriptionGroup> {
        self.caller.apps().flat_map(|app| &app.subscription_groups)
    }

    fn subscription(self) -> Option<(&'a SubscriptionGroup, &'a Subscription)> {
        self.all_groups()
            .flat_map(|group| {
                group
                    .subscriptions
                    .iter()
                    .map(move |subscription| (group, subscription))
            })
            .find(|(_, subscription)| subscription.id == self.id)
    }

    fn grace_period(self) -> Option<&'a GracePeriod> {
        self.app().ok()?.grace_period.as_ref()
    }

    fn included_grace_period(self, app: &App) -> Option<Value> {
        let grace_period = app.grace_period.as_ref()?;
        self.query()
            .includes("subscriptionGracePeriod")
            .then(|| self.writer.grace_period(&app.id, grace_period))
    }

    /// Sorts by each expression in turn; rows that are equal in all stay in the state's order.
    fn sort<T>(self, rows: &mut [&T], value: impl for<'t> Fn(&'t T, &str) -> Option<&'t str>) {
        let Some(expressions) = self.query().list("sort") else {
            return;
        };
        let expressions: Vec<(&str, bool)> = expressions
            .map(|expression| {
                expression
                    .strip_prefix('-')
                    .map_or((expression, false), |by| (by, true))
            })
            .collect();
        rows.sort_by(|left, right| {
            expressions
                .iter()
                .fold(Ordering::Equal, |order, &(by, falling)| {
                    order.then_with(|| {
                        let order = value(left, by).cmp(&value(right, by));
                        if falling { order.reverse() } else { order }
                    })
                })
        });
    }

    fn single(self, data: Value, included: Vec<Value>) -> Value {
        let links = links(self.writer.base, self.query());
        Value::Object(document(data, links, included))
    }

    fn listing<T>(
        self,
        rows: &[&T],
        row: impl Fn(&T) -> Value,
        included: impl Fn(&T) -> Vec<Value>,
    ) -> Value {
        let (query, base) = (self.query(), self.writer.base);
        let limit = query.limit();
        let from = query.offset().min(rows.len());
        let to = from.saturating_add(limit).min(rows.len());
        let page = rows.get(from..to).unwrap_or_default();
        let mut links = links(base, query);
        let mut paging = Map::new();
        paging.insert("total".to_owned(), rows.len().into());
        paging.insert("limit".to_owned(), limit.into());
        if to < rows.len() {
            let next = to.saturating_add_signed(self.drift);
            links.insert(
                "next".to_owned(),
                format!("{base}{}", query.page(next)).into(),
            );
            paging.insert("nextCursor".to_owned(), query.cursor(next).into());
        }
        let mut linked: Vec<Value> = page.iter().flat_map(|item| included(item)).collect();
        // The subscriptions of a page share their group.
        linked.dedup_by(|later, earlier| later.get("id") == earlier.get("id"));
        let mut document = document(page.iter().map(|item| row(item)).collect(), links, linked);
        document.insert("meta".to_owned(), json!({ "paging": paging }));
        Value::Object(document)
    }
}

fn links(base: &str, query: &Query<'_>) -> Map<String, Value> {
    Map::from_iter([("self".to_owned(), format!("{base}{}", query.here()).into())])
}

fn document(data: Value, links: Map<String, Value>, included: Vec<Value>) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("data".to_owned(), data);
    document.insert("links".to_owned(), Value::Object(links));
    if !included.is_empty() {
        document.insert("included".to_owned(), Value::Array(included));
    }
    document
}
