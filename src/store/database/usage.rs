//! What was spent of a key's hourly budget, of which other projects may live too.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Connection, Db, projects::unknown, rows::Row, sql};
use crate::{
    budget::Ledger,
    clock::Instant,
    project::ProjectId,
    store::{Error, Spent},
};

/// What a project's run spent.
pub(super) struct Bill {
    pub(super) project: ProjectId,
    pub(super) spent: Spent,
    /// Before when another run is no use, where Apple said so.
    pub(super) blocked_until: Option<Instant>,
    pub(super) at: Instant,
}

/// Books what was spent, for each key what all its projects did.
pub(super) async fn record(connection: &mut Connection, bills: &[&Bill]) -> Result<(), Error> {
    let projects: Vec<_> = bills
        .iter()
        .map(|bill| json!({ "id": bill.project }))
        .collect();
    let rows = sqlx::query::<Db>(sql::LOCK_USAGES)
        .bind(sql::json(&projects))
        .fetch_all(&mut *connection)
        .await?;
    let mut ledgers = BTreeMap::new();
    for row in &rows {
        let row = Row::new(row, "key_usage", &["key_id"]);
        let project: ProjectId = row.name("project_id")?;
        // One that cannot be read, as of a newer version, is begun anew: Apple's next answer tells the truth.
        let ledger: &mut Ledger = ledgers
            .entry(row.text("key_id")?)
            .or_insert_with(|| row.json("ledger").unwrap_or_default());
        for bill in bills.iter().filter(|bill| bill.project == project) {
            let Spent { requests, budget } = bill.spent;
            ledger.record(bill.at, requests, budget, bill.blocked_until);
        }
    }
    let ledgers: Vec<_> = ledgers
        .iter()
        .map(|(key_id, ledger)| json!({ "key_id": key_id, "ledger": ledger }))
        .collect();
    sqlx::query::<Db>(concat!(
        "update key_usage as u set ledger = a.new_ledger
         from (select value ->> 'key_id' as key_id, value -> 'ledger' as new_ledger from ",
        sql::each!("$1"),
        ") as a where u.key_id = a.key_id"
    ))
    .bind(sql::json(&ledgers))
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
