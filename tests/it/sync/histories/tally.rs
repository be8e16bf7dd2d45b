//! What came about in all histories, to be printed.

use std::{collections::BTreeMap, fmt};

use catalog_sync::{run::Outcome, sync::Report};

use super::trouble::Pair;

#[derive(Debug, Default)]
pub(super) struct Tally {
    syncs: usize,
    requests: u64,
    removed: usize,
    restored: usize,
    /// Runs by outcome.
    outcomes: BTreeMap<&'static str, usize>,
    approved: usize,
    /// Histories by how many quiet runs it took until the catalog was what upstream had.
    runs_to_agree: BTreeMap<usize, usize>,
    troubles: BTreeMap<Pair, usize>,
}

impl Tally {
    pub(super) fn count_run(&mut self, report: &Report) {
        let total = report.run.counts.total();
        self.syncs += 1;
        self.requests += report.run.cost.requests;
        self.removed += total.removed;
        self.restored += total.restored;
        let outcome = match report.run.outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Held => "held",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    pub(super) fn count_approval(&mut self) {
        self.approved += 1;
    }

    pub(super) fn count_agreement(&mut self, runs: usize) {
        *self.runs_to_agree.entry(runs).or_default() += 1;
    }

    pub(super) fn count_trouble(&mut self, pair: Pair) {
        *self.troubles.entry(pair).or_default() += 1;
    }

    /// How often this came about.
    pub(super) fn times(&self, pair: &Pair) -> usize {
        self.troubles.get(pair).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            syncs,
            requests,
            removed,
            restored,
            outcomes,
            approved,
            runs_to_agree,
            troubles,
        } = other;
        self.syncs += syncs;
        self.requests += requests;
        self.removed += removed;
        self.restored += restored;
        self.approved += approved;
        add_all(&mut self.outcomes, outcomes);
        add_all(&mut self.runs_to_agree, runs_to_agree);
        add_all(&mut self.troubles, troubles);
    }
}

fn add_all<K: Ord + Clone>(sums: &mut BTreeMap<K, usize>, more: &BTreeMap<K, usize>) {
    for (key, count) in more {
        *sums.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} syncs ({:?}), {} requests, {} troubles met, {} removals, {} returns, {} approvals, quiet runs until it agreed: {:?}",
            self.syncs,
            self.outcomes,
            self.requests,
            self.troubles.values().sum::<usize>(),
            self.removed,
            self.restored,
            self.approved,
            self.runs_to_agree
        )?;
        let mut lines = BTreeMap::<&str, Vec<String>>::new();
        for (pair, count) in &self.troubles {
            let line = lines.entry(pair.what).or_default();
            line.push(format!("{:?} {}: {count}", pair.listing, pair.page));
        }
        for (what, line) in lines {
            writeln!(f, "{what:>15}  {}", line.join(", "))?;
        }
        Ok(())
    }
}
