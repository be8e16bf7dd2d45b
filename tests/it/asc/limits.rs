//! What keeps requests from being sent: the reserve, a stop, the pace, spent retries, an outage.

use catalog_sync::{
    asc::breaker,
    budget::{Budget, Reserve},
    simulator::{Key, Role},
};
use tokio_util::sync::CancellationToken;

use super::*;

/// With this many keys in one team.
async fn serving_keys(keys: usize, app: App) -> Simulator {
    let mut state = State::with_app(app);
    state.teams[0].keys = (0..keys)
        .map(|number| Key::new(format!("KEY{number:07}"), Role::AppManager))
        .collect();
    Simulator::start(state).await.unwrap()
}

/// One of the first team's keys, as these terms have it.
fn session_on(
    client: &Client,
    simulator: &Simulator,
    key: usize,
    terms: Terms,
) -> (Session, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    let signer = signer(simulator, key);
    (client.session(signer, Arc::clone(&meter), terms), meter)
}

fn scheduled() -> Terms {
    Terms {
        reserve: Reserve::Scheduled,
        ..Terms::on_demand()
    }
}

fn with_limit(app: App, calls: u32) -> State {
    let mut state = State::with_app(app);
    state.teams[0].keys = vec![Key::new("SIMULATOR1", Role::AppManager).with_hourly_limit(calls)];
    state
}

