//! What every driver must do, and what an isolated agent must not be able to do.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::protocol::socket_pair;
use super::*;

/// The uid of `nobody`, as whom the tests of an ordinary user's server run where they themselves run as root.
const NOBODY: u32 = 65534;
/// The uid of sessions where the server is root.
const SESSION: u32 = 1_900_000_007;
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
        match std::env::var(SPAWNER_VARIABLE).as_deref() {
            Err(_) => return,
            Ok("no-namespaces") => allow_no_namespaces(),
            Ok("masked-proc") => mask_proc(),
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
enum Server {
    /// The user who runs the tests.
    Me,
    Nobody,
}

fn servers() -> &'static [Server] {
    match rustix::process::geteuid().is_root() {
        true => &[Server::Me, Server::Nobody],
        false => &[Server::Me],
    }
}

struct Stage {
    folder: TempDir,
    server: Server,
    spawner: Spawner,
    /// Pids of the spawners that were started.
    pids: Arc<Mutex<Vec<u32>>>,
}

impl Stage {
    fn new(server: Server) -> Self {
        Self::on(server, "as-it-is")
    }

    /// On a machine as the spawner makes it for itself.
    fn on(server: Server, machine: &'static str) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn native(&self) -> native::Native {
        native::Native::new(self.spawner.clone())
    }

    fn none(&self) -> none::None {
        none::None::new(self.spawner.clone())
    }

    fn spec(&self, argv: &[&str]) -> Spec {
        Spec {
            name: "story".to_owned(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            workspace: self.path("workspace"),
            home: self.path("home"),
            runtime: self.path("runtime"),
            read_only: Vec::new(),
            network: Network::None,
            uid: SESSION,
        }
    }

    /// Gives the lasting folders to the session, as the platform does before a start.
    fn own(&self, sandbox: &dyn Sandbox) {
        if self.server == Server::Me {
            sandbox.own(SESSION, &self.path("workspace")).unwrap();
            sandbox.own(SESSION, &self.path("home")).unwrap();
        }
    }

    async fn start(&self, sandbox: &dyn Sandbox, argv: &[&str]) -> Process {
        self.own(sandbox);
        sandbox.start(&self.spec(argv)).await.unwrap()
    }

    /// What a shell command says, and how it ends.
    async fn run(&self, sandbox: &dyn Sandbox, script: &str) -> (String, Exit) {
        let process = self.start(sandbox, &["sh", "-c", script]).await;
        finish(process).await
    }
}

/// Both outputs to their end, and the exit.
async fn finish(process: Process) -> (String, Exit) {
    drop(process.stdin);
    let (stdout, stderr) = (process.stdout, process.stderr);
    let text = tokio::task::spawn_blocking(move || read_all(stdout) + &read_all(stderr)).await.unwrap();
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

async fn read_line(fd: &OwnedFd) -> String {
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

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many processes on the host have `marker` among their arguments.
fn marked(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

/// A shell that starts two daemons of the stubborn kind and says `up` when all three are there. Each has `marker`
/// among its arguments.
fn stubborn(marker: &str) -> Vec<String> {
    let daemon =
        format!("setsid sh -c 'trap \"\" TERM INT HUP; echo up; while :; do sleep 1; done' {marker} &");
    let script = format!("trap '' TERM; {daemon} {daemon} while :; do sleep 1; done");
    ["sh", "-c", &script, marker].map(str::to_owned).to_vec()
}

async fn start_stubborn(stage: &Stage, sandbox: &dyn Sandbox, marker: &str) -> Process {
    stage.own(sandbox);
    let process = sandbox.start(&Spec { argv: stubborn(marker), ..stage.spec(&[]) }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_line(&process.stdout).await, "up");
    }
    assert!(marked(marker) >= 3);
    process
}

#[tokio::test]
async fn an_agent_answers_through_its_pipes() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let process = stage.start(sandbox, &["cat"]).await;
            rustix::io::write(&process.stdin, b"hello\n").unwrap();
            assert_eq!(read_line(&process.stdout).await, "hello", "{server:?} {}", sandbox.name());
            assert_eq!(finish(process).await, (String::new(), Exit::Code(0)));
        }
    }
}

