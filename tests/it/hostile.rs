//! The real binary against servers that mean it ill: each ends as the error that it is, and none takes the machine's memory.

use std::{fs, process::Stdio, time::Duration};

use catalog_sync::simulator::{App, Fault, FaultKind, State};
use serde_json::{Value, json};
use tokio::sync::Mutex;

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

/// How long one try may take where a server is to be given up.
const SHORT: &str = "1500";
/// And where its answer is to come whole, on the slowest machine.
const LONG: &str = "120000";

/// Runs the binary, and says how much memory it had in use at most, in KiB.
async fn measured(house: &House, args: &[&str], timeout_ms: &str) -> (Answer, u64) {
    // One at a time: watching takes a processor.
    static WATCHED: Mutex<()> = Mutex::const_new(());
    let _watched = WATCHED.lock().await;
    let child = house
        .command(args)
        .env("CATALOG_SYNC_APP_STORE__REQUEST_TIMEOUT_MS", timeout_ms)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    // The figure never falls, and is gone with the process: a thread of its own looks at it all the time.
    let watching = std::thread::spawn(move || {
        let mut most = 0;
        while let Some(now) = peak(&status) {
            most = now;
        }
        most
    });
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = ended.await.expect("it ends").unwrap();
    let most = watching.join().unwrap();
    let answer = Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(most > 0, "it was never seen");
    (answer, most)
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
    let timeout_ms = if says == TIMED_OUT { SHORT } else { LONG };
    let (answer, kib) = measured(house, &VERIFY, timeout_ms).await;
    let answer = answer.expect(1);
    let error = answer.json()["error"].clone();
    let more = kib.saturating_sub(honest_kib);
    println!("{what}: {} KiB more; {}", more, error["sentence"]);
    assert_eq!(error["code"], code, "{what}: {error}");
    assert!(error.to_string().contains(says), "{what}: {error}");
    assert!(
        more <= MORE_KIB,
        "{what}: {more} KiB more than an honest answer"
    );
}

