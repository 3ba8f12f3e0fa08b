//! What a request carries: bodies, queries and IDs, read the way that the original clients write them.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::error::{Failure, Result};
use crate::platform;
use crate::wire::{ErrorCode, Order, SessionId, SessionQuery};

/// The largest JSON body, in bytes.
const MAX_BODY: usize = 4 << 20;
/// How much of a body that is too large is read before the connection is closed on it, in bytes.
const MAX_DISCARDED: usize = 64 << 20;

/// A JSON body, whatever its content type; an empty one counts as `{}`, since clients post without a body.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let bytes = read(request).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            Failure::new(
                ErrorCode::Invalid,
                format!("The request's body is not what this call takes: {error}"),
                None,
            )
        })
    }
}

/// The name or ID in a request's path.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(Failure::new(
                ErrorCode::Invalid,
                format!("The path is malformed: {}", error.body_text()),
                None,
            )),
        }
    }
}

/// The whole body. One that is too large is read on, within a bound, and thrown away: a client that still sends when its
/// connection is closed never reads why.
async fn read(request: Request) -> Result<Vec<u8>> {
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| Failure::new(ErrorCode::Invalid, "The request's body did not arrive whole", None))?;
        length += chunk.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&chunk);
        } else if length <= MAX_DISCARDED {
            bytes = Vec::new();
        } else {
            break;
        }
    }
    if length <= MAX_BODY {
        return Ok(bytes);
    }
    let limit = format!("At most {} MiB are taken.", MAX_BODY >> 20);
    Err(Failure::new(ErrorCode::TooLarge, "The request's body is too large", limit))
}

/// A session's ID out of a path: with or without `ses_`, dashes ignored.
pub fn session_id(text: &str) -> Result<SessionId> {
    SessionId::from_written(text).map_err(|_| platform::Error::SessionNotFound(text.to_owned()).into())
}

/// The value of `key`, unless it is missing or empty.
pub fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// The value of `key` as a number or a moment; a malformed one is an error that names it.
pub fn parsed<T: std::str::FromStr>(pairs: &[(String, String)], key: &str, form: &str) -> Result<Option<T>> {
    value(pairs, key)
        .map(|text| {
            text.parse().map_err(|_| {
                Failure::new(ErrorCode::Invalid, format!("'{text}' is not {form}, which {key} takes"), None)
            })
        })
        .transpose()
}

/// What `GET /sessions` asks. An empty value counts as not given; a key that we don't know is passed over.
pub fn session_query(pairs: &[(String, String)]) -> Result<SessionQuery> {
    let status = pairs
        .iter()
        .filter(|(key, value)| key == "status" && !value.is_empty())
        .map(|(_, text)| text.parse())
        .collect::<std::result::Result<Vec<_>, crate::wire::session::ParseStatusError>>()
        .map_err(|error| Failure::new(ErrorCode::Invalid, error.to_string(), None))?;
    let order = match value(pairs, "order") {
        None | Some("activity") => Order::Activity,
        Some("created") => Order::Created,
        Some(text) => {
            return Err(Failure::new(
                ErrorCode::Invalid,
                format!("unknown order '{text}': use activity or created"),
                None,
            ));
        }
    };
    Ok(SessionQuery {
        status,
        agent: value(pairs, "agent").or_else(|| value(pairs, "agent_id")).map(str::to_owned),
        idle_longer_than: parsed(pairs, "idle_longer_than", "a number of seconds")?,
        created_before: parsed(pairs, "created_before", "a time such as 2026-03-09T10:15:00Z")?,
        title_contains: value(pairs, "title_contains").map(str::to_owned),
        limit: parsed(pairs, "limit", "a number")?,
        cursor: value(pairs, "cursor").map(str::to_owned),
        order,
    })
}
