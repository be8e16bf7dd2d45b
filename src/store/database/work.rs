//! The work list: asking for syncs, and claiming what was asked for (I2, I3).
//!
//! A project's pending request stands in its state's row while `asked > served`. A claim sets `taken` to `asked`; the run's commit sets
//! `served` to `taken`, whatever was asked for since. So a request made during a run is still there after it, and one whose
//! run died is still there when the lease has run out: nothing has to be put back.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use chrono::TimeDelta;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Connection, Db,
    leases::{self, LOSSES_TO_SET_ASIDE, LOSSES_WITHIN, details},
    rows::Row,
    sql,
};
use crate::{
    budget::{Ledger, Reserve},
    clock::Instant,
    diagnosis::Code,
    project::ProjectId,
    run::{Outcome, Trigger},
    schedule::{Schedule, Slot},
    store::{
        Ask, Asked, Claimed, Error, Inbox, Issued, LastChance, Lease, Loss, Sight,
        value::{self, instant_text},
    },
};

/// How urgent what a trigger asks for is: the less, the sooner.
pub(super) const fn urgency(trigger: Trigger) -> i64 {
    match trigger {
        Trigger::Command | Trigger::Request => 0,
        Trigger::Schedule => 1,
        Trigger::Retry => 2,
    }
}

pub(super) const fn trigger(urgency: i64) -> Trigger {
    match urgency {
        0 => Trigger::Request,
        1 => Trigger::Schedule,
        _ => Trigger::Retry,
    }
}

/// What is asked for, as the statement reads it.
#[derive(Serialize)]
struct Item<'a> {
    id: &'a ProjectId,
    urgency: i64,
    reason: Option<String>,
    requested_at: String,
    slot_at: Option<String>,
}

impl Item<'_> {
    /// The first that is given stays. Without U+0000, which Postgres cannot hold: one such reason would spoil all the requests
    /// that it comes with.
    fn add_reason(&mut self, reason: Option<&str>) {
        if self.reason.is_none() {
            self.reason = reason.map(|reason| reason.replace('\0', ""));
        }
    }
}

pub(super) async fn ask(
    connection: &mut Connection,
    asks: &[Ask],
    now: Instant,
) -> Result<Asked, Error> {
    // The statement takes each project once.
    let mut items: BTreeMap<&ProjectId, Item<'_>> = BTreeMap::new();
    for Ask { project, reason } in asks {
        let item = items
            .entry(project)
            .or_insert_with(|| on_demand(project, now));
        item.add_reason(reason.as_deref());
    }
    let tickets = ask_for(connection, items.values(), now).await?;
    Ok(Asked {
        unknown: items
            .into_keys()
            .filter(|id| !tickets.contains_key(*id))
            .cloned()
            .collect(),
        tickets,
    })
}

fn on_demand(id: &ProjectId, requested_at: Instant) -> Item<'_> {
    Item {
        id,
        urgency: urgency(Trigger::Request),
        reason: None,
        requested_at: instant_text(requested_at),
        slot_at: None,
    }
}

/// Asks for one project that is known to be there.
pub(super) async fn ask_one(
    connection: &mut Connection,
    id: &ProjectId,
    now: Instant,
) -> Result<(), Error> {
    ask_for(connection, [&on_demand(id, now)], now).await?;
    Ok(())
}

