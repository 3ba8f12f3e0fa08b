//! Runs: a message starts one, and its events stream until it ends.

use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};

use super::Server;
use super::error::Result;
use super::openapi::{Conflict, Gone, Malformed, NotFound, OfSession, RunFrame, TooLarge, Unavailable};
use super::request::{Body, Named, parsed, session_id};
use super::request_id::on_its_behalf;
use crate::wire::{NumberedEvent, SendMessage, sse};

/// How long a stream may be silent before a comment is sent; the old clients give up after 300 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Sends a message; the answer is the stream of the run that it starts.
///
/// A client that goes away does not cancel the run.
#[utoipa::path(
    post, path = "/sessions/{id}/messages", tag = "runs",
    params(OfSession),
    request_body = SendMessage,
    responses(
        (status = 200, content_type = "text/event-stream", item_schema = RunFrame),
        NotFound,
        Conflict,
        Gone,
        TooLarge,
        Malformed,
        Unavailable,
    ),
)]
pub async fn send(
    State(server): State<Server>,
    Named(id): Named,
    Body(message): Body<SendMessage>,
) -> Result<Response> {
    let events = server.platform.send_as(&session_id(&id)?, &message.prompt, message.run_id).await?;
    Ok(streamed(&server, events))
}

/// The events of a session's latest run, from the first or after those that are known, then live until it ends.
#[utoipa::path(
    get, path = "/sessions/{id}/events", tag = "runs",
    params(
        OfSession,
        ("after" = Option<u64>, Query, description = "How many events of the run are known."),
        (
            "Last-Event-ID" = Option<String>,
            Header,
            description = "The ID of the last event that is known; `after` goes before it.",
        ),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", item_schema = RunFrame),
        NotFound,
        Malformed,
        Unavailable,
    ),
)]
pub async fn events(
    State(server): State<Server>,
    Named(id): Named,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response> {
    let after: Option<u64> = parsed(&pairs, "after", "a number of events")?;
    let last = last_event_id(&headers).filter(|_| after.is_none());
    let events = server.platform.events(&session_id(&id)?, after.unwrap_or(0)).await?;
    // What a reader has of an earlier run says nothing about the latest one.
    let is_new = move |event: &NumberedEvent| match &last {
        Some((run, number)) => event.run_id.as_str() != run || event.number > *number,
        None => true,
    };
    Ok(streamed(&server, events.filter(move |event| std::future::ready(is_new(event)))))
}

/// The run, and the place in it, that a `Last-Event-ID: <run_id>:<n>` names.
fn last_event_id(headers: &HeaderMap) -> Option<(String, u64)> {
    let (run, number) = headers.get("last-event-id")?.to_str().ok()?.rsplit_once(':')?;
    Some((run.to_owned(), number.parse().ok()?))
}

fn streamed(server: &Server, events: impl Stream<Item = NumberedEvent> + Send + 'static) -> Response {
    sent(server, events.map(|event| sse::encode(&event)))
}

/// Frames as an event stream that is never silent for long.
pub(super) fn sent(server: &Server, frames: impl Stream<Item = String> + Send + 'static) -> Response {
    let open = server.platform.metrics().stream();
    let frames = kept_warm(on_its_behalf(frames), KEEP_ALIVE).map(move |frame| {
        let _ = &open;
        Ok::<_, std::io::Error>(Bytes::from(frame))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONNECTION, "close"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, HttpBody::from_stream(frames)).into_response()
}

/// The frames, and a comment whenever none has come for so long.
fn kept_warm(
    frames: impl Stream<Item = String> + Send + 'static,
    silence: Duration,
) -> impl Stream<Item = String> + Send {
    stream::unfold(Box::pin(frames), move |mut frames| async move {
        let frame = match tokio::time::timeout(silence, frames.next()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(_) => sse::KEEP_ALIVE.to_owned(),
        };
        Some((frame, frames))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_stream_is_kept_warm_with_comments() {
        let (say, said) = tokio::sync::mpsc::unbounded_channel::<String>();
        let frames = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        let mut told = Box::pin(kept_warm(frames, Duration::from_millis(1)));
        for _ in 0..2 {
            assert_eq!(told.next().await.as_deref(), Some(": keep-alive\n\n"));
        }
        say.send("data: 1\n\n".to_owned()).expect("a reader");
        assert_eq!(told.next().await.as_deref(), Some("data: 1\n\n"));
        assert_eq!(told.next().await.as_deref(), Some(": keep-alive\n\n"));
        drop(say);
        assert_eq!(told.next().await, None);
    }
}
