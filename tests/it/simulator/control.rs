//! The control API, as the curl lines of `docs/simulator.md` use it.

use catalog_sync::simulator::{App, Fault, FaultKind, NextForm, Simulator, State};
use serde_json::{Value, json};

use super::client::{Client, KEY};

const APP: &str = "/v1/apps/1000000001";

async fn start() -> (Simulator, Client) {
    let app = App::new("1000000001", "com.example.app", "Example")
        .with_in_app_purchases(1)
        .with_groups(1, 1);
    let simulator = Simulator::start(State::with_app(app)).await.unwrap();
    let client = Client::of(&simulator);
    (simulator, client)
}

async fn done(client: &Client, method: &str, path: &str, body: Value) -> Value {
    let answer = client.control(method, path, body).await;
    assert!(
        [200, 201].contains(&answer.status),
        "{path}: {}",
        answer.text
    );
    answer.body
}

#[tokio::test]
async fn products_come_change_and_go() {
    let (_simulator, client) = start().await;
    let path = "apps/1000000001/in-app-purchases";
    let new = done(
        &client,
        "POST",
        path,
        json!({ "product_id": "com.x.coins", "name": "Coins" }),
    )
    .await;
    let id = new["id"].as_str().unwrap().to_owned();
    let read =
        client.good(&format!("/v2/inAppPurchases/{id}")).await.body["data"]["attributes"].clone();
    assert_eq!(
        (&read["name"], &read["state"]),
        (&json!("Coins"), &json!("APPROVED"))
    );
    let change = json!({ "product_id": "com.x.coins", "name": "Gold", "family_sharable": null });
    assert_eq!(done(&client, "POST", path, change).await["id"], json!(id));
    let read =
        client.good(&format!("/v2/inAppPurchases/{id}")).await.body["data"]["attributes"].clone();
    assert_eq!(read["name"], "Gold");
    assert!(read.get("familySharable").is_none(), "null takes it away");
    assert_eq!(
        client
            .all_ids(&format!("{APP}/inAppPurchasesV2"))
            .await
            .len(),
        2
    );
    done(
        &client,
        "DELETE",
        &format!("{path}/com.x.coins"),
        Value::Null,
    )
    .await;
    assert_eq!(
        client.get(&format!("/v2/inAppPurchases/{id}")).await.status,
        404
    );
}

#[tokio::test]
async fn groups_and_grace_periods_come_change_and_go() {
    let (simulator, client) = start().await;
    let groups = "apps/com.example.app/subscription-groups";
    let group = done(
        &client,
        "POST",
        groups,
        json!({ "reference_name": "Gold Club" }),
    )
    .await;
    let subscriptions = format!("{groups}/Gold%20Club/subscriptions");
    let plan = json!({ "product_id": "com.x.year", "name": "Yearly", "period": "ONE_YEAR" });
    let plan = done(&client, "POST", &subscriptions, plan).await;
    let read = client
        .good(&format!(
            "/v1/subscriptions/{}?include=group",
            plan["id"].as_str().unwrap()
        ))
        .await
        .body;
    assert_eq!(read["data"]["attributes"]["subscriptionPeriod"], "ONE_YEAR");
    assert_eq!(read["included"][0]["id"], group["id"]);
    done(
        &client,
        "DELETE",
        &format!("{subscriptions}/com.x.year"),
        Value::Null,
    )
    .await;
    done(
        &client,
        "DELETE",
        &format!("{groups}/Gold%20Club"),
        Value::Null,
    )
    .await;
    assert_eq!(
        client
            .all_ids(&format!("{APP}/subscriptionGroups"))
            .await
            .len(),
        1
    );

    done(
        &client,
        "PUT",
        "apps/1000000001/grace-period",
        json!({ "opt_in": true, "duration": "THREE_DAYS" }),
    )
    .await;
    let read = client
        .good(&format!("{APP}/subscriptionGracePeriod"))
        .await
        .body;
    assert_eq!(
        read["data"]["attributes"],
        json!({ "optIn": true, "duration": "THREE_DAYS" })
    );
    done(
        &client,
        "DELETE",
        "apps/1000000001/grace-period",
        Value::Null,
    )
    .await;
    assert_eq!(
        client
            .get(&format!("{APP}/subscriptionGracePeriod"))
            .await
            .status,
        404
    );
    assert!(
        simulator
            .requests()
            .iter()
            .all(|request| !request.path.starts_with("/_simulator"))
    );
}

