//! What a script under test can do with its throw-away world: fill it, let time pass in it, run commands in it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};
use serde_json::json;

use super::agents::Agent;
use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::record::Reader;
use super::runtime::Runtime;
use super::session::{OptionMap, Session};
use super::sessions::Sessions;
use super::time::Moment;
use super::value;
use crate::client::{self, Package, Sent};
use crate::wire::session::ParseStatusError;
use crate::wire::{self, EndReason, ErrorCode, SessionId, Status, Timestamp};

/// A server and a clock that are there for one test. `cli` implements it over `daemon`.
pub trait World {
    /// A folder that is gone after the test; starts the server if need be.
    fn folder(&self) -> LocalBoxFuture<'_, client::Result<PathBuf>>;

    /// Makes sessions as they are given, of agents that are deployed.
    fn import(&self, sessions: Vec<wire::Session>) -> LocalBoxFuture<'_, client::Result<()>>;

    /// Moves the clock to `now`, in milliseconds since the Unix epoch.
    fn set_clock(&self, now: i64) -> std::io::Result<()>;

    /// Runs a command of superserve, given by its words, in this world. Error: it is none that can be run here.
    fn run(&self, words: Vec<String>, stdin: &str) -> Result<Ran, Failure>;

    /// The folder of the test's file, from which its paths are meant.
    fn beside(&self) -> &Path;
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Ran> for Map {
    fn from(ran: Ran) -> Self {
        [
            ("exit", Dynamic::from_int(ran.exit.into())),
            ("stdout", ran.stdout.into()),
            ("stderr", ran.stderr.into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect()
    }
}

/// The keys of a session in `fixture::sessions`.
const KEYS: [&str; 9] =
    ["agent", "status", "title", "message_count", "idle", "age", "error", "id", "ended_for"];
/// Whose a session is that names no agent.
const AGENT: &str = "agent";
/// After how many idle seconds an agent's process is stopped: as of sessions that were made without a wish.
const IDLE_TIMEOUT: u64 = 1740;
/// What the agents of sessions do that are nobody else's: they answer what they are told.
const ECHO: &str = "while IFS= read -r line; do printf '%s\\n' \"$line\"; done\n";
/// Answers each message with what stands in the file beside it. By frames, so that a message of several lines is one.
const CANNED: &str = "printf '%s\\n' '{\"type\":\"ready\"}'\nwhile IFS= read -r frame; do cat reply; done\n";

fn world(runtime: &Runtime) -> Result<Rc<dyn World>, Failure> {
    runtime.world().ok_or_else(|| {
        Failure::hinted(
            "fixtures are there only in tests: this world is real",
            "Put this into a function test_… and run the file with superserve test FILE.",
        )
    })
}

/// Deploys an agent that echoes, or that always answers the same.
fn deploy(runtime: &Runtime, name: &str, reply: Option<&str>) -> Result<wire::Agent, Failure> {
    let world = world(runtime)?;
    let folder = runtime.block_on(async { Ok(world.folder().await?) })?.join("fixtures").join(name);
    // A name is checked by the server, and this one is about to be a folder's.
    if !wire::agent::is_agent_name(name) {
        return Err(Failure::hinted(
            format!("'{name}' is no name for an agent"),
            "A name begins with a-z and goes on with a-z, 0-9 and -.",
        ));
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("superserve.yaml"), format!("name: {name}\ncommand: sh agent.sh\n"))?;
    std::fs::write(folder.join("agent.sh"), if reply.is_some() { CANNED } else { ECHO })?;
    if let Some(reply) = reply {
        let frames = [json!({ "type": "text", "content": reply }), json!({ "type": "turn_done" })];
        std::fs::write(folder.join("reply"), frames.map(|frame| format!("{frame}\n")).concat())?;
    }
    let package = Package::from_path(&folder, None, None, &mut |_| ())?;
    runtime.call(|client| async move { client.deploy(package, &Sent::default()).await })
}

/// The agents of these names, deployed if they aren't.
fn agents(runtime: &Runtime, names: &[String]) -> Result<Vec<wire::Agent>, Failure> {
    let mut known: Vec<wire::Agent> = Vec::new();
    for name in names {
        if known.iter().any(|agent| agent.name == *name) {
            continue;
        }
        known.push(match runtime.call(|client| async move { client.agent(name).await }) {
            Ok(agent) => agent,
            Err(Failure::Api(client::Error::Api { code: ErrorCode::NotFound, .. })) => {
                deploy(runtime, name, None)?
            }
            Err(other) => return Err(other),
        });
    }
    Ok(known)
}

/// A duration, as such or as text; never a negative one.
fn span(map: &mut OptionMap, key: &'static str) -> Result<Option<Span>, Failure> {
    let wrong = |map: &OptionMap| map.wrong(key, "a duration: 2.hours or \"2h\"");
    let Some(value) = map.take(key) else { return Ok(None) };
    let span = match value.clone().try_cast::<Span>() {
        Some(span) => span,
        None => Span::parse(&value.into_string().map_err(|_| wrong(map))?)?,
    };
    if span.0 < 0 { Err(wrong(map)) } else { Ok(Some(span)) }
}

/// A session as a test describes it, without its agent's ID.
fn read(runtime: &Runtime, map: Map) -> Result<(String, wire::Session), Failure> {
    let mut map = OptionMap::new(map, "fixture::sessions", &KEYS)?;
    let agent = map.text("agent")?.unwrap_or_else(|| AGENT.to_owned());
    let status = match map.text("status")? {
        None => Status::Idle,
        Some(word) => word.parse().map_err(|error: ParseStatusError| {
            Failure::hinted(
                format!("unknown status '{}'", error.0),
                "Use active, idle, completed, ended, failed or pending.",
            )
        })?,
    };
    let title = map.text("title")?;
    let messages = match map.take("message_count") {
        None => u64::from(status != Status::Pending),
        Some(value) => value
            .as_int()
            .ok()
            .and_then(|count| u64::try_from(count).ok())
            .ok_or_else(|| map.wrong("message_count", "a whole number from 0"))?,
    };
    let (ended_for, idle, age) =
        (span(&mut map, "ended_for")?, span(&mut map, "idle")?, span(&mut map, "age")?);
    let error = map.text("error")?;
    let id = match map.text("id")? {
        None => SessionId::from_random(runtime.host().clock.random()),
        Some(text) => padded(&text)?,
    };
    let is_ended = status == Status::Ended;
    if ended_for.is_some() && !is_ended {
        return Err(Failure::script("only a session that has ended has an `ended_for`"));
    }
    let ended_for = ended_for.unwrap_or_default();
    let idle = idle.unwrap_or(ended_for).max(ended_for);
    let age = age.unwrap_or(idle);
    if age < idle {
        return Err(Failure::script(format!(
            "a session can't be idle for longer ({idle}) than it is old ({age})"
        )));
    }
    let now = Timestamp::from_millis(runtime.now());
    let ago = |span: Span| now.plus_millis(span.0.saturating_neg());
    let session = wire::Session {
        id,
        agent_id: wire::AgentId::from_random(0),
        agent_name: Some(agent.clone()),
        status,
        title,
        message_count: messages,
        created_at: ago(age),
        last_activity_at: (status != Status::Pending).then(|| ago(idle)),
        idle_timeout_seconds: Some(IDLE_TIMEOUT),
        expires_at: None,
        ended_at: is_ended.then(|| ago(ended_for)),
        end_reason: is_ended.then_some(EndReason::User),
        error: error.or_else(|| (status == Status::Failed).then(|| "The agent exited with code 1".into())),
        isolation: None,
        receipt: None,
    };
    Ok((agent, session))
}

/// An ID of which the first digits are given, so that a test can name it.
fn padded(text: &str) -> Result<SessionId, Failure> {
    let digits = text.strip_prefix(SessionId::PREFIX).unwrap_or(text);
    format!("{}{digits:0<32}", SessionId::PREFIX).parse().map_err(|_| {
        Failure::hinted(
            format!("'{text}' is no beginning of an ID"),
            "It consists of up to 32 of the digits 0-9 and a-f, after ses_ or without it.",
        )
    })
}

/// Makes them, and gives them back in this order as the server has them.
fn import(runtime: &Runtime, described: Vec<(String, wire::Session)>) -> Result<Sessions, Failure> {
    let world = world(runtime)?;
    let names: Vec<String> = described.iter().map(|(agent, _)| agent.clone()).collect();
    let agents = agents(runtime, &names)?;
    let mut sessions: Vec<wire::Session> = Vec::new();
    for (name, mut session) in described {
        let agent = agents.iter().find(|agent| agent.name == name);
        session.agent_id = agent.map(|agent| agent.id.clone()).unwrap_or(session.agent_id);
        if sessions.iter().any(|other| other.id == session.id) {
            return Err(Failure::script(format!("two sessions have the ID {}", session.id)));
        }
        sessions.push(session);
    }
    let made = sessions.clone();
    runtime.block_on(async { Ok(world.import(sessions).await?) })?;
    Ok(made.into_iter().map(Session::from).collect::<Vec<_>>().into())
}

fn run(runtime: &Runtime, words: Vec<String>, stdin: &str) -> Result<Map, Failure> {
    Ok(world(runtime)?.run(words, stdin)?.into())
}

/// Arguments as they are typed.
fn typed(args: &Array) -> impl Iterator<Item = String> + '_ {
    args.iter().map(value::to_text)
}

/// `ops/end-idle` and `ops end-idle` alike.
fn command(text: &str) -> Vec<String> {
    text.split([' ', '/']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn script(runtime: &Runtime, path: &str) -> Result<Vec<String>, Failure> {
    let path = world(runtime)?.beside().join(path);
    Ok(vec!["script".to_owned(), path.display().to_string()])
}

/// Functions in `fixture::`, which are there in tests alone: in a file that `superserve test` runs.
#[export_module]
pub mod fixture_module {
    use super::Moment as Time;
    use super::Span as Duration;

    /// Deploys an agent that answers what it is told.
    ///
    /// ```rhai
    /// fixture::agent("notes");
    /// print(sessions::create("notes").send("milk").text);   // milk
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn agent(ctx: NativeCallContext, name: &str) -> Fallible<Agent> {
        super::deploy(&Runtime::of(&ctx)?, name, None).map(Agent::from).at(&ctx)
    }

    /// Deploys an agent that always gives the same reply.
    ///
    /// ```rhai
    /// fixture::agent("notes", "Noted.");
    /// print(sessions::create("notes").send("milk").text);   // Noted.
    /// ```
    #[rhai_fn(name = "agent", volatile, return_raw)]
    pub fn canned_agent(ctx: NativeCallContext, name: &str, reply: &str) -> Fallible<Agent> {
        super::deploy(&Runtime::of(&ctx)?, name, Some(reply)).map(Agent::from).at(&ctx)
    }

    /// Makes sessions that look as they are described, in any state and of any age, and gives them in the same order.
    /// Of each: `agent` (its name; one that isn't deployed is, as one that answers what it is told), `status` (`idle`
    /// if not given), `title`, `message_count` (1, and 0 of a pending one), `idle` and `age` (durations, 0 and as long
    /// as `idle`), `error` of a failed one, `ended_for` (how long ago an ended one ended), `id` (its first digits).
    /// They have neither a process nor a transcript; a message to one starts its agent as any other's.
    /// Errors: an unknown key or status; a session that is idle for longer than it is old.
    ///
    /// ```rhai
    /// fixture::sessions([
    ///     #{ agent: "notes", title: "remember to buy milk", idle: 3.days, message_count: 2 },
    ///     #{ agent: "writer", status: "active" },
    /// ]);
    /// print(list(#{ idle_over: 2.days })[0].title);   // remember to buy milk
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn sessions(ctx: NativeCallContext, described: Array) -> Fallible<Sessions> {
        let runtime = Runtime::of(&ctx)?;
        let read = |value: Dynamic| {
            let kind = value::type_name(&value);
            let map = value.try_cast::<Map>().ok_or_else(|| {
                Failure::hinted(
                    format!("a session is described by a map, and this is {kind}"),
                    "Write it like #{ agent: \"notes\", idle: 3.days }.",
                )
            })?;
            super::read(&runtime, map)
        };
        let described = described.into_iter().map(read).collect::<Result<Vec<_>, _>>().at(&ctx)?;
        super::import(&runtime, described).at(&ctx)
    }

    /// Makes so many sessions that are alike, with an ID of its own each.
    ///
    /// ```rhai
    /// fixture::sessions(80, #{ agent: "notes", idle: 2.hours });
    /// print(list().len);   // 80
    /// ```
    #[rhai_fn(name = "sessions", volatile, return_raw)]
    pub fn many_sessions(ctx: NativeCallContext, count: i64, described: Map) -> Fallible<Sessions> {
        let runtime = Runtime::of(&ctx)?;
        let described = (0..count).map(|_| super::read(&runtime, described.clone()));
        super::import(&runtime, described.collect::<Result<Vec<_>, _>>().at(&ctx)?).at(&ctx)
    }

    /// Makes the sessions in a file that holds what `superserve sessions list --json` prints. Agents that aren't
    /// deployed are, as ones that answer what they are told. The path is meant from the test's own folder.
    /// Set the clock first, since the file's times are as they are. Errors: the file can't be read, or holds something
    /// else.
    ///
    /// ```rhai
    /// fixture::clock("2026-03-09T12:00:00Z");
    /// fixture::sessions_from("sessions.json");
    /// table(list());
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn sessions_from(ctx: NativeCallContext, path: &str) -> Fallible<Sessions> {
        let runtime = Runtime::of(&ctx)?;
        let read = || -> Result<Vec<(String, wire::Session)>, Failure> {
            let path = super::world(&runtime)?.beside().join(path);
            let told = path.display();
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::Io(format!("cannot read {told}: {error}")))?;
            let sessions = Reader::default().array(&text).map_err(|error| {
                Failure::hinted(
                    format!("{told} is not a list of sessions: {error}"),
                    "It must hold an array as superserve sessions list --json prints it.",
                )
            })?;
            Ok(sessions.iter().map(|session| (session.agent().to_string(), session.0.to_wire())).collect())
        };
        super::import(&runtime, read().at(&ctx)?).at(&ctx)
    }

    /// Moves the clock on. Each test begins at 2026-03-09T10:15:00Z, a Monday, and nothing but this moves it.
    ///
    /// ```rhai
    /// fixture::sessions([#{ agent: "notes" }]);
    /// fixture::pass(2.hours);
    /// print(list()[0].idle);   // 2h
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn pass(ctx: NativeCallContext, duration: Duration) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        let to = Timestamp::from_millis(runtime.now()).plus_millis(duration.0);
        super::world(&runtime).and_then(|world| Ok(world.set_clock(to.as_millis())?)).at(&ctx)
    }

    /// Sets the clock.
    ///
    /// ```rhai
    /// fixture::clock(time("2026-12-24T18:00:00Z"));
    /// print(now());   // 2026-12-24T18:00:00Z
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn clock(ctx: NativeCallContext, time: Time) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        super::world(&runtime).and_then(|world| Ok(world.set_clock(time.0.as_millis())?)).at(&ctx)
    }

    /// Sets the clock to a time that is given as text.
    ///
    /// ```rhai
    /// fixture::clock("2026-12-24T18:00:00Z");
    /// print(now());   // 2026-12-24T18:00:00Z
    /// ```
    #[rhai_fn(name = "clock", volatile, return_raw)]
    pub fn clock_at(ctx: NativeCallContext, text: &str) -> Fallible<()> {
        let at = Moment::parse(text).at(&ctx)?;
        clock(ctx, at)
    }

    /// Runs a command of superserve as if it had been typed, and gives `exit` (its code), `stdout` and `stderr`. It may
    /// be a bundled one or one of your own, `script` or `eval`; its words are divided by spaces or `/`. Nobody is there
    /// to answer its questions.
    ///
    /// ```rhai
    /// fixture::sessions([#{ agent: "notes", message_count: 3 }]);
    /// print(fixture::run("ops count-messages").stdout.trimmed());   // 3
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn run(ctx: NativeCallContext, command: &str) -> Fallible<Map> {
        super::run(&Runtime::of(&ctx)?, super::command(command), "").at(&ctx)
    }

    /// Runs a command with arguments.
    ///
    /// ```rhai
    /// fixture::sessions([#{ agent: "notes", idle: 3.hours }, #{ agent: "notes" }]);
    /// let ran = fixture::run("ops end-idle", ["--over", "2h", "--yes"]);
    /// print(ran.stdout.trimmed());   // ended 1, failed 0
    /// ```
    #[rhai_fn(name = "run", volatile, return_raw)]
    pub fn run_with(ctx: NativeCallContext, command: &str, args: Array) -> Fallible<Map> {
        let words = super::command(command).into_iter().chain(typed(&args)).collect();
        super::run(&Runtime::of(&ctx)?, words, "").at(&ctx)
    }

    /// Runs a command with arguments and something to read on stdin.
    ///
    /// ```rhai
    /// let all = fixture::sessions(3, #{ agent: "notes" });
    /// let ran = fixture::run("sessions end", ["-"], all[0].id + "\n" + all[1].id);
    /// print(list(#{ status: "idle" }).len);   // 1
    /// ```
    #[rhai_fn(name = "run", volatile, return_raw)]
    pub fn run_reading(ctx: NativeCallContext, command: &str, args: Array, stdin: &str) -> Fallible<Map> {
        let words = super::command(command).into_iter().chain(typed(&args)).collect();
        super::run(&Runtime::of(&ctx)?, words, stdin).at(&ctx)
    }

    /// Runs a script's file, as `superserve script` does. The path is meant from the test's own folder.
    ///
    /// ```rhai
    /// let ran = fixture::run_script("tidy.rhai");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn run_script(ctx: NativeCallContext, path: &str) -> Fallible<Map> {
        run_script_with(ctx, path, Array::new())
    }

    /// Runs a script's file with arguments.
    ///
    /// ```rhai
    /// let ran = fixture::run_script("tidy.rhai", ["--agent", "notes", "--yes"]);
    /// ```
    #[rhai_fn(name = "run_script", volatile, return_raw)]
    pub fn run_script_with(ctx: NativeCallContext, path: &str, args: Array) -> Fallible<Map> {
        run_script_reading(ctx, path, args, "")
    }

    /// Runs a script's file with arguments and something to read on stdin.
    ///
    /// ```rhai
    /// let ran = fixture::run_script("tidy.rhai", [], "notes\n");
    /// ```
    #[rhai_fn(name = "run_script", volatile, return_raw)]
    pub fn run_script_reading(ctx: NativeCallContext, path: &str, args: Array, stdin: &str) -> Fallible<Map> {
        let runtime = Runtime::of(&ctx)?;
        let words = super::script(&runtime, path).at(&ctx)?;
        super::run(&runtime, words.into_iter().chain(typed(&args)).collect(), stdin).at(&ctx)
    }
}
