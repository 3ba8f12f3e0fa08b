//! The platform over a real store, real processes and no isolation: agents in POSIX sh.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::sandbox::{self, Choice, Spawner};
use crate::wire::{
    self, CreateSession, EndReason, ErrorCode, Network, NumberedEvent, Role, RunEvent, SessionQuery,
};

/// Answers each line, and remembers what it was told in its workspace.
const ECHO: &str = r#"
while IFS= read -r line; do
    echo "$line" >> notes
    echo "you said: $line"
done
"#;

/// Says something, then never comes to an end.
const SLOW: &str = r#"
trap 'exit 130' INT
while IFS= read -r line; do
    echo "begun"
    while :; do sleep 0.05; done
done
"#;

const UID_BASE: u32 = 1_900_000_000;

struct Stage {
    home: TempDir,
    clock: PathBuf,
    sandbox: Arc<dyn sandbox::Sandbox>,
    path: String,
}

/// The spawner is the test binary itself, which the sandbox's tests make into one by this variable.
#[expect(clippy::disallowed_methods, reason = "the tests' stand-in for the daemon, which starts the spawner")]
fn spawner() -> Spawner {
    Spawner::new(Arc::new(|| {
        let none = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, none, None)?;
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .env("SUPERSERVE_TEST_SPAWNER", "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::spawn(move || child.wait());
        Ok::<OwnedFd, std::io::Error>(ours)
    }))
}

impl Stage {
    async fn new() -> Self {
        Self::with(Choice::None).await.expect("no isolation needs nothing")
    }

    async fn with(choice: Choice) -> Result<Self, sandbox::Refusal> {
        let home = tempfile::tempdir().expect("a folder");
        let clock = home.path().join("now");
        std::fs::write(&clock, "1773051300000").expect("a clock");
        let sandbox = sandbox::open(choice, spawner(), home.path(), UID_BASE).await?;
        Ok(Self { home, clock, sandbox, path: "/usr/local/bin:/usr/bin:/bin".into() })
    }

    fn options(&self) -> Options {
        Options {
            home: self.home.path().to_owned(),
            limits: harness::Limits {
                quiet: Duration::from_secs(5),
                turn: Duration::from_secs(30),
                startup: Duration::from_secs(20),
                cancel_grace: Duration::from_secs(5),
            },
            expire_after: Some(Duration::from_secs(24 * 3600)),
            uid_base: UID_BASE,
            end_grace: Duration::from_secs(2),
            drain: Duration::from_millis(200),
            max_upload: 10 << 20,
            path: self.path.clone(),
        }
    }

    async fn open(&self) -> Platform {
        self.open_with(self.options(), Ok(self.sandbox.clone())).await
    }

    async fn open_with(
        &self,
        options: Options,
        sandbox: Result<Arc<dyn sandbox::Sandbox>, sandbox::Refusal>,
    ) -> Platform {
        let store = Store::open(&self.home.path().join("superserve.db")).await.expect("a store");
        let clock = Clock::system().from_file(self.clock.clone());
        Platform::open(options, store, sandbox, clock).await.expect("a platform")
    }

    fn let_pass(&self, seconds: i64) {
        let now: i64 = std::fs::read_to_string(&self.clock).expect("a time").trim().parse().expect("a time");
        std::fs::write(&self.clock, (now + seconds * 1000).to_string()).expect("a clock");
    }

    fn folder(&self, id: &SessionId) -> PathBuf {
        self.home.path().join("sessions").join(id.as_str())
    }
}

fn upload(name: &str, command: &str, files: &[(&str, &str)]) -> Upload {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).expect("an entry");
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar.into_inner().expect("a tar")).expect("gzip");
    let config = AgentConfig { network: Network::Host, ..AgentConfig::default() };
    Upload { name: name.into(), command: Some(command.into()), config, archive: gzip.finish().expect("gzip") }
}

async fn deploy(platform: &Platform, name: &str, script: &str) -> wire::Agent {
    platform.deploy(upload(name, "sh agent.sh", &[("agent.sh", script)])).await.expect("an agent")
}

