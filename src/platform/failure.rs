//! Why a run failed, in the words of its last event.

use std::fmt::Display;
use std::time::Duration;

use crate::harness::OpenError;
use crate::sandbox::{Exit, Refusal, Usage};
use crate::wire::event::{RunError, more};
use crate::wire::limits::size_text;

/// The agent's stderr, as far as an error shows it: so many lines from its end.
const STDERR_LINES: usize = 20;
/// The longest line of it that an error's message takes in, in bytes.
const MAX_REASON: usize = 300;

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    pub stderr: String,
}

impl Failure {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), stderr: String::new() }
    }

    /// The machine refuses the sandbox.
    pub fn refused(refusal: &Refusal) -> Self {
        Self::new("sandbox_unavailable", format!("The agent cannot be run: {refusal}. {}", refusal.remedy))
    }

    /// The program can't be run.
    pub fn not_runnable(program: &str, source: &std::io::Error) -> Self {
        let why = match source.kind() {
            std::io::ErrorKind::NotFound => "there is no such program".to_owned(),
            std::io::ErrorKind::PermissionDenied => "it is not executable".to_owned(),
            _ => source.to_string(),
        };
        Self::new("startup_failed", format!("The agent cannot be started: cannot run '{program}': {why}"))
    }

    /// Our own side failed.
    pub fn own(error: &dyn Display) -> Self {
        Self::new("startup_failed", format!("The agent cannot be started: {error}"))
    }

    /// Our own side failed, and somebody can do something about it.
    pub fn hinted(error: &super::Error) -> Self {
        match error.hint() {
            Some(hint) => Self::own(&format!("{error}. {hint}")),
            None => Self::own(error),
        }
    }

    /// An agent that shares the machine's network can't have its port.
    pub fn port_taken(port: u16, by: &str) -> Self {
        Self::own(&format!(
            "port {port} of this machine is taken by {by}. Without a network of its own only one agent at a time can listen on it: end that, or deploy with another port"
        ))
    }

    /// What the agent needs besides its code can't be installed.
    pub fn dependencies(log: &str) -> Self {
        Self::new("dependencies_failed", "The agent's dependencies cannot be installed").because_of(log)
    }

    /// The agent ended or hung before its first message.
    pub fn not_opened(error: OpenError, limit: Duration) -> Self {
        match error {
            OpenError::Exited { exit, stderr } => {
                let (code, how) = told(exit);
                Self::new(code, format!("The agent {how} before it read its first message"))
                    .because_of(&stderr)
            }
            OpenError::TimedOut { stderr } => Self::new(
                "startup_timeout",
                format!("The agent was not ready for its first message within {} s", limit.as_secs()),
            )
            .with_stderr(&stderr),
            OpenError::NotListening { port, stderr } => Self::new(
                "startup_timeout",
                format!("The agent did not listen on port {port} of 127.0.0.1 within {} s", limit.as_secs()),
            )
            .with_stderr(&stderr),
            OpenError::Io(error) => Self::own(&error),
        }
    }

    /// The agent ended in the middle of a turn.
    pub fn exited(exit: Exit, stderr: &str) -> Self {
        let (code, how) = told(exit);
        Self::new(code, format!("The agent {how}")).because_of(stderr)
    }

    /// The agent says that it failed.
    pub fn said(message: &str, stderr: &str) -> Self {
        let message = if message.trim().is_empty() { "The agent reported an error" } else { message };
        Self::new("agent_error", message).with_stderr(stderr)
    }

    /// The turn took too long.
    pub fn timed_out(limit: Duration, stderr: &str) -> Self {
        Self::new(
            "timeout",
            format!("The agent took longer than {} s for its reply and was stopped", limit.as_secs()),
        )
        .with_stderr(stderr)
    }

    /// The agent says more than anybody can read.
    pub fn too_much(limit: usize) -> Self {
        Self::new(
            "output_limit",
            format!("The agent printed more than {} in one reply and was stopped", size_text(limit as u64)),
        )
    }

    /// Its folders hold more than they may.
    pub fn outgrown(usage: Usage, most: Usage) -> Self {
        let message = match usage.bytes > most.bytes {
            true => format!(
                "The workspace holds {}, and its limit is {}: the agent was stopped",
                over(usage.bytes, most.bytes),
                size_text(most.bytes)
            ),
            false => format!(
                "The workspace holds more than {} files and folders, which is its limit: the agent was stopped",
                most.files
            ),
        };
        Self::new("workspace_limit", message)
    }

    /// The server goes away.
    pub fn shutdown() -> Self {
        Self::new("server_shutdown", "The server shut down before the agent had finished its reply")
    }

    /// The server went away without a word.
    pub fn interrupted() -> Self {
        Self::new("interrupted", "The server was stopped before the agent had finished its reply")
    }

    /// The store can't be written.
    pub fn store(error: &dyn Display) -> Self {
        Self::new("store_unavailable", format!("The reply cannot be stored: {error}"))
    }

    /// With its last words as the reason: the old clients show the message alone. They end with the exception, in every
    /// language that tells one.
    fn because_of(self, stderr: &str) -> Self {
        let words =
            stderr.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('('));
        match words.filter(|words| words.len() <= MAX_REASON) {
            Some(words) => Self { message: format!("{}: {words}", self.message), ..self }.with_stderr(stderr),
            None => self.with_stderr(stderr),
        }
    }

    pub fn with_stderr(self, stderr: &str) -> Self {
        let lines: Vec<&str> = stderr.trim_end().lines().collect();
        let first = lines.len().saturating_sub(STDERR_LINES);
        Self { stderr: lines.get(first..).unwrap_or_default().join("\n"), ..self }
    }

    /// What the session shows.
    pub fn sentence(&self) -> String {
        match more(&self.message, &self.stderr) {
            Some(stderr) => format!("{}\n{stderr}", self.message),
            None => self.message.clone(),
        }
    }

    /// What the run's last event carries.
    pub fn to_error(&self) -> RunError {
        RunError {
            message: self.message.clone(),
            code: Some(self.code.to_owned()),
            stderr: Some(self.stderr.clone()).filter(|stderr| !stderr.is_empty()),
        }
    }
}

/// A size that is over a limit, as a text that isn't the limit's.
fn over(bytes: u64, limit: u64) -> String {
    match (size_text(bytes), size_text(limit)) {
        (shown, limit) if shown == limit => format!("more than {limit}"),
        (shown, _) => shown,
    }
}

/// The code of an agent's own end, and how it ended.
fn told(exit: Exit) -> (&'static str, String) {
    match exit {
        Exit::Code(code) => ("agent_exited", format!("exited with code {code}")),
        Exit::OutOfMemory(limit) => ("out_of_memory", format!("ran out of memory ({})", size_text(limit))),
        Exit::Signal(signal) => match signal_name(signal) {
            Some(name) => ("agent_crashed", format!("was ended by signal {signal} ({name})")),
            None => ("agent_crashed", format!("was ended by signal {signal}")),
        },
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => return None,
    })
}
