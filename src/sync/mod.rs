//! One project's run: key, fetch, diff, guard, commit, outcome.
//!
//! This is the only module that knows the store, the vault and App Store Connect. What must hold: a kind that could not be
//! listed completely is not compared, nothing but an approved plan is written, and every run that began leaves a record.

mod confirm;
mod failure;
mod fetch;
mod marks;
mod report;
mod retry;
mod signer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tracing::{
    Instrument as _,
    field::{Empty, display},
};
use uuid::Uuid;

use self::fetch::{Fetched, Known, fetch};
pub use self::{
    report::{Report, Unrecorded, Waiting},
    signer::signer,
};
use crate::{
    asc::{self, Meter, Terms},
    budget::Reserve,
    catalog::{
        Catalog, Confirmation, Digest, Entry, Hold, Kind, Limits, Listings, Plan, Standing,
        guard::{self, Evidence, Review},
    },
    clock,
    diagnosis::Diagnosis,
    metrics::Metrics,
    project::{Project, ProjectId, SealedKey},
    run::{Cost, HoldEnd, Outcome, Run, Timings, Trigger},
    store::{self, Aftermath, Claim, HoldTurn, Lease, Spent, State, Store},
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
    /// Where runs are counted.
    pub metrics: Metrics,
    /// When removals are held.
    pub limits: Limits,
    /// When the absence of a thing is believed.
    pub confirmation: Confirmation,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// How often it is renewed.
    pub heartbeat: Duration,
    /// Ends runs at their next request, and gives their leases back; what was listed completely is still written.
    pub stop: CancellationToken,
    /// Ends runs at once, before they write, and gives their leases back.
    pub cut: CancellationToken,
}

/// What a sync would do.
#[derive(Clone, Debug)]
pub struct Preview {
    /// What it would write.
    pub plan: Plan,
    /// What it would hold back.
    pub hold: Option<Hold>,
    /// Whether that is what stands already, and can be approved.
    pub stands: bool,
    /// What is not listed and would stay, being neither held nor kept.
    pub waiting: Vec<Waiting>,
    /// Why kinds could not be compared.
    pub failures: BTreeMap<Kind, Diagnosis>,
    /// The failure that explains the rest best.
    pub error: Option<Diagnosis>,
    /// What it cost upstream.
    pub cost: Cost,
}

/// Why a run did not happen or left no record: the database refused, the project is paused or in other hands, or its lease was
/// lost. What Apple answers is not among it: that is in the record.
pub type Error = store::Error;

/// How a run came about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    trigger: Trigger,
    approved: Option<&'a Digest>,
    /// How far the database's clock is ahead of this machine's, where that matters.
    ahead: TimeDelta,
}

/// Times what is done one after the other.
struct Lap(tokio::time::Instant);

