//! What every run leaves, whatever it found: its project's state, its record, and what it spent. A statement for each, however
//! many runs end at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{Connection, Db, asks::lock_states, leases::fenced, rows::Row, sql, usage};
use crate::{
    catalog::{Kind, Marks, Plan, Sources},
    diagnosis::Diagnosis,
    project::ProjectId,
    run::{Outcome, Run},
    store::{
        Aftermath, Error, Lease, Spent,
        run_detail::RunDetail,
        value::{self, instant_text},
    },
};

/// How one run ended.
pub(super) struct Ending {
    state: State,
    record: Record,
    spent: usage::Bill,
}

/// What becomes of the project's state, as the statement reads it.
#[derive(Serialize)]
struct State {
    id: ProjectId,
    epoch: i64,
    token: Uuid,
    finished_at: String,
    outcome: &'static str,
    error_code: Option<&'static str>,
    error: Option<String>,
    slot_at: Option<String>,
    /// By how much the revision rises.
    rise: i64,
    succeeded_at: Option<String>,
    diagnosis: Option<Diagnosis>,
    /// 1 if nothing could be listed, else 0.
    failed: i64,
    covered_at: BTreeMap<Kind, String>,
    listed_with: Sources,
    marks: Option<Marks>,
    key_worked_at: Option<String>,
    key_refused_since: Option<String>,
    key_refusals: u32,
    retry_at: Option<String>,
}

/// What the run's row has, as the statement reads it.
#[derive(Serialize)]
struct Record {
    id: ProjectId,
    run_id: Uuid,
    trigger: &'static str,
    requested_at: Option<String>,
    slot_at: Option<String>,
    started_at: String,
    finished_at: String,
    duration_ms: i64,
    outcome: &'static str,
    error_code: Option<&'static str>,
    error: Option<String>,
    added: i64,
    updated: i64,
    removed: i64,
    restored: i64,
    held: i64,
    missing: i64,
    requests: i64,
    retries: i64,
    throttled: i64,
    bytes: i64,
    budget_left: Option<i64>,
    detail: RunDetail,
}

impl Ending {
    /// Whose end it is: a project's, under an epoch.
    pub(super) fn run(&self) -> (ProjectId, i64) {
        (self.state.id.clone(), self.state.epoch)
    }

    pub(super) fn of(lease: &Lease, plan: &Plan, run: &Run, aftermath: &Aftermath) -> Self {
        let finished_at = instant_text(run.finished_at);
        let slot_at = run.slot_at.map(instant_text);
        let error_code = run.error.as_ref().map(|error| error.code.as_str());
        let error = run.error.as_ref().map(|error| error.sentence.clone());
        let key = &aftermath.key_health;
        let state = State {
            id: lease.project.clone(),
            epoch: lease.epoch,
            token: lease.token,
            finished_at: finished_at.clone(),
            outcome: run.outcome.as_str(),
            error_code,
            error: error.clone(),
            slot_at: slot_at.clone(),
            rise: i64::from(!plan.changes().is_empty()),
            succeeded_at: match run.outcome {
                Outcome::Succeeded | Outcome::Held => Some(finished_at.clone()),
                Outcome::Partial | Outcome::Failed => None,
            },
            diagnosis: run.error.clone(),
            failed: i64::from(run.outcome == Outcome::Failed),
            covered_at: run
                .covered
                .iter()
                .map(|&kind| (kind, finished_at.clone()))
                .collect(),
            listed_with: aftermath.listed_with.clone(),
            marks: aftermath.marks.clone(),
            key_worked_at: key.worked_at.map(instant_text),
            key_refused_since: key.refused_since.map(instant_text),
            key_refusals: key.refusals,
            retry_at: aftermath.retry_at.map(instant_text),
        };
        let total = run.counts.total();
        let record = Record {
            id: lease.project.clone(),
            run_id: run.id,
            trigger: run.trigger.as_str(),
            requested_at: run.requested_at.map(instant_text),
            slot_at,
            started_at: instant_text(run.started_at),
            finished_at,
            duration_ms: (run.finished_at - run.started_at).num_milliseconds(),
            outcome: run.outcome.as_str(),
            error_code,
            error,
            added: value::count(total.added),
            updated: value::count(total.updated),
            removed: value::count(total.removed),
            restored: value::count(total.restored),
            held: value::count(run.hold.as_ref().map_or(0, |hold| hold.removals)),
            missing: value::count(run.missing),
            requests: value::count(run.cost.requests),
            retries: value::count(run.cost.retries),
            throttled: value::count(run.cost.throttled),
            bytes: value::count(run.cost.bytes),
            budget_left: run.cost.budget_left.map(value::count),
            detail: RunDetail::of(run),
        };
        Self {
            state,
            record,
            spent: usage::Bill {
                project: lease.project.clone(),
                spent: Spent {
                    requests: run.cost.requests,
                    budget: aftermath.budget,
                },
                blocked_until: run.resume_at,
                at: run.finished_at,
            },
        }
    }
}

