//! Who somebody is, and logins of programs without a browser.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use super::Server;
use super::access::{Caller, Peer, host, peer};
use super::error::Result;
use super::openapi::{Conflict, Empty, Malformed, NotFound, TooLarge, Unavailable};
use super::request::Body;
use crate::platform::{Decision, LOGIN_INTERVAL, LOGIN_LIFE};
use crate::wire::auth::{AskToken, Decide, DeviceAnswer, DeviceCode, User, Validation};

/// Whom the token stands for.
#[utoipa::path(get, path = "/auth/me", tag = "auth", responses((status = 200, body = User)))]
pub async fn me(caller: Caller) -> Json<User> {
    Json(user(&caller))
}

/// Whether the token is good, and whom it stands for.
#[utoipa::path(get, path = "/auth/validate", tag = "auth", responses((status = 200, body = Validation)))]
pub async fn validate(caller: Caller) -> Json<Validation> {
    Json(Validation { valid: true, user: user(&caller) })
}

/// The old clients print an address. A token's name may be one.
fn user(caller: &Caller) -> User {
    let (id, name) = match caller {
        Caller::Owner => ("owner", "owner"),
        Caller::Token(token) => (token.id.as_str(), token.name.as_str()),
    };
    let token = match caller {
        Caller::Owner => None,
        Caller::Token(token) => Some(token),
    };
    User {
        id: id.to_owned(),
        email: if name.contains('@') { name.to_owned() } else { format!("{name}@superserve.local") },
        full_name: Some(name.to_owned()),
        scope: token.map(|token| token.scope),
        expires_at: token.and_then(|token| token.expires_at),
    }
}

/// Begins the login of a program without a browser (RFC 8628).
#[utoipa::path(post, path = "/auth/device-code", tag = "auth", responses((status = 200, body = DeviceCode)))]
pub async fn device_code(State(server): State<Server>, request: Request) -> Result<Json<DeviceCode>> {
    let from = match peer(request.extensions()) {
        Peer::Owner => "this machine".to_owned(),
        Peer::Remote(address) => address.ip().to_string(),
    };
    let url = server.door.url(host(&request).unwrap_or("localhost"));
    let begun = server.platform.begin_login(&from)?;
    Ok(Json(DeviceCode {
        verification_uri: format!("{url}/device"),
        verification_uri_complete: format!("{url}/device?code={}", begun.user_code),
        device_code: begun.device_code,
        user_code: begun.user_code,
        expires_in: LOGIN_LIFE,
        interval: LOGIN_INTERVAL,
    }))
}

/// Asks for the token of such a login. One that is not approved yet is answered with 200 too.
#[utoipa::path(
    post, path = "/auth/device-token", tag = "auth",
    request_body = AskToken,
    responses((status = 200, body = DeviceAnswer), TooLarge, Malformed, Unavailable),
)]
pub async fn device_token(
    State(server): State<Server>,
    Body(ask): Body<AskToken>,
) -> Result<Json<DeviceAnswer>> {
    Ok(Json(server.platform.poll_login(&ask.device_code).await?))
}

/// An owner's word on such a login.
#[utoipa::path(
    post, path = "/auth/device-approve", tag = "auth",
    request_body = Decide,
    responses((status = 200, body = Empty), NotFound, Conflict, TooLarge, Malformed, Unavailable),
)]
pub async fn device_approve(State(server): State<Server>, Body(decide): Body<Decide>) -> Result<Json<Value>> {
    let decision = match decide.deny {
        true => Decision::Deny,
        false => Decision::Approve {
            name: decide.name.unwrap_or_else(|| named_after(&decide.user_code)),
            scope: decide.scope,
        },
    };
    server.platform.decide_login(&decide.user_code, decision).await?;
    Ok(Json(json!({})))
}

/// What a token is called if nobody says.
pub(super) fn named_after(user_code: &str) -> String {
    let letters: String = user_code.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("login-{}", letters.to_ascii_lowercase())
}
