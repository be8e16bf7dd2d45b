//! Listing a project's catalog upstream, and what it means when parts of it could not be listed.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::{
    asc::{self, Failure, Session},
    catalog::{self, Kind, Snapshot},
    clock,
    credential::Credential,
    diagnosis::{Code, Diagnosis},
    onboard,
    run::KeyHealth,
};

/// A key that worked counts as rejected after this many refused runs in a row..
const REFUSALS_TO_REJECT: u32 = 3;
/// ..over at least this long: one 401 condemns nobody.
const TIME_TO_REJECT: TimeDelta = TimeDelta::minutes(10);

/// What was listed, and why the rest was not.
pub(super) struct Fetched {
    pub(super) snapshot: Snapshot,
    pub(super) failures: BTreeMap<Kind, Diagnosis>,
    pub(super) error: Option<Diagnosis>,
}

impl Fetched {
    /// A fetch that could not begin.
    pub(super) fn nothing(why: &Diagnosis) -> Self {
        Self {
            snapshot: Snapshot::new(),
            failures: Kind::ALL
                .into_iter()
                .map(|kind| (kind, why.clone()))
                .collect(),
            error: Some(why.clone()),
        }
    }

    fn cover(
        &mut self,
        kind: Kind,
        listed: Result<Vec<catalog::Entry>, asc::Error>,
        key: &Credential,
    ) {
        let why = match listed {
            Ok(entries) => match self.snapshot.cover(kind, entries) {
                Ok(()) => return,
                Err(not_a_listing) => Diagnosis::new(
                    Code::UpstreamUnexpected,
                    format!("App Store Connect answered unexpectedly: {not_a_listing}."),
                ),
            },
            Err(error) => error.diagnosis(key),
        };
        self.failures.insert(kind, why);
    }

    /// How the key has fared, this fetch included.
    pub(super) fn key_health(&self, before: KeyHealth, now: clock::Instant) -> KeyHealth {
        let refused = self
            .error
            .as_ref()
            .is_some_and(|error| error.code == Code::NotAuthorized);
        let unknown = self.error.as_ref().is_some_and(|error| {
            matches!(
                error.code,
                Code::ClockSkew
                    | Code::UpstreamUnavailable
                    | Code::KeySealed
                    | Code::UpstreamUnexpected
            )
        });
        if !self.snapshot.covers().is_empty() {
            KeyHealth {
                worked_at: Some(now),
                refused_since: None,
                refusals: 0,
            }
        } else if refused {
            KeyHealth {
                refused_since: before.refused_since.or(Some(now)),
                refusals: before.refusals.saturating_add(1),
                ..before
            }
        } else if unknown {
            before
        } else {
            // Refused for what it may do, not for what it is: the key itself was accepted.
            KeyHealth {
                worked_at: Some(now),
                refused_since: None,
                refusals: 0,
            }
        }
    }
}

/// Lists every kind at once, each complete or not at all.
pub(super) async fn fetch(session: Session, app_id: &str) -> Fetched {
    let (app, in_app_purchases, groups) = tokio::join!(
        session.fetch_app(app_id),
        session.fetch_in_app_purchases(app_id),
        session.fetch_groups(app_id)
    );
    let key = session.credential();
    let invisible = is_not_found(&app) && is_not_found(&in_app_purchases) && is_not_found(&groups);
    let mut fetched = Fetched {
        snapshot: Snapshot::new(),
        failures: BTreeMap::new(),
        error: None,
    };

    fetched.cover(Kind::InAppPurchase, in_app_purchases, key);
    match groups {
        Ok(asc::Groups {
            groups,
            subscriptions,
        }) => {
            fetched.cover(Kind::SubscriptionGroup, Ok(groups), key);
            fetched.cover(Kind::Subscription, subscriptions, key);
        }
        Err(error) => {
            fetched
                .failures
                .insert(Kind::Subscription, error.diagnosis(key));
            fetched.cover(Kind::SubscriptionGroup, Err(error), key);
        }
    }
    let unreadable_alone = !fetched.snapshot.covers().is_empty()
        && matches!(
            &app,
            Err(asc::Error {
                failure: Failure::NotFound | Failure::Forbidden { .. },
                ..
            })
        );
    fetched.cover(
        Kind::GracePeriod,
        app.map(|(_, grace_period)| vec![grace_period]),
        key,
    );
    if unreadable_alone && let Some(why) = fetched.failures.get_mut(&Kind::GracePeriod) {
        *why = Diagnosis {
            endpoint: why.endpoint.take(),
            apple_error_id: why.apple_error_id.take(),
            ..Diagnosis::of(Code::GracePeriodUnreadable)
        };
    }
    if invisible {
        let seen = session.fetch_apps().await.unwrap_or_default();
        let why = onboard::not_visible(key, app_id, &seen);
        fetched.failures.values_mut().for_each(|failure| {
            *failure = Diagnosis {
                endpoint: failure.endpoint.take(),
                apple_error_id: failure.apple_error_id.take(),
                ..why.clone()
            };
        });
    }
    fetched.error = fetched
        .failures
        .values()
        .max_by_key(|why| weight(why.code))
        .cloned();
    fetched
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

/// Which of several failures explains a run best: what is wrong with the key before what is wrong with one read.
fn weight(code: Code) -> u8 {
    match code {
        Code::KeyUnreadable
        | Code::KeyIncomplete
        | Code::KeyIdMismatch
        | Code::WrongKeyKind
        | Code::KeyLost
        | Code::KeySealed => 9,
        Code::ClockSkew => 8,
        Code::NotAuthorized | Code::KeyRejected => 7,
        Code::AgreementMissing => 6,
        Code::NoApps | Code::AppNotVisible | Code::AppMismatch => 5,
        Code::RoleTooLow => 4,
        Code::RateLimited => 3,
        Code::UpstreamUnexpected => 2,
        Code::UpstreamUnavailable => 1,
        Code::GracePeriodUnreadable | Code::SharedKey => 0,
    }
}

/// A refusal of a key that worked, several times over minutes, is more than a passing fault.
pub(super) fn rejected_by_now(
    error: Diagnosis,
    health: &KeyHealth,
    now: clock::Instant,
) -> Diagnosis {
    match (error.code, health.worked_at, health.refused_since) {
        (Code::NotAuthorized, Some(worked_at), Some(since))
            if health.refusals >= REFUSALS_TO_REJECT && now - since >= TIME_TO_REJECT =>
        {
            Diagnosis {
                endpoint: error.endpoint,
                apple_error_id: error.apple_error_id,
                ..Diagnosis::new(
                    Code::KeyRejected,
                    format!(
                        "The key worked until {} and is refused since {} ({} times in a row).",
                        worked_at.format("%Y-%m-%d %H:%M UTC"),
                        since.format("%Y-%m-%d %H:%M UTC"),
                        health.refusals
                    ),
                )
            }
        }
        _ => error,
    }
}
