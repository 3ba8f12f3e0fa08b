//! What may follow on a command line, for the shells' completions: commands and flags from the tree of commands, and
//! sessions, agents, fields, names from those who know them.
//!
//! The scripts in `shells/` call `superserve __complete SHELL -- WORDS…` with the words up to the cursor, as they were typed.
//! The first line of the answer says what the shell does besides (`files`, `dirs`, `nospace`), the others are the answers in
//! the form that the shell takes. Nothing is ever told on stderr, no server is started, and a server that doesn't answer in
//! [`BUDGET`] is done without.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use serde_json::Value;

use super::command;
use super::connection::Way;
use super::contexts::Choice;
use super::help;
use super::scripts::Catalog;
use crate::client::{self, Client};
use crate::config::Config;
use crate::daemon;
use crate::render;
use crate::script;
use crate::script::header::Header;
use crate::wire::{Field, SessionId, SessionQuery, Status};

/// The word that the shells' scripts begin with.
pub const WORD: &str = "__complete";

/// How long a running server may take to answer.
const BUDGET: Duration = Duration::from_millis(50);
/// How many sessions are looked at, of those that go on and of those that have ended.
const SESSIONS: u32 = 200;
/// How many columns a title takes in what is told of a session.
const TITLE: usize = 40;
/// A whole ID's digits.
const DIGITS: usize = 32;

/// The mark of an answer that the shell itself finds.
const FILES: &str = "\0files";
const FOLDERS: &str = "\0dirs";

/// A shell whose completions ask this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl Shell {
    /// The shell of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "bash" => Some(Self::Bash),
            "fish" => Some(Self::Fish),
            "zsh" => Some(Self::Zsh),
            _ => None,
        }
    }

    /// What its user sources.
    pub fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("shells/superserve.bash"),
            Self::Fish => include_str!("shells/superserve.fish"),
            Self::Zsh => include_str!("shells/superserve.zsh"),
        }
    }
}

/// What a shell asks.
#[derive(Debug)]
struct Question {
    shell: Shell,
    /// Without quotes; the last one is what is being typed.
    words: Vec<String>,
    /// Of bash: how much of the last word stands before what it replaces, and whether it lists the answers.
    kept: usize,
    lists: bool,
}

impl Question {
    /// From `__complete SHELL [TYPE WORD] -- WORDS…`.
    fn read(args: &[OsString]) -> Option<Self> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let shell = Shell::named(args.first()?.to_str()?)?;
        let end = args.iter().position(|word| word == "--")?;
        let (before, typed) = (&args[1..end], &args[end + 1..]);
        let mut words: Vec<String> = typed.iter().map(|word| unquoted(&text(word))).collect();
        words.resize(words.len().max(2), String::new());
        let replaced = before.get(1).map(|word| unquoted(&text(word)));
        let last = words.last()?;
        let kept =
            replaced.filter(|part| last.ends_with(part.as_str())).map_or(0, |part| last.len() - part.len());
        // Bash asks with `?`, `!` or `@` where it shows the answers, and with a tab where it inserts what they share.
        let lists = before.first().is_some_and(|kind| matches!(kind.to_str(), Some("63" | "33" | "64")));
        Some(Self { shell, words, kept, lists })
    }

    fn current(&self) -> &str {
        self.words.last().map_or("", String::as_str)
    }
}

/// The answer to `superserve __complete …`, given what follows that word; empty if it makes no sense.
pub fn answer(config: Option<Config>, catalog: &Catalog, args: &[OsString]) -> String {
    let Some(question) = Question::read(args) else { return String::new() };
    let known = Arc::new(Known {
        config,
        scripts: catalog.commands().iter().map(|one| (one.words.join("/"), one.summary())).collect(),
        given: question.words[1..question.words.len() - 1].to_vec(),
    });
    let found = candidates(&question, catalog, &known);
    written(&question, found)
}