#[tokio::test]
async fn teams_and_keys_change() {
    let (simulator, client) = start().await;
    done(
        &client,
        "POST",
        "teams/Example",
        json!({ "agreement_missing": true }),
    )
    .await;
    assert_eq!(client.get(APP).await.status, 403);
    done(
        &client,
        "POST",
        "teams/Example",
        json!({ "agreement_missing": false }),
    )
    .await;
    client.good(APP).await;
    done(
        &client,
        "POST",
        &format!("keys/{KEY}"),
        json!({ "revoked": true }),
    )
    .await;
    assert_eq!(client.get(APP).await.status, 401);
    assert!(simulator.state().key(KEY).unwrap().1.revoked);
}

#[tokio::test]
async fn the_whole_state_is_replaced_and_keys_stay() {
    let (simulator, client) = start().await;
    let mut state = done(&client, "GET", "state", Value::Null).await;
    assert_eq!(
        serde_json::from_value::<State>(state.clone()).unwrap(),
        simulator.state()
    );
    state["teams"][0]["apps"][0]["in_app_purchases"] = json!([{ "product_id": "com.x.only" }]);
    state["teams"][0]["keys"][0]
        .as_object_mut()
        .unwrap()
        .remove("private_key");
    done(&client, "PUT", "state", state).await;
    assert_eq!(
        client
            .all_ids(&format!("{APP}/inAppPurchasesV2"))
            .await
            .len(),
        1,
        "the old token is still good"
    );
}

#[tokio::test]
async fn faults_latency_clock_and_requests() {
    let (_simulator, client) = start().await;
    let fault = json!({ "path": "inAppPurchasesV2", "times": 1, "kind": "status", "with": { "status": 503 } });
    done(&client, "POST", "faults", fault).await;
    assert_eq!(
        client.get(&format!("{APP}/inAppPurchasesV2")).await.status,
        503
    );
    assert_eq!(
        client.get(&format!("{APP}/inAppPurchasesV2")).await.status,
        200
    );
    done(&client, "POST", "faults", json!({ "kind": "reset" })).await;
    assert!(client.try_get(APP).await.is_err());
    assert_eq!(
        done(&client, "GET", "faults", Value::Null)
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    done(&client, "DELETE", "faults", Value::Null).await;
    client.good(APP).await;

    done(&client, "PUT", "latency", json!({ "ms": 1 })).await;
    client.good(APP).await;
    done(&client, "PUT", "clock", json!({ "offset_s": -600 })).await;
    assert_eq!(client.get(APP).await.status, 401);
    let requests = done(&client, "GET", "requests", Value::Null).await;
    let last = requests.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["status"], &last["key_id"]),
        (&json!(401), &json!(KEY))
    );
    assert_eq!(last["refused_because"], "iat is in the future");
    done(&client, "DELETE", "requests", Value::Null).await;
    assert_eq!(
        done(&client, "GET", "requests", Value::Null).await,
        json!([])
    );
    done(&client, "DELETE", "budgets", Value::Null).await;
}

