//! One project's run: key, fetch, diff, guard, commit, outcome.
//!
//! This is the only module that knows the store, the vault and App Store Connect. What must hold: a kind that could not be
//! listed completely is not compared, nothing but an approved plan is written, and every run that began leaves a record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use uuid::Uuid;

use crate::{
    asc::{self, Failure, Meter, Session},
    catalog::{
        self, ChangeSet, Digest, Hold, Kind, Limits, Plan, Snapshot,
        guard::{self, Review},
    },
    clock,
    credential::Credential,
    diagnosis::{Code, Diagnosis},
    onboard,
    project::{Project, ProjectId},
    run::{KeyHealth, Outcome, Run, Trigger},
    store::{self, Aftermath, Committed, Lease, Store},
    vault::Vault,
};

/// A key that worked counts as rejected after this many refused runs in a row..
const REFUSALS_TO_REJECT: u32 = 3;
/// ..over at least this long: one 401 condemns nobody.
const TIME_TO_REJECT: TimeDelta = TimeDelta::minutes(10);

/// All that a run needs.
#[derive(Clone)]
pub struct Engine {
    /// Where projects and catalogs are.
    pub store: Arc<dyn Store>,
    /// What opens the keys.
    pub vault: Arc<Vault>,
    /// App Store Connect.
    pub client: asc::Client,
    /// When removals are held.
    pub limits: Limits,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// How often it is renewed.
    pub heartbeat: Duration,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its record.
    pub run: Run,
    /// The lease epoch under which it wrote.
    pub epoch: i64,
    /// What was written.
    pub plan: Plan,
    /// The catalog's revision, and how many rows it took.
    pub committed: Committed,
}

/// What a sync would do.
#[derive(Clone, Debug)]
pub struct Preview {
    /// What it would write.
    pub plan: Plan,
    /// What it would hold back.
    pub hold: Option<Hold>,
    /// Why kinds could not be compared.
    pub failures: BTreeMap<Kind, Diagnosis>,
    /// The failure that explains the rest best.
    pub error: Option<Diagnosis>,
    /// What it cost upstream.
    pub cost: crate::run::Cost,
}

