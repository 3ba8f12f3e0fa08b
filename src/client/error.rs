//! Why a call to the server failed.

use std::path::PathBuf;

use crate::wire::{ErrorBody, ErrorCode};

pub type Result<T> = std::result::Result<T, Error>;

/// A failed call, or a question that could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, or an ID was refused before it was asked.
    #[error("{message}")]
    Api { code: ErrorCode, message: String, hint: Option<String> },
    /// No server answers, or none could be started.
    #[error("{message}")]
    Unreachable { message: String, hint: Option<String> },
    /// The server answered something that is not our protocol.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
    /// Something on this side: a folder, a file, an argument.
    #[error("{message}")]
    Input { message: String, hint: Option<String> },
    /// A file or folder named by the user isn't there.
    #[error("{what} not found: {path}", path = path.display())]
    Missing { what: &'static str, path: PathBuf, hint: Option<String> },
}

impl Error {
    /// An error in the server's own shape.
    pub fn api(code: ErrorCode, message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self::Api { code, message: message.into(), hint: hint.into() }
    }

    /// The word that programs can test.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Api { code, .. } => code.as_str(),
            Self::Input { .. } => "invalid",
            Self::Missing { .. } => "not_found",
            Self::Protocol(_) => "protocol",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// The HTTP status that stands for it; 0 if no server answers, or none was asked.
    pub fn status(&self) -> u16 {
        match self {
            Self::Api { code, .. } => code.status(),
            Self::Input { .. } | Self::Missing { .. } | Self::Protocol(_) | Self::Unreachable { .. } => 0,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api { hint, .. }
            | Self::Input { hint, .. }
            | Self::Missing { hint, .. }
            | Self::Unreachable { hint, .. } => hint.as_deref(),
            Self::Protocol(_) => {
                Some("Is it a superserve server, and of this version? See superserve server status.")
            }
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self::Api { code: body.details.code, message: body.detail, hint: body.details.hint }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_decode() {
            return Self::Protocol(error.to_string());
        }
        // reqwest's own text names a made-up URL; the innermost cause is what the system said.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Unreachable {
            message: format!("cannot reach the server: {cause}"),
            hint: Some(
                "Run superserve server status to see whether it runs, superserve server logs for its log."
                    .into(),
            ),
        }
    }
}
