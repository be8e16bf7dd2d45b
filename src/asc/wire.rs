//! The one place where a request leaves this process.

use reqwest::{Response, Url, header::AUTHORIZATION, header::HeaderValue};

use super::{body, client::Options, error::Failure};
use crate::metrics::Unanswered;

/// Where requests go.
pub(super) enum Wire {
    Network(reqwest::Client),
    #[cfg(feature = "simulator")]
    InProcess(InProcess),
}

/// What stands in for the network in a simulation: a URL and the token, and what comes of it.
#[cfg(feature = "simulator")]
pub type InProcess = std::sync::Arc<
    dyn Fn(
            Url,
            Option<HeaderValue>,
        ) -> futures_util::future::BoxFuture<'static, Result<Response, Unanswered>>
        + Send
        + Sync,
>;

/// Why there is no answer.
pub(super) struct NoAnswer {
    pub(super) how: Unanswered,
    pub(super) why: Failure,
}

impl Wire {
    pub(super) async fn get(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        options: &Options,
    ) -> Result<Response, NoAnswer> {
        match self {
            Self::Network(http) => {
                let mut request = http.get(url.clone());
                if let Some(authorization) = authorization {
                    request = request.header(AUTHORIZATION, authorization);
                }
                request.send().await.map_err(|error| NoAnswer {
                    how: body::how_lost(&error),
                    why: body::lost(&error, options),
                })
            }
            #[cfg(feature = "simulator")]
            Self::InProcess(answer) => {
                let answered = answer(url.clone(), authorization);
                tokio::time::timeout(options.request_timeout, answered)
                    .await
                    .unwrap_or(Err(Unanswered::Timeout))
                    .map_err(|how| NoAnswer {
                        why: heard(how, options),
                        how,
                    })
            }
        }
    }
}

/// As [`body::lost`] says it of a network.
#[cfg(feature = "simulator")]
fn heard(how: Unanswered, options: &Options) -> Failure {
    match how {
        Unanswered::Timeout => Failure::TimedOut(options.request_timeout),
        Unanswered::Refused => Failure::Unavailable("no connection".to_owned()),
        Unanswered::Lost => Failure::Unavailable("the connection was lost".to_owned()),
    }
}
