//! A session's folders: its workspace, filled from its agent's code, its home, and what it may read of the server.

use std::collections::VecDeque;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use serde_json::json;

use super::{Error, Result, dependencies};
use crate::fault;
use crate::harness;
use crate::sandbox::{Sandbox, Wiped};
use crate::store::HistoryLine;
use crate::wire::{AgentId, Role, SessionId};

/// Where everything lies under the state folder.
#[derive(Clone, Debug)]
pub struct Layout {
    home: PathBuf,
}

/// The folders of one session.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Holds the others; goes as a whole when the session ends.
    pub all: PathBuf,
    pub workspace: PathBuf,
    pub home: PathBuf,
    pub runtime: PathBuf,
}

impl Folders {
    /// The FIFO on which the agent says that its turn is over.
    pub fn turn(&self) -> PathBuf {
        self.runtime.join(TURN)
    }
}

/// The FIFO's name in the session's runtime folder.
pub const TURN: &str = "turn";
/// What a folder's name ends in until it is whole.
pub const NEW: &str = "tmp";
/// The history's name in the session's runtime folder.
pub const HISTORY: &str = "history.jsonl";
/// The shims' names there, which their interpreters ask for.
pub const PYTHON_SHIM: &str = "shim/py/sitecustomize.py";
const APP: &str = "shim/py/app.py";
pub const NODE_SHIM: &str = "shim/node.cjs";

impl Layout {
    /// The layout under a state folder; makes the folders that it consists of.
    pub fn new(home: &Path) -> Result<Self> {
        let layout = Self { home: home.to_owned() };
        for folder in [layout.agents(), layout.all_dependencies(), layout.sessions(), layout.trash()] {
            make_private(&folder)?;
        }
        Ok(layout)
    }

    pub fn agents(&self) -> PathBuf {
        self.home.join("agents")
    }

    pub fn all_dependencies(&self) -> PathBuf {
        self.home.join("deps")
    }

    /// What was installed for this hash.
    pub fn dependencies(&self, hash: &str) -> PathBuf {
        self.all_dependencies().join(hash)
    }

    pub fn sessions(&self) -> PathBuf {
        self.home.join("sessions")
    }

    /// Where copies are made for backups.
    pub fn aside(&self) -> PathBuf {
        self.home.join("aside")
    }

    pub fn trash(&self) -> PathBuf {
        self.home.join("trash")
    }

    pub fn agent(&self, id: &AgentId) -> PathBuf {
        self.agents().join(id.as_str())
    }

    /// What was deployed as this revision of an agent, `src` in it.
    pub fn revision(&self, id: &AgentId, revision: u64) -> PathBuf {
        self.agent(id).join(revision.to_string())
    }

    /// What deployments left that were never finished.
    pub fn half_deployed(&self) -> Vec<PathBuf> {
        let below = |path: &Path| {
            std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect::<Vec<_>>()
        };
        let revisions = below(&self.agents()).into_iter().flat_map(|agent| below(&agent));
        revisions.filter(|path| path.extension().is_some_and(|ending| ending == NEW)).collect()
    }

    pub fn session(&self, id: &SessionId) -> Folders {
        let all = self.sessions().join(id.as_str());
        Folders { workspace: all.join("workspace"), home: all.join("home"), runtime: all.join("run"), all }
    }

    /// Removes a folder with all that is in it, links left unfollowed. One that isn't there is no error. Blocks.
    pub fn wipe(&self, folder: &Path) -> Result<Wiped> {
        match folder.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Wiped::default()),
            _ => {}
        }
        match crate::sandbox::wipe(&self.trash(), folder) {
            Ok(wiped) => {
                tracing::debug!(folder = %folder.display(), wiped.files, wiped.bytes, "wiped");
                Ok(wiped)
            }
            Err(source) => Err(failed("wipe", folder)(source)),
        }
    }
}

impl Folders {
    /// Where its folders are made.
    pub fn half_made(&self) -> [PathBuf; 2] {
        [&self.workspace, &self.home].map(|folder| folder.with_extension(NEW))
    }

    /// Makes what is missing of a session's folders, and writes its history anew. `src` is its agent's code; `uid`
    /// what its files belong to where the server is a privileged root. Blocks.
    pub fn prepare(
        &self,
        src: &Path,
        history: &[HistoryLine],
        layout: &Layout,
        sandbox: &dyn Sandbox,
        uid: u32,
    ) -> Result<()> {
        make_private(&self.all)?;
        for (folder, from) in [(&self.workspace, Some(src)), (&self.home, None)] {
            if folder.exists() {
                continue;
            }
            // Under another name until it is whole, so that one that is there is a whole one.
            let new = folder.with_extension(NEW);
            layout.wipe(&new)?;
            let made = match from {
                Some(from) => copy(from, &new),
                None => DirBuilder::new().mode(0o755).create(&new).map_err(failed("make", &new)),
            };
            let given = made.and_then(|()| sandbox.own(uid, &new).map_err(failed("give away", &new)));
            if let Err(error) = given {
                // What did fit on a full disk would only keep it full.
                layout.wipe(&new)?;
                return Err(error);
            }
            fault::step("workspace.rename", || std::fs::rename(&new, folder))
                .map_err(failed("rename", &new))?;
        }
        make_open(&self.runtime)?;
        make_fifo(&self.turn())?;
        self.write_shims()?;
        self.write_history(history)
    }

