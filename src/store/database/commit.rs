//! The only writer of catalogs (I1, I5).

use std::collections::BTreeMap;

use super::{
    Connection, Db,
    endings::{self, Ending},
    holds,
    leases::lost,
    outbox, sql, unforeseen,
};
use crate::{
    catalog::{Kind, Plan},
    run::Run,
    store::{Aftermath, Committed, Error, HoldTurn, Lease, value},
};

/// Whether the run leaves nothing but its end: it found the catalog as it is.
pub(super) fn is_ending_alone(plan: &Plan, aftermath: &Aftermath) -> bool {
    plan.changes().is_empty()
        && plan.absences().is_empty()
        && aftermath.hold == HoldTurn::default()
        && aftermath.unforeseen.is_empty()
}

pub(super) async fn commit(
    connection: &mut Connection,
    worker: &str,
    lease: &Lease,
    plan: &Plan,
    run: &Run,
    aftermath: &Aftermath,
) -> Result<Committed, Error> {
    let ending = Ending::of(lease, plan, run, aftermath);
    let revisions = endings::write(connection, worker, &[ending]).await?;
    let ended = (lease.project.clone(), lease.epoch);
    let revision = *revisions.get(&ended).ok_or_else(|| lost(lease))?;
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
