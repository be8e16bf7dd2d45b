//! What a history is made of: a small catalog, and what happens to it upstream and on the way.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::trouble::{self, Listing, Pair, Trouble};
use crate::sync::{APP, App, GracePeriod, InAppPurchase, Subscription, SubscriptionGroup};

/// The most of each that an app has, so that the pages of a listing can be counted.
pub(super) const MOST_PURCHASES: usize = 12;
pub(super) const MOST_GROUPS: usize = 4;
pub(super) const MOST_SUBSCRIPTIONS: usize = 5;

/// An app, the server that lists it, and what happens.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// How many rows a page has at most.
    pub(super) page: u32,
    /// Whether the guard holds what looks like an accident.
    pub(super) is_guarded: bool,
    /// Whether there is one more run when all is as upstream has it, which is to change nothing.
    pub(super) ends_with_another: bool,
    pub(super) purchases: usize,
    /// How many subscriptions each group has.
    pub(super) groups: Vec<usize>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Edit(Edit),
    Sync {
        troubles: Vec<Trouble>,
        /// Somebody has seen what the last run held, and lets it go.
        approves: bool,
    },
}

impl Step {
    const QUIET: Self = Self::Sync {
        troubles: Vec::new(),
        approves: false,
    };
}

/// One thing that changes upstream. What needs something that is not there changes nothing.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    AddPurchase(char),
    AddGroup(char),
    AddSubscription(char, Index),
    /// Lists are sorted by name, so this moves a row between pages.
    Rename(char, Index),
    RemoveFromSale(Index),
    Delete(Index),
    DeleteSeveral(Vec<Index>),
    DeleteGroup(Index),
    /// What was deleted is there again, with the same id.
    Return(Index),
    Move(Index, Index),
    SetGracePeriod(Option<&'static str>),
}

/// What an app had, so that it can return.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    gone: Vec<Gone>,
    added: usize,
}

#[derive(Clone, Debug)]
enum Gone {
    Purchase(InAppPurchase),
    Subscription(Subscription, String),
    Group(SubscriptionGroup),
}

/// Histories of two to eight steps, the runs at the end not counted. With a pair they begin with just that, on a catalog that has such a page.
pub(super) fn histories(begins_with: Option<&Pair>) -> BoxedStrategy<History> {
    let Some(pair) = begins_with else {
        let steps = (prop::bool::weighted(0.75), vec(a_step(), 2..=7)).prop_map(
            |(begins_quietly, rest)| {
                let first = begins_quietly.then_some(Step::QUIET);
                first.into_iter().chain(rest).collect()
            },
        );
        let groups = vec(0..=MOST_SUBSCRIPTIONS, 0..=MOST_GROUPS);
        return history(2..=4_u32, 0..=MOST_PURCHASES, groups, steps.boxed());
    };
    let steps = (trouble::just(pair), any::<bool>(), vec(a_step(), 1..=6)).prop_map(
        |(trouble, approves, rest)| {
            let troubled = Step::Sync {
                troubles: vec![trouble],
                approves,
            };
            [Step::QUIET, troubled].into_iter().chain(rest).collect()
        },
    );
    // Few of all else: each request takes its time.
    let few_groups = vec(0..=2_usize, 0..=2_usize);
    let (purchases, groups) = match pair.listing {
        Listing::App => (0..=4, few_groups.boxed()),
        Listing::Purchases => (MOST_PURCHASES - 1..=MOST_PURCHASES, few_groups.boxed()),
        Listing::Groups => (
            0..=4,
            vec(1..=2_usize, MOST_GROUPS - 1..=MOST_GROUPS).boxed(),
        ),
        Listing::Subscriptions => {
            let with_a_large_one = few_groups.prop_map(|mut groups| {
                groups.push(MOST_SUBSCRIPTIONS);
                groups
            });
            (0..=4, with_a_large_one.boxed())
        }
    };
    history(2..=2_u32, purchases, groups, steps.boxed())
}

