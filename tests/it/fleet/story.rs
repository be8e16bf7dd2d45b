//! What a fleet goes through.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::Context;
use catalog_sync::{
    clock::{self, Instant},
    simulator::{App, InAppPurchase},
};
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    task::block_in_place,
    time::{Instant as Moment, interval, timeout},
};

use super::{
    Size, checks,
    diary::{Diary, Outage, Stop},
    faults::{Fault, Kind, Plan},
    place::Place,
    tables::{Held, Tables},
    workers::Workers,
};
use crate::random::Random;

/// How often something may happen.
const TICK: Duration = Duration::from_millis(50);

/// Time for workers to come up, so that each fault can hit something.
const BEFORE_FAULTS: Duration = Duration::from_secs(3);

/// The pause between the two signals of somebody who does not wait.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How many projects are asked for as often as all the others together, so that requests come while runs are under way.
const HOT: usize = 5;

/// An answer that has not come by then is lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How long it took after the load..
pub(super) struct Aftermath {
    /// ..until all that was asked for was done..
    pub(super) answered_after: Duration,
    /// ..and until the broker was told of every change, and had nothing left.
    pub(super) told_after: Duration,
}

/// Load and faults; then quiet, and a look at what is left.
pub(super) async fn endure(mut place: Place, size: Size) {
    println!(
        "fleet: {} projects, {} workers, {:?}, lease {:?}, cron '{}', seed {}",
        size.projects, size.workers, size.load, size.lease, size.cron, size.seed
    );
    let mut load = Load {
        doors: Doors::open(&place).await,
        tables: place.tables().await,
        diary: Diary::begin(place.folder.path()),
        workers: Workers::start(&place, &size),
    };
    load.carry(&mut place, &size).await;

    // From here on upstream is quiet, and each project is asked for once more.
    for (project, _) in &place.projects {
        load.ask(project, Door::Rows).await;
    }
    let quiet = Moment::now();
    let Load {
        mut tables,
        mut diary,
        workers,
        ..
    } = load;
    diary.note("quiet", json!({}));
    let bound = 6 * size.lease
        + Duration::from_mins(1)
        + Duration::from_millis(200) * u32::try_from(size.projects).unwrap();
    let answered = async {
        let mut ticks = interval(Duration::from_millis(500));
        while !unanswered(&diary, &mut tables).await.is_empty() {
            ticks.tick().await;
            for project in tables.set_aside().await {
                diary.note("set_aside", json!({"project": project}));
                workers.resume(&project).await;
                diary.set_aside.push(project);
            }
        }
        let answered_after = quiet.elapsed();
        while tables.untold().await > 0 {
            ticks.tick().await;
        }
        // What a killed worker had taken and not acknowledged comes again.
        while let Some(broker) = &place.broker
            && broker.untaken().await > 0
        {
            ticks.tick().await;
        }
        Aftermath {
            answered_after,
            told_after: quiet.elapsed(),
        }
    };
    let Ok(aftermath) = timeout(bound, answered).await else {
        let mut tables = place.tables().await;
        let unanswered = unanswered(&diary, &mut tables).await;
        let untold = tables.untold().await;
        workers.stop().await;
        panic!(
            "after {bound:?} these are not answered: {unanswered:?}; and {untold} revisions are untold"
        );
    };
    let account = workers.stop().await;
    checks::check(&place, &size, &mut tables, &mut diary, &account, &aftermath).await;
}

/// The projects of which no run began after the last request.
pub(super) async fn unanswered(diary: &Diary, tables: &mut Tables) -> Vec<String> {
    let latest: HashMap<String, Instant> = tables.latest_starts().await.into_iter().collect();
    diary
        .asked
        .iter()
        .filter(|(project, asked)| latest.get(*project) < asked.iter().max())
        .map(|(project, _)| project.clone())
        .collect()
}

struct Load {
    doors: Doors,
    tables: Tables,
    diary: Diary,
    workers: Workers,
}

/// A fault that goes on.
struct Ongoing {
    fault: Fault,
    over_at: Moment,
    from: Instant,
    held: Vec<Held>,
    /// What locks the tables.
    lock: Option<Tables>,
}

