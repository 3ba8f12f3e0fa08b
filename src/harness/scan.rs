//! What every task of an agent is doing right now, as the kernel tells it under `/proc`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::fstat;
use rustix::io::ioctl_fionread;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::kernel;

/// A tree with more tasks is not scanned: that would take longer than it is worth.
const MAX_TASKS: usize = 400;
/// More entries of a poll set are not read.
const MAX_SET: u64 = 4096;
/// Data that came less than this ago, in ms, may still be being worked on.
const FRESH: u32 = 500;

/// One task (thread), and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    pub pid: i32,
    pub tid: i32,
    /// The process that started this one; 0 for the first.
    pub parent: i32,
    /// Nanoseconds on a processor, and how often it was put on one: equal in two scans means it slept between them.
    pub runtime: (u64, u64),
    pub stdin: Stdin,
    pub rest: Rest,
}

/// Whether a task waits for our next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    No,
    /// It polls stdin, perhaps among others.
    Waits,
    /// It is blocked in a read of stdin.
    Reads,
}

/// What can wake a task, besides our next message and other tasks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rest {
    /// Nothing.
    Asleep,
    /// A timer.
    Timed,
    /// A connection on which nothing is clearly outstanding, or one of which we don't know.
    Net,
    /// It does nothing but sleep for a time, or wait for one connection: it will go on by itself.
    Paused,
    /// It runs, or waits for something that will surely come: a disk, an answer to a request.
    Busy,
}

/// All tasks of an agent at about one time, sorted by `tid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub tasks: Vec<Task>,
    /// Bytes of the message that no one has read yet.
    pub unread: u64,
}

/// Why nothing can be said about a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Scans the tree whose root is `root`. A root that is our own init is no part of it.
///
/// # Errors
/// If the kernel does not tell (Yama, another user's processes, no such files), or there is too much of it.
pub fn scan(root: i32, root_is_init: bool, stdin: Option<BorrowedFd<'_>>) -> Result<Scan, Unreadable> {
    if !kernel_tells() {
        return Err(Unreadable);
    }
    let (pipe, unread) = match stdin {
        // No message can come any more: nobody waits for one.
        None => (None, 0),
        Some(stdin) => {
            let inode = fstat(stdin).map_err(|_| Unreadable)?.st_ino;
            (Some(format!("pipe:[{inode}]")), ioctl_fionread(stdin).map_err(|_| Unreadable)?)
        }
    };
    let mut scanner = Scanner { pipe, tasks: Vec::new(), changed: false };
    if root_is_init {
        for child in scanner.children_of(root) {
            scanner.process(child, 0)?;
        }
    } else {
        scanner.process(root, 0)?;
    }
    let mut tasks = scanner.tasks;
    tasks.sort_unstable_by_key(|task| task.tid);
    if scanner.changed {
        // Something ended while we looked: whatever we saw was of no one moment.
        tasks.iter_mut().for_each(|task| task.rest = Rest::Busy);
    }
    Ok(Scan { tasks, unread })
}

/// How many processes a tree has, its root left out if that is our own init.
pub fn processes(root: i32, root_is_init: bool) -> u64 {
    let mut scanner = Scanner { pipe: None, tasks: Vec::new(), changed: false };
    let mut open = vec![root];
    let mut count = u64::from(!root_is_init);
    while let Some(pid) = open.pop() {
        let children = scanner.children_of(pid);
        count += children.len() as u64;
        open.extend(children);
    }
    count
}

/// Whether this kernel has the files that a scan reads.
fn kernel_tells() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        ["syscall", "schedstat"].iter().all(|name| fs::read(format!("/proc/thread-self/{name}")).is_ok())
            && fs::read("/proc/thread-self/children").is_ok()
    })
}

struct Scanner {
    /// How a link to our stdin pipe reads.
    pipe: Option<String>,
    tasks: Vec<Task>,
    /// A task ended during the scan.
    changed: bool,
}

/// A process whose open files we look at.
#[derive(Clone, Copy)]
struct Owner<'a> {
    pid: i32,
    pipe: Option<&'a str>,
}

