//! What went wrong in a script, and where.

use rhai::{Dynamic, EvalAltResult, ImmutableString, Map, ParseErrorType, Position};

use super::failure::Failure;
use super::functions;
use super::resolver::Sources;
use super::suggestion;
use super::value;
use crate::client;

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
    /// Ctrl-C. `done` says what the script had changed (`ended 3 sessions`); empty if nothing.
    #[error("interrupted")]
    Interrupted { done: String },
    /// The terminal or a pipe could not be read or written.
    #[error("{message}")]
    Io { message: String },
    /// An agent's run failed. `code` is the run's own word (`timeout`, `agent_exited`, …), `stderr` the agent's last lines.
    #[error("{message}")]
    Run { message: String, code: Option<String>, stderr: Option<String>, place: Option<Place> },
    /// The script itself is wrong, or threw something.
    #[error("{message}")]
    Script { message: String, hint: Option<String>, place: Option<Place> },
    /// A question that nobody can answer, or an argument that makes no sense: the caller's fault, not the script's.
    #[error("{message}")]
    Usage { message: String, hint: Option<String>, place: Option<Place> },
    /// What was waited for did not come: not in time, or it can't come any more.
    #[error("{message}")]
    Wait { message: String, hint: Option<String>, timed_out: bool, place: Option<Place> },
}

impl Error {
    /// The word that programs can test.
    pub fn code(&self) -> &str {
        match self {
            Self::Api { error, .. } => error.code(),
            Self::Interrupted { .. } => "interrupted",
            Self::Io { .. } => "io",
            Self::Run { code, .. } => code.as_deref().unwrap_or("run_failed"),
            Self::Script { .. } => "script",
            Self::Usage { .. } => "usage",
            Self::Wait { timed_out: true, .. } => "timed_out",
            Self::Wait { timed_out: false, .. } => "not_reached",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api { error, .. } => error.hint(),
            Self::Script { hint, .. } | Self::Usage { hint, .. } | Self::Wait { hint, .. } => hint.as_deref(),
            Self::Interrupted { .. } | Self::Io { .. } | Self::Run { .. } => None,
        }
    }

    /// Where in a script it happened.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Api { place, .. }
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
}

impl Reporter<'_> {
    /// `main` is the script's name, `changes` what it had changed.
    pub fn report(&self, main: &str, error: EvalAltResult, changes: String) -> Error {
        let (error, file, position) = innermost(error, main.to_owned());
        if let EvalAltResult::ErrorTerminated(..) = error {
            return Error::Interrupted { done: changes };
        }
        let place = self.place(file, position);
        if let EvalAltResult::ErrorRuntime(value, _) = &error
            && let Some(failure) = value.clone().try_cast::<Failure>()
        {
            return match failure {
                Failure::Api(error) => Error::Api { error, place },
                Failure::Io(message) => Error::Io { message },
                Failure::Run { message, code, stderr } => Error::Run { message, code, stderr, place },
                Failure::Script { message, hint } => Error::Script { message, hint, place },
                Failure::Stopped => Error::Interrupted { done: changes },
                Failure::Usage { message, hint } => Error::Usage { message, hint, place },
                Failure::Wait { message, hint, timed_out } => Error::Wait { message, hint, timed_out, place },
            };
        }
        let (message, hint) = describe(self.engine, error);
        Error::Script { message, hint, place }
    }

    fn place(&self, file: String, position: Position) -> Option<Place> {
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
    match error {
        EvalAltResult::ErrorArrayBounds(count, index, _) => (
            format!("the array has {count} element{}: none is at {index}", if count == 1 { "" } else { "s" }),
            None,
        ),
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            (format!("a value is larger than a script may make it ({what})"), None)
        }
        EvalAltResult::ErrorDotExpr(text, _) => missing_field(engine, &text),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => missing_function(engine, &signature),
        EvalAltResult::ErrorParsing(error, _) => syntax(&error),
        EvalAltResult::ErrorPropertyNotFound(name, _) => (
            format!("the map has no `{name}`"),
            Some(format!("Ask first whether it is there: \"{name}\" in map.")),
        ),
        EvalAltResult::ErrorRuntime(value, _) => thrown(&value),
        EvalAltResult::ErrorStackOverflow(_) => (
            "functions call each other too deeply".into(),
            Some("Is there a function that calls itself for ever?".into()),
        ),
        EvalAltResult::ErrorTooManyOperations(_) => (
            "the script was stopped, since it took more steps than it may".into(),
            Some("Is there a loop that never ends?".into()),
        ),
        EvalAltResult::ErrorVariableNotFound(name, _) => missing_variable(engine, &name),
        mut other => {
            other.clear_position();
            (plain(&other.to_string()), None)
        }
    }
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

