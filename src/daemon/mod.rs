//! A local server that starts itself: probe, start, wait; its lock, its report, its end.
//!
//! Not here: routes (server) and rules (platform). The only place that re-executes the binary and takes locks.

mod certificate;
mod doctor;
mod listen;
mod lock;
mod log;
mod process;
mod serve;
mod throwaway;
mod unread;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::client::{self, Client, socket_address};
use crate::config::{Config, SandboxChoice};
use crate::wire::server::StopServer;
use crate::wire::{ErrorCode, PROTOCOL, ServerInfo, Version};

pub use crate::platform::on_path;
pub use crate::sandbox::{INIT, init_main};
pub use doctor::{Check, State, doctor};
pub use listen::{Listen, ListenError};
pub use lock::{Holder, holder};
pub use process::{SERVER, SPAWNER, spawner_main};
pub use serve::{Serve, ServeError, serve};
pub use throwaway::{THROWAWAY, Throwaway, throwaway_main};

/// How long a starting server may take until it listens: it may have to wait for an earlier one to drain.
const START: Duration = Duration::from_secs(40);
/// How long a stopping server may take: its runs get 10 s to end, its agents 2 s.
const STOP: Duration = Duration::from_secs(20);
/// How long a running server may take to say its version.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a lock or a socket is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);

/// What this binary says of itself.
pub fn version() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: env!("SUPERSERVE_BUILD").to_owned(),
        protocol: PROTOCOL,
    }
}

/// What a starting server tells the command that started it, in one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    /// It listens. `warning` is what its user should know.
    Ready {
        warning: Option<String>,
    },
    Failed {
        message: String,
        hint: Option<String>,
    },
}

/// The background server's whole life; its exit code. `sandbox` goes before the setting.
pub fn server_main(sandbox: Option<&str>) -> i32 {
    let served = Config::load().map_err(|error| error.to_string()).and_then(|mut config| {
        config.sandbox = sandbox.and_then(SandboxChoice::from_word).unwrap_or(config.sandbox);
        serve(&config, &Serve { background: true, ..Serve::default() }).map_err(|error| error.to_string())
    });
    i32::from(served.is_err())
}

/// A client of the local server, which is started first if none runs, and started anew if an idle one is of another
/// build. `sandbox` holds only for a server that this call starts; one that runs with another is an error. `warn` hears
/// what such a server has to say.
pub async fn connect(
    config: &Config,
    sandbox: Option<SandboxChoice>,
    warn: &dyn Fn(&str),
) -> client::Result<Client> {
    if let Some(client) = usable(config).await? {
        if let Some(choice) = sandbox {
            same_sandbox(&client, choice).await?;
        }
        return Ok(client);
    }
    make_folders(config)?;
    let starting = lock::Lock::wait(&config.home.join("start.lock"), START).await.map_err(|error| {
        unreachable(format!("cannot start the server: {error}"), "Another command is starting it; try again.")
    })?;
    // Of ten commands that came here at once, the first starts the server and the others find it.
    if let Some(client) = usable(config).await? {
        return Ok(client);
    }
    if let Some(warning) = start(config, sandbox).await? {
        warn(&warning);
    }
    drop(starting);
    Client::unix(&config.socket())
}

/// A client of the local server if one runs, whatever its build. Starts nothing.
pub async fn running(config: &Config) -> client::Result<Option<(Client, Version)>> {
    let own = config.socket();
    if let Some(found) = running_at(&own).await? {
        return Ok(Some(found));
    }
    // It may listen elsewhere: `serve --socket`.
    match lock::holder(config).and_then(|holder| holder.socket).filter(|socket| *socket != own) {
        Some(elsewhere) => running_at(&elsewhere).await,
        None => Ok(None),
    }
}

