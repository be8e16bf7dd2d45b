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

mod changes;
mod connection;
mod requests;

use std::path::PathBuf;

use async_trait::async_trait;
use lapin::{ExchangeKind, uri::AMQPUri};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use self::{changes::Changes, connection::Connection, requests::Requests};
use super::{Consumer, Error, Publisher, Queue};

/// How often each side says that it is there, in seconds; after two silent ones the connection is lost.
const HEARTBEAT: u16 = 5;

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

    async fn connect(&self) -> Result<Connection, Error> {
        let uri = self.uri.clone();
        Connection::open(uri, self.ca_file.as_deref(), self.shown.clone()).await
    }
}

#[async_trait]
impl Queue for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    async fn find_absent(&self) -> Result<Vec<String>, Error> {
        let connection = self.connect().await?;
        let mut absent = Vec::new();
        for name in ["requests", "dead"].map(|name| format!("{}.{name}", self.prefix)) {
            if !connection.has_queue(&name).await? {
                absent.push(format!("the queue {name}"));
            }
        }
        let exchanges = [
            ("dead", ExchangeKind::Fanout),
            ("changes", ExchangeKind::Topic),
        ];
        for (name, kind) in exchanges {
            let name = format!("{}.{name}", self.prefix);
            if !connection.has_exchange(&name, kind).await? {
                absent.push(format!("the exchange {name}"));
            }
        }
        Ok(absent)
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, Error> {
        let connection = self.connect().await?;
        Ok(Box::new(Requests::open(connection, &self.prefix).await?))
    }

    async fn publish(&self) -> Result<Box<dyn Publisher>, Error> {
        let connection = self.connect().await?;
        Ok(Box::new(Changes::open(connection, &self.prefix).await?))
    }
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
