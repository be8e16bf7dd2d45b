//! Deletes for good what is old, a page of a table at a time.
//!
//! What must hold throughout: a page is a short transaction that looks at no more rows than it is given, and finds them by an
//! index; it waits for nobody, so that it cannot be part of a deadlock: a row that another transaction has locked stays until
//! the table is looked through again.

use chrono::{DateTime, TimeDelta};
use serde::Serialize;

use super::{Connection, Db, rows::Row, sql};
use crate::{
    clock::Instant,
    store::{Error, Mark, Old, Pruned, Retention},
};

pub(super) async fn prune(
    connection: &mut Connection,
    old: Old,
    before: Instant,
    after: &Mark,
    most: u32,
    now: Instant,
) -> Result<Pruned, Error> {
    let row = match after {
        Mark::Row(row) => *row,
        Mark::Start | Mark::Run(..) => 0,
    };
    match old {
        Old::Entries => {
            let least = TimeDelta::days(Retention::LEAST_DAYS.into());
            entries(connection, before.min(now - least), most, now).await
        }
        Old::Changes => changes(connection, before, row, most, now).await,
        Old::Holds => holds(connection, before, row, most).await,
        Old::Runs => runs(connection, before, after, most).await,
        Old::Requests => requests(connection, before, row, most).await,
    }
}

/// That the project of `project_state s` has no run under way at that instant. A run goes by what it loaded: what it would restore
/// must not be gone when it commits. With the state's row locked, none begins.
macro_rules! no_run {
    ($now:literal) => {
        concat!("(s.lease_token is null or s.lease_until <= ", $now, ")")
    };
}

async fn entries(
    connection: &mut Connection,
    before: Instant,
    most: u32,
    now: Instant,
) -> Result<Pruned, Error> {
    let deleted = sqlx::query::<Db>(concat!(
        "delete from entries where (project_id, kind, store_id) in (
             select e.project_id, e.kind, e.store_id
             from entries e join project_state s on s.project_id = e.project_id
             where e.removed_at is not null and e.removed_at <= $1 and ",
        no_run!("$3"),
        " order by e.removed_at limit $2",
        sql::unless_locked!(),
        ")"
    ))
    .bind(sql::instant(before))
    .bind(i64::from(most))
    .bind(sql::instant(now))
    .execute(connection)
    .await?
    .rows_affected();
    // What is old is gone, and what is left stands at the beginning.
    Ok(Pruned {
        deleted,
        mark: Mark::Start,
        is_done: deleted < u64::from(most),
    })
}

