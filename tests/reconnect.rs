//! A network that breaks: nothing of a run is lost, and nothing comes twice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::remote::Served;
use crate::test::Test;

/// How many cuts there are in all.
const CUTS: u64 = 1000;
/// So many users at a time, each with a session of its own.
const USERS: u64 = 8;
/// How many lines an agent answers.
const LINES: u64 = 120;
/// The longest piece of an answer that gets through, in bytes: about that of ten events.
const LONGEST: u64 = 1500;

/// Passes connections on, and cuts those on which a run streams after a number of bytes that nobody can foresee: in the
/// head of an answer, in an event, between two.
struct Cutter {
    address: String,
    cuts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Cutter {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let cutter = Self { address, cuts: cuts.clone(), stop: stop.clone() };
        let server = server.to_owned();
        thread::spawn(move || {
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let (server, cuts, after) = (server.clone(), cuts.clone(), 1 + random % LONGEST);
                thread::spawn(move || pass_on(client, &server, after, &cuts));
            }
        });
        cutter
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(mut client: TcpStream, server: &str, after: u64, cuts: &AtomicU64) {
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let mut buffer = [0; 4096];
    let Ok(count) = client.read(&mut buffer) else { return };
    let first = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let line = first.lines().next().unwrap_or_default();
    let is_stream = line.contains("/messages ") && line.starts_with("POST") || line.contains("/events");
    if server.write_all(&buffer[..count]).is_err() {
        return;
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let most = if is_stream { after } else { u64::MAX };
    let sent = std::io::copy(&mut server.try_clone().unwrap().take(most), &mut client).unwrap_or(0);
    if sent == most {
        cuts.fetch_add(1, Ordering::SeqCst);
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn a_thousand_cuts_lose_no_event_and_double_none() {
    let served =
        Served::with(Test::new().env("SUPERSERVE_SERVER_RATE_LIMIT", "never"), &["--listen", "127.0.0.1:0"]);
    let script = "while IFS= read -r count; do n=1; while [ $n -le \"$count\" ]; do echo \"line $n\"; n=$((n+1)); done; done\n";
    let folder = served.test.agent("lines", script);
    served.test.args(["deploy", "--dir", folder.to_str().unwrap()]).any_stderr().run();
    let token = served.token("user", "write");
    let cutter = Cutter::before(&served.address);
    let runs = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..USERS {
            scope.spawn(|| {
                while cutter.cuts.load(Ordering::SeqCst) < CUTS {
                    let user = Test::new();
                    // Who has the same seed makes the same IDs of runs.
                    let seed = 1_000_000 + runs.fetch_add(1, Ordering::SeqCst);
                    let run = user
                        .args(["run", "lines", &LINES.to_string(), "--single", "--json"])
                        .env("SUPERSERVE_API_URL", &format!("http://{}", cutter.address))
                        .env("SUPERSERVE_API_KEY", &token)
                        .env("SUPERSERVE_TEST_SEED", &seed.to_string())
                        .any_stdout()
                        .any_stderr()
                        .run();
                    check(&run.stdout);
                }
            });
        }
    });
    // Each message has started one run, however often it was sent.
    let all = served.test.json(["sessions", "list", "--json=message_count"]);
    let all = all.as_array().expect("a list");
    assert_eq!(all.len() as u64, runs.load(Ordering::SeqCst));
    assert!(all.iter().all(|session| session["message_count"] == 1), "{all:?}");
    assert!(cutter.cuts.load(Ordering::SeqCst) >= CUTS);
}

/// Every event once and in order, and the whole reply.
fn check(events: &str) {
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events.first().map(|event| &event["type"]), Some(&"run.started".into()));
    assert_eq!(events.last().map(|event| &event["type"]), Some(&"run.completed".into()), "{events:?}");
    let heads = events.iter().filter(|event| event["type"] == "run.started").count();
    assert_eq!(heads, 1, "{events:?}");
    let deltas = events.iter().filter(|event| event["type"] == "message.delta");
    let reply: String = deltas.map(|event| event["data"]["content"].as_str().expect("a text")).collect();
    let expected: String = (1..=LINES).map(|n| format!("line {n}\n")).collect();
    assert_eq!(reply.trim_end(), expected.trim_end());
}
