//! SQLite: one file, one host, several processes.
//!
//! What must hold throughout: write-ahead log, `synchronous = FULL`, foreign keys on; a writer says so when it begins, so
//! that it waits its turn instead of failing halfway; a file that others on the host cannot read, for it holds sealed keys.

mod file;
mod sql;

#[path = "../database/mod.rs"]
mod database;

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use self::database::Database;
pub(super) use self::sql::MIGRATIONS;
use super::{Disk, Error, Missing, Options, SLOW_STATEMENT, Store};

type Db = Sqlite;

/// Each connection is a thread, and only one of them writes at a time.
pub(super) const MOST_CONNECTIONS: u32 = 4;

/// After so many pages, 1 MiB, the write-ahead log is carried over into the file. SQLite's own 1,000 are as much as a small disk
/// has: on it the log would take the room that the file needs to take the log.
const LOG_PAGES: &str = "256";

/// Earlier ones can corrupt a database whose write-ahead log is reset while another process reads it.
const OLDEST_LIBRARY: (u32, u32, u32) = (3, 51, 3);

/// How long a writer waits for others of its process, beyond the time that the file may be busy.
const TURN: Duration = Duration::from_secs(30);

const BETWEEN_CHECKS: Duration = Duration::from_millis(10);

/// So that a write-ahead log that once grew gives the disk back.
const JOURNAL_SIZE_LIMIT_BYTES: &str = "67108864";

pub(super) fn is_absent(url: &str) -> Result<bool, Error> {
    Ok(!parse(url)?.get_filename().exists())
}

fn parse(url: &str) -> Result<SqliteConnectOptions, Error> {
    SqliteConnectOptions::from_str(url)
        .map_err(|error| Error::Unusable(format!("the database's URL cannot be read: {error}")))
}

pub(super) async fn open(url: &str, options: &Options) -> Result<Arc<dyn Store>, Error> {
    let parsed = parse(url)?;
    let path = parsed.get_filename().to_owned();
    if path.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
        return Err(Error::Unusable(
            "the database's URL names no file, and a database in memory would be empty after each start: name one, as in \
             'sqlite:catalog.db'"
                .to_owned(),
        ));
    }
    let (prepared, missing) = (path.clone(), options.missing);
    tokio::task::spawn_blocking(move || file::prepare(&prepared, missing))
        .await
        .map_err(|error| {
            Error::Unusable(format!("looking at '{}' failed: {error}", path.display()))
        })??;

    let place = Place {
        path,
        busy_timeout: options.busy_timeout,
        writer: Mutex::new(()),
    };
    if options.missing == Missing::Refused {
        match is_ours(&parsed, options).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::Unusable(format!(
                    "'{}' is not a database of catalog-sync: 'catalog-sync init' or 'migrate' makes it one, if it is the \
                     right file",
                    place.path.display()
                )));
            }
            Err(error) => return Err(place.explain(error).await),
        }
    }
    let connect = parsed
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .log_slow_statements(log::LevelFilter::Debug, SLOW_STATEMENT)
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES)
        .pragma("wal_autocheckpoint", LOG_PAGES)
        // A sealed key that was replaced or removed is overwritten, and not left in the file.
        .pragma("secure_delete", "on");
    let pool_of = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(options.connect_timeout + options.busy_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(connect.clone())
    };
    let pool = pool_of(options.max_connections.clamp(1, MOST_CONNECTIONS));
    let version = match check(&pool, options.busy_timeout).await {
        Ok(version) => version,
        Err(error) => return Err(place.explain(error).await),
    };
    if !is_recent(&version) {
        let (major, minor, micro) = OLDEST_LIBRARY;
        return Err(Error::Unusable(format!(
            "SQLite {version} can corrupt a database that several processes share: build catalog-sync with SQLite \
             {major}.{minor}.{micro} or newer"
        )));
    }
    Ok(Arc::new(Database::new(pool, pool_of(1), place, options)))
}

/// Whether the file is a database of catalog-sync, found out without changing anything of it.
async fn is_ours(connect: &SqliteConnectOptions, options: &Options) -> Result<bool, sqlx::Error> {
    let connect = connect
        .clone()
        .read_only(true)
        .busy_timeout(options.busy_timeout);
    let mut connection = SqliteConnection::connect_with(&connect).await?;
    let migrated = sqlx::query_scalar::<_, i64>(sql::COUNT_MIGRATION_TABLES)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(migrated > 0)
}

