//! Tells a broker what changed: in order for each project, at least once, each change with an id that stays.
//!
//! One worker at a time tells a broker. What it was told of is struck out when the broker has confirmed it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{LONGEST_SILENCE, Shared, outage::Outage, pulse::Beat};
use crate::{
    clock,
    queue::{self, Change, Logged, Publisher, Queue},
    retry::Patience,
    store::{self, SinkLease, Untold},
};

/// How many changes are told of at once.
const BATCH: u32 = 200;

/// How long the right to tell a broker lasts unless it is lengthened..
const LEASE: Duration = Duration::from_secs(30);

/// ..which happens so often.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// Why it is begun anew.
enum Ended {
    /// Another worker tells the broker.
    Elsewhere,
    Broker(queue::Error),
    Database(store::Error),
}

impl From<store::Error> for Ended {
    fn from(error: store::Error) -> Self {
        Self::Database(error)
    }
}

impl From<queue::Error> for Ended {
    fn from(error: queue::Error) -> Self {
        Self::Broker(error)
    }
}

pub(super) async fn run(shared: Arc<Shared>, queue: Arc<dyn Queue>, outage: Arc<Outage>) {
    let beat = shared.pulse.register("outbox", LONGEST_SILENCE);
    let lease = SinkLease {
        sink: queue.name().to_owned(),
        token: Uuid::now_v7(),
    };
    let mut patience = Patience::default();
    loop {
        beat.beat();
        let ended = tokio::select! {
            () = shared.stop().cancelled() => break,
            ended = tell(&shared, &queue, &lease, &beat, &outage, &mut patience) => ended,
        };
        let wait = match ended {
            Ended::Elsewhere => RENEWED_EVERY,
            Ended::Broker(error) => {
                outage.failed(&error);
                patience.wait()
            }
            Ended::Database(error) => {
                shared.database.failed(&error);
                patience.wait()
            }
        };
        if shared.stopped_within(wait).await {
            break;
        }
    }
    // Another worker goes on at once, instead of when the lease has run out.
    if let Err(error) = shared.engine.store.release_sink(&lease).await {
        tracing::debug!(event = "sink.not_released", error.sentence = %error, "the right to tell it runs out by itself");
    }
}

async fn tell(
    shared: &Shared,
    queue: &Arc<dyn Queue>,
    lease: &SinkLease,
    beat: &Beat,
    outage: &Outage,
    patience: &mut Patience,
) -> Ended {
    let told = async {
        let store = &shared.engine.store;
        let mut publisher: Option<Box<dyn Publisher>> = None;
        let mut changes_made = shared.changes.subscribe();
        loop {
            if !store.hold_sink(lease, LEASE, clock::now()).await? {
                return Err(Ended::Elsewhere);
            }
            let held_until = Instant::now() + RENEWED_EVERY;
            while Instant::now() < held_until {
                beat.beat();
                let untold = store.read_untold(&lease.sink, BATCH).await?;
                if untold.is_empty() {
                    let poll = shared.settings.borrow().poll;
                    let until = held_until.min(Instant::now() + poll);
                    tokio::time::timeout_at(until, changes_made.changed())
                        .await
                        .ok();
                    continue;
                }
                let publisher = match &mut publisher {
                    Some(publisher) => publisher,
                    none => none.insert(queue.publish().await?),
                };
                publisher.publish(&changes(&untold)).await?;
                outage.works();
                *patience = Patience::default();
                if !store.told(lease, &untold).await? {
                    return Err(Ended::Elsewhere);
                }
                tracing::debug!(
                    event = "changes.told",
                    sink = lease.sink,
                    changes = untold.len(),
                    "the broker has confirmed them"
                );
            }
        }
    };
    let told: Result<std::convert::Infallible, Ended> = told.await;
    match told {
        Err(ended) => ended,
        Ok(never) => match never {},
    }
}

fn changes(untold: &[Untold]) -> Vec<Change> {
    untold
        .iter()
        .map(|untold| {
            let change = &untold.change;
            Change::new(&Logged {
                seq: change.seq,
                project: &untold.project,
                revision: change.revision,
                run_id: change.run_id,
                at: change.at,
                kind: untold.kind,
                store_id: &change.store_id,
                product_id: change.product_id.as_deref(),
                op: untold.op,
                before: change.before.as_ref(),
                after: change.after.as_ref(),
            })
        })
        .collect()
}
