//! Starting a session's agent: its folders, its environment, its sandbox, its conversation.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;
use zeroize::Zeroize;

use super::failure::Failure;
use super::ledger::Kept;
use super::ports::Taken;
use super::workspace::{HISTORY, NODE_SHIM, PYTHON_SHIM, TURN};
use super::{Error, Inner, command, dependencies, plan, runtimes};
use crate::egress::Egress;
use crate::harness::{Address, Conversation, OpenError, Redaction};
use crate::metrics::Start;
use crate::sandbox::{Exit, Inside, Limits, Process, Sandbox, Spec, StartError, Tree};
use crate::store::{Revision, StoredSession};
use crate::wire::{Isolation, Network, Secret};

/// The PATH of a sandbox that shows the system's folders alone.
pub(super) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes a C program's stdout pass on each line, where coreutils are installed.
const LINES: &str = "/usr/libexec/coreutils/libstdbuf.so";

/// A session's running agent. Dropping it kills it.
pub struct Agent {
    pub conversation: Conversation,
    /// When it is stopped, unless a message comes.
    pub idle_until: Instant,
    /// Of its secrets' values.
    pub redaction: Redaction,
    _live: Live,
    /// What serves its network, if that is an allow-list.
    _egress: Option<Egress>,
    /// Where the machine's network is its own as well.
    _port: Option<Taken>,
}

/// Counts an agent's processes as long as there are any.
pub struct Live(Arc<AtomicU64>);

impl Live {
    pub fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A tree that two hold: the conversation, and whoever must be sure that it is gone if the conversation never opens.
struct Shared(Arc<dyn Tree>);

impl Tree for Shared {
    fn root(&self) -> i32 {
        self.0.root()
    }

    fn root_is_init(&self) -> bool {
        self.0.root_is_init()
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        self.0.exited()
    }

    fn dial(&self) -> BoxFuture<'_, std::io::Result<OwnedFd>> {
        self.0.dial()
    }

    fn interrupt(&self) {
        self.0.interrupt();
    }

    fn terminate(&self) {
        self.0.terminate();
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        self.0.kill()
    }
}

/// How long the agent of a session may wait for its next message.
pub fn idle_timeout(stored: &StoredSession) -> Duration {
    Duration::from_secs(stored.session.idle_timeout_seconds.unwrap_or(super::IDLE_TIMEOUT_SECONDS))
}

/// An agent that is not ready yet. Whoever gives up waiting for it calls [`Starting::abort`], after which nothing of
/// it is left and its folders are nobody's.
#[derive(Default)]
pub struct Starting {
    launch: Option<JoinHandle<Result<Process, Failure>>>,
    tree: Option<Arc<dyn Tree>>,
}

impl Starting {
    /// Kills what has been started; answers when it is gone.
    pub async fn abort(&mut self) {
        // Let it come to its end: what was half started can't be killed.
        if let Some(launch) = self.launch.take()
            && let Ok(Ok(process)) = launch.await
        {
            process.tree.kill().await;
        }
        if let Some(tree) = self.tree.take() {
            tree.kill().await;
        }
    }
}

/// Starts the agent of a session and waits until it is ready for its first message.
pub async fn start(
    inner: &Arc<Inner>,
    stored: &StoredSession,
    revision: &Revision,
    turn: u64,
    starting: &mut Starting,
) -> Result<Agent, Failure> {
    let secrets = inner.unsealed(&stored.session.agent_id).await.map_err(|error| Failure::hinted(&error))?;
    let redaction = Redaction::new(secrets.iter().map(|(_, value)| value));
    let port = match revision.config.http_port().filter(|_| shares_network(inner, revision)) {
        Some(port) => Some(inner.ports.take(port).await?),
        None => None,
    };
    let launch = {
        let (inner, stored, revision) = (inner.clone(), stored.clone(), revision.clone());
        async move { launch(&inner, &stored, &revision, turn, &secrets).await }
    };
    let launched = starting.launch.insert(tokio::spawn(launch.in_current_span())).await;
    starting.launch = None;
    let Process { stdin, stdout, stderr, sockets, tree } = match launched {
        Ok(process) => process?,
        Err(error) => return Err(Failure::own(&error)),
    };
    let tree: Arc<dyn Tree> = Arc::from(tree);
    starting.tree = Some(tree.clone());
    let live = Live::new(&inner.live_agents);
    let egress = match sockets.is_empty() {
        true => None,
        false => {
            let kept = Kept { inner: inner.clone(), session: stored.session.id.clone() };
            let network = revision.config.network.clone();
            let opened = Egress::open(sockets, network, Arc::new(kept), &inner.tasks);
            Some(opened.map_err(|error| Failure::own(&error))?)
        }
    };
    let process = Process { stdin, stdout, stderr, sockets: Vec::new(), tree: Box::new(Shared(tree)) };
    let fifo = inner.layout.session(&stored.session.id).turn();
    let limits = limits(inner, revision);
    let http =
        revision.config.http_port().map(|port| Address { port, session: stored.session.id.to_string() });
    let opened = Conversation::open(process, &fifo, limits, stored.session.id.short(), &redaction, http);
    let conversation = opened.await.map_err(|error| {
        if let OpenError::Exited { .. } = &error {
            inner.warm.crashed(&stored.session.id, Instant::now());
        }
        Failure::not_opened(error, limits.startup)
    })?;
    inner.warm.started(&stored.session.id);
    starting.tree = None;
    Ok(Agent {
        conversation,
        idle_until: Instant::now() + idle_timeout(stored),
        redaction,
        _live: live,
        _egress: egress,
        _port: port,
    })
}

