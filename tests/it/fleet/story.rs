//! What a fleet goes through.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::Context;
use catalog_sync::{
    clock::{self, Instant},
    simulator::{App, InAppPurchase},
};
use tokio::time::{Instant as Moment, interval, timeout};

use super::{
    Size,
    broker::Broker,
    checks,
    place::Place,
    tables::Tables,
    workers::{Kill, Workers},
};
use crate::random::Random;

/// How often something may happen.
const TICK: Duration = Duration::from_millis(50);

/// How many projects are asked for as often as all the others together, so that requests come while runs are under way.
const HOT: usize = 5;

/// What happened.
#[derive(Default)]
pub(super) struct Record {
    /// When each request was sent that was then accepted, by project.
    pub(super) asked: HashMap<String, Vec<Instant>>,
    pub(super) kills: Vec<Kill>,
    pub(super) edits: usize,
    /// How long it took, after the load, until all that was asked for was done..
    pub(super) answered_after: Duration,
    /// ..and until the broker was told of every change, and had nothing left.
    pub(super) told_after: Duration,
}

/// Load and kills; then quiet, and a look at what is left.
pub(super) async fn endure(place: Place, size: Size) {
    println!(
        "fleet: {} projects, {} workers, {:?}, lease {:?}, cron '{}', seed {}",
        size.projects, size.workers, size.load, size.lease, size.cron, size.seed
    );
    let mut door = Door::open(&place).await;
    let mut tables = place.tables().await;
    let mut record = Record::default();
    let mut workers = Workers::start(&place, &size);
    load(
        &place,
        &size,
        &mut door,
        &mut tables,
        &mut workers,
        &mut record,
    )
    .await;

    // From here on upstream is quiet, and each project is asked for once more.
    for (project, _) in &place.projects {
        door.ask(project, &mut record).await;
    }
    let quiet = Moment::now();
    let bound = 6 * size.lease
        + Duration::from_mins(1)
        + Duration::from_millis(200) * u32::try_from(size.projects).unwrap();
    let answered = async {
        let mut ticks = interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            if unanswered(&record, &mut tables).await.is_empty() {
                record.answered_after = quiet.elapsed();
                break;
            }
        }
        while tables.untold().await > 0 {
            ticks.tick().await;
        }
        // What a killed worker had taken and not acknowledged comes again.
        while let Some(broker) = &place.broker
            && broker.untaken().await > 0
        {
            ticks.tick().await;
        }
        record.told_after = quiet.elapsed();
    };
    if timeout(bound, answered).await.is_err() {
        let mut tables = place.tables().await;
        let unanswered = unanswered(&record, &mut tables).await;
        let untold = tables.untold().await;
        workers.stop().await;
        panic!(
            "after {bound:?} these are not answered: {unanswered:?}; and {untold} revisions are untold"
        );
    }
    let events = workers.stop().await;
    checks::check(&place, &size, &mut tables, &record, &events).await;
}

/// The projects of which no run began after the last request.
async fn unanswered(record: &Record, tables: &mut Tables) -> Vec<String> {
    let latest: HashMap<String, Instant> = tables.latest_starts().await.into_iter().collect();
    record
        .asked
        .iter()
        .filter(|(project, asked)| latest.get(*project) < asked.iter().max())
        .map(|(project, _)| project.clone())
        .collect()
}

/// Everything here is decided by the seed, but for how long it takes.
async fn load(
    place: &Place,
    size: &Size,
    door: &mut Door<'_>,
    tables: &mut Tables,
    workers: &mut Workers,
    record: &mut Record,
) {
    let mut random = Random(size.seed);
    let ticks = size.load.as_millis() / TICK.as_millis();
    let mut interval = interval(TICK);
    // Time for workers to come up, so that each kill can hit something.
    let mut next_kill = 60;
    for tick in 0..ticks {
        interval.tick().await;
        if random.one_in(2) {
            for _ in 0..=random.below(1 + size.projects / 250) {
                let among = if random.one_in(2) { HOT } else { size.projects };
                let (project, _) = &place.projects[random.below(among.min(size.projects))];
                door.ask(project, record).await;
            }
        }
        if random.one_in(4) {
            let (_, app) = &place.projects[random.below(size.projects)];
            let what = random.next();
            place
                .simulator
                .edit(|state| edit(state.app_mut(app).unwrap(), what));
            record.edits += 1;
        }
        if tick >= next_kill {
            next_kill = tick + 30 + u128::from(random.next() % 70);
            let which = random.below(workers.count());
            record.kills.extend(workers.kill(which, tables).await);
        }
    }
}

/// One small edit: a name, a new product, or one that goes again.
fn edit(app: &mut App, what: u64) {
    let purchases = &mut app.in_app_purchases;
    match what % 4 {
        0 | 1 => purchases[0].name = format!("Name {what}"),
        2 => {
            let (id, name) = (what.to_string(), format!("New {what}"));
            let product_id = format!("{}.{what}", app.bundle_id);
            purchases.push(InAppPurchase::new(id, product_id, name));
        }
        _ if purchases.len() > 4 => drop(purchases.remove(4)),
        _ => app.subscription_groups[0].reference_name = format!("Group {what}"),
    }
}

/// How requests come in.
enum Door<'a> {
    Rows(Tables),
    Broker(&'a Broker, Context),
}

impl<'a> Door<'a> {
    async fn open(place: &'a Place) -> Self {
        match &place.broker {
            None => Self::Rows(place.tables().await),
            Some(broker) => Self::Broker(broker, broker.context().await),
        }
    }

    /// Asks for a sync, and notes it once that is accepted. What counts is when it was sent: what upstream was before must be seen.
    async fn ask(&mut self, project: &str, record: &mut Record) {
        let sent_at = clock::now();
        match self {
            Self::Rows(tables) => tables.ask(project).await,
            Self::Broker(broker, context) => broker.ask(context, project).await,
        }
        record
            .asked
            .entry(project.to_owned())
            .or_default()
            .push(sent_at);
    }
}
