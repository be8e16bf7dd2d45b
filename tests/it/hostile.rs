//! The real binary against servers that mean it ill: each ends as the error that it is, and none takes the machine's memory.

use std::{fs, process::Stdio, time::Duration};

use catalog_sync::simulator::{App, Fault, FaultKind, State};
use serde_json::{Value, json};

use crate::{
    house::{Answer, Backend, House},
    raw::{Raw, Script},
};

const APP: &str = "1000000001";

/// What a hostile answer may cost beyond an honest one.
const MORE_KIB: u64 = 64 << 10;

/// Longer than any of these takes, however slow the machine is.
const PATIENCE: Duration = Duration::from_mins(5);

async fn house() -> House {
    let app = App::new(APP, "com.example.app", "Example").with_in_app_purchases(3);
    House::with_project(State::with_app(app), Backend::Sqlite).await
}

/// Runs the binary, and says how much memory it had in use at most, in KiB.
async fn measured(house: &House, args: &[&str]) -> (Answer, u64) {
    let child = house
        .command(args)
        .env("CATALOG_SYNC_APP_STORE__REQUEST_TIMEOUT_MS", "8000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    // The figure only rises, and is gone with the process: the last one that was there is the highest.
    let watching = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        while let Some(now) = peak(&status) {
            most = now;
        }
        most
    });
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = ended.await.expect("it ends").unwrap();
    let answer = Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    (answer, watching.await.unwrap())
}

fn peak(status: &str) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

const VERIFY: [&str; 4] = ["project", "verify", "acme", "--json"];

/// Verifies a key against a hostile server, and holds it to the error and to the memory.
async fn held(house: &House, what: &str, honest_kib: u64, (code, says): (&str, &str)) {
    let (answer, kib) = measured(house, &VERIFY).await;
    let answer = answer.expect(1);
    let error = answer.json()["error"].clone();
    let more = kib.saturating_sub(honest_kib);
    println!("{what}: {} KiB more; {}", more, error["message"]);
    assert_eq!(error["code"], code, "{what}: {error}");
    assert!(error.to_string().contains(says), "{what}: {error}");
    assert!(
        more <= MORE_KIB,
        "{what}: {more} KiB more than an honest answer"
    );
}

const UNEXPECTED: &str = "upstream_unexpected";
const UNAVAILABLE: &str = "upstream_unavailable";

fn listing(attribute: &str) -> String {
    format!(
        "{{\"data\":[{{\"type\":\"apps\",\"id\":\"{APP}\",\"attributes\":{{\"a\":{attribute}}}}}]}}"
    )
}

