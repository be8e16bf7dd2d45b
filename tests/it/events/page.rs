//! docs/events.md, read; and log lines held to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use serde_json::{Map, Value};

/// What every line has.
pub(crate) const ON_EVERY_LINE: [&str; 6] =
    ["timestamp", "level", "target", "message", "event", "spans"];

/// What the page says of an event or a span.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) levels: BTreeSet<String>,
    /// The fields that are always there.
    pub(crate) always: BTreeSet<String>,
    pub(crate) at_times: BTreeSet<String>,
}

/// The page's tables.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) events: BTreeMap<String, Event>,
    pub(crate) spans: BTreeMap<String, Event>,
    /// The type of each field.
    pub(crate) fields: BTreeMap<String, String>,
}

/// The page as it is.
pub(crate) fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page::parse(&text()));
    &PAGE
}

pub(crate) fn text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md")).unwrap()
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut header: Vec<String> = Vec::new();
        for line in text.lines() {
            let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
                header.clear();
                continue;
            };
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells.iter().all(|cell| cell.starts_with("---")) {
                continue;
            }
            if header.is_empty() {
                header = cells.iter().map(|&cell| cell.to_owned()).collect();
                continue;
            }
            assert_eq!(cells.len(), header.len(), "{line}");
            let of = |title: &str| header.iter().position(|it| it == title).map(|at| cells[at]);
            let known = if let (Some(name), Some(levels), Some(fields)) =
                (of("event"), of("level"), of("fields"))
            {
                page.events
                    .insert(code(name), event(levels, fields))
                    .is_some()
            } else if let (Some(name), Some(level), Some(fields)) =
                (of("span"), of("level"), of("fields"))
            {
                page.spans
                    .insert(code(name), event(level, fields))
                    .is_some()
            } else if let (Some(name), Some(kind)) = (of("field"), of("type")) {
                page.fields.insert(code(name), kind.to_owned()).is_some()
            } else {
                false
            };
            assert!(!known, "twice: {line}");
        }
        page
    }
}

fn code(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

fn event(levels: &str, fields: &str) -> Event {
    let names = |text: &str| -> BTreeSet<String> {
        let names = text.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let (always, at_times) = fields.split_once("at times").unwrap_or((fields, ""));
    Event {
        levels: levels.split(", ").map(str::to_owned).collect(),
        always: names(always),
        at_times: names(at_times),
    }
}

/// Holds a line of a log to the page, if it is JSON and ours.
#[track_caller]
pub(crate) fn hold(line: &str) {
    if let Ok(Value::Object(line)) = serde_json::from_str::<Value>(line)
        && let Some(wrong) = wrong(page(), &line)
    {
        panic!(
            "not as docs/events.md has it: {wrong} in {}",
            Value::Object(line)
        );
    }
}

/// What contradicts the page.
fn wrong(page: &Page, line: &Map<String, Value>) -> Option<String> {
    if !line.get("target")?.as_str()?.starts_with("catalog_sync") {
        return None;
    }
    let Some(name) = line.get("event").and_then(Value::as_str) else {
        return Some("there is no event".to_owned());
    };
    let Some(event) = page.events.get(name) else {
        return Some(format!("the event {name} is unknown"));
    };
    let level = line
        .get("level")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !event.levels.contains(&level.to_lowercase()) {
        return Some(format!("the level is {level}"));
    }
    for name in ["timestamp", "message"] {
        if !line.contains_key(name) {
            return Some(format!("{name} is missing"));
        }
    }
    if let Some(missing) = event.always.iter().find(|field| !line.contains_key(*field)) {
        return Some(format!("{missing} is missing"));
    }
    for (field, value) in line {
        let is_its = event.always.contains(field) || event.at_times.contains(field);
        if !is_its && !ON_EVERY_LINE.contains(&field.as_str()) {
            return Some(format!("{field} is not a field of it"));
        }
        if let Some(wrong) = mistyped(page, field, value) {
            return Some(wrong);
        }
    }
    for span in line
        .get("spans")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(wrong) = wrong_span(page, span) {
            return Some(wrong);
        }
    }
    None
}

fn wrong_span(page: &Page, span: &Value) -> Option<String> {
    let name = span["name"].as_str()?;
    let Some(known) = page.spans.get(name) else {
        return Some(format!("the span {name} is unknown"));
    };
    for (field, value) in span.as_object()? {
        if field == "name" {
            continue;
        }
        if !known.always.contains(field) && !known.at_times.contains(field) {
            return Some(format!("{field} is not a field of the span {name}"));
        }
        if let Some(wrong) = mistyped(page, field, value) {
            return Some(wrong);
        }
    }
    None
}

fn mistyped(page: &Page, field: &str, value: &Value) -> Option<String> {
    let kind = page.fields.get(field).map_or("no", String::as_str);
    let fits = match kind {
        "text" => value.is_string(),
        "count" => value.is_u64(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "list" => value.is_array(),
        "time" => value.as_str().is_some_and(|text| {
            text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok()
        }),
        _ => false,
    };
    (!fits).then(|| format!("{field} is {value}, and {kind} by the page"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PAGE: &str = "\
| event | level | when | fields | what to do |
|---|---|---|---|---|
| `a.b` | info, warn | it is | `id`, `took_ms`; at times `until` | nothing |

| span | level | around | fields |
|---|---|---|---|
| `sync` | debug | a run | `id` |

| field | type | meaning |
|---|---|---|
| `timestamp` | time | when |
| `level` | text | how bad |
| `target` | text | where |
| `message` | text | what |
| `event` | text | which |
| `spans` | list | within what |
| `id` | text | whose |
| `took_ms` | count | how long |
| `until` | time | how long |
";

    #[test]
    fn a_line_is_held_to_the_page() {
        let page = Page::parse(PAGE);
        let sound = json!({
            "timestamp": "2026-11-23T05:44:00.123456Z", "level": "WARN", "target": "catalog_sync::sync", "message": "m",
            "event": "a.b", "id": "acme", "took_ms": 12, "until": "2026-11-23T05:44:00Z",
            "spans": [{ "name": "sync", "id": "acme" }],
        });
        let with = |field: &str, value: Value| {
            let mut line = sound.as_object().unwrap().clone();
            if value.is_null() {
                line.remove(field);
            } else {
                line.insert(field.to_owned(), value);
            }
            wrong(&page, &line)
        };
        for (field, value) in [
            ("id", json!("other")),
            ("level", json!("INFO")),
            ("until", Value::Null),
            ("spans", Value::Null),
        ] {
            assert_eq!(with(field, value.clone()), None, "{field}: {value}");
        }
        for (field, value) in [
            ("event", Value::Null),
            ("event", json!("a.c")),
            ("level", json!("ERROR")),
            ("message", Value::Null),
            ("timestamp", json!("2026-11-23 05:44")),
            ("id", Value::Null),
            ("id", json!(7)),
            ("took_ms", json!("12")),
            ("took_ms", json!(-12)),
            ("took_ms", json!(1.5)),
            ("until", json!("2026-11-23 05:44:00 UTC")),
            ("until", json!("2026-11-23T05:44:00+01:00")),
            ("more", json!(1)),
            ("spans", json!([{ "name": "other" }])),
            ("spans", json!([{ "name": "sync", "took_ms": 1 }])),
            ("spans", json!([{ "name": "sync", "id": 1 }])),
        ] {
            assert!(with(field, value.clone()).is_some(), "{field}: {value}");
        }
        let foreign = json!({ "target": "sqlx::query", "level": "WARN" });
        assert_eq!(wrong(&page, foreign.as_object().unwrap()), None);
    }
}
