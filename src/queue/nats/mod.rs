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

mod address;
mod changes;
mod connection;
mod requests;

use std::{path::PathBuf, sync::Arc};

use async_nats::ServerAddr;
use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};

use self::{
    address::{Login, parse_server},
    changes::Changes,
    requests::Requests,
};
use super::{Consumer, Error, Publisher, Queue};

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
}

#[async_trait]
impl Queue for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn find_absent(&self) -> Result<Vec<String>, Error> {
        let connection = self.connect().await?;
        let mut absent = Vec::new();
        for (stream, _) in [
            self.names.requests(),
            self.names.dead(),
            self.names.changes(),
        ] {
            let has = connection.has_stream(&stream);
            if !connection.bounded(has).await? {
                absent.push(format!("the stream {stream}"));
            }
        }
        Ok(absent)
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, Error> {
        let connection = self.connect().await?;
        Ok(Box::new(Requests::open(connection, &self.names).await?))
    }

    async fn publish(&self) -> Result<Box<dyn Publisher>, Error> {
        let connection = self.connect().await?;
        Ok(Box::new(Changes::open(connection, &self.names).await?))
    }
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
