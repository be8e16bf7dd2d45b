//! Each fault has its effect on the wire, on the requests it is meant for and no others.

use std::error::Error as _;
use std::time::Duration;

use catalog_sync::simulator::{
    App, Fault, FaultKind, Key, NextForm, Options, Role, Simulator, State,
};
use serde_json::{Value, json};

use super::client::{Answer, Client, KEY};

const LIST: &str = "/v1/apps/1000000001/inAppPurchasesV2?limit=2&sort=name";
const GROUPS: &str = "/v1/apps/1000000001/subscriptionGroups?include=subscriptions";

fn state() -> State {
    let app = App::new("1000000001", "com.example.app", "Example")
        .with_in_app_purchases(6)
        .with_groups(2, 3);
    let mut state = State::with_app(app);
    state.teams[0]
        .keys
        .push(Key::new("SECONDKEY1", Role::Admin));
    state
}

async fn start() -> (Simulator, Client) {
    let simulator = Simulator::start(state()).await.unwrap();
    let client = Client::of(&simulator);
    (simulator, client)
}

/// The answer under this one fault.
async fn under(kind: FaultKind, path: &str) -> (Simulator, Answer) {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("", kind));
    let answer = client.get(path).await;
    (simulator, answer)
}

/// The pages under this one fault, but for the last, which may be without `next`.
async fn pages_under(kind: FaultKind) -> Vec<Answer> {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("inAppPurchasesV2", kind));
    client.pages(LIST).await
}

fn plain_ids() -> Vec<String> {
    state()
        .app("1000000001")
        .unwrap()
        .in_app_purchases
        .iter()
        .map(|purchase| purchase.id.clone())
        .collect()
}

#[tokio::test]
async fn a_fault_hits_its_path_its_key_and_its_share_of_requests() {
    let (simulator, client) = start().await;
    let second = Client::with_key(&simulator, "SECONDKEY1");
    simulator.inject(
        Fault::new("inAppPurchasesV2", FaultKind::status(503))
            .of_key(KEY)
            .after(1)
            .times(2),
    );
    assert_eq!(second.get(LIST).await.status, 200);
    assert_eq!(client.get("/v1/apps?sort=name").await.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(client.get(LIST).await.status);
    }
    assert_eq!(statuses, [200, 503, 503, 200, 200]);

    simulator.inject(Fault::new(
        "inAppPurchasesV2?cursor=",
        FaultKind::status(500),
    ));
    let first = client.good(LIST).await;
    assert_eq!(
        client.get(first.next().unwrap()).await.code(),
        "UNEXPECTED_ERROR"
    );
    assert_eq!(client.get(GROUPS).await.status, 200);
    simulator.clear_faults();
    client.good(first.next().unwrap()).await;

    simulator.inject(Fault::new("/v1/apps$", FaultKind::status(502)));
    assert_eq!(client.get("/v1/apps").await.status, 502);
    assert_eq!(client.get("/v1/apps/1000000001").await.status, 200);
    simulator.clear_faults();
    simulator.inject(Fault::new("include=subscriptions", FaultKind::status(504)).once());
    assert_eq!(
        client
            .get("/v1/apps/1000000001/subscriptionGroups")
            .await
            .status,
        200
    );
    assert_eq!(client.get(GROUPS).await.status, 504);
    assert_eq!(client.get(GROUPS).await.status, 200);
}

#[tokio::test]
async fn errors_come_with_code_and_retry_after_or_as_html_or_with_nothing() {
    let kind = |html, empty| FaultKind::Status {
        status: 503,
        code: Some("SOME_CODE".to_owned()),
        retry_after: Some("7".to_owned()),
        html,
        empty,
    };
    let (simulator, answer) = under(kind(false, false), LIST).await;
    assert_eq!(
        (answer.status, answer.code(), answer.header("retry-after")),
        (503, "SOME_CODE", "7")
    );
    assert!(answer.headers.contains_key("x-rate-limit") && answer.headers.contains_key("date"));
    assert_eq!(simulator.requests()[0].status, Some(503));
    let (_, html) = under(kind(true, false), LIST).await;
    assert!(
        html.status == 503
            && html.header("content-type") == "text/html"
            && html.text.starts_with("<html>")
    );
    let (_, empty) = under(kind(false, true), LIST).await;
    assert_eq!((empty.status, empty.text.as_str()), (503, ""));
}

