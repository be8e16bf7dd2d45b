//! The runbook has an answer to every alert and every error code.

use std::fs;

use catalog_sync::diagnosis::Code;

use super::blocks::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_alert_has_its_place_in_the_runbook() {
    let rules = read("deploy/prometheus/alerts.yaml");
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10);
    let runbook = read("docs/operations.md");
    let documented: Vec<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Alert "))
        .collect();
    assert_eq!(documented, alerts);
    for alert in alerts {
        let anchor = format!("docs/operations.md#alert-{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{alert} does not name its place");
    }
}

#[test]
fn every_error_code_has_its_row_in_the_runbook() {
    let runbook = read("docs/operations.md");
    for code in Code::ALL {
        assert!(runbook.contains(&format!("\n| `{code}` |")), "{code}");
    }
    // What the store can meet is named in the second table.
    let store = read("src/store/error.rs");
    let codes = store
        .split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut count = 0;
    for code in codes {
        assert!(runbook.contains(&format!("`{code}`")), "{code}");
        count += 1;
    }
    assert!(count > 10);
}
