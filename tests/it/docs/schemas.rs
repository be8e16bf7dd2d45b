//! The schemas of messages say what the messages are.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use catalog_sync::queue::Request;
use serde_json::{Value, json};

use super::{blocks::root, stories::state};
use crate::house::{Backend, House};

/// Debian's, which has python3-jsonschema.
const PYTHON: &str = "/usr/bin/python3";

const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for line in sys.stdin:
    print('yes' if validator.is_valid(json.loads(line)) else 'no')
";

/// Whether the schema allows each of the messages; none where no validator is at hand.
fn allows(schema: &str, messages: &[Value]) -> Option<Vec<bool>> {
    let is_there = Command::new(PYTHON)
        .args(["-c", "import jsonschema"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("skipped: there is no python3-jsonschema to hold messages to {schema}");
        return None;
    }
    let mut child = Command::new(PYTHON)
        .args(["-c", VALIDATE])
        .arg(root().join("docs/schemas").join(schema))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for message in messages {
        writeln!(stdin, "{message}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    Some(answers.lines().map(|answer| answer == "yes").collect())
}

#[test]
fn the_schema_of_requests_allows_just_what_is_understood() {
    let long = |length: usize| "x".repeat(length);
    let messages = [
        json!({"version": 1, "project": "acme"}),
        json!({"version": 1, "project": "acme", "id": "1", "reason": "why", "more": [1]}),
        json!({"version": 1, "project": "acme", "id": null}),
        json!({"version": 1, "project": "A.c_m-9", "reason": long(200)}),
        json!({"version": 1, "project": "acme", "reason": long(201)}),
        json!({"version": 1, "project": "acme", "id": 7}),
        json!({"version": 2, "project": "acme"}),
        json!({"version": "1", "project": "acme"}),
        json!({"version": 1}),
        json!({"project": "acme"}),
        json!({"version": 1, "project": ""}),
        json!({"version": 1, "project": "-acme"}),
        json!({"version": 1, "project": "a/b"}),
        json!({"version": 1, "project": long(64)}),
        json!({"version": 1, "project": long(65)}),
        json!({"version": 1, "project": 7}),
        json!([1]),
        json!("acme"),
    ];
    let understood = messages
        .iter()
        .map(|message| Request::parse(message.to_string().as_bytes()).is_ok());
    let understood: Vec<bool> = understood.collect();
    assert!(understood[0] && !understood[4]);
    if let Some(allowed) = allows("request.json", &messages) {
        for (message, (allowed, understood)) in messages.iter().zip(allowed.iter().zip(&understood))
        {
            assert_eq!(allowed, understood, "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_of_changes_allows_what_is_told() {
    let house = House::new(state(), Backend::Sqlite).await;
    house.add("acme").await.expect(0);
    house.run(&["sync", "acme"]).await.expect(0);
    house.simulator.edit(|state| {
        let app = &mut state.teams[0].apps[0];
        app.in_app_purchases.remove(0);
        for purchase in &mut app.in_app_purchases {
            purchase.name.push('+');
        }
    });
    house.run(&["sync", "acme"]).await.expect(0);
    let history = house.json(&["history", "acme", "--limit", "500"], 0).await;
    let mut messages: Vec<Value> = Vec::new();
    for line in history.as_array().unwrap() {
        // The columns of the view are the fields of the message, but for these.
        let mut message = line.clone();
        let fields = message.as_object_mut().unwrap();
        fields.remove("before_seen_at");
        let id = format!("{}-{}", line["run_id"].as_str().unwrap(), line["seq"]);
        fields.insert("id".to_owned(), id.into());
        fields.insert("version".to_owned(), 1.into());
        fields.insert("project".to_owned(), "acme".into());
        messages.push(message);
    }
    let ops: std::collections::BTreeSet<&str> = messages
        .iter()
        .map(|it| it["op"].as_str().unwrap())
        .collect();
    assert_eq!(ops, ["added", "removed", "updated"].into());
    let good = messages.len();
    let spoilt = |field: &str, value: Value| {
        let mut message = messages[0].clone();
        message[field] = value;
        message
    };
    let spoilt = [
        spoilt("op", json!("gone")),
        spoilt("kind", json!("offer")),
        spoilt("version", json!(2)),
        spoilt("seq", json!("1")),
        spoilt("at", json!("yesterday")),
        spoilt("before", json!(7)),
        spoilt("store_id", json!(null)),
    ];
    messages.extend(spoilt);
    if let Some(allowed) = allows("change.json", &messages) {
        for (number, (message, allowed)) in messages.iter().zip(allowed).enumerate() {
            assert_eq!(allowed, number < good, "{message}");
        }
    }
}
