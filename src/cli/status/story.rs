//! A project's story in sentences, for somebody in a hurry: what it is, since when, why, what happens next, and what to do.
//!
//! Pure: [`story`] knows what [`Facts`] tell it and nothing else.

use serde::Serialize;

use super::{
    super::output::{counted, plain},
    next::needs_a_person,
    words::{ago, lasting, time},
};
use crate::{
    budget::{Budget, Reserve},
    catalog::{Counts, Kind},
    clock::Instant,
    diagnosis::{Diagnosis, Retry},
    project::ProjectId,
    run::{Outcome, Trigger},
    store::{Condition, RecordedRun, Status},
};

/// More projects than these that share a key are only counted.
const SHARERS_NAMED: usize = 5;

/// What the story is told from.
pub(super) struct Facts<'a> {
    pub(super) status: &'a Status,
    pub(super) condition: Condition,
    /// When the first of its last runs ended that all failed.
    pub(super) failing_since: Option<Instant>,
    pub(super) last_run: Option<&'a RecordedRun>,
    pub(super) last_change: Option<LastChange>,
    /// What its key has left of the hour.
    pub(super) budget: Budget,
    /// From when on the key may be used, if not now.
    pub(super) budget_ready_at: Option<Instant>,
    pub(super) reserve: Reserve,
    pub(super) shared_with: &'a [ProjectId],
    pub(super) next_try: Option<Instant>,
    /// How many daemons are at work.
    pub(super) workers: usize,
}

/// When its catalog changed, and by how much where the run is still on record.
pub(super) struct LastChange {
    pub(super) at: Instant,
    pub(super) counts: Option<Counts>,
}

/// How a sentence is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
}

