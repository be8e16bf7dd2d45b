//! Who is let in, and what they may do.

use catalog_sync::simulator::{App, Key, RateLimitHeader, Role, Simulator, State, Team};
use serde_json::{Value, json};

use super::client::{Client, KEY, good_claims, header, now, sign, token};

const ISSUER: &str = "5a1e0000-0000-4000-8000-000000000001";

fn app() -> App {
    App::new("1000000001", "com.example.app", "Example")
        .with_in_app_purchases(2)
        .with_groups(1, 2)
        .with_grace_period()
}

async fn start_with_keys(keys: impl IntoIterator<Item = Key>) -> Simulator {
    let mut state = State::with_app(app());
    state.teams[0]
        .apps
        .push(App::new("1000000002", "com.example.other", "Other"));
    state.teams[0].keys.extend(keys);
    Simulator::start(state).await.unwrap()
}

/// Asks with a token made from changed claims and header; gives the status and the reason on record.
async fn ask(simulator: &Simulator, token: Option<String>) -> (u16, Option<&'static str>) {
    let answer = Client::with_token(simulator, token).get("/v1/apps").await;
    if answer.status == 401 {
        assert_eq!(answer.code(), "NOT_AUTHORIZED");
        assert_eq!(answer.body["errors"][0]["status"], "401");
        assert!(
            answer.headers.get("x-rate-limit").is_none(),
            "a stranger has no budget"
        );
    }
    (
        answer.status,
        simulator.requests().last().unwrap().refused_because,
    )
}

