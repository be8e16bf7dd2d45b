//! NATS `JetStream`: requests from a work-queue stream through a durable pull consumer, changes to a stream of their own.
//!
//! What must hold throughout: a stream or consumer that is there already is used as it is. A connection that was lost once
//! is never used again: the library would mend it silently, and with it pulls that the server has forgotten. A pull asks
//! for what the caller wants now and no more, so that no message lies unsettled in a buffer.
//!
//! With the prefix `catalog_sync`, which settings may replace:
//!
//! | what | stream | subjects |
//! |---|---|---|
//! | requests | `CATALOG_SYNC_REQUESTS`, durable consumer `catalog-sync` | `catalog_sync.requests` |
//! | dead letters | `CATALOG_SYNC_DEAD` | `catalog_sync.dead` |
//! | changes | `CATALOG_SYNC_CHANGES` | `catalog_sync.changes.<kind>.<op>` |

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, RequestErrorKind,
    ServerAddr, StatusCode, Subscriber,
    client::RequestError,
    jetstream::{
        self, AckKind, Context,
        consumer::{
            AckPolicy, PullConsumer,
            pull::{self, BatchConfig},
        },
        context::{CreateStreamErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::{self, ConsumerErrorKind, RetentionPolicy},
    },
};
use async_trait::async_trait;
use futures_util::{StreamExt as _, future::try_join_all};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Change, Consumer, Delivery, Error, PATIENCE, Publisher, Queue, Settlement, line};

/// The durable consumer that all workers share.
const DURABLE: &str = "catalog-sync";

/// How long a message may stay unsettled before it comes again.
const ACK_WAIT: Duration = Duration::from_mins(1);

/// How long changes are kept in a stream that we make.
const CHANGES_KEPT: Duration = Duration::from_hours(7 * 24);

/// How long a stream that we make remembers ids: longer than most outages, after which a batch is repeated.
const IDS_KEPT: Duration = Duration::from_hours(1);

/// How long one pull waits at the server.
const PULL: Duration = Duration::from_secs(30);

/// How often the server says that it still knows of a pull. [`PATIENCE`] is over two of them.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// How many changes are under way at once.
const IN_FLIGHT: usize = 256;

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://host:port` or `tls://..`, with a user and password, or a token, where the server asks for them; several
    /// servers of one cluster with commas between them.
    pub url: SecretString,
    /// A file with a JWT and an nkey, as `nsc` makes it.
    pub credentials_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of subjects and, in capitals, of streams begin with.
    pub prefix: String,
}

/// A NATS server or cluster with `JetStream`.
pub struct Nats {
    /// Without user, password and token, which the library would log.
    servers: Vec<ServerAddr>,
    login: Login,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    names: Names,
    /// `NATS at host:port`
    shown: Arc<str>,
}

enum Login {
    None,
    Token(SecretString),
    Password {
        user: String,
        password: SecretString,
    },
}

struct Names {
    prefix: String,
}

impl Names {
    fn requests(&self) -> (String, String) {
        (self.stream("REQUESTS"), format!("{}.requests", self.prefix))
    }

    fn dead(&self) -> (String, String) {
        (self.stream("DEAD"), format!("{}.dead", self.prefix))
    }

    fn changes(&self) -> (String, String) {
        (self.stream("CHANGES"), format!("{}.changes", self.prefix))
    }

    fn stream(&self, what: &str) -> String {
        format!("{}_{what}", self.prefix.to_ascii_uppercase())
    }
}

