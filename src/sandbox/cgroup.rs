//! Control groups, where this server may make some: they bound what all processes of a sandbox take together, and tell
//! that one was ended for want of memory. Without them each process is bound by itself; see `limits`.
//!
//! Version 2 where the server's own group is its to divide, or, as root, the one at the top; version 1 as root. Version
//! 2 is tested on folders that look like it alone, version 1 on a kernel that has it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Limits;

/// What the names of our groups begin with.
const PREFIX: &str = "superserve-";
/// Where the server goes that must leave its own group to be able to divide it.
const SERVER: &str = "superserve-server";

/// What a hierarchy of groups bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory1,
    Pids1,
    Version2 { memory: bool, pids: bool },
}

/// A group of this server's, in which it makes one for each sandbox.
#[derive(Clone, Debug)]
struct Place {
    kind: Kind,
    folder: PathBuf,
}

/// What this machine lets a server bound by control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    pub memory: bool,
    pub processes: bool,
}

/// The groups of one server. Dropping it removes those that nobody is in.
#[derive(Debug, Default)]
pub(super) struct Groups {
    places: Vec<Place>,
    count: AtomicU64,
    /// Groups that could not be removed yet, since their processes are still on their way out.
    left: Mutex<Vec<PathBuf>>,
}

/// The groups of one sandbox. Dropping it removes them, as soon as nobody is in them.
#[derive(Debug)]
pub(super) struct Group {
    owner: Arc<Groups>,
    folders: Vec<PathBuf>,
    /// Where it is told how often the kernel had to end a process, and the limit on memory.
    kills: Option<(PathBuf, u64)>,
}

impl Groups {
    /// The groups of the server that alone serves the state folder `home`; what an earlier one left is removed. Blocks.
    pub(super) fn of_server(home: &Path) -> Self {
        let Ok(home) = fs::metadata(home) else { return Self::default() };
        let groups = Self::find(&format!("{PREFIX}{:x}-{:x}", home.dev(), home.ino()));
        for place in &groups.places {
            for entry in fs::read_dir(&place.folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    // Whoever is in there has outlived server and spawner, which should not be.
                    let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                    groups.remove(entry.path());
                }
            }
        }
        groups
    }

    /// Groups to see what is possible, beside those of a server that may be at work. Blocks.
    pub(super) fn on_trial() -> Self {
        Self::find(&format!("{PREFIX}try-{}", std::process::id()))
    }

    fn find(name: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let hierarchies = hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        Self::new(hierarchies.into_iter().filter_map(|hierarchy| hierarchy.divide(name)).collect())
    }

    fn new(places: Vec<Place>) -> Self {
        Self { places, count: AtomicU64::new(0), left: Mutex::default() }
    }

    /// What they bound.
    pub(super) fn grouped(&self) -> Grouped {
        let any = |bounds: fn(Kind) -> bool| self.places.iter().any(|place| bounds(place.kind));
        Grouped {
            memory: any(|kind| matches!(kind, Kind::Memory1 | Kind::Version2 { memory: true, .. })),
            processes: any(|kind| matches!(kind, Kind::Pids1 | Kind::Version2 { pids: true, .. })),
        }
    }

    /// Makes the groups of a sandbox; none if there can't be any. Blocks, for a millisecond or so.
    pub(super) fn make(self: &Arc<Self>, limits: &Limits) -> Option<Group> {
        self.sweep();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let mut group = Group { owner: self.clone(), folders: Vec::new(), kills: None };
        for place in &self.places {
            let folder = place.folder.join(&name);
            match place.make(&folder, limits) {
                Ok(kills) => {
                    group.folders.push(folder);
                    let kills = kills.map(|kills| (kills, limits.memory));
                    group.kills = group.kills.take().or(kills);
                }
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "cannot make a control group");
                    let _ = fs::remove_dir(&folder);
                }
            }
        }
        Some(group).filter(|group| !group.folders.is_empty())
    }

    fn remove(&self, folder: PathBuf) {
        if let Err(error) = fs::remove_dir(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
    }

    /// Tries again to remove what could not be removed.
    fn sweep(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.into_iter().for_each(|folder| self.remove(folder));
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.sweep();
        for place in &self.places {
            let _ = fs::remove_dir(&place.folder);
        }
    }
}

impl Group {
    /// The groups that the sandbox's first process is to be put into.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The limit on memory, in bytes, if the kernel has ended a process since it was passed.
    pub(super) fn out_of_memory(&self) -> Option<u64> {
        let (file, limit) = self.kills.as_ref()?;
        let text = fs::read_to_string(file).ok()?;
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        (kills.trim().parse::<u64>().ok()? > 0).then_some(*limit)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in std::mem::take(&mut self.folders) {
            self.owner.remove(folder);
        }
    }
}

