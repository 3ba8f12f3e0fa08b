//! Ways out of the sandbox, and ways to hurt the machine from within. Each is first shown to work without the sandbox,
//! by the same agent with the same message, so that a broken attempt can't pass for a wall. As root and as an ordinary
//! user; what only root could do in the first place is tried as root alone.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use crate::process::wait_until;
use crate::skipped::{self, has, is_root};
use crate::test::{Test, has_namespaces, started};

const NOBODY: u32 = 65_534;
const PYTHON: &str = "/usr/bin/python3";
/// Obeys a shell's lines.
const SHELL: &str = include_str!("agents/shell/agent.sh");
/// Tries what has no command of its own: `try.py WHAT ARGUMENT` says `escaped`, or why not.
const TRY: &str = include_str!("agents/escapes/try.py");
/// Small enough that no attempt can hurt the machine, sandbox or not.
const LIMITS: &str = "{processes: 100, tmp: 8MiB}";

/// An agent in a home of its own.
struct Cell {
    test: Test,
    id: String,
}

impl Cell {
    fn new(test: Test, limits: &str) -> Self {
        let folder = test.agent("prisoner", SHELL);
        test.write("prisoner/try.py", TRY);
        test.write(
            "prisoner/superserve.yaml",
            &format!("name: prisoner\ncommand: sh agent.sh\nnetwork: none\nlimits: {limits}\n"),
        );
        test.deploy(&folder);
        let id = test.create("prisoner");
        // Its workspace is made with its first message.
        assert_eq!(test.send(&id, "echo here"), "here\n");
        Self { test, id }
    }

    fn workspace(&self) -> PathBuf {
        self.test.home().join("sessions").join(&self.id).join("workspace")
    }

    /// Whether a line of shell succeeds; what it printed, too.
    fn can(&self, line: &str) -> (bool, String) {
        let said = self.test.send(&self.id, &format!("{{ {line} ; }} && echo escaped || echo refused"));
        let can = said.ends_with("escaped\n");
        assert!(can || said.ends_with("refused\n"), "{line}: {said}");
        (can, said)
    }
}

/// The same agent without a sandbox and in one.
struct Pair {
    open: Cell,
    shut: Cell,
    user: Option<u32>,
}

impl Pair {
    fn new(user: Option<u32>, limits: &str) -> Self {
        let own = |test: Test| match user {
            Some(uid) => test.owned_by(uid),
            None => test,
        };
        Self {
            open: Cell::new(own(Test::unsandboxed()), limits),
            shut: Cell::new(own(Test::new()), limits),
            user,
        }
    }

    /// A line that works outside and must not inside.
    fn holds(&self, what: &str, line: &str) {
        let (can, said) = self.open.can(line);
        assert!(can, "{what}, user {:?}, without a sandbox: {line}: {said}", self.user);
        let (can, said) = self.shut.can(line);
        assert!(!can, "{what}, user {:?}, in the sandbox: {line}: {said}", self.user);
    }

    /// As `holds`, for what `try.py` tries. A kernel that refuses it to everybody has nothing to show.
    fn holds_off(&self, what: &str) {
        let line = format!("{PYTHON} try.py {what}");
        let (can, said) = self.open.can(&line);
        if !can && (said.contains("errno 38") || said.contains("errno 1\n") && self.user.is_some()) {
            skipped::tell("escapes", &format!("{what}: this kernel lets nobody do it: {}", said.trim()));
            return;
        }
        assert!(can, "{what}, user {:?}, without a sandbox: {said}", self.user);
        let (_, said) = self.shut.can(&line);
        assert!(said.contains("errno 1\n"), "{what}, user {:?}, in the sandbox: {said}", self.user);
    }
}

/// Runs a test as this user, and as an ordinary one if this is root.
fn as_both(limits: &str, check: impl Fn(&Pair)) {
    check(&Pair::new(None, limits));
    if is_root() && has("setpriv") {
        check(&Pair::new(Some(NOBODY), limits));
    }
}

macro_rules! needs {
    () => {
        if !has_namespaces() {
            skip!("this machine refuses the sandbox");
        }
        if !std::path::Path::new(PYTHON).exists() {
            skip!("{PYTHON} is not on this machine");
        }
    };
}

