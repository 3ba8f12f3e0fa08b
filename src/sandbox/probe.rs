//! Whether this machine lets agents be isolated, and what its owner can do if not.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::protocol::Failure;
use super::{Exit, Limits, Refusal, Sandbox, Spec, StartError};
use crate::wire::Network;

pub(super) const GO_ON: &str = "or go on without isolation: --sandbox none";

/// Where it is noted, below the scratch folder, which driver works and for how long that is believed.
const NOTE: &str = "sandbox.probed";

/// As [`probe`], unless it is noted that this driver has worked since the machine was started, with this very binary.
pub(super) async fn once(sandbox: &dyn Sandbox, scratch: &Path, uid: u32) -> Result<(), Refusal> {
    // The others are probed each time: the best one may work by now, and they are rare.
    let note = note(sandbox.name()).filter(|_| sandbox.name() == "native");
    let path = scratch.join(NOTE);
    if note.is_some() && fs::read_to_string(&path).ok() == note {
        return Ok(());
    }
    probe(sandbox, scratch, uid).await?;
    if let Some(note) = note {
        // Without it the next server tries again.
        let _ = fs::write(&path, note);
    }
    Ok(())
}

/// Takes the note away, since the machine refuses by now what it had allowed.
pub(super) fn forget(scratch: &Path) {
    let _ = fs::remove_file(scratch.join(NOTE));
}

/// What the note says while it holds: the driver, this start of the machine, whose server it is, and the binary.
fn note(driver: &str) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let binary = fs::metadata("/proc/self/exe").ok()?;
    let user = rustix::process::geteuid().as_raw();
    let version = (binary.dev(), binary.ino(), binary.size(), binary.mtime(), binary.mtime_nsec());
    Some(format!("{driver} {} {user} {version:?}\n", boot.trim()))
}

/// Runs a shell that does nothing through the driver's complete profile.
pub(super) async fn probe(sandbox: &dyn Sandbox, scratch: &Path, uid: u32) -> Result<(), Refusal> {
    let broken = |error: io::Error| Refusal {
        step: "make a folder to try it in".to_owned(),
        reason: error.to_string(),
        remedy: format!("Make sure that {} can be written to.", scratch.display()),
    };
    let folder = tempfile::Builder::new().prefix("probe-").tempdir_in(scratch).map_err(broken)?;
    let make = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        sandbox.own(uid, &path)?;
        Ok(path)
    };
    let spec = Spec {
        name: "probe".to_owned(),
        argv: ["/bin/sh", "-c", ":"].map(str::to_owned).to_vec(),
        env: Vec::new(),
        workspace: make("workspace").map_err(broken)?,
        home: make("home").map_err(broken)?,
        runtime: make("runtime").map_err(broken)?,
        read_only: Vec::new(),
        shown: Vec::new(),
        network: Network::default(),
        limits: Limits::default(),
        uid,
    };
    let refused = |reason: String| Refusal {
        step: "run a shell inside".to_owned(),
        reason,
        remedy: format!("See that /bin/sh works on this machine, {GO_ON}."),
    };
    let process = match sandbox.start(&spec).await {
        Ok(process) => process,
        Err(StartError::Refused(refusal)) => return Err(refusal),
        Err(error) => return Err(refused(error.to_string())),
    };
    let exit = process.tree.exited().await;
    process.tree.kill().await;
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(refused(format!("it exited with status {code}"))),
        Exit::Signal(signal) => Err(refused(format!("it was ended by signal {signal}"))),
        Exit::OutOfMemory(limit) => Err(refused(format!("it took more than {limit} bytes of memory"))),
    }
}

/// What the machine says about itself that makes one errno mean different things.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    /// Ubuntu's AppArmor takes away the rights of new user namespaces.
    apparmor_restricts: bool,
    /// Debian's switch for user namespaces is off.
    clone_off: bool,
}

