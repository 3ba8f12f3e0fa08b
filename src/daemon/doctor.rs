//! What this machine gives superserve, and what its owner can do about the rest. Starts no server.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::{private_folder, process, running, version};
use crate::config::{Config, SandboxChoice};
use crate::platform::on_path;
use crate::sandbox::{self, Spawner, Tried};
use crate::wire::Isolation;

/// Below so much free room on the home's disk it is told, in bytes.
const LITTLE_ROOM: u64 = 1 << 30;
/// So many sessions with an agent of seven descriptors each should fit under the limit of open files.
const OPEN_FILES: u64 = 4096;
/// Programs that agents are written for, and those that install what they need.
const PROGRAMS: [&str; 5] = ["python3", "node", "uv", "pip", "npm"];

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, but less well than it could.
    Warn,
    /// Agents can't be run as the settings ask for it.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl Into<String>, hint: Option<String>) -> Self {
        Self { name, state, detail: detail.into(), hint }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail, None)
    }
}

/// Looks at everything; the order is that in which it matters.
pub async fn doctor(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    match home(config) {
        Ok(check) => {
            let spawner = Spawner::new(Arc::new(|| process::start_spawner(File::open("/dev/null")?)));
            let tried = sandbox::survey(&spawner, &config.home, config.uid_base).await;
            checks.push(isolation(config, &tried));
            // Those beside the best one matter where that is refused.
            let best_works = tried.first().is_some_and(|tried| tried.result.is_ok());
            checks.extend(tried.iter().take(if best_works { 1 } else { tried.len() }).map(driver));
            checks.push(limits(&tried));
            checks.push(kernel());
            checks.push(check);
        }
        Err(check) => checks.push(check),
    }
    checks.push(open_files());
    checks.push(server(config).await);
    checks.push(programs(&config.search_path));
    checks
}

/// What agents get under the present settings.
fn isolation(config: &Config, tried: &[Tried]) -> Check {
    let works = |name: &str| tried.iter().find(|tried| tried.name == name && tried.result.is_ok());
    let best = match config.sandbox {
        SandboxChoice::None => {
            let hint = "Take sandbox = \"none\" out of the settings to isolate agents.".to_owned();
            return Check::new("isolation", State::Warn, "none, as the settings ask for", Some(hint));
        }
        SandboxChoice::Auto => tried
            .iter()
            .find(|tried| tried.result.is_ok() && (tried.isolation == Isolation::Full || !config.only_full)),
        SandboxChoice::Native | SandboxChoice::Bwrap | SandboxChoice::Landlock => {
            works(config.sandbox.as_str())
        }
    };
    let Some(best) = best else {
        let hint = "Do what stands at a driver below, or go on without isolation: --sandbox none.".to_owned();
        return Check::new("isolation", State::Fail, "refused by this machine", Some(hint));
    };
    let detail = format!("{} ({})", best.isolation.as_str(), best.name);
    match best.isolation {
        Isolation::Full => Check::ok("isolation", detail),
        Isolation::Reduced | Isolation::None => {
            let hint = "Agents see names of files and the list of processes, and have the host's user; rules for the \
                        network can't be held."
                .to_owned();
            Check::new("isolation", State::Warn, detail, Some(hint))
        }
    }
}

fn driver(tried: &Tried) -> Check {
    match &tried.result {
        Ok(()) => Check::ok(tried.name, "works"),
        Err(refusal) => {
            Check::new(tried.name, State::Warn, refusal.to_string(), Some(refusal.remedy.clone()))
        }
    }
}

/// How limits are held here.
fn limits(tried: &[Tried]) -> Check {
    let grouped = sandbox::grouped();
    let full = tried.iter().any(|tried| tried.result.is_ok() && tried.isolation == Isolation::Full);
    let memory = match grouped.memory {
        true => "memory by control groups",
        false => "memory of each process by itself",
    };
    let processes = match (grouped.processes, full) {
        (true, _) => "processes by control groups",
        (false, true) => "processes by their user namespace",
        (false, false) => "no limit on processes",
    };
    let detail = format!("{memory}, {processes}, the workspace by looking at it");
    match grouped.memory && grouped.processes {
        true => Check::ok("limits", detail),
        false => {
            let hint =
                "Run the server in a control group that it may divide to bound all processes of a session \
                        together: systemd-run --user -p Delegate=yes superserve serve."
                    .to_owned();
            let state = if full { State::Ok } else { State::Warn };
            Check::new("limits", state, detail, Some(hint))
        }
    }
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let detail =
        format!("{} {release} {}", name.sysname().to_string_lossy(), name.machine().to_string_lossy());
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= (5, 12) {
        true => Check::ok("kernel", detail),
        false => {
            Check::new("kernel", State::Warn, detail, Some("Namespaces need Linux 5.12 or newer.".to_owned()))
        }
    }
}

/// The home, which is made if it isn't there, and the room on its disk.
fn home(config: &Config) -> Result<Check, Check> {
    let path = config.home.display();
    let unusable = |error: io::Error| {
        let hint = "Set SUPERSERVE_HOME to a folder that you may write.".to_owned();
        Check::new("home", State::Fail, format!("cannot use {path}: {error}"), Some(hint))
    };
    private_folder(&config.home).map_err(unusable)?;
    let disk = rustix::fs::statvfs(&config.home).map_err(|error| unusable(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let detail = format!("{path}, {} MiB free", free >> 20);
    Ok(match free >= LITTLE_ROOM {
        true => Check::ok("home", detail),
        false => {
            Check::new("home", State::Warn, detail, Some("Workspaces and the database need room.".to_owned()))
        }
    })
}

fn open_files() -> Check {
    // The server raises its own limit to the hard one.
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < OPEN_FILES => {
            let hint = "Raise it to serve many sessions at once: ulimit -Hn.".to_owned();
            Check::new("open files", State::Warn, format!("at most {most}"), Some(hint))
        }
        Some(most) => Check::ok("open files", format!("at most {most}")),
        None => Check::ok("open files", "no limit"),
    }
}

async fn server(config: &Config) -> Check {
    let answered = match running(config).await {
        Ok(None) => return Check::ok("server", "not running; a command that needs it starts it"),
        Ok(Some((client, theirs))) => client.server().await.map(|info| (info, theirs)),
        Err(error) => Err(error),
    };
    match answered {
        Ok((info, theirs)) if theirs != version() => {
            let detail =
                format!("running (pid {}), version {} (build {})", info.pid, info.version, info.build);
            let hint = "It is of another version: superserve server stop ends it.".to_owned();
            Check::new("server", State::Warn, detail, Some(hint))
        }
        Ok((info, _)) => {
            let isolation = info.isolation.map_or("refused", Isolation::as_str);
            Check::ok("server", format!("running (pid {}), isolation {isolation}", info.pid))
        }
        Err(error) => {
            let hint = "See superserve server logs.".to_owned();
            Check::new("server", State::Warn, error.to_string(), Some(hint))
        }
    }
}

/// Which programs for agents are there. None of them is needed.
fn programs(search_path: &str) -> Check {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        PROGRAMS.iter().partition(|name| on_path(name, search_path).is_some());
    let mut detail = match there.is_empty() {
        true => "none".to_owned(),
        false => there.join(", "),
    };
    if !missing.is_empty() {
        detail.push_str(&format!("; not found: {}", missing.join(", ")));
    }
    Check::ok("programs", detail)
}
