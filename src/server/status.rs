//! The server itself: health, version, status, stop.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::Server;
use super::error::{Failure, Result};
use super::openapi::{Conflict, Malformed, TooLarge, Unavailable};
use super::request::Body;
use super::request_id::on_its_behalf;
use crate::wire::server::{Collect, Freed, StopServer};
use crate::wire::{ErrorCode, Health, ServerInfo, Version};

/// Whether the server answers.
#[utoipa::path(get, path = "/health", tag = "server", security(()), responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Which server this is.
#[utoipa::path(
    get, path = "/version", tag = "server",
    security(()),
    responses((status = 200, body = Version)),
)]
pub async fn version(State(server): State<Server>) -> Json<Version> {
    Json(server.identity.version.clone())
}

/// What the server says of itself.
#[utoipa::path(get, path = "/server", tag = "server", responses((status = 200, body = ServerInfo)))]
pub async fn server(State(server): State<Server>) -> Result<Json<ServerInfo>> {
    info(&server).await.map(Json)
}

/// Stops the server. Runs that are going on get 10 seconds.
#[utoipa::path(
    post, path = "/server/stop", tag = "server",
    request_body = StopServer,
    responses((status = 200, body = ServerInfo), Conflict, TooLarge, Malformed),
)]
pub async fn stop(State(server): State<Server>, Body(stop): Body<StopServer>) -> Result<Json<ServerInfo>> {
    let info = info(&server).await?;
    if stop.if_idle && info.active_runs > 0 {
        return Err(Failure::new(
            ErrorCode::Busy,
            format!("The server is busy: runs going on: {}", info.active_runs),
            "Wait for them, or stop it with superserve server stop.".to_owned(),
        ));
    }
    server.stop.cancel();
    Ok(Json(info))
}

/// A copy of what is kept, as it is made.
#[utoipa::path(
    post, path = "/server/backup", tag = "server",
    responses((status = 200, body = [u8], content_type = "application/gzip"), Unavailable),
)]
pub async fn backup(State(server): State<Server>) -> Result<Response> {
    let being_read = server.busy();
    let pieces = server.platform.backup().await?.inspect(move |_| {
        let _ = &being_read;
    });
    Ok(([(header::CONTENT_TYPE, "application/gzip")], HttpBody::from_stream(on_its_behalf(pieces)))
        .into_response())
}

/// Lets go of what is past its time.
#[utoipa::path(
    post, path = "/server/gc", tag = "server",
    request_body = Collect,
    responses((status = 200, body = Freed), TooLarge, Malformed, Unavailable),
)]
pub async fn collect(State(server): State<Server>, Body(collect): Body<Collect>) -> Result<Json<Freed>> {
    Ok(Json(server.platform.collect(collect.dry_run).await?))
}

async fn info(server: &Server) -> Result<ServerInfo> {
    let activity = server.platform.activity().await;
    let identity = &server.identity;
    Ok(ServerInfo {
        pid: identity.pid,
        socket: identity.socket.clone(),
        address: identity.address.clone(),
        home: identity.home.clone(),
        version: identity.version.version.clone(),
        build: identity.version.build.clone(),
        started_at: identity.started_at,
        sessions: activity.sessions,
        active_runs: activity.active_runs,
        isolation: server.platform.isolation().ok(),
        sandbox: identity.driver.clone(),
        sandbox_error: identity.refusal.clone(),
    })
}
