//! A simulator that nothing listens for: a simulation hands it requests, and time is what the simulation says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State as Shared;
use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use hyper::body::Frame;
use tokio::task::JoinSet;

use super::line::Line;
use super::server::Server;
use super::{Error, Options, Simulator, State, answer};
use crate::metrics::Unanswered;

impl Simulator {
    /// One that is reached by [`Simulator::answer`] alone, under this base URL.
    ///
    /// # Errors
    /// When the state is not right.
    pub fn in_process(mut state: State, base_url: &str) -> Result<Self, Error> {
        state.complete()?;
        Ok(Self {
            server: Arc::new(Server::new(state, base_url.to_owned(), None)),
            address: Options::default().listen,
            tasks: JoinSet::new(),
        })
    }

    /// Stops the simulator's clock at this time, until it is set again.
    pub fn set_clock(&self, at: DateTime<Utc>) {
        self.server.clock.stop_at(at);
    }

    /// Answers a GET as one that came by a connection.
    ///
    /// # Errors
    /// When a fault breaks the connection. One that is silent goes on for ever.
    pub async fn answer(
        &self,
        url: &reqwest::Url,
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Unanswered> {
        let mut request = Request::get(url.as_str())
            .body(Body::empty())
            .map_err(|_| Unanswered::Lost)?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let line = Line::default();
        let server = Shared(Arc::clone(&self.server));
        let answered = answer::answer(server, Extension(line.clone()), request);
        let response = tokio::select! {
            biased;
            response = answered => response,
            () = line.was_cut() => return Err(Unanswered::Lost),
        };
        let (head, body) = response.into_parts();
        let mut pieces = body.into_data_stream();
        let mut came = Vec::new();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else {
                let body = reqwest::Body::wrap(Cut(Some(came.into())));
                return Ok(axum::http::Response::from_parts(head, body).into());
            };
            came.extend_from_slice(&piece);
        }
        let body = reqwest::Body::from(came);
        Ok(axum::http::Response::from_parts(head, body).into())
    }
}

/// A body that ends before it is whole.
struct Cut(Option<Bytes>);

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(match self.0.take() {
            Some(came) => Ok(Frame::data(came)),
            None => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }))
    }
}
