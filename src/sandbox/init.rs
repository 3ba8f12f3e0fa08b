//! The root of each sandbox's tree: prepares the sandbox, starts the agent, reaps, and ends with it.
//!
//! In namespaces it is PID 1, so its end is the end of all others. Without them it is a subreaper, which kills until
//! nobody is left.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper,
    set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Exit;
use super::bwrap;
use super::filter::Filter;
use super::landlock;
use super::launch;
use super::mounts::{Sources, Step, enter};
use super::network;
use super::protocol::{Command, Failure, Order, Report, Walls, receive, report};

/// Where programs are looked for if the order's environment doesn't say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The uid and gid of every agent as it sees itself.
pub(super) const INSIDE_UID: u32 = 1000;

/// What the spawner hands to the process that becomes the init.
pub(super) struct Inherited {
    pub order: Order,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub control: OwnedFd,
    /// What an isolated agent may not ask of the kernel.
    pub filter: Filter,
    /// Opened by a privileged spawner; an ordinary one leaves it to the init.
    pub sources: Option<Sources>,
    /// Whether the init has to change to the uid that was mapped for it.
    pub privileged: bool,
    /// Readable when the spawner has done its part; at its end, the spawner is gone.
    pub go: OwnedFd,
}

/// Runs the whole life of a sandbox; answers with the exit code of this process.
pub(super) fn run(mut inherited: Inherited) -> i32 {
    // Only for those who look at the machine's processes.
    let _ = rustix::thread::set_name(c"superserve-init");
    let prepared = match inherited.order.walls {
        Walls::Bwrap => prepare_bwrap(&inherited),
        Walls::Namespaces => prepare(&mut inherited),
        Walls::Landlock | Walls::None => prepare_bare(&inherited),
    };
    live(inherited, prepared)
}

/// The life of an init from when it is prepared; answers with the exit code of this process.
pub(super) fn live(inherited: Inherited, prepared: Result<bool, Report>) -> i32 {
    let walls = inherited.order.walls;
    let started = prepared.and_then(|go| match go {
        true => {
            // Before the agent is there: the end of one that ends at once must not be missed.
            let children = launch::child_signals().broken("make a signalfd")?;
            Ok(Some((start(&inherited)?, children)))
        }
        false => Ok(None),
    });
    let (agent, children) = match started {
        Ok(Some(started)) => started,
        // The spawner is gone: nobody is there to hear about it.
        Ok(None) => return 1,
        Err(answer) => {
            // The server may be gone as well; then there is nothing to tell.
            let _ = report(&inherited.control, &answer, &[]);
            return 1;
        }
    };
    // The agent's output must end when the agent's processes have ended, so nothing of it may stay open here.
    let Inherited { control, .. } = inherited;
    let ended = mind(&control, &children, agent);
    if matches!(walls, Walls::Landlock | Walls::None) {
        kill_rest();
    }
    i32::from(ended.is_err())
}

