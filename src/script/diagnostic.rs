//! What went wrong in a script, and where.

use std::collections::{BTreeSet, HashMap};

use rhai::{Dynamic, EvalAltResult, ImmutableString, LexError, Map, ParseErrorType, Position};

use super::failure::{Failure, INSTALL_HINT, install_sentence};
use super::functions;
use super::host::Limits;
use super::resolver::Sources;
use super::runtime::Passed;
use super::suggestion;
use super::types::Type;
use super::value;
use crate::client;
use crate::render;

/// A place in a script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the script is called in errors: a path, `std/…`, `eval`, `repl 3`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself, without its end.
    pub source: Option<String>,
}

/// Why a script stopped before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A call to the server failed and the script didn't catch it.
    #[error("{error}")]
    Api { error: client::Error, place: Option<Place> },
    /// A file can't be read or written; `code` is `not_found` or `io`.
    #[error("{message}")]
    File { message: String, code: &'static str, place: Option<Place> },
    /// Ctrl-C. `done` says what the script had changed (`ended 3 sessions`); empty if nothing.
    #[error("interrupted")]
    Interrupted { done: String },
    /// The terminal or a pipe could not be read or written.
    #[error("{message}")]
    Io { message: String },
    /// The script passed a limit and was stopped; `code` is `timeout` or `limit`.
    #[error("{message}")]
    Limit { message: String, hint: Option<String>, code: &'static str, place: Option<Place> },
    /// An agent's dependencies can't be installed; `log` is the end of what was said.
    #[error("{message}")]
    Install { message: String, log: Option<String>, place: Option<Place> },
    /// An agent's run failed. `code` is the run's own word (`timeout`, `agent_exited`, …), `stderr` the agent's last lines.
    #[error("{message}")]
    Run { message: String, code: Option<String>, stderr: Option<String>, place: Option<Place> },
    /// The script itself is wrong, or threw something.
    #[error("{message}")]
    Script { message: String, hint: Option<String>, place: Option<Place> },
    /// A question that nobody can answer, an argument that makes no sense, a flag that is missing: the caller's fault, not
    /// the script's. `code` is `usage` or `forbidden`.
    #[error("{message}")]
    Usage { message: String, hint: Option<String>, code: &'static str, place: Option<Place> },
    /// What was waited for did not come: not in time, or it can't come any more.
    #[error("{message}")]
    Wait { message: String, hint: Option<String>, timed_out: bool, place: Option<Place> },
}

impl Error {
    /// The word that programs can test.
    pub fn code(&self) -> &str {
        match self {
            Self::Api { error, .. } => error.code(),
            Self::File { code, .. } | Self::Limit { code, .. } | Self::Usage { code, .. } => code,
            Self::Interrupted { .. } => "interrupted",
            Self::Io { .. } => "io",
            Self::Install { .. } => "dependencies_failed",
            Self::Run { code, .. } => code.as_deref().unwrap_or("run_failed"),
            Self::Script { .. } => "script",
            Self::Wait { timed_out: true, .. } => "timed_out",
            Self::Wait { timed_out: false, .. } => "not_reached",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api { error, .. } => error.hint(),
            Self::Limit { hint, .. }
            | Self::Script { hint, .. }
            | Self::Usage { hint, .. }
            | Self::Wait { hint, .. } => hint.as_deref(),
            Self::Install { .. } => Some(INSTALL_HINT),
            Self::File { .. } | Self::Interrupted { .. } | Self::Io { .. } | Self::Run { .. } => None,
        }
    }

    /// Where in a script it happened.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Api { place, .. }
            | Self::File { place, .. }
            | Self::Install { place, .. }
            | Self::Limit { place, .. }
            | Self::Run { place, .. }
            | Self::Script { place, .. }
            | Self::Usage { place, .. }
            | Self::Wait { place, .. } => place.as_ref(),
            Self::Interrupted { .. } | Self::Io { .. } => None,
        }
    }
}

/// Turns the engine's errors into ours.
pub struct Reporter<'a> {
    pub engine: &'a rhai::Engine,
    pub sources: &'a Sources,
    pub limits: &'a Limits,
}

