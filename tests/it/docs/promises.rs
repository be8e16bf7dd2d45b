//! The tests that `docs/reliability.md` names for its promises are there.

use std::{path::Path, process::Command};

/// What stands between backticks in the table, one promise a row.
fn named() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string("docs/reliability.md").unwrap();
    let (_, section) = page.split_once("\n## What is promised\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| | "))
        .map(|row| {
            let quoted = row.split('`').skip(1).step_by(2);
            quoted.map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn each_promise_names_tests_that_there_are() {
    let listed = Command::new(std::env::current_exe().unwrap())
        .arg("--list")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let is_test = |name: &str| {
        let of_module = format!("{name}::");
        let is_it = |line: &str| line.starts_with(&of_module) || line == format!("{name}: test");
        listed.lines().any(is_it)
    };
    let rows = named();
    assert_eq!(rows.len(), 21);
    for (row, names) in (1..).zip(rows) {
        assert!(!names.is_empty(), "promise {row} names nothing");
        for name in names {
            let is_there = is_test(&name) || Path::new(&name).exists() || is_bench(&name);
            assert!(is_there, "promise {row}: there is no {name}");
        }
    }
}

fn is_bench(command: &str) -> bool {
    let of = command.strip_prefix("cargo bench --bench ");
    of.is_some_and(|name| {
        [format!("benches/{name}.rs"), format!("benches/{name}")]
            .iter()
            .any(|path| Path::new(path).exists())
    })
}