async fn running_at(socket: &Path) -> client::Result<Option<(Client, Version)>> {
    let failed = |error: std::io::Error| {
        unreachable(
            format!("cannot reach the server at {}: {error}", socket.display()),
            "See superserve server logs; superserve server stop ends it.",
        )
    };
    let begun = Instant::now();
    loop {
        match knock(socket).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        }
        let client = Client::unix(socket)?;
        match tokio::time::timeout(ANSWER, client.version()).await {
            Ok(Ok(version)) => return Ok(Some((client, version))),
            // A server that ends at this moment still takes connections, and then refuses them.
            Ok(Err(client::Error::Unreachable { .. })) if begun.elapsed() < ANSWER => {
                tokio::time::sleep(POLL).await;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(failed(std::io::Error::new(ErrorKind::TimedOut, "it doesn't answer"))),
        }
    }
}

/// Whether somebody listens there. A socket that a killed server left behind refuses.
async fn knock(socket: &Path) -> std::io::Result<()> {
    let (address, _folder) = socket_address(socket)?;
    tokio::net::UnixStream::connect(address).await.map(drop)
}

/// Stops the local server and waits until it is gone; answers what it was, or `None` if none ran.
pub async fn stop(config: &Config) -> client::Result<Option<ServerInfo>> {
    let holder = lock::holder(config).map(|holder| holder.pid);
    let info = match running(config).await {
        // One that listens elsewhere (`serve --socket`), doesn't listen yet or is just ending.
        Ok(None) if holder.is_some() => terminated(holder),
        Ok(None) => return Ok(None),
        Ok(Some((client, _))) => match client.stop_server(StopServer { if_idle: false }).await {
            Ok(info) => Some(info),
            Err(_) => terminated(holder),
        },
        Err(_) => terminated(holder),
    };
    let pid = info.as_ref().map(|info| info.pid).or(holder);
    if wait_until_gone(config, pid).await {
        return Ok(info);
    }
    // It hangs. Killing it loses nothing: the next server takes up what it had committed.
    process::signal(pid, Signal::KILL);
    if wait_until_gone(config, pid).await {
        return Ok(info);
    }
    Err(unreachable(
        format!("the server did not stop within {} s", STOP.as_secs() * 2),
        "See superserve server logs.",
    ))
}

/// A server that doesn't answer is asked by a signal.
fn terminated(pid: Option<u32>) -> Option<ServerInfo> {
    process::signal(pid, Signal::TERM);
    None
}