/// One request more for each, merged with what waits. What a live run has taken does not wait any more. A slot that has had its run,
/// or whose run is to come, asks for nothing.
async fn ask_for<'a>(
    connection: &mut Connection,
    items: impl IntoIterator<Item = &'a Item<'a>>,
    now: Instant,
) -> Result<BTreeMap<ProjectId, i64>, Error> {
    macro_rules! waits {
        () => {
            "s.asked > s.served and not (s.asked = s.taken and coalesce(s.lease_until > $2, false))"
        };
    }
    let items: Vec<&Item<'_>> = items.into_iter().collect();
    let rows = sqlx::query::<Db>(concat!(
        "update project_state as s set
             asked = s.asked + 1,
             urgency = case when ",
        waits!(),
        " and s.urgency < a.new_urgency then s.urgency else a.new_urgency end,
             request_reason = case when ",
        waits!(),
        " then coalesce(s.request_reason, a.new_reason) else a.new_reason end,
             requested_at = case when ",
        waits!(),
        " and s.requested_at < a.new_requested_at then s.requested_at else a.new_requested_at end,
             ready_at = case when ",
        waits!(),
        " and s.ready_at < $2 then s.ready_at else $2 end,
             slot_at = coalesce(a.new_slot_at, case when ",
        waits!(),
        " then s.slot_at end)
         from (
             select
                 value ->> 'id' as id,
                 ",
        sql::as_integer!("value ->> 'urgency'"),
        " as new_urgency,
                 value ->> 'reason' as new_reason,
                 ",
        sql::as_instant!("value ->> 'requested_at'"),
        " as new_requested_at,
                 ",
        sql::as_instant!("value ->> 'slot_at'"),
        " as new_slot_at
             from ",
        sql::each!("$1"),
        "
         ) as a
         where s.project_id = a.id
             and (
                 a.new_slot_at is null
                 or not exists (select 1 from runs r where r.project_id = a.id and r.slot_at = a.new_slot_at)
                 and not coalesce(s.asked > s.served and s.slot_at = a.new_slot_at, false)
             )
         returning project_id, asked"
    ))
    .bind(sql::json(&items))
    .bind(sql::instant(now))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "project_state", &["project_id"]);
            Ok((row.name("project_id")?, row.value("asked")?))
        })
        .collect()
}

pub(super) async fn take_inbox(
    connection: &mut Connection,
    most: u32,
    now: Instant,
) -> Result<Inbox, Error> {
    let rows = sqlx::query::<Db>(sql::TAKE_INBOX)
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await?;
    let mut inbox = Inbox {
        taken: rows.len(),
        refused: Vec::new(),
    };
    let mut wanted: Vec<(String, Option<String>, Instant)> = Vec::new();
    for row in &rows {
        let row = Row::new(row, "sync_requests", &["project_id"]);
        // The host may have written there what is no instant; when it was taken is near enough.
        let requested_at: Instant = row.value("requested_at").unwrap_or(now);
        wanted.push((
            row.text("project_id")?,
            row.value("reason")?,
            requested_at.min(now),
        ));
    }
    wanted.sort_by_key(|(.., requested_at)| *requested_at);
    let ids: Vec<(usize, ProjectId)> = wanted
        .iter()
        .enumerate()
        .filter_map(|(at, (text, ..))| Some((at, text.parse().ok()?)))
        .collect();
    let mut items: BTreeMap<&ProjectId, Item<'_>> = BTreeMap::new();
    for (at, id) in &ids {
        if let Some((_, reason, requested_at)) = wanted.get(*at) {
            let item = items
                .entry(id)
                .or_insert_with(|| on_demand(id, *requested_at));
            item.add_reason(reason.as_deref());
        }
    }
    let tickets = ask_for(connection, items.values(), now).await?;
    for (text, reason, requested_at) in &wanted {
        let why = match text.parse::<ProjectId>() {
            Ok(id) if tickets.contains_key(&id) => continue,
            Ok(id) => format!("there is no project '{id}'"),
            Err(error) => error.to_string(),
        };
        sqlx::query::<Db>(
            "insert into refused_requests (project_id, reason, requested_at, refused_at, why) values ($1, $2, $3, $4, $5)",
        )
        .bind(text)
        .bind(reason)
        .bind(sql::instant(*requested_at))
        .bind(sql::instant(now))
        .bind(&why)
        .execute(&mut *connection)
        .await?;
        inbox.refused.push((text.clone(), why));
    }
    Ok(inbox)
}

/// A project's next appointment, as the statement reads it.
#[derive(Serialize)]
struct Appointment {
    id: ProjectId,
    slot_at: Option<String>,
    due_at: Option<String>,
}

impl Appointment {
    fn new(id: ProjectId, next: Option<Slot>) -> Self {
        Self {
            id,
            slot_at: next.map(|slot| instant_text(slot.at)),
            due_at: next.map(|slot| instant_text(slot.due_at)),
        }
    }
}

/// When a project whose cron never fires again is looked at again.
const NEVER: TimeDelta = TimeDelta::days(365);

