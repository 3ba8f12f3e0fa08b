//! Where the drivers' tests play: folders, a spawner, and whose server it is.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::protocol::socket_pair;
use super::*;

/// The uid of `nobody`, as whom the tests of an ordinary user's server run where they themselves run as root.
pub(super) const NOBODY: u32 = 65534;
/// The uid of sessions where the server is root.
pub(super) const SESSION: u32 = 1_900_000_007;
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes this very binary a spawner, as `lib::run` does with the product's: before there is a second thread, which in
/// a test binary means before its own main.
#[used]
#[expect(unsafe_code, reason = "a function in this section runs before main")]
// SAFETY: the section holds pointers to functions of this type, and this one is sound before main: it only reads the
// environment, which libc has set up by then, unless this process is to be a spawner and never gets to main.
#[unsafe(link_section = ".init_array")]
static BECOME_SPAWNER: extern "C" fn() = {
    #[expect(clippy::disallowed_methods, reason = "stands in for main")]
    extern "C" fn become_spawner() {
        let words: Vec<String> = std::env::args().collect();
        if words.get(1).is_some_and(|word| word == INIT) {
            std::process::exit(init_main(&words[2..]));
        }
        match std::env::var(SPAWNER_VARIABLE).as_deref() {
            Err(_) => return,
            Ok("no-namespaces") => allow_no_namespaces(),
            Ok("masked-proc") => mask_proc(),
            Ok("key") => keep_key(),
            Ok(_) => {}
        }
        std::process::exit(spawner_main());
    }
    become_spawner
};
const SPAWNER_VARIABLE: &str = "SUPERSERVE_TEST_SPAWNER";

/// What a machine's owner does who sets user.max_user_namespaces to 0.
fn allow_no_namespaces() {
    unshare(rustix::thread::UnshareFlags::NEWUSER);
    fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
}

/// What a container does that hides a part of /proc.
fn mask_proc() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    unshare(rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNS);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", "/proc/sys", "tmpfs", MountFlags::RDONLY, None).unwrap();
}

/// What a user does who keeps a key in the keyring of the login, for those alone who have that keyring.
#[expect(unsafe_code, reason = "no crate here wraps keys")]
fn keep_key() {
    let (kind, name, key) = (c"user", c"superserve-test-key", b"secret");
    // SAFETY: the pointers are to C strings and to as many bytes as are named, which outlive the calls. A kernel
    // without keys answers with an error.
    unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0);
        let keyring = libc::KEY_SPEC_SESSION_KEYRING;
        let made =
            libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), key.as_ptr(), key.len(), keyring);
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, made, 0x3f00_0000);
    }
}

/// Makes this process, which has one thread, root in new namespaces.
fn unshare(namespaces: rustix::thread::UnshareFlags) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    #[expect(unsafe_code, reason = "rustix warns of UnshareFlags::FILES")]
    // SAFETY: the descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// The user who runs the tests.
    Me,
    Nobody,
}

pub(super) fn servers() -> &'static [Server] {
    match rustix::process::geteuid().is_root() {
        true => &[Server::Me, Server::Nobody],
        false => &[Server::Me],
    }
}

/// Whose servers may isolate agents on this machine; the others are named as skipped.
pub(super) fn isolating() -> &'static [Server] {
    static ISOLATING: OnceLock<Vec<Server>> = OnceLock::new();
    ISOLATING.get_or_init(|| {
        // A thread of its own, as a runtime can't be started on one that runs another.
        let tried = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            servers().iter().copied().filter(|&server| runtime.block_on(may_isolate(server))).collect()
        });
        tried.join().unwrap()
    })
}

async fn may_isolate(server: Server) -> bool {
    let stage = Stage::new(server);
    let native = stage.native();
    stage.own(&native);
    match native.start(&stage.spec(&["true"])).await {
        Err(StartError::Refused(refusal)) => {
            // Not by a macro, whose output is kept back when a test passes.
            writeln!(io::stderr(), "skipped for {server:?}: the native sandbox: {refusal}").unwrap();
            false
        }
        // Any other error is the tests' to find.
        _ => true,
    }
}

pub(super) struct Stage {
    pub(super) folder: TempDir,
    pub(super) server: Server,
    pub(super) spawner: Spawner,
    /// Pids of the spawners that were started.
    pub(super) pids: Arc<Mutex<Vec<u32>>>,
}

impl Stage {
    pub(super) fn new(server: Server) -> Self {
        Self::on(server, "as-it-is")
    }