fn history(
    page: impl Strategy<Value = u32> + 'static,
    purchases: impl Strategy<Value = usize> + 'static,
    groups: impl Strategy<Value = Vec<usize>> + 'static,
    steps: BoxedStrategy<Vec<Step>>,
) -> BoxedStrategy<History> {
    (page, any::<(bool, bool)>(), purchases, groups, steps)
        .prop_map(
            |(page, (is_guarded, ends_with_another), purchases, groups, steps)| History {
                page,
                is_guarded,
                ends_with_another,
                purchases,
                groups,
                steps,
            },
        )
        .boxed()
}

fn a_step() -> impl Strategy<Value = Step> {
    let sync = (vec(trouble::any_of_all(), 0..=2), any::<bool>())
        .prop_map(|(troubles, approves)| Step::Sync { troubles, approves });
    prop_oneof![3 => an_edit().prop_map(Step::Edit), 2 => sync]
}

/// Any edit.
fn an_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![9 => a_counted_edit(), 2 => a_move()]
}

/// An edit that moves a row to another place in a list, or to another list.
pub(super) fn a_move() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        (a_letter(), index()).prop_map(|(letter, of)| Edit::Rename(letter, of)),
        (index(), index()).prop_map(|(of, to)| Edit::Move(of, to)),
    ]
}

/// An edit that changes a total, or the order of no list.
pub(super) fn a_counted_edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    let duration = prop::option::of(prop::sample::select(vec![
        "THREE_DAYS",
        "SIXTEEN_DAYS",
        "TWENTY_EIGHT_DAYS",
    ]));
    prop_oneof![
        2 => a_letter().prop_map(Edit::AddPurchase),
        1 => a_letter().prop_map(Edit::AddGroup),
        2 => (a_letter(), index()).prop_map(|(letter, to)| Edit::AddSubscription(letter, to)),
        1 => index().prop_map(Edit::RemoveFromSale),
        3 => index().prop_map(Edit::Delete),
        3 => vec(index(), 2..6).prop_map(Edit::DeleteSeveral),
        2 => index().prop_map(Edit::DeleteGroup),
        6 => index().prop_map(Edit::Return),
        1 => duration.prop_map(Edit::SetGracePeriod),
    ]
}

/// Names begin with it: some sort before what an app has at first, and some after.
fn a_letter() -> impl Strategy<Value = char> {
    prop::char::range('A', 'Z')
}

impl History {
    /// The app before anything happens.
    pub(super) fn app(&self) -> App {
        let app = App::new(APP, "com.example.app", "Example")
            .with_in_app_purchases(self.purchases)
            .with_grace_period();
        self.groups
            .iter()
            .fold(app, |app, &subscriptions| app.with_groups(1, subscriptions))
    }
}

impl Edit {
    /// Makes the edit.
    pub(super) fn make(&self, app: &mut App, past: &mut Past) {
        let groups = app.subscription_groups.len();
        match self {
            Self::AddPurchase(letter) if app.in_app_purchases.len() < MOST_PURCHASES => {
                let id = past.new_id();
                let name = format!("{letter} {id}");
                app.in_app_purchases.push(InAppPurchase::new(
                    &id,
                    format!("com.example.{id}"),
                    name,
                ));
            }
            Self::AddGroup(letter) if groups < MOST_GROUPS => {
                let id = past.new_id();
                let name = format!("{letter} {id}");
                app.subscription_groups
                    .push(SubscriptionGroup::new(id, name));
            }
            Self::AddSubscription(letter, to) if groups > 0 => {
                let group = &mut app.subscription_groups[to.index(groups)];
                if group.subscriptions.len() < MOST_SUBSCRIPTIONS {
                    let id = past.new_id();
                    let name = format!("{letter} {id}");
                    group.subscriptions.push(Subscription::new(
                        &id,
                        format!("com.example.{id}"),
                        name,
                    ));
                }
            }
            Self::Rename(letter, of) => {
                if let Some(name) = pick(*of, names(app)) {
                    *name = format!("{letter} {name}");
                }
            }
            Self::RemoveFromSale(of) => {
                if let Some(state) = pick(*of, states(app)) {
                    *state = Some("DEVELOPER_REMOVED_FROM_SALE".to_owned());
                }
            }
            Self::Delete(of) => delete(*of, app, past),
            Self::DeleteSeveral(several) => {
                for of in several {
                    delete(*of, app, past);
                }
            }
            Self::DeleteGroup(of) if groups > 0 => {
                let group = app.subscription_groups.remove(of.index(groups));
                past.gone.push(Gone::Group(group));
            }
            Self::Return(of) if !past.gone.is_empty() => {
                let gone = past.gone.remove(of.index(past.gone.len()));
                if let Some(gone) = returned(gone, app) {
                    past.gone.push(gone);
                }
            }
            Self::Move(of, to) if groups > 0 && app.products() > app.in_app_purchases.len() => {
                move_subscription(*of, *to, app);
            }
            Self::SetGracePeriod(duration) => {
                app.grace_period = duration.map(|duration| GracePeriod {
                    duration: Some(duration.to_owned()),
                    ..GracePeriod::default()
                });
            }
            _ => {}
        }
    }
}