async fn create(platform: &Platform, agent: &str) -> SessionId {
    let create = CreateSession { agent_id: agent.into(), title: None, idle_timeout_seconds: None };
    platform.create_session(create).await.expect("a session").id
}

async fn run(platform: &Platform, id: &SessionId, prompt: &str) -> Vec<NumberedEvent> {
    let stream = platform.send(id, prompt).await.expect("a run");
    tokio::time::timeout(Duration::from_secs(60), stream.collect()).await.expect("an end")
}

fn text(events: &[NumberedEvent]) -> String {
    let delta = |event: &NumberedEvent| match &event.event {
        RunEvent::Delta { content } => Some(content.clone()),
        _ => None,
    };
    events.iter().filter_map(delta).collect()
}

fn is_a_run(events: &[NumberedEvent]) {
    assert!(matches!(events[0].event, RunEvent::Started { .. }), "{events:?}");
    assert_eq!(events.iter().filter(|event| event.event.is_last()).count(), 1, "{events:?}");
    assert!(events.last().is_some_and(|last| last.event.is_last()), "{events:?}");
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.number, number);
    }
}

fn failure(events: &[NumberedEvent]) -> wire::event::RunError {
    match events.last().map(|last| &last.event) {
        Some(RunEvent::Failed { error }) => error.clone(),
        other => panic!("no failure: {other:?}"),
    }
}

