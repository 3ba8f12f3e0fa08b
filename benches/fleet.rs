//! `cargo bench --bench fleet`: the scripting engine on many sessions, as a table, with those that do the same among them.
//! Medians of interleaved runs, so that the ratios mean something on a machine that others use too; every answer is
//! compared with the others'. `benches/peers.sh` gets the others; one that is missing is named and left out.
//!
//! Words after `--` choose parts, `file server end many start`, and how often each thing is done: `runs=3`. Another build
//! of ours is measured if $SUPERSERVE_PROGRAM names it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unsafe_code
)]

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use superserve::client::Client;
use superserve::wire::{Order, SessionQuery, Status, Timestamp};

#[allow(dead_code)]
#[path = "../examples/seed.rs"]
mod example;

/// The moment at which the sessions end and every command runs: 2026-03-09T10:15:00Z, in milliseconds.
const NOW: i64 = 1_773_051_300_000;
const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
const SESSIONS: u64 = 100_000;
const MANY: u64 = 1_000_000;
/// How often each thing is done, unless a word says otherwise.
const RUNS: usize = 9;

fn main() {
    let words = words();
    // A process of its own, whose memory counts for nobody else.
    if let [first, home, sessions, json] = words.as_slice()
        && first == "seed"
    {
        let options = example::Options {
            home: home.into(),
            sessions: sessions.parse().expect("a number"),
            now: NOW,
            json: Some(PathBuf::from(json)).filter(|path| path.file_name().is_some()),
        };
        return example::seed(&options).expect("a seeded home");
    }
    let parts: Vec<&String> = words.iter().filter(|word| !word.contains('=')).collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    let folder = tempfile::tempdir().expect("a folder");
    let peers = Peers::find();
    let mut table = Table::default();
    if wants("file") || wants("server") {
        let (home, json) = (folder.path().join("fleet"), folder.path().join("sessions.json"));
        seed(&home, SESSIONS, Some(&json));
        if wants("file") {
            file(&mut table, &peers, &home, &json);
        }
        if wants("server") {
            server(&mut table, &peers, &home);
        }
    }
    if wants("end") {
        end(&mut table, &folder.path().join("ending"));
    }
    if wants("many") {
        many(&mut table, &folder.path().join("many"));
    }
    if wants("start") {
        start(&mut table, &folder.path().join("start"));
    }
    table.end();
}

fn words() -> Vec<String> {
    std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect()
}

/// How often each thing is done.
fn runs() -> usize {
    let told = words().iter().find_map(|word| word.strip_prefix("runs=")?.parse().ok());
    told.filter(|runs| *runs > 0).unwrap_or(RUNS)
}

/// What is measured.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::env::var("SUPERSERVE_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_superserve").to_owned())
    })
}

/// Fills a home with sessions; how long that took.
fn seed(home: &Path, sessions: u64, json: Option<&Path>) -> Done {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.arg("seed").arg(home).arg(sessions.to_string()).arg(json.unwrap_or(Path::new("/")));
    run(&mut command)
}

/// The programs that do the same.
struct Peers {
    jq: Option<String>,
    jaq: Option<String>,
    nu: Option<String>,
}

impl Peers {
    fn find() -> Self {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || {
            let cache =
                variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
            cache.map(|cache| cache.join("superserve-peers"))
        };
        let folder = variable("SUPERSERVE_PEERS").or_else(cache).unwrap_or_default();
        let peer = |name: &str| {
            let path = folder.join(name);
            let known = path.is_file().then(|| path.display().to_string());
            if known.is_none() {
                println!("without {name}, which is not in {}: benches/peers.sh gets it", folder.display());
            }
            known
        };
        Self { jq: peer("jq"), jaq: peer("jaq"), nu: peer("nu") }
    }
}

/// A process that has ended.
struct Done {
    time: Duration,
    /// The most memory that it had in RAM, in MiB.
    memory: f64,
    out: String,
}

/// Runs a command to its end, which must be a good one.
#[expect(clippy::zombie_processes, reason = "`wait` waits for it, and is told its memory besides")]
fn run(command: &mut Command) -> Done {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut out = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    let (good, memory) = wait(child.id());
    let time = begun.elapsed();
    assert!(good, "{command:?} failed: {out}");
    Done { time, memory, out }
}

