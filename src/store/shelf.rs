//! Rows as readers see them, made from entries of the past: the same that the views make of those of today.
//!
//! What must hold throughout: a name that is not known, or a value of an unexpected type, gives none and not a guess. The views are
//! in `migrations/*/0003_removals.sql`; tests compare the two.

use std::collections::HashMap;

use serde_json::Value;

use super::{GracePeriod, Product, Shelf, SubscriptionGroup};
use crate::{
    catalog::{Entry, Kind},
    clock::Instant,
    project::ProjectId,
};

/// `groupLevel` is a number of at most 18 digits.
const LEVEL_MAX: i64 = 999_999_999_999_999_999;

/// An entry as it was, with its dates.
pub(super) struct Dated {
    pub(super) entry: Entry,
    pub(super) first_seen_at: Instant,
    pub(super) updated_at: Instant,
    pub(super) removed_at: Option<Instant>,
}

/// What readers saw of a project with this app.
pub(super) fn shelf(id: &ProjectId, app_id: &str, entries: &[Dated]) -> Shelf {
    let group_names: HashMap<&str, String> = of_kind(entries, Kind::SubscriptionGroup)
        .filter_map(|group| {
            let name = text(&group.entry, "referenceName")?;
            Some((group.entry.key.store_id.as_str(), name))
        })
        .collect();
    let mut products: Vec<Product> = of_kind(entries, Kind::InAppPurchase)
        .chain(of_kind(entries, Kind::Subscription))
        .map(|dated| product(id, dated, &group_names))
        .collect();
    products.sort_by_cached_key(|one| {
        let product_id = nulls_last(one.product_id.as_ref());
        (
            product_id,
            one.store_id.clone(),
            nulls_last(one.kind.as_ref()),
        )
    });
    let mut subscription_groups: Vec<SubscriptionGroup> = of_kind(entries, Kind::SubscriptionGroup)
        .map(|dated| subscription_group(id, dated))
        .collect();
    subscription_groups
        .sort_by_cached_key(|one| (nulls_last(one.name.as_ref()), one.store_id.clone()));
    let grace_period = of_kind(entries, Kind::GracePeriod)
        .find(|dated| dated.removed_at.is_none() && dated.entry.key.store_id.as_str() == app_id)
        .map(|dated| grace_period(id, dated));
    Shelf {
        products,
        subscription_groups,
        grace_period,
    }
}

fn of_kind(entries: &[Dated], kind: Kind) -> impl Iterator<Item = &Dated> {
    entries
        .iter()
        .filter(move |dated| dated.entry.key.kind == kind)
}

fn nulls_last(text: Option<&String>) -> (bool, Option<String>) {
    (text.is_none(), text.cloned())
}

fn product(id: &ProjectId, dated: &Dated, group_names: &HashMap<&str, String>) -> Product {
    let entry = &dated.entry;
    let group = entry.parent.as_ref();
    Product {
        project_id: id.to_string(),
        product_id: entry.product_id().map(str::to_owned),
        store_id: entry.key.store_id.to_string(),
        kind: match entry.key.kind {
            Kind::Subscription => Some("auto_renewable_subscription".to_owned()),
            _ => known(
                entry,
                "inAppPurchaseType",
                &[
                    ("CONSUMABLE", "consumable"),
                    ("NON_CONSUMABLE", "non_consumable"),
                    ("NON_RENEWING_SUBSCRIPTION", "non_renewing_subscription"),
                ],
            ),
        },
        name: text(entry, "name"),
        state: text(entry, "state"),
        period: known(
            entry,
            "subscriptionPeriod",
            &[
                ("ONE_WEEK", "P1W"),
                ("ONE_MONTH", "P1M"),
                ("TWO_MONTHS", "P2M"),
                ("THREE_MONTHS", "P3M"),
                ("SIX_MONTHS", "P6M"),
                ("ONE_YEAR", "P1Y"),
            ],
        ),
        group_id: group.map(ToString::to_string),
        group_name: group.and_then(|group| group_names.get(group.as_str()).cloned()),
        group_level: entry
            .attributes
            .get("groupLevel")
            .and_then(Value::as_i64)
            .filter(|level| (-LEVEL_MAX..=LEVEL_MAX).contains(level)),
        family_sharable: flag(entry, "familySharable"),
        first_seen_at: dated.first_seen_at,
        updated_at: dated.updated_at,
        removed_at: dated.removed_at,
        attributes: attributes(entry),
        missing_since: None,
        kept_since: None,
    }
}

fn subscription_group(id: &ProjectId, dated: &Dated) -> SubscriptionGroup {
    SubscriptionGroup {
        project_id: id.to_string(),
        store_id: dated.entry.key.store_id.to_string(),
        name: text(&dated.entry, "referenceName"),
        first_seen_at: dated.first_seen_at,
        updated_at: dated.updated_at,
        removed_at: dated.removed_at,
        attributes: attributes(&dated.entry),
        missing_since: None,
        kept_since: None,
    }
}

fn grace_period(id: &ProjectId, dated: &Dated) -> GracePeriod {
    let entry = &dated.entry;
    GracePeriod {
        project_id: id.to_string(),
        opt_in: flag(entry, "optIn"),
        sandbox_opt_in: flag(entry, "sandboxOptIn"),
        duration_days: known(
            entry,
            "duration",
            &[
                ("THREE_DAYS", 3),
                ("SIXTEEN_DAYS", 16),
                ("TWENTY_EIGHT_DAYS", 28),
            ],
        ),
        renewal_type: known(
            entry,
            "renewalType",
            &[
                ("ALL_RENEWALS", "all_renewals"),
                ("PAID_TO_PAID_ONLY", "paid_to_paid_only"),
            ],
        ),
        checked_at: None,
        changed_at: dated.updated_at,
        attributes: attributes(entry),
    }
}

/// What readers see instead of a name of Apple's.
fn known<T: Copy, U: From<T>>(entry: &Entry, name: &str, names: &[(&str, T)]) -> Option<U> {
    let value = entry.attributes.get(name)?.as_str()?;
    let found = names.iter().find(|(apple, _)| *apple == value);
    found.map(|&(_, ours)| ours.into())
}

fn text(entry: &Entry, name: &str) -> Option<String> {
    let value = entry.attributes.get(name)?;
    value.as_str().map(str::to_owned)
}

fn flag(entry: &Entry, name: &str) -> Option<bool> {
    entry.attributes.get(name)?.as_bool()
}

fn attributes(entry: &Entry) -> Value {
    entry.attributes.clone().into_iter().collect()
}
