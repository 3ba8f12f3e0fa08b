//! Errors to answers: statuses and bodies.

use std::any::Any;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::platform;
use crate::wire::{ErrorBody, ErrorCode, ErrorDetails};

/// An answer with a status of 400 or more.
#[derive(Debug)]
pub struct Failure(ErrorBody);

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a sentence of its own.
    pub fn new(code: ErrorCode, detail: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self(ErrorBody { detail: detail.into(), details: ErrorDetails { code, hint: hint.into() } })
    }
}

impl From<platform::Error> for Failure {
    fn from(error: platform::Error) -> Self {
        let code = error.code();
        if code == ErrorCode::Internal {
            tracing::error!("{error}");
        }
        Self::new(code, error.to_string(), error.hint())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.0.details.code;
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        if matches!(code, ErrorCode::RateLimited | ErrorCode::ShuttingDown) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
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
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    Failure::new(
        ErrorCode::Internal,
        "The server failed at this request",
        "See superserve server logs, and report it.".to_owned(),
    )
    .into_response()
}
