//! A connection on loan, which goes back to the pool only when it is at rest.
//!
//! sqlx puts a connection back whatever it was doing when its future is dropped: with a transaction open if BEGIN was under
//! way, or with a peer that never answers. Here it goes back only after an answer to the last statement, COMMIT or ROLLBACK
//! in a transaction; else it is closed, and the database takes back what was not committed.

use std::ops::{Deref, DerefMut};

use sqlx::{Pool, pool::PoolConnection};

use super::{Connection, Db};
use crate::store::Error;

pub(super) struct Lent {
    connection: PoolConnection<Db>,
    at_rest: bool,
}

impl Lent {
    /// A connection for a single statement that only reads.
    pub(super) async fn plain(pool: &Pool<Db>) -> Result<Self, Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            at_rest: false,
        })
    }

    /// A connection within a transaction.
    pub(super) async fn within(pool: &Pool<Db>, begin: &'static str) -> Result<Self, Error> {
        let mut lent = Self::plain(pool).await?;
        let answer = sqlx::query::<Db>(begin).execute(&mut *lent).await;
        lent.at_rest = matches!(answer, Err(sqlx::Error::Database(_))); // Refused: nothing began.
        answer?;
        Ok(lent)
    }

    /// Gives back a plain connection.
    pub(super) fn end<T>(mut self, done: Result<T, Error>) -> Result<T, Error> {
        self.at_rest = match &done {
            Err(Error::Database(error)) => matches!(error, sqlx::Error::Database(_)),
            Ok(_) | Err(_) => true,
        };
        done
    }

    /// Commits if all went well, else takes everything back; then gives back the connection.
    pub(super) async fn settle<T>(mut self, done: Result<T, Error>) -> Result<T, Error> {
        let end = if done.is_ok() { "commit" } else { "rollback" };
        let ended = sqlx::query::<Db>(end).execute(&mut *self).await;
        self.at_rest = ended.is_ok();
        let done = done?;
        ended?;
        Ok(done)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.at_rest {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