#[test]
fn to_the_hosts_files() {
    needs!();
    as_both("{}", |pair| {
        let secret = pair.open.test.write("secret", "host-secret\n");
        if let Some(uid) = pair.user {
            chown(&secret, Some(uid), Some(uid)).unwrap();
        }
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let secret = secret.display();
        pair.holds("read a host's file", &format!("grep -q host-secret {secret}"));
        pair.holds("write a host's file", &format!("echo x >>{secret}"));
        pair.holds("see the machine's own folders", "test -e /sys/kernel && test -e /root");
        // The same place is looked at by both: the platform's folder and another session's files.
        for cell in [&pair.open, &pair.shut] {
            let other = cell.test.create("prisoner");
            cell.test.send(&other, "echo another-secret >kept");
            let kept = cell.test.home().join("sessions").join(&other).join("workspace/kept");
            assert!(kept.exists());
            let inside = std::ptr::eq(cell, &pair.shut);
            let database = cell.test.home().join("superserve.db");
            for (what, line) in [
                ("another session's file", format!("grep -q another-secret {}", kept.display())),
                ("the platform's database", format!("head -c 6 {} | grep -q SQLite", database.display())),
                ("the platform's log", format!("test -r {}/server.log", cell.test.home().display())),
            ] {
                let (can, said) = cell.can(&line);
                assert_eq!(can, !inside, "{what}, user {:?}, sandbox {inside}: {said}", pair.user);
            }
        }
    });
}

#[test]
fn to_the_systems_folders() {
    needs!();
    if !is_root() {
        skip!("only root could write there in the first place");
    }
    let pair = Pair::new(None, "{}");
    let mark = format!("superserve-escape-{}", std::process::id());
    for folder in ["/usr", "/usr/bin", "/etc", "/lib", "/dev", "/"] {
        pair.holds("write a system's folder", &format!("touch {folder}/{mark} && rm {folder}/{mark}"));
    }
    pair.holds("make a device", &format!("mknod /dev/shm/{mark} b 1 0 && rm /dev/shm/{mark}"));
    pair.holds("read the passwords", "test -s /etc/shadow && head -c 1 /etc/shadow");
}

#[test]
fn to_other_processes() {
    needs!();
    as_both("{}", |pair| {
        // Somebody's program, of the same user.
        let outside = pair.open.test.shell("echo $$; exec env OUTSIDE=secret sleep 1000").start();
        wait_until("a process outside", || outside.stdout().ends_with('\n'));
        let pid = outside.stdout().trim().to_owned();
        wait_until("it to sleep", || {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("OUTSIDE"))
        });
        pair.holds("see a process", &format!("test -e /proc/{pid}/stat"));
        pair.holds("read its environment", &format!("grep -q OUTSIDE=secret /proc/{pid}/environ"));
        pair.holds("list its open files", &format!("ls /proc/{pid}/fd"));
        pair.holds("signal it", &format!("kill -0 {pid}"));
        // Its own init runs with its uid.
        let (_, said) = pair.shut.can("kill -9 1; cat /proc/1/environ");
        assert!(said.contains("Permission denied"), "{said}");
        pair.holds_off("ptrace");
        pair.holds_off("process_vm_readv");
    });
}

#[test]
fn to_the_network() {
    needs!();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp_port = tcp.local_addr().unwrap().port();
    // Stands in for the machine's name server: answers whoever asks.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = udp.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut bytes) {
            let _ = udp.send_to(&bytes[..length], from);
        }
    });
    let name = format!("superserve-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    as_both("{}", |pair| {
        pair.holds("reach a service of the host", &format!("{PYTHON} try.py tcp 127.0.0.1 {tcp_port}"));
        pair.holds("ask a name server", &format!("{PYTHON} try.py udp 127.0.0.1 {udp_port}"));
        pair.holds("reach an abstract socket", &format!("{PYTHON} try.py abstract {name}"));
        pair.holds("see the host's interfaces", "test $(ls -d /sys/class/net/* | wc -l) -gt 1");
        for address in ["169.254.169.254", "10.0.0.1", "1.1.1.1"] {
            let (can, said) = pair.shut.can(&format!("{PYTHON} try.py tcp {address} 80"));
            assert!(!can && said.contains("errno 101"), "the metadata address and others: {said}");
        }
        let (can, said) = pair.shut.can(&format!("{PYTHON} try.py name example.com"));
        assert!(!can, "{said}");
    });
}

