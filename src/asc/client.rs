//! One authenticated GET, with its limits, its tries and its errors.

use std::{
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::{sync::SemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty};

use super::{
    body::{self, Room},
    breaker::{self, Breaker, Outage},
    error::{Error, ErrorDocument, Failure},
    meter::Meter,
    rate,
    signer::Signer,
    token::{Key, Keys, Pace, Token},
    wire::{NoAnswer, Wire},
};
use crate::{
    budget::{self, Budget, Reserve},
    clock,
    credential::Identity,
    metrics::Metrics,
    retry::{Bases, Retry},
    telemetry::ms,
};

/// A wait longer than this is not spent here: the run ends and is due again when it is over.
const LONGEST_WAIT_HERE: Duration = Duration::from_mins(1);

/// Reads at this rate stay clear of the 429 that Apple answers with budget left.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");

/// More than a project of usual size has, so that only a huge one is slowed.
const BURST: NonZeroU32 = NonZeroU32::new(250).expect("250 is not 0");

/// How a client talks to App Store Connect.
#[derive(Clone)]
pub struct Options {
    /// Where App Store Connect is, without a path.
    pub base_url: Url,
    /// The certificate authorities to trust instead of the system's, in PEM, for a server that is not Apple's.
    pub ca_pem: Option<Vec<u8>>,
    /// A proxy; none is used unless it is named here.
    pub proxy: Option<Url>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long one try may take, its body included.
    pub request_timeout: Duration,
    /// How many requests of one key may be under way at once. Apple answers bursts with 429 beyond about 4.
    pub in_flight_per_key: usize,
    /// How many requests of one key may be sent a second, once a burst of them was sent.
    pub requests_per_second_per_key: NonZeroU32,
    /// How many requests of one key may be sent as fast as they come: more than a project of usual size has.
    pub burst_per_key: NonZeroU32,
    /// When App Store Connect counts as down.
    pub breaker: breaker::Settings,
    /// The first waits between tries.
    pub retry: Bases,
    /// Where requests are counted.
    pub metrics: Metrics,
}

impl Options {
    /// The limits that suit Apple.
    #[must_use]
    pub fn new(base_url: Url) -> Self {
        Self {
            base_url,
            ca_pem: None,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            in_flight_per_key: 4,
            requests_per_second_per_key: PER_SECOND,
            burst_per_key: BURST,
            breaker: breaker::Settings::default(),
            retry: Bases::default(),
            metrics: Metrics::default(),
        }
    }
}

/// A client of App Store Connect: one for the process, whatever the number of keys.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) wire: Wire,
    pub(super) options: Options,
    keys: Keys,
    breaker: Breaker,
}

impl Client {
    /// A client with no connection yet.
    ///
    /// # Errors
    /// When the certificate authority or the proxy cannot be used, or the system has no certificate authorities.
    pub fn new(options: Options) -> reqwest::Result<Self> {
        let http = http_client(&options)?;
        Ok(Self::by(Wire::Network(http), options))
    }

    /// A client that needs no network.
    #[cfg(feature = "simulator")]
    #[must_use]
    pub fn in_process(options: Options, answers: super::InProcess) -> Self {
        Self::by(Wire::InProcess(answers), options)
    }

    fn by(wire: Wire, options: Options) -> Self {
        Self(Arc::new(Shared {
            wire,
            keys: Keys::new(Pace {
                in_flight: options.in_flight_per_key,
                per_second: options.requests_per_second_per_key,
                burst: options.burst_per_key,
            }),
            breaker: Breaker::new(options.breaker, options.metrics.clone()),
            options,
        }))
    }

    /// A session with the key that signs. What it costs is counted in the meter.
    #[must_use]
    pub fn session(&self, signer: Signer, meter: Arc<Meter>, terms: Terms) -> Session {
        Session {
            client: self.clone(),
            key: self.0.keys.of(signer.name(), clock::now()),
            signer,
            meter,
            terms,
            reserve_reached: OnceLock::new(),
        }
    }

    /// Whether requests are sent.
    #[must_use]
    pub fn upstream(&self) -> Upstream {
        match self.0.breaker.outage(Instant::now()) {
            Some(outage) => Upstream::Down {
                ready_in: outage.ready_in,
            },
            None if self.0.breaker.is_down() => Upstream::Probed,
            None => Upstream::Up,
        }
    }
}

/// The HTTP client under a [`Client`], with the limits of a connection and without the rest.
///
/// # Errors
/// As of [`Client::new`].
pub fn http_client(options: &Options) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("catalog-sync/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout)
        // Only this machine is spoken to without TLS, and then nothing else is.
        .https_only(options.base_url.scheme() == "https")
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    builder = match &options.proxy {
        Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.clone())?),
        None => builder.no_proxy(),
    };
    if let Some(pem) = &options.ca_pem {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    builder.build()
}

/// Whether requests are sent to App Store Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// They are.
    Up,
    /// It counts as down, and the next request tells whether it still is.
    Probed,
    /// It counts as down.
    Down {
        /// How long no request is sent.
        ready_in: Duration,
    },
}

