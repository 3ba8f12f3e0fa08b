//! The events of a run, in the words that the original clients know.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{RunId, SessionId};

/// One event. As JSON it is `{"type": …, "data": …}`; over SSE the type is the event's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum RunEvent {
    #[serde(rename = "run.started")]
    Started { run_id: RunId, session_id: SessionId },
    #[serde(rename = "status")]
    Status(Value),
    /// Text to append to the reply.
    #[serde(rename = "message.delta")]
    Delta { content: String },
    #[serde(rename = "tool.start")]
    ToolStart { tool: String, input: Value },
    #[serde(rename = "tool.end")]
    ToolEnd { duration_ms: u64 },
    #[serde(rename = "heartbeat")]
    Heartbeat(Value),
    #[serde(rename = "run.completed")]
    Completed {
        duration_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_turns_reached: Option<bool>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_turns_message: Option<String>,
    },
    #[serde(rename = "run.failed")]
    Failed { error: RunError },
    #[serde(rename = "run.cancelled")]
    Cancelled {},
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    pub message: String,
    /// `timeout`, `startup_timeout`, `agent_exited`, `agent_crashed`, `interrupted`, `server_shutdown`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The last lines that the agent wrote on stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

/// What an agent's last lines say besides the message, which may have taken its reason from them.
pub fn more<'a>(message: &str, stderr: &'a str) -> Option<&'a str> {
    Some(stderr).filter(|stderr| !message.ends_with(stderr.trim()))
}

impl RunEvent {
    /// The event's name over SSE.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "run.started",
            Self::Status(_) => "status",
            Self::Delta { .. } => "message.delta",
            Self::ToolStart { .. } => "tool.start",
            Self::ToolEnd { .. } => "tool.end",
            Self::Heartbeat(_) => "heartbeat",
            Self::Completed { .. } => "run.completed",
            Self::Failed { .. } => "run.failed",
            Self::Cancelled {} => "run.cancelled",
        }
    }

    /// Whether a run's stream ends with this event.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled {})
    }

    /// The event's data alone, as JSON.
    pub fn data(&self) -> Value {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut whole)) => whole.remove("data").unwrap_or(Value::Null),
            _ => Value::Null,
        }
    }

    /// The event of this name with this data; `None` for a name that we don't know or data that doesn't fit.
    pub fn from_parts(name: &str, data: Value) -> Option<Self> {
        serde_json::from_value(serde_json::json!({ "type": name, "data": data })).ok()
    }
}

/// An event with its place in its run, counted from 1: the `after` of a reconnecting client.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedEvent {
    pub run_id: RunId,
    pub number: u64,
    pub event: RunEvent,
}
