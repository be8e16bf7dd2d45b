//! One connection: how it is made, what it says when it fails, and what both directions do over it.

use std::path::Path;

use futures_util::future::try_join_all;
use lapin::{
    Channel, Confirmation, ConnectionProperties, ErrorKind, ExchangeKind, PublisherConfirm,
    options::{
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};
use tokio::time::timeout;

use crate::queue::{Error, PATIENCE, line};

/// A message that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

pub(super) struct Connection {
    connection: lapin::Connection,
    pub(super) shown: String,
}

impl Connection {
    pub(super) async fn open(
        uri: AMQPUri,
        ca_file: Option<&Path>,
        shown: String,
    ) -> Result<Self, Error> {
        let cert_chain = match ca_file {
            None => None,
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                Error::Refused(format!(
                    "the file {} of certificate authorities for RabbitMQ cannot be read: {error}",
                    file.display()
                ))
            })?),
        };
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain,
        };
        let options = ConnectionProperties::default().with_connection_name("catalog-sync".into());
        let work = async {
            let runtime = lapin::runtime::default_runtime()?;
            lapin::Connection::connect_uri_with_config(uri, options, tls, runtime).await
        };
        let connection = bounded(&shown, async {
            work.await.map_err(|error| match refusal(&error) {
                Some(403) => Error::Refused(format!(
                    "{shown} refuses the user or the password: check rabbitmq.url"
                )),
                Some(_) => Error::Refused(line(&format!("{shown} refuses: {error}"))),
                None => Error::Unavailable(line(&format!("{shown} cannot be reached: {error}"))),
            })
        })
        .await?;
        Ok(Self { connection, shown })
    }

    pub(super) async fn bounded<T>(
        &self,
        work: impl AsyncFnOnce(&lapin::Connection) -> lapin::Result<T>,
    ) -> Result<T, Error> {
        bounded(&self.shown, async {
            work(&self.connection)
                .await
                .map_err(|error| self.failed(&error))
        })
        .await
    }

    pub(super) fn failed(&self, error: &lapin::Error) -> Error {
        let told = line(&format!("{} fails: {error}", self.shown));
        match refusal(error) {
            Some(_) => Error::Refused(told),
            None => Error::Unavailable(told),
        }
    }

    pub(super) fn unavailable(&self, what: &str) -> Error {
        Error::Unavailable(format!("{} fails: {what}", self.shown))
    }

    /// Makes an exchange unless it is there, and says whether it did.
    pub(super) async fn ensure_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
    ) -> Result<bool, Error> {
        let declare = |passive| {
            let kind = kind.clone();
            self.bounded(async move |broker| {
                let options = ExchangeDeclareOptions {
                    passive,
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                // A refused declaration ends its channel.
                let channel = broker.create_channel().await?;
                let declared = channel
                    .exchange_declare(name.into(), kind, options, FieldTable::default())
                    .await;
                found(declared)
            })
        };
        Ok(!declare(true).await? && declare(false).await?)
    }

    /// Makes a quorum queue unless there is a queue of that name, and says whether it did.
    pub(super) async fn ensure_queue(
        &self,
        name: &str,
        mut arguments: FieldTable,
    ) -> Result<bool, Error> {
        arguments.insert("x-queue-type".into(), text("quorum"));
        let declare = |passive| {
            let arguments = arguments.clone();
            self.bounded(async move |broker| {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let channel = broker.create_channel().await?;
                let declared = channel
                    .queue_declare(name.into(), options, arguments)
                    .await
                    .map(drop);
                found(declared)
            })
        };
        Ok(!declare(true).await? && declare(false).await?)
    }

    /// Binds the queue to the exchange of the same name.
    pub(super) async fn bind(&self, name: &str) -> Result<(), Error> {
        self.bounded(async |broker| {
            let channel = broker.create_channel().await?;
            channel
                .queue_bind(
                    name.into(),
                    name.into(),
                    ShortString::default(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        })
        .await
    }

    pub(super) async fn confirming_channel(&self) -> Result<Channel, Error> {
        self.bounded(async |broker| {
            let channel = broker.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        })
        .await
    }
}

/// Ends with the work or our patience, whichever ends first.
async fn bounded<T>(shown: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        Err(Error::Unavailable(format!(
            "{shown} fails: no answer in {seconds} s"
        )))
    })
}

/// Whether the broker took all messages and returned none.
pub(super) async fn confirmed(confirms: Vec<PublisherConfirm>) -> lapin::Result<bool> {
    let confirmations = try_join_all(confirms).await?;
    Ok(confirmations
        .iter()
        .all(|confirmation| matches!(confirmation, Confirmation::Ack(None))))
}

/// Whether what a passive declaration asks for is there.
fn found(declared: lapin::Result<()>) -> lapin::Result<bool> {
    match declared {
        Ok(()) => Ok(true),
        Err(error) if protocol_error(&error) == Some(404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The number of what the broker refuses, of those that stay until somebody acts.
fn refusal(error: &lapin::Error) -> Option<u16> {
    // Access refused, precondition failed, not allowed (no such virtual host), not implemented.
    protocol_error(error).filter(|number| matches!(number, 403 | 406 | 530 | 540))
}

fn protocol_error(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
