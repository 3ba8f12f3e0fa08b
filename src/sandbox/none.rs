//! The `none` driver: agents run on the host as the server's own user, in their workspace folder. Only by explicit
//! choice. Their trees are still killed as a whole, as well as that can be done without namespaces.

use std::io;
use std::path::Path;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::protocol::Walls;
use super::spawner::Spawner;
use super::{Inside, Process, Sandbox, Spec, StartError, tree};
use crate::wire::Isolation;

pub(super) struct None {
    spawner: Spawner,
}

impl None {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl Sandbox for None {
    fn name(&self) -> &'static str {
        "none"
    }

    fn isolation(&self) -> Isolation {
        Isolation::None
    }

    fn mounts(&self) -> bool {
        false
    }

    fn inside(&self, spec: &Spec) -> Inside {
        Inside { workspace: spec.workspace.clone(), home: spec.home.clone(), runtime: spec.runtime.clone() }
    }

    fn own(&self, _uid: u32, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>> {
        tree::start(&self.spawner, spec, Walls::None).boxed()
    }
}
