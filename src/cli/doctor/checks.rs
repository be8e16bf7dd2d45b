//! The checks, in the order in which they are told.

use std::{cmp::Ordering, sync::Arc};

use tokio::time::Instant as Stopwatch;

use super::{
    super::{output::counted, setup, wiring::Wiring},
    Finding,
};
use crate::{
    asc::Reached,
    clock,
    config::Config,
    diagnosis::{Code, Retry},
    environment,
    queue::Queue,
    store::{self, Disk, Examined, Fleet, Schema, Store},
};

pub(super) const CONFIGURATION: &str = "configuration";
pub(super) const DATABASE: &str = "database";
pub(super) const MASTER_KEYS: &str = "master keys";
pub(super) const BROKERS: &str = "brokers";
pub(super) const APPLE: &str = "App Store Connect";
const CLOCK: &str = "clock";
pub(super) const DAEMONS: &str = "daemons";
pub(super) const PROJECTS: &str = "projects";

pub(super) const AFTER_CONFIGURATION: [&str; 6] =
    [DATABASE, MASTER_KEYS, BROKERS, APPLE, DAEMONS, PROJECTS];

/// Clocks that are further apart than this are worth a word..
const CLOCK_WARNING: i64 = 30;

/// ..and further than this, Apple refuses tokens.
const CLOCK_FAILED: i64 = 60;

/// With less room on its disk than this, a database is soon in need..
const ROOM_WARNING: u64 = 1 << 30;

/// ..and with less than this, in danger.
const ROOM_FAILED: u64 = 100 << 20;

/// A statement that takes longer makes every run slow: a claim and a commit take a handful each.
const SLOW_STATEMENT_MS: u128 = 50;

/// How often a statement is timed.
const TIMED: usize = 5;

/// How many projects are named.
const NAMED: u32 = 5;

/// It was loaded, so it is sound: unknown keys, wrong values and files that everybody can read are refused there.
pub(super) fn configuration(config: &Config) -> Finding {
    let source = config.file().map_or_else(
        || "the defaults (there is no worker.toml in this folder)".to_owned(),
        |file| file.display().to_string(),
    );
    let set = environment::own_names().count();
    let variables = match set {
        0 => String::new(),
        set => format!(
            ", with {} of the environment on top",
            counted(set as u64, "variable")
        ),
    };
    Finding::ok(CONFIGURATION, format!("{source}{variables}"))
}

/// The store too, if it can be used.
pub(super) async fn database(wiring: &Wiring) -> (Option<Arc<dyn Store>>, Vec<Finding>) {
    let shown = wiring.config.shown_store();
    let looked = async {
        let store = wiring.store_as_it_is().await?;
        let schema = store.schema().await?;
        let examined = store.examine().await?;
        if schema.applied == schema.known && examined.lacks.is_empty() {
            // It changes nothing, as this process is no daemon, but it has to be allowed to.
            store.forget_worker().await?;
        }
        let mut times = Vec::new();
        for _ in 0..TIMED {
            let began = Stopwatch::now();
            store.schema().await?;
            times.push(began.elapsed());
        }
        times.sort();
        anyhow::Ok((store, schema, examined, times))
    };
    let (store, schema, examined, times) = match looked.await {
        Ok(looked) => looked,
        Err(error) => {
            return (None, vec![Finding::failed(DATABASE, format!("{error:#}"))]);
        }
    };
    // Reading the schema is two statements.
    let latency = times.get(TIMED / 2).copied().unwrap_or_default() / 2;
    let mut findings = vec![Finding::ok(
        DATABASE,
        format!(
            "{shown}: {}, a statement takes {}.{} ms",
            examined.server,
            latency.as_millis(),
            latency.as_micros() % 1000 / 100
        ),
    )];
    if latency.as_millis() > SLOW_STATEMENT_MS {
        findings.push(
            Finding::warning(
                DATABASE,
                "it answers slowly, and each run needs a handful of statements",
            )
            .way_out("run workers near the database, and see what else it is busy with"),
        );
    }
    findings.extend(of_database(&examined));
    let (usable, finding) = of_schema(schema, &examined);
    findings.push(finding);
    (usable.then_some(store), findings)
}

