//! How long to wait before a request is tried again, and how often one key may try again in all. The only file that knows
//! `backoff`.
//!
//! `backoff` yields the intervals and nothing else: it is no longer maintained, and its own loops let a wait that the
//! server names run past every limit. Tries are counted here, and another crate can take its place in this file alone.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};
use chrono::TimeDelta;

use crate::clock::Instant;

/// How often a request is sent in all.
const TRIES: u32 = 4;

/// The longest of the waits chosen here.
const CAP: Duration = Duration::from_secs(20);

/// The upper bounds of the first waits; each further one doubles, up to 20 s.
#[derive(Clone, Copy, Debug)]
pub struct Bases {
    /// After a fault: an answer 5xx, a cut body, a lost connection.
    pub fault: Duration,
    /// After a 429 that does not say how long to wait.
    pub throttled: Duration,
}

impl Default for Bases {
    fn default() -> Self {
        Self {
            fault: Duration::from_millis(250),
            throttled: Duration::from_secs(2),
        }
    }
}

/// The tries of one request.
pub struct Retry {
    left: u32,
    fault: ExponentialBackoff,
    throttled: ExponentialBackoff,
}

impl Retry {
    /// No try spent yet.
    #[must_use]
    pub fn new(bases: Bases) -> Self {
        Self {
            left: TRIES - 1,
            fault: full_jitter(bases.fault),
            throttled: full_jitter(bases.throttled),
        }
    }

    /// The wait after a fault, or none when the tries are spent.
    pub fn after_fault(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.spend()?;
        Some(at_least(asked, self.fault.next_backoff()?))
    }

    /// The wait after a 429, or none when the tries are spent.
    pub fn after_throttle(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.spend()?;
        Some(at_least(asked, self.throttled.next_backoff()?))
    }

    fn spend(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }
}

/// The retries that all requests of one key share: in an outage it sends at most 1.1 times the requests it would send anyway,
/// and 10 more.
#[derive(Debug)]
pub struct Allowance {
    tenths: u32,
    taken_at: Option<Instant>,
}

/// What a request that is no retry adds, and the sum beyond which nothing is added, in tenths of a retry.
const EARNED: u32 = 1;
const RETRY: u32 = 10;
const FULL: u32 = 10 * RETRY;

/// One that is not full is remembered for this long, so that nobody gets a full one sooner by being forgotten.
const REMEMBERED: TimeDelta = TimeDelta::hours(1);

impl Default for Allowance {
    fn default() -> Self {
        Self {
            tenths: FULL,
            taken_at: None,
        }
    }
}

impl Allowance {
    /// A request was sent that is no retry.
    pub fn earn(&mut self) {
        self.tenths = FULL.min(self.tenths + EARNED);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let Some(left) = self.tenths.checked_sub(RETRY) else {
            return false;
        };
        self.tenths = left;
        self.taken_at = Some(now);
        true
    }

    /// Whether a new one in its place makes no difference worth remembering.
    #[must_use]
    pub fn may_be_forgotten(&self, now: Instant) -> bool {
        self.tenths == FULL
            || self
                .taken_at
                .is_none_or(|taken_at| (now - taken_at).abs() >= REMEMBERED)
    }
}

/// What the server asks for is kept, and a little is added so that those who were refused together do not return together.
fn at_least(asked: Option<Duration>, jitter: Duration) -> Duration {
    asked.map_or(jitter, |asked| asked + jitter / 8)
}

/// Waits between tries that have no end, for something that is down: they double to a few seconds.
pub struct Patience(ExponentialBackoff);

impl Default for Patience {
    fn default() -> Self {
        Self(ExponentialBackoff {
            initial_interval: Self::FIRST,
            current_interval: Self::FIRST,
            max_interval: Self::LONGEST,
            randomization_factor: chance(backoff::default::RANDOMIZATION_FACTOR),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(Self::LONGEST)
    }
}

/// How much of a wait is left to chance: nothing in a simulation, which is to be repeated.
fn chance(factor: f64) -> f64 {
    #[cfg(feature = "simulator")]
    if crate::clock::simulated::is_on() {
        return 0.0;
    }
    factor
}

/// Waits drawn evenly from zero to `base`, then to twice that, and so on up to [`CAP`]: a factor of 1 around half the bound.
fn full_jitter(base: Duration) -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: base / 2,
        initial_interval: base / 2,
        multiplier: 2.0,
        randomization_factor: chance(1.0),
        max_interval: CAP / 2,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_key_has_ten_retries_and_earns_one_by_ten_requests() {
        let now = clock::now();
        let mut allowance = Allowance::default();
        let taken = |allowance: &mut Allowance| (0..50).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance), 10);
        for (requests, retries) in [(9, 0), (1, 1), (25, 2), (5, 1), (1000, 10)] {
            (0..requests).for_each(|_| allowance.earn());
            assert_eq!(taken(&mut allowance), retries, "after {requests} requests");
        }
    }

    #[test]
    fn an_allowance_is_remembered_while_it_is_not_full_for_an_hour() {
        let now = clock::now();
        let mut allowance = Allowance::default();
        assert!(allowance.may_be_forgotten(now));
        allowance.take(now);
        for (minutes, forgotten) in [
            (0, false),
            (59, false),
            (60, true),
            (-59, false),
            (-60, true),
        ] {
            let later = now + TimeDelta::minutes(minutes);
            assert_eq!(allowance.may_be_forgotten(later), forgotten, "{minutes}");
        }
        (0..10).for_each(|_| allowance.earn());
        assert!(allowance.may_be_forgotten(now));
    }

    #[test]
    fn a_request_is_sent_four_times_at_most() {
        let mut retry = Retry::new(Bases::default());
        assert!(retry.after_fault(None).is_some());
        assert!(retry.after_throttle(None).is_some());
        assert!(retry.after_fault(None).is_some());
        assert_eq!(retry.after_fault(None), None);
        assert_eq!(retry.after_throttle(None), None);
    }

    #[test]
    fn waits_are_spread_from_zero_to_a_doubling_bound() {
        let first: Vec<_> = (0..500)
            .filter_map(|_| Retry::new(Bases::default()).after_fault(None))
            .collect();
        assert!(first.iter().all(|wait| *wait <= Duration::from_millis(251)));
        assert!(first.iter().any(|wait| *wait < Duration::from_millis(50)));
        assert!(first.iter().any(|wait| *wait > Duration::from_millis(200)));

        let second: Vec<_> = (0..500)
            .filter_map(|_| {
                let mut retry = Retry::new(Bases::default());
                retry.after_fault(None)?;
                retry.after_fault(None)
            })
            .collect();
        assert!(
            second
                .iter()
                .all(|wait| *wait <= Duration::from_millis(501))
        );
        assert!(second.iter().any(|wait| *wait > Duration::from_millis(400)));
    }

    #[test]
    fn what_the_server_asks_for_is_kept() {
        let asked = Duration::from_secs(7);
        let mut retry = Retry::new(Bases::default());
        for wait in [
            retry.after_throttle(Some(asked)),
            retry.after_fault(Some(asked)),
        ] {
            let wait = wait.unwrap();
            assert!(wait >= asked && wait <= asked + Duration::from_secs(1));
        }
    }
}
