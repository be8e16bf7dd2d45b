//! Tells over HTTP how the daemon fares, for probes, people and Prometheus: `GET /livez`, `GET /readyz` and `GET /metrics`.
//!
//! `/livez` tells whether a restart would help: whether every loop goes round, and nothing of the database, as a restart mends no
//! database. `/readyz` tells whether the daemon is at work and the database answers. `/metrics` tells what [`crate::metrics`] has,
//! and asks nobody. What must hold: it does not grow, and nobody can hold it. There are at most [`CONNECTIONS`] connections, each for
//! one request and for [`CONNECTION`] in all.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, Timeout, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::pulse::Pulse;
use crate::metrics::{self, Metrics};

/// How many connections are served at once; others wait.
pub const CONNECTIONS: usize = 64;

/// How long a connection lasts at most, from its acceptance to the end of the answer.
pub const CONNECTION: Duration = Duration::from_secs(5);

/// How far the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet at work.
    Starting,
    /// At work.
    Ready,
    /// Taking on no more work.
    Stopping,
}

/// Whether the daemon does its work. Clones are of the same daemon.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: watch::Sender<(Phase, Instant)>,
    longest_silence: Duration,
}

impl Readiness {
    /// Of a daemon that starts, and whose database may take that long to answer.
    #[must_use]
    pub fn new(longest_silence: Duration) -> Self {
        Self {
            state: watch::Sender::new((Phase::Starting, Instant::now())),
            longest_silence,
        }
    }

    /// Says how far the daemon is.
    pub fn enter(&self, phase: Phase) {
        self.state.send_modify(|(now, _)| *now = phase);
    }

    /// Says that the database has just answered.
    pub fn database_answered(&self) {
        self.state.send_modify(|(_, at)| *at = Instant::now());
    }

    /// Why the daemon does not do its work; none when it does.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let (phase, answered_at) = *self.state.borrow();
        let silence = answered_at.elapsed();
        match phase {
            Phase::Starting => Some("starting".to_owned()),
            Phase::Stopping => Some("stopping".to_owned()),
            Phase::Ready if silence > self.longest_silence => Some(format!(
                "the database has not answered for {} s",
                silence.as_secs()
            )),
            Phase::Ready => None,
        }
    }
}

/// Why there is no answer to probes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("health.listen: '{listen}' cannot be listened on")]
    Listen {
        /// The address, as it is set.
        listen: String,
        /// Why.
        source: io::Error,
    },
}

/// Listens for probes.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on `host:port`; on a free port for port 0.
    ///
    /// # Errors
    ///
    /// When the address is not to be had.
    pub async fn bind(listen: &str) -> Result<Self, Error> {
        let refused = |source| Error::Listen {
            listen: listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the token is cancelled, which ends open connections too.
    pub async fn serve(
        self,
        pulse: Pulse,
        readiness: Readiness,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(page))
            .fallback(async || {
                let there_are = "there are /livez, /readyz and /metrics\n";
                (StatusCode::NOT_FOUND, there_are)
            })
            .layer(middleware::map_response(last_on_its_connection))
            .with_state(Watched {
                pulse,
                readiness,
                metrics,
            });
        let door = Door {
            listener: self.listener,
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            stop: stop.clone(),
        };
        let served = axum::serve(door, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(event = "health.ended", error.sentence = %error, "probes get no answer any more");
        }
    }
}

#[derive(Clone)]
struct Watched {
    pulse: Pulse,
    readiness: Readiness,
    metrics: Metrics,
}

async fn livez(State(watched): State<Watched>) -> (StatusCode, String) {
    let mut silent = String::new();
    for (name, silence) in watched.pulse.stale() {
        let seconds = silence.as_secs();
        writeln!(silent, "{name} has been silent for {seconds} s").expect("a text takes all");
    }
    if silent.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, silent)
    }
}

async fn readyz(State(watched): State<Watched>) -> (StatusCode, String) {
    match watched.readiness.why_not() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn page(State(watched): State<Watched>) -> ([(HeaderName, &'static str); 1], String) {
    let content_type = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (content_type, watched.metrics.page())
}

/// A connection that is kept for the next probe would be cut in the midst of it.
async fn last_on_its_connection(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Lets in as many connections as there are slots.
struct Door {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Listener for Door {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("nobody closes it");
        // axum's own, which pauses when descriptors run out.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(timeout(CONNECTION, self.stop.clone().cancelled_owned()));
        let bounded = Bounded {
            stream,
            end,
            _slot: slot,
        };
        (bounded, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time, whatever its peer does.
struct Bounded {
    stream: TcpStream,
    /// Ready when the connection is over: its time is up, or the daemon stops.
    end: Pin<Box<Timeout<WaitForCancellationFutureOwned>>>,
    _slot: OwnedSemaphorePermit,
}

impl Bounded {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_daemon_is_ready_between_its_start_and_its_stop_while_the_database_answers() {
        let readiness = Readiness::new(Duration::from_secs(15));
        let why = || readiness.why_not().unwrap_or_default();
        assert_eq!(why(), "starting");
        advance(Duration::from_mins(1)).await;
        assert_eq!(why(), "starting");
        readiness.clone().database_answered();
        readiness.clone().enter(Phase::Ready);
        advance(Duration::from_secs(15)).await;
        assert_eq!(readiness.why_not(), None);
        advance(Duration::from_millis(1_500)).await;
        assert_eq!(why(), "the database has not answered for 16 s");
        readiness.database_answered();
        assert_eq!(readiness.why_not(), None);
        readiness.enter(Phase::Stopping);
        assert_eq!(why(), "stopping");
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_setting() {
        let first = Server::bind("127.0.0.1:0").await.unwrap();
        let listen = first.address().to_string();
        let error = Server::bind(&listen).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("health.listen: '{listen}' cannot be listened on")
        );
        let Error::Listen { source, .. } = error;
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    }
}
