//! The commands of the REPL itself, which begin with a colon.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::editing::coloured;
use super::{Ended, Shell};
use crate::cli::error::Report;
use crate::render;
use crate::script::{
    Candidate, Complete, Completion, Engine, Entry, Outcome, Page, carries_secret, did_you_mean,
};

/// A command that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Doc(String),
    Dry(Option<bool>),
    Help,
    Load(String),
    Quit,
    Save(String),
    Time(String),
    Type(String),
}

/// Each command, what it takes, and what it does.
const COMMANDS: [(&str, &str, &str); 8] = [
    (
        "doc",
        "NAME",
        "documents a function, a field, a type or a module: list, sessions::create, Session.idle",
    ),
    ("dry", "on|off", "tells what would be changed from now on, and changes nothing; or ends that"),
    ("help", "[NAME]", "this list, or the same as :doc"),
    ("load", "FILE", "runs a file; its variables, functions and imports stay"),
    ("quit", "", "leaves"),
    ("save", "FILE", "writes what was typed and went well as a script"),
    ("time", "EXPR", "evaluates, and tells how long that took"),
    ("type", "EXPR", "tells of which type a value is; nothing is changed and nothing stays"),
];

/// The line without the colon, as a word and the rest.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start().strip_prefix(':')?;
    // `::` begins no command.
    if line.starts_with(':') {
        return None;
    }
    Some(line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest)))
}

/// Where the code of an input begins, in bytes: behind a command's word, if it takes an expression.
pub fn code(line: &str) -> usize {
    match split(line) {
        None => 0,
        Some((_, rest)) => line.len() - rest.len(),
    }
}

/// Whether an input is whole.
pub fn completeness(engine: &Engine, input: &str) -> Complete {
    match split(input) {
        None => engine.completeness(input),
        Some(("time" | "type", expression)) => engine.completeness(expression),
        Some(_) => Complete::Complete,
    }
}

/// What could stand before the cursor.
pub fn complete(engine: &Engine, line: &str, cursor: usize) -> Completion {
    let Some((word, rest)) = line.get(..cursor).and_then(split) else { return engine.complete(line, cursor) };
    let begin = cursor - rest.len();
    let words = |start: usize, candidates: Vec<String>| Completion {
        start,
        candidates: candidates.into_iter().map(Candidate::plain).collect(),
    };
    let has_ended = line[..cursor].trim_start().len() > 1 + word.len();
    if !has_ended {
        let names = COMMANDS.iter().map(|(name, takes, _)| match takes.is_empty() {
            true => (*name).to_owned(),
            false => format!("{name} "),
        });
        return words(cursor - word.len(), names.filter(|name| name.starts_with(word)).collect());
    }
    match word {
        "time" | "type" => {
            let found = engine.complete(&line[begin..], rest.len());
            Completion { start: found.start + begin, ..found }
        }
        "doc" | "help" => words(begin, engine.topics(rest)),
        "dry" => words(
            begin,
            ["off", "on"].iter().filter(|word| word.starts_with(rest)).map(|w| (*w).into()).collect(),
        ),
        "load" | "save" => words(begin, files(rest)),
        _ => words(cursor, Vec::new()),
    }
}

/// Files and folders whose paths begin so.
fn files(prefix: &str) -> Vec<String> {
    let (folder, head) = match prefix.rfind('/') {
        Some(slash) => (&prefix[..=slash], &prefix[..=slash]),
        None => (".", ""),
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let slash = if entry.path().is_dir() { "/" } else { "" };
            Some(format!("{head}{name}{slash}"))
        })
        .filter(|path| {
            path.starts_with(prefix) && (prefix.ends_with('.') || !path[head.len()..].starts_with('.'))
        })
        .collect();
    found.sort();
    found
}

impl Command {
    /// The command that a line is, if it is one. Error: an unknown one, or without what it needs.
    pub fn read(line: &str) -> Option<Result<Self, Report>> {
        let (word, rest) = split(line)?;
        Some(Self::of(word.trim(), rest.trim()))
    }

