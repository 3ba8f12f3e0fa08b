//! What the benches do with the real program: run it, give its server agents and sessions, and tell whether a goal was held.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use superserve::client::{Client, Package, Sent};
use superserve::wire::{CreateSession, Session};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_superserve");

/// Runs a command of the program, which must succeed.
#[allow(dead_code, reason = "not every bench does")]
pub fn superserve(home: &Path, args: &[&str], env: &[(&str, &str)]) {
    let mut command = Command::new(PROGRAM);
    command.args(args).env("SUPERSERVE_HOME", home).envs(env.iter().copied());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("the program").success(), "{args:?}");
}

/// Deploys an agent of one script; its interpreter follows from the file's name.
pub async fn deploy(client: &Client, home: &Path, name: &str, file: &str, code: &str) {
    let folder = home.join("agents-of-the-bench").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(file), code).expect("a file");
    let package = Package::from_path(&folder.join(file), Some(name), None, &mut |_| ()).expect("an agent");
    client.deploy(package, &Sent::default()).await.expect("deployed");
}

pub async fn create(client: &Client, agent: &str) -> Session {
    let session = CreateSession { agent_id: agent.to_owned(), title: None, idle_timeout_seconds: None };
    client.create_session(&session).await.expect("a session")
}

pub fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "LOST" }
}
