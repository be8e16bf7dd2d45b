//! What was: the change log in order, its end, and the catalog as it was at an instant.

use super::{Connection, Db, catalog, projects::must_exist, rows::Row, sql, views};
use crate::{
    catalog::{Catalog, Entry, Key},
    clock::Instant,
    project::ProjectId,
    store::{
        Error, GracePeriodPast, LogEnd, LoggedChange, Shelf,
        shelf::{self, Dated},
    },
};

pub(super) async fn read_log(
    connection: &mut Connection,
    id: &ProjectId,
    after_seq: i64,
    most: u32,
) -> Result<Vec<LoggedChange>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from catalog_changes where project_id = $1 and seq > $2 order by seq limit $3",
    )
    .bind(id.as_str())
    .bind(after_seq)
    .bind(i64::from(most))
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        must_exist(connection, id).await?;
    }
    let changes = rows.iter().map(|row| Row::new(row, "change", CHANGE));
    changes.map(|row| views::read_change(&row)).collect()
}

const CHANGE: &[&str] = &["project_id", "kind", "store_id"];

pub(super) async fn load_log_end(
    connection: &mut Connection,
    id: &ProjectId,
) -> Result<LogEnd, Error> {
    must_exist(connection, id).await?;
    let row = sqlx::query::<Db>(
        "select project_id, revision, log_since,
                coalesce((select max(seq) from changes where project_id = $1), 0) as seq
         from project_state where project_id = $1",
    )
    .bind(id.as_str())
    .fetch_one(&mut *connection)
    .await?;
    let row = Row::new(&row, "project_state", &["project_id"]);
    let catalog = catalog::load(connection, id).await?;
    let misnamed = misnamed(connection, id, &catalog).await?;
    Ok(LogEnd {
        seq: row.value("seq")?,
        revision: row.value("revision")?,
        log_since: row.value("log_since")?,
        catalog,
        misnamed,
    })
}

async fn misnamed(
    connection: &mut Connection,
    id: &ProjectId,
    catalog: &Catalog,
) -> Result<Vec<Key>, Error> {
    let rows = sqlx::query::<Db>(
        "select project_id, kind, store_id, product_id from entries where project_id = $1",
    )
    .bind(id.as_str())
    .fetch_all(connection)
    .await?;
    let mut misnamed = Vec::new();
    for row in &rows {
        let row = Row::new(row, "entry", &["project_id", "kind", "store_id"]);
        let key = Key {
            kind: row.name("kind")?,
            store_id: row.text("store_id")?.into(),
        };
        let entry = catalog
            .present
            .get(&key)
            .or_else(|| catalog.removed.get(&key));
        let stored = row.value::<Option<String>>("product_id")?;
        if entry.and_then(Entry::product_id) != stored.as_deref() {
            misnamed.push(key);
        }
    }
    Ok(misnamed)
}

/// The latest change of each entry, up to the last revision that there was by that instant: by revisions and not by the instants of
/// single changes, so that it is always a catalog that was there, whatever the clocks did.
///
/// When an entry was first seen is told by its row, unless that was made after the entry had been forgotten: then by the addition that
/// the log has.
pub(super) async fn read_shelf(
    connection: &mut Connection,
    id: &ProjectId,
    at: Instant,
) -> Result<Shelf, Error> {
    must_exist(connection, id).await?;
    let row = sqlx::query::<Db>(
        "select p.id, p.app_id, s.log_since from projects p join project_state s on s.project_id = p.id
         where p.id = $1",
    )
    .bind(id.as_str())
    .fetch_one(&mut *connection)
    .await?;
    let row = Row::new(&row, "project", &["id"]);
    if let Some(since) = row.value::<Option<Instant>>("log_since")?
        && at < since
    {
        let project = id.clone();
        return Err(Error::BeforeTheLog { project, since });
    }
    let app_id = row.text("app_id")?;
    let rows = sqlx::query::<Db>(
        "select c.*, coalesce(
             (select e.first_seen_at from entries e
              where e.project_id = c.project_id and e.kind = c.kind and e.store_id = c.store_id
                  and e.first_seen_at <= c.at),
             (select max(a.at) from changes a
              where a.project_id = c.project_id and a.kind = c.kind and a.store_id = c.store_id
                  and a.op = 'added' and a.seq <= c.seq),
             (select min(f.at) from changes f
              where f.project_id = c.project_id and f.kind = c.kind and f.store_id = c.store_id)
         ) as first_seen_at
         from (
             select max(seq) as seq from changes
             where project_id = $1 and seq <= (select max(seq) from changes where project_id = $1 and at <= $2)
             group by kind, store_id
         ) l
         join changes c on c.seq = l.seq
         -- The kinds that the views have.
         where c.kind in ('in_app_purchase', 'subscription_group', 'subscription', 'grace_period')",
    )
    .bind(id.as_str())
    .bind(sql::instant(at))
    .fetch_all(connection)
    .await?;
    let entries = rows
        .iter()
        .map(|row| read_entry(&Row::new(row, "change", CHANGE)))
        .collect::<Result<Vec<Dated>, Error>>()?;
    Ok(shelf::shelf(id, &app_id, &entries))
}

fn read_entry(row: &Row<'_>) -> Result<Dated, Error> {
    let logged = views::read_change(row)?;
    let change = logged.change().map_err(|why| Error::Unreadable {
        what: format!("line {} of the change log", logged.seq),
        why: why.to_string(),
    })?;
    Ok(Dated {
        first_seen_at: row.instant("first_seen_at")?,
        updated_at: logged.at,
        removed_at: change.after().is_none().then_some(logged.at),
        entry: change.entry().clone(),
    })
}

pub(super) async fn read_grace_periods(
    connection: &mut Connection,
    id: &ProjectId,
) -> Result<Vec<GracePeriodPast>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from grace_period_history where project_id = $1
         order by first_seen_at, last_seen_at nulls last",
    )
    .bind(id.as_str())
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        must_exist(connection, id).await?;
    }
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "grace period", &["project_id"]);
            Ok(GracePeriodPast {
                project_id: row.text("project_id")?,
                app_id: row.text("app_id")?,
                opt_in: row.value("opt_in")?,
                sandbox_opt_in: row.value("sandbox_opt_in")?,
                duration_days: row.value("duration_days")?,
                renewal_type: row.value("renewal_type")?,
                first_seen_at: row.instant("first_seen_at")?,
                last_seen_at: row.value("last_seen_at")?,
                attributes: row.json("attributes")?,
            })
        })
        .collect()
}