/// The times after which the turns of a revision are decided: its owner's word goes before the server's.
pub fn limits(inner: &Inner, revision: &Revision) -> crate::harness::Limits {
    let turn = revision.config.limits.run.map(Duration::from_secs);
    let limits = inner.options.limits;
    crate::harness::Limits { turn: turn.unwrap_or(limits.turn), ..limits }
}

/// Whether the agent's loopback is the machine's.
fn shares_network(inner: &Inner, revision: &Revision) -> bool {
    let isolated = inner.sandbox.as_ref().is_ok_and(|sandbox| sandbox.isolation() == Isolation::Full);
    !isolated || revision.config.network == Network::Host
}

/// Makes the session's folders and starts its agent over them.
async fn launch(
    inner: &Inner,
    stored: &StoredSession,
    revision: &Revision,
    turn: u64,
    secrets: &[(String, Secret)],
) -> Result<Process, Failure> {
    let sandbox = inner.sandbox.clone().map_err(|refusal| Failure::refused(&refusal))?;
    let folders = inner.layout.session(&stored.session.id);
    let history = inner.store.history(&stored.session.id).await.map_err(|error| Failure::own(&error))?;
    let uid = inner.uid(stored);
    let src = inner.layout.revision(&stored.session.agent_id, stored.revision).join("src");
    {
        let (folders, layout, sandbox) = (folders.clone(), inner.layout.clone(), sandbox.clone());
        let deps = revision.deps.as_deref().map(|hash| inner.layout.dependencies(hash));
        super::blocking(move || {
            folders.prepare(&src, &history, &layout, sandbox.as_ref(), uid)?;
            match deps {
                Some(deps) => folders.place_dependencies(&deps, sandbox.as_ref(), uid),
                None => Ok(()),
            }
        })
        .await
        .map_err(|error| Failure::own(&error))?;
    }
    let mut spec =
        spec(inner, sandbox.as_ref(), stored, revision, turn, uid).map_err(|error| Failure::own(&error))?;
    add_secrets(&mut spec.env, secrets);
    let begun = Instant::now();
    let started = sandbox.start(&spec).await;
    let became = if started.is_ok() { Start::Started } else { Start::Failed };
    inner.store.metrics().sandbox_start(became, begun.elapsed());
    spec.env.iter_mut().for_each(|(_, value)| value.zeroize());
    let process = started.map_err(|error| match error {
        StartError::Refused(refusal) => Failure::refused(&refusal),
        StartError::Exec { program, source } => Failure::not_runnable(&program, &source),
        StartError::Io(error) => Failure::own(&error),
    })?;
    if stored.session.isolation != Some(sandbox.isolation())
        && let Err(error) = inner.store.set_isolation(&stored.session.id, sandbox.isolation()).await
    {
        tracing::warn!(session = %stored.session.id, %error, "cannot note how the agent is isolated");
    }
    Ok(process)
}