impl Past {
    /// An id that nothing had before.
    fn new_id(&mut self) -> String {
        self.added += 1;
        format!("8{:05}", self.added)
    }
}

/// Every name that there is, to be changed.
fn names(app: &mut App) -> Vec<&mut String> {
    let purchases = app.in_app_purchases.iter_mut().map(|it| &mut it.name);
    let of_groups = app.subscription_groups.iter_mut().flat_map(|group| {
        let subscriptions = group.subscriptions.iter_mut().map(|it| &mut it.name);
        [&mut group.reference_name].into_iter().chain(subscriptions)
    });
    purchases.chain(of_groups).collect()
}

fn states(app: &mut App) -> Vec<&mut Option<String>> {
    let groups = app.subscription_groups.iter_mut();
    let subscriptions = groups
        .flat_map(|group| &mut group.subscriptions)
        .map(|it| &mut it.state);
    app.in_app_purchases
        .iter_mut()
        .map(|it| &mut it.state)
        .chain(subscriptions)
        .collect()
}

fn pick<T>(of: Index, mut from: Vec<T>) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(of.index(from.len())))
}

/// Takes an in-app purchase or a subscription away.
fn delete(of: Index, app: &mut App, past: &mut Past) {
    let purchases = app.in_app_purchases.len();
    if app.products() == 0 {
        return;
    }
    let index = of.index(app.products());
    if index < purchases {
        let purchase = app.in_app_purchases.remove(index);
        past.gone.push(Gone::Purchase(purchase));
    } else if let Some((group, subscription)) = take_subscription(index - purchases, app) {
        past.gone.push(Gone::Subscription(subscription, group));
    }
}

/// Takes the subscription with this place among all, with the id of its group.
fn take_subscription(mut index: usize, app: &mut App) -> Option<(String, Subscription)> {
    for group in &mut app.subscription_groups {
        if index < group.subscriptions.len() {
            return Some((group.id.clone(), group.subscriptions.remove(index)));
        }
        index -= group.subscriptions.len();
    }
    None
}

/// Puts it where it was; gives it back where there is no room.
fn returned(gone: Gone, app: &mut App) -> Option<Gone> {
    match gone {
        Gone::Purchase(purchase) if app.in_app_purchases.len() < MOST_PURCHASES => {
            app.in_app_purchases.push(purchase);
            None
        }
        Gone::Group(group) if app.subscription_groups.len() < MOST_GROUPS => {
            app.subscription_groups.push(group);
            None
        }
        Gone::Subscription(subscription, of) => {
            let has_room = |group: &&mut SubscriptionGroup| {
                group.id == of && group.subscriptions.len() < MOST_SUBSCRIPTIONS
            };
            match app.subscription_groups.iter_mut().find(has_room) {
                Some(group) => {
                    group.subscriptions.push(subscription);
                    None
                }
                None => Some(Gone::Subscription(subscription, of)),
            }
        }
        full => Some(full),
    }
}

fn move_subscription(of: Index, to: Index, app: &mut App) {
    let index = of.index(app.products() - app.in_app_purchases.len());
    let to = to.index(app.subscription_groups.len());
    if app.subscription_groups[to].subscriptions.len() < MOST_SUBSCRIPTIONS
        && let Some((_, subscription)) = take_subscription(index, app)
    {
        app.subscription_groups[to].subscriptions.push(subscription);
    }
}
