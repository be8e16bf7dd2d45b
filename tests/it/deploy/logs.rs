//! Rules and pipelines for teams that watch logs alone: they know the events and fields that the code logs.

use std::{collections::BTreeSet, fs, path::Path};

use catalog_sync::diagnosis::Code;
use serde_yaml_ng::Value;

use super::{between, codes_for_people, path, shipped, words, yaml};

const RULES: &str = "deploy/loki/rules.yaml";
const VECTOR: &str = "deploy/vector/vector.yaml";

/// The text of all sources.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The events and the fields that the code logs.
fn logged() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut text = String::new();
    sources(&path("src"), &mut text);
    let events = text.split("event = \"").skip(1);
    let events = events.map(|rest| rest.split('"').next().unwrap().to_owned());
    let is_of_field = |it: char| it.is_ascii_alphanumeric() || "_.".contains(it);
    let fields = text.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches(['%', '?']);
        let field = words(line, is_of_field).next()?;
        let after = line.strip_prefix(field)?;
        (after.starts_with(" = ") || after == ",").then(|| field.to_owned())
    });
    (events.collect(), fields.collect())
}

fn expressions() -> Vec<String> {
    let rules = yaml(RULES)[0]["groups"][0]["rules"]
        .as_sequence()
        .unwrap()
        .clone();
    let expression = |rule: &Value| rule["expr"].as_str().unwrap().to_owned();
    rules.iter().map(expression).collect()
}

#[test]
fn rules_on_logs_know_the_events_and_fields_that_are_logged() {
    let (events, mut fields) = logged();
    assert!(events.contains("sync.finished") && fields.contains("project.id"));
    // What the log itself adds to each line.
    fields.extend(["level".to_owned(), "event".to_owned()]);
    let as_labels: BTreeSet<_> = fields.iter().map(|field| field.replace('.', "_")).collect();

    let mut named = BTreeSet::new();
    for expression in expressions() {
        let compared = ["event=\"", "event!~\"", "event=~\""];
        for names in compared
            .iter()
            .flat_map(|start| between(&expression, start, "\""))
        {
            named.extend(names.split('|').map(str::to_owned));
        }
        for by in between(&expression, "by (", ")") {
            for label in by.split(", ") {
                assert!(as_labels.contains(label), "{label} in {expression}");
            }
        }
        for filter in between(&expression, "|= \"", "\"")
            .iter()
            .filter(|it| it.contains('.'))
        {
            named.insert((*filter).to_owned());
        }
    }
    let vector = shipped(VECTOR);
    named.extend(
        between(&vector, ".event == \"", "\"")
            .into_iter()
            .map(str::to_owned),
    );
    for field in between(&vector, ".\"", "\"") {
        assert!(fields.contains(field), "{field} in {VECTOR}");
    }
    assert!(named.len() >= 6, "{named:?}");
    let unknown: Vec<_> = named.difference(&events).collect();
    assert!(unknown.is_empty(), "no such events are logged: {unknown:?}");
}

#[test]
fn what_a_person_must_mend_is_told_from_the_log_too() {
    let expected = codes_for_people(&[]);
    let expression = expressions().remove(0);
    let mut codes: Vec<_> = between(&expression, "error_code=~\"", "\"")[0]
        .split('|')
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, expected);

    let vector = yaml(VECTOR);
    let condition = vector[0]["transforms"]["to_act_on"]["condition"]
        .as_str()
        .unwrap();
    let list = between(condition, "includes([", "]")[0];
    let mut codes: Vec<_> = words(list, |it| it.is_ascii_lowercase() || it == '_').collect();
    codes.sort_unstable();
    assert_eq!(codes, expected);
    assert!(codes.contains(&Code::KeySealed.as_str()));
}

#[test]
fn what_is_sent_to_loki_is_the_stream_that_the_rules_read() {
    for expression in expressions() {
        assert!(
            expression.contains("{service=\"catalog-sync\"}"),
            "{expression}"
        );
    }
    assert!(shipped("deploy/loki/config.alloy").contains("service = \"catalog-sync\""));
    let vector = yaml(VECTOR);
    assert_eq!(
        vector[0]["sinks"]["loki"]["labels"]["service"],
        "catalog-sync"
    );
    // A sink that reads from what is not there would stay silent.
    let parts: Vec<_> = ["sources", "transforms"]
        .into_iter()
        .flat_map(|section| vector[0][section].as_mapping().unwrap().keys())
        .collect();
    for section in ["transforms", "sinks"] {
        for part in vector[0][section].as_mapping().unwrap().values() {
            for input in part["inputs"].as_sequence().unwrap() {
                assert!(parts.contains(&input), "{input:?}");
            }
        }
    }
}
