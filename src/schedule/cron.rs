//! Cron expressions: five fields, checked when they are read.
//!
//! What must hold: a [`Cron`] fires, and is read as it is commonly understood. croner does the reading; what it takes too
//! lightly (a name in any field, an empty place in a list) is refused here, and each refusal names the field.

use std::{fmt, str::FromStr};

use chrono::DateTime;
use croner::parser::{CronParser, Seconds, Year};

use super::Error;

/// A cron expression that was checked: minute, hour, day of the month, month and weekday, or a nickname such as `@daily`.
///
/// A day matches when its number or its weekday does, if both fields are given (a `+` before the weekday asks for both).
/// `L` is the last day or, as `5L`, the last Friday of the month, `15W` the working day nearest the 15th, `1#2` the
/// second Monday.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    written: String,
    pub(super) pattern: croner::Cron,
}

/// The years of which at least one minute must fit. The leap days are in them, and no clock is read to check a text.
const YEARS: &str = "2024-2031";

const NICKNAMES: [&str; 6] = [
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
];

struct Field {
    name: &'static str,
    names: &'static [&'static str],
    /// The letters that mean something by themselves.
    letters: &'static str,
    write: &'static str,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        names: &[],
        letters: "",
        write: "0 to 59, such as '5', '0,30', '10-20' or '*/15'",
    },
    Field {
        name: "hour",
        names: &[],
        letters: "",
        write: "0 to 23, such as '3', '6,18', '9-17' or '*/2'",
    },
    Field {
        name: "day of the month",
        names: &[],
        letters: "LW",
        write: "1 to 31, such as '1', '1,15', '1-7' or 'L' for the last",
    },
    Field {
        name: "month",
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        letters: "",
        write: "1 to 12 or JAN to DEC, such as '6', '1,7' or 'JAN-MAR'",
    },
    Field {
        name: "weekday",
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        letters: "",
        write: "0 to 7 or SUN to SAT (0 and 7 are Sunday), such as '1-5', 'SAT,SUN' or '5L' for the month's last Friday",
    },
];

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let written = text.trim().to_owned();
        match check(&written) {
            Ok(pattern) => Ok(Self { written, pattern }),
            Err(wrong) => Err(Error::Cron {
                cron: written,
                wrong,
            }),
        }
    }
}

/// As it was written.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

/// As it was written.
impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.written).finish()
    }
}

/// What a text means, or what is wrong with it, as the rest of a sentence that begins with the text.
fn check(text: &str) -> Result<croner::Cron, String> {
    if text.starts_with('@') {
        if !NICKNAMES.contains(&text.to_lowercase().as_str()) {
            let known = NICKNAMES.join(", ");
            return Err(format!("is no nickname; there are {known}"));
        }
    } else {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            let seconds = if fields.len() == 6 {
                ", no seconds"
            } else {
                ""
            };
            let s = if fields.len() == 1 { "" } else { "s" };
            return Err(format!(
                "has {} field{s}; write five{seconds}: minute, hour, day of the month, month, weekday, such as '0 * * * *'",
                fields.len()
            ));
        }
        for (position, (field, value)) in FIELDS.iter().zip(fields).enumerate() {
            if !field.takes(value, position) {
                let Field { name, write, .. } = field;
                return Err(format!("has '{value}' for the {name}; write {write}"));
            }
        }
    }
    let pattern = parse(text).map_err(|error| format!("is not understood ({error})"))?;
    // Without the years, croner would look up to the year 5000; who waits longer than these has made a mistake.
    let bounded = format!("0 {} {YEARS}", pattern.as_str());
    let start = DateTime::UNIX_EPOCH;
    CronParser::new()
        .parse(&bounded)
        .and_then(|bounded| bounded.find_next_occurrence(&start, true))
        .map_err(|_| {
            format!("never comes: no day in the years {YEARS} fits; check the day and the month")
        })?;
    Ok(pattern)
}

