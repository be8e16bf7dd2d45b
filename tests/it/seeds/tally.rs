//! What happened in stories: a story in which nothing goes wrong proves nothing.

use std::{collections::BTreeMap, fmt};

use catalog_sync::{
    catalog::Plan,
    diagnosis::Code,
    run::{Outcome, Run},
};

/// What must have happened at least once in a few hundred stories.
const MUST_HAPPEN: [&str; 40] = [
    "added upstream",
    "renamed upstream",
    "removed upstream",
    "most of a kind removed upstream",
    "returned upstream",
    "call refused",
    "answer lost",
    "commit unknown",
    "claim unknown",
    "crash",
    "crash before a commit",
    "crash after a commit",
    "stall",
    "stall before a commit",
    "clock set forward",
    "clock set back",
    "connection refused",
    "connection lost",
    "silence",
    "500",
    "503",
    "429",
    "401",
    "403",
    "cut body",
    "HTML",
    "reset",
    "hang",
    "foreign next",
    "circle of next",
    "repeated row",
    "skipped row",
    "dropped include",
    "keys swapped",
    "sealed keys swapped",
    "refused for a moved key",
    "hold approved",
    "budget nearly spent",
    "set aside",
    "write fenced off",
];

/// Sums over stories.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) stories: usize,
    pub(super) asked: usize,
    pub(super) claims: usize,
    pub(super) runs: BTreeMap<&'static str, usize>,
    pub(super) requests: usize,
    pub(super) changes: usize,
    pub(super) held: usize,
    pub(super) hours: f64,
    pub(super) happened: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub(super) fn count_run(&mut self, run: &Run, plan: &Plan) {
        *self.runs.entry(run.outcome.as_str()).or_default() += 1;
        self.changes += plan.changes().len();
        self.held += usize::from(run.outcome == Outcome::Held);
        if run
            .error
            .as_ref()
            .is_some_and(|error| error.code == Code::KeySealed)
        {
            self.count("refused for a moved key");
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.stories += other.stories;
        self.asked += other.asked;
        self.claims += other.claims;
        self.requests += other.requests;
        self.changes += other.changes;
        self.held += other.held;
        self.hours += other.hours;
        for (what, count) in &other.runs {
            *self.runs.entry(what).or_default() += count;
        }
        for (what, count) in &other.happened {
            *self.happened.entry(what).or_default() += count;
        }
    }

    /// What did not happen, and should have.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let mut missing = MUST_HAPPEN.to_vec();
        missing.retain(|what| !self.happened.contains_key(what));
        missing
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: usize = self.runs.values().sum();
        write!(
            f,
            "{} stories of {:.0} hours: {} requests for syncs, {} claims, {runs} runs ({:?}), {} changes, {} requests upstream; {:?}",
            self.stories,
            self.hours,
            self.asked,
            self.claims,
            self.runs,
            self.changes,
            self.requests,
            self.happened
        )
    }
}
