//! What one API key has left of its hourly budget, over all workers that use it.
//!
//! Apple counts the requests of a key in a rolling hour, and what else the tenant runs spends from the same hour. This is pure:
//! the store keeps one [`Ledger`] a key, and reads and writes it under a lock. What must hold:
//!
//! - What Apple said last is the truth, for an hour. Between two answers only our own requests come and go.
//! - A key with little left is used again when enough of our own requests have left the hour. Where others have spent from it,
//!   which nobody tells us about, it is looked at again after ten minutes by a run that stops at its first answers.
//! - Nothing is waited for much longer than an hour, whatever the clocks of workers do.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// When a key whose budget is spent is worth another look: the hour rolls, so some of it comes back soon.
pub const LOOK_AGAIN: Duration = Duration::from_mins(10);

/// What Apple grants where it has not said yet.
const USUAL_LIMIT: u32 = 3600;

const HOUR: TimeDelta = TimeDelta::hours(1);

/// Requests noted in one minute have all left the hour when this many minutes have begun since.
const MINUTES_KEPT: i64 = 61;

/// How far the clocks of two workers may be apart. What is noted further ahead is from a clock that has been set back since.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// An hourly budget, as an answer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests a rolling hour.
    pub limit: u64,
    /// What is left of them.
    pub left: u64,
}

/// What a kind of work leaves of the budget to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Scheduled work can wait: it leaves a fifth to whatever else the tenant runs, and to what somebody waits for.
    Scheduled,
    /// Somebody waits for it: a twentieth is left.
    OnDemand,
}

impl Reserve {
    /// As a part of the limit, in percent.
    #[must_use]
    pub const fn percent(self) -> u64 {
        match self {
            Self::Scheduled => 20,
            Self::OnDemand => 5,
        }
    }

    /// How many requests are left to others; always fewer than the limit.
    #[must_use]
    pub const fn of(self, limit: u64) -> u64 {
        limit / 100 * self.percent() + limit % 100 * self.percent() / 100
    }

    /// Whether no more than the reserve is left. A limit of 0 says nothing.
    #[must_use]
    pub const fn is_reached(self, budget: Budget) -> bool {
        budget.limit > 0 && budget.left <= self.of(budget.limit)
    }
}

/// What is known of one key's budget. As JSON it is one small value: 61 minutes at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// What Apple grants, by the last answer that told.
    limit: Option<u32>,
    /// The last answer that told, until it is an hour old.
    seen: Option<Seen>,
    /// Our own requests, by the minute since 1970 in which they were noted, for as long as they may be in the hour.
    spent: BTreeMap<i64, u32>,
    /// Before when Apple told us to stay away.
    blocked_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// What was left, less the requests noted since then of which no answer told, and with those that have left the hour since.
    left: i64,
    at: Instant,
}

impl Ledger {
    /// Records what a run cost: the requests it sent, what the last answer said of the budget, and until when Apple told us to
    /// stay away.
    pub fn record(
        &mut self,
        now: Instant,
        requests: u64,
        seen: Option<Budget>,
        blocked_until: Option<Instant>,
    ) {
        *self = self.settled(now);
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        if requests > 0 {
            let noted = self.spent.entry(minute(now)).or_default();
            *noted = noted.saturating_add(requests);
        }
        match seen.filter(|budget| budget.limit > 0) {
            Some(budget) => self.observe(now, budget),
            None => {
                if let Some(seen) = &mut self.seen {
                    seen.left = seen.left.saturating_sub(requests.into());
                }
            }
        }
        let blocked_until = blocked_until.map(|until| until.min(now + HOUR));
        self.blocked_until = self
            .blocked_until
            .max(blocked_until)
            .filter(|&until| until > now);
    }

    /// What is left now: by the last answer, and what of our own requests has left the rolling hour since.
    #[must_use]
    pub fn left(&self, now: Instant) -> Budget {
        self.settled(now).budget()
    }

