//! How all projects fare together, in a handful of statements that each go once over what is there.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Serialize;

use super::{Connection, Db, rows::Row, sql};
use crate::{
    clock::Instant,
    diagnosis::{Code, Retry},
    project::ProjectId,
    schedule::{Cron, Schedule},
    store::{
        AGES, Ages, Error, FailingProject, Fleet, HeldProject, Outbox, Stalest, UNTOLD_COUNTED,
        Worker, value::instant_text,
    },
};

/// A daemon that has been silent for longer is not at work.
const WORKER_SILENT: TimeDelta = TimeDelta::minutes(1);

/// A daemon that has been silent for longer is forgotten.
const WORKER_FORGOTTEN: TimeDelta = TimeDelta::days(1);

/// How many crons of projects are told apart. Projects with others count as stale by the schedule of all.
const CRONS: i64 = 1000;

/// From when on a project with this cron counts as stale, as the statements read it.
#[derive(Serialize)]
struct OwnLimit {
    cron: String,
    before: String,
}

/// When projects count as stale: those without a cron of their own, and those with one.
struct Limits {
    general: Instant,
    own: Vec<OwnLimit>,
}

/// When a project was last synced, or else added.
macro_rules! since {
    () => {
        "coalesce(s.last_success_at, p.created_at)"
    };
}

/// All projects, each with the instant before which it is stale; the parameters are those of [`Limits`].
///
/// SQLite finds a cron among many by an index of its own making only where both sides are known to be texts.
macro_rules! projects {
    () => {
        concat!(
            " from projects p
             join project_state s on s.project_id = p.id
             left join (select cast(value ->> 'cron' as text) as cron, ",
            sql::as_instant!("value ->> 'before'"),
            " as stale_before from ",
            sql::each!("$2"),
            ") own on own.cron = p.cron "
        )
    };
}

macro_rules! is_stale {
    () => {
        concat!(since!(), " < coalesce(own.stale_before, $1)")
    };
}

/// Whether a project's error code is one that passes by itself.
macro_rules! passes {
    ($codes:literal) => {
        concat!(
            "s.error_code in (select value ->> 'code' from ",
            sql::each!($codes),
            ")"
        )
    };
}

/// The error codes that pass by themselves, as the statements read them.
fn passing() -> Vec<BTreeMap<&'static str, &'static str>> {
    Code::ALL
        .iter()
        .filter(|code| code.retry() == Retry::ByItself)
        .map(|code| BTreeMap::from([("code", code.as_str())]))
        .collect()
}

pub(super) async fn read(
    connection: &mut Connection,
    schedule: &Schedule,
    most: u32,
    now: Instant,
) -> Result<Fleet, Error> {
    let limits = limits(connection, schedule, now).await?;
    let mut fleet = Fleet {
        read_at: now,
        fresh: 0,
        stale: 0,
        new: 0,
        paused: 0,
        failing: failing(connection).await?,
        set_aside: 0,
        held: 0,
        held_removals: 0,
        ages: Ages::default(),
        stalest: stalest(connection, &limits, most).await?,
        failing_projects: failing_projects(connection, most).await?,
        held_projects: Vec::new(),
        pending: 0,
        ready_since: None,
        spent_keys: spent_keys(connection, now).await?,
        outboxes: outboxes(connection).await?,
        workers: workers(connection, now).await?,
    };
    count_projects(connection, &limits, now, &mut fleet).await?;
    count_holds(connection, most, &mut fleet).await?;
    count_pending(connection, now, &mut fleet).await?;
    Ok(fleet)
}

/// The ids of projects, the worst first and then the stalest; the order is that of [`crate::store::Condition`].
pub(super) async fn worst(
    connection: &mut Connection,
    schedule: &Schedule,
    most: u32,
    now: Instant,
) -> Result<Vec<ProjectId>, Error> {
    let limits = limits(connection, schedule, now).await?;
    // Apart from its order and its limit, for which SQLite would look through all crons for each project.
    let rows = sqlx::query::<Db>(concat!(
        "with ranked as materialized (
         select
             p.id,
             case
                 when p.paused_at is not null then 7
                 when s.set_aside_at is not null then 0
                 when s.outcome = 'failed' then 1
                 when h.digest is not null then 2
                 when s.outcome = 'partial' then 3
                 when ",
        is_stale!(),
        "    then 4
                 when s.last_success_at is null then 5
                 else 6
             end as rank,
             ",
        since!(),
        " as since",
        projects!(),
        "left join removal_holds h on h.project_id = p.id and h.ended_at is null
         )
         select id from ranked order by rank, since, id limit $3"
    ))
    .bind(sql::instant(limits.general))
    .bind(sql::json(&limits.own))
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Row::new(row, "project", &["id"]).name("id"))
        .collect()
}

