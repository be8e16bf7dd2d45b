//! The requests: the deliveries of one channel, and the dead letters over another.

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, future::try_join_all};
use lapin::{
    Acker, BasicProperties, Channel, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ChannelFlowOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, PERSISTENT, confirmed, text};
use crate::queue::{Consumer, Delivery, Error, Settlement, line};

/// How many messages the broker sends ahead of their settlement.
const PREFETCH: u16 = 200;

pub(super) struct Requests {
    connection: Connection,
    channel: Channel,
    messages: lapin::Consumer,
    /// A channel of its own, so that what goes wrong with dead letters ends no delivery.
    dead_letters: Channel,
    dead: String,
    queue: String,
    /// What is to come again, and when.
    held: Vec<(Instant, Delivery)>,
    /// Why there will be no more messages: the library would tell it once and then wait for ever.
    ended: Option<Error>,
}

impl Requests {
    /// Makes what is absent on the broker, and begins to take messages.
    pub(super) async fn open(connection: Connection, prefix: &str) -> Result<Self, Error> {
        let (requests, dead) = (format!("{prefix}.requests"), format!("{prefix}.dead"));
        let made_exchange = connection
            .ensure_exchange(&dead, ExchangeKind::Fanout)
            .await?;
        let made_queue = connection
            .ensure_queue(&dead, FieldTable::default())
            .await?;
        if made_exchange || made_queue {
            connection.bind(&dead).await?;
        }
        let mut arguments = FieldTable::default();
        arguments.insert("x-dead-letter-exchange".into(), text(&dead));
        connection.ensure_queue(&requests, arguments).await?;

        let dead_letters = connection.confirming_channel().await?;
        let (channel, messages) = connection
            .bounded(async |broker| {
                let channel = broker.create_channel().await?;
                channel
                    .basic_qos(PREFETCH, BasicQosOptions::default())
                    .await?;
                let messages = channel
                    .basic_consume(
                        requests.as_str().into(),
                        ShortString::default(),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    )
                    .await?;
                Ok((channel, messages))
            })
            .await?;
        Ok(Self {
            connection,
            channel,
            messages,
            dead_letters,
            dead,
            queue: requests,
            held: Vec::new(),
            ended: None,
        })
    }
}

#[async_trait]
impl Consumer for Requests {
    async fn next(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let most = most.max(1);
        let mut taken = Vec::new();
        let due = self.held.iter().map(|(due, _)| *due).min();
        tokio::select! {
            message = self.messages.next() => match self.take(message) {
                Ok(delivery) => taken.push(delivery),
                Err(error) => return Err(self.ended.insert(error).clone()),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        // From here on nothing waits, so that a dropped future loses nothing.
        let now = Instant::now();
        let is_due = |(due, _): &mut (Instant, Delivery)| *due <= now;
        let room = most - taken.len();
        taken.extend(
            self.held
                .extract_if(.., is_due)
                .take(room)
                .map(|(_, delivery)| delivery),
        );
        while taken.len() < most
            && let Some(message) = self.messages.next().now_or_never()
        {
            match self.take(message) {
                Ok(delivery) => taken.push(delivery),
                Err(error) => {
                    self.ended = Some(error);
                    break;
                }
            }
        }
        Ok(taken)
    }

    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Error> {
        let mut acks = Vec::new();
        let mut rejected = Vec::new();
        for (delivery, settlement) in settled {
            match settlement {
                Settlement::Ack => acks.push(delivery),
                Settlement::Reject { reason } => rejected.push((delivery, reason)),
                Settlement::Retry { after } => {
                    let Delivery { attempt, .. } = delivery;
                    let again = Delivery {
                        attempt: attempt + 1,
                        ..delivery
                    };
                    self.held.push((Instant::now() + after, again));
                }
            }
        }
        if !rejected.is_empty() {
            self.keep_dead(&rejected).await?;
            acks.extend(rejected.into_iter().map(|(delivery, _)| delivery));
        }
        if acks.is_empty() {
            return Ok(());
        }
        let usable = self
            .connection
            .bounded(async |_| {
                let acks = acks.iter().map(|delivery| async {
                    match delivery.receipt::<Acker>() {
                        Some(acker) => acker.ack(BasicAckOptions::default()).await,
                        None => Ok(false),
                    }
                });
                let usable = try_join_all(acks).await?.into_iter().all(|usable| usable);
                // Acknowledgements have no answer. This has, and the broker reads a channel in order.
                let options = ChannelFlowOptions { active: true };
                self.channel.channel_flow(options).await?;
                Ok(usable)
            })
            .await?;
        if usable {
            Ok(())
        } else {
            Err(self
                .connection
                .unavailable("the channel of a delivery was closed"))
        }
    }
}

impl Requests {
    fn take(
        &self,
        message: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<Delivery, Error> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(self.connection.failed(&error)),
            None => {
                return Err(self
                    .connection
                    .unavailable("it cancelled the consumer; the queue may have been removed"));
            }
        };
        let returns = message
            .properties
            .headers()
            .as_ref()
            .and_then(|headers| headers.inner().get("x-delivery-count"))
            .and_then(count);
        let attempt = returns.unwrap_or_else(|| message.redelivered.into()) + 1;
        Ok(Delivery::new(message.data, attempt, message.acker))
    }

    async fn keep_dead(&self, rejected: &[(Delivery, String)]) -> Result<(), Error> {
        let kept = self
            .connection
            .bounded(async |_| {
                // Unless a queue takes it, the message is to come back to us, and stays where it is.
                let options = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let mut confirms = Vec::with_capacity(rejected.len());
                for (delivery, reason) in rejected {
                    let mut headers = FieldTable::default();
                    headers.insert("x-catalog-sync-reason".into(), text(&line(reason)));
                    headers.insert("x-catalog-sync-source".into(), text(&self.queue));
                    let properties = BasicProperties::default()
                        .with_delivery_mode(PERSISTENT)
                        .with_headers(headers);
                    let confirm = self
                        .dead_letters
                        .basic_publish(
                            self.dead.as_str().into(),
                            self.queue.as_str().into(),
                            options,
                            &delivery.body,
                            properties,
                        )
                        .await?;
                    confirms.push(confirm);
                }
                confirmed(confirms).await
            })
            .await?;
        if kept {
            Ok(())
        } else {
            Err(Error::Refused(format!(
                "{} keeps no dead letters: bind a queue to the exchange {}",
                self.connection.shown, self.dead
            )))
        }
    }
}

/// A number as quorum queues send it: as small as it fits.
fn count(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::LongLongInt(number) => number.try_into().ok(),
        AMQPValue::LongInt(number) => number.try_into().ok(),
        AMQPValue::ShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortShortInt(number) => number.try_into().ok(),
        _ => None,
    }
}
