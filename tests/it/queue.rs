//! The queues: one suite, run over NATS and over `RabbitMQ`, and what only one of the two can do.

#[cfg(feature = "nats")]
pub(crate) mod on_nats;
#[cfg(feature = "rabbitmq")]
pub(crate) mod on_rabbitmq;

mod changes;
pub(crate) mod outages;
mod requests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use catalog_sync::{
    catalog::{Kind, Op},
    queue::{Change, Consumer, Delivery, Logged, Queue, Settlement},
};
use chrono::DateTime;
use uuid::Uuid;

use crate::broker::Broker;

/// How long to wait for what comes in milliseconds on a machine that is not busy.
const GENEROUS: Duration = Duration::from_mins(1);

/// One kind of broker, seen from the other side: as those who send requests and read changes use it.
#[async_trait]
pub(crate) trait Side: Send + Sync {
    /// A broker that the test may kill.
    fn own(&self) -> Broker;

    /// The queue with this prefix on the broker at this port.
    fn queue(&self, port: u16, prefix: &str) -> Arc<dyn Queue>;

    /// The same with a password that is wrong, on a broker that asks for one.
    async fn with_wrong_password(&self, password: &str) -> (Broker, Arc<dyn Queue>);

    /// Makes the queue of requests with settings of the operator's own, which are not ours.
    async fn make_requests_differently(&self, port: u16, prefix: &str);

    /// Whether what was made differently still is.
    async fn are_requests_different(&self, port: u16, prefix: &str) -> bool;

    /// Sends requests, and waits until they are confirmed.
    async fn send(&self, port: u16, prefix: &str, bodies: Vec<Vec<u8>>);

    /// How many requests the broker holds, now that nobody consumes them.
    async fn left(&self, port: u16, prefix: &str) -> u64;

    /// The dead letters, with reason and source.
    async fn dead(&self, port: u16, prefix: &str) -> Vec<(Vec<u8>, String, String)>;

    /// Begins to read changes.
    async fn listen(&self, port: u16, prefix: &str) -> Box<dyn Listener>;
}

/// A reader of changes.
#[async_trait]
pub(crate) trait Listener: Send {
    /// The next change.
    async fn next(&mut self) -> Read;
}

/// A change as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Read {
    /// `subscription.updated`
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) project: String,
    pub(crate) body: Vec<u8>,
}

/// A broker that many tests share, and names of which nobody else has any.
pub(crate) struct Place<'a> {
    pub(crate) side: &'a dyn Side,
    pub(crate) port: u16,
    pub(crate) prefix: String,
}

impl<'a> Place<'a> {
    pub(crate) fn new(side: &'a dyn Side, port: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let prefix = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { side, port, prefix }
    }

    pub(crate) fn queue(&self) -> Arc<dyn Queue> {
        self.side.queue(self.port, &self.prefix)
    }

    async fn consume(&self) -> Box<dyn Consumer> {
        self.queue().consume().await.unwrap()
    }

    pub(crate) async fn send(&self, bodies: &[&str]) {
        let bodies = bodies.iter().map(|body| body.as_bytes().to_vec());
        self.side
            .send(self.port, &self.prefix, bodies.collect())
            .await;
    }

    /// How many requests are left without these consumers.
    pub(crate) async fn left(&self, consumers: impl Send) -> u64 {
        drop(consumers);
        self.side.left(self.port, &self.prefix).await
    }

    pub(crate) async fn dead(&self) -> Vec<(Vec<u8>, String, String)> {
        self.side.dead(self.port, &self.prefix).await
    }

    pub(crate) async fn listen(&self) -> Box<dyn Listener> {
        self.side.listen(self.port, &self.prefix).await
    }
}

/// The next deliveries, which come soon.
async fn soon(consumer: &mut dyn Consumer, most: usize) -> Vec<Delivery> {
    tokio::time::timeout(GENEROUS, consumer.next(most))
        .await
        .expect("no message came")
        .unwrap()
}

/// The next delivery.
async fn one(consumer: &mut dyn Consumer) -> Delivery {
    let mut deliveries = soon(consumer, 1).await;
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

async fn ack(consumer: &mut dyn Consumer, delivery: Delivery) {
    consumer
        .settle(vec![(delivery, Settlement::Ack)])
        .await
        .unwrap();
}

fn body(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

/// Changes with these numbers.
fn changes(numbers: std::ops::Range<i64>) -> Vec<Change> {
    let project = "acme".parse().unwrap();
    numbers
        .map(|seq| {
            Change::new(&Logged {
                seq,
                project: &project,
                revision: 7,
                run_id: Uuid::from_u128(1),
                at: DateTime::from_timestamp_millis(1_700_000_000_000).unwrap(),
                kind: Kind::ALL[usize::try_from(seq).unwrap() % 4],
                store_id: "6450000001",
                product_id: None,
                op: Op::Updated,
                before: None,
                after: None,
            })
        })
        .collect()
}

/// Makes of each case, written once, a test over each broker.
macro_rules! conformance {
    ($($subject:ident { $($case:ident)* })*) => {
        #[cfg(feature = "nats")]
        mod nats {
            $(mod $subject {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let port = tokio::task::spawn_blocking(|| crate::nats::shared().port).await.unwrap();
                    let place = crate::queue::Place::new(&crate::queue::on_nats::OnNats, port);
                    crate::queue::$subject::$case(place).await;
                })*
            })*
        }

        #[cfg(feature = "rabbitmq")]
        mod rabbitmq {
            $(mod $subject {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let port = tokio::task::spawn_blocking(|| crate::rabbitmq::shared().port).await.unwrap();
                    let place = crate::queue::Place::new(&crate::queue::on_rabbitmq::OnRabbitMq, port);
                    crate::queue::$subject::$case(place).await;
                })*
            })*
        }
    };
}

conformance! {
    requests {
        what_is_absent_is_named_and_not_made
        what_is_absent_is_made
        what_is_there_is_used_as_it_is
        an_acknowledged_message_never_comes_again
        an_unsettled_message_comes_again_once_its_consumer_is_gone
        a_rejected_message_is_among_the_dead_letters
        a_message_to_be_retried_comes_again
        a_dropped_wait_loses_no_message
        of_a_thousand_messages_each_is_handled_and_none_is_lost
    }
    changes {
        changes_come_in_order_with_their_ids
        a_repeated_change_can_be_told
    }
    outages {
        a_broker_killed_while_we_wait_is_noticed_and_comes_back
        a_broker_killed_before_settling_gives_the_message_again
        a_publisher_notices_and_repeats
        a_broker_that_is_down_is_named
        a_wrong_password_is_told_and_not_shown
    }
}
