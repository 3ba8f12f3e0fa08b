//! Who somebody is, and how a program without a browser logs in (RFC 8628).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Scope, Timestamp};

/// `GET /auth/me`: whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: String,
    /// The token's name as an address, which the old clients print.
    pub email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Ours: what the token may do, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// `GET /auth/validate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Validation {
    pub valid: bool,
    pub user: User,
}

/// `POST /auth/device-code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceCode {
    /// What the program polls with.
    pub device_code: String,
    /// What its user types on the page: `BCDF-GHJK`.
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: String,
    /// In seconds.
    pub expires_in: u64,
    /// How many seconds to wait between two polls.
    pub interval: u64,
}

/// What `POST /auth/device-token` is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskToken {
    pub device_code: String,
}

/// What it answers, always with 200: the old clients give up at anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum DeviceAnswer {
    Granted {
        #[serde(alias = "token")]
        access_token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    Refused {
        error: DeviceError,
    },
}

/// Why there is no token, in the words of RFC 8628.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceError {
    AuthorizationPending,
    SlowDown,
    ExpiredToken,
    AccessDenied,
}

/// `POST /auth/device-approve`, ours: an owner's word on a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decide {
    pub user_code: String,
    #[serde(default)]
    pub deny: bool,
    /// What the new token is called; the code if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub scope: Scope,
}
