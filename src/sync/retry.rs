//! When a run that failed is repeated before its next slot.

use std::time::Duration;

use crate::{
    clock::Instant,
    diagnosis::{Code, Diagnosis},
};

/// The first wait, which doubles from failure to failure..
const FIRST: Duration = Duration::from_mins(1);
/// ..of a key that Apple refused: three refusals over ten minutes decide, and few requests are to be spent on them..
const FIRST_AFTER_REFUSAL: Duration = Duration::from_mins(5);
/// ..up to this.
const LONGEST: Duration = Duration::from_hours(6);

/// None when the run did not fail, or failed for what another run does not mend. Not before Apple takes requests again.
pub(super) fn retry_at(
    error: Option<&Diagnosis>,
    retries: u32,
    finished_at: Instant,
    resume_at: Option<Instant>,
) -> Option<Instant> {
    let code = error?.code;
    if !code.is_worth_another_run() {
        return None;
    }
    let first = match code {
        Code::NotAuthorized => FIRST_AFTER_REFUSAL,
        _ => FIRST,
    };
    let at = finished_at + doubled(first, retries);
    Some(resume_at.unwrap_or(at).max(at))
}

/// When a run is repeated that could not be recorded.
pub(super) fn unrecorded_retry_at(retries: u32, now: Instant) -> Instant {
    now + doubled(FIRST, retries)
}

fn doubled(first: Duration, retries: u32) -> Duration {
    first
        .saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX))
        .min(LONGEST)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn minutes(code: Code, retries: u32) -> Option<i64> {
        let now = DateTime::UNIX_EPOCH;
        let at = retry_at(Some(&Diagnosis::of(code)), retries, now, None)?;
        Some((at - now).num_minutes())
    }

    #[test]
    fn waits_double_up_to_six_hours() {
        let waits: Vec<_> = [0, 1, 2, 8, 9, 31, 32, u32::MAX]
            .into_iter()
            .filter_map(|retries| minutes(Code::UpstreamUnavailable, retries))
            .collect();
        assert_eq!(waits, [1, 2, 4, 256, 360, 360, 360, 360]);
        assert_eq!(minutes(Code::NotAuthorized, 0), Some(5));
        assert_eq!(minutes(Code::NotAuthorized, 1), Some(10));
    }

    #[test]
    fn what_only_a_person_can_mend_is_not_repeated() {
        for code in Code::ALL.iter().filter(|code| code.needs_a_person()) {
            assert_eq!(minutes(*code, 0), None, "{code}");
        }
        assert_eq!(retry_at(None, 0, DateTime::UNIX_EPOCH, None), None);
    }

    #[test]
    fn apple_is_not_asked_before_it_takes_requests_again() {
        let now = DateTime::UNIX_EPOCH;
        let why = Diagnosis::of(Code::RateLimited);
        let later = now + TimeDelta::hours(1);
        assert_eq!(retry_at(Some(&why), 0, now, Some(later)), Some(later));
        let soon = now + TimeDelta::seconds(5);
        assert_eq!(
            retry_at(Some(&why), 0, now, Some(soon)),
            Some(now + TimeDelta::minutes(1))
        );
    }
}