impl Reporter<'_> {
    /// `main` is the script's name, `changes` what it had changed, `passed` the limit that has stopped it.
    pub fn report(&self, main: &str, error: EvalAltResult, changes: String, passed: Option<Passed>) -> Error {
        let (error, file, position) = innermost(error, main.to_owned());
        match (&error, passed) {
            (EvalAltResult::ErrorTerminated(..), None) => return Error::Interrupted { done: changes },
            (EvalAltResult::ErrorTerminated(..), Some(passed)) => {
                let place = self.place(file, position);
                return self.passed(passed, &changes, place);
            }
            _ => {}
        }
        let place = self.place(file, position);
        if let EvalAltResult::ErrorRuntime(value, _) = &error
            && let Some(failure) = value.clone().try_cast::<Failure>()
        {
            return match failure {
                Failure::Passed(passed) => self.passed(passed, &changes, place),
                failure => told(failure, place, changes),
            };
        }
        if let EvalAltResult::ErrorStackOverflow(_) = error {
            return self.passed(Passed::Levels, &changes, place);
        }
        let (message, hint) = describe(self.engine, error);
        Error::Script { message, hint, place }
    }

    /// Something that is wrong in a script that was not run.
    pub fn finding(&self, source: String, position: Position, failure: Failure) -> Error {
        told(failure, self.place(source, position), String::new())
    }

    /// A limit was passed.
    pub fn passed(&self, passed: Passed, changes: &str, place: Option<Place>) -> Error {
        let limits = self.limits;
        let (code, message, hint) = match passed {
            Passed::Levels => (
                "limit",
                format!("functions call each other more than {} levels deep", limits.call_levels),
                "Is there a function that calls itself for ever?",
            ),
            Passed::Memory => (
                "limit",
                format!("it took more than {} MiB of memory", limits.memory >> 20),
                "Is there something that grows for ever? It may take more with --max-memory.",
            ),
            Passed::Steps => (
                "limit",
                format!("it took more than {} steps", limits.operations),
                "Is there a loop that never ends? It may take more steps with --max-operations.",
            ),
            Passed::Time => {
                let time = limits.time.unwrap_or_default();
                let time = render::span(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
                ("timeout", format!("it took longer than {time}"), "It may take longer with --max-time.")
            }
        };
        let message = format!("the script was stopped: {message}");
        Error::Limit { message: with_changes(message, changes), hint: Some(hint.into()), code, place }
    }

    fn place(&self, file: String, position: Position) -> Option<Place> {
        // The engine counts no further than this, and then nobody knows where it is.
        const END: usize = u16::MAX as usize;
        if position.line()? == END || position.position() == Some(END) {
            let (line, column) = (position.line()?, position.position().unwrap_or(1));
            return Some(Place { file, line, column, source: None });
        }
        let lines = self.sources.lines(&file).max(1);
        // What is missing at the end is shown at the end.
        let line = position.line()?.min(lines);
        let source = self.sources.line(&file, line);
        let length = source.as_ref().map_or(0, |text| text.chars().count());
        let column = if position.line()? > lines {
            length + 1
        } else {
            position.position().unwrap_or(1).min(length + 1)
        };
        Some(Place { file, line, column: column.max(1), source })
    }
}

/// A sentence, and what the script had changed until then.
fn with_changes(message: String, changes: &str) -> String {
    if changes.is_empty() { message } else { format!("{message}; {changes}") }
}