#[tokio::test]
async fn answers_can_be_replaced() {
    let (_, answer) = under(FaultKind::Unauthorized, LIST).await;
    assert_eq!((answer.status, answer.code()), (401, "NOT_AUTHORIZED"));
    let (_, answer) = under(FaultKind::RequiredAgreement, LIST).await;
    assert_eq!(
        (answer.status, answer.code()),
        (403, "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED")
    );
    let (_, answer) = under(
        FaultKind::RateLimited {
            retry_after: Some("1795400000000".to_owned()),
        },
        LIST,
    )
    .await;
    assert_eq!((answer.status, answer.code()), (429, "RATE_LIMIT_EXCEEDED"));
    assert_eq!(answer.header("retry-after"), "1795400000000");
    assert_eq!(
        answer.header("x-rate-limit"),
        "user-hour-lim:3600;user-hour-rem:3599;",
        "there is budget left"
    );
    let (_, answer) = under(FaultKind::RateLimited { retry_after: None }, LIST).await;
    assert!(answer.status == 429 && !answer.headers.contains_key("retry-after"));
    let (_, answer) = under(FaultKind::Html200, LIST).await;
    assert!(answer.status == 200 && answer.text.starts_with("<html>"));
    let (_, answer) = under(FaultKind::Body("[[[".to_owned()), LIST).await;
    assert!(answer.status == 200 && answer.text == "[[[");
    let (_, answer) = under(
        FaultKind::Redirect("http://127.0.0.1:9/v1/apps".to_owned()),
        LIST,
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, "http://127.0.0.1:9/v1/apps")
    );
}

#[tokio::test]
async fn a_reset_connection_gives_no_answer() {
    for https in [false, true] {
        let simulator = Simulator::start_with(
            state(),
            Options {
                https,
                ..Options::default()
            },
        )
        .await
        .unwrap();
        let client = Client::of(&simulator);
        simulator.inject(Fault::new("inAppPurchasesV2", FaultKind::Reset).once());
        let error = client.try_get(LIST).await.unwrap_err();
        let mut cause = error.source();
        let mut reset = false;
        while let Some(error) = cause {
            reset |= error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            cause = error.source();
        }
        assert!(reset, "https {https}: {error:?}");
        assert_eq!(simulator.requests()[0].status, None);
        assert_eq!(
            client.get(LIST).await.status,
            200,
            "the next connection is fine"
        );
    }
}

#[tokio::test]
async fn a_cut_body_ends_before_its_length() {
    for https in [false, true] {
        let simulator = Simulator::start_with(
            state(),
            Options {
                https,
                ..Options::default()
            },
        )
        .await
        .unwrap();
        let client = Client::of(&simulator);
        let whole = client.good(LIST).await.text.len();
        simulator.inject(Fault::new("inAppPurchasesV2", FaultKind::CutBody).once());
        let mut response = client.try_get(LIST).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.content_length()),
            (200, Some(whole as u64))
        );
        let mut came = 0;
        let error = loop {
            match response.chunk().await {
                Ok(Some(piece)) => came += piece.len(),
                Ok(None) => panic!("https {https}: it ended as if it were whole"),
                Err(error) => break error,
            }
        };
        assert!(
            came < whole && (error.is_body() || error.is_decode()),
            "{came} of {whole}: {error:?}"
        );
        assert_eq!(client.get(LIST).await.status, 200);
    }
}

#[tokio::test]
async fn a_slow_body_comes_in_pieces_and_is_whole() {
    let (simulator, client) = start().await;
    let whole = client.good(LIST).await.text;
    simulator.inject(Fault::new(
        "",
        FaultKind::SlowDrip {
            bytes: 100,
            every: Duration::from_millis(1),
        },
    ));
    let mut response = client.try_get(LIST).await.unwrap();
    let (mut pieces, mut body) = (0, Vec::new());
    while let Some(piece) = response.chunk().await.unwrap() {
        pieces += 1;
        body.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8(body).unwrap(), whole);
    assert!(pieces > 1, "{pieces} pieces");
}

#[tokio::test]
async fn a_hanging_request_is_on_record_and_harms_no_other() {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("inAppPurchasesV2", FaultKind::Hang).once());
    tokio::select! {
        answer = client.try_get(LIST) => panic!("it answered: {answer:?}"),
        () = simulator.wait_for_requests(1) => {}
    }
    assert_eq!(simulator.requests()[0].status, None);
    client.good(LIST).await;
    assert_eq!(simulator.requests()[1].status, Some(200));
    simulator.forget_requests();
    assert_eq!(simulator.requests(), []);
}

#[tokio::test]
async fn a_huge_body_has_its_size_and_no_length() {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("", FaultKind::HugeBody { bytes: 3_000_001 }));
    let response = client.try_get(LIST).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.content_length()),
        (200, None)
    );
    assert_eq!(response.bytes().await.unwrap().len(), 3_000_001);
}

#[tokio::test]
async fn a_gzip_bomb_is_small_on_the_wire_and_large_unpacked() {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("", FaultKind::GzipBomb { bytes: 5_000_000 }));
    let unpacked = client.try_get(LIST).await.unwrap().bytes().await.unwrap();
    assert!(
        (5_000_000..7_000_000).contains(&unpacked.len()),
        "{}",
        unpacked.len()
    );
    assert!(unpacked.iter().all(|&byte| byte == b' '));
    let plain = reqwest::Client::builder().no_gzip().build().unwrap();
    let packed = plain.get(simulator.base_url()).send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.bytes().await.unwrap().len() * 100 < unpacked.len());
}

