//! Tokens: made, listed, revoked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Server;
use super::error::Result;
use super::request::{Body, Named};
use crate::wire::token::{CreateToken, TokenList};

pub async fn list(State(server): State<Server>) -> Result<Json<TokenList>> {
    Ok(Json(TokenList { tokens: server.platform.tokens().await? }))
}

pub async fn create(
    State(server): State<Server>,
    Body(wanted): Body<CreateToken>,
) -> Result<impl IntoResponse> {
    Ok((StatusCode::CREATED, Json(server.platform.create_token(wanted).await?)))
}

pub async fn revoke(State(server): State<Server>, Named(token): Named) -> Result<Json<Value>> {
    server.platform.revoke_token(&token).await?;
    Ok(Json(json!({})))
}
