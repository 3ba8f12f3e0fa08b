//! What one sandbox may use: the defaults, and how limits become the kernel's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::mounts::Step;
use super::protocol::Failure;
use crate::wire::AgentLimits;

/// The limits of one sandbox. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads, all together; our own init not counted.
    pub processes: u64,
    /// Memory: of each process by itself, and of all together where there are control groups.
    pub memory: u64,
    /// Open files of each process: as it begins, and as far as it may raise that itself.
    pub open_files: (u64, u64),
    /// The largest file that may be written.
    pub file_size: u64,
    /// `/workspace` and the home together. Nothing here holds it: see `usage`.
    pub workspace: u64,
    /// How many files and folders these may hold.
    pub files: u64,
    /// `/tmp`.
    pub tmp: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 256,
            memory: 2 << 30,
            open_files: (1024, 4096),
            file_size: 10 << 30,
            workspace: 10 << 30,
            files: 1_000_000,
            tmp: 256 << 20,
        }
    }
}

impl From<&AgentLimits> for Limits {
    fn from(given: &AgentLimits) -> Self {
        let default = Self::default();
        let workspace = given.workspace.unwrap_or(default.workspace);
        Self {
            processes: given.processes.unwrap_or(default.processes),
            memory: given.memory.unwrap_or(default.memory),
            open_files: given.open_files.map_or(default.open_files, |files| (files, files)),
            // One file alone must not be larger than all may be: that is told while it is written.
            file_size: given.file_size.unwrap_or(workspace),
            workspace,
            files: given.files.unwrap_or(default.files),
            tmp: given.tmp.unwrap_or(default.tmp),
        }
    }
}

impl Limits {
    /// Binds this process and all that it will start, but for memory. `isolated`: in a user namespace, where alone
    /// processes are counted by themselves, and not with all others of the same user.
    pub(super) fn apply(&self, isolated: bool) -> Result<(), Failure> {
        let (soft, hard) = self.open_files;
        set(Resource::Nofile, soft, hard)?;
        set(Resource::Core, 0, 0)?;
        set(Resource::Fsize, self.file_size, self.file_size)?;
        if isolated {
            // The init is one of them.
            let processes = self.processes.saturating_add(1);
            set(Resource::Nproc, processes, processes)?;
        }
        Ok(())
    }

    /// Binds the process that becomes the agent. Not before: what the spawner has mapped counts, too.
    pub(super) fn apply_memory(&self) -> rustix::io::Result<()> {
        setrlimit(Resource::Data, at_most(Resource::Data, self.memory, self.memory))
    }
}

fn set(resource: Resource, soft: u64, hard: u64) -> Result<(), Failure> {
    setrlimit(resource, at_most(resource, soft, hard)).broken("set the limits")
}

/// A limit, as far as this process is allowed it: nobody can raise what the machine's owner has set.
fn at_most(resource: Resource, soft: u64, hard: u64) -> Rlimit {
    let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    Rlimit { current: Some(soft.min(hard).min(allowed)), maximum: Some(hard.min(allowed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_before_the_defaults() {
        assert_eq!(Limits::from(&AgentLimits::default()), Limits::default());
        let given = AgentLimits {
            processes: Some(3),
            open_files: Some(2000),
            workspace: Some(1 << 20),
            ..AgentLimits::default()
        };
        let limits = Limits::from(&given);
        assert_eq!((limits.processes, limits.open_files), (3, (2000, 2000)));
        assert_eq!((limits.workspace, limits.file_size), (1 << 20, 1 << 20));
        assert_eq!(limits.memory, Limits::default().memory);
        let file = Limits::from(&AgentLimits { file_size: Some(5), ..given });
        assert_eq!(file.file_size, 5);
    }
}
