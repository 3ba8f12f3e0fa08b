//! One run on its way to the terminal: the reply on stdout, everything about it on stderr.

use serde_json::Value;

use super::duration::Span;
use super::failure::Failure;
use super::output;
use super::runtime::Runtime;
use super::session::Session;
use crate::render::{self, Cleaner, clean_line};
use crate::wire::RunEvent;
use crate::wire::event::{self, RunError};

/// How a turn ended.
pub enum Ended {
    Completed(Span),
    Cancelled {
        /// By Ctrl-C here.
        by_us: bool,
    },
    Failed(RunError),
}

/// A session as a dialogue begins with it: its title and its agent.
pub fn called(session: &Session) -> String {
    let title = match clean_line(&session.title()) {
        title if title.is_empty() => "Untitled".to_owned(),
        title => format!("\"{title}\""),
    };
    format!("{title} ({})", session.agent())
}

impl Ended {
    /// What a run's last event says; `None` for every other event.
    pub fn of(event: RunEvent, by_us: bool) -> Option<Self> {
        match event {
            RunEvent::Completed { duration_ms, .. } => {
                Some(Self::Completed(Span(i64::try_from(duration_ms).unwrap_or(i64::MAX))))
            }
            RunEvent::Failed { error } => Some(Self::Failed(error)),
            RunEvent::Cancelled {} => Some(Self::Cancelled { by_us }),
            _ => None,
        }
    }
}

/// Says that the agent has stopped at a limit of its own, if this event tells it.
pub fn warn_of_limit(runtime: &Runtime, event: &RunEvent) {
    if let RunEvent::Completed { max_turns_message: Some(message), .. } = event {
        runtime.host().terminal.err(&format!("! {}\n", clean_line(message)));
    }
}

/// A run that somebody else has cancelled, as an error.
pub fn cancelled() -> Failure {
    Failure::Run { message: "the run was cancelled".into(), code: Some("cancelled".into()), stderr: None }
}

/// A run that failed, as an error.
pub fn failed(error: RunError) -> Failure {
    Failure::Run { message: error.message, code: error.code, stderr: error.stderr }
}

/// Tells of a failed run where something goes on after it.
pub fn tell(runtime: &Runtime, error: &RunError) {
    let terminal = &runtime.host().terminal;
    let mark = output::mark(terminal.as_ref(), false);
    terminal.err(&format!("{mark} {}\n", clean_line(&error.message)));
    let more = error.stderr.as_deref().and_then(|stderr| event::more(&error.message, stderr));
    for line in more.iter().flat_map(|text| text.lines()) {
        terminal.err(&format!("  {}\n", clean_line(line)));
    }
}

/// Where one turn is shown: the reply on stdout, everything about it on stderr.
pub struct Screen<'a> {
    runtime: &'a Runtime,
    json: bool,
    cleaner: Cleaner,
    /// `Agent > ` is written.
    begun: bool,
    /// Newlines of the reply that are written only if more follows.
    held: usize,
    /// `[tool] …` is written without the end of its line.
    tool_open: bool,
}

/// How much of a tool's input is shown, in characters.
const TOOL_INPUT: usize = 50;

impl<'a> Screen<'a> {
    pub fn new(runtime: &'a Runtime, json: bool) -> Self {
        Self { runtime, json, cleaner: Cleaner::default(), begun: false, held: 0, tool_open: false }
    }

    pub fn show(&mut self, event: &RunEvent) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(event).unwrap_or_default();
            return self.runtime.out_json(&format!("{line}\n"));
        }
        match event {
            RunEvent::Delta { content } => self.reply(content),
            RunEvent::ToolStart { tool, input } => {
                self.tool(tool, input);
                Ok(())
            }
            RunEvent::ToolEnd { duration_ms } => {
                if std::mem::take(&mut self.tool_open) {
                    self.runtime.err(&format!(" ({})\n", render::duration(*duration_ms)));
                }
                Ok(())
            }
            RunEvent::Started { .. }
            | RunEvent::Status(_)
            | RunEvent::Heartbeat(_)
            | RunEvent::Completed { .. }
            | RunEvent::Failed { .. }
            | RunEvent::Cancelled {} => Ok(()),
        }
    }

    fn reply(&mut self, content: &str) -> Result<(), Failure> {
        let text = if self.runtime.host().terminal.out_is_terminal() {
            self.cleaner.feed(content)
        } else {
            content.to_owned()
        };
        if text.is_empty() {
            return Ok(());
        }
        self.close_tool();
        let body = text.trim_end_matches('\n');
        let trailing = text.len() - body.len();
        if body.is_empty() {
            self.held += trailing;
            return Ok(());
        }
        let begin = if self.begun { "" } else { "Agent > " };
        self.begun = true;
        let newlines = "\n".repeat(std::mem::replace(&mut self.held, trailing));
        self.runtime.out(&format!("{begin}{newlines}{body}"))
    }

    fn tool(&mut self, tool: &str, input: &Value) {
        self.close_tool();
        let terminal = &self.runtime.host().terminal;
        if self.begun && terminal.out_is_terminal() && terminal.err_is_terminal() {
            // Both end up on one screen, where the reply stands in the middle of a line.
            terminal.err("\n");
            self.held = self.held.saturating_sub(1);
        }
        let text = match input {
            Value::Null => tool.to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = clean_line(&text);
        let mut shown: String = text.chars().take(TOOL_INPUT).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        terminal.err(&format!("[tool] {shown}"));
        self.tool_open = true;
    }

    fn close_tool(&mut self) {
        if std::mem::take(&mut self.tool_open) {
            self.runtime.host().terminal.err("\n");
        }
    }

    /// Whether a line is begun and not ended.
    pub fn is_open(&self) -> bool {
        self.begun || self.tool_open
    }

    /// Ends the line that is open.
    pub fn break_line(&mut self) -> Result<(), Failure> {
        self.close_tool();
        if std::mem::take(&mut self.begun) { self.runtime.out("\n") } else { Ok(()) }
    }

    pub fn finish(&mut self, ended: &Ended) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        if let Ended::Completed(took) = ended {
            self.close_tool();
            if !self.begun {
                self.runtime.out("Agent > ")?;
            }
            self.runtime.out("\n")?;
            self.runtime
                .host()
                .terminal
                .err(&format!("\nCompleted in {}\n", render::duration(took.0.unsigned_abs())));
            return Ok(());
        }
        self.break_line()
    }
}