    fn of(word: &str, rest: &str) -> Result<Self, Report> {
        let text = || match rest {
            "" => {
                let takes =
                    COMMANDS.iter().find(|(name, ..)| *name == word).map_or("", |(_, takes, _)| takes);
                Err(Report::usage(format!(":{word} needs something"), format!("It is :{word} {takes}.")))
            }
            rest => Ok(rest.to_owned()),
        };
        Ok(match word {
            "doc" => Self::Doc(text()?),
            "dry" => Self::Dry(match rest {
                "" => None,
                "on" => Some(true),
                "off" => Some(false),
                _ => {
                    return Err(Report::usage(
                        format!("'{rest}' is neither on nor off"),
                        "It is :dry on|off.",
                    ));
                }
            }),
            "help" if rest.is_empty() => Self::Help,
            "help" => Self::Doc(text()?),
            "load" => Self::Load(text()?),
            "quit" => Self::Quit,
            "save" => Self::Save(text()?),
            "time" => Self::Time(text()?),
            "type" => Self::Type(text()?),
            _ => {
                let names = COMMANDS.iter().map(|(name, ..)| *name);
                let hint =
                    did_you_mean(word, names).map(|hint| hint.replace('`', "").replace("mean ", "mean :"));
                return Err(Report::usage(
                    format!("there is no command ':{word}'"),
                    hint.unwrap_or_else(|| ":help lists them.".to_owned()),
                ));
            }
        })
    }

    pub fn run(self, shell: &mut Shell, engine: &mut Engine) -> Ended {
        match self {
            Self::Doc(name) => doc(shell, engine, &name),
            Self::Dry(wanted) => {
                if let Some(wanted) = wanted {
                    engine.set_dry_run(wanted);
                }
                let told = match engine.is_dry_run() {
                    true => "dry run: what would change something is told and not done\n",
                    false => "no dry run: what changes something is done\n",
                };
                shell.terminal.err(told);
                Ended::Well
            }
            Self::Help => help(shell, engine),
            // `exit` in a file ends the file.
            Self::Load(file) => match engine.load(Path::new(&file)) {
                Ok(Outcome::Exit(0) | Outcome::Done) => Ended::Well,
                Ok(Outcome::Exit(code)) => {
                    shell.terminal.err(&format!("{file} has ended with {code}\n"));
                    Ended::Failed
                }
                // The place stays: it is in the file, and not in what was typed.
                Err(failure) => shell.failed(&Report::from(&failure)),
            },
            Self::Quit => Ended::Left(0),
            Self::Save(file) => save(shell, engine, &file),
            Self::Time(expression) => {
                let begun = Instant::now();
                let outcome = engine.line(&expression);
                let time = begun.elapsed();
                let ended = shell.ended(outcome);
                if ended == Ended::Well {
                    shell.took(time);
                }
                ended
            }
            Self::Type(expression) => match engine.type_of(&expression) {
                Ok(told) if shell.json => shell.out(&render::pretty(&told)),
                Ok(told) => shell.out(&format!("{told}\n")),
                Err(failure) => shell.failed(&Report::from(&failure).without_own_place()),
            },
        }
    }
}

fn help(shell: &Shell, engine: &Engine) -> Ended {
    if shell.json {
        let commands =
            COMMANDS.map(|(name, takes, does)| json!({ "name": name, "takes": takes, "does": does }));
        return shell.out(&render::pretty(&commands));
    }
    let width = COMMANDS.iter().map(|(name, takes, _)| name.len() + takes.len()).max().unwrap_or(0) + 2;
    let mut text =
        String::from("An expression is evaluated and its value printed; `_` is the last value.\n\n");
    for (name, takes, does) in COMMANDS {
        let written = format!(":{name} {takes}");
        text.push_str(&format!("{written:width$}  {does}\n"));
    }
    text.push_str(&format!(
        "\nModules: {}; others are imported: import \"std/check\" as check;\n\
         Tab completes, Ctrl-R searches the history, Ctrl-C stops what runs, Ctrl-D leaves. A line that is not\n\
         whole goes on in the next one.\n",
        engine.modules().join(", ")
    ));
    shell.out(&text)
}

