//! What the editor asks while somebody types: whether the input is whole, what could stand there, how it is coloured.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Range;

use anstyle::{AnsiColor, Effects, Style};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Hinter};

use super::command;
use crate::script::{Complete, Engine, Paint, matching_bracket};

/// Answers the editor out of the engine.
#[derive(Helper, Hinter)]
pub struct Editing<'a> {
    engine: &'a RefCell<&'a mut Engine>,
    colour: bool,
    /// The bracket that belongs to the one at the cursor, in bytes.
    bracket: Cell<Option<usize>>,
}

impl<'a> Editing<'a> {
    pub fn new(engine: &'a RefCell<&'a mut Engine>, colour: bool) -> Self {
        Self { engine, colour, bracket: Cell::new(None) }
    }
}

impl Validator for Editing<'_> {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match command::completeness(&self.engine.borrow(), context.input()) {
            Complete::Complete => ValidationResult::Valid(None),
            Complete::Incomplete => ValidationResult::Incomplete,
        })
    }
}

impl Completer for Editing<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let found = command::complete(&self.engine.borrow(), line, cursor);
        let pair = |candidate: crate::script::Candidate| Pair {
            display: candidate.shown,
            replacement: candidate.text,
        };
        Ok((found.start, found.candidates.into_iter().map(pair).collect()))
    }
}

impl Highlighter for Editing<'_> {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !self.colour {
            return Cow::Borrowed(line);
        }
        Cow::Owned(coloured(&self.engine.borrow(), line, self.bracket.get()))
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        match prompt.strip_suffix("> ").filter(|word| self.colour && !word.is_empty()) {
            Some(word) => {
                let style = AnsiColor::Yellow.on_default();
                Cow::Owned(format!("{style}{word}{style:#}> "))
            }
            None => Cow::Borrowed(prompt),
        }
    }

    fn highlight_char(&self, line: &str, cursor: usize, kind: CmdKind) -> bool {
        if !self.colour {
            return false;
        }
        let bracket = match kind {
            CmdKind::ForcedRefresh => None,
            // The one under the cursor goes before the one in front of it.
            CmdKind::MoveCursor | CmdKind::Other => {
                matching_bracket(line, cursor).or_else(|| matching_bracket(line, cursor.checked_sub(1)?))
            }
        };
        let has_moved = self.bracket.replace(bracket) != bracket;
        has_moved || kind != CmdKind::MoveCursor
    }
}

fn style(paint: Paint) -> Style {
    match paint {
        Paint::Comment => Style::new().dimmed(),
        Paint::Function => AnsiColor::Cyan.on_default(),
        Paint::Keyword => AnsiColor::Magenta.on_default(),
        Paint::Number => AnsiColor::Yellow.on_default(),
        Paint::Text => AnsiColor::Green.on_default(),
    }
}

/// An input with its colours.
pub fn coloured(engine: &Engine, line: &str, bracket: Option<usize>) -> String {
    let code = command::code(line);
    let mut parts: Vec<(Range<usize>, Style)> = Vec::new();
    if code > 0 {
        parts.push((0..line[..code].trim_end().len(), style(Paint::Keyword)));
    }
    let spans = engine.spans(&line[code..]);
    parts.extend(spans.iter().map(|span| (span.start + code..span.end + code, style(span.paint))));
    if let Some(at) = bracket.filter(|at| line.get(*at..*at + 1).is_some()) {
        parts.retain(|(range, _)| !range.contains(&at));
        parts.push((at..at + 1, Style::new().effects(Effects::BOLD | Effects::UNDERLINE)));
        parts.sort_by_key(|(range, _)| range.start);
    }
    let mut text = String::new();
    let mut end = 0;
    for (range, style) in parts {
        text.push_str(&line[end..range.start]);
        text.push_str(&format!("{style}{}{style:#}", &line[range.clone()]));
        end = range.end;
    }
    text + &line[end..]
}
