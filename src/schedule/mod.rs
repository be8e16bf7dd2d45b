//! When a project is due: the times that a cron names, each moved by the project's place in the spread.
//!
//! Everything here is pure. What must hold throughout: a project's slots are in the order of their times, each is due
//! before the time of the next, and every machine and version computes the same ones. So [`Schedule::next`] and
//! [`Schedule::latest`] are each other's inverse, and one row per project is all that workers need to agree on.
//!
//! Where the clock changes, croner's rules apply:
//!
//! | cron | hour that is left out | hour that comes twice |
//! |---|---|---|
//! | one minute and one hour, such as `30 2 * * *` | at the first moment after it, if the days still fit | once, at the first |
//! | any other, such as `0 * * * *` or `0 2,14 * * *` | not in it | in both |

mod cron;

use std::time::Duration;

use aws_lc_rs::digest;
use chrono::{DateTime, TimeDelta};
use chrono_tz::{TZ_VARIANTS, Tz};

use crate::{clock::Instant, project::ProjectId};

pub use cron::Cron;

/// When projects are due: the schedule of `worker.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
    spread_seconds: u64,
}

/// How long a run that is due may take to begin and end.
const RUN: TimeDelta = TimeDelta::minutes(10);

/// One appointment of one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The time that the cron names.
    pub at: Instant,
    /// That time and the project's offset: before the next time that the cron names.
    pub due_at: Instant,
}

/// Why there is no schedule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cron is wrong, or never comes.
    #[error("'{cron}' {wrong}")]
    Cron {
        /// As it was written.
        cron: String,
        /// What is wrong and how to write it: the rest of a sentence that begins with the cron.
        wrong: String,
    },
    /// There is no such time zone.
    #[error("'{name}' is no time zone; {}", hint(*.nearest))]
    TimeZone {
        /// As it was written.
        name: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
}

impl Schedule {
    /// Projects are due when the cron says in the time zone, spread over this much time after it.
    ///
    /// # Errors
    ///
    /// When the cron or the name of the time zone is wrong.
    pub fn new(cron: &str, time_zone: &str, spread: Duration) -> Result<Self, Error> {
        Ok(Self {
            cron: cron.parse()?,
            zone: time_zone.parse().map_err(|_| Error::TimeZone {
                name: time_zone.to_owned(),
                nearest: nearest(time_zone),
            })?,
            spread_seconds: spread.as_secs(),
        })
    }

    /// The project's first slot that is due after this instant. `own` is the project's own cron; it is read in the same
    /// time zone, and its slots are spread as all others are.
    ///
    /// None after the year 4999.
    #[must_use]
    pub fn next(&self, project: &ProjectId, own: Option<&Cron>, after: Instant) -> Option<Slot> {
        let times = self.times(project, own);
        // The last slot that was named may yet be due. No earlier one is: each is due before the next is named.
        let named = times.last_by(after).and_then(|at| times.slot(at));
        named
            .filter(|slot| slot.due_at > after)
            .or_else(|| times.slot(times.first_after(after)?))
    }

    /// The project's last slot that was due at this instant or before. `own` is as in [`Schedule::next`].
    ///
    /// None before the year 1.
    #[must_use]
    pub fn latest(&self, project: &ProjectId, own: Option<&Cron>, by: Instant) -> Option<Slot> {
        let times = self.times(project, own);
        let named = times.slot(times.last_by(by)?)?;
        if named.due_at <= by {
            Some(named)
        } else {
            let before = named.at.checked_sub_signed(TimeDelta::seconds(1))?;
            times.slot(times.last_by(before)?)
        }
    }

    /// A project that was last synced before this instant has missed two slots in a row, wherever its place in the spread is. `own` is
    /// as in [`Schedule::next`].
    ///
    /// The last slot counts as missed ten minutes after all projects were due by it.
    #[must_use]
    pub fn stale_before(&self, own: Option<&Cron>, now: Instant) -> Instant {
        let times = Times {
            cron: &own.unwrap_or(&self.cron).pattern,
            zone: self.zone,
            spread_seconds: self.spread_seconds,
            offset_seconds: self.spread_seconds,
        };
        let latest = times.last_by(now - RUN).and_then(|at| times.slot(at));
        // Not all projects are due by the last one yet.
        let missed = latest.and_then(|slot| {
            if slot.due_at <= now - RUN {
                Some(slot.at)
            } else {
                times.last_by(slot.at - TimeDelta::seconds(1))
            }
        });
        missed
            .and_then(|at| times.last_by(at - TimeDelta::seconds(1)))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }

