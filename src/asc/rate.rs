//! What the response headers say of limits and time: `X-Rate-Limit`, `Retry-After`, `Date`.
//!
//! All three are hints from a server that documents none of their forms: what parses is kept, the rest is ignored.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::{budget::Budget, clock::Instant};

/// A wait that the server names is never taken for less than this..
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// ..or for more than this.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// A number with more digits than this is a time in UNIX milliseconds; the sibling App Store Server API sends those.
const SECONDS_DIGITS: usize = 9;

/// Reads `X-Rate-Limit: user-hour-lim:3600;user-hour-rem:3545;` in all the forms seen: absent, sent twice, joined by
/// commas, with minute limits in it. A limit of 0 says nothing, and no more is left than the limit. Of several hourly pairs the one with the least left counts.
#[must_use]
pub fn budget(headers: &HeaderMap) -> Option<Budget> {
    headers
        .get_all("x-rate-limit")
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|pairs| {
            let number = |name: &str| {
                pairs
                    .split(';')
                    .filter_map(|pair| pair.split_once(':'))
                    .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                    .and_then(|(_, number)| number.trim().parse().ok())
            };
            let limit = number("user-hour-lim").filter(|&limit| limit > 0)?;
            let left = number("user-hour-rem")?;
            Some(Budget {
                limit,
                left: left.min(limit),
            })
        })
        .min_by_key(|budget| budget.left)
}

/// Reads `Retry-After` as seconds, an HTTP date, or UNIX milliseconds, and clamps it to 1 s .. 1 h.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: Instant) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = |at: Instant| (at - now).to_std().unwrap_or(Duration::ZERO);
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok()?;
        if text.len() > SECONDS_DIGITS {
            until(DateTime::from_timestamp_millis(number)?)
        } else {
            Duration::from_secs(number.unsigned_abs())
        }
    } else {
        until(http_date(text)?)
    };
    Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

/// How far this machine's clock is ahead of Apple's, in seconds; negative when it is behind.
#[must_use]
pub fn clock_ahead(headers: &HeaderMap, now: Instant) -> Option<i64> {
    let date = http_date(headers.get(DATE)?.to_str().ok()?)?;
    Some((now - date).num_seconds())
}

fn http_date(text: &str) -> Option<Instant> {
    let seconds = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    DateTime::from_timestamp_millis(i64::try_from(seconds.as_millis()).ok()?)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn every_form_of_the_rate_header() {
        type Case<'a> = (&'a [&'a str], Option<(u64, u64)>);
        let cases: &[Case<'_>] = &[
            (&[], None),
            (
                &["user-hour-lim:3600;user-hour-rem:3545;"],
                Some((3600, 3545)),
            ),
            (&["user-hour-lim:3500;user-hour-rem:12"], Some((3500, 12))),
            (
                &[" User-Hour-Lim : 3600 ; user-hour-rem : 7 ;"],
                Some((3600, 7)),
            ),
            (&["user-minute-lim:150;user-minute-rem:149;"], None),
            (
                &["user-minute-lim:150;user-minute-rem:149;user-hour-lim:3600;user-hour-rem:3;"],
                Some((3600, 3)),
            ),
            (
                &["user-hour-lim:3600;user-hour-rem:9;,user-minute-lim:150;user-minute-rem:1;"],
                Some((3600, 9)),
            ),
            (
                &[
                    "user-hour-lim:3600;user-hour-rem:9;",
                    "user-hour-lim:3600;user-hour-rem:8;",
                ],
                Some((3600, 8)),
            ),
            (&["user-hour-lim:3600;user-hour-rem:;"], None),
            (&["user-hour-lim:many;user-hour-rem:9;"], None),
            (&["user-hour-rem:-4;user-hour-lim:3600"], None),
            (&["user-hour-lim:0;user-hour-rem:0;"], None),
            (
                &["user-hour-lim:3600;user-hour-rem:99999;"],
                Some((3600, 3600)),
            ),
            (&["garbage"], None),
            (&[""], None),
        ];
        for (values, expected) in cases {
            let pairs: Vec<_> = values
                .iter()
                .map(|value| ("x-rate-limit", *value))
                .collect();
            let found = budget(&headers(&pairs)).map(|budget| (budget.limit, budget.left));
            assert_eq!(found, *expected, "{values:?}");
        }
    }

    #[test]
    fn retry_after_in_three_forms_clamped() {
        let now = DateTime::from_timestamp_millis(1_795_000_000_000).unwrap();
        let millis = now.timestamp_millis();
        let date = |seconds: i64| {
            let at = SystemTime::UNIX_EPOCH
                + Duration::from_millis((millis + seconds * 1000).unsigned_abs());
            httpdate::fmt_http_date(at)
        };
        let cases = [
            ("5".to_owned(), Some(5)),
            (" 5 ".to_owned(), Some(5)),
            ("0".to_owned(), Some(1)),
            ("999999".to_owned(), Some(3600)),
            (date(30), Some(30)),
            (date(-30), Some(1)),
            (date(90_000), Some(3600)),
            ((millis + 45_000).to_string(), Some(45)),
            ((millis - 45_000).to_string(), Some(1)),
            ("99999999999999999999999".to_owned(), None),
            ("soon".to_owned(), None),
            (String::new(), None),
            ("-5".to_owned(), None),
            ("1.5".to_owned(), None),
        ];
        for (text, expected) in cases {
            let found =
                retry_after(&headers(&[("retry-after", &text)]), now).map(|wait| wait.as_secs());
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_date_header_tells_the_skew() {
        let now = DateTime::from_timestamp_millis(1_795_000_000_000).unwrap();
        let behind = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 - 90);
        assert_eq!(
            clock_ahead(&headers(&[("date", &httpdate::fmt_http_date(behind))]), now),
            Some(90)
        );
        assert_eq!(clock_ahead(&headers(&[("date", "yesterday")]), now), None);
    }
}
