//! What a server says of itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// How well an agent's process is kept apart from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces of its own, system folders read-only.
    Full,
    /// Not at all: asked for with `--sandbox none`.
    None,
    /// Some of it, since the machine allows no more.
    Reduced,
}

impl Isolation {
    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::None => "none",
            Self::Reduced => "reduced",
        }
    }
}

/// `GET /version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    pub version: String,
    /// Names the build: another build of the same version counts as another version.
    pub build: String,
    pub protocol: u32,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
}

/// `GET /server`: what `server status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    pub pid: u32,
    pub socket: String,
    /// Where it lets others in, if it does: `https://0.0.0.0:8443`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub home: String,
    pub version: String,
    pub build: String,
    pub started_at: Timestamp,
    /// How many sessions have not ended.
    pub sessions: u64,
    /// How many runs are going on.
    pub active_runs: u64,
    /// `None` while the machine refuses the sandbox.
    #[schema(required = true)]
    pub isolation: Option<Isolation>,
    /// The sandbox's driver: `native`, `landlock`, `none`.
    #[serde(default)]
    #[schema(required = true)]
    pub sandbox: Option<String>,
    /// Why the machine refuses the sandbox, or the best one, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_error: Option<String>,
}

/// `POST /server/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StopServer {
    /// Refuse with `busy` if a run is going on.
    #[serde(default)]
    pub if_idle: bool,
}

/// `POST /server/gc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collect {
    /// Only count.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was let go of, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Freed {
    pub dry_run: bool,
    /// Ended sessions that are forgotten.
    pub sessions: u64,
    /// Events of runs that are long over.
    pub events: u64,
    /// Revisions of agents that no session needs.
    pub revisions: u64,
    /// Folders of sessions that have ended or that nobody knows.
    pub folders: u64,
    /// How large the database was, and is, in bytes.
    pub database_before: u64,
    pub database_after: u64,
}

impl Freed {
    /// Whether there was anything.
    pub fn is_something(&self) -> bool {
        self.sessions + self.events + self.revisions + self.folders > 0
    }
}
