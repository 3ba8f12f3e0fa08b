//! A command, what it should do, and what it did.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::PATIENCE;
use crate::test::Test;

/// What a stream should hold.
enum Expected {
    Anything,
    Exactly(String),
    /// Every one of these.
    Parts(Vec<String>),
}

impl Expected {
    #[track_caller]
    fn check(&self, stream: &str, actual: &str, whole: &dyn std::fmt::Debug) {
        match self {
            Self::Anything => {}
            Self::Exactly(expected) => {
                assert!(
                    actual == expected,
                    "{stream} is not as expected\nexpected: {expected:?}\n  actual: {actual:?}\n{whole:#?}"
                );
            }
            Self::Parts(parts) => {
                for part in parts {
                    assert!(actual.contains(part), "{stream} lacks {part:?}: {actual}\n{whole:#?}");
                }
            }
        }
    }

    fn with_part(&mut self, part: &str) {
        match self {
            Self::Parts(parts) => parts.push(part.to_owned()),
            _ => *self = Self::Parts(vec![part.to_owned()]),
        }
    }
}

/// A command, and what it should do. Without a word it should print nothing and exit with 0.
#[must_use]
pub struct Command<'t> {
    test: &'t Test,
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    stdout: Expected,
    stderr: Expected,
    status: Option<i32>,
}

/// What a command did. `Completed in …` and the time of a tool are made equal on stderr: no test asserts on time.
#[derive(Clone, Debug)]
pub struct Output {
    #[allow(dead_code, reason = "shown by Debug")]
    pub command: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The error that `--json` prints on stderr.
    pub fn error(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        value["error"].clone()
    }
}

impl<'t> Command<'t> {
    /// `program` with these arguments, in the home of `test`.
    pub fn new<S: AsRef<OsStr>>(test: &'t Test, program: PathBuf, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            test,
            program,
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            stdin: None,
            stdout: Expected::Exactly(String::new()),
            stderr: Expected::Exactly(String::new()),
            status: Some(0),
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(text.as_ref().to_vec());
        self
    }

    pub fn stdout(mut self, text: impl Into<String>) -> Self {
        self.stdout = Expected::Exactly(text.into());
        self
    }

    pub fn stdout_part(mut self, part: &str) -> Self {
        self.stdout.with_part(part);
        self
    }

    pub fn any_stdout(mut self) -> Self {
        self.stdout = Expected::Anything;
        self
    }

    pub fn stderr(mut self, text: impl Into<String>) -> Self {
        self.stderr = Expected::Exactly(text.into());
        self
    }

    pub fn stderr_part(mut self, part: &str) -> Self {
        self.stderr.with_part(part);
        self
    }

    pub fn any_stderr(mut self) -> Self {
        self.stderr = Expected::Anything;
        self
    }

    pub fn status(mut self, code: i32) -> Self {
        self.status = Some(code);
        self
    }

    pub fn any_status(mut self) -> Self {
        self.status = None;
        self
    }

    /// Runs it to its end and checks what it did.
    #[track_caller]
    pub fn run(self) -> Output {
        let (stdout, stderr, status) = (&self.stdout, &self.stderr, self.status);
        let output = self.start().finish();
        if let Some(status) = status {
            assert!(output.status == status, "exit code {}, not {status}\n{output:#?}", output.status);
        }
        stdout.check("stdout", &output.stdout, &output);
        stderr.check("stderr", &output.stderr, &output);
        output
    }

    /// Starts it, and leaves it running.
    pub fn start(&self) -> Running {
        let mut command = self.test.prepare(&self.program, &self.args);
        let mut child = command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let (Some(bytes), Some(mut stdin)) = (self.stdin.clone(), child.stdin.take()) {
            // A command that doesn't read it closes it early, which is its right.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let words: Vec<String> = self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Running {
            stdout: Tail::of(child.stdout.take().expect("stdout")),
            stderr: Tail::of(child.stderr.take().expect("stderr")),
            child,
            command: words.join(" "),
        }
    }

    /// The same command, not started, for a terminal of its own.
    pub fn for_terminal(self, term: &str) -> std::process::Command {
        let mut command = self.test.prepare(&self.program, &self.args);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).env("TERM", term);
        command
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    command: String,
    stdout: Tail,
    stderr: Tail,
}

impl Running {
    /// What it has printed on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has printed on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Sends it SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a running command");
    }

    /// Waits until it has ended.
    pub fn finish(mut self) -> Output {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if begun.elapsed() > 2 * PATIENCE {
                let _ = self.child.kill();
                panic!("{} doesn't end\nstdout: {}\nstderr: {}", self.command, self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        use std::os::unix::process::ExitStatusExt;
        Output {
            command: std::mem::take(&mut self.command),
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout.whole(),
            stderr: without_times(&self.stderr.whole()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream that is read as it comes.
struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = text.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                shared.lock().expect("a lock").extend_from_slice(&buffer[..count]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("a lock")).into_owned()
    }

    /// Everything, once nobody holds the stream open any more.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let begun = Instant::now();
            while !reader.is_finished() {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "the command has ended, but somebody holds its output open"
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = reader.join();
        }
        self.text()
    }
}

/// The text with `TIME` for every time that something took.
pub fn without_times(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        lines.push(match (line.split_once("Completed in "), line.rsplit_once(" (")) {
            (Some((before, _)), _) => format!("{before}Completed in TIME"),
            (None, Some((before, time))) if line.starts_with("[tool]") && time.ends_with(')') => {
                format!("{before} (TIME)")
            }
            _ => line.to_owned(),
        });
    }
    lines.join("\n")
}

#[test]
fn times_are_made_equal() {
    assert_eq!(
        without_times("\nCompleted in 1.1s\n[tool] cat a (b) (200ms)\nother (1s)\n"),
        "\nCompleted in TIME\n[tool] cat a (b) (TIME)\nother (1s)\n"
    );
}