impl Nats {
    /// The broker that the settings name. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let mut servers = Vec::new();
        let mut login = Login::None;
        for text in settings.url.expose_secret().split(',') {
            let (server, its_login) = parse_server(text.trim()).ok_or_else(|| {
                let told = "the URL of NATS cannot be used: it must be such as nats://host:4222 or tls://user:password@host, with a password percent-encoded";
                Error::Refused(told.to_owned())
            })?;
            if matches!(login, Login::None) {
                login = its_login;
            }
            servers.push(server);
        }
        let shown: Vec<String> = servers
            .iter()
            .map(|server| format!("{}:{}", server.host(), server.port()))
            .collect();
        Ok(Self {
            servers,
            login,
            credentials_file: settings.credentials_file,
            ca_file: settings.ca_file,
            names: Names {
                prefix: settings.prefix,
            },
            shown: format!("NATS at {}", shown.join(", ")).into(),
        })
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let lost = CancellationToken::new();
        let mut options = ConnectOptions::new()
            .name("catalog-sync")
            .connection_timeout(PATIENCE / 2)
            .request_timeout(Some(PATIENCE))
            .ping_interval(PATIENCE)
            // Just enough to try each server once: this connection has ended for us when it is lost.
            .max_reconnects(self.servers.len())
            .event_callback({
                let lost = lost.clone();
                let shown = Arc::clone(&self.shown);
                move |event| {
                    let (lost, shown) = (lost.clone(), Arc::clone(&shown));
                    async move {
                        tracing::debug!(broker.name = "nats", "{shown}: {event}");
                        if matches!(event, Event::Disconnected | Event::Closed) {
                            lost.cancel();
                        }
                    }
                }
            });
        options = match &self.login {
            Login::None => options,
            Login::Token(token) => options.token(token.expose_secret().to_owned()),
            Login::Password { user, password } => {
                options.user_and_password(user.clone(), password.expose_secret().to_owned())
            }
        };
        if let Some(file) = &self.credentials_file {
            options = options.credentials_file(file).await.map_err(|error| {
                Error::Refused(format!(
                    "the credentials file {} of NATS cannot be used: {error}",
                    file.display()
                ))
            })?;
        }
        if let Some(file) = &self.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        let shown = &self.shown;
        let client = timeout(PATIENCE, options.connect(self.servers.as_slice()))
            .await
            .map_err(|_| {
                let seconds = PATIENCE.as_secs();
                Error::Unavailable(format!("{shown} cannot be reached: no answer in {seconds} s"))
            })?
            .map_err(|error| match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    Error::Refused(format!(
                        "{shown} refuses the user, password, token or credentials: check those in nats.url or nats.credentials_file"
                    ))
                }
                ConnectErrorKind::Tls => {
                    Error::Refused(format!("{shown} cannot be reached over TLS: {}", chain(&error)))
                }
                _ => Error::Unavailable(format!("{shown} cannot be reached: {}", chain(&error))),
            })?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        Ok(Connection {
            client,
            context,
            lost,
            shown: Arc::clone(shown),
        })
    }
}

#[async_trait]
impl Queue for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, Error> {
        let connection = self.connect().await?;
        let (requests, subject) = self.names.requests();
        connection
            .ensure_stream(stream::Config {
                name: requests.clone(),
                subjects: vec![subject],
                retention: RetentionPolicy::WorkQueue,
                ..stream::Config::default()
            })
            .await?;
        let (dead, dead_subject) = self.names.dead();
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
        Ok(Box::new(Requests {
            connection,
            consumer,
            dead_subject,
            inbox,
            messages,
            asked: 0,
            drained: false,
            taken: Vec::new(),
        }))
    }

    async fn publish(&self) -> Result<Box<dyn Publisher>, Error> {
        let connection = self.connect().await?;
        let (name, subject) = self.names.changes();
        connection
            .ensure_stream(stream::Config {
                name,
                subjects: vec![format!("{subject}.>")],
                max_age: CHANGES_KEPT,
                duplicate_window: IDS_KEPT,
                ..stream::Config::default()
            })
            .await?;
        Ok(Box::new(Changes {
            connection,
            subject,
        }))
    }
}

/// One connection, of use until it is lost for the first time.
struct Connection {
    client: Client,
    context: Context,
    lost: CancellationToken,
    shown: Arc<str>,
}