fn with(mut claims: Value, changes: &[(&str, Value)]) -> Value {
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(*name);
        } else {
            claims[*name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn every_fault_of_a_team_token_is_the_same_401() {
    let simulator = start_with_keys([]).await;
    let key = simulator.private_key_pem(KEY).unwrap();
    let good = with(good_claims(), &[("iss", json!(ISSUER))]);
    assert_eq!(
        ask(&simulator, Some(sign(&header(KEY), &good, &key))).await,
        (200, None)
    );

    let cases = [
        (
            "iss",
            json!("5a1e0000-0000-4000-8000-00000000000f"),
            "iss is not the issuer id of the key's team",
        ),
        (
            "iss",
            Value::Null,
            "iss is not the issuer id of the key's team",
        ),
        ("sub", json!("user"), "a team key sends no sub"),
        (
            "aud",
            json!("appstoreconnect-v2"),
            "aud is not appstoreconnect-v1",
        ),
        ("aud", Value::Null, "aud is not appstoreconnect-v1"),
        ("iat", json!(now() + 30), "iat is in the future"),
        ("iat", Value::Null, "no iat"),
        ("exp", json!(now() - 1), "exp is past"),
        ("exp", Value::Null, "no exp"),
        (
            "exp",
            json!(now() - 60 + 1202),
            "exp is more than 20 minutes after iat",
        ),
    ];
    for (claim, value, reason) in cases {
        let token = sign(&header(KEY), &with(good.clone(), &[(claim, value)]), &key);
        assert_eq!(ask(&simulator, Some(token)).await, (401, Some(reason)));
    }
    let (iat, exp) = (json!(now() - 60), json!(now() - 60 + 1200));
    let token = sign(
        &header(KEY),
        &with(good.clone(), &[("iat", iat), ("exp", exp)]),
        &key,
    );
    assert_eq!(
        ask(&simulator, Some(token)).await,
        (200, None),
        "20 minutes are allowed"
    );
}

#[tokio::test]
async fn the_header_and_the_signature_must_be_right() {
    let other = Key::new("OTHERKEY01", Role::Admin);
    let others_key = other.private_key.clone();
    let simulator = start_with_keys([other]).await;
    let key = simulator.private_key_pem(KEY).unwrap();
    let good = with(good_claims(), &[("iss", json!(ISSUER))]);

    let mut no_type = header(KEY);
    no_type.typ = None;
    let mut symmetric = header(KEY);
    symmetric.alg = jsonwebtoken::Algorithm::HS256;
    let mut no_key_id = header(KEY);
    no_key_id.kid = None;
    let cases = [
        (Some(sign(&no_type, &good, &key)), "typ is not JWT"),
        (Some(sign(&symmetric, &good, &key)), "alg is not ES256"),
        (Some(sign(&no_key_id, &good, &key)), "no kid"),
        (
            Some(sign(&header("NOSUCHKEY1"), &good, &key)),
            "no key has this kid",
        ),
        (
            Some(sign(&header(KEY), &good, &others_key)),
            "signed with another key",
        ),
        (
            Some("not.a.token".to_owned()),
            "the token's header is not JSON",
        ),
        (None, "no bearer token"),
    ];
    for (token, reason) in cases {
        assert_eq!(ask(&simulator, token).await, (401, Some(reason)));
    }
}

#[tokio::test]
async fn revoked_keys_and_in_app_purchase_keys_are_refused() {
    let simulator =
        start_with_keys([Key::new("PURCHASE01", Role::Admin).for_in_app_purchase()]).await;
    let state = simulator.state();
    assert_eq!(
        ask(&simulator, Some(token(&state, "PURCHASE01"))).await,
        (401, Some("an In-App Purchase key"))
    );
    assert_eq!(ask(&simulator, Some(token(&state, KEY))).await.0, 200);
    simulator.edit(|state| state.key_mut(KEY).unwrap().revoked = true);
    assert_eq!(
        ask(&simulator, Some(token(&state, KEY))).await,
        (401, Some("the key is revoked"))
    );
}

#[tokio::test]
async fn an_individual_key_has_no_issuer_and_sees_its_apps_only() {
    let simulator =
        start_with_keys([Key::new("INDIVIDUAL", Role::Admin).individual(&["1000000002"])]).await;
    let state = simulator.state();
    let client = Client::with_key(&simulator, "INDIVIDUAL");
    assert_eq!(client.all_ids("/v1/apps").await, ["1000000002"]);
    assert_eq!(client.get("/v1/apps/1000000001").await.code(), "NOT_FOUND");
    let purchase = &state.app("1000000001").unwrap().in_app_purchases[0].id;
    assert_eq!(
        client
            .get(&format!("/v2/inAppPurchases/{purchase}"))
            .await
            .status,
        404
    );
    assert_eq!(
        client
            .get("/v1/apps/1000000001/inAppPurchasesV2")
            .await
            .status,
        404
    );

    let key = simulator.private_key_pem("INDIVIDUAL").unwrap();
    let with_issuer = with(
        good_claims(),
        &[("iss", json!(ISSUER)), ("sub", json!("user"))],
    );
    let token = sign(&header("INDIVIDUAL"), &with_issuer, &key);
    assert_eq!(
        ask(&simulator, Some(token)).await,
        (401, Some("an individual key sends no iss"))
    );
    let token = sign(&header("INDIVIDUAL"), &good_claims(), &key);
    assert_eq!(
        ask(&simulator, Some(token)).await,
        (401, Some("an individual key sends sub: user"))
    );
    assert_eq!(
        Client::of(&simulator).all_ids("/v1/apps").await,
        ["1000000001", "1000000002"]
    );
}

#[tokio::test]
async fn a_team_does_not_see_the_apps_of_another() {
    let other = Team::new("Other", "5a1e0000-0000-4000-8000-000000000002")
        .with_key(Key::new("OTHERTEAM1", Role::Admin))
        .with_app(App::new("2000000001", "com.other.app", "Other").with_grace_period());
    let simulator = Simulator::start(State::with_app(app()).with_team(other))
        .await
        .unwrap();
    let client = Client::with_key(&simulator, "OTHERTEAM1");
    assert_eq!(client.all_ids("/v1/apps").await, ["2000000001"]);
    assert_eq!(
        client
            .get("/v1/apps/1000000001/subscriptionGracePeriod")
            .await
            .status,
        404
    );
    assert_eq!(
        client
            .good("/v1/apps/2000000001/subscriptionGracePeriod")
            .await
            .body["data"]["id"],
        "2000000001"
    );
}

#[tokio::test]
async fn tokens_are_judged_by_the_clock_that_the_date_header_tells() {
    let simulator = start_with_keys([]).await;
    let client = Client::of(&simulator);
    client.good("/v1/apps").await;
    simulator.set_clock_offset(-120);
    let answer = client.get("/v1/apps").await;
    assert_eq!(answer.status, 401);
    let told = httpdate::parse_http_date(answer.header("date")).unwrap();
    let told = told
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let skew = now() - i64::try_from(told).unwrap();
    assert!((119..=180).contains(&skew), "the header is {skew} s behind");
    assert_eq!(
        simulator.requests().last().unwrap().refused_because,
        Some("iat is in the future")
    );
    simulator.set_clock_offset(3600);
    assert_eq!(
        ask(&simulator, Some(token(&simulator.state(), KEY))).await,
        (401, Some("exp is past"))
    );
}

#[tokio::test]
async fn a_low_role_lists_apps_and_is_refused_the_catalog() {
    let roles = [
        Role::Developer,
        Role::Finance,
        Role::Sales,
        Role::Marketing,
        Role::CustomerSupport,
    ];
    let keys = (0..)
        .zip(roles)
        .map(|(n, role)| Key::new(format!("LOWROLE{n:03}"), role));
    let simulator = start_with_keys(keys.chain([Key::new("MANAGER001", Role::AppManager)])).await;
    let app = simulator.state().app("1000000001").unwrap().clone();
    let catalog = [
        "/v1/apps/1000000001/inAppPurchasesV2".to_owned(),
        "/v1/apps/1000000001/subscriptionGroups".to_owned(),
        "/v1/apps/1000000001/subscriptionGracePeriod".to_owned(),
        "/v1/subscriptionGracePeriods/1000000001".to_owned(),
        format!("/v2/inAppPurchases/{}", app.in_app_purchases[0].id),
        format!(
            "/v1/subscriptionGroups/{}/subscriptions",
            app.subscription_groups[0].id
        ),
        format!(
            "/v1/subscriptions/{}",
            app.subscription_groups[0].subscriptions[0].id
        ),
    ];
    for n in 0..roles.len() {
        let client = Client::with_key(&simulator, &format!("LOWROLE{n:03}"));
        client.good("/v1/apps").await;
        client.good("/v1/apps/1000000001").await;
        for path in &catalog {
            let answer = client.get(path).await;
            assert_eq!(
                (answer.status, answer.code()),
                (403, "FORBIDDEN_ERROR"),
                "{path}"
            );
        }
    }
    let manager = Client::with_key(&simulator, "MANAGER001");
    for path in &catalog {
        manager.good(path).await;
    }
}

#[tokio::test]
async fn an_unsigned_agreement_blocks_the_whole_team_until_it_is_signed() {
    let simulator = start_with_keys([]).await;
    let client = Client::of(&simulator);
    simulator.edit(|state| state.teams[0].agreement_missing = true);
    for path in [
        "/v1/apps",
        "/v1/apps/1000000001",
        "/v1/apps/1000000001/inAppPurchasesV2",
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            (answer.status, answer.code()),
            (403, "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED")
        );
    }
    simulator.edit(|state| state.teams[0].agreement_missing = false);
    client.good("/v1/apps").await;
}

#[tokio::test]
async fn a_key_has_a_budget_of_its_own_for_a_rolling_hour() {
    let simulator =
        start_with_keys([Key::new("SMALLKEY01", Role::Admin).with_hourly_limit(3)]).await;
    let small = Client::with_key(&simulator, "SMALLKEY01");
    for left in [2, 1, 0] {
        let answer = small.good("/v1/apps").await;
        assert_eq!(
            answer.header("x-rate-limit"),
            format!("user-hour-lim:3;user-hour-rem:{left};")
        );
    }
    let refused = small.get("/v1/apps").await;
    assert_eq!(
        (refused.status, refused.code()),
        (429, "RATE_LIMIT_EXCEEDED")
    );
    assert_eq!(
        refused.header("x-rate-limit"),
        "user-hour-lim:3;user-hour-rem:0;"
    );
    let other = Client::of(&simulator).good("/v1/apps").await;
    assert_eq!(
        other.header("x-rate-limit"),
        "user-hour-lim:3600;user-hour-rem:3599;"
    );

    // A new token, as the clock is an hour on.
    simulator.set_clock_offset(3600);
    let key = simulator.private_key_pem("SMALLKEY01").unwrap();
    let later = json!({ "iss": ISSUER, "iat": now() + 3600 - 60, "exp": now() + 4200, "aud": "appstoreconnect-v1" });
    let later = Client::with_token(&simulator, Some(sign(&header("SMALLKEY01"), &later, &key)));
    assert_eq!(
        later.good("/v1/apps").await.header("x-rate-limit"),
        "user-hour-lim:3;user-hour-rem:2;"
    );
    simulator.spend_budget("SMALLKEY01", 2);
    assert_eq!(later.get("/v1/apps").await.status, 429);
    simulator.forget_budget(Some("SMALLKEY01"));
    later.good("/v1/apps").await;
}

#[tokio::test]
async fn the_budget_header_comes_in_every_form_that_was_seen() {
    let simulator = start_with_keys([]).await;
    let client = Client::of(&simulator);
    let cases: [(RateLimitHeader, &[&str]); 6] = [
        (
            RateLimitHeader::Plain,
            &["user-hour-lim:3600;user-hour-rem:3599;"],
        ),
        (RateLimitHeader::Absent, &[]),
        (
            RateLimitHeader::Twice,
            &[
                "user-hour-lim:3600;user-hour-rem:3599;",
                "user-hour-lim:3600;user-hour-rem:3599;",
            ],
        ),
        (
            RateLimitHeader::Joined,
            &["user-hour-lim:3600;user-hour-rem:3599;,user-minute-lim:250;user-minute-rem:249;"],
        ),
        (
            RateLimitHeader::WithMinute,
            &["user-minute-lim:250;user-minute-rem:249;user-hour-lim:3600;user-hour-rem:3599;"],
        ),
        (
            RateLimitHeader::Malformed,
            &["user-hour-lim:;user-hour-rem:plenty;;=:"],
        ),
    ];
    for (form, expected) in cases {
        simulator.edit(|state| state.rate_limit_header = form);
        simulator.forget_budget(None);
        let answer = client.good("/v1/apps").await;
        let told: Vec<&str> = answer
            .headers
            .get_all("x-rate-limit")
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect();
        assert_eq!(told, expected);
    }
}
