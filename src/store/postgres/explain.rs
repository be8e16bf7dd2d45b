//! What an error of Postgres, or on the way to it, means, and the way out.

use std::{fmt, io, time::Duration};

use sqlx::{
    error::DatabaseError,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::Mutex;

use super::try_connection;
use crate::store::{Disk, Error, Options};

/// The server and database, for messages.
pub(super) struct Place {
    connect: PgConnectOptions,
    connect_timeout: Duration,
    call_timeout: Duration,
    listener: Mutex<Option<PgListener>>,
}

/// What `sync_requests` tells when rows are inserted.
const INBOX_CHANNEL: &str = "catalog_sync_requests";

/// After so long without a word the connection is made anew.
const LISTENED_FOR: Duration = Duration::from_mins(5);

impl Place {
    pub(super) fn new(connect: PgConnectOptions, options: &Options) -> Self {
        Self {
            connect,
            connect_timeout: options.connect_timeout,
            call_timeout: options.call_timeout,
            listener: Mutex::new(None),
        }
    }

    /// Writers need no turns: rows are locked, not the database.
    #[expect(clippy::unused_self, reason = "the other database has turns")]
    pub(super) fn turn(&self, _begin: &str) -> std::future::Ready<()> {
        std::future::ready(())
    }

    /// It is the server's, which does not tell.
    #[expect(clippy::unused_self, reason = "the other database is a file")]
    pub(super) fn disk(&self) -> Option<Disk> {
        None
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Waits on a connection of its own. Once that is lost it is made anew, and what was told in between is missed.
    pub(super) async fn await_inbox(&self) -> Result<(), Error> {
        let mut listener = self.listener.lock().await;
        let waiting = async {
            let listener = match listener.as_mut() {
                Some(listener) => listener,
                None => listener.insert(self.listen().await?),
            };
            listener.try_recv().await
        };
        match tokio::time::timeout(LISTENED_FOR, waiting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                *listener = None;
                Err(self.explain(error).await)
            }
            // A peer that has gone without a word says nothing either.
            Err(_) => {
                *listener = None;
                Ok(())
            }
        }
    }

    async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.connect_timeout)
            .connect_lazy_with(self.connect.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(INBOX_CHANNEL).await?;
        Ok(listener)
    }

    pub(super) fn silent(&self, limit: Duration) -> Error {
        Error::Unavailable(format!(
            "{self} gave no answer within {limit:?}: check the network, and what the server is busy with"
        ))
    }

    /// Whether a connection can be had, apart from the pool, which tells no cause.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        match tokio::time::timeout(self.connect_timeout, try_connection(&self.connect)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.explain_known(error)),
            Err(_) => Err(self.silent(self.connect_timeout)),
        }
    }

    pub(super) async fn explain(&self, error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::PoolTimedOut => match self.probe().await {
                Ok(()) => Error::Unavailable(format!(
                    "no connection to {self} came free within {:?}: allow more connections, or find what holds them",
                    self.connect_timeout
                )),
                Err(error) => error,
            },
            error => self.explain_known(error),
        }
    }

    fn explain_known(&self, error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::Io(error) => self.explain_io(&error),
            sqlx::Error::Tls(error) => Error::Unavailable(format!(
                "{self} cannot be reached over TLS ({error}): for a private certificate authority name its file with \
                 'sslrootcert' in the URL; 'sslmode=disable' does without TLS on a network that you trust"
            )),
            sqlx::Error::Protocol(error) => Error::Unavailable(format!(
                "what answers at {self} ended the connection or does not speak as Postgres does ({error}): check host and \
                 port"
            )),
            sqlx::Error::Database(error) => self.explain_code(error),
            other => Error::Database(other),
        }
    }

    fn explain_io(&self, error: &io::Error) -> Error {
        let text = error.to_string();
        let cause = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "refuses the connection: start the server, or check host and port".to_owned()
            }
            io::ErrorKind::NotFound => {
                "has no socket there: start the server, or check the socket's folder".to_owned()
            }
            io::ErrorKind::TimedOut => {
                "does not answer: check the network and its firewall".to_owned()
            }
            _ if text.contains("lookup address") => {
                "cannot be found, for no such host is known: check the host's name".to_owned()
            }
            _ => format!("cannot be reached or ended the connection ({text})"),
        };
        Error::Unavailable(format!("{self} {cause}"))
    }

    /// Codes from <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn explain_code(&self, error: Box<dyn DatabaseError>) -> Error {
        let code = error.code().unwrap_or_default().into_owned();
        let user = self.connect.get_username();
        match code.as_str() {
            "28P01" => Error::Unavailable(format!(
                "{self} refuses the password of user '{user}': check user and password"
            )),
            "28000" => Error::Unavailable(format!(
                "{self} does not let user '{user}' in ({error}): check the user's name, and the server's pg_hba.conf"
            )),
            "3D000" => Error::Unavailable(format!(
                "{self} does not exist on that server: create it ('createdb'), or check the database's name"
            )),
            "42501" | "25006" => Error::Unusable(format!(
                "{self} does not let user '{user}' do this ({error}): grant the right, or use the database's owner for \
                 'catalog-sync migrate'"
            )),
            "55P03" | "57014" | "40001" | "40P01" => Error::Unavailable(format!(
                "{self} was too busy and did nothing ({error}): try again; if it goes on, find what holds the locks"
            )),
            "57P03" => Error::Unavailable(format!("{self} is starting or stopping ({error})")),
            code if code.starts_with("08") || code.starts_with("57P") => {
                Error::Unavailable(format!("{self} ended the connection ({error}): try again"))
            }
            code if code.starts_with("53") => Error::Unavailable(format!(
                "{self} is out of room for this ({error}): free disk, memory or connections"
            )),
            _ => Error::Database(sqlx::Error::Database(error)),
        }
    }
}

/// `the Postgres database 'catalog' at db.example.com:5432`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a name the server takes the user's.
        let database = self
            .connect
            .get_database()
            .unwrap_or_else(|| self.connect.get_username());
        write!(f, "the Postgres database '{database}' at ")?;
        match self.connect.get_socket() {
            Some(folder) => write!(f, "socket {}", folder.display()),
            None => write!(f, "{}:{}", self.connect.get_host(), self.connect.get_port()),
        }
    }
}