impl From<Failure> for Report {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Waits until the spawner has done its part; `false` if it is gone.
fn wait_for_go(go: &OwnedFd) -> bool {
    let mut byte = [0];
    matches!(rustix::io::retry_on_intr(|| rustix::io::read(go, &mut byte)), Ok(1))
}

/// Cuts this process off from what it has from the spawner. Its copy of the spawner's socket must go, so that the
/// server sees when the spawner ends.
pub(super) fn let_go_of_stdio() -> Result<(), Failure> {
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .broken("open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).broken("open /dev/null")?;
    rustix::stdio::dup2_stdout(&nothing).broken("open /dev/null")?;
    rustix::stdio::dup2_stderr(&nothing).broken("open /dev/null")
}

/// The full profile. The order of the steps matters: see each.
fn prepare(inherited: &mut Inherited) -> Result<bool, Report> {
    let Inherited { order, control, filter, sources, privileged, go, .. } = inherited;
    set_parent_process_death_signal(Some(Signal::KILL)).broken("death signal")?;
    let_go_of_stdio()?;
    if !wait_for_go(go) {
        return Ok(false);
    }
    if *privileged {
        rustix::thread::set_thread_groups(&[]).step("set the groups")?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(INSIDE_UID), rustix::fs::Gid::from_raw(INSIDE_UID));
        rustix::thread::set_thread_res_gid(gid, gid, gid).step("set the gid")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step("set the uid")?;
        // A change of uid clears it. A spawner that ended meanwhile has taken its server along or is about to be
        // replaced by it; the end of the control socket is then what ends this tree.
        set_parent_process_death_signal(Some(Signal::KILL)).broken("death signal")?;
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    rustix::system::sethostname(host_name(&order.spec.name)).step("host name")?;
    network::make(&order.spec.network, control)?;
    enter(order, sources.take())?;
    order.spec.limits.apply(true)?;
    rustix::process::setsid().broken("start a process session")?;
    drop_rights(filter)?;
    // The agent has this process's uid, and must neither trace it nor read the server's environment in it. Being
    // exec'd makes the agent itself open to its owner again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).broken("hide the init")?;
    rustix::process::chdir("/workspace").broken("enter /workspace")?;
    Ok(true)
}

/// Becomes bubblewrap, which makes the namespaces and executes the init in them.
fn prepare_bwrap(inherited: &Inherited) -> Result<bool, Report> {
    set_parent_process_death_signal(Some(Signal::KILL)).broken("death signal")?;
    let_go_of_stdio()?;
    if !wait_for_go(&inherited.go) {
        return Ok(false);
    }
    Err(bwrap::enter(inherited).into())
}

/// No namespaces: only what lets the tree be killed as a whole. Rules of Landlock's come with the agent, so that this
/// process, which must kill it, stands above them.
fn prepare_bare(inherited: &Inherited) -> Result<bool, Report> {
    if inherited.order.walls == Walls::Landlock {
        landlock::check()?;
    }
    set_child_subreaper(Some(rustix::process::getpid())).broken("subreaper")?;
    let_go_of_stdio()?;
    if !wait_for_go(&inherited.go) {
        return Ok(false);
    }
    rustix::process::setsid().broken("start a process session")?;
    inherited.order.spec.limits.apply(false)?;
    let workspace = &inherited.order.spec.workspace;
    rustix::process::chdir(workspace).broken(format!("enter {}", workspace.display()))?;
    Ok(true)
}

/// Gives up every capability for good, and the system calls that only whoever builds a sandbox needs.
pub(super) fn drop_rights(filter: &Filter) -> Result<(), Failure> {
    // By number, for those too that are newer than rustix.
    for number in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            Ok(()) => {}
            // The first that this kernel doesn't know, or a user who has none to begin with.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error).step("drop capabilities"),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set().step("drop capabilities")?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .step("drop capabilities")?;
    rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
    filter.install().step("system call filter")
}

/// Starts the agent in a process group of its own; when this answers, its program has been exec'd.
fn start(inherited: &Inherited) -> Result<Pid, Report> {
    let (failed, fails) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).broken("make a pipe")?;
    let (agent, _) = launch::spawn(0, || {
        let report = match confine(inherited) {
            Ok(()) => Report::NotExecuted(exec(inherited)),
            Err(failure) => Report::Failed(failure),
        };
        // A lost report reads as a start that went well, and then the exit status tells.
        let _ = rustix::io::write(&fails, &serde_json::to_vec(&report).unwrap_or_default());
        127
    })
    .broken("start a process")?;
    drop(fails);
    let mut report = [0; 1024];
    match rustix::io::retry_on_intr(|| rustix::io::read(&failed, &mut report)) {
        Ok(length @ 1..) => {
            let _ = rustix::process::waitpid(Some(agent), WaitOptions::empty());
            let unread = |_| Report::NotExecuted(libc::EIO);
            Err(serde_json::from_slice(report.get(..length).unwrap_or_default()).unwrap_or_else(unread))
        }
        _ => Ok(agent),
    }
}

/// What only the agent must be kept from, not the process above it.
fn confine(inherited: &Inherited) -> Result<(), Failure> {
    match inherited.order.walls {
        Walls::Landlock => {
            drop_rights(&inherited.filter)?;
            landlock::confine(&inherited.order.spec).step("landlock")
        }
        Walls::Bwrap | Walls::Namespaces | Walls::None => Ok(()),
    }
}

/// Has the kernel end the agent rather than the init, or the server, when memory runs out.
fn blame_first() {
    // What can't be seen into can't be written to either. Nobody else is here yet, and being exec'd will do the same.
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let _ = fs::write("/proc/self/oom_score_adj", "500");
}

/// Becomes the agent's program; answers only with the errno of why not.
#[expect(clippy::disallowed_methods, reason = "the one place that runs an agent's program")]
fn exec(inherited: &Inherited) -> i32 {
    let Inherited { order, stdin, stdout, stderr, .. } = inherited;
    let ready = || -> rustix::io::Result<()> {
        rustix::process::setpgid(None, None)?;
        if matches!(order.walls, Walls::Landlock | Walls::None) {
            // Should the agent end its subreaper, it ends as well.
            set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        if order.walls != Walls::None {
            blame_first();
        }
        order.spec.limits.apply_memory()
    };
    if let Err(error) = ready() {
        return error.raw_os_error();
    }
    let Some((program, arguments)) = order.spec.argv.split_first() else { return libc::EINVAL };
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH);
    for (key, value) in &order.spec.env {
        command.env(key, value);
    }
    launch::unblock_signals();
    // Resets SIGPIPE besides.
    command.exec().raw_os_error().unwrap_or(libc::EINVAL)
}

/// Reaps and obeys until the agent's main process has ended or the server has let go.
fn mind(control: &OwnedFd, children: &OwnedFd, agent: Pid) -> io::Result<()> {
    report(control, &Report::Started, &[])?;
    loop {
        let mut waiting = [PollFd::new(control, PollFlags::IN), PollFd::new(children, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
        let [asked, ended] = waiting.map(|fd| !fd.revents().is_empty());
        if ended {
            let mut signal = [0; 128];
            let _ = rustix::io::read(children, &mut signal);
            if let Some(exit) = reap(agent) {
                report(control, &Report::Exited(exit), &[])?;
                return Ok(());
            }
        }
        if asked {
            let (bytes, _) = receive(control)?;
            let Some(byte) = bytes.first() else { return Ok(()) };
            // Only this process reaps the agent, so its pid can't have become another's.
            let _ = match Command::from_byte(*byte) {
                Some(Command::Dial) => {
                    hand_out_socket(control)?;
                    Ok(())
                }
                Some(Command::Interrupt) => kill_process_group(agent, Signal::INT),
                Some(Command::Terminate) => kill_process(agent, Signal::TERM),
                None => Ok(()),
            };
        }
    }
}

/// Makes a TCP socket in the agent's network for the server, which can't get in there itself.
fn hand_out_socket(control: &OwnedFd) -> io::Result<()> {
    match &launch::tcp_socket() {
        Ok(socket) => report(control, &Report::Sockets, &[socket.as_fd()]),
        Err(_) => report(control, &Report::Sockets, &[]),
    }
}

/// Reaps all that have ended; the agent's exit if it is one of them.
fn reap(agent: Pid) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == agent {
            exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(Exit::Code(code)),
                (None, Some(signal)) => Some(Exit::Signal(signal)),
                (None, None) => None,
            };
        }
    }
    exit
}

/// Kills children until there are none: those of a killed one become ours, as this process is a subreaper.
pub(super) fn kill_rest() {
    loop {
        for child in children() {
            // It may have ended meanwhile; it is not reaped yet, so the pid is still its own.
            let _ = kill_process(child, Signal::KILL);
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The children of this process, which must have one thread.
pub(super) fn children() -> Vec<Pid> {
    fs::read_to_string("/proc/thread-self/children")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// As much of a name as a host name may have.
fn host_name(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    bytes.get(..64).unwrap_or(bytes)
}
