//! Leases: who may write a project's catalog (I1).

use std::time::Duration;

use uuid::Uuid;

use super::{
    Connection, Db, catalog,
    projects::{self, unknown},
    rows::Row,
    sql,
};
use crate::{
    clock::Instant,
    project::ProjectId,
    store::{Claim, Error, Lease, value},
};

pub(super) async fn acquire(
    connection: &mut Connection,
    id: &ProjectId,
    ttl: Duration,
    now: Instant,
) -> Result<Claim, Error> {
    let lease = claim(connection, id, ttl, now).await?;
    let project = projects::load(connection, id).await?;
    if project.paused_at.is_some() {
        return Err(Error::Paused(project.id)); // And the claim with it: the transaction is taken back.
    }
    Ok(Claim {
        lease,
        project,
        key: projects::load_key(connection, id).await?,
        state: catalog::load_state(connection, id).await?,
    })
}

async fn claim(
    connection: &mut Connection,
    id: &ProjectId,
    ttl: Duration,
    now: Instant,
) -> Result<Lease, Error> {
    let token = Uuid::now_v7();
    let until = value::instant(now + ttl);
    let mut tried_again = false;
    loop {
        let claimed = sqlx::query_scalar::<Db, i64>(
            "update project_state set epoch = epoch + 1, lease_token = $2, lease_until = $3
             where project_id = $1 and (lease_until is null or lease_until <= $4)
             returning epoch",
        )
        .bind(id.as_str())
        .bind(token.to_string())
        .bind(sql::instant(until))
        .bind(sql::instant(now))
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
    let renewed = sqlx::query::<Db>(
        "update project_state set lease_until = $4 where project_id = $1 and epoch = $2 and lease_token = $3",
    )
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
        "update project_state set lease_token = null, lease_until = null
         where project_id = $1 and epoch = $2 and lease_token = $3",
    )
    .bind(lease.project.as_str())
    .bind(lease.epoch)
    .bind(lease.token.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn lost(lease: &Lease) -> Error {
    Error::LeaseLost {
        project: lease.project.clone(),
        epoch: lease.epoch,
    }
}
