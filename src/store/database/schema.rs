//! Migrations: which there are, and applying those that lack.

use sqlx::{
    Connection as _, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{Connection, Db, sql};
use crate::store::{Error, Migration as Ours, Schema, Step};

type ConnectOptions = <Connection as sqlx::Connection>::Options;

/// Not sqlx's usual name: a Postgres database may be the host's too, with migrations of its own.
const TABLE: &str = "catalog_sync_migrations";

pub(super) async fn read(connection: &mut Connection) -> Result<Schema, Error> {
    let known = sql::MIGRATIONS
        .iter()
        .map(|(version, ..)| *version)
        .max()
        .unwrap_or(0);
    let tables: i64 = sqlx::query_scalar(sql::COUNT_MIGRATION_TABLES)
        .fetch_one(&mut *connection)
        .await?;
    let applied = if tables == 0 {
        0
    } else {
        sqlx::query_scalar("select coalesce(max(version), 0) from catalog_sync_migrations")
            .fetch_one(&mut *connection)
            .await?
    };
    Ok(Schema { applied, known })
}

/// Everything in one transaction, which no other migrator can share: two workers that start together do not meet halfway.
pub(super) async fn migrate(
    options: &ConnectOptions,
    tell: &(dyn Fn(Step) + Send + Sync),
) -> Result<Schema, Error> {
    let mut connection = Connection::connect_with(options).await?;
    let mut transaction = connection.begin_with(sql::BEGIN_WRITE).await?;
    sqlx::query::<Db>(sql::LOCK_MIGRATIONS)
        .execute(&mut *transaction)
        .await?;
    let before = read(&mut transaction).await?;
    if before.applied > before.known {
        return Err(Error::NewerSchema {
            applied: before.applied,
            known: before.known,
        });
    }
    let lacking: Vec<_> = sql::MIGRATIONS
        .iter()
        .filter(|(version, ..)| *version > before.applied)
        .collect();
    for (index, &&(version, name, _)) in lacking.iter().enumerate() {
        tell(Step {
            migration: Ours { version, name },
            number: index + 1,
            of: lacking.len(),
        });
        migrator(version)
            .run_direct(None, &mut *transaction, false)
            .await
            .map_err(|error| match error {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    Error::Database(error)
                }
                other => Error::Unusable(format!(
                    "the database's migrations are not this program's: {other}"
                )),
            })?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(before)
}

/// Applies those up to this one.
fn migrator(last: i64) -> Migrator {
    let migrations = sql::MIGRATIONS
        .iter()
        .filter(|(version, ..)| *version <= last)
        .map(|&(version, name, text)| {
            Migration::new(
                version,
                name.into(),
                MigrationType::Simple,
                text.into_sql_str(),
                false,
            )
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(TABLE);
    migrator.set_locking(false); // The transaction locks.
    migrator
}
