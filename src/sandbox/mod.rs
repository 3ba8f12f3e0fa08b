//! One isolated process tree over one workspace. Drivers by name; the only place that starts agents.
//!
//! Not here: what an agent says (harness) and whose workspace it is (platform).

mod bwrap;
mod cgroup;
mod filter;
mod init;
mod landlock;
mod launch;
mod limits;
mod mounts;
mod native;
mod network;
mod none;
mod probe;
mod protocol;
mod spawner;
mod tree;
mod usage;
mod wipe;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod story;
#[cfg(test)]
mod walls;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::wire::{Isolation, Network};

pub use bwrap::{INIT, init_main};
pub use cgroup::Grouped;
pub use limits::Limits;
pub use spawner::{LaunchSpawner, Spawner, spawner_main};
pub use usage::{Measured, Usage, measure};
pub use wipe::{Wiped, empty_trash, wipe};

/// Which driver the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that the machine allows, but never none.
    #[default]
    Auto,
    /// Namespaces of its own for every agent.
    Native,
    /// The same, made by bubblewrap.
    Bwrap,
    /// The kernel's rules over the host's own files: reduced isolation, for machines without namespaces.
    Landlock,
    /// No isolation at all.
    None,
}

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub choice: Choice,
    /// Whether `Auto` may go on with a driver that isolates less than it should.
    pub only_full: bool,
}

/// A driver that works on this machine.
#[derive(Clone)]
pub struct Opened {
    pub sandbox: Arc<dyn Sandbox>,
    /// Why it is none that isolates fully.
    pub weaker: Option<Refusal>,
}

/// A driver, and what the machine says to it.
pub struct Tried {
    pub name: &'static str,
    pub isolation: Isolation,
    pub result: Result<(), Refusal>,
}

/// Opens the driver of that choice, after an agent has been run through its complete profile.
///
/// `scratch` is an existing folder on the disk that will hold the workspaces; the probe makes its own folders in it
/// and removes them, and keeps a note there that the best driver works, which holds until the machine is started anew.
/// `uid` is one that a session could get.
///
/// # Errors
/// What the machine refuses: of `Auto`, what the best driver lacks.
pub async fn open(wish: Wish, spawner: Spawner, scratch: &Path, uid: u32) -> Result<Opened, Refusal> {
    if wish.choice != Choice::None {
        spawner.group(scratch).await;
    }
    let mut refused = None;
    for sandbox in candidates(wish, &spawner, scratch) {
        match probe::once(sandbox.as_ref(), scratch, uid).await {
            Ok(()) => {
                let weaker = refused.filter(|_| sandbox.isolation() != Isolation::Full);
                return Ok(Opened { sandbox, weaker });
            }
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    Err(refused.unwrap_or_else(|| Refusal {
        step: "sandbox".to_owned(),
        reason: "there is no driver".to_owned(),
        remedy: "Choose one with --sandbox.".to_owned(),
    }))
}

/// What this machine lets a server bound by control groups, for all processes of a sandbox together. Blocks.
pub fn grouped() -> Grouped {
    cgroup::Groups::on_trial().grouped()
}

/// Tries every driver that isolates, the best first. As for [`open`], but nothing is noted.
pub async fn survey(spawner: &Spawner, scratch: &Path, uid: u32) -> Vec<Tried> {
    let mut tried = Vec::new();
    for sandbox in candidates(Wish::default(), spawner, scratch) {
        let result = probe::probe(sandbox.as_ref(), scratch, uid).await;
        tried.push(Tried { name: sandbox.name(), isolation: sandbox.isolation(), result });
    }
    tried
}

/// The drivers to try, the best first.
fn candidates(wish: Wish, spawner: &Spawner, scratch: &Path) -> Vec<Arc<dyn Sandbox>> {
    let native = || -> Arc<dyn Sandbox> { Arc::new(native::Native::new(spawner.clone(), scratch)) };
    let bwrap = || -> Arc<dyn Sandbox> { Arc::new(bwrap::Bwrap::new(spawner.clone())) };
    let landlock = || -> Arc<dyn Sandbox> {
        {
            let uid = rustix::process::geteuid().as_raw();
            Arc::new(landlock::Landlock::new(spawner.clone(), uid))
        }
    };
    match wish.choice {
        Choice::Auto if wish.only_full => vec![native(), bwrap()],
        Choice::Auto => vec![native(), bwrap(), landlock()],
        Choice::Bwrap => vec![bwrap()],
        Choice::Native => vec![native()],
        Choice::Landlock => vec![landlock()],
        Choice::None => vec![Arc::new(none::None::new(spawner.clone()))],
    }
}

/// Where an agent sees its folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    pub workspace: PathBuf,
    pub home: PathBuf,
    pub runtime: PathBuf,
}

/// What to start, over which folders.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// Names the sandbox: its host name.
    pub name: String,
    /// The program and its arguments; a program without `/` is looked for on the sandbox's PATH.
    pub argv: Vec<String>,
    /// The whole environment of the agent.
    pub env: Vec<(String, String)>,
    /// Host folder that is `/workspace` inside, and the working folder. Lasting.
    pub workspace: PathBuf,
    /// Host folder that is `/home/agent` inside. Lasting.
    pub home: PathBuf,
    /// Host folder that is `/run/superserve` inside, read-only.
    pub runtime: PathBuf,
    /// Host folders that are seen read-only at the same path inside (an interpreter under somebody's home, say).
    pub read_only: Vec<PathBuf>,
    /// Host folders that are seen at other paths inside; only where [`Sandbox::mounts`].
    pub shown: Vec<Shown>,
    pub network: Network,
    pub limits: Limits,
    /// The host uid that this session's files belong to; used only where the server is a privileged root.
    pub uid: u32,
}

