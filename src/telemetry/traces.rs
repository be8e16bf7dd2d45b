//! Sends spans to a collector, by OTLP over HTTP.
//!
//! What must hold: work never waits for it. Spans wait in a queue of bounded length and are dropped when it is full; a collector
//! that does not answer is told once and then once a minute; no span has what looks like a secret.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::{KeyValue, Value, trace::Status, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Protocol, SpanExporter as Otlp, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
    },
};
use tokio::{runtime::Handle, time::Instant};
use tracing_subscriber::{Layer as _, filter::filter_fn};

use super::{Error, Hearer, ms, redact};
use crate::config;

/// How many spans wait at most. A run of usual size has ten.
const QUEUE: usize = 2048;

/// How long spans wait for others to be sent with.
const BETWEEN_BATCHES: Duration = Duration::from_secs(2);

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the last spans may take at the end: less than any grace that a service manager gives after ours.
const LAST: Duration = Duration::from_secs(4);

const BETWEEN_LINES: Duration = Duration::from_mins(1);

/// What sends spans. It needs the runtime in which it was started until its end.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send spans, if there is somewhere to send them. It does not wait for the collector.
    ///
    /// # Errors
    ///
    /// When no client can be made for the endpoint.
    pub fn start(section: &config::Traces, worker: &str) -> Result<Option<Self>, Error> {
        let config::Traces { endpoint, percent } = section;
        if endpoint.is_empty() {
            return Ok(None);
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("catalog-sync/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|error| Error::Traces(error.into()))?;
        let exporter = Otlp::builder()
            .with_http()
            .with_http_client(Http {
                client: http,
                runtime: Handle::current(),
            })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| Error::Traces(error.into()))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_scheduled_delay(BETWEEN_BATCHES)
            .build();
        let exporter = Watched {
            exporter,
            down: Mutex::default(),
        };
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder()
            .with_service_name("catalog-sync")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", worker.to_owned()),
            ])
            .build();
        let ratio = f64::from(u32::try_from(*percent).unwrap_or(100)) / 100.0;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                ratio,
            ))))
            .with_span_processor(processor)
            .build();
        Ok(Some(Self { provider }))
    }

    /// What hears of our spans, whatever the log's filter, and of nobody else's.
    pub(super) fn layer(&self) -> Hearer {
        let ours = filter_fn(|it| it.is_span() && it.target().starts_with("catalog_sync"));
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("catalog-sync"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
            .boxed()
    }

    /// Sends what waits, as far as the collector takes it in time.
    pub async fn end(self) {
        let sent =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST)).await;
        let failed = match sent {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::debug!(
            event = "traces.not_sent",
            error.sentence = failed,
            "the last spans are lost"
        );
    }
}

/// Our way to send HTTP requests, from a thread that is not the runtime's.
#[derive(Clone, Debug)]
struct Http {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body);
        // Within the thread's own time: it waits for just this.
        let sent = self.runtime.spawn(async move {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        });
        let (status, body) = sent.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}

/// Passes spans on without secrets, and tells when they are not taken.
struct Watched {
    exporter: Otlp,
    down: Mutex<Option<Down>>,
}

struct Down {
    since: Instant,
    told_at: Instant,
    lost: usize,
}

impl SpanExporter for Watched {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        batch.iter_mut().for_each(clean);
        let sent = self.exporter.export(batch).await;
        self.tell(&sent, spans, Instant::now());
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl Watched {
    fn tell(&self, sent: &OTelSdkResult, spans: usize, now: Instant) {
        let mut state = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match sent {
            Err(error) if !matches!(error, OTelSdkError::AlreadyShutdown) => error,
            _ => {
                if let Some(Down { since, lost, .. }) = state.take() {
                    tracing::info!(
                        event = "traces.up",
                        down_ms = ms(now - since),
                        lost_spans = lost,
                        "the collector takes spans again"
                    );
                }
                return;
            }
        };
        let is_first = state.is_none();
        let down = state.get_or_insert(Down {
            since: now,
            told_at: now,
            lost: 0,
        });
        down.lost += spans;
        if is_first || now - down.told_at >= BETWEEN_LINES {
            down.told_at = now;
            tracing::warn!(
                event = "traces.down",
                error.sentence = %error,
                down_ms = ms(now - down.since),
                lost_spans = down.lost,
                "the collector does not take spans; they are lost, and the work goes on"
            );
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

/// Takes out what looks like a secret, as of a line of the log.
fn clean(span: &mut SpanData) {
    for KeyValue { value, .. } in &mut span.attributes {
        if let Value::String(text) = value {
            *value = redact(text.as_str()).into_owned().into();
        }
    }
    if let Status::Error { description } = &mut span.status {
        *description = redact(description).into_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::SystemTime};

    use opentelemetry::{
        InstrumentationScope,
        trace::{SpanContext, SpanId, SpanKind},
    };

    use super::*;

    #[test]
    fn no_span_tells_a_secret() {
        let secrets = [
            "-----BEGIN PRIVATE KEY-----\nMIGHcanary\n-----END PRIVATE KEY-----",
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJjYW5hcnkifQ.canary",
            "Authorization: Bearer canary",
            "postgres://me:canary@db/catalog",
        ];
        for secret in secrets {
            let mut span = SpanData {
                span_context: SpanContext::empty_context(),
                parent_span_id: SpanId::INVALID,
                parent_span_is_remote: false,
                span_kind: SpanKind::Internal,
                name: Cow::Borrowed("sync"),
                start_time: SystemTime::UNIX_EPOCH,
                end_time: SystemTime::UNIX_EPOCH,
                attributes: vec![
                    KeyValue::new("project.id", "acme"),
                    KeyValue::new("endpoint", secret),
                ],
                dropped_attributes_count: 0,
                events: opentelemetry_sdk::trace::SpanEvents::default(),
                links: opentelemetry_sdk::trace::SpanLinks::default(),
                status: Status::error(secret),
                instrumentation_scope: InstrumentationScope::default(),
            };
            clean(&mut span);
            let said = format!("{span:?}");
            assert!(!said.contains("canary"), "{said}");
            assert!(
                said.contains("acme") && said.contains("[redacted]"),
                "{said}"
            );
        }
    }
}
