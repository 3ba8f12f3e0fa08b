//! `cargo bench`: how fast the program is, as a table. Medians of interleaved runs, with `true` among them, so that the
//! ratios mean something on a machine that others use too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use program::{PROGRAM, create, deploy, superserve, verdict};
use superserve::client::Client;
use superserve::wire::{RunEvent, Session};

/// How often each thing is done.
const RUNS: usize = 25;

/// One row of the table.
struct Row {
    name: &'static str,
    millis: f64,
    /// What it is held against, and by how much it may exceed it; or a bound in milliseconds.
    goal: Goal,
}

enum Goal {
    None,
    Millis(f64),
    Times(f64, &'static str),
}

fn main() {
    let home = tempfile::tempdir().expect("a home");
    let socket = home.path().join("run/server.sock");
    superserve(home.path(), &["server", "start"], &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (replies, ends) = runtime.block_on(turns(&socket, home.path()));
    let mut rows = commands(home.path(), &socket);
    rows.push(Row { name: "create → first reply, shell agent", millis: replies, goal: Goal::Millis(40.0) });
    rows.push(Row { name: "last byte → end of turn, shell agent", millis: ends, goal: Goal::Millis(5.0) });
    superserve(home.path(), &["server", "stop"], &[]);
    print(&rows);
}

/// Whole commands, one after the other in each round.
fn commands(home: &Path, socket: &Path) -> Vec<Row> {
    let socket = socket.to_str().expect("a path in UTF-8");
    let curl = ["curl", "-s", "--unix-socket", socket, "http://localhost/v1/sessions?limit=20"];
    let contenders: [(&str, &[&str], Goal); 5] = [
        ("true", &["true"], Goal::None),
        ("superserve --version", &[PROGRAM, "--version"], Goal::Millis(3.0)),
        ("superserve eval '40+2'", &[PROGRAM, "eval", "40+2"], Goal::Millis(5.0)),
        ("curl of 20 sessions", &curl, Goal::None),
        (
            "superserve sessions list, 20",
            &[PROGRAM, "sessions", "list"],
            Goal::Times(1.5, "curl of 20 sessions"),
        ),
    ];
    let mut times = vec![Vec::with_capacity(RUNS); contenders.len()];
    for _ in 0..RUNS {
        for (place, (name, words, _)) in contenders.iter().enumerate() {
            let begun = Instant::now();
            let done = Command::new(words[0])
                .args(&words[1..])
                .env("SUPERSERVE_HOME", home)
                .stdout(Stdio::null())
                .status();
            times[place].push(begun.elapsed());
            assert!(done.is_ok_and(|status| status.success()), "{name} failed or is not on this machine");
        }
    }
    contenders
        .into_iter()
        .zip(times)
        .map(|((name, _, goal), times)| Row { name, millis: median(times), goal })
        .collect()
}

/// Medians of: create to the first piece of the reply; the agent's last byte to the end of its turn.
async fn turns(socket: &Path, home: &Path) -> (f64, f64) {
    let client = Client::unix(socket).expect("a client");
    deploy(&client, home, "echo", "agent.sh", "while read -r l; do echo \"$l\"; done").await;
    // It says when it wrote its last byte; the time that `date` needs to end counts against us.
    deploy(&client, home, "clock", "agent.sh", "while read -r l; do date +%s%N; done").await;
    let mut replies = Vec::new();
    let mut ends = Vec::new();
    let clock = create(&client, "clock").await;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let session = create(&client, "echo").await;
        let mut stream = client.send(&session.id, "hello").await.expect("a run");
        while let Some(event) = stream.next().await {
            if let RunEvent::Delta { .. } = event.expect("an event").event {
                replies.push(begun.elapsed());
                break;
            }
        }
        while stream.next().await.is_some() {}
        client.end_session(&session.id).await.expect("ended");
        ends.push(last_byte_to_end(&client, &clock).await);
    }
    // What `sessions list` lists.
    for _ in 0..19 {
        create(&client, "echo").await;
    }
    let ended = client.sessions(&superserve::wire::SessionQuery::default()).await.expect("a page");
    for session in ended.sessions.iter().filter(|session| session.ended_at.is_some()) {
        client.delete_session(&session.id).await.expect("forgotten");
    }
    (median(replies), median(ends))
}

async fn last_byte_to_end(client: &Client, session: &Session) -> Duration {
    let mut said = String::new();
    let mut stream = client.send(&session.id, "when?").await.expect("a run");
    while let Some(event) = stream.next().await {
        if let RunEvent::Delta { content } = event.expect("an event").event {
            said += &content;
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    now.saturating_sub(Duration::from_nanos(said.trim().parse().expect("nanoseconds")))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn print(rows: &[Row]) {
    let of = |name: &str| rows.iter().find(|row| row.name == name).map_or(f64::NAN, |row| row.millis);
    println!("{:<38} {:>9} {:>8}  goal", "medians of 25 interleaved runs", "ms", "× true");
    for row in rows {
        let goal = match &row.goal {
            Goal::None => String::new(),
            Goal::Millis(most) => format!("≤ {most} ms: {}", verdict(row.millis <= *most)),
            Goal::Times(most, name) => {
                let times = row.millis / of(name);
                format!("≤ {most} × {name}: {times:.2}, {}", verdict(times <= *most))
            }
        };
        println!("{:<38} {:>9.2} {:>8.1}  {goal}", row.name, row.millis, row.millis / of("true"));
    }
    let size = fs::metadata(PROGRAM).map_or(f64::NAN, |meta| meta.len() as f64 / f64::from(1 << 20));
    println!(
        "{:<38} {size:>6.1} MiB {:>8}  ≤ 25 MB: {}",
        "the binary",
        "",
        verdict(size <= 25e6 / f64::from(1 << 20))
    );
}
