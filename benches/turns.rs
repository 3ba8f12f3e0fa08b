//! `cargo bench --bench turns`: 200 turns of many kinds of agents through the real server, as a table: how many ended
//! early, how many lost part of the reply, and what was added after the agent was done. The truth is what the agent
//! writes into its workspace at that moment: a line with the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

mod program;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use program::{superserve, verdict};
use superserve::client::Client;
use superserve::wire::{RunEvent, Session};

/// Turns of each kind; with all kinds more than two hundred.
const TURNS: usize = 15;
/// Goals for what is added, in ms: the median and the 99th percentile of all turns.
const MEDIAN: f64 = 5.0;
const WORST: f64 = 60.0;

const SH: (&str, &str) = ("sh", "agent.sh");
const PYTHON: (&str, &str) = ("python3", "agent.py");
const NODE: (&str, &str) = ("node", "agent.js");

/// Agents that sleep so many seconds before each line `got SECONDS`, and write the time to `truth` when they are done.
const KINDS: &[(&str, (&str, &str), &str)] = &[
    ("sh loop", SH, "while read -r l; do for s in $l; do sleep $s; echo \"got $s\"; done; date +%s%N >>truth; done"),
    (
        "sh pipeline",
        SH,
        "cat | while read -r l; do for s in $l; do sleep $s; echo \"got $s\"; done; date +%s%N >>truth; done",
    ),
    (
        "sh half lines",
        SH,
        "while read -r l; do for s in $l; do printf go; sleep $s; printf 't %s\\n' $s; done; date +%s%N >>truth; done",
    ),
    (
        "python input",
        PYTHON,
        "import time\nwhile True:\n  for s in input('You: ').split(): time.sleep(float(s)); print('got', s)\n  done()",
    ),
    (
        "python for line",
        PYTHON,
        "import sys, time\nfor line in sys.stdin:\n  for s in line.split(): time.sleep(float(s)); print('got', s)\n  done()",
    ),
    (
        "python half lines",
        PYTHON,
        "import time\nwhile True:\n  for n, s in enumerate(input().split()):\n    print('\\ngot' if n else 'got', '', end='', flush=True)\n    time.sleep(float(s)); print(s, end='')\n  done()",
    ),
    (
        "python children",
        PYTHON,
        "import subprocess, sys\nfor line in sys.stdin:\n  for s in line.split(): subprocess.run(['sh', '-c', 'sleep %s; echo got %s' % (s, s)])\n  done()",
    ),
    (
        "python beat",
        PYTHON,
        "import threading, time\ndef beat():\n  while True: time.sleep(0.2)\nthreading.Thread(target=beat, daemon=True).start()\nwhile True:\n  for s in input().split(): time.sleep(float(s)); print('got', s)\n  done()",
    ),
    (
        "python workers",
        PYTHON,
        "import sys, time\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\ndef work(line):\n  for s in line.split(): time.sleep(float(s)); print('got', s)\n  done()\nfor line in sys.stdin: pool.submit(work, line)",
    ),
    (
        "asyncio executor",
        PYTHON,
        "import asyncio, sys\nasync def main():\n  loop = asyncio.get_running_loop()\n  while line := await loop.run_in_executor(None, sys.stdin.readline):\n    for s in line.split(): await asyncio.sleep(float(s)); print('got', s)\n    done()\nasyncio.run(main())",
    ),
    (
        "node line event",
        NODE,
        "reader.on('line', async (line) => { for (const s of words(line)) { await sleep(s); console.log('got', s); } done(); });",
    ),
    (
        "node for await",
        NODE,
        "(async () => { for await (const line of reader) { for (const s of words(line)) { await sleep(s); console.log('got', s); } done(); } })();",
    ),
    (
        "node interval",
        NODE,
        "setInterval(() => {}, 50); reader.on('line', async (line) => { for (const s of words(line)) { await sleep(s); console.log('got', s); } done(); });",
    ),
    (
        "node children",
        NODE,
        "reader.on('line', async (line) => { for (const s of words(line)) { await new Promise((end) => require('child_process').exec('sleep ' + s, end)); console.log('got', s); } done(); });",
    ),
    (
        "node fetch",
        NODE,
        "const server = require('child_process').spawn(process.execPath, ['-e', `require('http').createServer((ask, answer) => answer.setHeader('Connection', 'close') && setTimeout(() => answer.end('got ' + ask.url.slice(1)), ask.url.slice(1) * 1000)).listen(8123, '127.0.0.1', () => console.log('up'))`]);
server.stdout.once('data', () => reader.on('line', async (line) => { for (const s of words(line)) console.log(await (await fetch('http://127.0.0.1:8123/' + s)).text()); done(); }));",
    ),
];

/// What stands before an agent's code.
const PYTHON_HEAD: &str =
    "import time\ndef done():\n  with open('truth', 'a') as truth: truth.write('%d\\n' % time.time_ns())\n";