/// The revisions after the runs whose leases lasted, by project and epoch.
pub(super) type Revisions = BTreeMap<(ProjectId, i64), i64>;

/// Writes how runs ended. Gives the revision after each whose lease lasts: of the others nothing is written.
///
/// First in a transaction, for it checks the leases and keeps their rows until the end.
pub(super) async fn write(
    connection: &mut Connection,
    worker: &str,
    endings: &[Ending],
) -> Result<Revisions, Error> {
    if endings.len() > 1 {
        let ids = endings
            .iter()
            .map(|ending| json!({ "id": ending.state.id }));
        lock_states(connection, &sql::json(&ids.collect::<Vec<_>>())).await?;
    }
    let states: Vec<_> = endings.iter().map(|ending| &ending.state).collect();
    let revisions = write_states(connection, &states).await?;
    if revisions.is_empty() {
        return Ok(revisions);
    }
    let lasting: Vec<&Ending> = endings
        .iter()
        .filter(|ending| revisions.contains_key(&ending.run()))
        .collect();
    let records: Vec<_> = lasting.iter().map(|ending| &ending.record).collect();
    write_records(connection, worker, &records).await?;
    let bills: Vec<_> = lasting.iter().map(|ending| &ending.spent).collect();
    usage::record(connection, &bills).await?;
    Ok(revisions)
}

async fn write_states(connection: &mut Connection, states: &[&State]) -> Result<Revisions, Error> {
    let rows = sqlx::query::<Db>(fenced(concat!(
        "update project_state as s set
             lease_token = null,
             lease_until = null,
             lease_worker = null,
             revision = s.revision + a.rise,
             last_attempt_at = a.finished_at,
             last_success_at = coalesce(a.succeeded_at, s.last_success_at),
             outcome = a.new_outcome,
             error_code = a.new_error_code,
             error = a.new_error,
             diagnosis = a.new_diagnosis,
             consecutive_failures = (s.consecutive_failures + 1) * a.failed,
             covered_at = ",
        sql::merged!("s.covered_at", "a.new_covered_at"),
        ",
             listed_with = ",
        sql::merged!("s.listed_with", "a.new_listed_with"),
        ",
             marks = a.new_marks,
             key_worked_at = a.new_key_worked_at,
             key_refused_since = a.new_key_refused_since,
             key_refusals = a.new_key_refusals,
             served = s.taken,
             asked = case when s.asked = s.taken and a.retry_at is not null then s.asked + 1 else s.asked end,
             urgency = case when s.asked = s.taken then 2 else s.urgency end,
             request_reason = case when s.asked = s.taken then null else s.request_reason end,
             requested_at = case when s.asked = s.taken then a.finished_at else s.requested_at end,
             ready_at = case when s.asked = s.taken then a.retry_at else s.ready_at end,
             slot_at = case when s.slot_at = a.run_slot_at then null else s.slot_at end,
             losses = 0,
             lost_since = null,
             set_aside_at = null,
             retries = case when a.retry_at is null then 0 else s.retries + 1 end
         from (
             select
                 value ->> 'id' as id,
                 ",
        sql::as_integer!("value ->> 'epoch'"),
        " as run_epoch,
                 value ->> 'token' as token,
                 ",
        sql::as_integer!("value ->> 'rise'"),
        " as rise,
                 ",
        sql::as_instant!("value ->> 'finished_at'"),
        " as finished_at,
                 ",
        sql::as_instant!("value ->> 'succeeded_at'"),
        " as succeeded_at,
                 value ->> 'outcome' as new_outcome,
                 value ->> 'error_code' as new_error_code,
                 value ->> 'error' as new_error,
                 nullif(value -> 'diagnosis', 'null') as new_diagnosis,
                 ",
        sql::as_integer!("value ->> 'failed'"),
        " as failed,
                 value -> 'covered_at' as new_covered_at,
                 value -> 'listed_with' as new_listed_with,
                 nullif(value -> 'marks', 'null') as new_marks,
                 ",
        sql::as_instant!("value ->> 'key_worked_at'"),
        " as new_key_worked_at,
                 ",
        sql::as_instant!("value ->> 'key_refused_since'"),
        " as new_key_refused_since,
                 ",
        sql::as_integer!("value ->> 'key_refusals'"),
        " as new_key_refusals,
                 ",
        sql::as_instant!("value ->> 'retry_at'"),
        " as retry_at,
                 ",
        sql::as_instant!("value ->> 'slot_at'"),
        " as run_slot_at
             from ",
        sql::each!("$1"),
        "
         ) as a
         where s.project_id = a.id and s.epoch = a.run_epoch and s.lease_token = a.token
         returning project_id, epoch, revision"
    )))
    .bind(sql::json(states))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "project_state", &["project_id"]);
            let run = (row.name("project_id")?, row.value("epoch")?);
            Ok((run, row.value("revision")?))
        })
        .collect()
}

