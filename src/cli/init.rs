//! `superserve init`: what makes a folder an agent. Nothing that is there is changed.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::error::{self, Report};
use super::ui::Ui;
use crate::client;
use crate::daemon::on_path;
use crate::render;
use crate::script::{Terminal as _, mark, sentence};
use crate::wire::agent::{MAX_NAME, is_agent_name};

/// What describes an agent in its folder.
const CONFIG: &str = "superserve.yaml";
/// Scripts that are the agent wherever there is one, the likeliest first.
const KNOWN: [&str; 11] = [
    "agent.py", "main.py", "app.py", "agent.js", "index.js", "main.js", "agent.ts", "index.ts", "main.ts",
    "agent.sh", "main.sh",
];
/// The endings of scripts that can be run.
const ENDINGS: [&str; 4] = ["py", "js", "ts", "sh"];
/// So many scripts are named where it can't be told which one is meant.
const NAMED: usize = 5;

/// The agent that is written where there is none, in a language that this machine has.
const PYTHON: (&str, &str) = ("agent.py", include_str!("init/agent.py"));
const SHELL: (&str, &str) = ("agent.sh", include_str!("init/agent.sh"));

/// A folder that is an agent now.
#[derive(Debug)]
pub struct Made {
    /// The agent's.
    pub name: String,
    pub folder: PathBuf,
    pub command: String,
    /// What was written, or would be.
    pub files: Vec<&'static str>,
    /// The script that was there, if one was.
    pub found: Option<String>,
}

