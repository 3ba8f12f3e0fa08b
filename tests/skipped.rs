//! What this machine can't test, told by name and counted: never passed over in silence.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Ends the test, naming it and the reason: `skip!("node is not on this machine")`.
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skipped::tell(std::thread::current().name().unwrap_or("?"), &format!($($reason)*));
        return;
    }};
}

/// Writes past the test harness, which would keep the words of a test that passes to itself.
pub fn tell(test: &str, reason: &str) {
    if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
        count_at_exit();
    }
    // With one thread the harness leaves the line open before it runs a test.
    let alone = std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1);
    let line = format!("{}skipped: {test}: {reason}\n", if alone { "\n" } else { "" });
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[allow(unsafe_code, reason = "the harness has no end that a test could hook into")]
fn count_at_exit() {
    extern "C" fn print_count() {
        let count = COUNT.load(Ordering::SeqCst);
        let _ = writeln!(std::io::stderr(), "{count} test(s) had to be skipped on this machine");
    }
    // SAFETY: the function takes nothing, touches an atomic and stderr alone, and doesn't unwind.
    let _ = unsafe { libc::atexit(print_count) };
}

/// Whether `program` is on the PATH.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
