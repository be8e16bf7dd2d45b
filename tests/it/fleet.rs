//! A fleet of daemons whose workers are killed at random while requests come, slots fall due and upstream is edited.
//!
//! Workers are processes of the real binary, over Postgres and NATS and over one SQLite file. When the load is over, what is
//! promised is looked for in the tables: no request is lost (I2), no slot has two runs (I3), no project is in two hands (I1),
//! the change log leads to the catalog, and the catalog is what is upstream (I4, I5).
//!
//! As ordinary tests they are small. `CATALOG_SYNC_FLEET_PROJECTS`, `_SECONDS`, `_LEASE_MS`, `_CRON`, `_SEED` and `_BIN` make
//! them large; the seed gives the same requests, edits and kills again, as far as the machine keeps time.

mod broker;
mod checks;
mod place;
mod story;
mod tables;
mod workers;

use std::{path::PathBuf, time::Duration};

use self::place::Place;

/// How large a fleet is, and what it is put through.
struct Size {
    projects: usize,
    workers: usize,
    load: Duration,
    lease: Duration,
    cron: String,
    seed: u64,
    binary: PathBuf,
}

impl Size {
    /// So large, unless the environment says otherwise.
    fn new(workers: usize, seconds: u64) -> Self {
        let number = |name, usual| {
            setting(name).map_or(usual, |text| {
                text.parse()
                    .unwrap_or_else(|_| panic!("CATALOG_SYNC_FLEET_{name} is no number: {text}"))
            })
        };
        // Cargo runs tests in the package's folder; a worker has a folder of its own.
        let binary = setting("BIN").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_catalog-sync")),
            |path| std::path::absolute(path).unwrap(),
        );
        Self {
            projects: usize::try_from(number("PROJECTS", 40)).unwrap(),
            workers,
            load: Duration::from_secs(number("SECONDS", seconds)),
            lease: Duration::from_millis(number("LEASE_MS", 3_000)),
            cron: setting("CRON").unwrap_or_else(|| "* * * * *".to_owned()),
            seed: number("SEED", 20_260_301),
            binary,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where these tests are made larger"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("CATALOG_SYNC_FLEET_{name}")).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_double_nothing_over_postgres_and_nats() {
    let size = Size::new(3, 25);
    let place = Place::with_postgres_and_nats(&size).await;
    story::endure(place, size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_double_nothing_over_one_sqlite_file() {
    let size = Size::new(2, 20);
    let place = Place::with_sqlite(&size).await;
    story::endure(place, size).await;
}
