//! What stories are made of: small catalogs, what is edited in them, and what goes wrong on the way to them.

use std::{collections::BTreeSet, num::NonZeroU32};

use catalog_sync::simulator::{
    App, Fault, FaultKind, InAppPurchase, Key, Role, State, Subscription, SubscriptionGroup, Team,
};

use super::network::ELSEWHERE;
use crate::random::Random;

/// What a key may be used in an hour that has little of it left.
pub(super) const BUDGET: u32 = 300;

/// Something that was taken away upstream.
enum Gone {
    Purchase(InAppPurchase),
    Subscription(String, Subscription),
    Group(SubscriptionGroup),
}

/// What was done to the catalogs upstream.
#[derive(Default)]
pub(super) struct Past {
    added: usize,
    gone: Vec<(String, Gone)>,
    /// The ids of all that was ever missing.
    pub(super) missed: BTreeSet<String>,
}

/// The app of the project with this number.
pub(super) fn app_id(project: usize) -> String {
    format!("100000000{project}")
}

/// Teams with a key each, and the number of each project's team.
pub(super) fn state(random: &mut Random, projects: usize, has_budget: bool) -> (State, Vec<usize>) {
    let mut state = State::new();
    state.page_limit = NonZeroU32::new(4);
    let mut team_of = Vec::new();
    for project in 0..projects {
        let id = app_id(project);
        let mut app = App::new(&id, format!("com.example.app{project}"), "Example")
            .with_in_app_purchases(random.below(14));
        for _ in 0..random.below(3) {
            app = app.with_groups(1, random.below(5));
        }
        if random.below(2) == 0 {
            app = app.with_grace_period();
        }
        let shares = project > 0 && random.below(4) == 0;
        if !shares {
            let number = state.teams.len();
            let issuer = format!("5a1e0000-0000-4000-8000-00000000000{number}");
            let mut key = Key::new(key_id(number), Role::Admin);
            if has_budget && number == 0 {
                key = key.with_hourly_limit(BUDGET);
            }
            state = state.with_team(Team::new("Example", issuer).with_key(key));
        }
        let team = state.teams.len() - 1;
        state.teams[team].apps.push(app);
        team_of.push(team);
    }
    (state, team_of)
}

pub(super) fn key_id(team: usize) -> String {
    format!("KEY000000{team}")
}

/// Something that goes wrong with requests, by name.
pub(super) fn fault(random: &mut Random) -> (&'static str, Fault) {
    let retry_after = [None, Some("2"), Some("90"), Some("600")][random.below(4)];
    let retry_after = retry_after.map(str::to_owned);
    let faults = [
        ("500", FaultKind::status(500)),
        ("503", FaultKind::status(503)),
        ("429", FaultKind::RateLimited { retry_after }),
        ("401", FaultKind::Unauthorized),
        ("403", FaultKind::RequiredAgreement),
        ("cut body", FaultKind::CutBody),
        ("HTML", FaultKind::Html200),
        ("reset", FaultKind::Reset),
        ("hang", FaultKind::Hang),
        (
            "foreign next",
            FaultKind::NextElsewhere(format!("{ELSEWHERE}/v1/apps?cursor=a")),
        ),
        ("circle of next", FaultKind::SelfNext),
        ("repeated row", FaultKind::RepeatRow),
        ("skipped row", FaultKind::SkipRow),
        ("dropped include", FaultKind::DropIncluded),
    ];
    let (name, kind) = faults[random.below(faults.len())].clone();
    let path = ["", "/inAppPurchasesV2", "/subscriptionGroups", "/v1/apps/"][random.below(4)];
    let fault = Fault::new(path, kind)
        .after(random.below(8))
        .times(1 + random.below(12));
    (name, fault)
}

impl Past {
    /// Edits an app, and says how.
    pub(super) fn edit(&mut self, app: &mut App, random: &mut Random) -> &'static str {
        let products = app.products();
        match random.below(9) {
            2 if !app.in_app_purchases.is_empty() => {
                let count = app.in_app_purchases.len();
                let number = self.number();
                app.in_app_purchases[random.below(count)].name = format!("Renamed {number}");
                "renamed upstream"
            }
            3 | 4 if products > 0 => {
                self.remove(app, random.below(products));
                "removed upstream"
            }
            5 if !app.in_app_purchases.is_empty() => {
                let left = random.below(app.in_app_purchases.len().div_ceil(2));
                while app.in_app_purchases.len() > left {
                    self.remove(app, 0);
                }
                "most of a kind removed upstream"
            }
            6 if !app.subscription_groups.is_empty() => {
                let count = app.subscription_groups.len();
                let group = app.subscription_groups.remove(random.below(count));
                self.missed.insert(group.id.clone());
                self.missed
                    .extend(group.subscriptions.iter().map(|it| it.id.clone()));
                self.gone.push((app.id.clone(), Gone::Group(group)));
                "removed upstream"
            }
            7 | 8 if self.gone.iter().any(|(of, _)| *of == app.id) => {
                self.give_back(app);
                "returned upstream"
            }
            _ => self.add(app, random),
        }
    }

    fn number(&mut self) -> usize {
        self.added += 1;
        self.added
    }

    fn add(&mut self, app: &mut App, random: &mut Random) -> &'static str {
        let number = self.number();
        let (id, product) = (format!("8{number:05}"), format!("com.example.new{number}"));
        let groups = app.subscription_groups.len();
        match random.below(3) {
            0 => {
                let group = SubscriptionGroup::new(id, format!("New {number}"));
                app.subscription_groups.push(group);
            }
            1 if groups > 0 => {
                let group = &mut app.subscription_groups[random.below(groups)];
                let subscription = Subscription::new(id, product, format!("New {number}"));
                group.subscriptions.push(subscription);
            }
            _ => {
                let purchase = InAppPurchase::new(id, product, format!("New {number}"));
                app.in_app_purchases.push(purchase);
            }
        }
        "added upstream"
    }

    /// Takes away the product with this place among all.
    fn remove(&mut self, app: &mut App, mut place: usize) {
        if place < app.in_app_purchases.len() {
            let purchase = app.in_app_purchases.remove(place);
            self.missed.insert(purchase.id.clone());
            self.gone.push((app.id.clone(), Gone::Purchase(purchase)));
            return;
        }
        place -= app.in_app_purchases.len();
        for group in &mut app.subscription_groups {
            if place < group.subscriptions.len() {
                let subscription = group.subscriptions.remove(place);
                self.missed.insert(subscription.id.clone());
                let gone = Gone::Subscription(group.id.clone(), subscription);
                self.gone.push((app.id.clone(), gone));
                return;
            }
            place -= group.subscriptions.len();
        }
    }

    /// Gives back what this app lost first.
    fn give_back(&mut self, app: &mut App) {
        let Some(first) = self.gone.iter().position(|(of, _)| *of == app.id) else {
            return;
        };
        match self.gone.remove(first).1 {
            Gone::Purchase(purchase) => app.in_app_purchases.push(purchase),
            Gone::Group(group) => app.subscription_groups.push(group),
            Gone::Subscription(group, subscription) => {
                // One whose group went too stays away.
                let mut groups = app.subscription_groups.iter_mut();
                if let Some(group) = groups.find(|it| it.id == group) {
                    group.subscriptions.push(subscription);
                }
            }
        }
    }
}
