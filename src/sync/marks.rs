//! Knowing listings again: which marks of the last run this one may go by, and which it leaves.
//!
//! What must hold: a run goes by a mark only if the catalog is as the marked listing said, and nobody had the project in between.

use super::fetch::Fetched;
use crate::{
    asc,
    catalog::{Catalog, ChangeSet, Kind, Listings, Marks, Plan, Source},
    clock::Instant,
    run::Trigger,
    store::Claim,
};

/// Another version may read more out of the same bytes.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The kinds that are in a listing, by the one that it is named for.
pub(super) fn kinds_of(listing: Kind) -> &'static [Kind] {
    match listing {
        Kind::InAppPurchase => &[Kind::InAppPurchase],
        Kind::SubscriptionGroup | Kind::Subscription => {
            &[Kind::SubscriptionGroup, Kind::Subscription]
        }
        Kind::GracePeriod => &[Kind::GracePeriod],
    }
}

/// What the run may go by. Who asks by hand wants everything compared.
pub(super) fn usable(claim: &Claim, trigger: Trigger, now: Instant) -> Listings {
    let state = &claim.state;
    let is_same_source = |kind: &Kind| {
        let source = source(&claim.project.app.id, &claim.key.key_id, *kind);
        state.listed_with.get(kind) == Some(&source)
    };
    let marks = state.marks.as_ref();
    marks
        .filter(|_| {
            trigger != Trigger::Command && state.hold.is_none() && state.key_health.refusals == 0
        })
        .and_then(|marks| marks.usable(claim.lease.epoch, VERSION, now))
        .filter(|listings| listings.counts.keys().all(is_same_source))
        .cloned()
        .unwrap_or_default()
}

/// Of what a listing is.
pub(super) fn source(app_id: &str, key_id: &str, kind: Kind) -> Source {
    Source {
        app: app_id.to_owned(),
        key: key_id.to_owned(),
        read: asc::listing_path(kind).to_owned(),
    }
}

/// What the next run may go by: what was as it was, and what was listed and is now in the catalog as it was listed.
pub(super) fn after(
    claim: &Claim,
    fetched: &Fetched,
    plan: &Plan,
    is_held: bool,
    now: Instant,
) -> Option<Marks> {
    if is_held {
        return None;
    }
    let mut listings = fetched.same.clone();
    for (&listing, mark) in &fetched.marks {
        let kinds = kinds_of(listing);
        if kinds.iter().all(|&kind| is_settled(kind, fetched, plan)) {
            listings.marks.insert(listing, mark.clone());
            for &kind in kinds {
                listings.counts.insert(kind, fetched.snapshot.count(kind));
            }
        }
    }
    let before = claim.state.marks.as_ref();
    let compared_at = before
        .filter(|_| !fetched.same.marks.is_empty())
        .map_or(now, |marks| marks.compared_at);
    (!listings.marks.is_empty()).then(|| Marks {
        epoch: claim.lease.epoch,
        version: VERSION.to_owned(),
        compared_at,
        listings,
    })
}

/// Whether the catalog is as a kind was listed, once the plan is carried out.
fn is_settled(kind: Kind, fetched: &Fetched, plan: &Plan) -> bool {
    let of_kind = |changes: &ChangeSet| changes.iter().filter(|it| it.key().kind == kind).count();
    let is_absent = |local: &Catalog| plan.absent_after(local).keys().any(|key| key.kind == kind);
    fetched.snapshot.covers().contains(&kind)
        && of_kind(&fetched.changes) == of_kind(plan.changes())
        && !is_absent(&fetched.local)
}
