//! What is known of master keys, and keys sealed anew.

use super::{Connection, Db, rows::Row, sql};
use crate::{
    clock::Instant,
    project::{ProjectId, SealedKey},
    store::{Error, KnownMasterKey, Resealed, SealedWith},
};

pub(super) async fn list(connection: &mut Connection) -> Result<Vec<KnownMasterKey>, Error> {
    let rows = sqlx::query::<Db>(
        "select m.master_key_id, c.check_value, m.api_keys, m.first_seen_at, m.retired_at
         from master_keys m left join master_key_checks c on c.id = m.master_key_id
         order by m.first_seen_at is null, m.first_seen_at, m.master_key_id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "master key", &["master_key_id"]);
            Ok(KnownMasterKey {
                id: row.text("master_key_id")?,
                check_value: row.value("check_value")?,
                api_keys: row.integer("api_keys")?,
                first_seen_at: row.value("first_seen_at")?,
                retired_at: row.value("retired_at")?,
            })
        })
        .collect()
}

/// What is known already of an id stays, and is given.
pub(super) async fn note(
    connection: &mut Connection,
    id: &str,
    check_value: &str,
    now: Instant,
) -> Result<String, Error> {
    sqlx::query::<Db>(
        "insert into master_key_checks (id, check_value, first_seen_at) values ($1, $2, $3) on conflict (id) do nothing",
    )
    .bind(id)
    .bind(check_value)
    .bind(sql::instant(now))
    .execute(&mut *connection)
    .await?;
    let known =
        sqlx::query_scalar::<Db, String>("select check_value from master_key_checks where id = $1")
            .bind(id)
            .fetch_one(connection)
            .await?;
    Ok(known)
}

/// The row is locked first, as by [`refuse_retired`]: what is sealed with the key meanwhile is counted, or refused.
pub(super) async fn retire(
    connection: &mut Connection,
    id: &str,
    now: Instant,
) -> Result<(), Error> {
    let known = sqlx::query::<Db>(
        "update master_key_checks set retired_at = coalesce(retired_at, $2) where id = $1",
    )
    .bind(id)
    .bind(sql::instant(now))
    .execute(&mut *connection)
    .await?;
    if known.rows_affected() == 0 {
        return Err(Error::UnknownMasterKey(id.to_owned()));
    }
    let api_keys =
        sqlx::query_scalar::<Db, i64>("select count(*) from api_keys where master_key_id = $1")
            .bind(id)
            .fetch_one(connection)
            .await?;
    if api_keys > 0 {
        return Err(Error::MasterKeyInUse {
            id: id.to_owned(),
            api_keys: api_keys.unsigned_abs(),
        });
    }
    Ok(())
}

/// Fails when the master key was retired; until the end of the transaction it is not.
pub(super) async fn refuse_retired(connection: &mut Connection, id: &str) -> Result<(), Error> {
    let retired = sqlx::query_scalar::<Db, bool>(sql::IS_RETIRED)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    match retired {
        Some(true) => Err(Error::MasterKeyRetired(id.to_owned())),
        // One that was never noted cannot have been retired.
        Some(false) | None => Ok(()),
    }
}

pub(super) async fn list_sealed(
    connection: &mut Connection,
    with: SealedWith<'_>,
    after: Option<&ProjectId>,
    most: u32,
) -> Result<Vec<(ProjectId, SealedKey)>, Error> {
    let (id, is_this) = match with {
        SealedWith::This(id) => (id, true),
        SealedWith::AnyBut(id) => (id, false),
    };
    let rows = sqlx::query::<Db>(
        "select project_id, key_id, issuer_id, master_key_id, sealed from api_keys
         where (master_key_id = $1) = $2 and project_id > $3 order by project_id limit $4",
    )
    .bind(id)
    .bind(is_this)
    .bind(after.map_or("", ProjectId::as_str))
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "API key", &["project_id"]);
            let key = SealedKey {
                key_id: row.text("key_id")?,
                issuer_id: row.value("issuer_id")?,
                master_key_id: row.text("master_key_id")?,
                sealed: row.value("sealed")?,
            };
            Ok((row.name("project_id")?, key))
        })
        .collect()
}

/// Those that were replaced or removed meanwhile are left alone. In the order of their projects, as every other batch does.
pub(super) async fn reseal(connection: &mut Connection, keys: &[Resealed]) -> Result<u64, Error> {
    if let Some(first) = keys.first() {
        refuse_retired(connection, &first.after.master_key_id).await?;
    }
    let mut resealed = 0;
    for Resealed {
        project,
        before,
        after,
    } in keys
    {
        let updated = sqlx::query::<Db>(
            "update api_keys set master_key_id = $3, sealed = $4 where project_id = $1 and sealed = $2",
        )
        .bind(project.as_str())
        .bind(&before.sealed)
        .bind(&after.master_key_id)
        .bind(&after.sealed)
        .execute(&mut *connection)
        .await?;
        resealed += updated.rows_affected();
    }
    Ok(resealed)
}
