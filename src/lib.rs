//! A scriptable shell for AI-agent sessions. The modules, bottom-up; `ARCHITECTURE.md` says who may use whom.

/// The protocol: types alone.
pub mod wire;
/// The allocator.
pub mod memory;
/// The one source of time and random IDs.
pub mod clock;
/// Steps at which a test has the server die.
pub mod fault;
/// What a running server counts.
pub mod metrics;
/// Every setting; the only reader of the environment.
pub mod config;
/// Where agents, sessions, runs and messages are kept.
pub mod store;
/// One isolated process tree over one workspace.
pub mod sandbox;
/// One conversation with an agent process.
pub mod harness;
/// Encryption of what is kept secret.
pub mod vault;
/// What an agent with an allow-list reaches of the network.
pub mod egress;
/// Agents, sessions and turns: the rules.
pub mod platform;
/// The platform over HTTP.
pub mod server;
/// One method a call.
pub mod client;
/// Values to text.
pub mod render;
/// The engine and what scripts can call.
pub mod script;
/// A local server that starts itself.
pub mod daemon;
/// The command line.
pub mod cli;

/// Runs the program with its arguments, the program's name first; the exit code.
pub fn run(args: Vec<std::ffi::OsString>) -> i32 {
    match args.get(1).and_then(|word| word.to_str()) {
        // Before anything else: the spawner must stay a small process with one thread.
        Some(daemon::SPAWNER) => daemon::spawner_main(),
        Some(daemon::INIT) => daemon::init_main(
            &args.iter().skip(2).filter_map(|word| word.to_str().map(str::to_owned)).collect::<Vec<_>>(),
        ),
        Some(daemon::SERVER) => daemon::server_main(args.get(2).and_then(|word| word.to_str())),
        Some(daemon::THROWAWAY) => daemon::throwaway_main(args.get(2).and_then(|word| word.to_str())),
        _ => cli::run(args),
    }
}
