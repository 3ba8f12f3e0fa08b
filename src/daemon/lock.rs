//! The locks: one server a home, one starting command at a time. The kernel frees them, however a process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
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

    /// Writes the holder's pid into the file.
    pub fn sign(&mut self, pid: u32) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        write!(self.0, "{pid}")
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The pid of the server that holds this home, if one does. A pid of 0 is one that hasn't signed yet.
pub fn holder(config: &Config) -> Option<u32> {
    let path = config.home.join("server.lock");
    if !path.exists() {
        return None;
    }
    match Lock::take(&path) {
        Ok(None) => {
            let mut text = String::new();
            let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
            Some(read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0))
        }
        _ => None,
    }
}
