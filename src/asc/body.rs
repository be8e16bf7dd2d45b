//! Bodies: read to a limit, measured, and only then decoded.
//!
//! What must hold: whatever a server sends, what is held of it is bounded before it is there. What comes before a body is
//! bounded by hyper: a head of HTTP/1 has 100 headers at most and 408 KiB, one of HTTP/2 16 KiB, chunk extensions and trailers
//! 16 KiB each, and HTTP/2 lets 2 MiB wait for us. What takes no room, as 1xx answers in a row or a byte now and then, is
//! bounded by the time that one try may take, which holds for its body too.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::{
    client::Options,
    error::{Failure, Limit},
    extent::Extent,
    text::quotable,
};
use crate::metrics::{Sent, Unanswered};

/// The largest body of an error: Apple's have a few hundred bytes.
const ERROR_LIMIT: usize = 64 << 10;

/// What is made room for at once: as much as a page of a hundred products has.
const USUAL: usize = 64 << 10;

/// A document, and what it takes.
pub(super) struct Decoded<T> {
    pub(super) document: T,
    /// The most memory that the document takes, in bytes.
    pub(super) memory: usize,
}

/// What is left of the memory that listings may take together.
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(Limit::MEMORY))
    }

    pub(super) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes so much, or all there is when another listing was faster; says how much.
    pub(super) fn take(&self, memory: usize) -> usize {
        let rest = |left: usize| Some(left.saturating_sub(memory));
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        // It is a value in any case: the closure never refuses.
        let (Ok(before) | Err(before)) = before;
        before.min(memory)
    }

    pub(super) fn give_back(&self, memory: usize) {
        self.0.fetch_add(memory, Ordering::Relaxed);
    }
}

/// Reads the body of a good answer.
pub(super) async fn read(
    response: &mut Response,
    counted: &mut Sent,
    options: &Options,
) -> Result<Vec<u8>, Failure> {
    match read_up_to(response, Limit::BODY).await {
        Ok(body) => body.ok_or(Failure::OverLimit(Limit::Body)),
        Err(error) => {
            counted.unanswered(how_lost(&error));
            Err(lost(&error, options))
        }
    }
}

/// Reads the body of an error. Of one that is too long or does not come, nothing is known but the status.
pub(super) async fn read_error(response: &mut Response, options: &Options) -> Vec<u8> {
    match read_up_to(response, ERROR_LIMIT).await {
        Ok(body) => body.unwrap_or_default(),
        Err(error) => {
            tracing::debug!(
                event = "request.error_unread",
                error.sentence = %lost(&error, options),
                "the body of an error did not come whole"
            );
            Vec::new()
        }
    }
}

/// The body, unless it is longer. The length that a server announces is not gone by: it may be anything.
async fn read_up_to(response: &mut Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::with_capacity(USUAL.min(limit));
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > limit - body.len() {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Decodes a body that takes no more memory than there is room for now; requests that were sent with it may have taken some.
pub(super) fn decode<T: DeserializeOwned>(
    body: &[u8],
    status: StatusCode,
    room: &Room,
) -> Result<Decoded<T>, Failure> {
    let unexpected = |what, error: &serde_json::Error| {
        Failure::Unexpected(format!(
            "{what} that is not the document asked for, with status {status} ({})",
            quotable(&error.to_string())
        ))
    };
    // A proxy's page: its braces mean nothing, and it is over at its first byte.
    if body.trim_ascii_start().starts_with(b"<") {
        return match serde_json::from_slice(body) {
            Ok(document) => Ok(Decoded {
                document,
                memory: 0,
            }),
            Err(error) => Err(unexpected("an HTML page", &error)),
        };
    }
    let extent = Extent::of(body);
    if extent.depth > Limit::DEPTH {
        return Err(Failure::OverLimit(Limit::Depth));
    }
    let memory = extent.memory();
    if memory > room.left().saturating_sub(body.len()) {
        return Err(Failure::OverLimit(Limit::Memory));
    }
    match serde_json::from_slice(body) {
        Ok(document) => Ok(Decoded { document, memory }),
        Err(error) => Err(unexpected("a body", &error)),
    }
}

/// Why no whole answer came, in a word.
pub(super) fn how_lost(error: &reqwest::Error) -> Unanswered {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => Unanswered::Timeout,
        (false, true) => Unanswered::Refused,
        (false, false) => Unanswered::Lost,
    }
}

/// Says what happened to a connection in the words of its innermost cause, without the URL, whose query is nobody's business.
pub(super) fn lost(error: &reqwest::Error, options: &Options) -> Failure {
    let stage = match (error.is_timeout(), error.is_connect()) {
        (true, true) => return Failure::TimedOut(options.connect_timeout),
        (true, false) => return Failure::TimedOut(options.request_timeout),
        (false, true) => "no connection",
        (false, false) => "the connection was lost",
    };
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Failure::Unavailable(if std::error::Error::source(error).is_some() {
        format!("{stage} ({innermost})")
    } else {
        stage.to_owned()
    })
}
