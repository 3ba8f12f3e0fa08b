//! The `landlock` driver, for machines that allow no namespaces: the kernel's Landlock rules over the host's own tree of
//! files. An agent reads the system's folders and writes its own two alone; it sees the list of the host's processes,
//! and may use the network wholly or not at all.
//!
//! Measured on Linux 6.18: files and environments of others, signals, abstract sockets and TCP are out of reach; names
//! and sizes of files (`stat`) and command lines are not. Before 6.12 signals aren't either.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::mounts::{DEVICES, etc_names};
use super::protocol::{Failure, Walls};
use super::spawner::{Spawner, is_privileged};
use super::{Inside, Process, Sandbox, Spec, StartError, native, tree};
use crate::wire::{Isolation, Network};

/// What is asked for; a kernel that knows less gives what it has.
const WANTED: ABI = ABI::V7;
/// Folders of the system that are read and run.
const SYSTEM: [&str; 7] = ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
/// Files of /etc that a sandbox with an /etc of its own makes anew.
const ETC_BESIDE: [&str; 5] = ["group", "hostname", "hosts", "passwd", "resolv.conf"];
/// Where an agent's temporary files go, in its home: /tmp is everybody's.
const TMP: &str = ".tmp";

pub(super) struct Landlock {
    spawner: Spawner,
    /// Whose server it is, and so whose agents.
    uid: u32,
}

impl Landlock {
    pub(super) fn new(spawner: Spawner, uid: u32) -> Self {
        Self { spawner, uid }
    }
}

impl Sandbox for Landlock {
    fn name(&self) -> &'static str {
        "landlock"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Reduced
    }

    fn mounts(&self) -> bool {
        false
    }

    fn inside(&self, spec: &Spec) -> Inside {
        Inside { workspace: spec.workspace.clone(), home: spec.home.clone(), runtime: spec.runtime.clone() }
    }

    fn own(&self, _uid: u32, path: &Path) -> io::Result<()> {
        take_back(path, self.uid)
    }

    fn start<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Process, StartError>> {
        async move {
            let mut spec = spec.clone();
            let tmp = spec.home.join(TMP);
            spec.env.push(("TMPDIR".to_owned(), tmp.to_string_lossy().into_owned()));
            let (folders, uid) = ([spec.workspace.clone(), spec.home.clone()], self.uid);
            let prepared = tokio::task::spawn_blocking(move || {
                folders.iter().try_for_each(|folder| take_back(folder, uid))?;
                match DirBuilder::new().mode(0o700).create(&tmp) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => take_back(&tmp, uid),
                }
            });
            prepared.await.map_err(io::Error::other)??;
            tree::start(&self.spawner, &spec, Walls::Landlock).await
        }
        .boxed()
    }
}

/// Makes a folder the server's own that another driver had given to a uid of its session: here agents have the
/// server's uid, without its rights.
fn take_back(folder: &Path, uid: u32) -> io::Result<()> {
    match is_privileged() && folder.symlink_metadata()?.uid() != uid {
        true => native::give(uid, folder),
        false => Ok(()),
    }
}

/// Whether this kernel can hold these rules at all.
pub(super) fn check() -> Result<(), Failure> {
    let refused = |errno| Failure { step: "landlock".to_owned(), errno, refused: true };
    let signals = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        .and_then(Ruleset::create);
    if signals.is_ok() {
        return Ok(());
    }
    // One that runs as root could end any of root's processes.
    if rustix::process::geteuid().is_root() {
        return Err(refused(libc::EOPNOTSUPP));
    }
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .map(drop)
        .map_err(|_| refused(libc::EOPNOTSUPP))
}

/// Confines this process and all that come of it to `spec`'s folders, for good. It must have `no_new_privs`.
///
/// # Errors
/// If the kernel enforces nothing, or refuses a rule.
pub(super) fn confine(spec: &Spec) -> io::Result<()> {
    let enforced = rules(spec).and_then(RulesetCreated::restrict_self).map_err(io::Error::other)?;
    if enforced.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // What Landlock has no rule for: UDP, other kinds of sockets, and Unix sockets that stand in folders.
    let filter = sockets(&spec.network).map_err(io::Error::other)?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

fn rules(spec: &Spec) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::from_read(WANTED);
    let read_only = read & !BitFlags::from(AccessFs::Execute);
    let all = AccessFs::from_all(WANTED);
    let mut ruleset = Ruleset::default().handle_access(all)?.scope(Scope::from_all(WANTED))?;
    if spec.network != Network::Host {
        ruleset = ruleset.handle_access(AccessNet::from_all(WANTED))?;
    }
    let etc = etc_names().chain(ETC_BESIDE.map(str::to_owned)).map(|name| Path::new("/etc").join(name));
    let devices = DEVICES.map(|name| Path::new("/dev").join(name));
    let mut created = ruleset.create()?.no_new_privs(false);
    for (paths, access) in [
        (SYSTEM.map(PathBuf::from).to_vec(), read),
        (spec.read_only.clone(), read),
        (etc.collect(), read_only),
        (vec![spec.runtime.clone(), "/proc".into()], read_only),
        (devices.to_vec(), read_only | AccessFs::WriteFile | AccessFs::IoctlDev),
        (fifos(&spec.runtime), read_only | AccessFs::WriteFile),
        (vec![spec.workspace.clone(), spec.home.clone()], all),
    ] {
        for path in paths {
            // What isn't there needs no rule.
            let Ok(opened) = PathFd::new(&path) else { continue };
            let access = match path.is_dir() {
                true => access,
                false => access & AccessFs::from_file(WANTED),
            };
            created = created.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    Ok(created)
}

/// The FIFOs in the runtime folder, which agents write to.
fn fifos(runtime: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let entries = std::fs::read_dir(runtime).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_fifo()))
        .map(|entry| entry.path())
        .collect()
}

/// Lets no socket be made but those of the internet, and these only with a network. Pairs of sockets stay allowed.
fn sockets(network: &Network) -> Result<BpfProgram, seccompiler::BackendError> {
    let is_not = |domain: i32| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(domain.unsigned_abs()))
    };
    let forbidden = match network {
        // Which names an agent may reach can't be held here: it reaches none.
        Network::Allow(_) | Network::None => Vec::new(),
        Network::Host => vec![SeccompRule::new(vec![is_not(libc::AF_INET)?, is_not(libc::AF_INET6)?])?],
    };
    let rules = BTreeMap::from([(libc::SYS_socket, forbidden)]);
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}