/// Whether it can be used by this version, and what there is to say.
fn of_schema(schema: Schema, examined: &Examined) -> (bool, Finding) {
    let Schema { applied, known } = schema;
    match applied.cmp(&known) {
        Ordering::Equal => (
            true,
            Finding::ok(DATABASE, format!("schema {applied} is this version's")),
        ),
        // A SQLite file is migrated by the next command that uses it.
        Ordering::Less if examined.journal.is_some() => (
            false,
            Finding::warning(DATABASE, format!("schema {applied} is older than this version's, {known}"))
                .way_out("'catalog-sync migrate', or any command that uses it, brings it up to date; keep a backup"),
        ),
        Ordering::Less => (
            false,
            Finding::failed(DATABASE, store::Error::OlderSchema { applied, known }.to_string())
                .way_out("'catalog-sync migrate --check' names the migrations that lack"),
        ),
        Ordering::Greater => (
            false,
            Finding::failed(DATABASE, store::Error::NewerSchema { applied, known }.to_string()),
        ),
    }
}

fn of_database(examined: &Examined) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(theirs) = examined.clock {
        let apart = (clock::now() - theirs).num_seconds();
        findings.push(if apart.abs() > CLOCK_WARNING {
            Finding::warning(
                DATABASE,
                format!("its clock and this machine's are {} s apart", apart.abs()),
            )
            .way_out(
                "mend the time synchronisation of the one that is wrong: leases are reckoned by it",
            )
        } else {
            Finding::ok(DATABASE, "its clock is right by this machine's")
        });
    }
    if let Some(journal) = examined
        .journal
        .as_ref()
        .filter(|journal| *journal != "wal")
    {
        findings.push(
            Finding::warning(DATABASE, format!("its journal is '{journal}' and not a write-ahead log, so readers wait for writers"))
                .way_out("end what else has the file open; the next start of a worker changes it"),
        );
    }
    if let Some(Disk {
        file_system,
        free_bytes,
    }) = &examined.disk
    {
        let free = format!("its disk ({file_system}) has {} MiB free", free_bytes >> 20);
        findings.push(match *free_bytes {
            ..ROOM_FAILED => Finding::failed(DATABASE, free).way_out("make room"),
            ROOM_FAILED..ROOM_WARNING => Finding::warning(DATABASE, free).way_out("make room"),
            _ => Finding::ok(DATABASE, free),
        });
    }
    if !examined.lacks.is_empty() {
        let lacks = examined.lacks.join(", ");
        findings.push(
            Finding::failed(DATABASE, format!("this user lacks rights: {lacks}"))
                .way_out("grant them, or make the user of the workers the owner of the tables"),
        );
    }
    findings
}

pub(super) async fn master_keys(wiring: &Wiring, store: Option<&dyn Store>) -> Vec<Finding> {
    let vault = match store {
        Some(store) => wiring.vault(store).await,
        None => wiring.open_vault().await,
    };
    let vault = match vault {
        Ok(vault) => vault,
        Err(error) => return vec![Finding::failed(MASTER_KEYS, format!("{error:#}"))],
    };
    let at_hand = format!("at hand: {}", vault.master_key_ids().join(", "));
    let Some(store) = store else {
        return vec![Finding::ok(
            MASTER_KEYS,
            format!("{at_hand}; not compared with the database"),
        )];
    };
    let needed = async {
        setup::no_master_key_missing(&vault, store).await?;
        let known = store.list_master_keys().await?;
        anyhow::Ok(known.iter().map(|known| known.api_keys).sum())
    };
    match needed.await {
        Ok(0) => vec![Finding::ok(
            MASTER_KEYS,
            format!("{at_hand}; no API key is stored yet"),
        )],
        Ok(api_keys) => vec![Finding::ok(
            MASTER_KEYS,
            format!(
                "{at_hand}; they open {}",
                counted(api_keys, "stored API key")
            ),
        )],
        Err(error) => vec![Finding::failed(MASTER_KEYS, format!("{error:#}"))],
    }
}

