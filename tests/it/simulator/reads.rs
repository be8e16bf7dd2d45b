//! Resources: sparse fieldsets, linkages, drafts, unknown paths; and the ways to reach the server.

use catalog_sync::simulator::{
    App, InAppPurchase, Nulls, Options, Simulator, State, Subscription, SubscriptionGroup,
};
use serde_json::{Value, json};

use super::client::{Client, KEY};

const APP: &str = "/v1/apps/1000000001";

async fn start(app: App) -> (Simulator, Client) {
    let simulator = Simulator::start(State::with_app(app)).await.unwrap();
    let client = Client::of(&simulator);
    (simulator, client)
}

fn app() -> App {
    App::new("1000000001", "com.example.app", "Example")
}

#[tokio::test]
async fn a_sparse_fieldset_drops_what_it_does_not_name() {
    let (_simulator, client) = start(
        app()
            .with_groups(1, 2)
            .with_in_app_purchases(1)
            .with_grace_period(),
    )
    .await;
    let full = client
        .good(&format!("{APP}/subscriptionGroups?include=subscriptions"))
        .await
        .body;
    let links = &full["data"][0]["relationships"]["subscriptions"]["links"];
    assert!(
        links["related"]
            .as_str()
            .unwrap()
            .ends_with("/subscriptions")
    );
    assert!(full["included"][0]["relationships"]["prices"]["links"].is_object());

    let path = format!(
        "{APP}/subscriptionGroups?include=subscriptions&fields[subscriptionGroups]=referenceName"
    );
    let sparse = client.good(&path).await.body;
    assert_eq!(
        sparse["data"][0]["attributes"],
        json!({ "referenceName": "Group 00001" })
    );
    assert!(
        sparse["data"][0].get("relationships").is_none(),
        "the linkage is gone"
    );
    assert_eq!(
        sparse["included"].as_array().unwrap().len(),
        2,
        "what was included is not"
    );

    let kept = client
        .good(&format!(
            "{path},subscriptions&fields[subscriptions]=name,groupLevel"
        ))
        .await
        .body;
    assert_eq!(
        kept["data"][0]["relationships"]["subscriptions"]["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        kept["included"][1]["attributes"],
        json!({ "name": "Group 00001 Plan 00002", "groupLevel": 2 })
    );
    assert!(kept["included"][0].get("relationships").is_none());

    let wide = client
        .good(&format!("{APP}/inAppPurchasesV2"))
        .await
        .text
        .len();
    let fields = "name,productId,inAppPurchaseType,state,reviewNote,familySharable,contentHosting";
    let narrow = client
        .good(&format!(
            "{APP}/inAppPurchasesV2?fields[inAppPurchases]={fields}"
        ))
        .await
        .text
        .len();
    assert!(narrow * 2 < wide, "{narrow} of {wide} bytes");
}

#[tokio::test]
async fn an_unset_grace_period_differs_from_an_unknown_app_on_the_app_only() {
    let (simulator, client) = start(app()).await;
    let read = format!(
        "{APP}?include=subscriptionGracePeriod&fields[apps]=bundleId,name,sku,primaryLocale,subscriptionGracePeriod"
    );
    let unset = client.good(&read).await.body;
    let linkage = unset["data"]["relationships"]["subscriptionGracePeriod"]
        .as_object()
        .unwrap();
    assert_eq!(linkage.get("data"), Some(&Value::Null));
    assert!(unset.get("included").is_none());
    for path in [
        format!("{APP}/subscriptionGracePeriod"),
        "/v1/subscriptionGracePeriods/1000000001".to_owned(),
    ] {
        assert_eq!(client.get(&path).await.code(), "NOT_FOUND");
        assert_eq!(
            client
                .get(&path.replace("1000000001", "1000000009"))
                .await
                .code(),
            "NOT_FOUND"
        );
    }
    assert_eq!(
        client
            .get(&read.replace("1000000001", "1000000009"))
            .await
            .status,
        404
    );

    simulator.edit(|state| {
        let app = state.app_mut("1000000001").unwrap();
        *app = app.clone().with_grace_period();
    });
    let set = client.good(&read).await.body;
    let linked = &set["data"]["relationships"]["subscriptionGracePeriod"]["data"];
    assert_eq!(
        linked,
        &json!({ "type": "subscriptionGracePeriods", "id": "1000000001" })
    );
    let expected = json!({ "optIn": true, "sandboxOptIn": false, "duration": "SIXTEEN_DAYS", "renewalType": "ALL_RENEWALS" });
    assert_eq!(set["included"][0]["attributes"], expected);
    let alone = client
        .good(&format!("{APP}/subscriptionGracePeriod"))
        .await
        .body;
    assert_eq!(
        (&alone["data"]["attributes"], &alone["data"]["id"]),
        (&expected, &json!("1000000001"))
    );
}

#[tokio::test]
async fn unknown_paths_and_other_methods_are_refused_in_apples_shape() {
    let (simulator, client) = start(app()).await;
    for path in ["/v1/users", "/v1/apps/", "/v1/apps/1/2/3", "/", "/v9/apps"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{path}");
        let error = &answer.body["errors"][0];
        assert_eq!(error["status"], "404");
        assert!(uuid::Uuid::parse_str(error["id"].as_str().unwrap()).is_ok());
        assert!(error["title"].is_string() && error["detail"].is_string());
    }
    let stranger = Client::with_token(&simulator, None).get("/v1/users").await;
    assert_eq!(stranger.status, 401, "a stranger is not told what exists");
    let token = super::client::token(&simulator.state(), KEY);
    let deleted = client
        .http
        .delete(format!("{}{APP}", simulator.base_url()))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 405);
}

