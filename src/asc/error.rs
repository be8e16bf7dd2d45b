//! What can go wrong between here and App Store Connect, by what can be done about it.

use std::time::Duration;

use serde::Deserialize;

use super::{rate::Budget, token::SigningError};
use crate::{
    credential::Credential,
    diagnosis::{Code, Diagnosis},
};

/// A clock that differs from Apple's by more than this explains a 401.
const TOLERATED_SKEW_SECONDS: i64 = 60;

/// A request that failed for good, with all its tries.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {failure}")]
pub struct Error {
    /// The request's path.
    pub endpoint: String,
    /// What is wrong.
    pub failure: Failure,
    /// Apple's `errors[].id`.
    pub apple_error_id: Option<String>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 401, and again with a new token.
    #[error("401 NOT_AUTHORIZED")]
    NotAuthorized {
        /// How far this machine's clock is ahead of Apple's, in seconds, where the answer told.
        clock_ahead: Option<i64>,
    },
    /// 403 until the Account Holder signs.
    #[error("403: an agreement is missing or has expired")]
    AgreementMissing,
    /// 403 for this endpoint.
    #[error("403 {code}")]
    Forbidden {
        /// Apple's error code.
        code: String,
    },
    /// 404.
    #[error("404 NOT_FOUND")]
    NotFound,
    /// 429, or the wait it asks for is too long to be spent here.
    #[error("429, to be tried again in {} s", resume_in.as_secs())]
    RateLimited {
        /// When to try again.
        resume_in: Duration,
        /// What is left of the hourly budget, where the answer told.
        budget: Option<Budget>,
    },
    /// 5xx, a time-out, a connection that was refused, reset or cut.
    #[error("{0}")]
    Unavailable(String),
    /// An answer that makes no sense here: a 400, a body that is not what was asked for, broken paging.
    #[error("{0}")]
    Unexpected(String),
    /// The listing changed while it was read, each time it was read.
    #[error("{0}")]
    Torn(String),
    /// The key signs nothing.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl Error {
    pub(super) fn new(endpoint: &str, failure: Failure) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            failure,
            apple_error_id: None,
        }
    }

    /// What the operator is told.
    #[must_use]
    pub fn diagnosis(&self, key: &Credential) -> Diagnosis {
        let diagnosis = match &self.failure {
            Failure::NotAuthorized {
                clock_ahead: Some(ahead),
            } if ahead.abs() > TOLERATED_SKEW_SECONDS => Diagnosis::new(
                Code::ClockSkew,
                format!(
                    "This machine's clock is {} s {} Apple's, so that Apple refuses its tokens.",
                    ahead.abs(),
                    if *ahead > 0 { "ahead of" } else { "behind" }
                ),
            ),
            Failure::NotAuthorized { .. } => Diagnosis::new(
                Code::NotAuthorized,
                format!("Apple does not accept {key}: 401 NOT_AUTHORIZED."),
            ),
            Failure::AgreementMissing => Diagnosis::of(Code::AgreementMissing),
            Failure::Forbidden { code } => Diagnosis::new(
                Code::RoleTooLow,
                format!(
                    "The role of {key} may not read {}: 403 {code}.",
                    self.endpoint
                ),
            ),
            Failure::NotFound => Diagnosis::of(Code::AppNotVisible),
            Failure::RateLimited { resume_in, budget } => Diagnosis::new(
                Code::RateLimited,
                match budget {
                    Some(Budget { limit, left }) if *left > 0 => format!(
                        "Apple limits the requests of {key}: a short-window limit, with {left} of {limit} an hour left; it resumes in {} s.",
                        resume_in.as_secs()
                    ),
                    Some(Budget { limit, .. }) => format!(
                        "Apple limits the requests of {key}: none of {limit} an hour are left; to be tried again in {} s.",
                        resume_in.as_secs()
                    ),
                    None => format!(
                        "Apple limits the requests of {key}: a short-window limit; it resumes in {} s.",
                        resume_in.as_secs()
                    ),
                },
            ),
            Failure::Unavailable(why) => Diagnosis::new(
                Code::UpstreamUnavailable,
                format!(
                    "App Store Connect cannot be reached or fails: {why}. This is not a problem of the key."
                ),
            ),
            Failure::Unexpected(why) | Failure::Torn(why) => Diagnosis::new(
                Code::UpstreamUnexpected,
                format!("App Store Connect answered unexpectedly: {why}."),
            ),
            Failure::Signing(why) => Diagnosis::new(Code::KeyUnreadable, format!("{why}.")),
        };
        Diagnosis {
            endpoint: Some(self.endpoint.clone()),
            apple_error_id: self.apple_error_id.clone(),
            ..diagnosis
        }
    }
}

/// Apple's error document.
#[derive(Default, Deserialize)]
pub(super) struct ErrorDocument {
    #[serde(default)]
    errors: Vec<AppleError>,
}

#[derive(Deserialize)]
struct AppleError {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl ErrorDocument {
    /// Bodies can be HTML or empty: then nothing is known.
    pub(super) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    pub(super) fn id(&self) -> Option<String> {
        self.errors.iter().find_map(|error| error.id.clone())
    }

    /// Dotted, to be matched by prefix.
    pub(super) fn code(&self) -> &str {
        self.errors
            .iter()
            .find_map(|error| error.code.as_deref())
            .unwrap_or_default()
    }

    pub(super) fn detail(&self) -> &str {
        self.errors
            .iter()
            .find_map(|error| error.detail.as_deref())
            .unwrap_or_default()
    }
}
