//! The `native` driver: every agent in Linux namespaces of its own, with nothing but the kernel and this binary.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::protocol::Walls;
use super::spawner::{Spawner, is_privileged};
use super::{Inside, Process, Sandbox, Spec, StartError, probe, tree};
use crate::wire::Isolation;

pub(super) struct Native {
    spawner: Spawner,
    /// Holds the note that this driver works.
    scratch: PathBuf,
}

impl Native {
    pub(super) fn new(spawner: Spawner, scratch: &Path) -> Self {
        Self { spawner, scratch: scratch.to_owned() }
    }
}

impl Sandbox for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Full
    }

    fn mounts(&self) -> bool {
        true
    }

    fn inside(&self, _spec: &Spec) -> Inside {
        inside()
    }

    fn owner(&self, uid: u32) -> Option<u32> {
        is_privileged().then_some(uid)
    }

    fn own(&self, uid: u32, path: &Path) -> io::Result<()> {
        if is_privileged() { give(uid, path) } else { Ok(()) }
    }

    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>> {
        async move {
            let started = tree::start(&self.spawner, spec, Walls::Namespaces).await;
            if let Err(StartError::Refused(_)) = &started {
                // The machine's owner has changed something since.
                probe::forget(&self.scratch);
            }
            started
        }
        .boxed()
    }
}

/// Where an agent with a mount namespace of its own sees its folders.
pub(super) fn inside() -> Inside {
    Inside { workspace: "/workspace".into(), home: "/home/agent".into(), runtime: "/run/superserve".into() }
}

/// Gives `path` and all below it to `uid` and the group of the same number.
pub(super) fn give(uid: u32, path: &Path) -> io::Result<()> {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path)?;
        if found.uid() != uid || found.gid() != uid {
            lchown(&path, Some(uid), Some(uid))?;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}
