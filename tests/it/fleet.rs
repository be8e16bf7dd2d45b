//! A fleet of daemons that is broken in every way while requests come, slots fall due and upstream is edited.
//!
//! Workers are processes of the real binary, over Postgres and NATS and over one SQLite file. They are killed and stopped;
//! the servers are killed, and the ways to them cut and blocked ([`faults`] has all of it). When the load is over, what is
//! promised is looked for in the tables, at the broker and in the files: [`invariants`] has a function for each promise.
//!
//! As ordinary tests they are small. `CATALOG_SYNC_FLEET_PROJECTS`, `_WORKERS`, `_SECONDS`, `_REST_MS`, `_LEASE_MS`, `_CRON`,
//! `_SEED`, `_FILLS`, `_FAULTS` (names with commas between them) and `_BIN` make them large. A seed gives the same requests, edits and
//! faults again, as far as the machine keeps time.

mod broker;
mod checks;
mod diary;
mod disk;
mod faults;
mod invariants;
mod neighbours;
mod place;
mod proxy;
mod story;
mod tables;
mod workers;

use std::{path::PathBuf, time::Duration};

use self::{faults::Kind, place::Place};

/// How large a fleet is, and what it is put through.
struct Size {
    projects: usize,
    workers: usize,
    load: Duration,
    lease: Duration,
    cron: String,
    /// The longest pause between two faults.
    rest: Duration,
    seed: u64,
    kinds: Vec<Kind>,
    binary: PathBuf,
}

impl Size {
    /// So large, unless the environment says otherwise.
    fn new(workers: u64, seconds: u64, kinds: &[Kind]) -> Self {
        // Cargo runs tests in the package's folder; a worker has a folder of its own.
        let binary = setting("BIN").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_catalog-sync")),
            |path| std::path::absolute(path).unwrap(),
        );
        let kinds = setting("FAULTS").map_or_else(
            || kinds.to_vec(),
            |names| {
                let named = |name: &str| kinds.iter().copied().find(|kind| kind.name() == name);
                names.split(',').filter_map(named).collect()
            },
        );
        assert!(
            !kinds.is_empty(),
            "CATALOG_SYNC_FLEET_FAULTS names no fault"
        );
        Self {
            projects: usize::try_from(number("PROJECTS", 40)).unwrap(),
            workers: usize::try_from(number("WORKERS", workers)).unwrap(),
            load: Duration::from_secs(number("SECONDS", seconds)),
            lease: Duration::from_millis(number("LEASE_MS", 3_000)),
            rest: Duration::from_millis(number("REST_MS", 5_000)),
            cron: setting("CRON").unwrap_or_else(|| "* * * * *".to_owned()),
            seed: number("SEED", 20_260_301),
            kinds,
            binary,
        }
    }
}

fn number(name: &str, usual: u64) -> u64 {
    setting(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CATALOG_SYNC_FLEET_{name} is no number: {text}"))
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where these tests are made larger"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("CATALOG_SYNC_FLEET_{name}")).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_lose_and_double_nothing_over_postgres_and_nats() {
    let size = Size::new(3, 60, &Kind::ON_SERVERS);
    let place = Place::with_postgres_and_nats(&size).await;
    story::endure(place, size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_lose_and_double_nothing_over_one_sqlite_file() {
    let size = Size::new(4, 40, &Kind::ON_SQLITE);
    let place = Place::with_sqlite(&size).await;
    story::endure(place, size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_neighbours_hold_nobody_up() {
    neighbours::endure(&Size::new(1, 12, &[Kind::Kill])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_is_survived() {
    let mut size = Size::new(2, 0, &[Kind::Kill]);
    size.projects = usize::try_from(number("PROJECTS", 10)).unwrap();
    // What is logged fills so small a disk by and by: ten times is what each bears.
    for _ in 0..number("FILLS", 10).div_ceil(10) {
        disk::fill_and_free(&size, 10).await;
        size.seed += 1;
    }
}
