//! The client of App Store Connect against the simulator: what is read, what it costs, and what each fault comes to.

mod answers;
mod bounds;
mod keys;
mod limits;
mod listings;
mod next;
mod tls;

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use catalog_sync::{
    asc::{Client, Error, Failure, Limit, Meter, Options, Session, Signer, Terms},
    catalog::{Entry, Kind},
    credential::{self, Credential, Given, PrivateKey},
    diagnosis::Code,
    retry::Bases,
    run::Cost,
    simulator::{App, Fault, FaultKind, NextForm, Nulls, Simulator, State},
};
use reqwest::Url;
use serde_json::json;

const APP: &str = "1000000001";

pub(crate) fn app() -> App {
    App::new(APP, "com.example.app", "Example")
}

/// The limits of production with waits that a test can spare.
pub(crate) fn options(simulator: &Simulator) -> Options {
    Options {
        ca_pem: simulator.ca_pem().map(|pem| pem.as_bytes().to_vec()),
        request_timeout: Duration::from_secs(10),
        burst_per_key: NonZeroU32::new(10_000).unwrap(),
        retry: Bases {
            fault: Duration::from_millis(4),
            throttled: Duration::from_millis(4),
        },
        ..Options::new(Url::parse(simulator.base_url()).unwrap())
    }
}

/// A session with the first key of the first team.
pub(crate) fn session(simulator: &Simulator) -> (Session, Arc<Meter>) {
    session_with(simulator, options(simulator))
}

fn session_with(simulator: &Simulator, options: Options) -> (Session, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    let client = Client::new(options).unwrap();
    let session = client.session(signer(simulator, 0), Arc::clone(&meter), Terms::on_demand());
    (session, meter)
}

/// What signs with one of the first team's keys.
fn signer(simulator: &Simulator, key: usize) -> Signer {
    let identity = credential(simulator, key).identity();
    let der = credential(simulator, key).private_key.der().to_vec();
    Signer::new(identity, move || Ok(PrivateKey::from_der(&der).unwrap())).unwrap()
}

/// One of the first team's keys.
fn credential(simulator: &Simulator, key: usize) -> Credential {
    let state = simulator.state();
    let team = &state.teams[0];
    let key = &team.keys[key];
    credential::read(Given {
        key_id: Some(&key.key_id),
        issuer_id: (!key.individual).then_some(team.issuer_id.as_str()),
        private_key: Some(key.private_key.as_bytes()),
        file_name: None,
    })
    .unwrap()
}

async fn serving(app: App) -> Simulator {
    Simulator::start(State::with_app(app)).await.unwrap()
}

fn ids(entries: &[Entry]) -> BTreeSet<&str> {
    entries
        .iter()
        .map(|entry| entry.key.store_id.as_str())
        .collect()
}

fn requests(meter: &Meter) -> u64 {
    meter.cost().requests
}

#[tokio::test]
async fn passing_faults_are_tried_again() {
    let status = |status, html, empty| FaultKind::Status {
        status,
        code: None,
        retry_after: None,
        html,
        empty,
    };
    let faults = [
        status(500, false, false),
        status(500, false, true),
        status(502, true, false),
        status(503, false, false),
        status(504, true, false),
        FaultKind::Reset,
        FaultKind::CutBody,
        FaultKind::Html200,
        FaultKind::RateLimited { retry_after: None },
    ];
    for kind in faults {
        let simulator = serving(app().with_in_app_purchases(201)).await;
        simulator.inject(
            Fault::new("inAppPurchasesV2", kind.clone())
                .after(1)
                .times(2),
        );
        let (session, meter) = session(&simulator);
        let entries = session.fetch_in_app_purchases(APP).await;
        assert_eq!(
            entries
                .map(|entries| entries.len())
                .map_err(|error| error.to_string()),
            Ok(201),
            "{kind:?}"
        );
        let Cost {
            requests,
            retries,
            throttled,
            ..
        } = meter.cost();
        assert_eq!((requests, retries), (4, 2), "{kind:?}");
        assert_eq!(
            throttled,
            if matches!(kind, FaultKind::RateLimited { .. }) {
                2
            } else {
                0
            }
        );
    }
}

