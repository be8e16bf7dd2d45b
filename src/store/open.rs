//! From a URL to a store.

use std::{sync::Arc, time::Duration};

use super::{Error, Migration, Store, postgres, sqlite};
use crate::metrics::Metrics;

/// How long to wait for a database, and how many connections to hold.
#[derive(Clone, Debug)]
pub struct Options {
    /// SQLite: what to do when there is no file.
    pub missing: Missing,
    /// This worker's name, for people: leases and runs are marked with it, and nothing is decided by it.
    pub worker: String,
    /// Where waits for connections and refused writes are counted.
    pub metrics: Metrics,
    /// How many connections at most. SQLite gets by with four: each is a thread, and one writes at a time.
    pub max_connections: u32,
    /// How long to wait for a connection, new or free.
    pub connect_timeout: Duration,
    /// SQLite: how long to wait while another process writes.
    pub busy_timeout: Duration,
    /// Postgres: how long to wait for a row that another connection has locked.
    pub lock_timeout: Duration,
    /// Postgres: how long the server works on one statement.
    pub statement_timeout: Duration,
    /// Postgres: how long a method of the store waits for a server that may have fallen silent. Migrations are exempt.
    pub call_timeout: Duration,
    /// Postgres: after how long the server ends a connection that sits within a transaction.
    pub idle_in_transaction_timeout: Duration,
    /// How long the end of a run that changed nothing waits for others to be written with it, while there are such.
    pub gather: Duration,
}

/// What to do when there is no SQLite file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Make one.
    Made,
    /// Refuse, and say how one is made: an empty database in the wrong folder answers every question wrongly.
    Refused,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            missing: Missing::Made,
            worker: String::new(),
            metrics: Metrics::default(),
            max_connections: 10,
            connect_timeout: Duration::from_secs(5),
            busy_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(12),
            idle_in_transaction_timeout: Duration::from_secs(10),
            gather: Duration::ZERO,
        }
    }
}

/// Which database a URL names.
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn of(url: &str) -> Result<Self, Error> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            // What is no scheme is not quoted: the rest of a URL can hold a password.
            _ => Err(Error::Unusable(
                "the database's URL must begin with 'sqlite:', as in 'sqlite:catalog.db', or with 'postgres://', as in \
                 'postgres://user@host/database'"
                    .to_owned(),
            )),
        }
    }
}

/// The migrations that this version has, in order; they are the same for both databases.
pub fn migrations() -> impl Iterator<Item = Migration> {
    let migrations = sqlite::MIGRATIONS.iter();
    migrations.map(|&(version, name, _)| Migration { version, name })
}

/// Whether the URL names a SQLite file that is not there yet.
///
/// # Errors
/// When the URL cannot be read.
pub fn is_absent(url: &str) -> Result<bool, Error> {
    match Dialect::of(url)? {
        Dialect::Sqlite => sqlite::is_absent(url),
        Dialect::Postgres => Ok(false),
    }
}

/// Connects to the database that the URL names: `sqlite:<file>`, which is made if there is none and [`Options::missing`] allows, or
/// `postgres://<user>@<host>/<database>`. Leaves the schema as it is: see [`Store::schema`] and [`Store::migrate`].
///
/// # Errors
/// [`Error::Unavailable`] where trying again can help, else [`Error::Unusable`]. No message holds the URL or a password.
pub async fn open(url: &str, options: &Options) -> Result<Arc<dyn Store>, Error> {
    match Dialect::of(url)? {
        Dialect::Sqlite => sqlite::open(url, options).await,
        Dialect::Postgres => postgres::open(url, options).await,
    }
}

/// Connects as [`open`] does to a database whose schema is this version's: a SQLite file is migrated, for it belongs to
/// this host alone; a Postgres database, which others may be using, must have been.
///
/// # Errors
/// As [`open`], and [`Error::OlderSchema`] or [`Error::NewerSchema`]; [`Error::Unusable`] for an SQLite file that
/// was never migrated, unless one may be made.
pub async fn open_migrated(url: &str, options: &Options) -> Result<Arc<dyn Store>, Error> {
    let store = open(url, options).await?;
    let schema = store.schema().await?;
    if schema.applied > schema.known {
        return Err(Error::NewerSchema {
            applied: schema.applied,
            known: schema.known,
        });
    }
    if schema.applied < schema.known {
        match Dialect::of(url)? {
            // A question put to somebody else's file must not change it.
            Dialect::Sqlite if schema.applied == 0 && options.missing == Missing::Refused => {
                return Err(Error::Unusable(
                    "this is not a database of catalog-sync: 'catalog-sync init' or 'migrate' makes it one, if it is the right \
                     file"
                        .to_owned(),
                ));
            }
            Dialect::Sqlite => store.migrate().await?,
            Dialect::Postgres => {
                return Err(Error::OlderSchema {
                    applied: schema.applied,
                    known: schema.known,
                });
            }
        };
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::{migrations, postgres};

    #[test]
    fn both_databases_have_the_same_migrations_numbered_from_1() {
        let of_sqlite: Vec<_> = migrations().map(|it| (it.version, it.name)).collect();
        let of_postgres = postgres::MIGRATIONS
            .iter()
            .map(|&(version, name, _)| (version, name));
        assert_eq!(of_sqlite, of_postgres.collect::<Vec<_>>());
        assert!(
            of_sqlite
                .iter()
                .zip(1..)
                .all(|((version, _), number)| *version == number)
        );
    }
}
