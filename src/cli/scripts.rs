//! The scripts that are commands: the bundled ones, and those in the user's folder, which go before them.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::error::{self, Report};
use crate::script::header::{Header, HeaderError};
use crate::script::{Limits, Script, did_you_mean, read_text, sentence};

macro_rules! bundled {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../scripts/", $path, ".rhai")))),+]
    };
}

/// Every file in `scripts/`, by its path without the ending.
const BUNDLED: &[(&str, &str)] = bundled![
    "agents/delete",
    "agents/get",
    "agents/list",
    "deploy",
    "ops/count-messages",
    "ops/end-idle",
    "ops/list-active",
    "ops/prune",
    "ops/report",
    "ops/resume-last",
    "run",
    "secrets/delete",
    "secrets/list",
    "secrets/set",
    "sessions/attach",
    "sessions/cancel",
    "sessions/delete",
    "sessions/end",
    "sessions/export",
    "sessions/files",
    "sessions/get",
    "sessions/list",
    "sessions/messages",
    "sessions/network",
    "sessions/resume",
    "sessions/send",
    "sessions/wait",
];

/// The commands that can't be scripts, and so can't be replaced by one.
pub const NOT_SCRIPTS: [&str; 16] = [
    "auth",
    "completions",
    "context",
    "doctor",
    "eval",
    "help",
    "init",
    "login",
    "logout",
    "repl",
    "script",
    "scripts",
    "serve",
    "server",
    "test",
    "tokens",
];

/// How deep folders of commands may be nested.
const DEPTH: usize = 4;

/// A command that is a script.
#[derive(Clone, Debug)]
pub struct Command {
    /// `["sessions", "list"]`.
    pub words: Vec<String>,
    pub script: Script,
    pub header: Result<Header, HeaderError>,
    /// Whether it is one of ours, not a user's.
    pub is_bundled: bool,
}

impl Command {
    fn new(path: &str, file: Option<PathBuf>, text: Cow<'static, str>) -> Self {
        let is_bundled = file.is_none();
        let name = file.as_ref().map_or_else(|| format!("{path}.rhai"), |file| file.display().to_string());
        Self {
            words: path.split('/').map(str::to_owned).collect(),
            header: Header::parse(&text),
            script: Script { name, path: file, text },
            is_bundled,
        }
    }

    /// `sessions list`.
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    /// What it does, in a line.
    pub fn summary(&self) -> String {
        match &self.header {
            Ok(header) => header.summary().to_owned(),
            Err(error) => format!("(unusable: line {}: {error})", error.line),
        }
    }
}

/// All of them, sorted by name.
#[derive(Clone, Debug)]
pub struct Catalog(Vec<Command>);

impl Catalog {
    /// The bundled scripts and those in the user's folder. What can't be read there is passed over: a broken file
    /// must not take the other commands away.
    pub fn load(folder: &Path) -> Self {
        let mut commands = Vec::new();
        collect(folder, "", DEPTH, &mut commands);
        commands.retain(|command| !NOT_SCRIPTS.contains(&command.words[0].as_str()));
        for (path, text) in BUNDLED {
            let command = Command::new(path, None, Cow::Borrowed(text));
            if !commands.iter().any(|other: &Command| other.words == command.words) {
                commands.push(command);
            }
        }
        commands.sort_by(|a, b| a.words.cmp(&b.words));
        Self(commands)
    }

    /// The commands, sorted by name.
    pub fn commands(&self) -> &[Command] {
        &self.0
    }

    /// The command of this name; words are divided by spaces or `/`.
    pub fn find(&self, name: &str) -> Option<&Command> {
        let words = words_of(name);
        self.0.iter().find(|command| command.words == words)
    }
}

fn collect(folder: &Path, prefix: &str, depth: usize, commands: &mut Vec<Command>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Following links. A pipe would be waited for, and a folder's name has no ending.
        let Ok(about) = path.metadata() else { continue };
        let name = if about.is_dir() { path.file_name() } else { path.file_stem() };
        let Some(name) = name.and_then(|name| name.to_str()).filter(|name| is_word(name)) else { continue };
        let command = format!("{prefix}{name}");
        if about.is_dir() {
            if depth > 1 {
                collect(&path, &format!("{command}/"), depth - 1, commands);
            }
        } else if about.is_file() && path.extension().is_some_and(|ending| ending == "rhai") {
            match read_text(&path, Limits::default().text as u64) {
                Ok(text) => commands.push(Command::new(&command, Some(path), Cow::Owned(text))),
                // It is told of when somebody calls it.
                Err(error) => commands.push(Command {
                    header: Err(HeaderError {
                        line: 1,
                        message: format!("the script can't be read: {}", sentence(&error)),
                    }),
                    ..Command::new(&command, Some(path), Cow::Borrowed(""))
                }),
            }
        }
    }
}

/// A bundled script's copy.
pub struct Copied {
    /// The command.
    pub name: String,
    pub path: PathBuf,
}

