//! What an answer with a status of 400 or more carries.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, as a word that programs can test. Ours adds one to every error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// More than one thing matches.
    Ambiguous,
    /// A run is going on.
    Busy,
    /// The thing is in the wrong state for this call.
    Conflict,
    /// The session was ended.
    Ended,
    /// The session has expired.
    Expired,
    /// The token may not do this.
    Forbidden,
    /// The server failed; its log says why.
    Internal,
    /// The request is malformed.
    Invalid,
    /// Nothing matches.
    NotFound,
    /// Too many requests.
    RateLimited,
    /// This machine refuses the sandbox.
    SandboxUnavailable,
    /// The server is going away.
    ShuttingDown,
    /// The store can't be written.
    StoreUnavailable,
    /// The request is larger than the server takes.
    TooLarge,
    /// No token, or one that is not valid.
    Unauthenticated,
    /// A word that this version doesn't know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::SandboxUnavailable => "sandbox_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::StoreUnavailable => "store_unavailable",
            Self::TooLarge => "too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::Unknown => "unknown",
        }
    }

    /// The HTTP status of an answer that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::Ambiguous | Self::Busy | Self::Conflict | Self::Ended => 409,
            Self::Expired => 410,
            Self::Forbidden => 403,
            Self::Internal | Self::Unknown => 500,
            Self::Invalid => 422,
            Self::NotFound => 404,
            Self::RateLimited => 429,
            Self::SandboxUnavailable | Self::ShuttingDown | Self::StoreUnavailable => 503,
            Self::TooLarge => 413,
            Self::Unauthenticated => 401,
        }
    }
}

/// The body of an error: a sentence that stands on its own, and what programs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub detail: String,
    pub details: ErrorDetails,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetails {
    pub code: ErrorCode,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