    /// On a machine as the spawner makes it for itself.
    pub(super) fn on(server: Server, machine: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pids = Arc::new(Mutex::new(Vec::new()));
        let started = pids.clone();
        let launch = move || -> io::Result<OwnedFd> {
            let (ours, theirs) = socket_pair()?;
            #[expect(
                clippy::disallowed_methods,
                reason = "stands in for the daemon, which starts the spawner"
            )]
            let mut command = std::process::Command::new(std::env::current_exe()?);
            command
                .arg(format!("spawner-of-{}-", std::process::id()))
                .env(SPAWNER_VARIABLE, machine)
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null());
            if server == Server::Nobody {
                command.uid(NOBODY).gid(NOBODY);
            }
            let mut child = command.spawn()?;
            started.lock().unwrap().push(child.id());
            std::thread::spawn(move || child.wait());
            Ok(ours)
        };
        let stage = Self { folder, server, spawner: Spawner::new(Arc::new(launch)), pids };
        for name in ["workspace", "home", "runtime"] {
            fs::create_dir(stage.path(name)).unwrap();
            fs::set_permissions(stage.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        if server == Server::Nobody {
            for path in
                [stage.folder.path(), &stage.path("workspace"), &stage.path("home"), &stage.path("runtime")]
            {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        stage
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn native(&self) -> native::Native {
        native::Native::new(self.spawner.clone(), self.folder.path())
    }

    /// All drivers that this machine allows.
    pub(super) fn drivers(&self) -> Vec<Box<dyn Sandbox>> {
        let mut drivers: Vec<Box<dyn Sandbox>> = vec![Box::new(self.none())];
        drivers.extend(self.bwrap());
        if landlock::check().is_ok() {
            drivers.push(Box::new(self.landlock()));
        }
        if isolating().contains(&self.server) {
            drivers.push(Box::new(self.native()));
        }
        drivers
    }

    /// The driver with bubblewrap, if that is there and this is no server of root's.
    pub(super) fn bwrap(&self) -> Option<Box<dyn Sandbox>> {
        let may = self.server == Server::Nobody || servers().len() == 1;
        let there = may && std::path::Path::new("/usr/bin/bwrap").exists();
        there.then(|| Box::new(bwrap::Bwrap::new(self.spawner.clone())) as Box<dyn Sandbox>)
    }

    /// Those of them that give an agent namespaces of its own.
    pub(super) fn full(&self) -> Vec<Box<dyn Sandbox>> {
        self.drivers().into_iter().filter(|driver| driver.isolation() == Isolation::Full).collect()
    }

    fn uid(&self) -> u32 {
        match self.server {
            Server::Me => rustix::process::geteuid().as_raw(),
            Server::Nobody => NOBODY,
        }
    }

    pub(super) fn landlock(&self) -> landlock::Landlock {
        landlock::Landlock::new(self.spawner.clone(), self.uid())
    }

    pub(super) fn none(&self) -> none::None {
        none::None::new(self.spawner.clone())
    }

    pub(super) fn spec(&self, argv: &[&str]) -> Spec {
        Spec {
            name: "story".to_owned(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            workspace: self.path("workspace"),
            home: self.path("home"),
            runtime: self.path("runtime"),
            read_only: Vec::new(),
            shown: Vec::new(),
            network: Network::None,
            limits: Limits::default(),
            uid: SESSION,
        }
    }

    /// Gives the lasting folders to the session, as the platform does before a start.
    pub(super) fn own(&self, sandbox: &dyn Sandbox) {
        if self.server == Server::Me {
            sandbox.own(SESSION, &self.path("workspace")).unwrap();
            sandbox.own(SESSION, &self.path("home")).unwrap();
        }
    }

    pub(super) async fn start(&self, sandbox: &dyn Sandbox, argv: &[&str]) -> Process {
        self.own(sandbox);
        sandbox.start(&self.spec(argv)).await.unwrap()
    }

    /// What a shell command says, and how it ends.
    pub(super) async fn run(&self, sandbox: &dyn Sandbox, script: &str) -> (String, Exit) {
        let process = self.start(sandbox, &["sh", "-c", script]).await;
        finish(process).await
    }
}

/// Both outputs to their end, and the exit.
pub(super) async fn finish(process: Process) -> (String, Exit) {
    drop(process.stdin);
    let (stdout, stderr) = (process.stdout, process.stderr);
    let text =
        tokio::task::spawn_blocking(move || read_all(stdout) + read_all(stderr).as_str()).await.unwrap();
    let exit = process.tree.exited().await;
    process.tree.kill().await;
    (text, exit)
}

fn read_all(fd: OwnedFd) -> String {
    rustix::io::ioctl_fionbio(&fd, false).unwrap();
    let mut text = String::new();
    fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

pub(super) async fn read_line(fd: &OwnedFd) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut byte = [0];
    while Instant::now() < deadline {
        match rustix::io::read(fd, &mut byte) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    String::from_utf8(line).unwrap()
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many processes on the host have `marker` among their arguments.
pub(super) fn marked(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

/// A shell that starts two daemons of the stubborn kind and says `up` when all three are there. Each has `marker`
/// among its arguments.
pub(super) fn stubborn(marker: &str) -> Vec<String> {
    let daemon =
        format!("setsid sh -c 'trap \"\" TERM INT HUP; echo up; while :; do sleep 1; done' {marker} &");
    let script = format!("trap '' TERM; {daemon} {daemon} while :; do sleep 1; done");
    ["sh", "-c", &script, marker].map(str::to_owned).to_vec()
}

pub(super) async fn start_stubborn(stage: &Stage, sandbox: &dyn Sandbox, marker: &str) -> Process {
    stage.own(sandbox);
    let process = sandbox.start(&Spec { argv: stubborn(marker), ..stage.spec(&[]) }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_line(&process.stdout).await, "up");
    }
    assert!(marked(marker) >= 3);
    process
}

/// A chain of folders that no path could name, `width` of them in each, with a file of this content at the bottom.
pub(super) fn dig(top: &std::path::Path, depth: usize, width: usize, content: &[u8]) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let folder_only = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = openat(CWD, top, folder_only, Mode::empty()).unwrap();
    for _ in 0..depth {
        (0..width).for_each(|number| mkdirat(&folder, number.to_string(), Mode::RWXU).unwrap());
        folder = openat(&folder, "0", folder_only, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&folder, "bottom", flags, Mode::RUSR).unwrap();
    rustix::io::write(&file, content).unwrap();
}
