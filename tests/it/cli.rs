//! The real binary, end to end: the main job on both databases, and what people get wrong.

mod guard;

use catalog_sync::simulator::{App, InAppPurchase, Key, Role, State, Team};
use serde_json::{Value, json};

use crate::house::{Backend, House, on_both_stores};

const APP: &str = "1000000001";

fn app() -> App {
    App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(12)
        .with_groups(2, 3)
        .with_grace_period()
}

on_both_stores!(
    the_main_job,
    a_hold_is_shown_and_approved_by_its_digest,
    a_kind_we_may_not_list_is_left_alone,
    two_projects_with_one_key_are_told,
    removing_a_project_is_asked_for,
);

async fn the_main_job(backend: Backend) {
    let house = House::new(State::with_app(app()), backend).await;
    let added = house.add("acme").await.expect(0);
    assert!(
        added
            .stdout
            .contains("added acme: Example (1000000001, com.example.app)"),
        "{}",
        added.stdout
    );

    house.simulator.forget_requests();
    let first = &house.json(&["sync", "acme"], 0).await[0];
    assert_eq!(
        (&first["run"]["outcome"], &first["revision"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(first["run"]["cost"]["requests"], 3);
    assert_eq!(house.simulator.requests().len(), 3);
    assert_eq!(
        first["rows_written"], 42,
        "21 entries and as many lines of the change log"
    );

    let catalog = house.json(&["catalog", "acme"], 0).await;
    assert_eq!(catalog["products"].as_array().unwrap().len(), 18);
    assert_eq!(catalog["subscription_groups"].as_array().unwrap().len(), 2);
    assert_eq!(catalog["grace_period"]["duration_days"], 16);

    house.simulator.edit(|state| {
        let app = state.app_mut(APP).unwrap();
        app.in_app_purchases[0].name = "Renamed".to_owned();
        app.in_app_purchases.remove(1);
        app.in_app_purchases
            .push(InAppPurchase::new("77", "com.example.new", "New"));
        app.subscription_groups[1].reference_name = "Other".to_owned();
        app.subscription_groups[1].subscriptions[0].state = Some("REMOVED_FROM_SALE".to_owned());
        app.grace_period = None;
    });
    let planned = house.json(&["plan", "acme"], 2).await;
    let planned_changes = planned["changes"].as_array().unwrap();
    assert_eq!(planned_changes.len(), 6, "{planned}");

    let second = &house.json(&["sync", "acme"], 0).await[0];
    assert_eq!(
        second["changes"], planned["changes"],
        "a sync does what the plan showed"
    );
    assert_eq!(second["revision"], 2);
    let grace = house.json(&["catalog", "acme"], 0).await["grace_period"].clone();
    assert_eq!(
        (&grace["opt_in"], &grace["duration_days"]),
        (&Value::Null, &Value::Null)
    );
    assert!(grace["checked_at"].is_string());

    let third = &house.json(&["sync", "acme"], 0).await[0];
    assert_eq!(
        (&third["rows_written"], &third["revision"]),
        (&json!(0), &json!(2))
    );
    assert!(
        house
            .run(&["plan", "acme"])
            .await
            .expect(0)
            .stdout
            .contains("no changes")
    );

    let history = house
        .json(&["history", "acme", "--kind", "grace_period"], 0)
        .await;
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert_eq!(
        history[0]["before"]["attributes"]["duration"],
        "SIXTEEN_DAYS"
    );
    assert_eq!(history[0]["after"]["attributes"], json!({}));
    let shown = house.run(&["history", "acme"]).await.expect(0).stdout;
    assert!(
        shown.contains("name: \"Product 00001\" -> \"Renamed\""),
        "{shown}"
    );

    what_happened_is_told(&house).await;
}

async fn what_happened_is_told(house: &House) {
    let removed = house.json(&["catalog", "acme", "--removed"], 0).await;
    let gone: Vec<_> = removed["products"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|product| !product["removed_at"].is_null())
        .collect();
    assert_eq!(gone.len(), 1);

    let runs = house.json(&["runs", "acme"], 0).await;
    assert_eq!(runs.as_array().unwrap().len(), 3);
    let status = house.json(&["status", "acme"], 0).await;
    assert_eq!(
        (&status["outcome"], &status["present"]["subscription"]),
        (&json!("succeeded"), &json!(6))
    );
    assert!(
        house
            .run(&["status", "acme"])
            .await
            .expect(0)
            .stdout
            .contains("is fresh: last synced")
    );
    assert_eq!(
        house.json(&["project", "verify", "acme"], 0).await["project"]["id"],
        "acme"
    );
}

async fn a_hold_is_shown_and_approved_by_its_digest(backend: Backend) {
    let house = House::with_project(State::with_app(app()), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    house
        .simulator
        .edit(|state| state.app_mut(APP).unwrap().in_app_purchases.truncate(6));

    let held = house.run(&["sync", "acme"]).await.expect(2);
    assert!(
        held.stdout
            .contains("6 of 12 in-app purchases would go (50.0 %, limit 30 %)"),
        "{}",
        held.stdout
    );
    assert!(
        held.events()
            .iter()
            .any(|event| event["event"] == "removals.held" && event["level"] == "ERROR")
    );
    assert_eq!(
        house.json(&["catalog", "acme"], 0).await["products"]
            .as_array()
            .unwrap()
            .len(),
        18
    );
    let holds = house.json(&["holds"], 2).await;
    let digest = holds[0]["digest"].as_str().unwrap().to_owned();
    let refused = house
        .run(&["approve", "acme", "000000000000"])
        .await
        .expect(1);
    assert!(refused.stderr.contains(&digest), "{}", refused.stderr);

    // Upstream moves: the approval is for what was shown, and for nothing else.
    house
        .simulator
        .edit(|state| state.app_mut(APP).unwrap().in_app_purchases.truncate(5));
    let moved = house.run(&["approve", "acme", &digest]).await.expect(2);
    assert!(
        moved.stdout.contains("Not approved: upstream has moved"),
        "{}",
        moved.stdout
    );

    // What could not be looked at cannot be approved.
    let digest = house.json(&["holds", "acme"], 2).await[0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    house
        .simulator
        .inject(super::asc::fault("inAppPurchasesV2", 403));
    let blind = house.run(&["approve", "acme", &digest]).await.expect(1);
    assert!(
        blind.stdout.contains("could not be looked at"),
        "{}",
        blind.stdout
    );
    house.simulator.clear_faults();

    let digest = house.json(&["holds", "acme"], 2).await[0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    house.run(&["approve", "acme", &digest]).await.expect(0);
    assert_eq!(
        house.json(&["catalog", "acme"], 0).await["products"]
            .as_array()
            .unwrap()
            .len(),
        11
    );
    house.run(&["holds"]).await.expect(0);
}

async fn a_kind_we_may_not_list_is_left_alone(backend: Backend) {
    let house = House::with_project(State::with_app(app()), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    house.simulator.edit(|state| {
        let app = state.app_mut(APP).unwrap();
        app.in_app_purchases.clear();
        app.subscription_groups[0].reference_name = "Renamed".to_owned();
    });
    house
        .simulator
        .inject(super::asc::fault("inAppPurchasesV2", 403));

    let answer = &house.json(&["sync", "acme"], 1).await[0];
    assert_eq!(answer["run"]["outcome"], "partial");
    assert_eq!(
        answer["run"]["failures"]["in_app_purchase"]["code"],
        "role_too_low"
    );
    assert_eq!(
        answer["run"]["counts"],
        json!({ "subscription_group": { "added": 0, "updated": 1, "removed": 0, "restored": 0 } })
    );
    assert_eq!(answer["run"]["hold"], Value::Null);
    assert_eq!(
        house.json(&["catalog", "acme"], 0).await["products"]
            .as_array()
            .unwrap()
            .len(),
        18
    );
    assert_eq!(
        house.json(&["status", "acme"], 0).await["error"]["code"],
        "role_too_low"
    );
}

async fn two_projects_with_one_key_are_told(backend: Backend) {
    let house = House::with_project(State::with_app(app()), backend).await;
    let second = house.add("other").await.expect(0);
    assert!(
        second
            .stdout
            .contains("shared_key: Key SIMULATOR1 is also used by acme."),
        "{}",
        second.stdout
    );
    house.add("acme").await.expect(1);
    let list = house.json(&["project", "list"], 0).await;
    assert_eq!(list.as_array().unwrap().len(), 2);

    house.run(&["project", "pause", "other"]).await.expect(0);
    let synced = house.json(&["sync", "--all"], 0).await;
    assert_eq!(synced.as_array().unwrap().len(), 1);
    let refused = house.run(&["sync", "other"]).await.expect(1);
    assert!(
        refused.stdout.contains("project resume other"),
        "{}",
        refused.stdout
    );
    house.run(&["project", "resume", "other"]).await.expect(0);
    house.run(&["sync", "acme", "other"]).await.expect(0);
}

async fn removing_a_project_is_asked_for(backend: Backend) {
    let house = House::with_project(State::with_app(app()), backend).await;
    house.run(&["sync", "acme"]).await.expect(0);
    house.run(&["project", "remove", "acme"]).await.expect(2);
    house.run(&["project", "show", "acme"]).await.expect(0);
    house
        .run(&["project", "remove", "acme", "--yes"])
        .await
        .expect(0);
    let gone = house.run(&["catalog", "acme"]).await.expect(1);
    assert!(
        gone.stderr.contains("there is no project 'acme'"),
        "{}",
        gone.stderr
    );
    house.add("acme").await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_apps_are_listed_and_none_is_guessed() {
    let state = State::new().with_team(
        Team::new("Two", "5a1e0000-0000-4000-8000-000000000002")
            .with_key(Key::new("TWOAPPS001", Role::AppManager))
            .with_app(App::new("1", "com.example.one", "One"))
            .with_app(App::new("2", "com.example.two", "Two")),
    );
    let house = House::new(state, Backend::Sqlite).await;
    let (issuer, file) = (house.issuer_id(), house.key_file());
    let add = [
        "project",
        "add",
        "acme",
        "--issuer-id",
        &issuer,
        "--private-key",
        &file,
    ];
    let undecided = house.run(&add).await.expect(2);
    assert!(
        undecided.stdout.contains("com.example.one")
            && undecided.stdout.contains("com.example.two")
    );
    assert_eq!(house.json(&["project", "list"], 0).await, json!([]));
    assert_eq!(
        house.json(&add, 2).await["apps"].as_array().unwrap().len(),
        2
    );

    house
        .run(&[&add[..], &["--bundle-id", "com.example.two"]].concat())
        .await
        .expect(0);
    assert_eq!(
        house.json(&["project", "show", "acme"], 0).await["app"]["id"],
        "2"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_can_come_from_standard_input_and_is_shown_nowhere() {
    let house = House::new(State::with_app(app()), Backend::Sqlite).await;
    let (issuer, pem) = (
        house.issuer_id(),
        house.simulator.state().teams[0].keys[0].private_key.clone(),
    );
    let add = [
        "project",
        "add",
        "acme",
        "--key-id",
        "SIMULATOR1",
        "--issuer-id",
        &issuer,
        "--private-key",
        "-",
    ];
    let trace = [("CATALOG_SYNC_LOG__FILTER", "trace")];
    let mut answers = vec![house.run_with(&add, &trace, &pem).await.expect(0)];
    for args in [
        &["sync", "acme"][..],
        &["project", "verify", "acme"],
        &["project", "show", "acme", "--json"],
    ] {
        answers.push(house.run_with(args, &trace, "").await.expect(0));
    }
    let secret: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let windows: Vec<&str> = (0..secret.len() - 16)
        .step_by(8)
        .map(|at| &secret[at..at + 16])
        .collect();
    for answer in &answers {
        for window in &windows {
            assert!(!answer.stdout.contains(window) && !answer.stderr.contains(window));
        }
        assert!(!answer.stderr.contains("eyJ"), "no token in the log");
        assert!(!answer.stdout.contains("eyJ"));
    }
    for file in ["catalog-sync.db", "catalog-sync.db-wal"] {
        let bytes = std::fs::read(house.path(file)).unwrap_or_default();
        for window in &windows {
            assert!(
                !bytes.windows(16).any(|part| part == window.as_bytes()),
                "{file}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_replaces_the_old_one_only_once_it_is_verified() {
    let mut state = State::with_app(app());
    state.teams[0]
        .keys
        .push(Key::new("NEWKEY0001", Role::Admin));
    state.teams[0]
        .keys
        .push(Key::new("BADKEY0001", Role::Admin));
    state.teams[0].keys[2].revoked = true;
    let house = House::with_project(state, Backend::Sqlite).await;
    let issuer = house.issuer_id();
    let set = |file| {
        [
            "project",
            "set-key",
            "acme",
            "--issuer-id",
            issuer.as_str(),
            "--private-key",
            file,
        ]
    };
    assert_eq!(
        house.error_code(&set("AuthKey_BADKEY0001.p8")).await,
        "not_authorized"
    );
    assert_eq!(
        house.json(&["project", "show", "acme"], 0).await["key_id"],
        "SIMULATOR1"
    );
    house.run(&["sync", "acme"]).await.expect(0);

    house.run(&set("AuthKey_NEWKEY0001.p8")).await.expect(0);
    assert_eq!(
        house.json(&["project", "show", "acme"], 0).await["key_id"],
        "NEWKEY0001"
    );
    house
        .simulator
        .edit(|state| state.teams[0].keys[0].revoked = true);
    house.run(&["sync", "acme"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_leaves_one_closing_line() {
    let house = House::with_project(State::with_app(app()), Backend::Sqlite).await;
    let answer = house.run(&["sync", "acme"]).await.expect(0);
    let closing: Vec<_> = answer
        .events()
        .into_iter()
        .filter(|event| event["event"] == "sync.finished")
        .collect();
    let [closing] = closing.as_slice() else {
        panic!("{}", answer.stderr)
    };
    for (field, value) in [
        ("project.id", json!("acme")),
        ("outcome", json!("succeeded")),
        ("trigger.kind", json!("command")),
        ("added", json!(21)),
        ("requests", json!(3)),
        ("rows_written", json!(42)),
        ("revision", json!(1)),
        ("epoch", json!(1)),
    ] {
        assert_eq!(closing[field], value, "{field} in {closing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_apple_adds_tomorrow_is_told_once() {
    let mut app = app();
    app.in_app_purchases[0]
        .extra
        .insert("inAppPurchaseType".to_owned(), json!("BUNDLE"));
    app.in_app_purchases[1]
        .extra
        .insert("inAppPurchaseType".to_owned(), json!("BUNDLE"));
    let house = House::with_project(State::with_app(app), Backend::Sqlite).await;
    let told = |answer: &crate::house::Answer| {
        answer
            .events()
            .iter()
            .filter(|event| event["event"] == "value.unforeseen")
            .count()
    };
    assert_eq!(told(&house.run(&["sync", "acme"]).await.expect(0)), 1);
    assert_eq!(told(&house.run(&["sync", "acme"]).await.expect(0)), 0);
    let catalog = house.json(&["catalog", "acme"], 0).await;
    let products = catalog["products"].as_array().unwrap();
    let unforeseen: Vec<_> = products
        .iter()
        .filter(|product| product["attributes"]["inAppPurchaseType"] == "BUNDLE")
        .collect();
    assert_eq!(unforeseen.len(), 2, "it is kept");
    assert!(
        unforeseen.iter().all(|product| product["kind"].is_null()),
        "and nothing is guessed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_in_other_hands_is_left_to_them_unless_it_was_named() {
    let house = House::with_project(State::with_app(app()), Backend::Sqlite).await;
    house.simulator.forget_requests();
    house
        .simulator
        .set_latency(std::time::Duration::from_secs(15));
    let first = house.command(&["sync", "acme"]).spawn().unwrap();
    house.simulator.wait_for_requests(3).await;
    house.simulator.set_latency(std::time::Duration::ZERO);
    assert_eq!(
        house.json(&["sync", "--all"], 0).await[0]["left"]["code"],
        "project_leased"
    );
    assert_eq!(
        house.json(&["sync", "acme"], 1).await[0]["error"]["code"],
        "project_leased"
    );
    assert!(first.wait_with_output().await.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_simulate_prints_is_enough_to_go_on() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let mut house = House::new(State::sample(), Backend::Sqlite).await;
    let args = [
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--https",
        "--keys",
        "simulated",
    ];
    let mut simulate = house.command(&args).spawn().unwrap();
    let mut lines = BufReader::new(simulate.stdout.take().unwrap()).lines();
    let (mut ca_file, mut add) = (String::new(), String::new());
    while add.is_empty() {
        let line = lines.next_line().await.unwrap().unwrap();
        let line = line.trim();
        if let Some(url) = line.strip_prefix("export CATALOG_SYNC_APP_STORE__BASE_URL=") {
            house.point_to(url);
        } else if let Some(file) = line.strip_prefix("export CATALOG_SYNC_APP_STORE__CA_FILE=") {
            file.clone_into(&mut ca_file);
        } else if let Some(command) = line.strip_prefix("catalog-sync ") {
            command.replace("ID ", "acme ").clone_into(&mut add);
        }
    }
    let environment = [("CATALOG_SYNC_APP_STORE__CA_FILE", ca_file.as_str())];
    let add: Vec<&str> = add.split(' ').collect();
    house.run_with(&add, &environment, "").await.expect(0);
    house
        .run_with(&["sync", "acme"], &environment, "")
        .await
        .expect(0);
    assert!(
        house.simulator.requests().is_empty(),
        "it was the other one that answered"
    );

    let pid =
        rustix::process::Pid::from_raw(i32::try_from(simulate.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(simulate.wait().await.unwrap().success());
}