impl Scanner {
    fn process(&mut self, pid: i32, parent: i32) -> Result<(), Unreadable> {
        // Depth first, without recursion: a chain of a thousand processes must not use up our stack.
        let mut open = vec![(pid, parent)];
        while let Some((pid, parent)) = open.pop() {
            let Some(tids) = self.threads(pid) else {
                self.changed = true;
                continue;
            };
            for tid in tids {
                if self.tasks.len() >= MAX_TASKS {
                    return Err(Unreadable);
                }
                self.task(pid, tid, parent)?;
                open.extend(self.children(pid, tid).into_iter().map(|child| (child, pid)));
            }
        }
        Ok(())
    }

    fn children_of(&mut self, pid: i32) -> Vec<i32> {
        let tids = self.threads(pid).unwrap_or_default();
        tids.into_iter().flat_map(|tid| self.children(pid, tid)).collect()
    }

    fn threads(&self, pid: i32) -> Option<Vec<i32>> {
        let entries = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    fn children(&self, pid: i32, tid: i32) -> Vec<i32> {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
        list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
    }

    fn task(&mut self, pid: i32, tid: i32, parent: i32) -> Result<(), Unreadable> {
        let task = format!("/proc/{pid}/task/{tid}");
        // The runtime first: if the task sleeps afterwards, then it has slept since.
        let Some(runtime) =
            fs::read_to_string(format!("{task}/schedstat")).ok().and_then(|text| runtime(&text))
        else {
            self.changed = true;
            return Ok(());
        };
        let state = match fs::read_to_string(format!("{task}/syscall")) {
            Ok(line) => Some(line),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(_) => {
                self.changed = true;
                return Ok(());
            }
        };
        let call = state.as_deref().and_then(Call::parse);
        let (stdin, rest) = match call {
            Some(call) => Owner { pid, pipe: self.pipe.as_deref() }.class(&call),
            None => {
                // It runs, or faults, or it has ended and nobody has asked for its exit yet.
                if is_dead(&task) {
                    return Ok(());
                }
                if state.is_none() {
                    return Err(Unreadable);
                }
                (Stdin::No, Rest::Busy)
            }
        };
        self.tasks.push(Task { pid, tid, parent, runtime, stdin, rest });
        Ok(())
    }
}

/// Fields 1 and 3 of `schedstat`.
fn runtime(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace();
    let (time, _, count) = (fields.next()?, fields.next()?, fields.next()?);
    Some((time.parse().ok()?, count.parse().ok()?))
}

/// Whether the task is a zombie, or gone.
fn is_dead(task: &str) -> bool {
    let Ok(stat) = fs::read(format!("{task}/stat")) else { return true };
    // The name may hold anything, brackets and blanks too; the state follows its last bracket.
    let state = stat.iter().rposition(|&byte| byte == b')').and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X'))
}

/// A system call that a task is blocked in.
#[derive(Debug)]
struct Call {
    number: i64,
    args: [u64; 6],
}

impl Call {
    /// What `/proc/<pid>/syscall` says; `None` if the task is in no system call.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let number: i64 = fields.next()?.parse().ok()?;
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        (number >= 0).then_some(Self { number, args })
    }

    /// Argument `index` as the `int` that it was passed as.
    fn int(&self, index: usize) -> i32 {
        #[expect(clippy::cast_possible_truncation, reason = "the upper half of the register means nothing")]
        let low = self.args[index] as u32;
        low.cast_signed()
    }

    fn has_pointer(&self, index: usize) -> bool {
        self.args[index] != 0
    }
}

/// What a system call does, whatever its number is on this architecture.
enum Kind {
    Read { fd: usize },
    Receive,
    Epoll { timed: bool },
    Poll { timed: bool },
    Select { timed: bool },
    Sleep { timed: bool },
    Pause,
    Other,
}

