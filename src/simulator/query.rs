//! The query of a request, checked against what its endpoint takes.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::endpoint::{Accepts, Endpoint, Kind, Parameter};
use super::refusal::Refusal;

const DEFAULT_ROWS: usize = 50;
const DEFAULT_LINKED: usize = 10;

/// A checked query.
#[derive(Debug)]
pub(super) struct Query<'a> {
    path: &'a str,
    pairs: &'a [(String, String)],
    offset: usize,
    most: Option<NonZeroU32>,
}

impl<'a> Query<'a> {
    /// Checks every parameter: a known name, once, with values that it takes.
    pub(super) fn parse(
        endpoint: &Endpoint,
        path: &'a str,
        pairs: &'a [(String, String)],
    ) -> Result<Self, Refusal> {
        let mut offset = 0;
        for (index, (name, value)) in pairs.iter().enumerate() {
            let Some(parameter) = endpoint
                .parameters
                .iter()
                .find(|parameter| parameter.name == name)
            else {
                return Err(Refusal::illegal_parameter(
                    name,
                    format!("The parameter '{name}' can not be used with this request"),
                ));
            };
            if pairs.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(Refusal::illegal_parameter(
                    name,
                    format!("The parameter '{name}' can not be used more than once"),
                ));
            }
            check(parameter, value)?;
            if matches!(parameter.accepts, Accepts::Cursor) {
                offset = read_cursor(path, value).ok_or_else(|| {
                    Refusal::invalid_parameter(
                        name,
                        format!("'{value}' is not a valid cursor for this request"),
                    )
                })?;
            }
        }
        Ok(Self {
            path,
            pairs,
            offset,
            most: None,
        })
    }

    /// The same query of a server that lets no more than this many come at once.
    pub(super) const fn capped(mut self, most: Option<NonZeroU32>) -> Self {
        self.most = most;
        self
    }

    /// Where the page begins.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    /// The most rows on a page.
    pub(super) fn limit(&self) -> usize {
        self.cap(self.number("limit").unwrap_or(DEFAULT_ROWS))
    }

    /// The most linked resources of one resource.
    pub(super) fn linked_limit(&self, relationship: &str) -> usize {
        let asked = self.number(&format!("limit[{relationship}]"));
        self.cap(asked.unwrap_or(DEFAULT_LINKED))
    }

    fn cap(&self, asked: usize) -> usize {
        let most = self.most.and_then(|most| usize::try_from(most.get()).ok());
        most.map_or(asked, |most| asked.min(most))
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.value(name)?.parse().ok()
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.pairs
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn list(&self, name: &str) -> Option<impl Iterator<Item = &'a str>> {
        Some(self.value(name)?.split(','))
    }

    /// Whether a row with this value passes the filter; without the filter all do.
    pub(super) fn admits(&self, filter: &str, value: Option<&str>) -> bool {
        self.list(filter)
            .is_none_or(|mut values| values.any(|wanted| Some(wanted) == value))
    }

    pub(super) fn includes(&self, relationship: &str) -> bool {
        self.list("include")
            .is_some_and(|mut values| values.any(|value| value == relationship))
    }

    /// Whether this attribute or relationship is shown.
    pub(super) fn shows(&self, kind: &Kind, field: &str) -> bool {
        self.list(&format!("fields[{}]", kind.name))
            .is_none_or(|mut fields| fields.any(|named| named == field))
    }

    /// The path and query as asked.
    pub(super) fn here(&self) -> String {
        let pairs = self
            .pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        format!("{}{}", self.path, written(pairs))
    }

    /// The cursor of the page that begins at this row.
    pub(super) fn cursor(&self, offset: usize) -> String {
        URL_SAFE_NO_PAD.encode(format!("{offset}@{}", self.path))
    }

    /// The path and query of the page that begins at this row, with all else as asked.
    pub(super) fn page(&self, offset: usize) -> String {
        let cursor = self.cursor(offset);
        let limit = self.limit().to_string();
        let kept = self
            .pairs
            .iter()
            .filter(|(name, _)| name != "cursor" && name != "limit");
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs = [("cursor", cursor.as_str())]
            .into_iter()
            .chain(kept)
            .chain([("limit", limit.as_str())]);
        format!("{}{}", self.path, written(pairs))
    }
}

fn check(parameter: &Parameter, value: &str) -> Result<(), Refusal> {
    let name = parameter.name;
    let known = |one: &str| match parameter.accepts {
        Accepts::Of(values) => values.contains(&one),
        Accepts::FieldsOf(kind) => kind.has_field(one),
        Accepts::Any | Accepts::Cursor | Accepts::UpTo(_) => true,
    };
    if let Some(unknown) = value.split(',').find(|one| !known(one)) {
        return Err(Refusal::illegal_parameter(
            name,
            format!("'{unknown}' is not a valid value for the parameter '{name}'"),
        ));
    }
    if let Accepts::UpTo(most) = parameter.accepts {
        let within = value
            .parse::<u32>()
            .is_ok_and(|number| (1..=most).contains(&number));
        if !within || value.starts_with('+') {
            return Err(Refusal::invalid_parameter(
                name,
                format!(
                    "'{value}' is not a valid value for the parameter '{name}': it takes a number from 1 to {most}"
                ),
            ));
        }
    }
    Ok(())
}

/// A cursor is good for the listing that made it only.
fn read_cursor(path: &str, cursor: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (offset, listing) = text.split_once('@')?;
    (listing == path).then(|| offset.parse().ok()).flatten()
}

fn written<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        escape(name, &mut query);
        query.push('=');
        escape(value, &mut query);
    }
    query
}

fn escape(text: &str, into: &mut String) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.extend(
                [byte >> 4, byte & 15]
                    .into_iter()
                    .filter_map(|digit| HEX.get(usize::from(digit))),
            );
        }
    }
}