#[tokio::test]
async fn a_wrong_order_is_refused_in_words_and_changes_nothing() {
    let (simulator, client) = start().await;
    let before = simulator.state();
    let purchases = "apps/1000000001/in-app-purchases";
    let cases = [
        (
            "POST",
            "faults",
            json!({ "kind": "earthquake" }),
            400,
            "earthquake",
        ),
        (
            "POST",
            "faults",
            json!({ "kind": "reset", "tmies": 1 }),
            400,
            "tmies",
        ),
        (
            "POST",
            "faults",
            json!({ "kind": "status", "with": { "stauts": 1 } }),
            400,
            "stauts",
        ),
        (
            "POST",
            purchases,
            json!({ "name": "No product id" }),
            400,
            "product_id",
        ),
        (
            "POST",
            purchases,
            json!({ "product_id": "a", "nmae": "x" }),
            400,
            "nmae",
        ),
        ("POST", purchases, json!([]), 400, "map"),
        ("POST", "apps/9/in-app-purchases", json!({}), 404, "app `9`"),
        (
            "DELETE",
            "apps/1000000001/in-app-purchases/9",
            Value::Null,
            404,
            "in-app purchase `9`",
        ),
        (
            "DELETE",
            "apps/1000000001/grace-period",
            Value::Null,
            404,
            "grace period",
        ),
        (
            "PUT",
            "state",
            json!({ "teams": [{ "keys": [{ "key_id": "SHORT" }] }] }),
            400,
            "teams[0].keys[0].key_id",
        ),
        (
            "PUT",
            "latency",
            json!({ "s": 1 }),
            400,
            "unknown field `s`",
        ),
        ("GET", "nowhere", Value::Null, 404, "nowhere"),
        ("DELETE", "state", Value::Null, 405, "method"),
        ("GET", "ca.pem", Value::Null, 404, "--https"),
    ];
    for (method, path, body, status, words) in cases {
        let answer = client.control(method, path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(
            answer.body["error"].as_str().unwrap().contains(words),
            "{path}: {}",
            answer.text
        );
    }
    assert_eq!(simulator.state(), before);
}

#[test]
fn every_fault_is_written_and_read() {
    let kinds = [
        FaultKind::status(500),
        FaultKind::Reset,
        FaultKind::CutBody,
        FaultKind::SlowDrip {
            bytes: 1,
            every: std::time::Duration::from_secs(1),
        },
        FaultKind::Hang,
        FaultKind::Html200,
        FaultKind::Body("x".to_owned()),
        FaultKind::Redirect("x".to_owned()),
        FaultKind::NextElsewhere("x".to_owned()),
        FaultKind::NextForm(NextForm::Empty),
        FaultKind::SelfNext,
        FaultKind::TotalOff(-1),
        FaultKind::NoTotal,
        FaultKind::TotalPerPage(vec![1, 2]),
        FaultKind::RepeatRow,
        FaultKind::SkipRow,
        FaultKind::ReorderedPage,
        FaultKind::DropIncluded,
        FaultKind::ExtraAttribute {
            name: "a".to_owned(),
            value: json!(null),
        },
        FaultKind::Unauthorized,
        FaultKind::RequiredAgreement,
        FaultKind::HugeBody { bytes: 1 },
        FaultKind::GzipBomb { bytes: 1 },
        FaultKind::RateLimited { retry_after: None },
    ];
    for kind in kinds {
        let fault = Fault::new("x", kind).of_key(KEY).after(1).times(2);
        let written = serde_json::to_value(&fault).unwrap();
        assert_eq!(
            serde_json::from_value::<Fault>(written.clone()).unwrap(),
            fault,
            "{written}"
        );
    }
}

#[tokio::test]
async fn every_curl_line_of_the_guide_works() {
    let guide = include_str!("../../../docs/simulator.md");
    let simulator = Simulator::start(State::sample()).await.unwrap();
    let client = Client::of(&simulator);
    let whole = done(&client, "GET", "state", Value::Null).await;
    let lines: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("curl "))
        .collect();
    assert!(lines.len() > 15, "{} lines", lines.len());
    for line in lines {
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
        let method = after("-X ").map_or("GET", |rest| rest.split(' ').next().unwrap());
        let path = after("$SIM/_simulator/")
            .unwrap()
            .split([' ', '"'])
            .next()
            .unwrap();
        let body = match after(" -d ") {
            None => Value::Null,
            Some("@state.json") => whole.clone(),
            Some(quoted) => serde_json::from_str(quoted.trim_matches('\'')).unwrap(),
        };
        done(&client, method, path, body).await;
    }
}
