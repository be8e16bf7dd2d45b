//! Claims projects and runs them: on demand before scheduled, as many at once as are allowed, one for each API key.
//!
//! A run needs room before its project is claimed, so that no lease is held by work that waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use super::{LONGEST_SILENCE, Settings, Shared, panic_text};
use crate::{
    asc::{Meter, Upstream},
    clock, metrics,
    project::ProjectId,
    retry::Patience,
    run::Trigger,
    store::{self, Claim, Claimed, LastChance},
    sync::{Error, Report, Unrecorded},
    telemetry::at,
};

/// How many rows of the host are taken at once.
const INBOX_BATCH: u32 = 500;

/// How many projects are claimed at once.
const CLAIM_BATCH: usize = 50;

/// When work that is ready could not be claimed, as its row was locked or its key was in use elsewhere, it is looked at again so
/// soon, however rarely the database is asked otherwise.
const IN_OTHER_HANDS: Duration = Duration::from_secs(1);

/// The places of runs that end within this time are given away together: to claim a hundred projects takes no more statements than
/// to claim one.
const MOMENT: Duration = Duration::from_millis(20);

/// How often a loop that waits for runs says that it goes round.
const BETWEEN_BEATS: Duration = Duration::from_secs(10);

pub(super) async fn run(shared: Arc<Shared>) {
    let beat = shared.pulse.register("dispatcher", LONGEST_SILENCE);
    let mut runs = Runs::default();
    let mut patience = Patience::default();
    while !shared.stop().is_cancelled() {
        beat.beat();
        let settings = shared.settings.borrow().clone();
        let wait = match turn(&shared, &settings, &mut runs).await {
            Ok(Turn::More) => Duration::ZERO,
            Ok(Turn::Soon) => {
                patience = Patience::default();
                settings.poll.min(IN_OTHER_HANDS)
            }
            Ok(Turn::Done) => {
                patience = Patience::default();
                settings.poll
            }
            Err(error) => {
                shared.database.failed(&error);
                patience.wait()
            }
        };
        let mut until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = shared.stop().cancelled() => break,
                Some(ended) = runs.next() => {
                    ended.tell(&shared);
                    until = until.min(Instant::now() + MOMENT);
                }
                () = shared.work.notified() => break,
                () = tokio::time::sleep_until(until) => break,
            }
        }
    }
    while !runs.tasks.is_empty() {
        beat.beat();
        if let Ok(Some(ended)) = tokio::time::timeout(BETWEEN_BEATS, runs.next()).await {
            ended.tell(&shared);
        }
    }
}

/// Wakes the dispatcher when the host has asked for something, where the database tells. Polling is the truth.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut patience = Patience::default();
    loop {
        let heard = tokio::select! {
            biased;
            () = shared.stop().cancelled() => return,
            heard = shared.engine.store.await_inbox() => heard,
        };
        match heard {
            Ok(()) => {
                patience = Patience::default();
                shared.work.notify_one();
            }
            // The dispatcher meets the same database, and tells of it.
            Err(error) => {
                tracing::debug!(event = "ear.lost", error.sentence = %error, "listening again");
                if shared.stopped_within(patience.wait()).await {
                    return;
                }
            }
        }
    }
}

/// Whether there may be more to do at once.
enum Turn {
    More,
    Soon,
    Done,
}