pub(super) async fn broker(queue: &dyn Queue) -> Vec<Finding> {
    let name = queue.name();
    vec![match queue.find_absent().await {
        Ok(absent) if absent.is_empty() => {
            Finding::ok(BROKERS, format!("{name} answers, and has all that is needed"))
        }
        Ok(absent) => Finding::warning(
            BROKERS,
            format!("{name} answers, and does not have {} yet", absent.join(", ")),
        )
        .way_out("the daemon makes them when it first needs them, if its user may; else make them by hand: docs/messages.md"),
        Err(error) => Finding::failed(BROKERS, format!("{name}: {error}")),
    }]
}

/// One request without a token: Apple answers it with 401.
pub(super) async fn apple(wiring: &Wiring) -> Vec<Finding> {
    let section = &wiring.config.app_store;
    let client = match wiring.client() {
        Ok(client) => client,
        Err(error) => return vec![Finding::failed(APPLE, format!("{error:#}"))],
    };
    let by = match (
        section.proxy.is_empty(),
        section.ca_file.as_os_str().is_empty(),
    ) {
        (true, true) => String::new(),
        (false, true) => " through app_store.proxy".to_owned(),
        (true, false) => format!(", trusting {} alone", section.ca_file.display()),
        (false, false) => format!(
            " through app_store.proxy, trusting {} alone",
            section.ca_file.display()
        ),
    };
    let mut findings = Vec::new();
    if section.proxy.is_empty()
        && let Some(name) = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .into_iter()
            .find(|name| environment::variable(name).is_some_and(|value| !value.is_empty()))
    {
        findings.push(
            Finding::warning(APPLE, format!("{name} is set and is not used: the way to Apple is told by the configuration alone"))
                .way_out("set app_store.proxy, if this machine needs a proxy"),
        );
    }
    match client.reach().await {
        Ok(reached) => findings.extend(of_apple(reached, &by)),
        Err(failure) => findings.push(Finding::failed(APPLE, format!("{failure}{by}")).way_out(
            "check the network, the firewall (TCP 443), app_store.base_url, proxy and ca_file",
        )),
    }
    findings
}

fn of_apple(reached: Reached, by: &str) -> Vec<Finding> {
    let Reached {
        status,
        clock_ahead,
    } = reached;
    let answered = format!("it answers a request without a key with {status}{by}");
    let reachable = match status {
        401 => Finding::ok(APPLE, answered),
        500.. => Finding::failed(APPLE, answered)
            .way_out("this is Apple's, or the proxy's: it usually passes by itself"),
        403 | 429 => Finding::warning(APPLE, format!("{answered}, and Apple would with 401"))
            .way_out("see what is in the way: a proxy, or too many requests from this address"),
        _ => {
            let sentence = format!("{answered}, and Apple would with 401: it is another server");
            let way_out =
                "see what is in the way: a proxy, a captive portal, a wrong app_store.base_url";
            return vec![Finding::failed(APPLE, sentence).way_out(way_out)];
        }
    };
    let clock = match clock_ahead {
        None => Finding::warning(
            CLOCK,
            "the answer has no date to compare this machine's clock with",
        ),
        Some(ahead) => {
            let apart = ahead.abs();
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            let sentence = format!("this machine's clock is {apart} s {side} App Store Connect's");
            if apart > CLOCK_FAILED {
                Finding::failed(CLOCK, sentence)
                    .way_out("mend the time synchronisation: Apple refuses tokens of this machine, as if keys were bad")
            } else if apart > CLOCK_WARNING {
                Finding::warning(CLOCK, sentence).way_out(
                    "mend the time synchronisation: tokens are refused when it is over a minute",
                )
            } else {
                Finding::ok(
                    CLOCK,
                    "this machine's clock is right by App Store Connect's",
                )
            }
        }
    };
    vec![reachable, clock]
}

