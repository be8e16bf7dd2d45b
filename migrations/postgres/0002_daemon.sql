-- What asks for syncs and when they are due, what a key has left to spend, and what brokers have not been told yet.

-- Five fields, in the schedule's time zone; null for the schedule's own.
alter table projects add column cron text;

-- The pending request of a project, whatever asked for it, stands in its state's row: there is one while asked > served.
-- A claim takes what was asked for so far; what is asked for later makes asked > taken, and another run.
alter table project_state
    add column asked bigint not null default 0,
    add column taken bigint not null default 0,
    add column served bigint not null default 0,
    add column urgency bigint not null default 0, -- 0 on demand, 1 scheduled, 2 again after a failure
    add column request_reason text,
    add column requested_at timestamptz,
    add column ready_at timestamptz,
    add column slot_at timestamptz,
    add column next_slot_at timestamptz,
    add column lease_worker text,
    add column losses bigint not null default 0,
    add column lost_since timestamptz,
    add column set_aside_at timestamptz,
    add column retries bigint not null default 0;

create index project_state_by_urgency on project_state (urgency, ready_at) where asked > served;
create index project_state_leased on project_state (lease_until) where lease_token is not null;

create table key_usage (
    key_id text collate "C" not null primary key,
    ledger jsonb not null default '{}'
);

insert into key_usage (key_id) select distinct key_id from api_keys;

-- The host's door: it inserts project_id, and a reason if it likes, in a transaction of its own.
create table sync_requests (
    id bigint generated always as identity primary key,
    project_id text collate "C" not null,
    reason text,
    requested_at timestamptz not null default now()
);

create function catalog_sync_wake() returns trigger language plpgsql as $$
begin
    perform pg_notify('catalog_sync_requests', '');
    return null;
end
$$;

create trigger sync_requests_wake after insert on sync_requests
    for each statement execute function catalog_sync_wake();

create table refused_requests (
    id bigint generated always as identity primary key,
    project_id text collate "C" not null,
    reason text,
    requested_at timestamptz not null,
    refused_at timestamptz not null,
    why text not null
);

alter table runs
    add column slot_at timestamptz,
    add column requested_at timestamptz,
    add column worker text;

create unique index runs_by_slot on runs (project_id, slot_at); -- a slot has one run

-- A broker that is told of changes; one worker at a time tells it.
create table sinks (
    name text collate "C" not null primary key,
    seen_at timestamptz not null,
    lease_token text,
    lease_until timestamptz
);

-- Revisions that a broker has not been told of yet, or only up to after_seq.
create table outbox (
    id bigint generated always as identity primary key,
    sink text collate "C" not null references sinks (name) on delete cascade,
    project_id text collate "C" not null references projects (id) on delete cascade,
    revision bigint not null,
    after_seq bigint not null
);

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

create or replace view sync_runs as
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

create or replace view project_status as
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
    (s.covered_at ->> 'in_app_purchase')::timestamptz as in_app_purchases_checked_at,
    (s.covered_at ->> 'subscription_group')::timestamptz as subscription_groups_checked_at,
    (s.covered_at ->> 'subscription')::timestamptz as subscriptions_checked_at,
    (s.covered_at ->> 'grace_period')::timestamptz as grace_period_checked_at,
    coalesce(jsonb_array_length(s.hold -> 'removals'), 0)::bigint as held,
    s.hold ->> 'digest' as hold_digest,
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
