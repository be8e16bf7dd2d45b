//! Every error code of the taxonomy, produced by the real binary.

use std::collections::BTreeSet;

use catalog_sync::{
    diagnosis::Code,
    simulator::{App, Fault, FaultKind, Key, Role, State, Team},
};
use serde_json::Value;

use crate::house::{Backend, House};

const APP: &str = "1000000001";
const STRANGER: &str = "5a1e0000-0000-4000-8000-0000000000ff";

fn state() -> State {
    let app = App::new(APP, "com.example.app", "Example")
        .with_in_app_purchases(3)
        .with_groups(1, 2);
    let mut state = State::with_app(app);
    state.teams[0]
        .apps
        .push(App::new("1000000002", "com.example.second", "Second"));
    state.teams[0].keys.extend([
        Key::new("DEVELOPER1", Role::Developer),
        Key::new("INDIVIDUAL", Role::AppManager).individual(&[APP]),
        Key::new("NOBODYKEY1", Role::AppManager).individual(&[]),
    ]);
    state.with_team(
        Team::new("Stranger", STRANGER)
            .with_key(Key::new("STRANGER01", Role::Admin))
            .with_app(App::new("2000000001", "com.stranger.app", "Stranger")),
    )
}

fn status(status: u16) -> FaultKind {
    FaultKind::Status {
        status,
        code: None,
        retry_after: None,
        html: false,
        empty: false,
    }
}