pub(super) async fn note_worker(
    connection: &mut Connection,
    worker: &str,
    version: &str,
    started_at: Instant,
    now: Instant,
) -> Result<(), Error> {
    sqlx::query::<Db>("delete from worker_beats where seen_at < $1")
        .bind(sql::instant(now - WORKER_FORGOTTEN))
        .execute(&mut *connection)
        .await?;
    sqlx::query::<Db>(
        "insert into worker_beats (name, version, started_at, seen_at) values ($1, $2, $3, $4)
         on conflict (name) do update set
             version = excluded.version, started_at = excluded.started_at, seen_at = excluded.seen_at",
    )
    .bind(worker)
    .bind(version)
    .bind(sql::instant(started_at))
    .bind(sql::instant(now))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn forget_worker(connection: &mut Connection, worker: &str) -> Result<(), Error> {
    sqlx::query::<Db>("delete from worker_beats where name = $1")
        .bind(worker)
        .execute(connection)
        .await?;
    Ok(())
}

async fn limits(
    connection: &mut Connection,
    schedule: &Schedule,
    now: Instant,
) -> Result<Limits, Error> {
    let crons = sqlx::query_scalar::<Db, String>(
        "select distinct cron from projects where cron is not null order by cron limit $1",
    )
    .bind(CRONS)
    .fetch_all(connection)
    .await?;
    let own = crons
        .into_iter()
        .filter_map(|cron| {
            let parsed: Cron = cron.parse().ok()?; // One that cannot be read is told of where it falls due.
            let before = instant_text(schedule.stale_before(Some(&parsed), now));
            Some(OwnLimit { cron, before })
        })
        .collect();
    Ok(Limits {
        general: schedule.stale_before(None, now),
        own,
    })
}

async fn count_projects(
    connection: &mut Connection,
    limits: &Limits,
    now: Instant,
    fleet: &mut Fleet,
) -> Result<(), Error> {
    macro_rules! up_to {
        ($parameter:literal) => {
            concat!(
                "count(*) filter (where p.paused_at is null and ",
                since!(),
                " >= ",
                $parameter,
                ")"
            )
        };
    }
    let mut query = sqlx::query::<Db>(concat!(
        "select
             count(*) filter (where p.paused_at is not null) as paused,
             count(*) filter (where p.paused_at is null) as active,
             count(*) filter (where p.paused_at is null and s.set_aside_at is not null) as set_aside,
             count(*) filter (where p.paused_at is null and ",
        is_stale!(),
        ") as stale,
             count(*) filter (where p.paused_at is null and s.last_success_at is null and not ",
        is_stale!(),
        ") as new,
             cast(coalesce(sum(",
        sql::seconds_between!("coalesce(s.last_success_at, p.created_at)", "$3"),
        ") filter (where p.paused_at is null), 0) as bigint) as seconds,
             min(coalesce(s.last_success_at, p.created_at)) filter (where p.paused_at is null) as oldest, ",
        up_to!("$4"), " as up_to_0, ",
        up_to!("$5"), " as up_to_1, ",
        up_to!("$6"), " as up_to_2, ",
        up_to!("$7"), " as up_to_3, ",
        up_to!("$8"), " as up_to_4, ",
        up_to!("$9"), " as up_to_5, ",
        up_to!("$10"), " as up_to_6, ",
        up_to!("$11"), " as up_to_7",
        projects!(),
    ))
    .bind(sql::instant(limits.general))
    .bind(sql::json(&limits.own))
    .bind(sql::instant(now));
    for age in AGES {
        query = query.bind(sql::instant(now - age));
    }
    let row = query.fetch_one(connection).await?;
    let row = Row::new(&row, "projects", &[]);
    let active: u64 = row.integer("active")?;
    fleet.paused = row.integer("paused")?;
    fleet.set_aside = row.integer("set_aside")?;
    fleet.stale = row.integer("stale")?;
    fleet.new = row.integer("new")?;
    fleet.fresh = active - fleet.stale - fleet.new;
    fleet.ages = Ages {
        projects: active,
        seconds: row.value::<i64>("seconds")?.max(0).unsigned_abs(),
        oldest: row.value("oldest")?,
        up_to: [
            row.integer("up_to_0")?,
            row.integer("up_to_1")?,
            row.integer("up_to_2")?,
            row.integer("up_to_3")?,
            row.integer("up_to_4")?,
            row.integer("up_to_5")?,
            row.integer("up_to_6")?,
            row.integer("up_to_7")?,
        ],
    };
    Ok(())
}

async fn failing(connection: &mut Connection) -> Result<BTreeMap<String, u64>, Error> {
    let rows = sqlx::query::<Db>(
        "select s.error_code, count(*) as projects
         from project_state s join projects p on p.id = s.project_id
         where s.outcome in ('failed', 'partial') and s.error_code is not null and p.paused_at is null
         group by s.error_code",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "projects failing with", &["error_code"]);
            Ok((row.text("error_code")?, row.integer("projects")?))
        })
        .collect()
}

async fn failing_projects(
    connection: &mut Connection,
    most: u32,
) -> Result<Vec<FailingProject>, Error> {
    let rows = sqlx::query::<Db>(concat!(
        "select p.id, s.error_code
         from project_state s join projects p on p.id = s.project_id
         where s.outcome in ('failed', 'partial') and s.error_code is not null and p.paused_at is null
         order by case when ",
        passes!("$1"),
        " then 1 else 0 end, ",
        since!(),
        " desc, p.id limit $2"
    ))
    .bind(sql::json(&passing()))
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "project", &["id"]);
            Ok(FailingProject {
                project_id: row.name("id")?,
                error_code: row.text("error_code")?,
            })
        })
        .collect()
}

async fn stalest(
    connection: &mut Connection,
    limits: &Limits,
    most: u32,
) -> Result<Vec<Stalest>, Error> {
    // As in [`worst`].
    let rows = sqlx::query::<Db>(concat!(
        "with stale as materialized (select p.id, ",
        since!(),
        " as since",
        projects!(),
        "where p.paused_at is null and ",
        is_stale!(),
        " and (s.outcome is null or s.outcome in ('succeeded', 'held') or s.outcome = 'failed' and ",
        passes!("$4"),
        ")) select id, since from stale order by since, id limit $3"
    ))
    .bind(sql::instant(limits.general))
    .bind(sql::json(&limits.own))
    .bind(i64::from(most))
    .bind(sql::json(&passing()))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "project", &["id"]);
            Ok(Stalest {
                project_id: row.name("id")?,
                since: row.instant("since")?,
            })
        })
        .collect()
}

