//! The system calls that no agent may make: those that reach the kernel's less trodden parts, and those that only
//! somebody needs who builds or leaves a sandbox.
//!
//! Everything else is allowed. What is refused fails with EPERM, as for want of rights; `clone3` with ENOSYS, since a
//! filter can't see its flags and every C library falls back on `clone`. A program of another architecture is ended at
//! its first call, and the x32 variants of calls don't exist, so that neither is a way round.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Calls that fail whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    // Namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Keys, which no namespace keeps apart.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Parts of the kernel in which most holes are found, and which agents don't need.
    libc::SYS_bpf,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Other processes' memory and files.
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // The machine as a whole.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];
/// Newer than the crate's list; calls of its age have one number on every architecture.
const OPEN_TREE_ATTR: libc::c_long = 467;
/// The namespaces that `clone` can make.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
/// Terminal commands that type for the user: TIOCSTI, and TIOCLINUX, which can paste on a console.
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// A compiled filter.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    programs: Vec<BpfProgram>,
}

impl Filter {
    /// Compiles it for this machine's architecture. It takes some microseconds; the spawner does it once.
    pub(super) fn compile() -> io::Result<Self> {
        compile().map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))
    }

    /// Binds this thread, and all that it will ever start, for good. Needs no_new_privs.
    pub(super) fn install(&self) -> io::Result<()> {
        for program in &self.programs {
            seccompiler::apply_filter(program).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                other => io::Error::other(other),
            })?;
        }
        Ok(())
    }
}

fn compile() -> Result<Filter, seccompiler::BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.into_iter().map(|namespace| {
        let bit = namespace as u32 as u64;
        only_if(0, SeccompCmpOp::MaskedEq(bit), bit)
    });
    refused.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let typing = TYPING.into_iter().map(|command| only_if(1, SeccompCmpOp::Eq, command));
    refused.insert(libc::SYS_ioctl, typing.collect::<Result<_, _>>()?);
    let mut programs = Vec::new();
    for (calls, errno) in
        [(refused, libc::EPERM), (BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)]
    {
        let filter = SeccompFilter::new(
            calls,
            SeccompAction::Allow,
            SeccompAction::Errno(errno as u32),
            architecture,
        )?;
        let program: BpfProgram = filter.try_into()?;
        programs.push(without_x32(program));
    }
    Ok(Filter { programs })
}

/// The kernel reads flags and commands as 32 bits, so that is what is compared: bits above must not hide them.
fn only_if(
    argument: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?])
}

/// Answers ENOSYS to every call with the bit by which x86_64 has each call once more, under another number. No number
/// of another architecture is as large.
fn without_x32(program: BpfProgram) -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let instruction =
        |code: u32, jt: u8, k: u32| sock_filter { code: code as u16, jt, jf: u8::from(jt == 0), k };
    let mut whole = vec![
        // The call's number is the first word.
        sock_filter { jf: 0, ..instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0) },
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, X32),
        sock_filter {
            jf: 0,
            ..instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)
        },
    ];
    whole.extend(program);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers to a call: 0 for yes, or an errno; -1 if it ends the process. Runs the program as the
    /// kernel would, so that calls can be tried that no test should make.
    fn answer(filter: &Filter, architecture: u32, call: i64, arguments: [u64; 6]) -> i32 {
        let mut data = Vec::new();
        data.extend((call as u32).to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        filter.programs.iter().map(|program| run(program, &data)).find(|answer| *answer != 0).unwrap_or(0)
    }

    fn run(program: &[sock_filter], data: &[u8]) -> i32 {
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    let from = k as usize;
                    accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
                code if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => at += jump(accumulator == k),
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => at += jump(accumulator >= k),
                code if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => at += jump(accumulator > k),
                code if code == libc::BPF_RET | libc::BPF_K => {
                    return match k & 0xFFFF_0000 {
                        libc::SECCOMP_RET_ALLOW => 0,
                        libc::SECCOMP_RET_ERRNO => (k & 0xFFFF) as i32,
                        libc::SECCOMP_RET_KILL_PROCESS => -1,
                        other => panic!("{other:x}"),
                    };
                }
                other => panic!("{other:x}"),
            }
        }
    }

    const HERE: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
    const I386: u32 = 0x4000_0003;
    const NO_ARGUMENTS: [u64; 6] = [0; 6];

    fn first(value: u64) -> [u64; 6] {
        [value, 0, 0, 0, 0, 0]
    }

    #[test]
    fn what_is_named_is_refused_and_nothing_else() {
        let filter = Filter::compile().unwrap();
        for call in 0..1000 {
            let expected = match call {
                libc::SYS_clone3 => libc::ENOSYS,
                call if REFUSED.contains(&call) => libc::EPERM,
                _ => 0,
            };
            assert_eq!(answer(&filter, HERE, call, NO_ARGUMENTS), expected, "call {call}");
        }
    }

    #[test]
    fn processes_and_threads_may_be_made_but_not_namespaces() {
        let filter = Filter::compile().unwrap();
        let fork = libc::SIGCHLD as u64;
        let thread = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        for flags in [fork, thread, libc::CLONE_PIDFD as u64 | fork] {
            assert_eq!(answer(&filter, HERE, libc::SYS_clone, first(flags)), 0, "{flags:x}");
        }
        for namespace in NAMESPACES {
            let bit = u64::from(namespace as u32);
            for flags in [bit, bit | fork, bit | thread, bit | 0xFFFF_FFFF_0000_0000] {
                assert_eq!(answer(&filter, HERE, libc::SYS_clone, first(flags)), libc::EPERM, "{flags:x}");
            }
        }
    }

    #[test]
    fn terminals_are_used_but_not_typed_on() {
        let filter = Filter::compile().unwrap();
        let command = |command: u64| answer(&filter, HERE, libc::SYS_ioctl, [0, command, 0, 0, 0, 0]);
        assert_eq!(command(libc::TCGETS), 0);
        assert_eq!(command(libc::TIOCSTI), libc::EPERM);
        assert_eq!(command(libc::TIOCSTI | 0x1_0000_0000), libc::EPERM, "the kernel drops the upper half");
        assert_eq!(command(libc::TIOCLINUX), libc::EPERM);
    }

    #[test]
    fn other_architectures_are_no_way_round() {
        let filter = Filter::compile().unwrap();
        assert_eq!(answer(&filter, I386, 21, NO_ARGUMENTS), -1, "mount, as a 32-bit program calls it");
        for call in [0, libc::SYS_mount, libc::SYS_getpid, 0xBFFF_FFFF] {
            let x32 = 0x4000_0000 | call;
            assert_eq!(answer(&filter, HERE, x32, NO_ARGUMENTS), libc::ENOSYS, "call {x32:x}");
        }
    }
}
