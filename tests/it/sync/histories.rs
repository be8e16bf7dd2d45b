//! Generated histories of what happens upstream, with something going wrong at every page of every list: what upstream had all
//! the while is never removed (I6), what it deleted is found within three runs, and after each run the change log, replayed from
//! nothing, is the catalog (I5).
//!
//! `CATALOG_SYNC_HISTORIES` gives another number of histories, of which Postgres takes up to 100, and
//! `CATALOG_SYNC_HISTORIES_SEED` the seed of the first. Each has a seed of its own, one above that of the one before, and the same
//! seed gives the same history.

mod history;
pub(crate) mod judge;
mod stage;
mod tally;
mod trouble;

use std::{
    cell::RefCell,
    cmp::Reverse,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use self::{
    history::{History, histories},
    stage::Stage,
    tally::Tally,
    trouble::Pair,
};
use crate::{house::Backend, random::Random};

/// One of so many histories begins with a fault at a page, both picked by its seed, so that none is left out.
const ROUND: u64 = 2;

/// How often a history that fails is made smaller.
const MOST_SHRINKS: u32 = 200;

#[test]
fn what_upstream_had_all_the_while_stays_and_what_it_deleted_goes_on_sqlite() {
    hold_for(histories_or(5000), Backend::Sqlite);
}

#[test]
fn what_upstream_had_all_the_while_stays_and_what_it_deleted_goes_on_postgres() {
    hold_for(histories_or(100).min(100), Backend::Postgres);
}

fn histories_or(default: u64) -> u64 {
    number("CATALOG_SYNC_HISTORIES", default)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where other histories are asked for"
)]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A history for which the law does not hold.
struct Failure {
    seed: u64,
    shrinks: u32,
    why: String,
    history: History,
}

/// Tests the law with this many histories, on all cores.
fn hold_for(count: u64, backend: Backend) {
    let seed = number("CATALOG_SYNC_HISTORIES_SEED", 0);
    let began = Instant::now();
    let next = AtomicU64::new(seed);
    let shrinks = AtomicU32::new(MOST_SHRINKS);
    let work = || {
        let tally = RefCell::new(Tally::default());
        let mut failures = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stage = runtime.block_on(Stage::new(backend));
        loop {
            let seed_here = next.fetch_add(1, Ordering::Relaxed);
            if seed_here >= seed + count {
                return (tally.into_inner(), failures);
            }
            let play = |history: &History| {
                let mut tally = tally.borrow_mut();
                runtime.block_on(stage.play(history, &mut tally))
            };
            if let Some(failure) = try_history(seed_here, shrinks.load(Ordering::Relaxed), play) {
                // The others are counted.
                shrinks.store(0, Ordering::Relaxed);
                failures.push(failure);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (its_tally, its_failures) = worker.join().unwrap();
            tally.add(&its_tally);
            failures.extend(its_failures);
        }
    });
    println!(
        "{count} histories on {backend:?} from seed {seed} in {:.0?}:\n{tally}",
        began.elapsed()
    );
    // The one that was made smaller, and else the first.
    failures.sort_by_key(|failure| (Reverse(failure.shrinks), failure.seed));
    if let Some(first) = failures.first() {
        panic!(
            "{} of {count} histories fail. CATALOG_SYNC_HISTORIES_SEED={} CATALOG_SYNC_HISTORIES=1 repeats this one: {}\n{:#?}",
            failures.len(),
            first.seed,
            first.why,
            first.history
        );
    }
    let pairs = trouble::pairs();
    if count >= ROUND * pairs.len() as u64 {
        let missed: Vec<String> = pairs
            .iter()
            .filter(|pair| tally.times(pair) == 0)
            .map(Pair::to_string)
            .collect();
        assert!(missed.is_empty(), "never happened: {missed:?}");
    }
}

/// Plays the history of a seed; one that fails is made as small as it can be made in so many tries.
fn try_history(
    seed: u64,
    shrinks: u32,
    play: impl Fn(&History) -> Result<(), String>,
) -> Option<Failure> {
    let mut random = Random(seed);
    let bytes: Vec<u8> = (0..4).flat_map(|_| random.next().to_le_bytes()).collect();
    let config = ProptestConfig {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: shrinks,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let pairs = trouble::pairs();
    let turn = usize::try_from(seed / ROUND).unwrap() % pairs.len();
    let begins_with = seed.is_multiple_of(ROUND).then(|| &pairs[turn]);
    let result = runner.run(&histories(begins_with), |history| {
        play(&history).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, history)) => Some(Failure {
            seed,
            shrinks,
            why: why.to_string(),
            history,
        }),
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
}
