//! Everything that the program promises, tested from outside: one binary, a file a feature.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, and starts processes"
)]

#[macro_use]
mod skipped;
mod command;
mod process;
mod request;
mod test;
mod transcript;

mod agents;
mod bad_input;
mod browser;
mod bundled_scripts;
mod cancel;
mod completions;
mod dependencies;
mod deploy;
mod diagnostics;
mod dry_run;
mod escapes;
mod examples;
mod expressions;
mod files;
mod flags;
mod help;
mod http_agents;
mod init;
mod limits;
mod layout;
mod lifecycle;
mod log;
mod metrics;
mod network;
mod openapi;
mod ops;
mod ordinary_user;
mod readme;
mod recovery;
mod reconnect;
mod remote;
mod repl;
mod retention;
mod run;
mod sandbox;
mod script;
mod scripted;
mod secrets;
mod seed;
mod server;
mod session_files;
mod sessions_attach;
mod sessions_end;
mod sessions_get;
mod sessions_list;
mod sessions_messages;
mod sessions_resume;
mod sessions_send;
mod sessions_wait;
mod sessions_watch;
mod suite;
mod transcripts;
mod turns;
mod versions;
mod wire;

/// A file that nobody declared would never be run.
#[test]
fn every_file_in_tests_is_declared() {
    let declared: Vec<&str> = include_str!("integration.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = name.strip_suffix(".rs") else { continue };
        assert!(module == "integration" || declared.contains(&module), "tests/{name} is not declared");
    }
}
