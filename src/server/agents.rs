//! Agents: deploy, list, get, delete.

use axum::Json;
use axum::extract::multipart::{Multipart, MultipartError, MultipartRejection};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::error::{Failure, Result};
use super::openapi::{DeployForm, Empty, Malformed, NotFound, OfAgent, TooLarge, Unavailable};
use super::request::{Named, parsed, told_length};
use super::{MAX_ARCHIVE, Server};
use crate::platform::Upload;
use crate::wire::agent::AgentList;
use crate::wire::{Agent, AgentConfig, ErrorCode};

/// Every agent, or as many as `limit` says, by name.
#[utoipa::path(
    get, path = "/agents", tag = "agents",
    params(("limit" = Option<u32>, Query, description = "At most so many.")),
    responses((status = 200, body = AgentList), Malformed, Unavailable),
)]
pub async fn list(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<AgentList>> {
    let agents = server.platform.agents(parsed(&pairs, "limit", "a number")?).await?;
    Ok(Json(AgentList { agents }))
}

/// One agent.
#[utoipa::path(
    get, path = "/agents/{agent}", tag = "agents",
    params(OfAgent),
    responses((status = 200, body = Agent), NotFound, Malformed, Unavailable),
)]
pub async fn get(State(server): State<Server>, Named(agent): Named) -> Result<Json<Agent>> {
    Ok(Json(server.platform.agent(&agent).await?))
}

/// Deletes an agent; its sessions end.
#[utoipa::path(
    delete, path = "/agents/{agent}", tag = "agents",
    params(OfAgent),
    responses((status = 200, body = Empty), NotFound, Malformed, Unavailable),
)]
pub async fn delete(State(server): State<Server>, Named(agent): Named) -> Result<Json<Value>> {
    server.platform.delete_agent(&agent).await?;
    Ok(Json(json!({})))
}

/// Deploys an agent, or a new revision of the one of this name.
///
/// Answers at once; `deps_status` tells when its dependencies are there.
#[utoipa::path(
    post, path = "/agents", tag = "agents",
    request_body(content = DeployForm, content_type = "multipart/form-data"),
    responses((status = 200, body = Agent), TooLarge, Malformed, Unavailable),
)]
pub async fn deploy(
    State(server): State<Server>,
    headers: HeaderMap,
    multipart: std::result::Result<Multipart, MultipartRejection>,
) -> Result<Json<Agent>> {
    // Told before it is sent in vain.
    if told_length(&headers).is_some_and(|length| length > MAX_ARCHIVE as u64) {
        return Err(too_large());
    }
    let mut multipart = multipart.map_err(|error| {
        Failure::new(ErrorCode::Invalid, format!("Deploying takes multipart data: {error}"), None)
    })?;
    let (mut archive, mut name, mut command, mut config) = (None, None, None, AgentConfig::default());
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        match field.name() {
            Some("file") => archive = Some(field.bytes().await.map_err(broken)?.to_vec()),
            Some("name") => name = Some(field.text().await.map_err(broken)?),
            Some("command") => command = Some(field.text().await.map_err(broken)?),
            Some("config") => {
                let text = field.text().await.map_err(broken)?;
                if !text.trim().is_empty() {
                    config = serde_json::from_str(&text).map_err(|error| {
                        Failure::new(
                            ErrorCode::Invalid,
                            format!("The agent's config is malformed: {error}"),
                            None,
                        )
                    })?;
                }
            }
            _ => {}
        }
    }
    let missing = |part: &str| {
        Failure::new(ErrorCode::Invalid, format!("Deploying takes a part '{part}', and there was none"), None)
    };
    let upload = Upload {
        name: name.or_else(|| config.name.clone()).ok_or_else(|| missing("name"))?,
        command: command.filter(|command| !command.trim().is_empty()),
        config,
        archive: archive.ok_or_else(|| missing("file"))?,
    };
    Ok(Json(server.platform.deploy(upload).await?))
}

fn broken(error: MultipartError) -> Failure {
    if error.status().as_u16() == 413 {
        return too_large();
    }
    Failure::new(ErrorCode::Invalid, format!("The upload did not arrive whole: {}", error.body_text()), None)
}

fn too_large() -> Failure {
    let most = MAX_ARCHIVE >> 20;
    Failure::new(
        ErrorCode::TooLarge,
        "The agent's archive is too large",
        format!(
            "At most {most} MiB are taken: name what the agent doesn't need under ignore in superserve.yaml."
        ),
    )
}
