//! The errors that App Store Connect answers, in its words and its shape.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

/// An answer other than 200.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    title: &'static str,
    detail: String,
    parameter: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            title,
            detail: detail.into(),
            parameter: None,
        }
    }

    /// The same words whatever is wrong with the token, the key, or the clock.
    pub(super) fn not_authorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NOT_AUTHORIZED",
            "Authentication credentials are missing or invalid.",
            "Provide a properly configured and signed bearer token, and make sure that it has not expired. \
             Learn more about Generating Tokens for API Requests https://developer.apple.com/go/?id=api-generating-tokens",
        )
    }

    pub(super) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "FORBIDDEN_ERROR",
            "This request is forbidden for security reasons",
            "The API key in use does not allow this request",
        )
    }

    pub(super) fn agreement_missing() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED",
            "A required agreement is missing or has expired.",
            "This request requires an in-effect agreement that has not been signed or has expired.",
        )
    }

    pub(super) fn rate_limited() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RATE_LIMIT_EXCEEDED",
            "The request rate limit has been reached.",
            "We've received too many requests for this API. Please wait and try again or slow down your request rate.",
        )
    }

    pub(super) fn unknown_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The specified resource does not exist",
            format!("The path provided does not match a defined resource type: {path}"),
        )
    }

    pub(super) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The specified resource does not exist",
            format!("There is no resource of type '{kind}' with id '{id}'"),
        )
    }

    pub(super) fn method(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "The request method is not valid for the resource path.",
            format!("The request method '{method}' is not valid for the resource path."),
        )
    }

    pub(super) fn illegal_parameter(name: &str, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            "PARAMETER_ERROR.ILLEGAL",
            "A parameter is not allowed in this request",
            detail,
        );
        refusal.parameter = Some(name.to_owned());
        refusal
    }

    pub(super) fn invalid_parameter(name: &str, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            "PARAMETER_ERROR.INVALID",
            "A parameter has an invalid value",
            detail,
        );
        refusal.parameter = Some(name.to_owned());
        refusal
    }

    /// What Apple says with this status when there is nothing more to say.
    pub(super) fn of_status(status: StatusCode, code: Option<&str>) -> Self {
        let mut refusal = match status {
            StatusCode::UNAUTHORIZED => Self::not_authorized(),
            StatusCode::FORBIDDEN => Self::forbidden(),
            StatusCode::TOO_MANY_REQUESTS => Self::rate_limited(),
            StatusCode::NOT_FOUND => Self::new(
                status,
                "NOT_FOUND",
                "The specified resource does not exist",
                "The specified resource does not exist",
            ),
            StatusCode::SERVICE_UNAVAILABLE => Self::new(
                status,
                "SERVICE_UNAVAILABLE",
                "The service is temporarily unavailable.",
                "The service is temporarily unavailable. Please try again later.",
            ),
            _ if status.is_server_error() => Self::new(
                status,
                "UNEXPECTED_ERROR",
                "An unexpected error occurred.",
                "An unexpected error occurred on the server side. If this issue continues, contact us at \
                 https://developer.apple.com/contact/.",
            ),
            _ => Self::new(
                status,
                "PARAMETER_ERROR",
                "The request is not right.",
                "The request is not right.",
            ),
        };
        if let Some(code) = code {
            code.clone_into(&mut refusal.code);
        }
        refusal
    }

    /// The body, with an id of its own.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({
            "id": Uuid::now_v7().to_string(),
            "status": self.status.as_u16().to_string(),
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
        });
        if let (Some(error), Some(parameter)) = (error.as_object_mut(), &self.parameter) {
            error.insert("source".to_owned(), json!({ "parameter": parameter }));
        }
        json!({ "errors": [error] })
    }
}
