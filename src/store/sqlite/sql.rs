//! SQLite's values, and the statements that read otherwise than in Postgres.

use chrono::SecondsFormat;
use serde::Serialize;

use crate::{clock::Instant, store::value};

pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[(
    1,
    "catalog",
    include_str!("../../../migrations/sqlite/0001_catalog.sql"),
)];

/// A transaction that begins as a reader cannot wait for its turn to write.
pub(super) const BEGIN_WRITE: &str = "begin immediate";

pub(super) const BEGIN_READ: &str = "begin";

pub(super) const COUNT_MIGRATION_TABLES: &str =
    "select count(*) from sqlite_schema where type = 'table' and name = 'catalog_sync_migrations'";

/// Nothing: a writing transaction has the database to itself.
pub(super) const LOCK_MIGRATIONS: &str = "select 1";

pub(super) const LOCK_STATE: &str =
    "select project_id, lease_until from project_state where project_id = $1";

pub(super) const COMMIT_STATE: &str = "
    update project_state set
        lease_token = null,
        lease_until = null,
        revision = revision + $4,
        last_attempt_at = $5,
        last_success_at = coalesce($6, last_success_at),
        outcome = $7,
        error_code = $8,
        error = $9,
        diagnosis = $10,
        consecutive_failures = (consecutive_failures + 1) * $11,
        covered_at = json_patch(covered_at, $12),
        hold = $13,
        key_worked_at = $14,
        key_refused_since = $15,
        key_refusals = $16
    where project_id = $1 and epoch = $2 and lease_token = $3
    returning project_id, revision";

/// `where true` lets the parser tell `on conflict` from a join's `on`.
pub(super) const UPSERT_ENTRIES: &str = "
    insert into entries
        (project_id, kind, store_id, product_id, parent_id, attributes, first_seen_at, updated_at, removed_at)
    select
        $1,
        value ->> '$.kind',
        value ->> '$.store_id',
        value ->> '$.product_id',
        case value ->> '$.op' when 'removed' then value ->> '$.before.parent' else value ->> '$.after.parent' end,
        case value ->> '$.op' when 'removed' then value -> '$.before.attributes' else value -> '$.after.attributes' end,
        $3,
        $3,
        case value ->> '$.op' when 'removed' then $3 end
    from json_each($2)
    where true
    on conflict (project_id, kind, store_id) do update set
        product_id = excluded.product_id,
        parent_id = excluded.parent_id,
        attributes = excluded.attributes,
        updated_at = excluded.updated_at,
        removed_at = excluded.removed_at";

pub(super) const LOG_CHANGES: &str = "
    insert into changes (project_id, revision, run_id, at, kind, store_id, product_id, op, before, after)
    select
        $1,
        $4,
        $5,
        $3,
        value ->> '$.kind',
        value ->> '$.store_id',
        value ->> '$.product_id',
        value ->> '$.op',
        nullif(value -> '$.before', 'null'),
        nullif(value -> '$.after', 'null')
    from json_each($2)
    order by key";

/// Text that sorts by time and that SQLite's date functions read.
pub(super) fn instant(at: Instant) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    value::json(&value)
}
