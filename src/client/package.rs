//! An agent's folder or script, packed for the server.

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;
use serde_json::Value;

use super::{Error, Result};
use crate::wire::agent::Mode;
use crate::wire::agent::{MAX_NAME, SourceHash, is_agent_name};
use crate::wire::{AgentConfig, AgentLimits};

/// What describes an agent in its folder.
const CONFIG_FILE: &str = "superserve.yaml";
/// What may stand there. The wire takes more, since the original's clients send some; in a file it is a slip.
const CONFIG_KEYS: [&str; 9] =
    ["command", "entrypoint", "ignore", "limits", "mode", "name", "network", "port", "secrets"];
/// Never packed, whatever the configuration says: secrets, and what is made again from the rest.
const NEVER: [&str; 4] = [".git", ".env*", "node_modules", ".venv"];
/// The most that is packed, in bytes before compression.
const MAX_BYTES: u64 = 200 << 20;

/// So many bytes are compressed at a time.
const PIECE: usize = 1 << 20;

/// An agent as it is sent to the server.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub config: AgentConfig,
    /// tar, gzipped. The same files give the same bytes, whoever packs them and when.
    pub archive: Vec<u8>,
    /// What the server will say the agent's `source_hash` is.
    pub source_hash: String,
}

impl Package {
    /// Packs a folder that holds a `superserve.yaml`, or a script with the folder around it.
    ///
    /// `name` goes before the one in the file, which goes before the folder's; `port` before the one in the file.
    /// Errors: the path is missing, the file can't be read or parsed, no command is known, the name is no agent's name,
    /// the folder is too large. `packed` is told how many bytes are packed, again and again.
    pub fn from_path(
        path: &Path,
        name: Option<&str>,
        port: Option<u16>,
        packed: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let missing = || Error::Missing {
            what: "Agent's folder or script",
            path: path.to_owned(),
            hint: Some("Check the path; superserve agents list shows what is deployed.".into()),
        };
        let whole = path.canonicalize().map_err(|_| missing())?;
        let folder = if whole.is_dir() { whole.clone() } else { whole.parent().unwrap_or(&whole).to_owned() };
        let mut config = read_config(&folder)?;
        if whole.is_file() {
            config.command = Some(script_command(&folder, Path::new(whole.file_name().unwrap_or_default()))?);
        } else if config.command.is_none()
            && let Some(entrypoint) = &config.entrypoint
        {
            config.command = Some(script_command(&folder, Path::new(entrypoint))?);
        } else if config.command.as_deref().is_none_or(|command| command.trim().is_empty()) {
            return Err(Error::Input {
                message: format!("no command for the agent in {}", path.display()),
                hint: Some(format!(
                    "Write one into {CONFIG_FILE} there (command: python agent.py), or name the script: superserve deploy agent.py"
                )),
            });
        }
        if port.is_some() {
            config.port = port;
            config.mode = config.mode.filter(|mode| *mode == Mode::Http);
        }
        if let Some(nonsense) = config.mode_nonsense() {
            return Err(Error::Input {
                message: format!("cannot deploy {}: {nonsense}", path.display()),
                hint: Some(format!(
                    "An HTTP agent has the port on which it listens: write port: 8000 into {CONFIG_FILE}, or give --port 8000."
                )),
            });
        }
        let name = agent_name(name, &config, &folder)?;
        config.name = Some(name.clone());
        let tar = pack(&folder, &config.ignore, packed)?;
        let (mut hash, mut gzip) = (SourceHash::default(), GzEncoder::new(Vec::new(), Compression::fast()));
        for piece in tar.chunks(PIECE) {
            hash.update(piece);
            gzip.write_all(piece).map_err(|error| unreadable(&folder, &error))?;
            packed(tar.len() as u64);
        }
        let source_hash = hash.finish(&config);
        let archive = gzip.finish().map_err(|error| unreadable(&folder, &error))?;
        Ok(Self { name, config, archive, source_hash })
    }
}