#[tokio::test]
async fn a_session_leaves_the_reserve_to_others() {
    for (terms, left, percent) in [(scheduled(), 20, 20), (Terms::on_demand(), 5, 5)] {
        let state = with_limit(app().with_in_app_purchases(5000), 100);
        let simulator = Simulator::start(state).await.unwrap();
        simulator.spend_budget("SIMULATOR1", 100 - 3 - left);
        let client = Client::new(options(&simulator)).unwrap();
        let (session, meter) = session_on(&client, &simulator, 0, terms);
        let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
        assert!(
            matches!(error.failure, Failure::RateLimited { kept: Some(_), .. }),
            "{error}"
        );
        assert_eq!(error.resume_in, Some(Duration::from_mins(10)));
        assert_eq!(simulator.requests().len(), 3);
        let budget = Budget {
            limit: 100,
            left: left.into(),
        };
        assert_eq!(meter.budget(), Some(budget));
        let diagnosis = error.diagnosis(session.identity());
        let says = format!("and {percent} % are kept for its other users");
        assert!(diagnosis.sentence.contains(&says), "{diagnosis}");
        assert_eq!(diagnosis.code, Code::RateLimited);

        let again = session.fetch_app(APP).await;
        assert!(again.is_err(), "it stays at that");
        assert_eq!(simulator.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_key_with_less_than_the_reserve_is_looked_at_and_a_small_app_still_comes_whole() {
    let state = with_limit(app().with_in_app_purchases(1).with_groups(1, 1), 100);
    let simulator = Simulator::start(state).await.unwrap();
    simulator.spend_budget("SIMULATOR1", 90);
    let client = Client::new(options(&simulator)).unwrap();
    let (session, _) = session_on(&client, &simulator, 0, scheduled());
    let (app, purchases, groups) = tokio::join!(
        session.fetch_app(APP),
        session.fetch_in_app_purchases(APP),
        session.fetch_groups(APP)
    );
    assert!(app.is_ok() && purchases.is_ok() && groups.is_ok());
    assert_eq!(simulator.requests().len(), 3);
}

#[tokio::test]
async fn what_waits_for_its_turn_is_not_sent_once_the_reserve_is_reached() {
    let simulator = Simulator::start(with_limit(app(), 100)).await.unwrap();
    simulator.spend_budget("SIMULATOR1", 79);
    let options = Options {
        in_flight_per_key: 1,
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    let (session, _) = session_on(&client, &simulator, 0, scheduled());
    let (first, second) = tokio::join!(session.fetch_app(APP), session.fetch_in_app_purchases(APP));
    assert!(first.is_ok());
    let error = second.unwrap_err();
    assert!(
        matches!(error.failure, Failure::RateLimited { .. }),
        "{error}"
    );
    assert_eq!(simulator.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_tells_no_budget_is_not_held_back() {
    let mut state = with_limit(app().with_in_app_purchases(1001), 100);
    state.rate_limit_header = catalog_sync::simulator::RateLimitHeader::Absent;
    let simulator = Simulator::start(state).await.unwrap();
    simulator.spend_budget("SIMULATOR1", 94);
    let client = Client::new(options(&simulator)).unwrap();
    let (session, meter) = session_on(&client, &simulator, 0, scheduled());
    let entries = session.fetch_in_app_purchases(APP).await.unwrap();
    assert_eq!((entries.len(), meter.budget()), (1001, None));
}

#[tokio::test]
async fn a_stopped_session_ends_the_page_under_way_and_asks_for_no_other() {
    let simulator = serving(app().with_in_app_purchases(401)).await;
    simulator.set_latency(Duration::from_secs(8));
    let stop = CancellationToken::new();
    let terms = Terms {
        stop: stop.clone(),
        ..scheduled()
    };
    let client = Client::new(options(&simulator)).unwrap();
    let (session, _) = session_on(&client, &simulator, 0, terms);
    let stopping = async {
        simulator.wait_for_requests(1).await;
        stop.cancel();
        simulator.set_latency(Duration::ZERO);
    };
    let (listed, ()) = tokio::join!(session.fetch_in_app_purchases(APP), stopping);
    let error = listed.unwrap_err();
    assert!(matches!(error.failure, Failure::Stopped), "{error}");
    let sent = simulator.requests();
    assert_eq!((sent.len(), sent[0].status), (1, Some(200)));
    assert!(session.fetch_app(APP).await.is_err());
    assert_eq!(simulator.requests().len(), 1);
}

#[tokio::test]
async fn a_wait_for_another_try_ends_with_a_stop() {
    let simulator = serving(app()).await;
    let retry_after = Some("50".to_owned());
    simulator.inject(Fault::new("", FaultKind::RateLimited { retry_after }));
    let stop = CancellationToken::new();
    let terms = Terms {
        stop: stop.clone(),
        ..scheduled()
    };
    let client = Client::new(options(&simulator)).unwrap();
    let (session, meter) = session_on(&client, &simulator, 0, terms);
    let stopping = async {
        while meter.cost().throttled == 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(session.fetch_app(APP), stopping) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(40), both)
        .await
        .expect("it does not wait for 50 s");
    let error = result.unwrap_err();
    assert!(matches!(error.failure, Failure::Stopped), "{error}");
    assert_eq!(meter.cost().requests, 1);
    assert_eq!(meter.cost().retries, 0, "it was not sent again");
}

#[tokio::test]
async fn a_wait_for_the_keys_other_requests_ends_with_a_stop() {
    let simulator = serving(app()).await;
    simulator.set_latency(Duration::from_secs(8));
    let stop = CancellationToken::new();
    let terms = Terms {
        stop: stop.clone(),
        ..scheduled()
    };
    let options = Options {
        in_flight_per_key: 1,
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    let (session, _) = session_on(&client, &simulator, 0, terms);
    let stopping = async {
        simulator.wait_for_requests(1).await;
        stop.cancel();
    };
    let second = async {
        let result = session.fetch_in_app_purchases(APP).await;
        // Only now is the first one answered.
        simulator.set_latency(Duration::ZERO);
        result
    };
    let (first, second, ()) = tokio::join!(session.fetch_app(APP), second, stopping);
    assert!(first.is_ok(), "it was under way");
    let error = second.unwrap_err();
    assert!(matches!(error.failure, Failure::Stopped), "{error}");
}

#[tokio::test]
async fn beyond_its_burst_a_key_keeps_the_pace() {
    let simulator = serving_keys(2, app()).await;
    let options = Options {
        requests_per_second_per_key: NonZeroU32::new(50).unwrap(),
        burst_per_key: NonZeroU32::new(5).unwrap(),
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    // Two sessions of a key share it.
    let (one, _) = session_on(&client, &simulator, 0, scheduled());
    let (two, _) = session_on(&client, &simulator, 0, scheduled());
    for _ in 0..10 {
        let (first, second) = tokio::join!(one.fetch_app(APP), two.fetch_app(APP));
        assert!(first.is_ok() && second.is_ok());
    }
    let sent = simulator.requests();
    let took = (sent[19].at - sent[0].at).num_milliseconds();
    assert!(took >= 250, "15 beyond the burst in {took} ms");

    // Another key has its own burst.
    simulator.forget_requests();
    let (other, _) = session_on(&client, &simulator, 1, scheduled());
    for _ in 0..5 {
        other.fetch_app(APP).await.unwrap();
    }
}

/// Sends the read once for each key and says what came of it.
async fn read_with_each(
    client: &Client,
    simulator: &Simulator,
    keys: usize,
) -> Vec<Result<(), Error>> {
    let mut results = Vec::new();
    for key in 0..keys {
        let (session, _) = session_on(client, simulator, key, scheduled());
        results.push(session.fetch_app(APP).await.map(drop));
    }
    results
}

#[tokio::test]
async fn an_outage_costs_a_key_a_tenth_more_and_ten_requests() {
    const KEYS: usize = 5;
    const READS: u64 = 30;
    for kind in [status(503), FaultKind::Reset, FaultKind::Unauthorized] {
        let simulator = serving_keys(KEYS, app()).await;
        simulator.inject(Fault::new("", kind.clone()));
        let options = Options {
            breaker: breaker::Settings {
                failures: usize::MAX,
                ..breaker::Settings::default()
            },
            ..options(&simulator)
        };
        let client = Client::new(options).unwrap();
        for _ in 0..READS {
            let results = read_with_each(&client, &simulator, KEYS).await;
            assert!(results.iter().all(Result::is_err));
        }
        for key in 0..KEYS {
            let key_id = format!("KEY{key:07}");
            let sent = simulator.requests();
            let sent = sent
                .iter()
                .filter(|it| it.key_id.as_ref() == Some(&key_id))
                .count();
            // 30 and 10 and a tenth of 30; a tenth of those that were sent while nothing was drawn is not added.
            assert!((40..=43).contains(&sent), "{kind:?}: {sent}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_fails_for_everybody_is_left_alone() {
    const KEYS: usize = 40;
    let simulator = serving_keys(KEYS, app()).await;
    simulator.inject(Fault::new("", status(503)));
    let options = Options {
        breaker: breaker::Settings {
            probe_every: Duration::from_hours(1),
            ..breaker::Settings::default()
        },
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    assert_eq!(client.upstream().ready_in(), None);
    for _ in 0..3 {
        read_with_each(&client, &simulator, KEYS).await;
    }
    assert_eq!(simulator.requests().len(), 20);
    assert!(client.upstream().ready_in() > Some(Duration::from_mins(30)));

    let (session, meter) = session_on(&client, &simulator, 39, scheduled());
    let error = session.fetch_app(APP).await.unwrap_err();
    assert_eq!(requests(&meter), 0);
    let diagnosis = error.diagnosis(session.identity());
    assert_eq!(diagnosis.code, Code::UpstreamUnavailable);
    assert!(
        diagnosis
            .sentence
            .contains("the last 20 requests of 5 keys failed; trying again at "),
        "{diagnosis}"
    );
}

#[tokio::test]
async fn one_keys_trouble_is_not_an_outage() {
    let simulator = serving_keys(2, app()).await;
    simulator.inject(Fault::new("", status(503)));
    let client = Client::new(options(&simulator)).unwrap();
    for _ in 0..50 {
        read_with_each(&client, &simulator, 2).await;
    }
    assert_eq!(client.upstream().ready_in(), None);
    assert!(simulator.requests().len() >= 100);
}

#[tokio::test]
async fn a_down_upstream_is_asked_once_in_each_period_and_by_all_when_it_answers() {
    const KEYS: usize = 40;
    let probe_every = Duration::from_millis(20);
    let simulator = serving_keys(KEYS, app()).await;
    simulator.inject(Fault::new("", status(503)));
    let options = Options {
        breaker: breaker::Settings {
            probe_every,
            ..breaker::Settings::default()
        },
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    let began_at = tokio::time::Instant::now();
    while simulator.requests().len() < 30 {
        read_with_each(&client, &simulator, KEYS).await;
        tokio::time::sleep(client.upstream().ready_in().unwrap_or_default()).await;
    }
    let periods = began_at.elapsed().as_millis() / probe_every.as_millis();
    let probes = simulator.requests().len() - 20;
    assert!(
        probes as u128 <= periods,
        "{probes} probes in {periods} periods"
    );

    simulator.clear_faults();
    tokio::time::sleep(client.upstream().ready_in().unwrap_or_default()).await;
    simulator.forget_requests();
    let results = read_with_each(&client, &simulator, KEYS).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(simulator.requests().len(), KEYS);
}

#[tokio::test]
async fn a_probe_that_is_given_up_is_followed_by_another() {
    let simulator = serving_keys(10, app()).await;
    simulator.inject(Fault::new("", status(503)));
    let options = Options {
        breaker: breaker::Settings {
            probe_every: Duration::from_millis(50),
            ..breaker::Settings::default()
        },
        ..options(&simulator)
    };
    let client = Client::new(options).unwrap();
    read_with_each(&client, &simulator, 10).await;
    assert!(simulator.requests().len() >= 20);
    simulator.clear_faults();
    simulator.inject(Fault::new("", FaultKind::Hang).times(1));
    simulator.forget_requests();
    tokio::time::sleep(client.upstream().ready_in().unwrap_or_default()).await;
    let (session, _) = session_on(&client, &simulator, 0, scheduled());
    tokio::select! {
        _ = session.fetch_app(APP) => panic!("no answer comes"),
        () = simulator.wait_for_requests(1) => {}
    }
    loop {
        tokio::time::sleep(client.upstream().ready_in().unwrap_or_default()).await;
        if session.fetch_app(APP).await.is_ok() {
            break;
        }
    }
}