#[tokio::test]
async fn exits_are_told_apart() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            for (script, exit) in [
                ("echo out; echo err >&2; exit 7", Exit::Code(7)),
                ("echo out; echo err >&2; kill -9 $$", Exit::Signal(9)),
                ("echo out; echo err >&2; kill -SEGV $$", Exit::Signal(11)),
            ] {
                let process = stage.start(sandbox, &["sh", "-c", script]).await;
                assert_eq!(process.tree.exited().await, exit, "{server:?} {}", sandbox.name());
                assert_eq!(process.tree.exited().await, exit, "the second time");
                assert_eq!(finish(process).await, ("out\nerr\n".to_owned(), exit));
            }
        }
    }
}

#[tokio::test]
async fn a_program_that_cannot_run_is_an_error_of_the_start() {
    for &server in servers() {
        let stage = Stage::new(server);
        let program = stage.path("workspace").join("plain");
        fs::write(&program, "not a program").unwrap();
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            for (program, kind) in [
                ("no-such-program", io::ErrorKind::NotFound),
                ("./no-such-program", io::ErrorKind::NotFound),
                ("./plain", io::ErrorKind::PermissionDenied),
                ("/", io::ErrorKind::PermissionDenied),
            ] {
                stage.own(sandbox);
                match sandbox.start(&stage.spec(&[program])).await {
                    Err(StartError::Exec { program: named, source }) => {
                        assert_eq!((named.as_str(), source.kind()), (program, kind), "{}", sandbox.name());
                    }
                    other => panic!("{program}: {:?}", other.map(|process| process.tree.root())),
                }
            }
        }
        let spawner = stage.pids.lock().unwrap()[0];
        let children =
            || fs::read_to_string(format!("/proc/{spawner}/task/{spawner}/children")).unwrap_or_default();
        until("nothing is left to reap", || children().trim().is_empty()).await;
    }
}

#[tokio::test]
async fn what_the_kernel_cannot_take_is_named() {
    let stage = Stage::new(Server::Me);
    let native = stage.native();
    let spec = || stage.spec(&["true"]);
    for (spec, what) in [
        (stage.spec(&[]), "no program"),
        (stage.spec(&["a\0b"]), "NUL"),
        (Spec { env: vec![("A=B".into(), "c".into())], ..spec() }, "\"A=B\""),
        (Spec { env: vec![("A".into(), "\0".into())], ..spec() }, "\"A\""),
        (Spec { read_only: vec!["/etc".into()], ..spec() }, "/etc"),
        (Spec { workspace: "relative".into(), ..spec() }, "relative"),
        (Spec { workspace: stage.path("missing"), ..spec() }, "missing"),
        (Spec { read_only: vec![stage.path("absent")], ..spec() }, "absent"),
    ] {
        match native.start(&spec).await {
            Err(StartError::Io(error)) => assert!(error.to_string().contains(what), "{error}"),
            other => panic!("{what}: {:?}", other.map(|process| process.tree.root())),
        }
    }
}

#[tokio::test]
async fn root_of_the_host_is_never_an_agent() {
    if servers().len() < 2 {
        return;
    }
    let stage = Stage::new(Server::Me);
    let refused = stage.native().start(&Spec { uid: 0, ..stage.spec(&["true"]) }).await;
    assert!(matches!(refused, Err(StartError::Io(_))));
}

#[tokio::test]
async fn a_kill_leaves_nobody() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let marker = format!("kill-{}-{server:?}-{}", std::process::id(), sandbox.name());
            let process = start_stubborn(&stage, sandbox, &marker).await;
            process.tree.terminate();
            process.tree.kill().await;
            assert_eq!(marked(&marker), 0, "when the kill has answered: {server:?} {}", sandbox.name());
            process.tree.kill().await;
            process.tree.interrupt();
            process.tree.exited().await;
        }
    }
}