/// Reads the file, and gives the library's version.
///
/// The first connection to a new file turns its write-ahead log on. For that SQLite needs the file alone, and when several
/// processes try at once it refuses all but one without waiting; so it is tried again.
async fn check(pool: &SqlitePool, patience: Duration) -> Result<String, sqlx::Error> {
    let began = Instant::now();
    loop {
        // The second column makes SQLite read the file.
        let checked = sqlx::query_as::<_, (String, i64)>(
            "select sqlite_version(), (select count(*) from sqlite_schema)",
        )
        .fetch_one(pool)
        .await;
        match checked {
            Ok((version, _)) => return Ok(version),
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && began.elapsed() < patience => {
                tokio::time::sleep(BETWEEN_CHECKS).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= OLDEST_LIBRARY
}

/// The file.
struct Place {
    path: PathBuf,
    busy_timeout: Duration,
    /// Writers of this process take turns here, in order; SQLite lets those that wait for a file try again by chance.
    writer: Mutex<()>,
}

impl Place {
    /// The right to write, for who begins a transaction that does.
    async fn turn(&self, begin: &str) -> Option<MutexGuard<'_, ()>> {
        if begin == sql::BEGIN_WRITE {
            Some(self.writer.lock().await)
        } else {
            None
        }
    }

    /// A file answers, or the busy timeout does; but writers of this process wait for each other too.
    fn call_timeout(&self) -> Duration {
        self.busy_timeout + TURN
    }

    /// Nobody tells of what is written to a file.
    async fn await_inbox(&self) -> Result<(), Error> {
        std::future::pending().await
    }

    /// What is known of the disk. One that cannot be looked at tells nothing here: SQLite says why it cannot be used.
    fn disk(&self) -> Option<Disk> {
        file::disk(folder(&self.path))
    }

    fn silent(&self, limit: Duration) -> Error {
        Error::Unavailable(format!(
            "the database file '{}' gave no answer within {limit:?}",
            self.path.display()
        ))
    }

    /// What an error of SQLite means, and the way out.
    #[expect(
        clippy::unused_async,
        reason = "the other database asks again to learn the cause"
    )]
    async fn explain(&self, error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::PoolTimedOut => self.busy(),
            sqlx::Error::Database(error) => self.explain_code(error),
            other => Error::Database(other),
        }
    }

    fn explain_code(&self, error: Box<dyn DatabaseError>) -> Error {
        let path = self.path.display();
        match result_code(&*error) {
            _ if is_busy(&*error) => self.busy(),
            Some(10) => Error::Unavailable(format!(
                "reading or writing the database file '{path}' failed ({error}): check the disk"
            )),
            Some(13) => Error::Unavailable(format!(
                "the disk that holds the database file '{path}' is full: make room; nothing was left half written"
            )),
            Some(11 | 26) => Error::Unusable(format!(
                "the file '{path}' is not a SQLite database, or is damaged ({error}): name another file, or put back a \
                 backup"
            )),
            Some(3 | 8 | 14 | 23) => Error::Unusable(format!(
                "the database file '{path}' cannot be opened for writing ({error}): give this user the right to write it \
                 and the folder '{}', in which SQLite keeps its log beside the file",
                folder(&self.path).display()
            )),
            _ => Error::Database(sqlx::Error::Database(error)),
        }
    }

    fn busy(&self) -> Error {
        Error::Unavailable(format!(
            "the database file '{}' is locked: another process has held it for more than {:?}; end what holds it (a backup, a \
             shell with an open transaction, many processes of catalog-sync at once), or try again",
            self.path.display(),
            self.busy_timeout
        ))
    }
}

/// What failed; the rest of the extended code says more: <https://www.sqlite.org/rescode.html>.
fn result_code(error: &dyn DatabaseError) -> Option<u32> {
    error.code()?.parse().ok().map(|code: u32| code & 0xff)
}

/// Whether another connection has locked what this one needs.
fn is_busy(error: &dyn DatabaseError) -> bool {
    matches!(result_code(error), Some(5 | 6))
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::is_recent;

    #[test]
    fn a_library_that_can_corrupt_a_database_is_refused() {
        for (version, recent) in [
            ("3.51.3", true),
            ("3.51.10", true),
            ("3.52.0", true),
            ("4.0", true),
            ("3.51.2", false),
            ("3.9.99", false),
            ("", false),
        ] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
