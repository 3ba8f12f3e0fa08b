//! Sessions: create, list, count, watch, resolve, get, resume, cancel, end, forget, their transcript and their network.

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::Server;
use super::error::{Failure, Result};
use super::request::{Body, Named, session_id, session_query, stats_query, value, values};
use super::runs::sent;
use crate::wire::network::EgressLog;
use crate::wire::session::{EndMany, ResolvedIds, Selected, SelectedPage, Transcript};
use crate::wire::{CreateSession, ErrorCode, Session, SessionStats, sse};

/// One of the old clients posts again when a pooled connection breaks: never pool one that has changed something.
const CLOSE: [(header::HeaderName, &str); 1] = [(header::CONNECTION, "close")];

pub async fn create(
    State(server): State<Server>,
    Body(session): Body<CreateSession>,
) -> Result<impl IntoResponse> {
    let session = server.platform.create_session(session).await?;
    Ok((StatusCode::CREATED, CLOSE, Json(session)))
}

pub async fn list(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let query = session_query(&pairs)?;
    let page = server.platform.sessions(&query).await?;
    if query.fields.is_empty() {
        return Ok(Json(page).into_response());
    }
    let sessions = page.sessions.iter().map(|session| Selected { session, fields: &query.fields }).collect();
    Ok(Json(SelectedPage { sessions, next_cursor: page.next_cursor }).into_response())
}

/// What is counted over the sessions for which the conditions hold.
pub async fn stats(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<SessionStats>> {
    let stats = stats_query(&pairs)?;
    Ok(Json(server.platform.session_stats(&session_query(&pairs)?, &stats).await?))
}

/// The named sessions as they are, then every change of one of them, or of any if none is named. Somebody waits for
/// it, so the server stays as long as it is read.
pub async fn watch(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let mut ids = Vec::new();
    for text in values(&pairs, "id") {
        let id = session_id(text)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let missed = if ids.is_empty() {
        sse::comment("the end, or changes were missed: ask anew")
    } else {
        String::new()
    };
    let waited_for = server.busy();
    let changes = server.platform.watch(ids).await?.map(move |event| {
        let _ = &waited_for;
        sse::encode_change(&event)
    });
    Ok(sent(changes.chain(stream::iter(Some(missed).filter(|text| !text.is_empty())))))
}

pub async fn resolve(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<ResolvedIds>> {
    let Some(prefix) = value(&pairs, "id_prefix") else {
        return Err(Failure::new(
            ErrorCode::Invalid,
            "id_prefix is empty",
            "Give the first digits of a session's ID.".to_owned(),
        ));
    };
    Ok(Json(ResolvedIds { ids: server.platform.resolve(prefix).await? }))
}

pub async fn get(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.session(&session_id(&id)?).await?))
}

pub async fn delete(State(server): State<Server>, Named(id): Named) -> Result<Json<Value>> {
    server.platform.delete_session(&session_id(&id)?).await?;
    Ok(Json(json!({})))
}

pub async fn end(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.end_session(&session_id(&id)?).await?))
}

/// A row a session, as each is done. A client that goes away stops it after those in flight.
pub async fn end_many(State(server): State<Server>, Body(many): Body<EndMany>) -> Result<impl IntoResponse> {
    let lines = server.platform.end_many(many.ids, many.unless_active).map(|row| {
        let mut line = serde_json::to_vec(&row).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok::<_, std::io::Error>(Bytes::from(line))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    Ok((CLOSE, kind, HttpBody::from_stream(lines)))
}

pub async fn resume(State(server): State<Server>, Named(id): Named) -> Result<impl IntoResponse> {
    Ok((CLOSE, Json(server.platform.resume_session(&session_id(&id)?).await?)))
}

pub async fn cancel(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.cancel_session(&session_id(&id)?).await?))
}

pub async fn messages(State(server): State<Server>, Named(id): Named) -> Result<Json<Transcript>> {
    Ok(Json(Transcript { messages: server.platform.messages(&session_id(&id)?).await? }))
}

pub async fn network(State(server): State<Server>, Named(id): Named) -> Result<Json<EgressLog>> {
    Ok(Json(EgressLog { entries: server.platform.egress(&session_id(&id)?).await? }))
}
