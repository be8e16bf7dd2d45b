//! What was spent of a key's hourly budget, of which other projects may live too.

use super::{Connection, Db, projects::unknown, rows::Row, sql};
use crate::{
    budget::Ledger,
    clock::Instant,
    project::ProjectId,
    store::{Error, Spent},
};

pub(super) async fn record(
    connection: &mut Connection,
    project: &ProjectId,
    spent: &Spent,
    blocked_until: Option<Instant>,
    now: Instant,
) -> Result<(), Error> {
    let row = sqlx::query::<Db>(sql::LOCK_USAGE)
        .bind(project.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let row = Row::new(&row, "key_usage", &["key_id"]);
    // One that cannot be read, as of a newer version, is begun anew: Apple's next answer tells the truth.
    let mut ledger: Ledger = row.json("ledger").unwrap_or_default();
    ledger.record(now, spent.requests, spent.budget, blocked_until);
    sqlx::query::<Db>("update key_usage set ledger = $2 where key_id = $1")
        .bind(row.text("key_id")?)
        .bind(sql::json(&ledger))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn load(
    connection: &mut Connection,
    project: &ProjectId,
) -> Result<Ledger, Error> {
    let row = sqlx::query::<Db>(
        "select k.key_id, u.ledger from api_keys k left join key_usage u on u.key_id = k.key_id where k.project_id = $1",
    )
    .bind(project.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    match row {
        // As where it is written.
        Some(row) => Ok(Row::new(&row, "key_usage", &["key_id"])
            .optional_json("ledger")
            .unwrap_or_default()
            .unwrap_or_default()),
        None => Err(unknown(connection, project).await),
    }
}
