//! Agents: finding, deploying and deleting them.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Map, NativeCallContext};
use serde_json::Value;

use super::converse::{self, Dialogue, With};
use super::failure::{At, Failure, Fallible};
use super::host::Amount;
use super::output;
use super::runtime::{Change, Runtime};
use super::sequence::List;
use super::session::OptionMap;
use super::time::Moment;
use super::value;
use crate::client::{self, Package, Sent};
use crate::wire::agent::{DepsStatus, is_agent_name};
use crate::wire::{self, AgentId, ErrorCode, Timestamp};

/// How long until it is looked again whether dependencies are installed: twice as long each time, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How often a bar is drawn anew while something is waited for.
const REDRAWN: Duration = Duration::from_millis(100);

/// An agent as the server last told it. `Agent` in scripts.
#[derive(Clone, Debug)]
pub struct Agent {
    agent: Rc<wire::Agent>,
    /// By the call that gave this value.
    deployed: bool,
}

impl From<wire::Agent> for Agent {
    fn from(agent: wire::Agent) -> Self {
        Self { agent: Rc::new(agent), deployed: false }
    }
}

impl Agent {
    pub const FIELDS: [&'static str; 12] = [
        "id",
        "name",
        "command",
        "revision",
        "source_hash",
        "network",
        "limits",
        "created_at",
        "updated_at",
        "deployed",
        "deps_status",
        "deps_error",
    ];

    pub fn id(&self) -> String {
        self.agent.id.to_string()
    }

    pub fn wire(&self) -> &wire::Agent {
        &self.agent
    }

    pub fn field(&self, name: &str) -> Option<Dynamic> {
        let agent = &*self.agent;
        Some(match name {
            "command" => agent.command.as_deref().unwrap_or_default().into(),
            "created_at" => Dynamic::from(Moment(agent.created_at)),
            "deployed" => self.deployed.into(),
            "deps_error" => agent.deps_error.as_deref().unwrap_or_default().into(),
            "deps_status" => agent.deps_status.as_str().into(),
            "id" => agent.id.as_str().into(),
            "limits" => limits(agent).into(),
            "name" => agent.name.as_str().into(),
            "network" => agent.network.as_str().into(),
            "revision" => Dynamic::from_int(i64::try_from(agent.revision).unwrap_or(i64::MAX)),
            "source_hash" => agent.source_hash.as_str().into(),
            "updated_at" => Dynamic::from(Moment(agent.updated_at)),
            _ => return None,
        })
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(&*self.agent).unwrap_or_default()
    }
}

/// The limits that an agent's configuration sets.
fn limits(agent: &wire::Agent) -> Map {
    rhai::serde::to_dynamic(agent.limits).ok().and_then(Dynamic::try_cast).unwrap_or_default()
}

/// Agents in an order. `Agents` in scripts.
pub type Agents = List<Agent>;

