//! JSON as the command line prints it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::wire::{Session, Timestamp};

/// Two spaces a level, and a newline at the end.
pub fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A session with the page's keys in the page's order, then ours, as far as they have values. Times in whole seconds.
pub fn session_json(session: &Session) -> Value {
    let mut keys = Map::new();
    let time = |at: Timestamp| json!(at.whole_seconds());
    keys.insert("id".into(), json!(session.id));
    keys.insert("agent_id".into(), json!(session.agent_id));
    keys.insert("agent_name".into(), json!(session.agent_name));
    keys.insert("title".into(), json!(session.title));
    keys.insert("status".into(), json!(session.status));
    keys.insert("message_count".into(), json!(session.message_count));
    keys.insert("created_at".into(), time(session.created_at));
    keys.insert("last_activity_at".into(), session.last_activity_at.map_or(Value::Null, time));
    let ours = [
        ("idle_timeout_seconds", session.idle_timeout_seconds.map(|seconds| json!(seconds))),
        ("expires_at", session.expires_at.map(time)),
        ("ended_at", session.ended_at.map(time)),
        ("end_reason", session.end_reason.map(|reason| json!(reason))),
        ("error", session.error.as_ref().map(|error| json!(error))),
        ("isolation", session.isolation.map(|isolation| json!(isolation))),
    ];
    keys.extend(ours.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(keys)
}
