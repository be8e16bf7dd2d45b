//! What holds for any cron, zone and instant: told by looking at every minute, and by going back and forth.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use chrono::{
    DateTime, Datelike as _, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Timelike as _,
};
use chrono_tz::Tz;
use proptest::{prelude::*, sample::select};

use super::{Cron, Schedule, offset_seconds};
use crate::{clock::Instant, project::ProjectId};

fn project(id: &str) -> ProjectId {
    id.parse().unwrap()
}

fn utc(text: &str) -> Instant {
    text.parse().unwrap()
}

/// One field of a cron, with what it means.
#[derive(Clone, Debug)]
struct Part {
    text: String,
    values: BTreeSet<u32>,
    is_one: bool,
}

fn part(min: u32, max: u32, names: &'static [&'static str]) -> impl Strategy<Value = Part> {
    let shown = move |value: u32| match names.get((value - min) as usize) {
        Some(name) => (*name).to_owned(),
        None => value.to_string(),
    };
    let many = move |text, values: Vec<u32>| Part {
        text,
        values: values.into_iter().collect(),
        is_one: false,
    };
    let range = (min..=max, min..=max).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => Just(many("*".to_owned(), (min..=max).collect())),
        3 => (min..=max).prop_map(move |value| Part {
            text: shown(value),
            values: [value].into(),
            is_one: true,
        }),
        1 => (2..=max).prop_map(move |step| {
            many(format!("*/{step}"), (min..=max).step_by(step as usize).collect())
        }),
        1 => range.clone().prop_map(move |(from, to)| Part {
            is_one: from == to,
            ..many(format!("{}-{}", shown(from), shown(to)), (from..=to).collect())
        }),
        1 => (range, 2..5_u32).prop_map(move |((from, to), step)| {
            many(format!("{from}-{to}/{step}"), (from..=to).step_by(step as usize).collect())
        }),
        1 => proptest::collection::btree_set(min..=max, 2..5).prop_map(move |values| Part {
            text: values.iter().map(|value| shown(*value)).collect::<Vec<_>>().join(","),
            values,
            is_one: false,
        }),
    ]
}

#[derive(Clone, Debug)]
struct Grammar {
    minute: Part,
    hour: Part,
    day: Part,
    month: Part,
    weekday: Part,
}

impl Grammar {
    fn text(&self) -> String {
        [
            &self.minute,
            &self.hour,
            &self.day,
            &self.month,
            &self.weekday,
        ]
        .map(|part| part.text.as_str())
        .join(" ")
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let day = self.day.values.contains(&date.day());
        let weekday = self
            .weekday
            .values
            .contains(&date.weekday().num_days_from_sunday());
        let fits = match (self.day.text.as_str(), self.weekday.text.as_str()) {
            ("*", _) => weekday,
            (_, "*") => day,
            _ => day || weekday,
        };
        fits && self.month.values.contains(&date.month())
    }

    fn has(&self, local: NaiveDateTime) -> bool {
        self.minute.values.contains(&local.minute())
            && self.hour.values.contains(&local.hour())
            && self.has_day(local.date())
    }

    /// Every minute of these days that is a slot, by looking at each.
    fn slots(&self, zone: Tz, start: Instant, days: i64) -> Vec<Instant> {
        let is_time_of_day = self.minute.is_one && self.hour.is_one;
        let local = |at: Instant| at.with_timezone(&zone).naive_local();
        let is_slot = |at: &Instant| {
            let now = local(*at);
            let before = local(*at - TimeDelta::minutes(1));
            if !is_time_of_day {
                return self.has(now);
            }
            let is_first = || zone.from_local_datetime(&now).earliest().unwrap() == *at;
            let mut left_out =
                std::iter::successors(Some(before + TimeDelta::minutes(1)), |minute| {
                    Some(*minute + TimeDelta::minutes(1))
                })
                .take_while(|minute| *minute < now);
            let carried = left_out.any(|minute| self.has(minute)) && self.has_day(now.date());
            carried || self.has(now) && is_first()
        };
        (1..=days * 24 * 60)
            .map(|minute| start + TimeDelta::minutes(minute))
            .filter(is_slot)
            .collect()
    }
}

fn grammar() -> impl Strategy<Value = Grammar> {
    let months = &[
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    let weekdays = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let anything = |part: BoxedStrategy<Part>, min, max: u32| {
        let star = Part {
            text: "*".to_owned(),
            values: (min..=max).collect(),
            is_one: false,
        };
        prop_oneof![3 => Just(star), 1 => part]
    };
    // The small hours, in which clocks change, are no rarer than the others.
    let hour = prop_oneof![
        part(0, 23, &[]),
        part(0, 4, &[]).prop_filter("a star is all hours", |part| {
            !part.text.starts_with('*')
        })
    ];
    (
        part(0, 59, &[]),
        hour,
        anything(part(1, 31, &[]).boxed(), 1, 31),
        anything(part(1, 12, months).boxed(), 1, 12),
        anything(part(0, 6, weekdays).boxed(), 0, 6),
    )
        .prop_map(|(minute, hour, day, month, weekday)| Grammar {
            minute,
            hour,
            day,
            month,
            weekday,
        })
        .prop_filter("it comes", |grammar| grammar.text().parse::<Cron>().is_ok())
}

/// Zones of all kinds: without changes, both hemispheres, half hours, two hours, changes at midnight, odd offsets.
const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "America/Nuuk",
    "Atlantic/Azores",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "Australia/Lord_Howe",
];

