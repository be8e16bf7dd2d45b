//! Listing a project's catalog upstream, and what it means when parts of it could not be listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tracing::Instrument as _;

use super::{
    Error, confirm,
    failure::{is_accepted, weight},
    marks,
};
use crate::{
    asc::{self, Failure, Look, Session, Upstream},
    catalog::{
        self, Answers, Catalog, ChangeSet, Confirmation, Entry, Kind, Listings, Mark, Snapshot,
        Sources, StoreId, Turn,
    },
    clock,
    credential::Identity,
    diagnosis::{Code, Diagnosis},
    onboard,
    project::{App, Project, ProjectId},
    run::KeyHealth,
    store::{State, Store},
};

/// What was listed, and why the rest was not.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) snapshot: Snapshot,
    /// What the listings differ in from the catalog.
    pub(super) changes: ChangeSet,
    /// What was said of things that were not listed.
    pub(super) answers: Answers,
    /// The kinds that are listed of something else than before.
    pub(super) turns: BTreeMap<Kind, Turn>,
    /// Of what each kind was listed that is.
    pub(super) sources: Sources,
    pub(super) failures: BTreeMap<Kind, Diagnosis>,
    /// The failure that explains the rest best.
    pub(super) error: Option<Diagnosis>,
    /// How long another run is no use, where Apple said so.
    pub(super) resume_in: Option<Duration>,
    /// The listings that are as they were, and with them the catalog.
    pub(super) same: Listings,
    /// By what the others are known again.
    pub(super) marks: BTreeMap<Kind, Mark>,
    /// What it was compared with; nothing, when all is as it was.
    pub(super) local: Catalog,
    /// How long that took to load.
    pub(super) loading: Duration,
    /// A request was not sent, because the run is to stop.
    is_stopped: bool,
}

impl Fetched {
    /// A fetch that could not begin.
    pub(super) fn nothing(why: &Diagnosis) -> Self {
        Self {
            failures: Kind::ALL
                .into_iter()
                .map(|kind| (kind, why.clone()))
                .collect(),
            error: Some(why.clone()),
            ..Self::default()
        }
    }

    /// A fetch that ended with its first request.
    fn failed(error: &asc::Error, key: &Identity) -> Self {
        let mut fetched = Self::default();
        for kind in Kind::ALL {
            fetched.fail(kind, error, key);
        }
        fetched.error = fetched.failures.values().next().cloned();
        fetched
    }

    fn unless_stopped(self) -> Result<Self, Error> {
        if self.is_stopped {
            return Err(Error::Stopped);
        }
        Ok(self)
    }

    /// The kinds that were looked at completely: listed, or as they were.
    pub(super) fn looked_at(&self) -> BTreeSet<Kind> {
        let same = self.same.counts.keys();
        self.snapshot.covers().iter().chain(same).copied().collect()
    }

    /// How many entries Apple listed of a kind that was looked at completely.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let same = self.same.counts.get(&kind).copied();
        same.unwrap_or_else(|| self.snapshot.count(kind))
    }

    /// A listing that is as it was.
    fn keep(&mut self, listing: Kind, known: &Listings) {
        let Listings { marks, counts } = &mut self.same;
        marks.extend(
            known
                .marks
                .get_key_value(&listing)
                .map(|(&kind, mark)| (kind, mark.clone())),
        );
        for kind in marks::kinds_of(listing) {
            counts.extend(known.counts.get_key_value(kind));
        }
    }

    fn cover(&mut self, kind: Kind, entries: Vec<Entry>, local: &Catalog) {
        let why = if let Some(id) = without_product_id(&entries, local) {
            format!("{kind} {id} came without its product id")
        } else {
            match self.snapshot.cover(kind, entries) {
                Ok(()) => return,
                Err(not_a_listing) => not_a_listing.to_string(),
            }
        };
        let sentence = format!("App Store Connect answered unexpectedly: {why}.");
        self.failures
            .insert(kind, Diagnosis::new(Code::UpstreamUnexpected, sentence));
    }

    fn fail(&mut self, kind: Kind, error: &asc::Error, key: &Identity) {
        if matches!(error.failure, Failure::Stopped) {
            self.is_stopped = true;
            return;
        }
        self.resume_in = self.resume_in.max(error.resume_in);
        self.failures.insert(kind, error.diagnosis(key));
    }

    /// Says more of a failure, keeping where it happened.
    fn explain(&mut self, kind: Kind, why: &Diagnosis) {
        if let Some(failure) = self.failures.get_mut(&kind) {
            *failure = Diagnosis {
                endpoint: failure.endpoint.take(),
                apple_error_id: failure.apple_error_id.take(),
                ..why.clone()
            };
        }
    }

    /// How the key has fared, this fetch included.
    pub(super) fn key_health(&self, before: KeyHealth, now: clock::Instant) -> KeyHealth {
        match self.error.as_ref().map(|error| verdict(error.code)) {
            _ if !self.looked_at().is_empty() => KeyHealth::worked(now),
            None | Some(Verdict::Accepted) => KeyHealth::worked(now),
            Some(Verdict::Unknown) => before,
            Some(Verdict::Refused) => KeyHealth {
                refused_since: before.refused_since.or(Some(now)),
                refusals: before.refusals.saturating_add(1),
                ..before
            },
        }
    }
}

