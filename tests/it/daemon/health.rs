//! What probes are told, over real connections. Time stands still but where a test moves it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use catalog_sync::{
    daemon::{
        health::{CONNECTION, CONNECTIONS, Phase, Readiness, Server},
        pulse::Pulse,
    },
    metrics::{self, Metrics},
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::advance,
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

/// How long a test waits for what must come, on the wall clock.
const PATIENCE: Duration = Duration::from_mins(1);

struct Daemon {
    address: SocketAddr,
    pulse: Pulse,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
    server: JoinSet<()>,
}

impl Daemon {
    async fn start() -> Self {
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.address();
        let pulse = Pulse::default();
        let readiness = Readiness::new(15 * SECOND);
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(
            pulse.clone(),
            readiness.clone(),
            metrics.clone(),
            stop.clone(),
        ));
        Self {
            address,
            pulse,
            readiness,
            metrics,
            stop,
            server: tasks,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status and body of the answer.
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = self.connect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        parse(&rest(stream).await)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path).await
    }
}

/// All that still comes until the connection ends. Meanwhile time stands still.
async fn rest(mut stream: TcpStream) -> String {
    let read = spawn_blocking(move || {
        let mut rest = String::new();
        match stream.read_to_string(&mut rest) {
            Ok(_) => rest,
            // As where bytes came that were not read any more.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    });
    read.await.unwrap()
}

fn parse(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn answer(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[tokio::test(start_paused = true)]
async fn livez_names_the_loops_that_fell_silent_until_they_go_round_again() {
    let daemon = Daemon::start().await;
    let schedule = daemon.pulse.register("schedule", 10 * SECOND);
    let outbox = daemon.pulse.register("outbox", 60 * SECOND);
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
    advance(12 * SECOND).await;
    let silent = answer(503, "schedule has been silent for 12 s\n");
    assert_eq!(daemon.get("/livez").await, silent);
    advance(50 * SECOND).await;
    let silent = "schedule has been silent for 62 s\noutbox has been silent for 62 s\n";
    assert_eq!(daemon.get("/livez").await, answer(503, silent));
    schedule.beat();
    let silent = answer(503, "outbox has been silent for 62 s\n");
    assert_eq!(daemon.get("/livez").await, silent);
    drop(outbox);
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
}

#[tokio::test(start_paused = true)]
async fn metrics_is_the_page_of_the_moment_in_its_format() {
    let daemon = Daemon::start().await;
    let (status, body) = daemon.get("/metrics").await;
    assert_eq!((status, body), (200, daemon.metrics.page()));
    daemon.metrics.count_fenced_write();
    let mut stream = daemon.connect();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        .unwrap();
    let said = rest(stream).await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    let content_type = format!("content-type: {}", metrics::CONTENT_TYPE);
    assert!(
        head.lines()
            .any(|line| line.eq_ignore_ascii_case(&content_type)),
        "{head}"
    );
    assert!(
        body.contains("\ncatalog_sync_fenced_writes_total 1\n"),
        "{body}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn readyz_tells_why_the_daemon_does_not_do_its_work_and_livez_does_not() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/readyz").await, answer(503, "starting\n"));
    daemon.readiness.enter(Phase::Ready);
    assert_eq!(daemon.get("/readyz").await, answer(200, "ready\n"));
    advance(17 * SECOND).await;
    let silent = answer(503, "the database has not answered for 17 s\n");
    assert_eq!(daemon.get("/readyz").await, silent);
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
    daemon.readiness.database_answered();
    assert_eq!(daemon.get("/readyz").await, answer(200, "ready\n"));
    daemon.readiness.enter(Phase::Stopping);
    assert_eq!(daemon.get("/readyz").await, answer(503, "stopping\n"));
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_there() {
    let daemon = Daemon::start().await;
    for path in ["/", "/livez/", "/metrics/", "/livez%20", "/readyz/x"] {
        let expected = answer(404, "there are /livez, /readyz and /metrics\n");
        assert_eq!(daemon.get(path).await, expected, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/livez", "/readyz", "/metrics"] {
            let expected = answer(405, "");
            assert_eq!(daemon.ask(method, path).await, expected, "{method} {path}");
        }
    }
    assert_eq!(daemon.ask("HEAD", "/livez").await, answer(200, ""));
    let query = daemon.get("/livez?verbose=1").await;
    assert_eq!(query, answer(200, "ok\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_up_nobody_and_is_cut() {
    let daemon = Daemon::start().await;
    let silent = daemon.connect();
    let mut slow = daemon.connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
    // A byte now and then is no reason to wait longer.
    for _ in 0..2 {
        advance(CONNECTION / 2).await;
        slow.write_all(b"s").unwrap();
        assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
    }
    advance(SECOND).await;
    assert_eq!(rest(silent).await, "");
    assert_eq!(rest(slow).await, "");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_until_others_end() {
    let daemon = Daemon::start().await;
    let mut idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| daemon.connect()).collect();
    let probe = async {
        // Those that came first have the slots.
        let mut stream = daemon.connect();
        let request = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n";
        stream.write_all(request).unwrap();
        stream.set_nonblocking(true).unwrap();
        for _ in 0..2 * CONNECTIONS {
            tokio::task::yield_now().await;
        }
        let early = stream.read(&mut [0]).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        advance(CONNECTION + SECOND).await;
        parse(&rest(stream).await)
    };
    assert_eq!(probe.await, answer(200, "ok\n"));
    assert_eq!(rest(idle.remove(0)).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_for_one_request() {
    let daemon = Daemon::start().await;
    let mut stream = daemon.connect();
    let request = "GET /livez HTTP/1.1\r\nHost: here\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = rest(stream).await.to_lowercase();
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_whatever_clients_do() {
    let mut daemon = Daemon::start().await;
    let silent = daemon.connect();
    let mut slow = daemon.connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    assert_eq!(daemon.get("/livez").await, answer(200, "ok\n"));
    daemon.stop.cancel();
    let stopped_at = tokio::time::Instant::now();
    daemon.server.join_next().await.unwrap().unwrap();
    assert!(stopped_at.elapsed() < CONNECTION);
    assert_eq!(rest(silent).await, "");
    assert_eq!(rest(slow).await, "");
    assert!(TcpStream::connect(daemon.address).is_err());
}
