//! I8: a tenant that fails, hangs or is throttled holds nobody else up.

use std::{collections::BTreeSet, time::Duration};

use catalog_sync::{
    clock::{self, Instant},
    simulator::{Fault, FaultKind},
};
use tokio::time::interval;

use super::{Size, checks::spread, place::Place, tables::Tables, workers::Workers};
use crate::random::Random;

const TICK: Duration = Duration::from_millis(50);

/// One key of so many is bad.
const BAD_OF: usize = 4;

/// The healthy wait no longer than this beyond what they wait without bad ones, however busy the machine is.
const HELD_UP: Duration = Duration::from_secs(5);

/// Half of the time without bad tenants, half with.
pub(super) async fn endure(size: &Size) {
    println!(
        "neighbours: {} projects, {} workers, {:?} each, seed {}",
        size.projects, size.workers, size.load, size.seed
    );
    let place = Place::with_sqlite(size).await;
    let mut tables = place.tables().await;
    let mut random = Random(size.seed);
    let workers = Workers::start(&place, size);
    let keys: Vec<String> = place
        .simulator
        .state()
        .teams
        .iter()
        .map(|team| team.keys[0].key_id.clone())
        .collect();
    let bad: Vec<&String> = keys.iter().skip(1).step_by(BAD_OF).collect();
    let healthy: BTreeSet<String> = place
        .keys()
        .into_iter()
        .filter(|(_, key)| !bad.contains(&key))
        .map(|(project, _)| project)
        .collect();

    // Each has its first run, so that all that follows is the same for all.
    ask(&place, &mut tables, &mut random, size.load / 4).await;
    let alone = ask(&place, &mut tables, &mut random, size.load).await;
    for (number, key) in bad.iter().enumerate() {
        let kind = match number % 4 {
            0 => FaultKind::Hang,
            1 => FaultKind::RateLimited {
                retry_after: Some("30".to_owned()),
            },
            2 => FaultKind::Status {
                status: 500,
                code: None,
                retry_after: None,
                html: false,
                empty: false,
            },
            _ => FaultKind::Unauthorized,
        };
        place
            .simulator
            .inject(Fault::new("", kind).of_key(key.as_str()));
    }
    let beside = ask(&place, &mut tables, &mut random, size.load).await;
    until_answered(&healthy, &beside, &mut tables).await;
    workers.stop().await;

    let runs = tables.runs().await;
    let waits = |asked: &[(String, Instant)]| -> Vec<Duration> {
        let healthy = asked
            .iter()
            .filter(|(project, _)| healthy.contains(project));
        let mut waits: Vec<Duration> = healthy
            .map(|(project, sent_at)| {
                let of = runs.iter().filter(|run| run.project_id == *project);
                let starts = of.map(|run| run.started_at).filter(|at| at >= sent_at);
                (starts.min().unwrap() - *sent_at).to_std().unwrap()
            })
            .collect();
        waits.sort();
        waits
    };
    let (alone, beside) = (waits(&alone), waits(&beside));
    let p99 = |waits: &[Duration]| waits[waits.len() * 99 / 100];
    let failed = runs.iter().filter(|run| run.outcome != "succeeded").count();
    println!("  bad keys                 {} of {}", bad.len(), keys.len());
    println!("  runs that failed         {failed}");
    println!(
        "  healthy wait alone       {}, p99 {:.1?} of {}",
        spread(&alone),
        p99(&alone),
        alone.len()
    );
    println!(
        "  healthy wait beside      {}, p99 {:.1?} of {}",
        spread(&beside),
        p99(&beside),
        beside.len()
    );
    assert!(failed > 0, "nobody was bad");
    assert!(p99(&beside) <= p99(&alone) + HELD_UP);
}

/// Asks for one project after the other for so long, and gives who was asked for and when.
async fn ask(
    place: &Place,
    tables: &mut Tables,
    random: &mut Random,
    lasts: Duration,
) -> Vec<(String, Instant)> {
    let mut asked = Vec::new();
    let mut ticks = interval(TICK);
    for _ in 0..lasts.as_millis() / TICK.as_millis() {
        ticks.tick().await;
        let (project, _) = &place.projects[random.below(place.projects.len())];
        let sent_at = clock::now();
        tables.ask(project).await.unwrap();
        asked.push((project.clone(), sent_at));
    }
    asked
}

/// Waits until each healthy project has had a run since it was last asked for.
async fn until_answered(
    healthy: &BTreeSet<String>,
    asked: &[(String, Instant)],
    tables: &mut Tables,
) {
    let mut ticks = interval(10 * TICK);
    let answered = async {
        loop {
            ticks.tick().await;
            let latest = tables.latest_starts().await;
            let is_answered = |(project, sent_at): &(String, Instant)| {
                let start = latest.iter().find(|(started, _)| started == project);
                !healthy.contains(project) || start.is_some_and(|(_, at)| at >= sent_at)
            };
            if asked.iter().all(is_answered) {
                return;
            }
        }
    };
    let bound = Duration::from_mins(2);
    tokio::time::timeout(bound, answered)
        .await
        .expect("the healthy are held up");
}