async fn turn(
    shared: &Arc<Shared>,
    settings: &Settings,
    runs: &mut Runs,
) -> Result<Turn, store::Error> {
    let store = &shared.engine.store;
    let sight = store.look(clock::now()).await?;
    // At once, for the database's time is the one of a moment ago.
    let is_trusted = shared.trusts_clock(sight.clock);
    let mut more = false;
    let mut soon = false;
    if sight.inbox {
        let inbox = store.take_inbox(INBOX_BATCH, clock::now()).await?;
        for (asked, why) in &inbox.refused {
            tracing::warn!(
                event = "request.refused",
                source = "sync_requests",
                request = asked,
                error.sentence = why,
                "a row of sync_requests asks for no project; it is in refused_requests"
            );
        }
        more = inbox.taken == INBOX_BATCH as usize;
    }
    let room = settings.concurrency.saturating_sub(runs.tasks.len());
    let room = match shared.engine.client.upstream() {
        Upstream::Up => room.min(CLAIM_BATCH),
        // One, and no more before it has asked.
        Upstream::Probed => room.min(1),
        Upstream::Down { .. } => 0,
    };
    if is_trusted && room > 0 && (sight.ready || sight.inbox) {
        let last_chance = if runs.has_last_chance() {
            LastChance::None
        } else {
            LastChance::One
        };
        // Local trust begins before the claim: the lease cannot end earlier than it seems to.
        let claimed_at = Instant::now();
        let most = u32::try_from(room).unwrap_or(u32::MAX);
        let claimed = store
            .claim(most, last_chance, shared.engine.lease, clock::now())
            .await?;
        shared.database.works();
        shared.engine.metrics.count_takeovers(claimed.lost.len());
        tell(&claimed);
        more |= shared.engine.client.upstream() == Upstream::Up
            && !(claimed.claims.is_empty() && claimed.deferred.is_empty());
        soon = claimed.claims.is_empty();
        for claim in claimed.claims {
            runs.start(shared, settings, claim, claimed_at);
        }
    }
    Ok(match (more, soon) {
        (true, _) => Turn::More,
        (false, true) => Turn::Soon,
        (false, false) => Turn::Done,
    })
}

fn tell(claimed: &Claimed) {
    for loss in &claimed.lost {
        tracing::warn!(
            event = "lease.lost",
            project.id = %loss.project,
            epoch = loss.epoch,
            worker = loss.worker,
            until = at(loss.until),
            "a lease ran out: its worker died, or could not reach the database"
        );
    }
    for id in &claimed.set_aside {
        tracing::error!(
            event = "project.set_aside",
            project.id = %id,
            "its last three runs lost their workers; it is left alone until 'catalog-sync project resume {id}'"
        );
    }
    for (id, why) in &claimed.unreadable {
        tracing::error!(
            event = "project.unreadable",
            project.id = %id,
            error.sentence = why,
            "it cannot be synced as it is; it is looked at again later"
        );
    }
    for (id, until) in &claimed.deferred {
        tracing::info!(
            event = "sync.deferred",
            project.id = %id,
            until = at(*until),
            "too little is left of its key's hourly budget"
        );
    }
}

/// The runs under way.
#[derive(Default)]
struct Runs {
    tasks: JoinSet<Result<Report, Error>>,
    of: HashMap<Id, UnderWay>,
}

struct UnderWay {
    project: ProjectId,
    epoch: i64,
    trigger: Trigger,
    began: Instant,
    is_last_chance: bool,
}

/// A run that ended.
struct Ended {
    of: Option<UnderWay>,
    result: Result<Result<Report, Error>, JoinError>,
}

impl Runs {
    fn start(
        &mut self,
        shared: &Arc<Shared>,
        settings: &Settings,
        claim: Claim,
        claimed_at: Instant,
    ) {
        let of = UnderWay {
            project: claim.project.id.clone(),
            epoch: claim.lease.epoch,
            trigger: claim.trigger(),
            began: Instant::now(),
            is_last_chance: claim.is_last_chance,
        };
        let mut engine = shared.engine.clone();
        engine.limits = settings.limits;
        let handle = self.tasks.spawn(async move {
            let meter = Arc::new(Meter::default());
            Box::pin(engine.carry_out(&claim, claimed_at, &meter)).await
        });
        self.of.insert(handle.id(), of);
    }

    fn has_last_chance(&self) -> bool {
        self.of.values().any(|run| run.is_last_chance)
    }

    /// The next run to end; none when there is none under way.
    async fn next(&mut self) -> Option<Ended> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        Some(Ended {
            of: self.of.remove(&id),
            result,
        })
    }
}

impl Ended {
    /// What the run itself did not tell of.
    fn tell(self, shared: &Shared) {
        let Some(of) = self.of else {
            return;
        };
        let run = Unrecorded {
            project: &of.project,
            trigger: of.trigger,
            epoch: Some(of.epoch),
            worker: shared.engine.store.worker(),
            lasted: of.began.elapsed(),
        };
        match self.result {
            Ok(Ok(report)) => {
                if report.committed.rows > 0 {
                    shared.changes.send_modify(|count| *count += 1);
                }
            }
            Ok(Err(error)) => run.log(&error),
            // Its lease is left to run out, and counts as one that lost its worker.
            Err(error) => {
                shared.engine.metrics.run_unrecorded(metrics::PANICKED);
                run.log_panic(&panic_text(error));
            }
        }
    }
}
