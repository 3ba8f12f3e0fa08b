//! Errors as users see them: the sentence, the place, the hint, the exit code. Printed here and nowhere else.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::json;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::client;
use crate::config;
use crate::daemon::ServeError;
use crate::render;
use crate::script::{self, Place, Terminal};
use crate::wire::event::more;

/// The exit codes.
pub const FAILED: i32 = 1;
pub const USAGE: i32 = 2;
pub const NOT_FOUND: i32 = 3;
pub const CONFLICT: i32 = 5;
pub const UNREACHABLE: i32 = 6;
pub const AGENT_FAILED: i32 = 7;
pub const TIMED_OUT: i32 = 124;
pub const INTERRUPTED: i32 = 130;

/// Every exit code and what it means; the README's table is checked against it.
pub const EXIT_CODES: [(i32, &str); 10] = [
    (0, "done"),
    (FAILED, "failed, or one of many did"),
    (USAGE, "wrong usage, or a confirmation was needed and nobody could give it"),
    (NOT_FOUND, "not found, or ambiguous"),
    (4, "not authenticated"),
    (CONFLICT, "in the wrong state: busy, ended, expired"),
    (UNREACHABLE, "the server is out of reach"),
    (AGENT_FAILED, "the agent failed"),
    (TIMED_OUT, "timed out"),
    (INTERRUPTED, "interrupted"),
];

/// An error, ready to be told.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
    pub place: Option<Place>,
    /// The agent's last lines on stderr.
    pub stderr: Option<String>,
    pub exit: i32,
    /// Nothing is told: nobody reads any more.
    pub silent: bool,
}

impl From<&client::Error> for Report {
    fn from(error: &client::Error) -> Self {
        let exit = match error {
            client::Error::Api { code, .. } => script::exit_code(*code),
            client::Error::Input { .. } => USAGE,
            client::Error::Missing { .. } => NOT_FOUND,
            client::Error::Protocol(_) => FAILED,
            client::Error::Unreachable { .. } => UNREACHABLE,
        };
        Self {
            code: error.code(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            exit,
            ..Self::default()
        }
    }
}

impl From<&config::Error> for Report {
    fn from(error: &config::Error) -> Self {
        let hint = Some(error.hint());
        Self { code: "invalid", message: error.to_string(), hint, exit: USAGE, ..Self::default() }
    }
}

impl From<&ServeError> for Report {
    fn from(error: &ServeError) -> Self {
        let exit = match error {
            ServeError::AlreadyRunning { .. } => CONFLICT,
            ServeError::Listen(_) => USAGE,
            _ => FAILED,
        };
        Self { code: "server", message: error.to_string(), hint: error.hint(), exit, ..Self::default() }
    }
}

impl From<&script::Error> for Report {
    fn from(error: &script::Error) -> Self {
        match error {
            script::Error::Api { error, place } => Self { place: place.clone(), ..Self::from(error) },
            script::Error::File { message, code, place } => Self {
                code,
                message: message.clone(),
                place: place.clone(),
                exit: if *code == "not_found" { NOT_FOUND } else { FAILED },
                ..Self::default()
            },
            script::Error::Limit { message, hint, code, place } => Self {
                code,
                message: message.clone(),
                hint: hint.clone(),
                place: place.clone(),
                exit: if *code == "timeout" { TIMED_OUT } else { FAILED },
                ..Self::default()
            },
            script::Error::Install { message, log, place } => Self {
                code: "dependencies_failed",
                message: message.clone(),
                hint: error.hint().map(str::to_owned),
                place: place.clone(),
                stderr: log.clone(),
                exit: FAILED,
                ..Self::default()
            },
            script::Error::Interrupted { done } => {
                let message =
                    if done.is_empty() { "interrupted".to_owned() } else { format!("interrupted; {done}") };
                Self { code: "interrupted", message, exit: INTERRUPTED, ..Self::default() }
            }
            script::Error::Io { message } => {
                Self { code: "io", message: message.clone(), exit: FAILED, ..Self::default() }
            }
            script::Error::Run { message, code, stderr, place } => Self {
                code: "agent_failed",
                message: message.clone(),
                stderr: stderr.clone(),
                place: place.clone(),
                exit: if code.as_deref() == Some("timeout") { TIMED_OUT } else { AGENT_FAILED },
                ..Self::default()
            },
            script::Error::Script { message, hint, place } => Self {
                code: "script",
                message: message.clone(),
                hint: hint.clone(),
                place: place.clone(),
                exit: FAILED,
                ..Self::default()
            },
            script::Error::Usage { message, hint, code, place } => Self {
                // The word for a wrong use, wherever it is noticed.
                code: if *code == "usage" { "invalid" } else { code },
                message: message.clone(),
                hint: hint.clone(),
                place: place.clone(),
                exit: USAGE,
                ..Self::default()
            },
            script::Error::Wait { message, hint, timed_out, place } => Self {
                code: if *timed_out { "timed_out" } else { "not_reached" },
                message: message.clone(),
                hint: hint.clone(),
                place: place.clone(),
                exit: if *timed_out { TIMED_OUT } else { FAILED },
                ..Self::default()
            },
        }
    }
}

impl Report {
    /// A wrong use of the command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: "invalid",
            message: message.into(),
            hint: Some(hint.into()),
            exit: USAGE,
            ..Self::default()
        }
    }

    /// A failure of the machine: a file, a pipe, a thread.
    pub fn io(error: &std::io::Error) -> Self {
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        let exit = if silent { 0 } else { FAILED };
        Self { code: "io", message: error.to_string(), exit, silent, ..Self::default() }
    }

    /// Without the place: in a bundled command it is ours, and says nothing to its user.
    pub fn without_place(self) -> Self {
        Self { place: None, ..self }
    }

    /// With all that it says.
    pub fn whole(self) -> Self {
        self
    }

    /// Without the place of anything but a mistake in the text itself: who typed one expression knows where it is.
    pub fn without_own_place(self) -> Self {
        if self.code == "script" { self } else { self.without_place() }
    }

    /// Tells it on stderr; the exit code.
    pub fn tell(&self, terminal: &dyn Terminal, json: bool) -> i32 {
        if !self.silent {
            // The terminal itself has just shown `^C`, in the middle of a line.
            if self.exit == INTERRUPTED && terminal.in_is_terminal() && terminal.err_is_terminal() {
                terminal.err("\n");
            }
            let text = if json { self.to_json() } else { self.to_text(terminal.err_colour()) };
            terminal.err(&text);
        }
        self.exit
    }

    /// The error as JSON: its code, message and hint, and where it happened.
    pub fn to_value(&self) -> serde_json::Value {
        let mut error = json!({ "code": self.code, "message": self.message, "hint": self.hint });
        if let (Some(place), Some(fields)) = (&self.place, error.as_object_mut()) {
            fields.insert("file".into(), json!(place.file));
            fields.insert("line".into(), json!(place.line));
            fields.insert("column".into(), json!(place.column));
        }
        if let (Some(stderr), Some(fields)) = (&self.stderr, error.as_object_mut()) {
            fields.insert("stderr".into(), json!(stderr));
        }
        error
    }

    fn to_json(&self) -> String {
        let json = json!({ "error": self.to_value() }).to_string();
        format!("{}\n", render::escape_json(&json))
    }

    fn to_text(&self, colour: bool) -> String {
        let red = if colour { AnsiColor::Red.on_default() } else { Style::new() };
        format!("{red}✗{red:#} {}", self.sentence_and_place(colour))
    }

    /// What is told after the mark: the sentence, the place, what the agent said, the hint.
    pub fn sentence_and_place(&self, colour: bool) -> String {
        let style = |style: Style| if colour { style } else { Style::new() };
        let (red, dim) = (style(AnsiColor::Red.on_default()), style(Style::new().dimmed()));
        let mut text = format!("{}\n", render::clean(&self.message));
        if let Some(place) = &self.place {
            push_place(&mut text, place, dim, red);
        }
        if let Some(stderr) = self.stderr.as_deref().and_then(|stderr| more(&self.message, stderr)) {
            for line in render::clean(stderr).lines() {
                let _ = writeln!(text, "  {dim}|{dim:#} {line}");
            }
        }
        for line in self.hint.iter().flat_map(|hint| hint.lines()) {
            let _ = writeln!(text, "  {}", render::clean(line));
        }
        text
    }
}

