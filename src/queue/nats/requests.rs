//! The requests: one pull at a time, of which the answers come to an inbox.

use std::time::Duration;

use async_nats::{
    Message, RequestErrorKind, StatusCode, Subscriber,
    client::RequestError,
    jetstream::{
        self, AckKind,
        consumer::{
            AckPolicy, PullConsumer,
            pull::{self, BatchConfig},
        },
        message::PublishMessage,
        stream::{self, ConsumerErrorKind, RetentionPolicy},
    },
};
use async_trait::async_trait;
use futures_util::{StreamExt as _, future::try_join_all};
use tokio::time::timeout;

use super::{Names, connection::Connection};
use crate::queue::{Consumer, Delivery, Error, PATIENCE, Settlement, line};

/// The durable consumer that all workers share.
const DURABLE: &str = "catalog-sync";

/// How long a message may stay unsettled before it comes again.
const ACK_WAIT: Duration = Duration::from_mins(1);

/// How long one pull waits at the server.
const PULL: Duration = Duration::from_secs(30);

/// How often the server says that it still knows of a pull. [`PATIENCE`] is over two of them.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// What the headers of a dead letter may take of the server's longest message. Without them a message of that length would come
/// again for ever: its end is left out instead.
const HEADERS: usize = 8 * 1024;

pub(super) struct Requests {
    connection: Connection,
    consumer: PullConsumer,
    dead_subject: String,
    inbox: String,
    messages: Subscriber,
    /// How many messages the pull under way may still bring.
    asked: usize,
    /// Whether the last pull found the queue empty.
    drained: bool,
    /// What came and was not handed out yet.
    taken: Vec<Delivery>,
}

impl Requests {
    /// Makes what is absent on the broker.
    pub(super) async fn open(connection: Connection, names: &Names) -> Result<Self, Error> {
        let (requests, subject) = names.requests();
        connection
            .ensure_stream(stream::Config {
                name: requests.clone(),
                subjects: vec![subject],
                retention: RetentionPolicy::WorkQueue,
                ..stream::Config::default()
            })
            .await?;
        let (dead, dead_subject) = names.dead();
        connection
            .ensure_stream(stream::Config {
                name: dead,
                subjects: vec![dead_subject.clone()],
                ..stream::Config::default()
            })
            .await?;
        let consumer = connection.ensure_consumer(&requests).await?;
        let inbox = connection.client.new_inbox();
        let messages = connection.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| connection.unavailable(&error))?;
        Ok(Self {
            connection,
            consumer,
            dead_subject,
            inbox,
            messages,
            asked: 0,
            drained: false,
            taken: Vec::new(),
        })
    }
}

impl Connection {
    async fn ensure_consumer(&self, stream: &str) -> Result<PullConsumer, Error> {
        let asked = format!("the consumer {DURABLE} of {stream}");
        let consumer = self
            .bounded(async {
                match self.context.get_consumer_from_stream(DURABLE, stream).await {
                    Ok(consumer) => {
                        tracing::debug!(
                            event = "broker.kept",
                            dependency = "nats",
                            consumer = DURABLE,
                            "a consumer is used as it is"
                        );
                        return Ok(consumer);
                    }
                    Err(error) => match error.kind() {
                        ConsumerErrorKind::JetStream(error) if error.code() == 404 => {}
                        ConsumerErrorKind::JetStream(error) => {
                            return Err(self.said(&asked, &error));
                        }
                        ConsumerErrorKind::InvalidConsumerType => {
                            return Err(self.unfit(&asked, "pull consumer"));
                        }
                        _ => return Err(self.unavailable(&error)),
                    },
                }
                let config = pull::Config {
                    durable_name: Some(DURABLE.to_owned()),
                    ack_policy: AckPolicy::Explicit,
                    ack_wait: ACK_WAIT,
                    max_deliver: -1,
                    ..pull::Config::default()
                };
                let made = self.context.create_consumer_on_stream(config, stream).await;
                made.map_err(|error| match error.kind() {
                    ConsumerErrorKind::JetStream(error) => self.said(&asked, &error),
                    _ => self.unavailable(&error),
                })
            })
            .await?;
        if consumer.cached_info().config.ack_policy == AckPolicy::Explicit {
            Ok(consumer)
        } else {
            Err(self.unfit(&asked, "consumer with explicit acknowledgements"))
        }
    }

    fn unfit(&self, asked: &str, needed: &str) -> Error {
        Error::Refused(format!(
            "{asked}, on {}, is no {needed}: remove it, and it is made anew",
            self.shown
        ))
    }
}

#[async_trait]
impl Consumer for Requests {
    async fn next(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        let most = most.max(1);
        loop {
            // A future that was dropped may have left a pull behind.
            self.collect().await?;
            if self.taken.len() >= most || (self.drained && !self.taken.is_empty()) {
                let later = self.taken.split_off(most.min(self.taken.len()));
                return Ok(std::mem::replace(&mut self.taken, later));
            }
            // What is there is taken at once; only for the first message of an empty queue is it worth to wait.
            self.pull(most - self.taken.len()).await?;
        }
    }

    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Error> {
        let all = settled
            .iter()
            .map(|(delivery, settlement)| self.settle_one(delivery, settlement));
        self.connection.bounded(try_join_all(all)).await?;
        Ok(())
    }
}

