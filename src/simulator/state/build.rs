//! Short ways to a state for tests and demos. Everything made here is the same each time, but for private keys.

use serde_json::Value;

use super::complete::new_private_key;
use super::{
    App, GracePeriod, InAppPurchase, Key, Role, State, Subscription, SubscriptionGroup, Team,
};

const SAMPLE: &str = include_str!("../../../docs/simulator.toml");
const TYPES: [&str; 3] = ["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"];
const PERIODS: [&str; 6] = [
    "ONE_WEEK",
    "ONE_MONTH",
    "TWO_MONTHS",
    "THREE_MONTHS",
    "SIX_MONTHS",
    "ONE_YEAR",
];

impl State {
    /// A state without teams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A small believable team with one app; the same as the file `docs/simulator.toml`.
    #[must_use]
    pub fn sample() -> Self {
        // The file is part of the crate and a test reads it, so the default is never taken.
        Self::from_toml(SAMPLE).unwrap_or_default()
    }

    /// One team with one admin key, `SIMULATOR1`, and this app.
    #[must_use]
    pub fn with_app(app: App) -> Self {
        Self::new().with_team(
            Team::new("Example", "5a1e0000-0000-4000-8000-000000000001")
                .with_key(Key::new("SIMULATOR1", Role::Admin))
                .with_app(app),
        )
    }

    /// Adds a team.
    #[must_use]
    pub fn with_team(mut self, team: Team) -> Self {
        self.teams.push(team);
        self
    }

    /// The app with this id.
    #[must_use]
    pub fn app(&self, id: &str) -> Option<&App> {
        self.teams
            .iter()
            .flat_map(|team| &team.apps)
            .find(|app| app.id == id)
    }

    /// The app with this id, to change it.
    pub fn app_mut(&mut self, id: &str) -> Option<&mut App> {
        self.teams
            .iter_mut()
            .flat_map(|team| &mut team.apps)
            .find(|app| app.id == id)
    }

    /// The key with this id, and its team.
    #[must_use]
    pub fn key(&self, key_id: &str) -> Option<(&Team, &Key)> {
        self.teams
            .iter()
            .flat_map(|team| team.keys.iter().map(move |key| (team, key)))
            .find(|(_, key)| key.key_id == key_id)
    }

    /// The key with this id, to change it.
    pub fn key_mut(&mut self, key_id: &str) -> Option<&mut Key> {
        self.teams
            .iter_mut()
            .flat_map(|team| &mut team.keys)
            .find(|key| key.key_id == key_id)
    }

    /// Removes an in-app purchase or subscription by its id, wherever it is; tells whether it was there.
    pub fn remove_product(&mut self, id: &str) -> bool {
        self.remember_ids();
        let mut removed = false;
        for app in self.teams.iter_mut().flat_map(|team| &mut team.apps) {
            let before = app.products();
            app.in_app_purchases.retain(|purchase| purchase.id != id);
            for group in &mut app.subscription_groups {
                group
                    .subscriptions
                    .retain(|subscription| subscription.id != id);
            }
            removed |= app.products() != before;
        }
        removed
    }
}

impl Team {
    /// A team without keys and apps.
    #[must_use]
    pub fn new(name: impl Into<String>, issuer_id: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            issuer_id: issuer_id.into(),
            ..Self::default()
        }
    }

    /// Adds a key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Adds an app.
    #[must_use]
    pub fn with_app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }
}

impl Key {
    /// A team key with a new private key.
    #[must_use]
    pub fn new(key_id: impl Into<String>, role: Role) -> Self {
        let key_id = key_id.into();
        // Without randomness the key stays empty, and starting the simulator says so.
        let private_key = new_private_key().unwrap_or_default();
        Self {
            name: format!("Key {key_id}"),
            key_id,
            role,
            private_key,
            ..Self::default()
        }
    }

    /// Makes it an individual key that sees these apps.
    #[must_use]
    pub fn individual(mut self, apps: &[&str]) -> Self {
        self.individual = true;
        self.apps = Some(apps.iter().map(ToString::to_string).collect());
        self
    }

    /// Makes it an In-App Purchase key, which this API refuses.
    #[must_use]
    pub const fn for_in_app_purchase(mut self) -> Self {
        self.in_app_purchase = true;
        self
    }

    /// Sets the calls in a rolling hour.
    #[must_use]
    pub const fn with_hourly_limit(mut self, calls: u32) -> Self {
        self.hourly_limit = Some(calls);
        self
    }

    /// The name under which Apple hands the key out.
    #[must_use]
    pub fn file_name(&self) -> String {
        let kind = if self.in_app_purchase {
            "SubscriptionKey"
        } else {
            "AuthKey"
        };
        format!("{kind}_{}.p8", self.key_id)
    }
}