    /// From when work with this reserve may use the key; none: now.
    #[must_use]
    pub fn ready_at(&self, reserve: Reserve, now: Instant) -> Option<Instant> {
        let mut ready_at = None;
        // Until then the last answer may have grown too old to count, so that it takes a little longer.
        while let Some(at) = self.settled(ready_at.unwrap_or(now)).ready_after(reserve) {
            if at <= ready_at.unwrap_or(now) {
                break;
            }
            ready_at = Some(at);
        }
        ready_at
    }

    /// The same as of now: without what is over, and without what a clock noted that has been set back since.
    fn settled(&self, now: Instant) -> Self {
        let this_minute = minute(now);
        let mut spent = BTreeMap::<_, u32>::new();
        let mut returned = 0;
        for (&noted_in, &requests) in &self.spent {
            if noted_in <= this_minute - MINUTES_KEPT {
                returned += i64::from(requests);
            } else if noted_in <= this_minute + SKEW.num_minutes() {
                let noted = spent.entry(noted_in.min(this_minute)).or_default();
                *noted = noted.saturating_add(requests);
            }
        }
        let limit = i64::from(self.limit());
        let seen = self
            .seen
            .filter(|seen| now - seen.at < HOUR && seen.at - now <= SKEW)
            .map(|seen| Seen {
                left: seen.left.saturating_add(returned).min(limit),
                ..seen
            });
        Self {
            limit: self.limit,
            seen,
            spent,
            blocked_until: self
                .blocked_until
                .filter(|&until| until > now && until - now <= HOUR + SKEW),
        }
    }

    /// Takes what Apple says for the truth. Where it has given back more of our requests than we thought, the oldest are those.
    fn observe(&mut self, now: Instant, budget: Budget) {
        let limit = u32::try_from(budget.limit).unwrap_or(u32::MAX);
        let left = i64::from(u32::try_from(budget.left).unwrap_or(u32::MAX).min(limit));
        self.limit = Some(limit);
        self.seen = Some(Seen { left, at: now });
        let mut given_back = self.own() - (i64::from(limit) - left);
        self.spent.retain(|_, requests| {
            let gone = given_back.clamp(0, i64::from(*requests));
            given_back -= gone;
            *requests -= u32::try_from(gone).unwrap_or(*requests);
            *requests > 0
        });
    }

    fn limit(&self) -> u32 {
        self.limit.unwrap_or(USUAL_LIMIT)
    }

    /// Our own requests in the hour.
    fn own(&self) -> i64 {
        self.spent.values().copied().map(i64::from).sum()
    }

    /// What is left of a settled ledger; below 0 when more was spent than there is.
    fn balance(&self) -> i64 {
        match self.seen {
            Some(seen) => seen.left,
            None => i64::from(self.limit()) - self.own(),
        }
    }

    fn budget(&self) -> Budget {
        Budget {
            limit: self.limit().into(),
            left: self.balance().max(0).unsigned_abs(),
        }
    }

    /// From when a settled ledger says that the key may be used.
    fn ready_after(&self, reserve: Reserve) -> Option<Instant> {
        self.enough_at(reserve).max(self.blocked_until)
    }

    /// From when a settled ledger has more than the reserve, or the key is worth another look.
    fn enough_at(&self, reserve: Reserve) -> Option<Instant> {
        let budget = self.budget();
        if !reserve.is_reached(budget) {
            return None;
        }
        let mut balance = self.balance();
        let returned_at = self.spent.iter().find_map(|(&noted_in, &requests)| {
            balance += i64::from(requests);
            let left = balance.max(0).unsigned_abs();
            let is_enough = !reserve.is_reached(Budget { left, ..budget });
            is_enough
                .then(|| start_of(noted_in + MINUTES_KEPT))
                .flatten()
        });
        let looked_at = self
            .seen
            .filter(|seen| i64::from(self.limit()).saturating_sub(seen.left) > self.own())
            .map(|seen| seen.at + LOOK_AGAIN);
        match (returned_at, looked_at) {
            (Some(returned_at), Some(looked_at)) => Some(returned_at.min(looked_at)),
            (at, None) | (None, at) => at,
        }
    }
}

