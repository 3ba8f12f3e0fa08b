//! Values of any type: their fields by name, their order, their JSON, what a type is called.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde_json::{Value, json};

use super::agents::{Agent, Agents};
use super::duration::Span;
use super::failure::Failure;
use super::field::Field;
use super::message::{Message, Reply};
use super::session::Session;
use super::sessions::{Done, DoneRow, Sessions};
use super::shell::Ran;
use super::stream::Stream;
use super::suggestion;
use super::time::Moment;

/// What a value's type is called in errors.
pub fn type_name(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "nothing"
    } else if value.is_int() {
        "a whole number"
    } else if value.is_float() {
        "a number"
    } else if value.is_bool() {
        "true or false"
    } else if value.is_string() {
        "text"
    } else if value.is_char() {
        "a letter"
    } else if value.is_array() {
        "an array"
    } else if value.is_map() {
        "a map"
    } else if value.is_fnptr() {
        "a function"
    } else if value.is::<Span>() {
        "a duration"
    } else if value.is::<Moment>() {
        "a time"
    } else if value.is::<Session>() {
        "a session"
    } else if value.is::<Sessions>() {
        "a list of sessions"
    } else if value.is::<Stream>() {
        "a stream"
    } else if value.is::<Agent>() {
        "an agent"
    } else if value.is::<Agents>() {
        "a list of agents"
    } else if value.is::<Done>() {
        "what was done"
    } else if value.is::<DoneRow>() {
        "a row of what was done"
    } else if value.is::<Message>() {
        "a message"
    } else if value.is::<Ran>() {
        "what a command did"
    } else if value.is::<Reply>() {
        "a reply"
    } else if value.is::<Failure>() {
        "an error"
    } else {
        "something else"
    }
}

/// A field of a session, an agent, a message, a row or a map. `now` is in milliseconds since the Unix epoch.
pub fn field(value: &Dynamic, name: &str, now: i64) -> Result<Dynamic, Failure> {
    let (found, what, known) = if let Some(session) = value.read_lock::<Session>() {
        (
            session.field(name, now),
            "session",
            Field::ALL.iter().map(|field| field.name().to_owned()).collect(),
        )
    } else if let Some(agent) = value.read_lock::<Agent>() {
        (agent.field(name), "agent", names(&Agent::FIELDS))
    } else if let Some(message) = value.read_lock::<Message>() {
        (message.field(name), "message", names(&Message::FIELDS))
    } else if let Some(row) = value.read_lock::<DoneRow>() {
        (row.field(name), "row", names(&DoneRow::FIELDS))
    } else if let Some(ran) = value.read_lock::<Ran>() {
        (ran.field(name), "row", names(&Ran::FIELDS))
    } else if let Some(map) = value.read_lock::<Map>() {
        (map.get(name).cloned(), "map", map.keys().map(ToString::to_string).collect())
    } else {
        return Err(Failure::hinted(
            format!("{} has no field `{name}`", type_name(value)),
            "Give a function instead of a field's name: |x| …",
        ));
    };
    found.ok_or_else(|| unknown_field(what, name, &known))
}

