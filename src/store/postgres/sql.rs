//! Postgres' values, and the statements that read otherwise than in SQLite.

use serde::Serialize;
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo},
    types::Json,
};

use crate::{clock::Instant, store::value};

pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[(
    1,
    "catalog",
    include_str!("../../../migrations/postgres/0001_catalog.sql"),
)];

pub(super) const BEGIN_WRITE: &str = "begin";

pub(super) const BEGIN_READ: &str = "begin isolation level repeatable read read only";

pub(super) const COUNT_MIGRATION_TABLES: &str =
    "select count(*) from pg_catalog.pg_class where oid = to_regclass('catalog_sync_migrations')";

/// Until the transaction ends. A migration of much data may take as long as it takes. The number is ours alone: 'catalog'.
pub(super) const LOCK_MIGRATIONS: &str = "select
    set_config('statement_timeout', '0', true),
    set_config('lock_timeout', '0', true),
    pg_advisory_xact_lock(27974210577459559)";

pub(super) const LOCK_STATE: &str =
    "select project_id, lease_until from project_state where project_id = $1 for update";

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
        covered_at = covered_at || $12,
        hold = $13,
        key_worked_at = $14,
        key_refused_since = $15,
        key_refusals = $16
    where project_id = $1 and epoch = $2 and lease_token = $3
    returning project_id, revision";

pub(super) const UPSERT_ENTRIES: &str = "
    insert into entries
        (project_id, kind, store_id, product_id, parent_id, attributes, first_seen_at, updated_at, removed_at)
    select
        $1,
        value ->> 'kind',
        value ->> 'store_id',
        value ->> 'product_id',
        case value ->> 'op' when 'removed' then value #>> '{before,parent}' else value #>> '{after,parent}' end,
        case value ->> 'op' when 'removed' then value #> '{before,attributes}' else value #> '{after,attributes}' end,
        $3,
        $3,
        case value ->> 'op' when 'removed' then $3 end
    from jsonb_array_elements($2)
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
        value ->> 'kind',
        value ->> 'store_id',
        value ->> 'product_id',
        value ->> 'op',
        nullif(value -> 'before', 'null'),
        nullif(value -> 'after', 'null')
    from jsonb_array_elements($2) with ordinality as change (value, number)
    order by number";

pub(super) fn instant(at: Instant) -> Instant {
    value::instant(at)
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Jsonb {
    Jsonb(value::json(&value))
}

/// JSON text as a `jsonb`.
pub(super) struct Jsonb(String);

impl Type<Postgres> for Jsonb {
    fn type_info() -> PgTypeInfo {
        <Json<()> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Jsonb {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.push(1); // The version of jsonb's binary form, which is its text.
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}