#[test]
fn by_a_setuid_program() {
    needs!();
    if !is_root() || !has("setpriv") {
        skip!("needs root to make a setuid program, and setpriv to run as somebody else");
    }
    let pair = Pair::new(Some(NOBODY), "{}");
    for cell in [&pair.open, &pair.shut] {
        let program = cell.workspace().join("become");
        fs::copy("/usr/bin/id", &program).unwrap();
        chown(&program, Some(0), Some(0)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    }
    pair.holds("become root", "test $(./become -u) = 0");
}

#[test]
fn by_namespaces_and_mounts() {
    needs!();
    if !has("unshare") {
        skip!("unshare is not on this machine");
    }
    as_both("{}", |pair| {
        let mut lines = vec![
            "unshare -Ur true",
            "unshare -Urm mount -t tmpfs none /tmp",
            "unshare -Urpf --mount-proc true",
            "unshare -Urn true",
            "unshare -Uru hostname elsewhere",
            "unshare -Uri true",
            "unshare -UrC true",
        ];
        if pair.user.is_none() && is_root() {
            lines.extend(["unshare -m true", "nsenter -t $$ -m true", "chroot / true"]);
        }
        for line in lines {
            pair.holds("make namespaces", line);
        }
        pair.holds_off("clone_newuser");
    });
}

#[test]
fn by_calls_that_nobody_needs() {
    needs!();
    as_both("{}", |pair| {
        let mut calls = vec!["add_key", "io_uring", "userfaultfd", "open_tree", "personal_keyring"];
        if pair.user.is_none() && is_root() {
            calls.extend(["bpf", "perf", "tiocsti", "clock", "syslog"]);
        }
        calls.into_iter().for_each(|call| pair.holds_off(call));
        // The newer call is as good as unknown, so that C libraries fall back on the one whose flags can be seen.
        let (_, said) = pair.shut.can(&format!("{PYTHON} try.py clone3"));
        assert!(said.contains("errno 38\n"), "{said}");
        let (_, said) = pair.open.can(&format!("{PYTHON} try.py clone3"));
        assert!(!said.contains("errno 38\n"), "{said}");
        let status = pair.shut.can("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status").1;
        assert_eq!(status, "NoNewPrivs:\t1\nSeccomp:\t2\nescaped\n");
    });
}

#[test]
fn by_bombs() {
    needs!();
    as_both(LIMITS, |pair| {
        pair.holds("make 300 processes", &format!("{PYTHON} try.py forks 300"));
        pair.holds("make 300 threads", &format!("{PYTHON} try.py threads 300"));
        pair.holds("fill /tmp with 20 MB", &format!("{PYTHON} try.py fill /tmp 20"));
        pair.holds("make 20000 files in /tmp", &format!("{PYTHON} try.py files /tmp 20000"));
    });
    // Where the limit holds without a sandbox as well, it is the limit that is missing there.
    for user in [None, Some(NOBODY)].into_iter().take(if is_root() && has("setpriv") { 2 } else { 1 }) {
        let pair = Pair {
            open: Pair::new(user, "{}").open,
            shut: Pair::new(user, "{memory: 64MiB, file_size: 1MiB, open_files: 50}").shut,
            user,
        };
        pair.holds("take 300 MB of memory", &format!("{PYTHON} try.py memory 300"));
        pair.holds("write a file of 20 MB", &format!("{PYTHON} try.py fill . 20"));
        pair.holds("open 200 files", &format!("{PYTHON} try.py opens 200"));
        if grouped(&pair.shut.test) {
            // What only a bound on all processes together can hold.
            pair.holds("share 300 MB of memory", &format!("{PYTHON} try.py shared 300"));
            pair.holds("take 300 MB in ten processes", &format!("{PYTHON} try.py spread 10 30"));
        } else {
            skipped::tell(
                "escapes",
                &format!("memory of all together, user {user:?}: no control groups here"),
            );
        }
    }
}

/// Whether the server of a home bounds the memory of all processes of a sandbox together.
fn grouped(test: &Test) -> bool {
    let checks = test.json(["doctor", "--json"]);
    let checks = checks.as_array().cloned().unwrap_or_default();
    let limits = checks.iter().find(|check| check["name"] == "limits").expect("a check of the limits");
    limits["detail"].as_str().unwrap_or_default().contains("memory by control groups")
}

#[test]
fn others_are_unhurt_by_a_bomb() {
    needs!();
    as_both("{processes: 40, memory: 256MiB, tmp: 4MiB}", |pair| {
        let test = &pair.shut.test;
        let other = test.create("prisoner");
        assert_eq!(test.send(&other, "echo before"), "before\n");
        let bomb = format!("exec {PYTHON} try.py everything");
        let bombing = test.args(["run", "prisoner", &bomb, "--single", "--json"]).start();
        wait_until("the bomb to be at its limits", || bombing.stdout().contains("full"));
        let id = started(&bombing.stdout()).expect("run.started");
        assert_eq!(test.send(&other, "echo during"), "during\n");
        let line =
            format!("{PYTHON} try.py forks 20 && {PYTHON} try.py memory 20 && {PYTHON} try.py fill /tmp 2");
        assert!(test.send(&other, &line).contains("escaped"), "its own limits are its own");
        let fresh = test.create("prisoner");
        assert_eq!(test.send(&fresh, "echo fresh"), "fresh\n", "others start");
        let line = format!("{PYTHON} try.py memory 300");
        assert!(test.send(&fresh, &line).contains("errno 12\n"), "a second bomb at the same time");
        assert_eq!(test.send(&other, "echo after"), "after\n");
        test.args(["sessions", "end", &id]).any_stderr().run();
        bombing.finish();
    });
}