/// A host folder that is seen at another path inside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shown {
    pub host: PathBuf,
    pub inside: PathBuf,
    pub writable: bool,
}

/// A started agent. Dropping it kills the whole tree.
pub struct Process {
    /// The write end of the agent's stdin, non-blocking.
    pub stdin: OwnedFd,
    /// The read ends of its stdout and stderr, non-blocking.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where the network is an allow-list: the sockets in the agent's namespace at which all that it asks for arrives, a
    /// UDP and a TCP one at port 53, and a TCP listener for each port that may be allowed.
    pub sockets: Vec<OwnedFd>,
    pub tree: Box<dyn Tree>,
}

/// The processes of one sandbox. Dropping it kills them all.
pub trait Tree: Send + Sync {
    /// The host's pid of the process at the root of the tree.
    fn root(&self) -> i32;
    /// Whether the root is our own init, and so no part of the agent.
    fn root_is_init(&self) -> bool;
    /// Answers when the agent's main process has ended; at once if it already has. May be asked again.
    fn exited(&self) -> BoxFuture<'_, Exit>;
    /// An unconnected, non-blocking TCP socket in the agent's own network, whose loopback nobody else reaches. Fails if
    /// the tree has ended.
    fn dial(&self) -> BoxFuture<'_, std::io::Result<OwnedFd>>;
    /// SIGINT to the agent's process group. Nothing happens if it has ended.
    fn interrupt(&self);
    /// SIGTERM to the agent's main process. Nothing happens if it has ended.
    fn terminate(&self);
    /// SIGKILL to the whole tree; answers when nothing of it is left.
    fn kill(&self) -> BoxFuture<'_, ()>;
}

/// A way of starting agents.
pub trait Sandbox: Send + Sync {
    /// The driver's name: `native`, `none`.
    fn name(&self) -> &'static str;
    /// How well it keeps agents apart from the machine.
    fn isolation(&self) -> Isolation;
    /// Whether folders can be seen at other paths inside than on the host.
    fn mounts(&self) -> bool;
    /// Where the agent sees the folders of `spec`. Environment values that name them are the caller's to build.
    fn inside(&self, spec: &Spec) -> Inside;
    /// Whose the files of the session with that uid are; `None` where sessions share the server's own uid.
    fn owner(&self, _uid: u32) -> Option<u32> {
        None
    }
    /// Gives `path` and all below it to the session with that uid, without following links; does nothing where
    /// sessions share the server's own uid. For folders whose agent isn't running. Blocks.
    fn own(&self, uid: u32, path: &Path) -> std::io::Result<()>;
    /// Starts an agent; when this answers, the program has been exec'd.
    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>>;
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The kernel ended it since its sandbox took more memory than this, in bytes.
    OutOfMemory(u64),
}

/// Why an agent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine refuses the sandbox.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The program is missing, not executable or of a wrong format.
    #[error("cannot run '{program}': {source}")]
    Exec { program: String, source: std::io::Error },
    /// Our own side failed: out of files or processes, the spawner is gone.
    #[error("cannot start the agent's sandbox: {0}")]
    Io(#[from] std::io::Error),
}

/// What the machine refused, and what its owner can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine refuses the sandbox: {step}: {reason}")]
pub struct Refusal {
    /// The step that failed: `user namespace`, `mount /proc`, …
    pub step: String,
    /// The system's own words.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}
