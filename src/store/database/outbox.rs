//! What brokers are yet to be told of: a row for each broker and revision, written with the revision itself.
//!
//! A project's revisions are committed one after another, under its lease, so its rows are in order. One worker at a time tells a
//! broker; rows go when the broker has confirmed them, so a crash repeats some and loses none.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::json;

use super::{Connection, Db, rows::Row, sql, views};
use crate::{
    clock::Instant,
    project::ProjectId,
    run::Run,
    store::{Error, SinkLease, Untold, value},
};

pub(super) async fn put(
    connection: &mut Connection,
    project: &ProjectId,
    run: &Run,
    revision: i64,
) -> Result<(), Error> {
    sqlx::query::<Db>(sql::PUT_OUTBOX)
        .bind(project.as_str())
        .bind(revision)
        .execute(&mut *connection)
        .await?;
    if let Some(tell) = sql::TELL_LISTENERS {
        let at = run.finished_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let note = json!({
            "version": 1, "project": project, "revision": revision, "run_id": run.id, "at": at,
        });
        sqlx::query::<Db>(tell)
            .bind(note.to_string())
            .execute(connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn name_sinks(
    connection: &mut Connection,
    sinks: &[&str],
    forget_before: Instant,
    now: Instant,
) -> Result<Vec<String>, Error> {
    for sink in sinks {
        sqlx::query::<Db>(
            "insert into sinks (name, seen_at) values ($1, $2) on conflict (name) do update set seen_at = excluded.seen_at",
        )
        .bind(*sink)
        .bind(sql::instant(now))
        .execute(&mut *connection)
        .await?;
    }
    let forgotten =
        sqlx::query_scalar::<Db, String>("delete from sinks where seen_at < $1 returning name")
            .bind(sql::instant(forget_before))
            .fetch_all(connection)
            .await?;
    Ok(forgotten)
}

pub(super) async fn hold_sink(
    connection: &mut Connection,
    lease: &SinkLease,
    until: Instant,
    now: Instant,
) -> Result<bool, Error> {
    let held = sqlx::query::<Db>(
        "update sinks set lease_token = $2, lease_until = $3
         where name = $1 and (lease_token is null or lease_token = $2 or lease_until <= $4)",
    )
    .bind(&lease.sink)
    .bind(lease.token.to_string())
    .bind(sql::instant(value::instant(until)))
    .bind(sql::instant(now))
    .execute(connection)
    .await?;
    Ok(held.rows_affected() > 0)
}

pub(super) async fn release_sink(
    connection: &mut Connection,
    lease: &SinkLease,
) -> Result<(), Error> {
    sqlx::query::<Db>(
        "update sinks set lease_token = null, lease_until = null where name = $1 and lease_token = $2",
    )
    .bind(&lease.sink)
    .bind(lease.token.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn read_untold(
    connection: &mut Connection,
    sink: &str,
    most: u32,
) -> Result<Vec<Untold>, Error> {
    let rows = sqlx::query::<Db>(
        "select o.id as outbox_id, c.seq, c.project_id, c.revision, c.run_id, c.at, c.kind, c.store_id, c.product_id, c.op,
                c.before, c.after, c.before_seen_at
         from (select * from outbox where sink = $1 order by id limit $2) as o
         join changes c on c.project_id = o.project_id and c.revision = o.revision and c.seq > o.after_seq
         order by o.id, c.seq limit $2",
    )
    .bind(sink)
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "change", &["project_id", "kind", "store_id"]);
            Ok(Untold {
                outbox_id: row.value("outbox_id")?,
                project: row.name("project_id")?,
                kind: row.name("kind")?,
                op: row.name("op")?,
                change: views::read_change(&row)?,
            })
        })
        .collect()
}

pub(super) async fn told(
    connection: &mut Connection,
    lease: &SinkLease,
    told: &[Untold],
) -> Result<bool, Error> {
    let Some(last) = told.iter().map(|untold| untold.outbox_id).max() else {
        return Ok(true);
    };
    // Keeps the row until the end, so that nobody takes the right to tell in between.
    let held =
        sqlx::query::<Db>("update sinks set name = name where name = $1 and lease_token = $2")
            .bind(&lease.sink)
            .bind(lease.token.to_string())
            .execute(&mut *connection)
            .await?;
    if held.rows_affected() == 0 {
        return Ok(false);
    }
    let progress: BTreeMap<i64, i64> = told
        .iter()
        .map(|untold| (untold.outbox_id, untold.change.seq))
        .collect();
    let progress: Vec<Progress> = progress
        .into_iter()
        .map(|(id, seq)| Progress { id, seq })
        .collect();
    sqlx::query::<Db>(concat!(
        "update outbox as o set after_seq = a.new_after_seq
         from (select ",
        sql::as_integer!("value ->> 'id'"),
        " as outbox_id, ",
        sql::as_integer!("value ->> 'seq'"),
        " as new_after_seq from ",
        sql::each!("$1"),
        ") as a where o.id = a.outbox_id and o.after_seq < a.new_after_seq"
    ))
    .bind(sql::json(&progress))
    .execute(&mut *connection)
    .await?;
    // Not all rows up to the last: one with a lower id may have been committed since they were read.
    sqlx::query::<Db>(
        "delete from outbox where sink = $1 and id <= $2 and not exists (
             select 1 from changes c
             where c.project_id = outbox.project_id and c.revision = outbox.revision and c.seq > outbox.after_seq
         )",
    )
    .bind(&lease.sink)
    .bind(last)
    .execute(connection)
    .await?;
    Ok(true)
}

/// How far a broker was told of a revision, as the statement reads it.
#[derive(Serialize)]
struct Progress {
    id: i64,
    seq: i64,
}
