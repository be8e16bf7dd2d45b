//! Slots of the schedule: who is due is asked to sync, and gets the next appointment in the same transaction (I3).

use chrono::TimeDelta;
use serde::Serialize;

use super::{
    Connection, Db,
    asks::{Item, ask_for, urgency},
    rows::Row,
    sql,
};
use crate::{
    clock::Instant,
    diagnosis::Code,
    project::ProjectId,
    run::{Outcome, Trigger},
    schedule::{Schedule, Slot},
    store::{Error, Issued, value::instant_text},
};

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

pub(super) async fn issue(
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
        match fall_due(&row, &id, schedule, blocked_since, now) {
            Ok(Due { next, missed }) => {
                match missed {
                    Missed::Slot(slot) => slots.push((id.clone(), slot.at)),
                    Missed::PassedOver => issued.passed_over += 1,
                    Missed::Nothing => {}
                }
                appointments.push(Appointment::new(id, Some(next)));
            }
            // One project's row is not to stand in the way of all others.
            Err(Error::Unreadable { what, why }) => {
                let again = now + UNREADABLE;
                let next = Slot {
                    at: again,
                    due_at: again,
                };
                appointments.push(Appointment::new(id.clone(), Some(next)));
                issued
                    .unreadable
                    .push((id, format!("{what} cannot be read: {why}")));
            }
            Err(error) => return Err(error),
        }
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

/// When a project whose row cannot be read is looked at again.
const UNREADABLE: TimeDelta = TimeDelta::minutes(10);

/// A project whose appointment has come.
struct Due {
    next: Slot,
    missed: Missed,
}

enum Missed {
    Slot(Slot),
    PassedOver,
    /// It is its first appointment: adding it has asked for a sync.
    Nothing,
}

fn fall_due(
    row: &Row<'_>,
    id: &ProjectId,
    schedule: &Schedule,
    blocked_since: Instant,
    now: Instant,
) -> Result<Due, Error> {
    let cron = row.optional_name("cron")?;
    let next = schedule
        .next(id, cron.as_ref(), now)
        .unwrap_or_else(|| never(now));
    let missed = match row.value::<Option<Instant>>("next_slot_at")? {
        Some(_) => schedule.latest(id, cron.as_ref(), now),
        None => None,
    };
    Ok(Due {
        next,
        missed: match missed {
            Some(_) if waits_for_a_person(row, blocked_since)? => Missed::PassedOver,
            Some(slot) => Missed::Slot(slot),
            None => Missed::Nothing,
        },
    })
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
        let Ok(cron) = row.optional_name("cron") else {
            last = Some(id); // The tick that finds it due tells of it.
            continue;
        };
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