/// The values of what is a list; `None` if it is something else. Asks for sessions that nobody has looked at yet.
pub fn items(value: &Dynamic) -> Result<Option<Array>, Failure> {
    Ok(Some(if let Some(sessions) = value.read_lock::<Sessions>() {
        sessions.load()?.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(agents) = value.read_lock::<Agents>() {
        agents.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(done) = value.read_lock::<Done>() {
        done.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(array) = value.read_lock::<Array>() {
        array.clone()
    } else {
        return Ok(None);
    }))
}

fn names(known: &[&str]) -> Vec<String> {
    known.iter().map(ToString::to_string).collect()
}

pub fn unknown_field(what: &str, name: &str, known: &[String]) -> Failure {
    let known_names = known.iter().map(String::as_str);
    Failure::hinted(
        format!("a {what} has no field `{name}`"),
        suggestion::did_you_mean(name, known_names.clone())
            .unwrap_or_else(|| format!("Fields: {}.", known_names.collect::<Vec<_>>().join(", "))),
    )
}

/// Which of two values of one kind comes first. Nothing comes last. Error: they are of different kinds.
pub fn compare(a: &Dynamic, b: &Dynamic) -> Result<Ordering, Failure> {
    match (a.is_unit(), b.is_unit()) {
        (true, true) => return Ok(Ordering::Equal),
        (true, false) => return Ok(Ordering::Greater),
        (false, true) => return Ok(Ordering::Less),
        (false, false) => {}
    }
    if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
        return Ok(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(a.total_cmp(&b));
    }
    same::<ImmutableString>(a, b)
        .or_else(|| same::<Span>(a, b))
        .or_else(|| same::<Moment>(a, b))
        .or_else(|| same::<bool>(a, b))
        .or_else(|| same::<char>(a, b))
        .ok_or_else(|| {
            Failure::script(format!("{} and {} can't be put in order", type_name(a), type_name(b)))
        })
}

fn same<T: Ord + Clone + 'static>(a: &Dynamic, b: &Dynamic) -> Option<Ordering> {
    Some(a.read_lock::<T>()?.cmp(&*b.read_lock::<T>()?))
}

/// A whole number or a fraction as a fraction.
pub fn number(value: &Dynamic) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a fraction is what was asked for")]
    value.as_int().map(|n| n as f64).or_else(|_| value.as_float()).ok()
}

/// Asks for all sessions that the value holds and that nobody has looked at yet.
pub fn look(value: &Dynamic) -> Result<(), Failure> {
    if let Some(sessions) = value.read_lock::<Sessions>() {
        sessions.load().map(|_| ())
    } else if let Some(array) = value.read_lock::<Array>() {
        array.iter().try_for_each(look)
    } else if let Some(map) = value.read_lock::<Map>() {
        map.values().try_for_each(look)
    } else {
        Ok(())
    }
}

/// A value as JSON; what has no JSON of its own becomes its text.
pub fn to_json(value: &Dynamic) -> Value {
    if value.is_unit() {
        Value::Null
    } else if let Ok(n) = value.as_int() {
        json!(n)
    } else if let Ok(n) = value.as_float() {
        json!(n)
    } else if let Ok(yes) = value.as_bool() {
        json!(yes)
    } else if let Ok(letter) = value.as_char() {
        json!(letter)
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        json!(text.as_str())
    } else if let Some(array) = value.read_lock::<Array>() {
        array.iter().map(to_json).collect()
    } else if let Some(map) = value.read_lock::<Map>() {
        Value::Object(map.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect())
    } else if let Some(session) = value.read_lock::<Session>() {
        session.to_json()
    } else if let Some(sessions) = value.read_lock::<Sessions>() {
        // Whoever prints a value looks at its sessions first, and tells if that fails.
        sessions
            .load()
            .map_or_else(|failure| failure.to_json(), |list| list.iter().map(Session::to_json).collect())
    } else if let Some(agent) = value.read_lock::<Agent>() {
        agent.to_json()
    } else if let Some(agents) = value.read_lock::<Agents>() {
        agents.iter().map(Agent::to_json).collect()
    } else if let Some(message) = value.read_lock::<Message>() {
        message.to_json()
    } else if let Some(reply) = value.read_lock::<Reply>() {
        reply.to_json()
    } else if let Some(done) = value.read_lock::<Done>() {
        done.iter().map(DoneRow::to_json).collect()
    } else if let Some(row) = value.read_lock::<DoneRow>() {
        row.to_json()
    } else if let Some(ran) = value.read_lock::<Ran>() {
        ran.to_json()
    } else if let Some(span) = value.read_lock::<Span>() {
        json!(span.to_string())
    } else if let Some(time) = value.read_lock::<Moment>() {
        json!(time.0)
    } else if let Some(failure) = value.read_lock::<Failure>() {
        failure.to_json()
    } else if let Some(range) = value.read_lock::<std::ops::Range<i64>>() {
        range.clone().collect()
    } else if let Some(range) = value.read_lock::<std::ops::RangeInclusive<i64>>() {
        range.clone().collect()
    } else {
        json!(value.to_string())
    }
}

/// JSON as a value.
pub fn from_json(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(yes) => (*yes).into(),
        Value::Number(n) => n.as_i64().map_or_else(|| n.as_f64().unwrap_or_default().into(), Into::into),
        Value::String(text) => text.into(),
        Value::Array(values) => values.iter().map(from_json).collect::<Array>().into(),
        Value::Object(values) => {
            values.iter().map(|(key, value)| (key.into(), from_json(value))).collect::<Map>().into()
        }
    }
}

/// A value as one line of text, as `print` and a table's cell show it.
pub fn to_text(value: &Dynamic) -> String {
    if value.is_unit() {
        String::new()
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        text.to_string()
    } else if let Some(span) = value.read_lock::<Span>() {
        span.to_string()
    } else if let Some(time) = value.read_lock::<Moment>() {
        time.0.to_string()
    } else if let Some(ran) = value.read_lock::<Ran>() {
        ran.stdout().to_owned()
    } else if let Some(reply) = value.read_lock::<Reply>() {
        reply.text.to_string()
    } else {
        match to_json(value) {
            Value::String(text) => text,
            json => json.to_string(),
        }
    }
}