#[tokio::test]
async fn the_agents_end_is_the_end_of_its_daemons() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let marker = format!("main-{}-{server:?}-{}", std::process::id(), sandbox.name());
            let script = format!(
                "setsid sh -c 'trap \"\" TERM HUP; echo up; while :; do sleep 1; done' {marker} & read line"
            );
            let process = stage.start(sandbox, &["sh", "-c", &script, &marker]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            drop(process.stdin);
            assert_eq!(process.tree.exited().await, Exit::Code(1));
            until("its daemon is gone", || marked(&marker) == 0).await;
        }
    }
}

#[tokio::test]
async fn letting_go_kills() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let marker = format!("drop-{}-{server:?}-{}", std::process::id(), sandbox.name());
            drop(start_stubborn(&stage, sandbox, &marker).await);
            until("all are gone", || marked(&marker) == 0).await;
        }
    }
}

#[tokio::test]
async fn a_start_that_is_let_go_leaves_nobody() {
    let stage = Stage::new(Server::Me);
    for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
        let marker = format!("half-{}-{}", std::process::id(), sandbox.name());
        stage.own(sandbox);
        let spec = Spec { argv: stubborn(&marker), ..stage.spec(&[]) };
        for patience in [0, 100, 500, 1000, 2000, 4000] {
            let _ = tokio::time::timeout(Duration::from_micros(patience), sandbox.start(&spec)).await;
        }
        // The spawner works in order: when this one has ended, all before it had begun.
        stage.run(sandbox, "true").await;
        until("all are gone", || marked(&marker) == 0).await;
    }
}

/// Not a test: a server that will be killed. Its folders are in the working folder.
#[tokio::test]
#[ignore = "the server process of another test"]
async fn server_process() {
    let stage = Stage::new(Server::Me);
    let marker = fs::read_to_string("marker").unwrap();
    let native = start_stubborn(&stage, &stage.native(), &marker).await;
    let none = start_stubborn(&stage, &stage.none(), &marker).await;
    fs::write("up", stage.folder.path().as_os_str().as_encoded_bytes()).unwrap();
    native.tree.exited().await;
    none.tree.exited().await;
}

/// A process that doesn't outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "stands in for a server that dies")]
async fn the_servers_death_is_the_end_of_all_trees() {
    for &server in servers() {
        let folder = tempfile::tempdir().unwrap();
        let marker = format!("death-{}-{server:?}", std::process::id());
        fs::write(folder.path().join("marker"), &marker).unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "sandbox::story::server_process"]);
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        if server == Server::Nobody {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = Killed(command.spawn().unwrap());
        until("the server's agents are up", || folder.path().join("up").exists()).await;
        let spawners = format!("spawner-of-{}-", child.0.id());
        assert!(marked(&marker) >= 6 && marked(&spawners) >= 1);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        until("all are gone", || marked(&marker) == 0).await;
        until("its spawners are gone", || marked(&spawners) == 0).await;
        let left = fs::read_to_string(folder.path().join("up")).unwrap();
        let _ = fs::remove_dir_all(left);
    }
}

