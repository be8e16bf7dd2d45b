//! `project guard`.

use serde_json::{Value, json};

use super::{APP, app};
use crate::house::{Backend, House, on_both_stores};
use catalog_sync::simulator::State;

on_both_stores!(a_project_can_have_limits_of_its_own);

async fn a_project_can_have_limits_of_its_own(backend: Backend) {
    let house = House::with_project(State::with_app(app()), backend).await;
    house.write("worker.toml", "[guard]\npercent_from = 4\n");
    let guard = async |args: &[&str]| -> Value {
        let args = [&["project", "guard", "acme"], args].concat();
        house.json(&args, 0).await
    };
    let of_all = json!({
        "removed_percent": 30, "percent_from": 4, "removed_max": 500, "descendants_max": 10
    });
    let expected = json!({ "project": "acme", "limits": of_all, "own": {} });
    assert_eq!(guard(&[]).await, expected);

    guard(&["--removed-percent", "50", "--removed-max", "5"]).await;
    let set = guard(&["--removed-max", "6"]).await;
    let limits = json!({
        "removed_percent": 50, "percent_from": 4, "removed_max": 6, "descendants_max": 10
    });
    let own = json!({ "removed_percent": 50, "removed_max": 6 });
    let expected = json!({ "project": "acme", "limits": limits, "own": own });
    assert_eq!(set, expected);
    assert_eq!(guard(&[]).await, expected);
    let shown = house.run(&["project", "guard", "acme"]).await.expect(0);
    assert_eq!(
        shown.stdout,
        "acme has limits of its own\n\
         limit\tvalue\tfrom\n\
         removed_percent\t50\tits own\n\
         percent_from\t4\tworker.toml\n\
         removed_max\t6\tits own\n\
         descendants_max\t10\tworker.toml\n"
    );
    let shown = house.run(&["project", "show", "acme"]).await.expect(0);
    let line = "  guard    its own: removed_percent 50, removed_max 6\n";
    assert!(shown.stdout.contains(line), "{}", shown.stdout);
    let shown = house.json(&["project", "show", "acme"], 0).await;
    assert_eq!(shown["guard"], own);

    // Six of twelve are half, and a plan knows.
    house.run(&["sync", "acme"]).await.expect(0);
    house
        .simulator
        .edit(|state| state.app_mut(APP).unwrap().in_app_purchases.truncate(6));
    let planned = house.json(&["plan", "acme"], 2).await;
    assert_eq!(planned["hold"], Value::Null, "{planned}");

    let forgotten = guard(&["--default"]).await;
    assert_eq!(forgotten["own"], json!({}));
    assert_eq!(forgotten["limits"], of_all);
    let shown = house.run(&["project", "show", "acme"]).await.expect(0);
    assert!(!shown.stdout.contains("guard"), "{}", shown.stdout);
    let planned = house.json(&["plan", "acme"], 2).await;
    assert_eq!(planned["hold"]["removals"].as_array().unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_limits_are_refused_and_change_nothing() {
    let house = House::with_project(State::with_app(app()), Backend::Sqlite).await;
    for (args, said) in [
        (&["--removed-percent", "101"][..], "it must be 0 to 100"),
        (&["--removed-percent", "half"], "it must be 0 to 100"),
        (&["--removed-max=-1"], "--removed-max"),
        (
            &["--default", "--percent-from", "1"],
            "cannot be used with '--percent-from <N>'",
        ),
    ] {
        let args = [&["project", "guard", "acme"], args].concat();
        let refused = house.run(&args).await.expect(1);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    let shown = house.json(&["project", "guard", "acme"], 0).await;
    assert_eq!(shown["own"], json!({}));
    let ghost = ["project", "guard", "ghost", "--removed-max", "1"];
    assert_eq!(house.error_code(&ghost).await, "unknown_project");
}
