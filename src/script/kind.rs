//! What is known of a value without running anything: its type, and what it holds.

use std::any::TypeId;

use rhai::{Array, Dynamic, FnPtr, ImmutableString, Map};

use super::agents::{Agent, Agents};
use super::duration::Span;
use super::ending::{Done, DoneRow};
use super::failure::Failure;
use super::message::{Message, Reply};
use super::server::Server;
use super::session::Session;
use super::sessions::Sessions;
use super::shell::Ran;
use super::stream::Stream;
use super::time::Moment;

/// A type as signatures name it, and what values of it hold, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `Session`, `Array`, `Int`, …; `value` if nothing is known.
    pub name: String,
    /// Of an array: its elements.
    of: Option<Box<Kind>>,
    /// Of a map: its keys.
    pub keys: Vec<(String, Kind)>,
}

/// Every type that scripts meet, by the name that signatures have for it.
fn named() -> [(TypeId, &'static str); 26] {
    [
        (TypeId::of::<()>(), "()"),
        (TypeId::of::<Agent>(), "Agent"),
        (TypeId::of::<Agents>(), "Agents"),
        (TypeId::of::<Array>(), "Array"),
        (TypeId::of::<bool>(), "Bool"),
        (TypeId::of::<char>(), "Char"),
        (TypeId::of::<Done>(), "Done"),
        (TypeId::of::<DoneRow>(), "DoneRow"),
        (TypeId::of::<Failure>(), "Error"),
        (TypeId::of::<f64>(), "Float"),
        (TypeId::of::<FnPtr>(), "Function"),
        (TypeId::of::<ImmutableString>(), "String"),
        (TypeId::of::<i64>(), "Int"),
        (TypeId::of::<Map>(), "Map"),
        (TypeId::of::<Message>(), "Message"),
        (TypeId::of::<Moment>(), "Time"),
        (TypeId::of::<Ran>(), "Ran"),
        (TypeId::of::<Reply>(), "Reply"),
        (TypeId::of::<Server>(), "Server"),
        (TypeId::of::<Session>(), "Session"),
        (TypeId::of::<Sessions>(), "Sessions"),
        (TypeId::of::<Span>(), "Duration"),
        (TypeId::of::<std::ops::Range<i64>>(), "Range"),
        (TypeId::of::<std::ops::RangeInclusive<i64>>(), "Range"),
        (TypeId::of::<Stream>(), "Stream"),
        (TypeId::of::<String>(), "String"),
    ]
}

/// The name of a type, if scripts meet it.
pub fn name_of(id: TypeId) -> Option<&'static str> {
    named().into_iter().find(|(known, _)| *known == id).map(|(_, name)| name)
}

/// How deep maps are looked into, and how many keys are looked at.
const DEPTH: usize = 3;
const KEYS: usize = 200;

impl Kind {
    pub fn unknown() -> Self {
        Self::plain("value")
    }

    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), of: None, keys: Vec::new() }
    }

    /// By a signature's word: `Session`, or `Array<Message>` with its elements.
    pub fn from_words(words: &str) -> Self {
        match words.split_once('<') {
            Some((name, of)) => {
                let of = Self::from_words(of.strip_suffix('>').unwrap_or(of));
                Self { of: Some(Box::new(of)), ..Self::plain(name) }
            }
            None => Self::plain(words),
        }
    }

    /// A map with these keys.
    pub fn map(keys: Vec<(String, Self)>) -> Self {
        Self { keys, ..Self::plain("Map") }
    }

    /// An array of these.
    pub fn array(of: Self) -> Self {
        Self { of: Some(Box::new(of)), ..Self::plain("Array") }
    }

    /// What a value is. Asks no server: of a list of sessions only that it is one.
    pub fn of(value: &Dynamic) -> Self {
        Self::of_value(value, DEPTH)
    }

    fn of_value(value: &Dynamic, depth: usize) -> Self {
        if depth > 0 {
            if let Some(map) = value.read_lock::<Map>() {
                let keys = map.iter().take(KEYS);
                return Self::map(
                    keys.map(|(key, value)| (key.to_string(), Self::of_value(value, depth - 1))).collect(),
                );
            }
            if let Some(array) = value.read_lock::<Array>() {
                return Self {
                    of: array.first().map(|first| Box::new(Self::of_value(first, depth - 1))),
                    ..Self::plain("Array")
                };
            }
        }
        Self::plain(name_of(value.type_id()).unwrap_or("value"))
    }

    pub fn is_unknown(&self) -> bool {
        self.name == "value"
    }

    /// What the elements are.
    pub fn element(&self) -> Self {
        match self.name.as_str() {
            "Agents" => Self::plain("Agent"),
            "Done" => Self::plain("DoneRow"),
            "Range" => Self::plain("Int"),
            "Sessions" | "Stream" => Self::plain("Session"),
            "String" => Self::plain("Char"),
            _ => self.of.as_deref().cloned().unwrap_or_else(Self::unknown),
        }
    }

    /// What a map holds under this key.
    pub fn key(&self, name: &str) -> Option<Self> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, kind)| kind.clone())
    }
}