const UNEXPECTED: &str = "upstream_unexpected";
const UNAVAILABLE: &str = "upstream_unavailable";
const TIMED_OUT: &str = "did not answer within 1.5 s";

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
    let (honest, kib) = measured(&house, &VERIFY, LONG).await;
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
        ("a byte a second", drip, (UNAVAILABLE, TIMED_OUT)),
    ] {
        house.simulator.inject(Fault::new("", kind));
        held(&house, what, kib, expected).await;
        house.simulator.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_just_fits_takes_no_more_than_it_is_reckoned_at() {
    let house = house().await;
    let (honest, honest_kib) = measured(&house, &VERIFY, LONG).await;
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
        let (answer, kib) = measured(&house, &VERIFY, LONG).await;
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

/// What a server sends, and what becomes of it.
struct Case {
    what: &'static str,
    script: Box<dyn Fn() -> Script + Send + Sync>,
    expected: (&'static str, &'static str),
}

fn case(
    what: &'static str,
    expected: (&'static str, &'static str),
    script: impl Fn() -> Script + Send + Sync + 'static,
) -> Case {
    let script = Box::new(script);
    Case {
        what,
        script,
        expected,
    }
}

fn endless(piece: impl AsRef<[u8]>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat(piece.as_ref().to_vec())
}

fn after(start: &str, rest: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Script {
    Script::bytes(std::iter::once(start.as_bytes().to_vec()).chain(rest))
}

/// A gzip member with 64 KiB of blanks as they are (RFC 1951, 3.2.4).
fn member() -> Vec<u8> {
    let blanks = vec![b' '; 0xFFFF];
    let mut crc = u32::MAX;
    for &byte in &blanks {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    let head = [31, 139, 8, 0, 0, 0, 0, 0, 0, 255, 1, 0xFF, 0xFF, 0, 0];
    let mut member = head.to_vec();
    member.extend(blanks);
    member.extend((!crc).to_le_bytes());
    member.extend(0xFFFF_u32.to_le_bytes());
    member
}

/// Servers that bend what bodies are carried in.
fn below_http() -> Vec<Case> {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n";
    let lost = (UNAVAILABLE, "the connection was lost");
    vec![
        case("headers", lost, || {
            let headers = (0_u64..).map(|number| format!("h{number}: x\r\n").into_bytes());
            after(HEAD, headers)
        }),
        case("one header", lost, || {
            after("HTTP/1.1 200 OK\r\nh: ", endless("x".repeat(64)))
        }),
        case("interim answers", (UNAVAILABLE, TIMED_OUT), || {
            Script::bytes(endless("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(64)))
        }),
        case("trailers", lost, || {
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
            after(start, endless("t: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"))
        }),
        case("a chunk's extension", lost, || {
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;";
            after(start, endless("x".repeat(64)))
        }),
        // What `gzip </dev/null` writes.
        case("empty gzip members", lost, || {
            let member = [
                31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ];
            Script::answer(
                200,
                "content-encoding: gzip\r\n",
                endless(member.repeat(500)),
            )
        }),
        case("an announced length that does not come", lost, || {
            Script::answer(200, "content-length: 9999999999999\r\n", [b"{".to_vec()])
        }),
    ]
}

/// Servers whose errors are no better than their answers.
fn errors() -> Vec<Case> {
    vec![
        case("an error's body", (UNAVAILABLE, "status 500"), || {
            Script::answer(500, "", endless("{\"errors\":[{\"id\":\"x\"}],".repeat(64)))
        }),
        case("a refusal's body", (UNEXPECTED, "status 409"), || {
            Script::answer(409, "", endless("[".repeat(4096)))
        }),
        case(
            "a redirect's body",
            (UNEXPECTED, "a redirect (status 302)"),
            || Script::answer(302, "location: /v1/apps\r\n", endless(" ".repeat(4096))),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_body_nothing_is_without_end_either() {
    let mut house = house().await;
    let (honest, kib) = measured(&house, &VERIFY, LONG).await;
    honest.expect(0);
    let cases = below_http().into_iter().chain(errors());
    for Case {
        what,
        script,
        expected,
    } in cases
    {
        let raw = Raw::serving(script).await;
        house.point_to(&format!("http://{}", raw.address));
        held(&house, what, kib, expected).await;
        assert!(!raw.heads().is_empty());
    }

    // Where one gzip member ends with what was received, the next is refused; else all of them count together.
    let raw =
        Raw::serving(|| Script::answer(200, "content-encoding: gzip\r\n", endless(member()))).await;
    house.point_to(&format!("http://{}", raw.address));
    let (answer, most) = measured(&house, &VERIFY, LONG).await;
    let error = answer.expect(1).json()["error"].clone();
    println!(
        "gzip members: {} KiB more; {error}",
        most.saturating_sub(kib)
    );
    let sentence = error["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("more than 16 MiB") || sentence.contains("extra bytes"),
        "{sentence}"
    );
    assert!(most.saturating_sub(kib) <= MORE_KIB);

    // An error that comes a byte a second is its status, once its time is over.
    let raw =
        Raw::serving(|| Script::answer(409, "", endless(" ")).every(Duration::from_secs(1))).await;
    house.point_to(&format!("http://{}", raw.address));
    let (answer, _) = measured(&house, &VERIFY, SHORT).await;
    let error = answer.expect(1).json()["error"].clone();
    assert!(
        error["sentence"].as_str().unwrap().contains("status 409"),
        "{error}"
    );
    assert_eq!((&error["code"], raw.heads().len()), (&json!(UNEXPECTED), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_against_hostile_bodies_writes_nothing_and_says_why() {
    let house = house().await;
    house.run(&["sync", "acme"]).await.expect(0);
    let before = house.json(&["catalog", "acme"], 0).await;
    let sync = ["sync", "acme", "--json"];
    let (honest, honest_kib) = measured(&house, &sync, LONG).await;
    honest.expect(0);
    for kind in [
        FaultKind::GzipBomb { bytes: 4 << 30 },
        full_of("{\"a\":{}}"),
    ] {
        // An app, its purchases and its groups are asked for at once.
        house.simulator.inject(Fault::new("", kind));
        let (answer, kib) = measured(&house, &sync, LONG).await;
        house.simulator.clear_faults();
        let told: Value = answer.expect(1).json();
        assert_eq!(told[0]["run"]["error"]["code"], json!(UNEXPECTED), "{told}");
        let more = kib.saturating_sub(honest_kib);
        println!("three at once: {more} KiB more");
        assert!(more <= MORE_KIB, "{more} KiB more than honest answers");
    }
    let after = house.json(&["catalog", "acme"], 0).await;
    assert_eq!(after["products"], before["products"]);
}
