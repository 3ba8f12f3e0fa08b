//! `Test`: a home of its own with nothing of the machine in it, and commands whose output is checked to the letter.
//!
//! ```text
//! let test = Test::new();
//! test.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
//! ```
//!
//! The environment is cleared but for PATH, the clock stands still until the test moves it, IDs follow from a seed. At
//! the end the home's server is stopped, and the test fails if any process of it is left.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Command, Running};
use crate::process::{self, PATIENCE, Process, wait_until};

/// The moment at which every test begins: 2026-03-09T10:15:00Z, in milliseconds.
pub const BEGIN: i64 = 1_773_051_300_000;
/// What a list without sessions says on stderr.
pub const NO_SESSIONS: &str = "No sessions found. Start one with: superserve run <agent> \"your prompt\"\n";

/// One hermetic home.
pub struct Test {
    folder: TempDir,
    environment: Vec<(String, String)>,
    /// The commands so far: each gets a seed of its own, so that a second server doesn't make the first one's IDs again.
    count: AtomicU64,
    /// The uid that commands run as, if not the test's own.
    user: Option<u32>,
    binary: PathBuf,
    /// How long the processes of a stopped server may take to go.
    patience: Duration,
}

impl Test {
    /// A home whose server isolates agents as well as this machine can.
    pub fn new() -> Self {
        let test = Self::bare();
        if has_namespaces() { test } else { test.env("SUPERSERVE_SANDBOX", "none") }
    }

    /// A home whose server doesn't isolate agents.
    pub fn unsandboxed() -> Self {
        Self::bare().env("SUPERSERVE_SANDBOX", "none")
    }

    /// A home with every setting at its default.
    fn bare() -> Self {
        let folder = tempfile::Builder::new().prefix("superserve-").tempdir().expect("a folder");
        for name in ["home", "user", "work"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        // Agents run as other users: what is forbidden them must be so by the sandbox, not by this folder's mode.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let test = Self {
            folder,
            environment: Vec::new(),
            count: AtomicU64::new(0),
            user: None,
            binary: env!("CARGO_BIN_EXE_superserve").into(),
            patience: PATIENCE,
        };
        test.set_clock(BEGIN);
        test
    }

    /// The same home, its commands run as the user `uid`, who owns it. Only root can do this.
    pub fn owned_by(mut self, uid: u32) -> Self {
        let binary = self.folder.path().join("superserve");
        fs::copy(&self.binary, &binary).expect("a copy of the program, where everybody may run it");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("a mode");
        self.binary = binary;
        for name in ["home", "user", "work", "clock"] {
            let path = self.folder.path().join(name);
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("another owner");
        }
        self.user = Some(uid);
        self
    }

    /// The same home, with a variable in every command's environment.
    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder of state: SUPERSERVE_HOME.
    pub fn home(&self) -> PathBuf {
        match self.environment.iter().rev().find(|(name, _)| name == "SUPERSERVE_HOME") {
            Some((_, home)) => home.into(),
            None => self.folder.path().join("home"),
        }
    }

    /// The folder in which commands run.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Writes a file below the folder in which commands run.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Writes an agent of one shell script below the working folder; its folder.
    pub fn agent(&self, name: &str, script: &str) -> PathBuf {
        self.write(&format!("{name}/superserve.yaml"), &format!("name: {name}\ncommand: sh agent.sh\n"));
        self.write(&format!("{name}/agent.sh"), script);
        self.work().join(name)
    }

    /// Writes a command of the user's own: `fleet/tidy` is `superserve fleet tidy`.
    pub fn command(&self, name: &str, script: &str) -> PathBuf {
        let path = self.home().join("scripts").join(format!("{name}.rhai"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, script).expect("a script");
        path
    }

    /// Moves the clock to `millis` since the epoch.
    pub fn set_clock(&self, millis: i64) {
        // Renamed into place: nobody reads half a number.
        let (new, clock) = (self.folder.path().join("clock.new"), self.folder.path().join("clock"));
        fs::write(&new, millis.to_string()).expect("a clock");
        fs::rename(new, clock).expect("a clock");
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let clock = fs::read_to_string(self.folder.path().join("clock")).expect("a clock");
        let now: i64 = clock.parse().expect("a number");
        self.set_clock(now + i64::try_from(time.as_millis()).expect("a number"));
    }

    /// A command of the program.
    pub fn args<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command<'_> {
        Command::new(self, self.binary.clone(), args)
    }

