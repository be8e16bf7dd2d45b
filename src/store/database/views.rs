//! What readers see: the rows of the views.

use super::{Connection, Db, projects::must_exist, rows::Row, sql};
use crate::{
    catalog::Kind,
    project::ProjectId,
    run::{Cost, Run},
    store::{
        Error, GracePeriod, HistoryFilter, LoggedChange, Product, RecordedRun, Removed, Shelf,
        SubscriptionGroup, run_detail::RunDetail,
    },
};

pub(super) async fn read_shelf(
    connection: &mut Connection,
    id: &ProjectId,
    removed: Removed,
) -> Result<Shelf, Error> {
    must_exist(connection, id).await?;
    let all = i64::from(removed == Removed::Included);
    Ok(Shelf {
        products: read_products(connection, id, all).await?,
        subscription_groups: read_groups(connection, id, all).await?,
        grace_period: read_grace_period(connection, id).await?,
    })
}

async fn read_products(
    connection: &mut Connection,
    id: &ProjectId,
    all: i64,
) -> Result<Vec<Product>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from products where project_id = $1 and ($2 = 1 or removed_at is null)
         order by product_id nulls last, store_id, kind nulls last",
    )
    .bind(id.as_str())
    .bind(all)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "product", &["project_id", "store_id"]);
            Ok(Product {
                project_id: row.text("project_id")?,
                product_id: row.value("product_id")?,
                store_id: row.text("store_id")?,
                kind: row.value("kind")?,
                name: row.value("name")?,
                state: row.value("state")?,
                period: row.value("period")?,
                group_id: row.value("group_id")?,
                group_name: row.value("group_name")?,
                group_level: row.value("group_level")?,
                family_sharable: row.value("family_sharable")?,
                first_seen_at: row.instant("first_seen_at")?,
                updated_at: row.instant("updated_at")?,
                removed_at: row.value("removed_at")?,
                attributes: row.json("attributes")?,
                missing_since: row.value("missing_since")?,
                kept_since: row.value("kept_since")?,
            })
        })
        .collect()
}

async fn read_groups(
    connection: &mut Connection,
    id: &ProjectId,
    all: i64,
) -> Result<Vec<SubscriptionGroup>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from subscription_groups where project_id = $1 and ($2 = 1 or removed_at is null)
         order by name nulls last, store_id",
    )
    .bind(id.as_str())
    .bind(all)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "subscription group", &["project_id", "store_id"]);
            Ok(SubscriptionGroup {
                project_id: row.text("project_id")?,
                store_id: row.text("store_id")?,
                name: row.value("name")?,
                first_seen_at: row.instant("first_seen_at")?,
                updated_at: row.instant("updated_at")?,
                removed_at: row.value("removed_at")?,
                attributes: row.json("attributes")?,
                missing_since: row.value("missing_since")?,
                kept_since: row.value("kept_since")?,
            })
        })
        .collect()
}

async fn read_grace_period(
    connection: &mut Connection,
    id: &ProjectId,
) -> Result<Option<GracePeriod>, Error> {
    let row = sqlx::query::<Db>("select * from grace_periods where project_id = $1")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        let row = Row::new(&row, "grace period", &["project_id"]);
        Ok(GracePeriod {
            project_id: row.text("project_id")?,
            opt_in: row.value("opt_in")?,
            sandbox_opt_in: row.value("sandbox_opt_in")?,
            duration_days: row.value("duration_days")?,
            renewal_type: row.value("renewal_type")?,
            checked_at: row.value("checked_at")?,
            changed_at: row.instant("changed_at")?,
            attributes: row.json("attributes")?,
        })
    })
    .transpose()
}

pub(super) async fn read_history(
    connection: &mut Connection,
    id: &ProjectId,
    filter: &HistoryFilter,
) -> Result<Vec<LoggedChange>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from catalog_changes
         where project_id = $1
           and ($2 is null or kind = $2)
           and ($3 is null or product_id = $3 or (product_id is null and store_id = $3))
           and ($4 is null or at >= $4)
           and ($5 is null or at < $5)
         order by seq desc limit $6",
    )
    .bind(id.as_str())
    .bind(filter.kind.map(Kind::as_str))
    .bind(filter.product.as_deref())
    .bind(filter.since.map(sql::instant))
    .bind(filter.until.map(sql::instant))
    .bind(filter.limit.map_or(i64::MAX, i64::from))
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        must_exist(connection, id).await?;
    }
    rows.iter()
        .map(|row| {
            read_change(&Row::new(
                row,
                "change",
                &["project_id", "kind", "store_id"],
            ))
        })
        .collect()
}

pub(super) fn read_change(row: &Row<'_>) -> Result<LoggedChange, Error> {
    Ok(LoggedChange {
        seq: row.value("seq")?,
        revision: row.value("revision")?,
        run_id: row.name("run_id")?,
        at: row.instant("at")?,
        kind: row.text("kind")?,
        store_id: row.text("store_id")?,
        product_id: row.value("product_id")?,
        op: row.text("op")?,
        before: row.optional_json("before")?,
        after: row.optional_json("after")?,
        before_seen_at: row.value("before_seen_at")?,
    })
}

/// By epoch, which is the order of their commits whatever the clocks did.
pub(super) async fn read_runs(
    connection: &mut Connection,
    id: &ProjectId,
    limit: u32,
) -> Result<Vec<RecordedRun>, Error> {
    let rows = sqlx::query::<Db>(
        "select * from sync_runs where project_id = $1 order by epoch desc limit $2",
    )
    .bind(id.as_str())
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        must_exist(connection, id).await?;
    }
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "run", &["run_id"]);
            let detail: RunDetail = row.json("detail")?;
            Ok(RecordedRun {
                run: Run {
                    id: row.name("run_id")?,
                    trigger: row.name("trigger")?,
                    requested_at: row.value("requested_at")?,
                    slot_at: row.value("slot_at")?,
                    started_at: row.instant("started_at")?,
                    finished_at: row.instant("finished_at")?,
                    outcome: row.name("outcome")?,
                    covered: detail.covered,
                    listed: detail.listed,
                    failures: detail.failures,
                    error: detail.error,
                    counts: detail.counts,
                    hold: detail.hold,
                    missing: row.integer("missing")?,
                    resume_at: detail.resume_at,
                    cost: Cost {
                        requests: row.integer("requests")?,
                        retries: row.integer("retries")?,
                        throttled: row.integer("throttled")?,
                        bytes: row.integer("bytes")?,
                        budget_left: row
                            .value::<Option<i64>>("budget_left")?
                            .map(|_| row.integer("budget_left"))
                            .transpose()?,
                    },
                },
                epoch: row.value("epoch")?,
                revision: row.value("revision")?,
                worker: row.value("worker")?,
            })
        })
        .collect()
}
