//! What a write needs: connections, and the database's way to time and explain what it does.

use std::{future::Future, sync::Arc};

use sqlx::Pool;

use super::{Db, Place};
use crate::{metrics::Metrics, store::Error};

/// What a write needs. Clones write to the same database.
#[derive(Clone)]
pub(in super::super) struct Writer {
    pub(super) pool: Pool<Db>,
    pub(super) place: Arc<Place>,
    pub(super) worker: Arc<str>,
    pub(super) metrics: Metrics,
}

impl Writer {
    /// Waits for the work no longer than this database may take, and puts its errors into words.
    pub(super) async fn deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.in_time(work).await {
            Err(error @ Error::LeaseLost { .. }) => {
                self.metrics.count_fenced_write();
                Err(error)
            }
            Err(error) => Err(self.explain(error).await),
            done => done,
        }
    }

    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.place.call_timeout();
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(self.place.silent(limit)))
    }

    pub(super) async fn explain(&self, error: Error) -> Error {
        match error {
            Error::Database(error) => self.place.explain(error).await,
            other => other,
        }
    }
}