/// A sentence or two about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sentence {
    /// What it is about; empty for the first, which says how the project fares.
    pub(super) label: &'static str,
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Sentence {
    fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self {
            label,
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

/// The story, the most important first.
pub(super) fn story(facts: &Facts<'_>, now: Instant) -> Vec<Sentence> {
    let mut sentences = vec![head(facts, now)];
    sentences.extend(why(facts));
    sentences.extend(under_way(facts, now));
    sentences.extend(asked_for(facts, now));
    sentences.extend(to_do(facts));
    sentences.extend(next(facts, now));
    sentences.extend(not_read(facts, now));
    sentences.push(catalog(facts, now));
    sentences.extend(missing(facts));
    sentences.push(key(facts));
    sentences
}

fn head(facts: &Facts<'_>, now: Instant) -> Sentence {
    let Facts { status, .. } = facts;
    let project = &status.project;
    let who = format!(
        "{} ({}, {})",
        project.id,
        plain(&project.app.name),
        project.app.bundle_id
    );
    let unsynced = match status.last_success_at {
        Some(success) => format!("has not been synced for {}", lasting(now - success)),
        None => format!(
            "was never synced since it was added {} ago",
            lasting(now - project.created_at)
        ),
    };
    let synced = status.last_success_at.map_or_else(
        || "never synced".to_owned(),
        |success| format!("last synced {}", ago(success, now)),
    );
    let code = status
        .error
        .as_ref()
        .map_or("", |error| error.code.as_str());
    let (text, tone) = match facts.condition {
        Condition::SetAside => {
            let since = status.set_aside_at.map_or(String::new(), |at| ago(at, now));
            let text = format!(
                "{who} is set aside since {since}: each of its last three runs lost its worker, so it is left alone"
            );
            (text, Tone::Bad)
        }
        Condition::Failing => {
            let when = |word| {
                let since = facts.failing_since;
                since.map_or(String::new(), |since| {
                    format!(" {word} {}", time(since, now))
                })
            };
            let how = match status.consecutive_failures {
                ..=1 => format!("its last run failed{}", when("at")),
                runs => format!("each run fails{}, {runs} in a row", when("since")),
            };
            let text = format!("{who} {unsynced}: {how}, with {code}");
            (text, Tone::Bad)
        }
        Condition::Held => {
            let held = status.hold.as_ref().map_or(0, |hold| hold.removals);
            let since = status
                .held_since
                .map_or(String::new(), |since| format!(" since {}", ago(since, now)));
            let removals = counted(held as u64, "removal");
            (
                format!("{who} is held: {removals} wait for a decision, held{since}; {synced}"),
                Tone::Warning,
            )
        }
        Condition::Partial => (
            format!(
                "{who} is partly synced: the last run could not read everything ({code}); whole it was {synced}"
            ),
            Tone::Warning,
        ),
        Condition::Stale => (
            format!("{who} {unsynced}, though its last run did not fail: it is stale"),
            Tone::Warning,
        ),
        Condition::New => (
            format!(
                "{who} is new: it was added {} ago and is not synced yet",
                lasting(now - project.created_at)
            ),
            Tone::Plain,
        ),
        Condition::Fresh => (format!("{who} is fresh: {synced}"), Tone::Good),
        Condition::Paused => {
            let since = project.paused_at.map_or(String::new(), |at| ago(at, now));
            (
                format!("{who} is paused since {since}: nothing syncs it; {synced}"),
                Tone::Warning,
            )
        }
    };
    Sentence {
        tone,
        ..Sentence::new("", format!("{text}."))
    }
}

/// What is wrong, in the words of the run that found it.
fn why(facts: &Facts<'_>) -> Vec<Sentence> {
    let Facts { status, .. } = facts;
    let mut sentences = Vec::new();
    if let Some(error) = &status.error {
        sentences.push(Sentence::new(
            "why",
            format!("{}{}", plain(&error.sentence), origin(error)),
        ));
    }
    if let Some(hold) = &status.hold {
        let reasons: Vec<String> = hold.reasons.iter().map(ToString::to_string).collect();
        sentences.push(Sentence::new(
            "why held",
            format!(
                "{}. Nothing of it is removed, and the hold lapses when the things return.",
                reasons.join("; ")
            ),
        ));
    }
    if facts.condition == Condition::Stale && facts.workers == 0 {
        sentences.push(Sentence::new(
            "why",
            "No daemon is at work on this database.",
        ));
    }
    sentences
}

fn origin(error: &Diagnosis) -> String {
    let parts = [
        error.endpoint.clone(),
        error
            .apple_error_id
            .as_ref()
            .map(|id| format!("Apple's error id {}", plain(id))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

fn under_way(facts: &Facts<'_>, now: Instant) -> Option<Sentence> {
    let until = facts.status.leased_until.filter(|until| *until > now)?;
    let who = facts.status.leased_by.as_deref().unwrap_or("a worker");
    let text = format!(
        "{} is syncing it, with a lease until {}.",
        plain(who),
        until.format("%H:%M:%S UTC")
    );
    Some(Sentence::new("being synced", text))
}

/// What waits, and for what.
fn asked_for(facts: &Facts<'_>, now: Instant) -> Option<Sentence> {
    let Facts { status, .. } = facts;
    let pending = status.pending.as_ref()?;
    let by = match pending.trigger {
        Trigger::Command | Trigger::Request => "A sync was asked for",
        Trigger::Schedule => "A sync fell due",
        Trigger::Retry => "A run is to be repeated, which failed",
    };
    let reason = pending
        .reason
        .as_ref()
        .map_or(String::new(), |reason| format!(" (\"{}\")", plain(reason)));
    let mut parts = vec![format!("{by} {}{reason}.", ago(pending.requested_at, now))];
    let is_under_way = status.leased_until.is_some_and(|until| until > now);
    if is_under_way || status.project.paused_at.is_some() || status.set_aside_at.is_some() {
        return Some(Sentence::new("asked for", parts.concat()));
    }
    let none = facts.workers == 0;
    let until = |at| format!("until {}, in {}.", time(at, now), lasting(at - now));
    match facts.budget_ready_at {
        Some(ready_at) if pending.ready_at > now => {
            let Budget { limit, left } = facts.budget;
            parts.push(format!(
                "It waits for its key, which has {left} of {limit} requests left this hour, and leaves {} to others: {}",
                facts.reserve.of(limit),
                until(ready_at.max(pending.ready_at))
            ));
        }
        _ if pending.ready_at > now => parts.push(format!("It waits {}", until(pending.ready_at))),
        _ if none => {}
        _ => parts.push("It waits for a worker that has room.".to_owned()),
    }
    if none {
        parts.push("No daemon is at work to do it.".to_owned());
    }
    let text = parts.join(" ");
    Some(Sentence {
        tone: if none { Tone::Bad } else { Tone::Plain },
        ..Sentence::new("asked for", text)
    })
}

/// What the person is to do, if anything.
fn to_do(facts: &Facts<'_>) -> Vec<Sentence> {
    let Facts { status, .. } = facts;
    let id = &status.project.id;
    let mut lines = Vec::new();
    if status.project.paused_at.is_some() {
        lines.push(format!(
            "'catalog-sync project resume {id}' takes it up again."
        ));
    } else if status.set_aside_at.is_some() {
        lines.push(format!(
            "See in the workers' logs why they ended (too little memory?). 'catalog-sync project resume {id}' takes it up again."
        ));
    }
    if let Some(error) = &status.error {
        let code = error.code;
        let nothing = match code.retry() {
            Retry::ByItself => "Nothing, if it does not last. ",
            Retry::Slow | Retry::No => "",
        };
        lines.push(format!(
            "{nothing}{} 'catalog-sync explain {code}' says more.",
            plain(&error.advice)
        ));
    }
    if let Some(hold) = &status.hold {
        let digest = &hold.digest;
        let first = match status.project.paused_at {
            Some(_) => "Resume the project first. ",
            None => "",
        };
        lines.push(format!(
            "{first}To let them go: 'catalog-sync approve {id} {digest}'. To keep the things: 'catalog-sync discard {id} {digest}'."
        ));
    }
    let is_idle = status.project.paused_at.is_none() && status.set_aside_at.is_none();
    let waits =
        status.pending.is_some() || matches!(facts.condition, Condition::Stale | Condition::New);
    if is_idle && waits && facts.workers == 0 {
        lines.push(format!(
            "Start a daemon with 'catalog-sync run', or sync it here with 'catalog-sync sync {id}'."
        ));
    } else if facts.condition == Condition::Stale && is_idle {
        lines.push(format!(
            "See whether the daemons keep up: 'catalog-sync status'. 'catalog-sync resync {id} --wait' has it synced before others."
        ));
    }
    let sentences = lines.into_iter();
    sentences
        .map(|line| Sentence::new("what to do", line))
        .collect()
}

/// When it is synced next, unless something waits already.
fn next(facts: &Facts<'_>, now: Instant) -> Option<Sentence> {
    let Facts { status, .. } = facts;
    let project = &status.project;
    let at = facts.next_try.filter(|_| status.pending.is_none())?;
    let by = match &project.cron {
        Some(cron) => format!(" by its own schedule, '{cron}'"),
        None => String::new(),
    };
    let when = if at > now {
        format!("{}, in {}", time(at, now), lasting(at - now))
    } else {
        format!("due since {}", time(at, now))
    };
    let until_then = if needs_a_person(status) {
        "; before that it is of little use"
    } else {
        ""
    };
    let now_too = if facts.workers == 0 {
        format!(
            "No daemon is at work: 'catalog-sync sync {}' does it here.",
            project.id
        )
    } else {
        format!("Now: 'catalog-sync resync {} --wait'.", project.id)
    };
    Some(Sentence::new(
        "next run",
        format!("{when}{by}{until_then}. {now_too}"),
    ))
}

/// The kinds that the last run could not read, and of when they are.
fn not_read(facts: &Facts<'_>, now: Instant) -> Vec<Sentence> {
    let Some(recorded) = facts.last_run else {
        return Vec::new();
    };
    if recorded.run.outcome != Outcome::Partial {
        return Vec::new();
    }
    let failures = recorded.run.failures.keys();
    failures
        .map(|kind| {
            let what = match kind {
                Kind::GracePeriod => "The billing grace period".to_owned(),
                kind => format!("The list of {}", kind.noun(2)),
            };
            let shown = match facts.status.covered_at.get(kind) {
                Some(at) => format!("what is shown is of {}", ago(*at, now)),
                None => "nothing is known of it yet".to_owned(),
            };
            Sentence {
                tone: Tone::Warning,
                ..Sentence::new("not read", format!("{what} could not be read; {shown}."))
            }
        })
        .collect()
}

fn catalog(facts: &Facts<'_>, now: Instant) -> Sentence {
    let Facts { status, .. } = facts;
    let counts: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::GracePeriod)
        .map(|kind| {
            let count = status.present.get(&kind).copied().unwrap_or_default();
            format!(
                "{count} {}",
                kind.noun(usize::try_from(count).unwrap_or_default())
            )
        })
        .collect();
    let changed = match &facts.last_change {
        None => "It has not changed yet.".to_owned(),
        Some(LastChange { at, counts }) => {
            let counts = counts
                .as_ref()
                .map_or(String::new(), |counts| format!(": {counts}"));
            format!("It changed last at {}{counts}.", ago(*at, now))
        }
    };
    let text = format!(
        "{}; revision {}. {changed}",
        counts.join(", "),
        status.revision
    );
    Sentence::new("catalog", text)
}

fn missing(facts: &Facts<'_>) -> Option<Sentence> {
    let Facts { status, .. } = facts;
    if status.missing == 0 {
        return None;
    }
    let id = &status.project.id;
    let held = status.hold.as_ref().map_or(0, |hold| hold.removals);
    let text = format!(
        "{} not in Apple's latest listing: {held} held, {} kept. 'catalog-sync catalog {id}' marks them, 'catalog-sync holds {id} --all' \
         tells what was decided.",
        status.missing, status.kept
    );
    Some(Sentence::new("missing", text))
}

fn key(facts: &Facts<'_>) -> Sentence {
    let project = &facts.status.project;
    let individual = match project.issuer_id {
        Some(_) => "",
        None => ", an individual key,",
    };
    let Budget { limit, left } = facts.budget;
    let named: Vec<&str> = facts
        .shared_with
        .iter()
        .take(SHARERS_NAMED)
        .map(ProjectId::as_str)
        .collect();
    let shared = match facts.shared_with.len() - named.len() {
        _ if named.is_empty() => String::new(),
        0 => format!(", shared with {}", named.join(", ")),
        more => format!(", shared with {} and {more} more", named.join(", ")),
    };
    let text = format!(
        "{}{individual} has {left} of {limit} requests left this hour{shared}.",
        project.key_id
    );
    Sentence::new("key", text)
}

#[cfg(test)]
mod tests;