pub(super) async fn issue_slots(
    connection: &mut Connection,
    schedule: &Schedule,
    blocked_since: Instant,
    most: u32,
    now: Instant,
) -> Result<Issued, Error> {
    let rows = sqlx::query::<Db>(sql::DUE)
        .bind(sql::instant(now))
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await?;
    let mut issued = Issued {
        due: rows.len(),
        ..Issued::default()
    };
    let mut appointments = Vec::new();
    let mut slots: Vec<(ProjectId, Instant)> = Vec::new();
    for row in &rows {
        let row = Row::new(row, "project", &["project_id"]);
        let id: ProjectId = row.name("project_id")?;
        let cron = row.optional_name("cron")?;
        let next = schedule
            .next(&id, cron.as_ref(), now)
            .unwrap_or_else(|| never(now));
        let missed = match row.value::<Option<Instant>>("next_slot_at")? {
            Some(_) => schedule.latest(&id, cron.as_ref(), now),
            None => None, // Its first appointment: adding it has asked for a sync.
        };
        if let Some(slot) = missed {
            if waits_for_a_person(&row, blocked_since)? {
                issued.passed_over += 1;
            } else {
                slots.push((id.clone(), slot.at));
            }
        }
        appointments.push(Appointment::new(id, Some(next)));
    }
    set_appointments(connection, &appointments).await?;
    let items: Vec<Item<'_>> = slots
        .iter()
        .map(|(id, slot_at)| Item {
            id,
            urgency: urgency(Trigger::Schedule),
            reason: None,
            requested_at: instant_text(now),
            slot_at: Some(instant_text(*slot_at)),
        })
        .collect();
    issued.asked = ask_for(connection, &items, now).await?.len();
    Ok(issued)
}

fn never(now: Instant) -> Slot {
    Slot {
        at: now + NEVER,
        due_at: now + NEVER,
    }
}

/// Whether the last run failed for a reason that only a person can mend, and was not long ago.
fn waits_for_a_person(row: &Row<'_>, blocked_since: Instant) -> Result<bool, Error> {
    let failed = row.value::<Option<&str>>("outcome")? == Some(Outcome::Failed.as_str());
    let attempted_at: Option<Instant> = row.value("last_attempt_at")?;
    if !failed || attempted_at.is_none_or(|at| at <= blocked_since) {
        return Ok(false);
    }
    let code = row.value::<Option<&str>>("error_code")?;
    // A code of a newer version is none that this one knows to be hopeless.
    Ok(code
        .and_then(|code| code.parse::<Code>().ok())
        .is_some_and(Code::needs_a_person))
}

