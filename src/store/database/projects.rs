//! Projects and their sealed keys.

use super::{Connection, Db, rows::Row, sql};
use crate::{
    clock::Instant,
    project::{App, Project, ProjectId, SealedKey},
    store::{Error, nearest::nearest},
};

pub(super) async fn add(
    connection: &mut Connection,
    project: &Project,
    key: &SealedKey,
) -> Result<(), Error> {
    let added = sqlx::query::<Db>(
        "insert into projects (id, app_id, bundle_id, app_name, paused_at, created_at)
         values ($1, $2, $3, $4, $5, $6) on conflict (id) do nothing",
    )
    .bind(project.id.as_str())
    .bind(&project.app.id)
    .bind(&project.app.bundle_id)
    .bind(&project.app.name)
    .bind(project.paused_at.map(sql::instant))
    .bind(sql::instant(project.created_at))
    .execute(&mut *connection)
    .await?;
    if added.rows_affected() == 0 {
        return Err(Error::ProjectExists(project.id.clone()));
    }
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
    Ok(())
}

pub(super) async fn load(connection: &mut Connection, id: &ProjectId) -> Result<Project, Error> {
    let row = sqlx::query::<Db>(
        "select p.id, p.app_id, p.bundle_id, p.app_name, p.paused_at, p.created_at, k.key_id, k.issuer_id
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
        "select p.id, p.app_id, p.bundle_id, p.app_name, p.paused_at, p.created_at, k.key_id, k.issuer_id
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
             epoch = epoch + 1, lease_token = null, lease_until = null,
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
    sqlx::query::<Db>(
        "update projects set app_id = $2, bundle_id = $3, app_name = $4 where id = $1",
    )
    .bind(id.as_str())
    .bind(&app.id)
    .bind(&app.bundle_id)
    .bind(&app.name)
    .execute(&mut *connection)
    .await?;
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
    Ok(())
}

pub(super) async fn set_paused(
    connection: &mut Connection,
    id: &ProjectId,
    paused_at: Option<Instant>,
) -> Result<(), Error> {
    let set = match paused_at {
        Some(at) => {
            sqlx::query::<Db>(
                "update projects set paused_at = coalesce(paused_at, $2) where id = $1",
            )
            .bind(id.as_str())
            .bind(sql::instant(at))
            .execute(&mut *connection)
            .await?
        }
        None => {
            sqlx::query::<Db>("update projects set paused_at = null where id = $1")
                .bind(id.as_str())
                .execute(&mut *connection)
                .await?
        }
    };
    if set.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    Ok(())
}

/// The state's row is locked first, as in a commit, which holds it while its entries refer to the project: in the other
/// order the two could wait for each other.
pub(super) async fn remove(connection: &mut Connection, id: &ProjectId) -> Result<(), Error> {
    sqlx::query::<Db>(sql::LOCK_STATE)
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let removed = sqlx::query::<Db>("delete from projects where id = $1")
        .bind(id.as_str())
        .execute(&mut *connection)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(unknown(connection, id).await);
    }
    Ok(())
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
