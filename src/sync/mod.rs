//! One project's run: key, fetch, diff, guard, commit, outcome.
//!
//! This is the only module that knows the store, the vault and App Store Connect. What must hold: a kind that could not be
//! listed completely is not compared, nothing but an approved plan is written, and every run that began leaves a record.

mod fetch;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use self::fetch::{Fetched, fetch};
pub use self::report::Report;
use crate::{
    asc::{self, Meter},
    catalog::{
        self, Digest, Hold, Kind, Limits, Plan,
        guard::{self, Review},
    },
    clock,
    diagnosis::Diagnosis,
    project::{Project, ProjectId},
    run::{Cost, Outcome, Run, Trigger},
    store::{self, Aftermath, Lease, Store},
    vault::Vault,
};

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
    pub cost: Cost,
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
                .map(|error| fetch::rejected_by_now(error, &key_health, finished_at)),
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

/// A hold stays as long as the kinds it is about were not looked at again.
fn still_held(before: Option<Hold>, covered: &BTreeSet<Kind>) -> Option<Hold> {
    before.filter(|hold| {
        !hold
            .removals
            .iter()
            .all(|held| covered.contains(&held.key.kind))
    })
}
