//! Something that the daemon waits for is down: told when it begins, once a minute while it lasts, and when it is over.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{metrics::Metrics, telemetry::ms};

const BETWEEN_LINES: Duration = Duration::from_mins(1);

/// How long nothing has failed when an outage is over: longer than between two notes of a worker in the database, for on a full disk
/// only what really writes fails.
const CALM: Duration = Duration::from_secs(20);

/// One thing that can be down, whoever notices.
#[derive(Debug)]
pub struct Outage {
    what: &'static str,
    shown: Option<Metrics>,
    state: Mutex<Option<Down>>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    since: Instant,
    told_at: Instant,
    failed_at: Instant,
}

/// What a failure is worth saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Began,
    Lasts(Duration),
    Nothing,
}

impl Outage {
    /// One that is up, so far.
    #[must_use]
    pub fn of(what: &'static str) -> Self {
        Self {
            what,
            shown: None,
            state: Mutex::default(),
        }
    }

    /// The same, shown among what the worker depends on once it has worked or failed.
    #[must_use]
    pub fn shown_in(self, metrics: &Metrics) -> Self {
        Self {
            shown: Some(metrics.clone()),
            ..self
        }
    }

    /// It failed.
    pub fn failed(&self, why: &dyn Display) {
        let what = self.what;
        let (lasted, still) = match self.note(Instant::now()) {
            Line::Began => (Duration::ZERO, ""),
            Line::Lasts(lasted) => (lasted, "still "),
            Line::Nothing => return,
        };
        tracing::error!(
            event = "dependency.down",
            dependency = what,
            error.sentence = %why,
            down_ms = ms(lasted),
            "{what}: {still}cannot be used; it is tried again until it can"
        );
    }

    /// It works. The outage is over when nothing has failed for a while: what answers questions may still refuse to write.
    pub fn works(&self) {
        let ended = {
            let mut state = self.lock();
            let ended = state.take_if(|down| down.failed_at.elapsed() >= CALM);
            if let (None, Some(metrics)) = (*state, &self.shown) {
                metrics.dependency_up(self.what);
            }
            ended
        };
        if let Some(down) = ended {
            let what = self.what;
            tracing::info!(
                event = "dependency.up",
                dependency = what,
                down_ms = ms(down.since.elapsed()),
                "{what}: can be used again"
            );
        }
    }

    fn note(&self, now: Instant) -> Line {
        let mut state = self.lock();
        if let Some(metrics) = &self.shown {
            metrics.dependency_down(self.what);
        }
        let Some(down) = state.as_mut() else {
            *state = Some(Down {
                since: now,
                told_at: now,
                failed_at: now,
            });
            return Line::Began;
        };
        down.failed_at = now;
        if now - down.told_at < BETWEEN_LINES {
            return Line::Nothing;
        }
        down.told_at = now;
        Line::Lasts(now - down.since)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_when_it_begins_and_once_a_minute() {
        let outage = Outage::of("database");
        let began = Instant::now();
        let after = |seconds| outage.note(began + Duration::from_secs(seconds));
        assert_eq!(after(0), Line::Began);
        assert_eq!(after(1), Line::Nothing);
        assert_eq!(after(59), Line::Nothing);
        assert_eq!(after(60), Line::Lasts(Duration::from_mins(1)));
        assert_eq!(after(61), Line::Nothing);
        assert_eq!(after(130), Line::Lasts(Duration::from_secs(130)));
        outage.works();
        assert_eq!(after(131), Line::Nothing, "it failed a moment before");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_over_when_nothing_has_failed_for_a_while() {
        let outage = Outage::of("database");
        outage.failed(&"no");
        tokio::time::advance(CALM / 2).await;
        outage.works();
        assert_eq!(outage.note(Instant::now()), Line::Nothing);
        tokio::time::advance(CALM).await;
        outage.works();
        assert_eq!(outage.note(Instant::now()), Line::Began);
    }
}