impl Upstream {
    /// How long no request is sent; none when one may be.
    #[must_use]
    pub const fn ready_in(self) -> Option<Duration> {
        match self {
            Self::Down { ready_in } => Some(ready_in),
            Self::Up | Self::Probed => None,
        }
    }
}

/// How far a session may go.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What it leaves of the key's hourly budget.
    pub reserve: Reserve,
    /// Once cancelled, no further request is sent; those under way may end.
    pub stop: CancellationToken,
}

impl Terms {
    /// For work that somebody waits for, and that ends by itself.
    #[must_use]
    pub fn on_demand() -> Self {
        Self {
            reserve: Reserve::OnDemand,
            stop: CancellationToken::new(),
        }
    }
}

/// One key's use of App Store Connect, for the length of a run.
pub struct Session {
    client: Client,
    signer: Signer,
    key: Arc<Key>,
    meter: Arc<Meter>,
    terms: Terms,
    /// What an answer said of the budget, once that was no more than the reserve.
    reserve_reached: OnceLock<Budget>,
}

/// Makes something of the body of a good answer.
pub(super) type Decode<'a, T> =
    dyn Fn(Vec<u8>, StatusCode) -> Result<T, Failure> + Send + Sync + 'a;

/// How one try ended, when it did not succeed.
enum Attempt {
    /// 401: worth one new token.
    Refused(Arc<Token>, Error),
    /// 429: worth the wait that the answer asks for.
    Throttled(Error),
    /// A passing fault.
    Fault(Error),
    /// Nothing that another try can mend.
    Final(Error),
}

impl Session {
    /// Whether requests are sent.
    #[must_use]
    pub fn upstream(&self) -> Upstream {
        self.client.upstream()
    }