fn read_config(folder: &Path) -> Result<AgentConfig> {
    let path = folder.join(CONFIG_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(AgentConfig::default()),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let wrong = |reason: &str| {
        Error::Input {
        message: format!("cannot read {}: {}", path.display(), reason.lines().next().unwrap_or_default()),
        hint: Some("Its keys are name, command, entrypoint, mode (shim or http), port, secrets, ignore, network (none, host, allow, or allow: with a list of rules) and limits.".into()),
    }
    };
    // A file of comments alone is none at all.
    let keys: Option<serde_json::Map<String, Value>> =
        serde_saphyr::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let keys = keys.unwrap_or_default();
    if let Some(key) = keys.keys().find(|key| !CONFIG_KEYS.contains(&key.as_str())) {
        return Err(wrong(&format!("unknown key '{key}'")));
    }
    if let Some(reason) = keys.get("limits").and_then(wrong_limit) {
        return Err(wrong(&reason));
    }
    serde_json::from_value(Value::Object(keys)).map_err(|error| wrong(&error.to_string()))
}

/// What is wrong with the limits, by the key of the one that is.
fn wrong_limit(given: &Value) -> Option<String> {
    let Value::Object(all) = given else {
        return Some("limits must be keys with values, such as memory: 512MiB".to_owned());
    };
    all.iter().find_map(|(key, value)| {
        let alone = serde_json::Map::from_iter([(key.clone(), value.clone())]);
        match serde_json::from_value::<AgentLimits>(Value::Object(alone)) {
            Ok(limits) => limits.nonsense(),
            Err(error) => Some(format!("limits.{key}: {error}")),
        }
    })
}

fn agent_name(given: Option<&str>, config: &AgentConfig, folder: &Path) -> Result<String> {
    if let Some(name) = given.or(config.name.as_deref()) {
        return if is_agent_name(name) { Ok(name.to_owned()) } else { Err(bad_name(name)) };
    }
    let name = folder_name(folder);
    if is_agent_name(&name) { Ok(name) } else { Err(bad_name(&name)) }
}

/// What an agent is called by its folder, if that makes a name.
pub fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

fn bad_name(name: &str) -> Error {
    Error::Input {
        message: format!("'{name}' is no name for an agent"),
        hint: Some(format!(
            "A name begins with a-z, goes on with a-z, 0-9 and -, and has at most {MAX_NAME} characters: give one with --name."
        )),
    }
}

/// The command that runs a script in its folder: its `#!` line, else by its ending.
pub fn script_command(folder: &Path, name: &Path) -> Result<String> {
    if !name.components().all(|part| matches!(part, Component::CurDir | Component::Normal(_))) {
        return Err(Error::Input {
            message: format!("the entrypoint {} is not inside the agent's folder", name.display()),
            hint: Some("Give it as a path from there: entrypoint: agent.py.".into()),
        });
    }
    let script = &folder.join(name);
    let start = std::fs::read(script).map_err(|error| unreadable(script, &error))?;
    let first_line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let inside = name.strip_prefix(".").unwrap_or(name).to_string_lossy();
    let file = shell_words::quote(&format!("./{inside}")).into_owned();
    if let Some(interpreter) = std::str::from_utf8(first_line).ok().and_then(|line| line.strip_prefix("#!")) {
        let mut words: Vec<&str> = interpreter.split_whitespace().collect();
        if words.first().is_some_and(|word| word.ends_with("/env")) {
            words.remove(0);
            if words.first() == Some(&"-S") {
                words.remove(0);
            }
        }
        if !words.is_empty() {
            words.push(&file);
            return Ok(words.join(" "));
        }
    }
    let interpreter = match script.extension().and_then(|ending| ending.to_str()) {
        Some("py") => "python3",
        Some("js") => "node",
        Some("ts") => "node --import tsx",
        Some("sh") => "sh",
        _ => {
            return Err(Error::Input {
                message: format!("cannot tell how to run {}", script.display()),
                hint: Some("Begin it with a #! line, or end its name in .py, .js, .ts or .sh.".into()),
            });
        }
    };
    Ok(format!("{interpreter} {file}"))
}

/// The folder as a tar stream: sorted, without owners and times, so that only what is in it counts.
fn pack(folder: &Path, ignore: &[String], packed: &mut dyn FnMut(u64)) -> Result<Vec<u8>> {
    let mut overrides = OverrideBuilder::new(folder);
    for pattern in NEVER.iter().copied().chain(ignore.iter().map(String::as_str)) {
        overrides.add(&format!("!{pattern}")).map_err(|error| Error::Input {
            message: format!("the pattern '{pattern}' under ignore is wrong: {error}"),
            hint: Some("Patterns are those of a .gitignore.".into()),
        })?;
    }
    let overrides =
        overrides.build().map_err(|error| Error::Input { message: error.to_string(), hint: None })?;
    let walk = WalkBuilder::new(folder)
        .standard_filters(false)
        .overrides(overrides)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build();
    let mut tar = tar::Builder::new(Vec::new());
    let mut bytes = 0;
    for entry in walk {
        let entry = entry.map_err(|error| Error::Input {
            message: format!("cannot pack {}: {error}", folder.display()),
            hint: None,
        })?;
        let path = entry.path();
        let Some(name) = path.strip_prefix(folder).ok().filter(|name| !name.as_os_str().is_empty()) else {
            continue;
        };
        append(&mut tar, path, name, &mut bytes)?;
        packed(bytes);
    }
    tar.into_inner().map_err(|error| unreadable(folder, &error))
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &Path, name: &Path, bytes: &mut u64) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| unreadable(path, &error);
    let meta = path.symlink_metadata().map_err(failed)?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    if meta.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, name, std::io::empty()).map_err(failed)
    } else if meta.is_symlink() {
        let target: PathBuf = std::fs::read_link(path).map_err(failed)?;
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, name, target).map_err(failed)
    } else if meta.is_file() {
        let content = std::fs::read(path).map_err(failed)?;
        *bytes += content.len() as u64;
        if *bytes > MAX_BYTES {
            return Err(Error::Input {
                message: format!("the agent's folder is larger than {} MiB", MAX_BYTES >> 20),
                hint: Some(format!("Name what it doesn't need under ignore in {CONFIG_FILE}.")),
            });
        }
        header.set_mode(if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_slice()).map_err(failed)
    } else {
        // Sockets, pipes and devices are no part of an agent.
        Ok(())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Input { message: format!("cannot read {}: {error}", path.display()), hint: None }
}
