//! What an agent's code needs besides itself: found out from its files, installed once, shown to its sessions read-only.
//!
//! Installing runs other people's code, so it runs in the sandbox, with the network and without secrets. What it makes lies
//! under the hash of what was asked for, and is shared by all revisions that ask for the same.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::failure::Failure;
use super::plan::{Plan, WRITTEN, is_python, uv};
use super::start::{Live, SYSTEM_PATH};
use super::{Error, Inner, Platform, Result, blocking, runtimes, workspace};
use crate::harness::Output;
use crate::sandbox::{Exit, Limits, Process, Sandbox, Shown, Spec};
use crate::store::Revision;
use crate::wire::agent::DepsStatus;
use crate::wire::limits::size_text;
use crate::wire::{AgentId, Isolation, Network};

/// Where the sandbox shows the environment of Python programs.
const VENV: &str = "/opt/venv";
/// Its name beside the code for which it was made.
const VENV_FOLDER: &str = ".venv";
pub const NODE_FOLDER: &str = "node_modules";
/// So much of the installation's output is kept, in bytes, and shown, in lines.
const KEPT: usize = 8 << 10;
const LINES: usize = 20;

/// What was installed for a hash, and where.
struct Installed {
    folder: PathBuf,
}

impl Installed {
    fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    fn venv(&self) -> PathBuf {
        self.work().join(VENV_FOLDER)
    }

    fn node(&self) -> PathBuf {
        self.work().join(NODE_FOLDER)
    }
}

/// What a session's sandbox shows of its agent's dependencies. Added to a spec; answers what its environment takes besides.
pub fn show(
    folder: &Path,
    mounts: bool,
    spec: &mut Spec,
    path: &mut String,
    search: &str,
    asked: &str,
) -> Vec<(String, String)> {
    let installed = Installed { folder: folder.to_owned() };
    let mut env = Vec::new();
    if installed.venv().join("bin").is_dir() {
        let inside = if mounts { PathBuf::from(VENV) } else { installed.venv() };
        let program = installed.venv().join("bin/python");
        let interpreter = runtimes::find(&program.to_string_lossy(), search);
        let needed = interpreter.map(|runtime| runtime.read_only).unwrap_or_default();
        spec.read_only.extend(needed.into_iter().filter(|needed| !needed.starts_with(folder)));
        if is_python(asked)
            && let Some(program) = spec.argv.first_mut()
        {
            *program = inside.join("bin/python").to_string_lossy().into_owned();
        }
        *path = format!("{}/bin:{path}", inside.display());
        env.push(("VIRTUAL_ENV".to_owned(), inside.to_string_lossy().into_owned()));
        if mounts {
            spec.shown.push(Shown { host: installed.venv(), inside, writable: false });
        }
    }
    if installed.node().is_dir() && mounts {
        let inside = Path::new("/workspace").join(NODE_FOLDER);
        spec.shown.push(Shown { host: installed.node(), inside, writable: false });
    }
    if !mounts {
        spec.read_only.push(installed.work());
    }
    spec.read_only.sort();
    spec.read_only.dedup();
    env
}

/// Makes the place in a session's workspace where `node_modules` is seen: an empty folder where it is mounted, else a link.
/// What the agent has put there itself stays. Says whether a folder was made. Blocks.
pub fn place_node(folder: &Path, mounts: bool, workspace: &Path) -> std::io::Result<bool> {
    let (node, place) = (Installed { folder: folder.to_owned() }.node(), workspace.join(NODE_FOLDER));
    if !node.is_dir() {
        return Ok(false);
    }
    let there = place.symlink_metadata().ok();
    if mounts {
        if there.as_ref().is_some_and(std::fs::Metadata::is_symlink) {
            std::fs::remove_file(&place)?;
        } else if there.is_some() {
            return Ok(false);
        }
        std::fs::create_dir(&place)?;
        return Ok(true);
    }
    match there {
        // Not empty: the agent's own.
        Some(meta) if meta.is_dir() && std::fs::remove_dir(&place).is_err() => return Ok(false),
        Some(meta) if !meta.is_dir() => std::fs::remove_file(&place)?,
        _ => {}
    }
    std::os::unix::fs::symlink(&node, &place)?;
    Ok(false)
}