/// As much of this as a body may have.
fn full_of(value: &str) -> FaultKind {
    let room = (16 << 20) - 200;
    let values = format!("{value},").repeat(room / (value.len() + 1));
    FaultKind::Body(listing(&format!("[{values}0]")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_body_is_an_error_and_takes_no_more_than_64_mib() {
    let house = house().await;
    let (honest, kib) = measured(&house, &VERIFY).await;
    honest.expect(0);
    println!("an honest answer: {kib} KiB");
    let drip = FaultKind::SlowDrip {
        bytes: 1,
        every: Duration::from_secs(1),
    };
    let too_large = (UNEXPECTED, "a body of more than 16 MiB");
    let too_deep = (UNEXPECTED, "more than 64 values within each other");
    let too_much = (UNEXPECTED, "more than 64 MiB of memory");
    for (what, kind, expected) in [
        (
            "a gzip bomb of 4 GiB",
            FaultKind::GzipBomb { bytes: 4 << 30 },
            too_large,
        ),
        (
            "an endless body",
            FaultKind::HugeBody { bytes: u64::MAX },
            too_large,
        ),
        (
            "arrays in arrays",
            FaultKind::Body("[".repeat(16 << 20)),
            too_deep,
        ),
        (
            "objects in objects",
            FaultKind::Body("{\"a\":".repeat(3 << 20)),
            too_deep,
        ),
        ("numbers", full_of("0"), too_much),
        ("empty arrays", full_of("[]"), too_much),
        ("empty texts", full_of("\"\""), too_much),
        ("objects", full_of("{\"a\":{}}"), too_much),
        (
            "itself as the next page",
            FaultKind::SelfNext,
            (UNEXPECTED, "in a circle"),
        ),
        (
            "a byte a second",
            drip,
            (UNAVAILABLE, "did not answer within 8 s"),
        ),
    ] {
        house.simulator.inject(Fault::new("", kind));
        held(&house, what, kib, expected).await;
        house.simulator.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_just_fits_takes_no_more_than_it_is_reckoned_at() {
    let house = house().await;
    let (honest, honest_kib) = measured(&house, &VERIFY).await;
    honest.expect(0);
    let row = |id: usize| format!("{{\"type\":\"apps\",\"id\":\"{id}\"}}");
    let many =
        |value: &str, count: usize| listing(&format!("[{}0]", format!("{value},").repeat(count)));
    for (what, body) in [
        ("numbers", many("0", 900_000)),
        ("arrays", many("[0]", 200_000)),
        ("objects", many("{\"a\":0}", 78_000)),
        ("texts", many("\"a\"", 850_000)),
        (
            "one text",
            listing(&format!("\"\\n{}\"", "a".repeat(15 << 20))),
        ),
        (
            "rows",
            format!(
                "{{\"data\":[{}]}}",
                (0..65_000).map(row).collect::<Vec<_>>().join(",")
            ),
        ),
    ] {
        let fault = Fault::new("/v1/apps$", FaultKind::Body(body));
        house.simulator.inject(fault);
        let (answer, kib) = measured(&house, &VERIFY).await;
        house.simulator.clear_faults();
        let more = kib.saturating_sub(honest_kib);
        println!("{what}: {more} KiB more");
        assert!(
            !answer.stdout.contains("MiB"),
            "{what}: it was to fit: {}",
            answer.stdout
        );
        assert!(
            more <= MORE_KIB,
            "{what}: {more} KiB more than an honest answer"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_http_nothing_is_without_end_either() {
    let mut house = house().await;
    let (honest, kib) = measured(&house, &VERIFY).await;
    honest.expect(0);
    let endless = |piece: &'static str| std::iter::repeat_with(move || piece.as_bytes().to_vec());
    let lost = "the connection was lost";
    let scripts: Vec<(&str, Box<dyn Fn() -> Script + Send + Sync>, (&str, &str))> = vec![
        (
            "headers",
            Box::new(move || {
                let start = std::iter::once(b"HTTP/1.1 200 OK\r\n".to_vec());
                let headers = (0_u64..).map(|number| format!("h{number}: x\r\n").into_bytes());
                Script::bytes(start.chain(headers))
            }),
            (UNAVAILABLE, lost),
        ),
        (
            "one header",
            Box::new(move || {
                let start = std::iter::once(b"HTTP/1.1 200 OK\r\nh: ".to_vec());
                Script::bytes(start.chain(endless("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")))
            }),
            (UNAVAILABLE, lost),
        ),
        (
            "interim answers",
            Box::new(move || Script::bytes(endless("HTTP/1.1 103 Early Hints\r\n\r\n"))),
            (UNAVAILABLE, "did not answer within 8 s"),
        ),
        (
            "trailers",
            Box::new(move || {
                let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
                let trailers = endless("t: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
                Script::bytes(std::iter::once(start.as_bytes().to_vec()).chain(trailers))
            }),
            (UNAVAILABLE, lost),
        ),
        (
            "empty gzip members",
            Box::new(move || {
                // What `gzip </dev/null` writes.
                let member = [
                    31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ]
                .repeat(500);
                Script::answer(200, "content-encoding: gzip\r\n", std::iter::repeat(member))
            }),
            (UNAVAILABLE, "did not answer within 8 s"),
        ),
        (
            "an announced length that does not come",
            Box::new(|| Script::answer(200, "content-length: 9999999999999\r\n", [b"{".to_vec()])),
            (UNAVAILABLE, lost),
        ),
        (
            "an error's body",
            Box::new(move || Script::answer(500, "", endless("{\"errors\":[{\"id\":\"x\"}],"))),
            (UNAVAILABLE, "status 500"),
        ),
        (
            "a refusal's body",
            Box::new(move || Script::answer(409, "", endless("[[[[[[[[[[[[[[[[[[[[[[[["))),
            (UNEXPECTED, "status 409"),
        ),
        (
            "a refusal of a byte a second",
            Box::new(move || Script::answer(409, "", endless(" ")).every(Duration::from_secs(1))),
            (UNEXPECTED, "status 409"),
        ),
    ];
    for (what, script, expected) in scripts {
        let raw = Raw::serving(script).await;
        house.point_to(&format!("http://{}", raw.address));
        held(&house, what, kib, expected).await;
        assert!(!raw.heads().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_against_hostile_bodies_writes_nothing_and_says_why() {
    let house = house().await;
    house.run(&["sync", "acme"]).await.expect(0);
    let before = house.json(&["catalog", "acme"], 0).await;
    let sync = ["sync", "acme", "--json"];
    let (honest, honest_kib) = measured(&house, &sync).await;
    honest.expect(0);
    for kind in [
        FaultKind::GzipBomb { bytes: 4 << 30 },
        full_of("{\"a\":{}}"),
    ] {
        // An app, its purchases and its groups are asked for at once.
        house.simulator.inject(Fault::new("", kind));
        let (answer, kib) = measured(&house, &sync).await;
        house.simulator.clear_faults();
        let told: Value = answer.expect(1).json();
        assert_eq!(told[0]["run"]["error"]["code"], json!(UNEXPECTED), "{told}");
        let more = kib.saturating_sub(honest_kib);
        println!("three at once: {more} KiB more");
        assert!(more <= MORE_KIB, "{more} KiB more than honest answers");
    }
    let mut after = house.json(&["catalog", "acme"], 0).await;
    after["last_run"] = before["last_run"].clone();
    assert_eq!(after["products"], before["products"]);
}
