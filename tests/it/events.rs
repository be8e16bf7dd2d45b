//! docs/events.md and the code say the same: which events there are, at which levels, with which fields.
//!
//! What a daemon or a command really logs is held to the page by [`page::hold`], which the fixtures call with each line that they read.

pub(crate) mod page;
#[cfg(feature = "simulator")]
mod questions;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use self::{
    page::{Event, Page, page},
    scan::{Call, Site, scan},
};

/// Every call of the code, with the file it stands in.
fn calls() -> Vec<(PathBuf, Call)> {
    let mut calls = Vec::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = fs::read_to_string(&file).unwrap();
        let found = scan(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        calls.extend(found.into_iter().map(|call| (file.clone(), call)));
    }
    calls
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|it| it == "rs")
            && path.file_name().is_some_and(|it| it != "tests.rs")
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What the code says of its events, or of its spans.
fn told(of: impl Fn(&Call) -> Option<String>) -> BTreeMap<String, Event> {
    let mut told = BTreeMap::<String, Event>::new();
    for (_, call) in calls() {
        let Some(name) = of(&call) else { continue };
        let fields: BTreeSet<String> = call.fields.iter().cloned().collect();
        let event = told.entry(name).or_insert_with(|| Event {
            levels: BTreeSet::new(),
            always: fields.clone(),
            at_times: BTreeSet::new(),
        });
        event.levels.extend(call.levels.iter().cloned());
        event.at_times.extend(fields.iter().cloned());
        event.always.retain(|field| fields.contains(field));
    }
    told
}

/// What differs between the page and the code, a line each.
fn differences(page: &BTreeMap<String, Event>, code: &BTreeMap<String, Event>) -> Vec<String> {
    let mut differences = Vec::new();
    for name in page.keys().chain(code.keys()).collect::<BTreeSet<_>>() {
        let (Some(there), Some(here)) = (page.get(name), code.get(name)) else {
            let lacks = if page.contains_key(name) {
                "code"
            } else {
                "page"
            };
            differences.push(format!("{name}: the {lacks} lacks it"));
            continue;
        };
        if there.levels != here.levels {
            differences.push(format!(
                "{name}: {:?} on the page, {:?} in the code",
                there.levels, here.levels
            ));
        }
        let fields: BTreeSet<_> = there.always.union(&there.at_times).cloned().collect();
        // Of the code's, `at_times` has them all.
        for field in fields.symmetric_difference(&here.at_times) {
            let lacks = if fields.contains(field) {
                "code"
            } else {
                "page"
            };
            differences.push(format!("{name}: the {lacks} lacks its field {field}"));
        }
        for field in there.always.difference(&here.always) {
            if here.at_times.contains(field) {
                differences.push(format!("{name}: not every call has the field {field}"));
            }
        }
    }
    differences
}

fn event(call: &Call) -> Option<String> {
    match &call.site {
        Site::Event(name) => Some(name.clone()),
        _ => None,
    }
}

fn span(call: &Call) -> Option<String> {
    match &call.site {
        Site::Span(name) => Some(name.clone()),
        _ => None,
    }
}

#[test]
fn every_call_has_an_event() {
    let without: Vec<String> = calls()
        .iter()
        .filter(|(_, call)| call.site == Site::Nameless)
        .map(|(file, call)| format!("{}:{}", file.display(), call.line))
        .collect();
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn the_page_has_every_event_with_its_levels_and_fields_and_no_other() {
    let differences = differences(&page().events, &told(event));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_page_has_every_span_with_its_level_and_fields_and_no_other() {
    let differences = differences(&page().spans, &told(span));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_field_is_described_once_and_used() {
    let page = page();
    let mut used: BTreeSet<&str> = page::ON_EVERY_LINE.into_iter().collect();
    for event in page.events.values().chain(page.spans.values()) {
        used.extend(event.always.iter().map(String::as_str));
        used.extend(event.at_times.iter().map(String::as_str));
    }
    let described: BTreeSet<&str> = page.fields.keys().map(String::as_str).collect();
    assert_eq!(described, used);
}

#[test]
fn what_differs_is_found_in_both_directions() {
    let of = |text: &str| Page::parse(text).events;
    let there = of("| event | level | when | fields | what to do |
|---|---|---|---|---|
| `a.b` | info, warn | - | `x`; at times `y.z` | - |
| `gone` | info | - | | - |
");
    let code = |source: &str| {
        let mut told = BTreeMap::new();
        for call in scan(source).unwrap() {
            let fields: BTreeSet<String> = call.fields.iter().cloned().collect();
            let event = Event {
                levels: call.levels.iter().cloned().collect(),
                always: fields.clone(),
                at_times: fields,
            };
            told.insert(event_name(&call), event);
        }
        told
    };
    let here = code(
        r#"fn f() { tracing::info!(event = "a.b", x, w, "m"); tracing::info!(event = "new", "m"); }"#,
    );
    assert_eq!(
        differences(&there, &here),
        [
            r#"a.b: {"info", "warn"} on the page, {"info"} in the code"#,
            "a.b: the page lacks its field w",
            "a.b: the code lacks its field y.z",
            "gone: the code lacks it",
            "new: the page lacks it",
        ]
    );
}

fn event_name(call: &Call) -> String {
    event(call).expect("it has an event")
}
