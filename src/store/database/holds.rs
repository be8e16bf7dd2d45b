//! What is held back, and what becomes of it.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Connection, Db, catalog, leases::lost, projects::must_exist, rows::Row, sql};
use crate::{
    catalog::{Absence, Digest, Hold, HoldSummary, Key, guard::Absences},
    clock::Instant,
    project::ProjectId,
    run::{HoldEnd, Run},
    store::{Ended, Error, HoldTurn, Lease, RecordedHold, value},
};

/// The hold that stands, from the columns `digest`, `reasons` and `removals` of an outer join.
pub(super) fn read_standing(row: &Row<'_>) -> Result<Option<Hold>, Error> {
    let Some(digest) = row.value::<Option<String>>("digest")? else {
        return Ok(None);
    };
    Ok(Some(Hold {
        digest: digest.into(),
        reasons: row.json("reasons")?,
        removals: row.json("removals")?,
    }))
}

/// The hold that stands without what it holds, from the columns `digest`, `reasons` and `held` of an outer join.
pub(super) fn read_summary(row: &Row<'_>) -> Result<Option<HoldSummary>, Error> {
    let Some(digest) = row.value::<Option<String>>("digest")? else {
        return Ok(None);
    };
    Ok(Some(HoldSummary {
        digest: digest.into(),
        reasons: row.json("reasons")?,
        removals: row.integer("held")?,
    }))
}

