//! The server dies, at every step of a long story and between any two: nothing that was committed is lost, nothing is
//! stuck, nothing is left behind.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use superserve::fault::STEPS;

use crate::process::{PATIENCE, of_home, wait_for, wait_until};
use crate::test::Test;

/// Answers in pieces; `slow` never comes to an end, after `quit` it leaves.
const AGENT: &str = r#"
trap 'exit 130' INT
while IFS= read -r line; do
    case $line in
    slow) echo begun; while :; do sleep 0.02; done ;;
    quit) echo bye; exit 0 ;;
    *) echo "one $line"; sleep 0.03; echo "two $line"; echo "$line" >> notes ;;
    esac
done
"#;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A story in which every step is taken; the server may die at any moment of it, and the next command starts another.
struct Story {
    test: Test,
    /// For which step it is told, for what goes wrong.
    fault: String,
    /// Whether the first server died before it listened.
    stillborn: bool,
}

/// What came of a message.
struct Told {
    /// The numbers and names of the events that arrived.
    events: Vec<(u64, String)>,
    text: String,
}

impl Told {
    fn is_whole(&self) -> bool {
        self.events.last().is_some_and(|(_, name)| name.starts_with("run.") && name != "run.started")
    }
}

impl Story {
    fn begin(fault: &str) -> Self {
        let test = Test::new().env("SUPERSERVE_SESSION_EXPIRE_AFTER", "90d");
        test.agent("story", AGENT);
        // What an earlier death left.
        fs::create_dir_all(test.home().join("trash/0")).unwrap();
        fs::write(test.home().join("trash/0/left"), "x").unwrap();
        let begun = test
            .shell(&format!("SUPERSERVE_TEST_FAULT={fault} superserve server start"))
            .any_stderr()
            .any_status()
            .run();
        Self { test, fault: fault.to_owned(), stillborn: begun.status != 0 }
    }

