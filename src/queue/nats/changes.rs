//! The changes: a stream of their own, which remembers ids for a while.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{message::PublishMessage, stream},
};
use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::{Names, connection::Connection};
use crate::queue::{Change, Error, IN_FLIGHT, Publisher};

/// How long changes are kept in a stream that we make.
const CHANGES_KEPT: Duration = Duration::from_hours(7 * 24);

/// How long a stream that we make remembers ids: longer than most outages, after which a batch is repeated.
const IDS_KEPT: Duration = Duration::from_hours(1);

pub(super) struct Changes {
    connection: Connection,
    subject: String,
}

impl Changes {
    /// Makes what is absent on the broker.
    pub(super) async fn open(connection: Connection, names: &Names) -> Result<Self, Error> {
        let (name, subject) = names.changes();
        connection
            .ensure_stream(stream::Config {
                name,
                subjects: vec![format!("{subject}.>")],
                max_age: CHANGES_KEPT,
                duplicate_window: IDS_KEPT,
                ..stream::Config::default()
            })
            .await?;
        Ok(Self {
            connection,
            subject,
        })
    }
}

#[async_trait]
impl Publisher for Changes {
    async fn publish(&mut self, changes: &[Change]) -> Result<(), Error> {
        for changes in changes.chunks(IN_FLIGHT) {
            self.connection.bounded(self.publish_few(changes)).await?;
        }
        Ok(())
    }
}

impl Changes {
    async fn publish_few(&self, changes: &[Change]) -> Result<(), Error> {
        let mut acks = Vec::with_capacity(changes.len());
        for change in changes {
            let mut headers = HeaderMap::new();
            headers.insert("Catalog-Sync-Project", change.project.as_str());
            let message = PublishMessage::build()
                .payload(change.body.clone().into())
                .headers(headers)
                .message_id(&change.id);
            let subject = format!("{}.{}", self.subject, change.topic());
            let ack = self.connection.send(subject, message).await?;
            acks.push(async {
                ack.await
                    .map_err(|error| self.connection.not_published(&error))
            });
        }
        try_join_all(acks).await?;
        Ok(())
    }
}
