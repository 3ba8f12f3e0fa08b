//! The shell that `sh` of a script uses, for those who give `--allow-sh`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use crate::script::{Shell, ShellAnswer, ShellOrder};

/// How long a command that is to end may take to clean up before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// The process group of the command that runs now, for who ends the program at once; 0 if there is none.
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Kills the command that runs now, if there is one, and all that it has started.
pub fn kill_running() {
    if let Some(group) = Pid::from_raw(RUNNING.load(Ordering::SeqCst)) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// `/bin/sh`.
pub struct LocalShell;

impl Shell for LocalShell {
    fn run(&self, order: ShellOrder) -> LocalBoxFuture<'_, io::Result<ShellAnswer>> {
        Box::pin(run(order))
    }
}

/// A command in a process group of its own: whoever drops it ends them all.
struct Group {
    child: Child,
    group: Option<Pid>,
    has_ended: bool,
}

impl Group {
    #[expect(clippy::disallowed_methods, reason = "a script's `sh`, which its user has allowed")]
    fn start(order: &ShellOrder) -> io::Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", "--", &order.command])
            .stdin(if order.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal comes to us alone, and we end all of them.
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        RUNNING.store(group.map_or(0, Pid::as_raw_pid), Ordering::SeqCst);
        Ok(Self { child, group, has_ended: false })
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // There may be nobody left.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.has_ended {
            self.signal(Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What the command left in the background goes with it.
        self.signal(Signal::KILL);
        RUNNING.store(0, Ordering::SeqCst);
        let begun = Instant::now();
        while begun.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The command wrote more than is kept.
struct TooMuch;

async fn run(order: ShellOrder) -> io::Result<ShellAnswer> {
    let mut group = Group::start(&order)?;
    let mut answer = ShellAnswer::default();
    let (mut stdout, mut stderr) = (None, None);
    if let Some(pipe) = group.child.stdout.take() {
        stdout = Some(Receiver::from_owned_fd(pipe.into_owned_fd()?)?);
    }
    if let Some(pipe) = group.child.stderr.take() {
        stderr = Some(Receiver::from_owned_fd(pipe.into_owned_fd()?)?);
    }
    let stdin = group.child.stdin.take();
    let text = order.stdin.unwrap_or_default();
    {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that doesn't read all of it has its reasons.
                let _ = stdin.write_all(text.as_bytes()).await;
            }
            Ok(())
        };
        let talk = async {
            tokio::try_join!(
                feed,
                keep(stdout.as_mut(), &mut answer.stdout, order.most),
                keep(stderr.as_mut(), &mut answer.stderr, order.most),
            )
        };
        tokio::pin!(talk);
        let mut has_talked = false;
        let status = loop {
            tokio::select! {
                status = group.child.wait() => break status?,
                talked = &mut talk, if !has_talked => {
                    has_talked = true;
                    if talked.is_err() {
                        answer.too_much = true;
                        group.signal(Signal::KILL);
                    }
                }
            }
        };
        answer.code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    }
    group.has_ended = true;
    // Ends what still holds the pipes; what was written before is in them.
    drop(group);
    for (pipe, kept) in [(&stdout, &mut answer.stdout), (&stderr, &mut answer.stderr)] {
        answer.too_much |= pipe.as_ref().is_some_and(|pipe| drain(pipe, kept, order.most).is_err());
    }
    Ok(answer)
}

/// Reads to the end of a pipe.
async fn keep(pipe: Option<&mut Receiver>, kept: &mut Vec<u8>, most: usize) -> Result<(), TooMuch> {
    let Some(pipe) = pipe else { return Ok(()) };
    while let Ok(1..) = pipe.read_buf(kept).await {
        if kept.len() > most {
            return Err(TooMuch);
        }
    }
    Ok(())
}

/// Reads what is in a pipe, without waiting for more.
fn drain(pipe: impl AsFd, kept: &mut Vec<u8>, most: usize) -> Result<(), TooMuch> {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = rustix::io::read(&pipe, &mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > most {
            return Err(TooMuch);
        }
    }
    Ok(())
}
