//! The fields of a session, by name: of which sort each is, and its value.

use rhai::Dynamic;

use super::session::Session;
use super::time::Moment;
use crate::wire::{EndReason, Timestamp};

/// Of which sort a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Duration,
    Number,
    Status,
    Text,
    Time,
}

/// Every field that scripts and expressions can name, with what its values are.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    Field::ALL.into_iter().map(|field| {
        let kind = match field.kind() {
            Kind::Boolean => "true or false",
            Kind::Duration => "a duration",
            Kind::Number => "a number",
            Kind::Status => "a status",
            Kind::Text => "text",
            Kind::Time => "a time",
        };
        (field.name(), kind)
    })
}

/// A field of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Id,
    ShortId,
    Agent,
    AgentId,
    Title,
    Status,
    MessageCount,
    CreatedAt,
    LastActivityAt,
    Age,
    Idle,
    EndedAt,
    EndReason,
    ExpiresAt,
    Error,
}

impl Field {
    /// Every field that scripts and expressions can name.
    pub const ALL: [Self; 15] = [
        Self::Id,
        Self::ShortId,
        Self::Agent,
        Self::AgentId,
        Self::Title,
        Self::Status,
        Self::MessageCount,
        Self::CreatedAt,
        Self::LastActivityAt,
        Self::Age,
        Self::Idle,
        Self::EndedAt,
        Self::EndReason,
        Self::ExpiresAt,
        Self::Error,
    ];

    /// The name in scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::ShortId => "short_id",
            Self::Agent => "agent",
            Self::AgentId => "agent_id",
            Self::Title => "title",
            Self::Status => "status",
            Self::MessageCount => "message_count",
            Self::CreatedAt => "created_at",
            Self::LastActivityAt => "last_activity_at",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::EndedAt => "ended_at",
            Self::EndReason => "end_reason",
            Self::ExpiresAt => "expires_at",
            Self::Error => "error",
        }
    }

    /// The field of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Of which sort its values are. `ended_at` and `expires_at` may be `()` besides.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Id
            | Self::ShortId
            | Self::Agent
            | Self::AgentId
            | Self::Title
            | Self::EndReason
            | Self::Error => Kind::Text,
            Self::Status => Kind::Status,
            Self::MessageCount => Kind::Number,
            Self::CreatedAt | Self::LastActivityAt | Self::EndedAt | Self::ExpiresAt => Kind::Time,
            Self::Age | Self::Idle => Kind::Duration,
        }
    }

    /// The field's value; `now` in milliseconds since the Unix epoch.
    pub fn of(self, session: &Session, now: i64) -> Dynamic {
        let time = |at: Option<Timestamp>| at.map_or(Dynamic::UNIT, |at| Dynamic::from(Moment(at)));
        let record = &*session.0;
        match self {
            Self::Id => record.id.as_str().into(),
            Self::ShortId => record.id.short().into(),
            Self::Agent => session.agent().clone().into(),
            Self::AgentId => record.agent.id.as_str().into(),
            Self::Title => session.title().into(),
            Self::Status => record.status.as_str().into(),
            Self::MessageCount => Dynamic::from_int(session.message_count()),
            Self::CreatedAt => time(Some(record.created_at)),
            Self::LastActivityAt => time(Some(session.last_activity())),
            Self::Age => Dynamic::from(session.age(now)),
            Self::Idle => Dynamic::from(session.idle(now)),
            Self::EndedAt => time(record.ended_at),
            Self::EndReason => record.end_reason.map(EndReason::as_str).unwrap_or_default().into(),
            Self::ExpiresAt => time(record.expires_at),
            Self::Error => record.error.clone().unwrap_or_default().into(),
        }
    }

    /// The field's value where it is text.
    pub fn text_of(self, session: &Session) -> Option<&str> {
        let record = &*session.0;
        Some(match self {
            Self::Id => record.id.as_str(),
            Self::ShortId => record.id.short(),
            Self::Agent => session.agent().as_str(),
            Self::AgentId => record.agent.id.as_str(),
            Self::Title => record.title.as_ref().map_or("", |title| title.as_str()),
            Self::Status => record.status.as_str(),
            Self::EndReason => record.end_reason.map(EndReason::as_str).unwrap_or_default(),
            Self::Error => record.error.as_ref().map_or("", |error| error.as_str()),
            _ => return None,
        })
    }

    /// The field's value where it is a number, a duration or a time that every session has: the number itself, or
    /// milliseconds.
    pub fn number_of(self, session: &Session, now: i64) -> Option<i64> {
        Some(match self {
            Self::MessageCount => session.message_count(),
            Self::CreatedAt => session.0.created_at.as_millis(),
            Self::LastActivityAt => session.last_activity().as_millis(),
            Self::Age => session.age(now).0,
            Self::Idle => session.idle(now).0,
            _ => return None,
        })
    }
}