impl Platform {
    /// Goes on with installations that an earlier server left half done, and removes what nobody needs.
    pub(super) async fn recover_dependencies(&self) -> Result<()> {
        self.drop_unused_dependencies().await?;
        for hash in self.0.store.building_dependencies().await? {
            if let Some((agent, revision)) = self.0.store.revision_of_dependencies(&hash).await? {
                self.0.install(&hash, &agent, revision).await?;
            }
        }
        Ok(())
    }

    /// Removes the dependencies that no revision in use asks for. Whoever calls it sees to it that no deployment goes on.
    pub(super) async fn drop_unused_dependencies(&self) -> Result<()> {
        // No session of a revision that goes is being made.
        let _revisions = self.0.revisions.write().await;
        for hash in self.0.store.unused_dependencies().await? {
            if self.0.is_installing(&hash) {
                continue;
            }
            self.0.store.forget_dependencies(&hash).await?;
            let (layout, folder) = (self.0.layout.clone(), self.0.layout.dependencies(&hash));
            blocking(move || layout.wipe(&folder)).await?;
        }
        Ok(())
    }
}

impl Inner {
    fn is_installing(&self, hash: &str) -> bool {
        self.installing.lock().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    /// Installs what this revision asks for, unless that is being done already; ends when it is done.
    pub(super) async fn install(
        self: &Arc<Self>,
        hash: &str,
        agent: &AgentId,
        number: u64,
    ) -> Result<watch::Receiver<()>> {
        let revision = self.store.revision(agent, number).await?;
        let revision = revision.ok_or(Error::Internal("finding the revision that asks for dependencies"))?;
        let (over, done) = watch::channel(());
        {
            let mut installing = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(done) = installing.get(hash) {
                return Ok(done.clone());
            }
            if self.stop.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            installing.insert(hash.to_owned(), done.clone());
        }
        let (inner, hash) = (self.clone(), hash.to_owned());
        let src = self.layout.revision(agent, number).join("src");
        let installing = async move {
            // It keeps the server up, as an agent does.
            let _live = Live::new(&inner.live_agents);
            tracing::info!(dependencies = %hash, "installing dependencies");
            let outcome = tokio::select! {
                biased;
                () = inner.stop.cancelled() => None,
                outcome = inner.carry_out(&hash, &src, &revision) => Some(outcome),
            };
            let (status, error) = match outcome {
                // The next server begins again.
                None => (DepsStatus::Building, None),
                Some(Ok(())) => (DepsStatus::Ready, None),
                Some(Err(why)) => (DepsStatus::Failed, Some(why)),
            };
            tracing::info!(dependencies = %hash, ?status, "dependencies");
            let at = inner.clock.now_millis();
            if let Err(error) = inner.store.set_dependencies(&hash, status, error.as_deref(), at).await {
                tracing::warn!(%error, "cannot note how far dependencies are");
            }
            inner.installing.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
            drop(over);
            // Those who asked for it may be gone meanwhile. No deployment asks for it just now.
            let _deploying = inner.deploying.lock().await;
            if let Err(error) = Platform(inner.clone()).drop_unused_dependencies().await {
                tracing::warn!(%error, "dependencies that nobody needs stay");
            }
        };
        self.tasks.spawn(installing.in_current_span());
        Ok(done)
    }

    async fn carry_out(&self, hash: &str, src: &Path, revision: &Revision) -> Result<(), String> {
        let sandbox = self.sandbox.clone().map_err(|refusal| format!("{refusal}. {}", refusal.remedy))?;
        let installed = Installed { folder: self.layout.dependencies(hash) };
        let uid = self.options.uid_base;
        let plan = {
            let (src, line, path) = (src.to_owned(), revision.command.clone(), self.options.path.clone());
            let (layout, sandbox) = (self.layout.clone(), sandbox.clone());
            let folder = installed.folder.clone();
            blocking(move || {
                let plan =
                    Plan::of(&src, &line, &path, "")?.ok_or(Error::Internal("finding the dependencies"))?;
                prepare(&folder, &src, &plan, &layout, sandbox.as_ref(), uid)?;
                Ok(plan)
            })
            .await
            .map_err(|error| error.to_string())?
        };
        let spec = self.spec(&plan, &installed, sandbox.as_ref());
        let Process { stdin, stdout, stderr, tree, .. } =
            sandbox.start(&spec).await.map_err(|error| error.to_string())?;
        drop(stdin);
        let mut log = Vec::new();
        let ended = {
            let read = async { tokio::join!(keep_end(stdout, Some(&mut log)), keep_end(stderr, None)) };
            let exit = async {
                let exit = tree.exited().await;
                // What it has left behind must not hold its output open.
                tree.kill().await;
                exit
            };
            let both = async { tokio::join!(exit, read).0 };
            tokio::time::timeout(self.options.install_limit, both).await
        };
        tree.kill().await;
        let end = last_lines(&log);
        match ended {
            Ok(Exit::Code(0)) => {}
            Ok(Exit::Code(code)) => return Err(format!("{end}\n(exit code {code})").trim_start().to_owned()),
            Ok(Exit::Signal(signal)) => {
                return Err(format!("{end}\n(ended by signal {signal})").trim_start().to_owned());
            }
            Ok(Exit::OutOfMemory(limit)) => {
                let limit = size_text(limit);
                return Err(format!("{end}\n(ran out of memory: {limit})").trim_start().to_owned());
            }
            Err(_elapsed) => {
                let limit = self.options.install_limit.as_secs();
                return Err(format!("{end}\n(stopped: it took longer than {limit} s)")
                    .trim_start()
                    .to_owned());
            }
        }
        let layout = self.layout.clone();
        blocking(move || {
            ["home", "run"].iter().try_for_each(|name| layout.wipe(&installed.folder.join(name)).map(drop))
        })
        .await
        .map_err(|error| error.to_string())
    }

    fn spec(&self, plan: &Plan, installed: &Installed, sandbox: &dyn Sandbox) -> Spec {
        let path = &self.options.path;
        let mut spec = Spec {
            name: "dependencies".to_owned(),
            argv: ["sh", "-c", &plan.script()].map(str::to_owned).to_vec(),
            env: Vec::new(),
            workspace: installed.work(),
            home: installed.folder.join("home"),
            runtime: installed.folder.join("run"),
            read_only: Vec::new(),
            shown: Vec::new(),
            network: Network::Host,
            limits: Limits::default(),
            uid: self.options.uid_base,
        };
        let inside = sandbox.inside(&spec);
        let mounts = sandbox.mounts();
        let mut folders = vec![match sandbox.isolation() {
            Isolation::None => path.clone(),
            Isolation::Full | Isolation::Reduced => SYSTEM_PATH.to_owned(),
        }];
        let mut env = vec![
            ("HOME", inside.home.to_string_lossy().into_owned()),
            ("TMPDIR", inside.home.join("tmp").to_string_lossy().into_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "dumb".to_owned()),
            ("CI", "1".to_owned()),
        ];
        let mut needed = Vec::new();
        if let Some(python) = &plan.python {
            let venv = if mounts { PathBuf::from(VENV) } else { installed.venv() };
            if mounts {
                spec.shown.push(Shown { host: installed.venv(), inside: venv.clone(), writable: true });
            }
            let runtime = runtimes::find(&python.program, path);
            let program = runtime
                .as_ref()
                .map_or_else(|| PathBuf::from(&python.program), |found| found.program.clone());
            needed.extend(runtime);
            env.push(("PYTHON", program.to_string_lossy().into_owned()));
            env.push(("VENV", venv.to_string_lossy().into_owned()));
            env.push(("REQUIREMENTS", python.requirements.to_owned()));
            if let Some(uv) = uv(path) {
                needed.extend(runtimes::find(&uv.to_string_lossy(), path));
                env.push(("UV", uv.to_string_lossy().into_owned()));
                env.extend(python.locked.then(|| ("LOCKED", "1".to_owned())));
            }
        }
        if plan.packages || plan.tsx {
            needed.extend(["node", "npm"].iter().filter_map(|program| runtimes::find(program, path)));
        }
        for runtime in needed {
            if let Some(folder) =
                runtime.program.parent().filter(|_| mounts || sandbox.isolation() != Isolation::None)
            {
                folders.insert(0, folder.to_string_lossy().into_owned());
            }
            spec.read_only.extend(runtime.read_only);
        }
        spec.read_only.sort();
        spec.read_only.dedup();
        env.push(("PATH", folders.join(":")));
        spec.env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        spec.env.extend(self.options.install_env.iter().cloned());
        spec
    }

    /// Waits until what this revision asks for is there; says so if that takes a while.
    pub(super) async fn wait_for_dependencies(
        self: &Arc<Self>,
        hash: &str,
        agent: &AgentId,
        number: u64,
        output: &mpsc::Sender<Output>,
    ) -> Result<(), Failure> {
        let mut told = false;
        loop {
            let known = self.store.dependencies(hash).await.map_err(|error| Failure::own(&error))?;
            let is_there = self.layout.dependencies(hash).join("work").is_dir();
            match known.map_or((DepsStatus::Building, None), |known| known) {
                (DepsStatus::Ready, _) if is_there => return Ok(()),
                (DepsStatus::Failed, error) => {
                    return Err(Failure::dependencies(error.as_deref().unwrap_or_default()));
                }
                _ => {}
            }
            if self.stop.is_cancelled() {
                return Err(Failure::shutdown());
            }
            if !told {
                told = true;
                let status = json!({"content": "installing dependencies…"});
                // Nobody reads on if the turn is over already.
                let _ = output.send(Output::Status(status)).await;
            }
            let mut done = self.install(hash, agent, number).await.map_err(|error| Failure::own(&error))?;
            // Its sender never sends: it goes when the work is over.
            let _ = done.changed().await;
        }
    }
}

/// Makes the folders in which is installed: a copy of the agent's code, an empty environment, a home. Blocks.
fn prepare(
    folder: &Path,
    src: &Path,
    plan: &Plan,
    layout: &workspace::Layout,
    sandbox: &dyn Sandbox,
    uid: u32,
) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { doing: "make", path, source }
    };
    layout.wipe(folder)?;
    let installed = Installed { folder: folder.to_owned() };
    workspace::make_open(folder)?;
    workspace::copy(src, &installed.work())?;
    for name in ["home", "home/tmp", "run"] {
        workspace::make_open(&folder.join(name))?;
    }
    // Of an agent that brings its own.
    layout.wipe(&installed.venv())?;
    if let Some(python) = &plan.python {
        workspace::make_open(&installed.venv())?;
        if let Some(text) = &python.written {
            let path = installed.work().join(WRITTEN);
            layout.wipe(&path)?;
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
    }
    for name in ["work", "home"] {
        let path = folder.join(name);
        sandbox.own(uid, &path).map_err(failed(&path))?;
    }
    Ok(())
}

/// Reads a pipe to its end, and keeps the end of what came.
async fn keep_end(pipe: std::os::fd::OwnedFd, mut kept: Option<&mut Vec<u8>>) {
    let Ok(mut pipe) = Receiver::from_owned_fd(pipe) else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let over = kept.len().saturating_sub(KEPT);
            kept.drain(..over);
        }
    }
}

/// The last lines of a log, without what would move a cursor.
fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>();
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}