impl Load {
    /// Everything here is decided by the seed, but for how long it takes.
    async fn carry(&mut self, place: &mut Place, size: &Size) {
        let mut random = Random(size.seed);
        let mut faults = Plan::new(size);
        let mut ongoing: Option<Ongoing> = None;
        let mut next_at = Moment::now() + BEFORE_FAULTS;
        let over_at = Moment::now() + size.load;
        let mut ticks = interval(TICK);
        while Moment::now() < over_at {
            ticks.tick().await;
            // Nobody can write to a file that is locked, nor we.
            let is_locked = ongoing.as_ref().is_some_and(|it| it.lock.is_some());
            if random.one_in(2) && !is_locked {
                for _ in 0..=random.below(1 + size.projects / 250) {
                    let among = if random.one_in(2) { HOT } else { size.projects };
                    let (project, _) = &place.projects[random.below(among.min(size.projects))];
                    let door = if random.one_in(2) {
                        Door::Rows
                    } else {
                        Door::Broker
                    };
                    self.ask(project, self.doors.open_one(door, ongoing.as_ref()))
                        .await;
                }
            }
            if random.one_in(4) {
                let (_, app) = &place.projects[random.below(size.projects)];
                let what = random.next();
                let gone = place
                    .simulator
                    .edit(|state| edit(state.app_mut(app).unwrap(), what));
                self.diary.taken_away.extend(gone);
                self.diary.edits += 1;
            }
            if let Some(fault) = ongoing.take_if(|fault| fault.over_at <= Moment::now()) {
                next_at = Moment::now() + fault.fault.rest;
                self.mend(place, fault).await;
                self.workers.measure();
            }
            if ongoing.is_none() && next_at <= Moment::now() {
                let fault = faults.next().unwrap();
                next_at = Moment::now() + fault.rest;
                ongoing = self.inflict(place, fault).await;
            }
        }
        if let Some(fault) = ongoing {
            self.mend(place, fault).await;
        }
    }

    /// Asks for a sync. What counts is when it was sent: what upstream was before must be seen.
    async fn ask(&mut self, project: &str, door: Door) {
        let sent_at = clock::now();
        let answer = if let (Some((context, subject)), Door::Broker) = (&self.doors.broker, door) {
            let body = json!({"version": 1, "project": project}).to_string();
            let asking = async {
                let sent = context.publish(subject.clone(), body.into()).await?;
                sent.await.map(drop)
            };
            let asked = timeout(ANSWERED_WITHIN, asking).await;
            asked.map(|it| it.map_err(|error| error.to_string()))
        } else {
            let asked = timeout(ANSWERED_WITHIN, self.tables.ask(project)).await;
            asked.map(|it| it.map_err(|error| error.to_string()))
        };
        let is_accepted = matches!(answer, Ok(Ok(())));
        self.diary.asked(project, door.name(), sent_at, is_accepted);
    }

    /// Begins a fault, unless a project would rightly be set aside for it. Gives what goes on.
    async fn inflict(&mut self, place: &mut Place, fault: Fault) -> Option<Ongoing> {
        let Fault {
            kind,
            worker,
            lasts,
            ..
        } = fault;
        let which = kind.is_of_a_worker().then_some(worker);
        let Some(held) = self.workers.in_hand(which, &mut self.tables).await else {
            self.diary.note("spared", json!({"fault": kind.name()}));
            return None;
        };
        let from = clock::now();
        let of = json!({"worker": which, "lasts_ms": u64::try_from(lasts.as_millis()).unwrap()});
        self.diary.note(kind.name(), of);
        // Asked for in the very moment in which the server dies: the answer may or may not come.
        let (doomed, _) = place.projects[0].clone();
        let mut lock = None;
        match kind {
            Kind::Kill => {
                let kill = self.workers.kill(worker, &mut self.tables).await;
                self.diary.kills.extend(kill);
                return None;
            }
            Kind::Terminated | Kind::TerminatedTwice => {
                let is_twice = kind == Kind::TerminatedTwice;
                let again_after = is_twice.then_some(AGAIN_AFTER);
                let ended = self
                    .workers
                    .terminate(worker, again_after, &mut self.tables)
                    .await;
                if let Some((took, left)) = ended {
                    self.diary.endings.push((took, is_twice));
                    self.diary
                        .kills
                        .extend((!left.held.is_empty()).then_some(left));
                }
                return None;
            }
            Kind::Locked => {
                let mut tables = place.tables().await;
                tables.lock().await;
                lock = Some(tables);
            }
            Kind::Stop => self.workers.signal(worker, Signal::STOP),
            Kind::SessionsEnded => {
                let ended = self.tables.end_sessions().await;
                self.diary.note("sessions", json!({"ended": ended}));
            }
            Kind::DatabaseKilled => {
                let server = &mut place.database.as_mut().unwrap().server;
                let dying = async { block_in_place(|| server.kill()) };
                tokio::join!(self.ask(&doomed, Door::Rows), dying);
            }
            Kind::BrokerKilled => {
                let server = &mut place.broker.as_mut().unwrap().line.server;
                let dying = async { block_in_place(|| server.kill()) };
                tokio::join!(self.ask(&doomed, Door::Broker), dying);
            }
            Kind::DatabaseCut => place.database.as_ref().unwrap().proxy.cut(),
            Kind::DatabaseSilent => place.database.as_ref().unwrap().proxy.block(),
            Kind::BrokerCut => place.broker.as_ref().unwrap().line.proxy.cut(),
            Kind::BrokerSilent => place.broker.as_ref().unwrap().line.proxy.block(),
        }
        Some(Ongoing {
            fault,
            over_at: Moment::now() + lasts,
            from,
            held,
            lock,
        })
    }

