//! One connection: how it is made, what it says when it fails, and what both directions do over it.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use futures_util::future::try_join_all;
use lapin::{
    Channel, Confirmation, ConnectionProperties, ErrorKind, ExchangeKind, PublisherConfirm,
    options::{
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    tcp::{AsyncTcpStream, OwnedTLSConfig},
    types::{AMQPValue, FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::queue::{Error, PATIENCE, line};

/// A message that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

pub(super) struct Connection {
    broker: lapin::Connection,
    socket: Arc<Socket>,
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
        let socket = Arc::new(Socket::default());
        let opened = Arc::clone(&socket);
        let work = async {
            let runtime = lapin::runtime::default_runtime()?;
            let here = runtime.clone();
            let connect = async move |uri: AMQPUri, _| {
                let opening = async {
                    let address = (uri.authority.host.clone(), uri.authority.port);
                    let address = here.to_socket_addrs(address);
                    let stream = AsyncTcpStream::connect(&here, address).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        opened.keep(plain.get_ref().as_fd().try_clone_to_owned()?.into());
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => {
                            stream.into_tls(&uri.authority.host, tls.as_ref()).await
                        }
                    }
                };
                let stream: io::Result<_> = opened.unless_given_up(Box::pin(opening)).await;
                Ok(stream?)
            };
            lapin::Connection::connector(uri, runtime, connect, options).await
        };
        let work = async {
            work.await.map_err(|error| match refusal(&error) {
                Some(403) => Error::Refused(format!(
                    "{shown} refuses the user or the password: check rabbitmq.url"
                )),
                Some(_) => Error::Refused(line(&format!("{shown} refuses: {error}"))),
                None => Error::Unavailable(line(&format!("{shown} cannot be reached: {error}"))),
            })
        };
        let broker = socket.bounded(&shown, work).await?;
        Ok(Self {
            broker,
            socket,
            shown,
        })
    }

    pub(super) async fn bounded<T>(
        &self,
        work: impl AsyncFnOnce(&lapin::Connection) -> lapin::Result<T>,
    ) -> Result<T, Error> {
        let work = async {
            work(&self.broker)
                .await
                .map_err(|error| self.failed(&error))
        };
        self.socket.bounded(&self.shown, work).await
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

/// The socket of a connection. The library waits for its broker on a thread of its own, also when nobody wants the answer any
/// more: the thread, the socket and its buffers would stay for as long as a broker that fell silent stays silent.
#[derive(Default)]
struct Socket {
    stream: OnceLock<TcpStream>,
    given_up: CancellationToken,
}

impl Socket {
    /// Ends with the work or our patience, whichever ends first. After the latter the connection is of no more use.
    async fn bounded<T>(
        &self,
        shown: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(PATIENCE, work).await.unwrap_or_else(|_| {
            self.hang_up();
            let seconds = PATIENCE.as_secs();
            Err(Error::Unavailable(format!(
                "{shown} fails: no answer in {seconds} s"
            )))
        })
    }

    fn keep(&self, stream: TcpStream) {
        self.stream.get_or_init(|| stream);
    }

    async fn unless_given_up<T>(
        &self,
        opening: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let opened = self.given_up.run_until_cancelled(opening).await;
        opened
            .filter(|_| !self.given_up.is_cancelled())
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn hang_up(&self) {
        self.given_up.cancel();
        if let Some(stream) = self.stream.get()
            && let Err(error) = stream.shutdown(Shutdown::Both)
        {
            tracing::debug!(event = "broker.gone", dependency = "rabbitmq", error.sentence = %error, "the connection was over already");
        }
    }
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

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{Ipv4Addr, TcpListener},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn a_broker_that_falls_silent_is_hung_up_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, first_bytes) = tokio::sync::oneshot::channel();
        let silent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let limit = Duration::from_mins(1);
            stream.set_read_timeout(Some(limit)).unwrap();
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).unwrap();
            heard.send(greeting).unwrap();
            stream.read(&mut greeting)
        });

        let uri = format!("amqp://127.0.0.1:{port}").parse().unwrap();
        let opening = Connection::open(uri, None, "RabbitMQ".to_owned());
        let hearing = async {
            let said = first_bytes.await.unwrap();
            tokio::time::pause(); // Nothing else will happen: patience runs out at once.
            said
        };
        let (opened, said) = tokio::join!(opening, hearing);

        assert_eq!(&said, b"AMQP\0\0\x09\x01");
        let told = opened.err().unwrap().to_string();
        assert_eq!(told, "RabbitMQ fails: no answer in 10 s");
        let left = tokio::task::spawn_blocking(|| silent.join().unwrap());
        assert_eq!(left.await.unwrap().unwrap(), 0, "it was not hung up");
    }
}