impl Call {
    fn kind(&self) -> Kind {
        #[cfg(target_arch = "x86_64")]
        match self.number {
            libc::SYS_poll => return Kind::Poll { timed: self.int(2) >= 0 },
            libc::SYS_select => return Kind::Select { timed: self.has_pointer(4) },
            libc::SYS_epoll_wait => return Kind::Epoll { timed: self.int(3) >= 0 },
            libc::SYS_pause => return Kind::Sleep { timed: false },
            _ => {}
        }
        match self.number {
            libc::SYS_read | libc::SYS_readv | libc::SYS_splice | libc::SYS_tee => Kind::Read { fd: 0 },
            libc::SYS_sendfile => Kind::Read { fd: 1 },
            libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_connect
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg => Kind::Receive,
            libc::SYS_epoll_pwait => Kind::Epoll { timed: self.int(3) >= 0 },
            libc::SYS_epoll_pwait2 => Kind::Epoll { timed: self.has_pointer(3) },
            libc::SYS_ppoll => Kind::Poll { timed: self.has_pointer(2) },
            libc::SYS_pselect6 => Kind::Select { timed: self.has_pointer(4) },
            libc::SYS_futex => Kind::Sleep { timed: self.has_pointer(3) },
            libc::SYS_futex_waitv => Kind::Sleep { timed: self.has_pointer(3) },
            libc::SYS_rt_sigtimedwait => Kind::Sleep { timed: self.has_pointer(2) },
            libc::SYS_wait4
            | libc::SYS_waitid
            | libc::SYS_rt_sigsuspend
            | libc::SYS_accept
            | libc::SYS_accept4 => Kind::Sleep { timed: false },
            // What a stopped and continued sleep goes on with; it had a timer.
            libc::SYS_nanosleep | libc::SYS_clock_nanosleep | libc::SYS_restart_syscall => Kind::Pause,
            _ => Kind::Other,
        }
    }
}

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Stdin,
    /// Its other end is in the sandbox, or a signal.
    Pipe,
    Socket,
    Timer,
    Epoll,
    Other,
}

