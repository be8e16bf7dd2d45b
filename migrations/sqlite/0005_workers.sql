-- Which daemons are at work, for people: nothing is decided by it.

create table worker_beats (
    name text not null primary key,
    version text not null,
    started_at text not null,
    seen_at text not null
) strict;

create view workers as
select name, version, started_at, seen_at
from worker_beats;