impl Field {
    fn takes(&self, value: &str, position: usize) -> bool {
        let value = value.to_uppercase();
        let is_word = |word: &str| {
            let last = word.strip_suffix('L').filter(|word| !word.is_empty());
            let word = last.unwrap_or(word);
            let is_letter = |c: char| !c.is_alphabetic() || self.letters.contains(c);
            self.names.contains(&word) || word.chars().all(is_letter)
        };
        // croner takes the last SUN of 'SUN-SUN' for a 7, and so the range for the whole week.
        let is_whole_week = value.contains("SUN-SUN");
        let alone = |at| if at == position { &value } else { "*" };
        let expression: Vec<&str> = (0..FIELDS.len()).map(alone).collect();
        value.split(',').all(|item| !item.is_empty())
            && value.split([',', '-', '/', '#', '+']).all(is_word)
            && !is_whole_week
            && parse(&expression.join(" ")).is_ok()
    }
}

fn parse(text: &str) -> Result<croner::Cron, croner::errors::CronError> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(cron: &str) -> String {
        cron.parse::<Cron>().unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_cron_is_told_with_what_is_wrong_and_how_to_write_it() {
        let hour = "write 0 to 23, such as '3', '6,18', '9-17' or '*/2'";
        let five = "minute, hour, day of the month, month, weekday, such as '0 * * * *'";
        for (cron, expected) in [
            ("", format!("'' has 0 fields; write five: {five}")),
            ("5", format!("'5' has 1 field; write five: {five}")),
            (
                "* * * *",
                format!("'* * * *' has 4 fields; write five: {five}"),
            ),
            (
                "0 0 * * * *",
                format!("'0 0 * * * *' has 6 fields; write five, no seconds: {five}"),
            ),
            (
                "0 0 0 * * * 2026",
                format!("'0 0 0 * * * 2026' has 7 fields; write five: {five}"),
            ),
            (
                "0 24 * * *",
                format!("'0 24 * * *' has '24' for the hour; {hour}"),
            ),
            (
                "0 0 31 2 *",
                "'0 0 31 2 *' never comes: no day in the years 2024-2031 fits; check the day and the month"
                    .to_owned(),
            ),
            (
                "@fortnightly",
                "'@fortnightly' is no nickname; there are @hourly, @daily, @weekly, @monthly, @yearly, @annually"
                    .to_owned(),
            ),
        ] {
            assert_eq!(wrong(cron), expected);
        }
        for (field, values) in [
            (
                "minute",
                "60 -1 a MON 1MON */0 /5 5/5 1,,2 , 9-1 1.5 ? L 99999",
            ),
            ("hour", "24 -1 JAN 5-JUN 0-24 1-2-3 */x"),
            ("day of the month", "0 32 MON FIRST 5L 1#2 0W W ٣"),
            ("month", "0 13 FEBRUARY MON JANFEB L SEP-MAR JANL"),
            (
                "weekday",
                "8 SUNDAY MOO JAN MON2 MON#6 6W FRI-MON ++1 1+ SUN5 SUN-SUN L",
            ),
        ] {
            let position = FIELDS.iter().position(|known| known.name == field).unwrap();
            for value in values.split(' ') {
                let mut fields = ["*"; 5];
                fields[position] = value;
                let error = wrong(&fields.join(" "));
                let expected = format!("has '{value}' for the {field}; write ");
                assert!(error.contains(&expected), "{error}");
            }
        }
        for never in [
            "0 0 30 2 *",
            "0 0 31 4,6,9,11 *",
            "0 0 1 * +MON#5",
            "0 0 31 SEP +MON",
        ] {
            assert!(wrong(never).contains(" never comes: "), "{never}");
        }
    }

    #[test]
    fn a_right_cron_is_shown_as_it_was_written() {
        for cron in [
            "0 * * * *",
            "*/15  9-17 *  jan-Mar,12 MON-fri",
            "0 0 29 2 *",
            "5,10-20/5 0 L * *",
            "0 0 LW,15W * ?",
            "0 0 * * 5L",
            "0 0 * * FRIL,1#2",
            "0 0 * * sat-sun",
            "0 0 13 * +5",
            "@hourly",
            "@Daily",
            "@weekly",
            "@monthly",
            "@yearly",
            "@annually",
        ] {
            let parsed: Cron = cron.parse().unwrap();
            assert_eq!(parsed.to_string(), cron);
            assert_eq!(format!("{parsed:?}"), format!("Cron({cron:?})"));
            assert_eq!(parsed, format!(" {cron}\n").parse().unwrap());
        }
    }
}
