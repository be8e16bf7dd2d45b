//! Asking for syncs (I2).
//!
//! A project's pending request stands in its state's row while `asked > served`. A claim sets `taken` to `asked`; the run's commit sets
//! `served` to `taken`, whatever was asked for since. So a request made during a run is still there after it, and one whose
//! run died is still there when the lease has run out: nothing has to be put back.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Connection, Db, rows::Row, sql};
use crate::{
    clock::Instant,
    project::ProjectId,
    run::Trigger,
    store::{Ask, Asked, Error, Sight, value::instant_text},
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
pub(super) struct Item<'a> {
    pub(super) id: &'a ProjectId,
    pub(super) urgency: i64,
    pub(super) reason: Option<String>,
    pub(super) requested_at: String,
    pub(super) slot_at: Option<String>,
}

impl Item<'_> {
    /// The first that is given stays. Without U+0000, which Postgres cannot hold: one such reason would spoil all the requests
    /// that it comes with.
    pub(super) fn add_reason(&mut self, reason: Option<&str>) {
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

pub(super) fn on_demand(id: &ProjectId, requested_at: Instant) -> Item<'_> {
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
pub(super) async fn ask_for<'a>(
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
    let json = sql::json(&items);
    if items.len() > 1 {
        lock_states(connection, &json).await?;
    }
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
             slot_at = coalesce(a.new_slot_at, case when s.asked > s.served then s.slot_at end)
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
                 and not coalesce(s.asked > s.served and s.slot_at >= a.new_slot_at, false)
             )
         returning project_id, asked"
    ))
    .bind(json)
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

/// Locks the states of the projects in a JSON array, in one order, whoever does: an update takes its rows in any.
pub(super) async fn lock_states(
    connection: &mut Connection,
    items: &sql::JsonText,
) -> Result<(), Error> {
    sqlx::query::<Db>(sql::LOCK_STATES)
        .bind(items.clone())
        .fetch_all(connection)
        .await?;
    Ok(())
}

pub(super) async fn look(connection: &mut Connection, now: Instant) -> Result<Sight, Error> {
    let (inbox, ready, clock) = sqlx::query_as::<Db, (bool, bool, Option<Instant>)>(sql::LOOK)
        .bind(sql::instant(now))
        .fetch_one(connection)
        .await?;
    Ok(Sight {
        inbox,
        ready,
        clock,
    })
}
