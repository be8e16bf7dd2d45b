-- What asks for syncs and when they are due, what a key has left to spend, and what brokers have not been told yet.

-- Five fields, in the schedule's time zone; null for the schedule's own.
alter table projects add column cron text;

-- The pending request of a project, whatever asked for it, stands in its state's row: there is one while asked > served.
-- A claim takes what was asked for so far; what is asked for later makes asked > taken, and another run.
alter table project_state add column asked integer not null default 0;
alter table project_state add column taken integer not null default 0;
alter table project_state add column served integer not null default 0;
alter table project_state add column urgency integer not null default 0; -- 0 on demand, 1 scheduled, 2 again after a failure
alter table project_state add column request_reason text;
alter table project_state add column requested_at text;
alter table project_state add column ready_at text;
alter table project_state add column slot_at text;
alter table project_state add column next_slot_at text;
alter table project_state add column lease_worker text;
alter table project_state add column losses integer not null default 0;
alter table project_state add column lost_since text;
alter table project_state add column set_aside_at text;
alter table project_state add column retries integer not null default 0;

create index project_state_by_urgency on project_state (urgency, ready_at) where asked > served;
create index project_state_leased on project_state (lease_until) where lease_token is not null;

drop index project_state_by_due;
create index project_state_by_due on project_state (coalesce(next_due_at, ''));

create table key_usage (
    key_id text not null primary key,
    ledger text not null default '{}' check (json_valid(ledger))
) strict;

insert into key_usage (key_id) select distinct key_id from api_keys;

-- The host's door: it inserts project_id, and a reason if it likes, in a transaction of its own.
create table sync_requests (
    id integer primary key autoincrement,
    project_id text not null,
    reason text,
    requested_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) strict;

create table refused_requests (
    id integer primary key autoincrement,
    project_id text not null,
    reason text,
    requested_at text not null,
    refused_at text not null,
    why text not null
) strict;

alter table runs add column slot_at text;
alter table runs add column requested_at text;
alter table runs add column worker text;

create unique index runs_by_slot on runs (project_id, slot_at); -- a slot has one run

-- A broker that is told of changes; one worker at a time tells it.
create table sinks (
    name text not null primary key,
    seen_at text not null,
    lease_token text,
    lease_until text
) strict;

-- Revisions that a broker has not been told of yet, or only up to after_seq.
create table outbox (
    id integer primary key autoincrement,
    sink text not null references sinks (name) on delete cascade,
    project_id text not null references projects (id) on delete cascade,
    revision integer not null,
    after_seq integer not null
) strict;

create index outbox_by_sink on outbox (sink, id);
create index outbox_by_project on outbox (project_id);

create view pending_syncs as
select
    project_id,
    case urgency when 0 then 'request' when 1 then 'schedule' else 'retry' end as trigger,
    request_reason as reason,
    requested_at,
    ready_at,
    slot_at,
    lease_until is not null and taken > served as running
from project_state
where asked > served;

drop view sync_runs;

create view sync_runs as
select
    id as run_id,
    project_id,
    trigger,
    started_at,
    finished_at,
    duration_ms,
    outcome,
    epoch,
    revision,
    error_code,
    error,
    added,
    updated,
    removed,
    restored,
    held,
    requests,
    retries,
    throttled,
    bytes,
    budget_left,
    detail,
    slot_at,
    requested_at,
    worker
from runs;

drop view project_status;

create view project_status as
select
    p.id as project_id,
    p.app_id,
    p.bundle_id,
    p.app_name,
    k.key_id,
    p.paused_at is not null as paused,
    p.paused_at,
    p.created_at,
    s.revision,
    s.last_attempt_at,
    s.last_success_at,
    s.outcome,
    s.error_code,
    s.error,
    s.consecutive_failures,
    s.next_due_at,
    (select count(*) from entries e where e.project_id = p.id and e.kind = 'in_app_purchase' and e.removed_at is null)
        as in_app_purchases,
    (select count(*) from entries e where e.project_id = p.id and e.kind = 'subscription_group' and e.removed_at is null)
        as subscription_groups,
    (select count(*) from entries e where e.project_id = p.id and e.kind = 'subscription' and e.removed_at is null)
        as subscriptions,
    s.covered_at ->> '$.in_app_purchase' as in_app_purchases_checked_at,
    s.covered_at ->> '$.subscription_group' as subscription_groups_checked_at,
    s.covered_at ->> '$.subscription' as subscriptions_checked_at,
    s.covered_at ->> '$.grace_period' as grace_period_checked_at,
    coalesce(json_array_length(s.hold, '$.removals'), 0) as held,
    s.hold ->> '$.digest' as hold_digest,
    s.key_worked_at,
    s.key_refused_since,
    s.lease_until as leased_until,
    s.lease_worker as leased_by,
    p.cron,
    s.asked > s.served as pending,
    case when s.asked > s.served then s.requested_at end as requested_at,
    case when s.asked > s.served then s.ready_at end as ready_at,
    s.set_aside_at
from projects p
join project_state s on s.project_id = p.id
join api_keys k on k.project_id = p.id;