/// Waits until the agent has said something; its stream goes on.
async fn until_begun(stream: &mut RunStream) {
    while let Some(event) = stream.next().await {
        if matches!(event.event, RunEvent::Delta { .. }) {
            return;
        }
        assert!(!event.event.is_last(), "{event:?}");
    }
    panic!("the run never began");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_its_making_to_its_end() {
    from_making_to_end(Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_session_from_its_making_to_its_end() {
    match Stage::with(Choice::Native).await {
        Ok(stage) => from_making_to_end(stage).await,
        Err(refusal) => println!("skipped: {refusal}"),
    }
}

async fn from_making_to_end(stage: Stage) {
    let platform = stage.open().await;
    let agent = deploy(&platform, "echo", ECHO).await;
    let made = platform
        .create_session(CreateSession { agent_id: "echo".into(), title: None, idle_timeout_seconds: None })
        .await
        .expect("a session");
    assert_eq!((made.status, made.title.as_deref(), made.message_count), (Status::Pending, None, 0));
    assert!(!stage.folder(&made.id).exists(), "nothing is made before the first message");
    assert_eq!(platform.events(&made.id, 0).await.err().map(|error| error.code()), Some(ErrorCode::NotFound));

    stage.let_pass(60);
    let events = run(&platform, &made.id, "  buy milk").await;
    is_a_run(&events);
    assert_eq!(text(&events), "you said:   buy milk");
    let session = platform.session(&made.id).await.expect("the session");
    assert_eq!(session.status, Status::Idle);
    assert_eq!(session.title.as_deref(), Some("buy milk"));
    assert_eq!(session.last_activity_at, Some(made.created_at.plus_millis(60_000)));
    assert_eq!(platform.activity().await, Activity { sessions: 1, active_runs: 0, live_agents: 1 });

    let again = run(&platform, &made.id, "and bread").await;
    assert_eq!(text(&again), "you said: and bread");
    assert_eq!(
        platform.events(&made.id, 1).await.expect("events").collect::<Vec<_>>().await,
        again[1..],
        "the latest run, after its first event"
    );
    let notes = stage.folder(&made.id).join("workspace/notes");
    assert_eq!(std::fs::read_to_string(&notes).expect("notes"), "  buy milk\nand bread\n");
    let history = std::fs::read_to_string(stage.folder(&made.id).join("run/history.jsonl")).expect("history");
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(
        history.starts_with(r#"{"turn":1,"role":"user","content":"  buy milk","at":"2026-"#),
        "{history}"
    );

    let messages = platform.messages(&made.id).await.expect("messages");
    let said: Vec<_> = messages.iter().map(|message| (message.role, message.content.as_str())).collect();
    assert_eq!(
        said,
        [
            (Role::User, "  buy milk"),
            (Role::Agent, "you said:   buy milk"),
            (Role::User, "and bread"),
            (Role::Agent, "you said: and bread")
        ]
    );

    let refused = platform.delete_session(&made.id).await.expect_err("it has not ended");
    assert_eq!(refused.code(), ErrorCode::Conflict);
    let ended = platform.end_session(&made.id).await.expect("an end");
    assert_eq!((ended.status, ended.end_reason), (Status::Ended, Some(EndReason::User)));
    assert_eq!(ended.last_activity_at, session.last_activity_at, "an end is no activity");
    assert!(!stage.folder(&made.id).exists());
    assert_eq!(std::fs::read_dir(stage.home.path().join("trash")).expect("trash").count(), 0);
    assert_eq!(platform.end_session(&made.id).await.expect("again"), ended);
    assert_eq!(platform.activity().await, Activity::default());
    for error in [
        platform.send(&made.id, "hello").await.err().expect("refused"),
        platform.resume_session(&made.id).await.expect_err("refused"),
    ] {
        assert_eq!(error.code(), ErrorCode::Ended);
        assert_eq!(error.to_string(), "Session has ended and cannot be resumed");
    }
    assert_eq!(platform.messages(&made.id).await.expect("the transcript stays"), messages);
    platform.delete_session(&made.id).await.expect("forgotten");
    assert_eq!(platform.session(&made.id).await.expect_err("gone").code(), ErrorCode::NotFound);
    assert_eq!(platform.agent(agent.id.as_str()).await.expect("the agent").name, "echo");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_back_with_its_workspace_and_its_history() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = r#"
IFS= read -r line
echo "${SUPERSERVE_RESUMED:-0} $(cat "$SUPERSERVE_HISTORY" | wc -l) $(cat mine 2>/dev/null) $SUPERSERVE"
echo "$line" >> mine
"#;
    deploy(&platform, "once", script).await;
    let id = create(&platform, "once").await;
    assert_eq!(text(&run(&platform, &id, "one").await).trim_end(), "0 0  1");
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Completed);
    assert_eq!(text(&run(&platform, &id, "two").await).trim_end(), "1 2 one 1");
    assert_eq!(platform.resume_session(&id).await.expect("it").status, Status::Idle);
    platform.shut_down().await;
    drop(platform);
    let platform = stage.open().await;
    assert_eq!(text(&run(&platform, &id, "three").await).trim_end(), "1 4 one\ntwo 1");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_turn_keeps_others_out_and_can_be_cancelled() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Active);
    assert_eq!(platform.send(&id, "more").await.err().map(|error| error.code()), Some(ErrorCode::Busy));
    assert_eq!(platform.resume_session(&id).await.err().map(|error| error.code()), Some(ErrorCode::Busy));
    stage.let_pass(48 * 3600);
    platform.expire_due().await;
    let cancelled = platform.cancel_session(&id).await.expect("cancelled");
    assert_eq!(cancelled.status, Status::Idle);
    let rest: Vec<_> = stream.collect().await;
    assert!(matches!(rest.last().map(|last| &last.event), Some(RunEvent::Cancelled {})), "{rest:?}");
    let messages = platform.messages(&id).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("begun", true));
    assert_eq!(platform.cancel_session(&id).await.expect("nothing to cancel").status, Status::Idle);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_running_session_cancels_its_run() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    let ended = platform.end_session(&id).await.expect("an end");
    assert_eq!(ended.status, Status::Ended);
    let rest: Vec<_> = stream.collect().await;
    assert!(matches!(rest.last().map(|last| &last.event), Some(RunEvent::Cancelled {})), "{rest:?}");
    assert!(!stage.folder(&id).exists());
    assert_eq!(platform.activity().await, Activity::default());
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_fail_say_why() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "crash", "read -r line; echo half; echo no luck >&2; exit 3").await;
    let id = create(&platform, "crash").await;
    let events = run(&platform, &id, "go").await;
    is_a_run(&events);
    let error = failure(&events);
    assert_eq!(error.message, "The agent exited with code 3");
    assert_eq!((error.code.as_deref(), error.stderr.as_deref()), (Some("agent_exited"), Some("no luck")));
    let session = platform.session(&id).await.expect("it");
    assert_eq!(session.status, Status::Failed);
    assert_eq!(session.error.as_deref(), Some("The agent exited with code 3\nno luck"));
    let messages = platform.messages(&id).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("half", true));
    assert_eq!(platform.resume_session(&id).await.expect("it").status, Status::Idle);

    deploy(&platform, "killed", "read -r line; kill -9 $$").await;
    let error = failure(&run(&platform, &create(&platform, "killed").await, "go").await);
    assert_eq!(error.message, "The agent was ended by signal 9 (SIGKILL)");
    assert_eq!(error.code.as_deref(), Some("agent_crashed"));

    deploy(&platform, "early", "echo cannot find my model >&2; exit 1").await;
    let error = failure(&run(&platform, &create(&platform, "early").await, "go").await);
    assert_eq!(error.message, "The agent exited with code 1 before it read its first message");
    assert_eq!(error.stderr.as_deref(), Some("cannot find my model"));

    platform.deploy(upload("missing", "no-such-program x", &[("a", "")])).await.expect("an agent");
    let error = failure(&run(&platform, &create(&platform, "missing").await, "go").await);
    assert!(error.message.contains("cannot run 'no-such-program'"), "{}", error.message);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let code = |result: Result<wire::Agent>| result.err().map(|error| error.code());
    let mut bad = upload("echo", "sh agent.sh", &[("agent.sh", ECHO)]);
    bad.name = "Bad Name".into();
    assert_eq!(code(platform.deploy(bad).await), Some(ErrorCode::Invalid));
    assert_eq!(code(platform.deploy(upload("echo", " ", &[("a", "")])).await), Some(ErrorCode::Invalid));
    let mut garbage = upload("echo", "sh agent.sh", &[]);
    garbage.archive = b"garbage".to_vec();
    assert_eq!(code(platform.deploy(garbage).await), Some(ErrorCode::Invalid));
    assert_eq!(std::fs::read_dir(stage.home.path().join("agents")).expect("agents").count(), 0);
    assert!(platform.agents(None).await.expect("agents").is_empty());
    let unknown = CreateSession { agent_id: "nobody".into(), title: None, idle_timeout_seconds: None };
    let error = platform.create_session(unknown).await.expect_err("no agent");
    assert_eq!(error.to_string(), "Agent not found: no agent is called 'nobody'");

    let mut secret = upload("secret", "sh agent.sh", &[("agent.sh", ECHO)]);
    secret.config.secrets = vec!["API_KEY".into()];
    assert_eq!(platform.deploy(secret).await.expect("an agent").required_secrets, ["API_KEY"]);
    let id = create(&platform, "secret").await;
    let error = platform.send(&id, "hello").await.err().expect("refused");
    assert_eq!(error.code(), ErrorCode::Invalid);
    assert!(error.to_string().contains("API_KEY"));
    assert_eq!(platform.session(&id).await.expect("it").message_count, 0);
    for (prompt, code) in
        [(String::new(), ErrorCode::Invalid), ("x".repeat((1 << 20) + 1), ErrorCode::TooLarge)]
    {
        assert_eq!(platform.send(&id, &prompt).await.err().map(|error| error.code()), Some(code));
    }
    assert_eq!(platform.resolve("ses_").await.expect_err("empty").code(), ErrorCode::Invalid);
    assert_eq!(platform.resolve(&id.digits()[..6]).await.expect("it"), std::slice::from_ref(&id));
    assert!(platform.resolve("xyz").await.expect("none").is_empty());
    let rows: Vec<_> =
        platform.end_many(vec!["nonsense".into(), id.to_string(), id.digits().into()]).collect().await;
    assert_eq!(rows.iter().map(|row| row.ok).collect::<Vec<_>>(), [false, true, true]);
    let unknown = SessionQuery { agent: Some("nobody".into()), ..SessionQuery::default() };
    assert_eq!(platform.sessions(&unknown).await.expect_err("no agent").code(), ErrorCode::NotFound);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_refuses_the_sandbox_says_so_before_anything_is_stored() {
    let stage = Stage::new().await;
    let refusal = sandbox::Refusal {
        step: "user namespace".into(),
        reason: "EPERM".into(),
        remedy: "allow them".into(),
    };
    let platform = stage.open_with(stage.options(), Err(refusal)).await;
    deploy(&platform, "echo", ECHO).await;
    let id = create(&platform, "echo").await;
    let error = platform.send(&id, "hello").await.err().expect("refused");
    assert_eq!((error.code(), error.hint().as_deref()), (ErrorCode::SandboxUnavailable, Some("allow them")));
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Pending);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_a_revision_and_sessions_keep_theirs() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = |word: &str| format!("while read -r line; do echo {word}; done");
    let first = deploy(&platform, "shop", &script("old")).await;
    assert_eq!((first.revision, first.source_hash.len()), (1, 64));
    assert_eq!(deploy(&platform, "shop", &script("old")).await, first, "nothing has changed");
    let old = create(&platform, "shop").await;
    let second = deploy(&platform, "shop", &script("new")).await;
    assert_eq!((second.revision, &second.id), (2, &first.id));
    let new = create(&platform, "shop").await;
    assert_eq!(text(&run(&platform, &old, "?").await), "old");
    assert_eq!(text(&run(&platform, &new, "?").await), "new");
    let code = stage.home.path().join("agents").join(first.id.as_str());
    assert!(code.join("1/src/agent.sh").exists());
    platform.end_session(&old).await.expect("an end");
    assert_eq!(deploy(&platform, "shop", &script("newest")).await.revision, 3);
    assert!(!code.join("1").exists() && code.join("2").exists() && code.join("3").exists());

    platform.delete_agent("shop").await.expect("deleted");
    assert!(!code.exists());
    let ended = platform.session(&new).await.expect("it");
    assert_eq!((ended.status, ended.end_reason), (Status::Ended, Some(EndReason::AgentDeleted)));
    assert_eq!(ended.agent_name.as_deref(), Some("shop"));
    assert_eq!(platform.agent("shop").await.expect_err("gone").code(), ErrorCode::NotFound);
    assert_ne!(deploy(&platform, "shop", &script("again")).await.id, first.id);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_wipes_what_was_left_alone() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let (used, untouched) = (create(&platform, "echo").await, create(&platform, "echo").await);
    stage.let_pass(12 * 3600);
    run(&platform, &used, "hello").await;
    stage.let_pass(12 * 3600);
    platform.expire_due().await;
    let expired = platform.session(&untouched).await.expect("it");
    assert_eq!((expired.status, expired.end_reason), (Status::Ended, Some(EndReason::Expired)));
    let session = platform.session(&used).await.expect("it");
    assert_eq!(session.status, Status::Idle);
    assert_eq!(session.expires_at, session.last_activity_at.map(|at| at.plus_millis(24 * 3600 * 1000)));
    stage.let_pass(12 * 3600);
    let error = platform.send(&used, "hello").await.err().expect("expired, though no timer has run");
    assert_eq!(error.code(), ErrorCode::Expired);
    assert_eq!(error.to_string(), "Session has expired. Start a new one with: superserve run <agent>");
    assert!(!stage.folder(&used).exists());
    assert_eq!(platform.resume_session(&used).await.expect_err("expired").code(), ErrorCode::Expired);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_running_turns_and_leaves_nothing() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.shut_down().await;
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(failure(&rest).code.as_deref(), Some("server_shutdown"));
    assert_eq!(platform.activity().await.live_agents, 0);
    assert_eq!(platform.send(&id, "go").await.err().map(|error| error.code()), Some(ErrorCode::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_is_taken_over() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    deploy(&platform, "echo", ECHO).await;
    let id = create(&platform, "slow").await;
    let ending = create(&platform, "echo").await;
    run(&platform, &ending, "hello").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.0.store.mark_ending(&ending, EndReason::User).await.expect("noted");
    std::fs::create_dir_all(stage.folder(&id).join("workspace.tmp/x")).expect("a stray folder");
    std::fs::create_dir_all(stage.home.path().join("trash/7/x")).expect("trash");
    let before = platform.session(&id).await.expect("it");

    // The first platform still holds its agents: what it would write is what a killed one never wrote.
    let second = stage.open().await;
    let events: Vec<_> = second.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&events);
    assert_eq!(failure(&events).code.as_deref(), Some("interrupted"));
    let session = second.session(&id).await.expect("it");
    assert_eq!((session.status, session.last_activity_at), (Status::Failed, before.last_activity_at));
    let messages = second.messages(&id).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("begun", true));
    assert_eq!(second.session(&ending).await.expect("it").status, Status::Ended);
    assert!(!stage.folder(&ending).exists());
    assert!(!stage.folder(&id).join("workspace.tmp").exists());
    assert_eq!(std::fs::read_dir(stage.home.path().join("trash")).expect("trash").count(), 0);
    assert_eq!(second.resume_session(&id).await.expect("it").status, Status::Idle);
    second.shut_down().await;
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_run_and_loses_nothing() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = r#"
read -r line; echo "begun"
while ! [ -e go ]; do sleep 0.02; done
i=0; while [ $i -lt 40 ]; do i=$((i+1)); printf '%04096d\n' 0; sleep 0.01; done
read -r line
"#;
    deploy(&platform, "long", script).await;
    let id = create(&platform, "long").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.0.store.fill_disk(true).await;
    std::fs::write(stage.folder(&id).join("workspace/go"), "").expect("a file");
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(failure(&rest).code.as_deref(), Some("store_unavailable"), "{rest:?}");
    let error = platform.send(&id, "more").await.err().expect("refused");
    assert_eq!(error.code(), ErrorCode::StoreUnavailable, "{error}");
    platform.0.store.fill_disk(false).await;
    let session = platform.resume_session(&id).await.expect("it");
    assert_eq!((session.status, session.message_count), (Status::Idle, 1));
    let events: Vec<_> = platform.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&events);
    assert_eq!(failure(&events).code.as_deref(), Some("store_unavailable"));
    let messages = platform.messages(&id).await.expect("messages");
    assert_eq!(messages[1].content, text(&events));
    assert!(messages[1].partial && messages[1].content.starts_with("begun\n0000"));
    platform.shut_down().await;
}

