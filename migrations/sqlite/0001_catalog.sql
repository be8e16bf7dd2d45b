-- Tables are catalog-sync's own; readers use the views, which docs/schema.md documents and which stay stable.
-- Instants are UTC, always '2026-01-31T09:30:00.000Z', so that text order is time order.

create table projects (
    id text not null primary key,
    app_id text not null,
    bundle_id text not null,
    app_name text not null,
    paused_at text,
    created_at text not null
) strict;

create table api_keys (
    project_id text not null primary key references projects (id) on delete cascade,
    key_id text not null,
    issuer_id text,
    master_key_id text not null,
    sealed blob not null
) strict;

create index api_keys_by_key_id on api_keys (key_id);

-- The row that every run writes; the lease and its fencing epoch stand here.
create table project_state (
    project_id text not null primary key references projects (id) on delete cascade,
    epoch integer not null default 0,
    lease_token text,
    lease_until text,
    revision integer not null default 0,
    last_attempt_at text,
    last_success_at text,
    outcome text,
    error_code text,
    error text,
    diagnosis text check (diagnosis is null or json_valid(diagnosis)),
    consecutive_failures integer not null default 0,
    next_due_at text,
    covered_at text not null default '{}' check (json_valid(covered_at)),
    hold text check (hold is null or json_valid(hold)),
    key_worked_at text,
    key_refused_since text,
    key_refusals integer not null default 0
) strict;

create index project_state_by_due on project_state (next_due_at);

create table entries (
    project_id text not null references projects (id) on delete cascade,
    kind text not null,
    store_id text not null,
    product_id text,
    parent_id text,
    attributes text not null check (json_valid(attributes)),
    first_seen_at text not null,
    updated_at text not null,
    removed_at text,
    primary key (project_id, kind, store_id)
) strict;

create index entries_by_product on entries (product_id, project_id);

create table runs (
    id text not null primary key,
    project_id text not null references projects (id) on delete cascade,
    trigger text not null,
    started_at text not null,
    finished_at text not null,
    duration_ms integer not null,
    outcome text not null,
    epoch integer not null,
    revision integer not null,
    error_code text,
    error text,
    added integer not null,
    updated integer not null,
    removed integer not null,
    restored integer not null,
    held integer not null,
    requests integer not null,
    retries integer not null,
    throttled integer not null,
    bytes integer not null,
    budget_left integer,
    detail text not null check (json_valid(detail)),
    unique (project_id, epoch) -- one lease commits once
) strict;

create index runs_by_time on runs (project_id, finished_at);

create table changes (
    seq integer primary key autoincrement,
    project_id text not null references projects (id) on delete cascade,
    revision integer not null,
    run_id text not null,
    at text not null,
    kind text not null,
    store_id text not null,
    product_id text,
    op text not null,
    before text check (before is null or json_valid(before)),
    after text check (after is null or json_valid(after))
) strict;

create index changes_by_project on changes (project_id, seq);

create view products as
select
    e.project_id,
    e.product_id,
    e.store_id,
    case
        when e.kind = 'subscription' then 'auto_renewable_subscription'
        else case e.attributes ->> '$.inAppPurchaseType'
            when 'CONSUMABLE' then 'consumable'
            when 'NON_CONSUMABLE' then 'non_consumable'
            when 'NON_RENEWING_SUBSCRIPTION' then 'non_renewing_subscription'
        end
    end as kind,
    case json_type(e.attributes, '$.name') when 'text' then e.attributes ->> '$.name' end as name,
    case json_type(e.attributes, '$.state') when 'text' then e.attributes ->> '$.state' end as state,
    case e.attributes ->> '$.subscriptionPeriod'
        when 'ONE_WEEK' then 'P1W'
        when 'ONE_MONTH' then 'P1M'
        when 'TWO_MONTHS' then 'P2M'
        when 'THREE_MONTHS' then 'P3M'
        when 'SIX_MONTHS' then 'P6M'
        when 'ONE_YEAR' then 'P1Y'
    end as period,
    e.parent_id as group_id,
    case json_type(g.attributes, '$.referenceName') when 'text' then g.attributes ->> '$.referenceName' end as group_name,
    -- At most 18 digits: beyond 64 bits SQLite would make it a float.
    case
        when json_type(e.attributes, '$.groupLevel') = 'integer'
            and e.attributes ->> '$.groupLevel' between -999999999999999999 and 999999999999999999
            then e.attributes ->> '$.groupLevel'
    end as group_level,
    case json_type(e.attributes, '$.familySharable') when 'true' then 1 when 'false' then 0 end as family_sharable,
    e.first_seen_at,
    e.updated_at,
    e.removed_at,
    e.attributes
from entries e
left join entries g
    on g.project_id = e.project_id and g.kind = 'subscription_group' and g.store_id = e.parent_id
where e.kind in ('in_app_purchase', 'subscription');

create view subscription_groups as
select
    project_id,
    store_id,
    case json_type(attributes, '$.referenceName') when 'text' then attributes ->> '$.referenceName' end as name,
    first_seen_at,
    updated_at,
    removed_at,
    attributes
from entries
where kind = 'subscription_group';

create view grace_periods as
select
    e.project_id,
    case json_type(e.attributes, '$.optIn') when 'true' then 1 when 'false' then 0 end as opt_in,
    case json_type(e.attributes, '$.sandboxOptIn') when 'true' then 1 when 'false' then 0 end as sandbox_opt_in,
    case e.attributes ->> '$.duration'
        when 'THREE_DAYS' then 3
        when 'SIXTEEN_DAYS' then 16
        when 'TWENTY_EIGHT_DAYS' then 28
    end as duration_days,
    case e.attributes ->> '$.renewalType'
        when 'ALL_RENEWALS' then 'all_renewals'
        when 'PAID_TO_PAID_ONLY' then 'paid_to_paid_only'
    end as renewal_type,
    s.covered_at ->> '$.grace_period' as checked_at,
    e.updated_at as changed_at,
    e.attributes
from entries e
join project_state s on s.project_id = e.project_id
where e.kind = 'grace_period' and e.removed_at is null;

create view catalog_changes as
select seq, project_id, revision, run_id, at, kind, store_id, product_id, op, before, after
from changes;

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
    detail
from runs;

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
    s.lease_until as leased_until
from projects p
join project_state s on s.project_id = p.id
join api_keys k on k.project_id = p.id;
