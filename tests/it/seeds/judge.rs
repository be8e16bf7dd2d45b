//! What must hold at the end of a story, by its names in `docs/reliability.md`.

use std::collections::{BTreeMap, BTreeSet};

use catalog_sync::{
    clock::Instant, diagnosis::Code, run::Outcome, simulator::Request, store::HistoryFilter,
};

use super::{
    faulty_store::wait_for,
    plot::{app_id, key_id},
    story::Story,
    world::Work,
};
use crate::sync::histories::judge;

impl Story {
    /// Says what is wrong in the end.
    pub(super) fn judge(&self, kept: Instant) -> Vec<String> {
        let mut wrong = Vec::new();
        let real = &*self.place.real;
        for (number, id) in self.projects.iter().enumerate() {
            let app = self
                .place
                .network
                .simulator
                .state()
                .app(&app_id(number))
                .unwrap()
                .clone();
            match wait_for(judge::consistent(real, id, &app.id)) {
                Ok(catalog) => {
                    if let Some(differs) = judge::disagreement(&catalog, &app) {
                        wrong.push(format!("I4: {id}: {differs}"));
                    }
                }
                Err(why) => wrong.push(format!("I5: {id}: {why}")),
            }
            let log = wait_for(real.read_history(id, &HistoryFilter::default())).unwrap();
            for line in log.iter().filter(|line| line.op.as_str() == "removed") {
                let of_missed = self.past.missed.contains(line.store_id.as_str());
                if !of_missed {
                    wrong.push(format!(
                        "I6: {id}: {} was removed, and was always there",
                        line.store_id
                    ));
                }
            }
            let runs = wait_for(real.read_runs(id, 10_000)).unwrap();
            let mut epochs: Vec<(Instant, i64)> = runs
                .iter()
                .map(|run| (run.run.finished_at, run.epoch))
                .collect();
            epochs.sort_by_key(|(_, epoch)| *epoch);
            if !epochs.is_sorted_by(|one, next| one.1 < next.1) {
                wrong.push(format!("I1: {id}: two runs of one epoch: {epochs:?}"));
            }
            let slots: Vec<Instant> = runs.iter().filter_map(|run| run.run.slot_at).collect();
            if slots.iter().collect::<BTreeSet<_>>().len() != slots.len() {
                wrong.push(format!("I3: {id}: a slot has two runs: {slots:?}"));
            }
            let inner = self.place.world.lock();
            if let Some(work) = inner.works.get(id) {
                if work.runs.len() != runs.len() {
                    wrong.push(format!(
                        "{id}: {} runs, and {} on record",
                        work.runs.len(),
                        runs.len()
                    ));
                }
                wrong
                    .extend(unanswered(work).map(|asked| {
                        format!("I2: {id}: what was asked for at {asked} has no run")
                    }));
                wrong.extend(opened(work).map(|why| format!("keys: {id}: {why}")));
            }
        }
        let requests = self.place.network.simulator.requests();
        wrong.extend(self.of_another_team(&requests));
        wrong.extend(over_budget(&requests, kept, &self.limits(), &self.spent));
        wrong
    }

    fn limits(&self) -> BTreeMap<String, usize> {
        let state = self.place.network.simulator.state();
        let keys = state.teams.iter().flat_map(|team| &team.keys);
        let limit =
            |key: &catalog_sync::simulator::Key| key.hourly_limit.unwrap_or(state.hourly_limit);
        keys.map(|key| (key.key_id.clone(), usize::try_from(limit(key)).unwrap()))
            .collect()
    }

    /// Requests for an app with another team's key, and those that another key than the named one signed.
    fn of_another_team(&self, requests: &[Request]) -> Option<String> {
        let astray = requests.iter().find(|request| {
            let app = |project: &usize| request.path.contains(&app_id(*project));
            let project = (0..self.projects.len()).find(app);
            let is_other = project
                .is_some_and(|it| request.key_id.as_deref() != Some(&*key_id(self.team_of[it])));
            is_other || request.refused_because == Some("signed with another key")
        })?;
        Some(format!("keys: another team's key was used: {astray:?}"))
    }
}

/// What was asked for and has no run that began after it and ended.
fn unanswered(work: &Work) -> impl Iterator<Item = u64> {
    let last = work.runs.iter().map(|run| run.claimed).max();
    work.asked
        .iter()
        .copied()
        .filter(move |&asked| last < Some(asked))
}

/// Runs that began while another project's key stood in the row, and ended otherwise than they must.
fn opened(work: &Work) -> impl Iterator<Item = String> {
    let swapped = work.swapped;
    work.runs
        .iter()
        .filter(move |run| {
            swapped.is_some_and(|(from, until)| run.claimed > from && run.claimed < until)
        })
        .filter(|run| (run.outcome, run.code) != (Outcome::Failed, Some(Code::KeySealed)))
        .map(|run| format!("the key in its row is another's, and a run came to {run:?}"))
}

/// Keys of which more was spent in a rolling hour than their limit less the reserve, up to when budgets were given back (I7).
fn over_budget(
    requests: &[Request],
    kept: Instant,
    limits: &BTreeMap<String, usize>,
    spent: &BTreeMap<String, usize>,
) -> Vec<String> {
    // Requests of two runs that are under way when an answer first says that the reserve is reached.
    const UNDER_WAY: usize = 8;
    let mut by_key = BTreeMap::<&str, usize>::new();
    for request in requests {
        // Stories go wrong for less than an hour. What had no answer, or no good token, cost nothing.
        let counts = request.at < kept
            && request.refused_because.is_none()
            && request.status.is_some_and(|status| status != 429);
        if let (true, Some(key)) = (counts, &request.key_id) {
            *by_key.entry(key).or_default() += 1;
        }
    }
    let mut over = Vec::new();
    for (key, count) in by_key {
        let limit = limits.get(key).copied().unwrap_or_default();
        let all = count + spent.get(key).copied().unwrap_or_default();
        if all > limit - limit / 20 + UNDER_WAY {
            over.push(format!(
                "I7: {all} of the {limit} requests of {key} were spent"
            ));
        }
    }
    over
}
