//! Notices that App Store Connect is down for everybody, and leaves it alone but for a probe now and then.
//!
//! What must hold: one key's trouble is not an outage; while it is down one request in each period is sent and no other; and a
//! probe that is given up changes nothing, as the next one goes by the clock alone.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::token::KeyName;
use crate::{
    metrics::{APP_STORE_CONNECT, Metrics},
    telemetry::ms,
};

/// When App Store Connect counts as down, and how often it is asked then.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This many failures in a row..
    pub failures: usize,
    /// ..of at least this many keys.
    pub keys: usize,
    /// How often a request is let through then.
    pub probe_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 20,
            keys: 3,
            probe_every: Duration::from_secs(30),
        }
    }
}

/// One for all keys of a client.
pub(super) struct Breaker {
    settings: Settings,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since the last answer.
    failures: usize,
    /// Whose they were.
    keys: HashSet<KeyName>,
    down: Option<Down>,
}

#[derive(Clone, Copy)]
struct Down {
    since: Instant,
    next_probe_at: Instant,
    told_at: Instant,
}

/// While it lasts it is told no more often, by the probes that fail.
const BETWEEN_LINES: Duration = Duration::from_mins(1);

/// Why a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    pub(super) failures: usize,
    pub(super) keys: usize,
    pub(super) ready_in: Duration,
}

impl Breaker {
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Self {
        Self {
            settings,
            metrics,
            state: Mutex::default(),
        }
    }

    /// What keeps a request from being sent now, if anything does.
    pub(super) fn outage(&self, now: Instant) -> Option<Outage> {
        self.lock().outage(now)
    }

    /// Whether App Store Connect counts as down.
    pub(super) fn is_down(&self) -> bool {
        self.lock().down.is_some()
    }

    /// Lets a request through, as a probe while App Store Connect is down.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Outage> {
        let mut state = self.lock();
        if let Some(outage) = state.outage(now) {
            return Err(outage);
        }
        if let Some(down) = &mut state.down {
            down.next_probe_at = now + self.settings.probe_every;
        }
        Ok(())
    }

    /// App Store Connect answered, whatever it said.
    pub(super) fn answered(&self, now: Instant) {
        let was = std::mem::take(&mut *self.lock());
        if let Some(down) = was.down {
            self.metrics.dependency_up(APP_STORE_CONNECT);
            tracing::info!(
                event = "upstream.up",
                down_ms = ms(now.duration_since(down.since)),
                "App Store Connect answers again"
            );
        }
    }

    /// It failed: a 5xx, no answer in time, a connection that was refused, reset or cut.
    pub(super) fn failed(&self, key: KeyName, now: Instant) {
        let mut state = self.lock();
        if let Some(down) = &mut state.down {
            if now - down.told_at >= BETWEEN_LINES {
                down.told_at = now;
                let lasted = now - down.since;
                self.tell(&state, lasted);
            }
            return;
        }
        state.failures += 1;
        state.keys.insert(key);
        if state.failures < self.settings.failures || state.keys.len() < self.settings.keys {
            return;
        }
        state.down = Some(Down {
            since: now,
            next_probe_at: now + self.settings.probe_every,
            told_at: now,
        });
        self.metrics.dependency_down(APP_STORE_CONNECT);
        self.tell(&state, Duration::ZERO);
    }

    fn tell(&self, state: &State, lasted: Duration) {
        tracing::warn!(
            event = "upstream.down",
            failures = state.failures,
            keys = state.keys.len(),
            probe_every_ms = ms(self.settings.probe_every),
            down_ms = ms(lasted),
            "App Store Connect fails for everybody; it is asked now and then until it answers"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn outage(&self, now: Instant) -> Option<Outage> {
        let down = self.down.filter(|down| now < down.next_probe_at)?;
        Some(Outage {
            failures: self.failures,
            keys: self.keys.len(),
            ready_in: down.next_probe_at - now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> KeyName {
        KeyName([u8::try_from(number).unwrap(); 32])
    }

    fn breaker() -> Breaker {
        Breaker::new(Settings::default(), Metrics::default())
    }

    /// Down, after 20 failures of 3 keys.
    fn down() -> Breaker {
        let breaker = breaker();
        for number in 0..20 {
            breaker.failed(key(number % 3), Instant::now());
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn it_takes_20_failures_in_a_row_of_3_keys() {
        // (failures, keys, the failure after which something is answered, down)
        let cases = [
            (19, 3, None, false),
            (20, 3, None, true),
            (20, 2, None, false),
            (5000, 2, None, false),
            (20, 20, None, true),
            (21, 3, Some(1), true),
            (38, 3, Some(19), false),
            (39, 3, Some(19), true),
        ];
        for (failures, keys, answered_after, is_down) in cases {
            let breaker = breaker();
            for number in 0..failures {
                if answered_after == Some(number) {
                    breaker.answered(Instant::now());
                }
                breaker.failed(key(number % keys), Instant::now());
            }
            assert_eq!(
                breaker.outage(Instant::now()).is_some(),
                is_down,
                "{failures} failures of {keys} keys, an answer after {answered_after:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_is_sent_every_30_seconds() {
        let breaker = down();
        let mut sent = Vec::new();
        for second in 0..300 {
            // It fails, or is given up without an outcome.
            if breaker.admit(Instant::now()).is_ok() {
                sent.push(second);
                if second % 60 == 0 {
                    breaker.failed(key(1), Instant::now());
                }
            }
            assert!(breaker.admit(Instant::now()).is_err(), "only one");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(sent, [30, 60, 90, 120, 150, 180, 210, 240, 270]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_when_the_next_probe_may_go() {
        let breaker = down();
        tokio::time::advance(Duration::from_secs(12)).await;
        let outage = Outage {
            failures: 20,
            keys: 3,
            ready_in: Duration::from_secs(18),
        };
        assert_eq!(breaker.outage(Instant::now()), Some(outage));
        assert_eq!(breaker.admit(Instant::now()), Err(outage));
        tokio::time::advance(Duration::from_secs(18)).await;
        assert_eq!(breaker.outage(Instant::now()), None);
        assert_eq!(breaker.outage(Instant::now()), None, "asking takes nothing");
        assert_eq!(breaker.admit(Instant::now()), Ok(()));
        assert!(breaker.outage(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_it_and_the_count_begins_anew() {
        let breaker = down();
        // One that was under way when it went down does as well as a probe.
        breaker.answered(Instant::now());
        for number in 0..19 {
            assert_eq!(breaker.admit(Instant::now()), Ok(()));
            breaker.failed(key(number % 3), Instant::now());
        }
        assert_eq!(breaker.outage(Instant::now()), None);
        breaker.failed(key(0), Instant::now());
        assert!(breaker.outage(Instant::now()).is_some());
    }
}