fn spec(
    inner: &Inner,
    sandbox: &dyn Sandbox,
    stored: &StoredSession,
    revision: &Revision,
    turn: u64,
    uid: u32,
) -> Result<Spec, Error> {
    let folders = inner.layout.session(&stored.session.id);
    let mut argv = command::argv(&revision.command)?;
    if let Some(program) = argv.first_mut() {
        *program = plan::known_as(program, &inner.options.path).to_owned();
    }
    let asked = argv.first().cloned().unwrap_or_default();
    let by_lines = argv.first().is_some_and(|program| buffers(program)) && Path::new(LINES).exists();
    let runtime = argv.first().and_then(|program| runtimes::find(program, &inner.options.path));
    let mut path = match sandbox.isolation() {
        Isolation::None => inner.options.path.clone(),
        Isolation::Full | Isolation::Reduced => SYSTEM_PATH.to_owned(),
    };
    let mut read_only = Vec::new();
    if let Some(runtime) = runtime {
        if let Some(folder) = runtime.program.parent() {
            path = format!("{}:{path}", folder.display());
        }
        if let Some(program) = argv.first_mut() {
            *program = runtime.program.to_string_lossy().into_owned();
        }
        read_only = runtime.read_only;
    }
    let mut spec = Spec {
        name: stored.session.id.short().to_owned(),
        argv,
        env: Vec::new(),
        workspace: folders.workspace,
        home: folders.home,
        runtime: folders.runtime,
        read_only,
        shown: Vec::new(),
        network: revision.config.network.clone(),
        limits: Limits::from(&revision.config.limits),
        uid,
    };
    let inside = sandbox.inside(&spec);
    let mut more = Vec::new();
    if let Some(hash) = &revision.deps {
        let mounts = sandbox.mounts();
        let folder = inner.layout.dependencies(hash);
        more = dependencies::show(&folder, mounts, &mut spec, &mut path, &inner.options.path, &asked);
    }
    spec.env = environment(&inside, stored, turn, path);
    spec.env.extend(revision.config.http_port().map(|port| ("PORT".to_owned(), port.to_string())));
    spec.env.extend(more);
    if by_lines {
        let pair = [("LD_PRELOAD", LINES), ("_STDBUF_O", "L")];
        spec.env.extend(pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    Ok(spec)
}

/// Puts secrets beside the environment's own variables, which go before them.
fn add_secrets(env: &mut Vec<(String, String)>, secrets: &[(String, Secret)]) {
    for (key, value) in secrets {
        if !env.iter().any(|(known, _)| known == key) {
            env.push((key.clone(), value.reveal().to_owned()));
        }
    }
}

/// Whether a command may keep what it prints until it ends: interpreters that we know don't.
fn buffers(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    let known = ["python", "node", "bun", "deno", "tsx"].iter().any(|known| name.starts_with(known));
    let shell = ["sh", "bash", "dash", "ash", "busybox", "zsh", "ksh"].contains(&name);
    let script = [".sh", ".py", ".js", ".mjs", ".cjs", ".ts"].iter().any(|ending| name.ends_with(ending));
    !(known || shell || script)
}

fn folder_of(path: &Path) -> String {
    path.parent().unwrap_or(path).to_string_lossy().into_owned()
}

/// As node reads a word of `NODE_OPTIONS`.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The agent's environment without its secrets, built from scratch.
fn environment(inside: &Inside, stored: &StoredSession, turn: u64, path: String) -> Vec<(String, String)> {
    let in_runtime = |name: &str| inside.runtime.join(name).to_string_lossy().into_owned();
    let mut env = vec![
        ("SUPERSERVE", "1".to_owned()),
        ("SUPERSERVE_SESSION_ID", stored.session.id.to_string()),
        ("SUPERSERVE_TURN", in_runtime(TURN)),
        ("SUPERSERVE_HISTORY", in_runtime(HISTORY)),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("PYTHONIOENCODING", "utf-8".to_owned()),
        ("PYTHONPATH", folder_of(&inside.runtime.join(PYTHON_SHIM))),
        ("NODE_OPTIONS", format!("--require {}", quoted(&in_runtime(NODE_SHIM)))),
        ("HOME", inside.home.to_string_lossy().into_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("PATH", path),
    ];
    if turn > 1 {
        env.push(("SUPERSERVE_RESUMED", "1".to_owned()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_need_no_help_to_print_lines() {
        for program in ["python3", "/usr/bin/python3.11", "node", "/bin/sh", "bash", "./run.sh", "agent.py"] {
            assert!(!buffers(program), "{program}");
        }
        for program in ["./agent", "/usr/bin/awk", "sort", "perl"] {
            assert!(buffers(program), "{program}");
        }
    }

    #[test]
    fn a_path_with_blanks_is_one_word_of_the_options() {
        assert_eq!(quoted("/a b/c"), "\"/a b/c\"");
        assert_eq!(quoted("/a\"b\\c"), "\"/a\\\"b\\\\c\"");
    }
}