impl Requests {
    async fn pull(&mut self, most: usize) -> Result<(), Error> {
        let limits = &self.consumer.cached_info().config;
        let most = match usize::try_from(limits.max_batch) {
            Ok(limit) if limit > 0 => most.min(limit),
            _ => most,
        };
        let expires = match limits.max_expires {
            Duration::ZERO => PULL,
            limit => PULL.min(limit),
        };
        let batch = if self.drained {
            BatchConfig {
                batch: 1,
                expires: Some(expires),
                idle_heartbeat: HEARTBEAT.min(expires / 3),
                ..BatchConfig::default()
            }
        } else {
            BatchConfig {
                batch: most,
                no_wait: true,
                ..BatchConfig::default()
            }
        };
        self.asked = batch.batch;
        let inbox = self.inbox.clone().into();
        let sent = self.consumer.request_batch(batch, inbox).await;
        sent.map_err(|error| self.connection.unavailable(&error))
    }

    /// Takes what the pull under way brings, until it is over.
    async fn collect(&mut self) -> Result<(), Error> {
        while self.asked > 0 {
            let message = tokio::select! {
                biased;
                () = self.connection.lost.cancelled() => return Err(self.connection.gone()),
                message = timeout(PATIENCE, self.messages.next()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Err(self.connection.gone()),
                    Err(_) => {
                        let seconds = PATIENCE.as_secs();
                        return Err(self.connection.unavailable(&format!("it forgot a pull: nothing came for {seconds} s")));
                    }
                },
            };
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.asked -= 1;
                    self.drained = false;
                    self.take(message)?;
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => self.over(),
                Some(StatusCode::REQUEST_TERMINATED)
                    if message
                        .description
                        .as_deref()
                        .is_some_and(|why| why.contains("MaxAckPending")) =>
                {
                    self.over();
                }
                Some(StatusCode::NO_RESPONDERS) => return Err(self.connection.no_jetstream()),
                Some(status) => {
                    let why = message.description.unwrap_or_default();
                    return Err(self
                        .connection
                        .unavailable(&format!("it ended a pull: {status} {why}")));
                }
            }
        }
        Ok(())
    }

    fn over(&mut self) {
        self.asked = 0;
        self.drained = true;
    }

    fn take(&mut self, message: Message) -> Result<(), Error> {
        let subject = message.subject.to_string();
        let message = jetstream::Message {
            message,
            context: self.connection.context.clone(),
        };
        let (attempt, id) = match message.info() {
            Ok(info) => (
                u64::try_from(info.delivered).unwrap_or(1),
                // The time tells apart what a stream that was made anew numbers from the beginning.
                format!(
                    "{}-{}-{}",
                    info.stream,
                    info.stream_sequence,
                    info.published.unix_timestamp_nanos()
                ),
            ),
            Err(error) => return Err(self.connection.unavailable(&error)),
        };
        let ack = message
            .reply
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let receipt = Receipt { ack, subject, id };
        let body = message.payload.to_vec();
        self.taken.push(Delivery::new(body, attempt, receipt));
        Ok(())
    }

    async fn settle_one(&self, delivery: &Delivery, settlement: &Settlement) -> Result<(), Error> {
        let Some(receipt) = delivery.receipt::<Receipt>() else {
            return Err(self
                .connection
                .unavailable(&"that delivery came from elsewhere"));
        };
        let kind = match settlement {
            Settlement::Ack => AckKind::Ack,
            Settlement::Retry { after } => AckKind::Nak(Some(*after)),
            Settlement::Reject { reason } => {
                let whole = delivery.body.as_slice();
                let room = self.connection.client.max_payload();
                let kept = whole.get(..room.saturating_sub(HEADERS)).unwrap_or(whole);
                let mut message = PublishMessage::build()
                    .payload(kept.to_vec().into())
                    .message_id(&receipt.id)
                    .header("Catalog-Sync-Reason", line(reason).as_str())
                    .header("Catalog-Sync-Source", receipt.subject.as_str());
                if kept.len() < whole.len() {
                    message = message.header("Catalog-Sync-Bytes", whole.len().to_string());
                }
                let sent = self.connection.send(self.dead_subject.clone(), message);
                let kept = sent.await?.await;
                kept.map_err(|error| self.connection.not_published(&error))?;
                AckKind::Ack
            }
        };
        // The server answers an acknowledgement that names where to.
        let client = &self.connection.client;
        let confirmed = client.request(receipt.ack.clone(), kind.into()).await;
        confirmed.map_err(|error| self.not_settled(&error))?;
        Ok(())
    }

    fn not_settled(&self, error: &RequestError) -> Error {
        match error.kind() {
            RequestErrorKind::NoResponders => self.connection.unavailable(&"its consumer is gone"),
            _ => self.connection.unavailable(error),
        }
    }
}

/// What a delivery is settled by.
struct Receipt {
    /// The subject that takes the acknowledgement.
    ack: String,
    /// The subject that the message was sent to.
    subject: String,
    /// The same for each delivery of the message.
    id: String,
}
