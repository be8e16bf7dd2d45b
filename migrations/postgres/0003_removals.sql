-- Removals to be trusted: what a complete listing did not have, what is held back, and since when the log tells all.

-- What is known of an entry that was not listed: {"since", "seen_at", "answer", "kept_at"}. Null for what was.
alter table entries add column absence jsonb;

create index entries_absent on entries (project_id) where absence is not null and removed_at is null;
create index entries_removed on entries (removed_at) where removed_at is not null;

-- Limits of its own, such as {"removed_percent": 50}.
alter table projects add column guard jsonb;

-- Of which app each kind was last listed, with which key and by which read.
alter table project_state add column listed_with jsonb not null default '{}';
update project_state set listed_with = coalesce((
    select jsonb_object_agg(c.key, jsonb_build_object('app', p.app_id, 'key', k.key_id, 'read', case c.key
            when 'in_app_purchase' then '/v1/apps/{id}/inAppPurchasesV2'
            when 'subscription_group' then '/v1/apps/{id}/subscriptionGroups'
            when 'subscription' then '/v1/subscriptionGroups/{id}/subscriptions'
            when 'grace_period' then '/v1/apps/{id}/subscriptionGracePeriod'
        end))
    from projects p, api_keys k, jsonb_each(project_state.covered_at) c
    where p.id = project_state.project_id and k.project_id = project_state.project_id
), '{}');

-- Before this instant, the change log has for each entry its latest change alone.
alter table project_state add column log_since timestamptz;

-- When what was before was last seen.
alter table changes add column before_seen_at timestamptz;

create index changes_by_entry on changes (project_id, kind, store_id, seq);

alter table runs add column missing bigint not null default 0; -- present and not in the latest complete listing, those held included

create index runs_by_end on runs (finished_at);

-- A project has at most one that has not ended.
create table removal_holds (
    id bigint generated always as identity primary key,
    project_id text collate "C" not null references projects (id) on delete cascade,
    digest text not null,
    reason text not null,
    reasons jsonb not null,
    removals jsonb not null,
    held bigint not null,
    held_at timestamptz not null,
    run_id text,
    told_at timestamptz, -- when a daemon's log told of it
    ended_at timestamptz,
    ended text check (ended in ('approved', 'discarded', 'lapsed', 'replaced')),
    ended_run_id text
);

create unique index removal_holds_open on removal_holds (project_id) where ended_at is null;
create index removal_holds_by_project on removal_holds (project_id, id);

insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at)
select
    project_id,
    hold ->> 'digest',
    'held by an earlier version',
    hold -> 'reasons',
    hold -> 'removals',
    jsonb_array_length(hold -> 'removals'),
    coalesce(last_attempt_at, now())
from project_state
where hold is not null;

update runs set detail = jsonb_set(detail, '{hold,removals}', to_jsonb(jsonb_array_length(detail #> '{hold,removals}')))
where jsonb_typeof(detail #> '{hold,removals}') = 'array';

-- What Apple sent that this version does not know, when it first came. Of an attribute that is not known the value is ''.
create table unforeseen (
    kind text collate "C" not null,
    attribute text collate "C" not null,
    value text collate "C" not null,
    first_seen_at timestamptz not null,
    project_id text collate "C" not null,
    store_id text collate "C" not null,
    primary key (kind, attribute, value)
);

create view unforeseen_values as
select kind, attribute, nullif(value, '') as value, first_seen_at, project_id, store_id
from unforeseen;

create view holds as
select project_id, digest, reason, reasons, removals, held, held_at, run_id, ended_at, ended, ended_run_id
from removal_holds;

create or replace view products as
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
    e.attributes,
    (e.absence ->> 'since')::timestamptz as missing_since,
    (e.absence ->> 'kept_at')::timestamptz as kept_since
from entries e
left join entries g
    on g.project_id = e.project_id and g.kind = 'subscription_group' and g.store_id = e.parent_id
where e.kind in ('in_app_purchase', 'subscription');

create or replace view subscription_groups as
select
    project_id,
    store_id,
    case jsonb_typeof(attributes -> 'referenceName') when 'string' then attributes ->> 'referenceName' end collate "C"
        as name,
    first_seen_at,
    updated_at,
    removed_at,
    attributes,
    (absence ->> 'since')::timestamptz as missing_since,
    (absence ->> 'kept_at')::timestamptz as kept_since
from entries
where kind = 'subscription_group';

create or replace view grace_periods as
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
join projects p on p.id = e.project_id and p.app_id = e.store_id -- not that of an app before
where e.kind = 'grace_period' and e.removed_at is null;

-- Every value that the setting had, and when it was seen.
create view grace_period_history as
select
    a.project_id,
    a.store_id as app_id,
    case a.attributes -> 'optIn' when 'true'::jsonb then true when 'false'::jsonb then false end as opt_in,
    case a.attributes -> 'sandboxOptIn' when 'true'::jsonb then true when 'false'::jsonb then false end as sandbox_opt_in,
    case a.attributes ->> 'duration'
        when 'THREE_DAYS' then 3
        when 'SIXTEEN_DAYS' then 16
        when 'TWENTY_EIGHT_DAYS' then 28
    end::bigint as duration_days,
    case a.attributes ->> 'renewalType'
        when 'ALL_RENEWALS' then 'all_renewals'
        when 'PAID_TO_PAID_ONLY' then 'paid_to_paid_only'
    end as renewal_type,
    a.at as first_seen_at,
    case
        when a.next_seq is not null then a.last_seen_at
        when a.store_id = p.app_id then (s.covered_at ->> 'grace_period')::timestamptz
    end as last_seen_at,
    a.attributes
from (
    select
        project_id,
        store_id,
        at,
        after -> 'attributes' as attributes,
        lead(seq) over (partition by project_id, store_id order by seq) as next_seq,
        lead(before_seen_at) over (partition by project_id, store_id order by seq) as last_seen_at
    from changes
    where kind = 'grace_period'
) a
join projects p on p.id = a.project_id
join project_state s on s.project_id = a.project_id
where a.attributes is not null;

create or replace view catalog_changes as
select seq, project_id, revision, run_id, at, kind, store_id, product_id, op, before, after, before_seen_at
from changes;

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
    worker,
    missing
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
    coalesce(h.held, 0) as held,
    h.digest as hold_digest,
    s.key_worked_at,
    s.key_refused_since,
    s.lease_until as leased_until,
    s.lease_worker as leased_by,
    p.cron,
    s.asked > s.served as pending,
    case when s.asked > s.served then s.requested_at end as requested_at,
    case when s.asked > s.served then s.ready_at end as ready_at,
    s.set_aside_at,
    h.held_at as held_since,
    h.reason as hold_reason,
    (select count(*) from entries e where e.project_id = p.id and e.absence is not null and e.removed_at is null) as missing,
    (select count(*) from entries e where e.project_id = p.id and (e.absence ->> 'kept_at')::timestamptz is not null and e.removed_at is null) as kept,
    s.log_since
from projects p
join project_state s on s.project_id = p.id
join api_keys k on k.project_id = p.id
left join removal_holds h on h.project_id = p.id and h.ended_at is null;

alter table project_state drop column hold;