fn told(failure: Failure, place: Option<Place>, changes: String) -> Error {
    match failure {
        Failure::Api(error) => Error::Api { error, place },
        Failure::File { message, kind: std::io::ErrorKind::NotFound } => {
            Error::File { message, code: "not_found", place }
        }
        Failure::File { message, .. } => Error::File { message, code: "io", place },
        Failure::Forbidden { message, hint } => {
            Error::Usage { message, hint: Some(hint), code: "forbidden", place }
        }
        Failure::Io(message) => Error::Io { message },
        // Told with its limit where that is known.
        Failure::Passed(_) => Error::Interrupted { done: changes },
        Failure::Install { agent, log } => Error::Install { message: install_sentence(&agent), log, place },
        Failure::Run { message, code, stderr } => Error::Run { message, code, stderr, place },
        Failure::Script { message, hint } => Error::Script { message, hint, place },
        Failure::Stopped => Error::Interrupted { done: changes },
        Failure::Timeout(message) => Error::Limit { message, hint: None, code: "timeout", place },
        Failure::Usage { message, hint } => Error::Usage { message, hint, code: "usage", place },
        Failure::Wait { message, hint, timed_out } => Error::Wait { message, hint, timed_out, place },
    }
}

/// The error that began it, the name of the script that it is in, and its place there. What a function of the standard
/// library throws is told at the place of its call: nobody is helped by the inside of an assertion.
fn innermost(error: EvalAltResult, main: String) -> (EvalAltResult, String, Position) {
    let mut file = main;
    let mut outer = Position::NONE;
    let mut error = error;
    // The last place outside of the standard library, while inside.
    let mut call: Option<(String, Position)> = None;
    loop {
        let position = error.position();
        error = match error {
            EvalAltResult::ErrorInFunctionCall(_, source, inner, position) => {
                if source.starts_with("std/") {
                    call.get_or_insert((file.clone(), if position.is_none() { outer } else { position }));
                } else if !source.is_empty() {
                    call = None;
                }
                if !source.is_empty() {
                    file = source;
                }
                outer = position;
                *inner
            }
            EvalAltResult::ErrorInModule(name, inner, position) => {
                if inner.position().is_none() {
                    outer = position;
                } else {
                    file = name;
                }
                *inner
            }
            other => {
                let position = if position.is_none() { outer } else { position };
                let (file, position) =
                    call.filter(|(_, position)| !position.is_none()).unwrap_or((file, position));
                return (other, file, position);
            }
        };
    }
}

/// An error of the engine as a sentence and a hint.
pub fn describe(engine: &rhai::Engine, error: EvalAltResult) -> (String, Option<String>) {
    let hinted = |message: String, hint: &str| (message, Some(hint.to_owned()));
    match error {
        EvalAltResult::ErrorArithmetic(text, _) => arithmetic(&text),
        EvalAltResult::ErrorArrayBounds(count, index, _) => (
            format!("the array has {count} element{}: none is at {index}", if count == 1 { "" } else { "s" }),
            Some(match count {
                0 => "Ask first whether it is empty: .is_empty().".to_owned(),
                count => format!("The first is at 0, the last at {}, or at -1.", count - 1),
            }),
        ),
        EvalAltResult::ErrorAssignmentToConstant(name, _) => {
            hinted(format!("`{name}` is a constant, and can't be changed"), "Make it a variable: let.")
        }
        EvalAltResult::ErrorDotExpr(text, _) => missing_field_in(engine, &text),
        EvalAltResult::ErrorFor(_) => hinted(
            "`for` can't go through this".to_owned(),
            "It goes through arrays, lists, texts' `.chars()`, maps' `.keys()`, and numbers: 0..10.",
        ),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => missing_function(engine, &signature),
        EvalAltResult::ErrorIndexNotFound(index, _) => {
            (format!("there is nothing at {}", value::to_text(&index)), None)
        }
        EvalAltResult::ErrorIndexingType(text, _) => {
            let of = text.split([' ', '[']).next().unwrap_or(&text);
            (format!("{} has no elements to reach with [ ]", with_article(of)), None)
        }
        EvalAltResult::ErrorMismatchDataType(wanted, given, _)
        | EvalAltResult::ErrorMismatchOutputType(wanted, given, _) => mismatch(&wanted, &given),
        EvalAltResult::ErrorParsing(error, _) => syntax(&error),
        EvalAltResult::ErrorPropertyNotFound(name, _) => (
            format!("the map has no `{name}`"),
            Some(format!("Ask first whether it is there: \"{name}\" in map.")),
        ),
        EvalAltResult::ErrorRuntime(value, _) => thrown(&value),
        EvalAltResult::ErrorStringBounds(count, index, _) => (
            format!("the text has {count} letter{}: none is at {index}", if count == 1 { "" } else { "s" }),
            None,
        ),
        EvalAltResult::ErrorUnboundThis(_) => hinted(
            "`this` is nothing here".to_owned(),
            "It is the value before the dot, if a function is called as a method: value.function().",
        ),
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            let hint = meant_as_a_function(engine, &HashMap::new(), &name);
            (format!("there is no variable `{name}`"), hint)
        }
        mut other => {
            other.clear_position();
            (plain(&other.to_string()), None)
        }
    }
}

