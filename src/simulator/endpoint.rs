//! What can be read: the kinds of resources, and the endpoints with the parameters that they take.
//!
//! Names and limits are those of Apple's OpenAPI description 4.5.1; a test compares them. `cursor` is not in it, but in the
//! links that the server makes.

/// A kind of resource: its name on the wire, and what a `fields[...]` may name.
#[derive(Debug)]
pub struct Kind {
    /// The resource type, such as `apps`.
    pub name: &'static str,
    /// Where one of them is read, such as `/v1/apps`.
    pub path: &'static str,
    /// Its attributes.
    pub attributes: &'static [&'static str],
    /// Its relationships that come with links.
    pub relationships: &'static [&'static str],
    /// What else a sparse fieldset may name: it shows only when included, or never here.
    pub unlinked: &'static [&'static str],
}

impl Kind {
    /// Whether a sparse fieldset may name this.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.fields().any(|field| field == name)
    }

    /// Everything that a sparse fieldset may name.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.attributes
            .iter()
            .chain(self.relationships)
            .chain(self.unlinked)
            .copied()
    }
}

/// Apps.
pub static APPS: Kind = Kind {
    name: "apps",
    path: "/v1/apps",
    attributes: &[
        "accessibilityUrl",
        "name",
        "bundleId",
        "sku",
        "primaryLocale",
        "isOrEverWasMadeForKids",
        "subscriptionStatusUrl",
        "subscriptionStatusUrlVersion",
        "subscriptionStatusUrlForSandbox",
        "subscriptionStatusUrlVersionForSandbox",
        "contentRightsDeclaration",
        "streamlinedPurchasingEnabled",
    ],
    relationships: &[
        "accessibilityDeclarations",
        "appEncryptionDeclarations",
        "ciProduct",
        "betaTesters",
        "betaGroups",
        "appStoreVersions",
        "appTags",
        "preReleaseVersions",
        "betaAppLocalizations",
        "builds",
        "betaLicenseAgreement",
        "betaAppReviewDetail",
        "appInfos",
        "appClips",
        "appPricePoints",
        "endUserLicenseAgreement",
        "appPriceSchedule",
        "appAvailabilityV2",
        "inAppPurchases",
        "subscriptionGroups",
        "gameCenterEnabledVersions",
        "perfPowerMetrics",
        "appCustomProductPages",
        "inAppPurchasesV2",
        "promotedPurchases",
        "appEvents",
        "reviewSubmissions",
        "subscriptionGracePeriod",
        "customerReviews",
        "customerReviewSummarizations",
        "gameCenterDetail",
        "appStoreVersionExperimentsV2",
        "alternativeDistributionKey",
        "analyticsReportRequests",
        "marketplaceSearchDetail",
        "buildUploads",
        "backgroundAssets",
        "betaFeedbackScreenshotSubmissions",
        "betaFeedbackCrashSubmissions",
        "searchKeywords",
        "webhooks",
        "androidToIosAppMappingDetails",
    ],
    unlinked: &["appStoreIcon", "performanceOverviews", "assetLibrary"],
};

/// In-app purchases, but for auto-renewing subscriptions.
pub static IN_APP_PURCHASES: Kind = Kind {
    name: "inAppPurchases",
    path: "/v2/inAppPurchases",
    attributes: &[
        "name",
        "productId",
        "inAppPurchaseType",
        "state",
        "reviewNote",
        "familySharable",
        "contentHosting",
    ],
    relationships: &[
        "inAppPurchaseLocalizations",
        "pricePoints",
        "content",
        "appStoreReviewScreenshot",
        "promotedPurchase",
        "iapPriceSchedule",
        "inAppPurchaseAvailability",
        "images",
        "offerCodes",
        "versions",
    ],
    unlinked: &[],
};

/// Subscription groups.
pub static SUBSCRIPTION_GROUPS: Kind = Kind {
    name: "subscriptionGroups",
    path: "/v1/subscriptionGroups",
    attributes: &["referenceName"],
    relationships: &[
        "subscriptions",
        "subscriptionGroupLocalizations",
        "versions",
    ],
    unlinked: &[],
};