#[tokio::test]
async fn a_dead_spawner_is_replaced() {
    for &server in servers() {
        let stage = Stage::new(server);
        let native = stage.native();
        let marker = format!("spawner-{}-{server:?}", std::process::id());
        let process = start_stubborn(&stage, &native, &marker).await;
        let spawner =
            rustix::process::Pid::from_raw(i32::try_from(stage.pids.lock().unwrap()[0]).unwrap()).unwrap();
        rustix::process::kill_process(spawner, rustix::process::Signal::KILL).unwrap();
        // Its children's death signal.
        assert_eq!(process.tree.exited().await, Exit::Signal(9));
        process.tree.kill().await;
        assert_eq!(marked(&marker), 0);
        assert_eq!(stage.run(&native, "echo again").await, ("again\n".to_owned(), Exit::Code(0)));
        assert_eq!(stage.pids.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn an_agent_that_kills_its_subreaper_dies_too() {
    for &server in servers() {
        let stage = Stage::new(server);
        let none = stage.none();
        let marker = format!("reaper-{}-{server:?}", std::process::id());
        let process = start_stubborn(&stage, &none, &marker).await;
        let root = rustix::process::Pid::from_raw(process.tree.root()).unwrap();
        rustix::process::kill_process(root, rustix::process::Signal::KILL).unwrap();
        assert_eq!(process.tree.exited().await, Exit::Signal(9));
        until("all are gone", || marked(&marker) == 0).await;
    }
}

#[tokio::test]
async fn signals_reach_the_agent() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let script =
                "trap 'echo int' INT; trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.01; done";
            let process = stage.start(sandbox, &["sh", "-c", script]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            process.tree.interrupt();
            assert_eq!(read_line(&process.stdout).await, "int");
            process.tree.terminate();
            assert_eq!(read_line(&process.stdout).await, "term");
            assert_eq!(process.tree.exited().await, Exit::Code(3), "{server:?} {}", sandbox.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_at_the_last_moment_hides_no_exit() {
    let stage = Stage::new(Server::Me);
    for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
        for _ in 0..10 {
            let process =
                stage.start(sandbox, &["sh", "-c", "trap '' INT; echo up; read line; exit 7"]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            drop(process.stdin);
            let ended = std::sync::atomic::AtomicBool::new(false);
            let exit = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        process.tree.interrupt();
                    }
                });
                let exit = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(process.tree.exited())
                });
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
                exit
            });
            assert_eq!(exit, Exit::Code(7), "{}", sandbox.name());
        }
    }
}

#[tokio::test]
async fn a_machine_that_refuses_is_told_from_one_that_fails() {
    for &server in servers() {
        for (machine, step, remedy) in [
            ("no-namespaces", "user namespace", "user.max_user_namespaces"),
            ("masked-proc", "mount /proc", "systempaths=unconfined"),
        ] {
            let stage = Stage::on(server, machine);
            match stage.native().start(&stage.spec(&["true"])).await {
                Err(StartError::Refused(refusal)) => {
                    assert_eq!(refusal.step, step, "{server:?} {refusal:?}");
                    assert!(refusal.remedy.contains(remedy), "{refusal:?}");
                }
                other => panic!("{machine}: {:?}", other.map(|process| process.tree.root())),
            }
            // What is asked for by name still works, and the best is never replaced by it in silence.
            assert_eq!(stage.run(&stage.none(), "echo on").await.0, "on\n");
            let refused = open(Choice::Auto, stage.spawner.clone(), stage.folder.path(), SESSION).await.err();
            assert!(server == Server::Nobody || refused.unwrap().remedy.contains("--sandbox none"));
        }
    }
}

#[tokio::test]
async fn init_reaps_what_others_leave() {
    for &server in servers() {
        let stage = Stage::new(server);
        for sandbox in [&stage.native() as &dyn Sandbox, &stage.none()] {
            let process =
                stage.start(sandbox, &["sh", "-c", "(true &) ; (true &) ; echo up; exec cat"]).await;
            assert_eq!(read_line(&process.stdout).await, "up");
            let root = process.tree.root();
            let children = || fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap();
            until("the agent is the only child", || children().split_whitespace().count() == 1).await;
            assert!(process.tree.root_is_init());
        }
    }
}

