//! One story: workers over one database and one App Store Connect, what befalls them, and the quiet afterwards.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use catalog_sync::{
    asc::Meter,
    catalog::{Limits, OwnLimits},
    clock::Instant,
    daemon::Settings,
    project::{self, Project, ProjectId},
    run::Trigger,
    schedule::Schedule,
    simulator::Simulator,
    store::{self, Ask},
};
use chrono::{TimeDelta, Timelike as _};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    faulty_store::wait_for,
    life::{Alive, Halt, Place},
    network::{HOME, Network},
    plot::{self, BUDGET, Past, app_id, key_id},
    template::Template,
    world::{Inner, Rates, World},
};
use crate::{house::handed_over, random::Random, store::raw::Raw};

/// Slots of the schedule come at these minutes; in the end there is another.
const SCHEDULE: &str = "0,20,40 * * * *";
const ANOTHER: &str = "*/5 * * * *";

/// Within this time all is done once nothing goes wrong any more: a wait that Apple asked for and the budget's hour included.
const QUIET: TimeDelta = TimeDelta::hours(3);

/// Within this time after a slot it has its run: a worker looks every minute and a half, and projects with a key wait for each other.
const SLOT_TAKES: TimeDelta = TimeDelta::minutes(4);

/// A worker's place: who works there, or since when nobody does.
enum Seat {
    Taken {
        worker: Box<Alive>,
        asleep: Option<Instant>,
    },
    Free {
        until: Instant,
    },
}

pub(super) struct Story {
    pub(super) place: Place,
    settings: watch::Sender<Settings>,
    seats: Vec<Seat>,
    lives: usize,
    now: Instant,
    pub(super) projects: Vec<ProjectId>,
    pub(super) team_of: Vec<usize>,
    pub(super) past: Past,
    swapped: Option<(usize, usize, bool)>,
    /// What others had spent of keys' budgets before it began.
    pub(super) spent: BTreeMap<String, usize>,
    url: String,
    _folder: TempDir,
}

fn settings(cron: &str) -> Settings {
    Settings {
        schedule: Schedule::new(cron, "UTC", Duration::from_mins(1)).unwrap(),
        blocked_every: Duration::from_mins(30),
        concurrency: 3,
        limits: Limits::default(),
        retention: store::Retention::default(),
        poll: Duration::from_secs(40),
    }
}