fn arithmetic(text: &str) -> (String, Option<String>) {
    if let Some(of) = text.strip_prefix("Division by zero: ") {
        return (format!("{of} is a division by zero"), Some("Ask first whether it is 0.".to_owned()));
    }
    match text.split_once(" overflow: ") {
        Some((_, of)) => (
            format!("{of} is larger than a whole number can be"),
            Some("A number with a point can be larger: 1.0.".to_owned()),
        ),
        None => (plain(text), None),
    }
}

fn mismatch(wanted: &str, given: &str) -> (String, Option<String>) {
    let (wanted, given) = (plain_type(wanted), plain_type(given));
    let hint = match (wanted.as_str(), given.as_str()) {
        ("Bool", "String" | "Array" | "Map" | "Sessions") => Some("Ask whether it is empty: .is_empty()."),
        ("Bool", "nothing") => Some("Compare it: x != ()."),
        ("Bool", "Int" | "Float") => Some("Compare it: x != 0."),
        ("Bool", _) => Some("Compare it with something."),
        ("Int", "String") => Some("parse_int() reads a number from text."),
        ("String", _) => Some("to_string() makes text of it."),
        _ => None,
    };
    let told = |kind: &str| if kind == "Bool" { "true or false".to_owned() } else { with_article(kind) };
    (format!("{} is wanted here, and this is {}", told(&wanted), told(&given)), hint.map(str::to_owned))
}

