//! What a request carries: bodies, queries and IDs, read the way that the original clients write them.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::error::{Failure, Result};
use crate::platform;
use crate::wire::{ErrorCode, Order, SessionId, SessionQuery, StatsQuery};

/// The largest JSON body, in bytes.
const MAX_BODY: usize = 4 << 20;
/// The most agents that a list names: each is looked up.
const MAX_AGENTS: usize = 100;

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

/// The whole body. Error: it is too large, or broke off.
pub async fn read(request: Request) -> Result<Vec<u8>> {
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| Failure::new(ErrorCode::Invalid, "The request's body did not arrive whole", None))?;
        if bytes.len() + chunk.len() > MAX_BODY {
            let limit = format!("At most {} MiB are taken.", MAX_BODY >> 20);
            return Err(Failure::new(ErrorCode::TooLarge, "The request's body is too large", limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A session's ID out of a path: with or without `ses_`, dashes ignored.
pub fn session_id(text: &str) -> Result<SessionId> {
    SessionId::from_written(text).map_err(|_| platform::Error::SessionNotFound(text.to_owned()).into())
}

/// The value of `key`, unless it is missing or empty.
pub fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// How long the body is said to be, in bytes.
pub fn told_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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

/// Every value of `key` that is not empty.
pub fn values<'a>(pairs: &'a [(String, String)], key: &str) -> impl Iterator<Item = &'a str> {
    pairs
        .iter()
        .filter(move |(name, value)| name == key && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// Words of a closed set; an unknown one is an error that names the known ones.
fn words<'a, T>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<T>>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    texts
        .map(|text| {
            text.parse().map_err(|error: T::Err| Failure::new(ErrorCode::Invalid, error.to_string(), None))
        })
        .collect()
}

/// Words with commas between, blanks around them, in one parameter or in several.
fn listed<'a>(pairs: &'a [(String, String)], key: &str) -> impl Iterator<Item = &'a str> {
    values(pairs, key).flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// What `GET /sessions` asks. An empty value counts as not given; a key that we don't know is passed over.
pub fn session_query(pairs: &[(String, String)]) -> Result<SessionQuery> {
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
    let mut agent: Vec<String> = values(pairs, "agent").map(str::to_owned).collect();
    if agent.is_empty() {
        agent.extend(values(pairs, "agent_id").map(str::to_owned));
    }
    let agent_name: Vec<String> = values(pairs, "agent_name").map(str::to_owned).collect();
    if agent.len().max(agent_name.len()) > MAX_AGENTS {
        return Err(Failure::new(
            ErrorCode::Invalid,
            format!("At most {MAX_AGENTS} agents can be named at a time"),
            None,
        ));
    }
    let moment = "a time such as 2026-03-09T10:15:00Z";
    let number = "a number of messages";
    Ok(SessionQuery {
        status: words(values(pairs, "status"))?,
        agent,
        agent_name,
        idle_longer_than: parsed(pairs, "idle_longer_than", "a number of seconds")?,
        created_before: parsed(pairs, "created_before", moment)?,
        created_after: parsed(pairs, "created_after", moment)?,
        active_before: parsed(pairs, "active_before", moment)?,
        active_after: parsed(pairs, "active_after", moment)?,
        min_messages: parsed(pairs, "min_messages", number)?,
        max_messages: parsed(pairs, "max_messages", number)?,
        title_contains: value(pairs, "title_contains").map(str::to_owned),
        fields: words(listed(pairs, "fields"))?,
        limit: parsed(pairs, "limit", "a number")?,
        cursor: value(pairs, "cursor").map(str::to_owned),
        order,
    })
}

/// What `GET /sessions/stats` asks, besides the conditions.
pub fn stats_query(pairs: &[(String, String)]) -> Result<StatsQuery> {
    Ok(StatsQuery {
        sum: once(words(listed(pairs, "sum"))?),
        min: once(words(listed(pairs, "min"))?),
        max: once(words(listed(pairs, "max"))?),
        count_by: once(words(listed(pairs, "count_by"))?),
    })
}

fn once<T: Ord>(mut words: Vec<T>) -> Vec<T> {
    words.sort();
    words.dedup();
    words
}