#[tokio::test]
async fn workspace_and_home_last_and_nothing_else() {
    for &server in servers() {
        let stage = Stage::new(server);
        let native = stage.native();
        let (text, exit) = stage.run(&native, "pwd; echo a > note; echo c > /tmp/note").await;
        assert_eq!((text.as_str(), exit), ("/workspace\n", Exit::Code(0)));
        let set = "HOME=/home/agent; ";
        let (text, _) =
            stage.run(&native, &format!("{set} echo b > ~/note; cat note; ls -A /tmp | wc -l")).await;
        assert_eq!(text, "a\n0\n");
        let (text, _) = stage.run(&native, &format!("{set} cat note ~/note")).await;
        assert_eq!(text, "a\nb\n");
        assert_eq!(fs::read_to_string(stage.path("workspace/note")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(stage.path("home/note")).unwrap(), "b\n");
    }
}

#[tokio::test]
async fn the_runtime_folder_can_only_be_read_but_its_fifo_written() {
    for &server in servers() {
        let stage = Stage::new(server);
        let runtime = stage.path("runtime");
        fs::write(runtime.join("history.jsonl"), "past\n").unwrap();
        let fifo = runtime.join("turn");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        rustix::fs::chmod(&fifo, mode).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let ours = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).unwrap();
        let native = stage.native();
        let script = "cd /run/superserve; cat history.jsonl; echo done > turn; \
            for name in history.jsonl new; do (echo x > $name) 2>/dev/null || echo denied; done; rm turn 2>/dev/null";
        let (text, exit) = stage.run(&native, script).await;
        assert_eq!((text.as_str(), exit), ("past\ndenied\ndenied\n", Exit::Code(1)), "{server:?}");
        assert_eq!(read_line(&ours).await, "done");
    }
}