    fn times<'a>(&'a self, project: &ProjectId, own: Option<&'a Cron>) -> Times<'a> {
        Times {
            cron: &own.unwrap_or(&self.cron).pattern,
            zone: self.zone,
            spread_seconds: self.spread_seconds,
            offset_seconds: offset_seconds(project, self.spread_seconds),
        }
    }
}

/// The times of one project.
struct Times<'a> {
    cron: &'a croner::Cron,
    zone: Tz,
    spread_seconds: u64,
    offset_seconds: u64,
}

impl Times<'_> {
    fn first_after(&self, after: Instant) -> Option<Instant> {
        past_gaps(|hours| {
            let from = after.checked_add_signed(TimeDelta::hours(hours))?;
            let from = from.with_timezone(&self.zone);
            let found = self.cron.find_next_occurrence(&from, hours > 0);
            found.ok()
        })
    }

    fn last_by(&self, by: Instant) -> Option<Instant> {
        past_gaps(|hours| {
            let from = by.checked_sub_signed(TimeDelta::hours(hours))?;
            let from = from.with_timezone(&self.zone);
            let found = self.cron.find_previous_occurrence(&from, true);
            found.ok()
        })
    }

    /// Where the next time is nearer than the spread is wide, the spread shrinks to fit: all offsets in proportion, so that
    /// projects keep their order and their even distance.
    fn slot(&self, at: Instant) -> Option<Slot> {
        let until_next = (self.first_after(at)? - at).num_seconds();
        let window = self.spread_seconds.min(until_next.try_into().ok()?);
        let offset = u128::from(self.offset_seconds) * u128::from(window)
            / u128::from(self.spread_seconds.max(1));
        let offset = TimeDelta::try_seconds(offset.try_into().ok()?)?;
        let due_at = at.checked_add_signed(offset)?;
        Some(Slot { at, due_at })
    }
}

/// Searches from this many hours on: croner gives up at a time of day that falls into a gap of more than two hours, which is
/// a day that the zone left out (as Pacific/Apia did 2011-12-30). From past the gap it finds what there is.
fn past_gaps(search: impl Fn(i64) -> Option<DateTime<Tz>>) -> Option<Instant> {
    (0..=48).find_map(search).map(|found| found.to_utc())
}

/// The project's place in the spread: the first eight bytes of the SHA-256 of its id, as a big-endian number, modulo the
/// spread. It is the same on every machine and in every version.
fn offset_seconds(project: &ProjectId, spread_seconds: u64) -> u64 {
    let digest = digest::digest(&digest::SHA256, project.as_str().as_bytes());
    let first = digest.as_ref().first_chunk();
    let number = u64::from_be_bytes(*first.expect("a SHA-256 has 32 bytes"));
    number.checked_rem(spread_seconds).unwrap_or(0)
}

/// The time zone whose name, or whose city, is most like this. Those of `Etc/` are no answer: their signs are reversed.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.trim().to_lowercase().replace([' ', '-'], "_");
    let likeness = |zone: &str| {
        let zone = zone.to_lowercase();
        let city = zone.rsplit('/').next().unwrap_or(&zone);
        let like = |other| strsim::normalized_damerau_levenshtein(&name, other);
        like(&zone).max(like(city))
    };
    TZ_VARIANTS
        .iter()
        .map(|zone| zone.name())
        .filter(|zone| *zone == "UTC" || zone.contains('/') && !zone.starts_with("Etc/"))
        .map(|zone| (likeness(zone), zone))
        .filter(|(like, _)| *like >= 0.75)
        .max_by(|(one, _), (two, _)| one.total_cmp(two))
        .map(|(_, zone)| zone)
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(zone) => format!("did you mean '{zone}'?"),
        None => "write 'UTC' or a name such as 'Europe/Berlin'".to_owned(),
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