pub(super) async fn daemons(store: &dyn Store) -> Vec<Finding> {
    let now = clock::now();
    let workers = match store.read_workers(now).await {
        Ok(workers) => workers,
        Err(error) => return vec![Finding::failed(DAEMONS, error.to_string())],
    };
    if workers.is_empty() {
        return vec![
            Finding::warning(DAEMONS, "no daemon is at work on this database")
                .way_out("'catalog-sync run' starts one; deploy/ has a service"),
        ];
    }
    let ours = env!("CARGO_PKG_VERSION");
    let mut findings = vec![Finding::ok(
        DAEMONS,
        format!("{} at work", counted(workers.len() as u64, "daemon")),
    )];
    for worker in &workers {
        let side = match version(&worker.version).cmp(&version(ours)) {
            Ordering::Equal => continue,
            Ordering::Less => "older",
            Ordering::Greater => "newer",
        };
        findings.push(
            Finding::warning(
                DAEMONS,
                format!(
                    "{} is of version {}, {side} than this one, {ours}",
                    worker.name, worker.version
                ),
            )
            .way_out("finish the upgrade: docs/upgrades.md"),
        );
    }
    findings
}

/// `0.10.2` as numbers; what is no number counts as 0.
fn version(text: &str) -> [u64; 3] {
    let mut parts = text
        .split(['.', '-', '+'])
        .map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

pub(super) async fn projects(wiring: &Wiring, store: &dyn Store) -> Vec<Finding> {
    let read = async {
        let schedule = wiring.config.schedule.parse()?;
        anyhow::Ok(store.read_fleet(&schedule, NAMED, clock::now()).await?)
    };
    match read.await {
        Ok(fleet) => of_projects(&fleet),
        Err(error) => vec![Finding::failed(PROJECTS, format!("{error:#}"))],
    }
}

fn of_projects(fleet: &Fleet) -> Vec<Finding> {
    let Fleet {
        fresh,
        stale,
        new,
        paused,
        ..
    } = fleet;
    let all = fresh + stale + new + paused;
    let mut findings = vec![Finding::ok(
        PROJECTS,
        format!("{}, {fresh} of them fresh", counted(all, "project")),
    )];
    let passes = |code: &str| {
        code.parse::<Code>()
            .is_ok_and(|code| code.retry() == Retry::ByItself)
    };
    let failing = fleet.failing.iter().filter(|(code, _)| !passes(code));
    let codes: Vec<String> = failing
        .clone()
        .map(|(code, projects)| format!("{code} {projects}"))
        .collect();
    let waiting: u64 = failing.map(|(_, projects)| projects).sum();
    if waiting > 0 {
        findings.push(
            Finding::warning(
                PROJECTS,
                format!(
                    "{} with an error that will not pass by itself: {}",
                    counted(waiting, "project"),
                    codes.join(", ")
                ),
            )
            .way_out(
                "'catalog-sync status' names them, and 'catalog-sync status ID' says what to do",
            ),
        );
    }
    if *stale > 0 {
        let named: Vec<&str> = fleet
            .stalest
            .iter()
            .map(|it| it.project_id.as_str())
            .collect();
        findings.push(
            Finding::warning(
                PROJECTS,
                format!("{} stale: {}", counted(*stale, "project"), named.join(", ")),
            )
            .way_out("'catalog-sync status ID' says why"),
        );
    }
    if fleet.set_aside > 0 {
        findings.push(
            Finding::warning(PROJECTS, format!("{} set aside, as their runs lost their workers", counted(fleet.set_aside, "project")))
                .way_out("'catalog-sync status' names them, and 'catalog-sync project resume ID' takes one up again"),
        );
    }
    if fleet.held > 0 {
        findings.push(
            Finding::warning(
                PROJECTS,
                format!(
                    "{} of {} held",
                    counted(fleet.held_removals, "removal"),
                    counted(fleet.held, "project")
                ),
            )
            .way_out("'catalog-sync holds' shows them, and how to decide"),
        );
    }
    findings
}

#[cfg(test)]
mod tests;
