//! The server's end of one started tree: its pidfd and its control socket.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use super::cgroup::Group;
use super::launch;
use super::probe::{GO_ON, refusal};
use super::protocol::{Command, Order, Report, Walls, receive, send, socket_pair};
use super::spawner::Spawner;
use super::{Exit, Process, Refusal, Spec, StartError, Tree};
use crate::fault;
use crate::wire::Network;

/// How long a subreaper gets to kill its tree, before it is killed itself and the spawner ends the rest.
const SUBREAPER_GRACE: Duration = Duration::from_secs(5);

/// How long a start may take: a folder on a disk that doesn't answer must not hold a session for ever.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Starts a tree; when this answers, the agent's program has been exec'd. Dropped before, it leaves nothing behind.
pub(super) async fn start(spawner: &Spawner, spec: &Spec, walls: Walls) -> Result<Process, StartError> {
    check(spec)?;
    match tokio::time::timeout(START_LIMIT, fault::around("sandbox.spawn", attempt(spawner, spec, walls)))
        .await
    {
        Ok(started) => started,
        Err(_elapsed) => {
            let text = format!("it was not ready within {} s", START_LIMIT.as_secs());
            Err(StartError::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
        }
    }
}

async fn attempt(spawner: &Spawner, spec: &Spec, walls: Walls) -> Result<Process, StartError> {
    let group = match walls {
        // What was asked for is nothing but the user's own rights.
        Walls::None => None,
        Walls::Bwrap | Walls::Landlock | Walls::Namespaces => spawner.new_group(&spec.limits).map(Arc::new),
    };
    let groups = group.as_ref().map(|group| group.folders().to_vec()).unwrap_or_default();
    let order = Order { groups, walls, spec: spec.clone() };
    let mut again = true;
    loop {
        let (agent_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let (stdout, agent_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let (stderr, agent_stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let (control, agent_control) = socket_pair()?;
        for ours in [&stdin, &stdout, &stderr, &control] {
            rustix::io::ioctl_fionbio(ours, true).map_err(io::Error::from)?;
        }
        spawner.submit(&order, [&agent_stdin, &agent_stdout, &agent_stderr, &agent_control]).await?;
        drop((agent_stdin, agent_stdout, agent_stderr, agent_control));

        let control = Arc::new(launch::watch(control)?);
        let (root, pidfd) = match next(&control).await? {
            Some((Report::Launched(root), mut fds)) => match fds.pop() {
                Some(pidfd) => (root, pidfd),
                None => return Err(lost()),
            },
            Some((report, _)) => return Err(failed(spec, report)),
            // The spawner ended with our order in its queue; nothing of it has run.
            None if again => {
                again = false;
                continue;
            }
            None => return Err(lost()),
        };
        let mut tree = Started {
            root,
            has_namespaces: walls == Walls::Namespaces,
            pidfd: launch::watch(pidfd)?,
            control: control.clone(),
            group: group.clone(),
            exit: watch::channel(None).1,
            dials: None,
            watcher: None,
        };
        let mut sockets = Vec::new();
        let last = loop {
            match next(&control).await? {
                Some((Report::Sockets, some)) => sockets.extend(some),
                other => break other,
            }
        };
        match last {
            Some((Report::Started, _)) => {}
            Some((report, _)) => {
                // It ends by itself; wait, so that no trace of it is left when the caller goes on.
                tree.gone().await;
                return Err(failed(spec, report));
            }
            None if walls == Walls::Bwrap => {
                tree.gone().await;
                return Err(StartError::Refused(said_by_bwrap(&stderr)));
            }
            None => return Err(lost()),
        }
        tree.watch(has_own_network(spec, walls));
        return Ok(Process { stdin, stdout, stderr, sockets, tree: Box::new(tree) });
    }
}

/// What the kernel could not take, named before anything is started.
fn check(spec: &Spec) -> Result<(), StartError> {
    let invalid = |what: String| Err(StartError::Io(io::Error::new(io::ErrorKind::InvalidInput, what)));
    if spec.argv.first().is_none_or(String::is_empty) {
        return invalid("no program is named".to_owned());
    }
    if spec.argv.iter().any(|argument| argument.contains('\0')) {
        return invalid("an argument holds a NUL character".to_owned());
    }
    if let Some((key, _)) = spec
        .env
        .iter()
        .find(|(key, value)| key.is_empty() || key.contains(['\0', '=']) || value.contains('\0'))
    {
        return invalid(format!(
            "environment variable {key:?} can't be set: it holds a NUL character or its name is not one"
        ));
    }
    if let Some(path) =
        [&spec.workspace, &spec.home, &spec.runtime].into_iter().find(|path| path.is_relative())
    {
        return invalid(format!("{} is not an absolute path", path.display()));
    }
    if let Some(path) = spec.read_only.iter().find(|path| !super::mounts::may_show(path)) {
        return invalid(format!(
            "{} can't be shown inside the sandbox: it would hide a part of it",
            path.display()
        ));
    }
    Ok(())
}

/// Why bubblewrap ended, in its own words.
fn said_by_bwrap(stderr: &OwnedFd) -> Refusal {
    let mut bytes = [0; 1024];
    let length = rustix::io::read(stderr, &mut bytes).unwrap_or(0);
    let said = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).trim().to_owned();
    Refusal {
        step: "bubblewrap".to_owned(),
        reason: said.strip_prefix("bwrap: ").unwrap_or(&said).to_owned(),
        remedy: format!("See what bubblewrap needs on this machine, {GO_ON}."),
    }
}

fn lost() -> StartError {
    StartError::Io(io::Error::other("its starter ended before the agent ran"))
}

fn failed(spec: &Spec, report: Report) -> StartError {
    match report {
        Report::Failed(failure) if failure.refused => StartError::Refused(refusal(&failure)),
        Report::Failed(failure) => {
            let source = io::Error::from_raw_os_error(failure.errno);
            StartError::Io(io::Error::new(source.kind(), format!("{}: {source}", failure.step)))
        }
        Report::NotExecuted(errno) => StartError::Exec {
            program: spec.argv.first().cloned().unwrap_or_default(),
            source: io::Error::from_raw_os_error(errno),
        },
        Report::Launched(_) | Report::Sockets | Report::Started | Report::Exited(_) => lost(),
    }
}

/// Whether the agent's loopback is another than the server's.
fn has_own_network(spec: &Spec, walls: Walls) -> bool {
    matches!(walls, Walls::Namespaces | Walls::Bwrap) && spec.network != Network::Host
}

/// The next report on a control socket; none if all who could report are gone.
async fn next(control: &AsyncFd<OwnedFd>) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
    loop {
        let mut ready = control.readable().await?;
        match ready.try_io(|socket| Ok(receive(socket)?)) {
            // The other end went with a command unread. What it had said before is still to be read.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(received) => {
                let (bytes, fds) = received?;
                if bytes.is_empty() {
                    return Ok(None);
                }
                return Ok(Some((serde_json::from_slice(&bytes)?, fds)));
            }
            Err(_would_block) => {}
        }
    }
}

struct Started {
    root: i32,
    has_namespaces: bool,
    pidfd: AsyncFd<OwnedFd>,
    control: Arc<AsyncFd<OwnedFd>>,
    group: Option<Arc<Group>>,
    exit: watch::Receiver<Option<Exit>>,
    watcher: Option<JoinHandle<()>>,
    /// Sockets from the init, if the agent has a network of its own.
    dials: Option<Mutex<mpsc::UnboundedReceiver<Option<OwnedFd>>>>,
}

impl Started {
    /// Keeps the agent's exit for all who will ask, and sockets for the one who has.
    fn watch(&mut self, own_network: bool) {
        let (sockets, dials) = mpsc::unbounded_channel();
        self.dials = own_network.then(|| Mutex::new(dials));
        let (told, exit) = watch::channel(None);
        let (control, group) = (self.control.clone(), self.group.clone());
        self.exit = exit;
        self.watcher = Some(tokio::spawn(async move {
            let exit = loop {
                match next(&control).await {
                    Ok(Some((Report::Exited(exit), _))) => break exit,
                    // Nobody may wait for it any more.
                    Ok(Some((Report::Sockets, mut fds))) => drop(sockets.send(fds.pop())),
                    Ok(Some(_)) => {}
                    // The init was killed, and all with it.
                    Ok(None) | Err(_) => break Exit::Signal(libc::SIGKILL),
                }
            };
            let limit = group.and_then(|group| group.out_of_memory());
            let exit = match (exit, limit) {
                // By itself, or as a shell tells of a child.
                (Exit::Signal(libc::SIGKILL) | Exit::Code(137), Some(limit)) => Exit::OutOfMemory(limit),
                (exit, _) => exit,
            };
            told.send_replace(Some(exit));
        }));
    }

    fn ask(&self, command: Command) {
        // The socket holds many commands; if it is full or its other end is gone, there is nobody to obey.
        let _ = send(self.control.get_ref(), &[command.byte()], &[]);
    }

    /// Begins the end of the tree.
    fn end(&self) {
        match self.has_namespaces {
            true => drop(pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL)),
            // A subreaper must outlive the others to kill them.
            false => drop(rustix::net::shutdown(self.control.get_ref(), Shutdown::Write)),
        }
    }

    /// Waits until the root has ended, and with it all others.
    async fn gone(&self) {
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else { return };
            let mut waiting = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut waiting, Some(&at_once)) {
                Ok(0) => ready.clear_ready(),
                _ => return,
            }
        }
    }
}