/// How many columns of a script's line are shown.
const LINE: usize = 100;

/// The place in a script: file, line, column, the line itself and a caret under it. Of a line that is too long the part
/// around the place is shown.
fn push_place(text: &mut String, place: &Place, dim: Style, red: Style) {
    let Place { file, line, column, source } = place;
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let file = render::clean_line(file);
    let _ = writeln!(text, "{margin} {dim}-->{dim:#} {file}:{line}:{column}");
    if let Some(source) = source {
        let (shown, before) = around(source, column.saturating_sub(1));
        let _ = writeln!(text, "{margin} {dim}|{dim:#}");
        let _ = writeln!(text, "{dim}{number} |{dim:#} {shown}");
        let _ = writeln!(text, "{margin} {dim}|{dim:#} {before}{red}^{red:#}");
    }
}

/// The part of a line around a place, fit for a terminal, and what stands before the place made blank.
fn around(source: &str, place: usize) -> (String, String) {
    let cut = |text: &str| text.chars().map(|c| if c == '\t' { ' ' } else { c }).collect::<String>();
    let left: String = source.chars().take(place).collect();
    let right: String = source.chars().skip(place).take(LINE).collect();
    let (left, right) = (cut(&render::clean(&left)), cut(&render::clean(&right)));
    let mut shown = String::new();
    let mut room = LINE / 2;
    for c in left.chars().rev() {
        let wide = c.width().unwrap_or(0);
        if wide > room {
            shown = shown.trim_start_matches(' ').to_owned();
            shown.insert_str(0, "… ");
            break;
        }
        room -= wide;
        shown.insert(0, c);
    }
    let before = " ".repeat(shown.width());
    let mut room = LINE.saturating_sub(before.len());
    let mut rest = right.chars();
    for c in rest.by_ref() {
        let wide = c.width().unwrap_or(0);
        if wide > room {
            shown.push('…');
            break;
        }
        room -= wide;
        shown.push(c);
    }
    if rest.next().is_none() && source.chars().nth(place + LINE).is_some() && !shown.ends_with('…') {
        shown.push('…');
    }
    (shown, before)
}