impl Owner<'_> {
    fn class(self, call: &Call) -> (Stdin, Rest) {
        let sleep = |timed| if timed { Rest::Timed } else { Rest::Asleep };
        match call.kind() {
            Kind::Read { fd } => match self.file(call.int(fd)) {
                File::Stdin => (Stdin::Reads, Rest::Asleep),
                File::Pipe => (Stdin::No, Rest::Asleep),
                File::Timer => (Stdin::No, Rest::Timed),
                File::Socket => (Stdin::No, Rest::Paused),
                File::Epoll | File::Other => (Stdin::No, Rest::Busy),
            },
            Kind::Receive | Kind::Pause => (Stdin::No, Rest::Paused),
            Kind::Sleep { timed } => (Stdin::No, sleep(timed)),
            Kind::Epoll { timed } => {
                let (stdin, rest) = self.epoll(call.int(0), 0);
                (stdin, rest.max(sleep(timed)))
            }
            Kind::Poll { timed } => self.set(self.poll_set(call.args[0], call.args[1]), sleep(timed)),
            Kind::Select { timed } => self.set(self.select_set(call), sleep(timed)),
            Kind::Other => (Stdin::No, Rest::Busy),
        }
    }

    fn file(self, fd: i32) -> File {
        let path = format!("/proc/{}/fd/{fd}", self.pid);
        let Ok(link) = fs::read_link(&path) else { return File::Other };
        let Some(link) = link.to_str() else { return File::Other };
        if Some(link) == self.pipe {
            return File::Stdin;
        }
        match link {
            "anon_inode:[eventfd]"
            | "anon_inode:[signalfd]"
            | "anon_inode:inotify"
            | "anon_inode:[pidfd]" => File::Pipe,
            "anon_inode:[timerfd]" => File::Timer,
            "anon_inode:[eventpoll]" => File::Epoll,
            _ if link.starts_with("pipe:[") => File::Pipe,
            _ if link.starts_with("socket:[") => File::Socket,
            _ => {
                use std::os::unix::fs::FileTypeExt;
                let named = fs::metadata(&path).is_ok_and(|found| found.file_type().is_fifo());
                if named { File::Pipe } else { File::Other }
            }
        }
    }

    /// `(descriptor, waits to read)` of what a task polls; `None` if its memory can't be read.
    fn poll_set(self, address: u64, count: u64) -> Option<Vec<(i32, bool)>> {
        const ENTRY: usize = size_of::<libc::pollfd>();
        if count > MAX_SET {
            return None;
        }
        let length = usize::try_from(count).ok()? * ENTRY;
        let bytes =
            if length == 0 { Vec::new() } else { kernel::read_memory(self.pid, address, length).ok()? };
        let reads = libc::POLLIN | libc::POLLRDNORM;
        let entries = bytes.chunks_exact(ENTRY).filter_map(|entry| {
            let fd = i32::from_ne_bytes(entry.get(..4)?.try_into().ok()?);
            let events = i16::from_ne_bytes(entry.get(4..6)?.try_into().ok()?);
            (fd >= 0).then_some((fd, events & reads != 0))
        });
        Some(entries.collect())
    }

    fn select_set(self, call: &Call) -> Option<Vec<(i32, bool)>> {
        let count = usize::try_from(call.int(0)).ok()?;
        if count as u64 > MAX_SET {
            return None;
        }
        let mut found = Vec::new();
        for (index, reads) in [(1, true), (2, false), (3, false)] {
            if !call.has_pointer(index) || count == 0 {
                continue;
            }
            let bytes = kernel::read_memory(self.pid, call.args[index], count.div_ceil(64) * 8).ok()?;
            // Bit `fd` of an array of longs; on the little-endian machines that we run on also of an array of bytes.
            let fds =
                (0..count).filter(|fd| bytes.get(fd / 8).is_some_and(|byte| byte & (1 << (fd % 8)) != 0));
            found.extend(fds.filter_map(|fd| Some((i32::try_from(fd).ok()?, reads))));
        }
        Some(found)
    }

    fn set(self, set: Option<Vec<(i32, bool)>>, least: Rest) -> (Stdin, Rest) {
        let Some(set) = set else { return (Stdin::No, Rest::Busy) };
        let (mut stdin, mut rest) = (Stdin::No, least);
        for (fd, reads) in set {
            let (waits, woken) = self.member(fd, reads, 0);
            stdin = if waits { Stdin::Waits } else { stdin };
            rest = rest.max(woken);
        }
        (stdin, rest)
    }

    /// What an epoll descriptor waits for, from its `fdinfo`.
    fn epoll(self, fd: i32, depth: u32) -> (Stdin, Rest) {
        let Ok(info) = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.pid)) else {
            return (Stdin::No, Rest::Busy);
        };
        let (mut stdin, mut rest) = (Stdin::No, Rest::Asleep);
        for (fd, events) in info.lines().filter_map(epoll_entry) {
            let reads = events & u64::from((libc::EPOLLIN | libc::EPOLLRDNORM).cast_unsigned()) != 0;
            let (waits, woken) = self.member(fd, reads, depth);
            stdin = if waits { Stdin::Waits } else { stdin };
            rest = rest.max(woken);
        }
        (stdin, rest)
    }

    /// Whether this member of a set is stdin, waited on; and what else it may wake its task with.
    fn member(self, fd: i32, reads: bool, depth: u32) -> (bool, Rest) {
        match self.file(fd) {
            File::Stdin => (reads, Rest::Asleep),
            File::Socket => (false, self.socket(fd)),
            File::Timer => (false, self.timer(fd)),
            File::Epoll if depth < 3 => {
                let (stdin, rest) = self.epoll(fd, depth + 1);
                (stdin != Stdin::No, rest)
            }
            File::Pipe | File::Epoll | File::Other => (false, Rest::Asleep),
        }
    }

    fn timer(self, fd: i32) -> Rest {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.pid)).unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix("it_value:"));
        if value.is_some_and(|value| value.trim() == "(0, 0)") { Rest::Asleep } else { Rest::Timed }
    }

    /// Whether an answer is outstanding on a socket.
    fn socket(self, fd: i32) -> Rest {
        // A socket of which we can't say anything may be a connection to anywhere.
        self.outstanding(fd).unwrap_or(Rest::Net)
    }

    fn outstanding(self, fd: i32) -> Option<Rest> {
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok()?;
        let socket = socket.as_fd();
        let family = sockopt::socket_domain(socket).ok()?;
        if family != AddressFamily::INET && family != AddressFamily::INET6 {
            return Some(Rest::Asleep);
        }
        if sockopt::socket_type(socket).ok()? != SocketType::STREAM {
            return Some(Rest::Net);
        }
        let tcp = kernel::tcp(socket).ok()?;
        const SYN_SENT: u8 = 2;
        const SYN_RECV: u8 = 3;
        const CLOSE: u8 = 7;
        const LISTEN: u8 = 10;
        Some(match tcp.state {
            SYN_SENT | SYN_RECV => Rest::Busy,
            CLOSE | LISTEN => Rest::Asleep,
            _ if tcp.last_sent < tcp.last_received || tcp.unanswered => Rest::Busy,
            // The kernel counts in ticks: what was sent and answered within one looks the same either way round.
            _ if tcp.last_sent == tcp.last_received || tcp.last_received < FRESH => Rest::Net,
            _ => Rest::Asleep,
        })
    }
}

