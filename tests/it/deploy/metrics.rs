//! Prometheus' alerts and Grafana's dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Output},
};

use catalog_sync::diagnosis::Code;
use serde_yaml_ng::Value;

use super::{ask, between, codes_for_people, no, path, shipped, words, yaml, yes};

const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const CASES: [&str; 2] = ["alerts.test.yaml", "alerts.long.test.yaml"];
const DASHBOARD: &str = "deploy/grafana/catalog-sync.json";

/// The names of metrics in expressions or in what `/metrics` gives; a histogram's by its own name.
fn metric_names(text: &str) -> BTreeSet<String> {
    words(text, |it| it.is_ascii_alphanumeric() || it == '_')
        .filter(|word| word.starts_with("catalog_sync_"))
        .map(|word| {
            let suffixes = ["_bucket", "_sum", "_count"];
            let own = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
            own.unwrap_or(word).to_owned()
        })
        .collect()
}

/// The labels by which an expression chooses series of each metric.
fn labels_chosen(expression: &str) -> Vec<(String, String)> {
    let mut chosen = Vec::new();
    for (before, after) in expression
        .match_indices('{')
        .map(|(at, _)| expression.split_at(at))
    {
        let names = words(before, |it| it.is_ascii_alphanumeric() || it == '_');
        let metric = metric_names(names.last().unwrap_or_default());
        let (selector, _) = after.split_once('}').unwrap();
        for matcher in selector.trim_start_matches('{').split("\",") {
            let label = matcher.split(['=', '!']).next().unwrap().trim();
            chosen.extend(metric.iter().map(|name| (name.clone(), label.to_owned())));
        }
    }
    chosen
}

#[test]
fn names_and_labels_are_found_wherever_they_stand() {
    let text = "# TYPE catalog_sync_a_seconds histogram\ncatalog_sync_a_seconds_bucket{le=\"1\"} 2\ncatalog_sync_a_seconds_count 2\n\
                catalog_sync_b_total{code=\"x\"} 1\n";
    let names: Vec<_> = metric_names(text).into_iter().collect();
    assert_eq!(names, ["catalog_sync_a_seconds", "catalog_sync_b_total"]);
    let expression = r#"max by (x) (catalog_sync_a{code=~"a|b", state!="c"}) > sum(catalog_sync_b) and catalog_sync_c{d="e"}"#;
    assert_eq!(
        labels_chosen(expression),
        [("a", "code"), ("a", "state"), ("c", "d")]
            .map(|(name, label)| (format!("catalog_sync_{name}"), label.to_owned()))
    );
}

/// The metrics there are, each with its labels: the tables of the page, which another test holds to what a daemon gives.
fn metrics() -> BTreeMap<String, Vec<String>> {
    shipped("docs/metrics.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `catalog_sync_")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            let labels = cells
                .nth(1)?
                .split(", ")
                .map(|label| label.trim_matches('`'));
            let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
            Some((format!("catalog_sync_{name}"), labels.collect()))
        })
        .collect()
}

fn rules() -> Vec<Value> {
    yaml(ALERTS)[0]["groups"][0]["rules"]
        .as_sequence()
        .unwrap()
        .clone()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?}"))
}

/// The dashboard's expressions, with the variables of Grafana's set.
fn dashboard() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&shipped(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    targets
        .map(|target| {
            target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "5m")
        })
        .collect()
}

fn promtool(arguments: &[&str]) -> Option<Output> {
    ask(Command::new("promtool")
        .args(arguments)
        .current_dir(path("deploy/prometheus")))
}

