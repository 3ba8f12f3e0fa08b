//! What an agent in namespaces sees of the file system: an empty root, and what is put into it.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use super::launch::{NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, restrict_mount};
use super::protocol::{Failure, Order};
use crate::wire::Network;

/// Where the empty root is put until it becomes the root; every machine has it.
const NEW_ROOT: &str = "/tmp";
/// Folders of the system that are links into /usr on a merged machine, and folders of their own on others.
pub(super) const BESIDE_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What programs need of /etc: shared libraries, certificates, the time zone. Never a host's secrets or users.
const ETC: [&str; 12] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl",
];
pub(super) const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
pub(super) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
pub(super) const GROUP: &str = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n";

/// Names the step that failed.
pub(super) trait Step<T> {
    /// The machine refuses it.
    fn step(self, step: impl Into<String>) -> Result<T, Failure>;
    /// Something is missing or used up.
    fn broken(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| failure(step.into(), &error.into(), true))
    }

    fn broken(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| failure(step.into(), &error.into(), false))
    }
}

fn failure(step: String, error: &io::Error, refused: bool) -> Failure {
    Failure { step, errno: error.raw_os_error().unwrap_or(libc::EIO), refused }
}

/// The session's own folders, detached from the host's tree and ready to be put into the new root.
///
/// A privileged root opens them before it gives up its rights, so that a session's uid need not be able to reach
/// them; an ordinary user opens them in the new mount namespace, where alone it may.
pub(super) struct Sources {
    workspace: OwnedFd,
    home: OwnedFd,
    runtime: OwnedFd,
    read_only: Vec<(PathBuf, OwnedFd)>,
}

impl Sources {
    pub(super) fn open(order: &Order) -> Result<Self, Failure> {
        Ok(Self {
            workspace: detach(&order.spec.workspace, NO_SUID | NO_DEVICES)?,
            home: detach(&order.spec.home, NO_SUID | NO_DEVICES)?,
            runtime: detach(&order.spec.runtime, READ_ONLY | NO_SUID | NO_DEVICES)?,
            read_only: order
                .spec
                .read_only
                .iter()
                .filter(|path| !path.starts_with("/usr"))
                .map(|path| Ok((path.clone(), detach(path, READ_ONLY | NO_SUID | NO_DEVICES)?)))
                .chain(order.spec.shown.iter().map(|shown| {
                    let read_only = if shown.writable { 0 } else { READ_ONLY };
                    Ok((shown.inside.clone(), detach(&shown.host, read_only | NO_SUID | NO_DEVICES)?))
                }))
                .collect::<Result<_, Failure>>()?,
        })
    }
}

/// Whether a host's folder may be seen at its own path: not where it would hide something of the sandbox.
pub(super) fn may_show(path: &Path) -> bool {
    let taken = ["/dev", "/etc", "/home/agent", "/proc", "/run/superserve", "/workspace"];
    let system = BESIDE_USR.iter().any(|name| path.starts_with(Path::new("/").join(name)));
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let hides = |place: &str| path.starts_with(place) || Path::new(place).starts_with(path);
    path.is_absolute()
        && plain
        && !system
        && !taken.into_iter().any(hides)
        && !Path::new("/tmp").starts_with(path)
}

/// Builds the new root and moves this process, which is alone in a new mount namespace, into it.
pub(super) fn enter(order: &Order, sources: Option<Sources>) -> Result<(), Failure> {
    let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", apart).step("mount namespace")?;
    let sources = match sources {
        Some(sources) => sources,
        None => Sources::open(order)?,
    };
    // Opened by path now, since the new root hides the host's /tmp from here on.
    let resolver = match &order.spec.network {
        Network::Host => ["resolv.conf", "hosts"].map(|name| detach_if_there(&Path::new("/etc").join(name))),
        Network::Allow(_) | Network::None => [Ok(None), Ok(None)],
    };

    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", NEW_ROOT, "tmpfs", plain, c"mode=0755,size=4m").step("mount the root")?;
    rustix::process::chdir(NEW_ROOT).step("mount the root")?;
    for folder in [
        "dev/pts",
        "dev/shm",
        "etc",
        "home/agent",
        "proc",
        "run/superserve",
        "tmp",
        "usr",
        "var",
        "workspace",
    ] {
        make_folder(folder)?;
    }
    symlink("../tmp", "var/tmp").broken("make /var/tmp")?;
    system()?;
    etc(order, resolver)?;
    // Before the host's /proc is out of sight: without a visible one the kernel refuses a new one.
    let no_exec = plain | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", no_exec, None).step("mount /proc")?;
    devices()?;
    mount("tmpfs", "tmp", "tmpfs", plain, &*tmp_options(order.spec.limits.tmp)).step("mount /tmp")?;

    attach(&sources.workspace, "workspace")?;
    attach(&sources.home, "home/agent")?;
    attach(&sources.runtime, "run/superserve")?;
    for (path, tree) in &sources.read_only {
        let inside = path.strip_prefix("/").unwrap_or(path);
        make_folder(inside)?;
        attach(tree, inside)?;
    }

    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).step("pivot_root")?;
    rustix::process::chdir("/").step("pivot_root")?;
    mount_remount("/", plain | MountFlags::BIND | MountFlags::RDONLY, "").step("make the root read-only")
}

/// Small files, too, cost memory: each counts as a page.
fn tmp_options(bytes: u64) -> CString {
    let files = (bytes / 4096).max(1024);
    // Digits alone: there is no NUL in it.
    CString::new(format!("mode=1777,size={bytes},nr_inodes={files}")).unwrap_or_default()
}

