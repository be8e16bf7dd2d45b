//! Where histories are played: one simulator, engine and database, with a new project, key and app for each history.

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use catalog_sync::{
    asc::{Client, Meter, Options, breaker},
    catalog::{Digest, Kind, Limits},
    project::ProjectId,
    retry::Bases,
    run::Trigger,
    simulator::{Fault, Key, RateLimitHeader, State},
    sync::{Engine, Report},
};

use super::{
    history::{History, Past, Step},
    judge,
    tally::Tally,
    trouble::{Pair, Spot, Trouble, What},
};
use crate::{
    asc::options,
    house::Backend,
    sync::{APP, App, Bench, add_project, app, upstream},
};

/// How many quiet runs what was deleted may take to be found, somebody approving what is held.
const RUNS: usize = 3;

pub(super) struct Stage {
    bench: Bench,
    private_key: String,
    played: AtomicU64,
}

/// One history on its way.
struct Play<'a> {
    stage: &'a Stage,
    engine: Engine,
    project: ProjectId,
    /// How many rows a page has.
    rows: usize,
    past: Arc<Mutex<Past>>,
    /// What was present after the last run.
    present: BTreeSet<(Kind, String)>,
    /// What the last run held.
    shown: Option<Digest>,
}

impl Stage {
    pub(super) async fn new(backend: Backend) -> Self {
        let mut bench = Bench::new(app(), backend).await;
        let client = Options {
            retry: Bases {
                fault: Duration::ZERO,
                throttled: Duration::ZERO,
            },
            // The failures of many histories, each with its own key, are no outage.
            breaker: breaker::Settings {
                failures: usize::MAX,
                ..breaker::Settings::default()
            },
            ..options(&bench.simulator)
        };
        bench.engine.client = Client::new(client).unwrap();
        let private_key = bench.simulator.state().teams[0].keys[0].private_key.clone();
        Self {
            bench,
            private_key,
            played: AtomicU64::new(0),
        }
    }

    /// Plays a history; says what is wrong, if anything is.
    pub(super) async fn play(&self, history: &History, tally: &mut Tally) -> Result<(), String> {
        let mut play = self.begin(history).await;
        for step in &history.steps {
            match step {
                Step::Edit(edit) => {
                    let mut past = play.past.lock().unwrap();
                    self.bench.edit(|app| edit.make(app, &mut past));
                }
                Step::Sync { troubles, approves } => {
                    let shown = play.shown.take().filter(|_| *approves);
                    play.sync(troubles, shown, tally).await?;
                }
            }
        }
        play.end(tally).await?;
        if history.ends_with_another {
            play.nothing_more_happens(tally).await?;
        }
        Ok(())
    }

    async fn begin(&self, history: &History) -> Play<'_> {
        let number = self.played.fetch_add(1, Ordering::Relaxed);
        let mut state = State::with_app(history.app());
        state.page_limit = NonZeroU32::new(history.page);
        state.rate_limit_header = RateLimitHeader::Absent;
        state.teams[0].keys = vec![Key {
            key_id: format!("H{number:09}"),
            private_key: self.private_key.clone(),
            ..Key::default()
        }];
        let project: ProjectId = format!("history-{number}").parse().unwrap();
        let Engine { store, vault, .. } = &self.bench.engine;
        add_project(&**store, vault, &project, &state).await;
        self.bench.simulator.edit(|there| *there = state);
        let limits = if history.is_guarded {
            Limits::default()
        } else {
            Limits {
                removed_percent: 100,
                percent_from: usize::MAX,
                removed_max: usize::MAX,
                descendants_max: usize::MAX,
            }
        };
        Play {
            stage: self,
            engine: Engine {
                limits,
                ..self.bench.engine.clone()
            },
            project,
            rows: usize::try_from(history.page).unwrap(),
            past: Arc::default(),
            present: BTreeSet::new(),
            shown: None,
        }
    }

    fn app(&self) -> App {
        self.bench.simulator.state().app(APP).unwrap().clone()
    }
}