impl Connection {
    /// Ends with the work, the connection or our patience, whichever ends first.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(self.gone()),
            done = timeout(PATIENCE, work) => done.unwrap_or_else(|_| {
                let seconds = PATIENCE.as_secs();
                Err(self.unavailable(&format!("no answer in {seconds} s; may the user do that?")))
            }),
        }
    }

    fn gone(&self) -> Error {
        Error::Unavailable(format!("the connection to {} was lost", self.shown))
    }

    fn unavailable(&self, what: &dyn fmt::Display) -> Error {
        Error::Unavailable(line(&format!("{} fails: {what}", self.shown)))
    }

    /// What `JetStream` says: an error of its own passes, any other stays until somebody acts.
    fn said(&self, asked: &str, error: &jetstream::Error) -> Error {
        let told = line(&format!("{} refuses {asked}: {error}", self.shown));
        if error.code() >= 500 {
            Error::Unavailable(told)
        } else {
            Error::Refused(told)
        }
    }

    fn no_jetstream(&self) -> Error {
        Error::Unavailable(format!(
            "{} does not answer for JetStream, which must be enabled on the server and for this account",
            self.shown
        ))
    }

    async fn ensure_stream(&self, config: stream::Config) -> Result<(), Error> {
        let name = config.name.clone();
        let asked = format!("the stream {name}");
        self.bounded(async {
            let missing = match self.context.get_stream(&name).await {
                Ok(_) => false,
                Err(error) => match error.kind() {
                    GetStreamErrorKind::JetStream(error) if error.code() == 404 => true,
                    GetStreamErrorKind::JetStream(error) => return Err(self.said(&asked, &error)),
                    GetStreamErrorKind::Request => return Err(self.no_jetstream()),
                    _ => return Err(self.unavailable(&error)),
                },
            };
            if !missing {
                tracing::debug!(broker.name = "nats", stream = name, "used as it is");
                return Ok(());
            }
            match self.context.create_stream(config).await {
                Ok(_) => Ok(()),
                Err(error) => Err(match error.kind() {
                    CreateStreamErrorKind::JetStream(error) => self.said(&asked, &error),
                    _ => self.unavailable(&error),
                }),
            }
        })
        .await
    }

    async fn ensure_consumer(&self, stream: &str) -> Result<PullConsumer, Error> {
        let asked = format!("the consumer {DURABLE} of {stream}");
        let consumer = self
            .bounded(async {
                match self.context.get_consumer_from_stream(DURABLE, stream).await {
                    Ok(consumer) => {
                        tracing::debug!(broker.name = "nats", consumer = DURABLE, "used as it is");
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

    async fn send(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<jetstream::context::PublishAckFuture, Error> {
        let sent = self.context.send_publish(subject, message).await;
        sent.map_err(|error| self.not_published(&error))
    }

    fn not_published(&self, error: &PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Error::Refused(line(&format!(
                "{} takes no message of that size: {error}",
                self.shown
            ))),
            _ => self.unavailable(error),
        }
    }
}

/// The requests: one pull at a time, of which the answers come to an inbox.
struct Requests {
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
                let message = PublishMessage::build()
                    .payload(delivery.body.clone().into())
                    .message_id(&receipt.id)
                    .header("Catalog-Sync-Reason", line(reason).as_str())
                    .header("Catalog-Sync-Source", receipt.subject.as_str());
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

struct Changes {
    connection: Connection,
    subject: String,
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

/// One server of a URL, and what it wants to know of us.
fn parse_server(text: &str) -> Option<(ServerAddr, Login)> {
    let mut url = Url::parse(text).ok()?;
    if !matches!(url.scheme(), "nats" | "tls") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let user = decode(url.username())?;
    let login = match url.password() {
        Some(password) => Login::Password {
            user,
            password: decode(password)?.into(),
        },
        None if user.is_empty() => Login::None,
        None => Login::Token(user.into()),
    };
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some((url.as_str().parse().ok()?, login))
}

/// The text that was percent-encoded.
fn decode(text: &str) -> Option<String> {
    // The one decoder at hand is that of query pairs, to which '+' is a space and '&' an end.
    let pair = format!("text={}", text.replace('+', "%2B").replace('&', "%26"));
    let url = Url::parse(&format!("nats://host?{pair}")).ok()?;
    let (_, decoded) = url.query_pairs().next()?;
    Some(decoded.into_owned())
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    line(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nats(url: &str) -> Result<Nats, Error> {
        Nats::new(Settings {
            url: url.into(),
            credentials_file: None,
            ca_file: None,
            prefix: "catalog_sync".to_owned(),
        })
    }

    #[test]
    fn the_login_is_taken_out_of_the_url_and_decoded() {
        let nats = nats("nats://me:ca%40n+a&ry%2F@a:4333, tls://b").unwrap();
        let shown: Vec<&str> = nats.servers.iter().map(ServerAddr::as_url_str).collect();
        assert_eq!(shown, ["nats://a:4333", "tls://b"]);
        assert_eq!(&*nats.shown, "NATS at a:4333, b:4222");
        let Login::Password { user, password } = nats.login else {
            panic!("no password");
        };
        assert_eq!(
            (user.as_str(), password.expose_secret()),
            ("me", "ca@n+a&ry/")
        );
    }

    #[test]
    fn a_user_without_a_password_is_a_token() {
        let nats = nats("nats://canary@a").unwrap();
        assert!(matches!(nats.login, Login::Token(token) if token.expose_secret() == "canary"));
        assert_eq!(&*nats.shown, "NATS at a:4222");
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_being_told() {
        for url in [
            "",
            "canary",
            "http://me:canary@a",
            "nats://",
            "nats://me:canary@a:port",
            "nats://a,me:canary@b",
        ] {
            let error = nats(url).err().unwrap();
            assert!(matches!(&error, Error::Refused(told) if told.contains("nats://host:4222")));
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}
