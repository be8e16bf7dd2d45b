//! Requests in and changes out, as the host sees them at NATS.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, pull},
    stream::{Config, RetentionPolicy},
};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::{Size, place::Line};

/// A server answers within this time, however busy.
const GENEROUS: Duration = Duration::from_mins(1);

/// A NATS server.
pub(super) struct Broker {
    pub(super) line: Line,
    pub(super) prefix: &'static str,
}

/// What was published of a change.
pub(super) struct Published {
    pub(super) project: String,
    pub(super) id: String,
    pub(super) seq: i64,
}

impl Broker {
    pub(super) async fn context(&self) -> Context {
        let client = async_nats::connect(format!("127.0.0.1:{}", self.line.server.port)).await;
        jetstream::new(client.unwrap())
    }

    fn stream(&self, what: &str) -> String {
        format!("{}_{what}", self.prefix.to_uppercase())
    }

    /// Makes the streams as an operator may: a message of a worker that died comes again after two leases, and repeats of
    /// a change stay to be seen.
    pub(super) async fn prepare(&self, size: &Size) {
        let context = self.context().await;
        let requests = Config {
            name: self.stream("REQUESTS"),
            subjects: vec![self.requests()],
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        let consumer = pull::Config {
            durable_name: Some("catalog-sync".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: 2 * size.lease,
            max_deliver: -1,
            ..pull::Config::default()
        };
        let stream = context.create_stream(requests).await.unwrap();
        stream.create_consumer(consumer).await.unwrap();
        let changes = Config {
            name: self.stream("CHANGES"),
            subjects: vec![format!("{}.changes.>", self.prefix)],
            duplicate_window: Duration::from_millis(100),
            ..Config::default()
        };
        context.create_stream(changes).await.unwrap();
    }

    /// The subject of requests.
    pub(super) fn requests(&self) -> String {
        format!("{}.requests", self.prefix)
    }

    /// Every change in the stream, in its order.
    pub(super) async fn published(&self) -> Vec<Published> {
        let stream = self
            .context()
            .await
            .get_stream(self.stream("CHANGES"))
            .await;
        let stream = stream.unwrap();
        let count = stream.get_info().await.unwrap().state.messages;
        let consumer = pull::Config {
            ack_policy: AckPolicy::None,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(consumer).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut published = Vec::new();
        for _ in 0..count {
            let message = tokio::time::timeout(GENEROUS, messages.next()).await;
            let message = message.expect("a change is missing").unwrap().unwrap();
            let body: Value = serde_json::from_slice(&message.payload).unwrap();
            published.push(Published {
                project: body["project"].as_str().unwrap().to_owned(),
                id: body["id"].as_str().unwrap().to_owned(),
                seq: body["seq"].as_i64().unwrap(),
            });
        }
        published
    }

    /// How many requests nobody has taken.
    pub(super) async fn untaken(&self) -> u64 {
        let stream = self
            .context()
            .await
            .get_stream(self.stream("REQUESTS"))
            .await;
        stream.unwrap().cached_info().state.messages
    }
}
