//! Whether this machine's clock can be trusted: leases and appointments are judged by it.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use super::outage::Outage;
use crate::clock;

/// A wall clock that went back by more than this has been set.
pub(super) const SET_BACK: TimeDelta = TimeDelta::seconds(2);

/// A busy machine takes a while to read two clocks.
const LEAST_TOLERANCE: Duration = Duration::from_secs(2);

/// The two clocks at one moment.
pub(super) struct Clocks {
    wall: clock::Instant,
    pub(super) monotonic: Instant,
}

impl Clocks {
    pub(super) fn read() -> Self {
        Self {
            wall: clock::now(),
            monotonic: Instant::now(),
        }
    }

    /// By how much the wall clock was set forward between this moment and that; back, if that is negative.
    pub(super) fn jumped(&self, later: &Self) -> TimeDelta {
        let elapsed = TimeDelta::from_std(later.monotonic - self.monotonic);
        (later.wall - self.wall) - elapsed.unwrap_or(TimeDelta::MAX)
    }

    /// By how much it was set back, if it was.
    pub(super) fn set_back(&self, later: &Self) -> Option<TimeDelta> {
        let by = -self.jumped(later);
        (by > SET_BACK).then_some(by)
    }
}

/// Whether the clock can be trusted to tell which leases have run out, and what is old.
pub(super) struct ClockWatch {
    last: Clocks,
    /// After a jump, the holders of leases are given time to renew them by the new clock.
    jumped: Option<Instant>,
    /// How far it may be from the database's.
    tolerance: TimeDelta,
    settling: Duration,
    disagreement: Outage,
}

impl ClockWatch {
    /// For leases that last so long and are renewed so often.
    pub(super) fn new(lease: Duration, heartbeat: Duration) -> Self {
        let tolerance = TimeDelta::from_std((lease / 10).max(LEAST_TOLERANCE));
        Self {
            last: Clocks::read(),
            jumped: None,
            tolerance: tolerance.unwrap_or(TimeDelta::MAX),
            settling: heartbeat * 3 / 2,
            disagreement: Outage::of("clock"),
        }
    }

    /// Whether leases may be taken for over now, and rows for old; `database` is its time, where it has a clock of its own.
    pub(super) fn allows(&mut self, database: Option<clock::Instant>, now: Clocks) -> bool {
        if self.last.jumped(&now).abs() > self.tolerance {
            self.jumped = Some(now.monotonic);
        }
        let (wall, monotonic) = (now.wall, now.monotonic);
        self.last = now;
        let ahead = database.map_or(TimeDelta::zero(), |at| wall - at);
        if ahead.abs() > self.tolerance {
            let side = if ahead > TimeDelta::zero() {
                "ahead of"
            } else {
                "behind"
            };
            self.disagreement.failed(&format!(
                "it is {} ms {side} the database's, and would take leases for over that are not",
                ahead.num_milliseconds().abs()
            ));
            return false;
        }
        self.disagreement.works();
        self.jumped
            .is_none_or(|jumped| monotonic - jumped >= self.settling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_noticed() {
        let before = Clocks::read();
        let after = |seconds: u64, wall: i64| Clocks {
            wall: before.wall + TimeDelta::seconds(wall),
            monotonic: before.monotonic + Duration::from_secs(seconds),
        };
        assert_eq!(before.set_back(&after(5, 5)), None);
        assert_eq!(before.set_back(&after(5, 4)), None);
        assert_eq!(before.set_back(&after(5, 3600)), None);
        assert_eq!(before.set_back(&after(5, -3595)), Some(TimeDelta::hours(1)));
    }

    #[test]
    fn nothing_is_claimed_until_leases_were_renewed_by_a_clock_that_jumped() {
        for jump in [3600, -3600] {
            let mut watch = ClockWatch::new(Duration::from_secs(30), Duration::from_secs(10));
            let began = Clocks::read();
            let mut allows = |seconds: u64, wall: i64| {
                let now = Clocks {
                    wall: began.wall + TimeDelta::seconds(wall),
                    monotonic: began.monotonic + Duration::from_secs(seconds),
                };
                watch.allows(None, now)
            };
            assert!(allows(1, 1));
            assert!(allows(3, 2), "a little is no jump");
            assert!(!allows(4, jump + 4));
            assert!(!allows(18, jump + 18));
            assert!(allows(20, jump + 20));
        }
    }

    #[test]
    fn nothing_is_claimed_by_a_clock_that_is_not_the_databases() {
        let mut watch = ClockWatch::new(Duration::from_secs(30), Duration::from_secs(10));
        let mut allows = |ahead: i64| {
            let now = Clocks::read();
            let database = now.wall - TimeDelta::milliseconds(ahead);
            watch.allows(Some(database), now)
        };
        assert!(allows(0));
        assert!(allows(3000) && allows(-3000));
        assert!(!allows(3001) && !allows(-3001));
        assert!(allows(0));
    }
}
