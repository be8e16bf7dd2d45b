//! A stateful App Store Connect for rehearsals, the demo and the tests.
//!
//! Apple offers no sandbox for its API. This server answers the requests that the catalog needs as Apple's own description
//! and live answers have them: tokens, roles, agreements, hourly budgets, paging, cut includes, errors. Its [`State`] can be
//! changed while it runs, [`Fault`]s can be injected down to the TCP connection, and every request is on record. What holds
//! throughout: nothing is answered from anywhere but the state, and only a fault, an `extra` value or an explicit null
//! makes an answer that Apple's description does not allow.

mod answer;
mod auth;
mod budget;
mod clock;
mod control;
mod document;
mod edit;
mod endpoint;
mod fault;
mod gzip;
mod in_process;
mod journal;
mod line;
mod query;
mod read;
mod refusal;
mod server;
mod state;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use endpoint::{
    APPS, Accepts, ENDPOINTS, Endpoint, GRACE_PERIODS, IN_APP_PURCHASES, Kind, MOST_LINKED,
    MOST_ROWS, Parameter, SUBSCRIPTION_GROUPS, SUBSCRIPTIONS,
};
pub use fault::{Fault, FaultKind, NextForm};
pub use journal::Request;
pub use state::{
    App, DEFAULT_HOURLY_LIMIT, Extra, GracePeriod, InAppPurchase, Key, Nulls, RateLimitHeader,
    Role, State, Subscription, SubscriptionGroup, Team,
};

use server::Server;
use tls::Tls;

/// Why a simulator cannot start, or a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate for HTTPS cannot be made.
    #[error("cannot make the certificate for HTTPS")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The state is not right; the message names the place.
    #[error("the simulator's state is not right: {0}")]
    State(String),
    /// The system gives no randomness for private keys.
    #[error("cannot make a private key: the system gives no randomness")]
    Randomness,
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    fn certificate(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Certificate(Box::new(error))
    }
}

/// How a simulator is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS (HTTP/1.1 and HTTP/2) with a certificate authority of its own.
    pub https: bool,
    /// More host names and addresses for the certificate than `localhost`, the loopback and `listen`.
    pub names: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            https: false,
            names: Vec::new(),
        }
    }
}

/// A running simulator. Dropping it stops it, connections included.
#[derive(Debug)]
pub struct Simulator {
    server: Arc<Server>,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts on a free port of the loopback, over HTTP.
    ///
    /// # Errors
    /// When the state is not right or there is no port.
    pub async fn start(state: State) -> Result<Self, Error> {
        Self::start_with(state, Options::default()).await
    }

    /// Starts as the options say.
    ///
    /// # Errors
    /// When the state is not right, the address cannot be had, or the certificate cannot be made.
    pub async fn start_with(mut state: State, options: Options) -> Result<Self, Error> {
        state.complete()?;
        let refused = |source| Error::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let tls = if options.https {
            Some(Tls::new(subject_names(&options))?)
        } else {
            None
        };
        let scheme = if options.https { "https" } else { "http" };
        let base_url = format!("{scheme}://{}", reachable(address));
        let (acceptor, ca_pem) = tls.map(|tls| (tls.acceptor, tls.ca_pem)).unzip();
        let server = Arc::new(Server::new(state, base_url, ca_pem));
        let router = control::router()
            .fallback(answer::answer)
            .with_state(Arc::clone(&server));
        let mut tasks = JoinSet::new();
        tasks.spawn(line::accept(listener, acceptor, router));
        Ok(Self {
            server,
            address,
            tasks,
        })
    }

    /// Such as `http://127.0.0.1:4010`, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.server.base_url
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that a client has to trust, with HTTPS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.server.ca_pem.as_deref()
    }

    /// A copy of the state, private keys included.
    #[must_use]
    pub fn state(&self) -> State {
        self.server.state().clone()
    }

    /// Changes (or looks at) the state, between two requests. New things without an id get one.
    pub fn edit<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        self.server.edit(f)
    }

    /// Changes the state once, just before the request is answered that comes after so many of those that `path` names, as
    /// [`Fault::path`] does: between two pages of a listing, whoever reads it.
    pub fn edit_at(
        &self,
        path: impl Into<String>,
        after: usize,
        f: impl FnOnce(&mut State) + Send + 'static,
    ) {
        self.server.edits().add(path.into(), after, Box::new(f));
    }

    /// Forgets the edits of [`Simulator::edit_at`] that were not made.
    pub fn clear_edits(&self) {
        self.server.edits().clear();
    }

    /// The private key of this key id, PKCS#8 PEM.
    #[must_use]
    pub fn private_key_pem(&self, key_id: &str) -> Option<String> {
        self.server
            .state()
            .key(key_id)
            .map(|(_, key)| key.private_key.clone())
    }

    /// The requests so far, in the order in which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.server.journal.requests()
    }

    /// The tokens that came so far, each once, in no order. They are told here alone, for tests that look for them elsewhere.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.server.journal.tokens()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.server.journal.forget();
    }

    /// Waits until this many requests have come since the last [`Simulator::forget_requests`]. Safe to cancel.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut counted = self.server.journal.count();
        if counted.wait_for(|&so_far| so_far >= count).await.is_err() {
            tracing::debug!(
                event = "simulator.journal_gone",
                "nobody waits for requests any more"
            );
        }
    }

    /// The most requests that this key (or, with `None`, callers without one) had in flight at once.
    #[must_use]
    pub fn most_in_flight(&self, key_id: Option<&str>) -> usize {
        self.server.journal.most_in_flight(key_id)
    }

    /// Lets something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        self.server.faults().add(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.server.faults().clear();
    }

    /// Waits this long before each answer.
    pub fn set_latency(&self, latency: Duration) {
        self.server.set_latency(latency);
    }

    /// Moves the simulator's clock: tokens, the `Date` header and the rolling hour go by it.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.server.clock.set_offset(seconds);
    }

    /// Gives a key (or, with `None`, every key) its full hourly budget back.
    pub fn forget_budget(&self, key_id: Option<&str>) {
        self.server.budgets().forget(key_id);
    }

    /// Spends from a key's hourly budget, as another program with the same key would.
    pub fn spend_budget(&self, key_id: &str, calls: u32) {
        let limit = {
            let state = self.server.state();
            state
                .key(key_id)
                .and_then(|(_, key)| key.hourly_limit)
                .unwrap_or(state.hourly_limit)
        };
        let now = self.server.clock.now();
        let mut budgets = self.server.budgets();
        for _ in 0..calls {
            budgets.spend(key_id, limit, now);
        }
    }

    /// Stops, and returns when the port is free again.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The address under which a client on this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn subject_names(options: &Options) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !options.listen.ip().is_unspecified() {
        names.push(options.listen.ip().to_string());
    }
    names.extend(options.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}
