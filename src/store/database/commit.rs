//! The only writer of catalogs (I1, I5).

use std::collections::BTreeMap;

use chrono::SecondsFormat;

use super::{
    Connection, Db, holds,
    leases::{fenced, lost},
    outbox,
    rows::Row,
    sql, unforeseen, usage,
};
use crate::{
    catalog::{Kind, Plan},
    run::{Outcome, Run},
    store::{Aftermath, Committed, Error, Lease, Spent, run_detail::RunDetail, value},
};

pub(super) async fn commit(
    connection: &mut Connection,
    worker: &str,
    lease: &Lease,
    plan: &Plan,
    run: &Run,
    aftermath: &Aftermath,
) -> Result<Committed, Error> {
    // First, for it checks the lease and keeps its row until the end.
    let revision = write_state(connection, lease, plan, run, aftermath).await?;
    write_run(connection, worker, lease, run, revision).await?;
    let spent = Spent {
        requests: run.cost.requests,
        budget: aftermath.budget,
    };
    usage::record(
        connection,
        &lease.project,
        &spent,
        run.resume_at,
        run.finished_at,
    )
    .await?;
    holds::turn(connection, lease, &aftermath.hold, run).await?;
    let mut rows = 0;
    if !plan.changes().is_empty() {
        // Its cursor is where the log ends before this revision.
        outbox::put(connection, &lease.project, run, revision).await?;
        rows += write_changes(connection, lease, plan, run, aftermath, revision).await?;
    }
    rows += holds::note(connection, &lease.project, plan.absences()).await?;
    let unforeseen = unforeseen::note(
        connection,
        &lease.project,
        &aftermath.unforeseen,
        run.finished_at,
    )
    .await?;
    Ok(Committed {
        revision,
        rows,
        unforeseen,
    })
}

async fn write_state(
    connection: &mut Connection,
    lease: &Lease,
    plan: &Plan,
    run: &Run,
    aftermath: &Aftermath,
) -> Result<i64, Error> {
    let covered_at: BTreeMap<Kind, String> = run
        .covered
        .iter()
        .map(|&kind| {
            let at = run.finished_at.to_rfc3339_opts(SecondsFormat::Millis, true);
            (kind, at)
        })
        .collect();
    let succeeded_at = match run.outcome {
        Outcome::Succeeded | Outcome::Held => Some(run.finished_at),
        Outcome::Partial | Outcome::Failed => None,
    };
    let row = sqlx::query::<Db>(fenced(sql::COMMIT_STATE))
        .bind(lease.project.as_str())
        .bind(lease.epoch)
        .bind(lease.token.to_string())
        .bind(i64::from(!plan.changes().is_empty()))
        .bind(sql::instant(run.finished_at))
        .bind(succeeded_at.map(sql::instant))
        .bind(run.outcome.as_str())
        .bind(run.error.as_ref().map(|error| error.code.as_str()))
        .bind(run.error.as_ref().map(|error| error.sentence.as_str()))
        .bind(run.error.as_ref().map(sql::json))
        .bind(i64::from(run.outcome == Outcome::Failed))
        .bind(sql::json(&covered_at))
        .bind(sql::json(&aftermath.listed_with))
        .bind(aftermath.key_health.worked_at.map(sql::instant))
        .bind(aftermath.key_health.refused_since.map(sql::instant))
        .bind(i64::from(aftermath.key_health.refusals))
        .bind(aftermath.retry_at.map(sql::instant))
        .bind(run.slot_at.map(sql::instant))
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| lost(lease))?;
    Row::new(&row, "project_state", &["project_id"]).value("revision")
}

async fn write_run(
    connection: &mut Connection,
    worker: &str,
    lease: &Lease,
    run: &Run,
    revision: i64,
) -> Result<(), Error> {
    let total = run.counts.total();
    let held = run.hold.as_ref().map_or(0, |hold| hold.removals);
    let duration = run.finished_at - run.started_at;
    sqlx::query::<Db>(
        "insert into runs (id, project_id, trigger, started_at, finished_at, duration_ms, outcome, epoch, revision,
                           error_code, error, added, updated, removed, restored, held,
                           requests, retries, throttled, bytes, budget_left, detail, slot_at, requested_at, worker,
                           missing)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                 -- A slot has one run, whatever the clocks of those who issued it did.
                 case when exists (select 1 from runs r where r.project_id = $2 and r.slot_at = $23) then null else $23 end,
                 $24, $25, $26)",
    )
    .bind(run.id.to_string())
    .bind(lease.project.as_str())
    .bind(run.trigger.as_str())
    .bind(sql::instant(run.started_at))
    .bind(sql::instant(run.finished_at))
    .bind(duration.num_milliseconds())
    .bind(run.outcome.as_str())
    .bind(lease.epoch)
    .bind(revision)
    .bind(run.error.as_ref().map(|error| error.code.as_str()))
    .bind(run.error.as_ref().map(|error| error.sentence.as_str()))
    .bind(value::count(total.added))
    .bind(value::count(total.updated))
    .bind(value::count(total.removed))
    .bind(value::count(total.restored))
    .bind(value::count(held))
    .bind(value::count(run.cost.requests))
    .bind(value::count(run.cost.retries))
    .bind(value::count(run.cost.throttled))
    .bind(value::count(run.cost.bytes))
    .bind(run.cost.budget_left.map(value::count))
    .bind(sql::json(&RunDetail::of(run)))
    .bind(run.slot_at.map(sql::instant))
    .bind(run.requested_at.map(sql::instant))
    .bind(worker)
    .bind(value::count(run.missing))
    .execute(connection)
    .await?;
    Ok(())
}

/// Entries and log, a statement each however many the changes: both read the same JSON array of them.
async fn write_changes(
    connection: &mut Connection,
    lease: &Lease,
    plan: &Plan,
    run: &Run,
    aftermath: &Aftermath,
    revision: i64,
) -> Result<u64, Error> {
    let covered_before: BTreeMap<Kind, String> = aftermath
        .covered_before
        .iter()
        .map(|(&kind, &at)| (kind, value::instant_text(at)))
        .collect();
    let changes = sql::json(plan.changes());
    let log = sqlx::query::<Db>(sql::LOG_CHANGES)
        .bind(lease.project.as_str())
        .bind(&changes)
        .bind(sql::instant(run.finished_at))
        .bind(revision)
        .bind(run.id.to_string())
        .bind(sql::json(&covered_before))
        .execute(&mut *connection)
        .await?;
    let entries = sqlx::query::<Db>(sql::UPSERT_ENTRIES)
        .bind(lease.project.as_str())
        .bind(&changes)
        .bind(sql::instant(run.finished_at))
        .execute(connection)
        .await?;
    Ok(entries.rows_affected() + log.rows_affected())
}
