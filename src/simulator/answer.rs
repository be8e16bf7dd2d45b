//! From a request to its answer: who calls, what is left of the budget, what may be read, and what goes wrong on the way.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query as Pairs, State as Shared};
use axum::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, LOCATION,
    RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use axum::response::Response;
use futures_util::stream;
use serde_json::Value;

use super::auth::{self, Caller};
use super::document::Writer;
use super::endpoint::Endpoint;
use super::fault::{FaultKind, Hits};
use super::gzip;
use super::journal::{Entry, Request};
use super::line::Line;
use super::query::Query;
use super::read::Reading;
use super::refusal::Refusal;
use super::server::Server;
use super::state::State;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const PAGE: &str = "<html><head><title>App Store Connect</title></head><body><h1>We'll be back soon.</h1></body></html>\n";
/// A piece of a huge body.
const PIECE: usize = 64 * 1024;

/// Answers any request that is not for the control API.
pub(super) async fn answer(
    Shared(server): Shared<Arc<Server>>,
    Extension(line): Extension<Line>,
    request: axum::extract::Request,
) -> Response {
    let (head, _) = request.into_parts();
    let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(&head.uri)
        .map(|Pairs(pairs)| pairs)
        .unwrap_or_default();
    let key_id = auth::claimed_key_id(&head.headers);
    if let Some(token) = auth::bearer(&head.headers) {
        server.journal.keep(token);
    }
    let path = head.uri.path();
    let entry = server.journal.open(Request {
        at: server.clock.now(),
        method: head.method.to_string(),
        path: path.to_owned(),
        query: pairs.clone(),
        key_id: key_id.clone(),
        token: head.headers.get(AUTHORIZATION).map(|token| {
            let mut hasher = DefaultHasher::new();
            token.as_bytes().hash(&mut hasher);
            hasher.finish()
        }),
        status: None,
        refused_because: None,
    });
    server.make_edits(path, &pairs);
    let hits = server.faults().meet(path, &pairs, key_id.as_deref());
    let latency = server.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match hits.answer {
        Some(FaultKind::Hang) => return std::future::pending().await,
        Some(FaultKind::Reset) => {
            line.reset();
            return std::future::pending().await;
        }
        _ => {}
    }
    let mut reply = judge(&server, &head, &pairs, &hits, &entry);
    reply.headers.insert(DATE, date(&server));
    let response = match hits.answer {
        None => reply.whole(),
        Some(kind) => reply.spoilt(&kind),
    };
    entry.answered(response.status().as_u16());
    response
}

/// The answer without the faults that replace it.
fn judge(
    server: &Server,
    head: &request::Parts,
    pairs: &[(String, String)],
    hits: &Hits,
    entry: &Entry<'_>,
) -> Reply {
    let state = server.state();
    let now = server.clock.now();
    let caller = match auth::verify(&state, &head.headers, now.timestamp(), &server.public_keys) {
        Ok(caller) => caller,
        Err(reason) => {
            entry.refused(reason);
            return Reply::refusal(&Refusal::not_authorized());
        }
    };
    let limit = caller.key.hourly_limit.unwrap_or(state.hourly_limit);
    let left = server.budgets().spend(&caller.key.key_id, limit, now);
    let document = if left.allowed {
        let base = server.base_of(
            head.uri
                .authority()
                .map(axum::http::uri::Authority::as_str)
                .or_else(|| host(&head.headers)),
        );
        document(head, pairs, caller, &base, &state, hits)
    } else {
        Err(Refusal::rate_limited())
    };
    let mut reply = match document {
        Ok(document) => Reply::json(StatusCode::OK, &document),
        Err(refusal) => Reply::refusal(&refusal),
    };
    left.tell(state.rate_limit_header, &mut reply.headers);
    reply
}

