//! What agents keep secret: the keys go out, values only come in.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use zeroize::Zeroizing;

use super::Server;
use super::error::{Failure, Result};
use super::request::{self, Named};
use crate::wire::ErrorCode;
use crate::wire::secret::{SecretKeys, SetSecrets};

pub async fn list(State(server): State<Server>, Named(agent): Named) -> Result<Json<SecretKeys>> {
    Ok(Json(SecretKeys { keys: server.platform.secret_keys(&agent).await? }))
}

pub async fn set(
    State(server): State<Server>,
    Named(agent): Named,
    request: Request,
) -> Result<Json<SecretKeys>> {
    let bytes = Zeroizing::new(request::read(request).await?);
    // The parser's own words quote what it stumbles over, which may be a value.
    let set: SetSecrets = serde_json::from_slice(&bytes).map_err(|_| {
        Failure::new(
            ErrorCode::Invalid,
            "The request's body is not what this call takes: {\"secrets\": {\"KEY\": \"value\"}}",
            None,
        )
    })?;
    Ok(Json(SecretKeys { keys: server.platform.set_secrets(&agent, set.secrets).await? }))
}

pub async fn delete(
    State(server): State<Server>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<SecretKeys>> {
    let Path((agent, key)) = path.map_err(|error| {
        Failure::new(ErrorCode::Invalid, format!("The path is malformed: {}", error.body_text()), None)
    })?;
    Ok(Json(SecretKeys { keys: server.platform.delete_secret(&agent, &key).await? }))
}
