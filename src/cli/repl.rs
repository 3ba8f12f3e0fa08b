//! The REPL: lines from the terminal with editing and history, or from a pipe.

use std::cell::RefCell;
use std::io::{self, BufRead};
use std::path::Path;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Completer, Editor, Helper, Highlighter, Hinter};

use super::error::Report;
use crate::script::{self, Complete, Engine, Terminal};

/// How many lines the history keeps.
const HISTORY: usize = 10_000;

/// Asks for more lines until the input is whole.
#[derive(Completer, Helper, Highlighter, Hinter)]
struct Whole<'a>(&'a RefCell<&'a mut Engine>);

impl Validator for Whole<'_> {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match self.0.borrow().completeness(context.input()) {
            Complete::Complete => ValidationResult::Valid(None),
            Complete::Incomplete => ValidationResult::Incomplete,
        })
    }
}

/// Reads and runs lines until the end of the input, `exit()` or Ctrl-D; the exit code.
pub fn run(engine: &mut Engine, terminal: &dyn Terminal, history: &Path, json: bool) -> i32 {
    let ended = if terminal.in_is_terminal() {
        interactive(engine, terminal, history, json)
    } else {
        piped(engine, terminal, json)
    };
    ended.unwrap_or_else(|failure| Report::io(&failure).tell(terminal, json))
}

fn interactive(engine: &mut Engine, terminal: &dyn Terminal, history: &Path, json: bool) -> io::Result<i32> {
    let config = rustyline::Config::builder()
        .max_history_size(HISTORY)
        .map_err(io::Error::other)?
        .auto_add_history(true)
        .build();
    let engine = RefCell::new(engine);
    let mut editor: Editor<Whole<'_>, FileHistory> = Editor::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Whole(&engine)));
    // There is none at the first start.
    let _ = editor.load_history(history);
    terminal.err(&format!("superserve {}. An expression, or exit() to leave.\n", env!("CARGO_PKG_VERSION")));
    let code = loop {
        match editor.readline("> ") {
            Ok(line) => {
                if let Some(code) = one(&mut engine.borrow_mut(), terminal, &line, json) {
                    break code;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break 0,
            Err(failure) => return Err(io::Error::other(failure)),
        }
    };
    save(&mut editor, history);
    Ok(code)
}

/// The history holds what somebody typed: nobody else may read it.
fn save(editor: &mut Editor<Whole<'_>, FileHistory>, history: &Path) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = history.parent().unwrap_or(Path::new("/"));
    // A history that can't be written is no reason to fail.
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let made = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(history);
    if made.is_ok() {
        let _ = editor.save_history(history);
    }
}

fn piped(engine: &mut Engine, terminal: &dyn Terminal, json: bool) -> io::Result<i32> {
    let mut open = String::new();
    let mut failed = false;
    for line in io::stdin().lock().lines() {
        open.push_str(&line?);
        open.push('\n');
        if matches!(engine.completeness(&open), Complete::Incomplete) {
            continue;
        }
        match engine.line(&std::mem::take(&mut open)) {
            Ok(script::Outcome::Exit(code)) => return Ok(code),
            Ok(script::Outcome::Done) => {}
            Err(failure) => {
                failed = true;
                Report::from(&failure).without_own_place().tell(terminal, json);
            }
        }
    }
    if !open.trim().is_empty() {
        return Ok(one(engine, terminal, &open, json).unwrap_or(i32::from(failed)));
    }
    Ok(i32::from(failed))
}

/// Runs one input and tells its error; an exit code if it asked to leave.
fn one(engine: &mut Engine, terminal: &dyn Terminal, line: &str, json: bool) -> Option<i32> {
    if line.trim().is_empty() {
        return None;
    }
    match engine.line(line) {
        Ok(script::Outcome::Exit(code)) => Some(code),
        Ok(script::Outcome::Done) => None,
        Err(failure) => {
            Report::from(&failure).without_own_place().tell(terminal, json);
            None
        }
    }
}
