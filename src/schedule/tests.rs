//! The slots of known days, and the offsets of known projects.

use chrono::{LocalResult, NaiveDate, TimeZone as _};

use super::*;

const KNOWN_OFFSETS: [(&str, u64); 4] = [
    ("acme", 1872),
    ("project-0", 1975),
    ("a", 250),
    ("Customer_42.eu", 1472),
];

fn project(id: &str) -> ProjectId {
    id.parse().unwrap()
}

fn at_once(cron: &str, zone: &str) -> Schedule {
    Schedule::new(cron, zone, Duration::ZERO).unwrap()
}

fn utc(text: &str) -> Instant {
    text.parse().unwrap()
}

/// The slots of a day in the zone, as its clock shows them; those found backwards are the same.
fn day(cron: &str, zone: &str, date: &str) -> Vec<String> {
    let schedule = at_once(cron, zone);
    let p = project("p");
    let zone: Tz = zone.parse().unwrap();
    let date: NaiveDate = date.parse().unwrap();
    // The moment before the day's first, which is not at midnight everywhere.
    let midnight = |date: NaiveDate| {
        let midnight = date.and_hms_opt(0, 0, 0).unwrap();
        let first = (0..24)
            .map(|hour| zone.from_local_datetime(&(midnight + TimeDelta::hours(hour))))
            .find_map(LocalResult::earliest);
        first.unwrap().to_utc() - TimeDelta::milliseconds(1)
    };
    let (start, end) = (midnight(date), midnight(date.succ_opt().unwrap()));
    let onwards = |after: &Instant| Some(schedule.next(&p, None, *after)?.due_at);
    let found: Vec<Instant> = std::iter::successors(onwards(&start), onwards)
        .take_while(|at| *at <= end)
        .collect();
    let back = |by: Instant| Some(schedule.latest(&p, None, by)?.due_at);
    let mut backwards: Vec<Instant> =
        std::iter::successors(back(end), |at| back(*at - TimeDelta::milliseconds(1)))
            .take_while(|at| *at > start)
            .collect();
    backwards.reverse();
    assert_eq!(found, backwards);
    found
        .iter()
        .map(|at| at.with_timezone(&zone).format("%H:%M %Z").to_string())
        .collect()
}

/// The first slots after an instant, as the zone's clock shows them.
fn days(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = at_once(cron, zone);
    let p = project("p");
    let onwards = |after: &Instant| Some(schedule.next(&p, None, *after)?.due_at);
    std::iter::successors(onwards(&utc(after)), onwards)
        .take(count)
        .map(|at| at.with_timezone(&schedule.zone))
        .map(|at| at.format("%Y-%m-%d %H:%M").to_string())
        .collect()
}