#[tokio::test]
async fn a_subscription_is_read_with_its_group() {
    let (simulator, client) = start(app().with_groups(1, 3)).await;
    let group = simulator
        .state()
        .app("1000000001")
        .unwrap()
        .subscription_groups[0]
        .clone();
    let one = client
        .good(&format!(
            "/v1/subscriptions/{}?include=group",
            group.subscriptions[0].id
        ))
        .await
        .body;
    assert_eq!(
        one["data"]["relationships"]["group"]["data"]["id"],
        json!(group.id)
    );
    assert_eq!(
        one["included"][0]["attributes"]["referenceName"],
        json!(group.reference_name)
    );
    let all = client
        .good(&format!(
            "/v1/subscriptionGroups/{}/subscriptions?include=group",
            group.id
        ))
        .await
        .body;
    assert_eq!(
        all["included"].as_array().unwrap().len(),
        1,
        "one group, once"
    );
    assert_eq!(client.get("/v1/subscriptions/1").await.code(), "NOT_FOUND");
    assert_eq!(
        client
            .get("/v1/subscriptionGroups/1/subscriptions")
            .await
            .code(),
        "NOT_FOUND"
    );
}

#[tokio::test]
async fn what_a_draft_lacks_is_left_out_or_null() {
    let group = SubscriptionGroup::new("21", "Plans").with_subscription(Subscription::draft(
        "31",
        "com.x.draft",
        "Draft",
    ));
    let purchase = InAppPurchase::new("11", "com.x.new", "New")
        .in_state("SOME_NEW_STATE")
        .with_extra("reviewNote", Value::Null)
        .with_extra("brandNew", json!({ "deep": [1] }));
    let (simulator, client) = start(app().with_group(group).with_in_app_purchase(purchase)).await;
    let draft = client.good("/v1/subscriptions/31").await.body["data"]["attributes"].clone();
    assert_eq!(draft["state"], "MISSING_METADATA");
    assert!(draft.get("subscriptionPeriod").is_none() && draft.get("groupLevel").is_none());
    let odd = client.good("/v2/inAppPurchases/11").await.body["data"]["attributes"].clone();
    assert_eq!(odd.get("reviewNote"), Some(&Value::Null));
    assert_eq!(
        (&odd["state"], &odd["brandNew"]),
        (&json!("SOME_NEW_STATE"), &json!({ "deep": [1] }))
    );

    simulator.edit(|state| state.nulls = Nulls::Explicit);
    let draft = client.good("/v1/subscriptions/31").await.body["data"]["attributes"].clone();
    assert_eq!(draft.get("subscriptionPeriod"), Some(&Value::Null));
    assert_eq!(draft.get("groupLevel"), Some(&Value::Null));
}

#[tokio::test]
async fn https_is_trusted_by_its_authority_and_speaks_http_2() {
    let options = Options {
        https: true,
        names: vec!["apple.test".to_owned()],
        ..Options::default()
    };
    let simulator = Simulator::start_with(State::with_app(app().with_in_app_purchases(3)), options)
        .await
        .unwrap();
    assert!(simulator.base_url().starts_with("https://127.0.0.1:"));
    let client = Client::of(&simulator);
    let response = client
        .try_get(&format!("{APP}/inAppPurchasesV2?limit=1"))
        .await
        .unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(
        client
            .all_ids(&format!("{APP}/inAppPurchasesV2?limit=1"))
            .await
            .len(),
        3
    );
    let http1 = reqwest::Client::builder()
        .add_root_certificate(
            reqwest::Certificate::from_pem(simulator.ca_pem().unwrap().as_bytes()).unwrap(),
        )
        .http1_only()
        .resolve("apple.test", simulator.address())
        .build()
        .unwrap();
    let by_name = format!("https://apple.test:{}/v1/apps", simulator.address().port());
    let token = super::client::token(&simulator.state(), KEY);
    let response = http1.get(&by_name).bearer_auth(token).send().await.unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (reqwest::Version::HTTP_11, 200)
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body["links"]["self"],
        json!(by_name),
        "links lead to the host that was asked"
    );
    let distrusting = reqwest::Client::builder().build().unwrap();
    assert!(distrusting.get(simulator.base_url()).send().await.is_err());
}

#[tokio::test]
async fn stopping_frees_the_port() {
    let (simulator, client) = start(app()).await;
    let address = simulator.address();
    client.good(APP).await;
    simulator.stop().await;
    assert!(client.try_get(APP).await.is_err());
    let again = Options {
        listen: address,
        ..Options::default()
    };
    drop(
        Simulator::start_with(State::with_app(app()), again.clone())
            .await
            .unwrap(),
    );
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let again = Options {
        listen: taken.local_addr().unwrap(),
        ..again
    };
    let error = Simulator::start_with(State::new(), again)
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
}