    /// A line of shell, in which `superserve` is the program.
    pub fn shell(&self, line: &str) -> Command<'_> {
        let folder = self.folder.path().join("bin");
        if !folder.exists() {
            fs::create_dir(&folder).expect("a folder");
            std::os::unix::fs::symlink(&self.binary, folder.join("superserve")).expect("a link");
        }
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        Command::new(self, "/bin/sh".into(), ["-c", line]).env("PATH", &path)
    }

    /// What a command prints as JSON; it must succeed.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let output = self.args(args).any_stdout().any_stderr().run();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
    }

    /// Deploys the agent in this folder, or one of those in `tests/agents` by its name; its ID.
    #[track_caller]
    pub fn deploy(&self, folder: impl AsRef<Path>) -> String {
        let agent = self.json([
            OsStr::new("deploy"),
            OsStr::new("--dir"),
            agents().join(folder).as_os_str(),
            OsStr::new("-y"),
            OsStr::new("--json"),
        ]);
        agent["id"].as_str().expect("an ID").to_owned()
    }

    /// Begins a session of a deployed agent with one message, and waits for the reply; the session's whole ID.
    #[track_caller]
    pub fn begin(&self, agent: &str, prompt: &str) -> String {
        let output = self
            .args(["run", agent, prompt, "--single", "--json"])
            .any_stdout()
            .any_stderr()
            .any_status()
            .run();
        started(&output.stdout).unwrap_or_else(|| panic!("no run.started: {output:?}"))
    }

    /// Begins a session of an agent that says `begun` when it is told to `wait`, and leaves it waiting; the command and
    /// the session's whole ID.
    #[track_caller]
    pub fn wait_in(&self, agent: &str) -> (Running, String) {
        let run = self.args(["run", agent, "wait", "--single", "--json"]).start();
        wait_until("the reply to begin", || run.stdout().contains("begun"));
        let id = started(&run.stdout()).expect("run.started");
        (run, id)
    }

    /// Makes a session in which nothing has run yet; its whole ID.
    #[track_caller]
    pub fn create(&self, agent: &str) -> String {
        let output = self.args(["eval", &format!("sessions::create(\"{agent}\").id")]).any_stdout().run();
        output.stdout.trim_end().to_owned()
    }

    /// Sends one message; the reply as it stands on stdout, which must be the only output.
    #[track_caller]
    pub fn send(&self, id: &str, prompt: &str) -> String {
        self.args(["sessions", "send", id, prompt]).any_stdout().run().stdout
    }

    /// A session as `sessions get --json` shows it.
    #[track_caller]
    pub fn session(&self, id: &str) -> Value {
        self.json(["sessions", "get", id, "--json"])
    }

    /// A session's status, as `sessions get --json` shows it.
    #[track_caller]
    pub fn status_of(&self, id: &str) -> String {
        self.session(id)["status"].as_str().expect("a status").to_owned()
    }

    /// What the server was asked, as its log has it: `GET /v1/sessions?limit=1000`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home().join("server.log")).unwrap_or_default();
        let asked = log.lines().filter_map(|line| line.split_once("request: ").map(|(_, rest)| rest));
        asked
            .filter_map(|line| Some(line.split_once(' ')?.0.to_owned() + " " + line.split(' ').nth(1)?))
            .collect()
    }

    /// The running server's process.
    #[track_caller]
    pub fn server(&self) -> Process {
        let info = self.json(["server", "status", "--json"]);
        let pid = info["pid"].as_i64().unwrap_or_else(|| panic!("no server runs: {info}"));
        Process::find(i32::try_from(pid).expect("a pid")).expect("the server's process")
    }

    /// Kills the server as a crash would, and waits until it and all its agents are gone.
    pub fn kill_server(&self) {
        let server = self.server();
        server.kill();
        wait_until("the server's processes to be gone", || process::of_home(&self.home()).is_empty());
    }

    /// Stops the server.
    #[track_caller]
    pub fn stop_server(&self) {
        self.args(["server", "stop"]).any_stderr().run();
    }

    /// The command as the operating system sees it, in a hermetic environment.
    pub fn prepare(&self, program: &Path, args: &[OsString]) -> std::process::Command {
        let mut command = match self.user {
            None => std::process::Command::new(program),
            Some(uid) => {
                let mut command = std::process::Command::new("setpriv");
                command.args([
                    "--reuid",
                    &uid.to_string(),
                    "--regid",
                    &uid.to_string(),
                    "--clear-groups",
                    "--",
                ]);
                command.arg(program);
                command
            }
        };
        let seed = 1_000_000 * (1 + self.count.fetch_add(1, Ordering::SeqCst));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path().join("user"))
            .env("SUPERSERVE_HOME", self.folder.path().join("home"))
            .env("SUPERSERVE_TEST_CLOCK", self.folder.path().join("clock"))
            .env("SUPERSERVE_TEST_SEED", seed.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.work());
        command
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let before = process::of_home(&self.home());
        let stopped = self
            .prepare(&self.binary.clone(), &["server".into(), "stop".into()])
            .stdin(Stdio::null())
            .output()
            .map(|output| output.status.success());
        let left = || -> Vec<Process> {
            let now = process::of_home(&self.home());
            before.iter().filter(|process| process.is_alive()).chain(&now).cloned().collect()
        };
        let begun = Instant::now();
        while !left().is_empty() && begun.elapsed() < self.patience && !std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = left();
        let told: Vec<String> =
            left.iter().map(|one| format!("{} {}", one.pid, one.command_line())).collect();
        left.iter().for_each(Process::kill);
        if !std::thread::panicking() {
            assert!(stopped.is_ok_and(|stopped| stopped), "the server could not be stopped");
            assert!(told.is_empty(), "processes were left behind: {told:?}");
        } else if let Ok(log) = fs::read_to_string(self.home().join("server.log")) {
            eprintln!("the server's log:\n{log}");
        }
    }
}