impl App {
    /// An app with an empty catalog and no grace period.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        bundle_id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let bundle_id = bundle_id.into();
        Self {
            id: id.into(),
            sku: Some(bundle_id.clone()),
            bundle_id,
            name: name.into(),
            primary_locale: Some("en-US".to_owned()),
            ..Self::default()
        }
    }

    /// Adds this many in-app purchases, named so that `sort=name` is the order here.
    #[must_use]
    pub fn with_in_app_purchases(mut self, count: usize) -> Self {
        let from = self.in_app_purchases.len();
        for (number, kind) in (from + 1..=from + count).zip(TYPES.iter().cycle().skip(from)) {
            self.in_app_purchases.push(
                InAppPurchase::new(
                    format!("{}1{number:05}", self.id),
                    format!("{}.product.{number:05}", self.bundle_id),
                    format!("Product {number:05}"),
                )
                .of_type(*kind),
            );
        }
        self
    }

    /// Adds this many subscription groups with this many subscriptions each, named so that sorting keeps the order here.
    #[must_use]
    pub fn with_groups(mut self, groups: usize, subscriptions_each: usize) -> Self {
        let from = self.subscription_groups.len();
        for number in from + 1..=from + groups {
            let mut group = SubscriptionGroup::new(
                format!("{}2{number:05}", self.id),
                format!("Group {number:05}"),
            );
            for (level, period) in (1..).zip(PERIODS.iter().cycle()).take(subscriptions_each) {
                group.subscriptions.push(
                    Subscription::new(
                        format!("{}3{number:05}{level:05}", self.id),
                        format!("{}.group.{number:05}.plan.{level:05}", self.bundle_id),
                        format!("Group {number:05} Plan {level:05}"),
                    )
                    .with_period(*period)
                    .with_level(level),
                );
            }
            self.subscription_groups.push(group);
        }
        self
    }

    /// Sets a grace period of sixteen days for all renewals.
    #[must_use]
    pub fn with_grace_period(mut self) -> Self {
        self.grace_period = Some(GracePeriod {
            opt_in: Some(true),
            sandbox_opt_in: Some(false),
            duration: Some("SIXTEEN_DAYS".to_owned()),
            renewal_type: Some("ALL_RENEWALS".to_owned()),
            ..GracePeriod::default()
        });
        self
    }

    /// Adds an in-app purchase.
    #[must_use]
    pub fn with_in_app_purchase(mut self, purchase: InAppPurchase) -> Self {
        self.in_app_purchases.push(purchase);
        self
    }

    /// Adds a subscription group.
    #[must_use]
    pub fn with_group(mut self, group: SubscriptionGroup) -> Self {
        self.subscription_groups.push(group);
        self
    }

    /// How many in-app purchases and subscriptions there are.
    #[must_use]
    pub fn products(&self) -> usize {
        let subscriptions: usize = self
            .subscription_groups
            .iter()
            .map(|group| group.subscriptions.len())
            .sum();
        self.in_app_purchases.len() + subscriptions
    }
}

impl InAppPurchase {
    /// An approved consumable.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        product_id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            product_id: product_id.into(),
            name: name.into(),
            kind: Some("CONSUMABLE".to_owned()),
            state: Some("APPROVED".to_owned()),
            family_sharable: Some(false),
            content_hosting: Some(false),
            ..Self::default()
        }
    }

    /// Sets the type.
    #[must_use]
    pub fn of_type(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Sets the state.
    #[must_use]
    pub fn in_state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Sets an attribute as it goes over the wire; null is sent as an explicit null.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }
}

impl SubscriptionGroup {
    /// An empty group.
    #[must_use]
    pub fn new(id: impl Into<String>, reference_name: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            reference_name: reference_name.into(),
            ..Self::default()
        }
    }

    /// Adds a subscription.
    #[must_use]
    pub fn with_subscription(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }
}

impl Subscription {
    /// An approved monthly subscription at the highest level.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        product_id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            product_id: product_id.into(),
            name: name.into(),
            state: Some("APPROVED".to_owned()),
            period: Some("ONE_MONTH".to_owned()),
            group_level: Some(1),
            family_sharable: Some(false),
            ..Self::default()
        }
    }

    /// A draft: it has no period and no level yet.
    #[must_use]
    pub fn draft(
        id: impl Into<String>,
        product_id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            period: None,
            group_level: None,
            ..Self::new(id, product_id, name).in_state("MISSING_METADATA")
        }
    }

    /// Sets the period.
    #[must_use]
    pub fn with_period(mut self, period: impl Into<String>) -> Self {
        self.period = Some(period.into());
        self
    }

    /// Sets the level.
    #[must_use]
    pub const fn with_level(mut self, level: u32) -> Self {
        self.group_level = Some(level);
        self
    }

    /// Sets the state.
    #[must_use]
    pub fn in_state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Sets an attribute as it goes over the wire; null is sent as an explicit null.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }
}
