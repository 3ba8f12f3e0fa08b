//! What a function throws: a value that scripts can catch and read, and that says why the script stopped if they don't.

use rhai::plugin::*;
use rhai::{EvalAltResult, NativeCallContext, Position};
use serde_json::{Value, json};

use crate::client;
use crate::wire::ErrorCode;

/// What a native function of ours gives back.
pub type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// Why a call failed. `Error` in scripts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("{0}")]
    Io(String),
    #[error("{message}")]
    Run { message: String, code: Option<String>, stderr: Option<String> },
    #[error("{message}")]
    Script { message: String, hint: Option<String> },
    /// By Ctrl-C or `exit`: can't be caught.
    #[error("stopped")]
    Stopped,
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// What was waited for did not come: not in time, or it can't come any more.
    #[error("{message}")]
    Wait { message: String, hint: Option<String>, timed_out: bool },
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
        self.at_position(context.call_position())
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
            Self::Io(_) => "io".to_owned(),
            Self::Run { code, .. } => code.clone().unwrap_or_else(|| "run_failed".to_owned()),
            Self::Script { .. } => "script".to_owned(),
            Self::Stopped => "stopped".to_owned(),
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
            Self::Run { code, .. } if code.as_deref() == Some("timeout") => 124,
            Self::Run { .. } => 7,
            Self::Wait { timed_out: true, .. } => 124,
            Self::Usage { .. } => 2,
            Self::Io(_) | Self::Script { .. } | Self::Stopped | Self::Wait { timed_out: false, .. } => 1,
        }
    }

    /// `{code, message, hint}`, as every error is told with `--json`.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.code_word(), "message": self.to_string(), "hint": self.hint_text() })
    }

    pub fn hint_text(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.hint(),
            Self::Script { hint, .. } | Self::Usage { hint, .. } | Self::Wait { hint, .. } => hint.as_deref(),
            Self::Io(_) | Self::Run { .. } | Self::Stopped => None,
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
    /// of a failed run the run's own word (`timeout`, `agent_exited`, …); of `wait` `timed_out` or `not_reached`.
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
