//! Tokens: made, listed, revoked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Server;
use super::error::Result;
use super::openapi::{Conflict, Empty, Malformed, NotFound, TooLarge, Unavailable};
use super::request::{Body, Named};
use crate::wire::token::{CreateToken, NewToken, TokenList};

/// Every token, without the text that opens the door.
#[utoipa::path(get, path = "/tokens", tag = "tokens", responses((status = 200, body = TokenList), Unavailable))]
pub async fn list(State(server): State<Server>) -> Result<Json<TokenList>> {
    Ok(Json(TokenList { tokens: server.platform.tokens().await? }))
}

/// Makes a token. Its text is told in this answer and never again.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens",
    request_body = CreateToken,
    responses((status = 201, body = NewToken), Conflict, TooLarge, Malformed, Unavailable),
)]
pub async fn create(
    State(server): State<Server>,
    Body(wanted): Body<CreateToken>,
) -> Result<impl IntoResponse> {
    Ok((StatusCode::CREATED, Json(server.platform.create_token(wanted).await?)))
}

/// Revokes a token: it opens nothing any more.
#[utoipa::path(
    delete, path = "/tokens/{token}", tag = "tokens",
    params(("token" = String, Path, description = "The token's ID or name.")),
    responses((status = 200, body = Empty), NotFound, Malformed, Unavailable),
)]
pub async fn revoke(State(server): State<Server>, Named(token): Named) -> Result<Json<Value>> {
    server.platform.revoke_token(&token).await?;
    Ok(Json(json!({})))
}
