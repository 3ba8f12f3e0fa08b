//! Sessions and their transcript.

use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{AgentId, ErrorDetails, Field, Isolation, RunId, SessionId, Timestamp};

/// Where a session stands. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A run is going on.
    Active,
    /// The agent exited with 0.
    Completed,
    /// Ended by a user, by expiry or with its agent; its workspace is gone.
    Ended,
    /// The agent crashed or ran out of time; resumable.
    Failed,
    /// Waiting for the next message.
    Idle,
    /// Created, and nothing has run yet.
    Pending,
}

impl Status {
    /// Every status, in the order in which messages name them.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Idle, Self::Completed, Self::Ended, Self::Failed, Self::Pending];

    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Idle => "idle",
            Self::Pending => "pending",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown status '{0}': use active, idle, completed, ended, failed or pending (running and error are aliases of active and failed)"
)]
pub struct ParseStatusError(pub String);

impl FromStr for Status {
    type Err = ParseStatusError;

    /// Any case; `running` is an alias of `active`, `error` of `failed`.
    fn from_str(text: &str) -> Result<Self, ParseStatusError> {
        match text.to_ascii_lowercase().as_str() {
            "active" | "running" => Ok(Self::Active),
            "completed" => Ok(Self::Completed),
            "ended" => Ok(Self::Ended),
            "failed" | "error" => Ok(Self::Failed),
            "idle" => Ok(Self::Idle),
            "pending" => Ok(Self::Pending),
            _ => Err(ParseStatusError(text.to_owned())),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    AgentDeleted,
    Expired,
    User,
}

impl EndReason {
    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentDeleted => "agent_deleted",
            Self::Expired => "expired",
            Self::User => "user",
        }
    }
}

/// A session. The fields up to `last_activity_at` are the original's, in the order of the page; the rest is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: SessionId,
    pub agent_id: AgentId,
    #[serde(default)]
    #[schema(required = true)]
    pub agent_name: Option<String>,
    pub status: Status,
    #[serde(default)]
    #[schema(required = true)]
    pub title: Option<String>,
    /// How many messages the user has sent.
    pub message_count: u64,
    pub created_at: Timestamp,
    #[serde(default)]
    #[schema(required = true)]
    pub last_activity_at: Option<Timestamp>,
    /// After how many idle seconds the agent's process is stopped; the session stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u64>,
    /// When the session will expire if nothing happens in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the agent's process was last isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What its end has removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

/// What the end of a session has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Everything in its folders that was no folder itself: workspace, home, and what the server had put beside them.
    pub files: u64,
    /// The sizes of the files.
    pub bytes: u64,
    /// The agent's processes that were there when it was ended.
    pub processes: u64,
    /// When the last byte was gone; none while the wipe goes on.
    #[schema(required = true)]
    pub wiped_at: Option<Timestamp>,
}

impl Receipt {
    /// The same with its time in whole seconds.
    pub fn whole_seconds(self) -> Self {
        Self { wiped_at: self.wiped_at.map(Timestamp::whole_seconds), ..self }
    }
}

/// A session of which only some fields are written, and always its ID.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    pub session: &'a Session,
    pub fields: &'a [Field],
}

impl PartialSchema for Selected<'_> {
    fn schema() -> RefOr<Schema> {
        let mut schema = Session::schema();
        if let RefOr::T(Schema::Object(session)) = &mut schema {
            session.required = vec![Field::Id.as_str().to_owned()];
            session.description = Some("A session of which only some fields are told.".to_owned());
        }
        schema
    }
}

impl ToSchema for Selected<'_> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Session::schemas(schemas);
    }
}

impl Serialize for Selected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let session = self.session;
        let mut map = serializer.serialize_map(None)?;
        for field in Field::ALL {
            if *field != Field::Id && !self.fields.contains(field) {
                continue;
            }
            let name = field.as_str();
            match field {
                Field::Id => map.serialize_entry(name, &session.id)?,
                Field::AgentId => map.serialize_entry(name, &session.agent_id)?,
                Field::AgentName => map.serialize_entry(name, &session.agent_name)?,
                Field::Status => map.serialize_entry(name, &session.status)?,
                Field::Title => map.serialize_entry(name, &session.title)?,
                Field::MessageCount => map.serialize_entry(name, &session.message_count)?,
                Field::CreatedAt => map.serialize_entry(name, &session.created_at)?,
                Field::LastActivityAt => map.serialize_entry(name, &session.last_activity_at)?,
                Field::IdleTimeoutSeconds => map.serialize_entry(name, &session.idle_timeout_seconds)?,
                Field::ExpiresAt => map.serialize_entry(name, &session.expires_at)?,
                Field::EndedAt => map.serialize_entry(name, &session.ended_at)?,
                Field::EndReason => map.serialize_entry(name, &session.end_reason)?,
                Field::Error => map.serialize_entry(name, &session.error)?,
                Field::Receipt => map.serialize_entry(name, &session.receipt)?,
                Field::Isolation => map.serialize_entry(name, &session.isolation)?,
            }
        }
        map.end()
    }
}

