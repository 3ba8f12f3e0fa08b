//! The files of a session's workspace: list, read, write, and the session as an archive.

use std::io;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use utoipa::IntoParams;

use super::Server;
use super::error::{Failure, Result};
use super::openapi::{Conflict, Gone, Malformed, NotFound, OfSession, TooLarge, Unavailable};
use super::request::{session_id, told_length, value};
use super::request_id::on_its_behalf;
use crate::platform::{Error, MAX_FILE, too_large};
use crate::wire::file::{EXECUTABLE, FileRow, decode};
use crate::wire::{ErrorCode, FileEntry, SessionId};

/// The session and the path that a request names; the path byte by byte, since names need not be text.
fn named(uri: &Uri) -> Result<(SessionId, Vec<u8>)> {
    // `/sessions/{id}/files/{path}`.
    let mut parts = uri.path().trim_start_matches('/').splitn(4, '/').skip(1);
    let id = session_id(parts.next().unwrap_or_default())?;
    Ok((id, decode(parts.nth(1).unwrap_or_default())))
}

/// How a file or a folder is shown.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// What is there, a row a line, instead of a file's content.
    #[expect(dead_code, reason = "shows its schema")]
    list: Option<bool>,
    /// With what is in its folders.
    #[expect(dead_code, reason = "shows its schema")]
    recursive: Option<bool>,
}

/// What is at the top of the workspace; only with `list`.
#[utoipa::path(
    get, path = "/sessions/{id}/files", tag = "files",
    params(OfSession, Listing),
    responses(
        (status = 200, content_type = "application/x-ndjson", item_schema = FileRow),
        NotFound,
        Conflict,
        Gone,
        Malformed,
        Unavailable,
    ),
)]
pub async fn top(server: State<Server>, pairs: Query<Vec<(String, String)>>, uri: Uri) -> Result<Response> {
    get(server, pairs, uri).await
}

/// The content of a file; with `list`, and of a folder, what is there: a row a line.
#[utoipa::path(
    get, path = "/sessions/{id}/files/{*path}", tag = "files",
    params(
        OfSession,
        ("path" = String, Path, description = "From the top of the workspace; `/` divides its parts."),
        Listing,
    ),
    responses(
        (status = 200, content(([u8] = "application/octet-stream"), (String = "application/x-ndjson"))),
        NotFound,
        Conflict,
        Gone,
        Malformed,
        Unavailable,
    ),
)]
pub async fn get(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
    uri: Uri,
) -> Result<Response> {
    let (id, path) = named(&uri)?;
    let yes = |key: &str| value(&pairs, key).is_some_and(|text| text == "true" || text == "1");
    if yes("list") {
        let rows = server.platform.list_files(&id, &path, yes("recursive")).await?;
        let lines = rows.map(|rows| {
            let mut lines = Vec::new();
            for row in rows? {
                serde_json::to_writer::<_, FileRow>(&mut lines, &row)?;
                lines.push(b'\n');
            }
            Ok(lines)
        });
        return Ok(streamed(&server, lines, "application/x-ndjson", HeaderMap::new()));
    }
    let content = server.platform.read_file(&id, &path).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, content.size.into());
    if content.executable {
        headers.insert(HeaderName::from_static(EXECUTABLE), HeaderValue::from_static("true"));
    }
    // What an agent has written is data, whatever a browser would take it for.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(streamed(&server, content.pieces, "application/octet-stream", headers))
}

/// Puts the request's body into the workspace.
#[utoipa::path(
    put, path = "/sessions/{id}/files/{*path}", tag = "files",
    params(
        OfSession,
        ("path" = String, Path, description = "From the top of the workspace; `/` divides its parts."),
        ("executable" = Option<bool>, Query, description = "Whether its owner may execute it."),
    ),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = FileEntry), NotFound, Conflict, Gone, TooLarge, Malformed, Unavailable),
)]
pub async fn put(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
    uri: Uri,
    request: Request,
) -> Result<Json<FileEntry>> {
    let (id, path) = named(&uri)?;
    let executable = value(&pairs, "executable").is_some_and(|text| text == "true" || text == "1");
    if told_length(request.headers()).is_some_and(|length| length > MAX_FILE) {
        return Err(too_large().into());
    }
    let _waited_for = server.busy();
    let pieces = request.into_body().into_data_stream().map(|piece| match piece {
        Ok(bytes) => Ok(Vec::from(bytes)),
        Err(_) => {
            Err(Error::Invalid { message: "The request's body did not arrive whole".into(), hint: None })
        }
    });
    Ok(Json(server.platform.write_file(&id, &path, executable, pieces).await?))
}

/// The session as an archive.
#[utoipa::path(
    get, path = "/sessions/{id}/export", tag = "files",
    params(OfSession),
    responses(
        (status = 200, body = [u8], content_type = "application/gzip"),
        NotFound,
        Conflict,
        Gone,
        Malformed,
        Unavailable,
    ),
)]
pub async fn export(State(server): State<Server>, uri: Uri) -> Result<Response> {
    let (id, _) = named(&uri)?;
    let pieces = server.platform.export(&id).await?;
    let mut headers = HeaderMap::new();
    let name = HeaderValue::try_from(format!("attachment; filename=\"{}.tar.gz\"", id.short()));
    headers.insert(
        header::CONTENT_DISPOSITION,
        name.map_err(|_| Failure::new(ErrorCode::Internal, "The archive has no name", None))?,
    );
    Ok(streamed(&server, pieces, "application/gzip", headers))
}

/// An answer that comes in pieces. The server stays as long as somebody reads it; one that breaks off is noticed by its reader,
/// since its end is missing.
fn streamed(
    server: &Server,
    pieces: impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static,
    kind: &'static str,
    mut headers: HeaderMap,
) -> Response {
    let busy = server.busy();
    let pieces = on_its_behalf(pieces).map(move |piece| {
        let _ = &busy;
        piece.map(Bytes::from)
    });
    // An empty piece would look like the end.
    let pieces = pieces.filter(|piece| std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty)));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    (headers, HttpBody::from_stream(pieces)).into_response()
}
