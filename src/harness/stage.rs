//! Where the tests' agents play: a process group, a folder, a turn.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sandbox::{Exit, Process, Tree};

/// A process group without any isolation.
struct Group {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Tree for Group {
    fn root(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    fn root_is_init(&self) -> bool {
        false
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        let mut exit = self.exit.clone();
        Box::pin(async move { exit.wait_for(Option::is_some).await.unwrap().unwrap() })
    }

    fn dial(&self) -> BoxFuture<'_, std::io::Result<OwnedFd>> {
        Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
    }

    fn interrupt(&self) {
        let _ = kill_process_group(self.pid, Signal::INT);
    }

    fn terminate(&self) {
        let _ = kill_process(self.pid, Signal::TERM);
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        let _ = kill_process_group(self.pid, Signal::KILL);
        Box::pin(async move { _ = self.exited().await })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

/// A folder with the turn FIFO and the file `truth`, to which an agent adds a byte when it is done with a turn.
pub(super) struct Place {
    folder: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("turn"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        std::fs::write(folder.path().join("truth"), "").unwrap();
        Self { folder, env: Vec::new() }
    }

    /// One whose interpreters load the shims.
    pub(super) fn with_shims() -> Self {
        let mut place = Self::new();
        for (name, text) in [("sitecustomize.py", PYTHON_SHIM), ("node.cjs", NODE_SHIM)] {
            std::fs::write(place.path(name), text).unwrap();
        }
        let node = format!("--require \"{}\"", place.path("node.cjs").display());
        place.env = vec![("PYTHONPATH", place.folder.path().display().to_string()), ("NODE_OPTIONS", node)];
        place
    }

    /// With one more variable in its agents' environment.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn done(&self) -> usize {
        std::fs::read(self.path("truth")).unwrap().len()
    }

    #[expect(clippy::disallowed_methods, reason = "a sandbox for tests")]
    pub(super) fn start(&self, argv: &[&str]) -> Process {
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .current_dir(self.folder.path())
            .env("TRUTH", self.path("truth"))
            .env("SUPERSERVE_TURN", self.path("turn"))
            .env("PYTHONUNBUFFERED", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ends = (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (stdin, stdout, stderr): (OwnedFd, OwnedFd, OwnedFd) =
            (ends.0.into(), ends.1.into(), ends.2.into());
        for fd in [&stdin, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true).unwrap();
        }
        let pid = Pid::from_child(&child);
        let (sender, exit) = watch::channel(None);
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
            let _ = sender.send(Some(exit));
        });
        Process { stdin, stdout, stderr, sockets: Vec::new(), tree: Box::new(Group { pid, exit }) }
    }

    pub(super) async fn try_open(&self, argv: &[&str], limits: Limits) -> Result<Conversation, OpenError> {
        Conversation::open(
            self.start(argv),
            &self.path("turn"),
            limits,
            "ses_test",
            &Redaction::default(),
            None,
        )
        .await
    }

    pub(super) async fn open(&self, argv: &[&str]) -> Conversation {
        self.try_open(argv, LIMITS).await.unwrap()
    }
}

pub(super) const LIMITS: Limits = Limits {
    quiet: Duration::from_secs(5),
    turn: Duration::from_secs(60),
    startup: Duration::from_secs(30),
    cancel_grace: Duration::from_secs(2),
};

/// One turn: how it ended, and its text. Other output is in the text as `[…]`.
pub(super) async fn say(conversation: &mut Conversation, content: &str, number: u64) -> (TurnEnd, String) {
    say_until(conversation, content, number, &CancellationToken::new()).await
}

pub(super) async fn say_until(
    conversation: &mut Conversation,
    content: &str,
    number: u64,
    cancel: &CancellationToken,
) -> (TurnEnd, String) {
    let (sender, mut receiver) = mpsc::channel(16);
    let collect = async move {
        let mut text = String::new();
        while let Some(output) = receiver.recv().await {
            match output {
                Output::Text(piece) => text.push_str(&piece),
                other => write!(text, "[{other:?}]").unwrap(),
            }
        }
        text
    };
    let turn = async move { conversation.turn(content, "msg_1", number, &sender, cancel).await };
    tokio::join!(turn, collect)
}

pub(super) async fn reply(conversation: &mut Conversation, content: &str, number: u64) -> String {
    let (end, text) = say(conversation, content, number).await;
    assert_eq!(end, TurnEnd::Done, "{text}");
    text
}

pub(super) fn installed(program: &str) -> bool {
    let found = std::fs::exists(Path::new("/usr/bin").join(program)).unwrap_or(false);
    if !found {
        println!("skipped: no {program} in /usr/bin");
    }
    found
}