/// All that may stand where the last word stands.
fn candidates(question: &Question, catalog: &Catalog, known: &Arc<Known>) -> Vec<CompletionCandidate> {
    let words = &question.words;
    let last = words.len() - 1;
    let plain = plain_words(words);
    let tree = || known.of_all(command::tree(catalog), &mut Vec::new());
    let mut awaits_value = false;
    let mut complete = |mut command: Command, mut words: Vec<String>| {
        awaits_value |= self::awaits_value(&command, &words);
        // It takes a value only behind `=`: what follows it is something else.
        let last = words.pop();
        words.retain(|word| word != "--json");
        words.extend(last);
        let place = words.len() - 1;
        let words = words.into_iter().map(OsString::from).collect();
        clap_complete::engine::complete(&mut command, words, place, None).unwrap_or_default()
    };
    let mut found = match plain.as_slice() {
        // All that follows a script's file is read by its own header.
        [first, file, ..] if words[*first] == "script" && *file < last => {
            let text = std::fs::read_to_string(&words[*file]).unwrap_or_default();
            let header = Header::parse(&text).unwrap_or_default();
            let command = known.of_all(command::of_file(&words[*file], &header), &mut Vec::new());
            complete(command, words[*file..].to_vec())
        }
        // `help` goes before any command, as `--help` goes behind it.
        [first, ..] if words[*first] == "help" && *first < last => {
            let mut found = complete(tree(), words.clone());
            if !plain
                .get(1)
                .is_some_and(|second| *second < last && help::PAGES.contains(&words[*second].as_str()))
            {
                let mut shorter = words.clone();
                shorter.remove(*first);
                let commands = complete(tree(), shorter);
                found.extend(
                    commands
                        .into_iter()
                        .filter(|one| one.get_id().is_some_and(|id| id.starts_with("command::"))),
                );
            }
            found
        }
        _ => complete(tree(), words.clone()),
    };
    // Flags would crowd out what is meant, where something else can stand.
    if question.current().is_empty() {
        let is_flag = |one: &CompletionCandidate| one.get_value().as_encoded_bytes().starts_with(b"-");
        if awaits_value || found.iter().any(|one| !is_flag(one)) {
            found.retain(|one| !is_flag(one));
        }
    }
    found
}

/// Whether a value may stand where the last word stands, whoever knows it.
fn awaits_value(command: &Command, words: &[String]) -> bool {
    let mut leaf = command;
    let mut taken = 0;
    for place in plain_words(words).into_iter().filter(|place| *place + 1 < words.len()) {
        match leaf.find_subcommand(&words[place]).filter(|_| taken == 0) {
            Some(below) => leaf = below,
            None => taken += 1,
        }
    }
    let takes_all = |arg: &Arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    leaf.get_positionals().count() > taken || leaf.get_positionals().any(takes_all)
}

/// The places of the words that are no flags, the program's name left out.
fn plain_words(words: &[String]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut is_value = false;
    for (place, word) in words.iter().enumerate().skip(1) {
        if is_value {
            is_value = false;
        } else if word == "--color" {
            is_value = true;
        } else if !word.starts_with('-') || word == "-" {
            places.push(place);
        }
    }
    places
}

/// What the shell reads.
fn written(question: &Question, found: Vec<CompletionCandidate>) -> String {
    let mut told: Vec<&str> = Vec::new();
    let mut rows: Vec<(String, String)> = Vec::new();
    for one in &found {
        let Some(value) = one.get_value().to_str() else { continue };
        if value.ends_with(FILES) {
            told.push("files");
        } else if value.ends_with(FOLDERS) {
            told.push("dirs");
        } else if !value.contains(['\n', '\r', '\0']) {
            let help = one.get_help().map(ToString::to_string).unwrap_or_default();
            rows.push((value.to_owned(), render::clean_line(help.lines().next().unwrap_or_default())));
        }
    }
    let goes_on = |value: &str| value.ends_with(['=', '/', ':']) || value.contains(' ');
    if rows.iter().any(|(value, _)| goes_on(value)) {
        told.push("nospace");
    }
    let lines: Vec<String> = match question.shell {
        Shell::Bash => {
            let rows: Vec<(&str, &str)> = rows
                .iter()
                .map(|(value, help)| (value.get(question.kept..).unwrap_or_default(), help.as_str()))
                .collect();
            let width = rows.iter().map(|(value, _)| value.chars().count()).max().unwrap_or(0);
            let describes =
                question.lists && rows.len() > 1 && !told.contains(&"files") && !told.contains(&"dirs");
            rows.iter()
                .map(|(value, help)| match describes && !help.is_empty() {
                    true => format!("{value:width$}  ({help})"),
                    false => (*value).to_owned(),
                })
                .collect()
        }
        Shell::Fish => rows
            .iter()
            .map(|(value, help)| if help.is_empty() { value.clone() } else { format!("{value}\t{help}") })
            .collect(),
        Shell::Zsh => rows
            .iter()
            .map(|(value, help)| {
                let value = value.replace('\\', "\\\\").replace(':', "\\:");
                if help.is_empty() { value } else { format!("{value}:{}", help.replace('\\', "\\\\")) }
            })
            .collect(),
    };
    let mut text = told.join(" ");
    text.push('\n');
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A word of a command line without its quotes; one at the cursor may have an open one.
fn unquoted(word: &str) -> String {
    let mut text = String::new();
    let mut quote = None;
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None | Some('"'), '\\') => text.extend(letters.next()),
            _ => text.push(letter),
        }
    }
    text
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Agent,
    /// One of a few words.
    Choice(String),
    /// An expression that anything can be called in.
    Code,
    Expression,
    Field,
    Fields,
    File,
    Folder,
    Function,
    /// A command that is a script.
    Script,
    Session,
    Status,
}

