//! What stands in the database, read with statements of the tests' own.

use std::time::Duration;

use catalog_sync::clock::Instant;
use sqlx::{
    Connection as _, FromRow, PgConnection, SqliteConnection,
    postgres::{PgConnectOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteRow},
};

/// A connection of one's own.
pub(super) enum Tables {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A project in a worker's hands.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) project_id: String,
    pub(super) epoch: i64,
    pub(super) lease_worker: String,
    pub(super) losses: i64,
}

/// A run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) project_id: String,
    pub(super) key_id: String,
    pub(super) epoch: i64,
    pub(super) started_at: Instant,
    pub(super) finished_at: Instant,
    pub(super) revision: i64,
    pub(super) outcome: String,
    pub(super) trigger: String,
    pub(super) slot_at: Option<Instant>,
}

/// A row of the change log, as far as its place goes.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) project_id: String,
    pub(super) revision: i64,
    /// `<run_id>-<seq>`
    pub(super) id: String,
    /// Of the run that wrote it.
    pub(super) epoch: i64,
    pub(super) op: String,
    pub(super) store_id: String,
}

impl Tables {
    pub(super) async fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let options: SqliteConnectOptions = url.parse().unwrap();
            let options = options.busy_timeout(Duration::from_mins(1));
            Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
        } else {
            let options: PgConnectOptions = url.parse().unwrap();
            let options = options.application_name("story");
            Self::Postgres(PgConnection::connect_with(&options).await.unwrap())
        }
    }

    async fn rows<T>(&mut self, sql: &'static str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        match self {
            Self::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await,
        }
        .unwrap()
    }

    async fn count(&mut self, sql: &'static str) -> i64 {
        let [(count,)] = self.rows(sql).await[..] else {
            panic!("one row is expected of: {sql}");
        };
        count
    }

    /// Asks for a sync as the host does.
    pub(super) async fn ask(&mut self, project: &str) -> Result<(), sqlx::Error> {
        let sql = "insert into sync_requests (project_id) values ($1)";
        match self {
            Self::Sqlite(connection) => {
                let asked = sqlx::query(sql).bind(project).execute(connection).await;
                asked.map(drop)
            }
            Self::Postgres(connection) => {
                let asked = sqlx::query(sql).bind(project).execute(connection).await;
                asked.map(drop)
            }
        }
    }

    /// Begins to write and lets nobody else write until [`Tables::unlock`].
    pub(super) async fn lock(&mut self) {
        self.execute("begin immediate").await;
    }

    pub(super) async fn unlock(&mut self) {
        self.execute("rollback").await;
    }

    async fn execute(&mut self, sql: &'static str) {
        match self {
            Self::Sqlite(connection) => sqlx::query(sql).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::query(sql).execute(connection).await.map(drop),
        }
        .unwrap();
    }

    /// What SQLite finds wrong with its file: "ok" if nothing. Postgres has no such question.
    pub(super) async fn integrity(&mut self) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar("pragma integrity_check")
                .fetch_all(connection)
                .await
                .unwrap(),
            Self::Postgres(_) => vec!["ok".to_owned()],
        }
    }

    /// Changes without the run that wrote them, and projects whose revision is not that of their latest change.
    pub(super) async fn partial_runs(&mut self) -> i64 {
        self.count(
            "select (select count(*) from catalog_changes c
                     where not exists (select 1 from sync_runs r where r.run_id = c.run_id))
                  + (select count(*) from project_status s
                     where s.revision <> (select coalesce(max(c.revision), 0) from catalog_changes c
                                          where c.project_id = s.project_id))",
        )
        .await
    }

    /// Ends the sessions of all others, and gives how many there were.
    pub(super) async fn end_sessions(&mut self) -> i64 {
        self.count(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where backend_type = 'client backend' and application_name <> 'story'",
        )
        .await
    }

    /// All projects that are in somebody's hands.
    pub(super) async fn held(&mut self) -> Vec<Held> {
        let sql = "select project_id, epoch, lease_worker, losses from project_state where lease_token is not null";
        let rows: Vec<(String, i64, String, i64)> = self.rows(sql).await;
        rows.into_iter()
            .map(|(project_id, epoch, lease_worker, losses)| Held {
                project_id,
                epoch,
                lease_worker,
                losses,
            })
            .collect()
    }

    /// When each project's latest run began.
    pub(super) async fn latest_starts(&mut self) -> Vec<(String, Instant)> {
        self.rows("select project_id, max(started_at) from sync_runs group by project_id")
            .await
    }

    /// Revisions that a broker is yet to be told of.
    pub(super) async fn untold(&mut self) -> i64 {
        self.count("select count(*) from outbox").await
    }

    /// Projects that are left alone because their runs lost their workers.
    pub(super) async fn set_aside(&mut self) -> Vec<String> {
        let sql = "select project_id from project_status where set_aside_at is not null";
        let rows: Vec<(String,)> = self.rows(sql).await;
        rows.into_iter().map(|(project,)| project).collect()
    }

    /// Slots that have more than one run.
    pub(super) async fn doubled_slots(&mut self) -> Vec<(String, Instant, i64)> {
        self.rows(
            "select project_id, slot_at, count(*) from sync_runs where slot_at is not null
             group by project_id, slot_at having count(*) > 1",
        )
        .await
    }

    /// The index that keeps a slot from having two.
    pub(super) async fn has_slot_index(&mut self) -> bool {
        let sql = match self {
            Self::Sqlite(_) => {
                "select count(*) from sqlite_schema where name = 'runs_by_slot' and sql like '%unique%'"
            }
            Self::Postgres(_) => {
                "select count(*) from pg_indexes where indexname = 'runs_by_slot' and indexdef ilike '%unique%'"
            }
        };
        self.count(sql).await == 1
    }

    /// Every run, by project and epoch.
    pub(super) async fn runs(&mut self) -> Vec<Run> {
        type Row = (
            String,
            String,
            i64,
            Instant,
            Instant,
            i64,
            String,
            String,
            Option<Instant>,
        );
        let rows: Vec<Row> = self
            .rows(
                "select r.project_id, p.key_id, r.epoch, r.started_at, r.finished_at, r.revision, r.outcome,
                        r.trigger, r.slot_at
                 from sync_runs r join project_status p on p.project_id = r.project_id
                 order by r.project_id, r.epoch",
            )
            .await;
        rows.into_iter()
            .map(|row| Run {
                project_id: row.0,
                key_id: row.1,
                epoch: row.2,
                started_at: row.3,
                finished_at: row.4,
                revision: row.5,
                outcome: row.6,
                trigger: row.7,
                slot_at: row.8,
            })
            .collect()
    }

    /// The change log, in the order of each project.
    pub(super) async fn changes(&mut self) -> Vec<Logged> {
        type Row = (String, i64, String, i64, i64, String, String);
        let rows: Vec<Row> = self
            .rows(
                "select c.project_id, c.revision, c.run_id, c.seq, r.epoch, c.op, c.store_id
                 from catalog_changes c join sync_runs r on r.run_id = c.run_id
                 order by c.project_id, c.seq",
            )
            .await;
        rows.into_iter()
            .map(|row| Logged {
                project_id: row.0,
                revision: row.1,
                id: format!("{}-{}", row.2, row.3),
                epoch: row.4,
                op: row.5,
                store_id: row.6,
            })
            .collect()
    }
}
