//! What a function throws: a value that scripts can catch and read, and that says why the script stopped if they don't.

use std::io;

use rhai::plugin::*;
use rhai::{EvalAltResult, NativeCallContext, Position};
use serde_json::{Value, json};

use super::runtime::Passed;
use crate::client;
use crate::wire::ErrorCode;

/// What a native function of ours gives back.
pub type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// Why a call failed. `Error` in scripts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Api(#[from] client::Error),
    /// A file that can't be read or written.
    #[error("{message}")]
    File { message: String, kind: io::ErrorKind },
    /// What the flags that the script was started with don't allow.
    #[error("{message}")]
    Forbidden { message: String, hint: String },
    /// An agent's dependencies can't be installed: the end of the log.
    #[error("{}", install_sentence(.agent))]
    Install { agent: String, log: Option<String> },
    #[error("{0}")]
    Io(String),
    /// The script has passed a limit.
    #[error("a limit was passed")]
    Passed(Passed),
    #[error("{message}")]
    Run { message: String, code: Option<String>, stderr: Option<String> },
    #[error("{message}")]
    Script { message: String, hint: Option<String> },
    /// By Ctrl-C, by a limit or by `exit`: can't be caught.
    #[error("stopped")]
    Stopped,
    /// It took longer than it was given.
    #[error("{0}")]
    Timeout(String),
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// What was waited for did not come: not in time, or it can't come any more.
    #[error("{message}")]
    Wait { message: String, hint: Option<String>, timed_out: bool },
}

/// What to do about dependencies that can't be installed.
pub const INSTALL_HINT: &str =
    "Mend what it asks for and deploy it again; superserve agents get shows this log again.";

pub fn install_sentence(agent: &str) -> String {
    format!("The dependencies of {agent} cannot be installed")
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl Failure {
    pub fn script(message: impl Into<String>) -> Self {
        Self::Script { message: message.into(), hint: None }
    }

    pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Script { message: message.into(), hint: Some(hint.into()) }
    }

    /// As the engine's error, at the place of this call.
    pub fn at(self, context: &NativeCallContext) -> Box<EvalAltResult> {
        match self {
            // Outside of functions, where this call is the only one, the place of what stops a script for good is told as it is.
            Self::Passed(_) if context.call_level() <= 1 => {
                Self::Stopped.at_position(context.call_position())
            }
            other => other.at_position(context.call_position()),
        }
    }

    pub fn at_position(self, position: Position) -> Box<EvalAltResult> {
        match self {
            Self::Stopped => EvalAltResult::ErrorTerminated(Dynamic::UNIT, position).into(),
            other => EvalAltResult::ErrorRuntime(Dynamic::from(other), position).into(),
        }
    }

    fn code_word(&self) -> String {
        match self {
            Self::Api(error) => error.code().to_owned(),
            Self::File { kind: io::ErrorKind::NotFound, .. } => "not_found".to_owned(),
            Self::File { .. } => "io".to_owned(),
            Self::Forbidden { .. } => "forbidden".to_owned(),
            Self::Install { .. } => "dependencies_failed".to_owned(),
            Self::Io(_) => "io".to_owned(),
            Self::Passed(Passed::Time) => "timeout".to_owned(),
            Self::Passed(_) => "limit".to_owned(),
            Self::Run { code, .. } => code.clone().unwrap_or_else(|| "run_failed".to_owned()),
            Self::Script { .. } => "script".to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::Timeout(_) => "timeout".to_owned(),
            Self::Usage { .. } => "usage".to_owned(),
            Self::Wait { timed_out: true, .. } => "timed_out".to_owned(),
            Self::Wait { timed_out: false, .. } => "not_reached".to_owned(),
        }
    }

    fn exit(&self) -> i32 {
        match self {
            Self::Api(error) => match error {
                client::Error::Api { code, .. } => exit_code(*code),
                client::Error::Input { .. } => 2,
                client::Error::Missing { .. } => 3,
                client::Error::Protocol(_) => 1,
                client::Error::Unreachable { .. } => 6,
            },
            Self::File { kind: io::ErrorKind::NotFound, .. } => 3,
            Self::Run { code, .. } if code.as_deref() == Some("timeout") => 124,
            Self::Run { .. } => 7,
            Self::Passed(Passed::Time) | Self::Timeout(_) | Self::Wait { timed_out: true, .. } => 124,
            Self::Forbidden { .. } | Self::Usage { .. } => 2,
            Self::File { .. }
            | Self::Install { .. }
            | Self::Io(_)
            | Self::Passed(_)
            | Self::Script { .. }
            | Self::Stopped
            | Self::Wait { timed_out: false, .. } => 1,
        }
    }

    /// `{code, message, hint}`, as every error is told with `--json`.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.code_word(), "message": self.to_string(), "hint": self.hint_text() })
    }

    pub fn hint_text(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.hint(),
            Self::Forbidden { hint, .. } => Some(hint),
            Self::Script { hint, .. } | Self::Usage { hint, .. } | Self::Wait { hint, .. } => hint.as_deref(),
            Self::Install { .. } => Some(INSTALL_HINT),
            Self::File { .. }
            | Self::Io(_)
            | Self::Passed(_)
            | Self::Run { .. }
            | Self::Stopped
            | Self::Timeout(_) => None,
        }
    }
}

