//! What an answer with a status of 400 or more carries.

use serde::{Deserialize, Serialize};
use serde_json::Value;
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

    /// What a status says where no word does.
    fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            410 => Self::Expired,
            413 => Self::TooLarge,
            429 => Self::RateLimited,
            400..=499 => Self::Invalid,
            503 => Self::ShuttingDown,
            _ => Self::Internal,
        }
    }
}

/// The body of an error: a sentence that stands on its own, and what programs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub detail: String,
    pub details: ErrorDetails,
}

impl ErrorBody {
    /// Reads the body of an answer with this status. The protocol asks for a sentence alone, which may be called `message`;
    /// without a word that is known the status counts. `None` if there is no sentence.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let detail = text(&body, "detail").or_else(|| text(&body, "message"))?;
        let details = body.get("details").unwrap_or(&Value::Null);
        let code = details.get("code").and_then(|code| ErrorCode::deserialize(code).ok());
        let code = code.filter(|code| *code != ErrorCode::Unknown);
        let code = code.unwrap_or_else(|| ErrorCode::of_status(status));
        Some(Self { detail, details: ErrorDetails { code, hint: text(details, "hint") } })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetails {
    pub code: ErrorCode,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_enough() {
        let read = |status, body: &str| {
            let body = ErrorBody::read(status, body.as_bytes())?;
            Some((body.detail, body.details.code, body.details.hint))
        };
        let whole = r#"{"detail": "d", "message": "m", "details": {"code": "busy", "hint": "h"}}"#;
        assert_eq!(read(409, whole), Some(("d".into(), ErrorCode::Busy, Some("h".into()))));
        assert_eq!(read(404, r#"{"detail": "d"}"#), Some(("d".into(), ErrorCode::NotFound, None)));
        assert_eq!(
            read(410, r#"{"message": "m", "details": []}"#),
            Some(("m".into(), ErrorCode::Expired, None))
        );
        let unknown = r#"{"detail": "d", "details": {"code": "new", "more": 1}}"#;
        assert_eq!(read(429, unknown), Some(("d".into(), ErrorCode::RateLimited, None)));
        for body in ["", "<html>", "{}", "[]", "null", r#"{"detail": [1]}"#] {
            assert_eq!(read(422, body), None, "{body}");
        }
    }

    #[test]
    fn a_status_says_what_its_words_say() {
        for status in [401, 403, 404, 409, 410, 413, 422, 429, 500, 503] {
            assert_eq!(ErrorCode::of_status(status).status(), status);
        }
        assert_eq!(ErrorCode::of_status(405), ErrorCode::Invalid);
        assert_eq!(ErrorCode::of_status(502), ErrorCode::Internal);
    }
}
