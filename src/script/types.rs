//! The kinds of values that scripts know by name.

use std::any::TypeId;

use rhai::{Array, Dynamic, ImmutableString, Map};

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

/// What a value is, where a script's text says it plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Agent,
    Agents,
    Array,
    Bool,
    Char,
    Done,
    DoneRow,
    Duration,
    Error,
    Float,
    Int,
    Map,
    Message,
    Ran,
    Reply,
    Server,
    Session,
    Sessions,
    Stream,
    Text,
    Time,
}

impl Type {
    const ALL: [Self; 21] = [
        Self::Agent,
        Self::Agents,
        Self::Array,
        Self::Bool,
        Self::Char,
        Self::Done,
        Self::DoneRow,
        Self::Duration,
        Self::Error,
        Self::Float,
        Self::Int,
        Self::Map,
        Self::Message,
        Self::Ran,
        Self::Reply,
        Self::Server,
        Self::Session,
        Self::Sessions,
        Self::Stream,
        Self::Text,
        Self::Time,
    ];

    /// As signatures and errors call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::Agents => "Agents",
            Self::Array => "Array",
            Self::Bool => "Bool",
            Self::Char => "char",
            Self::Done => "Done",
            Self::DoneRow => "DoneRow",
            Self::Duration => "Duration",
            Self::Error => "Error",
            Self::Float => "Float",
            Self::Int => "Int",
            Self::Map => "Map",
            Self::Message => "Message",
            Self::Ran => "Ran",
            Self::Reply => "Reply",
            Self::Server => "Server",
            Self::Session => "Session",
            Self::Sessions => "Sessions",
            Self::Stream => "Stream",
            Self::Text => "String",
            Self::Time => "Time",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As the engine tells it from others.
    pub fn id(self) -> TypeId {
        match self {
            Self::Agent => TypeId::of::<Agent>(),
            Self::Agents => TypeId::of::<Agents>(),
            Self::Array => TypeId::of::<Array>(),
            Self::Bool => TypeId::of::<bool>(),
            Self::Char => TypeId::of::<char>(),
            Self::Done => TypeId::of::<Done>(),
            Self::DoneRow => TypeId::of::<DoneRow>(),
            Self::Duration => TypeId::of::<Span>(),
            Self::Error => TypeId::of::<Failure>(),
            Self::Float => TypeId::of::<f64>(),
            Self::Int => TypeId::of::<i64>(),
            Self::Map => TypeId::of::<Map>(),
            Self::Message => TypeId::of::<Message>(),
            Self::Ran => TypeId::of::<Ran>(),
            Self::Reply => TypeId::of::<Reply>(),
            Self::Server => TypeId::of::<Server>(),
            Self::Session => TypeId::of::<Session>(),
            Self::Sessions => TypeId::of::<Sessions>(),
            Self::Stream => TypeId::of::<Stream>(),
            Self::Text => TypeId::of::<ImmutableString>(),
            Self::Time => TypeId::of::<Moment>(),
        }
    }

    /// Whether a parameter of this type takes it.
    pub fn is_taken_as(self, parameter: TypeId) -> bool {
        let is_text = |id| id == TypeId::of::<&str>() || id == TypeId::of::<String>();
        parameter == TypeId::of::<Dynamic>()
            || parameter == self.id()
            || (self == Self::Text && is_text(parameter))
    }

    /// What a loop over it gives.
    pub fn element(self) -> Option<Self> {
        match self {
            Self::Agents => Some(Self::Agent),
            Self::Done => Some(Self::DoneRow),
            Self::Sessions | Self::Stream => Some(Self::Session),
            _ => None,
        }
    }
}