    /// Ends a fault.
    async fn mend(&mut self, place: &mut Place, ongoing: Ongoing) {
        let Ongoing {
            fault,
            from,
            held,
            lock,
            ..
        } = ongoing;
        if let Some(mut lock) = lock {
            lock.unlock().await;
        }
        match fault.kind {
            Kind::Stop => self.workers.signal(fault.worker, Signal::CONT),
            Kind::DatabaseKilled => {
                let server = &mut place.database.as_mut().unwrap().server;
                block_in_place(|| server.restart());
                self.tables = place.tables().await;
            }
            Kind::BrokerKilled => {
                let server = &mut place.broker.as_mut().unwrap().line.server;
                block_in_place(|| server.restart());
                self.doors = Doors::open(place).await;
            }
            Kind::DatabaseSilent => place.database.as_ref().unwrap().proxy.open(),
            Kind::BrokerSilent => place.broker.as_ref().unwrap().line.proxy.open(),
            Kind::Kill
            | Kind::Terminated
            | Kind::TerminatedTwice
            | Kind::Locked
            | Kind::SessionsEnded
            | Kind::DatabaseCut
            | Kind::BrokerCut => {}
        }
        let until = clock::now();
        self.diary.note("over", json!({"fault": fault.kind.name()}));
        if fault.kind == Kind::Stop {
            self.diary.stops.push(Stop { from, until, held });
        } else {
            let what = fault.kind.name();
            self.diary.outages.push(Outage { what, from, until });
        }
    }
}

/// One small edit: a name, a new product, or one that goes again. Gives the id of what went.
fn edit(app: &mut App, what: u64) -> Option<String> {
    let purchases = &mut app.in_app_purchases;
    match what % 4 {
        0 | 1 => purchases[0].name = format!("Name {what}"),
        2 => {
            let (id, name) = (what.to_string(), format!("New {what}"));
            let product_id = format!("{}.{what}", app.bundle_id);
            purchases.push(InAppPurchase::new(id, product_id, name));
        }
        _ if purchases.len() > 4 => return Some(purchases.remove(4).id),
        _ => app.subscription_groups[0].reference_name = format!("Group {what}"),
    }
    None
}

/// How a request comes in.
#[derive(Clone, Copy)]
enum Door {
    Rows,
    Broker,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Broker => "broker",
        }
    }
}

/// The broker's door; that of the tables is always there.
struct Doors {
    broker: Option<(Context, String)>,
}

impl Doors {
    async fn open(place: &Place) -> Self {
        let broker = match &place.broker {
            None => None,
            Some(broker) => Some((broker.context().await, broker.requests())),
        };
        Self { broker }
    }

    /// That door, or the other one while its server is down.
    fn open_one(&self, door: Door, ongoing: Option<&Ongoing>) -> Door {
        match ongoing.map(|it| it.fault.kind) {
            _ if self.broker.is_none() => Door::Rows,
            Some(Kind::DatabaseKilled) => Door::Broker,
            Some(Kind::BrokerKilled) => Door::Rows,
            _ => door,
        }
    }
}