/// The agent of this name, if there is one.
fn known(runtime: &Runtime, name: &str) -> Result<Option<wire::Agent>, Failure> {
    match runtime.call(|client| async move { client.agent(name).await }) {
        Ok(agent) => Ok(Some(agent)),
        Err(Failure::Api(client::Error::Api { code: ErrorCode::NotFound, .. })) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Deploys what is at this path, unless the server has just that.
fn deploy(runtime: &Runtime, path: &Path, name: Option<&str>, port: Option<u16>) -> Result<Agent, Failure> {
    let terminal = runtime.host().terminal.clone();
    let bar = terminal.bar("packing", Amount::SomeBytes);
    let package = Package::from_path(path, name, port, &mut |bytes| bar.set(bytes))?;
    drop(bar);
    let before = known(runtime, &package.name)?;
    if let Some(agent) = before.clone().filter(|agent| {
        // What could not be installed is tried again.
        agent.source_hash == package.source_hash && agent.deps_status != DepsStatus::Failed
    }) {
        return Ok(agent.into());
    }
    if runtime.options().dry_run {
        runtime.would(&format!("deploy {}", package.name))?;
        let agent = before.unwrap_or_else(|| not_made(&package, runtime.now()));
        return Ok(Agent { agent: Rc::new(agent), deployed: true });
    }
    let bar = terminal.bar("uploading", Amount::Bytes(package.archive.len() as u64));
    let agent = runtime.block_on(async {
        let (client, sent) = (runtime.client().await?, Sent::default());
        let deployed = client.deploy(package, &sent);
        tokio::pin!(deployed);
        loop {
            tokio::select! {
                agent = &mut deployed => return Ok(agent?),
                () = tokio::time::sleep(REDRAWN) => bar.set(sent.bytes()),
            }
        }
    })?;
    drop(bar);
    runtime.changed(Change::DeployAgent);
    runtime.err(&format!("Deployed {} (revision {})\n", agent.name, agent.revision));
    Ok(Agent { agent: Rc::new(agent), deployed: true })
}

/// The agent when its dependencies are installed.
fn installed(runtime: &Runtime, agent: &Agent) -> Result<Agent, Failure> {
    let mut told = false;
    let mut bar = None;
    let mut pause = FIRST_LOOK;
    let mut now = agent.clone();
    loop {
        match now.agent.deps_status {
            DepsStatus::None | DepsStatus::Ready => {
                drop(bar);
                if told {
                    runtime.err("Installed\n");
                }
                return Ok(now);
            }
            DepsStatus::Failed => {
                return Err(Failure::Install {
                    agent: now.agent.name.clone(),
                    log: now.agent.deps_error.clone(),
                });
            }
            DepsStatus::Building => {}
        }
        if !told {
            told = true;
            runtime.err(&format!("Installing the dependencies of {}…\n", now.agent.name));
        }
        let bar = bar.get_or_insert_with(|| {
            let what = format!("{}: dependencies {}", now.agent.name, now.agent.deps_status.as_str());
            runtime.host().terminal.bar(&what, Amount::Time)
        });
        runtime.block_on(async {
            let until = tokio::time::Instant::now() + pause;
            while tokio::time::timeout_at(until, tokio::time::sleep(REDRAWN)).await.is_ok() {
                bar.set(0);
            }
            Ok(())
        })?;
        pause = (pause * 2).min(LAST_LOOK);
        let id = now.id();
        let agent = runtime.call(|client| async move { client.agent(&id).await })?;
        now = Agent { agent: Rc::new(agent), deployed: now.deployed };
    }
}

/// What `--dry-run` gives for an agent that was not deployed: with an ID of zeros.
fn not_made(package: &Package, now: i64) -> wire::Agent {
    let now = Timestamp::from_millis(now);
    wire::Agent {
        id: AgentId::from_random(0),
        name: package.name.clone(),
        command: package.config.command.clone(),
        environment_keys: Vec::new(),
        required_secrets: package.config.secrets.clone(),
        deps_status: DepsStatus::None,
        deps_error: None,
        created_at: now,
        updated_at: now,
        revision: 1,
        source_hash: package.source_hash.clone(),
        network: package.config.network.clone(),
        limits: package.config.limits,
    }
}

/// What `run X` means by X.
fn target(runtime: &Runtime, text: &str) -> Result<Agent, Failure> {
    if text.is_empty() {
        return Err(Failure::Usage {
            message: "the agent is empty".into(),
            hint: Some("Give the name of a deployed agent or a path to one.".into()),
        });
    }
    if text.starts_with('.') || text.contains('/') {
        return deploy(runtime, Path::new(text), None, None);
    }
    let could_be_agent = is_agent_name(text) || text.starts_with(AgentId::PREFIX);
    if could_be_agent && let Some(agent) = known(runtime, text)? {
        return Ok(agent.into());
    }
    if Path::new(text).exists() {
        return deploy(runtime, Path::new(text), None, None);
    }
    Err(client::Error::api(
        ErrorCode::NotFound,
        format!("Agent not found: no agent is called '{text}', and there is no such file or folder"),
        "Run superserve agents list to see your agents, or give the path of one: superserve run ./folder."
            .to_owned(),
    )
    .into())
}

/// The states of dependencies that `agents::list` asks for; `None` for any.
fn wanted(options: Map) -> Result<Option<Vec<DepsStatus>>, Failure> {
    let mut map = OptionMap::new(options, "agents::list", &["status"])?;
    let Some(given) = map.take("status") else { return Ok(None) };
    let words = given.clone().into_array().unwrap_or_else(|_| vec![given]);
    let status = |word: Dynamic| {
        let word = word.into_string().map_err(|_| map.wrong("status", "text"))?;
        word.to_lowercase().parse().map_err(|_: String| Failure::Usage {
            message: format!("unknown status '{word}'"),
            hint: Some("Use none, building, ready or failed: how far an agent's dependencies are.".into()),
        })
    };
    words.into_iter().map(status).collect::<Result<_, _>>().map(Some)
}

fn delete(runtime: &Runtime, name: &str) -> Result<(), Failure> {
    if runtime.options().dry_run {
        let agent = runtime.call(|client| async move { client.agent(name).await })?;
        return runtime.would(&format!("delete the agent {}", agent.name));
    }
    runtime.call(|client| async move { client.delete_agent(name).await })?;
    runtime.changed(Change::DeleteAgent);
    Ok(())
}

/// Functions in `agents::`.
#[export_module]
pub mod agent_module {
    /// Agents that fit the options, by name: `status`, how far their dependencies are (`none`, `building`, `ready` or `failed`; an
    /// array means any of them, `()` not given). Errors: an unknown option or status.
    ///
    /// ```rhai
    /// for a in agents::list(#{ status: "failed" }) { print(`${a.name}: ${a.deps_error}`); }
    /// ```
    #[rhai_fn(name = "list", volatile, return_raw)]
    pub fn list_some(ctx: NativeCallContext, options: Map) -> Fallible<Agents> {
        let wanted = super::wanted(options).at(&ctx)?;
        let agents = list(ctx)?;
        let fits =
            |agent: &&Agent| wanted.as_ref().is_none_or(|wanted| wanted.contains(&agent.agent.deps_status));
        Ok(Agents::from(agents.iter().filter(fits).cloned().collect::<Vec<_>>()))
    }

    /// All agents, by name.
    ///
    /// ```rhai
    /// for a in agents::list() { print(a.name); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn list(ctx: NativeCallContext) -> Fallible<Agents> {
        let agents = Runtime::of(&ctx)?.call(|client| async move { client.agents().await }).at(&ctx)?;
        Ok(Agents::from(agents.into_iter().map(Agent::from).collect::<Vec<_>>()))
    }

    /// The agent with this name or ID. Error: `not_found`.
    ///
    /// ```rhai
    /// print(agents::get("notes").revision);
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn get(ctx: NativeCallContext, name: &str) -> Fallible<Agent> {
        Runtime::of(&ctx)?.call(|client| async move { client.agent(name).await }).map(Agent::from).at(&ctx)
    }

    /// Deletes the agent with this name or ID and ends its sessions. Error: `not_found`.
    ///
    /// ```rhai
    /// agents::delete("notes");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn delete(ctx: NativeCallContext, name: &str) -> Fallible<()> {
        super::delete(&Runtime::of(&ctx)?, name).at(&ctx)
    }

    /// Deploys the agent in a folder, or a script with its folder, if it has changed since it was last deployed.
    /// Says so on stderr: `Deployed notes (revision 2)`. Errors: the path is missing, the agent has no command or a
    /// bad name.
    ///
    /// ```rhai
    /// let agent = agents::deploy("examples/notes");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn deploy(ctx: NativeCallContext, path: &str) -> Fallible<Agent> {
        super::deploy(&Runtime::of(&ctx)?, Path::new(path), None, None).at(&ctx)
    }

    /// Deploys with options: `name` instead of the one in `superserve.yaml` or the folder's; `dir`, the folder that a
    /// path is meant from (the current one if not given); `port`, on which the agent listens, which makes it an HTTP agent.
    /// The path may be `()` or `""`: then the folder itself. Errors: those of `deploy(path)`; an unknown option, or a
    /// wrong port.
    ///
    /// ```rhai
    /// let agent = agents::deploy("examples/notes", #{ name: "notes" });
    /// ```
    #[rhai_fn(name = "deploy", volatile, return_raw)]
    pub fn deploy_with(ctx: NativeCallContext, path: Dynamic, options: Map) -> Fallible<Agent> {
        let runtime = Runtime::of(&ctx)?;
        let read = || -> Result<(PathBuf, Option<String>, Option<u16>), Failure> {
            let mut map = OptionMap::new(options, "deploy", &["name", "dir", "port"])?;
            let path = if path.is_unit() {
                String::new()
            } else {
                path.into_string().map_err(|_| Failure::script("the path of an agent must be text"))?
            };
            let folder = PathBuf::from(map.text("dir")?.unwrap_or_else(|| ".".to_owned()));
            let whole = if path.is_empty() { folder } else { folder.join(path) };
            let port = map.take("port").map(|given| {
                let number = given.as_int().ok().and_then(|number| u16::try_from(number).ok());
                number.filter(|port| *port > 0).ok_or_else(|| map.wrong("port", "a number from 1 to 65535"))
            });
            Ok((whole, map.text("name")?, port.transpose()?))
        };
        let (path, name, port) = read().at(&ctx)?;
        super::deploy(&runtime, &path, name.as_deref(), port).at(&ctx)
    }

    /// The agent that `superserve run` means: with a `/` or a leading `.` a path, which is deployed if it has changed;
    /// else an agent's name or ID; else a path that exists. Error: `not_found`.
    ///
    /// ```rhai
    /// sessions::create(agents::target("examples/notes")).send("remember to buy milk");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn target(ctx: NativeCallContext, text: &str) -> Fallible<Agent> {
        super::target(&Runtime::of(&ctx)?, text).at(&ctx)
    }
}

