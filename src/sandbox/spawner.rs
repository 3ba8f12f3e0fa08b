//! The spawner: a small process with one thread that starts every sandbox, and the server's handle on it.
//!
//! A server with many threads can't fork safely, and a death signal is bound to the thread that forked. So the server
//! executes its own binary once as the spawner, with a SOCK_SEQPACKET socket as its standard input, and it does
//! nothing but start trees, pass their pidfds back and reap. When that socket ends, it kills what is left, and ends when
//! nothing is.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::Limits;
use super::cgroup::{self, Group, Groups};
use super::filter::Filter;
use super::init::{self, INSIDE_UID, Inherited};
use super::launch;
use super::mounts::{Sources, Step};
use super::protocol::{Failure, Order, Report, Walls, receive, report, send};
use crate::wire::Network;

/// Executes the spawner and answers with the server's end of its socket: SOCK_SEQPACKET, close-on-exec. It also sees
/// to it that the process is waited for when it ends.
pub type LaunchSpawner = Arc<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>;

/// The server's handle on its spawner, which it starts when it is first needed and again if it has died. Cheap to
/// clone.
#[derive(Clone)]
pub struct Spawner {
    launch: LaunchSpawner,
    socket: Arc<Mutex<Option<Arc<AsyncFd<OwnedFd>>>>>,
    groups: Arc<OnceLock<Arc<Groups>>>,
}

impl Spawner {
    pub fn new(launch: LaunchSpawner) -> Self {
        Self { launch, socket: Arc::default(), groups: Arc::default() }
    }

    /// Puts what is started from now on into control groups, where the machine has some for a server with the state
    /// folder `home`.
    pub(super) async fn group(&self, home: &Path) {
        let home = home.to_owned();
        if let Ok(groups) = tokio::task::spawn_blocking(move || Groups::of_server(&home)).await {
            // The first that were found are as good.
            let _ = self.groups.set(Arc::new(groups));
        }
    }

    /// The control groups of a new sandbox, if it is to have any.
    pub(super) fn new_group(&self, limits: &Limits) -> Option<Group> {
        self.groups.get()?.make(limits)
    }

    /// Hands an order to the spawner, with the agent's ends of its stdin, stdout, stderr and control socket.
    pub(super) async fn submit(&self, order: &Order, ends: [&OwnedFd; 4]) -> io::Result<()> {
        let memory = order.to_memory()?;
        let [stdin, stdout, stderr, control] = ends;
        let fds = [&memory, stdin, stdout, stderr, control].map(AsFd::as_fd);
        let mut fresh = false;
        loop {
            let socket = self.socket(&mut fresh).await?;
            let sent = loop {
                let mut ready = socket.writable().await?;
                match ready.try_io(|socket| Ok(send(socket, b"o", &fds)?)) {
                    Ok(sent) => break sent,
                    Err(_would_block) => {}
                }
            };
            match sent {
                Err(error) if !fresh && is_gone(&error) => self.forget(&socket).await,
                other => return other,
            }
        }
    }

    /// Starts it again at the next order.
    async fn forget(&self, dead: &Arc<AsyncFd<OwnedFd>>) {
        let mut current = self.socket.lock().await;
        if current.as_ref().is_some_and(|socket| Arc::ptr_eq(socket, dead)) {
            *current = None;
        }
    }

    /// The socket of a running spawner. Sets `fresh` if it had to be started.
    async fn socket(&self, fresh: &mut bool) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let mut current = self.socket.lock().await;
        if let Some(socket) = &*current {
            return Ok(socket.clone());
        }
        *fresh = true;
        let launch = self.launch.clone();
        let socket = tokio::task::spawn_blocking(move || launch()).await.map_err(io::Error::other)??;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = Arc::new(launch::watch(socket)?);
        *current = Some(socket.clone());
        Ok(socket)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

/// The spawner's own main, for a process whose standard input is the socket; answers with its exit code. Must be
/// called before there is a second thread.
pub fn spawner_main() -> i32 {
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    launch::reset_signals();
    launch::keep_descriptors();
    // Away from the terminal whose Ctrl-C is for the server alone. Fails if this process leads a group already, and
    // then Ctrl-C doesn't reach it anyway.
    let _ = rustix::process::setsid();
    // Only for those who look at the machine's processes, and so as to keep no folder busy.
    let _ = rustix::thread::set_name(c"superserve-spwn");
    let _ = rustix::process::chdir("/");
    let trees =
        Trees { privileged: is_privileged(), filter: None, keyring_shut: false, roots: HashSet::new() };
    match trees.serve(socket) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// Whether this process has all of root's rights on the whole machine: not if it is root only in a namespace.
pub(super) fn is_privileged() -> bool {
    let all_uids = |map: String| {
        let fields: Vec<&str> = map.split_whitespace().collect();
        fields == ["0", "0", "4294967295"]
    };
    rustix::process::geteuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(all_uids)
}

/// The trees that were started and have not been reaped.
struct Trees {
    privileged: bool,
    /// Compiled for the first that needs it.
    filter: Option<Filter>,
    /// Whether the user's keys are out of reach of whatever is started from now on.
    keyring_shut: bool,
    roots: HashSet<Pid>,
}

impl Trees {
    fn serve(mut self, socket: impl AsFd) -> io::Result<()> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let children = launch::child_signals()?;
        loop {
            let mut waiting = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
            let [asked, ended] = waiting.map(|fd| !fd.revents().is_empty());
            if ended {
                let mut signal = [0; 128];
                let _ = rustix::io::read(&children, &mut signal);
                self.reap();
            }
            if asked {
                let (bytes, fds) = receive(&socket)?;
                if bytes.is_empty() {
                    // The server is gone. Whoever sees that this process has ended may count on its trees' end.
                    init::kill_rest();
                    return Ok(());
                }
                self.start(fds);
            }
        }
    }

    /// Reaps, and kills those that became children of the spawner since an agent without isolation ended its own
    /// subreaper.
    fn reap(&mut self) {
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.roots.remove(&pid);
        }
        for orphan in init::children().into_iter().filter(|child| !self.roots.contains(child)) {
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
        }
    }

