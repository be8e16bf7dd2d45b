//! States in files, keys on disk, and what is shipped.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;

use catalog_sync::simulator::{
    App, InAppPurchase, Key, Nulls, Role, Simulator, State, Subscription,
};
use serde_json::{Value, json};

use super::client::Client;

const SHIPPED: &str = include_str!("../../../docs/simulator.toml");

fn error_of(toml: &str) -> String {
    State::from_toml(toml).unwrap_err().to_string()
}

#[test]
fn the_shipped_file_is_the_sample() {
    let shipped = State::from_toml(SHIPPED).unwrap();
    let mut sample = State::sample();
    sample.teams[0].keys[0]
        .private_key
        .clone_from(&shipped.teams[0].keys[0].private_key);
    assert_eq!(sample, shipped);
    assert_eq!((shipped.nulls, shipped.hourly_limit), (Nulls::Absent, 3600));

    let [team] = shipped.teams.as_slice() else {
        panic!("one team")
    };
    let ([key], [app]) = (team.keys.as_slice(), team.apps.as_slice()) else {
        panic!("one key, one app")
    };
    assert!(
        key.role == Role::Admin
            && !key.individual
            && key.private_key.starts_with("-----BEGIN PRIVATE KEY-----\n")
    );
    assert_eq!(app.bundle_id, "com.example.lumen");
    assert!(app.grace_period.is_some());
    let mut types: Vec<_> = app
        .in_app_purchases
        .iter()
        .map(|purchase| purchase.kind.clone().unwrap())
        .collect();
    types.sort();
    types.dedup();
    assert_eq!((app.in_app_purchases.len(), types.len()), (6, 3));
    let groups: Vec<usize> = app
        .subscription_groups
        .iter()
        .map(|group| group.subscriptions.len())
        .collect();
    assert_eq!(groups, [4, 4]);
    let drafts = |subscription: &&Subscription| {
        subscription.period.is_none() && subscription.group_level.is_none()
    };
    let subscriptions = app
        .subscription_groups
        .iter()
        .flat_map(|group| &group.subscriptions);
    assert_eq!(subscriptions.filter(drafts).count(), 1);
}

#[test]
fn a_state_survives_the_way_through_a_file() {
    let purchase = InAppPurchase::new("11", "com.x.odd", "Odd")
        .with_extra("reviewNote", Value::Null)
        .with_extra("list", json!([1, "two"]));
    let app = App::new("1", "com.x", "X")
        .with_in_app_purchase(purchase)
        .with_groups(2, 2)
        .with_grace_period();
    let mut state = State::with_app(app);
    state.teams[0].keys.push(
        Key::new("INDIVIDUAL", Role::AppManager)
            .individual(&["1"])
            .with_hourly_limit(9),
    );
    state.page_limit = NonZeroU32::new(3);
    state.complete().unwrap();
    assert_eq!(State::from_toml(&state.to_toml().unwrap()).unwrap(), state);
}

#[test]
fn an_id_is_never_used_again() {
    let mut state = State::with_app(App::new("1", "com.x", "X").with_in_app_purchases(2));
    state.complete().unwrap();
    let last = state.app("1").unwrap().in_app_purchases[1].id.clone();
    assert!(state.remove_product(&last));
    let another = InAppPurchase::new("", "com.x.another", "Another");
    state.app_mut("1").unwrap().in_app_purchases.push(another);
    state.complete().unwrap();
    let ids: Vec<_> = state
        .app("1")
        .unwrap()
        .in_app_purchases
        .iter()
        .map(|it| &it.id)
        .collect();
    assert!(!ids.contains(&&last) && !ids[1].is_empty(), "{ids:?}");
}

#[test]
fn what_is_left_out_is_made_up_the_same_each_time() {
    let text = r#"
        [[teams]]
        [[teams.keys]]
        [[teams.keys]]
        [[teams.apps]]
        bundle_id = "com.x"
        [[teams.apps.in_app_purchases]]
        product_id = "com.x.a"
        [[teams.apps.in_app_purchases]]
        id = "6440000002"
        product_id = "com.x.b"
        [[teams.apps.subscription_groups]]
        [[teams.apps.subscription_groups.subscriptions]]
    "#;
    let state = State::from_toml(text).unwrap();
    let app = &state.teams[0].apps[0];
    assert_eq!(app.id, "6440000001");
    let ids: Vec<&str> = app
        .in_app_purchases
        .iter()
        .map(|purchase| purchase.id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["6440000003", "6440000002"],
        "a given id is not given twice"
    );
    assert_eq!(app.subscription_groups[0].subscriptions[0].id, "6440000005");
    let keys: Vec<&str> = state.teams[0]
        .keys
        .iter()
        .map(|key| key.key_id.as_str())
        .collect();
    assert_eq!(keys, ["SIMKEY0001", "SIMKEY0002"]);
    assert_ne!(
        state.teams[0].keys[0].private_key,
        state.teams[0].keys[1].private_key
    );
    assert_eq!(
        State::from_toml(text).unwrap().teams[0].issuer_id,
        state.teams[0].issuer_id
    );
}

#[test]
fn a_wrong_file_is_refused_with_the_place() {
    let unknown = error_of("nulls = \"absent\"\n[[teams]]\nnmae = \"X\"\n");
    assert!(
        unknown.contains("line 3") && unknown.contains("nmae"),
        "{unknown}"
    );
    let value = error_of("[[teams]]\n[[teams.keys]]\nrole = \"BOSS\"\n");
    assert!(
        value.contains("line 3") && value.contains("BOSS"),
        "{value}"
    );
    let syntax = error_of("[[teams]\n");
    assert!(syntax.contains("line 1"), "{syntax}");
    let twice = error_of("[[teams]]\n[[teams.apps]]\nid = \"1\"\n[[teams.apps]]\nid = \"1\"\n");
    assert!(
        twice.contains("teams[0].apps[1]") && twice.contains("`1`"),
        "{twice}"
    );
    let key = error_of("[[teams]]\n[[teams.keys]]\nkey_id = \"too short\"\n");
    assert!(key.contains("teams[0].keys[0].key_id"), "{key}");
    let key = error_of("[[teams]]\n[[teams.keys]]\nprivate_key = \"none\"\n");
    assert!(key.contains("teams[0].keys[0].private_key"), "{key}");
}

#[tokio::test]
async fn keys_are_written_as_apple_hands_them_out() {
    let mut state = State::sample();
    state.teams[0]
        .keys
        .push(Key::new("PURCHASE01", Role::Admin).for_in_app_purchase());
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("AuthKey_LUMENADM01.p8"), "old").unwrap();
    let written = state.write_keys(&keys).unwrap();
    assert_eq!(
        written,
        [
            keys.join("AuthKey_LUMENADM01.p8"),
            keys.join("SubscriptionKey_PURCHASE01.p8")
        ]
    );
    for (path, key) in written.iter().zip(&state.teams[0].keys) {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), key.private_key);
    }
    let simulator = Simulator::start(state).await.unwrap();
    Client::of(&simulator).good("/v1/apps").await;
    let error = simulator.state().write_keys("/dev/null/keys").unwrap_err();
    assert_eq!(error.to_string(), "cannot write /dev/null/keys");
}

#[test]
fn a_private_key_is_not_in_the_debug_form() {
    let state = State::sample();
    let secret = state.teams[0].keys[0]
        .private_key
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    assert!(!format!("{state:?}").contains(&secret));
}
