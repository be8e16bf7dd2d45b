//! How each project fares.

use std::collections::BTreeMap;

use crate::{
    catalog::Kind,
    clock::Instant,
    project::ProjectId,
    schedule::Schedule,
    store::{Error, Status},
};

use super::{
    Connection, Db, fleet, holds, leases,
    projects::{self, unknown},
    rows::Row,
    sql,
};

macro_rules! statuses {
    ($($rest:expr),+) => {
        concat!(
            "select p.id, p.app_id, p.bundle_id, p.app_name, p.cron, p.guard, p.paused_at, p.created_at, k.key_id, k.issuer_id,
                    s.revision, s.last_attempt_at, s.last_success_at, s.outcome, s.diagnosis, s.consecutive_failures,
                    s.next_due_at, s.covered_at, h.digest, h.reasons, h.held, h.held_at, s.lease_until, s.lease_worker, s.set_aside_at, s.asked, s.served,
                    s.urgency, s.request_reason, s.requested_at, s.ready_at, s.slot_at,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.kind = 'in_app_purchase' and e.removed_at is null)
                        as in_app_purchase,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.kind = 'subscription_group' and e.removed_at is null)
                        as subscription_group,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.kind = 'subscription' and e.removed_at is null)
                        as subscription,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.kind = 'grace_period' and e.removed_at is null)
                        as grace_period,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.absence is not null and e.removed_at is null)
                        as missing,
                    (select count(*) from entries e
                     where e.project_id = p.id and e.absence ->> 'kept_at' is not null and e.removed_at is null)
                        as kept,
                    s.log_since
             from projects p
             join api_keys k on k.project_id = p.id
             join project_state s on s.project_id = p.id
             left join removal_holds h on h.project_id = p.id and h.ended_at is null ",
            $($rest),+
        )
    };
}

pub(super) async fn read_all(connection: &mut Connection) -> Result<Vec<Status>, Error> {
    let rows = sqlx::query::<Db>(statuses!("order by p.id"))
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| read(&Row::new(row, "project", &["id"])))
        .collect()
}

pub(super) async fn read_worst(
    connection: &mut Connection,
    schedule: &Schedule,
    most: u32,
    now: Instant,
) -> Result<Vec<Status>, Error> {
    let worst = fleet::worst(connection, schedule, most, now).await?;
    let rows = sqlx::query::<Db>(statuses!(
        "where p.id in (select value ->> 'id' from ",
        sql::each!("$1"),
        ")"
    ))
    .bind(sql::json(
        &worst
            .iter()
            .map(|id| BTreeMap::from([("id", id)]))
            .collect::<Vec<_>>(),
    ))
    .fetch_all(connection)
    .await?;
    let mut statuses = BTreeMap::new();
    for row in &rows {
        let status = read(&Row::new(row, "project", &["id"]))?;
        statuses.insert(status.project.id.clone(), status);
    }
    Ok(worst.iter().filter_map(|id| statuses.remove(id)).collect())
}

pub(super) async fn read_one(connection: &mut Connection, id: &ProjectId) -> Result<Status, Error> {
    let row = sqlx::query::<Db>(statuses!("where p.id = $1"))
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    match row {
        Some(row) => read(&Row::new(&row, "project", &["id"])),
        None => Err(unknown(connection, id).await),
    }
}

fn read(row: &Row<'_>) -> Result<Status, Error> {
    Ok(Status {
        project: projects::read(row)?,
        revision: row.value("revision")?,
        last_attempt_at: row.value("last_attempt_at")?,
        last_success_at: row.value("last_success_at")?,
        outcome: row.optional_name("outcome")?,
        error: row.optional_json("diagnosis")?,
        consecutive_failures: row.value("consecutive_failures")?,
        next_due_at: row.value("next_due_at")?,
        covered_at: row.json("covered_at")?,
        present: Kind::ALL
            .into_iter()
            .map(|kind| Ok((kind, row.value(kind.as_str())?)))
            .collect::<Result<_, Error>>()?,
        hold: holds::read_summary(row)?,
        held_since: row.value("held_at")?,
        missing: row.value("missing")?,
        kept: row.value("kept")?,
        log_since: row.value("log_since")?,
        leased_until: row.value("lease_until")?,
        leased_by: row.value("lease_worker")?,
        pending: leases::read_request(row)?,
        served: row.value("served")?,
        set_aside_at: row.value("set_aside_at")?,
    })
}
