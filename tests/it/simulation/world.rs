//! The world of the simulation: true time, five schedulers, and what befalls them.
//!
//! A scheduler does what `daemon::clockwork` and `daemon::dispatcher` do, with `now` from its own clock: it issues what is due,
//! looks appointments over (at its start, every so often, and when it finds its clock set back), claims, renews and commits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use catalog_sync::{
    catalog::Plan,
    clock::Instant,
    project::ProjectId,
    run::Run,
    schedule::Schedule,
    store::{self, Claim, Error, LastChance, Lease, Store},
};
use chrono::TimeDelta;
use tempfile::TempDir;

use super::slots::{SPREAD, Times, ZONE};
use crate::{
    random::Random,
    store::sample::{self, aftermath, key_of},
};

pub(super) const DAYS: u64 = 7;

/// How far two clocks are apart that nobody has set wrong.
pub(super) const SKEW: TimeDelta = TimeDelta::seconds(2);

pub(super) const LONGEST_STEP: TimeDelta = TimeDelta::hours(3);

const PROJECTS: usize = 1_000;
const SCHEDULERS: usize = 5;
const BATCH: u32 = 500;
const ROOM: usize = 60;
const LEASE: Duration = Duration::from_secs(30);
const HEARTBEAT: TimeDelta = TimeDelta::seconds(10);
const TRUST: TimeDelta = TimeDelta::seconds(27);
/// Between two ticks of a scheduler that finds nothing to do. A tick that is late does no harm, and the fewer, the sooner all is over.
const IDLE: i64 = 300_000;
const BUSY: i64 = 5_000;
const HOUR: i64 = 3_600_000;
/// Between two looks of a scheduler over all appointments. A daemon looks every hour, which here would take most of the time.
const LOOKED_OVER: i64 = 72 * HOUR;

/// A run, as it was committed.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) epoch: i64,
    pub(super) slot_at: Option<Instant>,
    /// In true time.
    pub(super) started_at: Instant,
    /// In true time.
    pub(super) ended_at: Instant,
    /// By the clock of who did it.
    pub(super) recorded_start: Instant,
}

/// What came of it.
pub(super) struct History {
    pub(super) start: Instant,
    pub(super) projects: BTreeMap<ProjectId, Times>,
    pub(super) runs: BTreeMap<ProjectId, Vec<Done>>,
    /// When somebody's clock was wrong.
    pub(super) wrong: Vec<(Instant, Instant)>,
    /// When nobody was up.
    pub(super) outage: (Instant, Instant),
    /// From when on how many are up.
    up: Vec<(Instant, usize)>,
    pub(super) claims: usize,
    pub(super) lost: usize,
    pub(super) fenced: usize,
    pub(super) crashes: usize,
    pub(super) pauses: usize,
}

impl History {
    pub(super) fn was_wrong(&self, from: Instant, to: Instant) -> bool {
        self.wrong
            .iter()
            .any(|wrong| wrong.0 < to && from < wrong.1)
    }

    /// When somebody has been up for so long since that instant. None if the story ends before.
    pub(super) fn up_after(&self, from: Instant, long: TimeDelta) -> Option<Instant> {
        let mut left = long;
        let end = self.start + TimeDelta::days(DAYS.try_into().unwrap());
        let ends = self.up.iter().skip(1).map(|next| next.0).chain([end]);
        for (&(begin, count), until) in self.up.iter().zip(ends) {
            let begin = begin.max(from);
            if count == 0 || until <= begin {
                continue;
            }
            if until - begin >= left {
                return Some(begin + left);
            }
            left -= until - begin;
        }
        None
    }
}

/// One scheduler.
struct Scheduler {
    store: Arc<dyn Store>,
    /// How far its clock is from the truth, in milliseconds.
    skew: i64,
    step: i64,
    is_up: bool,
    /// Counts its lives: what one has begun does not go on in the next.
    life: u32,
    paused_until: i64,
    looked_over_at: i64,
    /// Its clock's distance from the truth when it last looked.
    seen_offset: i64,
}