const NODE_HEAD: &str = "const reader = require('readline').createInterface({ input: process.stdin });
const words = (line) => line.split(' ').filter(Boolean);
const sleep = (s) => new Promise((done) => setTimeout(done, s * 1000));
const done = () => require('fs').appendFileSync('truth', Math.round((performance.timeOrigin + performance.now()) * 1e3) + '000\\n');\n";

/// What became of the turns of one kind.
#[derive(Default)]
struct Tally {
    early: usize,
    lost: usize,
    /// What was added after the agent was done, in ms.
    added: Vec<f64>,
}

fn main() {
    let home = tempfile::tempdir().expect("a home");
    superserve(home.path(), &["server", "start"], &[("SUPERSERVE_SERVER_IDLE_EXIT", "never")]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(kinds(home.path()));
    superserve(home.path(), &["server", "stop"], &[]);
}

async fn kinds(home: &Path) {
    let client = Client::unix(&home.join("run/server.sock")).expect("a client");
    println!(
        "{:<20} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8}",
        "kind", "turns", "early", "lost", "p50 ms", "p90", "p99"
    );
    let mut all = Tally::default();
    for (seed, &(name, (program, file), code)) in (1..).zip(KINDS) {
        if !Path::new("/usr/bin").join(program).exists() {
            println!("{name:<20} left out: no /usr/bin/{program}");
            continue;
        }
        let session = create(&client, home, name, file, code).await;
        let mut tally = turns(&client, home, &session, seed).await;
        client.end_session(&session.id).await.expect("ended");
        row(name, &mut tally);
        all.early += tally.early;
        all.lost += tally.lost;
        all.added.append(&mut tally.added);
    }
    row("all", &mut all);
    println!("none early, none lost: {}", verdict(all.early + all.lost == 0));
    println!("p50 at most {MEDIAN} ms: {}", verdict(at(0.5, &all.added) <= MEDIAN));
    println!("p99 at most {WORST} ms: {}", verdict(at(0.99, &all.added) <= WORST));
}

fn row(name: &str, tally: &mut Tally) {
    tally.added.sort_by(f64::total_cmp);
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| at(part, &tally.added));
    let Tally { early, lost, added } = tally;
    println!("{name:<20} {:>6} {early:>6} {lost:>6} {p50:>8.1} {p90:>8.1} {p99:>8.1}", added.len());
}

/// The value below which that part of them lies; they are sorted.
fn at(part: f64, values: &[f64]) -> f64 {
    let place = (values.len().saturating_sub(1) as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or(0.0)
}

async fn create(client: &Client, home: &Path, name: &str, file: &str, code: &str) -> Session {
    let name = name.replace(' ', "-");
    let head = match file.rsplit('.').next() {
        Some("py") => PYTHON_HEAD,
        Some("js") => NODE_HEAD,
        _ => "",
    };
    program::deploy(client, home, &name, file, &format!("{head}{code}\n")).await;
    program::create(client, &name).await
}

async fn turns(client: &Client, home: &Path, session: &Session, seed: u64) -> Tally {
    let truth = home.join("sessions").join(session.id.as_str()).join("workspace/truth");
    let told = |number: usize| -> Option<f64> {
        let text = fs::read_to_string(&truth).unwrap_or_default();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).nth(number)?.trim().parse().ok()
    };
    let mut tally = Tally::default();
    let mut row = seed;
    for number in 0..TURNS {
        let sleeps = sleeps(&mut row);
        let reply = say(client, session, &sleeps.join(" ")).await;
        let over = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64() * 1e3;
        let expected: Vec<String> = sleeps.iter().map(|sleep| format!("got {sleep}")).collect();
        tally.lost += usize::from(reply.trim_end_matches('\n') != expected.join("\n"));
        tally.early += usize::from(told(number).is_none());
        let done = loop {
            match told(number) {
                Some(nanos) => break nanos / 1e6,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        // The first turn starts the agent as well, but that is over by the time that it is done.
        tally.added.push((over - done).max(0.0));
    }
    tally
}

/// Up to three sleeps, mostly short, some long.
fn sleeps(row: &mut u64) -> Vec<String> {
    let mut below = |limit: u64| {
        *row = row.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*row >> 33) % limit
    };
    let count = 1 + below(3);
    (0..count)
        .map(|_| if below(4) > 0 { below(50) } else { 100 + below(400) })
        .map(|sleep| format!("0.{sleep:03}"))
        .collect()
}

/// Sends a message; the whole reply.
async fn say(client: &Client, session: &Session, content: &str) -> String {
    let mut stream = client.send(&session.id, content).await.expect("a run");
    let mut reply = String::new();
    let mut last = None;
    while let Some(event) = stream.next().await {
        let event = event.expect("an event").event;
        if let RunEvent::Delta { content } = &event {
            reply.push_str(content);
        }
        last = Some(event);
    }
    assert!(matches!(last, Some(RunEvent::Completed { .. })), "{last:?}");
    reply
}
