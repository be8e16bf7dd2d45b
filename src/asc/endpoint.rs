//! The reads that the catalog is made of. A new kind of thing is one more row here.

use reqwest::Url;

use crate::catalog::Kind;

/// One read: where, and with which parameters.
///
/// Every attribute and linkage wanted is named in `fields[..]`: that leaves out the relationship links and makes a listing
/// 7 times smaller. Lists are sorted, so that pages follow upon each other as far as Apple's cursors allow.
pub(super) struct Endpoint {
    /// The path, with the id's place marked `{id}`.
    path: &'static str,
    /// The type of the resources that it yields.
    pub(super) yields: &'static str,
    query: &'static [(&'static str, &'static str)],
}

/// The most subscriptions of a group that can be had together with the groups.
pub(super) const INCLUDED_SUBSCRIPTIONS: usize = 50;

const SUBSCRIPTION_FIELDS: (&str, &str) = (
    "fields[subscriptions]",
    "name,productId,familySharable,state,subscriptionPeriod,reviewNote,groupLevel,multiSeatStatus,marketSettings",
);
const GRACE_PERIOD_FIELDS: (&str, &str) = (
    "fields[subscriptionGracePeriods]",
    "optIn,sandboxOptIn,duration,renewalType",
);

/// The apps that a key sees.
pub(super) const APPS: Endpoint = Endpoint {
    path: "/v1/apps",
    yields: "apps",
    query: &[
        ("limit", "200"),
        ("sort", "name"),
        ("fields[apps]", "bundleId,name,sku,primaryLocale"),
    ],
};

/// An app with its grace period: tells an unset grace period from an app that is not visible.
pub(super) const APP: Endpoint = Endpoint {
    path: "/v1/apps/{id}",
    yields: "apps",
    query: &[
        ("include", "subscriptionGracePeriod"),
        (
            "fields[apps]",
            "bundleId,name,sku,primaryLocale,subscriptionGracePeriod",
        ),
        GRACE_PERIOD_FIELDS,
    ],
};

/// The grace period alone: 404 when none is set, and when the app is unknown.
pub(super) const GRACE_PERIOD: Endpoint = Endpoint {
    path: "/v1/apps/{id}/subscriptionGracePeriod",
    yields: "subscriptionGracePeriods",
    query: &[GRACE_PERIOD_FIELDS],
};

/// Consumables, non-consumables and non-renewing subscriptions.
pub(super) const IN_APP_PURCHASES: Endpoint = Endpoint {
    path: "/v1/apps/{id}/inAppPurchasesV2",
    yields: "inAppPurchases",
    query: &[
        ("limit", "200"),
        ("sort", "name"),
        (
            "fields[inAppPurchases]",
            "name,productId,inAppPurchaseType,state,reviewNote,familySharable,contentHosting",
        ),
    ],
};

/// The least that shows whether a key may read an app's catalog.
pub(super) const CATALOG_PROBE: Endpoint = Endpoint {
    path: IN_APP_PURCHASES.path,
    yields: IN_APP_PURCHASES.yields,
    query: &[("limit", "1"), ("fields[inAppPurchases]", "productId")],
};

/// Subscription groups, each with its first subscriptions.
pub(super) const SUBSCRIPTION_GROUPS: Endpoint = Endpoint {
    path: "/v1/apps/{id}/subscriptionGroups",
    yields: "subscriptionGroups",
    query: &[
        ("limit", "200"),
        ("sort", "referenceName"),
        ("include", "subscriptions"),
        ("limit[subscriptions]", "50"),
        ("fields[subscriptionGroups]", "referenceName,subscriptions"),
        SUBSCRIPTION_FIELDS,
    ],
};

/// All subscriptions of one group, for the groups of which not all came with it.
pub(super) const SUBSCRIPTIONS: Endpoint = Endpoint {
    path: "/v1/subscriptionGroups/{id}/subscriptions",
    yields: "subscriptions",
    query: &[("limit", "200"), ("sort", "name"), SUBSCRIPTION_FIELDS],
};

/// One in-app purchase: 404 when there is none.
pub(super) const IN_APP_PURCHASE: Endpoint = Endpoint {
    path: "/v2/inAppPurchases/{id}",
    yields: IN_APP_PURCHASES.yields,
    query: &[("fields[inAppPurchases]", "productId")],
};

/// One subscription: 404 when there is none.
pub(super) const SUBSCRIPTION: Endpoint = Endpoint {
    path: "/v1/subscriptions/{id}",
    yields: SUBSCRIPTIONS.yields,
    query: &[("fields[subscriptions]", "productId")],
};

/// The least that shows whether there is a group: 404 when there is none.
pub(super) const SUBSCRIPTION_GROUP_PROBE: Endpoint = Endpoint {
    path: SUBSCRIPTIONS.path,
    yields: SUBSCRIPTIONS.yields,
    query: &[("limit", "1"), ("fields[subscriptions]", "productId")],
};

/// The path by which a kind is listed. Another path is another listing.
pub(super) const fn listing(kind: Kind) -> &'static str {
    match kind {
        Kind::InAppPurchase => IN_APP_PURCHASES.path,
        Kind::SubscriptionGroup => SUBSCRIPTION_GROUPS.path,
        Kind::Subscription => SUBSCRIPTIONS.path,
        Kind::GracePeriod => GRACE_PERIOD.path,
    }
}

impl Endpoint {
    /// The URL of the first page. `id` is percent-encoded; [`APPS`] takes none and is given an empty one.
    pub(super) fn url(&self, base: &Url, id: &str) -> Url {
        let mut url = base.clone();
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear();
            for segment in self.path.split('/').skip(1) {
                segments.push(if segment == "{id}" { id } else { segment });
            }
        }
        url.query_pairs_mut().extend_pairs(self.query);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        let base = Url::parse("https://example.com").unwrap();
        let url = APP.url(&base, "1/../../v9?x=y#z");
        assert_eq!(url.path(), "/v1/apps/1%2F..%2F..%2Fv9%3Fx=y%23z");
        assert_eq!(APPS.url(&base, "").path(), "/v1/apps");
    }
}
