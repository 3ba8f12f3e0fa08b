//! The engine's assembly, and the ways to run a script, an expression and a line of the REPL on it.

use std::borrow::Cow;
use std::path::PathBuf;

use super::functions::FunctionDoc;
use super::{Args, Error, Host};

/// A script's text and what it is called in errors.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    /// Where it lies; imports are looked for beside it.
    pub path: Option<PathBuf>,
    pub text: Cow<'static, str>,
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At its end.
    Done,
    /// By `exit(code)`.
    Exit(i32),
}

/// Whether a text is a whole line of the REPL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    Complete,
    /// More lines must follow.
    Incomplete,
}

/// Runs scripts. Not to be used on a worker of an async runtime: calls block on a runtime of its own.
pub struct Engine {
    #[allow(dead_code)]
    host: Host,
}

impl Engine {
    /// An engine with everything that scripts can call. Makes no connection.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Runs a script from its beginning, in a scope of its own.
    pub fn run(&mut self, _script: &Script, _args: Args) -> Result<Outcome, Error> {
        Ok(Outcome::Done)
    }

    /// Evaluates and prints: a string raw, unit nothing, sessions as a table; with `--json` everything as JSON.
    pub fn eval(&mut self, _expression: &str) -> Result<Outcome, Error> {
        Ok(Outcome::Done)
    }

    /// Evaluates a line of the REPL and prints its value; variables, functions and imports stay.
    pub fn line(&mut self, _line: &str) -> Result<Outcome, Error> {
        Ok(Outcome::Done)
    }

    /// Whether the REPL must read on before it can evaluate this.
    pub fn completeness(&self, _text: &str) -> Complete {
        Complete::Complete
    }

    /// Everything that scripts can call, sorted by module and name.
    pub fn functions(&self) -> Vec<FunctionDoc> {
        Vec::new()
    }
}

/// The stack of the thread that scripts run on: 256 levels of calls need it in a debug build.
const STACK: usize = 64 << 20;

/// Runs `work`, which makes and uses an [`Engine`], on a thread with a stack deep enough for one.
pub fn on_script_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK).spawn(work)?;
    thread.join().map_err(|_| std::io::Error::other("the script's thread panicked"))
}