    /// Carries out one order, and reports on its control socket.
    fn start(&mut self, fds: Vec<OwnedFd>) {
        let Ok([memory, stdin, stdout, stderr, control]) = <[OwnedFd; 5]>::try_from(fds) else { return };
        let Ok(told) = control.try_clone() else { return };
        let order = match Order::from_memory(memory).broken("read the order") {
            Ok(order) => order,
            Err(failure) => return drop(report(&told, &Report::Failed(failure), &[])),
        };
        if let Err(failure) = self.launch(order, [stdin, stdout, stderr, control], &told) {
            // The server may have let go already; then there is nobody to tell.
            let _ = report(&told, &Report::Failed(failure), &[]);
        }
    }

    fn filter(&mut self) -> Result<Filter, Failure> {
        if let Some(filter) = &self.filter {
            return Ok(filter.clone());
        }
        let filter = Filter::compile().step("system call filter")?;
        Ok(self.filter.insert(filter).clone())
    }

    fn launch(&mut self, order: Order, ends: [OwnedFd; 4], told: &OwnedFd) -> Result<(), Failure> {
        let [stdin, stdout, stderr, control] = ends;
        let has_namespaces = order.walls == Walls::Namespaces;
        let privileged = self.privileged && has_namespaces;
        let uids = match (has_namespaces, privileged) {
            (false, _) => None,
            (true, true) => Some((order.spec.uid, order.spec.uid)),
            (true, false) => Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())),
        };
        if privileged && order.spec.uid == 0 {
            // An agent that is root inside would be root on the host's files.
            return Err(Errno::INVAL).broken("map uid 0");
        }
        if order.walls != Walls::None && !self.keyring_shut {
            launch::shut_keyring().broken("leave the session keyring")?;
            self.keyring_shut = true;
        }
        let sources = match privileged {
            true => Some(Sources::open(&order)?),
            false => None,
        };
        let flags = match (has_namespaces, &order.spec.network) {
            (false, _) => 0,
            (true, Network::Host) => launch::NAMESPACES,
            (true, _) => launch::NAMESPACES | launch::NETWORK_NAMESPACE,
        };
        let filter = self.filter()?;
        let (go, goes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).broken("make a pipe")?;
        let mut goes = Some(goes);
        let groups = order.groups.clone();
        let inherited = Inherited { order, filter, stdin, stdout, stderr, control, sources, privileged, go };
        let spawned = launch::spawn(flags, || {
            // The child's own copy: with it open, it would never see that the spawner is gone.
            drop(goes.take());
            init::run(inherited)
        });
        let (root, pidfd) = match spawned {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
                return Err(error).broken("start a process");
            }
            other => other.step("user namespace")?,
        };
        self.roots.insert(root);
        // Before it may start anything.
        cgroup::join(&groups, root.as_raw_nonzero().get());
        if let Some((uid, gid)) = uids {
            map_ids(root, uid, gid, privileged)?;
        }
        report(told, &Report::Launched(root.as_raw_nonzero().get()), &[pidfd.as_fd()])
            .broken("tell the server")?;
        match goes {
            Some(goes) => rustix::io::write(&goes, b"g").map(drop).broken("start a process"),
            None => Ok(()),
        }
    }
}

/// Makes one uid and one gid of the host the agent's own. A child whose maps fail sees the end of its pipe and ends.
fn map_ids(root: Pid, uid: u32, gid: u32, privileged: bool) -> Result<(), Failure> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/{}/{file}", root.as_raw_nonzero()), text).step(file.replace('_', " "))
    };
    if !privileged {
        write("setgroups", "deny".to_owned())?;
    }
    write("uid_map", format!("{INSIDE_UID} {uid} 1\n"))?;
    write("gid_map", format!("{INSIDE_UID} {gid} 1\n"))
}