/// An agent by frames, whose tool takes what no parser would read back.
#[tokio::test(flavor = "multi_thread")]
async fn deep_json_does_not_break_a_stream() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let script = format!(
        r#"echo '{{"type":"ready"}}'
while read -r line; do
    echo '{{"type":"tool_start","id":"1","name":"deep","input":{deep}}}'
    echo '{{"type":"turn_done"}}'
done"#
    );
    deploy(&platform, "deep", &script).await;
    let id = create(&platform, "deep").await;
    is_a_run(&run(&platform, &id, "go").await);
    let stored: Vec<_> = platform.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&stored);
    let input = Value::String(deep);
    let tool = RunEvent::ToolStart { tool: "deep".into(), input };
    assert_eq!(stored[1].event, tool);
    platform.shut_down().await;
}

/// An interpreter outside the system's folders is found by the PATH and shown to the agent.
#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_of_ones_own_works_in_the_sandbox() {
    use std::os::unix::fs::PermissionsExt;
    let mut stage = match Stage::with(Choice::Native).await {
        Ok(stage) => stage,
        Err(refusal) => return println!("skipped: {refusal}"),
    };
    let prefix = stage.home.path().join("versions/mine");
    std::fs::create_dir_all(prefix.join("bin")).expect("a folder");
    std::fs::create_dir_all(prefix.join("lib")).expect("a folder");
    std::fs::write(prefix.join("lib/word"), "mine").expect("a file");
    let interpreter = prefix.join("bin/myshell");
    std::fs::copy("/bin/sh", &interpreter).expect("a shell");
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    stage.path = format!("{}:/usr/bin:/bin", prefix.join("bin").display());
    let platform = stage.open().await;
    let script = format!("while read -r line; do cat {}; echo; done", prefix.join("lib/word").display());
    platform.deploy(upload("own", "myshell a.sh", &[("a.sh", &script)])).await.expect("an agent");
    let id = create(&platform, "own").await;
    let events = run(&platform, &id, "go").await;
    assert_eq!(text(&events).trim(), "mine", "{events:?}");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_is_stopped_and_comes_back() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let create = CreateSession { agent_id: "echo".into(), title: None, idle_timeout_seconds: Some(0) };
    let id = platform.create_session(create).await.expect("a session").id;
    run(&platform, &id, "one").await;
    let gone = async {
        while platform.activity().await.live_agents > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the agent is stopped");
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Idle);
    assert_eq!(text(&run(&platform, &id, "two").await), "you said: two");
    platform.shut_down().await;
}