/// The code of the failure that explains the first run best.
fn code(answer: &Value) -> &str {
    answer[0]["run"]["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "one code after another, so that none is forgotten"
)]
async fn every_code_is_produced_end_to_end() {
    let house = House::new(state(), Backend::Sqlite).await;
    let issuer = house.issuer_id();
    let add = |file: &str, more: &[&str]| -> Vec<String> {
        let more = more.iter().copied();
        ["project", "add", "new", "--private-key", file]
            .into_iter()
            .chain(more)
            .map(str::to_owned)
            .collect()
    };
    let mut produced = BTreeSet::new();
    macro_rules! refused {
        ($code:ident, $args:expr, $says:expr) => {{
            let args = $args;
            let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
            let answer = house.json(&args, 1).await;
            assert_eq!(answer["error"]["code"], Code::$code.as_str(), "{answer}");
            assert!(
                answer["error"].to_string().contains($says),
                "{answer} does not say {:?}",
                $says
            );
            assert!(!answer["error"]["advice"].as_str().unwrap().is_empty());
            produced.insert(Code::$code);
        }};
    }
    let team = ["--issuer-id", issuer.as_str(), "--app-id", APP];

    // Before any call.
    house.write(
        "AuthKey_GARBAGE001.p8",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    refused!(
        KeyUnreadable,
        add("AuthKey_GARBAGE001.p8", &team),
        "certificate"
    );
    refused!(
        KeyIncomplete,
        ["project", "add", "new", "--key-id", "SIMULATOR1"],
        "private key"
    );
    let named = [&team[..], &["--key-id", "OTHERKEY01"]].concat();
    refused!(
        KeyIdMismatch,
        add("AuthKey_SIMULATOR1.p8", &named),
        "OTHERKEY01"
    );
    std::fs::copy(
        house.path("AuthKey_SIMULATOR1.p8"),
        house.path("SubscriptionKey_SIMULATOR1.p8"),
    )
    .unwrap();
    refused!(
        WrongKeyKind,
        add("SubscriptionKey_SIMULATOR1.p8", &team),
        "App Store Connect API"
    );
    assert!(
        house.simulator.requests().is_empty(),
        "none of these asked Apple"
    );

    // At verification.
    let elsewhere = ["--issuer-id", STRANGER, "--app-id", APP];
    refused!(
        NotAuthorized,
        add("AuthKey_SIMULATOR1.p8", &elsewhere),
        "00ff"
    );
    refused!(
        NotAuthorized,
        add("AuthKey_INDIVIDUAL.p8", &team),
        "individual key"
    );
    refused!(
        NoApps,
        add("AuthKey_NOBODYKEY1.p8", &[]),
        "No apps are linked"
    );
    refused!(
        AppNotVisible,
        add("AuthKey_INDIVIDUAL.p8", &["--bundle-id", "com.example.ap"]),
        "com.example.app"
    );
    let both = [&team[..], &["--bundle-id", "com.example.second"]].concat();
    refused!(AppMismatch, add("AuthKey_SIMULATOR1.p8", &both), "Second");
    refused!(
        RoleTooLow,
        add("AuthKey_DEVELOPER1.p8", &team),
        "/v1/apps/1000000001/inAppPurchasesV2"
    );
    house.simulator.set_clock_offset(-7200);
    refused!(ClockSkew, add("AuthKey_SIMULATOR1.p8", &team), "ahead of");
    house.simulator.set_clock_offset(0);
    house
        .simulator
        .edit(|state| state.teams[0].agreement_missing = true);
    refused!(
        AgreementMissing,
        add("AuthKey_SIMULATOR1.p8", &team),
        "Account Holder"
    );
    house
        .simulator
        .edit(|state| state.teams[0].agreement_missing = false);
    assert_eq!(
        house.json(&["project", "list"], 0).await,
        serde_json::json!([]),
        "nothing was stored"
    );

    // Stored keys.
    for id in ["acme", "other"] {
        let args = [
            "project",
            "add",
            id,
            "--private-key",
            "AuthKey_SIMULATOR1.p8",
        ];
        let answer = house.json(&[&args[..], &team].concat(), 0).await;
        for notice in answer["notices"].as_array().unwrap() {
            assert_eq!(notice["code"], "shared_key");
            produced.insert(Code::SharedKey);
        }
    }
    house.run(&["sync", "acme"]).await.expect(0);
    let mut run_fails = async |code_expected: Code, fault: Fault| {
        house.simulator.inject(fault);
        let answer = house.json(&["sync", "acme"], 1).await;
        house.simulator.clear_faults();
        assert_eq!(code(&answer), code_expected.as_str(), "{answer}");
        assert_eq!(
            house.json(&["status", "acme"], 0).await["error"]["code"],
            code_expected.as_str()
        );
        produced.insert(code_expected);
    };
    let wait = FaultKind::RateLimited {
        retry_after: Some("3000".to_owned()),
    };
    run_fails(Code::RateLimited, Fault::new("", wait)).await;
    run_fails(Code::UpstreamUnavailable, Fault::new("", FaultKind::Reset)).await;
    run_fails(Code::UpstreamUnexpected, Fault::new("", status(400))).await;
    run_fails(
        Code::GracePeriodUnreadable,
        Fault::new(format!("/v1/apps/{APP}$"), status(403)),
    )
    .await;
    run_fails(Code::AppNotVisible, Fault::new(APP, status(404))).await;

    // A key that worked, refused three times over more than ten minutes.
    house
        .simulator
        .edit(|state| state.teams[0].keys[0].revoked = true);
    assert_eq!(
        code(&house.json(&["sync", "acme"], 1).await),
        "not_authorized"
    );
    assert_eq!(
        code(&house.json(&["sync", "acme"], 1).await),
        "not_authorized"
    );
    set_refused_since(&house, "2026-01-01T00:00:00.000Z").await;
    assert_eq!(
        code(&house.json(&["sync", "acme"], 1).await),
        "key_rejected"
    );
    produced.insert(Code::KeyRejected);
    let products = house.json(&["catalog", "acme"], 0).await["products"].clone();
    assert_eq!(products.as_array().unwrap().len(), 5, "the catalog is kept");

    std::fs::remove_file(house.path("master.key")).unwrap();
    house.run(&["init", "--new-master-key"]).await.expect(0);
    assert_eq!(code(&house.json(&["sync", "acme"], 1).await), "key_sealed");
    produced.insert(Code::KeySealed);

    assert_eq!(
        house.json(&["explain", "key_lost"], 0).await[0]["code"],
        "key_lost"
    );
    produced.insert(Code::KeyLost);

    let all: BTreeSet<_> = Code::ALL.iter().copied().collect();
    assert_eq!(produced, all);
}

/// Moves the first refusal back in time, which no test can wait for.
async fn set_refused_since(house: &House, at: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.path("catalog-sync.db"));
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .unwrap();
    let moved =
        sqlx::query("update project_state set key_refused_since = $1 where project_id = 'acme'")
            .bind(at)
            .execute(&mut database)
            .await
            .unwrap();
    assert_eq!(moved.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_can_be_explained() {
    let house = House::bare(state(), Backend::Sqlite).await;
    let explained = house.json(&["explain"], 0).await;
    assert_eq!(explained.as_array().unwrap().len(), Code::ALL.len());
    for code in Code::ALL {
        assert_eq!(code.as_str().parse::<Code>().unwrap(), *code);
        house.run(&["explain", code.as_str()]).await.expect(0);
    }
    house.run(&["explain", "no_such_code"]).await.expect(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_random_401_condemns_no_key() {
    let house = House::with_project(State::sample(), Backend::Sqlite).await;
    house
        .simulator
        .inject(Fault::new("inAppPurchasesV2", FaultKind::Unauthorized).times(1));
    let answer = house.json(&["sync", "acme"], 0).await;
    assert_eq!(answer[0]["run"]["cost"]["requests"], 4);
}
