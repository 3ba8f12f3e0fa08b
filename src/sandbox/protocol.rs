//! What the server, the spawner and each sandbox's init say to each other, and how it goes over a socket.
//!
//! The server sends an [`Order`] with the agent's ends of its pipes and of a control socket. On that control socket
//! the spawner and then the sandbox's init answer with [`Report`]s, and the server sends [`Command`]s of one byte.
//! Its end means that the server let go of the tree: the init ends it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Exit, Spec};

/// As many file descriptors as one message may carry.
pub(super) const MOST_FDS: usize = 8;
/// Reports are short; orders travel in a memfd, so that an environment may be as large as the system allows.
const MOST_BYTES: usize = 4096;

/// What keeps an agent apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Walls {
    /// Namespaces of its own, made by bubblewrap.
    Bwrap,
    /// Rules of the kernel over the host's own tree of files.
    Landlock,
    /// Namespaces of its own.
    Namespaces,
    None,
}

/// One agent to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub walls: Walls,
    /// Folders of the control groups that its first process is put into.
    pub groups: Vec<PathBuf>,
    pub spec: Spec,
}

impl Order {
    /// The order in a file of its own in memory.
    pub(super) fn to_memory(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("order", MemfdFlags::CLOEXEC)?);
        // The environment holds secrets.
        file.write_all(&Zeroizing::new(serde_json::to_vec(self)?))?;
        file.rewind()?;
        Ok(file.into())
    }

    pub(super) fn from_memory(memory: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(memory);
        // At once as long as it is: a growing one would leave copies behind.
        let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
        file.read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// What comes back over the control socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The root of the tree exists, with this pid on the host; its pidfd travels along.
    Launched(i32),
    /// A step on the way to the agent's program failed.
    Failed(Failure),
    /// The program could not be exec'd, for this errno.
    NotExecuted(i32),
    /// Sockets of the agent's network namespace travel along; there may be several of these. After a [`Command::Dial`] one
    /// that is unconnected, or none if it could not be made.
    Sockets,
    /// The program has been exec'd.
    Started,
    /// The agent's main process has ended.
    Exited(Exit),
}

/// A failed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub step: String,
    pub errno: i32,
    /// Whether the machine refuses it, rather than that a folder is missing or a resource used up.
    pub refused: bool,
}

/// What the server asks of an init, as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Make a TCP socket.
    Dial,
    Interrupt,
    Terminate,
}

impl Command {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Dial => b'd',
            Self::Interrupt => b'i',
            Self::Terminate => b't',
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'd' => Some(Self::Dial),
            b'i' => Some(Self::Interrupt),
            b't' => Some(Self::Terminate),
            _ => None,
        }
    }
}

/// Two ends of a socket that keeps messages apart and tells when the other end is gone.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message; never a SIGPIPE. `bytes` must not be empty: an empty message reads as the end.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(rustix::io::Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Sends one report.
pub(super) fn report(socket: impl AsFd, report: &Report, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    Ok(send(socket, &serde_json::to_vec(report)?, fds)?)
}

/// One message: its bytes and its file descriptors. No bytes: the other end is gone.
pub(super) fn receive(socket: impl AsFd) -> rustix::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    bytes.truncate(received.bytes);
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_descriptors_arrive_together() {
        let (a, b) = socket_pair().unwrap();
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        report(&a, &Report::Launched(7), &[writing.as_fd()]).unwrap();
        report(&a, &Report::Exited(Exit::Signal(9)), &[]).unwrap();
        drop((a, writing));

        let (bytes, mut fds) = receive(&b).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&bytes).unwrap(), Report::Launched(7));
        File::from(fds.pop().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        File::from(reading).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");

        let (bytes, _) = receive(&b).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&bytes).unwrap(), Report::Exited(Exit::Signal(9)));
        assert!(receive(&b).unwrap().0.is_empty());
    }

    #[test]
    fn an_order_survives_its_memory() {
        let order = Order {
            walls: Walls::Namespaces,
            groups: vec!["/g".into()],
            spec: Spec {
                name: "s".into(),
                argv: vec!["cat".into()],
                env: vec![("LARGE".into(), "x".repeat(1 << 20))],
                workspace: "/w".into(),
                home: "/h".into(),
                runtime: "/r".into(),
                read_only: vec!["/opt/a b".into()],
                shown: Vec::new(),
                network: crate::wire::Network::Host,
                limits: crate::sandbox::Limits::default(),
                uid: 5,
            },
        };
        let read = Order::from_memory(order.to_memory().unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{order:?}"));
    }

    #[test]
    fn commands_are_told_apart() {
        for command in [Command::Dial, Command::Interrupt, Command::Terminate] {
            assert_eq!(Command::from_byte(command.byte()), Some(command));
        }
        assert_eq!(Command::from_byte(0), None);
    }
}
