//! What can go wrong between here and App Store Connect, by what can be done about it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use super::{text::quotable, token::SigningError};
use crate::{
    budget::{Budget, Reserve},
    credential::Identity,
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
    /// How long another try is no use, where that is known.
    pub resume_in: Option<Duration>,
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
    /// 404, by Apple's own word.
    #[error("404 NOT_FOUND")]
    NotFound,
    /// 429, or the wait it asks for is too long to be spent here; or no more is left of the hourly budget than the reserve.
    #[error("{}", if kept.is_some() { "not sent: what is left of the hourly budget is kept for others" } else { "429" })]
    RateLimited {
        /// What is left of the hourly budget, where the answer told.
        budget: Option<Budget>,
        /// The reserve that it was not sent for.
        kept: Option<Reserve>,
    },
    /// 5xx, a connection that was refused, reset or cut.
    #[error("{0}")]
    Unavailable(String),
    /// No whole answer came within this time.
    #[error("it did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// An answer that makes no sense here: a 400, a body that is not what was asked for, broken paging.
    #[error("{0}")]
    Unexpected(String),
    /// An answer or a listing larger than any of Apple's. It is not asked for again: the next would be no smaller.
    #[error("{0}")]
    OverLimit(Limit),
    /// The server sends the client where it does not go.
    #[error("{0}")]
    Astray(Astray),
    /// The listing changed while it was read, each time it was read.
    #[error("{0}")]
    Torn(String),
    /// The key signs nothing.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// Not sent, because the work is to stop. Nothing is wrong, and nothing of it goes into a record.
    #[error("not sent: the work is to stop")]
    Stopped,
}

/// What bounds the answers of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// The size of a body, after decompression.
    #[error("a body of more than {} MiB", Self::BODY >> 20)]
    Body,
    /// How deep its JSON goes.
    #[error("a body with more than {} values within each other", Self::DEPTH)]
    Depth,
    /// What it takes once it is decoded; of a listing, what all of its pages take.
    #[error("an answer that takes more than {} MiB of memory", Self::MEMORY >> 20)]
    Memory,
    /// The pages of a listing.
    #[error("a listing of more than {} pages", Self::PAGES)]
    Pages,
}

impl Limit {
    /// The largest body taken, in bytes, after decompression.
    pub const BODY: usize = 16 << 20;
    /// How many arrays and objects may stand within each other.
    pub const DEPTH: usize = 64;
    /// The most that a body may take together with what is decoded from it, in bytes: what an app with all 10,000 products that
    /// Apple allows comes to in one page.
    pub const MEMORY: usize = 64 << 20;
    /// A listing of more pages than this is refused: 200,000 things.
    pub const PAGES: usize = 1000;
}

/// Where a server sends the client and it does not go. The link itself is not repeated in messages: it is whatever the server
/// chose to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Astray {
    /// A redirect, with its status. None is followed.
    #[error("a redirect (status {0}), which is not followed")]
    Redirect(u16),
    /// A link that is none.
    #[error("the link to its next page is not a URL")]
    NotUrl,
    /// A link longer than any of Apple's.
    #[error(
        "the link to its next page is longer than {} bytes and was not followed",
        Self::LONGEST_LINK
    )]
    Long,
    /// Another scheme, host or port.
    #[error("the link to its next page leads to another origin, {0}, and was not followed")]
    Origin(String),
    /// A user or a password in the link.
    #[error("the link to its next page carries user information and was not followed")]
    User,
    /// A path that is none of the API's.
    #[error("the link to its next page leads outside the API and was not followed")]
    Path,
    /// A page that was read before.
    #[error("its pages go round in a circle")]
    Circle,
}

impl Astray {
    /// The longest link followed, in bytes.
    pub const LONGEST_LINK: usize = 8 << 10;
}