#[tokio::test]
async fn a_fault_that_stays_is_an_error_after_four_tries() {
    let simulator = serving(app()).await;
    simulator.inject(Fault::new(
        "inAppPurchasesV2",
        FaultKind::Status {
            status: 503,
            code: None,
            retry_after: None,
            html: true,
            empty: false,
        },
    ));
    let (session, meter) = session(&simulator);
    let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Unavailable(_)), "{error}");
    assert_eq!(meter.cost().requests, 4);
    assert_eq!(
        error.diagnosis(session.identity()).code,
        Code::UpstreamUnavailable
    );
}

#[tokio::test]
async fn silence_is_a_time_out() {
    let simulator = serving(app()).await;
    simulator.inject(Fault::new("", FaultKind::Hang));
    let options = Options {
        request_timeout: Duration::from_millis(50),
        ..options(&simulator)
    };
    let (session, meter) = session_with(&simulator, options);
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(
        matches!(error.failure, Failure::TimedOut(after) if after == Duration::from_millis(50)),
        "{error}"
    );
    assert_eq!(meter.cost().requests, 4);
    let told = error.diagnosis(session.identity());
    assert_eq!(told.code, Code::UpstreamUnavailable);
    assert!(told.sentence.contains("within 0.05 s"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let simulator = serving(app()).await;
    let options = options(&simulator);
    let state = simulator.state();
    simulator.stop().await;
    let other = Simulator::start(state).await.unwrap();
    let (session, _) = session_with(&other, options);
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(
        matches!(&error.failure, Failure::Unavailable(why) if why.contains("no connection")),
        "{error}"
    );
}

#[tokio::test]
async fn a_429_waits_as_long_as_it_says_or_gives_way() {
    let simulator = serving(app()).await;
    simulator.inject(
        Fault::new(
            "",
            FaultKind::RateLimited {
                retry_after: Some("1".to_owned()),
            },
        )
        .times(1),
    );
    let (session, _) = session(&simulator);
    session.fetch_app(APP).await.unwrap();
    let requests = simulator.requests();
    assert!(
        (requests[1].at - requests[0].at).num_milliseconds() >= 1000,
        "it did not wait"
    );

    simulator.inject(Fault::new(
        "",
        FaultKind::RateLimited {
            retry_after: Some("61".to_owned()),
        },
    ));
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(
        matches!(error.failure, Failure::RateLimited { .. }),
        "{error}"
    );
    assert_eq!(error.resume_in, Some(Duration::from_secs(61)));
    assert_eq!(
        simulator.requests().len(),
        3,
        "it does not ask again before that"
    );
}

#[tokio::test]
async fn a_spent_budget_is_not_asked_again() {
    let simulator = serving(app()).await;
    simulator.spend_budget("SIMULATOR1", 3600);
    let (session, meter) = session(&simulator);
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(
        matches!(
            error.failure,
            Failure::RateLimited {
                budget: Some(_),
                ..
            }
        ),
        "{error}"
    );
    let diagnosis = error.diagnosis(session.identity());
    assert_eq!(diagnosis.code, Code::RateLimited);
    assert!(diagnosis.sentence.contains("none of 3600"), "{diagnosis}");
    assert_eq!(
        (meter.cost().requests, meter.cost().budget_left),
        (1, Some(0))
    );
}

#[tokio::test]
async fn one_401_costs_one_new_token_and_a_second_is_believed() {
    let simulator = serving(app()).await;
    simulator.inject(Fault::new("", FaultKind::Unauthorized).times(1));
    let (session, meter) = session(&simulator);
    session.fetch_app(APP).await.unwrap();
    assert_eq!(requests(&meter), 2);
    let sent = simulator.requests();
    assert_ne!(
        sent[0].token, sent[1].token,
        "the refused token was sent again"
    );

    simulator.inject(Fault::new("", FaultKind::Unauthorized));
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(
        matches!(error.failure, Failure::NotAuthorized { .. }),
        "{error}"
    );
    assert_eq!(requests(&meter), 4);
    assert!(error.apple_error_id.is_some());
}

#[tokio::test]
async fn what_cannot_be_mended_is_not_tried_again() {
    let cases = [
        (FaultKind::RequiredAgreement, Code::AgreementMissing),
        (status(403), Code::RoleTooLow),
        (status(404), Code::AppNotVisible),
        (status(400), Code::UpstreamUnexpected),
        (status(409), Code::UpstreamUnexpected),
        (
            FaultKind::Redirect("https://evil.example/".to_owned()),
            Code::UpstreamUnexpected,
        ),
        (
            FaultKind::HugeBody { bytes: 17 << 20 },
            Code::UpstreamUnexpected,
        ),
    ];
    for (kind, code) in cases {
        let simulator = serving(app()).await;
        simulator.inject(Fault::new("", kind.clone()));
        let (session, meter) = session(&simulator);
        let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
        assert_eq!(
            error.diagnosis(session.identity()).code,
            code,
            "{kind:?}: {error}"
        );
        assert_eq!(requests(&meter), 1, "{kind:?}");
    }
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

#[tokio::test]
async fn a_wrong_clock_is_told_from_a_wrong_key() {
    for (offset, says) in [(-36_000, " s ahead of"), (36_000, " s behind")] {
        let simulator = serving(app()).await;
        simulator.set_clock_offset(offset);
        let (session, _) = session(&simulator);
        let error = session.fetch_app(APP).await.unwrap_err();
        let diagnosis = error.diagnosis(session.identity());
        assert_eq!(diagnosis.code, Code::ClockSkew, "{diagnosis}");
        assert!(diagnosis.sentence.contains(says), "{diagnosis}");
    }
}

#[tokio::test]
async fn an_individual_key_needs_no_issuer() {
    let mut state = State::with_app(app());
    state.teams[0].keys = vec![
        catalog_sync::simulator::Key::new("INDIVIDUAL", catalog_sync::simulator::Role::AppManager)
            .individual(&[APP]),
    ];
    let simulator = Simulator::start(state).await.unwrap();
    let (session, _) = session(&simulator);
    assert_eq!(session.fetch_apps().await.unwrap().len(), 1);
}

#[tokio::test]
async fn everything_works_over_tls_with_a_private_authority_and_not_without() {
    let options = catalog_sync::simulator::Options {
        https: true,
        ..Default::default()
    };
    let simulator = Simulator::start_with(State::with_app(app()), options)
        .await
        .unwrap();
    let (session, _) = session(&simulator);
    session.fetch_app(APP).await.unwrap();

    let elsewhere = catalog_sync::simulator::Options {
        https: true,
        ..Default::default()
    };
    let elsewhere = Simulator::start_with(State::with_app(app()), elsewhere)
        .await
        .unwrap();
    let untrusting = Options {
        ca_pem: elsewhere.ca_pem().map(|pem| pem.as_bytes().to_vec()),
        ..super::asc::options(&simulator)
    };
    let (session, _) = session_with(&simulator, untrusting);
    let error = session.fetch_app(APP).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn an_unset_grace_period_is_told_from_an_unknown_app() {
    let simulator = serving(app()).await;
    let (session, _) = session(&simulator);
    let (found, unset) = session.fetch_app(APP).await.unwrap();
    assert_eq!(
        (found.id.as_str(), found.bundle_id.as_str()),
        (APP, "com.example.app")
    );
    assert_eq!(unset, Entry::new(Kind::GracePeriod, APP));

    let error = session.fetch_app("999").await.unwrap_err();
    assert!(matches!(error.failure, Failure::NotFound));

    simulator.edit(|state| {
        let app = state.app_mut(APP).unwrap();
        *app = app.clone().with_grace_period();
    });
    let (_, set) = session.fetch_app(APP).await.unwrap();
    assert!(set.attributes.contains_key("duration"), "{set:?}");
    assert_eq!(set.key.store_id.as_str(), APP);
}

#[tokio::test]
async fn absent_null_and_unknown_values_are_kept_and_never_an_error() {
    let with_extra = |nulls| {
        let mut app = app().with_in_app_purchases(1).with_groups(1, 1);
        let purchase = &mut app.in_app_purchases[0];
        purchase.state = None;
        purchase
            .extra
            .insert("inAppPurchaseType".to_owned(), json!("BUNDLE"));
        purchase
            .extra
            .insert("familySharable".to_owned(), json!("maybe"));
        purchase
            .extra
            .insert("shape".to_owned(), json!({ "round": [1, null] }));
        purchase.extra.insert("note".to_owned(), json!("a\u{0}b"));
        let subscription = &mut app.subscription_groups[0].subscriptions[0];
        subscription.period = None;
        subscription.group_level = None;
        State {
            nulls,
            ..State::with_app(app)
        }
    };
    let mut read = Vec::new();
    for nulls in [Nulls::Absent, Nulls::Explicit] {
        let simulator = Simulator::start(with_extra(nulls)).await.unwrap();
        let (session, _) = session(&simulator);
        let purchases = session.fetch_in_app_purchases(APP).await.unwrap();
        let subscriptions = session
            .fetch_groups(APP)
            .await
            .unwrap()
            .subscriptions
            .unwrap();
        assert_eq!(purchases[0].attributes["inAppPurchaseType"], "BUNDLE");
        assert_eq!(purchases[0].attributes["familySharable"], "maybe");
        assert!(!purchases[0].attributes.contains_key("state"));
        assert!(
            !subscriptions[0]
                .attributes
                .contains_key("subscriptionPeriod")
        );
        read.push((purchases, subscriptions));
    }
    assert_eq!(
        read[0], read[1],
        "a body that flips between absent and null makes no change"
    );
}

#[tokio::test]
async fn an_attribute_that_apple_adds_tomorrow_is_kept() {
    let simulator = serving(app().with_in_app_purchases(1)).await;
    simulator.inject(Fault::new(
        "inAppPurchasesV2",
        FaultKind::ExtraAttribute {
            name: "tomorrow".to_owned(),
            value: json!(["new"]),
        },
    ));
    let (session, _) = session(&simulator);
    let purchases = session.fetch_in_app_purchases(APP).await.unwrap();
    assert_eq!(purchases[0].attributes["tomorrow"], json!(["new"]));
}

#[tokio::test]
async fn every_parameter_sent_is_one_that_apple_knows() {
    // The simulator refuses what Apple's description does not have; here: no request was refused, and each names its fields.
    let simulator = serving(app().with_in_app_purchases(201).with_groups(1, 60)).await;
    let (session, _) = session(&simulator);
    session.fetch_apps().await.unwrap();
    session.probe_catalog(APP).await.unwrap();
    session.fetch_app(APP).await.unwrap();
    session.fetch_in_app_purchases(APP).await.unwrap();
    session.fetch_groups(APP).await.unwrap();
    for request in simulator.requests() {
        assert_eq!(request.status, Some(200), "{request:?}");
        assert!(
            request
                .query
                .iter()
                .any(|(name, _)| name.starts_with("fields[")),
            "{request:?}"
        );
        let names: BTreeSet<_> = request.query.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names.len(),
            request.query.len(),
            "no parameter is sent twice"
        );
    }
}

#[tokio::test]
async fn no_more_than_four_requests_of_a_key_are_under_way() {
    let simulator = serving(app().with_groups(12, 51).with_in_app_purchases(1_001)).await;
    simulator.set_latency(Duration::from_millis(20));
    let (session, _) = session(&simulator);
    let (purchases, groups) = tokio::join!(
        session.fetch_in_app_purchases(APP),
        session.fetch_groups(APP)
    );
    assert_eq!(
        (
            purchases.unwrap().len(),
            groups.unwrap().subscriptions.unwrap().len()
        ),
        (1_001, 612)
    );
    assert_eq!(simulator.most_in_flight(Some("SIMULATOR1")), 4);
}

#[tokio::test]
async fn a_group_that_cannot_be_paged_leaves_the_groups_known() {
    let simulator = serving(app().with_groups(3, 51)).await;
    simulator.inject(Fault::new("/subscriptions", status(403)).after(1));
    let (session, _) = session(&simulator);
    let groups = session.fetch_groups(APP).await.unwrap();
    assert_eq!(groups.groups.len(), 3);
    let error: Error = groups.subscriptions.unwrap_err();
    assert!(
        matches!(error.failure, Failure::Forbidden { .. }),
        "{error}"
    );
}

/// A fault that answers with this status from now on.
pub(crate) fn fault(path: &str, code: u16) -> Fault {
    Fault::new(path, status(code))
}