async fn set_appointments(
    connection: &mut Connection,
    appointments: &[Appointment],
) -> Result<(), Error> {
    if appointments.is_empty() {
        return Ok(());
    }
    sqlx::query::<Db>(concat!(
        "update project_state as s set next_slot_at = a.new_slot_at, next_due_at = a.new_due_at
         from (
             select
                 value ->> 'id' as id,
                 ",
        sql::as_instant!("value ->> 'slot_at'"),
        " as new_slot_at,
                 ",
        sql::as_instant!("value ->> 'due_at'"),
        " as new_due_at
             from ",
        sql::each!("$1"),
        "
         ) as a
         where s.project_id = a.id"
    ))
    .bind(sql::json(appointments))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn reschedule(
    connection: &mut Connection,
    schedule: &Schedule,
    after: Option<&ProjectId>,
    most: u32,
    now: Instant,
) -> Result<Option<ProjectId>, Error> {
    let rows = sqlx::query::<Db>(sql::APPOINTMENTS)
        .bind(after.map_or("", ProjectId::as_str))
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await?;
    let mut wrong = Vec::new();
    let mut last = None;
    for row in &rows {
        let row = Row::new(row, "project", &["project_id"]);
        let id: ProjectId = row.name("project_id")?;
        let cron = row.optional_name("cron")?;
        // What is due already, the next tick issues.
        if let Some(due_at) = row
            .value::<Option<Instant>>("next_due_at")?
            .filter(|due_at| *due_at > now)
        {
            let next = schedule
                .next(&id, cron.as_ref(), now)
                .unwrap_or_else(|| never(now));
            if next.due_at != due_at {
                wrong.push(Appointment::new(id.clone(), Some(next)));
            }
        }
        last = Some(id);
    }
    set_appointments(connection, &wrong).await?;
    Ok(last.filter(|_| rows.len() == most as usize))
}

pub(super) async fn look(connection: &mut Connection, now: Instant) -> Result<Sight, Error> {
    let (inbox, ready) = sqlx::query_as::<Db, (bool, bool)>(
        "select
             exists (select 1 from sync_requests),
             exists (select 1 from project_state where asked > served and ready_at <= $1)",
    )
    .bind(sql::instant(now))
    .fetch_one(connection)
    .await?;
    Ok(Sight { inbox, ready })
}

pub(super) async fn forget_refused(
    connection: &mut Connection,
    before: Instant,
) -> Result<u64, Error> {
    let forgotten = sqlx::query::<Db>("delete from refused_requests where refused_at < $1")
        .bind(sql::instant(before))
        .execute(connection)
        .await?;
    Ok(forgotten.rows_affected())
}

/// A project to be claimed, as the statement reads it.
#[derive(Serialize)]
struct Candidate {
    id: ProjectId,
    token: Uuid,
    losses: i64,
    lost_since: Option<String>,
}

#[derive(Serialize)]
struct Deferral<'a> {
    id: &'a ProjectId,
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

    let mut chosen = Vec::new();
    let mut claimed = Claimed::default();
    let mut keys = HashSet::new();
    let mut last_chances = match last_chance {
        LastChance::One => 1,
        LastChance::None => 0,
    };
    for row in &rows {
        let row = Row::new(row, "project", &["id"]);
        let id: ProjectId = row.name("id")?;
        let (losses, lost_since) = count_losses(&row, now)?;
        if losses >= LOSSES_TO_SET_ASIDE {
            claimed.lost.extend(loss(&row, &id)?);
            claimed.set_aside.push(id);
            continue;
        }
        let key_id = row.text("key_id")?;
        if keys.contains(&key_id) {
            continue; // Its turn comes when the other is done.
        }
        let ledger: Ledger = row.json("ledger")?;
        let reserve = match trigger(row.value("urgency")?) {
            Trigger::Request | Trigger::Command => Reserve::OnDemand,
            Trigger::Schedule | Trigger::Retry => Reserve::Scheduled,
        };
        if let Some(ready_at) = ledger.ready_at(reserve, now) {
            claimed.deferred.push((id, ready_at));
            continue;
        }
        if losses == LOSSES_TO_SET_ASIDE - 1 {
            if last_chances == 0 {
                continue;
            }
            last_chances -= 1;
        }
        keys.insert(key_id);
        claimed.lost.extend(loss(&row, &id)?);
        chosen.push((
            row,
            Candidate {
                id,
                token: Uuid::now_v7(),
                losses,
                lost_since: lost_since.map(instant_text),
            },
        ));
    }
    defer(connection, &claimed.deferred).await?;
    set_aside(connection, &claimed.set_aside, now).await?;
    let candidates: Vec<&Candidate> = chosen.iter().map(|(_, candidate)| candidate).collect();
    let until = value::instant(now + ttl);
    let epochs = take(connection, worker, &candidates, until).await?;
    for (row, candidate) in &chosen {
        if let Some(&epoch) = epochs.get(&candidate.id) {
            let lease = Lease {
                project: candidate.id.clone(),
                epoch,
                token: candidate.token,
                until,
            };
            claimed
                .claims
                .push(leases::read_claim(row, lease, candidate.losses)?);
        }
    }
    Ok(claimed)
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
    candidates: &[&Candidate],
    until: Instant,
) -> Result<BTreeMap<ProjectId, i64>, Error> {
    if candidates.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query::<Db>(concat!(
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
         where s.project_id = a.id
         returning project_id, epoch"
    ))
    .bind(sql::json(candidates))
    .bind(sql::instant(until))
    .bind(worker)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "project_state", &["project_id"]);
            Ok((row.name("project_id")?, row.value("epoch")?))
        })
        .collect()
}

async fn defer(
    connection: &mut Connection,
    deferred: &[(ProjectId, Instant)],
) -> Result<(), Error> {
    if deferred.is_empty() {
        return Ok(());
    }
    let deferrals: Vec<Deferral<'_>> = deferred
        .iter()
        .map(|(id, ready_at)| Deferral {
            id,
            ready_at: instant_text(*ready_at),
        })
        .collect();
    sqlx::query::<Db>(concat!(
        "update project_state as s set ready_at = a.new_ready_at
         from (select value ->> 'id' as id, ",
        sql::as_instant!("value ->> 'ready_at'"),
        " as new_ready_at from ",
        sql::each!("$1"),
        ") as a where s.project_id = a.id"
    ))
    .bind(sql::json(&deferrals))
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
