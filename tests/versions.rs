//! A server of another build: restarted when idle, named when not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::process::wait_until;
use crate::test::{Test, short};

/// The program as another build of the same sources would be: the same in all but the name of its build.
fn another_build(test: &Test) -> PathBuf {
    let build = superserve::daemon::version().build;
    let other: String = build.chars().rev().collect();
    assert_ne!(build, other);
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_superserve")).unwrap();
    let mut found = 0;
    for start in 0..bytes.len() - build.len() {
        if bytes[start..].starts_with(build.as_bytes()) {
            bytes[start..start + build.len()].copy_from_slice(other.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "the build's name stands in the program");
    let path = test.work().join("another-build");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_idle_server_of_another_build_is_restarted() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let first = test.server();
    let other = another_build(&test);
    let list = format!("{} sessions list --agent echo", other.display());
    test.shell(&list).stdout_part(short(&id)).run();
    assert!(!first.is_alive(), "the other one is gone");
    assert_ne!(test.server().pid, first.pid);
    let status = test.shell(&format!("{} server status --json", other.display())).any_stdout().run();
    let reversed: String = superserve::daemon::version().build.chars().rev().collect();
    assert!(status.stdout.contains(&reversed), "{}", status.stdout);
}

#[test]
fn a_busy_server_of_another_build_is_named_and_left_alone() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    let first = test.server();
    let other = another_build(&test);
    let output = test.shell(&format!("{} sessions list", other.display())).any_stderr().status(5).run();
    let build = superserve::daemon::version().build;
    assert_eq!(
        output.stderr,
        format!(
            "✗ A server of another version runs on {}: 0.1.0 (build {build}), and it is busy\n  \
             Wait until its runs are over, or stop it with superserve server stop.\n",
            test.home().display()
        )
    );
    assert!(first.is_alive());
    assert_eq!(test.status_of(&id), "active", "its run goes on");
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    run.finish();
    wait_until("the session to be idle", || test.status_of(&id) == "idle");
}
