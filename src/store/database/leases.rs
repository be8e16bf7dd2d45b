//! Leases: who may write a project's catalog (I1).

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use uuid::Uuid;

use super::{
    Connection, Db, asks, catalog,
    projects::{self, unknown},
    rows::Row,
    sql, usage,
};
use crate::{
    clock::Instant,
    project::{ProjectId, SealedKey},
    sabotage::{self, Safeguard},
    store::{Claim, Error, Lease, Request, Spent, value},
};

/// All that a claim brings, of `projects p`, `api_keys k`, `project_state s` and the hold `h` that stands, if any.
macro_rules! details {
    () => {
        "p.id, p.app_id, p.bundle_id, p.app_name, p.cron, p.guard, p.paused_at, p.created_at,
         k.key_id, k.issuer_id, k.master_key_id, k.sealed,
         s.epoch, s.lease_token, s.lease_until, s.lease_worker, s.losses, s.lost_since,
         s.revision, s.retries, s.covered_at, s.listed_with, s.marks, h.digest, h.reasons, h.removals, h.told_at, s.key_worked_at, s.key_refused_since, s.key_refusals,
         s.asked, s.served, s.urgency, s.request_reason, s.requested_at, s.ready_at, s.slot_at"
    };
}
pub(super) use details;

/// So many runs in a row that lose their worker set a project aside.
pub(super) const LOSSES_TO_SET_ASIDE: i64 = 3;

/// Leases that run out within this time of each other count as a row.
pub(super) const LOSSES_WITHIN: TimeDelta = TimeDelta::days(1);

pub(super) async fn acquire(
    connection: &mut Connection,
    worker: &str,
    id: &ProjectId,
    ttl: Duration,
    now: Instant,
) -> Result<Claim, Error> {
    let lease = claim(connection, worker, id, ttl, now).await?;
    let row = sqlx::query::<Db>(concat!(
        "select ",
        details!(),
        " from project_state s join projects p on p.id = s.project_id join api_keys k on k.project_id = s.project_id
         left join removal_holds h on h.project_id = s.project_id and h.ended_at is null
         where s.project_id = $1"
    ))
    .bind(id.as_str())
    .fetch_one(connection)
    .await?;
    let row = Row::new(&row, "project", &["id"]);
    let claim = read_claim(&row, lease, row.value("losses")?)?;
    if claim.project.paused_at.is_some() {
        return Err(Error::Paused(claim.project.id)); // And the claim with it: the transaction is taken back.
    }
    Ok(claim)
}

/// A claim from the columns of [`details`].
pub(super) fn read_claim(row: &Row<'_>, lease: Lease, losses: i64) -> Result<Claim, Error> {
    Ok(Claim {
        lease,
        project: projects::read(row)?,
        key: SealedKey {
            key_id: row.text("key_id")?,
            issuer_id: row.value("issuer_id")?,
            master_key_id: row.text("master_key_id")?,
            sealed: row.value("sealed")?,
        },
        state: catalog::read_state(row)?,
        request: read_request(row)?,
        is_last_chance: losses == LOSSES_TO_SET_ASIDE - 1,
    })
}

/// The pending request, if there is one.
pub(super) fn read_request(row: &Row<'_>) -> Result<Option<Request>, Error> {
    let (asked, served): (i64, i64) = (row.value("asked")?, row.value("served")?);
    if asked <= served {
        return Ok(None);
    }
    Ok(Some(Request {
        trigger: asks::trigger(row.value("urgency")?),
        reason: row.value("request_reason")?,
        requested_at: row.instant("requested_at")?,
        ready_at: row.instant("ready_at")?,
        slot_at: row.value("slot_at")?,
    }))
}

