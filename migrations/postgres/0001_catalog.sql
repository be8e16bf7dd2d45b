-- Tables are catalog-sync's own; readers use the views, which docs/schema.md documents and which stay stable.
-- Ids and names are collated "C", so that order is the same as in SQLite and needs no locale.

create table projects (
    id text collate "C" not null primary key,
    app_id text not null,
    bundle_id text not null,
    app_name text not null,
    paused_at timestamptz,
    created_at timestamptz not null
);

create table api_keys (
    project_id text collate "C" not null primary key references projects (id) on delete cascade,
    key_id text collate "C" not null,
    issuer_id text,
    master_key_id text not null,
    sealed bytea not null
);

create index api_keys_by_key_id on api_keys (key_id);

-- The row that every run writes; the lease and its fencing epoch stand here. Room is left on each page, so that an update
-- that touches no index stays on it.
create table project_state (
    project_id text collate "C" not null primary key references projects (id) on delete cascade,
    epoch bigint not null default 0,
    lease_token text,
    lease_until timestamptz,
    revision bigint not null default 0,
    last_attempt_at timestamptz,
    last_success_at timestamptz,
    outcome text,
    error_code text,
    error text,
    diagnosis jsonb,
    consecutive_failures bigint not null default 0,
    next_due_at timestamptz,
    covered_at jsonb not null default '{}',
    hold jsonb,
    key_worked_at timestamptz,
    key_refused_since timestamptz,
    key_refusals bigint not null default 0
) with (fillfactor = 70);

create index project_state_by_due on project_state (next_due_at);

create table entries (
    project_id text collate "C" not null references projects (id) on delete cascade,
    kind text collate "C" not null,
    store_id text collate "C" not null,
    product_id text collate "C",
    parent_id text collate "C",
    attributes jsonb not null,
    first_seen_at timestamptz not null,
    updated_at timestamptz not null,
    removed_at timestamptz,
    primary key (project_id, kind, store_id)
);

create index entries_by_product on entries (product_id, project_id);

create table runs (
    id text collate "C" not null primary key,
    project_id text collate "C" not null references projects (id) on delete cascade,
    trigger text not null,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    duration_ms bigint not null,
    outcome text not null,
    epoch bigint not null,
    revision bigint not null,
    error_code text,
    error text,
    added bigint not null,
    updated bigint not null,
    removed bigint not null,
    restored bigint not null,
    held bigint not null,
    requests bigint not null,
    retries bigint not null,
    throttled bigint not null,
    bytes bigint not null,
    budget_left bigint,
    detail jsonb not null,
    unique (project_id, epoch) -- one lease commits once
);

create index runs_by_time on runs (project_id, finished_at);

create table changes (
    seq bigint generated always as identity primary key,
    project_id text collate "C" not null references projects (id) on delete cascade,
    revision bigint not null,
    run_id text collate "C" not null,
    at timestamptz not null,
    kind text collate "C" not null,
    store_id text collate "C" not null,
    product_id text collate "C",
    op text not null,
    before jsonb,
    after jsonb
);

create index changes_by_project on changes (project_id, seq);

create view products as
select
    e.project_id,
    e.product_id,
    e.store_id,
    case
        when e.kind = 'subscription' then 'auto_renewable_subscription'
        else case e.attributes ->> 'inAppPurchaseType'
            when 'CONSUMABLE' then 'consumable'
            when 'NON_CONSUMABLE' then 'non_consumable'
            when 'NON_RENEWING_SUBSCRIPTION' then 'non_renewing_subscription'
        end
    end as kind,
    case jsonb_typeof(e.attributes -> 'name') when 'string' then e.attributes ->> 'name' end collate "C" as name,
    case jsonb_typeof(e.attributes -> 'state') when 'string' then e.attributes ->> 'state' end as state,
    case e.attributes ->> 'subscriptionPeriod'
        when 'ONE_WEEK' then 'P1W'
        when 'ONE_MONTH' then 'P1M'
        when 'TWO_MONTHS' then 'P2M'
        when 'THREE_MONTHS' then 'P3M'
        when 'SIX_MONTHS' then 'P6M'
        when 'ONE_YEAR' then 'P1Y'
    end as period,
    e.parent_id as group_id,
    case jsonb_typeof(g.attributes -> 'referenceName') when 'string' then g.attributes ->> 'referenceName' end collate "C"
        as group_name,
    -- At most 18 digits: more might not fit into 64 bits.
    case
        when jsonb_typeof(e.attributes -> 'groupLevel') = 'number'
            and e.attributes ->> 'groupLevel' ~ '^-?[0-9]{1,18}$'
            then (e.attributes ->> 'groupLevel')::bigint
    end as group_level,
    case e.attributes -> 'familySharable' when 'true'::jsonb then true when 'false'::jsonb then false end
        as family_sharable,
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
    case jsonb_typeof(attributes -> 'referenceName') when 'string' then attributes ->> 'referenceName' end collate "C"
        as name,
    first_seen_at,
    updated_at,
    removed_at,
    attributes
from entries
where kind = 'subscription_group';

create view grace_periods as
select
    e.project_id,
    case e.attributes -> 'optIn' when 'true'::jsonb then true when 'false'::jsonb then false end as opt_in,
    case e.attributes -> 'sandboxOptIn' when 'true'::jsonb then true when 'false'::jsonb then false end as sandbox_opt_in,
    case e.attributes ->> 'duration'
        when 'THREE_DAYS' then 3
        when 'SIXTEEN_DAYS' then 16
        when 'TWENTY_EIGHT_DAYS' then 28
    end::bigint as duration_days,
    case e.attributes ->> 'renewalType'
        when 'ALL_RENEWALS' then 'all_renewals'
        when 'PAID_TO_PAID_ONLY' then 'paid_to_paid_only'
    end as renewal_type,
    (s.covered_at ->> 'grace_period')::timestamptz as checked_at,
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
    (s.covered_at ->> 'in_app_purchase')::timestamptz as in_app_purchases_checked_at,
    (s.covered_at ->> 'subscription_group')::timestamptz as subscription_groups_checked_at,
    (s.covered_at ->> 'subscription')::timestamptz as subscriptions_checked_at,
    (s.covered_at ->> 'grace_period')::timestamptz as grace_period_checked_at,
    coalesce(jsonb_array_length(s.hold -> 'removals'), 0)::bigint as held,
    s.hold ->> 'digest' as hold_digest,
    s.key_worked_at,
    s.key_refused_since,
    s.lease_until as leased_until
from projects p
join project_state s on s.project_id = p.id
join api_keys k on k.project_id = p.id;
