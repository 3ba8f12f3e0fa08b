//! Steps at which a test has the server die, so that it can be shown that nothing depends on when a machine stops.
//!
//! Not here: what must hold afterwards (`tests/recovery.rs`). In use nothing is armed, and a step costs one look.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Every step, each of which can fail before and after it is done: all commits, spawns and renames.
pub const STEPS: [&str; 26] = [
    "agent.delete",
    "agent.forget",
    "agent.rename",
    "agent.store",
    "event.append",
    "event.publish",
    "retention.events",
    "retention.sessions",
    "run.begin",
    "run.finish",
    "sandbox.kill",
    "sandbox.spawn",
    "secret.delete",
    "secret.store",
    "session.ending",
    "session.finish",
    "session.forget",
    "session.insert",
    "session.isolation",
    "session.resume",
    "token.delete",
    "token.store",
    "trash.empty",
    "trash.rename",
    "workspace.history",
    "workspace.rename",
];

/// Where the process dies.
#[derive(Debug)]
struct Fault {
    step: String,
    after: bool,
    /// How often it still passes.
    passes: AtomicU64,
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static FAULT: OnceLock<Fault> = OnceLock::new();

/// Has this process die at `step.before` or `step.after`, or with `:3` behind it the third time. What is no such text
/// does nothing. Only the first call counts.
pub fn arm(text: &str) {
    let (place, count) = text.split_once(':').unwrap_or((text, "1"));
    let Some((step, when)) = place.rsplit_once('.') else { return };
    let passes = AtomicU64::new(count.parse::<u64>().unwrap_or(1).saturating_sub(1));
    if FAULT.set(Fault { step: step.to_owned(), after: when == "after", passes }).is_ok() {
        IS_ARMED.store(true, Ordering::Release);
    }
}

/// Does a step, before and after which the process may die.
pub fn step<T>(step: &'static str, work: impl FnOnce() -> T) -> T {
    point(step, false);
    let done = work();
    point(step, true);
    done
}

/// As [`step`], of one that is waited for.
pub async fn around<T>(step: &'static str, work: impl Future<Output = T>) -> T {
    point(step, false);
    let done = work.await;
    point(step, true);
    done
}

fn point(step: &'static str, after: bool) {
    debug_assert!(STEPS.contains(&step), "{step} is not in the list");
    if !IS_ARMED.load(Ordering::Acquire) {
        return;
    }
    if let Some(fault) = FAULT.get()
        && fault.step == step
        && fault.after == after
        && fault.passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    {
        // As the kernel does it for others: no destructor, no exit handler, no word.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_dies_that_is_not_armed() {
        for name in STEPS {
            assert_eq!(step(name, || 7), 7);
        }
        // Texts that name no place are passed over, and what they would arm is never reached.
        arm("nonsense");
        arm("");
        assert_eq!(step("run.begin", || 8), 8);
    }
}
