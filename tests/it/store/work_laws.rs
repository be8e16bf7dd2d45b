//! Laws of the work list, over random histories: no request is lost (I2), no two leases live at once, epochs rise (I1).

use std::collections::BTreeMap;

use catalog_sync::{
    catalog::Plan,
    clock::Instant,
    project::ProjectId,
    store::{Claim, Claimed, Error, LastChance, Store},
};
use chrono::TimeDelta;
use proptest::{
    collection, prelude::*, sample::Index, strategy::ValueTree as _, test_runner::TestRunner,
};

use super::sample::{TTL, add_with_key, aftermath, at, run_for};
use crate::store::sample::ask;

/// The first two share a key.
const KEYS: [&str; 4] = ["shared", "shared", "own-1", "own-2"];

#[derive(Clone, Debug)]
enum Step {
    Ask(Index),
    Claim(u32),
    Acquire(Index),
    Renew(Index),
    /// With a repetition asked for, after so many seconds.
    Commit(Index, Option<i64>),
    Release(Index),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<Index>().prop_map(Step::Ask),
        4 => (1..4_u32).prop_map(Step::Claim),
        1 => any::<Index>().prop_map(Step::Acquire),
        1 => any::<Index>().prop_map(Step::Renew),
        4 => (any::<Index>(), proptest::option::weighted(0.2, 1..60_i64)).prop_map(|(i, retry)| Step::Commit(i, retry)),
        1 => any::<Index>().prop_map(Step::Release),
        2 => (1..45_i64).prop_map(Step::Pass),
    ]
}

/// What the store must be like.
struct Model {
    now: Instant,
    /// How many steps there were: asks and claims are put in order by it.
    step: usize,
    /// Of each project, the steps of the requests that no run has answered.
    unanswered: BTreeMap<ProjectId, Vec<usize>>,
    /// Of each project, the highest epoch, and until when its lease lasts, if it has one.
    leases: BTreeMap<ProjectId, (i64, Option<Instant>)>,
    /// Every claim ever made that was not ended yet, with its step.
    claims: Vec<(Claim, usize)>,
}

impl Model {
    fn is_live(&self, id: &ProjectId) -> bool {
        self.leases[id].1.is_some_and(|until| until > self.now)
    }

    fn begin(&mut self, claim: Claim) {
        let id = claim.lease.project.clone();
        let (epoch, _) = self.leases[&id];
        assert!(!self.is_live(&id), "{id} has two live leases");
        assert!(claim.lease.epoch > epoch, "{id}'s epoch did not rise");
        self.leases
            .insert(id, (claim.lease.epoch, Some(claim.lease.until)));
        self.claims.push((claim, self.step));
    }

    /// Whether the claim is its project's latest, which nobody has ended.
    fn holds(&self, claim: &Claim) -> bool {
        let (epoch, until) = self.leases[&claim.lease.project];
        epoch == claim.lease.epoch && until.is_some()
    }

    async fn take(&mut self, store: &dyn Store, most: u32) -> usize {
        let live: Vec<ProjectId> = self.leases.keys().cloned().collect();
        let live: Vec<ProjectId> = live.into_iter().filter(|id| self.is_live(id)).collect();
        let claimed: Claimed = store
            .claim(most, LastChance::One, TTL, self.now)
            .await
            .unwrap();
        let count = claimed.claims.len();
        assert!(count <= most as usize);
        let keys: Vec<&str> = claimed
            .claims
            .iter()
            .map(|claim| &*claim.key.key_id)
            .collect();
        let shared = keys.iter().filter(|key| **key == "shared").count();
        let busy = live.iter().filter(|id| id.as_str() < "p2").count();
        assert!(shared <= 1 && (shared == 0 || busy == 0), "one key, twice");
        for claim in claimed.claims {
            self.begin(claim);
        }
        for id in claimed.set_aside {
            let lease = self.leases.get_mut(&id).unwrap();
            lease.1 = None;
            store.resume(&id, self.now).await.unwrap();
            self.unanswered.get_mut(&id).unwrap().push(self.step);
        }
        count
    }

