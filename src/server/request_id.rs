//! What a request is called: in its answer, in every line that is logged on its behalf, and in the sentence of a failure.

use std::task::Poll;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{Stream, stream};
use tracing::{Instrument, Span};

use super::Server;

/// The header that carries it, in both directions.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that is taken over, in characters.
const LONGEST: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The ID of the request that is being answered.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Gives a request its ID: its own, if that is one, or a new one.
pub async fn identify(State(server): State<Server>, request: Request, next: Next) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| {
        let digits = format!("{:032x}", server.request_ids.random());
        format!("req_{}", &digits[..16])
    });
    let span = tracing::info_span!("request", %id);
    let mut response = CURRENT.scope(id.clone(), next.run(request)).instrument(span).await;
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}

/// The ID that whoever asks has given, if it can stand in a log: letters, digits and a few signs.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let is_sane = (1..=LONGEST).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    is_sane.then(|| id.to_owned())
}

/// What is still made of an answer when its head is out, logged on behalf of the same request.
pub fn on_its_behalf<S: Stream + Send + 'static>(pieces: S) -> impl Stream<Item = S::Item> + Send + 'static {
    let span = Span::current();
    let mut pieces = Box::pin(pieces);
    stream::poll_fn(move |context| -> Poll<Option<S::Item>> {
        let _entered = span.enter();
        pieces.as_mut().poll_next(context)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_in_a_log_is_taken_over() {
        let given = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(id).expect("a value"));
            given(&headers)
        };
        for id in ["a", "req_0a", "5a3f7b9c-2e1d-4f6a-8b0c-9d1e2f3a4b5c", "a.b:c", &"x".repeat(64)] {
            assert_eq!(given(id.as_bytes()).as_deref(), Some(id));
        }
        for id in ["", "a b", "a\tb", "{}", "<a>", "a\"b", "é", &"x".repeat(65)] {
            assert_eq!(given(id.as_bytes()), None, "{id}");
        }
        assert_eq!(given(b"\xff"), None);
    }
}