/// What a failure says of the key itself.
enum Verdict {
    /// Apple accepted it, and refused what was asked.
    Accepted,
    /// Apple refused it.
    Refused,
    /// Nothing.
    Unknown,
}

fn verdict(code: Code) -> Verdict {
    match code {
        Code::AgreementMissing
        | Code::RoleTooLow
        | Code::NoApps
        | Code::AppNotVisible
        | Code::AppMismatch
        | Code::GracePeriodUnreadable
        | Code::SharedKey => Verdict::Accepted,
        Code::NotAuthorized | Code::KeyRejected => Verdict::Refused,
        Code::KeyUnreadable
        | Code::KeyIncomplete
        | Code::KeyIdMismatch
        | Code::WrongKeyKind
        | Code::KeyLost
        | Code::KeySealed
        | Code::ClockSkew
        | Code::RateLimited
        | Code::UpstreamUnavailable
        | Code::UpstreamUnexpected => Verdict::Unknown,
    }
}

/// What a fetch begins with.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) project: &'a Project,
    pub(super) state: &'a State,
    /// The listings that the catalog is in line with.
    pub(super) listings: &'a Listings,
    pub(super) confirmation: Confirmation,
    /// Rises from run to run.
    pub(super) turn: i64,
}

/// Lists every kind, compares what was listed with the catalog, and asks for things that are not listed any more. The catalog is
/// loaded only if something is not as it was.
///
/// # Errors
/// [`Error::Stopped`] when a listing was not read to its end for it; when the catalog cannot be loaded.
pub(super) async fn fetch(
    session: Session,
    known: Known<'_>,
    store: &dyn Store,
) -> Result<Fetched, Error> {
    let Known {
        project,
        state,
        listings,
        confirmation,
        turn,
    } = known;
    let looked = look(&session, &project.app.id, listings, state.key_health).await;
    if let Ok(listed) = &looked
        && listed.is_same()
    {
        return Ok(Fetched {
            same: listings.clone(),
            ..Fetched::default()
        });
    }
    let (local, loading) = load(store, &project.id).await?;
    let mut fetched = match looked {
        Ok(listed) => read(&session, &project.app.id, listed, listings, &local).await?,
        Err(error) => Fetched::failed(&error, session.identity()).unless_stopped()?,
    };
    fetched.changes = catalog::diff(&local, &fetched.snapshot);
    for &kind in fetched.snapshot.covers() {
        let source = marks::source(&project.app.id, &session.identity().key_id, kind);
        // What an earlier version listed, it did not say of what.
        let before = state.listed_with.get(&kind);
        if let Some(turn) = before.and_then(|before| source.turn(before)) {
            fetched.turns.insert(kind, turn);
        }
        fetched.sources.insert(kind, source);
    }
    let is_new = |kind| fetched.turns.contains_key(&kind);
    let keys = confirmation.to_ask(&fetched.changes, &local, state.hold.as_ref(), is_new, turn);
    fetched.answers = confirm::ask(&session, keys).await;
    confirm::tell_refuted(&fetched.answers, project, &local);
    fetched.local = local;
    fetched.loading = loading;
    Ok(fetched)
}