    /// Makes the place where the session sees what was installed for its agent. Blocks.
    pub fn place_dependencies(&self, deps: &Path, sandbox: &dyn Sandbox, uid: u32) -> Result<()> {
        let mounts = sandbox.mounts();
        if dependencies::place_node(deps, mounts, &self.workspace)
            .map_err(failed("write", &self.workspace))?
        {
            let place = self.workspace.join(dependencies::NODE_FOLDER);
            sandbox.own(uid, &place).map_err(failed("give away", &place))?;
        }
        Ok(())
    }

    /// Writes what the agent's interpreter loads.
    fn write_shims(&self) -> Result<()> {
        for folder in ["shim", "shim/py"] {
            make_open(&self.runtime.join(folder))?;
        }
        let python = [(APP, harness::APP), (PYTHON_SHIM, harness::PYTHON_SHIM)];
        for (name, text) in python.into_iter().chain([(NODE_SHIM, harness::NODE_SHIM)]) {
            let path = self.runtime.join(name);
            let new = write_new(&path, text)?;
            std::fs::rename(&new, &path).map_err(failed("write", &path))?;
        }
        Ok(())
    }

    fn write_history(&self, lines: &[HistoryLine]) -> Result<()> {
        let text: String = lines.iter().map(history_line).collect();
        let path = self.runtime.join(HISTORY);
        let new = write_new(&path, &text)?;
        fault::step("workspace.history", || std::fs::rename(&new, &path)).map_err(failed("write", &path))
    }

    /// Adds a turn's lines to the history that the agent reads.
    pub fn append_history(&self, lines: &[HistoryLine]) -> io::Result<()> {
        let text: String = lines.iter().map(history_line).collect();
        let mut file = OpenOptions::new()
            .append(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.runtime.join(HISTORY))?;
        file.write_all(text.as_bytes())
    }
}

/// Writes a file that the agent may read, beside the one whose place it will take.
fn write_new(path: &Path, text: &str) -> Result<PathBuf> {
    let new = path.with_extension(NEW);
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new)
        .map_err(failed("write", &new))?;
    file.write_all(text.as_bytes()).map_err(failed("write", &new))?;
    file.set_permissions(Permissions::from_mode(0o644)).map_err(failed("write", &new))?;
    Ok(new)
}

fn history_line(line: &HistoryLine) -> String {
    let mut object = json!({
        "turn": line.turn,
        "role": match line.role { Role::Agent => "agent", Role::User => "user" },
        "content": line.content,
        "at": line.at,
    });
    if let (true, Some(object)) = (line.interrupted, object.as_object_mut()) {
        object.insert("interrupted".into(), true.into());
    }
    format!("{object}\n")
}

/// Makes a folder of ours, and those above it, for this user alone.
fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

/// Makes a folder that everybody may enter who reaches it, if it isn't there.
pub fn make_open(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", path)(error));
        }
        _ => {}
    }
    // The umask may close it.
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed("open", path))
}

fn make_fifo(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if std::os::unix::fs::FileTypeExt::is_fifo(&meta.file_type()) => return Ok(()),
        Ok(_) => std::fs::remove_file(path).map_err(failed("replace", path))?,
        Err(_) => {}
    }
    // The agent writes to it, whatever its uid.
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0)
        .and_then(|()| rustix::fs::chmod(path, mode))
        .map_err(|errno| failed("make", path)(errno.into()))
}

/// Copies a folder as it is: modes kept, links as links. `to` must not exist.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut folders = VecDeque::from([(from.to_owned(), to.to_owned())]);
    while let Some((from, to)) = folders.pop_front() {
        DirBuilder::new().mode(0o755).create(&to).map_err(failed("make", &to))?;
        for entry in std::fs::read_dir(&from).map_err(failed("read", &from))? {
            let entry = entry.map_err(failed("read", &from))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().map_err(failed("read", &source))?;
            if kind.is_dir() {
                folders.push_back((source, target));
            } else if kind.is_symlink() {
                std::fs::read_link(&source)
                    .and_then(|link| std::os::unix::fs::symlink(link, &target))
                    .map_err(failed("write", &target))?;
            } else {
                std::fs::copy(&source, &target).map_err(failed("write", &target))?;
            }
        }
    }
    Ok(())
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Folder { doing, path: path.to_owned(), source }
}
