//! `RabbitMQ`, as those who send requests and read changes use it.

use std::sync::Arc;

use async_trait::async_trait;
use catalog_sync::queue::{
    Queue,
    rabbitmq::{RabbitMq, Settings},
};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{GENEROUS, Listener, Read, Side};
use crate::{broker::Broker, rabbitmq};

pub(crate) struct OnRabbitMq;

async fn channel(port: u16) -> (Connection, Channel) {
    let url = format!("amqp://127.0.0.1:{port}");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await;
    let connection = connection.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn queue(url: &str, prefix: &str) -> Arc<dyn Queue> {
    let settings = Settings {
        url: url.into(),
        ca_file: None,
        prefix: prefix.to_owned(),
    };
    Arc::new(RabbitMq::new(settings).unwrap())
}

fn different_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    arguments.insert("x-max-length".into(), 5_000.into());
    arguments
}

fn header(properties: &BasicProperties, name: &str) -> String {
    let headers = properties.headers().as_ref().unwrap();
    let value = headers.inner().get(name).unwrap();
    value.as_long_string().unwrap().to_string()
}

#[async_trait]
impl Side for OnRabbitMq {
    fn own(&self) -> Broker {
        rabbitmq::start()
    }

    fn queue(&self, port: u16, prefix: &str) -> Arc<dyn Queue> {
        queue(&format!("amqp://guest:guest@127.0.0.1:{port}"), prefix)
    }

    async fn with_wrong_password(&self, password: &str) -> (Broker, Arc<dyn Queue>) {
        let broker = tokio::task::block_in_place(rabbitmq::start);
        let wrong = format!("amqp://guest:{password}@127.0.0.1:{}", broker.port);
        (broker, queue(&wrong, "x"))
    }

    async fn make_requests_differently(&self, port: u16, prefix: &str) {
        let (_connection, channel) = channel(port).await;
        let name = format!("{prefix}.requests");
        let declared = channel.queue_declare(
            name.into(),
            QueueDeclareOptions::durable(),
            different_arguments(),
        );
        declared.await.unwrap();
    }

    async fn are_requests_different(&self, port: u16, prefix: &str) -> bool {
        let (_connection, channel) = channel(port).await;
        let name = format!("{prefix}.requests");
        let declared = channel.queue_declare(
            name.into(),
            QueueDeclareOptions::durable(),
            different_arguments(),
        );
        declared.await.is_ok()
    }

    async fn send(&self, port: u16, prefix: &str, bodies: Vec<Vec<u8>>) {
        let (_connection, channel) = channel(port).await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let mut confirms = Vec::new();
        for body in bodies {
            let sent = channel.basic_publish(
                "".into(),
                format!("{prefix}.requests").into(),
                BasicPublishOptions::default(),
                &body,
                BasicProperties::default().with_delivery_mode(2),
            );
            confirms.push(sent.await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    async fn left(&self, port: u16, prefix: &str) -> u64 {
        let (_connection, channel) = channel(port).await;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        // What is unsettled is not counted until its consumer is gone.
        let counted = async {
            loop {
                let name = format!("{prefix}.requests");
                let declared = channel.queue_declare(name.into(), passive, FieldTable::default());
                let queue = declared.await.unwrap();
                if queue.consumer_count() == 0 {
                    return queue.message_count().into();
                }
            }
        };
        let counted = tokio::time::timeout(GENEROUS, counted).await;
        counted.expect("the consumers do not go")
    }

    async fn dead(&self, port: u16, prefix: &str) -> Vec<(Vec<u8>, String, String)> {
        let (_connection, channel) = channel(port).await;
        let mut dead = Vec::new();
        loop {
            let name = format!("{prefix}.dead");
            let message = channel.basic_get(name.into(), BasicGetOptions { no_ack: true });
            let Some(message) = message.await.unwrap() else {
                return dead;
            };
            dead.push((
                message.data.clone(),
                header(&message.properties, "x-catalog-sync-reason"),
                header(&message.properties, "x-catalog-sync-source"),
            ));
        }
    }

    async fn listen(&self, port: u16, prefix: &str) -> Box<dyn Listener> {
        let (connection, channel) = channel(port).await;
        let name = format!("{prefix}.reader");
        channel
            .queue_declare(
                name.as_str().into(),
                QueueDeclareOptions::durable(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel
            .queue_bind(
                name.as_str().into(),
                format!("{prefix}.changes").into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let messages = channel.basic_consume(
            name.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        Box::new(Reader {
            messages: messages.await.unwrap(),
            _connection: connection,
        })
    }
}

struct Reader {
    messages: Consumer,
    _connection: Connection,
}

#[async_trait]
impl Listener for Reader {
    async fn next(&mut self) -> Read {
        let message = tokio::time::timeout(GENEROUS, self.messages.next()).await;
        let message = message.expect("no change came").unwrap().unwrap();
        message.acker.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(*message.properties.delivery_mode(), Some(2));
        Read {
            topic: message.routing_key.to_string(),
            id: message
                .properties
                .message_id()
                .as_ref()
                .unwrap()
                .to_string(),
            project: header(&message.properties, "x-catalog-sync-project"),
            body: message.data.clone(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_message_stays_while_nothing_keeps_dead_letters() {
    let port = tokio::task::block_in_place(|| rabbitmq::shared().port);
    let (_connection, channel) = channel(port).await;
    let place = super::Place::new(&OnRabbitMq, port);
    // The operator made both by himself, and forgot to bind them.
    let dead = format!("{}.dead", place.prefix);
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            dead.as_str().into(),
            ExchangeKind::Direct,
            durable,
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_declare(
            dead.as_str().into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut consumer = place.consume().await;
    place.send(&["a"]).await;
    let delivery = super::one(&mut *consumer).await;
    let reason = "no request".to_owned();
    let settled = vec![(delivery, catalog_sync::queue::Settlement::Reject { reason })];
    let error = consumer.settle(settled).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("bind a queue to the exchange {dead}")),
        "{error}"
    );
    drop(consumer);
    let mut consumer = place.consume().await;
    assert_eq!(super::body(&super::one(&mut *consumer).await), "a");
}