/// An agent's fields, and what can be done with one.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod agent_methods {
    use super::Moment as Time;

    /// The ID: `agt_` and 12 hex digits.
    ///
    /// ```rhai
    /// print(agents::get("notes").id);
    /// ```
    #[rhai_fn(get = "id", pure)]
    pub fn id(agent: &mut Agent) -> String {
        Agent::id(agent)
    }

    /// The name.
    ///
    /// ```rhai
    /// print(agents::list()[0].name);
    /// ```
    #[rhai_fn(get = "name", pure)]
    pub fn name(agent: &mut Agent) -> String {
        agent.agent.name.clone()
    }

    /// The command that starts it; `""` if the server didn't say.
    ///
    /// ```rhai
    /// print(agents::get("notes").command);
    /// ```
    #[rhai_fn(get = "command", pure)]
    pub fn command(agent: &mut Agent) -> String {
        agent.agent.command.clone().unwrap_or_default()
    }

    /// How often it was deployed, from 1.
    ///
    /// ```rhai
    /// print(agents::get("notes").revision);
    /// ```
    #[rhai_fn(get = "revision", pure)]
    pub fn revision(agent: &mut Agent) -> i64 {
        i64::try_from(agent.agent.revision).unwrap_or(i64::MAX)
    }

    /// What its files and configuration hash to: 64 hex digits.
    ///
    /// ```rhai
    /// print(agents::get("notes").source_hash);
    /// ```
    #[rhai_fn(get = "source_hash", pure)]
    pub fn source_hash(agent: &mut Agent) -> String {
        agent.agent.source_hash.clone()
    }

    /// What it sees of the network: `allow` (what its rules name), `host` or `none`.
    ///
    /// ```rhai
    /// print(agents::get("notes").network);
    /// ```
    #[rhai_fn(get = "network", pure)]
    pub fn network(agent: &mut Agent) -> String {
        agent.agent.network.as_str().to_owned()
    }

    /// The limits that its configuration sets, by their keys: times in seconds, sizes in bytes.
    ///
    /// ```rhai
    /// print(agents::get("notes").limits);
    /// ```
    #[rhai_fn(get = "limits", pure)]
    pub fn limits_of(agent: &mut Agent) -> Map {
        limits(&agent.agent)
    }

    /// When it was first deployed.
    ///
    /// ```rhai
    /// print(agents::get("notes").created_at);
    /// ```
    #[rhai_fn(get = "created_at", pure)]
    pub fn created_at(agent: &mut Agent) -> Time {
        Moment(agent.agent.created_at)
    }

    /// When it was last deployed.
    ///
    /// ```rhai
    /// print(agents::get("notes").updated_at);
    /// ```
    #[rhai_fn(get = "updated_at", pure)]
    pub fn updated_at(agent: &mut Agent) -> Time {
        Moment(agent.agent.updated_at)
    }

    /// How far its dependencies are: `none` (it asks for none), `building`, `ready` or `failed`.
    ///
    /// ```rhai
    /// print(agents::get("notes").deps_status);
    /// ```
    #[rhai_fn(get = "deps_status", pure)]
    pub fn deps_status(agent: &mut Agent) -> String {
        agent.agent.deps_status.as_str().to_owned()
    }

    /// The end of the log of an installation that failed; `""` if none has.
    ///
    /// ```rhai
    /// for a in agents::list() { if a.deps_status == "failed" { print(a.deps_error); } }
    /// ```
    #[rhai_fn(get = "deps_error", pure)]
    pub fn deps_error(agent: &mut Agent) -> String {
        agent.agent.deps_error.clone().unwrap_or_default()
    }

    /// Waits until its dependencies are installed, which it says on stderr if it takes a while; the agent as it is then. At
    /// once if it asks for none. Errors: they can't be installed (`dependencies_failed`), with the end of the log; `not_found`.
    ///
    /// ```rhai
    /// let agent = agents::deploy("examples/notes").installed();
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn installed(ctx: NativeCallContext, agent: &mut Agent) -> Fallible<Agent> {
        super::installed(&Runtime::of(&ctx)?, agent).at(&ctx)
    }

    /// Whether the call that gave this agent deployed it.
    ///
    /// ```rhai
    /// if !agents::deploy("examples/notes").deployed { print("nothing has changed"); }
    /// ```
    #[rhai_fn(get = "deployed", pure)]
    pub fn deployed(agent: &mut Agent) -> bool {
        agent.deployed
    }

    /// The dialogue of `superserve run` in a new session, until the user leaves it. The session is made with the first
    /// message; the options are those of a session's `converse`. Errors: those of a session's `converse`.
    ///
    /// ```rhai
    /// agents::get("notes").converse(#{ prompt: "remember to buy milk", single: true });
    /// ```
    #[rhai_fn(name = "converse", pure, volatile, return_raw)]
    pub fn converse_with(ctx: NativeCallContext, agent: &mut Agent, options: Map) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        let dialogue = Dialogue::read(options, &runtime).at(&ctx)?;
        converse::converse(&runtime, With::New(agent), dialogue).at(&ctx)
    }

    /// Deletes it and ends its sessions. Error: `not_found`.
    ///
    /// ```rhai
    /// agents::get("notes").delete();
    /// ```
    #[rhai_fn(name = "delete", pure, volatile, return_raw)]
    pub fn delete_this(ctx: NativeCallContext, agent: &mut Agent) -> Fallible<()> {
        super::delete(&Runtime::of(&ctx)?, agent.agent.id.as_str()).at(&ctx)
    }

    /// The agent as text: its name.
    ///
    /// ```rhai
    /// print(agents::list()[0]);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(agent: &mut Agent) -> String {
        agent.agent.name.clone()
    }

    /// Agents as text: their names.
    ///
    /// ```rhai
    /// print(`${agents::list()}`);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn agents_to_string(agents: &mut Agents) -> String {
        format!("[{}]", agents.iter().map(|agent| agent.agent.name.as_str()).collect::<Vec<_>>().join(", "))
    }

    /// Prints agents as a table, as `agents list` does.
    ///
    /// ```rhai
    /// agents::list().table();
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn table(ctx: NativeCallContext, agents: &mut Agents) -> Fallible<()> {
        output::print_table(&ctx, &Dynamic::from(agents.clone()), None)
    }

    /// Agents as JSON: an array with the keys of `agents list --json`.
    ///
    /// ```rhai
    /// print(agents::list().to_json());
    /// ```
    #[rhai_fn(pure)]
    pub fn to_json(agents: &mut Agents) -> String {
        output::pretty(&value::to_json(&Dynamic::from(agents.clone())))
    }
}