    /// What signs for it, and says which key is in use.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The key in use.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.signer.identity()
    }

    pub(super) fn base_url(&self) -> &Url {
        &self.client.0.options.base_url
    }

    /// How many of many requests may stand in line, so that another listing of the same key finds a place at each page.
    pub(super) fn at_once_beside_another(&self) -> usize {
        self.client
            .0
            .options
            .in_flight_per_key
            .saturating_sub(1)
            .max(1)
    }

    /// Gets a document, trying again as long as that can help. `decode` failures count as faults of the server: a proxy's
    /// HTML page with status 200 passes, and so does a cut body.
    pub(super) async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, Error> {
        let room = Room::new();
        let decode = |body: Vec<u8>, status| Ok(body::decode(&body, status, &room)?.document);
        self.get_with(url, &decode).await
    }

    /// The same with a way of its own to decode a body.
    pub(super) async fn get_with<T>(&self, url: &Url, decode: &Decode<'_, T>) -> Result<T, Error> {
        let mut retry = Retry::new(self.client.0.options.retry);
        let mut may_renew_token = true;
        let mut attempt = 1;
        loop {
            let (wait, error) = match self.try_once(url, decode, attempt).await {
                Ok(document) => return Ok(document),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Refused(token, error)) => {
                    self.key.forget(&token);
                    (
                        std::mem::take(&mut may_renew_token).then_some(Duration::ZERO),
                        error,
                    )
                }
                // Waiting longer than this is not for here, and asking sooner is no use.
                Err(Attempt::Fault(error) | Attempt::Throttled(error))
                    if error.resume_in > Some(LONGEST_WAIT_HERE) =>
                {
                    return Err(error);
                }
                Err(Attempt::Fault(error)) => (retry.after_fault(error.resume_in), error),
                Err(Attempt::Throttled(error)) => (retry.after_throttle(error.resume_in), error),
            };
            let Some(wait) = wait else { return Err(error) };
            // What will not be sent is not worth waiting for.
            self.may_send(url.path())?;
            if !self.key.take_retry(clock::now()) {
                tracing::debug!(
                    event = "request.not_retried",
                    endpoint = error.endpoint,
                    error.sentence = %error.failure,
                    "the key's retries are spent"
                );
                return Err(error);
            }
            tracing::debug!(
                event = "request.retried",
                endpoint = error.endpoint,
                error.sentence = %error.failure,
                wait_ms = ms(wait),
                "trying again"
            );
            attempt += 1;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.terms.stop.cancelled() => {}
            }
        }
    }

    /// Sends the request when its turn has come, and tells the breaker what came of it.
    async fn try_once<T>(
        &self,
        url: &Url,
        decode: &Decode<'_, T>,
        attempt: u32,
    ) -> Result<T, Attempt> {
        let endpoint = url.path();
        let breaker = &self.client.0.breaker;
        let _permit = self.wait_for_turn(endpoint).await.map_err(Attempt::Final)?;
        let token = self
            .key
            .token(&self.signer, clock::now())
            .map_err(|error| Attempt::Final(Error::new(endpoint, error.into())))?;
        breaker
            .admit(Instant::now())
            .map_err(|outage| Attempt::Final(Error::new(endpoint, down(&outage))))?;
        self.meter.count_request();
        if attempt == 1 {
            self.key.earn_retry();
        } else {
            self.meter.count_retry();
            self.client.0.options.metrics.count_retry();
        }
        let span = tracing::debug_span!(
            "request",
            otel.kind = "client",
            method = "GET",
            endpoint,
            attempt,
            status = Empty,
            otel.status_code = Empty
        );
        let result = self.send(url, token, decode).instrument(span.clone()).await;
        if result.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        match &result {
            Err(Attempt::Fault(_)) => breaker.failed(self.key.name, Instant::now()),
            Ok(_) | Err(Attempt::Refused(..) | Attempt::Throttled(_) | Attempt::Final(_)) => {
                breaker.answered(Instant::now());
            }
        }
        result
    }

    async fn wait_for_turn(&self, endpoint: &str) -> Result<SemaphorePermit<'_>, Error> {
        self.may_send(endpoint)?;
        let permit = tokio::select! {
            biased;
            () = self.terms.stop.cancelled() => return Err(Error::new(endpoint, Failure::Stopped)),
            permit = self.key.turn() => permit,
        };
        // Other requests may have been answered meanwhile.
        self.may_send(endpoint)?;
        Ok(permit)
    }

    /// Says why a request is not to be sent: the work is to stop, the reserve is reached, or App Store Connect is down.
    fn may_send(&self, endpoint: &str) -> Result<(), Error> {
        if self.terms.stop.is_cancelled() {
            return Err(Error::new(endpoint, Failure::Stopped));
        }
        if let Some(&budget) = self.reserve_reached.get() {
            let failure = Failure::RateLimited {
                budget: Some(budget),
                kept: Some(self.terms.reserve),
            };
            return Err(Error {
                resume_in: Some(budget::LOOK_AGAIN),
                ..Error::new(endpoint, failure)
            });
        }
        match self.client.0.breaker.outage(Instant::now()) {
            Some(outage) => Err(Error::new(endpoint, down(&outage))),
            None => Ok(()),
        }
    }

    async fn send<T>(
        &self,
        url: &Url,
        token: Arc<Token>,
        decode: &Decode<'_, T>,
    ) -> Result<T, Attempt> {
        let endpoint = url.path();
        let fail = |failure| Error::new(endpoint, failure);
        let attempt = |failure| match failure {
            Failure::OverLimit(_) => Attempt::Final(fail(failure)),
            _ => Attempt::Fault(fail(failure)),
        };
        let Shared { wire, options, .. } = &*self.client.0;
        let mut counted = options.metrics.request();
        let sent = wire.get(url, Some(token.bearer()), options).await;
        let mut response = sent.map_err(|NoAnswer { how, why }| {
            counted.unanswered(how);
            attempt(why)
        })?;

        let now = clock::now();
        let status = response.status();
        counted.answered(status.as_u16());
        let budget = rate::budget(response.headers());
        if let Some(budget) = budget {
            self.meter.see(budget);
            if self.terms.reserve.is_reached(budget) {
                self.reserve_reached.get_or_init(|| budget);
            }
        }
        let clock_ahead = rate::clock_ahead(response.headers(), now);
        let asked = rate::retry_after(response.headers(), now);
        Span::current().record("status", status.as_u16());
        tracing::debug!(
            event = "request.answered",
            endpoint,
            status = status.as_u16(),
            "App Store Connect answered"
        );
        if status.is_success() {
            let body = body::read(&mut response, &mut counted, options)
                .await
                .map_err(attempt)?;
            drop(counted);
            self.meter.count_bytes(body.len());
            options.metrics.count_bytes(body.len());
            return decode(body, status).map_err(attempt);
        }

        let document = ErrorDocument::parse(&body::read_error(&mut response, options).await);
        let fail = |failure| Error {
            apple_error_id: document.id(),
            ..fail(failure)
        };
        Err(match status {
            StatusCode::UNAUTHORIZED => {
                Attempt::Refused(token, fail(Failure::NotAuthorized { clock_ahead }))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.meter.count_throttled();
                let until_some_is_back = budget
                    .filter(|budget| budget.left == 0)
                    .map(|_| budget::LOOK_AGAIN);
                let error = fail(Failure::RateLimited { budget, kept: None });
                Attempt::Throttled(Error {
                    resume_in: asked.or(until_some_is_back),
                    ..error
                })
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                let error = fail(Failure::Unavailable(format!(
                    "it answers with status {status}"
                )));
                Attempt::Fault(Error {
                    resume_in: asked,
                    ..error
                })
            }
            status => Attempt::Final(fail(document.refusal(status))),
        })
    }
}

fn down(outage: &Outage) -> Failure {
    let Outage {
        failures,
        keys,
        ready_in,
    } = outage;
    let at = (clock::now() + *ready_in).format("%H:%M:%S UTC");
    Failure::Unavailable(format!(
        "the last {failures} requests of {keys} keys failed; trying again at {at}"
    ))
}