#[tokio::test]
async fn a_shown_folder_can_only_be_read() {
    for &server in servers() {
        let stage = Stage::new(server);
        // Below folders that a session's uid can't pass.
        let shown = stage.path("deep/shown");
        fs::create_dir_all(&shown).unwrap();
        fs::write(shown.join("file"), "seen\n").unwrap();
        if server == Server::Nobody {
            chown(stage.path("deep"), Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&shown, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(stage.path("deep"), fs::Permissions::from_mode(0o700)).unwrap();
        let native = stage.native();
        let script = format!("cat {0}/file; touch {0}/new 2>/dev/null || echo denied", shown.display());
        let spec =
            Spec { read_only: vec![shown.clone(), "/usr/bin".into()], ..stage.spec(&["sh", "-c", &script]) };
        stage.own(&native);
        assert_eq!(finish(native.start(&spec).await.unwrap()).await.0, "seen\ndenied\n", "{server:?}");
        let hidden = native.start(&Spec { read_only: Vec::new(), ..spec }).await.unwrap();
        assert!(!finish(hidden).await.0.contains("seen"));
    }
}

/// What an isolated agent must not be able to do. Each first succeeds with the `none` driver: a broken probe must
/// not pass for a wall.
#[tokio::test]
async fn walls() {
    for &server in servers() {
        let stage = Stage::new(server);
        let (native, none) = (stage.native(), stage.none());
        stage.run(&none, "true").await;
        let spawner = stage.pids.lock().unwrap()[0];
        let secret = stage.path("secret");
        fs::write(&secret, "secret\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        if server == Server::Nobody {
            chown(&secret, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let secret = secret.display().to_string();
        let me = std::process::id();
        let mut probes = vec![
            ("read a file in the host's /tmp", format!("cat {secret}")),
            ("write a file in the host's /tmp", format!("echo x >> {secret}")),
            ("see the host's other files", "test -e /proc/1/cmdline && test -e /sys/kernel".to_owned()),
            ("see the host's processes", format!("test -e /proc/{me}")),
            ("signal a process of the same user", format!("kill -0 {spawner}")),
            ("learn the host's name", format!("test $(uname -n) = {}", host_name())),
        ];
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            probes.push((
                "share a namespace",
                format!("test $(readlink /proc/self/ns/{name}) = '{}'", host.display()),
            ));
        }
        if server == Server::Me && servers().len() == 2 {
            probes.push(("write to /usr", "test -w /usr && test -w /etc".to_owned()));
            probes.push(("read the host's passwords", "cat /etc/shadow".to_owned()));
            probes.push((
                "have capabilities",
                "! grep -q 'CapEff:.*0000000000000000' /proc/self/status".to_owned(),
            ));
            probes.push(("own the host's files", "test $(stat -c %u /usr) = $(id -u)".to_owned()));
        }
        if server == Server::Nobody || servers().len() == 1 {
            // An ordinary user's agent has the user's uid: its own files outside are what it must not reach.
            probes.push(("be its user outside", format!("test -O {}", stage.folder.path().display())));
        }
        for (what, script) in probes {
            let (text, exit) = stage.run(&none, &script).await;
            assert_eq!(exit, Exit::Code(0), "{server:?} none: {what}: {script}: {text}");
            let (text, exit) = stage.run(&native, &script).await;
            assert!(matches!(exit, Exit::Code(1..)), "{server:?} native: {what}: {script}: {text}");
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[tokio::test]
async fn an_isolated_agent_has_only_its_own() {
    for &server in servers() {
        let stage = Stage::new(server);
        let native = stage.native();
        for (script, says) in [
            ("id -u; id -g; id -un", "1000\n1000\nagent\n"),
            ("uname -n; cat /etc/hostname", "story\nstory\n"),
            ("grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status | grep -vc ':.0*$'", "0\n"),
            ("grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
            (
                "env | grep -vE '^(PWD|OLDPWD|SHLVL|_)='",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
            ),
            ("ls /", "bin\ndev\netc\nhome\nlib\nlib64\nproc\nrun\nsbin\ntmp\nusr\nvar\nworkspace\n"),
            ("ls /proc | grep -c '^[0-9]'", "4\n"),
            ("ls -A /home /run /run/superserve", "/home:\nagent\n\n/run:\nsuperserve\n\n/run/superserve:\n"),
            (
                "for d in / /usr /bin /etc /dev /run/superserve; do touch $d/x 2>&1 | grep -c 'Read-only'; done",
                "1\n1\n1\n1\n1\n1\n",
            ),
            ("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\n"),
            (
                "echo x > /dev/null && head -c 3 /dev/zero | wc -c; ls /dev",
                "3\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
            ),
            ("ls -l /proc/self/fd | grep -vc /proc", "4\n"),
            ("ulimit -n; ulimit -Hn; ulimit -c", "1024\n4096\n0\n"),
            (
                "stat -c %a /tmp /dev/shm; echo x > /tmp/x && echo x > /dev/shm/x && cat /tmp/x",
                "1777\n1777\nx\n",
            ),
            ("mount -t tmpfs x /tmp 2>/dev/null || echo refused", "refused\n"),
            ("umask; ps -o pgid= -p $$ | tr -d ' '", "0022\n2\n"),
            ("cat /proc/1/environ 2>/dev/null | wc -c; ls /proc/1/fd 2>/dev/null | wc -l", "0\n0\n"),
            (
                "unshare -Urm sh -c 'mount -o remount,rw,bind /run/superserve || umount /run/superserve' 2>/dev/null || echo refused",
                "refused\n",
            ),
            (
                "unshare -Urm sh -c 'mount -o remount,rw,bind / && touch /x' 2>/dev/null || echo refused",
                "refused\n",
            ),
            ("sleep 0.01 | cat; kill -9 1; echo alive", "alive\n"),
        ] {
            let (text, _) = stage.run(&native, script).await;
            assert_eq!(text, says, "{server:?}: {script}");
        }
        let host = match server {
            Server::Me if servers().len() == 2 => SESSION,
            Server::Me => rustix::process::geteuid().as_raw(),
            Server::Nobody => NOBODY,
        };
        let (text, _) = stage.run(&native, "cat /proc/self/uid_map /proc/self/gid_map").await;
        let maps: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(maps[0], ["1000", &host.to_string(), "1"], "{server:?}");
        if server == Server::Nobody || servers().len() == 2 {
            assert_eq!(maps[1], ["1000", &host.to_string(), "1"], "{server:?}");
        }
        stage.run(&native, "touch made").await;
        let made = fs::metadata(stage.path("workspace/made")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), host);
    }
}

#[tokio::test]
async fn the_hosts_network_only_when_asked_for() {
    for &server in servers() {
        let stage = Stage::new(server);
        let native = stage.native();
        let host = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        let script = "readlink /proc/self/ns/net; cat /etc/resolv.conf";
        stage.own(&native);
        for (network, shared) in [(Network::Host, true), (Network::None, false)] {
            let spec = Spec { network, ..stage.spec(&["sh", "-c", script]) };
            let (text, _) = finish(native.start(&spec).await.unwrap()).await;
            assert_eq!(text.starts_with(&host), shared, "{server:?} {network:?}: {text}");
            let resolver = text.lines().skip(1).collect::<Vec<_>>().join("\n");
            match shared {
                true => assert_eq!(
                    resolver,
                    fs::read_to_string("/etc/resolv.conf").unwrap_or_default().trim_end()
                ),
                false => assert_eq!(resolver, ""),
            }
        }
    }
}

#[tokio::test]
async fn an_agent_gets_its_environment_and_nothing_of_the_servers() {
    for &server in servers() {
        let stage = Stage::new(server);
        let native = stage.native();
        for sandbox in [&native as &dyn Sandbox, &stage.none()] {
            let large = "x".repeat(100_000);
            let spec = Spec {
                env: vec![
                    ("A".into(), "b c\n".into()),
                    ("LARGE".into(), large.clone()),
                    ("PATH".into(), "/bin".into()),
                ],
                ..stage.spec(&["env"])
            };
            stage.own(sandbox);
            let (text, _) = finish(sandbox.start(&spec).await.unwrap()).await;
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            assert_eq!(lines, ["", "A=b c", &format!("LARGE={large}"), "PATH=/bin"], "{}", sandbox.name());
        }
    }
}

#[tokio::test]
async fn none_runs_in_the_hosts_folders() {
    let stage = Stage::new(Server::Me);
    let none = stage.none();
    let spec = stage.spec(&["true"]);
    let inside = none.inside(&spec);
    assert_eq!(
        (inside.workspace, inside.home, inside.runtime),
        (spec.workspace.clone(), spec.home, spec.runtime)
    );
    let (text, _) = stage.run(&none, "pwd -P").await;
    assert_eq!(text.trim_end(), fs::canonicalize(spec.workspace).unwrap().display().to_string());
    assert_eq!(none.isolation(), Isolation::None);
    assert_eq!(stage.native().isolation(), Isolation::Full);
}

#[tokio::test]
async fn owning_follows_no_link() {
    if servers().len() < 2 {
        return;
    }
    let stage = Stage::new(Server::Me);
    let outside = stage.path("outside");
    fs::create_dir(&outside).unwrap();
    let workspace = stage.path("workspace");
    fs::create_dir_all(workspace.join("a/b")).unwrap();
    std::os::unix::fs::symlink(&outside, workspace.join("a/link")).unwrap();
    stage.native().own(SESSION, &workspace).unwrap();
    let uid =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(path).unwrap());
    assert_eq!(["", "a", "a/b", "a/link"].map(|name| uid(&workspace.join(name))), [SESSION; 4]);
    assert_eq!(uid(&outside), 0);
}

#[tokio::test]
async fn many_start_at_once() {
    let stage = Stage::new(Server::Me);
    let native = Arc::new(stage.native());
    stage.own(native.as_ref());
    let starts: Vec<_> = (0..40)
        .map(|number| {
            let (native, spec) = (native.clone(), stage.spec(&["echo", &number.to_string()]));
            tokio::spawn(async move { finish(native.start(&spec).await.unwrap()).await })
        })
        .collect();
    for (number, start) in starts.into_iter().enumerate() {
        assert_eq!(start.await.unwrap(), (format!("{number}\n"), Exit::Code(0)));
    }
    assert_eq!(stage.pids.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn opening_tries_the_whole_profile() {
    for &server in servers() {
        let stage = Stage::new(server);
        for (choice, name) in [(Choice::Auto, "native"), (Choice::Native, "native"), (Choice::None, "none")] {
            let scratch = stage.path("scratch");
            let _ = fs::create_dir(&scratch);
            // The probe's folders are made by the server, which here is root even where the spawner isn't.
            if server == Server::Me {
                let sandbox = open(choice, stage.spawner.clone(), &scratch, SESSION).await.unwrap();
                assert_eq!(sandbox.name(), name);
            }
            assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        }
    }
}
