//! A server that listens, a token for it, and what it holds of the machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use superserve::client::Client;
use superserve::wire::sse::Decoder;
use superserve::wire::{NumberedEvent, RunEvent, Secret};
use tempfile::TempDir;

use crate::program::{PROGRAM, deploy};

/// An agent that is told `COUNT PAUSE WIDTH` and prints so many lines, each with its number and the time in nanoseconds,
/// so many seconds apart, filled up to so many characters.
const COUNTER: &str = "import sys, time
for line in sys.stdin:
    count, pause, width = line.split()
    for n in range(1, int(count) + 1):
        print(('%d %d' % (n, time.time_ns())).ljust(int(width), '.'), flush=True)
        if float(pause):
            time.sleep(float(pause))
";

pub struct Served {
    serve: Child,
    pub home: PathBuf,
    /// Removed with the server.
    folder: Option<TempDir>,
    pub url: String,
    pub token: String,
    /// Asks over TCP with the token.
    pub client: Client,
    pub http: reqwest::Client,
    pub driver: String,
}

impl Served {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a home");
        let home = folder.path().join("home");
        let mut served = Self::of(&home).await;
        served.folder = Some(folder);
        served
    }

    /// A server of this home, with the agent `counter`.
    pub async fn of(home: &Path) -> Self {
        fs::create_dir_all(home).expect("a home");
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("SUPERSERVE_HOME", home);
        command.envs([("SUPERSERVE_SESSION_MAX_WARM", "100000"), ("SUPERSERVE_SERVER_RATE_LIMIT", "never")]);
        let log = File::create(home.join("serve.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let serve = command.spawn().expect("a server");
        let local = Client::unix(&home.join("run/server.sock")).expect("a client");
        let mut tries = 0;
        let info = loop {
            match local.server().await {
                Ok(info) if info.address.is_some() => break info,
                other => {
                    tries += 1;
                    assert!(tries < 600, "the server does not listen: {other:?}, see {}", home.display());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        let mut tokens = Command::new(PROGRAM);
        tokens.args(["tokens", "create", "load", "--scope", "admin"]).env("SUPERSERVE_HOME", home);
        let made = tokens.stderr(Stdio::null()).output().expect("a token");
        let token = String::from_utf8(made.stdout).expect("a token").trim_end().to_owned();
        let url = info.address.expect("an address");
        let client = Client::remote(&url, Some(&Secret::new(token.clone()))).expect("a client");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        deploy(&client, home, "counter", "agent.py", COUNTER).await;
        let driver = info.sandbox.unwrap_or_default();
        Self { serve, home: home.to_owned(), folder: None, url, token, client, http, driver }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}/v1{path}", self.url)).bearer_auth(&self.token)
    }

    pub fn post(&self, path: &str, body: &serde_json::Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1{path}", self.url)).bearer_auth(&self.token).json(body)
    }

    /// What the server's process holds, in MB.
    pub fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.serve.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    /// How many files the server has open.
    pub fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.serve.id())).map_or(0, Iterator::count)
    }

    /// The size of the database and its log, in MB.
    pub fn database(&self) -> f64 {
        let size = |name: &str| fs::metadata(self.home.join(name)).map_or(0, |file| file.len());
        (size("superserve.db") + size("superserve.db-wal")) as f64 / 1e6
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.serve.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.serve.wait();
    }
}

/// What a run's events were, checked as they come.
#[derive(Debug, Default)]
pub struct Checked {
    decoder: Decoder,
    /// How many events have come.
    pub events: u64,
    /// How many whole lines have come.
    pub lines: u64,
    /// Of how many it is known how late they were.
    timed: u64,
    text: String,
    /// What was lost, doubled or out of order, in words.
    pub wrong: Vec<String>,
    /// How long after it was printed each line was here, in ms.
    pub late: Vec<f64>,
    pub ended: bool,
}

impl Checked {
    /// Of a run of which so many events have come before.
    pub fn after(events: u64) -> Self {
        Self { events, ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        for event in self.decoder.feed(bytes) {
            self.take(event);
        }
    }

    /// What came last of a connection that broke counts for nothing.
    pub fn reconnected(&mut self) {
        self.decoder = Decoder::default();
    }

    fn take(&mut self, event: NumberedEvent) {
        if self.ended {
            self.wrong.push(format!("event {} came after the last one", event.number));
        }
        self.events += 1;
        if event.number != self.events {
            self.wrong.push(format!("event {} came in the place of {}", event.number, self.events));
            self.events = event.number;
        }
        self.ended = event.event.is_last();
        match event.event {
            RunEvent::Delta { content } => {
                let begin = self.text.rfind('\n').map_or(0, |end| end + 1);
                self.text.replace_range(..begin, "");
                self.text.push_str(&content);
                while let Some((line, rest)) = self.text.split_once('\n') {
                    let (line, rest) = (line.to_owned(), rest.to_owned());
                    self.line(&line);
                    self.text = rest;
                }
                // A reply does not end with its last line's end: that comes with the next line.
                let begun = self.text.clone();
                self.time(&begun);
            }
            RunEvent::Completed { .. } => {
                let line = std::mem::take(&mut self.text);
                if !line.is_empty() {
                    self.line(&line);
                }
            }
            RunEvent::Started { .. } => {}
            other => self.wrong.push(format!("{other:?}")),
        }
    }

    fn line(&mut self, line: &str) {
        self.lines += 1;
        let number = line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        if number != Some(self.lines) {
            self.wrong.push(format!("line {} is {line:?}", self.lines));
            self.lines = number.unwrap_or(self.lines);
        }
        self.time(line);
    }

    /// Notes how late a line is whose number and time are here, once.
    fn time(&mut self, line: &str) {
        /// The digits of nanoseconds since 1970, from 2001 to 2286.
        const DIGITS: usize = 19;
        let Some((number, printed)) = line.trim_end_matches('.').split_once(' ') else { return };
        let (Ok(number), DIGITS, Ok(printed)) = (number.parse(), printed.len(), printed.parse::<i64>())
        else {
            return;
        };
        if number > self.timed {
            self.timed = number;
            self.late.push((now() - printed) as f64 / 1e6);
        }
    }

    /// Says it if so many lines and an end did not come.
    pub fn finish(&mut self, lines: u64) {
        if self.lines != lines {
            self.wrong.push(format!("{} lines of {lines}", self.lines));
        }
        if !self.ended {
            self.wrong.push("no end".to_owned());
        }
    }
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