#[test]
fn every_hour_has_one_slot_on_days_of_23_24_and_25_hours() {
    for (zone, date, count, around) in [
        (
            "Europe/Berlin",
            "2026-03-29",
            23,
            ["01:00 CET", "03:00 CEST", "04:00 CEST"].as_slice(),
        ),
        (
            "Europe/Berlin",
            "2026-10-25",
            25,
            &["01:00 CEST", "02:00 CEST", "02:00 CET", "03:00 CET"],
        ),
        ("Europe/Berlin", "2026-06-01", 24, &["01:00 CEST"]),
        (
            "America/New_York",
            "2026-03-08",
            23,
            &["01:00 EST", "03:00 EDT", "04:00 EDT"],
        ),
        (
            "America/New_York",
            "2026-11-01",
            25,
            &["00:00 EDT", "01:00 EDT", "01:00 EST", "02:00 EST"],
        ),
        // The clock moves by half an hour, so a full hour comes after an hour and a half.
        (
            "Australia/Lord_Howe",
            "2026-10-04",
            23,
            &["01:00 +1030", "03:00 +11"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            24,
            &["01:00 +11", "02:00 +1030"],
        ),
        ("UTC", "2026-03-29", 24, &["01:00 UTC", "02:00 UTC"]),
    ] {
        let found = day("0 * * * *", zone, date);
        assert_eq!(found.len(), count, "{zone} {date}: {found:?}");
        assert!(
            found.windows(around.len()).any(|window| window == around),
            "{zone} {date}: {found:?}"
        );
    }
}

#[test]
fn every_quarter_of_an_hour_has_one_slot_whatever_the_clock_does() {
    for (zone, date, count, around) in [
        (
            "Europe/Berlin",
            "2026-03-29",
            92,
            ["01:45 CET", "03:00 CEST", "03:15 CEST"].as_slice(),
        ),
        (
            "Europe/Berlin",
            "2026-10-25",
            100,
            &["02:45 CEST", "02:00 CET", "02:15 CET"],
        ),
        (
            "America/New_York",
            "2026-03-08",
            92,
            &["01:45 EST", "03:00 EDT"],
        ),
        (
            "America/New_York",
            "2026-11-01",
            100,
            &["01:45 EDT", "01:00 EST"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-04",
            94,
            &["01:45 +1030", "02:30 +11"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            98,
            &["01:45 +11", "01:30 +1030", "01:45 +1030", "02:00 +1030"],
        ),
    ] {
        let found = day("*/15 * * * *", zone, date);
        assert_eq!(found.len(), count, "{zone} {date}: {found:?}");
        assert!(
            found.windows(around.len()).any(|window| window == around),
            "{zone} {date}: {found:?}"
        );
    }
}

#[test]
fn a_time_of_day_comes_once_a_day_whatever_the_clock_does() {
    for (cron, zone, date, expected) in [
        // Left out: at the first moment that there is.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", "03:00 CEST"),
        ("30 2 * * *", "America/New_York", "2026-03-08", "03:00 EDT"),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-04",
            "02:30 +11",
        ),
        ("0 0 * * *", "Africa/Cairo", "2026-04-24", "01:00 EEST"),
        // Twice: at the first.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", "02:30 CEST"),
        ("30 1 * * *", "America/New_York", "2026-11-01", "01:30 EDT"),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-05",
            "01:45 +11",
        ),
        // Beside it.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", "02:30 CET"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-30", "02:30 CEST"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-26", "02:30 CET"),
        ("0 3 * * *", "Europe/Berlin", "2026-03-29", "03:00 CEST"),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25", "03:00 CET"),
        ("0 3 * * *", "America/New_York", "2026-03-08", "03:00 EDT"),
        ("0 3 * * *", "America/New_York", "2026-11-01", "03:00 EST"),
        (
            "30 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-04",
            "02:30 +11",
        ),
        (
            "30 2 * * *",
            "Australia/Lord_Howe",
            "2026-04-05",
            "02:30 +1030",
        ),
        ("@daily", "Europe/Berlin", "2026-03-29", "00:00 CET"),
    ] {
        assert_eq!(day(cron, zone, date), [expected], "{cron} {zone} {date}");
    }
}

#[test]
fn several_times_of_day_are_read_off_the_clock() {
    let berlin = |date| day("30 2,14 * * *", "Europe/Berlin", date);
    assert_eq!(berlin("2026-03-29"), ["14:30 CEST"]);
    assert_eq!(
        berlin("2026-10-25"),
        ["02:30 CEST", "02:30 CET", "14:30 CET"]
    );
}

#[test]
fn a_day_that_a_zone_left_out_stops_nothing() {
    assert_eq!(
        days("30 2 * * *", "Pacific/Apia", "2011-12-28T13:00:00Z", 4),
        [
            "2011-12-29 02:30",
            "2011-12-31 02:30",
            "2012-01-01 02:30",
            "2012-01-02 02:30"
        ]
    );
    let schedule = at_once("30 2 * * *", "Pacific/Apia");
    // 01:00 on the 31st, whose day before was the 29th.
    let slot = schedule.latest(&project("p"), None, utc("2011-12-30T11:00:00Z"));
    assert_eq!(slot.unwrap().at, utc("2011-12-29T12:30:00Z"));
}

#[test]
fn months_years_and_leap_days_end_where_they_do() {
    for (cron, after, expected) in [
        (
            "0 0 29 2 *",
            "2026-01-01T00:00:00Z",
            ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"],
        ),
        (
            "0 0 29 2 *",
            "2092-03-01T00:00:00Z",
            ["2096-02-29 00:00", "2104-02-29 00:00", "2108-02-29 00:00"],
        ),
        (
            "0 12 31 * *",
            "2026-01-31T12:00:00Z",
            ["2026-03-31 12:00", "2026-05-31 12:00", "2026-07-31 12:00"],
        ),
        (
            "0 0 L * *",
            "2027-12-31T00:00:00Z",
            ["2028-01-31 00:00", "2028-02-29 00:00", "2028-03-31 00:00"],
        ),
        (
            "59 23 * * *",
            "2026-12-30T23:59:00Z",
            ["2026-12-31 23:59", "2027-01-01 23:59", "2027-01-02 23:59"],
        ),
        (
            "*/30 * * * *",
            "2026-12-31T23:15:00Z",
            ["2026-12-31 23:30", "2027-01-01 00:00", "2027-01-01 00:30"],
        ),
        (
            "@yearly",
            "2026-01-01T00:00:00Z",
            ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"],
        ),
        // A day fits by its number or by its weekday, or with a plus by both.
        (
            "0 0 13 * FRI",
            "2026-02-01T00:00:00Z",
            ["2026-02-06 00:00", "2026-02-13 00:00", "2026-02-20 00:00"],
        ),
        (
            "0 0 13 * +FRI",
            "2026-02-01T00:00:00Z",
            ["2026-02-13 00:00", "2026-03-13 00:00", "2026-11-13 00:00"],
        ),
        (
            "0 6 * * SAT-SUN",
            "2026-01-01T00:00:00Z",
            ["2026-01-03 06:00", "2026-01-04 06:00", "2026-01-10 06:00"],
        ),
    ] {
        assert_eq!(days(cron, "UTC", after, 3), expected, "{cron}");
    }
}

#[test]
fn a_slot_is_never_due_at_the_instant_it_is_sought_after() {
    let schedule = at_once("0 * * * *", "UTC");
    let p = project("p");
    let next = |after| schedule.next(&p, None, utc(after)).unwrap().due_at;
    let latest = |by| schedule.latest(&p, None, utc(by)).unwrap().due_at;
    assert_eq!(
        next("2026-01-01T00:59:59.999Z"),
        utc("2026-01-01T01:00:00Z")
    );
    assert_eq!(
        next("2026-01-01T01:00:00.000Z"),
        utc("2026-01-01T02:00:00Z")
    );
    assert_eq!(
        latest("2026-01-01T00:59:59.999Z"),
        utc("2026-01-01T00:00:00Z")
    );
    assert_eq!(
        latest("2026-01-01T01:00:00.000Z"),
        utc("2026-01-01T01:00:00Z")
    );
    assert_eq!(
        latest("2026-01-01T01:00:00.001Z"),
        utc("2026-01-01T01:00:00Z")
    );
}

#[test]
fn the_ends_of_time_have_no_slots() {
    let schedule = at_once("0 * * * *", "UTC");
    let p = project("p");
    assert_eq!(schedule.next(&p, None, utc("5001-01-01T00:00:00Z")), None);
    assert_eq!(schedule.latest(&p, None, utc("0000-01-01T00:00:00Z")), None);
}

#[test]
fn the_offset_of_a_project_is_known_for_ever() {
    // printf %s ID | sha256sum | cut -c1-16, as a number, modulo 3000
    for (id, expected) in KNOWN_OFFSETS {
        assert_eq!(offset_seconds(&project(id), 3000), expected, "{id}");
    }
    assert_eq!(offset_seconds(&project("acme"), 0), 0);

    let schedule = Schedule::new("0 * * * *", "UTC", Duration::from_mins(50)).unwrap();
    let slot = schedule.next(&project("acme"), None, utc("2026-01-01T00:59:59Z"));
    let at = utc("2026-01-01T01:00:00Z");
    let due_at = at + TimeDelta::seconds(i64::try_from(KNOWN_OFFSETS[0].1).unwrap());
    assert_eq!(slot, Some(Slot { at, due_at }));
}

#[test]
fn a_thousand_projects_spread_evenly() {
    let hourly = Schedule::new("0 * * * *", "UTC", Duration::from_mins(50)).unwrap();
    let quarters: Cron = "*/15 * * * *".parse().unwrap();
    for (own, window) in [(None, 3000), (Some(&quarters), 900)] {
        let mut tenths = [0; 10];
        for number in 0..1000 {
            let p = project(&format!("project-{number}"));
            let slot = hourly.latest(&p, own, utc("2026-01-01T01:59:59Z")).unwrap();
            let offset = (slot.due_at - slot.at).num_seconds();
            assert!((0..window).contains(&offset));
            tenths[usize::try_from(offset * 10 / window).unwrap()] += 1;
        }
        assert!(
            tenths.iter().all(|count| (50..=200).contains(count)),
            "{tenths:?}"
        );
    }
}

#[test]
fn a_spread_wider_than_the_way_to_the_next_slot_shrinks_in_proportion() {
    let schedule =
        Schedule::new("0 * * * *", "Australia/Lord_Howe", Duration::from_mins(50)).unwrap();
    let quarters: Cron = "*/15 * * * *".parse().unwrap();
    let half_past: Cron = "30 * * * *".parse().unwrap();
    for id in ["acme", "b", "c", "z.9"] {
        let p = project(id);
        let offset = |own, after| {
            let slot = schedule.next(&p, own, utc(after)).unwrap();
            (slot.due_at - slot.at).num_seconds()
        };
        let whole = offset(None, "2026-06-01T00:00:00Z");
        assert_eq!(
            offset(Some(&quarters), "2026-06-01T00:00:00Z"),
            whole * 900 / 3000
        );
        // 01:30 is half an hour before 02:30 in the night in which the half hour between is left out.
        assert_eq!(
            offset(Some(&half_past), "2026-10-03T14:59:59Z"),
            whole * 1800 / 3000
        );
        assert_eq!(offset(Some(&half_past), "2026-10-03T15:30:00Z"), whole);
    }
}

#[test]
fn an_unknown_time_zone_is_told_with_the_nearest() {
    let error = |zone: &str| {
        Schedule::new("@hourly", zone, Duration::ZERO)
            .unwrap_err()
            .to_string()
    };
    for (zone, meant) in [
        ("Europe/Berlinn", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("America/NewYork", "America/New_York"),
        ("Asia/Kolkatta", "Asia/Kolkata"),
        ("utc", "UTC"),
    ] {
        assert_eq!(
            error(zone),
            format!("'{zone}' is no time zone; did you mean '{meant}'?")
        );
    }
    for zone in ["", "PST", "GMT+2", "+02:00", "Mars/Olympus_Mons"] {
        assert_eq!(
            error(zone),
            format!("'{zone}' is no time zone; write 'UTC' or a name such as 'Europe/Berlin'")
        );
    }
}

#[test]
fn a_project_is_stale_that_has_missed_two_slots() {
    let before = |cron: &str, spread, now: &str| {
        let spread = Duration::from_mins(spread);
        let schedule = Schedule::new(cron, "Europe/Berlin", spread).unwrap();
        schedule.stale_before(None, utc(now)).to_rfc3339()
    };
    for (cron, spread, now, expected) in [
        // All are due by 12:50 and had until 13:00.
        (
            "0 * * * *",
            50,
            "2026-11-23T12:59:59Z",
            "2026-11-23T10:00:00+00:00",
        ),
        (
            "0 * * * *",
            50,
            "2026-11-23T13:00:00Z",
            "2026-11-23T11:00:00+00:00",
        ),
        (
            "0 * * * *",
            50,
            "2026-11-23T13:59:59Z",
            "2026-11-23T11:00:00+00:00",
        ),
        (
            "0 * * * *",
            0,
            "2026-11-23T13:09:59Z",
            "2026-11-23T11:00:00+00:00",
        ),
        (
            "0 * * * *",
            0,
            "2026-11-23T13:10:00Z",
            "2026-11-23T12:00:00+00:00",
        ),
        // The spread shrinks to the five minutes between two times.
        (
            "*/5 * * * *",
            50,
            "2026-11-23T12:14:59Z",
            "2026-11-23T11:50:00+00:00",
        ),
        (
            "*/5 * * * *",
            50,
            "2026-11-23T12:15:00Z",
            "2026-11-23T11:55:00+00:00",
        ),
        // Two nights, the first of them at the end of summer time.
        (
            "30 4 * * *",
            50,
            "2026-10-26T12:00:00Z",
            "2026-10-25T03:30:00+00:00",
        ),
        (
            "30 4 * * *",
            50,
            "2026-10-25T12:00:00Z",
            "2026-10-24T02:30:00+00:00",
        ),
    ] {
        assert_eq!(
            before(cron, spread, now),
            expected,
            "{cron}, {spread} min, {now}"
        );
    }
    let hourly = at_once("0 * * * *", "UTC");
    let own: Cron = "@monthly".parse().unwrap();
    assert_eq!(
        hourly.stale_before(Some(&own), utc("2026-11-23T12:00:00Z")),
        utc("2026-10-01T00:00:00Z")
    );
}
