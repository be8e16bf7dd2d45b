//! What a run loads: the catalog and the project's state.

use super::{
    Connection, Db, holds,
    projects::{must_exist, unknown},
    rows::Row,
};
use crate::{
    catalog::{Catalog, Entry, Key, StoreId},
    clock::Instant,
    project::ProjectId,
    run::KeyHealth,
    store::{Error, State},
};

pub(super) async fn load_state(
    connection: &mut Connection,
    id: &ProjectId,
) -> Result<State, Error> {
    let row = sqlx::query::<Db>(
        "select s.project_id, s.revision, s.retries, s.key_worked_at, s.key_refused_since, s.key_refusals,
                s.covered_at, s.listed_with, s.marks, h.digest, h.reasons, h.removals, h.told_at
         from project_state s
         left join removal_holds h on h.project_id = s.project_id and h.ended_at is null
         where s.project_id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Err(unknown(connection, id).await);
    };
    read_state(&Row::new(&row, "project_state", &["project_id"]))
}

pub(super) fn read_state(row: &Row<'_>) -> Result<State, Error> {
    Ok(State {
        revision: row.value("revision")?,
        key_health: KeyHealth {
            worked_at: row.value("key_worked_at")?,
            refused_since: row.value("key_refused_since")?,
            refusals: row.integer("key_refusals")?,
        },
        hold: holds::read_standing(row)?,
        hold_is_untold: row.value::<Option<String>>("digest")?.is_some()
            && row.value::<Option<Instant>>("told_at")?.is_none(),
        retries: row.integer("retries")?,
        covered_at: row.json("covered_at")?,
        listed_with: row.json("listed_with")?,
        // Those that cannot be read, as of another version, are none: then all is compared.
        marks: row.optional_json("marks").unwrap_or_default(),
    })
}

pub(super) async fn load(connection: &mut Connection, id: &ProjectId) -> Result<Catalog, Error> {
    let rows = sqlx::query::<Db>(
        "select project_id, kind, store_id, parent_id, attributes, removed_at, absence from entries where project_id = $1",
    )
    .bind(id.as_str())
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        must_exist(connection, id).await?;
    }
    let mut catalog = Catalog::default();
    for row in &rows {
        let row = Row::new(row, "entry", &["project_id", "kind", "store_id"]);
        let entry = Entry {
            key: Key {
                kind: row.name("kind")?,
                store_id: row.text("store_id")?.into(),
            },
            parent: row.value::<Option<String>>("parent_id")?.map(StoreId::from),
            attributes: row.json("attributes")?,
        };
        if let Some(absence) = row.optional_json("absence")? {
            catalog.absent.insert(entry.key.clone(), absence);
        }
        let side = match row.value::<Option<Instant>>("removed_at")? {
            None => &mut catalog.present,
            Some(_) => &mut catalog.removed,
        };
        side.insert(entry.key.clone(), entry);
    }
    Ok(catalog)
}
