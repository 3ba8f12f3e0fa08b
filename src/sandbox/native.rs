//! The `native` driver: every agent in Linux namespaces of its own, with nothing but the kernel and this binary.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::spawner::{Spawner, is_privileged};
use super::{Inside, Process, Sandbox, Spec, StartError, tree};
use crate::wire::Isolation;

pub(super) struct Native {
    spawner: Spawner,
}

impl Native {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl Sandbox for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Full
    }

    fn inside(&self, _spec: &Spec) -> Inside {
        Inside {
            workspace: "/workspace".into(),
            home: "/home/agent".into(),
            runtime: "/run/superserve".into(),
        }
    }

    fn own(&self, uid: u32, path: &Path) -> io::Result<()> {
        if is_privileged() { give(uid, path) } else { Ok(()) }
    }

    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>> {
        tree::start(&self.spawner, spec, true).boxed()
    }
}

/// Gives `path` and all below it to `uid` and the group of the same number.
fn give(uid: u32, path: &Path) -> io::Result<()> {
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