/// What the values of an argument are, by what its value is called, or by its own name; `path` are the command's words.
fn kinds(path: &[String], arg: &Arg) -> Vec<Kind> {
    if !arg.get_action().takes_values() || !arg.get_possible_values().is_empty() {
        return Vec::new();
    }
    if path == ["eval"] {
        return vec![Kind::Code];
    }
    // Its words are those of the tree of commands.
    if path == ["help"] {
        return Vec::new();
    }
    let value =
        arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    if path.first().is_some_and(|word| word == "scripts") && value == "NAME" {
        return vec![Kind::Script];
    }
    let named = |word: &str| match word {
        "AGENT" => Some(Kind::Agent),
        "DIR" | "FOLDER" => Some(Kind::Folder),
        "EXPR" => Some(Kind::Expression),
        "FIELD" => Some(Kind::Field),
        "FIELDS" => Some(Kind::Fields),
        "FILE" | "PATH" => Some(Kind::File),
        "FUNCTION" => Some(Kind::Function),
        "COMMAND" | "SCRIPT" => Some(Kind::Script),
        "ID" | "SESSION" => Some(Kind::Session),
        "STATUS" => Some(Kind::Status),
        _ => None,
    };
    let choices = value.contains('|');
    let of_value: Vec<Kind> = value
        .split('|')
        .filter_map(|word| {
            let is_choice = choices && !word.is_empty() && !word.bytes().any(|b| b.is_ascii_uppercase());
            named(word).or_else(|| is_choice.then(|| Kind::Choice(word.to_owned())))
        })
        .collect();
    if !of_value.is_empty() {
        return of_value;
    }
    match arg.get_id().as_str() {
        "agent" => vec![Kind::Agent],
        "id" | "session" => vec![Kind::Session],
        "status" => vec![Kind::Status],
        "file" => vec![Kind::File],
        "dir" => vec![Kind::Folder],
        _ => Vec::new(),
    }
}

/// Those who know the values.
struct Known {
    config: Option<Config>,
    /// Names and what they do.
    scripts: Vec<(String, String)>,
    /// What stands on the line already.
    given: Vec<String>,
}

impl Known {
    /// The command, with every argument of it and of those below knowing its values.
    fn of_all(self: &Arc<Self>, command: Command, path: &mut Vec<String>) -> Command {
        let command = command.mut_args(|arg| {
            let kinds = kinds(path, &arg);
            if kinds.is_empty() {
                return arg;
            }
            let known = self.clone();
            arg.add(ArgValueCompleter::new(move |current: &OsStr| {
                let current = current.to_str().unwrap_or_default();
                kinds.iter().flat_map(|kind| known.values(kind, current)).collect::<Vec<_>>()
            }))
        });
        command.mut_subcommands(|below| {
            path.push(below.get_name().to_owned());
            let below = self.of_all(below, path);
            path.pop();
            below
        })
    }

    fn values(&self, kind: &Kind, current: &str) -> Vec<CompletionCandidate> {
        let fitting = |value: String, help: &str| candidate(current, value, help);
        match kind {
            Kind::Agent => {
                self.agents().into_iter().filter_map(|(name, about)| fitting(name, &about)).collect()
            }
            Kind::Choice(word) => fitting(word.clone(), "").into_iter().collect(),
            Kind::Code => self.code(current),
            Kind::Expression => self.fields(current, |c| !c.is_ascii_alphanumeric() && c != '_'),
            Kind::Field => self.fields(current, |c| c == '-'),
            Kind::Fields => self.fields(current, |c| c == ',' || c == '-'),
            // A flag that is being typed is no path.
            Kind::File | Kind::Folder if current.starts_with('-') => Vec::new(),
            Kind::File => vec![CompletionCandidate::new(FILES)],
            Kind::Folder => vec![CompletionCandidate::new(FOLDERS)],
            Kind::Function => {
                self.functions().into_iter().filter_map(|(name, about)| fitting(name, &about)).collect()
            }
            Kind::Script => {
                let scripts = self.scripts.iter();
                scripts.filter_map(|(name, about)| fitting(name.clone(), about)).collect()
            }
            Kind::Session => self.sessions(current),
            Kind::Status => {
                let all = Status::ALL.into_iter().map(Status::as_str);
                all.filter_map(|word| fitting(word.to_owned(), "")).collect()
            }
        }
    }