/// Copies a bundled script into the user's folder; with `dry_run` says where it would go. Errors: no bundled command has
/// this name; a file is there already, and `force` is not given.
pub fn copy(
    catalog: &Catalog,
    folder: &Path,
    name: &str,
    force: bool,
    dry_run: bool,
) -> Result<Copied, Report> {
    let path = words_of(name).join("/");
    let Some((path, text)) = BUNDLED.iter().find(|(bundled, _)| *bundled == path) else {
        return Err(match catalog.find(name) {
            Some(command) => Report {
                exit: error::CONFLICT,
                code: "conflict",
                ..Report::usage(
                    format!("{} is your own already: {}", command.name(), command.script.name),
                    "Copy the file as any other, under the name of another command.",
                )
            },
            None => not_found(catalog, name),
        });
    };
    let file = folder.join(format!("{path}.rhai"));
    if !force && file.symlink_metadata().is_ok() {
        return Err(Report {
            exit: error::CONFLICT,
            code: "conflict",
            ..Report::usage(
                format!("there is a file already: {}", file.display()),
                "Look at it first; --force replaces it.",
            )
        });
    }
    if !dry_run {
        write(&file, text, force).map_err(|error| Report {
            exit: error::FAILED,
            code: "io",
            ..Report::usage(
                format!("cannot write {}: {}", file.display(), sentence(&error)),
                "The scripts folder is the setting `scripts`.",
            )
        })?;
    }
    Ok(Copied { name: path.replace('/', " "), path: file })
}

fn write(file: &Path, text: &str, force: bool) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if force && file.symlink_metadata().is_ok() {
        std::fs::remove_file(file)?;
    }
    // Not through a link, and not over what has come meanwhile.
    std::fs::OpenOptions::new().write(true).create_new(true).open(file)?.write_all(text.as_bytes())
}

/// The file that a command runs. Error: it is bundled, or there is none of this name.
pub fn path(catalog: &Catalog, name: &str) -> Result<PathBuf, Report> {
    let command = catalog.find(name).ok_or_else(|| not_found(catalog, name))?;
    command.script.path.clone().ok_or_else(|| {
        let name = command.name();
        Report {
            exit: error::NOT_FOUND,
            code: "not_found",
            ..Report::usage(
                format!("{name} is bundled, and has no file"),
                format!("superserve scripts copy {name} makes one that you can change."),
            )
        }
    })
}

/// No command of this name is a script.
pub fn not_found(catalog: &Catalog, name: &str) -> Report {
    let names: Vec<String> = catalog.commands().iter().map(Command::name).collect();
    let wanted = words_of(name).join(" ");
    let near = did_you_mean(&wanted, names.iter().map(String::as_str));
    Report {
        exit: error::NOT_FOUND,
        code: "not_found",
        ..Report::usage(
            format!("Script not found: no command '{wanted}' is a script"),
            near.unwrap_or_else(|| "Run superserve scripts list to see those that are.".to_owned()),
        )
    }
}

/// Words are divided by spaces or `/`.
fn words_of(name: &str) -> Vec<&str> {
    name.split(['/', ' ']).filter(|word| !word.is_empty()).collect()
}

/// What can be typed as a command.
fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_was_forgotten() {
        let mut found = Vec::new();
        collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts")), "", DEPTH, &mut found);
        let mut found: Vec<String> = found.iter().map(|command| command.words.join("/")).collect();
        found.sort();
        assert_eq!(found, BUNDLED.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn every_header_is_good_and_says_something() {
        for command in Catalog::load(Path::new("/nonexistent")).commands() {
            let header = command.header.as_ref().expect("a good header");
            assert!(header.summary().ends_with('.'), "{}: {}", command.name(), header.summary());
            assert!(!header.examples.is_empty(), "{} has no example", command.name());
        }
    }

    #[test]
    fn a_users_script_goes_before_a_bundled_one() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sessions")).expect("a folder");
        std::fs::write(folder.path().join("sessions/list.rhai"), "//! Mine.\n").expect("a file");
        std::fs::write(folder.path().join("sessions/.hidden.rhai"), "").expect("a file");
        std::fs::write(folder.path().join("serve.rhai"), "//! Never run.\n").expect("a file");
        let catalog = Catalog::load(folder.path());
        assert!(catalog.find("serve").is_none());
        let command = catalog.find("sessions/list").expect("the command");
        assert_eq!((command.summary().as_str(), command.is_bundled), ("Mine.", false));
        assert_eq!(catalog.commands().len(), BUNDLED.len());
    }

    #[test]
    fn what_is_no_script_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["a.b", "pipe.rhai", "c"] {
            std::fs::create_dir(folder.path().join(path)).expect("a folder");
        }
        for path in ["a.b/x.rhai", "pipe.rhai/x.rhai", "c/x.rhai", "c/x.txt", "c/-x.rhai"] {
            std::fs::write(folder.path().join(path), "//! Mine.\n").expect("a file");
        }
        std::fs::write(folder.path().join("c/bytes.rhai"), b"//! \xff\n").expect("a file");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("c/again")).expect("a link");
        let fifo = folder.path().join("c/fifo.rhai");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a pipe");
        let catalog = Catalog::load(folder.path());
        let mine: Vec<String> =
            catalog.commands().iter().filter(|command| !command.is_bundled).map(Command::name).collect();
        assert_eq!(mine, ["c again c bytes", "c again c x", "c bytes", "c x"]);
        let bytes = catalog.find("c bytes").expect("the command");
        assert_eq!(bytes.summary(), "(unusable: line 1: the script can't be read: it is not UTF-8)");
    }
}