impl Tree for Started {
    fn root(&self) -> i32 {
        self.root
    }

    fn root_is_init(&self) -> bool {
        true
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        let mut exit = self.exit.clone();
        async move {
            match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
                Ok(Some(exit)) => exit,
                _ => Exit::Signal(libc::SIGKILL),
            }
        }
        .boxed()
    }

    fn dial(&self) -> BoxFuture<'_, io::Result<OwnedFd>> {
        async move {
            let Some(dials) = &self.dials else { return Ok(launch::tcp_socket()?) };
            let mut dials = dials.lock().await;
            let socket = match dials.try_recv() {
                // One that somebody has asked for and not waited for.
                Ok(socket) => Some(socket),
                Err(_) => {
                    send(self.control.get_ref(), &[Command::Dial.byte()], &[])?;
                    dials.recv().await
                }
            };
            socket.flatten().ok_or_else(|| io::Error::other("the sandbox makes no socket"))
        }
        .boxed()
    }

    fn interrupt(&self) {
        self.ask(Command::Interrupt);
    }

    fn terminate(&self) {
        self.ask(Command::Terminate);
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        let killed = async move {
            self.end();
            if self.has_namespaces {
                return self.gone().await;
            }
            if tokio::time::timeout(SUBREAPER_GRACE, self.gone()).await.is_err() {
                let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
                self.gone().await;
            }
        };
        fault::around("sandbox.kill", killed).boxed()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.end();
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}
