//! The `bwrap` driver: namespaces made by bubblewrap, where it is installed and the machine allows it more than it
//! allows us, as Ubuntu's AppArmor does. Never needed, and never as root: bubblewrap would make root of the host the
//! agent's uid.
//!
//! Inside, this binary is PID 1, as with the native driver: bubblewrap executes it again as `__init`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::io::FdFlags;
use rustix::process::DumpableBehavior;

use super::filter::Filter;
use super::init::{self, INSIDE_UID, Inherited};
use super::launch;
use super::mounts::{BESIDE_USR, GROUP, PASSWD, Step, etc_names, resolv_conf};
use super::network;
use super::protocol::{Failure, Order, Report, Walls};
use super::spawner::{Spawner, is_privileged};
use super::{Inside, Process, Sandbox, Spec, StartError, native, tree};
use crate::wire::{Isolation, Network};

/// The hidden command that bubblewrap executes.
pub const INIT: &str = "__init";
/// Where bubblewrap may be.
const PLACES: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// Where this binary is seen inside.
const BINARY: &str = "/run/superserve-init";

pub(super) struct Bwrap {
    spawner: Spawner,
}

impl Bwrap {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl Sandbox for Bwrap {
    fn name(&self) -> &'static str {
        "bwrap"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Full
    }

    fn mounts(&self) -> bool {
        true
    }

    fn inside(&self, _spec: &Spec) -> Inside {
        native::inside()
    }

    fn own(&self, _uid: u32, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>> {
        tree::start(&self.spawner, spec, Walls::Bwrap).boxed()
    }
}

/// Where bubblewrap is.
///
/// # Errors
/// If it isn't installed, or this is root.
pub(super) fn find() -> Result<&'static Path, Failure> {
    let refused = |errno| Failure { step: "bubblewrap".to_owned(), errno, refused: true };
    if is_privileged() {
        return Err(refused(libc::EPERM));
    }
    PLACES.map(Path::new).into_iter().find(|path| path.is_file()).ok_or_else(|| refused(libc::ENOENT))
}

/// Becomes bubblewrap, which executes this binary inside; answers only with why not.
#[expect(clippy::disallowed_methods, reason = "a sandbox is started by another program here")]
pub(super) fn enter(inherited: &Inherited) -> Failure {
    let enter = || -> Result<Failure, Failure> {
        let program = find()?;
        let order = inherited.order.to_memory().broken("hand on the order")?;
        let binary = fs::File::open("/proc/self/exe").broken("open this program")?;
        let mut files = Vec::new();
        let arguments = arguments(&inherited.order.spec, &binary.as_fd().as_raw_fd(), &mut files)
            .broken("hand on the files of /etc")?;
        let ends = [&order, &inherited.stdin, &inherited.stdout, &inherited.stderr, &inherited.control];
        let kept = ends.into_iter().map(AsFd::as_fd).chain(files.iter().map(AsFd::as_fd));
        for fd in kept.chain([binary.as_fd()]) {
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).broken("hand on a descriptor")?;
        }
        // What bubblewrap has to complain of is for the server to read.
        rustix::stdio::dup2_stderr(&inherited.stderr).broken("hand on a descriptor")?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).args(["--", BINARY, INIT]).env_clear();
        command.args(ends.map(|fd| fd.as_raw_fd().to_string()));
        launch::unblock_signals();
        Err(command.exec()).step("bubblewrap")
    };
    enter().unwrap_or_else(|failure| failure)
}

