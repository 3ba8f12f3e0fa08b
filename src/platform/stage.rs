//! What the tests of the platform stand on: a real store, real processes, agents in POSIX sh.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;

use super::*;
use crate::sandbox::{self, Choice, Spawner};
use crate::wire::{self, CreateSession, Network, NumberedEvent, RunEvent};

/// Answers each line, and remembers what it was told in its workspace.
pub(super) const ECHO: &str = r#"
while IFS= read -r line; do
    echo "$line" >> notes
    echo "you said: $line"
done
"#;

/// Says something, then never comes to an end.
pub(super) const SLOW: &str = r#"
trap 'exit 130' INT
while IFS= read -r line; do
    echo "begun"
    while :; do sleep 0.05; done
done
"#;

pub(super) const UID_BASE: u32 = 1_900_000_000;

pub(super) struct Stage {
    pub(super) home: TempDir,
    clock: PathBuf,
    sandbox: Arc<dyn sandbox::Sandbox>,
    pub(super) path: String,
}

/// The spawner is the test binary itself, which the sandbox's tests make into one by this variable.
#[expect(clippy::disallowed_methods, reason = "the tests' stand-in for the daemon, which starts the spawner")]
pub(super) fn spawner() -> Spawner {
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
    pub(super) async fn new() -> Self {
        Self::with(Choice::None).await.expect("no isolation needs nothing")
    }

    pub(super) async fn with(choice: Choice) -> Result<Self, sandbox::Refusal> {
        let home = tempfile::tempdir().expect("a folder");
        let clock = home.path().join("now");
        std::fs::write(&clock, "1773051300000").expect("a clock");
        let wish = sandbox::Wish { choice, only_full: true };
        let sandbox = sandbox::open(wish, spawner(), home.path(), UID_BASE).await?.sandbox;
        Ok(Self { home, clock, sandbox, path: "/usr/local/bin:/usr/bin:/bin".into() })
    }

    pub(super) fn options(&self) -> Options {
        Options {
            home: self.home.path().to_owned(),
            limits: harness::Limits {
                quiet: Duration::from_secs(5),
                turn: Duration::from_secs(30),
                startup: Duration::from_secs(20),
                cancel_grace: Duration::from_secs(5),
            },
            expire_after: Some(Duration::from_secs(24 * 3600)),
            keep_events: None,
            keep_ended: None,
            uid_base: UID_BASE,
            end_grace: Duration::from_secs(2),
            max_warm: 64,
            wipe_within: Duration::from_secs(10),
            drain: Duration::from_millis(200),
            max_upload: 10 << 20,
            path: self.path.clone(),
            install_limit: Duration::from_secs(60),
            install_env: Vec::new(),
            vault: Vault::new(self.home.path(), None).expect("a vault"),
        }
    }

    pub(super) async fn open(&self) -> Platform {
        self.open_with(self.options(), Ok(self.sandbox.clone())).await
    }

    pub(super) async fn open_with(
        &self,
        options: Options,
        sandbox: Result<Arc<dyn sandbox::Sandbox>, sandbox::Refusal>,
    ) -> Platform {
        let store = Store::open(&self.home.path().join("superserve.db")).await.expect("a store");
        let clock = Clock::system().from_file(self.clock.clone());
        Platform::open(options, store, sandbox, clock).await.expect("a platform")
    }

    pub(super) fn let_pass(&self, seconds: i64) {
        let now: i64 = std::fs::read_to_string(&self.clock).expect("a time").trim().parse().expect("a time");
        std::fs::write(&self.clock, (now + seconds * 1000).to_string()).expect("a clock");
    }

    pub(super) fn folder(&self, id: &SessionId) -> PathBuf {
        self.home.path().join("sessions").join(id.as_str())
    }
}

pub(super) fn upload(name: &str, command: &str, files: &[(&str, &str)]) -> Upload {
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

pub(super) async fn deploy(platform: &Platform, name: &str, script: &str) -> wire::Agent {
    platform.deploy(upload(name, "sh agent.sh", &[("agent.sh", script)])).await.expect("an agent")
}

pub(super) async fn create(platform: &Platform, agent: &str) -> SessionId {
    let create = CreateSession { agent_id: agent.into(), title: None, idle_timeout_seconds: None };
    platform.create_session(create).await.expect("a session").id
}

pub(super) async fn run(platform: &Platform, id: &SessionId, prompt: &str) -> Vec<NumberedEvent> {
    let stream = platform.send(id, prompt).await.expect("a run");
    tokio::time::timeout(Duration::from_secs(60), stream.collect()).await.expect("an end")
}

pub(super) fn text(events: &[NumberedEvent]) -> String {
    let delta = |event: &NumberedEvent| match &event.event {
        RunEvent::Delta { content } => Some(content.clone()),
        _ => None,
    };
    events.iter().filter_map(delta).collect()
}

pub(super) fn is_a_run(events: &[NumberedEvent]) {
    assert!(matches!(events[0].event, RunEvent::Started { .. }), "{events:?}");
    assert_eq!(events.iter().filter(|event| event.event.is_last()).count(), 1, "{events:?}");
    assert!(events.last().is_some_and(|last| last.event.is_last()), "{events:?}");
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.number, number);
    }
}

pub(super) fn failure(events: &[NumberedEvent]) -> wire::event::RunError {
    match events.last().map(|last| &last.event) {
        Some(RunEvent::Failed { error }) => error.clone(),
        other => panic!("no failure: {other:?}"),
    }
}

/// Waits until the agent has said something; its stream goes on.
pub(super) async fn until_begun(stream: &mut RunStream) {
    while let Some(event) = stream.next().await {
        if matches!(event.event, RunEvent::Delta { .. }) {
            return;
        }
        assert!(!event.event.is_last(), "{event:?}");
    }
    panic!("the run never began");
}
