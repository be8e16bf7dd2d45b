//! The hourly budget of each key: a true rolling hour, and the header that tells what is left.

use std::collections::{HashMap, VecDeque};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};

use super::state::RateLimitHeader;

const HOUR: TimeDelta = TimeDelta::hours(1);
const NAME: HeaderName = HeaderName::from_static("x-rate-limit");
/// Seen on writes; told here too, where the setting asks for it.
const MINUTE_LIMIT: u32 = 250;

/// When each key made its calls of the last hour.
#[derive(Debug, Default)]
pub(super) struct Budgets(HashMap<String, VecDeque<DateTime<Utc>>>);

/// What is left of a budget after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    limit: u32,
    remaining: u32,
    /// Whether the call was within the budget.
    pub(super) allowed: bool,
}

impl Budgets {
    /// Spends one call. A refused one is not counted.
    pub(super) fn spend(&mut self, key_id: &str, limit: u32, now: DateTime<Utc>) -> Left {
        let calls = self.0.entry(key_id.to_owned()).or_default();
        while calls.front().is_some_and(|&at| now - at >= HOUR) {
            calls.pop_front();
        }
        let spent = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let allowed = spent < limit;
        if allowed {
            calls.push_back(now);
        }
        Left {
            limit,
            remaining: limit.saturating_sub(spent + u32::from(allowed)),
            allowed,
        }
    }

    /// Forgets the calls of a key, or of all keys.
    pub(super) fn forget(&mut self, key_id: Option<&str>) {
        match key_id {
            Some(key_id) => {
                self.0.remove(key_id);
            }
            None => self.0.clear(),
        }
    }
}

impl Left {
    /// Adds the `X-Rate-Limit` header in the form asked for.
    pub(super) fn tell(self, form: RateLimitHeader, headers: &mut HeaderMap) {
        let hour = format!(
            "user-hour-lim:{};user-hour-rem:{};",
            self.limit, self.remaining
        );
        let minute = format!(
            "user-minute-lim:{MINUTE_LIMIT};user-minute-rem:{};",
            MINUTE_LIMIT.min(self.remaining).saturating_sub(1)
        );
        let values = match form {
            RateLimitHeader::Plain => vec![hour],
            RateLimitHeader::Absent => vec![],
            RateLimitHeader::Twice => vec![hour.clone(), hour],
            RateLimitHeader::Joined => vec![format!("{hour},{minute}")],
            RateLimitHeader::WithMinute => vec![format!("{minute}{hour}")],
            RateLimitHeader::Malformed => {
                vec!["user-hour-lim:;user-hour-rem:plenty;;=:".to_owned()]
            }
        };
        for value in values
            .iter()
            .filter_map(|value| HeaderValue::from_str(value).ok())
        {
            headers.append(NAME, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_rolls_call_by_call() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut budgets = Budgets::default();
        assert!(budgets.spend("K", 2, start).allowed);
        assert!(
            budgets
                .spend("K", 2, start + TimeDelta::minutes(30))
                .allowed
        );
        let refused = budgets.spend("K", 2, start + TimeDelta::minutes(59));
        assert_eq!(
            refused,
            Left {
                limit: 2,
                remaining: 0,
                allowed: false
            }
        );
        assert!(
            budgets
                .spend("K", 2, start + TimeDelta::minutes(60))
                .allowed,
            "the first call is an hour old"
        );
        assert!(
            !budgets
                .spend("K", 2, start + TimeDelta::minutes(89))
                .allowed
        );
        assert!(
            budgets
                .spend("K", 2, start + TimeDelta::minutes(90))
                .allowed
        );
    }

    #[test]
    fn keys_do_not_share_a_budget() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut budgets = Budgets::default();
        assert!(budgets.spend("A", 1, now).allowed);
        assert!(budgets.spend("B", 1, now).allowed);
        assert!(!budgets.spend("A", 1, now).allowed);
    }
}