#[tokio::test]
async fn next_can_lead_astray() {
    let (_, answer) = under(
        FaultKind::NextElsewhere("https://evil.example/v1/apps".to_owned()),
        LIST,
    )
    .await;
    assert_eq!(answer.next(), Some("https://evil.example/v1/apps"));
    let (simulator, answer) = under(FaultKind::SelfNext, LIST).await;
    assert_eq!(answer.next(), answer.body["links"]["self"].as_str());
    let again = Client::of(&simulator).good(answer.next().unwrap()).await;
    assert_eq!(again.ids(), answer.ids());
    let (_, single) = under(FaultKind::SelfNext, "/v1/apps/1000000001").await;
    assert_eq!(single.next(), None, "one resource has no next");
}

#[tokio::test]
async fn the_last_page_says_so_in_three_ways() {
    for (form, expected) in [
        (NextForm::Absent, None),
        (NextForm::Null, Some(Value::Null)),
        (NextForm::Empty, Some(json!(""))),
    ] {
        let pages = pages_under(FaultKind::NextForm(form)).await;
        assert_eq!(pages.len(), 3);
        assert_eq!(pages[2].body["links"].get("next"), expected.as_ref());
    }
}

#[tokio::test]
async fn totals_can_lie_change_or_be_missing() {
    let totals = |pages: &[Answer]| -> Vec<Option<u64>> {
        pages
            .iter()
            .map(|page| page.body["meta"]["paging"]["total"].as_u64())
            .collect()
    };
    assert_eq!(
        totals(&pages_under(FaultKind::TotalOff(-2)).await),
        [Some(4); 3]
    );
    assert_eq!(
        totals(&pages_under(FaultKind::TotalPerPage(vec![6, 7])).await),
        [Some(6), Some(7), Some(7)]
    );
    assert_eq!(totals(&pages_under(FaultKind::NoTotal).await), [None; 3]);
    let (_, groups) = under(FaultKind::NoTotal, GROUPS).await;
    let linkage = &groups.body["data"][0]["relationships"]["subscriptions"];
    assert_eq!(
        linkage["meta"]["paging"],
        json!({ "limit": 10 }),
        "linkages tell none either"
    );
}

#[tokio::test]
async fn rows_can_repeat_vanish_and_change_places_between_pages() {
    let ids = plain_ids();
    let all = |pages: &[Answer]| -> Vec<String> { pages.iter().flat_map(Answer::ids).collect() };
    let repeated = pages_under(FaultKind::RepeatRow).await;
    assert_eq!(repeated[0].ids()[1], repeated[1].ids()[0]);
    assert!(all(&repeated).len() > ids.len());
    let skipped = all(&pages_under(FaultKind::SkipRow).await);
    assert_eq!(
        skipped,
        [&ids[0], &ids[1], &ids[3], &ids[4]].map(Clone::clone)
    );
    let reordered = all(&pages_under(FaultKind::ReorderedPage).await);
    assert_eq!(
        reordered,
        [1, 0, 3, 2, 5, 4].map(|index: usize| ids[index].clone())
    );
}

#[tokio::test]
async fn a_linked_resource_can_be_missing_and_an_attribute_unknown() {
    let (_, answer) = under(FaultKind::DropIncluded, GROUPS).await;
    assert_eq!(
        answer.body["included"].as_array().unwrap().len(),
        5,
        "six are linked"
    );
    let (_, answer) = under(
        FaultKind::ExtraAttribute {
            name: "shiny".to_owned(),
            value: json!([1]),
        },
        GROUPS,
    )
    .await;
    let (data, included) = (
        answer.body["data"].as_array().unwrap(),
        answer.body["included"].as_array().unwrap(),
    );
    assert!(
        data.iter()
            .chain(included)
            .all(|resource| resource["attributes"]["shiny"] == json!([1]))
    );
}

#[tokio::test]
async fn faults_of_the_document_add_up_and_one_answer_wins() {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("", FaultKind::TotalOff(1)));
    simulator.inject(Fault::new("", FaultKind::ReorderedPage));
    let page = client.good(LIST).await;
    assert_eq!(page.body["meta"]["paging"]["total"], 7);
    assert_eq!(
        page.ids(),
        [1, 0].map(|index: usize| plain_ids()[index].clone())
    );
    simulator.inject(Fault::new("", FaultKind::status(500)).once());
    simulator.inject(Fault::new("", FaultKind::status(502)).once());
    assert_eq!(client.get(LIST).await.status, 500);
    assert_eq!(client.get(LIST).await.status, 502, "it waited for its turn");
    assert_eq!(client.get(LIST).await.status, 200);
}

#[tokio::test]
async fn the_most_requests_in_flight_are_counted_by_key() {
    let (simulator, client) = start().await;
    simulator.inject(Fault::new("", FaultKind::Hang));
    let four = futures_util::future::join_all([
        client.get(LIST),
        client.get(LIST),
        client.get(LIST),
        client.get(LIST),
    ]);
    tokio::select! {
        _ = four => panic!("they answered"),
        () = simulator.wait_for_requests(4) => {}
    }
    assert_eq!(simulator.most_in_flight(Some(KEY)), 4);
    assert_eq!(simulator.most_in_flight(Some("SECONDKEY1")), 0);
    assert_eq!(simulator.most_in_flight(None), 0);
}
