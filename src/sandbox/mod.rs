//! One isolated process tree over one workspace. Drivers by name; the only place that starts agents.
//!
//! Not here: what an agent says (harness) and whose workspace it is (platform).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::wire::{Isolation, Network};

/// What to start, over which folders.
#[derive(Clone, Debug)]
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
    pub network: Network,
    /// The host uid that this session's files belong to; used only where the server is a privileged root.
    pub uid: u32,
}

/// A started agent. Dropping it kills the whole tree.
pub struct Process {
    /// The write end of the agent's stdin, non-blocking.
    pub stdin: OwnedFd,
    /// The read ends of its stdout and stderr, non-blocking.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
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
    /// Starts an agent; when this answers, the program has been exec'd.
    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>>;
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
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