fn doc(shell: &Shell, engine: &Engine, name: &str) -> Ended {
    let page = match engine.manual(name) {
        Ok(page) => page,
        Err(hint) => {
            let hint =
                hint.unwrap_or_else(|| ":help lists the modules, and :doc MODULE what is in one.".to_owned());
            return shell.failed(&Report::usage(format!("nothing is called '{name}'"), hint));
        }
    };
    if shell.json {
        return shell.out(&render::pretty(&match page {
            Page::Entries(entries) => entries
                .iter()
                .map(|one| json!({ "signature": one.signature, "doc": one.doc, "examples": one.examples }))
                .collect::<Vec<_>>(),
            Page::Members(members) => members
                .iter()
                .map(|(signature, about)| json!({ "signature": signature, "doc": about }))
                .collect(),
        }));
    }
    let colour = shell.terminal.out_colour();
    let shown = |code: &str| if colour { coloured(engine, code, None) } else { code.to_owned() };
    let text = match page {
        Page::Entries(entries) => entries.iter().map(|one| entry(one, &shown)).collect::<Vec<_>>().join("\n"),
        Page::Members(members) => {
            let rows: Vec<Vec<String>> =
                members.into_iter().map(|(signature, about)| vec![signature, about]).collect();
            render::grid(&rows, shell.terminal.width())
        }
    };
    shell.out(&text)
}

/// The signature, the text and the examples of one function.
fn entry(entry: &Entry, shown: &dyn Fn(&str) -> String) -> String {
    let mut text = format!("{}\n", shown(&entry.signature));
    for line in entry.doc.lines() {
        text.push_str(&if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") });
    }
    for example in &entry.examples {
        text.push('\n');
        text.extend(example.lines().map(|line| format!("        {}\n", shown(line))));
    }
    text
}

fn save(shell: &mut Shell, engine: &Engine, file: &str) -> Ended {
    let script = match engine.transcript() {
        Ok(script) => script,
        Err(failure) => return shell.failed(&Report::from(&failure)),
    };
    let path = std::path::absolute(file).unwrap_or_else(|_| file.into());
    let is_ours = shell.saved.contains(&path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!is_ours);
    match options.open(&path).and_then(|mut out| out.write_all(script.as_bytes())) {
        Ok(()) => shell.saved.push(path),
        Err(failure) if failure.kind() == std::io::ErrorKind::AlreadyExists => {
            return shell.failed(&Report::usage(
                format!("{file} is there already"),
                "Give another name, or remove it first.",
            ));
        }
        Err(failure) => {
            return shell
                .failed(&Report::usage(format!("cannot write {file}: {failure}"), "Check its path."));
        }
    }
    shell.terminal.err(&format!("Saved to {file}. superserve script {file} runs it.\n"));
    if carries_secret(&script) {
        shell.terminal.err("It looks as if it carries a secret: look through it before you share it.\n");
    }
    Ended::Well
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_and_each_is_read() {
        assert!(COMMANDS.is_sorted());
        for (name, takes, _) in COMMANDS {
            let argument = if takes == "on|off" { "on" } else { "x" };
            let read = Command::read(&format!("  :{name} {argument}\n")).expect("a command");
            assert!(read.is_ok(), "{name}");
            let bare = Command::read(&format!(":{name}")).expect("a command");
            let needs = !takes.is_empty() && !matches!(name, "dry" | "help");
            assert_eq!(bare.is_err(), needs, "{name}");
        }
    }

    #[test]
    fn unknown_ones_are_told_with_the_nearest() {
        let hint = |line| Command::read(line).expect("a command").expect_err("unknown").hint;
        assert_eq!(hint(":typ 1"), Some("Did you mean :type?".to_owned()));
        assert_eq!(hint(":frobnicate"), Some(":help lists them.".to_owned()));
        assert!(Command::read("1 + 1").is_none() && Command::read("::x").is_none());
    }
}