    async fn commit(&mut self, store: &dyn Store, at: usize, retry: Option<i64>) {
        let (claim, claimed) = self.claims.remove(at);
        let id = claim.lease.project.clone();
        let mut aftermath = aftermath();
        aftermath.retry_at = retry.map(|seconds| self.now + TimeDelta::seconds(seconds));
        let mut run = run_for(&claim, 0);
        run.finished_at = self.now;
        let committed = store
            .commit(&claim.lease, &Plan::nothing(), &run, &aftermath)
            .await;
        if self.holds(&claim) {
            committed.unwrap();
            self.leases.get_mut(&id).unwrap().1 = None;
            let unanswered = self.unanswered.get_mut(&id).unwrap();
            unanswered.retain(|asked| *asked > claimed);
            // The repetition is a request of its own, unless one waits that comes sooner.
            if retry.is_some() && unanswered.is_empty() {
                unanswered.push(self.step);
            }
        } else {
            assert!(
                matches!(committed, Err(Error::LeaseLost { .. })),
                "{committed:?}"
            );
        }
    }

    async fn apply(&mut self, store: &dyn Store, step: &Step) {
        self.step += 1;
        let ids: Vec<ProjectId> = self.leases.keys().cloned().collect();
        let of_claims = |index: &Index, model: &Self| {
            (!model.claims.is_empty()).then(|| index.index(model.claims.len()))
        };
        match step {
            Step::Ask(index) => {
                let id = &ids[index.index(ids.len())];
                ask(store, id, self.now).await;
                self.unanswered.get_mut(id).unwrap().push(self.step);
            }
            Step::Claim(most) => {
                self.take(store, *most).await;
            }
            Step::Acquire(index) => {
                let id = &ids[index.index(ids.len())];
                match store.acquire(id, TTL, self.now).await {
                    Ok(claim) => self.begin(claim),
                    Err(Error::Leased { .. }) => assert!(self.is_live(id)),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Renew(index) => {
                if let Some(at) = of_claims(index, self) {
                    let claim = self.claims[at].0.clone();
                    let renewed = store.renew(&claim.lease, TTL, self.now).await;
                    assert_eq!(renewed.is_ok(), self.holds(&claim), "{renewed:?}");
                    if let Ok(lease) = renewed {
                        self.leases
                            .insert(lease.project, (lease.epoch, Some(lease.until)));
                    }
                }
            }
            Step::Commit(index, retry) => {
                if let Some(at) = of_claims(index, self) {
                    self.commit(store, at, *retry).await;
                }
            }
            Step::Release(index) => {
                if let Some(at) = of_claims(index, self) {
                    let (claim, _) = self.claims.remove(at);
                    store.release(&claim.lease).await.unwrap();
                    if self.holds(&claim) {
                        self.leases.get_mut(&claim.lease.project).unwrap().1 = None;
                    }
                }
            }
            Step::Pass(seconds) => self.now += TimeDelta::seconds(*seconds),
        }
    }

    /// What is unanswered is pending, and nothing else is.
    async fn check(&self, store: &dyn Store) {
        for status in store.read_statuses().await.unwrap() {
            let id = &status.project.id;
            let waits = !self.unanswered[id].is_empty();
            assert_eq!(status.pending.is_some(), waits, "{id}: {status:?}");
        }
    }
}

pub(crate) async fn every_request_is_answered_by_a_later_run(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    let mut now = at(0);
    for case in 0..30 {
        let steps = collection::vec(step(), 10..40)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut model = Model {
            now,
            step: 0,
            unanswered: BTreeMap::new(),
            leases: BTreeMap::new(),
            claims: Vec::new(),
        };
        for (number, key_id) in KEYS.into_iter().enumerate() {
            let id = add_with_key(store, &format!("p{number}"), key_id).await;
            model.unanswered.insert(id.clone(), vec![0]);
            model.leases.insert(id, (0, None));
        }
        for step in &steps {
            model.apply(store, step).await;
            model.check(store).await;
        }

        // Left to one worker that dies no more, everything is answered.
        model.claims.clear();
        for round in 0.. {
            assert!(round < 100, "case {case} does not end: {steps:?}");
            model.now += TimeDelta::seconds(61);
            model.step += 1;
            while model.take(store, 4).await > 0 {
                model.step += 1;
                while !model.claims.is_empty() {
                    model.commit(store, 0, None).await;
                }
            }
            if model.unanswered.values().all(Vec::is_empty) {
                break;
            }
        }
        model.check(store).await;
        for id in model.leases.keys() {
            store.remove_project(id).await.unwrap();
        }
        now = model.now;
    }
}