/// Whether the server with this pid, or whichever it is, goes in time. The next one may hold the lock before we see it
/// free: a command that came meanwhile has started it.
async fn wait_until_gone(config: &Config, pid: Option<u32>) -> bool {
    let begun = Instant::now();
    // One that has not signed yet has no pid.
    let is_it = |holder: u32| holder == 0 || pid.is_none_or(|pid| pid == 0 || pid == holder);
    while lock::holder(config).is_some_and(|holder| is_it(holder.pid)) {
        if begun.elapsed() > STOP {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// The running server's client if it is of our build. An idle one of another build is stopped; a busy one is named.
async fn usable(config: &Config) -> client::Result<Option<Client>> {
    let Some((client, theirs)) = running(config).await? else { return Ok(None) };
    if theirs == version() {
        return Ok(Some(client));
    }
    match client.stop_server(StopServer { if_idle: true }).await {
        Ok(info) => {
            wait_until_gone(config, Some(info.pid)).await;
            Ok(None)
        }
        Err(_) => Err(client::Error::api(
            ErrorCode::Conflict,
            format!(
                "A server of another version runs on {}: {} (build {}), and it is busy",
                config.home.display(),
                theirs.version,
                theirs.build
            ),
            "Wait until its runs are over, or stop it with superserve server stop.".to_owned(),
        )),
    }
}

async fn same_sandbox(client: &Client, choice: SandboxChoice) -> client::Result<()> {
    let info = client.server().await?;
    let fits = match choice {
        SandboxChoice::Auto => info.isolation != Some(crate::wire::Isolation::None),
        SandboxChoice::Native | SandboxChoice::Bwrap | SandboxChoice::Landlock | SandboxChoice::None => {
            info.sandbox.as_deref() == Some(choice.as_str())
        }
    };
    if fits {
        return Ok(());
    }
    Err(client::Error::api(
        ErrorCode::Conflict,
        format!(
            "--sandbox {} counts only for a server that this command starts, and one runs already",
            choice.as_str()
        ),
        format!(
            "Stop it first: superserve server stop; then superserve server start --sandbox {}.",
            choice.as_str()
        ),
    ))
}

/// Re-executes this binary as the server and waits for its report; answers with its warning.
async fn start(config: &Config, sandbox: Option<SandboxChoice>) -> client::Result<Option<String>> {
    let failed = |error: std::io::Error| {
        unreachable(format!("cannot start the server: {error}"), "See its folder's permissions.")
    };
    let log = process::open_log(&config.log()).map_err(failed)?;
    let mut command = process::this_binary(SERVER);
    if let Some(choice) = sandbox {
        command.arg(choice.as_str());
    }
    let mut child = command
        .current_dir(&config.home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    match child.stdout.take() {
        Some(stdout) => ready(stdout, &format!("its log is {}", config.log().display())).await,
        None => Ok(None),
    }
}

/// Waits for a starting server's report on its stdout. `log` says where its log is.
async fn ready(mut stdout: ChildStdout, log: &str) -> client::Result<Option<String>> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let text = match tokio::time::timeout(START, reading).await {
        Ok(Ok(text)) => text.map_err(|error| {
            unreachable(format!("cannot start the server: {error}"), "See its folder's permissions.")
        })?,
        _ => {
            return Err(unreachable(
                format!("the server did not start within {} s", START.as_secs()),
                "See superserve server logs.",
            ));
        }
    };
    match serde_json::from_str(&text) {
        Ok(Report::Ready { warning }) => Ok(warning),
        Ok(Report::Failed { message, hint }) => Err(client::Error::Unreachable { message, hint }),
        Err(_) => Err(unreachable(
            format!("the server ended before it listened; {log}"),
            "See superserve server logs.",
        )),
    }
}

/// The home and the socket's folder, which nobody else may enter.
fn make_folders(config: &Config) -> client::Result<()> {
    for folder in [config.home.clone(), parent(&config.socket())] {
        private_folder(&folder).map_err(|error| {
            unreachable(
                format!("cannot use the folder {}: {error}", folder.display()),
                "Set SUPERSERVE_HOME to a folder that you may write.",
            )
        })?;
    }
    Ok(())
}

/// Makes a folder, with those above it, that only its owner may enter; one that is there already is closed to others.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn unreachable(message: String, hint: &str) -> client::Error {
    client::Error::Unreachable { message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_server_is_gone_when_another_one_has_its_lock() {
        let home = tempfile::tempdir().expect("a home");
        let config = Config {
            log_format: crate::config::LogFormat::default(),
            login_folder: None,
            api_url: None,
            api_key: None,
            cors: Vec::new(),
            public_url: None,
            rate_limit: None,
            secret_key: None,
            dependencies_timeout: Duration::from_secs(600),
            install_env: Vec::new(),
            home: home.path().to_owned(),
            sandbox: SandboxChoice::Auto,
            only_full: false,
            keep_events: None,
            keep_ended: None,
            scripts: home.path().join("scripts"),
            idle_exit: None,
            uid_base: 1,
            expire_after: None,
            turn_quiet: START,
            startup_timeout: START,
            turn_timeout: START,
            max_warm: 64,
            search_path: String::new(),
            clock: Clock::system(),
            fault: None,
        };
        let mut lock = lock::Lock::take(&home.path().join("server.lock")).expect("a file").expect("a lock");
        lock.sign(2, Path::new("/s")).expect("a pid");
        assert!(wait_until_gone(&config, Some(1)).await);
        let ours = tokio::time::timeout(Duration::from_millis(50), wait_until_gone(&config, Some(2))).await;
        assert!(ours.is_err(), "it is there");
        drop(lock);
        assert!(wait_until_gone(&config, Some(2)).await);
    }
}