/// /usr and what belongs to it.
fn system() -> Result<(), Failure> {
    let bind = |host: &Path, inside: &str| attach(&detach(host, READ_ONLY | NO_SUID | NO_DEVICES)?, inside);
    bind(Path::new("/usr"), "usr")?;
    for name in BESIDE_USR {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&host).broken(format!("read {}", host.display()))?;
                symlink(target, name).broken(format!("make {}", host.display()))?;
            }
            Ok(found) if found.is_dir() => {
                make_folder(name)?;
                bind(&host, name)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What of the host's /etc an agent may read.
pub(super) fn etc_names() -> impl Iterator<Item = String> {
    let python = fs::read_dir("/etc").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.starts_with("python3").then_some(name)
    });
    ETC.into_iter().map(str::to_owned).chain(python)
}

/// A few files of the host's /etc, and some of our own.
fn etc(order: &Order, resolver: [Result<Option<OwnedFd>, Failure>; 2]) -> Result<(), Failure> {
    for name in etc_names() {
        let (host, inside) = (Path::new("/etc").join(&name), Path::new("etc").join(&name));
        let Ok(found) = fs::symlink_metadata(&host) else { continue };
        if let Some(parent) = inside.parent() {
            make_folder(parent)?;
        }
        if found.is_symlink() {
            let target = fs::read_link(&host).broken(format!("read {}", host.display()))?;
            symlink(target, &inside).broken(format!("make {}", host.display()))?;
        } else {
            match found.is_dir() {
                true => make_folder(&inside)?,
                false => write(&inside, "")?,
            }
            attach(&detach(&host, READ_ONLY | NO_SUID | NO_DEVICES)?, &inside)?;
        }
    }
    write("etc/passwd", PASSWD)?;
    write("etc/group", GROUP)?;
    write("etc/hostname", &format!("{}\n", order.spec.name))?;
    let [resolv, hosts] = resolver;
    write("etc/resolv.conf", resolv_conf(&order.spec.network))?;
    if let Some(tree) = resolv? {
        attach(&tree, "etc/resolv.conf")?;
    }
    write("etc/hosts", &format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost\n", order.spec.name))?;
    if let Some(tree) = hosts? {
        attach(&tree, "etc/hosts")?;
    }
    Ok(())
}

/// The /etc/resolv.conf of a network namespace of the agent's own.
pub(super) fn resolv_conf(network: &Network) -> &'static str {
    match network {
        Network::Allow(_) => super::network::RESOLV_CONF,
        Network::Host | Network::None => "",
    }
}

/// A /dev with the devices that harm nobody.
fn devices() -> Result<(), Failure> {
    for name in DEVICES {
        let inside = Path::new("dev").join(name);
        write(&inside, "")?;
        attach(&detach(&Path::new("/dev").join(name), NO_SUID | NO_EXEC)?, &inside)?;
    }
    let links = [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
        ("pts/ptmx", "dev/ptmx"),
    ];
    for (target, link) in links {
        symlink(target, link).broken(format!("make /{link}"))?;
    }
    let no_exec = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "dev/shm", "tmpfs", no_exec | MountFlags::NODEV, c"mode=1777,size=64m,nr_inodes=16384")
        .step("mount /dev/shm")?;
    mount("devpts", "dev/pts", "devpts", no_exec, c"newinstance,ptmxmode=0666,mode=0620")
        .step("mount /dev/pts")
}

/// A copy of the host's mount at `path`, with all below it, that is nowhere yet.
fn detach(path: &Path, attributes: u64) -> Result<OwnedFd, Failure> {
    let step = || format!("mount {}", path.display());
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = match open_tree(CWD, path, flags) {
        Err(error @ (rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS | rustix::io::Errno::NOTDIR)) => {
            return Err(error).broken(step());
        }
        other => other.step(step())?,
    };
    restrict_mount(&tree, attributes).step(step())?;
    Ok(tree)
}

fn detach_if_there(path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match path.exists() {
        true => detach(path, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC).map(Some),
        false => Ok(None),
    }
}

fn attach(tree: &OwnedFd, inside: impl AsRef<Path>) -> Result<(), Failure> {
    let inside = inside.as_ref();
    move_mount(tree, "", CWD, inside, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(format!("attach /{}", inside.display()))
}

fn make_folder(inside: impl AsRef<Path>) -> Result<(), Failure> {
    let inside = inside.as_ref();
    fs::create_dir_all(inside).broken(format!("make /{}", inside.display()))
}

fn write(inside: impl AsRef<Path>, text: &str) -> Result<(), Failure> {
    let inside = inside.as_ref();
    let step = || format!("write /{}", inside.display());
    fs::write(inside, text).broken(step())?;
    fs::set_permissions(inside, Permissions::from_mode(0o644)).broken(step())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_folders_hide_nothing() {
        for path in
            ["/root/.pyenv/versions/3.11", "/opt/venv", "/home/me/.nvm", "/tmp/venv", "/usr/local/node"]
        {
            assert!(may_show(Path::new(path)), "{path}");
        }
        for path in [
            "/",
            "/home",
            "/etc",
            "/etc/ssl",
            "/proc/1",
            "/workspace/x",
            "/lib/x",
            "/run",
            "/tmp",
            "opt",
            "/opt/../etc",
        ] {
            assert!(!may_show(Path::new(path)), "{path}");
        }
    }
}
