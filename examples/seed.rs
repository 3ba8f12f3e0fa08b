//! `cargo run --release --example seed -- --home DIR --sessions N`: a new home with N sessions in it, written straight
//! through the store, the same for the same N and `--now`. For trying things on many sessions, and for benchmarks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use superserve::clock::Clock;
use superserve::render::session_json;
use superserve::store::{NewRevision, Store};
use superserve::wire::agent::SourceHash;
use superserve::wire::{AgentConfig, AgentId, EndReason, Isolation, Session, SessionId, Status, Timestamp};

const USAGE: &str = "\
usage: seed --home DIR --sessions N [--now MS] [--json FILE]

  --home DIR     the state folder to fill; it must not hold a database yet
  --sessions N   how many sessions, at most 10000000
  --now MS       the moment at which they end, in milliseconds since the Unix epoch; the machine's time if not given
  --json FILE    write the sessions, too, as `sessions list --json` prints them";

const AGENTS: [&str; 20] = [
    "notes",
    "triage",
    "billing",
    "summaries",
    "research",
    "translate",
    "reviews",
    "onboarding",
    "support",
    "reports",
    "search",
    "planner",
    "inbox",
    "release-notes",
    "invoices",
    "calendar",
    "scraper",
    "tests",
    "migrations",
    "docs",
];

/// What each agent does: it answers what it is told.
const SCRIPT: &str = "while IFS= read -r line; do echo \"you said: $line\"; done\n";

const VERBS: [&str; 12] = [
    "Summarise",
    "Find",
    "Compare",
    "Translate",
    "Draft",
    "Review",
    "Explain",
    "Sort",
    "Check",
    "Demo",
    "Rewrite",
    "Plan",
];
const THINGS: [&str; 24] = [
    "the",
    "quarterly",
    "report",
    "for",
    "customers",
    "in",
    "São",
    "Paulo",
    "and",
    "its",
    "\"open\"",
    "invoices",
    "with",
    "notes",
    "from",
    "last",
    "week's",
    "meeting",
    "about",
    "pricing",
    "before",
    "Friday",
    "—",
    "urgent",
];

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What to fill, with how much.
pub struct Options {
    pub home: PathBuf,
    pub sessions: u64,
    /// In milliseconds since the Unix epoch.
    pub now: i64,
    pub json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = options().and_then(|options| seed(&options).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut given: HashMap<String, String> = HashMap::new();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let known = ["--home", "--sessions", "--now", "--json"].contains(&name.as_str());
        match args.next().filter(|_| known) {
            Some(value) => given.insert(name, value),
            None => return Err(USAGE.to_owned()),
        };
    }
    let number = |name: &str| {
        given
            .get(name)
            .map(|text| text.parse::<u64>().map_err(|_| format!("'{text}' is no number for {name}")))
            .transpose()
    };
    let sessions = number("--sessions")?.filter(|count| *count <= 10_000_000).ok_or(USAGE)?;
    let now = number("--now")?
        .map_or_else(|| Clock::system().now_millis(), |now| i64::try_from(now).unwrap_or(i64::MAX));
    let home = given.get("--home").map(PathBuf::from).ok_or(USAGE)?;
    Ok(Options { home, sessions, now, json: given.get("--json").map(PathBuf::from) })
}

/// Fills a home.
pub fn seed(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.home)?;
    let database = options.home.join("superserve.db");
    if database.exists() {
        return Err(format!("{} is there already: name a new folder", database.display()).into());
    }
    let config = options.home.join("config.toml");
    if !config.exists() {
        // Sessions that nobody has touched for days would be gone as soon as a server starts.
        fs::write(&config, "session.expire_after = \"never\"\n")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sessions =
        || Sessions::new(options.now).take(usize::try_from(options.sessions).unwrap_or(usize::MAX));
    runtime.block_on(async {
        let store = Store::open(&database).await?;
        for (number, name) in (1..).zip(AGENTS) {
            let config = AgentConfig::default();
            let agent = NewRevision {
                id: agent_id(number),
                name: name.to_owned(),
                revision: 1,
                command: "sh agent.sh".to_owned(),
                source_hash: SourceHash::default().finish(&config),
                deps: None,
                config,
                at: options.now - 31 * DAY + i64::from(number) * MINUTE,
            };
            place(&options.home, &agent.id)?;
            store.put_revision(&agent).await?;
        }
        let imported = store.import_sessions(sessions()).await?;
        store.close().await;
        println!("{imported} sessions of {} agents are in {}", AGENTS.len(), options.home.display());
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    if let Some(path) = &options.json {
        let mut all: Vec<Session> = sessions().collect();
        all.sort_by(|a, b| {
            let latest = |session: &Session| session.last_activity_at.unwrap_or(session.created_at);
            latest(b).cmp(&latest(a)).then_with(|| a.id.cmp(&b.id))
        });
        write_json(path, &all)?;
    }
    Ok(())
}

/// An agent's code, where a deployment puts it.
fn place(home: &Path, id: &AgentId) -> std::io::Result<()> {
    let folder = home.join("agents").join(id.as_str()).join("1").join("src");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let file = folder.join("agent.sh");
    fs::write(&file, SCRIPT)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))
}