/// The folder of the tests' own agents.
pub fn agents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents")
}

/// The first 12 digits of a session's ID, as lists show them.
pub fn short(id: &str) -> &str {
    &id["ses_".len()..][..12]
}

/// An error as stderr shows it: the sentence, and the hint below.
pub fn told(sentence: &str, hint: &str) -> String {
    format!("✗ {sentence}\n  {hint}\n")
}

/// What `sessions end` says of one session that it has ended; `given` as the user gave it.
pub fn ended(given: &str) -> String {
    format!("✓ Session {given} ended (status: ENDED)\n")
}

/// The session that a run with `--json` says it has started.
pub fn started(lines: &str) -> Option<String> {
    lines.lines().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["type"] == "run.started").then(|| event["data"]["session_id"].as_str().map(str::to_owned))?
    })
}

/// Whether this machine lets the sandbox make its namespaces.
pub fn has_namespaces() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let test = Test::bare();
        test.args(["server", "start"]).any_stderr().run();
        let info = test.json(["server", "status", "--json"]);
        let has = info["isolation"] == "full";
        if !has {
            crate::skipped::tell(
                "everything in the sandbox",
                &format!("this machine refuses it: {}", info["sandbox_error"]),
            );
        }
        has
    })
}

#[test]
fn the_builder_sees_what_is_wrong() {
    fn fails(check: impl FnOnce(&Test) + std::panic::UnwindSafe) {
        let hook = std::panic::catch_unwind(|| check(&Test::bare()));
        assert!(hook.is_err(), "a wrong expectation passed");
    }
    fails(|test| drop(test.shell("echo out").run()));
    fails(|test| drop(test.shell("echo err >&2").run()));
    fails(|test| drop(test.shell("exit 3").run()));
    fails(|test| drop(test.shell("echo out").stdout("other\n").run()));
    fails(|test| drop(test.shell("echo out").stdout_part("other").run()));
    Test::bare().shell("cat; echo err >&2; exit 3").stdin("in").stdout("in").stderr("err\n").status(3).run();
}

#[test]
fn a_process_left_behind_is_found_and_killed() {
    let left = std::panic::catch_unwind(|| {
        let mut test = Test::bare();
        test.patience = Duration::from_millis(50);
        test.shell("sleep 1000 >/dev/null 2>&1 & echo $!").any_stdout().run();
    });
    let message =
        *left.expect_err("a test that leaves a process behind").downcast::<String>().expect("a message");
    assert!(message.contains("sleep 1000"), "{message}");
}
