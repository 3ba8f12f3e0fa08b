//! The machine's processes, as /proc shows them: who belongs to a test, and whether they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a condition may take to come true before a test gives up: only ever reached by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process that can't be mistaken for a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after the machine's start.
    started: u64,
}

impl Process {
    /// The process with this number, if there is one that is not a zombie.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != 'Z' && stat.state != 'X').then_some(Self { pid, started: stat.started })
    }

    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).as_ref() == Some(self)
    }

    pub fn kill(&self) {
        if let (true, Some(pid)) = (self.is_alive(), rustix::process::Pid::from_raw(self.pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// The host's uid of this process.
    pub fn uid(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
    }

    /// Its arguments, joined by spaces.
    pub fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
    }
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The processes with exactly this command line.
pub fn running(command_line: &str) -> Vec<Process> {
    all().into_iter().filter_map(Process::find).filter(|one| one.command_line() == command_line).collect()
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Every process whose arguments hold `mark`.
pub fn with_argument(mark: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter_map(Process::find)
        .filter(|process| process.command_line().contains(mark))
        .collect()
}

/// Every process that works for the home `home`: its server (by its environment or its folder), and everything below.
pub fn of_home(home: &Path) -> BTreeSet<Process> {
    let mark = format!("SUPERSERVE_HOME={}", home.display()).into_bytes();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut open = Vec::new();
    for pid in all() {
        let Some(stat) = Stat::read(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let by_environment = environment.split(|byte| *byte == 0).any(|entry| entry == mark);
        let by_folder =
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(home));
        if by_environment || by_folder {
            open.push(pid);
        }
    }
    let mut found = BTreeSet::new();
    while let Some(pid) = open.pop() {
        let Some(process) = Process::find(pid) else { continue };
        if found.insert(process) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Looks again and again until `condition` gives something; panics with `what` when patience is out.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Looks again and again until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