/// The catalog, and how long it took. Nobody else writes it while the lease lasts.
pub(super) async fn load(store: &dyn Store, id: &ProjectId) -> Result<(Catalog, Duration), Error> {
    let began = tokio::time::Instant::now();
    let loaded = store.load_catalog(id);
    let local = loaded.instrument(tracing::debug_span!("load")).await?;
    Ok((local, began.elapsed()))
}

/// What each listing came to.
struct Listed {
    app: Result<Look<(App, Entry)>, asc::Error>,
    in_app_purchases: Result<Look<Vec<Entry>>, asc::Error>,
    groups: Result<Look<asc::Groups>, asc::Error>,
}

impl Listed {
    fn is_same(&self) -> bool {
        matches!(
            self,
            Self {
                app: Ok(Look::Same),
                in_app_purchases: Ok(Look::Same),
                groups: Ok(Look::Same),
            }
        )
    }
}

/// Lists every kind, each complete or not at all: at once, unless the key was refused the last time. Then the app is asked for
/// alone, and the rest when that is accepted, so that a key that is bad for good costs few requests.
///
/// # Errors
/// When nothing but the app was asked for.
async fn look(
    session: &Session,
    app_id: &str,
    known: &Listings,
    health: KeyHealth,
) -> Result<Listed, asc::Error> {
    let mark = |kind| known.marks.get(&kind);
    let app = session.look_at_app(app_id, mark(Kind::GracePeriod));
    // Everything but the app, at once.
    let rest = async {
        tokio::join!(
            session.look_at_in_app_purchases(app_id, mark(Kind::InAppPurchase)),
            session.look_at_groups(app_id, mark(Kind::SubscriptionGroup))
        )
    };
    // Nor are more requests of use that are refused unsent, while the first tells whether App Store Connect is up again.
    let is_trusted = health.refusals == 0 && session.upstream() == Upstream::Up;
    let (app, (in_app_purchases, groups)) = if is_trusted {
        tokio::join!(app, rest)
    } else {
        match app.await {
            Err(error) if !is_accepted(&error) => return Err(error),
            app => (app, rest.await),
        }
    };
    Ok(Listed {
        app,
        in_app_purchases,
        groups,
    })
}

/// What the listings say.
///
/// # Errors
/// [`Error::Stopped`] when a request was not sent for it.
async fn read(
    session: &Session,
    app_id: &str,
    listed: Listed,
    known: &Listings,
    local: &Catalog,
) -> Result<Fetched, Error> {
    let key = session.identity();
    let mut fetched = Fetched::default();
    match listed.in_app_purchases {
        Ok(Look::Same) => fetched.keep(Kind::InAppPurchase, known),
        Ok(Look::Other(entries, mark)) => {
            fetched.cover(Kind::InAppPurchase, entries, local);
            fetched
                .marks
                .extend(mark.map(|mark| (Kind::InAppPurchase, mark)));
        }
        Err(error) => fetched.fail(Kind::InAppPurchase, &error, key),
    }
    match listed.groups {
        Ok(Look::Same) => fetched.keep(Kind::SubscriptionGroup, known),
        Ok(Look::Other(
            asc::Groups {
                groups,
                subscriptions,
            },
            mark,
        )) => {
            fetched.cover(Kind::SubscriptionGroup, groups, local);
            match subscriptions {
                Ok(entries) => fetched.cover(Kind::Subscription, entries, local),
                Err(error) => fetched.fail(Kind::Subscription, &error, key),
            }
            fetched
                .marks
                .extend(mark.map(|mark| (Kind::SubscriptionGroup, mark)));
        }
        Err(error) => {
            fetched.fail(Kind::Subscription, &error, key);
            fetched.fail(Kind::SubscriptionGroup, &error, key);
        }
    }
    let alone = !fetched.looked_at().is_empty();
    let app = match listed.app {
        Ok(Look::Other((_, unset), _)) if was_set(&unset, local) => session
            .fetch_grace_period(app_id)
            .await
            .map(|set| Look::Other(set, None)),
        Ok(Look::Other((_, entry), mark)) => Ok(Look::Other(entry, mark)),
        Ok(Look::Same) => Ok(Look::Same),
        Err(error) => Err(error),
    };
    let app_is_unknown = is_not_found(&app);
    let is_refused = matches!(
        &app,
        Err(asc::Error {
            failure: Failure::NotFound | Failure::Forbidden { .. },
            ..
        })
    );
    match app {
        Ok(Look::Same) => fetched.keep(Kind::GracePeriod, known),
        Ok(Look::Other(entry, mark)) => {
            fetched.cover(Kind::GracePeriod, vec![entry], local);
            fetched
                .marks
                .extend(mark.map(|mark| (Kind::GracePeriod, mark)));
        }
        Err(error) => fetched.fail(Kind::GracePeriod, &error, key),
    }

    if alone && is_refused {
        fetched.explain(
            Kind::GracePeriod,
            &Diagnosis::of(Code::GracePeriodUnreadable),
        );
    }
    if fetched
        .failures
        .values()
        .any(|why| why.code == Code::AppNotVisible)
    {
        let why = if app_is_unknown {
            let seen = session.fetch_apps().await.ok();
            onboard::not_visible(key, app_id, seen.as_deref())
        } else {
            let sentence =
                "App Store Connect answered unexpectedly: 404 for a part of an app that it knows.";
            Diagnosis::new(Code::UpstreamUnexpected, sentence)
        };
        for kind in Kind::ALL {
            if fetched
                .failures
                .get(&kind)
                .is_some_and(|failure| failure.code == Code::AppNotVisible)
            {
                fetched.explain(kind, &why);
            }
        }
    }
    fetched.error = fetched
        .failures
        .values()
        .max_by_key(|why| weight(why.code))
        .cloned();
    fetched.unless_stopped()
}

