//! `cargo bench --bench sessions`: what sessions cost, as a table: a sandbox over a plain process, a thousand that wait,
//! sixteen at a time, an end. Runs that are compared are interleaved, so that the ratios mean something on a machine that
//! others use too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

mod program;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use program::{PROGRAM, create, deploy, superserve, verdict};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use superserve::client::Client;
use superserve::sandbox::{self, Choice, Sandbox, Spawner, Spec, Wish};
use superserve::wire::{Network, RunEvent, Session, SessionQuery};

/// How often each start is made.
const STARTS: usize = 60;
/// How often a session is made for its first reply, and one ended.
const RUNS: usize = 40;
/// So many sessions wait at once.
const WAITING: usize = 1000;
/// So many sessions are made, used and ended, [`AT_ONCE`] at a time.
const MANY: usize = 320;
const AT_ONCE: usize = 16;
/// What an agent has made by the time that it is ended.
const FILES: usize = 200;
const UID: u32 = 1_900_000_000;

fn main() {
    let home = tempfile::tempdir().expect("a home");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("{:<52} {:>10}  goal", "what", "");
    runtime.block_on(starts(home.path()));
    let server = [("SUPERSERVE_SESSION_MAX_WARM", "100000"), ("SUPERSERVE_SERVER_IDLE_EXIT", "never")];
    superserve(home.path(), &["server", "start"], &server);
    runtime.block_on(sessions(home.path()));
    superserve(home.path(), &["server", "stop"], &[]);
}

fn row(what: &str, value: String, goal: &str) {
    println!("{what:<52} {value:>10}  {goal}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which that part of them lies.
fn at(part: f64, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let place = ((times.len() - 1) as f64 * part).round() as usize;
    millis(times[place])
}

/// From the start to the first byte: a plain process and each driver.
async fn starts(home: &Path) {
    let spawner = Spawner::new(Arc::new(|| {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(PROGRAM);
        command.arg("__spawner").env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let mut child = command.spawn()?;
        std::thread::spawn(move || child.wait());
        Ok::<OwnedFd, std::io::Error>(ours)
    }));
    let place = home.join("starts");
    fs::create_dir_all(&place).expect("a folder");
    let mut drivers: Vec<Arc<dyn Sandbox>> = Vec::new();
    for choice in [Choice::None, Choice::Landlock, Choice::Native] {
        let wish = Wish { choice, only_full: false };
        match sandbox::open(wish, spawner.clone(), &place, UID).await {
            Ok(opened) => drivers.push(opened.sandbox),
            Err(refusal) => println!("{choice:?} is left out: {refusal}"),
        }
    }
    let mut times: HashMap<&str, Vec<Duration>> = HashMap::new();
    for number in 0..STARTS {
        let begun = Instant::now();
        let mut plain = Command::new("sh");
        plain.args(["-c", "echo; read x"]).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = plain.spawn().expect("sh");
        child.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("a byte");
        times.entry("plain").or_default().push(begun.elapsed());
        drop(child.stdin.take());
        child.wait().expect("an end");
        for driver in &drivers {
            let spec = spec(&place, driver.name(), number);
            driver.own(UID, &spec.workspace).expect("owned");
            driver.own(UID, &spec.home).expect("owned");
            let begun = Instant::now();
            let process = driver.start(&spec).await.expect("a start");
            let mut byte = [0];
            while rustix::io::read(&process.stdout, &mut byte).is_err() {
                tokio::task::yield_now().await;
            }
            times.entry(driver.name()).or_default().push(begun.elapsed());
            process.tree.kill().await;
        }
    }
    let plain = at(0.5, times.remove("plain").unwrap_or_default());
    row("start to first byte: a plain process, ms", format!("{plain:.2}"), "");
    for driver in &drivers {
        let median = at(0.5, times.remove(driver.name()).unwrap_or_default());
        let value = format!("{median:.2}");
        row(&format!("  {} (+{:.2} ms, × {:.1})", driver.name(), median - plain, median / plain), value, "");
    }
}

fn spec(place: &Path, driver: &str, number: usize) -> Spec {
    let folder = place.join(format!("{driver}-{number}"));
    let make = |name: &str| -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    };
    Spec {
        name: "bench".to_owned(),
        argv: ["sh", "-c", "echo; read x"].map(str::to_owned).to_vec(),
        env: Vec::new(),
        workspace: make("workspace"),
        home: make("home"),
        runtime: make("runtime"),
        read_only: Vec::new(),
        shown: Vec::new(),
        network: Network::None,
        limits: superserve::sandbox::Limits::default(),
        uid: UID,
    }
}

async fn sessions(home: &Path) {
    let client = Client::unix(&home.join("run/server.sock")).expect("a client");
    deploy(&client, home, "echo", "agent.sh", "while read -r l; do echo \"$l\"; done").await;
    let files = format!(
        "while read -r l; do i=0; while [ $i -lt {FILES} ]; do echo \"$l\" > f$i; i=$((i+1)); done; echo made; done"
    );
    deploy(&client, home, "files", "agent.sh", &files).await;
    first_replies(&client).await;
    ends(&client, home).await;
    at_once(&client).await;
    waiting(&client).await;
}

/// Sends a message and reads the run to its end; when the first piece of the reply came.
async fn say(client: &Client, session: &Session) -> Option<Instant> {
    let mut stream = client.send(&session.id, "hello").await.expect("a run");
    let mut first = None;
    let mut last = None;
    while let Some(event) = stream.next().await {
        let event = event.expect("an event").event;
        if let RunEvent::Delta { .. } = event {
            first = first.or(Some(Instant::now()));
        }
        last = Some(event);
    }
    assert!(matches!(last, Some(RunEvent::Completed { .. })), "{last:?}");
    first
}

async fn first_replies(client: &Client) {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let session = create(client, "echo").await;
        times.push(say(client, &session).await.expect("a reply").duration_since(begun));
        client.end_session(&session.id).await.expect("ended");
    }
    let median = at(0.5, times.clone());
    let goal = format!("≤ 40: {}", verdict(median <= 40.0));
    row("create to first reply, ms (p50)", format!("{median:.1}"), &goal);
    row("  (p90)", format!("{:.1}", at(0.9, times)), "");
}