/// Waits for a child: whether it ended well, and its largest memory in MiB.
fn wait(pid: u32) -> (bool, f64) {
    let mut status = 0;
    let pid = i32::try_from(pid).expect("a pid");
    // SAFETY: all zeros are a `rusage`, both pointers are to values of ours, and nobody else waits for this child.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid, "the child's end");
        usage
    };
    #[expect(clippy::cast_precision_loss, reason = "KiB, of which a fraction is shown")]
    let memory = usage.ru_maxrss as f64 / 1024.0;
    (libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, memory)
}

/// Something that is done to be measured.
struct Contender {
    name: String,
    words: Vec<String>,
    goals: Vec<Goal>,
}

fn contender(name: &str, words: &[&str], goals: Vec<Goal>) -> Contender {
    Contender { name: name.to_owned(), words: words.iter().map(ToString::to_string).collect(), goals }
}

/// What must hold of a contender.
enum Goal {
    /// At least so many times faster than another one.
    Faster(f64, &'static str),
    /// At most this part of another one's memory.
    Memory(f64, &'static str),
    Mebibytes(f64),
}

#[derive(Default)]
struct Table {
    rows: usize,
    lost: Vec<String>,
}

impl Table {
    fn heading(&mut self, text: &str) {
        println!("\n{text:<62} {:>9} {:>8}  goals", "ms", "MiB");
    }

    fn row(&mut self, name: &str, millis: f64, memory: f64, goals: &[(String, bool)]) {
        self.rows += 1;
        let told: Vec<String> = goals
            .iter()
            .map(|(goal, held)| format!("{goal} {}", if *held { "held" } else { "LOST" }))
            .collect();
        self.lost.extend(
            goals.iter().filter(|(_, held)| !held).map(|(goal, _)| format!("{}: {goal}", name.trim_start())),
        );
        println!("{name:<62} {millis:>9.1} {memory:>8.1}  {}", told.join("; "));
    }

    /// Runs the contenders in turns and adds a row each. The answers must be the same.
    fn race(&mut self, home: &Path, runs: usize, contenders: &[Contender]) {
        let mut done: Vec<Vec<Done>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..runs {
            for (contender, done) in contenders.iter().zip(&mut done) {
                let mut command = Command::new(&contender.words[0]);
                done.push(run(in_home(&mut command, home).args(&contender.words[1..])));
            }
        }
        let answers: Vec<Value> = done.iter().map(|done| answer(&done[0].out)).collect();
        for (contender, answer) in contenders.iter().zip(&answers) {
            assert_eq!(*answer, answers[0], "{} and {} differ", contender.name, contenders[0].name);
        }
        let medians: Vec<(f64, f64)> = done
            .iter()
            .map(|done| {
                let millis = median(done.iter().map(|done| done.time.as_secs_f64() * 1e3).collect());
                (millis, median(done.iter().map(|done| done.memory).collect()))
            })
            .collect();
        for (contender, (millis, memory)) in contenders.iter().zip(&medians) {
            let of = |peer: &str| {
                let place = contenders.iter().position(|other| other.name.trim_start().starts_with(peer));
                place.map(|place| medians[place])
            };
            let judge = |goal: &Goal| match *goal {
                Goal::Faster(least, peer) => of(peer).map(|(theirs, _)| {
                    let times = theirs / millis;
                    (format!("{times:.1} × {peer} (≥ {least})"), times >= least)
                }),
                Goal::Memory(most, peer) => of(peer).map(|(_, theirs)| {
                    let part = memory / theirs;
                    (format!("{part:.2} of {peer}'s memory (≤ {most})"), part <= most)
                }),
                Goal::Mebibytes(most) => Some((format!("≤ {most} MiB"), *memory <= most)),
            };
            let goals: Vec<(String, bool)> = contender.goals.iter().filter_map(judge).collect();
            self.row(&contender.name, *millis, *memory, &goals);
        }
    }

    fn end(self) {
        println!();
        match self.lost.as_slice() {
            [] => println!("{} rows, every goal held", self.rows),
            lost => println!("{} rows, LOST:\n  {}", self.rows, lost.join("\n  ")),
        }
    }
}

fn in_home<'c>(command: &'c mut Command, home: &Path) -> &'c mut Command {
    command
        // Files are read from the working folder.
        .current_dir(home.parent().unwrap_or(home))
        .env("SUPERSERVE_HOME", home)
        .env("SUPERSERVE_TEST_CLOCK", Timestamp::from_millis(NOW).to_string())
        .env("NO_COLOR", "1")
}

