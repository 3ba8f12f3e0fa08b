//! Errors to answers: statuses and bodies.

use std::any::Any;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request_id;
use crate::platform;
use crate::wire::{ErrorBody, ErrorCode, ErrorDetails};

/// An answer with a status of 400 or more.
#[derive(Debug)]
pub struct Failure {
    body: ErrorBody,
    retry_after: Option<Duration>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a sentence of its own.
    pub fn new(code: ErrorCode, detail: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        let body = ErrorBody { detail: detail.into(), details: ErrorDetails { code, hint: hint.into() } };
        Self { body, retry_after: None }
    }

    /// The same, and when to try again.
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

impl From<platform::Error> for Failure {
    fn from(error: platform::Error) -> Self {
        let code = error.code();
        // What the server says itself, as it goes away or refuses to run agents, needs no cause.
        if code.status() >= 500 && !matches!(code, ErrorCode::ShuttingDown) {
            tracing::error!(code = code.as_str(), "{}", with_causes(&error));
        }
        Self::new(code, error.to_string(), error.hint())
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        let code = self.body.details.code;
        if matches!(code, ErrorCode::Internal | ErrorCode::StoreUnavailable)
            && let Some(id) = request_id::current()
        {
            // By which the server's owner finds the cause in its log.
            self.body.detail = format!("{} (request {id})", self.body.detail);
        }
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if matches!(code, ErrorCode::RateLimited | ErrorCode::ShuttingDown) {
            let wait = self.retry_after.map_or(1, |wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.max(1)));
        }
        if code == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error and what it came from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many a sentence holds its cause already.
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// No route has this path.
pub async fn no_route(request: Request) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("No such route: {} {}", request.method(), request.uri().path()),
        "The routes stand under /v1.".to_owned(),
    )
}

/// A route has this path, but not for this method.
pub async fn no_method(request: Request) -> Response {
    let failure = Failure::new(
        ErrorCode::Invalid,
        format!("{} is not a method of {}", request.method(), request.uri().path()),
        None,
    );
    let mut response = failure.into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// A handler panicked: a fault of ours, which must not take the server down.
pub fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(code = ErrorCode::Internal.as_str(), "a handler panicked: {text}");
    Failure::new(
        ErrorCode::Internal,
        "The server failed at this request",
        "See superserve server logs, and report it.".to_owned(),
    )
    .into_response()
}
