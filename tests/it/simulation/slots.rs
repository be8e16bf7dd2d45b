//! The slots of a few crons, found by the calendar and not by the schedule: what the schedule is judged by.

use std::time::Duration;

use catalog_sync::clock::Instant;
use chrono::{Days, LocalResult, TimeDelta, TimeZone as _};
use chrono_tz::Europe::Berlin;

/// The time zone of all schedules here.
pub(super) const ZONE: &str = "Europe/Berlin";

/// Over how long a time projects are spread after each slot.
pub(super) const SPREAD: Duration = Duration::from_mins(10);

/// A cron that the simulation knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Times {
    /// The schedule of all: half past two, by night and by day.
    TwiceADay,
    /// One time of day, to which nothing happens when clocks change: it comes once.
    Daily(u32, u32),
    Hourly,
}

impl Times {
    pub(super) fn cron(self) -> String {
        match self {
            Self::TwiceADay => "30 2,14 * * *".to_owned(),
            Self::Daily(hour, minute) => format!("{minute} {hour} * * *"),
            Self::Hourly => "0 * * * *".to_owned(),
        }
    }

    /// The slots of these days in Berlin.
    pub(super) fn slots(self, start: Instant, days: u64) -> Vec<Instant> {
        let first = start.with_timezone(&Berlin).date_naive();
        let mut slots: Vec<Instant> = (0..=days)
            .flat_map(|day| {
                let at = |hour, minute| {
                    let date = first + Days::new(day);
                    Berlin.from_local_datetime(&date.and_hms_opt(hour, minute, 0).unwrap())
                };
                match self {
                    Self::TwiceADay => [2, 14]
                        .iter()
                        .flat_map(|hour| every(at(*hour, 30)))
                        .collect(),
                    // What is left out in spring comes when the clock has gone on: at three.
                    Self::Daily(hour, minute) => match at(hour, minute) {
                        LocalResult::None => every(at(hour + 1, 0)),
                        found => every(found).into_iter().take(1).collect(),
                    },
                    Self::Hourly => (0..24).flat_map(|hour| every(at(hour, 0))).collect(),
                }
            })
            .collect();
        let end = start + TimeDelta::days(i64::try_from(days).unwrap());
        slots.retain(|at| (start..end).contains(at));
        slots
    }
}

fn every(found: LocalResult<chrono::DateTime<chrono_tz::Tz>>) -> Vec<Instant> {
    let both = [found.earliest(), found.latest()];
    let mut both: Vec<Instant> = both.into_iter().flatten().map(|at| at.to_utc()).collect();
    both.dedup();
    both
}

#[test]
fn the_days_on_which_clocks_change_are_as_people_know_them() {
    let utc = |text: &str| -> Instant { text.parse().unwrap() };
    let (spring, autumn) = (utc("2027-03-27T23:00:00Z"), utc("2027-10-30T22:00:00Z"));
    let shown = |times: Times, start| -> Vec<String> {
        let slots = times.slots(start, 1);
        slots
            .iter()
            .map(|at| at.format("%H:%M").to_string())
            .collect()
    };
    assert_eq!(shown(Times::TwiceADay, spring), ["12:30"]);
    assert_eq!(shown(Times::TwiceADay, autumn), ["00:30", "01:30", "13:30"]);
    assert_eq!(shown(Times::Daily(2, 30), spring), ["01:00"]);
    assert_eq!(shown(Times::Daily(2, 30), autumn), ["00:30"]);
    assert_eq!(shown(Times::Daily(3, 0), spring), ["01:00"]);
    // A day of Berlin has 23 hours and 25; what is looked at here are 24 from its midnight on.
    assert_eq!(Times::Hourly.slots(spring, 1).len(), 24);
    assert_eq!(Times::Hourly.slots(autumn, 1).len(), 24);
}