impl Story {
    pub(super) fn new(template: &Template, seed: u64) -> Self {
        let mut random = Random(seed);
        let start: Instant = "2027-03-01T08:10:00Z".parse().unwrap();
        let one_of = |random: &mut Random, choices: &[usize]| choices[random.below(choices.len())];
        let rates = Rates {
            refused: one_of(&mut random, &[0, 15, 60]),
            unknown: one_of(&mut random, &[0, 20, 60]),
            crash: one_of(&mut random, &[0, 8, 25]),
            stall: one_of(&mut random, &[0, 4, 12]),
            unconnected: one_of(&mut random, &[0, 20, 80]),
        };
        let projects = 1 + random.below(6);
        let has_budget = random.below(8) == 0;
        let (state, team_of) = plot::state(&mut random, projects, has_budget);
        let world = Arc::new(World::new(start, random.next(), rates));
        let (folder, path) = template.copy();
        let url = format!("sqlite:{}", path.display());
        let options = store::Options {
            worker: "story".to_owned(),
            max_connections: 1,
            ..store::Options::default()
        };
        let real = wait_for(store::open(&url, &options)).unwrap();
        let ids: Vec<ProjectId> = (0..projects)
            .map(|it| format!("p{it}").parse().unwrap())
            .collect();
        for (number, id) in ids.iter().enumerate() {
            let credential = handed_over(&state, &key_id(team_of[number]));
            let project = Project {
                id: id.clone(),
                app: project::App {
                    id: app_id(number),
                    bundle_id: format!("com.example.app{number}"),
                    name: "Example".to_owned(),
                },
                key_id: credential.key_id.clone(),
                issuer_id: credential.issuer_id.clone(),
                cron: None,
                guard: OwnLimits::default(),
                paused_at: None,
                created_at: start,
            };
            let key = template.vault.seal(id, &credential).unwrap();
            wait_for(real.add_project(&project, &key)).unwrap();
        }
        let simulator = Simulator::in_process(state, HOME).unwrap();
        simulator.set_clock(start);
        let mut spent = BTreeMap::new();
        if has_budget {
            let left = 30 + u32::try_from(random.below(60)).unwrap();
            simulator.spend_budget(&key_id(0), BUDGET - left);
            world.lock().tally.count("budget nearly spent");
            spent.insert(key_id(0), usize::try_from(BUDGET - left).unwrap());
        }
        let network = Arc::new(Network {
            simulator,
            world: Arc::clone(&world),
        });
        let (settings, receiver) = watch::channel(settings(SCHEDULE));
        let place = Place {
            world,
            network,
            vault: Arc::clone(&template.vault),
            real,
            settings: receiver,
        };
        let workers = 1 + random.below(3);
        Self {
            place,
            settings,
            seats: (0..workers).map(|_| Seat::Free { until: start }).collect(),
            lives: 0,
            now: start,
            projects: ids,
            team_of,
            past: Past::default(),
            swapped: None,
            spent,
            url,
            _folder: folder,
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.place.world.lock()
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Things go wrong for a while.
    pub(super) fn trouble(&mut self) {
        let minutes = self.inner().random.between(4, 16);
        let end = self.now + TimeDelta::minutes(minutes);
        while self.now < end {
            let wait = self.inner().random.between(1_000, 45_000);
            self.pass(self.now + TimeDelta::milliseconds(wait));
            self.happen();
        }
    }

    fn happen(&mut self) {
        let seats = self.seats.len();
        let (what, which, seat) = {
            let mut inner = self.inner();
            let projects = self.projects.len();
            (
                inner.random.below(20),
                inner.random.below(projects),
                inner.random.below(seats),
            )
        };
        match what {
            0..=4 => self.ask(which),
            5..=10 => self.edit(which),
            11..=14 => {
                let mut inner = self.inner();
                let (name, fault) = plot::fault(&mut inner.random);
                inner.tally.count(name);
                inner.tell(self.now, "upstream", &format!("{name}: {fault:?}"));
                drop(inner);
                self.place.network.simulator.inject(fault);
            }
            15 => {
                self.inner().tally.count("crash");
                self.bury(seat);
            }
            16 => {
                let mut inner = self.inner();
                inner.tally.count("stall");
                let ms = inner.random.between(3_000, 60_000);
                drop(inner);
                self.put_to_sleep(seat, ms);
            }
            17 => self.set_clock(seat),
            18 => self.place.network.simulator.clear_faults(),
            _ => self.swap(which),
        }
    }

    fn ask(&mut self, which: usize) {
        let id = self.projects[which].clone();
        let ask = Ask {
            project: id.clone(),
            reason: None,
        };
        wait_for(self.place.real.ask(&[ask], self.now)).unwrap();
        let mut inner = self.inner();
        inner.tell(self.now, "host", &format!("asks for {id}"));
        inner.asked(&id);
    }

    fn edit(&mut self, which: usize) {
        let (past, id) = (&mut self.past, app_id(which));
        let mut inner = self.place.world.lock();
        let what = self
            .place
            .network
            .simulator
            .edit(|state| past.edit(state.app_mut(&id).unwrap(), &mut inner.random));
        inner.tally.count(what);
        inner.tell(self.now, "customer", &format!("{id}: {what}"));
    }

    fn set_clock(&mut self, seat: usize) {
        let by = self.inner().random.between(-900_000, 900_000);
        if let Seat::Taken { worker, .. } = &mut self.seats[seat] {
            worker.skew = TimeDelta::milliseconds(by);
            let mut inner = self.place.world.lock();
            inner.tally.count(if by < 0 {
                "clock set back"
            } else {
                "clock set forward"
            });
            inner.tell(
                self.now,
                &worker.life.name,
                &format!("its clock is {by} ms ahead"),
            );
        }
    }

    fn put_to_sleep(&mut self, seat: usize, ms: i64) {
        if let Seat::Taken { asleep, worker } = &mut self.seats[seat] {
            let until = self.now + TimeDelta::milliseconds(ms);
            *asleep = Some(until);
            let told = format!("stands still for {ms} ms");
            self.place
                .world
                .lock()
                .tell(self.now, &worker.life.name, &told);
        }
    }

    fn bury(&mut self, seat: usize) {
        let ms = self.inner().random.between(500, 60_000);
        let until = self.now + TimeDelta::milliseconds(ms);
        if let Seat::Taken { worker, .. } = &self.seats[seat] {
            self.inner().tell(self.now, &worker.life.name, "dies");
            self.seats[seat] = Seat::Free { until };
        }
    }

    /// Somebody who can write the database puts one project's key into the row of another, and the other's in its place.
    fn swap(&mut self, which: usize) {
        let other = (0..self.projects.len()).find(|&it| self.team_of[it] != self.team_of[which]);
        let (Some(other), None) = (other, self.swapped) else {
            return;
        };
        let mut inner = self.place.world.lock();
        let whole = inner.random.below(2) == 0;
        inner.tally.count(if whole {
            "keys swapped"
        } else {
            "sealed keys swapped"
        });
        inner.tell(
            self.now,
            "intruder",
            &format!("swaps keys of p{which} and p{other}, {whole}"),
        );
        let from = inner.moment();
        for it in [which, other] {
            inner.work(&self.projects[it]).swapped = Some((from, u64::MAX));
        }
        drop(inner);
        self.swapped = Some((which, other, whole));
        self.exchange(which, other, whole);
    }

    fn exchange(&self, one: usize, other: usize, whole: bool) {
        let columns: &[&str] = if whole {
            &["key_id", "issuer_id", "sealed"]
        } else {
            &["sealed"]
        };
        let sets: Vec<String> = columns
            .iter()
            .map(|it| {
                format!("{it} = (select o.{it} from o where o.project_id <> api_keys.project_id)")
            })
            .collect();
        let statement = format!(
            "create temp table o as select * from api_keys where project_id in ('p{one}', 'p{other}');
             update api_keys set {} where project_id in ('p{one}', 'p{other}')",
            sets.join(", ")
        );
        wait_for(async { Raw::connect(&self.url).await.run(&statement).await });
    }

    /// Nothing goes wrong any more, and everything is asked for once more. Says whether it was done in time.
    pub(super) fn quiet(&mut self) -> bool {
        self.place.network.simulator.clear_faults();
        self.place.network.simulator.forget_budget(None);
        self.inner().rates = Rates::default();
        if let Some((one, other, whole)) = self.swapped.take() {
            self.exchange(one, other, whole);
            let mut inner = self.place.world.lock();
            let until = inner.moment();
            for it in [one, other] {
                inner.work(&self.projects[it]).swapped.as_mut().unwrap().1 = until;
            }
        }
        for seat in &mut self.seats {
            if let Seat::Taken { worker, .. } = seat {
                worker.skew = TimeDelta::zero();
            }
        }
        self.inner()
            .tell(self.now, "quiet", "from here on nothing goes wrong");
        for which in 0..self.projects.len() {
            self.ask(which);
        }
        let end = self.now + QUIET;
        while self.now < end {
            self.pass(self.now + TimeDelta::seconds(10));
            self.take_up_again();
            let inner = self.inner();
            let mut works = inner.works.values();
            if works.all(|work| {
                work.runs
                    .last()
                    .is_some_and(|run| Some(&run.claimed) > work.asked.last())
            }) {
                return true;
            }
        }
        false
    }

    /// Somebody sees what was set aside, and takes it up again.
    fn take_up_again(&mut self) {
        for status in wait_for(self.place.real.read_statuses()).unwrap() {
            if status.set_aside_at.is_some() {
                let id = status.project.id;
                wait_for(self.place.real.resume(&id, self.now)).unwrap();
                self.inner()
                    .tell(self.now, "operator", &format!("resumes {id}"));
            }
        }
    }

    /// The schedule becomes another, and is kept at once: each project has a run for a slot of its own. Says which have none.
    pub(super) fn another_schedule(&mut self) -> Vec<ProjectId> {
        while self.now.minute() % 20 != 6 {
            self.pass(self.now + TimeDelta::seconds(20));
        }
        let changed = self.now;
        self.inner()
            .tell(changed, "quiet", "the schedule becomes another");
        self.settings.send_replace(settings(ANOTHER));
        self.pass(changed + TimeDelta::minutes(5) + SLOT_TAKES);
        let inner = self.inner();
        let has_slot = |id: &&ProjectId| {
            let runs = inner.works.get(*id).map_or(&[][..], |work| &work.runs);
            !runs.iter().any(|run| run.slot_at > Some(changed))
        };
        self.projects.iter().filter(has_slot).cloned().collect()
    }

    /// All are told to stop. Says who does not.
    pub(super) fn stop(&mut self) -> Vec<String> {
        for seat in &mut self.seats {
            if let Seat::Taken { worker, .. } = seat {
                worker.engine.stop.cancel();
            }
        }
        // Whoever stands still hears of it later.
        let until = self.now + TimeDelta::minutes(3);
        self.now = until;
        let mut late = Vec::new();
        for seat in &mut self.seats {
            if let Seat::Taken { worker, asleep } = seat {
                if let Some(asleep) = asleep.take() {
                    worker.wake(asleep);
                }
                if !worker.ends_by(until) {
                    late.push(worker.life.name.clone());
                }
            }
        }
        self.seats.clear();
        late
    }

    /// Somebody looks at each project, and lets go what is held as it is shown.
    pub(super) fn approve(&mut self) -> Result<(), String> {
        let mut operator = Alive::born("operator", self.now, TimeDelta::zero(), &self.place, true);
        for id in &self.projects {
            let mut held = wait_for(self.place.real.load_state(id)).unwrap().hold;
            for _ in 0..3 {
                let Some(shown) = held.take() else { break };
                self.place.world.lock().tally.count("hold approved");
                let engine = operator.engine.clone();
                let (id, meter) = (id.clone(), Arc::new(Meter::default()));
                let ran = operator.within(async move {
                    engine
                        .run(&id, Trigger::Command, Some(&shown.digest), &meter)
                        .await
                });
                held = ran.map_err(|error| format!("no run: {error}"))?.hold;
            }
            if let Some(hold) = held {
                return Err(format!("{id}: {} is still held", hold.digest));
            }
        }
        Ok(())
    }

    /// Time passes, for each worker in turn and a little at a time.
    fn pass(&mut self, end: Instant) {
        while self.now < end {
            let step = self.inner().random.between(50, 1_500);
            self.now = end.min(self.now + TimeDelta::milliseconds(step));
            for seat in 0..self.seats.len() {
                self.turn(seat);
            }
        }
    }

    fn turn(&mut self, seat: usize) {
        let now = self.now;
        let halt = match &mut self.seats[seat] {
            Seat::Free { until } if *until <= now => {
                self.lives += 1;
                let skew = self.place.world.lock().random.between(-1_000, 1_000);
                let skew = TimeDelta::milliseconds(skew);
                let name = format!("w{seat}.{}", self.lives);
                let worker = Box::new(Alive::born(&name, now, skew, &self.place, false));
                self.seats[seat] = Seat::Taken {
                    worker,
                    asleep: None,
                };
                None
            }
            Seat::Free { .. } => None,
            Seat::Taken {
                asleep: Some(until),
                ..
            } if *until > now => None,
            Seat::Taken { worker, asleep } => {
                if let Some(until) = asleep.take() {
                    worker.wake(until);
                }
                let halt = worker.live(now);
                if let Some(ended) = worker.ended() {
                    let name = &worker.life.name;
                    let told = format!("the daemon of {name} ended by itself: {ended:?}");
                    self.place.world.lock().wrong(told);
                }
                halt
            }
        };
        match halt {
            Some(Halt::Crash) => self.bury(seat),
            Some(Halt::Stall(ms)) => self.put_to_sleep(seat, ms),
            None => {}
        }
    }
}
