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

pub(in crate::store) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "catalog",
        include_str!("../../../migrations/postgres/0001_catalog.sql"),
    ),
    (
        2,
        "daemon",
        include_str!("../../../migrations/postgres/0002_daemon.sql"),
    ),
    (
        3,
        "removals",
        include_str!("../../../migrations/postgres/0003_removals.sql"),
    ),
    (
        4,
        "master_keys",
        include_str!("../../../migrations/postgres/0004_master_keys.sql"),
    ),
    (
        5,
        "workers",
        include_str!("../../../migrations/postgres/0005_workers.sql"),
    ),
    (
        6,
        "marks",
        include_str!("../../../migrations/postgres/0006_marks.sql"),
    ),
];

pub(super) const BEGIN_WRITE: &str = "begin";

pub(super) const BEGIN_READ: &str = "begin isolation level repeatable read read only";

pub(super) const COUNT_MIGRATION_TABLES: &str =
    "select count(*) from pg_catalog.pg_class where oid = to_regclass('catalog_sync_migrations')";

/// A right on any of these tables that the user lacks stops some of the work.
pub(super) const EXAMINE: &str = "
    select
        'PostgreSQL ' || current_setting('server_version') as server,
        clock_timestamp() as clock,
        null::text as journal,
        coalesce((
            select string_agg(r.needed || ' on ' || t.name, ', ' order by t.name, r.needed)
            from unnest(array[
                'api_keys', 'changes', 'entries', 'key_usage', 'master_key_checks', 'outbox', 'project_state', 'projects',
                'refused_requests', 'removal_holds', 'runs', 'sinks', 'sync_requests', 'unforeseen', 'worker_beats'
            ]) t (name), unnest(array['select', 'insert', 'update', 'delete']) r (needed)
            where to_regclass(t.name) is not null and not has_table_privilege(to_regclass(t.name), r.needed)
        ), '') as lacks";

/// Until the transaction ends. A migration of much data may take as long as it takes. The number is ours alone: 'catalog'.
pub(super) const LOCK_MIGRATIONS: &str = "select
    set_config('statement_timeout', '0', true),
    set_config('lock_timeout', '0', true),
    pg_advisory_xact_lock(27974210577459559)";

pub(super) const LOCK_STATE: &str =
    "select project_id, lease_until from project_state where project_id = $1 for update";

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
        removed_at = excluded.removed_at,
        absence = null";

/// Before the entries are written: what is known of their absence goes with that.
pub(super) const LOG_CHANGES: &str = "
    insert into changes
        (project_id, revision, run_id, at, kind, store_id, product_id, op, before, after, before_seen_at)
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
        nullif(value -> 'after', 'null'),
        case when value ->> 'op' in ('updated', 'removed') then
            coalesce(e.absence ->> 'seen_at', $6 ->> (value ->> 'kind'))::timestamptz
        end
    from jsonb_array_elements($2) with ordinality as change (value, number)
    left join entries e
        on e.project_id = $1 and e.kind = value ->> 'kind' and e.store_id = value ->> 'store_id'
    order by number";

/// A row for each broker. One that is being forgotten is waited for: a row that refers to it would fail the whole commit.
pub(super) const PUT_OUTBOX: &str = "
    insert into outbox (sink, project_id, revision, after_seq)
    select name, $1, $2, coalesce((select max(seq) from changes where project_id = $1), 0) from sinks for key share";

pub(super) const TELL_LISTENERS: Option<&str> =
    Some("select pg_notify('catalog_sync_changes', $1)");

/// The elements of a JSON array, in the column `value`.
macro_rules! each {
    ($array:literal) => {
        concat!("jsonb_array_elements(", $array, ")")
    };
}
pub(super) use each;

/// What a JSON text gives, as an instant.
macro_rules! as_instant {
    ($text:literal) => {
        concat!("(", $text, ")::timestamptz")
    };
}
pub(super) use as_instant;

/// What a JSON text gives, as an integer.
macro_rules! as_integer {
    ($text:literal) => {
        concat!("(", $text, ")::bigint")
    };
}
pub(super) use as_integer;

/// How many seconds there are from one instant to another.
macro_rules! seconds_between {
    ($from:literal, $to:literal) => {
        concat!("extract(epoch from ", $to, " - ", $from, ")")
    };
}
pub(super) use seconds_between;