/// Why a run did not happen or left no record. What Apple answers is not among it: that is in the record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The project is paused.
    #[error("project '{0}' is paused; 'catalog-sync project resume {0}' resumes it")]
    Paused(ProjectId),
    /// The database refused, or the lease was lost.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Engine {
    /// Syncs one project and records the run. `approved` releases the hold with just that digest.
    ///
    /// Dropping the future leaves nothing half written; the lease then lasts until it runs out.
    ///
    /// # Errors
    /// When the project is unknown, paused or in another worker's hands, or the database fails: then nothing was written.
    pub async fn run(
        &self,
        id: &ProjectId,
        trigger: Trigger,
        approved: Option<&Digest>,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        let project = self.store.load_project(id).await?;
        if project.paused_at.is_some() {
            return Err(Error::Paused(project.id));
        }
        let lease = self.store.acquire(id, self.lease, clock::now()).await?;
        let worked = self.work(&project, &lease, trigger, approved, meter).await;
        if worked.is_err() {
            // The first error tells more than one of giving back; the lease runs out by itself.
            if let Err(error) = self.store.release(&lease).await {
                tracing::debug!(event = "lease.not_released", project.id = %id, %error, "the lease runs out by itself");
            }
        }
        worked
    }

    /// What a sync would change, without changing anything.
    ///
    /// # Errors
    /// When the project is unknown or the database fails.
    pub async fn preview(&self, id: &ProjectId, meter: &Arc<Meter>) -> Result<Preview, Error> {
        let project = self.store.load_project(id).await?;
        let fetched = self.fetch(&project, meter).await?;
        let local = self.store.load_catalog(id).await?;
        let Review { plan, hold } = guard::review(
            catalog::diff(&local, &fetched.snapshot),
            &local,
            &self.limits,
            None,
        );
        Ok(Preview {
            plan,
            hold,
            failures: fetched.failures,
            error: fetched.error,
            cost: meter.cost(),
        })
    }

    async fn work(
        &self,
        project: &Project,
        lease: &Lease,
        trigger: Trigger,
        approved: Option<&Digest>,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        let started_at = clock::now();
        let id = &project.id;
        let state = self.store.load_state(id).await?;
        let fetched = self
            .while_beating(lease, self.fetch(project, meter))
            .await?;

        let local = self.store.load_catalog(id).await?;
        let changes = catalog::diff(&local, &fetched.snapshot);
        let Review { plan, hold } = guard::review(changes, &local, &self.limits, approved);

        let finished_at = clock::now();
        let key_health = fetched.key_health(state.key_health, finished_at);
        let covered = fetched.snapshot.covers().clone();
        let run = Run {
            id: Uuid::now_v7(),
            trigger,
            started_at,
            finished_at,
            outcome: match (&hold, covered.len()) {
                (_, 0) => Outcome::Failed,
                (_, kinds) if kinds < Kind::ALL.len() => Outcome::Partial,
                (Some(_), _) => Outcome::Held,
                (None, _) => Outcome::Succeeded,
            },
            listed: covered
                .iter()
                .map(|&kind| (kind, fetched.snapshot.count(kind)))
                .collect(),
            error: fetched
                .error
                .map(|error| rejected_by_now(error, &key_health, finished_at)),
            failures: fetched.failures,
            counts: plan.changes().counts(),
            hold: hold.clone(),
            cost: meter.cost(),
            covered,
        };
        let aftermath = Aftermath {
            key_health,
            hold: hold.or_else(|| still_held(state.hold, &run.covered)),
        };
        let committed = self.store.commit(lease, &plan, &run, &aftermath).await?;
        let report = Report {
            run,
            epoch: lease.epoch,
            plan,
            committed,
        };
        report.log(id);
        Ok(report)
    }

    /// Does the work and renews the lease all the while; stops it when the lease is lost.
    async fn while_beating<T>(
        &self,
        lease: &Lease,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let beat = async {
            let mut trusted_until = tokio::time::Instant::now() + self.lease;
            loop {
                tokio::time::sleep(self.heartbeat).await;
                let attempted_at = tokio::time::Instant::now();
                match self.store.renew(lease, self.lease, clock::now()).await {
                    Ok(_) => trusted_until = attempted_at + self.lease,
                    Err(error @ store::Error::LeaseLost { .. }) => return error,
                    Err(error) if tokio::time::Instant::now() >= trusted_until => return error,
                    Err(error) => {
                        tracing::warn!(event = "lease.not_renewed", project.id = %lease.project, %error, "trying again");
                    }
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            lost = beat => Err(lost.into()),
        }
    }

    /// Unseals the project's key and lists what it sees. What fails upstream is part of the result.
    async fn fetch(&self, project: &Project, meter: &Arc<Meter>) -> Result<Fetched, Error> {
        let sealed = self.store.load_key(&project.id).await?;
        match self.vault.unseal(&project.id, &sealed) {
            Ok(credential) => Ok(fetch(
                self.client.session(credential, Arc::clone(meter)),
                &project.app.id,
            )
            .await),
            Err(error) => Ok(Fetched::nothing(&Diagnosis::from(&error))),
        }
    }
}

/// What was listed, and why the rest was not.
struct Fetched {
    snapshot: Snapshot,
    failures: BTreeMap<Kind, Diagnosis>,
    error: Option<Diagnosis>,
}

impl Fetched {
    fn nothing(why: &Diagnosis) -> Self {
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

    fn key_health(&self, before: KeyHealth, now: clock::Instant) -> KeyHealth {
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
async fn fetch(session: Session, app_id: &str) -> Fetched {
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
fn rejected_by_now(error: Diagnosis, health: &KeyHealth, now: clock::Instant) -> Diagnosis {
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

/// A hold stays as long as the kinds it is about were not looked at again.
fn still_held(before: Option<Hold>, covered: &BTreeSet<Kind>) -> Option<Hold> {
    before.filter(|hold| {
        !hold
            .removals
            .iter()
            .all(|held| covered.contains(&held.key.kind))
    })
}

impl Report {
    /// The one line that tells what this run did.
    fn log(&self, id: &ProjectId) {
        let Self {
            run,
            epoch,
            plan,
            committed,
        } = self;
        log_unforeseen(id, plan.changes());
        let total = run.counts.total();
        let held = run.hold.as_ref().map_or(0, |hold| hold.removals.len());
        if let Some(hold) = &run.hold {
            tracing::error!(
                event = "removals.held",
                project.id = %id,
                run.id = %run.id,
                hold.digest = %hold.digest,
                held,
                reason = %hold,
                "removals are held; 'catalog-sync approve {id} {}' lets them through",
                hold.digest
            );
        }
        macro_rules! closing {
            ($level:ident) => {
                tracing::$level!(
                    event = "sync.finished",
                    project.id = %id,
                    run.id = %run.id,
                    trigger.kind = %run.trigger,
                    outcome = %run.outcome,
                    error.code = run.error.as_ref().map(|error| error.code.as_str()),
                    error.sentence = run.error.as_ref().map(|error| error.sentence.as_str()),
                    error.advice = run.error.as_ref().map(|error| error.advice.as_str()),
                    added = total.added,
                    updated = total.updated,
                    removed = total.removed,
                    restored = total.restored,
                    held,
                    requests = run.cost.requests,
                    retries = run.cost.retries,
                    throttled = run.cost.throttled,
                    bytes = run.cost.bytes,
                    budget_left = run.cost.budget_left,
                    rows_written = committed.rows,
                    revision = committed.revision,
                    epoch,
                    duration_ms = (run.finished_at - run.started_at).num_milliseconds(),
                    "sync finished"
                )
            };
        }
        match run.outcome {
            Outcome::Succeeded | Outcome::Held => closing!(info),
            Outcome::Partial | Outcome::Failed => closing!(warn),
        }
    }
}

/// Tells of what Apple sent that this version does not know. It is kept, and told when it first comes.
fn log_unforeseen(id: &ProjectId, changes: &ChangeSet) {
    let mut told = BTreeSet::new();
    for change in changes {
        let Some(after) = change.after() else {
            continue;
        };
        for (attribute, value) in catalog::unforeseen(after) {
            let before = change
                .before()
                .and_then(|before| before.attributes.get(attribute));
            if before != Some(value) && told.insert((after.key.kind, attribute, value.to_string()))
            {
                tracing::warn!(
                    event = "value.unforeseen",
                    project.id = %id,
                    kind = %after.key.kind,
                    attribute,
                    %value,
                    "Apple sent a value that this version does not know; it is kept as it is"
                );
            }
        }
    }
}
