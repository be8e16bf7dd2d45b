//! One connection: how it is made, what it says when it fails, and what both directions do over it.

use std::{fmt, sync::Arc};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event,
    jetstream::{
        self, Context,
        context::{CreateStreamErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind},
        message::PublishMessage,
        stream,
    },
};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Nats, address::Login};
use crate::queue::{Error, PATIENCE, line};

/// One connection, of use until it is lost for the first time.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) lost: CancellationToken,
    pub(super) shown: Arc<str>,
}

impl Nats {
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
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
                        tracing::debug!(
                            event = "broker.said",
                            dependency = "nats",
                            "{shown}: {event}"
                        );
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

impl Connection {
    /// Ends with the work, the connection or our patience, whichever ends first.
    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(self.gone()),
            done = timeout(PATIENCE, work) => done.unwrap_or_else(|_| {
                let seconds = PATIENCE.as_secs();
                Err(self.unavailable(&format!("no answer in {seconds} s; may the user do that?")))
            }),
        }
    }

    pub(super) fn gone(&self) -> Error {
        Error::Unavailable(format!("the connection to {} was lost", self.shown))
    }

    pub(super) fn unavailable(&self, what: &dyn fmt::Display) -> Error {
        Error::Unavailable(line(&format!("{} fails: {what}", self.shown)))
    }

    /// What `JetStream` says: an error of its own passes, any other stays until somebody acts.
    pub(super) fn said(&self, asked: &str, error: &jetstream::Error) -> Error {
        let told = line(&format!("{} refuses {asked}: {error}", self.shown));
        if error.code() >= 500 {
            Error::Unavailable(told)
        } else {
            Error::Refused(told)
        }
    }

    pub(super) fn no_jetstream(&self) -> Error {
        Error::Unavailable(format!(
            "{} does not answer for JetStream, which must be enabled on the server and for this account",
            self.shown
        ))
    }

    pub(super) async fn ensure_stream(&self, config: stream::Config) -> Result<(), Error> {
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
                tracing::debug!(
                    event = "broker.kept",
                    dependency = "nats",
                    stream = name,
                    "a stream is used as it is"
                );
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

    pub(super) async fn send(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<jetstream::context::PublishAckFuture, Error> {
        let sent = self.context.send_publish(subject, message).await;
        sent.map_err(|error| self.not_published(&error))
    }

    pub(super) fn not_published(&self, error: &PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Error::Refused(line(&format!(
                "{} takes no message of that size: {error}",
                self.shown
            ))),
            _ => self.unavailable(error),
        }
    }
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