#[derive(Clone, Debug)]
enum Act {
    Send(bool),
    Cancel,
    Resume,
    End,
    Expire,
    Forget,
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<(Act, usize)>> {
    let act = prop_oneof![
        4 => any::<bool>().prop_map(Act::Send),
        2 => Just(Act::Cancel),
        2 => Just(Act::Resume),
        1 => Just(Act::End),
        1 => Just(Act::Expire),
        1 => Just(Act::Forget),
        2 => Just(Act::Wait),
    ];
    prop::collection::vec((act, 0..2usize), 1..12)
}

/// Whatever is asked in whatever order: runs end once, states fit, nothing of an ended session is left.
#[test]
fn any_row_of_requests_keeps_the_rules() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let stage = runtime.block_on(Stage::new());
    let platform = runtime.block_on(async {
        let platform = stage.open().await;
        deploy(
            &platform,
            "mixed",
            "while read -r l; do echo \"$l\"; if [ \"$l\" = slow ]; then sleep 30; fi; done",
        )
        .await;
        platform
    });
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let result = runner.run(&acts(), |acts| {
        runtime.block_on(async {
            let ids = [create(&platform, "mixed").await, create(&platform, "mixed").await];
            let mut runs = Vec::new();
            for (act, which) in acts {
                let id = ids[which].clone();
                match act {
                    Act::Send(slow) => {
                        if let Ok(stream) = platform.send(&id, if slow { "slow" } else { "quick" }).await {
                            runs.push(tokio::spawn(stream.collect::<Vec<_>>()));
                        }
                    }
                    Act::Cancel => drop(platform.cancel_session(&id).await),
                    Act::Resume => drop(platform.resume_session(&id).await),
                    Act::End => drop(platform.end_session(&id).await),
                    Act::Expire => {
                        stage.let_pass(25 * 3600);
                        platform.expire_due().await;
                    }
                    Act::Forget => drop(platform.delete_session(&id).await),
                    Act::Wait => tokio::time::sleep(Duration::from_millis(3)).await,
                }
            }
            for id in &ids {
                let session = match platform.cancel_session(id).await {
                    Ok(session) => session,
                    Err(error) => {
                        prop_assert_eq!(error.code(), ErrorCode::NotFound);
                        continue;
                    }
                };
                prop_assert_ne!(session.status, Status::Active);
                prop_assert_eq!(session.status == Status::Ended, session.end_reason.is_some());
                let users = platform
                    .messages(id)
                    .await
                    .expect("messages")
                    .iter()
                    .filter(|m| m.role == Role::User)
                    .count();
                prop_assert_eq!(session.message_count, users as u64);
            }
            for run in runs {
                let events = run.await.expect("a run");
                let ends = events.iter().filter(|event| event.event.is_last()).count();
                prop_assert_eq!(ends, 1, "{:?}", events);
            }
            for id in &ids {
                let _ = platform.end_session(id).await;
                prop_assert!(!stage.folder(id).exists());
            }
            prop_assert_eq!(platform.activity().await, Activity::default());
            Ok(())
        })
    });
    runtime.block_on(platform.shut_down());
    result.expect("the rules hold");
}
