//! Projects and their sealed keys.

use super::{Connection, Db, asks, master_keys, rows::Row, sql};
use crate::{
    catalog::OwnLimits,
    clock::Instant,
    project::{App, Project, ProjectId, SealedKey},
    schedule::Cron,
    store::{Error, nearest::nearest},
};

pub(super) async fn add(
    connection: &mut Connection,
    project: &Project,
    key: &SealedKey,
) -> Result<(), Error> {
    let added = sqlx::query::<Db>(
        "insert into projects (id, app_id, bundle_id, app_name, paused_at, created_at, cron, guard)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do nothing",
    )
    .bind(project.id.as_str())
    .bind(&project.app.id)
    .bind(&project.app.bundle_id)
    .bind(&project.app.name)
    .bind(project.paused_at.map(sql::instant))
    .bind(sql::instant(project.created_at))
    .bind(project.cron.as_ref().map(ToString::to_string))
    .bind(written(&project.guard).map(sql::json))
    .execute(&mut *connection)
    .await?;
    if added.rows_affected() == 0 {
        return Err(Error::ProjectExists(project.id.clone()));
    }
    master_keys::refuse_retired(connection, &key.master_key_id).await?;
    sqlx::query::<Db>(
        "insert into api_keys (project_id, key_id, issuer_id, master_key_id, sealed) values ($1, $2, $3, $4, $5)",
    )
    .bind(project.id.as_str())
    .bind(&key.key_id)
    .bind(&key.issuer_id)
    .bind(&key.master_key_id)
    .bind(&key.sealed)
    .execute(&mut *connection)
    .await?;
    sqlx::query::<Db>("insert into project_state (project_id, key_worked_at) values ($1, $2)")
        .bind(project.id.as_str())
        .bind(sql::instant(project.created_at))
        .execute(&mut *connection)
        .await?;
    keep_usage(connection, &key.key_id).await?;
    asks::ask_one(connection, &project.id, project.created_at).await
}