/// The exit code for what the server said.
pub fn exit_code(code: ErrorCode) -> i32 {
    match code {
        ErrorCode::Internal | ErrorCode::Unknown => 1,
        ErrorCode::Invalid | ErrorCode::TooLarge => 2,
        ErrorCode::Ambiguous | ErrorCode::NotFound => 3,
        ErrorCode::Forbidden | ErrorCode::Unauthenticated => 4,
        ErrorCode::Busy | ErrorCode::Conflict | ErrorCode::Ended | ErrorCode::Expired => 5,
        ErrorCode::RateLimited
        | ErrorCode::SandboxUnavailable
        | ErrorCode::ShuttingDown
        | ErrorCode::StoreUnavailable => 6,
    }
}

/// Carries a failure to the place of the call that it came from.
pub trait At<T> {
    fn at(self, context: &NativeCallContext) -> Fallible<T>;
}

impl<T, E: Into<Failure>> At<T> for Result<T, E> {
    fn at(self, context: &NativeCallContext) -> Fallible<T> {
        self.map_err(|error| error.into().at(context))
    }
}

/// What scripts can read of an error that they caught.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod failure_methods {
    use super::Failure as Error;

    /// What went wrong, as a word to test: `not_found`, `ambiguous`, `busy`, `ended`, `expired`, `unreachable`, …;
    /// of a failed run the run's own word (`timeout`, `agent_exited`, …); of `wait` `timed_out` or `not_reached`; of a file
    /// `not_found` or `io`; `forbidden` where a flag like `--allow-sh` is missing.
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { if e.code == "not_found" { print("no such session"); } }
    /// ```
    #[rhai_fn(get = "code", pure)]
    pub fn code(error: &mut Error) -> String {
        error.code_word()
    }

    /// What went wrong, as a sentence.
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { print(e.message); }
    /// ```
    #[rhai_fn(get = "message", pure)]
    pub fn message(error: &mut Error) -> String {
        error.to_string()
    }

    /// What to do about it; `""` if there is nothing to say.
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { print(e.hint); }
    /// ```
    #[rhai_fn(get = "hint", pure)]
    pub fn hint(error: &mut Error) -> String {
        error.hint_text().unwrap_or_default().to_owned()
    }

    /// The HTTP status of the server's answer: 404 not found, 409 busy, ended or ambiguous, 410 expired, …; the same for what is
    /// refused in the same words before the server is asked. 0 if there was no answer: the server is out of reach, or the error
    /// is none of a call.
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { print(e.status); }   // 404
    /// ```
    #[rhai_fn(get = "status", pure)]
    pub fn status(error: &mut Error) -> i64 {
        match error {
            Failure::Api(error) => error.status().into(),
            _ => 0,
        }
    }

    /// The exit code that superserve ends with if nobody catches it: 3 not found, 5 busy or ended, 7 the agent failed, …
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { exit(if e.exit_code == 3 { 0 } else { e.exit_code }); }
    /// ```
    #[rhai_fn(get = "exit_code", pure)]
    pub fn exit_code(error: &mut Error) -> i64 {
        error.exit().into()
    }

    /// The error as text: its sentence.
    ///
    /// ```rhai
    /// try { get("ffff"); } catch (e) { print(`failed: ${e}`); }
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(error: &mut Error) -> String {
        error.to_string()
    }
}
