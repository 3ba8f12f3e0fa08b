//! The locks: one server a home, one starting command at a time. The kernel frees them, however a process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::POLL;
use crate::config::Config;

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock if nobody holds it; `None` if somebody does.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock as soon as it is free; an error of kind `TimedOut` after `patience`.
    pub async fn wait(path: &Path, patience: Duration) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::take(path)? {
                Some(lock) => return Ok(lock),
                None if begun.elapsed() > patience => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("{} is locked", path.display()),
                    ));
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// The lock's file once more: the lock is held until every copy is closed, in whichever process.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Writes into the file who holds it, and where that one listens.
    pub fn sign(&mut self, pid: u32, socket: &Path) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        write!(self.0, "{pid}\n{}\n", socket.display())
    }
}

/// Who holds a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// 0 is one that hasn't signed yet.
    pub pid: u32,
    /// Where it listens, or is about to.
    pub socket: Option<PathBuf>,
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The server that holds this home, if one does.
pub fn holder(config: &Config) -> Option<Holder> {
    let path = config.home.join("server.lock");
    if !path.exists() {
        return None;
    }
    match Lock::take(&path) {
        Ok(None) => {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines();
            let pid = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
            Some(Holder { pid, socket: lines.next().map(PathBuf::from) })
        }
        _ => None,
    }
}