/// What a key has left to spend is kept as long as any project uses it. The update changes nothing: it locks the row, for
/// the key's last other project may be about to take it away.
async fn keep_usage(connection: &mut Connection, key_id: &str) -> Result<(), Error> {
    sqlx::query::<Db>(
        "insert into key_usage (key_id) values ($1) on conflict (key_id) do update set key_id = excluded.key_id",
    )
    .bind(key_id)
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget_unused_usage(connection: &mut Connection, key_id: &str) -> Result<(), Error> {
    // Before the statement that looks for its projects: that one sees only what was committed when it began.
    sqlx::query::<Db>(sql::LOCK_KEY)
        .bind(key_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query::<Db>(
        "delete from key_usage where key_id = $1 and not exists (select 1 from api_keys k where k.key_id = $1)",
    )
    .bind(key_id)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn load(connection: &mut Connection, id: &ProjectId) -> Result<Project, Error> {
    let row = sqlx::query::<Db>(
        "select p.id, p.app_id, p.bundle_id, p.app_name, p.cron, p.guard, p.paused_at, p.created_at, k.key_id, k.issuer_id
         from projects p join api_keys k on k.project_id = p.id where p.id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    match row {
        Some(row) => read(&Row::new(&row, "project", &["id"])),
        None => Err(unknown(connection, id).await),
    }
}

pub(super) async fn list(connection: &mut Connection) -> Result<Vec<Project>, Error> {
    let rows = sqlx::query::<Db>(
        "select p.id, p.app_id, p.bundle_id, p.app_name, p.cron, p.guard, p.paused_at, p.created_at, k.key_id, k.issuer_id
         from projects p join api_keys k on k.project_id = p.id order by p.id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| read(&Row::new(row, "project", &["id"])))
        .collect()
}

/// A project from the columns of `projects` and those of `api_keys` that are no secret.
pub(super) fn read(row: &Row<'_>) -> Result<Project, Error> {
    Ok(Project {
        id: row.name("id")?,
        app: App {
            id: row.text("app_id")?,
            bundle_id: row.text("bundle_id")?,
            name: row.text("app_name")?,
        },
        key_id: row.text("key_id")?,
        issuer_id: row.value("issuer_id")?,
        cron: row.optional_name("cron")?,
        guard: row.optional_json("guard")?.unwrap_or_default(),
        paused_at: row.value("paused_at")?,
        created_at: row.instant("created_at")?,
    })
}

pub(super) async fn list_sharing_key(
    connection: &mut Connection,
    id: &ProjectId,
    key_id: &str,
) -> Result<Vec<ProjectId>, Error> {
    let rows = sqlx::query::<Db>(
        "select project_id from api_keys where key_id = $1 and project_id <> $2 order by project_id",
    )
    .bind(key_id)
    .bind(id.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Row::new(row, "API key", &["project_id"]).name("project_id"))
        .collect()
}

pub(super) async fn load_key(
    connection: &mut Connection,
    id: &ProjectId,
) -> Result<SealedKey, Error> {
    let row = sqlx::query::<Db>(
        "select project_id, key_id, issuer_id, master_key_id, sealed from api_keys where project_id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Err(unknown(connection, id).await);
    };
    let row = Row::new(&row, "API key", &["project_id"]);
    Ok(SealedKey {
        key_id: row.text("key_id")?,
        issuer_id: row.value("issuer_id")?,
        master_key_id: row.text("master_key_id")?,
        sealed: row.value("sealed")?,
    })
}

/// Rows are locked state first, as in [`remove`].
pub(super) async fn replace_key(
    connection: &mut Connection,
    id: &ProjectId,
    app: &App,
    key: &SealedKey,
    now: Instant,
) -> Result<(), Error> {
    let begun = sqlx::query::<Db>(
        "update project_state set
             epoch = epoch + 1, lease_token = null, lease_until = null, lease_worker = null, taken = served,
             key_worked_at = $2, key_refused_since = null, key_refusals = 0
         where project_id = $1",
    )
    .bind(id.as_str())
    .bind(sql::instant(now))
    .execute(&mut *connection)
    .await?;
    if begun.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    let before = load_key(connection, id).await?;
    sqlx::query::<Db>(sql::LOCK_KEYS)
        .bind(sql::json(&[&before.key_id, &key.key_id]))
        .fetch_all(&mut *connection)
        .await?;
    sqlx::query::<Db>(
        "update projects set app_id = $2, bundle_id = $3, app_name = $4 where id = $1",
    )
    .bind(id.as_str())
    .bind(&app.id)
    .bind(&app.bundle_id)
    .bind(&app.name)
    .execute(&mut *connection)
    .await?;
    master_keys::refuse_retired(connection, &key.master_key_id).await?;
    sqlx::query::<Db>(
        "update api_keys set key_id = $2, issuer_id = $3, master_key_id = $4, sealed = $5 where project_id = $1",
    )
    .bind(id.as_str())
    .bind(&key.key_id)
    .bind(&key.issuer_id)
    .bind(&key.master_key_id)
    .bind(&key.sealed)
    .execute(&mut *connection)
    .await?;
    keep_usage(connection, &key.key_id).await?;
    if before.key_id != key.key_id {
        forget_unused_usage(connection, &before.key_id).await?;
    }
    asks::ask_one(connection, id, now).await
}

pub(super) async fn pause(
    connection: &mut Connection,
    id: &ProjectId,
    now: Instant,
) -> Result<(), Error> {
    let paused =
        sqlx::query::<Db>("update projects set paused_at = coalesce(paused_at, $2) where id = $1")
            .bind(id.as_str())
            .bind(sql::instant(now))
            .execute(&mut *connection)
            .await?;
    if paused.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    Ok(())
}

pub(super) async fn resume(
    connection: &mut Connection,
    id: &ProjectId,
    now: Instant,
) -> Result<(), Error> {
    let taken_up = sqlx::query::<Db>(
        "update project_state set set_aside_at = null, losses = 0, lost_since = null
         where project_id = $1 and set_aside_at is not null",
    )
    .bind(id.as_str())
    .execute(&mut *connection)
    .await?;
    let resumed = sqlx::query::<Db>(
        "update projects set paused_at = null where id = $1 and paused_at is not null",
    )
    .bind(id.as_str())
    .execute(&mut *connection)
    .await?;
    if taken_up.rows_affected() + resumed.rows_affected() == 0 {
        return must_exist(connection, id).await;
    }
    asks::ask_one(connection, id, now).await
}

pub(super) async fn set_cron(
    connection: &mut Connection,
    id: &ProjectId,
    cron: Option<&Cron>,
) -> Result<(), Error> {
    // The next tick gives it an appointment.
    let state = sqlx::query::<Db>(
        "update project_state set next_slot_at = null, next_due_at = null where project_id = $1",
    )
    .bind(id.as_str())
    .execute(&mut *connection)
    .await?;
    if state.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    sqlx::query::<Db>("update projects set cron = $2 where id = $1")
        .bind(id.as_str())
        .bind(cron.map(ToString::to_string))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn set_guard(
    connection: &mut Connection,
    id: &ProjectId,
    own: &OwnLimits,
) -> Result<(), Error> {
    let set = sqlx::query::<Db>("update projects set guard = $2 where id = $1")
        .bind(id.as_str())
        .bind(written(own).map(sql::json))
        .execute(&mut *connection)
        .await?;
    if set.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    Ok(())
}

/// A project without limits of its own has none written.
fn written(own: &OwnLimits) -> Option<&OwnLimits> {
    (!own.is_empty()).then_some(own)
}

/// The state's row is locked first, as in a commit, which holds it while its entries refer to the project: in the other
/// order the two could wait for each other.
pub(super) async fn remove(connection: &mut Connection, id: &ProjectId) -> Result<(), Error> {
    sqlx::query::<Db>(sql::LOCK_STATE)
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let key = load_key(connection, id).await?;
    let removed = sqlx::query::<Db>("delete from projects where id = $1")
        .bind(id.as_str())
        .execute(&mut *connection)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    forget_unused_usage(connection, &key.key_id).await
}

/// [`Error::UnknownProject`] if there is no such project.
pub(super) async fn must_exist(connection: &mut Connection, id: &ProjectId) -> Result<(), Error> {
    let found = sqlx::query::<Db>("select id from projects where id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    match found {
        Some(_) => Ok(()),
        None => Err(unknown(connection, id).await),
    }
}

/// That there is no such project, with the name that may have been meant, looked for among the first few thousand.
pub(super) async fn unknown(connection: &mut Connection, id: &ProjectId) -> Error {
    let names = sqlx::query_scalar::<Db, String>("select id from projects order by id limit 5000")
        .fetch_all(connection)
        .await;
    match names {
        Ok(names) => Error::UnknownProject {
            id: id.clone(),
            nearest: nearest(id, names),
        },
        Err(error) => error.into(),
    }
}