fn document(
    head: &request::Parts,
    pairs: &[(String, String)],
    caller: Caller<'_>,
    base: &str,
    state: &State,
    hits: &Hits,
) -> Result<Value, Refusal> {
    if caller.team.agreement_missing {
        return Err(Refusal::agreement_missing());
    }
    let path = head.uri.path();
    let (endpoint, id) = Endpoint::find(path).ok_or_else(|| Refusal::unknown_path(path))?;
    if head.method != Method::GET {
        return Err(Refusal::method(head.method.as_str()));
    }
    if endpoint.is_catalog() && !caller.key.role.reads_catalog() {
        return Err(Refusal::forbidden());
    }
    let query = Query::parse(endpoint, path, pairs)?.capped(state.page_limit);
    let writer = Writer {
        base,
        query: &query,
        nulls: state.nulls,
    };
    let drift = hits.document.iter().map(FaultKind::drift).sum();
    let mut document = Reading {
        endpoint,
        id,
        caller,
        writer,
        drift,
    }
    .document()?;
    for kind in &hits.document {
        kind.distort(&mut document);
        kind.distort_total(query.offset() / query.limit(), &mut document);
    }
    Ok(document)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

fn date(server: &Server) -> HeaderValue {
    let date = httpdate::fmt_http_date(server.clock.now().into());
    HeaderValue::from_str(&date)
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(status: StatusCode, body: &Value) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        Self {
            status,
            headers,
            body: Bytes::from(body.to_string()),
        }
    }

    fn refusal(refusal: &Refusal) -> Self {
        Self::json(refusal.status, &refusal.body())
    }

    fn whole(self) -> Response {
        let body = Body::from(self.body.clone());
        self.with(body)
    }

    fn with(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    /// The same headers (the date, the budget) with another status and body.
    fn instead(mut self, status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Self {
        self.status = status;
        self.headers.insert(CONTENT_TYPE, kind);
        self.body = body.into();
        self
    }

    fn refused(self, refusal: &Refusal, retry_after: Option<&str>) -> Self {
        let reply = self.instead(refusal.status, JSON, refusal.body().to_string());
        reply.header(RETRY_AFTER, retry_after)
    }

    fn header(mut self, name: HeaderName, value: Option<&str>) -> Self {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            self.headers.insert(name, value);
        }
        self
    }

    fn spoilt(self, kind: &FaultKind) -> Response {
        match kind {
            FaultKind::Status {
                status,
                code,
                retry_after,
                html,
                empty,
            } => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let reply = self.refused(
                    &Refusal::of_status(status, code.as_deref()),
                    retry_after.as_deref(),
                );
                match (html, empty) {
                    (_, true) => reply.instead(status, HTML, Bytes::new()),
                    (true, _) => reply.instead(status, HTML, PAGE),
                    _ => reply,
                }
                .whole()
            }
            FaultKind::Unauthorized => self.refused(&Refusal::not_authorized(), None).whole(),
            FaultKind::RequiredAgreement => {
                self.refused(&Refusal::agreement_missing(), None).whole()
            }
            FaultKind::RateLimited { retry_after } => self
                .refused(&Refusal::rate_limited(), retry_after.as_deref())
                .whole(),
            FaultKind::Html200 => self.instead(StatusCode::OK, HTML, PAGE).whole(),
            FaultKind::Body(body) => self.instead(StatusCode::OK, JSON, body.clone()).whole(),
            FaultKind::Redirect(to) => self
                .instead(StatusCode::FOUND, HTML, Bytes::new())
                .header(LOCATION, Some(to))
                .whole(),
            FaultKind::CutBody => self.cut(),
            FaultKind::SlowDrip { bytes, every } => self.dripped((*bytes).max(1), *every),
            FaultKind::HugeBody { bytes } => self
                .instead(StatusCode::OK, JSON, Bytes::new())
                .with(huge_body(*bytes)),
            FaultKind::GzipBomb { bytes } => {
                let pieces = gzip::blanks(*bytes).map(Ok::<_, Infallible>);
                self.instead(StatusCode::OK, JSON, Bytes::new())
                    .header(CONTENT_ENCODING, Some("gzip"))
                    .with(Body::from_stream(stream::iter(pieces)))
            }
            // The others were dealt with: before the answer was made, or in its document.
            _ => self.whole(),
        }
    }

    /// Half of the body, under the length of the whole.
    fn cut(mut self) -> Response {
        self.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let half = self.body.slice(..self.body.len() / 2);
        let pieces = stream::unfold(Some(half), |half| async move {
            match half {
                Some(half) if !half.is_empty() => Some((Ok(half), Some(Bytes::new()))),
                Some(_) => {
                    // Lets what was written so far go out.
                    tokio::task::yield_now().await;
                    Some((
                        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)),
                        None,
                    ))
                }
                None => None,
            }
        });
        self.with(Body::from_stream(pieces))
    }

    fn dripped(mut self, bytes: usize, every: Duration) -> Response {
        self.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let pieces = stream::unfold(self.body.clone(), move |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(every).await;
            let piece = rest.split_to(bytes.min(rest.len()));
            Some((Ok::<_, Infallible>(piece), rest))
        });
        self.with(Body::from_stream(pieces))
    }
}

/// The start of a listing, and then blanks: right as far as it goes, and of any size.
fn huge_body(bytes: u64) -> Body {
    let blanks = Bytes::from(vec![b' '; PIECE]);
    let start = Bytes::from_static(b"{\"data\":[");
    let pieces = stream::unfold((start, blanks, bytes), |(piece, blanks, left)| async move {
        if left == 0 {
            return None;
        }
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Some((
            Ok::<_, Infallible>(piece.slice(..length)),
            (blanks.clone(), blanks, left - length as u64),
        ))
    });
    Body::from_stream(pieces)
}
