//! What a failure means beside others, and for the key.

use chrono::TimeDelta;

use crate::{
    asc::{self, Failure},
    clock,
    diagnosis::{Code, Diagnosis},
    run::KeyHealth,
};

/// A key that worked counts as rejected after this many refused runs in a row..
const REFUSALS_TO_REJECT: u32 = 3;
/// ..over at least this long: one 401 condemns nobody.
const TIME_TO_REJECT: TimeDelta = TimeDelta::minutes(10);

/// Whether the key was accepted, though what was asked was not to be had.
pub(super) fn is_accepted(error: &asc::Error) -> bool {
    match error.failure {
        Failure::AgreementMissing
        | Failure::Forbidden { .. }
        | Failure::NotFound
        | Failure::Unexpected(_)
        | Failure::OverLimit(_)
        | Failure::Astray(_)
        | Failure::Torn(_) => true,
        Failure::NotAuthorized { .. }
        | Failure::RateLimited { .. }
        | Failure::Unavailable(_)
        | Failure::TimedOut(_)
        | Failure::Signing(_)
        | Failure::Stopped => false,
    }
}

/// Which of several failures explains a run best: what is wrong with the key before what is wrong with one read.
pub(super) fn weight(code: Code) -> u8 {
    match code {
        Code::KeyUnreadable
        | Code::KeyIncomplete
        | Code::KeyIdMismatch
        | Code::WrongKeyKind
        | Code::KeyLost
        | Code::KeySealed => 9,
        Code::ClockSkew => 8,
        Code::NotAuthorized | Code::KeyRejected => 7,
        Code::AgreementMissing => 6,
        Code::NoApps | Code::AppNotVisible | Code::AppMismatch => 5,
        Code::RoleTooLow => 4,
        Code::RateLimited => 3,
        Code::UpstreamUnexpected => 2,
        Code::UpstreamUnavailable => 1,
        Code::GracePeriodUnreadable | Code::SharedKey => 0,
    }
}

/// A refusal of a key that worked, several times over minutes, is more than a passing fault.
pub(super) fn rejected_by_now(
    error: Diagnosis,
    health: &KeyHealth,
    now: clock::Instant,
) -> Diagnosis {
    match (error.code, health.worked_at, health.refused_since) {
        (Code::NotAuthorized, Some(worked_at), Some(since))
            if health.refusals >= REFUSALS_TO_REJECT && now - since >= TIME_TO_REJECT =>
        {
            Diagnosis {
                endpoint: error.endpoint,
                apple_error_id: error.apple_error_id,
                ..Diagnosis::new(
                    Code::KeyRejected,
                    format!(
                        "The key worked until {} and is refused since {} ({} times in a row).",
                        worked_at.format("%Y-%m-%d %H:%M UTC"),
                        since.format("%Y-%m-%d %H:%M UTC"),
                        health.refusals
                    ),
                )
            }
        }
        // It is not likely any more that the key was never right.
        (Code::NotAuthorized, Some(worked_at), _) => {
            let advice = format!(
                "This key worked until {}: it was probably revoked just now, or its owner left. Then make a new key and give it with \
                 'catalog-sync project set-key'. It is tried again some times before it counts as rejected.",
                worked_at.format("%Y-%m-%d %H:%M UTC"),
            );
            error.advise(advice)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_rejected_after_several_refusals_over_minutes_and_only_if_it_worked() {
        let now = clock::now();
        let health = |worked, refusals, minutes| KeyHealth {
            worked_at: worked,
            refused_since: Some(now - TimeDelta::minutes(minutes)),
            refusals,
        };
        let code = |health| rejected_by_now(Diagnosis::of(Code::NotAuthorized), &health, now).code;
        let worked = Some(now - TimeDelta::days(1));
        assert_eq!(code(health(worked, 3, 10)), Code::KeyRejected);
        assert_eq!(code(health(worked, 2, 10)), Code::NotAuthorized);
        assert_eq!(code(health(worked, 3, 9)), Code::NotAuthorized);
        assert_eq!(code(health(None, 30, 100)), Code::NotAuthorized);
        let other = rejected_by_now(Diagnosis::of(Code::ClockSkew), &health(worked, 9, 99), now);
        assert_eq!(other.code, Code::ClockSkew);
    }

    #[test]
    fn what_is_wrong_with_the_key_explains_more_than_what_is_wrong_with_one_read() {
        let order = [
            Code::GracePeriodUnreadable,
            Code::UpstreamUnavailable,
            Code::UpstreamUnexpected,
            Code::RateLimited,
            Code::RoleTooLow,
            Code::AppNotVisible,
            Code::AgreementMissing,
            Code::NotAuthorized,
            Code::ClockSkew,
            Code::KeySealed,
        ];
        assert!(order.is_sorted_by_key(|&code| weight(code)));
        assert!(
            order
                .windows(2)
                .all(|pair| weight(pair[0]) < weight(pair[1]))
        );
    }
}