    /// The fields of a session, for the part of a text behind the last letter that ends a name.
    fn fields(&self, current: &str, ends: impl Fn(char) -> bool) -> Vec<CompletionCandidate> {
        let begin =
            current.rfind(ends).map_or(0, |at| at + current[at..].chars().next().map_or(0, char::len_utf8));
        let (before, word) = current.split_at(begin);
        // In the middle of a call or of a text there are no fields.
        if before.ends_with(['.', '"', '`', '\'']) {
            return Vec::new();
        }
        let names = script::field_names().filter(|(name, _)| name.starts_with(word));
        names.filter_map(|(name, about)| candidate(current, format!("{before}{name}"), about)).collect()
    }

    /// What can be called, for the part of a script's text behind the last letter that ends a name.
    fn code(&self, current: &str) -> Vec<CompletionCandidate> {
        let ends = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':');
        let begin =
            current.rfind(ends).map_or(0, |at| at + current[at..].chars().next().map_or(0, char::len_utf8));
        let (before, word) = current.split_at(begin);
        let is_method = before.ends_with('.');
        let mut seen = std::collections::BTreeSet::new();
        let found = self.functions().into_iter().filter_map(|(name, about)| {
            let name = match (name.split_once('.'), is_method) {
                (Some((_, method)), true) => method.to_owned(),
                (None, false) if !name.contains('/') => name,
                _ => return None,
            };
            let fits =
                name.starts_with(word) && name.starts_with(char::is_alphabetic) && seen.insert(name.clone());
            fits.then(|| candidate(current, format!("{before}{name}"), &about)).flatten()
        });
        found.collect()
    }

    fn functions(&self) -> Vec<(String, String)> {
        let reference = self.config.as_ref().and_then(|config| help::reference(config).ok());
        reference.map(|reference| reference.names()).unwrap_or_default()
    }

    /// What a running server answers in time.
    fn ask<T>(&self, work: impl AsyncFnOnce(Client) -> client::Result<T>) -> Option<T> {
        let config = self.config.as_ref()?;
        let way = Way::new(config, &Choice::default()).ok()?;
        let client = match way.remote() {
            Some(client) => client.ok()?,
            None => {
                let own = config.socket();
                let socket = match own.exists() {
                    true => own,
                    // It may listen elsewhere: `serve --socket`.
                    false => daemon::holder(config)?.socket?,
                };
                Client::unix(&socket).ok()?
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async { tokio::time::timeout(BUDGET, work(client)).await }).ok()?.ok()
    }

    fn agents(&self) -> Vec<(String, String)> {
        let agents = self.ask(async |client| client.agents().await).unwrap_or_default();
        agents.into_iter().map(|agent| (agent.name, format!("revision {}", agent.revision))).collect()
    }

    fn sessions(&self, current: &str) -> Vec<CompletionCandidate> {
        if current.starts_with('@') {
            let last = ("@last".to_owned(), "the session that was active last".to_owned());
            let of = |(name, _)| (format!("@last:{name}"), "the same of one agent".to_owned());
            let all = std::iter::once(last).chain(self.agents().into_iter().map(of));
            return all.filter_map(|(value, help)| candidate(current, value, &help)).collect();
        }
        let whole = !current.is_empty()
            && (current.starts_with(SessionId::PREFIX) || SessionId::PREFIX.starts_with(current));
        let digits = current.strip_prefix(SessionId::PREFIX).unwrap_or(if whole { "" } else { current });
        let Some(rows) = self.ask(async |client| rows(&client, digits).await) else { return Vec::new() };
        let shown = if digits.len() > SHORT { DIGITS } else { SHORT };
        let last = rows.iter().find(|row| !row.ended).filter(|_| current.is_empty());
        let last = last.map(|row| ("@last".to_owned(), row.about.clone()));
        let of = |row: &Row| {
            let short = row.digits.get(..shown).unwrap_or(&row.digits).to_owned();
            let value = if whole { format!("{}{}", SessionId::PREFIX, row.digits) } else { short };
            (value, row.about.clone())
        };
        let is_given = |value: &String| self.given.contains(value);
        let all = last.into_iter().chain(rows.iter().map(of)).filter(|(value, _)| !is_given(value));
        all.filter_map(|(value, about)| candidate(current, value, &about)).collect()
    }
}