fn minute(at: Instant) -> i64 {
    at.timestamp().div_euclid(60)
}

fn start_of(minute: i64) -> Option<Instant> {
    DateTime::from_timestamp(minute.checked_mul(60)?, 0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const RESERVES: [Reserve; 2] = [Reserve::Scheduled, Reserve::OnDemand];

    /// The start of a minute.
    fn noon() -> Instant {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn at(minutes: i64) -> Instant {
        noon() + TimeDelta::minutes(minutes)
    }

    fn budget(left: u64) -> Budget {
        Budget { limit: 3600, left }
    }

    #[test]
    fn a_reserve_is_a_part_of_the_limit_and_never_all_of_it() {
        for (limit, scheduled, on_demand) in
            [(3600, 720, 180), (3500, 700, 175), (10, 2, 0), (1, 0, 0)]
        {
            assert_eq!(Reserve::Scheduled.of(limit), scheduled);
            assert_eq!(Reserve::OnDemand.of(limit), on_demand);
        }
        for limit in [1, u64::MAX] {
            assert!(RESERVES.iter().all(|reserve| reserve.of(limit) < limit));
        }
        let nothing_said = Budget { limit: 0, left: 0 };
        assert!(!Reserve::Scheduled.is_reached(nothing_said));
    }

    #[test]
    fn a_key_that_nobody_has_used_is_ready_with_the_usual_limit() {
        let ledger = Ledger::default();
        assert_eq!(ledger.left(noon()), budget(3600));
        assert_eq!(ledger.ready_at(Reserve::Scheduled, noon()), None);
    }

    #[test]
    fn what_we_spent_comes_back_when_it_leaves_the_hour() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 1000, Some(budget(2600)), None);
        ledger.record(at(30), 1900, Some(budget(700)), None);
        assert_eq!(ledger.left(at(60)).left, 700);
        assert_eq!(ledger.left(at(61)).left, 1700);
        assert_eq!(ledger.ready_at(Reserve::Scheduled, at(30)), Some(at(61)));
        assert_eq!(ledger.ready_at(Reserve::OnDemand, at(30)), None);
        // The answer counts no more: what is left follows from what we sent.
        assert_eq!(ledger.left(at(90)).left, 1700);
        assert_eq!(ledger.left(at(91)).left, 3600);
    }

    #[test]
    fn without_an_answer_that_tells_our_own_requests_are_counted() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 2000, None, None);
        ledger.record(at(10), 3000, None, None);
        assert_eq!(ledger.left(at(10)).left, 0);
        assert_eq!(
            ledger.ready_at(Reserve::OnDemand, at(10)),
            Some(at(61)),
            "600 are left then"
        );
        assert_eq!(
            ledger.ready_at(Reserve::Scheduled, at(10)),
            Some(at(71)),
            "600 are not enough"
        );

        let mut after_one = Ledger::default();
        after_one.record(at(0), 10, Some(budget(1000)), None);
        after_one.record(at(1), 300, None, None);
        assert_eq!(after_one.left(at(1)).left, 700);
    }

    #[test]
    fn what_others_spent_is_looked_at_again_after_ten_minutes() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 3, Some(budget(100)), None);
        for reserve in RESERVES {
            assert_eq!(ledger.ready_at(reserve, at(0)), Some(at(10)));
            assert_eq!(ledger.ready_at(reserve, at(9)), Some(at(10)));
            assert_eq!(ledger.ready_at(reserve, at(10)), None);
        }
        // The look shows that nothing has changed.
        ledger.record(at(10), 3, Some(budget(97)), None);
        assert_eq!(ledger.ready_at(Reserve::OnDemand, at(11)), Some(at(20)));
        // An answer counts for an hour, and others are forgotten with it.
        assert_eq!(ledger.left(at(69)).left, 100);
        assert_eq!(ledger.left(at(70)).left, 3597);
    }

    #[test]
    fn what_apple_says_is_the_truth() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 1000, None, None);
        ledger.record(at(20), 500, Some(budget(3100)), None);
        assert_eq!(ledger.left(at(20)).left, 3100);
        assert_eq!(ledger.left(at(61)).left, 3100, "it was back already");
        assert_eq!(ledger.left(at(81)).left, 3600);
        // More left than there is, and a limit that cannot be.
        ledger.record(
            at(90),
            0,
            Some(Budget {
                limit: 10,
                left: 50,
            }),
            None,
        );
        assert_eq!(
            ledger.left(at(90)),
            Budget {
                limit: 10,
                left: 10
            }
        );
        ledger.record(at(91), 0, Some(Budget { limit: 0, left: 0 }), None);
        assert_eq!(ledger.left(at(91)).limit, 10);
    }

    #[test]
    fn what_apple_tells_us_to_wait_is_kept_and_is_an_hour_at_most() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 1, Some(budget(3599)), Some(at(5)));
        ledger.record(at(1), 1, Some(budget(3598)), Some(at(2)));
        ledger.record(at(1), 1, Some(budget(3597)), None);
        for reserve in RESERVES {
            assert_eq!(ledger.ready_at(reserve, at(1)), Some(at(5)));
            assert_eq!(ledger.ready_at(reserve, at(5)), None);
        }
        ledger.record(at(6), 1, Some(budget(3596)), Some(at(6000)));
        assert_eq!(ledger.ready_at(Reserve::OnDemand, at(6)), Some(at(66)));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nothing() {
        let mut ledger = Ledger::default();
        ledger.record(at(600), 3500, Some(budget(100)), Some(at(660)));
        assert!(ledger.ready_at(Reserve::OnDemand, at(600)).is_some());
        for now in [at(0), at(500), at(594)] {
            assert_eq!(ledger.ready_at(Reserve::OnDemand, now), None);
            assert_eq!(ledger.left(now).left, 3600);
        }
        let mut written = ledger.clone();
        written.record(at(0), 3, None, None);
        assert_eq!(written.left(at(600)).left, 3600, "it is gone for good");
        // A worker whose clock is a little behind believes the other one.
        assert_eq!(ledger.left(at(597)).left, 100);
        assert_eq!(ledger.ready_at(Reserve::OnDemand, at(597)), Some(at(661)));
    }

    #[test]
    fn it_is_kept_as_json_to_which_a_newer_worker_may_add() {
        let mut ledger = Ledger::default();
        ledger.record(at(0), 12, Some(budget(3000)), Some(at(1)));
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        let newer = json!({
            "limit": 3600,
            "seen": { "left": 3000, "at": at(0), "by": "somebody" },
            "spent": { "30000000": 12 },
            "blocked_until": at(1),
            "colour": "green",
        });
        assert_eq!(serde_json::from_value::<Ledger>(newer).unwrap(), ledger);
        assert_eq!(
            serde_json::from_str::<Ledger>("{}").unwrap(),
            Ledger::default()
        );
    }

    #[derive(Clone, Debug)]
    struct Record {
        /// Since the one before; below 0 when the clock was set back.
        after: TimeDelta,
        requests: u64,
        seen: Option<Budget>,
        blocked_for: Option<TimeDelta>,
    }

    fn records(after: std::ops::Range<i64>) -> impl Strategy<Value = Vec<Record>> {
        let limit = prop_oneof![4 => Just(3600_u64), 1 => 0..50_u64, 1 => any::<u64>()];
        let seen = limit.prop_flat_map(|limit| {
            let left = prop_oneof![3 => 0..=limit.min(5000), 1 => any::<u64>()];
            left.prop_map(move |left| Budget { limit, left })
        });
        let requests = prop_oneof![8 => 0..2000_u64, 1 => any::<u64>()];
        let blocked_for = (-1000..100_000_i64).prop_map(TimeDelta::seconds);
        let record = (
            after.prop_map(TimeDelta::seconds),
            requests,
            proptest::option::of(seen),
            proptest::option::weighted(0.2, blocked_for),
        )
            .prop_map(|(after, requests, seen, blocked_for)| Record {
                after,
                requests,
                seen,
                blocked_for,
            });
        proptest::collection::vec(record, 0..100)
    }

    fn recorded(records: &[Record]) -> (Ledger, Instant) {
        let mut ledger = Ledger::default();
        let mut now = noon();
        for record in records {
            now += record.after;
            let blocked_until = record.blocked_for.map(|blocked_for| now + blocked_for);
            ledger.record(now, record.requests, record.seen, blocked_until);
        }
        (ledger, now)
    }

    proptest! {
        #[test]
        fn a_key_is_ready_with_more_than_the_reserve_or_after_a_while_and_within_an_hour(
            records in records(0..1500),
            later in (0..5000_i64).prop_map(TimeDelta::seconds),
        ) {
            let (ledger, last) = recorded(&records);
            let now = last + later;
            prop_assert!(ledger.spent.len() <= 61);
            for reserve in RESERVES {
                let left = ledger.left(now);
                if let Some(at) = ledger.ready_at(reserve, now) {
                    prop_assert!(at > now && at <= now + TimeDelta::minutes(61));
                    prop_assert_eq!(ledger.ready_at(reserve, at), None, "and then it is ready");
                } else {
                    let looked = ledger.seen.is_some_and(|seen| now >= seen.at + LOOK_AGAIN);
                    prop_assert!(looked || !reserve.is_reached(left), "{:?} {:?}", reserve, left);
                }
                if reserve.is_reached(left) && ledger.seen.is_none() {
                    prop_assert!(ledger.ready_at(reserve, now).is_some());
                }
            }
            let text = serde_json::to_string(&ledger).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        }

        #[test]
        fn no_clock_locks_a_key_for_much_longer_than_an_hour(
            records in records(-90_000..90_000),
            later in (-90_000..90_000_i64).prop_map(TimeDelta::seconds),
        ) {
            let (ledger, last) = recorded(&records);
            let now = last + later;
            prop_assert!(ledger.spent.len() <= 61);
            for reserve in RESERVES {
                if let Some(at) = ledger.ready_at(reserve, now) {
                    prop_assert!(at <= now + HOUR + SKEW + TimeDelta::minutes(1));
                }
            }
        }

        /// Apple's side is a true rolling hour. A client with runs of all lengths keeps to the ledger before each run, and to
        /// the reserve within it.
        #[test]
        fn a_client_alone_leaves_the_reserve_at_any_time(
            reserve in prop_oneof![Just(Reserve::Scheduled), Just(Reserve::OnDemand)],
            limit in 1..400_u64,
            runs in proptest::collection::vec((0..1200_i64, 0..300_u32, 0..3000_i64), 1..60),
        ) {
            let mut ledger = Ledger::default();
            let mut sent = VecDeque::new();
            let mut now = noon();
            for (pause, requests, pace_ms) in runs {
                now += TimeDelta::seconds(pause);
                if ledger.ready_at(reserve, now).is_some() {
                    continue;
                }
                let mut seen = None;
                let mut count = 0;
                for _ in 0..requests {
                    now += TimeDelta::milliseconds(pace_ms);
                    while sent.front().is_some_and(|&at| now - at >= HOUR) {
                        sent.pop_front();
                    }
                    sent.push_back(now);
                    count += 1;
                    let left = limit.checked_sub(sent.len() as u64);
                    prop_assert!(left.is_some_and(|left| left >= reserve.of(limit)), "{:?} are left", left);
                    let budget = Budget { limit, left: left.unwrap() };
                    seen = Some(budget);
                    if reserve.is_reached(budget) {
                        break;
                    }
                }
                ledger.record(now, count, seen, None);
            }
        }
    }
}