fn write_json(path: &Path, sessions: &[Session]) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for (place, session) in sessions.iter().enumerate() {
        file.write_all(if place == 0 { b"[\n  " } else { b",\n  " })?;
        let text = serde_json::to_string_pretty(&session_json(session))?;
        file.write_all(text.replace('\n', "\n  ").as_bytes())?;
    }
    file.write_all(if sessions.is_empty() { b"[]\n" } else { b"\n]\n" })?;
    file.flush()
}

fn agent_id(number: u32) -> AgentId {
    // The first digits of a number that is spread over all of them.
    AgentId::from_random(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_0c4f_2a5d_1b83))
}

/// An endless row of sessions, the same for the same moment.
struct Sessions {
    now: i64,
    random: Clock,
}

impl Sessions {
    fn new(now: i64) -> Self {
        Self { now, random: Clock::system().seeded(2026) }
    }
}

/// Numbers out of one random one.
struct Dice(u128);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u32) -> u32 {
        let rolled = u32::try_from(self.0 % u128::from(sides)).unwrap_or_default();
        self.0 /= u128::from(sides);
        rolled
    }

    /// A number of milliseconds below `limit`.
    fn span(&mut self, limit: i64) -> i64 {
        let limit = u128::from(limit.max(1).unsigned_abs());
        let span = i64::try_from(self.0 % limit).unwrap_or_default();
        self.0 /= limit;
        span
    }
}

impl Iterator for Sessions {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        let id = SessionId::from_random(self.random.random());
        let mut times = Dice(self.random.random());
        let mut rest = Dice(self.random.random());
        // The first agents have more than the last ones.
        let agent = rest.roll(20).min(rest.roll(20));
        let status = match rest.roll(100) {
            0..55 => Status::Idle,
            55..75 => Status::Completed,
            75..85 => Status::Failed,
            _ => Status::Ended,
        };
        let created = self.now - MINUTE - times.span(30 * DAY);
        // Most are over within an hour, some go on for days.
        let length = if rest.roll(4) == 0 { 3 * DAY } else { HOUR };
        let active = created + times.span(length.min(self.now - created));
        let ended = active + times.span((self.now - active).min(DAY));
        let is_ended = status == Status::Ended;
        let messages = 1 + rest.roll(12) * rest.roll(5);
        let error =
            (status == Status::Failed).then(|| format!("The agent exited with code {}", 1 + rest.roll(3)));
        let reason = if rest.roll(3) == 0 { EndReason::Expired } else { EndReason::User };
        Some(Session {
            id,
            agent_id: agent_id(agent + 1),
            agent_name: AGENTS.get(agent as usize).map(|name| (*name).to_owned()),
            status,
            title: Some(title(&mut Dice(self.random.random()))),
            message_count: u64::from(messages),
            created_at: Timestamp::from_millis(created),
            last_activity_at: Some(Timestamp::from_millis(active)),
            idle_timeout_seconds: Some(1740),
            expires_at: None,
            ended_at: is_ended.then(|| Timestamp::from_millis(ended)),
            end_reason: is_ended.then_some(reason),
            error,
            isolation: Some(Isolation::Full),
            receipt: None,
        })
    }
}

fn title(dice: &mut Dice) -> String {
    let mut title = VERBS[dice.roll(12) as usize].to_owned();
    for _ in 0..1 + dice.roll(14) {
        title.push(' ');
        title.push_str(THINGS[dice.roll(24) as usize]);
    }
    title
}