async fn claim(
    connection: &mut Connection,
    worker: &str,
    id: &ProjectId,
    ttl: Duration,
    now: Instant,
) -> Result<Lease, Error> {
    let token = Uuid::now_v7();
    let until = value::instant(now + ttl);
    let mut tried_again = false;
    loop {
        let claimed = sqlx::query_scalar::<Db, i64>(
            "update project_state set
                 epoch = epoch + 1,
                 lease_token = $2,
                 lease_until = $3,
                 lease_worker = $5,
                 taken = asked,
                 losses = case
                     when lease_token is null then losses
                     when coalesce(lost_since > $6, false) then losses + 1
                     else 1
                 end,
                 lost_since = case
                     when lease_token is null or coalesce(lost_since > $6, false) then lost_since
                     else $4
                 end
             where project_id = $1 and (lease_until is null or lease_until <= $4)
             returning epoch",
        )
        .bind(id.as_str())
        .bind(token.to_string())
        .bind(sql::instant(until))
        .bind(sql::instant(now))
        .bind(worker)
        .bind(sql::instant(now - LOSSES_WITHIN))
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(epoch) = claimed {
            return Ok(Lease {
                project: id.clone(),
                epoch,
                token,
                until,
            });
        }
        let held = sqlx::query::<Db>(sql::LOCK_STATE)
            .bind(id.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        let Some(held) = held else {
            return Err(unknown(connection, id).await);
        };
        let until: Option<Instant> =
            Row::new(&held, "project_state", &["project_id"]).value("lease_until")?;
        if let Some(until) = until.filter(|until| *until > now || tried_again) {
            return Err(Error::Leased {
                project: id.clone(),
                until,
            });
        }
        // It was given back in between; now that its row is locked, the next try decides.
        tried_again = true;
    }
}

pub(super) async fn renew(
    connection: &mut Connection,
    lease: &Lease,
    ttl: Duration,
    now: Instant,
) -> Result<Lease, Error> {
    let until = value::instant(now + ttl);
    let renewed = sqlx::query::<Db>(fenced(
        "update project_state set lease_until = $4 where project_id = $1 and epoch = $2 and lease_token = $3",
    ))
    .bind(lease.project.as_str())
    .bind(lease.epoch)
    .bind(lease.token.to_string())
    .bind(sql::instant(until))
    .execute(connection)
    .await?;
    if renewed.rows_affected() == 0 {
        return Err(lost(lease));
    }
    Ok(Lease {
        until,
        ..lease.clone()
    })
}

pub(super) async fn release(connection: &mut Connection, lease: &Lease) -> Result<(), Error> {
    sqlx::query::<Db>(
        "update project_state set lease_token = null, lease_until = null, lease_worker = null, taken = served
         where project_id = $1 and epoch = $2 and lease_token = $3",
    )
    .bind(lease.project.as_str())
    .bind(lease.epoch)
    .bind(lease.token.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn postpone(
    connection: &mut Connection,
    lease: &Lease,
    until: Instant,
    spent: &Spent,
    now: Instant,
) -> Result<(), Error> {
    let given_back = sqlx::query::<Db>(
        "update project_state set lease_token = null, lease_until = null, lease_worker = null, taken = served,
             ready_at = $4, retries = retries + 1
         where project_id = $1 and epoch = $2 and lease_token = $3",
    )
    .bind(lease.project.as_str())
    .bind(lease.epoch)
    .bind(lease.token.to_string())
    .bind(sql::instant(until))
    .execute(&mut *connection)
    .await?;
    if given_back.rows_affected() == 0 {
        return Ok(());
    }
    let bill = usage::Bill {
        project: lease.project.clone(),
        spent: *spent,
        blocked_until: None,
        at: now,
    };
    usage::record(connection, &[&bill]).await
}

pub(super) async fn rouse(
    connection: &mut Connection,
    ttl: Duration,
    now: Instant,
) -> Result<(), Error> {
    sqlx::query::<Db>(
        "update project_state set ready_at = $1 where asked > served and ready_at > $1",
    )
    .bind(sql::instant(now))
    .execute(&mut *connection)
    .await?;
    let until = value::instant(now + ttl);
    for statement in [
        "update project_state set lease_until = $1 where lease_token is not null and lease_until > $1",
        "update sinks set lease_until = $1 where lease_until > $1",
    ] {
        sqlx::query::<Db>(statement)
            .bind(sql::instant(until))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The statement as it is, with the check that `epoch` and `lease_token` are the lease's: the fence.
pub(super) fn fenced(statement: &'static str) -> SqlStr {
    if sabotage::is_out(Safeguard::Fence) {
        let unfenced = statement
            .replace(" and epoch = $2 and lease_token = $3", "")
            .replace(" and s.epoch = a.run_epoch and s.lease_token = a.token", "");
        return AssertSqlSafe(unfenced).into_sql_str();
    }
    statement.into_sql_str()
}

pub(super) fn lost(lease: &Lease) -> Error {
    Error::LeaseLost {
        project: lease.project.clone(),
        epoch: lease.epoch,
    }
}
