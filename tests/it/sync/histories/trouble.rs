//! What goes wrong while a catalog is listed, and at which page.

use std::fmt;

use proptest::{prelude::*, sample::Index};

use super::history::{
    Edit, MOST_GROUPS, MOST_PURCHASES, MOST_SUBSCRIPTIONS, a_counted_edit, a_move,
};
use crate::sync::{APP, App, FaultKind};

/// Something that goes wrong with a page.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) what: What,
    /// It does not pass: that page and all requests of the listing after it are hit.
    pub(super) lasts: bool,
    pub(super) at: Place,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// The first at the page, and a second at the one after it.
    Faults(&'static str, Vec<FaultKind>),
    /// The catalog changes just before the page is answered.
    Edit(Edit),
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    This(Listing, usize),
    /// Any of those that there are.
    Any(Index),
}

/// A list that a sync reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listing {
    App,
    Purchases,
    Groups,
    /// Of a group of which not all came with it.
    Subscriptions,
}

/// What can go wrong with a page, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) what: &'static str,
    pub(super) listing: Listing,
    pub(super) page: usize,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?} {}", self.what, self.listing, self.page)
    }
}

/// A page of a listing as it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) listing: Listing,
    /// The end of the listing's path.
    pub(super) path: String,
    pub(super) page: usize,
}

const EDIT: &str = "edit";
const MOVED: &str = "moved row";
const REPEATED: &str = "repeated row";
/// One came before the page and one went after it: the number of rows is right.
const EXCHANGED: &str = "exchanged row";
const SKIPPED: &str = "skipped row";
const REORDERED: &str = "reordered page";
const UNINCLUDED: &str = "dropped include";
const UNCOUNTED: &str = "no total";
const UNDERCOUNTED: &str = "total too low";
const OVERCOUNTED: &str = "total too high";

fn faults() -> Vec<What> {
    let one = |name, kind| What::Faults(name, vec![kind]);
    vec![
        one("500", FaultKind::status(500)),
        one("503", FaultKind::status(503)),
        one("403", FaultKind::status(403)),
        one("404", FaultKind::status(404)),
        one("429", FaultKind::RateLimited { retry_after: None }),
        one("401", FaultKind::Unauthorized),
        one("reset", FaultKind::Reset),
        one("cut body", FaultKind::CutBody),
        one("HTML", FaultKind::Html200),
        one(REPEATED, FaultKind::RepeatRow),
        one(SKIPPED, FaultKind::SkipRow),
        What::Faults(EXCHANGED, vec![FaultKind::RepeatRow, FaultKind::SkipRow]),
        one(REORDERED, FaultKind::ReorderedPage),
        one(UNINCLUDED, FaultKind::DropIncluded),
        one(UNCOUNTED, FaultKind::NoTotal),
        one(UNDERCOUNTED, FaultKind::TotalOff(-1)),
        one(OVERCOUNTED, FaultKind::TotalOff(1)),
    ]
}

/// Everything that can go wrong, at every page that a listing can have.
pub(super) fn pairs() -> Vec<Pair> {
    let pages = [
        (Listing::App, 1),
        (Listing::Purchases, MOST_PURCHASES.div_ceil(2)),
        (Listing::Groups, MOST_GROUPS.div_ceil(2)),
        (Listing::Subscriptions, MOST_SUBSCRIPTIONS.div_ceil(2)),
    ];
    let names: Vec<&'static str> = faults()
        .into_iter()
        .map(|what| what.name())
        .chain([EDIT, MOVED])
        .collect();
    let mut pairs = Vec::new();
    for (listing, count) in pages {
        for page in 0..count {
            let can_be = |name: &&str| match *name {
                REPEATED | SKIPPED => page + 1 < count,
                EXCHANGED => page + 2 < count,
                REORDERED | UNCOUNTED | UNDERCOUNTED | OVERCOUNTED | MOVED => {
                    listing != Listing::App
                }
                UNINCLUDED => matches!(listing, Listing::App | Listing::Groups),
                _ => true,
            };
            let here = names.iter().copied().filter(can_be);
            pairs.extend(here.map(|what| Pair {
                what,
                listing,
                page,
            }));
        }
    }
    pairs
}

/// Just this, once or lasting.
pub(super) fn just(pair: &Pair) -> impl Strategy<Value = Trouble> + use<> {
    let faults = faults().into_iter().find(|it| it.name() == pair.what);
    let what = match faults {
        Some(faults) => Just(faults).boxed(),
        None if pair.what == MOVED => a_move().prop_map(What::Edit).boxed(),
        None => a_counted_edit().prop_map(What::Edit).boxed(),
    };
    let place = Place::This(pair.listing, pair.page);
    (what, any::<bool>()).prop_map(move |(what, lasts)| Trouble {
        what,
        lasts,
        at: place.clone(),
    })
}

/// Anything, at any page that there is.
pub(super) fn any_of_all() -> impl Strategy<Value = Trouble> {
    let what = prop_oneof![
        9 => prop::sample::select(faults()),
        3 => a_counted_edit().prop_map(What::Edit),
        1 => a_move().prop_map(What::Edit),
    ];
    (what, any::<bool>(), any::<Index>()).prop_map(|(what, lasts, at)| Trouble {
        what,
        lasts,
        at: Place::Any(at),
    })
}

impl What {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Faults(name, _) => name,
            Self::Edit(Edit::Rename(..) | Edit::Move(..)) => MOVED,
            Self::Edit(_) => EDIT,
        }
    }
}

impl Trouble {
    /// The page that it hits, if there is one.
    pub(super) fn spot(&self, app: &App, rows: usize) -> Option<Spot> {
        let mut spots = spots(app, rows);
        match &self.at {
            Place::Any(index) => Some(spots.swap_remove(index.index(spots.len()))),
            Place::This(listing, page) => spots
                .into_iter()
                .find(|spot| (spot.listing, spot.page) == (*listing, *page)),
        }
    }
}

/// All pages that a sync asks for, with this many rows on each.
fn spots(app: &App, rows: usize) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut pages = |listing, path: String, of: usize| {
        spots.extend((0..of.div_ceil(rows).max(1)).map(|page| Spot {
            listing,
            path: path.clone(),
            page,
        }));
    };
    pages(Listing::App, format!("/apps/{APP}"), 1);
    pages(
        Listing::Purchases,
        "/inAppPurchasesV2".to_owned(),
        app.in_app_purchases.len(),
    );
    pages(
        Listing::Groups,
        format!("/apps/{APP}/subscriptionGroups"),
        app.subscription_groups.len(),
    );
    for group in &app.subscription_groups {
        if group.subscriptions.len() > rows {
            let path = format!("/subscriptionGroups/{}/subscriptions", group.id);
            pages(Listing::Subscriptions, path, group.subscriptions.len());
        }
    }
    spots
}
