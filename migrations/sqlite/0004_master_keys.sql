-- The master keys that keys were sealed with, each told from another of its id.

create table master_key_checks (
    id text not null primary key,
    check_value text not null,
    first_seen_at text not null,
    retired_at text
) strict;

create index api_keys_by_master_key on api_keys (master_key_id, project_id);

create view master_keys as
select
    c.id as master_key_id,
    (select count(*) from api_keys k where k.master_key_id = c.id) as api_keys,
    c.first_seen_at,
    c.retired_at
from master_key_checks c
union all
select k.master_key_id, count(*), null, null
from api_keys k
where not exists (select 1 from master_key_checks c where c.id = k.master_key_id)
group by k.master_key_id;
