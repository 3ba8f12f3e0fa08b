//! JSON as the command line prints it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::escape::is_plain;
use crate::wire::{Session, Timestamp};

/// Two spaces a level, and a newline at the end.
pub fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// These fields alone of an object, or of each in an array; all if none are named. A field that isn't there is `null`.
pub fn only(value: Value, fields: &[String]) -> Value {
    match value {
        value if fields.is_empty() => value,
        Value::Array(values) => values.into_iter().map(|value| only(value, fields)).collect(),
        Value::Object(mut object) => {
            fields.iter().map(|name| (name.clone(), object.remove(name).unwrap_or_default())).collect()
        }
        other => other,
    }
}

/// JSON as it may stand on a terminal: what JSON leaves as it is and a terminal would obey is escaped, which changes no
/// value.
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| is_plain(c) || c.is_ascii_control() && c != '\x7f') {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_plain(c) || c.is_ascii_control() && c != '\x7f' {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        }
    }
    Cow::Owned(escaped)
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
        ("receipt", session.receipt.map(|receipt| json!(receipt.whole_seconds()))),
    ];
    keys.extend(ours.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Status;

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = json!({ "a\u{9b}": ["\u{7f}\u{202e}\u{1b}\n\"\\", "grüße 👩‍👩‍👧", 1] });
        let text = pretty(&value);
        let escaped = escape_json(&text);
        assert!(!escaped.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{escaped}");
        assert!(escaped.contains("\\u009b") && escaped.contains("grüße 👩‍👩‍👧"), "{escaped}");
        assert_eq!(serde_json::from_str::<Value>(&escaped).expect("JSON"), value);
        assert!(matches!(escape_json("{\"a\": 1}\n"), Cow::Borrowed(_)));
    }

    fn sample() -> Session {
        Session {
            id: "ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c".parse().expect("an ID"),
            agent_id: "agt_abc123def456".parse().expect("an ID"),
            agent_name: Some("my-agent".to_owned()),
            status: Status::Active,
            title: Some("What is the capital of France?".to_owned()),
            message_count: 3,
            created_at: "2026-03-09T10:15:00Z".parse().expect("a time"),
            last_activity_at: Some("2026-03-09T10:17:00Z".parse().expect("a time")),
            idle_timeout_seconds: None,
            expires_at: None,
            ended_at: None,
            end_reason: None,
            error: None,
            isolation: None,
            receipt: None,
        }
    }

    #[test]
    fn the_list_as_on_the_page() {
        let page = r#"[
  {
    "id": "ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c",
    "agent_id": "agt_abc123def456",
    "agent_name": "my-agent",
    "title": "What is the capital of France?",
    "status": "active",
    "message_count": 3,
    "created_at": "2026-03-09T10:15:00Z",
    "last_activity_at": "2026-03-09T10:17:00Z"
  }
]
"#;
        assert_eq!(pretty(&[session_json(&sample())]), page);
        assert_eq!(pretty(&Vec::<Value>::new()), "[]\n");
    }

    #[test]
    fn the_pages_keys_stay_without_values_and_ours_go() {
        let bare = Session {
            title: None,
            last_activity_at: None,
            ended_at: Some(Timestamp::from_millis(1_773_051_300_999)),
            error: Some("\u{1b}[31mraw".to_owned()),
            ..sample()
        };
        let Value::Object(keys) = session_json(&bare) else { panic!("an object") };
        assert_eq!((&keys["title"], &keys["last_activity_at"]), (&Value::Null, &Value::Null));
        assert_eq!(keys.keys().skip(8).collect::<Vec<_>>(), ["ended_at", "error"]);
        assert_eq!(keys["ended_at"], "2026-03-09T10:15:00Z");
        assert!(pretty(&keys).contains("\\u001b[31mraw"));
    }
}