async fn ends(client: &Client, home: &Path) {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let session = create(client, "files").await;
        say(client, &session).await;
        let folder = home.join("sessions").join(session.id.as_str());
        assert!(folder.join("workspace/f0").exists());
        let begun = Instant::now();
        client.end_session(&session.id).await.expect("ended");
        while folder.join("workspace").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed());
    }
    row(&format!("end to bytes gone, {FILES} files, ms (p50)"), format!("{:.1}", at(0.5, times.clone())), "");
    row("  (p90)", format!("{:.1}", at(0.9, times)), "");
}

async fn at_once(client: &Client) {
    let begun = Instant::now();
    stream::iter(0..MANY)
        .for_each_concurrent(AT_ONCE, |_| async {
            let session = create(client, "echo").await;
            say(client, &session).await;
            client.end_session(&session.id).await.expect("ended");
        })
        .await;
    let rate = MANY as f64 / begun.elapsed().as_secs_f64();
    let goal = format!("≥ 40: {}", verdict(rate >= 40.0));
    row(&format!("create, reply, end, {AT_ONCE} at a time: sessions/s"), format!("{rate:.0}"), &goal);
}

async fn waiting(client: &Client) {
    let before = used();
    let earlier: HashSet<i32> = inits();
    let begun = Instant::now();
    let sessions: Vec<Session> = stream::iter(0..WAITING)
        .map(|_| async {
            let session = create(client, "echo").await;
            say(client, &session).await;
            session
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    row(
        &format!("{WAITING} sessions to their first reply, s"),
        format!("{:.1}", begun.elapsed().as_secs_f64()),
        "",
    );
    let after = used();
    let live = inits().difference(&earlier).count();
    assert_eq!(live, WAITING, "all of them wait");
    let each = |kib: f64| format!("{:.0}", kib / WAITING as f64);
    row("  memory of each while it waits, KiB (machine's)", each(after - before), "");
    row("  of that its processes' (PSS), KiB", each(trees(&earlier)), "");
    let info = client.server().await.expect("a server");
    row("  the server itself, MiB (PSS)", format!("{:.0}", pss(info.pid as i32) / 1024.0), "");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let page = client
            .sessions(&SessionQuery { limit: Some(1000), ..SessionQuery::default() })
            .await
            .expect("a page");
        assert_eq!(page.sessions.len(), 1000);
        times.push(begun.elapsed());
    }
    row("  a list of 1000, ms (p50)", format!("{:.1}", at(0.5, times)), "");
    let begun = Instant::now();
    stream::iter(&sessions)
        .for_each_concurrent(AT_ONCE, |session| async {
            drop(client.end_session(&session.id).await.expect("ended"))
        })
        .await;
    row("  ending them all, s", format!("{:.1}", begun.elapsed().as_secs_f64()), "");
}

/// What of the machine's memory is used, in KiB.
fn used() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let of = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
    };
    of("MemTotal:") - of("MemAvailable:")
}

/// The roots of sandboxes that there are.
fn inits() -> HashSet<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "superserve-init\n")
    })
    .collect()
}

/// The memory of all sandboxes' processes but the earlier ones', in KiB.
fn trees(earlier: &HashSet<i32>) -> f64 {
    let mut left: Vec<i32> = inits().difference(earlier).copied().collect();
    let mut sum = 0.0;
    while let Some(pid) = left.pop() {
        sum += pss(pid);
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        left.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    sum
}

fn pss(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