impl Scheduler {
    fn offset(&self) -> i64 {
        self.skew + self.step
    }
}

/// A run under way.
struct Underway {
    by: usize,
    life: u32,
    claim: Claim,
    started_at: i64,
    recorded_start: Instant,
}

/// Who had a project last, and until when that one trusted to have it, in true time.
struct Hold {
    epoch: i64,
    until: i64,
    /// Its clock was right.
    is_right: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick(usize, u32),
    Beat(usize),
    End(usize),
    Crash(usize, i64),
    Restart(usize),
    Pause(usize, i64),
    Step(usize, i64, i64),
    Right(usize, u32),
}

pub(super) struct World {
    schedule: Schedule,
    schedulers: Vec<Scheduler>,
    random: Random,
    events: BinaryHeap<Reverse<(i64, usize, Event)>>,
    /// Numbers events, so that those of one moment have an order.
    count: usize,
    underway: HashMap<usize, Underway>,
    holds: HashMap<ProjectId, Hold>,
    end: i64,
    history: History,
    _folder: TempDir,
}

fn instant(at: i64) -> Instant {
    Instant::from_timestamp_millis(at).unwrap()
}

impl World {
    pub(super) async fn new(start: Instant, seed: u64) -> Self {
        println!("simulation from {}: seed {seed}", start.date_naive());
        let shared_memory = Path::new("/dev/shm");
        let folder = if shared_memory.is_dir() {
            tempfile::tempdir_in(shared_memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let url = format!("sqlite:{}", folder.path().join("catalog.db").display());
        let mut random = Random(seed);
        let mut schedulers = Vec::new();
        for number in 0..SCHEDULERS {
            let options = store::Options {
                worker: format!("scheduler {number}"),
                max_connections: 1,
                ..store::Options::default()
            };
            let store = store::open(&url, &options).await.unwrap();
            store.migrate().await.unwrap();
            let half = SKEW.num_milliseconds() / 2;
            schedulers.push(Scheduler {
                store,
                skew: random.between(-half, half),
                step: 0,
                is_up: true,
                life: 0,
                paused_until: 0,
                looked_over_at: i64::MIN,
                seen_offset: 0,
            });
        }
        let projects = add(schedulers[0].store.as_ref(), start).await;
        let hours = |count| start + TimeDelta::hours(count);
        let mut world = Self {
            schedule: Schedule::new(&Times::TwiceADay.cron(), ZONE, SPREAD).unwrap(),
            schedulers,
            random,
            events: BinaryHeap::new(),
            count: 0,
            underway: HashMap::new(),
            holds: HashMap::new(),
            end: hours(24 * i64::try_from(DAYS).unwrap()).timestamp_millis(),
            history: History {
                start,
                runs: projects.keys().map(|id| (id.clone(), Vec::new())).collect(),
                projects,
                wrong: Vec::new(),
                // From the fifth day's morning to the sixth's noon.
                outage: (
                    hours(4 * 24 + 4),
                    hours(5 * 24 + 10) + TimeDelta::minutes(15),
                ),
                up: vec![(start, SCHEDULERS)],
                claims: 0,
                lost: 0,
                fenced: 0,
                crashes: 0,
                pauses: 0,
            },
            _folder: folder,
        };
        world.foresee();
        world
    }

    /// Sets what is to befall the schedulers.
    fn foresee(&mut self) {
        let start = self.history.start.timestamp_millis();
        let (out, back) = self.history.outage;
        let (out, back) = (out.timestamp_millis(), back.timestamp_millis());
        for it in 0..SCHEDULERS {
            let early = self.random.between(0, BUSY);
            self.at(start + early, Event::Tick(it, 0));
            self.at(out + early, Event::Crash(it, back + early - out - early));
        }
        let length = self.end - start;
        let calm = |at: i64, until: i64| until < out - 4 * HOUR || at > back + HOUR;
        for _ in 0..40 {
            let at = start + self.random.between(0, length);
            let which = self.random.below(SCHEDULERS);
            let minutes = self.random.between(1, 60);
            let long = minutes * 60_000;
            match self.random.below(5) {
                0 | 1 if calm(at, at + long) => self.at(at, Event::Crash(which, long)),
                2 | 3 => self.at(at, Event::Pause(which, long / 12)),
                _ => {}
            }
        }
        for _ in 0..12 {
            let at = start + self.random.between(0, length);
            let which = self.random.below(SCHEDULERS);
            let longest = LONGEST_STEP.num_milliseconds();
            let size = self.random.between(120_000, longest);
            let by = if self.random.below(3) == 0 {
                -size
            } else {
                size
            };
            let long = self.random.between(600_000, 2 * HOUR);
            if calm(at, at + long + longest) {
                self.at(at, Event::Step(which, by, long));
            }
        }
        // Half past two by night, in winter or in summer: many are under way, and some die then.
        for day in 0..i64::try_from(DAYS).unwrap() {
            let at =
                start + (24 * day + day % 2) * HOUR + 32 * 60_000 + self.random.between(0, 400_000);
            let which = self.random.below(SCHEDULERS);
            if calm(at, at) {
                self.at(at, Event::Crash(which, 600_000));
                self.at(at + 200_000, Event::Pause((which + 1) % SCHEDULERS, 90_000));
            }
        }
    }

    fn at(&mut self, at: i64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    pub(super) async fn run(mut self) -> History {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.end {
                break;
            }
            self.happen(at, event).await;
        }
        self.history
    }

    async fn happen(&mut self, at: i64, event: Event) {
        match event {
            Event::Tick(which, life) => self.tick(at, which, life).await,
            Event::Beat(run) => self.beat(at, run).await,
            Event::End(run) => self.end(at, run).await,
            Event::Crash(which, long) => self.crash(at, which, long),
            Event::Restart(which) => {
                let it = &mut self.schedulers[which];
                it.is_up = true;
                it.looked_over_at = i64::MIN;
                let life = it.life;
                self.note_up(at);
                self.at(at, Event::Tick(which, life));
            }
            Event::Pause(which, long) => {
                if self.schedulers[which].is_up && self.schedulers[which].paused_until <= at {
                    self.history.pauses += 1;
                    self.schedulers[which].paused_until = at + long;
                }
            }
            Event::Step(which, by, long) => {
                let it = &mut self.schedulers[which];
                if it.is_up && it.step == 0 {
                    it.step = by;
                    let life = it.life;
                    self.history.wrong.push((instant(at), instant(at + long)));
                    self.at(at + long, Event::Right(which, life));
                }
            }
            Event::Right(which, life) => {
                let it = &mut self.schedulers[which];
                if it.life == life {
                    it.step = 0;
                }
            }
        }
    }

    fn crash(&mut self, at: i64, which: usize, long: i64) {
        let it = &mut self.schedulers[which];
        if !it.is_up {
            return;
        }
        it.is_up = false;
        it.life += 1;
        // It comes back with its clock right.
        it.step = 0;
        it.paused_until = 0;
        self.history.crashes += 1;
        let mine: Vec<usize> = self
            .underway
            .iter()
            .filter(|(_, run)| run.by == which)
            .map(|(run, _)| *run)
            .collect();
        for run in mine {
            let run = self.underway.remove(&run).unwrap();
            self.no_longer_holds(&run.claim.lease, at);
        }
        self.note_up(at);
        self.at(at + long, Event::Restart(which));
    }

    fn note_up(&mut self, at: i64) {
        let count = self.schedulers.iter().filter(|it| it.is_up).count();
        self.history.up.push((instant(at), count));
    }

    /// Whether it can act now. What a paused one would do, it does when it goes on.
    fn can_act(&mut self, at: i64, which: usize, life: u32, event: Event) -> bool {
        let it = &self.schedulers[which];
        if !it.is_up || it.life != life {
            return false;
        }
        if it.paused_until > at {
            let later = it.paused_until;
            self.at(later, event);
            return false;
        }
        true
    }

    /// What its clock shows.
    fn shows(&self, at: i64, which: usize) -> Instant {
        instant(at + self.schedulers[which].offset())
    }

    async fn tick(&mut self, at: i64, which: usize, life: u32) {
        if !self.can_act(at, which, life, Event::Tick(which, life)) {
            return;
        }
        let now = self.shows(at, which);
        let store = Arc::clone(&self.schedulers[which].store);
        let it = &mut self.schedulers[which];
        let was_set_back = it.seen_offset - it.offset() > SKEW.num_milliseconds();
        it.seen_offset = it.offset();
        if was_set_back || at.saturating_sub(LOOKED_OVER) >= it.looked_over_at {
            it.looked_over_at = at;
            let mut after = None;
            loop {
                let looked = store.reschedule(&self.schedule, after.as_ref(), BATCH, now);
                after = looked.await.unwrap();
                if after.is_none() {
                    break;
                }
            }
        }
        let blocked_since = now - TimeDelta::hours(6);
        let mut worked = false;
        loop {
            let issued = store.issue_slots(&self.schedule, blocked_since, BATCH, now);
            let issued = issued.await.unwrap();
            worked |= issued.asked > 0;
            if issued.due < BATCH as usize {
                break;
            }
        }
        worked |= self.claim(at, which, &store).await;
        let idle = self.random.between(IDLE / 2, IDLE);
        let next = if worked { BUSY } else { idle };
        self.at(at + next, Event::Tick(which, life));
    }

    /// Claims what there is room for. Whether anything is under way.
    async fn claim(&mut self, at: i64, which: usize, store: &Arc<dyn Store>) -> bool {
        let now = self.shows(at, which);
        let sight = store.look(now).await.unwrap();
        let mine: Vec<&Underway> = self
            .underway
            .values()
            .filter(|run| run.by == which)
            .collect();
        let last_chance = if mine.iter().any(|run| run.claim.is_last_chance) {
            LastChance::None
        } else {
            LastChance::One
        };
        let room = ROOM - mine.len();
        if !sight.ready || room == 0 {
            return sight.ready || room < ROOM;
        }
        let room = u32::try_from(room).unwrap();
        let claimed = store.claim(room, last_chance, LEASE, now).await.unwrap();
        assert!(claimed.set_aside.is_empty(), "{:?}", claimed.set_aside);
        self.history.lost += claimed.lost.len();
        for claim in claimed.claims {
            self.history.claims += 1;
            self.takes_hold(&claim.lease, at, which);
            let life = self.schedulers[which].life;
            // Most are short; some outlast their lease, if it is not renewed.
            let long = match self.random.below(20) {
                0 => self.random.between(30_000, 120_000),
                _ => self.random.between(500, 9_000),
            };
            let run = self.count;
            self.at(at + long, Event::End(run));
            self.at(at + HEARTBEAT.num_milliseconds(), Event::Beat(run));
            let underway = Underway {
                by: which,
                life,
                claim,
                started_at: at,
                recorded_start: now,
            };
            self.underway.insert(run, underway);
        }
        true
    }

    /// Nobody else holds it, as far as right clocks go.
    fn takes_hold(&mut self, lease: &Lease, at: i64, which: usize) {
        let is_right = self.schedulers[which].step == 0;
        let before = self.holds.insert(
            lease.project.clone(),
            Hold {
                epoch: lease.epoch,
                until: at + TRUST.num_milliseconds(),
                is_right,
            },
        );
        if let Some(before) = before {
            assert!(before.epoch < lease.epoch, "{lease:?}");
            let apart = before.until <= at;
            assert!(
                apart || !(before.is_right && is_right),
                "{lease:?}: in two hands for {} ms",
                before.until - at
            );
        }
    }

    fn no_longer_holds(&mut self, lease: &Lease, at: i64) {
        let hold = self.holds.get_mut(&lease.project);
        if let Some(hold) = hold.filter(|hold| hold.epoch == lease.epoch) {
            hold.until = hold.until.min(at);
        }
    }

    async fn beat(&mut self, at: i64, run: usize) {
        let Some((which, life)) = self.underway.get(&run).map(|run| (run.by, run.life)) else {
            return;
        };
        if !self.can_act(at, which, life, Event::Beat(run)) {
            return;
        }
        let now = self.shows(at, which);
        let lease = self.underway[&run].claim.lease.clone();
        match self.schedulers[which].store.renew(&lease, LEASE, now).await {
            Ok(_) => {
                let is_right = self.schedulers[which].step == 0;
                let hold = self.holds.get_mut(&lease.project).unwrap();
                assert_eq!(hold.epoch, lease.epoch, "a stale lease was renewed");
                hold.until = at + TRUST.num_milliseconds();
                hold.is_right &= is_right;
                self.at(at + HEARTBEAT.num_milliseconds(), Event::Beat(run));
            }
            Err(Error::LeaseLost { .. }) => {
                self.history.fenced += 1;
                self.underway.remove(&run);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Commits, also where the lease may have gone: the store is what keeps it from harm.
    async fn end(&mut self, at: i64, run: usize) {
        let Some((which, life)) = self.underway.get(&run).map(|run| (run.by, run.life)) else {
            return;
        };
        if !self.can_act(at, which, life, Event::End(run)) {
            return;
        }
        let Underway {
            claim,
            started_at,
            recorded_start,
            ..
        } = self.underway.remove(&run).unwrap();
        let nothing = Plan::nothing();
        let slot_at = claim.request.as_ref().and_then(|request| request.slot_at);
        let record = Run {
            slot_at,
            started_at: recorded_start,
            finished_at: self.shows(at, which),
            ..sample::run(&nothing, 0)
        };
        let lease = &claim.lease;
        let store = &self.schedulers[which].store;
        match store.commit(lease, &nothing, &record, &aftermath()).await {
            Ok(_) => {
                assert_eq!(
                    self.holds[&lease.project].epoch, lease.epoch,
                    "a stale commit"
                );
                let runs = self.history.runs.get_mut(&lease.project).unwrap();
                runs.push(Done {
                    epoch: lease.epoch,
                    slot_at,
                    started_at: instant(started_at),
                    ended_at: instant(at),
                    recorded_start,
                });
                self.no_longer_holds(lease, at);
            }
            Err(Error::LeaseLost { .. }) => self.history.fenced += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Adds the projects: some have the schedule of all, others a cron of their own; some share a key.
async fn add(store: &dyn Store, start: Instant) -> BTreeMap<ProjectId, Times> {
    let mut projects = BTreeMap::new();
    for number in 0..PROJECTS {
        let times = match number % 50 {
            0 => Times::Hourly,
            1..=18 => Times::Daily(2, 30),
            19..=36 => Times::Daily(3, 0),
            _ => Times::TwiceADay,
        };
        let own = (times != Times::TwiceADay).then(|| times.cron().parse().unwrap());
        // Every tenth uses the key of the one before.
        let key = if number % 10 == 9 { number - 1 } else { number };
        let project = catalog_sync::project::Project {
            key_id: format!("KEY{key:07}"),
            cron: own,
            created_at: start,
            ..sample::project(&format!("p{number:04}"))
        };
        store
            .add_project(&project, &key_of(&project))
            .await
            .unwrap();
        projects.insert(project.id, times);
    }
    projects
}
