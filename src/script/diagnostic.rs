//! What went wrong in a script, and where.

use crate::client;

/// A place in a script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the script is called in errors: a path, `std/…`, `eval`, `repl`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself, without its end.
    pub source: Option<String>,
}

/// Why a script stopped before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A call to the server failed and the script didn't catch it.
    #[error("{error}")]
    Api { error: client::Error, place: Option<Place> },
    /// Ctrl-C. `done` says what the script had changed; empty if nothing.
    #[error("interrupted")]
    Interrupted { done: String },
    /// The terminal or a pipe could not be read or written.
    #[error("{message}")]
    Io { message: String },
    /// Nobody reads stdout any more.
    #[error("broken pipe")]
    BrokenPipe,
    /// An agent's run failed. `code` is the run's own word (`timeout`, `agent_exited`, …), `stderr` the agent's last lines.
    #[error("{message}")]
    Run { message: String, code: Option<String>, stderr: Option<String>, place: Option<Place> },
    /// The script itself is wrong, or threw something.
    #[error("{message}")]
    Script { message: String, hint: Option<String>, place: Option<Place> },
    /// A question that nobody can answer, or an argument that makes no sense: the caller's fault, not the script's.
    #[error("{message}")]
    Usage { message: String, hint: Option<String>, place: Option<Place> },
}
