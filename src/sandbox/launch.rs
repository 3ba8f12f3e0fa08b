//! The few system calls of a launch that no crate wraps: this file holds all of the sandbox's unsafe code.
//!
//! Every function that makes a process is for the spawner and its children, which have one thread each.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

/// Namespaces that a new process gets for itself.
pub(super) const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;
pub(super) const NETWORK_NAMESPACE: i32 = libc::CLONE_NEWNET;

/// What a mount must not allow.
pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(super) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(super) const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
pub(super) const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// A new process with the namespaces of `flags`, running `child` on a copy of this one's memory; it ends with the
/// number that `child` returns. Answers its pid and a pidfd.
///
/// The plain `clone` call, not `clone3`: container profiles answer the latter with ENOSYS.
pub(super) fn spawn(flags: i32, child: impl FnOnce() -> i32) -> io::Result<(Pid, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    let flags = libc::c_ulong::from((flags | libc::CLONE_PIDFD | libc::SIGCHLD) as u32);
    // SAFETY: without CLONE_VM and with no new stack this is a fork: the child goes on with a copy of the memory and
    // of this stack. The caller has one thread, so no lock is held by a thread that the child lacks. The third
    // argument is where CLONE_PIDFD puts the descriptor on every architecture, and it outlives the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    if pid == 0 {
        // A panic must not unwind into the spawner's own loop, which this process must never run.
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(70);
        // SAFETY: ends this process at once; no destructors or exit handlers of the copied memory may run.
        unsafe { libc::_exit(code) }
    }
    // Pid::from_raw panics at less than 0.
    match i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) {
        // SAFETY: the kernel has just made this descriptor, close-on-exec, for us alone.
        Some(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        None => Err(io::Error::last_os_error()),
    }
}

/// Sets attributes of a mount and all below it, and cuts it off from mounts that are made elsewhere later.
pub(super) fn restrict_mount(tree: impl AsFd, attributes: u64) -> rustix::io::Result<()> {
    let attr =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is an empty C string, so the call is about the descriptor alone; the struct has the size that
    // is named and outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Gives every signal its default action, as a server that was started with `nohup` or `&` has some ignored; SIGPIPE
/// is ignored, and is reset for the agent when it is exec'd.
pub(super) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        let action = if signal == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither action involves code of ours; numbers that can't be set are refused.
        unsafe { libc::signal(signal, action) };
    }
}

/// A descriptor that is readable when a child has ended. SIGCHLD is blocked from now on.
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is plain data that sigemptyset fills in; the pointers outlive the calls; a non-negative answer
    // is a new descriptor that is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The descriptor with this number, which the program that executed this one left open for it. `None` if there is none.
///
/// To be asked for once a number, before anything else is opened.
pub(super) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: takes numbers alone, and fails if the descriptor isn't open.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, nothing in this process has made it, and by the rule above nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Blocks no signal any more. A shell waits for its children by SIGCHLD, and would wait for ever.
pub(super) fn unblock_signals() {
    // SAFETY: the set is plain data that sigemptyset fills in; the pointer outlives the call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Marks every descriptor but the standard three as close-on-exec, so that no agent gets one that was leaked to us.
pub(super) fn keep_descriptors() {
    // SAFETY: changes a flag of descriptors and closes none. An old kernel that can't do it answers with an error.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Puts a session keyring in place of the one that was inherited, whose keys are the user's: an empty one that nobody
/// may read, write or change, so that those who share it share nothing. A kernel without keys, or a container that
/// lets nobody have them, has nothing to hide.
pub(super) fn shut_keyring() -> io::Result<()> {
    // SAFETY: without a name the call takes no pointer.
    let keyring = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) };
    // SAFETY: takes two numbers.
    if keyring >= 0 && unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, keyring, 0) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if keyring < 0 && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        error => Err(error),
    }
}

/// An unconnected TCP socket in the network of this process: non-blocking, close-on-exec.
pub(super) fn tcp_socket() -> rustix::io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// A descriptor whose readiness tokio tells. Must be called on its runtime.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, is the same descriptor all its life, and is closed by nobody but the AsyncFd.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}
