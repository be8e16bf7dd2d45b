//! `RabbitMQ`: requests from a durable quorum queue, changes to a durable topic exchange.
//!
//! What must hold throughout: a queue or exchange that is there already is used as it is, whatever its arguments. A
//! rejected message is confirmed by the dead letters before the original is acknowledged. A message that is to come again
//! is kept here, unacknowledged, and not given back: the broker would hand it out again at once, in a loop, and count it
//! (from version 4 on, a quorum queue moves a message to its dead letters after 20 returns).
//!
//! With the prefix `catalog_sync`, which settings may replace:
//!
//! | what | exchange | queue |
//! |---|---|---|
//! | requests | the default one | `catalog_sync.requests` |
//! | dead letters | `catalog_sync.dead`, fanout | `catalog_sync.dead` |
//! | changes | `catalog_sync.changes`, topic, by `<kind>.<op>` | those that readers bind |

use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, future::try_join_all};
use lapin::{
    Acker, BasicProperties, Channel, Confirmation, ConnectionProperties, ErrorKind, ExchangeKind,
    PublisherConfirm,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ChannelFlowOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Change, Consumer, Delivery, Error, PATIENCE, Publisher, Queue, Settlement, line};

/// How many messages the broker sends ahead of their settlement.
const PREFETCH: u16 = 200;

/// How often each side says that it is there, in seconds; after two silent ones the connection is lost.
const HEARTBEAT: u16 = 5;

/// How many changes are under way at once.
const IN_FLIGHT: usize = 256;

/// A message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost` or `amqps://..`.
    pub url: SecretString,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of queues and exchanges begin with.
    pub prefix: String,
}

/// A `RabbitMQ` broker.
pub struct RabbitMq {
    uri: AMQPUri,
    ca_file: Option<PathBuf>,
    prefix: String,
    /// `RabbitMQ at host:port`
    shown: String,
}

impl RabbitMq {
    /// The broker that the settings name. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let uri = parse_uri(settings.url.expose_secret()).ok_or_else(|| {
            let told = "the URL of RabbitMQ cannot be used: it must be such as amqp://user:password@host:5672/vhost or amqps://.., with a password percent-encoded";
            Error::Refused(told.to_owned())
        })?;
        let shown = format!("RabbitMQ at {}:{}", uri.authority.host, uri.authority.port);
        Ok(Self {
            uri,
            ca_file: settings.ca_file,
            prefix: settings.prefix,
            shown,
        })
    }

    fn requests(&self) -> String {
        format!("{}.requests", self.prefix)
    }

    fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    fn changes(&self) -> String {
        format!("{}.changes", self.prefix)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let cert_chain = match &self.ca_file {
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
        let shown = self.shown.clone();
        let options = ConnectionProperties::default().with_connection_name("catalog-sync".into());
        let work = async {
            let runtime = lapin::runtime::default_runtime()?;
            let uri = self.uri.clone();
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
        Ok(Connection { connection, shown })
    }
}

#[async_trait]
impl Queue for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, Error> {
        let connection = self.connect().await?;
        let (requests, dead) = (self.requests(), self.dead());
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
        Ok(Box::new(Requests {
            connection,
            channel,
            messages,
            dead_letters,
            dead,
            queue: requests,
            held: Vec::new(),
            ended: None,
        }))
    }

    async fn publish(&self) -> Result<Box<dyn Publisher>, Error> {
        let connection = self.connect().await?;
        let exchange = self.changes();
        connection
            .ensure_exchange(&exchange, ExchangeKind::Topic)
            .await?;
        let channel = connection.confirming_channel().await?;
        Ok(Box::new(Changes {
            connection,
            channel,
            exchange,
        }))
    }
}

struct Connection {
    connection: lapin::Connection,
    shown: String,
}

impl Connection {
    async fn bounded<T>(
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

    fn failed(&self, error: &lapin::Error) -> Error {
        let told = line(&format!("{} fails: {error}", self.shown));
        match refusal(error) {
            Some(_) => Error::Refused(told),
            None => Error::Unavailable(told),
        }
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::Unavailable(format!("{} fails: {what}", self.shown))
    }

    /// Makes an exchange unless it is there, and says whether it did.
    async fn ensure_exchange(&self, name: &str, kind: ExchangeKind) -> Result<bool, Error> {
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
    async fn ensure_queue(&self, name: &str, mut arguments: FieldTable) -> Result<bool, Error> {
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
    async fn bind(&self, name: &str) -> Result<(), Error> {
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

    async fn confirming_channel(&self) -> Result<Channel, Error> {
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

/// The requests of one channel.
struct Requests {
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

struct Changes {
    connection: Connection,
    channel: Channel,
    exchange: String,
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

/// Whether the broker took all messages and returned none.
async fn confirmed(confirms: Vec<PublisherConfirm>) -> lapin::Result<bool> {
    let confirmations = try_join_all(confirms).await?;
    Ok(confirmations
        .iter()
        .all(|confirmation| matches!(confirmation, Confirmation::Ack(None))))
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

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn parse_uri(text: &str) -> Option<AMQPUri> {
    let url = Url::parse(text.trim()).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let mut uri: AMQPUri = url.as_str().parse().ok()?;
    // The library takes an IPv6 address for the local host.
    host.trim_matches(['[', ']'])
        .clone_into(&mut uri.authority.host);
    // A path of a single slash would be the virtual host without a name, which nobody means.
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    Some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rabbitmq(url: &str) -> Result<RabbitMq, Error> {
        RabbitMq::new(Settings {
            url: url.into(),
            ca_file: None,
            prefix: "catalog_sync".to_owned(),
        })
    }

    #[test]
    fn a_url_is_read_with_its_defaults() {
        for (url, shown, vhost) in [
            ("amqp://rabbit", "RabbitMQ at rabbit:5672", "/"),
            ("amqps://me:pw@rabbit/", "RabbitMQ at rabbit:5671", "/"),
            (
                "amqp://127.0.0.1:99/a%2fb",
                "RabbitMQ at 127.0.0.1:99",
                "a/b",
            ),
            ("amqp://[::1]:99/%2f", "RabbitMQ at ::1:99", "/"),
        ] {
            let rabbitmq = rabbitmq(url).unwrap();
            assert_eq!(rabbitmq.shown, shown);
            assert_eq!(rabbitmq.uri.vhost, vhost);
            assert_eq!(rabbitmq.uri.query.heartbeat, Some(HEARTBEAT));
        }
        let uri = rabbitmq("amqp://me:ca%40nary@a?heartbeat=60").unwrap().uri;
        assert_eq!(uri.authority.userinfo.password, "ca@nary");
        assert_eq!(uri.query.heartbeat, Some(60));
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_being_told() {
        for url in [
            "",
            "canary",
            "http://me:canary@a",
            "amqp://",
            "amqp://me:canary@a:port",
        ] {
            let error = rabbitmq(url).err().unwrap();
            assert!(matches!(&error, Error::Refused(told) if told.contains("amqp://user")));
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}
