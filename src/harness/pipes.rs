//! The four pipes to an agent: its stdin, stdout and stderr, and the FIFO on which it signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tokio::net::unix::pipe::{Receiver, Sender};

/// So much is read at once, in bytes.
pub const CHUNK: usize = 16 * 1024;

/// The read end of a pipe; it is gone after its end.
#[derive(Debug)]
pub struct Source(Option<Receiver>);

impl Source {
    /// Over this end of a pipe, which is made non-blocking.
    ///
    /// # Errors
    /// If it is no such end of a pipe, or the runtime can't watch it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Some(Receiver::from_owned_fd(fd)?)))
    }

    /// Opens the turn FIFO so that it never ends.
    ///
    /// # Errors
    /// If it isn't there, or is no FIFO.
    pub fn fifo(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Self::new(rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// Answers when there is something to read, or the end. Never after the end.
    pub async fn ready(&self) {
        match &self.0 {
            // The error is that of a runtime that is going down: nothing will be ready any more.
            Some(fd) => match fd.readable().await {
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// What is there now, at most 16 KiB; empty if nothing is, or it has ended.
    pub fn read(&mut self) -> Vec<u8> {
        let Some(fd) = &self.0 else { return Vec::new() };
        let mut bytes = vec![0u8; CHUNK];
        match fd.try_read(&mut bytes) {
            Ok(0) => self.0 = None,
            Ok(length) => {
                bytes.truncate(length);
                return bytes;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.0 = None,
        }
        Vec::new()
    }

    /// What is in the pipe at this moment, and no more: others may go on writing for ever.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let Some(fd) = &self.0 else { return rest };
        let length = rustix::io::ioctl_fionread(fd).unwrap_or(0);
        while (rest.len() as u64) < length {
            let bytes = self.read_now();
            if bytes.is_empty() {
                break;
            }
            rest.extend(bytes);
        }
        rest
    }

    /// Reads whether or not the runtime has noticed yet that there is something.
    pub fn read_now(&mut self) -> Vec<u8> {
        let Some(fd) = &self.0 else { return Vec::new() };
        let mut bytes = vec![0u8; CHUNK];
        match rustix::io::read(fd, &mut bytes) {
            Ok(length) => bytes.truncate(length),
            Err(_) => bytes.clear(),
        }
        bytes
    }
}

/// The write end of the agent's stdin, and what still has to go there.
#[derive(Debug)]
pub struct Sink {
    fd: Option<Sender>,
    waiting: Vec<u8>,
    written: usize,
    /// The agent closed its stdin before it had got everything.
    refused: bool,
}

impl Sink {
    /// Over this end of a pipe, which is made non-blocking.
    ///
    /// # Errors
    /// If it is no such end of a pipe, or the runtime can't watch it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let fd = Some(Sender::from_owned_fd(fd)?);
        Ok(Self { fd, waiting: Vec::new(), written: 0, refused: false })
    }

    /// Puts bytes behind those that wait, and writes what goes in at once.
    pub fn send(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        self.write();
    }

    /// Answers when more can be written. Never if nothing waits.
    pub async fn ready(&self) {
        match &self.fd {
            Some(fd) if !self.is_empty() => match fd.writable().await {
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            },
            _ => std::future::pending().await,
        }
    }

    /// Writes what goes in.
    pub fn write(&mut self) {
        while !self.is_empty() {
            let Some(fd) = &self.fd else { break };
            let rest = &self.waiting[self.written..];
            match fd.try_write(rest) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The agent has closed its stdin. How it ends will tell the rest.
                Err(_) => self.fd = None,
            }
        }
        self.refused |= !self.is_empty();
        self.waiting = Vec::new();
        self.written = 0;
    }

    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.written == self.waiting.len()
    }

    /// Whether part of what was sent has not been read by anybody.
    pub fn is_unread(&self) -> bool {
        self.refused
            || !self.is_empty()
            || self.fd().is_some_and(|fd| rustix::io::ioctl_fionread(fd).unwrap_or(0) > 0)
    }

    /// The descriptor, while it is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// Ends the agent's stdin.
    pub fn close(&mut self) {
        self.fd = None;
        self.waiting = Vec::new();
        self.written = 0;
    }
}
