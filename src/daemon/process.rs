//! This binary, started again: as the server, and as the server's spawner.
#![expect(clippy::disallowed_methods, reason = "the one place that re-executes the binary")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal};

/// The hidden command that is the background server.
pub const SERVER: &str = "__server";
/// The hidden command that is the server's spawner.
pub const SPAWNER: &str = "__spawner";

/// At what size a log is put aside when a server starts, in bytes; one older log is kept.
const MAX_LOG: u64 = 8 << 20;

/// The spawner's whole life; its exit code.
pub fn spawner_main() -> i32 {
    crate::sandbox::spawner_main()
}

/// This very binary, even if another one has taken its path since.
pub fn this_binary(hidden: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("superserve").arg(hidden);
    command
}

/// Starts a spawner. Its socket is its stdin; its stdout is the server's lock, so that no other server can begin on
/// this home before the last agent of a killed one is gone.
pub fn start_spawner(lock: File) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut child = this_binary(SPAWNER)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(lock))
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()?;
    // It lives as long as its socket: the thread takes its exit status, so that it doesn't stay as a zombie.
    std::thread::spawn(move || child.wait());
    Ok(ours)
}

/// The server's log, open for appending.
pub fn open_log(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|meta| meta.len() > MAX_LOG) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Sends a signal to the server with this pid, as long as it is one: a number is given to another process after its end.
pub fn signal(pid: Option<u32>, signal: Signal) {
    let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) else { return };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let is_server = line.split(|byte| *byte == 0).any(|word| word == b"serve" || word == SERVER.as_bytes());
    if is_server {
        // If it has gone since, nothing is lost.
        let _ = rustix::process::pidfd_send_signal(process, signal);
    }
}