/// Locks the rows of a select, and leaves out those that another transaction has locked.
macro_rules! unless_locked {
    () => {
        " for update skip locked"
    };
}
pub(super) use unless_locked;

/// That no project with the key of `api_keys k` is being synced at the instant given. What is being synced is found once, and not
/// for each project again.
macro_rules! key_is_free {
    ($now:literal) => {
        concat!(
            "k.key_id not in (
                 select k2.key_id from project_state s2 join api_keys k2 on k2.project_id = s2.project_id
                 where s2.lease_token is not null and s2.lease_until > ",
            $now,
            ")"
        )
    };
}
pub(super) use key_is_free;

/// Projects with a request that is ready, the most urgent first. Those on their last chance, having lost two runs in a row, are
/// left out unless one may be given: they would take up the places of others for as long as it may not.
pub(super) const CANDIDATES: &str = concat!(
    "select s.project_id from project_state s
     join projects p on p.id = s.project_id
     join api_keys k on k.project_id = s.project_id
     join key_usage u on u.key_id = k.key_id
     where s.asked > s.served and s.ready_at <= $1
         and (s.lease_until is null or s.lease_until <= $1)
         and p.paused_at is null and s.set_aside_at is null
         and ($3 or 2 <> case
             when s.lease_token is null then s.losses
             when coalesce(s.lost_since > $4, false) then s.losses + 1
             else 1
         end)
         and ",
    key_is_free!("$1"),
    "
     order by s.urgency, s.ready_at limit $2 for update of s, u skip locked"
);

/// What there may be to do, and what time it is there.
pub(super) const LOOK: &str = "
    select
        exists (select 1 from sync_requests),
        exists (
            select 1 from project_state
            where asked > served and ready_at <= $1 and (lease_until is null or lease_until <= $1)
        ),
        clock_timestamp()";

/// So that two transactions that take several rows never wait for each other.
pub(super) const LOCK_STATES: &str = "
    select project_id from project_state
    where project_id in (select value ->> 'id' from jsonb_array_elements($1)) order by project_id for update";

/// Projects whose appointment has come, or that have none yet.
pub(super) const DUE: &str = "
    select s.project_id, p.cron, s.next_slot_at, s.outcome, s.error_code, s.last_attempt_at
    from project_state s join projects p on p.id = s.project_id
    where (s.next_due_at is null or s.next_due_at <= $1) and p.paused_at is null and s.set_aside_at is null
    order by s.next_due_at limit $2 for update of s skip locked";

/// Appointments of projects by id.
pub(super) const APPOINTMENTS: &str = "
    select s.project_id, p.cron, s.next_due_at
    from project_state s join projects p on p.id = s.project_id
    where s.project_id > $1 order by s.project_id limit $2 for update of s skip locked";

/// `timestamptz` reaches further than we can read, up to infinity; which instant it is does not matter then.
pub(super) const TAKE_INBOX: &str = "
    delete from sync_requests where id in (select id from sync_requests order by id limit $1 for update skip locked)
    returning project_id, reason, greatest(least(requested_at, '9999-01-01'), 'epoch') as requested_at";

/// Whoever adds a project with this key holds the row until it is done, and is seen by the next statement.
pub(super) const LOCK_KEY: &str = "select 1 from key_usage where key_id = $1 for update";

pub(super) const IS_RETIRED: &str =
    "select retired_at is not null from master_key_checks where id = $1 for share";

/// Those of an array of Key IDs that are there, in the order of [`LOCK_USAGES`].
pub(super) const LOCK_KEYS: &str = "
    select key_id from key_usage where key_id in (select jsonb_array_elements_text($1)) order by key_id for update";

/// In one order, so that two transactions that take several rows never wait for each other.
pub(super) const LOCK_USAGES: &str = "
    select k.project_id, u.key_id, u.ledger
    from api_keys k join key_usage u on u.key_id = k.key_id
    where k.project_id in (select value ->> 'id' from jsonb_array_elements($1))
    order by u.key_id for update of u";

/// One JSON object with the members of another in place of its own.
macro_rules! merged {
    ($object:literal, $with:literal) => {
        concat!($object, " || ", $with)
    };
}
pub(super) use merged;

/// JSON as it is bound.
pub(super) type JsonText = Jsonb;

pub(super) fn instant(at: Instant) -> Instant {
    value::instant(at)
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Jsonb {
    Jsonb(value::json(&value))
}

/// JSON text as a `jsonb`.
#[derive(Clone)]
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