fn syntax(error: &ParseErrorType) -> (String, Option<String>) {
    match error {
        ParseErrorType::UnexpectedEOF => {
            ("the script ends too early".into(), Some("Is a bracket or a quote still open?".into()))
        }
        ParseErrorType::MissingToken(token, _) if matches!(token.as_str(), ")" | "]" | "}") => {
            (format!("`{token}` is missing"), Some("Is a bracket or a quote still open?".into()))
        }
        ParseErrorType::VariableUndefined(name) => (format!("there is no variable `{name}`"), None),
        ParseErrorType::ModuleUndefined(name) => (
            format!("there is no module `{name}`"),
            Some(format!(
                "Modules are sessions and agents; others are imported first: import \"std/{name}\" as {name};"
            )),
        ),
        ParseErrorType::Reserved(word) => {
            (format!("`{word}` is a reserved word"), Some("Give the variable another name.".into()))
        }
        other => (plain(&other.to_string()), None),
    }
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

fn missing_variable(engine: &rhai::Engine, name: &str) -> (String, Option<String>) {
    let names = functions::names(engine);
    let hint = names
        .iter()
        .any(|known| known == name)
        .then(|| format!("A function is called with brackets: {name}()."));
    (format!("there is no variable `{name}`"), hint)
}

/// `Unknown property 'x' - a getter is not registered for type 'Session'`.
fn missing_field(engine: &rhai::Engine, text: &str) -> (String, Option<String>) {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (Some(name), Some(of)) = (quoted.next(), quoted.next()) else { return (plain(text), None) };
    let docs = functions::all(engine);
    let prefix = format!("{of}.");
    let is_list = matches!(of, "Agents" | "Done" | "Sessions");
    let has = |doc: &&functions::FunctionDoc| {
        doc.signature.starts_with(&prefix) || (is_list && doc.signature.starts_with("List."))
    };
    let fields = docs.iter().filter(has).map(|doc| doc.name.as_str());
    let method = docs.iter().any(|doc| doc.name == name && doc.signature.starts_with(&format!("{name}(")));
    let hint = if method {
        Some(format!("It is a function: call it with brackets, .{name}(…)."))
    } else {
        suggestion::did_you_mean(name, fields.clone()).or_else(|| {
            let all: Vec<&str> = fields.collect();
            (!all.is_empty()).then(|| format!("Fields: {}.", all.join(", ")))
        })
    };
    (format!("{} has no field `{name}`", with_article(of)), hint)
}

fn with_article(kind: &str) -> String {
    match kind {
        "string" => "a String".to_owned(),
        "i64" => "an Int".to_owned(),
        "f64" => "a Float".to_owned(),
        "array" => "an Array".to_owned(),
        "map" => "a Map".to_owned(),
        "()" => "nothing".to_owned(),
        "Agents" => "a list of agents".to_owned(),
        "Sessions" => "a list of sessions".to_owned(),
        "Done" => "what `end` answers".to_owned(),
        kind if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// `endd (Session)`, `sessions::lst ()`, `+ (i64, Session)`.
fn missing_function(engine: &rhai::Engine, signature: &str) -> (String, Option<String>) {
    let (whole, types) = signature.split_once(" (").unwrap_or((signature, ")"));
    let types = types.trim_end_matches(')');
    let name = whole.rsplit("::").next().unwrap_or(whole).trim();
    let kinds: Vec<String> = types
        .split(',')
        .map(|kind| kind.trim().trim_start_matches("&mut "))
        .filter(|kind| !kind.is_empty())
        .map(|kind| {
            if kind.contains("::") {
                kind.rsplit("::").next().unwrap_or(kind).to_owned()
            } else {
                kind.to_owned()
            }
        })
        .collect();
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        let told: Vec<String> = kinds.iter().map(|kind| with_article(kind)).collect();
        return (format!("`{name}` doesn't work on {}", told.join(" and ")), None);
    }
    let docs = functions::all(engine);
    let same: Vec<&str> =
        docs.iter().filter(|doc| doc.name == name).map(|doc| doc.signature.as_str()).collect();
    if !same.is_empty() {
        let given = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        let mut forms: Vec<&str> = same;
        forms.dedup();
        forms.truncate(4);
        return (format!("`{whole}` doesn't take ({given})"), Some(format!("It is {}.", forms.join(" or "))));
    }
    let names = functions::names(engine);
    let callable = names.iter().map(String::as_str).filter(|name| !name.contains('$'));
    let of = kinds.first().map_or_else(String::new, |kind| format!(" for {}", with_article(kind)));
    (format!("there is no function `{whole}`{of}"), suggestion::did_you_mean(name, callable))
}