/// Ends the hold that stands, begins another, or both. What is held without interruption is held since its beginning.
pub(super) async fn turn(
    connection: &mut Connection,
    lease: &Lease,
    turn: &HoldTurn,
    run: &Run,
) -> Result<(), Error> {
    let mut held_at = run.finished_at;
    if let Some(end) = turn.ended {
        let ended = sqlx::query::<Db>(
            "update removal_holds set ended = $2, ended_at = $3, ended_run_id = $4
             where project_id = $1 and ended_at is null
             returning project_id, digest, held_at",
        )
        .bind(lease.project.as_str())
        .bind(end.as_str())
        .bind(sql::instant(run.finished_at))
        .bind(run.id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(ended) = ended.filter(|_| end == HoldEnd::Replaced) {
            held_at = Row::new(&ended, "hold", &["project_id", "digest"]).instant("held_at")?;
        }
    } else if turn.is_told && turn.begun.is_none() {
        sqlx::query::<Db>(
            "update removal_holds set told_at = $2 where project_id = $1 and ended_at is null",
        )
        .bind(lease.project.as_str())
        .bind(sql::instant(run.finished_at))
        .execute(&mut *connection)
        .await?;
    }
    if let Some(hold) = &turn.begun {
        sqlx::query::<Db>(
            "insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at, run_id, told_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(lease.project.as_str())
        .bind(hold.digest.to_string())
        .bind(hold.to_string())
        .bind(sql::json(&hold.reasons))
        .bind(sql::json(&hold.removals))
        .bind(value::count(hold.removals.len()))
        .bind(sql::instant(held_at))
        .bind(run.id.to_string())
        .bind(turn.is_told.then(|| sql::instant(run.finished_at)))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Notes what is known of entries that were not listed; none clears it.
pub(super) async fn note(
    connection: &mut Connection,
    id: &ProjectId,
    absences: &Absences,
) -> Result<u64, Error> {
    if absences.is_empty() {
        return Ok(0);
    }
    // The rows of JSON are read once: looked through for each entry, thousands of them would take minutes.
    let rows: Vec<_> = absences
        .iter()
        .map(|(key, absence)| json!({ "kind": key.kind, "store_id": key.store_id, "absence": absence }))
        .collect();
    let written = sqlx::query::<Db>(concat!(
        "with noted as materialized (
             select value ->> 'kind' as kind, value ->> 'store_id' as store_id, value -> 'absence' as absence from ",
        sql::each!("$2"),
        ")
         update entries set absence = nullif(noted.absence, 'null')
         from noted
         where entries.project_id = $1 and entries.kind = noted.kind and entries.store_id = noted.store_id"
    ))
    .bind(id.as_str())
    .bind(sql::json(&rows))
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

pub(super) async fn discard(
    connection: &mut Connection,
    lease: &Lease,
    digest: &Digest,
    now: Instant,
) -> Result<Option<Hold>, Error> {
    give_back(connection, lease).await?;
    let standing = catalog::load_state(connection, &lease.project).await?.hold;
    let Some(hold) = standing.filter(|hold| hold.digest == *digest) else {
        return Ok(None);
    };
    sqlx::query::<Db>(
        "update removal_holds set ended = $2, ended_at = $3 where project_id = $1 and ended_at is null",
    )
    .bind(lease.project.as_str())
    .bind(HoldEnd::Discarded.as_str())
    .bind(sql::instant(now))
    .execute(&mut *connection)
    .await?;
    let kept = |before: Option<Absence>| {
        Some(Absence {
            kept_at: Some(now),
            ..before.unwrap_or(Absence {
                since: now,
                seen_at: None,
                answer: None,
                kept_at: None,
            })
        })
    };
    mark(connection, &lease.project, &hold, kept).await?;
    Ok(Some(hold))
}

pub(super) async fn reopen(
    connection: &mut Connection,
    lease: &Lease,
    digest: &Digest,
) -> Result<bool, Error> {
    give_back(connection, lease).await?;
    let discarded = sqlx::query::<Db>(
        "select project_id, digest, reasons, removals from removal_holds
         where project_id = $1 and digest = $2 and ended = $3
             and not exists (select 1 from removal_holds h where h.project_id = $1 and h.ended_at is null)
         order by id desc limit 1",
    )
    .bind(lease.project.as_str())
    .bind(digest.to_string())
    .bind(HoldEnd::Discarded.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = discarded else {
        return Ok(false);
    };
    let Some(hold) = read_standing(&Row::new(&row, "hold", &["project_id", "digest"]))? else {
        return Ok(false);
    };
    let local = catalog::load(connection, &lease.project).await?;
    if !hold.removals.iter().any(|held| local.is_kept(&held.key)) {
        return Ok(false); // All of it returned, and the decision with it.
    }
    sqlx::query::<Db>(
        "insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at, run_id, told_at)
         select project_id, digest, reason, reasons, removals, held, held_at, run_id, told_at
         from removal_holds
         where id = (
             select max(id) from removal_holds where project_id = $1 and digest = $2 and ended = $3
         )",
    )
    .bind(lease.project.as_str())
    .bind(digest.to_string())
    .bind(HoldEnd::Discarded.as_str())
    .execute(&mut *connection)
    .await?;
    // What returned meanwhile is not absent.
    let not_kept = |before: Option<Absence>| {
        before.map(|absence| Absence {
            kept_at: None,
            ..absence
        })
    };
    mark(connection, &lease.project, &hold, not_kept).await?;
    Ok(true)
}

/// Changes what is noted of the things that a hold holds, as far as they are present.
async fn mark(
    connection: &mut Connection,
    id: &ProjectId,
    hold: &Hold,
    mark: impl Fn(Option<Absence>) -> Option<Absence>,
) -> Result<(), Error> {
    let local = catalog::load(connection, id).await?;
    let absences: BTreeMap<Key, Option<Absence>> = hold
        .removals
        .iter()
        .map(|held| &held.key)
        .filter(|key| local.present.contains_key(key))
        .map(|key| (key.clone(), mark(local.absent.get(key).copied())))
        .collect();
    note(connection, id, &absences).await.map(drop)
}

/// First, for it checks the lease and keeps the state's row until the end.
async fn give_back(connection: &mut Connection, lease: &Lease) -> Result<(), Error> {
    let given = sqlx::query::<Db>(
        "update project_state set lease_token = null, lease_until = null, lease_worker = null, taken = served
         where project_id = $1 and epoch = $2 and lease_token = $3",
    )
    .bind(lease.project.as_str())
    .bind(lease.epoch)
    .bind(lease.token.to_string())
    .execute(connection)
    .await?;
    if given.rows_affected() == 0 {
        return Err(lost(lease));
    }
    Ok(())
}

macro_rules! holds {
    ($condition:literal) => {
        concat!(
            "select project_id, digest, reason, reasons, removals, held_at, run_id, ended_at, ended, ended_run_id
             from removal_holds where ",
            $condition,
            " order by project_id, id desc"
        )
    };
}

pub(super) async fn read(
    connection: &mut Connection,
    id: Option<&ProjectId>,
    ended: Ended,
) -> Result<Vec<RecordedHold>, Error> {
    let ended = i64::from(ended == Ended::Included);
    let rows = match id {
        Some(id) => {
            sqlx::query::<Db>(holds!("project_id = $1 and ($2 = 1 or ended_at is null)"))
                .bind(id.as_str())
                .bind(ended)
                .fetch_all(&mut *connection)
                .await?
        }
        None => {
            sqlx::query::<Db>(holds!("$1 = 1 or ended_at is null"))
                .bind(ended)
                .fetch_all(&mut *connection)
                .await?
        }
    };
    if let Some(id) = id
        && rows.is_empty()
    {
        must_exist(connection, id).await?;
    }
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "hold", &["project_id", "digest"]);
            Ok(RecordedHold {
                project_id: row.name("project_id")?,
                digest: row.text("digest")?.into(),
                reason: row.text("reason")?,
                reasons: row.json("reasons")?,
                removals: row.json("removals")?,
                held_at: row.instant("held_at")?,
                run_id: row.value("run_id")?,
                ended_at: row.value("ended_at")?,
                ended: row.optional_name("ended")?,
                ended_run_id: row.value("ended_run_id")?,
            })
        })
        .collect()
}
