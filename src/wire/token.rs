//! Tokens: what opens the server to those who come over the network, and how much each may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// How much a token may do; each holds the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at agents and sessions, transcripts and files.
    Read,
    /// Deploy agents; start, answer and end sessions.
    #[default]
    Write,
    /// Tokens, logins of others, and the server itself.
    Admin,
}

impl Scope {
    /// Every word, in order.
    pub const WORDS: [&'static str; 3] = ["read", "write", "admin"];

    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("unknown scope '{text}': use {}", Self::WORDS.join(", "))),
        }
    }
}

/// A token as it is shown: never the text that opens the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// `tok_` and 16 hex digits.
    #[schema(pattern = "^tok_[0-9a-f]{16}$")]
    pub id: String,
    pub name: String,
    pub scope: Scope,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// To the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// `POST /tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    #[serde(default)]
    pub scope: Scope,
    /// After how many seconds it opens nothing any more; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3_162_240_000_i64)]
    pub expires_in: Option<u64>,
}

/// What `POST /tokens` answers: the one time that the text is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    pub token: String,
    #[serde(flatten)]
    pub about: Token,
}

/// `GET /tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    pub tokens: Vec<Token>,
}