async fn write_records(
    connection: &mut Connection,
    worker: &str,
    records: &[&Record],
) -> Result<(), Error> {
    sqlx::query::<Db>(concat!(
        "insert into runs (id, project_id, trigger, started_at, finished_at, duration_ms, outcome, epoch, revision,
                           error_code, error, added, updated, removed, restored, held,
                           requests, retries, throttled, bytes, budget_left, detail, slot_at, requested_at, worker,
                           missing)
         select a.run_id, a.id, a.run_trigger, a.started_at, a.finished_at, a.duration_ms, a.outcome, s.epoch, s.revision,
                a.error_code, a.error, a.added, a.updated, a.removed, a.restored, a.held,
                a.requests, a.retries, a.throttled, a.bytes, a.budget_left, a.detail,
                -- A slot has one run, whatever the clocks of those who issued it did.
                case
                    when exists (select 1 from runs r where r.project_id = a.id and r.slot_at = a.slot_at) then null
                    else a.slot_at
                end,
                a.requested_at, $2, a.missing
         from (
             select
                 value ->> 'id' as id,
                 value ->> 'run_id' as run_id,
                 value ->> 'trigger' as run_trigger,
                 value ->> 'outcome' as outcome,
                 value ->> 'error_code' as error_code,
                 value ->> 'error' as error,
                 value -> 'detail' as detail,
                 ",
        sql::as_instant!("value ->> 'started_at'"),
        " as started_at,
                 ",
        sql::as_instant!("value ->> 'finished_at'"),
        " as finished_at,
                 ",
        sql::as_instant!("value ->> 'requested_at'"),
        " as requested_at,
                 ",
        sql::as_instant!("value ->> 'slot_at'"),
        " as slot_at,
                 ",
        sql::as_integer!("value ->> 'duration_ms'"),
        " as duration_ms,
                 ",
        sql::as_integer!("value ->> 'added'"),
        " as added,
                 ",
        sql::as_integer!("value ->> 'updated'"),
        " as updated,
                 ",
        sql::as_integer!("value ->> 'removed'"),
        " as removed,
                 ",
        sql::as_integer!("value ->> 'restored'"),
        " as restored,
                 ",
        sql::as_integer!("value ->> 'held'"),
        " as held,
                 ",
        sql::as_integer!("value ->> 'missing'"),
        " as missing,
                 ",
        sql::as_integer!("value ->> 'requests'"),
        " as requests,
                 ",
        sql::as_integer!("value ->> 'retries'"),
        " as retries,
                 ",
        sql::as_integer!("value ->> 'throttled'"),
        " as throttled,
                 ",
        sql::as_integer!("value ->> 'bytes'"),
        " as bytes,
                 ",
        sql::as_integer!("value ->> 'budget_left'"),
        " as budget_left
             from ",
        sql::each!("$1"),
        "
         ) as a
         join project_state s on s.project_id = a.id"
    ))
    .bind(sql::json(records))
    .bind(worker)
    .execute(connection)
    .await?;
    Ok(())
}
