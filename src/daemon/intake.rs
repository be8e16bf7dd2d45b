//! Takes requests from a broker. The row is committed, then the message is acknowledged: at worst it comes twice.

use std::{sync::Arc, time::Duration};

use tracing::Instrument as _;

use super::{LONGEST_SILENCE, Shared, outage::Outage, pulse::Beat};
use crate::{
    clock,
    project::ProjectId,
    queue::{self, Consumer, Delivery, Queue, Request, Settlement},
    retry::Patience,
    store::{Ask, Asked},
};

/// How many messages are taken at once.
const BATCH: usize = 200;

/// How often the database is tried before messages are given back..
const TRIES: u32 = 5;

/// ..to come again after so long.
const AGAIN: Duration = Duration::from_secs(10);

/// A consumer that waits for messages says so often that it is not taken for silent, nor its broker for down.
const BETWEEN_BEATS: Duration = Duration::from_secs(6);

pub(super) async fn run(shared: Arc<Shared>, queue: Arc<dyn Queue>, outage: Arc<Outage>) {
    let beat = shared.pulse.register("intake", LONGEST_SILENCE);
    let mut patience = Patience::default();
    loop {
        beat.beat();
        let error = tokio::select! {
            () = shared.stop().cancelled() => return,
            consumer = queue.consume() => match consumer {
                Ok(mut consumer) => {
                    match consume(&shared, &queue, &mut *consumer, &beat, &outage, &mut patience).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            },
        };
        outage.failed(&error);
        if shared.stopped_within(patience.wait()).await {
            return;
        }
    }
}

/// Until it is time to stop, or the broker went away.
async fn consume(
    shared: &Shared,
    queue: &Arc<dyn Queue>,
    consumer: &mut dyn Consumer,
    beat: &Beat,
    outage: &Outage,
    patience: &mut Patience,
) -> Result<(), queue::Error> {
    loop {
        beat.beat();
        let deliveries = tokio::select! {
            biased;
            () = shared.stop().cancelled() => return Ok(()),
            next = tokio::time::timeout(BETWEEN_BEATS, consumer.next(BATCH)) => {
                let Ok(deliveries) = next else {
                    outage.works();
                    continue;
                };
                deliveries?
            }
        };
        let span =
            tracing::debug_span!("intake", source = queue.name(), messages = deliveries.len());
        let settled = take(shared, queue.name(), deliveries, beat);
        let settled = settled.instrument(span).await;
        shared.work.notify_one();
        // What was committed first: a message that the dead letters do not take is not to bring the others back.
        let (taken, refused): (Vec<_>, Vec<_>) = settled
            .into_iter()
            .partition(|(_, settlement)| matches!(settlement, Settlement::Ack));
        consumer.settle(taken).await?;
        consumer.settle(refused).await?;
        outage.works();
        *patience = Patience::default();
    }
}

/// Commits what the messages ask for, and says what becomes of each.
async fn take(
    shared: &Shared,
    source: &'static str,
    deliveries: Vec<Delivery>,
    beat: &Beat,
) -> Vec<(Delivery, Settlement)> {
    let parsed: Vec<(Delivery, Result<Request, String>)> = deliveries
        .into_iter()
        .map(|delivery| {
            let request = Request::parse(&delivery.body).map_err(|why| why.to_string());
            (delivery, request)
        })
        .collect();
    let asks: Vec<Ask> = parsed
        .iter()
        .filter_map(|(_, request)| request.as_ref().ok())
        .map(|request| Ask {
            project: request.project.clone(),
            reason: request.reason.clone(),
        })
        .collect();
    let Some(unknown) = ask(shared, &asks, beat).await else {
        let again = |(delivery, _)| (delivery, Settlement::Retry { after: AGAIN });
        return parsed.into_iter().map(again).collect();
    };
    let settled = parsed.into_iter().map(|(delivery, request)| {
        let refused = match &request {
            Err(why) => Some(why.clone()),
            Ok(request) if unknown.contains(&request.project) => {
                Some(format!("there is no project '{}'", request.project))
            }
            Ok(_) => None,
        };
        let settlement = match refused {
            None => Settlement::Ack,
            Some(reason) => {
                let id = request.ok().and_then(|request| request.id);
                tracing::warn!(
                    event = "request.refused",
                    source,
                    message.id = id,
                    error.sentence = reason,
                    "a message asks for no sync; it is in the dead letters"
                );
                Settlement::Reject { reason }
            }
        };
        (delivery, settlement)
    });
    settled.collect()
}

/// The projects asked for that there are not. None when the database does not take them, or it is time to stop.
async fn ask(shared: &Shared, asks: &[Ask], beat: &Beat) -> Option<Vec<ProjectId>> {
    let mut patience = Patience::default();
    for _ in 0..TRIES {
        beat.beat();
        match shared.engine.store.ask(asks, clock::now()).await {
            Ok(Asked { unknown, .. }) => {
                shared.database.works();
                return Some(unknown);
            }
            Err(error) => shared.database.failed(&error),
        }
        if shared.stopped_within(patience.wait()).await {
            return None;
        }
    }
    None
}
