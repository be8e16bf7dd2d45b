//! Whether every loop of the daemon still goes round.
//!
//! A loop that hangs looks from outside like one that has nothing to do. So each says when it goes round, and how long it may
//! be silent at most. A beat costs an atomic store; time is the monotonic clock's. A loop that ended, in whatever way, is no
//! longer looked at here: whoever owns its task learns of that.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The loops of one daemon. Clones are of the same daemon.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Loops>);

#[derive(Debug)]
struct Loops {
    /// What beats count from.
    began: Instant,
    registered: Mutex<Vec<Arc<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    longest_silence: Duration,
    /// When it last went round, in milliseconds.
    beat_at: AtomicU64,
}

/// A loop's own end. Dropping it says that the loop has ended.
#[derive(Debug)]
#[must_use = "a loop that drops it counts as ended"]
pub struct Beat {
    loops: Arc<Loops>,
    own: Arc<Loop>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Loops {
            began: Instant::now(),
            registered: Mutex::default(),
        }))
    }
}

impl Pulse {
    /// Takes in a loop, which goes round from now on and is never silent for longer than that.
    pub fn register(&self, name: &'static str, longest_silence: Duration) -> Beat {
        let loops = Arc::clone(&self.0);
        let own = Arc::new(Loop {
            name,
            longest_silence,
            beat_at: AtomicU64::new(loops.elapsed()),
        });
        loops.registered().push(Arc::clone(&own));
        Beat { loops, own }
    }

    /// The loops that have been silent for too long, and for how long, in the order in which they were taken in.
    #[must_use]
    pub fn stale(&self) -> Vec<(&'static str, Duration)> {
        let registered = self.0.registered();
        let now = self.0.elapsed();
        registered
            .iter()
            .map(|it| {
                let silence = now.saturating_sub(it.beat_at.load(Ordering::Relaxed));
                (it, Duration::from_millis(silence))
            })
            .filter(|(it, silence)| *silence > it.longest_silence)
            .map(|(it, silence)| (it.name, silence))
            .collect()
    }
}

impl Beat {
    /// Says that the loop goes round.
    pub fn beat(&self) {
        self.own
            .beat_at
            .store(self.loops.elapsed(), Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.loops
            .registered()
            .retain(|it| !Arc::ptr_eq(it, &self.own));
    }
}

impl Loops {
    /// Milliseconds since the daemon began.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The list is whole at any time, even when whoever held it panicked.
    fn registered(&self) -> MutexGuard<'_, Vec<Arc<Loop>>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_stale_once_it_was_silent_for_longer_than_it_may_be() {
        let pulse = Pulse::default();
        advance(100 * SECOND).await;
        let beat = pulse.register("schedule", 30 * SECOND);
        let _patient = pulse.register("outbox", 300 * SECOND);
        advance(30 * SECOND).await;
        assert_eq!(pulse.stale(), []);
        advance(Duration::from_millis(1)).await;
        assert_eq!(pulse.stale(), [("schedule", Duration::from_millis(30_001))]);
        beat.beat();
        assert_eq!(pulse.stale(), []);
        advance(29 * SECOND).await;
        beat.beat();
        advance(29 * SECOND).await;
        assert_eq!(pulse.stale(), []);
        advance(2 * SECOND).await;
        assert_eq!(pulse.stale(), [("schedule", 31 * SECOND)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ended_is_not_missed() {
        let pulse = Pulse::default();
        let ended = pulse.register("intake", SECOND);
        let same_name = pulse.register("intake", SECOND);
        advance(2 * SECOND).await;
        assert_eq!(pulse.clone().stale().len(), 2);
        drop(ended);
        assert_eq!(pulse.stale(), [("intake", 2 * SECOND)]);
        same_name.beat();
        assert_eq!(pulse.stale(), []);
        drop(same_name);
        advance(2 * SECOND).await;
        assert_eq!(pulse.stale(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panicked_is_not_missed_either() {
        let pulse = Pulse::default();
        let beat = pulse.register("dispatcher", SECOND);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            beat.beat();
            panic!("for the test");
        });
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
        advance(2 * SECOND).await;
        assert_eq!(pulse.stale(), []);
    }
}