/// How many digits of an ID lists show.
const SHORT: usize = 12;

/// A session as it is offered.
struct Row {
    digits: String,
    ended: bool,
    about: String,
}

/// The sessions whose digits begin so, latest activity first, those that have ended behind the others.
async fn rows(client: &Client, digits: &str) -> client::Result<Vec<Row>> {
    let page = async |statuses: Vec<Status>| {
        let query = SessionQuery {
            status: statuses,
            fields: vec![Field::AgentName, Field::Status, Field::Title],
            limit: Some(SESSIONS),
            ..SessionQuery::default()
        };
        let bytes = client.sessions_raw(&query).await?;
        client::Result::Ok(serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let open = page(Status::ALL.into_iter().filter(|status| *status != Status::Ended).collect()).await?;
    let ended = page(vec![Status::Ended]).await?;
    let mut found: Vec<Row> = Vec::new();
    for session in [&open, &ended].into_iter().filter_map(|page| page["sessions"].as_array()).flatten() {
        let id = session["id"].as_str().unwrap_or_default();
        let id = id.strip_prefix(SessionId::PREFIX).unwrap_or(id);
        if id.starts_with(digits) {
            found.push(Row {
                digits: id.to_owned(),
                ended: session["status"] == "ended",
                about: about(session),
            });
        }
    }
    // Of very many sessions the one that is meant may lie further back.
    let is_all = [&open, &ended].into_iter().all(|page| page["next_cursor"].is_null());
    if !digits.is_empty() && !is_all {
        for id in client.matching(digits).await? {
            let digits = id.as_str().strip_prefix(SessionId::PREFIX).unwrap_or_default();
            if !found.iter().any(|row| row.digits == digits) {
                found.push(Row { digits: digits.to_owned(), ended: false, about: String::new() });
            }
        }
    }
    Ok(found)
}

/// `remember to buy milk (idle, notes)`.
fn about(session: &Value) -> String {
    let text = |key: &str| session[key].as_str().unwrap_or_default();
    let title = match render::clean_line(text("title")).trim() {
        "" => "Untitled".to_owned(),
        title => render::shorten(title, TITLE),
    };
    let rest = [text("status"), text("agent_name")];
    let rest: Vec<&str> = rest.into_iter().filter(|word| !word.is_empty()).collect();
    format!("{title} ({})", render::clean_line(&rest.join(", ")))
}

/// An answer, if it begins with what was typed.
fn candidate(current: &str, value: String, about: &str) -> Option<CompletionCandidate> {
    let help = (!about.is_empty()).then(|| about.to_owned().into());
    value.starts_with(current).then(|| CompletionCandidate::new(value).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_taken_off() {
        for (word, text) in [
            ("plain", "plain"),
            ("'a b'", "a b"),
            ("'open and", "open and"),
            ("\"a \\\" b", "a \" b"),
            ("my\\ file", "my file"),
            ("a'b'\"c\"", "abc"),
            ("back\\", "back"),
            ("", ""),
        ] {
            assert_eq!(unquoted(word), text, "{word}");
        }
    }

    #[test]
    fn words_that_are_no_flags_have_their_places() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(plain_words(&words("superserve --json sessions --color never list -")), [2, 5, 6]);
        assert_eq!(plain_words(&words("superserve")), [0_usize; 0]);
    }

    #[test]
    fn a_value_is_what_it_is_called() {
        let of = |value: &'static str, id: &'static str| {
            kinds(&["x".to_owned()], &Arg::new(id).value_name(value).num_args(1))
        };
        assert_eq!(of("AGENT|PATH", "target"), [Kind::Agent, Kind::File]);
        assert_eq!(of("fast|SESSION", "x"), [Kind::Choice("fast".into()), Kind::Session]);
        assert_eq!(of("NAME", "agent"), [Kind::Agent]);
        assert_eq!(of("NAME", "name"), []);
        assert_eq!(of("word", "x"), []);
    }
}