/// Writes what a folder lacks to be an agent; with `dry_run` says what that would be. `search_path` is where programs are
/// looked for, as in PATH.
///
/// Errors: there is a `superserve.yaml`; the name is no agent's; it can't be told which script is the agent; the folder
/// can't be read or written.
pub fn init(name: Option<&str>, folder: &Path, search_path: &str, dry_run: bool) -> Result<Made, Report> {
    let config = folder.join(CONFIG);
    if config.symlink_metadata().is_ok() {
        return Err(Report {
            exit: error::CONFLICT,
            code: "conflict",
            ..Report::usage(
                format!("there is a {CONFIG} already: {}", config.display()),
                format!("The folder is an agent: superserve deploy{}.", dir_flag(folder)),
            )
        });
    }
    let unusable = |error: io::Error| Report {
        exit: error::FAILED,
        code: "io",
        ..Report::usage(
            format!("cannot use {}: {}", folder.display(), sentence(&error)),
            "Name a folder that you may write: --dir DIR.",
        )
    };
    let is_new = match folder.metadata() {
        Ok(about) if about.is_dir() => false,
        Ok(_) => return Err(unusable(ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(unusable(error)),
    };
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = name.map_or_else(|| client::folder_name(&whole), str::to_owned);
    if !is_agent_name(&name) {
        return Err(Report::usage(
            format!("'{name}' is no name for an agent"),
            format!(
                "A name begins with a-z, goes on with a-z, 0-9 and -, and has at most {MAX_NAME} characters: superserve init NAME."
            ),
        ));
    }
    let found = if is_new { None } else { script_in(folder).map_err(unusable)?? };
    let agent = match (&found, on_path("python3", search_path).is_some()) {
        (Some(_), _) => None,
        (None, true) => Some(PYTHON),
        (None, false) => Some(SHELL),
    };
    let command = match (&found, agent) {
        (Some(script), _) => {
            client::script_command(folder, Path::new(script)).map_err(|error| Report::from(&error))?
        }
        (None, Some(("agent.py", _))) => "python3 agent.py".to_owned(),
        (None, _) => "sh agent.sh".to_owned(),
    };
    let text = config_text(&name, &command);
    let files: Vec<(&str, &str)> = [(CONFIG, text.as_str())].into_iter().chain(agent).collect();
    if !dry_run {
        std::fs::create_dir_all(folder).map_err(unusable)?;
        write_all(folder, &files).map_err(unusable)?;
    }
    let files = [CONFIG].into_iter().chain(agent.map(|(name, _)| name)).collect();
    Ok(Made { name, folder: folder.to_owned(), command, files, found })
}

/// Tells what was made and what to do next; the exit code. With `json` prints it instead: the fields that are named, or all.
pub fn tell(made: &Made, ui: &Ui, json: Option<&Vec<String>>, dry_run: bool) -> Result<i32, Report> {
    let out = |text: &str| ui.out(text).map(|()| 0).map_err(|error| Report::io(&error));
    if let Some(fields) = json {
        let value = serde_json::json!({
            "name": made.name, "path": made.folder, "command": made.command, "files": made.files,
        });
        return out(&render::escape_json(&render::pretty(&render::only(value, fields))));
    }
    if dry_run {
        let lines: String = made
            .files
            .iter()
            .map(|name| format!("would write {}\n", made.folder.join(name).display()))
            .collect();
        return out(&render::clean(&lines.replace("would write ./", "would write ")));
    }
    let what = match &made.found {
        Some(script) => format!("Wrote {CONFIG}, which runs {script}"),
        None => format!("Wrote {}", made.files.join(" and ")),
    };
    // `run NAME` means a path only where it can be nothing else.
    let path = match made.folder.display().to_string() {
        path if path.starts_with('.') || path.contains('/') => path,
        path => format!("./{path}"),
    };
    let (path, dir, name) = (shell_words::quote(&path).into_owned(), dir_flag(&made.folder), &made.name);
    ui.err(&render::clean(&format!(
        "{} {what}\n  Talk with it:  superserve run {path} \"hello\"\n  Deploy it:     superserve deploy{dir}\n  Then:          superserve run {name} \"hello\"\n",
        mark(ui, true),
    )));
    Ok(0)
}

/// How a command is told of this folder.
fn dir_flag(folder: &Path) -> String {
    match folder == Path::new(".") {
        true => String::new(),
        false => format!(" --dir {}", shell_words::quote(&folder.display().to_string())),
    }
}

/// The script in a folder that is the agent, if there is any. Inner error: it can't be told which.
fn script_in(folder: &Path) -> io::Result<Result<Option<String>, Report>> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending) && !name.starts_with('.') && path.is_file() {
            scripts.push(name.to_owned());
        }
    }
    scripts.sort();
    if let Some(name) = KNOWN.iter().find(|name| scripts.iter().any(|script| script == *name)) {
        return Ok(Ok(Some((*name).to_owned())));
    }
    if let Some(main) = package_main(folder) {
        return Ok(Ok(Some(main)));
    }
    Ok(match scripts.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        many => {
            let shown = many.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = match many.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Err(Report::usage(
                format!("it can't be told which script is the agent: {shown}{more}"),
                format!(
                    "Write a {CONFIG} with its command, such as command: sh agent.sh, or rename it to agent.py or agent.sh."
                ),
            ))
        }
    })
}

/// The script that a `package.json` calls the main one, if it is there and can be run.
fn package_main(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    let main = package["main"].as_str()?.trim_start_matches("./");
    client::script_command(folder, Path::new(main)).is_ok().then(|| main.to_owned())
}

fn config_text(name: &str, command: &str) -> String {
    include_str!("init/superserve.yaml").replace("NAME", name).replace("COMMAND", &yaml(command))
}

/// A text as a value in YAML: quoted where it could be read as something else.
fn yaml(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '/' | '_' | '-');
    match text.chars().all(is_plain) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') {
        true => text.to_owned(),
        // JSON is YAML.
        false => serde_json::Value::from(text).to_string(),
    }
}

/// Writes files that are not there yet, all or none.
fn write_all(folder: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    for (place, (name, text)) in files.iter().enumerate() {
        let path = folder.join(name);
        // Not through a link, and not over what has come meanwhile.
        let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(&path)))
        });
        if let Err(error) = written {
            for (name, _) in &files[..place] {
                let _ = std::fs::remove_file(folder.join(name));
            }
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        assert_eq!(yaml("python3 ./agent.py"), "python3 ./agent.py");
        assert_eq!(yaml("sh './a b.sh'"), "\"sh './a b.sh'\"");
        assert_eq!(yaml("a: b"), "\"a: b\"");
        assert_eq!(yaml("\"x\" #y"), "\"\\\"x\\\" #y\"");
    }
}