    /// The socket of a running server, which is started if none is there.
    fn connect(&self) -> UnixStream {
        let socket = self.test.home().join("run/server.sock");
        wait_for("a server", || {
            if let Ok(stream) = UnixStream::connect(&socket) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return Some(stream);
            }
            self.test.args(["server", "start"]).any_stderr().any_status().run();
            None
        })
    }

    /// One request; `None` if the server died before it had answered.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let bytes = self.exchange(method, path, body);
        let text = String::from_utf8_lossy(&bytes);
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let length: usize = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned))?
            .trim()
            .parse()
            .ok()?;
        if rest.len() < length {
            return None;
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(rest).unwrap_or(Value::Null)))
    }

    fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> Vec<u8> {
        use std::io::Write;
        let mut stream = self.connect();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let head = format!(
            "{method} /v1{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let mut bytes = Vec::new();
        // A connection that is cut keeps what came before.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    }

    /// As [`ask`](Self::ask), again if the server has died; a dying one may take one more connection. The next one lives.
    fn insist(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        (0..5)
            .find_map(|_| self.ask(method, path, body.clone()))
            .unwrap_or_else(|| panic!("{}: {method} {path}: no answer", self.fault))
    }

    fn session(&self, id: &str) -> Value {
        let (status, session) = self.insist("GET", &format!("/sessions/{id}"), None);
        assert_eq!(status, 200, "{}: {session}", self.fault);
        session
    }

    fn create(&self) -> String {
        let (status, session) = self.insist("POST", "/sessions", Some(json!({ "agent_id": "story" })));
        assert_eq!(status, 201, "{}: {session}", self.fault);
        session["id"].as_str().unwrap().to_owned()
    }

    fn events(&self, bytes: &[u8]) -> Told {
        let text = String::from_utf8_lossy(bytes);
        let mut told = Told { events: Vec::new(), text: String::new() };
        // Frames of chunks stand between events, never inside of one that has arrived whole.
        for block in text.split("\n\n") {
            let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let (Some(id), Some(event), Some(data)) = (line("id: "), line("event: "), line("data: ")) else {
                continue;
            };
            let Ok(data) = serde_json::from_str::<Value>(data) else { continue };
            let number = id.rsplit(':').next().and_then(|number| number.parse().ok()).unwrap();
            told.text.push_str(data["content"].as_str().unwrap_or_default());
            told.events.push((number, event.to_owned()));
        }
        told
    }

    /// Sends a message and checks what is there of its run afterwards, whatever happened meanwhile.
    fn say(&self, id: &str, prompt: &str) -> Told {
        let told = self.events(&self.exchange(
            "POST",
            &format!("/sessions/{id}/messages"),
            Some(json!({ "prompt": prompt })),
        ));
        if !told.events.is_empty() {
            let path = format!("/sessions/{id}/events?after=0");
            let mut tries = (0..5).map(|_| self.events(&self.exchange("GET", &path, None)));
            let again = tries.find(Told::is_whole).unwrap_or_else(|| panic!("{}: no end", self.fault));
            let numbers: Vec<u64> = again.events.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{}", self.fault);
            assert_eq!(
                again.events[..told.events.len()],
                told.events,
                "{}: an event that was seen is there again",
                self.fault
            );
            let transcript = self.transcript(id);
            let asked = transcript.iter().rfind(|message| message["role"] == "user").unwrap();
            assert_eq!(asked["content"], prompt, "{}", self.fault);
            if !again.text.is_empty() {
                let reply = transcript.last().unwrap();
                assert_eq!(reply["content"].as_str(), Some(again.text.as_str()), "{}", self.fault);
            }
        }
        if !told.is_whole() {
            let session = self.session(id);
            let status = session["status"].as_str().unwrap();
            assert!(
                ["failed", "idle", "completed", "pending"].contains(&status),
                "{}: {session}",
                self.fault
            );
            if status == "failed" {
                assert!(session["error"].as_str().is_some_and(|why| !why.is_empty()), "{}", self.fault);
            }
        }
        told
    }

    /// Sends a message until its run has come to its own end: a server that dies cuts it once.
    fn said(&self, id: &str, prompt: &str) -> Told {
        for _ in 0..4 {
            let told = self.say(id, prompt);
            if told.events.last().is_some_and(|(_, name)| name == "run.completed") {
                return told;
            }
        }
        panic!("{}: {prompt} is never answered: {}", self.fault, self.session(id));
    }

    fn transcript(&self, id: &str) -> Vec<Value> {
        let (_, messages) = self.insist("GET", &format!("/sessions/{id}/messages"), None);
        messages["messages"].as_array().unwrap_or_else(|| panic!("{}: {messages}", self.fault)).clone()
    }

    fn deploy(&self) {
        let folder = self.test.work().join("story");
        let deploy = || {
            let output = self
                .test
                .args(["deploy", "--dir", folder.to_str().unwrap()])
                .any_stdout()
                .any_stderr()
                .any_status()
                .run();
            output.status == 0
        };
        assert!(deploy() || deploy(), "{}: the agent can't be deployed", self.fault);
    }

    fn end(&self, id: &str) {
        let (status, session) = self.insist("POST", &format!("/sessions/{id}/end"), None);
        assert_eq!((status, &session["status"]), (200, &json!("ended")), "{}", self.fault);
        assert!(!self.folder(id).exists(), "{}: an ended session has no folder", self.fault);
    }

    fn folder(&self, id: &str) -> std::path::PathBuf {
        self.test.home().join("sessions").join(id)
    }

    /// Everything that can be done, once.
    fn tell(&self) {
        self.deploy();
        let a = self.create();
        let told = self.said(&a, "first");
        assert_eq!(told.text, "one first\ntwo first", "{}", self.fault);
        self.said(&a, "second");
        self.cancel(&a);
        let again = self.said(&a, "third");
        assert_eq!(
            again.text, "one third\ntwo third",
            "{}: the workspace and the agent are well",
            self.fault
        );
        self.say(&a, "quit");
        let (status, _) = self.insist("POST", &format!("/sessions/{a}/resume"), None);
        assert_eq!(status, 200, "{}", self.fault);
        let notes = fs::read_to_string(self.folder(&a).join("workspace/notes")).unwrap();
        assert!(notes.contains("first") && notes.contains("third"), "{}: {notes}", self.fault);
        self.end(&a);

        let secret = |value: &str| Some(json!({ "secrets": { "KEY": value } }));
        for value in ["one", "two"] {
            assert_eq!(self.insist("PATCH", "/agents/story/secrets", secret(value)).0, 200, "{}", self.fault);
        }
        let wanted = Some(json!({ "name": "story", "scope": "read" }));
        // One that was made before the server died is there already.
        let (status, _) = self.insist("POST", "/tokens", wanted);
        assert!(matches!(status, 201 | 409), "{}: {status}", self.fault);
        let names = |answer: Value| answer["tokens"].as_array().map(Vec::len);
        assert_eq!(names(self.insist("GET", "/tokens", None).1), Some(1), "{}", self.fault);
        self.insist("DELETE", "/tokens/story", None);
        assert_eq!(names(self.insist("GET", "/tokens", None).1), Some(0), "{}", self.fault);
        self.insist("DELETE", "/agents/story/secrets/KEY", None);
        let keys = self.insist("GET", "/agents/story/secrets", None).1;
        assert_eq!(keys, json!({ "keys": [] }), "{}", self.fault);

        // Another revision: the old one's code goes.
        self.test.agent("story", &format!("{AGENT}# changed\n"));
        self.deploy();
        let b = self.create();
        self.said(&b, "hello");
        self.test.pass(10 * DAY);
        self.insist("POST", "/server/gc", Some(json!({})));
        let kept = self.transcript(&b);
        assert_eq!(kept.last().unwrap()["content"], "one hello\ntwo hello", "{}", self.fault);
        let (status, _) = self.insist("DELETE", &format!("/sessions/{a}"), None);
        assert!([200, 204, 404].contains(&status), "{}: {status}", self.fault);
        self.test.pass(91 * DAY);
        let session = self.session(&b);
        assert_eq!(
            (&session["status"], &session["end_reason"]),
            (&json!("ended"), &json!("expired")),
            "{}",
            self.fault
        );
        assert!(!self.folder(&b).exists(), "{}", self.fault);
        self.test.pass(31 * DAY);
        self.insist("POST", "/server/gc", Some(json!({})));
        assert_eq!(self.insist("GET", &format!("/sessions/{b}"), None).0, 404, "{}", self.fault);

        let c = self.create();
        self.said(&c, "hello");
        self.insist("DELETE", "/agents/story", None);
        // It may have died once it had noted that; then the next server has gone on with it.
        let session = self.session(&c);
        assert_eq!(session["status"], "ended", "{}: {session}", self.fault);
        self.insist("DELETE", &format!("/sessions/{c}"), None);
    }

    /// A run that is cancelled in its middle.
    fn cancel(&self, id: &str) {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| self.say(id, "slow"));
            wait_until("the run to begin, or to be over", || {
                run.is_finished() || self.session(id)["status"] == "active"
            });
            self.ask("POST", &format!("/sessions/{id}/cancel"), None);
            run.join().unwrap();
        });
        let status = self.session(id)["status"].clone();
        assert!(["idle", "failed"].contains(&status.as_str().unwrap()), "{}: {status}", self.fault);
    }

    /// What must hold when all is over.
    fn check(&self) {
        let (_, list) = self.insist("GET", "/sessions?limit=1000", None);
        for session in list["sessions"].as_array().unwrap() {
            let got = self.session(session["id"].as_str().unwrap());
            assert_eq!(&got, session, "{}: list and get agree", self.fault);
            assert_ne!(got["status"], "active", "{}", self.fault);
        }
        self.test.stop_server();
        assert!(of_home(&self.test.home()).is_empty(), "{}: processes are left", self.fault);
        for folder in ["trash", "aside", "sessions", "agents"] {
            let left = below(&self.test.home().join(folder));
            assert!(left.is_empty(), "{}: left in {folder}: {left:?}", self.fault);
        }
    }

    /// Whether the server has died meanwhile.
    fn died(&self) -> bool {
        let log = fs::read_to_string(self.test.home().join("server.log")).unwrap_or_default();
        self.stillborn || log.matches("listening on").count() > 1
    }
}

fn below(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn dying_at_any_step_loses_nothing() {
    // The first sandbox is that of the probe.
    let mut faults: Vec<String> =
        ["sandbox.spawn.before:2", "sandbox.spawn.after:2", "sandbox.kill.before:2", "event.append.after:2"]
            .map(str::to_owned)
            .to_vec();
    faults.extend(STEPS.iter().flat_map(|step| ["before", "after"].map(|when| format!("{step}.{when}"))));
    let left = Mutex::new(faults);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(fault) = left.lock().unwrap().pop() else { break };
                    let story = Story::begin(&fault);
                    story.tell();
                    story.check();
                    if !story.died() {
                        missed.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}