impl Error {
    pub(super) fn new(endpoint: &str, failure: Failure) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            failure,
            apple_error_id: None,
            resume_in: None,
        }
    }

    /// What the operator is told.
    #[must_use]
    pub fn diagnosis(&self, key: &Identity) -> Diagnosis {
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
            Failure::NotAuthorized { .. } if key.issuer_id.is_none() => Diagnosis::new(
                Code::NotAuthorized,
                format!("Apple does not accept {key}, given without an Issuer ID: 401 NOT_AUTHORIZED."),
            )
            .advise(
                "A team key needs its Issuer ID, which stands above the keys under Users and Access > Integrations > App Store \
                 Connect API. For an individual key, check that the Key ID is this .p8's and that the key was not revoked.",
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
            Failure::RateLimited { budget, kept } => {
                let again = match self.resume_in {
                    Some(wait) => format!("to be tried again in {} s", wait.as_secs()),
                    None => "to be tried again later".to_owned(),
                };
                let sentence = match (budget, kept) {
                    (Some(Budget { limit, left }), Some(kept)) => format!(
                        "{left} of the {limit} requests an hour of {key} are left, and {} % are kept for its other users; {again}.",
                        kept.percent()
                    ),
                    (Some(Budget { limit, left: 0 }), None) => {
                        format!("Apple limits the requests of {key}: none of {limit} an hour are left; {again}.")
                    }
                    (Some(Budget { limit, left }), None) => format!(
                        "Apple limits the requests of {key}: a short-window limit, with {left} of {limit} an hour left; {again}."
                    ),
                    (None, _) => format!("Apple limits the requests of {key}: a short-window limit; {again}."),
                };
                Diagnosis::new(Code::RateLimited, sentence)
            }
            failure @ (Failure::Unavailable(_) | Failure::TimedOut(_)) => Diagnosis::new(
                Code::UpstreamUnavailable,
                format!(
                    "App Store Connect cannot be reached or fails: {failure}. This is not a problem of the key."
                ),
            ),
            failure @ (Failure::Unexpected(_) | Failure::Torn(_) | Failure::OverLimit(_) | Failure::Astray(_)) => {
                Diagnosis::new(
                    Code::UpstreamUnexpected,
                    format!("App Store Connect answered unexpectedly: {failure}."),
                )
            }
            Failure::Signing(SigningError::Sealed(why)) => (**why).clone(),
            Failure::Signing(why) => Diagnosis::new(Code::KeyUnreadable, format!("{why}.")),
            // Whoever stops work asks for no diagnosis of it.
            Failure::Stopped => Diagnosis::new(
                Code::UpstreamUnavailable,
                "App Store Connect was not asked, because the work was stopped.",
            ),
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

    /// What a status means that no other try can mend. The status decides first, then the code.
    pub(super) fn refusal(&self, status: StatusCode) -> Failure {
        let code = self.code();
        match status {
            StatusCode::FORBIDDEN if code.starts_with("FORBIDDEN.REQUIRED_AGREEMENTS") => {
                Failure::AgreementMissing
            }
            StatusCode::FORBIDDEN => Failure::Forbidden {
                code: if code.is_empty() {
                    "Forbidden".to_owned()
                } else {
                    code
                },
            },
            status if status.is_redirection() => Failure::Astray(Astray::Redirect(status.as_u16())),
            // A proxy's page can have that status too, and says nothing of the thing.
            StatusCode::NOT_FOUND if code.starts_with("NOT_FOUND") => Failure::NotFound,
            status => Failure::Unexpected(
                format!("status {status} {code} {}", self.detail())
                    .trim_end()
                    .to_owned(),
            ),
        }
    }

    pub(super) fn id(&self) -> Option<String> {
        self.errors
            .iter()
            .find_map(|error| error.id.as_deref().map(quotable))
    }

    /// Dotted, to be matched by prefix.
    pub(super) fn code(&self) -> String {
        self.errors
            .iter()
            .find_map(|error| error.code.as_deref().map(quotable))
            .unwrap_or_default()
    }

    pub(super) fn detail(&self) -> String {
        self.errors
            .iter()
            .find_map(|error| error.detail.as_deref().map(quotable))
            .unwrap_or_default()
    }
}
