//! What is wrong with a credential or with what Apple answers: one taxonomy for the command line, the logs, the run record
//! and the status.
//!
//! A diagnosis never contains key material. It does give the key id, the last four of the issuer id, the endpoint, and
//! Apple's own error id, which their support asks for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Not until somebody acts.
    No,
    /// Rarely: the cause is elsewhere and may be mended without notice.
    Slow,
    /// It passes by itself.
    ByItself,
}

macro_rules! codes {
    ($($variant:ident $name:literal $retry:ident $title:literal $advice:literal)*) => {
        /// A stable name for what is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in the database, in logs and on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The way out.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// Whether trying again can help.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }
        }
    };
}

impl Code {
    /// Whether no further look is worth much until a person has acted, here or in App Store Connect.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        match self.retry() {
            Retry::No => true,
            Retry::Slow => !self.is_worth_another_run(),
            Retry::ByItself => false,
        }
    }

    /// Whether a run that failed with it is to be repeated before the next slot.
    #[must_use]
    pub const fn is_worth_another_run(self) -> bool {
        matches!(
            self,
            Self::NotAuthorized
                | Self::ClockSkew
                | Self::RateLimited
                | Self::UpstreamUnavailable
                | Self::UpstreamUnexpected
        )
    }
}

codes! {
    KeyUnreadable "key_unreadable" No
        "The file holds no App Store Connect private key."
        "Paste the whole .p8 file, with its BEGIN and END lines."
    KeyIncomplete "key_incomplete" No
        "Key ID, Issuer ID and private key belong together, and one is missing."
        "Give all three. The Issuer ID may be left out only for an individual key."
    KeyIdMismatch "key_id_mismatch" No
        "The Key ID is not this key's."
        "The Key ID is the 10 characters in the file's name, AuthKey_<KEY ID>.p8; the key's name is something else."
    WrongKeyKind "wrong_key_kind" No
        "This is an In-App Purchase key, which App Store Connect does not accept."
        "Generate a key under Users and Access > Integrations > App Store Connect API."
    NotAuthorized "not_authorized" Slow
        "Apple does not accept the key: 401 NOT_AUTHORIZED."
        "Check, likeliest first: an In-App Purchase key (SubscriptionKey_*.p8) instead of an App Store Connect API key; the Key ID of another .p8, or the key's name; the Issuer ID of another tab or team (it stands above the keys under Users and Access > Integrations > App Store Connect API); a revoked key; an individual key given together with an Issuer ID."
    ClockSkew "clock_skew" Slow
        "This machine's clock is wrong, so that Apple refuses its tokens."
        "Mend the time synchronisation of this machine; the key is not shown to be bad."
    KeyRejected "key_rejected" Slow
        "A key that worked is refused."
        "It was likely revoked, or its owner left. Generate a new key and give it with 'catalog-sync project set-key'. The catalog is kept."
    KeyLost "key_lost" No
        "The .p8 file is lost. Apple lets it be downloaded once and keeps no copy."
        "Generate a new key, give it with 'catalog-sync project set-key', and then revoke the old one under Users and Access > Integrations > App Store Connect API; what is stored here goes on working until then."
    AgreementMissing "agreement_missing" Slow
        "The key is fine, but an agreement with Apple waits for the Account Holder's signature."
        "The Account Holder must accept it under Business in App Store Connect; no new key will help."
    RoleTooLow "role_too_low" Slow
        "The key's role may not read this."
        "Make a new key with the role App Manager or Admin (a key's role cannot be edited) and give it with 'catalog-sync project set-key'."
    NoApps "no_apps" No
        "No apps are linked to this API key."
        "For an individual key, an Admin must grant its owner access to the app. A team key sees every app of its team, so it is another team's key."
    AppNotVisible "app_not_visible" Slow
        "The key does not see the project's app."
        "The app was removed or transferred, or access to it was withdrawn. The catalog is kept."
    AppMismatch "app_mismatch" No
        "The bundle id and the App Store ID name different apps."
        "Give one of the two, or two of the same app."
    RateLimited "rate_limited" ByItself
        "Apple limits the requests of this key."
        "It resumes by itself. The key's other users spend from the same hourly budget."
    UpstreamUnavailable "upstream_unavailable" ByItself
        "App Store Connect cannot be reached or fails. This is not a problem of the key."
        "It resumes by itself."
    UpstreamUnexpected "upstream_unexpected" Slow
        "App Store Connect answered something this version does not understand."
        "Report it with the request and Apple's error id: it is a bug here or a change of the API."
    GracePeriodUnreadable "grace_period_unreadable" ByItself
        "The billing grace period could not be read; the rest was."
        "The last known setting is kept, with its date, and read again in the next run."
    KeySealed "key_sealed" No
        "The stored key cannot be opened with the master keys at hand."
        "Bring back the master key that sealed it, or give the key again with 'catalog-sync project set-key'."
    SharedKey "shared_key" ByItself
        "Several projects use this key."
        "They share one hourly request budget; a key for each is better."
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == name)
            .ok_or_else(|| UnknownCode(name.to_owned()))
    }
}

/// A name that is no code's.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not an error code of catalog-sync")]
pub struct UnknownCode(String);

/// One thing that is wrong: which, with its particulars, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The stable name.
    pub code: Code,
    /// What is wrong, with particulars, as a sentence.
    pub sentence: String,
    /// What to do, as a sentence.
    pub advice: String,
    /// The request's path, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Apple's `errors[].id`, where Apple gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apple_error_id: Option<String>,
}

impl Diagnosis {
    /// A diagnosis with the code's own title and advice.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self {
            code,
            sentence: code.title().to_owned(),
            advice: code.advice().to_owned(),
            endpoint: None,
            apple_error_id: None,
        }
    }

    /// A diagnosis whose sentence says more than the code's title.
    #[must_use]
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            ..Self::of(code)
        }
    }

    /// The same with other advice than the code's own.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// `not_authorized: <sentence> <advice>`, then the endpoint and Apple's error id where known.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.code, self.sentence, self.advice)?;
        match (&self.endpoint, &self.apple_error_id) {
            (None, None) => Ok(()),
            (Some(endpoint), None) => write!(f, " ({endpoint})"),
            (None, Some(id)) => write!(f, " (Apple's error id {id})"),
            (Some(endpoint), Some(id)) => write!(f, " ({endpoint}, Apple's error id {id})"),
        }
    }
}

impl std::error::Error for Diagnosis {}
