//! Takes requests from a broker. The row is committed, then the message is acknowledged: at worst it comes twice.

use std::{sync::Arc, time::Duration};

use super::{LONGEST_SILENCE, Shared, outage::Outage};
use crate::{
    clock,
    project::ProjectId,
    queue::{self, Consumer, Delivery, Queue, Request, Settlement},
    retry::Patience,
    store::{Ask, Asked},
};

/// How many messages are taken at once.
const BATCH: usize = 200;

/// A consumer that waits for messages says so often that it is not taken for silent.
const BETWEEN_BEATS: Duration = Duration::from_secs(30);

pub(super) async fn run(shared: Arc<Shared>, queue: Arc<dyn Queue>, outage: Arc<Outage>) {
    let beat = shared.pulse.register("intake", LONGEST_SILENCE);
    let mut patience = Patience::default();
    loop {
        beat.beat();
        let error = tokio::select! {
            () = shared.stop().cancelled() => return,
            consumer = queue.consume() => match consumer {
                Ok(mut consumer) => {
                    outage.works();
                    patience = Patience::default();
                    match consume(&shared, &queue, &mut *consumer, &beat).await {
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
    beat: &super::pulse::Beat,
) -> Result<(), queue::Error> {
    loop {
        beat.beat();
        let deliveries = tokio::select! {
            biased;
            () = shared.stop().cancelled() => return Ok(()),
            next = tokio::time::timeout(BETWEEN_BEATS, consumer.next(BATCH)) => match next {
                Ok(deliveries) => deliveries?,
                Err(_) => continue,
            },
        };
        let Some(settled) = take(shared, queue.name(), deliveries, beat).await else {
            return Ok(()); // They come again, here or elsewhere.
        };
        consumer.settle(settled).await?;
        shared.work.notify_one();
    }
}

/// Commits what the messages ask for. None when it was time to stop before that.
async fn take(
    shared: &Shared,
    source: &'static str,
    deliveries: Vec<Delivery>,
    beat: &super::pulse::Beat,
) -> Option<Vec<(Delivery, Settlement)>> {
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
    let unknown = ask(shared, &asks, beat).await?;
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
                    reason,
                    "a message asks for no sync; it is in the dead letters"
                );
                Settlement::Reject { reason }
            }
        };
        (delivery, settlement)
    });
    Some(settled.collect())
}

/// The projects asked for that there are not. Waits for the database as long as it takes; none when it is time to stop.
async fn ask(shared: &Shared, asks: &[Ask], beat: &super::pulse::Beat) -> Option<Vec<ProjectId>> {
    let mut patience = Patience::default();
    loop {
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
}
