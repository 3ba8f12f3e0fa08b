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
use super::openapi::{
    ChangeFrame, Conditions, Conflict, Empty, Gone, ListedSessions, Listing, Malformed, NotFound, OfSession,
    TooLarge, Unavailable,
};
use super::request::{Body, Named, parsed, session_id, session_query, stats_query, value, values};
use super::request_id::on_its_behalf;
use super::runs::sent;
use crate::wire::network::EgressLog;
use crate::wire::session::{EndMany, ResolvedIds, Selected, SelectedPage, Transcript};
use crate::wire::{CreateSession, EndRow, ErrorCode, RunId, Session, SessionStats, StatsQuery, sse};

/// One of the old clients posts again when a pooled connection breaks: never pool one that has changed something.
const CLOSE: [(header::HeaderName, &str); 1] = [(header::CONNECTION, "close")];

/// Makes a session. It is `pending` until its first message.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions",
    request_body = CreateSession,
    responses((status = 201, body = Session), NotFound, TooLarge, Malformed, Unavailable),
)]
pub async fn create(
    State(server): State<Server>,
    Body(session): Body<CreateSession>,
) -> Result<impl IntoResponse> {
    let session = server.platform.create_session(session).await?;
    Ok((StatusCode::CREATED, CLOSE, Json(session)))
}

/// The sessions for which all conditions hold, a page of them.
#[utoipa::path(
    get, path = "/sessions", tag = "sessions",
    params(Listing),
    responses((status = 200, body = ListedSessions), NotFound, Malformed, Unavailable),
)]
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
#[utoipa::path(
    get, path = "/sessions/stats", tag = "sessions",
    params(Conditions, StatsQuery),
    responses((status = 200, body = SessionStats), NotFound, Malformed, Unavailable),
)]
pub async fn stats(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<SessionStats>> {
    let stats = stats_query(&pairs)?;
    Ok(Json(server.platform.session_stats(&session_query(&pairs)?, &stats).await?))
}

/// The named sessions as they are, then every change of one of them, or of any if none is named. Somebody waits for
/// it, so the server stays as long as it is read.
#[utoipa::path(
    get, path = "/sessions/watch", tag = "sessions",
    params(
        (
            "id" = Option<Vec<String>>,
            Query,
            description = "The sessions; none: all of them.",
            max_items = 1000,
        ),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", item_schema = ChangeFrame),
        NotFound,
        Malformed,
        Unavailable,
    ),
)]
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
    Ok(sent(&server, changes.chain(stream::iter(Some(missed).filter(|text| !text.is_empty())))))
}

/// The sessions whose ID begins so, at most 1000.
#[utoipa::path(
    get, path = "/sessions/resolve", tag = "sessions",
    params(("id_prefix" = String, Query, min_length = 1, description = "The first digits of an ID.")),
    responses((status = 200, body = ResolvedIds), Malformed, Unavailable),
)]
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

/// One session.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions",
    params(OfSession),
    responses((status = 200, body = Session), NotFound, Malformed, Unavailable),
)]
pub async fn get(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.session(&session_id(&id)?).await?))
}

/// Forgets an ended session.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions",
    params(OfSession),
    responses((status = 200, body = Empty), NotFound, Conflict, Malformed, Unavailable),
)]
pub async fn delete(State(server): State<Server>, Named(id): Named) -> Result<Json<Value>> {
    server.platform.delete_session(&session_id(&id)?).await?;
    Ok(Json(json!({})))
}

/// Ends a session: its processes are killed, its workspace is wiped. Ending it again changes nothing.
#[utoipa::path(
    post, path = "/sessions/{id}/end", tag = "sessions",
    params(OfSession),
    responses((status = 200, body = Session), NotFound, Malformed, Unavailable),
)]
pub async fn end(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.end_session(&session_id(&id)?).await?))
}

/// A row a session, as each is done. A client that goes away stops it after those in flight.
#[utoipa::path(
    post, path = "/sessions/end", tag = "sessions",
    request_body = EndMany,
    responses(
        (status = 200, content_type = "application/x-ndjson", item_schema = EndRow),
        TooLarge,
        Malformed,
        Unavailable,
    ),
)]
pub async fn end_many(State(server): State<Server>, Body(many): Body<EndMany>) -> Result<impl IntoResponse> {
    let rows = on_its_behalf(server.platform.end_many(many.ids, many.unless_active));
    let lines = rows.map(|row| {
        let mut line = serde_json::to_vec(&row).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok::<_, std::io::Error>(Bytes::from(line))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    Ok((CLOSE, kind, HttpBody::from_stream(lines)))
}

/// Makes a session ready for its next message.
#[utoipa::path(
    post, path = "/sessions/{id}/resume", tag = "sessions",
    params(OfSession),
    responses((status = 200, body = Session), NotFound, Conflict, Gone, Malformed, Unavailable),
)]
pub async fn resume(State(server): State<Server>, Named(id): Named) -> Result<impl IntoResponse> {
    Ok((CLOSE, Json(server.platform.resume_session(&session_id(&id)?).await?)))
}

/// Cancels the run that is going on, if there is one.
#[utoipa::path(
    post, path = "/sessions/{id}/cancel", tag = "runs",
    params(OfSession),
    responses((status = 200, body = Session), NotFound, Conflict, Gone, Malformed, Unavailable),
)]
pub async fn cancel(State(server): State<Server>, Named(id): Named) -> Result<Json<Session>> {
    Ok(Json(server.platform.cancel_session(&session_id(&id)?).await?))
}

/// The transcript of a session, or with `run_id` what of it belongs to one run.
#[utoipa::path(
    get, path = "/sessions/{id}/messages", tag = "runs",
    params(OfSession, ("run_id" = Option<RunId>, Query, description = "Only this run's messages.")),
    responses((status = 200, body = Transcript), NotFound, Malformed, Unavailable),
)]
pub async fn messages(
    State(server): State<Server>,
    Named(id): Named,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Transcript>> {
    let run: Option<RunId> = parsed(&pairs, "run_id", "a run's ID")?;
    Ok(Json(Transcript { messages: server.platform.messages(&session_id(&id)?, run.as_ref()).await? }))
}

/// What was decided about the connections of a session.
#[utoipa::path(
    get, path = "/sessions/{id}/network", tag = "sessions",
    params(OfSession),
    responses((status = 200, body = EgressLog), NotFound, Malformed, Unavailable),
)]
pub async fn network(State(server): State<Server>, Named(id): Named) -> Result<Json<EgressLog>> {
    Ok(Json(EgressLog { entries: server.platform.egress(&session_id(&id)?).await? }))
}