impl Machine {
    fn here() -> Self {
        let says = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        Self {
            apparmor_restricts: says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            clone_off: says("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        }
    }
}

/// The refusal that a failed step means on this machine.
pub(super) fn refusal(failure: &Failure) -> Refusal {
    Refusal {
        step: failure.step.clone(),
        reason: io::Error::from_raw_os_error(failure.errno).to_string(),
        remedy: remedy(failure, Machine::here()),
    }
}

/// What its owner can do. The causes were measured, but for AppArmor, which is as its users report it.
fn remedy(failure: &Failure, machine: Machine) -> String {
    let denied = matches!(failure.errno, libc::EPERM | libc::EACCES);
    let what = match (failure.step.as_str(), failure.errno) {
        ("user namespace", libc::ENOSPC | libc::EUSERS) => {
            "Allow more namespaces: sudo sysctl user.max_user_namespaces=15000 (and the other user.max_*_namespaces, \
             if they are low)"
        }
        _ if denied && machine.clone_off => {
            "Allow user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1"
        }
        (step, _) if denied && machine.apparmor_restricts && step != "mount /proc" => {
            "Allow user namespaces in AppArmor: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        }
        ("user namespace", libc::ENOSYS | libc::EINVAL) => {
            "Use a kernel with user, pid, network and cgroup namespaces"
        }
        ("mount /proc", _) if denied => {
            "A container hides parts of its /proc: start it with --security-opt systempaths=unconfined (docker) or \
             --security-opt unmask=ALL (podman)"
        }
        ("bubblewrap", libc::ENOENT) => "Install bubblewrap",
        ("bubblewrap", libc::EPERM) => "Run the server as an ordinary user, not as root",
        ("landlock", _) if rustix::process::geteuid().is_root() => {
            "Use Linux 6.12 or newer with Landlock, or run the server as an ordinary user"
        }
        ("landlock", _) => "Use Linux 5.13 or newer, and have landlock among lsm= of its command line",
        ("system call filter", libc::EINVAL | libc::ENOSYS) => {
            "Use a kernel with system call filters (CONFIG_SECCOMP_FILTER), on x86_64 or aarch64"
        }
        (_, libc::ENOSYS) => "Use Linux 5.12 or newer",
        _ if denied => {
            "In a container, start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined"
        }
        _ => "See why the kernel refuses this step",
    };
    format!("{what}, {GO_ON}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: &str, errno: i32) -> Failure {
        Failure { step: step.to_owned(), errno, refused: true }
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        let plain = Machine::default();
        let ubuntu = Machine { apparmor_restricts: true, ..plain };
        let debian = Machine { clone_off: true, ..plain };
        for (step, errno, machine, says) in [
            ("user namespace", libc::EPERM, plain, "--security-opt seccomp=unconfined"),
            ("user namespace", libc::EPERM, debian, "kernel.unprivileged_userns_clone=1"),
            ("user namespace", libc::ENOSPC, plain, "user.max_user_namespaces="),
            ("user namespace", libc::EUSERS, plain, "user.max_user_namespaces="),
            ("user namespace", libc::EINVAL, plain, "Use a kernel with"),
            ("uid map", libc::EACCES, ubuntu, "kernel.apparmor_restrict_unprivileged_userns=0"),
            ("host name", libc::EPERM, ubuntu, "kernel.apparmor_restrict_unprivileged_userns=0"),
            ("loopback", libc::EPERM, ubuntu, "kernel.apparmor_restrict_unprivileged_userns=0"),
            ("mount /proc", libc::EPERM, plain, "systempaths=unconfined"),
            ("mount /proc", libc::EPERM, ubuntu, "systempaths=unconfined"),
            ("mount /usr", libc::ENOSYS, plain, "Linux 5.12"),
            ("pivot_root", libc::EINVAL, plain, "See why"),
        ] {
            let remedy = remedy(&failure(step, errno), machine);
            assert!(remedy.contains(says), "{step} {errno}: {remedy}");
            assert!(remedy.ends_with(", or go on without isolation: --sandbox none."), "{remedy}");
        }
    }

    #[test]
    fn a_refusal_tells_the_step_and_the_systems_words() {
        let refusal = refusal(&failure("user namespace", libc::ENOSPC));
        assert_eq!(
            refusal.to_string(),
            "this machine refuses the sandbox: user namespace: No space left on device (os error 28)"
        );
    }
}