/// One thing that `GET /sessions/watch` tells.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session as it is now; it may be as it was.
    Updated(Session),
    /// It is forgotten.
    Deleted(SessionId),
}

#[derive(Serialize, Deserialize, ToSchema)]
struct DeletedSession {
    id: SessionId,
}

impl SessionEvent {
    /// The session that it is about.
    pub fn id(&self) -> &SessionId {
        match self {
            Self::Updated(session) => &session.id,
            Self::Deleted(id) => id,
        }
    }

    /// The event's name over SSE.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Updated(_) => "session.updated",
            Self::Deleted(_) => "session.deleted",
        }
    }

    /// The event's data, as JSON in one line.
    pub fn data(&self) -> String {
        match self {
            Self::Updated(session) => serde_json::to_string(session),
            Self::Deleted(id) => serde_json::to_string(&DeletedSession { id: id.clone() }),
        }
        .unwrap_or_default()
    }

    /// The event of this name with this data; `None` for a name that we don't know or data that doesn't fit.
    pub fn from_parts(name: &str, data: &str) -> Option<Self> {
        match name {
            "session.updated" => serde_json::from_str(data).ok().map(Self::Updated),
            "session.deleted" => {
                serde_json::from_str::<DeletedSession>(data).ok().map(|gone| Self::Deleted(gone.id))
            }
            _ => None,
        }
    }
}

/// `POST /sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateSession {
    /// The agent's ID; its name is accepted too.
    #[schema(min_length = 1)]
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub title: Option<String>,
    /// At most a year. Parts of a second are rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "seconds")]
    #[schema(maximum = 31536000)]
    pub idle_timeout_seconds: Option<u64>,
}

/// Seconds; a JavaScript client may compute them as a float.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(given) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and what is too much is refused"
    )]
    let rounded = given.as_f64().filter(|float| *float >= 0.0).map(|float| float.ceil() as u64);
    let seconds = given.as_u64().or(rounded);
    let wrong = || serde::de::Error::custom(format!("idle_timeout_seconds: {given} is no number of seconds"));
    seconds.ok_or_else(wrong).map(Some)
}

/// The longest message, in bytes.
pub const MAX_PROMPT: usize = 1 << 20;

/// `POST /sessions/{id}/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SendMessage {
    /// At most 1 MiB, and not empty.
    #[schema(min_length = 1, max_length = 1048576)]
    pub prompt: String,
    /// Ours: the ID of the run that it starts, made by the client, so that the same message can be sent again when a
    /// connection breaks: if that run has begun, its events are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    pub sessions: Vec<Session>,
    /// Given while there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A page of sessions of which only some fields are written.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SelectedPage<'a> {
    pub sessions: Vec<Selected<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `GET /sessions/resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedIds {
    pub ids: Vec<SessionId>,
}

/// `POST /sessions/end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndMany {
    /// Whole IDs.
    pub ids: Vec<String>,
    /// Those of them that are not ended while they work on a message: the row is an error then, `busy`. For whoever
    /// chose them while they were idle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unless_active: Vec<String>,
}

/// One line of the answer to `POST /sessions/end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndRow {
    pub id: String,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<EndError>,
}

/// Why one session of many could not be ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndError {
    pub message: String,
    #[serde(flatten)]
    pub details: ErrorDetails,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Agent,
    User,
}

impl Role {
    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
        }
    }
}

/// One entry of a session's transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    pub role: Role,
    pub content: String,
    pub at: Timestamp,
    pub run_id: RunId,
    /// The reply was cut short: cancelled, failed or interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// `GET /sessions/{id}/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transcript {
    pub messages: Vec<Message>,
}