/// Puts a process, and all that it will start, into groups.
pub(super) fn join(folders: &[PathBuf], process: i32) {
    for folder in folders {
        // One that can't be joined bounds nothing; each process by itself is still bound.
        let _ = fs::write(folder.join("cgroup.procs"), process.to_string());
    }
}

impl Place {
    /// Makes a group with these limits. Answers where the kernel tells of those that it ended for want of memory.
    fn make(&self, folder: &Path, limits: &Limits) -> io::Result<Option<PathBuf>> {
        // Another server may have swept the one above away, as long as it was empty.
        fs::create_dir_all(folder)?;
        // The init is one of them.
        let processes = limits.processes.saturating_add(1).to_string();
        let memory = limits.memory.to_string();
        // Swap would only put off the end; a kernel without it has no such file.
        match self.kind {
            Kind::Memory1 => {
                fs::write(folder.join("memory.limit_in_bytes"), &memory)?;
                let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), &memory);
                Ok(Some(folder.join("memory.oom_control")))
            }
            Kind::Pids1 => fs::write(folder.join("pids.max"), processes).map(|()| None),
            Kind::Version2 { memory: bounds_memory, pids } => {
                let controllers: Vec<&str> = [(bounds_memory, "memory"), (pids, "pids")]
                    .into_iter()
                    .filter_map(|(is, name)| is.then_some(name))
                    .collect();
                hand_down(&self.folder, &controllers)?;
                if pids {
                    fs::write(folder.join("pids.max"), processes)?;
                }
                if !bounds_memory {
                    return Ok(None);
                }
                fs::write(folder.join("memory.max"), memory)?;
                let _ = fs::write(folder.join("memory.swap.max"), "0");
                Ok(Some(folder.join("memory.events")))
            }
        }
    }
}

/// A mounted tree of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Version 1's name of what it bounds; none of version 2.
    controller: Option<&'static str>,
    top: PathBuf,
    /// The group that this process is in.
    own: PathBuf,
}

/// The trees that bound memory or processes, as /proc/self/mountinfo and /proc/self/cgroup have them.
fn hierarchies(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    let own = |controller: Option<&str>| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let named = match controller {
                Some(controller) => controllers.split(',').any(|one| one == controller),
                None => controllers.is_empty(),
            };
            named.then(|| path.to_owned())
        })
    };
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let (mount, kind): (Vec<&str>, Vec<&str>) = (mount.split(' ').collect(), kind.split(' ').collect());
        let (Some(root), Some(top), Some(kind), Some(options)) =
            (mount.get(3), mount.get(4), kind.first(), kind.get(2))
        else {
            continue;
        };
        let controller = match *kind {
            "cgroup2" => None,
            "cgroup" => {
                let bounds = |name: &&str| options.split(',').any(|option| option == *name);
                match ["memory", "pids"].into_iter().find(bounds) {
                    Some(name) => Some(name),
                    None => continue,
                }
            }
            _ => continue,
        };
        let Some(own) = own(controller) else { continue };
        // A mount shows what is below its root alone.
        let below = match *root {
            "/" => own.strip_prefix('/'),
            root => own.strip_prefix(root).map(|below| below.trim_start_matches('/')),
        };
        let (Some(below), false) = (below, own.split('/').any(|part| part == "..")) else { continue };
        let top = PathBuf::from(top);
        let hierarchy = Hierarchy { controller, own: top.join(below), top };
        if !found.iter().any(|known| known.controller == controller) {
            found.push(hierarchy);
        }
    }
    found
}

impl Hierarchy {
    /// Makes this server's group in it.
    fn divide(&self, name: &str) -> Option<Place> {
        let kind = match self.controller {
            Some("memory") => Kind::Memory1,
            Some(_) => Kind::Pids1,
            None => return self.divide2(name),
        };
        let folder = self.own.join(name);
        remove_empty(&self.own);
        make(&folder).ok()?;
        Some(Place { kind, folder })
    }