async fn changes(
    connection: &mut Connection,
    before: Instant,
    after: i64,
    most: u32,
    now: Instant,
) -> Result<Pruned, Error> {
    let page = look(
        connection,
        "select seq, at < $3 as is_old from changes where seq > $1 order by seq limit $2",
        before,
        after,
        most,
    )
    .await?;
    let Some(last) = page.old.last() else {
        return Ok(nothing(Mark::Row(after)));
    };
    let doomed = doomed(connection, &page, before, now).await?;
    let mut deleted = 0;
    if !doomed.is_empty() {
        deleted = sqlx::query::<Db>(concat!(
            "delete from changes where seq in (select ",
            sql::as_integer!("value ->> 'seq'"),
            " from ",
            sql::each!("$1"),
            ")"
        ))
        .bind(sql::json(&doomed))
        .execute(&mut *connection)
        .await?
        .rows_affected();
        sqlx::query::<Db>(concat!(
            "update project_state set log_since = $2
             where project_id in (select value ->> 'project' from ",
            sql::each!("$1"),
            ") and (log_since is null or log_since < $2)"
        ))
        .bind(sql::json(&doomed))
        .bind(sql::instant(before))
        .execute(connection)
        .await?;
    }
    Ok(Pruned {
        deleted,
        mark: Mark::Row(last.number),
        is_done: !page.is_full,
    })
}

/// A change to be deleted, as the statements read it.
#[derive(Serialize)]
struct Doomed {
    seq: i64,
    project: String,
}

/// The changes of a page that can go, of those projects that nobody else is writing or about to; their rows are locked.
///
/// A change stays unless the one after it in the project is old as well: so the log goes on without a gap from the cutoff on, and
/// still ends with the catalog's revision.
async fn doomed(
    connection: &mut Connection,
    page: &Page,
    before: Instant,
    now: Instant,
) -> Result<Vec<Doomed>, Error> {
    let rows = sqlx::query::<Db>(concat!(
        "select c.seq, c.project_id
         from (
             select o.seq, o.project_id, o.kind, o.store_id, o.revision, o.op, (
                 select l.at from changes l
                 where l.project_id = o.project_id and l.kind = o.kind and l.store_id = o.store_id and l.seq > o.seq
                 order by l.seq limit 1
             ) as overwritten_at, (
                 select n.at from changes n
                 where n.project_id = o.project_id and n.seq > o.seq
                 order by n.seq limit 1
             ) as next_at
             from ",
        sql::each!("$1"),
        " as page join changes o on o.seq = ",
        sql::as_integer!("page.value ->> 'number'"),
        " where o.kind <> 'grace_period'
         ) as c
         where (
             c.overwritten_at < $2
             or c.overwritten_at is null and c.op = 'removed' and not exists (
                 select 1 from entries e
                 where e.project_id = c.project_id and e.kind = c.kind and e.store_id = c.store_id
             ) and not exists ( -- What it removed would be there again.
                 select 1 from changes p
                 where p.project_id = c.project_id and p.kind = c.kind and p.store_id = c.store_id and p.seq < c.seq
             )
         ) and c.next_at < $2 and not exists (
             select 1 from outbox u where u.project_id = c.project_id and u.revision <= c.revision
         )"
    ))
    .bind(sql::json(&page.old))
    .bind(sql::instant(before))
    .fetch_all(&mut *connection)
    .await?;
    let mut doomed = rows
        .iter()
        .map(|row| {
            let row = Row::new(row, "change", &["project_id"]);
            Ok(Doomed {
                seq: row.value("seq")?,
                project: row.text("project_id")?,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if doomed.is_empty() {
        return Ok(doomed);
    }
    // Before the changes, as in a commit and when a project is removed.
    let free = sqlx::query_scalar::<Db, String>(concat!(
        "select s.project_id from project_state s
         where s.project_id in (select value ->> 'project' from ",
        sql::each!("$1"),
        ") and ",
        no_run!("$2"),
        " order by s.project_id",
        sql::unless_locked!()
    ))
    .bind(sql::json(&doomed))
    .bind(sql::instant(now))
    .fetch_all(&mut *connection)
    .await?;
    doomed.retain(|change| free.contains(&change.project));
    Ok(doomed)
}

async fn holds(
    connection: &mut Connection,
    before: Instant,
    after: i64,
    most: u32,
) -> Result<Pruned, Error> {
    let page = look(
        connection,
        "select id, coalesce(ended_at < $3, false) as is_old from removal_holds where id > $1 order by id limit $2",
        before,
        after,
        most,
    )
    .await?;
    let deleted = sqlx::query::<Db>(concat!(
        "delete from removal_holds where id in (
             select h.id from removal_holds h where h.id in (select ",
        sql::as_integer!("value ->> 'number'"),
        " from ",
        sql::each!("$1"),
        ") and h.ended_at < $2 and (h.ended <> 'discarded' or not exists ( -- That can be taken back.
            select 1 from entries e
            where e.project_id = h.project_id and e.absence is not null and e.removed_at is null
                and e.absence ->> 'kept_at' is not null
         ))",
        sql::unless_locked!(),
        ")"
    ))
    .bind(sql::json(&page.old))
    .bind(sql::instant(before))
    .execute(connection)
    .await?
    .rows_affected();
    // To the end of the table: one hold may last for long while later ones end.
    Ok(Pruned {
        deleted,
        mark: Mark::Row(page.last.unwrap_or(after)),
        is_done: !page.is_full,
    })
}

async fn runs(
    connection: &mut Connection,
    before: Instant,
    after: &Mark,
    most: u32,
) -> Result<Pruned, Error> {
    let (from, beyond) = match after {
        Mark::Run(from, beyond) => (*from, beyond.as_str()),
        Mark::Start | Mark::Row(_) => (DateTime::UNIX_EPOCH, ""),
    };
    let rows = sqlx::query::<Db>(
        "select finished_at, id from runs
         where finished_at < $1 and finished_at >= $2 and (finished_at > $2 or id > $3)
         order by finished_at, id limit $4",
    )
    .bind(sql::instant(before))
    .bind(sql::instant(from))
    .bind(beyond)
    .bind(i64::from(most))
    .fetch_all(&mut *connection)
    .await?;
    let ids = rows
        .iter()
        .map(|row| {
            let id = Row::new(row, "run", &["id"]).text("id")?;
            Ok(OldRun { id })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let (Some(row), Some(last)) = (rows.last(), ids.last()) else {
        return Ok(nothing(after.clone()));
    };
    let mark = Mark::Run(
        Row::new(row, "run", &["id"]).instant("finished_at")?,
        last.id.clone(),
    );
    let deleted = sqlx::query::<Db>(concat!(
        "delete from runs where id in (
             select r.id from runs r
             where r.id in (select value ->> 'id' from ",
        sql::each!("$1"),
        ") and exists (select 1 from runs l where l.project_id = r.project_id and l.epoch > r.epoch)",
        sql::unless_locked!(),
        ")"
    ))
    .bind(sql::json(&ids))
    .execute(connection)
    .await?
    .rows_affected();
    Ok(Pruned {
        deleted,
        mark,
        is_done: !is_full(ids.len(), most),
    })
}

/// A run that is old, as the statement reads it.
#[derive(Serialize)]
struct OldRun {
    id: String,
}

async fn requests(
    connection: &mut Connection,
    before: Instant,
    after: i64,
    most: u32,
) -> Result<Pruned, Error> {
    let page = look(
        connection,
        "select id, refused_at < $3 as is_old from refused_requests where id > $1 order by id limit $2",
        before,
        after,
        most,
    )
    .await?;
    let Some(last) = page.old.last() else {
        return Ok(nothing(Mark::Row(after)));
    };
    let deleted = sqlx::query::<Db>(concat!(
        "delete from refused_requests where id in (
             select r.id from refused_requests r where r.id in (select ",
        sql::as_integer!("value ->> 'number'"),
        " from ",
        sql::each!("$1"),
        ")",
        sql::unless_locked!(),
        ")"
    ))
    .bind(sql::json(&page.old))
    .execute(connection)
    .await?
    .rows_affected();
    Ok(Pruned {
        deleted,
        mark: Mark::Row(last.number),
        is_done: !page.is_full,
    })
}

/// Rows of a table in the order of their numbers.
struct Page {
    /// Those that are old. Rows come about in the order of time, but for what clocks differ: after a page with none of them come
    /// only young ones.
    old: Vec<Numbered>,
    last: Option<i64>,
    is_full: bool,
}

/// A row, as the statements read it.
#[derive(Serialize)]
struct Numbered {
    number: i64,
}

async fn look(
    connection: &mut Connection,
    statement: &'static str,
    before: Instant,
    after: i64,
    most: u32,
) -> Result<Page, Error> {
    let rows = sqlx::query_as::<Db, (i64, bool)>(statement)
        .bind(after)
        .bind(i64::from(most))
        .bind(sql::instant(before))
        .fetch_all(connection)
        .await?;
    let old = rows
        .iter()
        .filter(|(_, is_old)| *is_old)
        .map(|&(number, _)| Numbered { number });
    Ok(Page {
        old: old.collect(),
        last: rows.last().map(|&(number, _)| number),
        is_full: is_full(rows.len(), most),
    })
}

fn is_full(rows: usize, most: u32) -> bool {
    rows >= usize::try_from(most).unwrap_or(usize::MAX)
}

fn nothing(mark: Mark) -> Pruned {
    Pruned {
        deleted: 0,
        mark,
        is_done: true,
    }
}
