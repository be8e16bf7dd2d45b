//! Claiming what was asked for: of what is ready, what there is budget for, one project of each key.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use chrono::TimeDelta;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Connection, Db,
    asks::trigger,
    leases::{self, LOSSES_TO_SET_ASIDE, LOSSES_WITHIN, details},
    rows::Row,
    sql,
};
use crate::{
    budget::{Ledger, Reserve},
    clock::Instant,
    project::ProjectId,
    run::Trigger,
    store::{
        Claimed, Error, LastChance, Lease, Loss,
        value::{self, instant_text},
    },
};

/// A project to be claimed, as the statement reads it.
#[derive(Serialize)]
struct Candidate {
    id: ProjectId,
    token: Uuid,
    losses: i64,
    lost_since: Option<String>,
}

#[derive(Serialize)]
struct Deferral {
    id: ProjectId,
    ready_at: String,
}

pub(super) async fn claim(
    connection: &mut Connection,
    worker: &str,
    most: u32,
    last_chance: LastChance,
    ttl: Duration,
    now: Instant,
) -> Result<Claimed, Error> {
    let ids = sqlx::query_scalar::<Db, String>(sql::CANDIDATES)
        .bind(sql::instant(now))
        .bind(i64::from(most))
        .bind(last_chance == LastChance::One)
        .bind(sql::instant(now - LOSSES_WITHIN))
        .fetch_all(&mut *connection)
        .await?;
    if ids.is_empty() {
        return Ok(Claimed::default());
    }
    // Read again, now that their rows are locked: another worker may have claimed a project with the same key in between.
    let rows = sqlx::query::<Db>(concat!(
        "select ",
        details!(),
        ", u.ledger from project_state s
         join projects p on p.id = s.project_id
         join api_keys k on k.project_id = s.project_id
         join key_usage u on u.key_id = k.key_id
         left join removal_holds h on h.project_id = s.project_id and h.ended_at is null
         where s.project_id in (select value ->> 'id' from ",
        sql::each!("$1"),
        ") and ",
        sql::key_is_free!("$2"),
        "
         order by s.urgency, s.ready_at"
    ))
    .bind(sql::json(
        &ids.iter()
            .map(|id| BTreeMap::from([("id", id)]))
            .collect::<Vec<_>>(),
    ))
    .bind(sql::instant(now))
    .fetch_all(&mut *connection)
    .await?;

    let mut claimed = Claimed::default();
    let mut choice = Choice {
        candidates: Vec::new(),
        deferrals: Vec::new(),
        keys: HashSet::new(),
        last_chances: match last_chance {
            LastChance::One => 1,
            LastChance::None => 0,
        },
        until: value::instant(now + ttl),
        now,
    };
    for row in &rows {
        let row = Row::new(row, "project", &["id"]);
        match choice.consider(&row, &mut claimed) {
            // One project's row is not to stand in the way of all others.
            Err(Error::Unreadable { what, why }) => {
                let id: ProjectId = row.name("id")?;
                choice.defer(id.clone(), now + UNREADABLE);
                claimed
                    .unreadable
                    .push((id, format!("{what} cannot be read: {why}")));
            }
            other => other?,
        }
    }
    defer(connection, &choice.deferrals).await?;
    set_aside(connection, &claimed.set_aside, now).await?;
    take(connection, worker, &choice.candidates, choice.until).await?;
    Ok(claimed)
}

/// When a project whose row cannot be read is looked at again.
const UNREADABLE: TimeDelta = TimeDelta::minutes(10);

/// What becomes of the rows that were locked.
struct Choice {
    candidates: Vec<Candidate>,
    deferrals: Vec<Deferral>,
    keys: HashSet<String>,
    last_chances: u32,
    until: Instant,
    now: Instant,
}

impl Choice {
    fn consider(&mut self, row: &Row<'_>, claimed: &mut Claimed) -> Result<(), Error> {
        let id: ProjectId = row.name("id")?;
        let (losses, lost_since) = count_losses(row, self.now)?;
        if losses >= LOSSES_TO_SET_ASIDE {
            claimed.lost.extend(loss(row, &id)?);
            claimed.set_aside.push(id);
            return Ok(());
        }
        let key_id = row.text("key_id")?;
        if self.keys.contains(&key_id) {
            return Ok(()); // Its turn comes when the other is done.
        }
        let ledger: Ledger = row.json("ledger")?;
        let reserve = match trigger(row.value("urgency")?) {
            Trigger::Request | Trigger::Command => Reserve::OnDemand,
            Trigger::Schedule | Trigger::Retry => Reserve::Scheduled,
        };
        if let Some(ready_at) = ledger.ready_at(reserve, self.now) {
            self.defer(id.clone(), ready_at);
            claimed.deferred.push((id, ready_at));
            return Ok(());
        }
        let is_last_chance = losses == LOSSES_TO_SET_ASIDE - 1;
        if is_last_chance && self.last_chances == 0 {
            return Ok(());
        }
        let lease = Lease {
            project: id.clone(),
            epoch: row.value::<i64>("epoch")? + 1, // Its row is locked.
            token: Uuid::now_v7(),
            until: self.until,
        };
        let token = lease.token;
        let claim = leases::read_claim(row, lease, losses)?;
        claimed.lost.extend(loss(row, &id)?);
        claimed.claims.push(claim);
        self.last_chances -= u32::from(is_last_chance);
        self.keys.insert(key_id);
        self.candidates.push(Candidate {
            id,
            token,
            losses,
            lost_since: lost_since.map(instant_text),
        });
        Ok(())
    }

    fn defer(&mut self, id: ProjectId, until: Instant) {
        self.deferrals.push(Deferral {
            id,
            ready_at: instant_text(until),
        });
    }
}

/// How many runs in a row lost their workers, the last one included if its lease ran out, and since when.
fn count_losses(row: &Row<'_>, now: Instant) -> Result<(i64, Option<Instant>), Error> {
    let losses: i64 = row.value("losses")?;
    let since: Option<Instant> = row.value("lost_since")?;
    if row.value::<Option<&str>>("lease_token")?.is_none() {
        return Ok((losses, since));
    }
    Ok(match since.filter(|since| *since > now - LOSSES_WITHIN) {
        Some(since) => (losses + 1, Some(since)),
        None => (1, Some(now)),
    })
}

fn loss(row: &Row<'_>, id: &ProjectId) -> Result<Option<Loss>, Error> {
    if row.value::<Option<&str>>("lease_token")?.is_none() {
        return Ok(None);
    }
    Ok(Some(Loss {
        project: id.clone(),
        epoch: row.value("epoch")?,
        worker: row.value("lease_worker")?,
        until: row.instant("lease_until")?,
    }))
}

async fn take(
    connection: &mut Connection,
    worker: &str,
    candidates: &[Candidate],
    until: Instant,
) -> Result<(), Error> {
    if candidates.is_empty() {
        return Ok(());
    }
    sqlx::query::<Db>(concat!(
        "update project_state as s set
             epoch = s.epoch + 1,
             lease_token = a.new_token,
             lease_until = $2,
             lease_worker = $3,
             taken = s.asked,
             losses = a.new_losses,
             lost_since = a.new_lost_since
         from (
             select
                 value ->> 'id' as id,
                 value ->> 'token' as new_token,
                 ",
        sql::as_integer!("value ->> 'losses'"),
        " as new_losses,
                 ",
        sql::as_instant!("value ->> 'lost_since'"),
        " as new_lost_since
             from ",
        sql::each!("$1"),
        "
         ) as a
         where s.project_id = a.id"
    ))
    .bind(sql::json(candidates))
    .bind(sql::instant(until))
    .bind(worker)
    .execute(connection)
    .await?;
    Ok(())
}

async fn defer(connection: &mut Connection, deferrals: &[Deferral]) -> Result<(), Error> {
    if deferrals.is_empty() {
        return Ok(());
    }
    sqlx::query::<Db>(concat!(
        "update project_state as s set ready_at = a.new_ready_at
         from (select value ->> 'id' as id, ",
        sql::as_instant!("value ->> 'ready_at'"),
        " as new_ready_at from ",
        sql::each!("$1"),
        ") as a where s.project_id = a.id"
    ))
    .bind(sql::json(deferrals))
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_aside(
    connection: &mut Connection,
    ids: &[ProjectId],
    now: Instant,
) -> Result<(), Error> {
    for id in ids {
        sqlx::query::<Db>(
            "update project_state set set_aside_at = $2, lease_token = null, lease_until = null, lease_worker = null,
                 taken = served
             where project_id = $1",
        )
        .bind(id.as_str())
        .bind(sql::instant(now))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
