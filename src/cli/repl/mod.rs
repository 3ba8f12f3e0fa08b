//! The REPL: lines from the terminal with editing and history, or from a pipe.

mod command;
mod editing;
mod history;

use std::cell::RefCell;
use std::io::{self, BufRead};
use std::path::Path;
use std::time::Duration;

use rustyline::config::{Behavior, ColorMode, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use command::Command;
use editing::Editing;
use history::History;

use super::error::Report;
use super::ui::{self, AtPrompt};
use crate::script::{Complete, Engine, Outcome, Terminal};

/// How one input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Failed,
    /// With this code.
    Left(i32),
    Well,
}

/// Reads and runs lines until the end of the input, `exit()`, `:quit` or Ctrl-D; the exit code.
pub fn run(engine: &mut Engine, terminal: &dyn Terminal, history: &Path, json: bool) -> i32 {
    let mut shell = Shell { terminal, json, saved: Vec::new() };
    let ended =
        if terminal.in_is_terminal() { shell.interactive(engine, history) } else { shell.piped(engine) };
    ended.unwrap_or_else(|failure| Report::io(&failure).tell(terminal, json))
}

/// What one REPL prints on, and what it has written.
struct Shell<'a> {
    terminal: &'a dyn Terminal,
    json: bool,
    /// Files that `:save` may write again.
    saved: Vec<std::path::PathBuf>,
}

impl Shell<'_> {
    fn interactive(&mut self, engine: &mut Engine, history: &Path) -> io::Result<i32> {
        let colour = self.terminal.out_colour();
        let config = Config::builder()
            .max_history_size(history::SIZE)
            .map_err(io::Error::other)?
            .auto_add_history(false)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .color_mode(if colour { ColorMode::Forced } else { ColorMode::Disabled })
            // A redirected stdout stays clean.
            .behavior(Behavior::PreferTerm)
            .build();
        let engine = RefCell::new(engine);
        let mut editor: Editor<Editing<'_>, FileHistory> =
            Editor::with_config(config).map_err(io::Error::other)?;
        editor.set_helper(Some(Editing::new(&engine, colour)));
        let history = History::open(history, &mut editor);
        self.terminal.err(&format!(
            "superserve {}. An expression, :help for help, or exit() to leave.\n",
            env!("CARGO_PKG_VERSION")
        ));
        loop {
            let prompt = if engine.borrow().is_dry_run() { "dry> " } else { "> " };
            match ui::at_prompt_of(AtPrompt::Repl, || editor.readline(prompt)) {
                Ok(line) => {
                    history.remember(&mut editor, &line);
                    if let Ended::Left(code) = self.one(&mut engine.borrow_mut(), &line) {
                        return Ok(code);
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(0),
                Err(ReadlineError::Io(failure)) => return Err(failure),
                Err(failure) => return Err(io::Error::other(failure)),
            }
        }
    }

    fn piped(&mut self, engine: &mut Engine) -> io::Result<i32> {
        let mut open = String::new();
        let mut failed = false;
        for line in io::stdin().lock().lines() {
            open.push_str(&line?);
            open.push('\n');
            if command::completeness(engine, &open) == Complete::Incomplete {
                continue;
            }
            match self.one(engine, &std::mem::take(&mut open)) {
                Ended::Left(code) => return Ok(if code == 0 { i32::from(failed) } else { code }),
                ended => failed |= ended == Ended::Failed,
            }
        }
        match self.one(engine, &open) {
            Ended::Left(code) => Ok(code),
            ended => Ok(i32::from(failed | (ended == Ended::Failed))),
        }
    }

    /// Runs one input and tells its error.
    fn one(&mut self, engine: &mut Engine, line: &str) -> Ended {
        if line.trim().is_empty() {
            return Ended::Well;
        }
        match Command::read(line) {
            None => self.ended(engine.line(line.trim_end())),
            Some(Ok(command)) => command.run(self, engine),
            Some(Err(report)) => self.failed(&report),
        }
    }

    fn ended(&self, outcome: Result<Outcome, crate::script::Error>) -> Ended {
        match outcome {
            Ok(Outcome::Exit(code)) => Ended::Left(code),
            Ok(Outcome::Done) => Ended::Well,
            Err(failure) => self.failed(&Report::from(&failure).without_own_place()),
        }
    }

    fn failed(&self, report: &Report) -> Ended {
        report.tell(self.terminal, self.json);
        Ended::Failed
    }

    fn out(&self, text: &str) -> Ended {
        match self.terminal.out(text) {
            Ok(()) => Ended::Well,
            Err(failure) => {
                Report::io(&failure).tell(self.terminal, self.json);
                Ended::Left(i32::from(failure.kind() != io::ErrorKind::BrokenPipe))
            }
        }
    }

    /// How long something took, on stderr as a run tells it.
    fn took(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let told = match millis {
            ..10 => format!("{:.2}ms", time.as_secs_f64() * 1000.0),
            10.. => crate::render::duration(millis),
        };
        self.terminal.err(&format!("Completed in {told}\n"));
    }
}
