//! What every driver must do, and what an isolated agent must not be able to do.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tempfile::TempDir;

use super::protocol::socket_pair;
use super::*;

/// The uid of `nobody`, as whom the tests of an ordinary user's server run where they themselves run as root.
const NOBODY: u32 = 65534;
/// The uid of sessions where the server is root.
const SESSION: u32 = 1_900_000_007;
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: the process that other tests execute as their spawner.
#[test]
#[ignore = "the spawner process of the other tests"]
fn spawner_process() {
    assert_eq!(spawner_main(), 0);
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
        let folder = tempfile::tempdir().unwrap();
        let pids = Arc::new(Mutex::new(Vec::new()));
        let started = pids.clone();
        let launch = move || -> io::Result<OwnedFd> {
            let (ours, theirs) = socket_pair()?;
            let mut command = std::process::Command::new(std::env::current_exe()?);
            command
                .args(["--ignored", "--exact", "sandbox::story::spawner_process", "--test-threads=1"])
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
