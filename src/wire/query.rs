//! The questions that can be asked about sessions: which, in which order, what of them, and how many.
//!
//! As query parameters:
//!
//! | parameter | of | means |
//! | --- | --- | --- |
//! | `status` (repeatable) | list, stats | in any of these states; aliases and any case |
//! | `agent` (repeatable), `agent_id` | list, stats | of any of these agents, by name or ID |
//! | `agent_name` (repeatable) | list, stats | whose agent is or was called one of these; an unknown name fits none |
//! | `idle_longer_than` | list, stats | seconds; an active session is not idle |
//! | `created_before`, `created_after` | list, stats | strictly |
//! | `active_before`, `active_after` | list, stats | strictly; no activity yet counts as created_at |
//! | `min_messages`, `max_messages` | list, stats | inclusive |
//! | `title_contains` | list, stats | part of the title, any case (ASCII) |
//! | `fields` | list | names with commas between: only these, and `id` |
//! | `limit`, `cursor`, `order` | list | a page |
//! | `sum`, `min`, `max`, `count_by` (repeatable) | stats | what is counted |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{Status, Timestamp};

/// A word that names nothing of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} '{word}': use {known}")]
pub struct UnknownWord {
    kind: &'static str,
    word: String,
    known: String,
}

/// A closed set of words, the same in Rust, in JSON and in a query.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal, { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one, in the order in which messages name them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it goes over the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(concat!("A ", $kind, ".")))
                    .enum_values(Some(Self::ALL.iter().map(|known| known.as_str())))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| UnknownWord {
                    kind: $kind,
                    word: text.chars().take(100).collect(),
                    known: one_of(Self::ALL.iter().map(|known| known.as_str())),
                })
            }
        }
    };
}

/// `a, b or c`.
fn one_of(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

words!(
    /// A field of a session, in the order in which a session is written.
    Field, "field", {
        Id = "id",
        AgentId = "agent_id",
        AgentName = "agent_name",
        Status = "status",
        Title = "title",
        MessageCount = "message_count",
        CreatedAt = "created_at",
        LastActivityAt = "last_activity_at",
        IdleTimeoutSeconds = "idle_timeout_seconds",
        ExpiresAt = "expires_at",
        EndedAt = "ended_at",
        EndReason = "end_reason",
        Error = "error",
        Isolation = "isolation",
        Receipt = "receipt",
    }
);

words!(
    /// What can be added up.
    Number, "field to sum", { MessageCount = "message_count", }
);

words!(
    /// What has a smallest and a largest.
    Measure, "field for min and max", {
        MessageCount = "message_count",
        CreatedAt = "created_at",
        LastActivityAt = "last_activity_at",
    }
);

words!(
    /// By what sessions are counted; `agent` is the agent's name.
    Grouping, "field to count by", { Agent = "agent", AgentId = "agent_id", Status = "status", }
);

/// In which order a list comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Latest activity first; no activity yet counts as created_at. Ties by ID.
    #[default]
    Activity,
    /// Oldest first. Pages stably, since a session's place never changes. Ties by ID.
    Created,
}

/// `GET /sessions`: which sessions, what of them, how many, in which order. Conditions hold together; several statuses
/// mean any of them, and so do several agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SessionQuery {
    /// Any of these; `running` is an alias of `active`, `error` of `failed`.
    #[param(required = false)]
    pub status: Vec<Status>,
    /// Agents' names or IDs; an unknown one is an error, not an empty list.
    #[param(required = false, max_items = 100)]
    pub agent: Vec<String>,
    /// Agents' names as sessions show them, of deleted agents too; an unknown one fits no session.
    #[param(required = false, max_items = 100)]
    pub agent_name: Vec<String>,
    /// In seconds. An active session is not idle.
    pub idle_longer_than: Option<u64>,
    pub created_before: Option<Timestamp>,
    pub created_after: Option<Timestamp>,
    /// No activity yet counts as created_at, here and in `active_after`.
    pub active_before: Option<Timestamp>,
    pub active_after: Option<Timestamp>,
    pub min_messages: Option<u64>,
    pub max_messages: Option<u64>,
    /// Part of the title, any case (ASCII).
    pub title_contains: Option<String>,
    /// Only these fields, and the ID; none: all of them.
    #[param(required = false, style = Form, explode = false)]
    pub fields: Vec<Field>,
    /// At most 1000; absent: 1000.
    pub limit: Option<u32>,
    /// Where an earlier page ended.
    pub cursor: Option<String>,
    #[param(required = false)]
    pub order: Order,
}

/// What `GET /sessions/stats` tells of the sessions that a query's conditions hold for, besides how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    #[param(required = false)]
    pub sum: Vec<Number>,
    #[param(required = false)]
    pub min: Vec<Measure>,
    #[param(required = false)]
    pub max: Vec<Measure>,
    #[param(required = false)]
    pub count_by: Vec<Grouping>,
}

/// A smallest or a largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Extreme {
    Count(u64),
    Moment(Timestamp),
}

/// The schema of smallest or largest ones by field.
fn extremes() -> Object {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    let extreme = OneOfBuilder::new().item(null).item(Extreme::schema()).build();
    let fields = Measure::ALL.iter().map(|field| field.as_str());
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("By field; null where there is none."))
        .property_names(Some(
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(fields)).build(),
        ))
        .additional_properties(Some(Schema::OneOf(extreme)))
        .build()
}

/// The answer of `GET /sessions/stats`. What was not asked for is empty, and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionStats {
    pub count: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sum: BTreeMap<Number, u64>,
    /// Null where there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = extremes)]
    pub min: BTreeMap<Measure, Option<Extreme>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = extremes)]
    pub max: BTreeMap<Measure, Option<Extreme>>,
    /// How many there are of each; what there is none of is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<Grouping, BTreeMap<String, u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_told_the_known_ones() {
        let error = "name".parse::<Grouping>().expect_err("unknown");
        assert_eq!(error.to_string(), "unknown field to count by 'name': use agent, agent_id or status");
        let error = "idle".parse::<Number>().expect_err("unknown");
        assert_eq!(error.to_string(), "unknown field to sum 'idle': use message_count");
        for field in Field::ALL {
            assert_eq!(field.as_str().parse(), Ok(*field));
        }
    }

    #[test]
    fn statistics_come_back_as_they_went() {
        let stats = SessionStats {
            count: 3,
            sum: [(Number::MessageCount, 7)].into(),
            min: [
                (Measure::MessageCount, Some(Extreme::Count(1))),
                (Measure::LastActivityAt, None),
                (Measure::CreatedAt, Some(Extreme::Moment(Timestamp::from_millis(7)))),
            ]
            .into(),
            max: BTreeMap::new(),
            counts: [(Grouping::Agent, [("notes".to_owned(), 3)].into())].into(),
        };
        let text = serde_json::to_string(&stats).expect("JSON");
        assert_eq!(
            text,
            "{\"count\":3,\"sum\":{\"message_count\":7},\"min\":{\"message_count\":1,\
             \"created_at\":\"1970-01-01T00:00:00.007Z\",\"last_activity_at\":null},\
             \"counts\":{\"agent\":{\"notes\":3}}}"
        );
        assert_eq!(serde_json::from_str::<SessionStats>(&text).expect("statistics"), stats);
    }
}