fn superserve(home: &Path, args: &[&str]) -> Done {
    run(in_home(&mut Command::new(program()), home).args(args).stderr(Stdio::null()))
}

/// What was printed, so that it can be compared: JSON as its value, other text as it is.
fn answer(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|_| Value::String(out.trim().to_owned()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whole processes that read sessions out of a JSON file.
fn file(table: &mut Table, peers: &Peers, home: &Path, json: &Path) {
    let size = fs::metadata(json).map_or(0, |meta| meta.len()) >> 20;
    let path = json.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
    let idle_before = Timestamp::from_millis(NOW - 2 * DAY).to_string();
    let read = format!("sessions::from_json(read_file(\"{path}\"))");
    let native = || vec![Goal::Faster(7.0, "jq"), Goal::Faster(2.5, "jaq"), Goal::Memory(0.7, "jq")];
    let closure = || vec![Goal::Faster(4.0, "jq"), Goal::Faster(2.0, "jaq"), Goal::Memory(0.7, "jq")];
    let of_one =
        format!(".status == \"idle\" and .agent_name == \"notes\" and .last_activity_at < \"{idle_before}\"");
    // Native: a field or a condition as text. A closure that is read as such runs natively too. What the engine itself
    // must run is a closure with statements of its own.
    let questions = [
        (
            "sum of the numbers of messages",
            vec![
                ("text", ".sum(\"message_count\")".to_owned(), native()),
                ("closure", ".sum(|s| s.message_count)".to_owned(), native()),
                ("closure on the engine", ".sum(|s| { let n = s.message_count; n })".to_owned(), closure()),
            ],
            "[.[].message_count] | add".to_owned(),
            "get message_count | math sum".to_owned(),
        ),
        (
            "how many of one agent are idle for two days",
            vec![
                (
                    "text",
                    ".count(`status == \"idle\" && agent == \"notes\" && idle > 2.days`)".to_owned(),
                    native(),
                ),
                (
                    "closure",
                    ".filter(|s| s.status == \"idle\" && s.agent == \"notes\" && s.idle > 2.days).len".to_owned(),
                    native(),
                ),
                (
                    "closure on the engine",
                    ".filter(|s| { let s = s; s.status == \"idle\" && s.agent == \"notes\" && s.idle > 2.days }).len"
                        .to_owned(),
                    closure(),
                ),
            ],
            format!("[.[] | select({of_one})] | length"),
            format!(
                "where status == idle and agent_name == notes and last_activity_at < \"{idle_before}\" | length"
            ),
        ),
        (
            "counts by agent",
            vec![
                ("text", ".count_by(\"agent\")".to_owned(), native()),
                ("closure", ".count_by(|s| s.agent)".to_owned(), native()),
                ("closure on the engine", ".count_by(|s| { let a = s.agent; a })".to_owned(), closure()),
            ],
            "group_by(.agent_name) | map({key: .[0].agent_name, value: length}) | from_entries".to_owned(),
            "get agent_name | uniq --count | reduce -f {} {|row, all| $all | insert $row.value $row.count} | to json"
                .to_owned(),
        ),
        (
            "the first ID",
            vec![("text", ".first.id".to_owned(), native())],
            ".[0].id".to_owned(),
            "first | get id".to_owned(),
        ),
    ];
    for (title, ours, filter, pipeline) in questions {
        table.heading(&format!("{title}, of {SESSIONS} in {size} MiB of JSON"));
        let mut contenders: Vec<Contender> = ours
            .into_iter()
            .map(|(name, expression, goals)| {
                contender(
                    &format!("  superserve, {name}"),
                    &[program(), "eval", &format!("{read}{expression}")],
                    goals,
                )
            })
            .collect();
        for (name, program) in [("jq", &peers.jq), ("jaq", &peers.jaq)] {
            if let Some(program) = program {
                contenders.push(contender(&format!("  {name}"), &[program, "-r", &filter, path], vec![]));
                if title == "counts by agent" {
                    let fold = "reduce .[] as $s ({}; .[$s.agent_name] += 1)";
                    contenders.push(contender(
                        &format!("  by reduce, {name}"),
                        &[program, fold, path],
                        vec![],
                    ));
                }
            }
        }
        if let Some(nu) = &peers.nu {
            let command = format!("open --raw {path} | from json | {pipeline}");
            contenders.push(contender("  nushell", &[nu, "-n", "--no-std-lib", "-c", &command], vec![]));
        }
        table.race(home, runs(), &contenders);
    }
}

/// Whole commands against a server that runs.
fn server(table: &mut Table, peers: &Peers, home: &Path) {
    let Some(jq) = &peers.jq else { return };
    let idle_before = Timestamp::from_millis(NOW - 2 * HOUR).to_string();
    let answered = || vec![Goal::Faster(5.0, "sessions list")];
    let closure = || vec![Goal::Faster(2.5, "sessions list")];
    let of_one =
        format!(".status == \"idle\" and .agent_name == \"notes\" and .last_activity_at < \"{idle_before}\"");
    let questions = [
        (
            "sum of the numbers of messages",
            "[.[].message_count] | add".to_owned(),
            vec![
                ("text", "list().sum(\"message_count\")", answered()),
                ("closure", "list().sum(|s| s.message_count)", answered()),
                ("closure on the engine", "list().sum(|s| { let n = s.message_count; n })", closure()),
                (
                    "closure on the engine, each()",
                    "sessions::each().sum(|s| { let n = s.message_count; n })",
                    closure(),
                ),
            ],
        ),
        ("how many there are", "length".to_owned(), vec![("text", "list().len", answered())]),
        (
            "counts by agent",
            "group_by(.agent_name) | map({key: .[0].agent_name, value: length}) | from_entries".to_owned(),
            vec![
                ("text", "list().count_by(\"agent\")", answered()),
                ("closure on the engine", "list().count_by(|s| { let a = s.agent; a })", closure()),
            ],
        ),
        (
            "how many of one agent are idle for two hours",
            format!("[.[] | select({of_one})] | length"),
            vec![
                (
                    "text",
                    "list().filter(`status == \"idle\" && agent == \"notes\" && idle > 2.hours`).len",
                    answered(),
                ),
                (
                    "closure",
                    "list().filter(|s| s.status == \"idle\" && s.agent == \"notes\" && s.idle > 2.hours).len",
                    answered(),
                ),
                (
                    "closure on the engine",
                    "list().filter(|s| { let s = s; s.status == \"idle\" && s.agent == \"notes\" && s.idle > 2.hours }).len",
                    closure(),
                ),
            ],
        ),
        ("the first ID", ".[0].id".to_owned(), vec![("text", "list().first.id", answered())]),
    ];
    superserve(home, &["server", "start"]);
    for (title, filter, ours) in questions {
        table.heading(&format!("{title}, of {SESSIONS} on a warm server"));
        let mut contenders: Vec<Contender> = ours
            .into_iter()
            .map(|(name, expression, goals)| {
                contender(&format!("  superserve, {name}"), &[program(), "eval", expression], goals)
            })
            .collect();
        let pipeline = format!("'{}' sessions list --json | '{jq}' -r '{filter}'", program());
        contenders.push(contender("  sessions list --json | jq", &["sh", "-c", &pipeline], vec![]));
        table.race(home, runs(), &contenders);
    }
    superserve(home, &["server", "stop"]);
}

/// Ending many sessions that have folders.
fn end(table: &mut Table, home: &Path) {
    seed(home, 20_000, None);
    superserve(home, &["server", "start"]);
    let mut idle = idle_sessions(home);
    table.heading("sessions end --where, of 20000 on a warm server");
    for (number, runs, most) in [(100, 5, 300.0), (1000, 5, 1500.0)] {
        let mut done = Vec::new();
        for _ in 0..runs {
            let these: Vec<(String, Timestamp)> = idle.drain(..number).collect();
            for (id, _) in &these {
                live_in(&home.join("sessions").join(id));
            }
            let bound = idle.front().expect("some are left").1;
            let condition = format!("status == \"idle\" && created_at < time(\"{bound}\")");
            let ended = superserve(home, &["sessions", "end", "--where", &condition, "--yes", "--json"]);
            let rows: Vec<Value> = serde_json::from_str(&ended.out).expect("JSON");
            assert_eq!(rows.len(), number);
            assert!(rows.iter().all(|row| row["status"] == "ended"), "{}", ended.out);
            assert!(these.iter().all(|(id, _)| !home.join("sessions").join(id).exists()), "wiped");
            done.push(ended);
        }
        let millis = median(done.iter().map(|done| done.time.as_secs_f64() * 1e3).collect());
        let memory = median(done.iter().map(|done| done.memory).collect());
        let goal = (format!("≤ {most} ms"), millis <= most);
        table.row(&format!("  {number} idle sessions"), millis, memory, &[goal]);
    }
    superserve(home, &["server", "stop"]);
}

/// The idle sessions, the oldest first, no two of the same moment.
fn idle_sessions(home: &Path) -> VecDeque<(String, Timestamp)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut query =
        SessionQuery { status: vec![Status::Idle], order: Order::Created, ..SessionQuery::default() };
    let mut found: VecDeque<(String, Timestamp)> = VecDeque::new();
    runtime.block_on(async {
        let client = Client::unix(&home.join("run/server.sock")).expect("a client");
        loop {
            let page = client.sessions(&query).await.expect("a page");
            found.extend(page.sessions.into_iter().map(|one| (one.id.to_string(), one.created_at)));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() || found.len() > 8000 {
                break;
            }
        }
    });
    found.make_contiguous().windows(2).for_each(|two| assert!(two[0].1 < two[1].1, "of the same moment"));
    found
}

/// Makes a session's folders as a run leaves them.
fn live_in(folder: &Path) {
    for (path, text) in
        [("workspace/agent.sh", "echo hello\n"), ("home/.profile", ""), ("run/history.jsonl", "{}\n")]
    {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
}

/// A million sessions.
fn many(table: &mut Table, home: &Path) {
    table.heading(&format!("{MANY} sessions"));
    let seeded = seed(home, MANY, None);
    let millis = seeded.time.as_secs_f64() * 1e3;
    table.row("  seeding a home", millis, seeded.memory, &[("≤ 60 s".to_owned(), millis <= 60_000.0)]);
    superserve(home, &["server", "start"]);
    let pid = answer(&superserve(home, &["server", "status", "--json"]).out)["pid"].to_string();
    let sum = "sum(|s| { let n = s.message_count; n })";
    let each = [program(), "eval", &format!("sessions::each().{sum}")];
    let list = [program(), "eval", &format!("list().{sum}")];
    table.race(
        home,
        3,
        &[
            contender("  sessions::each(), closure on the engine", &each, vec![Goal::Mebibytes(64.0)]),
            contender("  list(), closure on the engine", &list, vec![]),
            contender(
                "  list().sum(\"message_count\")",
                &[program(), "eval", "list().sum(\"message_count\")"],
                vec![],
            ),
        ],
    );
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    println!("{:<62} {:>9} {:>8.1}", "  the server meanwhile", "", kib / 1024.0);
    superserve(home, &["server", "stop"]);
}

/// What a command does before its first request: from its start until the server has the request's first byte.
fn start(table: &mut Table, home: &Path) {
    fs::create_dir_all(home.join("run")).expect("a folder");
    let listener = UnixListener::bind(home.join("run/server.sock")).expect("a socket");
    let mut times = Vec::new();
    let mut nothing = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let done = Command::new("true").stdout(Stdio::piped()).status();
        nothing.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(done.is_ok_and(|status| status.success()));
        let begun = Instant::now();
        let mut command = Command::new(program());
        let mut child = in_home(&mut command, home)
            .args(["sessions", "list"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        loop {
            let (mut connection, _) = listener.accept().expect("a connection");
            // The first one may only look whether somebody listens.
            if connection.read(&mut [0; 1]).expect("a request") > 0 {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                break;
            }
        }
        // Nobody answers it.
        child.kill().expect("a process that waits");
        child.wait().expect("its end");
        listener.set_nonblocking(true).expect("a mode");
        while listener.accept().is_ok() {}
        listener.set_nonblocking(false).expect("a mode");
    }
    let (raw, nothing) = (median(times), median(nothing));
    table.heading("until the first request, sessions list");
    table.row("  true, from its start to its end", nothing, 0.0, &[]);
    table.row("  from its start", raw, 0.0, &[]);
    let own = raw - nothing;
    table.row("  of its own", own, 0.0, &[("≤ 3 ms".to_owned(), own <= 3.0)]);
}