/// What bubblewrap is told: the same view as the native driver's. `files` take what must stay open for it.
fn arguments(spec: &Spec, binary: &i32, files: &mut Vec<OwnedFd>) -> io::Result<Vec<OsString>> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add =
        |words: &[&dyn AsRef<std::ffi::OsStr>]| all.extend(words.iter().map(|word| word.as_ref().to_owned()));
    let uid = INSIDE_UID.to_string();
    add(&[&"--unshare-user", &"--uid", &uid, &"--gid", &uid]);
    add(&[&"--unshare-pid", &"--unshare-ipc", &"--unshare-uts", &"--unshare-cgroup-try"]);
    add(&[&"--hostname", &spec.name, &"--die-with-parent", &"--as-pid-1"]);
    if spec.network != Network::Host {
        add(&[&"--unshare-net"]);
    }
    if matches!(spec.network, Network::Allow(_)) {
        // For the init alone, which makes its network by them and drops them before there is an agent.
        add(&[&"--cap-add", &"CAP_NET_ADMIN", &"--cap-add", &"CAP_NET_BIND_SERVICE"]);
    }
    add(&[&"--ro-bind", &"/usr", &"/usr"]);
    for name in BESIDE_USR {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            Ok(target) => add(&[&"--symlink", &target, &host]),
            Err(_) => add(&[&"--ro-bind-try", &host, &host]),
        }
    }
    let etc = |name: &str| Path::new("/etc").join(name);
    for name in etc_names() {
        match fs::read_link(etc(&name)) {
            Ok(target) => add(&[&"--symlink", &target, &etc(&name)]),
            Err(_) => add(&[&"--ro-bind-try", &etc(&name), &etc(&name)]),
        }
    }
    let mut made = vec![("passwd", PASSWD.to_owned()), ("group", GROUP.to_owned())];
    made.push(("hostname", format!("{}\n", spec.name)));
    match &spec.network {
        Network::Host => {
            for name in ["resolv.conf", "hosts"] {
                add(&[&"--ro-bind-try", &etc(name), &etc(name)]);
            }
        }
        Network::Allow(_) | Network::None => {
            made.push(("hosts", format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost\n", spec.name)));
            made.push(("resolv.conf", resolv_conf(&spec.network).to_owned()));
        }
    }
    for (name, text) in made {
        let file = memory(&text)?;
        add(&[&"--ro-bind-data", &file.as_raw_fd().to_string(), &etc(name)]);
        files.push(file);
    }
    add(&[&"--proc", &"/proc", &"--dev", &"/dev"]);
    add(&[&"--perms", &"1777", &"--size", &(64_u64 << 20).to_string(), &"--tmpfs", &"/dev/shm"]);
    add(&[&"--remount-ro", &"/dev"]);
    add(&[&"--perms", &"1777", &"--size", &spec.limits.tmp.to_string(), &"--tmpfs", &"/tmp"]);
    add(&[&"--dir", &"/var", &"--symlink", &"../tmp", &"/var/tmp"]);
    add(&[&"--bind", &spec.workspace, &"/workspace", &"--bind", &spec.home, &"/home/agent"]);
    add(&[&"--ro-bind", &spec.runtime, &"/run/superserve"]);
    for path in spec.read_only.iter().filter(|path| !path.starts_with("/usr")) {
        add(&[&"--ro-bind", path, path]);
    }
    for shown in &spec.shown {
        let bind = if shown.writable { "--bind" } else { "--ro-bind" };
        add(&[&bind, &shown.host, &shown.inside]);
    }
    // Not by its path, which another build may have taken since.
    add(&[&"--ro-bind", &PathBuf::from(format!("/proc/self/fd/{binary}")), &BINARY]);
    add(&[&"--remount-ro", &"/", &"--chdir", &"/workspace"]);
    Ok(all)
}

fn memory(text: &str) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = fs::File::from(rustix::fs::memfd_create("etc", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// The whole life of the process that bubblewrap executes: `numbers` are those of the descriptors of its order and its
/// ends. Answers its exit code. Must be called before anything else is opened.
pub fn init_main(numbers: &[String]) -> i32 {
    let fds: Option<Vec<OwnedFd>> =
        numbers.iter().map(|number| launch::inherited(number.parse().ok()?)).collect();
    let Some(Ok([order, stdin, stdout, stderr, control])) = fds.map(<[OwnedFd; 5]>::try_from) else {
        return 1;
    };
    let Ok(go) = control.try_clone() else { return 1 };
    let read = || {
        let order = Order::from_memory(order).broken("read the order")?;
        Ok((order, Filter::compile().step("system call filter")?))
    };
    let (order, filter) = match read() {
        Ok(read) => read,
        Err(failure) => {
            let _ = super::protocol::report(&control, &Report::Failed(failure), &[]);
            return 1;
        }
    };
    let inherited =
        Inherited { order, filter, stdin, stdout, stderr, control, sources: None, privileged: false, go };
    launch::keep_descriptors();
    let prepared = prepare(&inherited).map_err(Report::from);
    init::live(inherited, prepared)
}

/// What is left to do inside.
fn prepare(inherited: &Inherited) -> Result<bool, Failure> {
    init::let_go_of_stdio()?;
    launch::reset_signals();
    // Of loopback bubblewrap itself takes care.
    if matches!(inherited.order.spec.network, Network::Allow(_)) {
        network::make(&inherited.order.spec.network, &inherited.control)?;
    }
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    inherited.order.spec.limits.apply(true)?;
    rustix::process::setsid().broken("start a process session")?;
    init::drop_rights(&inherited.filter)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).broken("hide the init")?;
    Ok(true)
}
