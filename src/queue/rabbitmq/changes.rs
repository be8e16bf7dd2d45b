//! The changes: a topic exchange, from which readers take what they bind queues to.

use async_trait::async_trait;
use lapin::{
    BasicProperties, Channel, ExchangeKind, options::BasicPublishOptions, types::FieldTable,
};

use super::connection::{Connection, PERSISTENT, confirmed, text};
use crate::queue::{Change, Error, IN_FLIGHT, Publisher};

pub(super) struct Changes {
    connection: Connection,
    channel: Channel,
    exchange: String,
}

impl Changes {
    /// Makes what is absent on the broker.
    pub(super) async fn open(connection: Connection, prefix: &str) -> Result<Self, Error> {
        let exchange = format!("{prefix}.changes");
        connection
            .ensure_exchange(&exchange, ExchangeKind::Topic)
            .await?;
        let channel = connection.confirming_channel().await?;
        Ok(Self {
            connection,
            channel,
            exchange,
        })
    }
}

#[async_trait]
impl Publisher for Changes {
    async fn publish(&mut self, changes: &[Change]) -> Result<(), Error> {
        for changes in changes.chunks(IN_FLIGHT) {
            let all = self
                .connection
                .bounded(async |_| self.publish_few(changes).await)
                .await?;
            if !all {
                return Err(self.connection.unavailable("it could not keep a change"));
            }
        }
        Ok(())
    }
}

impl Changes {
    async fn publish_few(&self, changes: &[Change]) -> lapin::Result<bool> {
        let mut confirms = Vec::with_capacity(changes.len());
        for change in changes {
            let mut headers = FieldTable::default();
            let project = change.project.as_str();
            headers.insert("x-catalog-sync-project".into(), text(project));
            let properties = BasicProperties::default()
                .with_message_id(change.id.as_str().into())
                .with_content_type("application/json".into())
                .with_delivery_mode(PERSISTENT)
                .with_headers(headers);
            let confirm = self
                .channel
                .basic_publish(
                    self.exchange.as_str().into(),
                    change.topic().into(),
                    BasicPublishOptions::default(),
                    &change.body,
                    properties,
                )
                .await?;
            confirms.push(confirm);
        }
        confirmed(confirms).await
    }
}
