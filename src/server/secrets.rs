//! What agents keep secret: the keys go out, values only come in.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use zeroize::Zeroizing;

use super::Server;
use super::error::{Failure, Result};
use super::openapi::{Malformed, NotFound, OfAgent, TooLarge, Unavailable};
use super::request::{self, Named};
use crate::wire::ErrorCode;
use crate::wire::secret::{SecretKeys, SetSecrets};

/// The keys of an agent's secrets.
#[utoipa::path(
    get, path = "/agents/{agent}/secrets", tag = "secrets",
    params(OfAgent),
    responses((status = 200, body = SecretKeys), NotFound, Malformed, Unavailable),
)]
pub async fn list(State(server): State<Server>, Named(agent): Named) -> Result<Json<SecretKeys>> {
    Ok(Json(SecretKeys { keys: server.platform.secret_keys(&agent).await? }))
}

/// Sets secrets of an agent, all or none. Its next process gets them.
#[utoipa::path(
    patch, path = "/agents/{agent}/secrets", tag = "secrets",
    params(OfAgent),
    request_body = SetSecrets,
    responses((status = 200, body = SecretKeys), NotFound, TooLarge, Malformed, Unavailable),
)]
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

/// Deletes one secret of an agent.
#[utoipa::path(
    delete, path = "/agents/{agent}/secrets/{key}", tag = "secrets",
    params(OfAgent, ("key" = String, Path, description = "The secret's key.")),
    responses((status = 200, body = SecretKeys), NotFound, Malformed, Unavailable),
)]
pub async fn delete(
    State(server): State<Server>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<SecretKeys>> {
    let Path((agent, key)) = path.map_err(|error| {
        Failure::new(ErrorCode::Invalid, format!("The path is malformed: {}", error.body_text()), None)
    })?;
    Ok(Json(SecretKeys { keys: server.platform.delete_secret(&agent, &key).await? }))
}
