//! How to hold one conversation with an agent process, and when a turn of it is over.
//!
//! An agent that speaks frames, or signals on its FIFO, says itself when a turn is over. Of any other, `scan` asks the
//! kernel what each of its tasks waits for, and `verdict` says from that whether it waits for its next message; `shim`,
//! inside python and node, tells what the kernel can't see. An exit ends a turn too. A timer decides only where all
//! that leaves it open. An agent that is an HTTP server ends its turn with its answer.
//!
//! Not here: starting the process (sandbox), and what a conversation means to a session (platform).

mod answer;
mod conversation;
mod diary;
mod exchange;
mod frames;
mod kernel;
mod pipes;
mod redaction;
mod reply;
mod scan;
mod shim;
mod turn;
mod verdict;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod story;

pub use conversation::{Conversation, OpenError};
pub use exchange::Address;
#[doc(hidden)]
pub use frames::{Frame, Lines};
pub use redaction::Redaction;
pub use shim::{APP, NODE as NODE_SHIM, PYTHON as PYTHON_SHIM};
pub use turn::TurnEnd;

use std::time::Duration;

use serde_json::Value;

/// The times after which the harness decides.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long an ambiguous turn must be silent before it counts as over.
    pub quiet: Duration,
    /// How long a turn may take.
    pub turn: Duration,
    /// How long an agent may take until it waits for its first message.
    pub startup: Duration,
    /// How long a cancelled agent gets to park before it is killed.
    pub cancel_grace: Duration,
}

/// What an agent says during a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Text(String),
    Status(Value),
    ToolStart { tool: String, input: Value },
    ToolEnd { duration_ms: u64 },
}