#[test]
fn alerts_fire_when_they_must_and_only_then() {
    let Some(output) = promtool(&["check", "rules", "alerts.yaml"]) else {
        return;
    };
    yes(&output);
    yes(&promtool(&["test", "rules", CASES[0], CASES[1]]).unwrap());

    // Without its 'for', an alert is early, which a case must show.
    let folder = tempfile::tempdir().unwrap();
    let text = shipped(ALERTS);
    let hasty: Vec<_> = text
        .lines()
        .filter(|line| !line.contains(" for: "))
        .collect();
    fs::write(folder.path().join("alerts.yaml"), hasty.join("\n")).unwrap();
    for (cases, alert) in CASES
        .iter()
        .zip(["CatalogSyncBrokerDown", "CatalogSyncBudgetSpent"])
    {
        let copy = folder.path().join(cases);
        fs::copy(path("deploy/prometheus").join(cases), &copy).unwrap();
        let failed = no(&promtool(&["test", "rules", copy.to_str().unwrap()]).unwrap());
        assert!(failed.contains(alert), "{failed}");
    }
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let cases = CASES.map(|cases| yaml(&format!("deploy/prometheus/{cases}")).remove(0));
    let checks: Vec<_> = cases
        .iter()
        .flat_map(|file| file["tests"].as_sequence().unwrap())
        .flat_map(|case| case["promql_expr_test"].as_sequence().unwrap())
        .collect();
    for rule in rules() {
        let alert = format!("alertname=\"{}\"", text_of(&rule["alert"]));
        let fires: BTreeSet<bool> = checks
            .iter()
            .filter(|check| text_of(&check["expr"]).contains(&alert))
            .map(|check| !check["exp_samples"].as_sequence().unwrap().is_empty())
            .collect();
        assert_eq!(fires, BTreeSet::from([false, true]), "{alert}");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_it_is_and_where_the_way_out_stands() {
    let page = fs::read_to_string(path("docs/operations.md"));
    if page.is_err() {
        println!("skipped: there is no docs/operations.md to look for the alerts in");
    }
    for rule in rules() {
        let alert = text_of(&rule["alert"]);
        let severity = text_of(&rule["labels"]["severity"]);
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{alert}: {severity}"
        );
        for annotation in ["summary", "description"] {
            assert!(
                !text_of(&rule["annotations"][annotation]).is_empty(),
                "{alert}: {annotation}"
            );
        }
        let anchor = alert.to_lowercase();
        assert_eq!(
            text_of(&rule["annotations"]["runbook_url"]),
            format!("docs/operations.md#alert-{anchor}")
        );
        if let Ok(page) = &page {
            let heading = page
                .lines()
                .any(|line| line.starts_with('#') && line.contains(alert));
            assert!(heading, "docs/operations.md has no heading for {alert}");
        }
    }
}

/// An alert by name that nobody can act on is one that people stop reading.
#[test]
fn alerts_on_projects_have_the_codes_that_a_person_must_mend() {
    let all = codes_for_people(&[]);
    for (alert, expected) in [
        // Those fail by the dozen, for one reason, and have an alert of their own.
        (
            "CatalogSyncProjectFailing",
            codes_for_people(&[Code::KeySealed]),
        ),
        ("CatalogSyncProjectStale", all),
    ] {
        let rules = rules();
        let rule = rules.iter().find(|rule| rule["alert"] == alert).unwrap();
        let (_, after) = text_of(&rule["expr"]).split_once("code=~\"").unwrap();
        let mut codes: Vec<_> = after.split_once('"').unwrap().0.split('|').collect();
        codes.sort_unstable();
        assert_eq!(codes, expected, "{alert}");
    }
}

#[test]
fn every_expression_of_the_dashboard_is_one() {
    let rules: Vec<_> = dashboard()
        .into_iter()
        .enumerate()
        .map(|(number, expr)| serde_json::json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    assert!(rules.len() > 40, "{}", rules.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    let check = |rules: &[serde_json::Value]| {
        // What is JSON is YAML.
        let file_of_rules =
            serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
        fs::write(&file, file_of_rules.to_string()).unwrap();
        promtool(&["check", "rules", file.to_str().unwrap()])
    };
    let Some(output) = check(&rules) else {
        return;
    };
    yes(&output);
    no(
        &check(&[serde_json::json!({ "record": "a:b", "expr": "sum(catalog_sync_workers" })])
            .unwrap(),
    );
}

#[test]
fn alerts_and_dashboard_know_the_metrics_that_there_are() {
    let metrics = metrics();
    let mut expressions = dashboard();
    expressions.extend(rules().iter().map(|rule| text_of(&rule["expr"]).to_owned()));
    for expression in &expressions {
        let names = metric_names(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in &names {
            assert!(metrics.contains_key(&**name), "{name} in {expression}");
        }
        for by in between(expression, " by (", ")") {
            for label in by
                .split(", ")
                .filter(|label| !["le", "instance"].contains(label))
            {
                let known = names
                    .iter()
                    .any(|name| metrics[name].iter().any(|it| it == label));
                assert!(known, "{label} in {expression}");
            }
        }
        for (name, label) in labels_chosen(expression) {
            assert!(
                metrics[&name].contains(&label),
                "{name}{{{label}}} in {expression}"
            );
        }
    }
    let shown = metric_names(&expressions.join("\n"));
    let unseen: Vec<_> = metrics
        .keys()
        .filter(|name| !shown.contains(*name))
        .collect();
    assert_eq!(
        unseen,
        [&"catalog_sync_projects_held"],
        "the table of held projects shows those"
    );
}