async fn count_holds(
    connection: &mut Connection,
    most: u32,
    fleet: &mut Fleet,
) -> Result<(), Error> {
    let row = sqlx::query::<Db>(
        "select count(*) as held, cast(coalesce(sum(held), 0) as bigint) as removals
         from removal_holds where ended_at is null",
    )
    .fetch_one(&mut *connection)
    .await?;
    let row = Row::new(&row, "holds", &[]);
    fleet.held = row.integer("held")?;
    fleet.held_removals = row.integer("removals")?;
    let rows = sqlx::query::<Db>(
        "select project_id, held from removal_holds where ended_at is null
         order by held_at desc, project_id limit $1",
    )
    .bind(i64::from(most))
    .fetch_all(connection)
    .await?;
    fleet.held_projects = rows
        .iter()
        .map(|row| {
            let row = Row::new(row, "hold", &["project_id"]);
            Ok(HeldProject {
                project_id: row.name("project_id")?,
                removals: row.integer("held")?,
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(())
}

async fn count_pending(
    connection: &mut Connection,
    now: Instant,
    fleet: &mut Fleet,
) -> Result<(), Error> {
    let row = sqlx::query::<Db>(
        "select
             count(*) as pending,
             min(s.ready_at) filter (
                 where s.ready_at <= $1 and (s.lease_until is null or s.lease_until <= $1)
             ) as ready_since
         from project_state s join projects p on p.id = s.project_id
         where s.asked > s.served and p.paused_at is null and s.set_aside_at is null",
    )
    .bind(sql::instant(now))
    .fetch_one(connection)
    .await?;
    let row = Row::new(&row, "pending requests", &[]);
    fleet.pending = row.integer("pending")?;
    fleet.ready_since = row.value("ready_since")?;
    Ok(())
}

/// What scheduled work leaves of the budget is a fifth of it: `Reserve::Scheduled`.
async fn spent_keys(connection: &mut Connection, now: Instant) -> Result<u64, Error> {
    let spent = sqlx::query_scalar::<Db, i64>(concat!(
        "select count(*) from key_usage where 5 * ",
        sql::as_integer!("ledger -> 'seen' ->> 'left'"),
        " <= ",
        sql::as_integer!("ledger ->> 'limit'"),
        " and ",
        sql::as_instant!("ledger -> 'seen' ->> 'at'"),
        " > $1"
    ))
    .bind(sql::instant(now - TimeDelta::hours(1)))
    .fetch_one(connection)
    .await?;
    Ok(spent.max(0).unsigned_abs())
}

async fn outboxes(connection: &mut Connection) -> Result<Vec<Outbox>, Error> {
    let rows = sqlx::query::<Db>(
        "select
             k.name,
             (select count(*) from (select 1 from outbox o where o.sink = k.name limit $1) counted) as untold,
             (select c.at from outbox o
              join changes c on c.project_id = o.project_id and c.revision = o.revision
              where o.sink = k.name order by o.id limit 1) as oldest_at
         from sinks k order by k.name",
    )
    .bind(i64::try_from(UNTOLD_COUNTED).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "broker", &["name"]);
            Ok(Outbox {
                sink: row.text("name")?,
                untold: row.integer("untold")?,
                oldest_at: row.value("oldest_at")?,
            })
        })
        .collect()
}

pub(super) async fn workers(
    connection: &mut Connection,
    now: Instant,
) -> Result<Vec<Worker>, Error> {
    let rows = sqlx::query::<Db>(
        "select name, version, started_at, seen_at from worker_beats where seen_at > $1 order by name limit 1000",
    )
    .bind(sql::instant(now - WORKER_SILENT))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let row = Row::new(row, "worker", &["name"]);
            Ok(Worker {
                name: row.text("name")?,
                version: row.text("version")?,
                started_at: row.instant("started_at")?,
                seen_at: row.instant("seen_at")?,
            })
        })
        .collect()
}