impl Lap {
    /// How long it took since the last one ended.
    fn end(&mut self) -> Duration {
        let now = tokio::time::Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

/// A worker stops trusting its lease when this part of it, a tenth, is left.
const MARGIN: u32 = 10;

impl Engine {
    /// Syncs one project and records the run. `approved` releases the hold with just that digest.
    ///
    /// Dropping the future leaves nothing half written; the lease then lasts until it runs out.
    ///
    /// # Errors
    /// When the project is unknown, paused or in another worker's hands: then nothing was written. When the database fails,
    /// everything was written or nothing: an answer to the commit can be lost on its way.
    pub async fn run(
        &self,
        id: &ProjectId,
        trigger: Trigger,
        approved: Option<&Digest>,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        // A daemon claims nothing while its clock differs from the database's; who syncs by hand goes by that one.
        let now = clock::now();
        let ahead = self.store.look(now).await?.clock.map(|there| there - now);
        // Local trust begins before the claim: the lease cannot end earlier than it seems to.
        let claimed_at = tokio::time::Instant::now();
        let claim = self.store.acquire(id, self.lease, clock::now()).await?;
        let asked = Asked {
            trigger,
            approved,
            ahead: ahead.unwrap_or_default(),
        };
        self.finish(&claim, claimed_at, asked, meter).await
    }

    /// Syncs a project that was claimed, at the earliest at `claimed_at`, and records the run; [`Engine::run`] with the claim done.
    ///
    /// # Errors
    /// As there. The lease is given back where that is possible.
    pub async fn carry_out(
        &self,
        claim: &Claim,
        claimed_at: tokio::time::Instant,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        if let Some(request) = &claim.request {
            let waited = (clock::now() - request.ready_at).to_std();
            self.metrics
                .queued(request.trigger, waited.unwrap_or_default());
        }
        let asked = Asked {
            trigger: claim.trigger(),
            approved: None,
            ahead: TimeDelta::zero(),
        };
        self.finish(claim, claimed_at, asked, meter).await
    }

    async fn finish(
        &self,
        claim: &Claim,
        claimed_at: tokio::time::Instant,
        asked: Asked<'_>,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        let _under_way = self.metrics.run_begins();
        let span = tracing::debug_span!(
            "sync",
            project.id = %claim.project.id,
            trigger.kind = %asked.trigger,
            epoch = claim.lease.epoch,
            run.id = Empty,
            outcome = Empty,
            error.code = Empty,
            otel.status_code = Empty
        );
        let work = self.work(claim, claimed_at, asked, meter);
        let worked = work.instrument(span.clone()).await;
        let (outcome, code) = match &worked {
            Ok(Report { run, timings, .. }) => {
                self.metrics.run_recorded(run, *timings, meter.budget());
                span.record("run.id", display(run.id));
                let code = run.error.as_ref().map(|error| error.code.as_str());
                (Some(run.outcome.as_str()), code)
            }
            Err(error) => {
                self.metrics.run_unrecorded(error.code());
                (None, Some(error.code()))
            }
        };
        span.record("outcome", outcome);
        span.record("error.code", code);
        span.record("otel.status_code", code.map(|_| "ERROR"));
        if let Err(error) = &worked {
            // The first error tells more than one of giving back; the lease runs out by itself.
            let given_back = match error {
                Error::Stopped | Error::LeaseLost { .. } => self.store.release(&claim.lease).await,
                // At once it would only fail again, and spend its key's budget each time.
                _ => self.postpone(claim, meter).await,
            };
            if let Err(error) = given_back {
                tracing::debug!(event = "lease.not_released", project.id = %claim.project.id, error.sentence = %error, "the lease runs out by itself");
            }
        }
        worked
    }

    async fn postpone(&self, claim: &Claim, meter: &Meter) -> Result<(), Error> {
        let now = clock::now();
        let until = retry::unrecorded_retry_at(claim.state.retries, now);
        let spent = Spent {
            requests: meter.cost().requests,
            budget: meter.budget(),
        };
        self.store.postpone(&claim.lease, until, &spent, now).await
    }

    /// What a sync would change, without changing anything.
    ///
    /// # Errors
    /// When the project is unknown or the database fails.
    pub async fn preview(&self, id: &ProjectId, meter: &Arc<Meter>) -> Result<Preview, Error> {
        let project = self.store.load_project(id).await?;
        let key = self.store.load_key(id).await?;
        let state = self.store.load_state(id).await?;
        let known = Known {
            project: &project,
            state: &state,
            listings: &Listings::default(),
            confirmation: self.confirmation,
            turn: 0,
        };
        let fetched = self.fetch(&key, known, Reserve::OnDemand, meter).await?;
        let standing = Standing::of(state.hold.as_ref(), None);
        let now = clock::now();
        let review = self.review(&project, &fetched, &state, standing, now);
        let held_before = state.hold.as_ref().map(|hold| hold.digest.clone());
        let hold = Hold::after(state.hold, review.hold, &fetched.looked_at());
        Ok(Preview {
            stands: hold.as_ref().map(|hold| &hold.digest) == held_before.as_ref(),
            waiting: waiting(&review.plan, hold.as_ref(), &fetched.local),
            plan: review.plan,
            hold,
            failures: fetched.failures,
            error: fetched.error,
            cost: meter.cost(),
        })
    }

    /// Decides that what is held under this digest stays in the catalog though it is gone, until it is listed again. None when nothing
    /// is held under it.
    ///
    /// # Errors
    /// As of [`Engine::run`].
    pub async fn discard(&self, id: &ProjectId, digest: &Digest) -> Result<Option<Hold>, Error> {
        let lease = self
            .store
            .acquire(id, self.lease, clock::now())
            .await?
            .lease;
        let discarded = self.store.discard(&lease, digest, clock::now()).await?;
        if let Some(hold) = &discarded {
            tracing::info!(
                event = "removals.discarded",
                project.id = %id,
                hold.digest = %digest,
                held = hold.removals.len(),
                "what was held stays in the catalog"
            );
        }
        Ok(discarded)
    }

    /// Takes back the discarding of the hold with this digest, so that it can be approved. False when there is none, or something
    /// else is held.
    ///
    /// # Errors
    /// As of [`Engine::run`].
    pub async fn reopen(&self, id: &ProjectId, digest: &Digest) -> Result<bool, Error> {
        let lease = self
            .store
            .acquire(id, self.lease, clock::now())
            .await?
            .lease;
        self.store.reopen(&lease, digest).await
    }

    #[expect(clippy::too_many_lines, reason = "one run, from top to bottom")]
    async fn work(
        &self,
        claim: &Claim,
        claimed_at: tokio::time::Instant,
        asked: Asked<'_>,
        meter: &Arc<Meter>,
    ) -> Result<Report, Error> {
        let Asked {
            trigger,
            approved,
            ahead,
        } = asked;
        let Claim {
            lease,
            project,
            key,
            state,
            request,
            is_last_chance: _,
        } = claim;
        let started_at = clock::now();
        let began = tokio::time::Instant::now();
        let mut lap = Lap(began);
        let known = Known {
            project,
            state,
            listings: &marks::usable(claim, trigger, started_at),
            confirmation: self.confirmation,
            turn: lease.epoch,
        };
        let fetching = self.fetch(key, known, reserve_of(trigger), meter);
        let fetching = self.while_beating(lease, claimed_at, fetching);
        let fetched = fetching.instrument(tracing::debug_span!("fetch")).await??;
        let loading = fetched.loading;
        let upstream = lap.end().saturating_sub(loading);
        let standing = Standing::of(state.hold.as_ref(), approved);
        let finished_at = clock::now();
        let Review {
            plan,
            hold,
            is_approved,
        } = tracing::debug_span!("review").in_scope(|| {
            let now = finished_at + ahead;
            self.review(project, &fetched, state, standing, now)
        });

        let key_health = fetched.key_health(state.key_health, finished_at);
        let covered = fetched.looked_at();
        let hold = Hold::after(state.hold.clone(), hold, &covered);
        let marks = marks::after(claim, &fetched, &plan, hold.is_some(), finished_at);
        let run = Run {
            id: Uuid::now_v7(),
            trigger,
            requested_at: request.as_ref().map(|request| request.requested_at),
            slot_at: request.as_ref().and_then(|request| request.slot_at),
            started_at,
            finished_at,
            outcome: outcome_of(hold.as_ref(), covered.len()),
            listed: covered
                .iter()
                .map(|&kind| (kind, fetched.count(kind)))
                .collect(),
            error: fetched
                .error
                .map(|error| failure::rejected_by_now(error, &key_health, finished_at)),
            failures: fetched.failures,
            counts: plan.changes().counts(),
            hold: hold.as_ref().map(Hold::summary),
            missing: plan.absent_after(&fetched.local).len(),
            resume_at: fetched.resume_in.map(|wait| finished_at + wait),
            cost: meter.cost(),
            covered,
        };
        let mut listed_with = fetched.sources;
        listed_with.retain(|kind, source| state.listed_with.get(kind) != Some(source));
        let aftermath = Aftermath {
            key_health,
            hold: turn_of(state, hold.as_ref(), is_approved, trigger),
            listed_with,
            marks,
            covered_before: state.covered_at.clone(),
            unforeseen: report::unforeseen(plan.changes()),
            budget: meter.budget(),
            retry_at: retry::retry_at(
                run.error.as_ref(),
                state.retries,
                finished_at,
                run.resume_at,
            ),
        };
        lap.end();
        let commit = self.store.commit(lease, &plan, &run, &aftermath);
        let committed = commit.instrument(tracing::debug_span!("commit")).await?;
        let report = Report {
            run,
            epoch: lease.epoch,
            waiting: waiting(&plan, hold.as_ref(), &fetched.local),
            plan,
            hold,
            hold_ended: aftermath.hold.ended,
            committed,
            timings: Timings {
                upstream,
                database: loading + lap.end(),
                total: began.elapsed(),
            },
        };
        report.log(claim, aftermath.budget, self.store.worker());
        Ok(report)
    }

    /// Does the work and renews the lease all the while; stops it when the lease is lost, or can no longer be trusted because
    /// the database does not answer.
    async fn while_beating<T>(
        &self,
        lease: &Lease,
        claimed_at: tokio::time::Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let trust = self.lease * (MARGIN - 1) / MARGIN;
        let beat = async {
            let mut trusted_until = claimed_at + trust;
            loop {
                tokio::time::sleep(self.heartbeat).await;
                let attempted_at = tokio::time::Instant::now();
                let renewed = self.store.renew(lease, self.lease, clock::now());
                match tokio::time::timeout_at(trusted_until, renewed).await {
                    Ok(Ok(_)) => trusted_until = attempted_at + trust,
                    Ok(Err(error @ Error::LeaseLost { .. })) => return error,
                    Ok(Err(error)) if tokio::time::Instant::now() < trusted_until => {
                        tracing::debug!(event = "lease.not_renewed", project.id = %lease.project, error.sentence = %error, "trying again");
                    }
                    Ok(Err(_)) | Err(_) => {
                        return Error::LeaseLost {
                            project: lease.project.clone(),
                            epoch: lease.epoch,
                        };
                    }
                }
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            lost = beat => Err(lost),
            () = self.cut.cancelled() => Err(Error::Stopped),
        }
    }

    fn review(
        &self,
        project: &Project,
        fetched: &Fetched,
        state: &State,
        standing: Standing<'_>,
        now: clock::Instant,
    ) -> Review {
        let evidence = Evidence {
            looked_at: &fetched.looked_at(),
            seen_at: &state.covered_at,
            answers: &fetched.answers,
            turns: &fetched.turns,
            confirmation: self.confirmation,
            now,
        };
        guard::review(
            fetched.changes.clone(),
            &fetched.local,
            &evidence,
            &self.limits.with(&project.guard),
            standing,
        )
    }

    /// Lists what the project's key sees, which is unsealed for each token. What fails is part of the result; only a stop is an
    /// error.
    async fn fetch(
        &self,
        key: &SealedKey,
        known: Known<'_>,
        reserve: Reserve,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, Error> {
        signer::look_for_master_key(&self.vault, &key.master_key_id).await;
        let signer = match signer(&self.vault, &known.project.id, key) {
            Ok(signer) => signer,
            Err(why) => {
                let (local, loading) = fetch::load(&*self.store, &known.project.id).await?;
                let mut fetched = Fetched::nothing(&why);
                (fetched.local, fetched.loading) = (local, loading);
                return Ok(fetched);
            }
        };
        let terms = Terms {
            reserve,
            stop: self.stop.clone(),
        };
        let session = self.client.session(signer, Arc::clone(meter), terms);
        fetch(session, known, &*self.store).await
    }
}

fn reserve_of(trigger: Trigger) -> Reserve {
    match trigger {
        Trigger::Schedule | Trigger::Retry => Reserve::Scheduled,
        Trigger::Command | Trigger::Request => Reserve::OnDemand,
    }
}

/// How a run ended that listed so many kinds.
fn outcome_of(hold: Option<&Hold>, covered: usize) -> Outcome {
    match (hold, covered) {
        (_, 0) => Outcome::Failed,
        (_, kinds) if kinds < Kind::ALL.len() => Outcome::Partial,
        (Some(_), _) => Outcome::Held,
        (None, _) => Outcome::Succeeded,
    }
}

/// What becomes of what was held.
fn turn_of(state: &State, after: Option<&Hold>, is_approved: bool, trigger: Trigger) -> HoldTurn {
    let before = state.hold.as_ref();
    let is_same = match (before, after) {
        (Some(before), Some(after)) => after.is_as(before),
        (before, after) => before.is_none() && after.is_none(),
    };
    let mut turn = HoldTurn::default();
    if !is_same {
        turn.ended = before.map(|_| match after {
            _ if is_approved => HoldEnd::Approved,
            Some(_) => HoldEnd::Replaced,
            None => HoldEnd::Lapsed,
        });
        turn.begun = after.cloned();
    }
    // What a command holds is told to whoever gave it, and by a daemon once more.
    turn.is_told = trigger != Trigger::Command
        && (turn.begun.is_some() || (state.hold_is_untold && after.is_some()));
    turn
}

/// What is not listed, and neither removed, held nor kept.
fn waiting(plan: &Plan, hold: Option<&Hold>, local: &Catalog) -> Vec<Waiting> {
    let mut absent = plan.absent_after(local);
    absent.retain(|_, absence| absence.kept_at.is_none());
    for held in hold.iter().flat_map(|hold| &hold.removals) {
        absent.remove(&held.key);
    }
    absent
        .into_iter()
        .map(|(key, absence)| {
            let entry = local.present.get(&key);
            Waiting {
                product_id: entry.and_then(Entry::product_id).map(str::to_owned),
                name: entry.and_then(Entry::name).map(str::to_owned),
                absence,
                key,
            }
        })
        .collect()
}
