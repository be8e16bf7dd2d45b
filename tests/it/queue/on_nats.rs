//! NATS, as those who send requests and read changes use it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, Context,
    consumer::{PullConsumer, pull},
    stream::{self, RetentionPolicy},
};
use async_trait::async_trait;
use catalog_sync::queue::{
    Queue, Settlement,
    nats::{Nats, Settings},
};
use futures_util::StreamExt as _;

use super::{GENEROUS, Listener, Read, Side};
use crate::{broker::Broker, nats};

pub(crate) struct OnNats;

async fn context(port: u16) -> Context {
    let client = async_nats::connect(format!("127.0.0.1:{port}")).await;
    jetstream::new(client.unwrap())
}

fn stream_name(prefix: &str, what: &str) -> String {
    format!("{}_{what}", prefix.to_uppercase())
}

fn queue(url: &str, prefix: &str) -> Arc<dyn Queue> {
    let settings = Settings {
        url: url.into(),
        credentials_file: None,
        ca_file: None,
        prefix: prefix.to_owned(),
    };
    Arc::new(Nats::new(settings).unwrap())
}

fn header(message: &jetstream::Message, name: &str) -> String {
    let headers = message.headers.as_ref().unwrap();
    headers.get(name).unwrap().to_string()
}

#[async_trait]
impl Side for OnNats {
    fn own(&self) -> Broker {
        nats::start("")
    }

    fn queue(&self, port: u16, prefix: &str) -> Arc<dyn Queue> {
        queue(&format!("nats://127.0.0.1:{port}"), prefix)
    }

    async fn with_wrong_password(&self, password: &str) -> (Broker, Arc<dyn Queue>) {
        let broker = tokio::task::block_in_place(|| nats::start("--user guest --pass right"));
        let right = format!("nats://guest:right@127.0.0.1:{}", broker.port);
        queue(&right, "x").consume().await.unwrap();
        let wrong = format!("nats://guest:{password}@127.0.0.1:{}", broker.port);
        (broker, queue(&wrong, "x"))
    }

    async fn make_requests_differently(&self, port: u16, prefix: &str) {
        let config = stream::Config {
            name: stream_name(prefix, "REQUESTS"),
            subjects: vec![format!("{prefix}.requests"), format!("{prefix}.more")],
            retention: RetentionPolicy::WorkQueue,
            max_messages: 5_000,
            ..stream::Config::default()
        };
        let stream = context(port).await.create_stream(config).await.unwrap();
        let config = pull::Config {
            durable_name: Some("catalog-sync".to_owned()),
            ack_wait: Duration::from_secs(2),
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.unwrap();
    }

    async fn are_requests_different(&self, port: u16, prefix: &str) -> bool {
        let context = context(port).await;
        let stream = context.get_stream(stream_name(prefix, "REQUESTS")).await;
        let stream = stream.unwrap();
        let consumer: PullConsumer = stream.get_consumer("catalog-sync").await.unwrap();
        stream.cached_info().config.max_messages == 5_000
            && consumer.cached_info().config.ack_wait == Duration::from_secs(2)
    }

    async fn send(&self, port: u16, prefix: &str, bodies: Vec<Vec<u8>>) {
        let context = context(port).await;
        let mut acks = Vec::new();
        for body in bodies {
            let sent = context.publish(format!("{prefix}.requests"), body.into());
            acks.push(sent.await.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }

    async fn left(&self, port: u16, prefix: &str) -> u64 {
        let context = context(port).await;
        let stream = context.get_stream(stream_name(prefix, "REQUESTS")).await;
        stream.unwrap().cached_info().state.messages
    }

    async fn dead(&self, port: u16, prefix: &str) -> Vec<(Vec<u8>, String, String)> {
        let context = context(port).await;
        let stream = context.get_stream(stream_name(prefix, "DEAD")).await;
        let stream = stream.unwrap();
        let consumer = stream.create_consumer(pull::Config::default()).await;
        let count = stream.cached_info().state.messages;
        let mut messages = consumer.unwrap().messages().await.unwrap();
        let mut dead = Vec::new();
        for _ in 0..count {
            let message = messages.next().await.unwrap().unwrap();
            dead.push((
                message.payload.to_vec(),
                header(&message, "Catalog-Sync-Reason"),
                header(&message, "Catalog-Sync-Source"),
            ));
        }
        dead
    }

    async fn listen(&self, port: u16, prefix: &str) -> Box<dyn Listener> {
        let context = context(port).await;
        let stream = context.get_stream(stream_name(prefix, "CHANGES")).await;
        let stream = stream.unwrap();
        let consumer = stream.create_consumer(pull::Config::default()).await;
        let messages = consumer.unwrap().messages().await.unwrap();
        let prefix = format!("{prefix}.changes.");
        Box::new(Reader { prefix, messages })
    }
}

struct Reader {
    prefix: String,
    messages: pull::Stream,
}

#[async_trait]
impl Listener for Reader {
    async fn next(&mut self) -> Read {
        let message = tokio::time::timeout(GENEROUS, self.messages.next()).await;
        let message = message.expect("no change came").unwrap().unwrap();
        message.ack().await.unwrap();
        Read {
            topic: message
                .subject
                .strip_prefix(&self.prefix)
                .unwrap()
                .to_owned(),
            id: header(&message, "Nats-Msg-Id"),
            project: header(&message, "Catalog-Sync-Project"),
            body: message.payload.to_vec(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_without_acknowledgements_is_refused() {
    let broker = tokio::task::block_in_place(|| nats::start(""));
    let config = stream::Config {
        name: "X_REQUESTS".to_owned(),
        subjects: vec!["x.requests".to_owned()],
        ..stream::Config::default()
    };
    let context = context(broker.port).await;
    let stream = context.create_stream(config).await.unwrap();
    let config = pull::Config {
        durable_name: Some("catalog-sync".to_owned()),
        ack_policy: jetstream::consumer::AckPolicy::None,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap();
    let queue = OnNats.queue(broker.port, "x");
    let told = queue.consume().await.err().unwrap().to_string();
    assert!(told.contains("explicit acknowledgements"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_longest_message_that_there_can_be_the_dead_letters_keep_the_beginning() {
    let port = tokio::task::block_in_place(|| nats::shared().port);
    let place = super::Place::new(&OnNats, port);
    let longest = "x".repeat(context(port).await.client().max_payload());
    let mut consumer = place.consume().await;
    place.send(&[&longest, "good"]).await;
    let mut deliveries = super::soon(&mut *consumer, 1).await;
    let reason = "the message is too long".to_owned();
    let settled = vec![(deliveries.remove(0), Settlement::Reject { reason })];
    consumer.settle(settled).await.unwrap();

    let dead = place.dead().await;
    assert_eq!(dead.len(), 1);
    let (kept, reason, _) = &dead[0];
    assert_eq!(reason, "the message is too long");
    assert!(longest.as_bytes().starts_with(kept));
    assert_eq!(kept.len(), longest.len() - 8 * 1024);
    let delivery = super::one(&mut *consumer).await;
    assert_eq!(super::body(&delivery), "good");
    super::ack(&mut *consumer, delivery).await;
    assert_eq!(place.left(consumer).await, 0);
}
