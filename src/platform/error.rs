//! What the platform refuses, in sentences that stand on their own.

use std::path::PathBuf;

use crate::sandbox::Refusal;
use crate::store::StoreError;
use crate::vault::VaultError;
use crate::wire::{ErrorCode, RunId, SessionId};

/// Why a call to the platform failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Agent not found: no agent is called '{0}'")]
    AgentNotFound(String),
    /// A run is going on.
    #[error(
        "Session is busy: it is still working on a message{}. Wait for its reply, or cancel the run, then try again",
        .0.as_ref().map_or(String::new(), ToString::to_string)
    )]
    Busy(Option<Holder>),
    #[error("Session has ended and cannot be resumed")]
    Ended { agent: String },
    #[error("Session has expired. Start a new one with: superserve run <agent>")]
    Expired { agent: String },
    #[error("There is no '{0}' in the workspace")]
    FileNotFound(String),
    /// A folder of ours can't be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Folder { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// What the caller sent makes no sense.
    #[error("{message}")]
    Invalid { message: String, hint: Option<String> },
    /// A task of ours broke.
    #[error("the server failed at {0}")]
    Internal(&'static str),
    #[error("Session has not been sent a message yet, so it has no events")]
    NoRun,
    #[error("Session {} has not ended, so it cannot be forgotten", .0.short())]
    NotEnded(SessionId),
    /// It has had all the messages that its agent's owner allows.
    #[error("Session has had {limit} messages, which is all that its agent takes")]
    MaxTurns { limit: u64, agent: String },
    #[error("Cannot run the agent: {0}")]
    Sandbox(Refusal),
    #[error("Secret not found: the agent {agent} has no secret '{key}'")]
    SecretNotFound { agent: String, key: String },
    #[error("Session not found: no session matches '{0}'")]
    SessionNotFound(String),
    #[error("Login not found: no login waits under the code '{0}'")]
    LoginNotFound(String),
    #[error("There is a run {0} already")]
    RunTaken(RunId),
    #[error("Token not found: no token is called '{0}'")]
    TokenNotFound(String),
    #[error("There is a token called '{0}' already")]
    TokenTaken(String),
    #[error("Too many logins are waiting for approval. Try again in a few minutes")]
    TooManyLogins,
    #[error("The server is shutting down. Try again in a moment")]
    ShuttingDown,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("Session has {}, and its workspace is gone", if *expired { "expired" } else { "ended" })]
    Wiped { agent: String, expired: bool },
    #[error("{what} is larger than {limit}")]
    TooLarge { what: &'static str, limit: String },
    /// A secret, or the key of all of them, can't be used.
    #[error("{}", vault_sentence(what.as_deref(), error))]
    Vault { what: Option<String>, error: VaultError },
}

/// The run that a busy session works at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub run: RunId,
    /// For how many seconds.
    pub seconds: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, " since {} s ({})", self.seconds, self.run)
    }
}

impl Error {
    /// What programs test.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AgentNotFound(_)
            | Self::FileNotFound(_)
            | Self::NoRun
            | Self::LoginNotFound(_)
            | Self::SecretNotFound { .. }
            | Self::SessionNotFound(_)
            | Self::TokenNotFound(_) => ErrorCode::NotFound,
            Self::Busy(_) => ErrorCode::Busy,
            Self::Ended { .. } | Self::Wiped { expired: false, .. } => ErrorCode::Ended,
            Self::MaxTurns { .. } | Self::RunTaken(_) | Self::TokenTaken(_) => ErrorCode::Conflict,
            Self::TooManyLogins => ErrorCode::RateLimited,
            Self::Expired { .. } | Self::Wiped { expired: true, .. } => ErrorCode::Expired,
            Self::Folder { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::ReadOnlyFilesystem => ErrorCode::StoreUnavailable,
                _ => ErrorCode::Internal,
            },
            Self::Internal(_) => ErrorCode::Internal,
            Self::Invalid { .. } => ErrorCode::Invalid,
            Self::NotEnded(_) => ErrorCode::Conflict,
            Self::Sandbox(_) => ErrorCode::SandboxUnavailable,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Store(error) => error.code(),
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Vault { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AgentNotFound(_) => {
                Some("Run superserve agents list to see your agents, or superserve deploy to add one.".into())
            }
            Self::Busy(_) => Some("superserve sessions get shows when it is idle again.".into()),
            Self::FileNotFound(_) => Some("superserve sessions files ID ls -r shows what is there.".into()),
            Self::Ended { agent }
            | Self::Expired { agent }
            | Self::MaxTurns { agent, .. }
            | Self::Wiped { agent, .. } => Some(format!("Start a new one with: superserve run {agent}")),
            Self::Folder { .. } => {
                Some("Check that the disk is not full and that the folder is yours to write.".into())
            }
            Self::Internal(_) => Some("superserve server logs says why.".into()),
            Self::Invalid { hint, .. } => hint.clone(),
            Self::NoRun => Some("Send it one: superserve sessions send ID \"your prompt\".".into()),
            Self::NotEnded(id) => Some(format!("End it first: superserve sessions end {}", id.short())),
            Self::Sandbox(refusal) => Some(refusal.remedy.clone()),
            Self::SecretNotFound { agent, .. } => {
                Some(format!("Run superserve secrets list {agent} to see those that are set."))
            }
            Self::SessionNotFound(_) => Some("Run superserve sessions list to see your sessions.".into()),
            Self::LoginNotFound(_) => {
                Some("A code counts for 15 minutes and once: begin anew with superserve login.".into())
            }
            Self::TokenNotFound(_) => Some("Run superserve tokens list to see them.".into()),
            Self::TokenTaken(_) => {
                Some("Take another name, or revoke it first: superserve tokens revoke NAME.".into())
            }
            Self::RunTaken(_) => Some("Give each message a run_id of its own, or none.".into()),
            Self::ShuttingDown | Self::TooManyLogins => None,
            Self::Store(error) => error.hint(),
            Self::TooLarge { .. } => None,
            Self::Vault { error, .. } => Some(error.hint()),
        }
    }
}

fn vault_sentence(what: Option<&str>, error: &VaultError) -> String {
    match what {
        Some(key) => format!("the secret {key} cannot be read: {error}"),
        None => format!("the secrets cannot be kept: {error}"),
    }
}

/// What the platform answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;