/// `(descriptor, events)` of a line `tfd:  5 events:   19 data: …`.
fn epoll_entry(line: &str) -> Option<(i32, u64)> {
    let mut fields = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let fd = fields.next()?.parse().ok()?;
    let events = fields.find(|&field| field == "events:").and_then(|_| fields.next())?;
    Some((fd, u64::from_str_radix(events, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_call_is_read() {
        let call = Call::parse("0 0x3 0x7f 0x20000 0x0 0xffffffff 0x1 0x7ffd 0x7f63\n").unwrap();
        assert_eq!((call.number, call.args[0], call.int(4)), (0, 3, -1));
        for none in ["running\n", "-1 0x7ffd 0x7f63\n", "", "0 0x3\n", "0 3 3 3 3 3 3"] {
            assert!(Call::parse(none).is_none(), "{none}");
        }
    }

    #[test]
    fn other_lines_are_read() {
        let line = "tfd:        5 events:       19 data:                5  pos:0 ino:1f sdev:e";
        assert_eq!(epoll_entry(line), Some((5, 0x19)));
        assert_eq!(epoll_entry("pos:\t0"), None);
        assert_eq!(runtime("123 4 5\n"), Some((123, 5)));
        assert_eq!(runtime("123\n"), None);
    }

    struct Started(Child, OwnedFd);

    impl Drop for Started {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "something to look at")]
    fn start(argv: &[&str]) -> Started {
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap().into();
        Started(child, stdin)
    }

    /// The first scan of which this holds.
    fn until(started: &Started, root_is_init: bool, holds: impl Fn(&Scan) -> bool) -> Scan {
        let root = i32::try_from(started.0.id()).unwrap();
        let begin = Instant::now();
        loop {
            let scan = scan(root, root_is_init, Some(started.1.as_fd())).unwrap();
            if holds(&scan) {
                return scan;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{scan:?}");
            std::thread::yield_now();
        }
    }

    fn classes(scan: &Scan) -> Vec<(Stdin, Rest)> {
        scan.tasks.iter().map(|task| (task.stdin, task.rest)).collect()
    }

    #[test]
    fn a_tree_tells_what_it_does() {
        let reads = (Stdin::Reads, Rest::Asleep);
        let idle = (Stdin::No, Rest::Asleep);
        let cat = start(&["cat"]);
        until(&cat, false, |scan| classes(scan) == [reads]);
        let sleep = start(&["sleep", "60"]);
        let unread = || rustix::io::write(&sleep.1, b"abc").unwrap();
        until(&sleep, false, |scan| classes(scan) == [(Stdin::No, Rest::Paused)] && scan.unread == 0);
        unread();
        assert_eq!(until(&sleep, false, |_| true).unread, 3);
        let busy = start(&["sh", "-c", "while :; do :; done"]);
        until(&busy, false, |scan| classes(scan) == [(Stdin::No, Rest::Busy)]);
        // A shell that waits for the one that reads; as an init it is not looked at.
        let shell = start(&["sh", "-c", "cat; :"]);
        let scan = until(&shell, false, |scan| classes(scan) == [idle, reads]);
        assert_eq!(scan.tasks[1].parent, scan.tasks[0].pid);
        until(&shell, true, |scan| classes(scan) == [reads]);
    }

    #[test]
    fn what_is_gone_is_busy_or_nothing() {
        let mut gone = start(&["true"]);
        let root = i32::try_from(gone.0.id()).unwrap();
        // A zombie is no task any more.
        until(&gone, false, |scan| scan.tasks.is_empty());
        gone.0.wait().unwrap();
        assert_eq!(scan(root, false, Some(gone.1.as_fd())).unwrap().tasks, []);
    }
}
