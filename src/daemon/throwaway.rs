//! A server for one test: in a home of its own that is gone with it, with a clock that stands still until it is moved.
//!
//! The server makes the home and removes it, and ends when its stdin does. So nothing is left behind however the
//! command that wanted it ends: a killed one closes its end of the pipe too.

use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::process::this_binary;
use super::serve::{Serve, serve};
use super::{Report, unreachable};
use crate::client::{self, Client};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::Store;
use crate::wire::Session;

/// The hidden command that is a throw-away server.
pub const THROWAWAY: &str = "__throwaway";

/// From which number its IDs follow: the same in every test.
const SEED: u64 = 1;
/// How far its sessions' uids lie from those of the home that is in use.
const UIDS: u32 = 500_000_000;
/// How long it may take to go, with all its agents, before it is killed.
const GOING: Duration = Duration::from_secs(10);
/// How much of its log is kept, in bytes.
const LOG: usize = 64 << 10;

/// The whole life of a throw-away server; its exit code. `moment` is where its clock stands at first, in milliseconds
/// since the Unix epoch; all else it is told by its environment.
pub fn throwaway_main(moment: Option<&str>) -> i32 {
    let served = Config::load().map_err(|error| error.to_string()).and_then(|config| {
        // Only a folder that it has made itself is removed at the end.
        make_home(&config.home, moment.unwrap_or_default())
            .map_err(|error| format!("cannot make {}: {error}", config.home.display()))?;
        let served = serve(&config, &Serve { background: true, throwaway: true, ..Serve::default() });
        remove_home(&config.home);
        served.map_err(|error| error.to_string())
    });
    match served {
        Ok(()) => 0,
        Err(message) => {
            // `serve` has told its own errors already; a second line is not read.
            let _ = serde_json::to_writer(std::io::stdout(), &Report::Failed { message, hint: None });
            1
        }
    }
}

fn make_home(home: &Path, moment: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(home)?;
    std::fs::write(clock_of(home), moment)
}

/// Removes the home, whatever agents have put into it.
fn remove_home(home: &Path) {
    for name in ["sessions", "agents"] {
        let _ = crate::sandbox::wipe(&home.join("trash"), &home.join(name));
    }
    let _ = std::fs::remove_dir_all(home);
}

fn clock_of(home: &Path) -> PathBuf {
    home.join("clock")
}

/// A running throw-away server. Dropping it ends the server, its agents and the home, and waits until they are gone.
#[derive(Debug)]
pub struct Throwaway {
    home: PathBuf,
    server: Child,
    /// The server lives as long as this is open.
    lifeline: Option<ChildStdin>,
    /// Closed when all processes that could write to the log are gone: the server and its spawner.
    gone: Receiver<()>,
}

impl Throwaway {
    /// Starts one. Its settings are those of `config`, but that nothing expires; its clock stands at `now`, in
    /// milliseconds since the Unix epoch.
    pub async fn start(config: &Config, now: i64) -> client::Result<Self> {
        let failed = |error: std::io::Error| {
            unreachable(
                format!("cannot start a throw-away server: {error}"),
                "See the permissions of the folder for temporary files.",
            )
        };
        // Never what a test has fixed: two of them would share a home.
        let name = format!("superserve-test-{:016x}", Clock::system().random() >> 64);
        let home = std::env::temp_dir().join(name);
        let millis = |time: Duration| format!("{}ms", time.as_millis());
        let uid_base = config.uid_base.checked_add(UIDS).filter(|uid| *uid < 4_000_000_000);
        let mut server = this_binary(THROWAWAY)
            .arg(now.to_string())
            .env_clear()
            .env("PATH", &config.search_path)
            .env("SUPERSERVE_HOME", &home)
            .env("SUPERSERVE_SANDBOX", config.sandbox.as_str())
            .env("SUPERSERVE_SERVER_IDLE_EXIT", "never")
            .env("SUPERSERVE_SERVER_UID_BASE", uid_base.unwrap_or(config.uid_base - UIDS).to_string())
            .env("SUPERSERVE_SESSION_EXPIRE_AFTER", "never")
            .env("SUPERSERVE_TEST_CLOCK", clock_of(&home))
            .env("SUPERSERVE_TEST_SEED", SEED.to_string())
            .env("SUPERSERVE_TURN_QUIET_MS", config.turn_quiet.as_millis().to_string())
            .env("SUPERSERVE_TURN_STARTUP_TIMEOUT", millis(config.startup_timeout))
            .env("SUPERSERVE_TURN_TIMEOUT", millis(config.turn_timeout))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdout, stderr) = (server.stdout.take(), server.stderr.take());
        let lifeline = server.stdin.take();
        let log = Log::default();
        let (end, gone) = channel();
        if let Some(stderr) = stderr {
            let log = log.clone();
            std::thread::spawn(move || {
                log.read(stderr);
                drop(end);
            });
        }
        let throwaway = Self { home, server, lifeline, gone };
        if let Some(stdout) = stdout {
            super::ready(stdout, "").await.map_err(|error| log.tell(error))?;
        }
        Ok(throwaway)
    }

    /// A new client of it.
    pub fn client(&self) -> client::Result<Client> {
        Client::unix(&self.home.join("run").join("server.sock"))
    }

    /// A folder that is gone with it.
    pub fn folder(&self) -> &Path {
        &self.home
    }

    /// Moves its clock to `now`, in milliseconds since the Unix epoch.
    pub fn set_clock(&self, now: i64) -> std::io::Result<()> {
        // Renamed into place: nobody reads half a number.
        let (new, clock) = (self.home.join("clock.new"), clock_of(&self.home));
        std::fs::write(&new, now.to_string())?;
        std::fs::rename(new, clock)
    }

    /// Makes sessions as they are given, of agents that are there. They have neither processes nor a transcript.
    /// Errors: an ID that is there already; an agent that is not.
    pub fn import(&self, sessions: Vec<Session>) -> impl Future<Output = client::Result<()>> + use<> {
        let database = self.home.join("superserve.db");
        async move {
            let imported = async {
                let store = Store::open(&database).await?;
                let imported = store.import_sessions(sessions).await;
                store.close().await;
                imported
            };
            match imported.await {
                Ok(_) => Ok(()),
                Err(error) => Err(client::Error::api(error.code(), error.to_string(), error.hint())),
            }
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        self.lifeline = None;
        if self.gone.recv_timeout(GOING) == Err(RecvTimeoutError::Timeout) {
            // Its spawner kills the agents when it sees that the server is gone.
            let _ = self.server.kill();
            let _ = self.gone.recv_timeout(GOING);
        }
        let _ = self.server.wait();
        if self.home.exists() {
            remove_home(&self.home);
        }
    }
}

/// The end of a server's log.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Reads until nobody can write any more.
    fn read(&self, mut pipe: impl Read) {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            text.extend_from_slice(&piece[..count]);
            let over = text.len().saturating_sub(LOG);
            text.drain(..over);
        }
    }

    /// The error with the log's last lines, since the log itself is gone with the server.
    fn tell(&self, error: client::Error) -> client::Error {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        match error {
            client::Error::Unreachable { message, hint } if !last.is_empty() => {
                let last: Vec<&str> = last.into_iter().rev().collect();
                client::Error::Unreachable { message: format!("{message}\n{}", last.join("\n")), hint }
            }
            error => error,
        }
    }
}