/// A sentence of the engine in our voice: lower case, without a full stop.
fn plain(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    match letters.next() {
        // Words in capitals and names stay.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// An error of the language as a sentence and a hint.
pub fn syntax(error: &ParseErrorType) -> (String, Option<String>) {
    const OPEN: &str = "Is a bracket or a quote still open?";
    let hinted = |message: String, hint: &str| (message, Some(hint.to_owned()));
    match error {
        ParseErrorType::AssignmentToConstant(name) => {
            hinted(format!("`{name}` is a constant, and can't be changed"), "Make it a variable: let.")
        }
        ParseErrorType::AssignmentToInvalidLHS(_) => {
            hinted("this can't be given a value".into(), "Comparing takes two signs: ==.")
        }
        ParseErrorType::BadInput(error) => lexical(error),
        ParseErrorType::DuplicatedProperty(name) => (format!("the map has `{name}` twice"), None),
        ParseErrorType::ExprTooDeep => hinted(
            "this is nested too deeply".into(),
            "Give its parts names: let part = …; or make a function of them.",
        ),
        ParseErrorType::FnDuplicatedDefinition(name, count) => {
            (format!("there are two functions `{name}` with {}", counted(*count, "argument")), None)
        }
        ParseErrorType::FnDuplicatedParam(_, name) => {
            (format!("the parameter `{name}` stands there twice"), None)
        }
        ParseErrorType::LoopBreak => hinted(
            "there is no loop to leave here".into(),
            "A function is left with return, a script with exit().",
        ),
        ParseErrorType::MismatchedType(wanted, given) if wanted == "a boolean expression" => hinted(
            format!("true or false is wanted here, and this is {given}"),
            match given.as_str() {
                "a string" | "an array" | "an object map" => "Ask whether it is empty: .is_empty().",
                _ => "Compare it with something.",
            },
        ),
        ParseErrorType::MismatchedType(wanted, given) if wanted == "an iterable value" => hinted(
            format!("`for` can't go through {given}"),
            "It goes through arrays, lists, and numbers: 0..10.",
        ),
        ParseErrorType::MissingToken(token, _) if matches!(token.as_str(), ")" | "]" | "}") => {
            (format!("`{token}` is missing"), Some(OPEN.into()))
        }
        ParseErrorType::MissingToken(token, what) => {
            let hint = match token.as_str() {
                ";" => Some("Statements are divided by a semicolon."),
                "," => Some("Is a comma or a bracket missing?"),
                _ => None,
            };
            let what =
                what.split_once(" this ").or_else(|| what.split_once(" the ")).map_or("", |(_, what)| what);
            let what = if what.is_empty() { String::new() } else { format!(" in this {what}") };
            let what = if token == ";" { " before this".to_owned() } else { what };
            (format!("`{token}` is missing{what}"), hint.map(str::to_owned))
        }
        ParseErrorType::ModuleUndefined(name) => {
            let failure = missing_module(name, ["agents", "sessions"].into_iter());
            (failure.to_string(), failure.hint_text().map(str::to_owned))
        }
        ParseErrorType::PropertyExpected => ("a field's name is missing".into(), None),
        ParseErrorType::Reserved(word) if word.starts_with(|c: char| c.is_alphabetic()) => {
            hinted(format!("`{word}` is a reserved word"), "Choose another name.")
        }
        ParseErrorType::Reserved(sign) => (format!("`{sign}` means nothing here"), None),
        ParseErrorType::UnexpectedEOF => hinted("the script ends too early".into(), OPEN),
        ParseErrorType::UnknownOperator(sign) => (format!("`{sign}` is no operator"), None),
        ParseErrorType::VariableExpected => hinted(
            "a variable's name is missing".into(),
            "A name begins with a letter, and is no word of the language.",
        ),
        ParseErrorType::VariableUndefined(name) => (format!("there is no variable `{name}`"), None),
        ParseErrorType::WrongFnDefinition => {
            hinted("a function can't be defined inside of something".into(), "Closures can: let f = |x| …;")
        }
        other => (plain(&other.to_string()), None),
    }
}

fn lexical(error: &LexError) -> (String, Option<String>) {
    let hinted = |message: String, hint: &str| (message, Some(hint.to_owned()));
    match error {
        LexError::ImproperSymbol(sign, text) if text.starts_with("Possibly a typo of '==") => {
            hinted(format!("`{sign}` can't stand here"), "Comparing takes two signs: ==.")
        }
        LexError::ImproperSymbol(sign, text) if text.is_empty() => {
            (format!("`{sign}` can't stand here"), None)
        }
        LexError::MalformedChar(_) => {
            hinted("single quotes hold one letter".into(), "Text stands in double quotes: \"text\".")
        }
        LexError::MalformedEscapeSequence(text) => hinted(
            format!("`{text}` is no escape"),
            "Escapes are \\n \\t \\\" \\\\ and \\u1234; `…` takes text as it is.",
        ),
        LexError::MalformedIdentifier(text) => (format!("`{text}` is no name"), None),
        LexError::MalformedNumber(text) if text.is_empty() => ("this is no number".into(), None),
        LexError::MalformedNumber(text) => (format!("`{text}` is no number"), None),
        LexError::UnexpectedInput(text) => (format!("`{text}` can't stand here"), None),
        LexError::UnterminatedString => hinted(
            "a text's closing quote is missing".into(),
            "A text over several lines stands in backticks: `…`.",
        ),
        other => (plain(&other.to_string()), None),
    }
}

/// No module has this name; `near` are those that could be meant.
pub fn missing_module<'a>(name: &str, near: impl Iterator<Item = &'a str> + Clone) -> Failure {
    let hint = suggestion::did_you_mean(name, near).unwrap_or_else(|| {
        format!(
            "Modules are sessions, agents and secrets; others are imported first: import \"std/{name}\" as {name};"
        )
    });
    Failure::hinted(format!("there is no module `{name}`"), hint)
}

/// What a script threw itself.
fn thrown(value: &Dynamic) -> (String, Option<String>) {
    if let Some(map) = value.read_lock::<Map>()
        && let Some(message) = map.get("message").and_then(|message| message.read_lock::<ImmutableString>())
    {
        let hint = map.get("hint").and_then(|hint| hint.clone().into_string().ok());
        return (message.to_string(), hint.filter(|hint| !hint.is_empty()));
    }
    match value::to_text(value) {
        text if text.is_empty() => ("the script threw an error without a message".into(), None),
        text => (text, None),
    }
}

/// A variable that isn't there may be meant as a call.
pub fn meant_as_a_function(
    engine: &rhai::Engine,
    own: &HashMap<String, Vec<usize>>,
    name: &str,
) -> Option<String> {
    let is_function = own.contains_key(name) || functions::names(engine).iter().any(|known| known == name);
    is_function.then(|| format!("A function is called with brackets: {name}()."))
}

/// `Unknown property 'x' - a getter is not registered for type 'Session'`.
fn missing_field_in(engine: &rhai::Engine, text: &str) -> (String, Option<String>) {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (Some(name), Some(of)) = (quoted.next(), quoted.next()) else { return (plain(text), None) };
    let failure = missing_field(engine, name, &plain_type(of));
    (failure.to_string(), failure.hint_text().map(str::to_owned))
}

/// The fields and the functions of this type, called as in signatures.
struct Members {
    fields: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Members {
    fn of(engine: &rhai::Engine, of: &str) -> Self {
        let mut members = Self { fields: BTreeSet::new(), functions: BTreeSet::new() };
        let Some(of) = Type::named(of) else { return members };
        let of_it = |info: rhai::FuncInfo<'_>| {
            let is_own = info.namespace.is_empty() && info.metadata.param_types.first() == Some(&of.id());
            is_own.then(|| info.metadata.name.to_string())
        };
        for name in engine.collect_fn_metadata(None, of_it, true) {
            match name.split_once('$') {
                Some(("get", field)) => members.fields.insert(field.to_owned()),
                Some(_) => false,
                None => members.functions.insert(name),
            };
        }
        members
    }

    fn near(&self, name: &str) -> Option<String> {
        suggestion::did_you_mean(name, self.fields.iter().chain(&self.functions).map(String::as_str))
    }
}

/// A value of this type, called as in signatures, has no such field.
pub fn missing_field(engine: &rhai::Engine, name: &str, of: &str) -> Failure {
    let members = Members::of(engine, of);
    let hint = if members.functions.contains(name) {
        Some(format!("It is a function: call it with brackets, .{name}(…)."))
    } else {
        members.near(name).or_else(|| {
            let all: Vec<&str> = members.fields.iter().map(String::as_str).collect();
            (!all.is_empty()).then(|| format!("Fields: {}.", all.join(", ")))
        })
    };
    Failure::Script { message: format!("{} has no field `{name}`", with_article(of)), hint }
}

/// A type as the engine calls it, as scripts know it.
fn plain_type(kind: &str) -> String {
    let kind = kind.trim().trim_start_matches("&mut ");
    let kind = kind.split(" | ").next().unwrap_or(kind);
    match kind.rsplit("::").next().unwrap_or(kind) {
        "&str" | "ImmutableString" | "String" | "string" => "String",
        "Fn" | "FnPtr" => "Function",
        "Span" => "Duration",
        "Moment" => "Time",
        "()" => "nothing",
        "array" => "Array",
        "bool" => "Bool",
        "char" => "Char",
        "f64" => "Float",
        "i64" => "Int",
        "map" => "Map",
        other => other,
    }
    .to_owned()
}

fn with_article(kind: &str) -> String {
    match kind {
        "nothing" => "nothing".to_owned(),
        "Agents" => "a list of agents".to_owned(),
        "Char" => "a letter".to_owned(),
        "Done" => "what `end` answers".to_owned(),
        "Ran" => "what `sh` answers".to_owned(),
        "Sessions" => "a list of sessions".to_owned(),
        kind if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// No function has this name; `of` is what it is called on, where that is known.
pub fn unknown_function(
    engine: &rhai::Engine,
    own: &HashMap<String, Vec<usize>>,
    module: &str,
    name: &str,
    of: Option<Type>,
) -> Failure {
    let whole = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
    let docs = functions::all(engine);
    let told = of.map_or_else(String::new, |of| format!(" for {}", with_article(of.name())));
    let message = format!("there is no function `{whole}`{told}");
    let hint = match of.map(|of| Members::of(engine, of.name())) {
        Some(members) if members.fields.contains(name) => {
            Some(format!("It is a field: write it without brackets, .{name}."))
        }
        Some(members) => members.near(name),
        None if !module.is_empty() => suggestion::did_you_mean(
            name,
            docs.iter().filter(|doc| doc.module == module).map(|doc| doc.name.as_str()),
        ),
        None => {
            let names = functions::names(engine);
            let callable = names.iter().map(String::as_str).filter(|name| !name.contains('$'));
            let own = own.keys().map(String::as_str).filter(|name| !name.contains('$'));
            suggestion::did_you_mean(name, callable.chain(own))
        }
    };
    Failure::Script { message, hint }
}

/// The forms of a function, as a hint.
fn forms(engine: &rhai::Engine, module: &str, name: &str) -> Option<String> {
    let docs = functions::all(engine);
    let mut forms: Vec<&str> = docs
        .iter()
        .filter(|doc| doc.name == name && (module.is_empty() || doc.module == module))
        .map(|doc| doc.signature.as_str())
        .filter(|signature| signature.contains('('))
        .collect();
    forms.dedup();
    // Those of a server by name are the same once more, and seldom meant.
    forms.sort_by_key(|form| form.contains("(server: Server"));
    forms.truncate(4);
    (!forms.is_empty()).then(|| format!("It is {}.", forms.join(" or ")))
}

/// A function is called with a number of values that none of its forms takes.
pub fn wrong_count(engine: &rhai::Engine, module: &str, name: &str, given: usize) -> Failure {
    let whole = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
    Failure::Script {
        message: format!("`{whole}` doesn't take {}", counted(given, "argument")),
        hint: forms(engine, module, name),
    }
}

/// The same for a function that a script defines.
pub fn wrong_count_own(name: &str, counts: &[usize], given: usize) -> Failure {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    let told: Vec<String> = counts.iter().map(ToString::to_string).collect();
    let told = match (told.as_slice(), counts.as_slice()) {
        (_, [count]) => counted(*count, "argument"),
        (told, _) => format!("{} arguments", told.join(" or ")),
    };
    Failure::script(format!("`{name}` takes {told}, and is given {given}"))
}

/// `endd (Session)`, `sessions::lst ()`, `+ (i64, Session)`.
fn missing_function(engine: &rhai::Engine, signature: &str) -> (String, Option<String>) {
    let (whole, types) = signature.split_once(" (").unwrap_or((signature, ")"));
    let types = types.strip_suffix(')').unwrap_or(types);
    let (module, name) = whole.rsplit_once("::").unwrap_or(("", whole));
    let (module, name) = (module.trim(), name.trim());
    let kinds: Vec<String> = types.split(", ").map(plain_type).filter(|kind| !kind.is_empty()).collect();
    if name.starts_with("anon$") {
        let given = counted(kinds.len(), "argument");
        return (
            format!("this function doesn't take {given}, which it is called with"),
            Some("A function of one argument is written |x| …, one of two |x, y| ….".to_owned()),
        );
    }
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        let told: Vec<String> = kinds.iter().map(|kind| with_article(kind)).collect();
        let hint = (name == "+" && kinds.iter().any(|kind| kind == "String"))
            .then(|| "Text of anything: `${value}`.".to_owned());
        return (format!("`{name}` doesn't work on {}", told.join(" and ")), hint);
    }
    if let Some(forms) = forms(engine, module, name) {
        let given = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        return (format!("`{whole}` doesn't take ({given})"), Some(forms));
    }
    let of = kinds.first().map_or_else(String::new, |kind| format!(" for {}", with_article(kind)));
    let failure = unknown_function(engine, &HashMap::new(), module, name, None);
    (format!("there is no function `{whole}`{of}"), failure.hint_text().map(str::to_owned))
}