/// Whether a grace period that was known is said to be set no more. How an app says that is not documented, and revenue is
/// attributed by it: before such a setting goes, it is asked for by itself.
fn was_set(entry: &Entry, local: &Catalog) -> bool {
    let known = local.present.get(&entry.key);
    entry.attributes.is_empty() && known.is_some_and(|known| !known.attributes.is_empty())
}

/// An id whose product id was known and did not come: Apple never takes a product id away.
fn without_product_id<'a>(entries: &'a [Entry], local: &Catalog) -> Option<&'a StoreId> {
    let is_lost = |entry: &&Entry| {
        let known = local.present.get(&entry.key);
        entry.product_id().is_none_or(str::is_empty)
            && known.is_some_and(|known| known.product_id().is_some())
    };
    entries
        .iter()
        .find(is_lost)
        .map(|entry| &entry.key.store_id)
}

fn is_not_found<T>(result: &Result<T, asc::Error>) -> bool {
    matches!(
        result,
        Err(asc::Error {
            failure: Failure::NotFound,
            ..
        })
    )
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn fetched(error: Option<Code>) -> Fetched {
        Fetched {
            error: error.map(Diagnosis::of),
            ..Fetched::default()
        }
    }

    #[test]
    fn what_a_failure_says_of_the_key() {
        let now = clock::now();
        let before = KeyHealth {
            worked_at: Some(now - TimeDelta::days(1)),
            refused_since: None,
            refusals: 2,
        };
        for &code in Code::ALL {
            let after = fetched(Some(code)).key_health(before, now);
            let expected = match code {
                Code::NotAuthorized | Code::KeyRejected => KeyHealth {
                    refused_since: Some(now),
                    refusals: 3,
                    ..before
                },
                Code::AgreementMissing
                | Code::RoleTooLow
                | Code::NoApps
                | Code::AppNotVisible
                | Code::AppMismatch
                | Code::GracePeriodUnreadable
                | Code::SharedKey => KeyHealth::worked(now),
                _ => before,
            };
            assert_eq!(after, expected, "{code}");
        }
        assert_eq!(
            fetched(None).key_health(before, now),
            KeyHealth::worked(now)
        );

        // What was listed proves the key, whatever failed beside it.
        let mut partly = fetched(Some(Code::NotAuthorized));
        partly.snapshot.cover(Kind::InAppPurchase, []).unwrap();
        assert_eq!(partly.key_health(before, now), KeyHealth::worked(now));
    }
}