impl Play<'_> {
    /// Syncs, with these troubles, and judges what it did.
    async fn sync(
        &mut self,
        troubles: &[Trouble],
        approved: Option<Digest>,
        tally: &mut Tally,
    ) -> Result<Report, String> {
        let simulator = &self.stage.bench.simulator;
        let before = self.stage.app();
        let spots = self.let_go_wrong(troubles, &before);
        simulator.forget_requests();
        let meter = Arc::new(Meter::default());
        // By the schedule a run may go by what it knows; who approves does so by hand.
        let trigger = match approved {
            None => Trigger::Schedule,
            Some(_) => Trigger::Command,
        };
        let report = self
            .engine
            .run(&self.project, trigger, approved.as_ref(), &meter)
            .await
            .map_err(|error| format!("no run: {error}"))?;
        let requests = simulator.requests();
        simulator.clear_faults();
        simulator.clear_edits();
        tally.count_run(&report);
        if approved.is_some() {
            tally.count_approval();
        }
        for (name, spot) in spots {
            let of_listing = requests.iter().filter(|it| it.path.ends_with(&spot.path));
            if of_listing.count() > spot.page {
                tally.count_trouble(Pair {
                    what: name,
                    listing: spot.listing,
                    page: spot.page,
                });
            }
        }

        let (before, after) = (upstream(&before), upstream(&self.stage.app()));
        let catalog = judge::consistent(&*self.engine.store, &self.project, APP).await?;
        let present = judge::ids(catalog.present.keys());
        let lost: Vec<_> = self
            .present
            .difference(&present)
            .filter(|it| before.contains(it) && after.contains(it))
            .collect();
        if !lost.is_empty() {
            return Err(format!(
                "{lost:?} were removed, and upstream had them all the while"
            ));
        }
        self.present = present;
        self.shown = held(&report);
        Ok(report)
    }

    /// Once all is quiet, the catalog comes to be what upstream has.
    async fn end(&mut self, tally: &mut Tally) -> Result<(), String> {
        let app = self.stage.app();
        for run in 1..=RUNS {
            let approved = self.shown.take();
            self.sync(&[], approved, tally).await?;
            let catalog = self.engine.store.load_catalog(&self.project).await;
            let wrong = judge::disagreement(&catalog.unwrap(), &app);
            match wrong {
                None if self.shown.is_none() => {
                    tally.count_agreement(run);
                    return Ok(());
                }
                Some(wrong) if run == RUNS => {
                    return Err(format!("after {RUNS} quiet runs, {wrong}"));
                }
                _ => {}
            }
        }
        Err(format!("something is still held: {:?}", self.shown))
    }

    async fn nothing_more_happens(&mut self, tally: &mut Tally) -> Result<(), String> {
        let report = self.sync(&[], None, tally).await?;
        match report.committed.rows {
            0 => Ok(()),
            rows => Err(format!("{rows} rows were written, and nothing had changed")),
        }
    }

    /// Where each is to happen.
    fn let_go_wrong(&self, troubles: &[Trouble], app: &App) -> Vec<(&'static str, Spot)> {
        let simulator = &self.stage.bench.simulator;
        if troubles.iter().any(|trouble| trouble.lasts) {
            // What is not listed cannot be asked for either.
            for path in ["/v2/inAppPurchases/", "/v1/subscriptions/"] {
                simulator.inject(Fault::new(path, crate::sync::FaultKind::status(503)));
            }
        }
        let mut spots = Vec::new();
        for trouble in troubles {
            let Some(spot) = trouble.spot(app, self.rows) else {
                continue;
            };
            let path = format!("{}$", spot.path);
            match &trouble.what {
                What::Faults(_, kinds) => {
                    // Two that are to make up for one another do so once.
                    let lasts = trouble.lasts && kinds.len() == 1;
                    for (page, kind) in (spot.page..).zip(kinds) {
                        let fault = Fault::new(path.as_str(), kind.clone()).after(page);
                        simulator.inject(if lasts { fault } else { fault.once() });
                    }
                }
                What::Edit(edit) => {
                    let (edit, past) = (edit.clone(), Arc::clone(&self.past));
                    simulator.edit_at(path, spot.page, move |state| {
                        edit.make(state.app_mut(APP).unwrap(), &mut past.lock().unwrap());
                    });
                }
            }
            spots.push((trouble.what.name(), spot));
        }
        spots
    }
}

/// What a run holds, as somebody is shown it.
fn held(report: &Report) -> Option<Digest> {
    report.run.hold.as_ref().map(|hold| hold.digest.clone())
}
