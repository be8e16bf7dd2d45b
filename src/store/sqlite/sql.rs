//! SQLite's values, and the statements that read otherwise than in Postgres.

use serde::Serialize;

use crate::{clock::Instant, store::value};

pub(in crate::store) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "catalog",
        include_str!("../../../migrations/sqlite/0001_catalog.sql"),
    ),
    (
        2,
        "daemon",
        include_str!("../../../migrations/sqlite/0002_daemon.sql"),
    ),
    (
        3,
        "removals",
        include_str!("../../../migrations/sqlite/0003_removals.sql"),
    ),
    (
        4,
        "master_keys",
        include_str!("../../../migrations/sqlite/0004_master_keys.sql"),
    ),
    (
        5,
        "workers",
        include_str!("../../../migrations/sqlite/0005_workers.sql"),
    ),
    (
        6,
        "marks",
        include_str!("../../../migrations/sqlite/0006_marks.sql"),
    ),
];

/// A transaction that begins as a reader cannot wait for its turn to write.
pub(super) const BEGIN_WRITE: &str = "begin immediate";

pub(super) const BEGIN_READ: &str = "begin";

pub(super) const COUNT_MIGRATION_TABLES: &str =
    "select count(*) from sqlite_schema where type = 'table' and name = 'catalog_sync_migrations'";

/// The journal is named by a function of SQLite's own, which changes nothing.
pub(super) const EXAMINE: &str = "
    select 'SQLite ' || sqlite_version() as server, null as clock, journal_mode as journal, '' as lacks
    from pragma_journal_mode";

/// Nothing: a writing transaction has the database to itself.
pub(super) const LOCK_MIGRATIONS: &str = "select 1";

pub(super) const LOCK_STATE: &str =
    "select project_id, lease_until from project_state where project_id = $1";

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
    from jsonb_each($2)
    where true
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
        value ->> '$.kind',
        value ->> '$.store_id',
        value ->> '$.product_id',
        value ->> '$.op',
        nullif(value -> '$.before', 'null'),
        nullif(value -> '$.after', 'null'),
        case when value ->> '$.op' in ('updated', 'removed') then
            coalesce(e.absence ->> '$.seen_at', $6 ->> (value ->> '$.kind'))
        end
    from jsonb_each($2) change
    left join entries e
        on e.project_id = $1 and e.kind = value ->> '$.kind' and e.store_id = value ->> '$.store_id'
    order by change.key";

/// A row for each broker.
pub(super) const PUT_OUTBOX: &str = "
    insert into outbox (sink, project_id, revision, after_seq)
    select name, $1, $2, coalesce((select max(seq) from changes where project_id = $1), 0) from sinks";

/// Nobody listens to a file.
pub(super) const TELL_LISTENERS: Option<&str> = None;

/// The elements of a JSON array, in the column `value`; `json_each` would write each of them out as text again, for each
/// mention of it.
macro_rules! each {
    ($array:literal) => {
        concat!("jsonb_each(", $array, ")")
    };
}
pub(super) use each;

/// What a JSON text gives, as an instant.
macro_rules! as_instant {
    ($text:literal) => {
        $text
    };
}
pub(super) use as_instant;

/// What a JSON text gives, as an integer.
macro_rules! as_integer {
    ($text:literal) => {
        $text
    };
}
pub(super) use as_integer;

/// How many seconds there are from one instant to another.
macro_rules! seconds_between {
    ($from:literal, $to:literal) => {
        concat!("unixepoch(", $to, ") - unixepoch(", $from, ")")
    };
}
pub(super) use seconds_between;

/// Nothing: a writing transaction has the database to itself.
macro_rules! unless_locked {
    () => {
        ""
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
     order by s.urgency, s.ready_at limit $2"
);

/// What there may be to do, and what time it is there.
pub(super) const LOOK: &str = "
    select
        exists (select 1 from sync_requests),
        exists (
            select 1 from project_state
            where asked > served and ready_at <= $1 and (lease_until is null or lease_until <= $1)
        ),
        null";

/// Nothing: a writing transaction has the database to itself.
pub(super) const LOCK_STATES: &str = "select $1";

/// Projects whose appointment has come, or that have none yet.
pub(super) const DUE: &str = "
    select s.project_id, p.cron, s.next_slot_at, s.outcome, s.error_code, s.last_attempt_at
    from project_state s join projects p on p.id = s.project_id
    where coalesce(s.next_due_at, '') <= $1 and p.paused_at is null and s.set_aside_at is null
    order by coalesce(s.next_due_at, '') limit $2";

/// Appointments of projects by id.
pub(super) const APPOINTMENTS: &str = "
    select s.project_id, p.cron, s.next_due_at
    from project_state s join projects p on p.id = s.project_id
    where s.project_id > $1 order by s.project_id limit $2";

pub(super) const TAKE_INBOX: &str = "
    delete from sync_requests where id in (select id from sync_requests order by id limit $1)
    returning project_id, reason, requested_at";

/// Nothing: a writing transaction has the database to itself.
pub(super) const LOCK_KEY: &str = "select $1";

pub(super) const IS_RETIRED: &str =
    "select retired_at is not null from master_key_checks where id = $1";

/// Nothing: a writing transaction has the database to itself.
pub(super) const LOCK_KEYS: &str = "select $1";

pub(super) const LOCK_USAGES: &str = "
    select k.project_id, u.key_id, u.ledger
    from jsonb_each($1) join api_keys k on k.project_id = value ->> 'id' join key_usage u on u.key_id = k.key_id";

/// One JSON object with the members of another in place of its own.
macro_rules! merged {
    ($object:literal, $with:literal) => {
        concat!("json_patch(", $object, ", ", $with, ")")
    };
}
pub(super) use merged;

/// JSON as it is bound.
pub(super) type JsonText = String;

/// Text that sorts by time and that SQLite's date functions read.
pub(super) fn instant(at: Instant) -> String {
    value::instant_text(at)
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    value::json(&value)
}
