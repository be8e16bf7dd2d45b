//! When a project is synced next, and what the table and the story tell of it beside.

use chrono::TimeDelta;

use crate::{catalog::Kind, clock::Instant, run::Outcome, schedule::Schedule, store::Status};

/// When the project is to be synced next, if it is.
pub(super) fn next_try(
    status: &Status,
    schedule: &Schedule,
    blocked_every: TimeDelta,
) -> Option<Instant> {
    let project = &status.project;
    if project.paused_at.is_some() || status.set_aside_at.is_some() {
        return None;
    }
    if let Some(pending) = &status.pending {
        return Some(pending.ready_at);
    }
    let due_at = status.next_due_at?;
    // Until then the schedule passes it over.
    let again_at = status
        .last_attempt_at
        .filter(|_| needs_a_person(status))
        .map(|attempted_at| attempted_at + blocked_every);
    match again_at {
        Some(again_at) if again_at > due_at => {
            let cron = project.cron.as_ref();
            let before = again_at - TimeDelta::milliseconds(1);
            schedule
                .next(&project.id, cron, before)
                .map(|slot| slot.due_at)
        }
        _ => Some(due_at),
    }
}

/// Whether no further run is worth much until somebody has acted.
pub(super) fn needs_a_person(status: &Status) -> bool {
    status.outcome == Some(Outcome::Failed)
        && status
            .error
            .as_ref()
            .is_some_and(|error| error.code.needs_a_person())
}

/// In-app purchases and subscriptions.
pub(super) fn products(status: &Status) -> i64 {
    [Kind::InAppPurchase, Kind::Subscription]
        .iter()
        .filter_map(|kind| status.present.get(kind))
        .sum()
}