    fn divide2(&self, name: &str) -> Option<Place> {
        let root = rustix::process::geteuid().is_root();
        let bases = [Some(&self.own), Some(&self.top).filter(|top| root && **top != self.own)];
        bases.into_iter().flatten().find_map(|base| {
            let given = listed(&base.join("cgroup.controllers"));
            let wanted: Vec<&str> =
                ["memory", "pids"].into_iter().filter(|name| given.iter().any(|one| one == name)).collect();
            if wanted.is_empty() {
                return None;
            }
            hand_down(base, &wanted).ok()?;
            remove_empty(base);
            let folder = base.join(name);
            make(&folder).ok()?;
            if hand_down(&folder, &wanted).is_err() {
                let _ = fs::remove_dir(&folder);
                return None;
            }
            let (memory, pids) = (wanted.contains(&"memory"), wanted.contains(&"pids"));
            Some(Place { kind: Kind::Version2 { memory, pids }, folder })
        })
    }
}

/// Lets the groups below one use these controllers.
fn hand_down(group: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    let there = listed(&file);
    let missing: Vec<String> = controllers
        .iter()
        .filter(|name| !there.iter().any(|one| one == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tried = fs::write(&file, missing.join(" "));
    let busy = tried.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    let us = std::process::id().to_string();
    if !busy || listed(&group.join("cgroup.procs")) != [us.as_str()] {
        return tried;
    }
    // A group with processes of its own can't be divided; nobody but us is in this one.
    let server = group.join(SERVER);
    make(&server)?;
    fs::write(server.join("cgroup.procs"), us)?;
    fs::write(&file, missing.join(" "))
}

/// Removes servers' groups in which nobody is, left by some that were killed.
fn remove_empty(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) && name != OsStr::new(SERVER) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn listed(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found() {
        let hierarchy =
            |controller, top: &str, own: &str| Hierarchy { controller, top: top.into(), own: own.into() };
        let version1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 - cgroup cgroup rw,pids\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "8:pids:/\n4:memory:/a/b\n1:name=systemd:/x\n0::/\n";
        assert_eq!(
            hierarchies(version1, groups),
            [
                hierarchy(Some("memory"), "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b"),
                hierarchy(Some("pids"), "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/"),
                hierarchy(None, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/"),
            ]
        );
        let version2 = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            hierarchies(version2, "0::/user.slice/session-1.scope\n"),
            [hierarchy(None, "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/session-1.scope")]
        );
        // A container that sees its own part alone.
        let part = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            hierarchies(part, "0::/docker/abc/sub\n"),
            [hierarchy(None, "/sys/fs/cgroup", "/sys/fs/cgroup/sub")]
        );
        for (mounts, groups) in [
            ("", ""),
            ("nonsense", "0::/"),
            (part, "0::/elsewhere"),
            (version2, "0::/../other"),
            (version2, "x"),
        ] {
            assert_eq!(hierarchies(mounts, groups), [], "{mounts} {groups}");
        }
    }

    /// A folder that stands in for a tree of version 2: it shows what is written, but enforces nothing.
    #[test]
    fn version_2_is_divided_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let hierarchy = Hierarchy { controller: None, top: folder.path().into(), own: own.clone() };
        let place = hierarchy.divide("superserve-1-2").expect("a place");
        assert_eq!(place.kind, Kind::Version2 { memory: true, pids: true });
        for group in [&own, &own.join("superserve-1-2")] {
            assert_eq!(fs::read_to_string(group.join("cgroup.subtree_control")).unwrap(), "+memory +pids");
        }
        let groups = Arc::new(Groups::new(vec![place]));
        assert_eq!(groups.grouped(), Grouped { memory: true, processes: true });
        let limits = Limits { processes: 5, memory: 1 << 20, ..Limits::default() };
        let group = groups.make(&limits).expect("a group");
        let [made] = group.folders() else { panic!("{group:?}") };
        let read = |name: &str| fs::read_to_string(made.join(name)).unwrap();
        assert_eq!(["memory.max", "memory.swap.max", "pids.max"].map(read), ["1048576", "0", "6"]);
        join(group.folders(), 7);
        assert_eq!(fs::read_to_string(made.join("cgroup.procs")).unwrap(), "7");
        fs::write(made.join("memory.events"), "low 0\nmax 3\noom 1\noom_kill 0\n").unwrap();
        assert_eq!(group.out_of_memory(), None);
        fs::write(made.join("memory.events"), "low 0\nmax 3\noom 1\noom_kill 1\n").unwrap();
        assert_eq!(group.out_of_memory(), Some(1 << 20));
    }

    #[test]
    fn a_machine_without_them_is_none_the_worse() {
        let folder = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy {
            controller: Some("memory"),
            top: folder.path().into(),
            own: folder.path().join("gone"),
        };
        assert!(hierarchy.divide("superserve-1-2").is_none());
        let groups = Arc::new(Groups::default());
        assert_eq!(groups.grouped(), Grouped::default());
        assert!(groups.make(&Limits::default()).is_none());
    }
}