/// Auto-renewing subscriptions.
pub static SUBSCRIPTIONS: Kind = Kind {
    name: "subscriptions",
    path: "/v1/subscriptions",
    attributes: &[
        "name",
        "productId",
        "familySharable",
        "state",
        "subscriptionPeriod",
        "reviewNote",
        "groupLevel",
        "multiSeatStatus",
        "marketSettings",
    ],
    relationships: &[
        "subscriptionLocalizations",
        "appStoreReviewScreenshot",
        "introductoryOffers",
        "promotionalOffers",
        "offerCodes",
        "prices",
        "pricePoints",
        "promotedPurchase",
        "subscriptionAvailability",
        "winBackOffers",
        "images",
        "planAvailabilities",
        "versions",
    ],
    unlinked: &["group"],
};

/// Billing grace periods.
pub static GRACE_PERIODS: Kind = Kind {
    name: "subscriptionGracePeriods",
    path: "/v1/subscriptionGracePeriods",
    attributes: &["optIn", "sandboxOptIn", "duration", "renewalType"],
    relationships: &[],
    unlinked: &[],
};

const IN_APP_PURCHASE_STATES: &[&str] = &[
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
const SUBSCRIPTION_STATES: &[&str] = &[
    "MISSING_METADATA",
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
const IN_APP_PURCHASE_TYPES: &[&str] =
    &["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"];

/// The most rows on a page.
pub const MOST_ROWS: u32 = 200;
/// The most linked resources of one resource.
pub const MOST_LINKED: u32 = 50;

/// A query parameter.
#[derive(Debug)]
pub struct Parameter {
    /// The name, such as `limit[subscriptions]`.
    pub name: &'static str,
    /// The values it takes.
    pub accepts: Accepts,
}

/// The values that a parameter takes.
#[derive(Debug)]
pub enum Accepts {
    /// Any, one or several separated by commas.
    Any,
    /// One or several of these, separated by commas.
    Of(&'static [&'static str]),
    /// Names of fields of this kind, separated by commas.
    FieldsOf(&'static Kind),
    /// A number from 1 up to this.
    UpTo(u32),
    /// What a `next` link of this listing carried.
    Cursor,
}

/// What an endpoint reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Apps,
    App,
    InAppPurchases,
    InAppPurchase,
    Groups,
    GroupSubscriptions,
    Subscription,
    GracePeriodOfApp,
    GracePeriod,
}

/// A path that answers GET.
#[derive(Debug)]
pub struct Endpoint {
    /// The path, with `{id}` where an id goes.
    pub path: &'static str,
    /// The query parameters it takes; any other is refused.
    pub parameters: &'static [Parameter],
    pub(super) read: Read,
}

impl Endpoint {
    /// The endpoint of a path, and the id in it.
    pub(super) fn find(path: &str) -> Option<(&'static Self, &str)> {
        ENDPOINTS.iter().find_map(|endpoint| {
            let Some((before, after)) = endpoint.path.split_once("{id}") else {
                return (endpoint.path == path).then_some((endpoint, ""));
            };
            let id = path.strip_prefix(before)?.strip_suffix(after)?;
            (!id.is_empty() && !id.contains('/')).then_some((endpoint, id))
        })
    }

    /// Whether the role of a key matters: the list of apps is open to all.
    pub(super) const fn is_catalog(&self) -> bool {
        !matches!(self.read, Read::Apps | Read::App)
    }
}

const fn any(name: &'static str) -> Parameter {
    Parameter {
        name,
        accepts: Accepts::Any,
    }
}

const fn of(name: &'static str, values: &'static [&'static str]) -> Parameter {
    Parameter {
        name,
        accepts: Accepts::Of(values),
    }
}

const fn fields(name: &'static str, kind: &'static Kind) -> Parameter {
    Parameter {
        name,
        accepts: Accepts::FieldsOf(kind),
    }
}

const LIMIT: Parameter = Parameter {
    name: "limit",
    accepts: Accepts::UpTo(MOST_ROWS),
};
const CURSOR: Parameter = Parameter {
    name: "cursor",
    accepts: Accepts::Cursor,
};

/// Every endpoint of the simulator.
pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/v1/apps",
        read: Read::Apps,
        parameters: &[
            any("filter[name]"),
            any("filter[bundleId]"),
            any("filter[sku]"),
            any("filter[id]"),
            of(
                "sort",
                &["name", "-name", "bundleId", "-bundleId", "sku", "-sku"],
            ),
            fields("fields[apps]", &APPS),
            fields("fields[subscriptionGracePeriods]", &GRACE_PERIODS),
            of("include", &["subscriptionGracePeriod"]),
            LIMIT,
            CURSOR,
        ],
    },
    Endpoint {
        path: "/v1/apps/{id}",
        read: Read::App,
        parameters: &[
            fields("fields[apps]", &APPS),
            fields("fields[subscriptionGracePeriods]", &GRACE_PERIODS),
            of("include", &["subscriptionGracePeriod"]),
        ],
    },
    Endpoint {
        path: "/v1/apps/{id}/inAppPurchasesV2",
        read: Read::InAppPurchases,
        parameters: &[
            any("filter[productId]"),
            any("filter[name]"),
            of("filter[state]", IN_APP_PURCHASE_STATES),
            of("filter[inAppPurchaseType]", IN_APP_PURCHASE_TYPES),
            of(
                "sort",
                &["name", "-name", "inAppPurchaseType", "-inAppPurchaseType"],
            ),
            fields("fields[inAppPurchases]", &IN_APP_PURCHASES),
            LIMIT,
            CURSOR,
        ],
    },
    Endpoint {
        path: "/v2/inAppPurchases/{id}",
        read: Read::InAppPurchase,
        parameters: &[fields("fields[inAppPurchases]", &IN_APP_PURCHASES)],
    },
    Endpoint {
        path: "/v1/apps/{id}/subscriptionGroups",
        read: Read::Groups,
        parameters: &[
            any("filter[referenceName]"),
            of("filter[subscriptions.state]", SUBSCRIPTION_STATES),
            of("sort", &["referenceName", "-referenceName"]),
            fields("fields[subscriptionGroups]", &SUBSCRIPTION_GROUPS),
            fields("fields[subscriptions]", &SUBSCRIPTIONS),
            of("include", &["subscriptions"]),
            LIMIT,
            Parameter {
                name: "limit[subscriptions]",
                accepts: Accepts::UpTo(MOST_LINKED),
            },
            CURSOR,
        ],
    },
    Endpoint {
        path: "/v1/subscriptionGroups/{id}/subscriptions",
        read: Read::GroupSubscriptions,
        parameters: &[
            any("filter[productId]"),
            any("filter[name]"),
            of("filter[state]", SUBSCRIPTION_STATES),
            of("sort", &["name", "-name"]),
            fields("fields[subscriptions]", &SUBSCRIPTIONS),
            fields("fields[subscriptionGroups]", &SUBSCRIPTION_GROUPS),
            of("include", &["group"]),
            LIMIT,
            CURSOR,
        ],
    },
    Endpoint {
        path: "/v1/subscriptions/{id}",
        read: Read::Subscription,
        parameters: &[
            fields("fields[subscriptions]", &SUBSCRIPTIONS),
            fields("fields[subscriptionGroups]", &SUBSCRIPTION_GROUPS),
            of("include", &["group"]),
        ],
    },
    Endpoint {
        path: "/v1/apps/{id}/subscriptionGracePeriod",
        read: Read::GracePeriodOfApp,
        parameters: &[fields("fields[subscriptionGracePeriods]", &GRACE_PERIODS)],
    },
    Endpoint {
        path: "/v1/subscriptionGracePeriods/{id}",
        read: Read::GracePeriod,
        parameters: &[fields("fields[subscriptionGracePeriods]", &GRACE_PERIODS)],
    },
];