/// The hours of three years in which a zone's clock changes.
static CHANGES: LazyLock<Vec<(Tz, Instant)>> = LazyLock::new(|| {
    let start = utc("2025-01-01T00:00:00Z");
    let shown = |at: Instant, zone: Tz| at.with_timezone(&zone).naive_local();
    let changes = ZONES.iter().flat_map(|zone| {
        let zone: Tz = zone.parse().unwrap();
        (0..3 * 365 * 24)
            .map(|hour| start + TimeDelta::hours(hour))
            .filter(move |at| {
                let hour = TimeDelta::hours(1);
                shown(*at + hour, zone) - shown(*at, zone) != hour
            })
            .map(move |at| (zone, at))
    });
    changes.collect()
});

/// A zone and an instant, half of them around a change of its clock.
fn place() -> impl Strategy<Value = (Tz, Instant)> {
    let anywhere = (select(&ZONES[..]), 0..94_608_000_000_i64).prop_map(|(zone, millis)| {
        let start = utc("2025-01-01T00:00:00Z");
        (
            zone.parse().unwrap(),
            start + TimeDelta::milliseconds(millis),
        )
    });
    let at_a_change = (
        select(CHANGES.as_slice()),
        -180..180_i64,
        prop_oneof![Just(0), -60_000..60_000_i64],
    )
        .prop_map(|((zone, at), minutes, millis)| {
            (
                zone,
                at + TimeDelta::minutes(minutes) + TimeDelta::milliseconds(millis),
            )
        });
    prop_oneof![anywhere, at_a_change]
}

fn start_of_minute(at: Instant) -> Instant {
    DateTime::from_timestamp(at.timestamp().div_euclid(60) * 60, 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_slots_are_the_minutes_that_the_clock_shows_forwards_and_backwards(
        grammar in grammar(),
        (zone, near) in place(),
    ) {
        const DAYS: i64 = 3;
        let start = start_of_minute(near) - TimeDelta::days(1);
        let end = start + TimeDelta::days(DAYS);
        let expected = grammar.slots(zone, start, DAYS);

        let schedule = Schedule::new(&grammar.text(), zone.name(), Duration::ZERO).unwrap();
        let p = project("p");
        let next = |after: Instant| schedule.next(&p, None, after).map(|slot| slot.at);
        let latest = |by: Instant| schedule.latest(&p, None, by).map(|slot| slot.at);
        let found: Vec<Instant> = std::iter::successors(next(start), |at| next(*at))
            .take_while(|at| *at <= end)
            .collect();
        prop_assert_eq!(&found, &expected, "{} {}", grammar.text(), zone);
        let mut found: Vec<Instant> =
            std::iter::successors(latest(end), |at| latest(*at - TimeDelta::seconds(1)))
                .take_while(|at| *at > start)
                .collect();
        found.reverse();
        prop_assert_eq!(found, expected, "{} {}", grammar.text(), zone);
    }

    #[test]
    fn next_and_latest_are_inverse_and_nothing_is_between(
        grammar in grammar(),
        (zone, near) in place(),
        spread in prop_oneof![Just(0), Just(3000), 0..604_801_u64],
        id in "[a-z0-9]{1,8}",
        between in 0..1000_i64,
    ) {
        let schedule = Schedule::new("@hourly", zone.name(), Duration::from_secs(spread)).unwrap();
        let own: Cron = grammar.text().parse().unwrap();
        let p = project(&id);
        let next = |after| schedule.next(&p, Some(&own), after).unwrap();
        let latest = |by| schedule.latest(&p, Some(&own), by).unwrap();
        let moment = TimeDelta::milliseconds(1);

        let mut last = latest(near);
        prop_assert!(last.due_at <= near);
        prop_assert_eq!(next(last.due_at - moment), last);
        let mut after = near;
        for _ in 0..8 {
            let slot = next(after);
            let offset = slot.due_at - slot.at;
            prop_assert!(slot.due_at > after);
            prop_assert!(last.at <= last.due_at && last.due_at < slot.at && slot.at <= slot.due_at);
            prop_assert!(offset.num_seconds() <= i64::try_from(offset_seconds(&p, spread)).unwrap());
            prop_assert_eq!(next(last.due_at), slot);
            prop_assert_eq!(latest(slot.due_at), slot);
            prop_assert_eq!(latest(slot.due_at - moment), last);
            let way = (slot.due_at - last.due_at).num_milliseconds() - 1;
            let inside = last.due_at + TimeDelta::milliseconds(way * between / 1000);
            prop_assert_eq!(latest(inside), last);
            prop_assert_eq!(next(inside), slot);
            (last, after) = (slot, slot.due_at);
        }
    }

    #[test]
    fn no_text_makes_it_panic(cron in "\\PC{0,20}", fields in "[0-9*/,#LWA-Z+?-]{1,5}( [0-9*/,#LW+?-]{1,4}){4}") {
        if let Ok(read) = cron.parse::<Cron>() {
            prop_assert_eq!(read.to_string(), cron.trim());
        }
        if let Ok(own) = fields.parse::<Cron>() {
            let at = utc("2026-01-01T00:00:00Z");
            let slot = Schedule::new("@hourly", "Europe/Berlin", Duration::ZERO).unwrap().next(&project("p"), Some(&own), at);
            prop_assert!(slot.is_some_and(|slot| slot.at > at), "{}", fields);
        }
    }
}
