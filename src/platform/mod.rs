//! Agents, sessions and turns: the rules, without HTTP, SQL or processes.

mod actor;
mod agents;
mod archive;
mod backup;
mod command;
mod dependencies;
mod device;
mod error;
mod export;
mod failure;
mod files;
mod ledger;
mod plan;
mod put;
mod recovery;
mod retention;
mod ports;
mod room;
mod runtimes;
mod secrets;
mod sessions;
mod start;
mod stream;
mod tokens;
mod tree;
mod turn;
mod warm;
mod watch;
mod workspace;

#[cfg(test)]
mod requests;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod story;
#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod tree_tests;
#[cfg(test)]
mod trouble;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, mpsc, oneshot, watch as watch_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use crate::clock::Clock;
use crate::harness;
use crate::metrics::Metrics;
use crate::sandbox::{Refusal, Sandbox};
use crate::store::{Store, StoredSession};
use crate::vault::Vault;
use crate::wire::{AgentConfig, Isolation, Session, SessionId, Status, Timestamp};

use actor::{Actor, Answer, Command, Letter};
use device::Logins;
use stream::Broadcast;
use warm::Warm;
use workspace::Layout;

#[doc(hidden)]
pub use archive::{Bounds, unpack};
pub use device::{Decision, INTERVAL as LOGIN_INTERVAL, LIFE as LOGIN_LIFE, Waiting as WaitingLogin};
pub use error::{Error, Result};
pub use files::{Content, MAX_FILE, Pieces, too_large};
pub use runtimes::on_path;
pub use stream::RunStream;
pub use watch::SessionStream;

/// After so many idle seconds an agent's process is stopped, unless its session says otherwise.
const IDLE_TIMEOUT_SECONDS: u64 = 1740;
/// So many sessions are ended at a time.
const ENDS_AT_ONCE: usize = 8;

/// What the platform is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub home: PathBuf,
    /// The times after which a turn is decided.
    pub limits: harness::Limits,
    /// After how much time without activity a session ends; `None`: never.
    pub expire_after: Option<Duration>,
    /// How long the events of a run are kept after it has ended; `None`: always.
    pub keep_events: Option<Duration>,
    /// How long a session is kept after it has ended; `None`: always.
    pub keep_ended: Option<Duration>,
    /// The host uid of the session with slot 0, where the server is a privileged root.
    pub uid_base: u32,
    /// How long an agent gets to leave by itself when its session ends.
    pub end_grace: Duration,
    /// How many agents may wait for a message at a time; beyond that the least recently used are stopped.
    pub max_warm: usize,
    /// How long the end of a session waits for the last byte to be gone.
    pub wipe_within: Duration,
    /// How long running turns get when the server shuts down.
    pub drain: Duration,
    /// The largest archive that a deployment may carry, in bytes, compressed.
    pub max_upload: u64,
    /// The PATH on which interpreters are looked up.
    pub path: String,
    /// How long installing an agent's dependencies may take.
    pub install_limit: Duration,
    /// Variables for those who install: package indexes, proxies.
    pub install_env: Vec<(String, String)>,
    /// What encrypts the agents' secrets.
    pub vault: Vault,
}

/// An agent as it is deployed.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    pub name: String,
    /// Goes before the configuration's.
    pub command: Option<String>,
    pub config: AgentConfig,
    /// tar, gzipped.
    pub archive: Vec<u8>,
}

/// What is going on, by which the daemon decides whether it may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Sessions that have not ended.
    pub sessions: u64,
    pub active_runs: u64,
    /// Agents' processes, working or waiting.
    pub live_agents: u64,
}

/// The platform; cheap to clone.
#[derive(Clone)]
pub struct Platform(Arc<Inner>);

struct Inner {
    options: Options,
    layout: Layout,
    store: Store,
    sandbox: Result<Arc<dyn Sandbox>, Refusal>,
    clock: Clock,
    /// The mailboxes of the sessions in which something happens.
    actors: Mutex<HashMap<SessionId, mpsc::UnboundedSender<Letter>>>,
    /// The runs that are going on.
    going: Mutex<HashMap<SessionId, Arc<Broadcast>>>,
    /// Where runs that are going on hear of what the network denies.
    ears: Mutex<HashMap<SessionId, ledger::Ear>>,
    live_agents: Arc<AtomicU64>,
    /// Those of them that wait, and those that crash as they start.
    warm: Warm,
    ports: ports::Ports,
    /// One deployment at a time.
    deploying: tokio::sync::Mutex<()>,
    /// One at a time lets go of what is past its time.
    collecting: tokio::sync::Mutex<()>,
    /// One change of secrets at a time.
    secrets: tokio::sync::Mutex<()>,
    /// What is being installed, by its hash: each goes when it is over.
    installing: Mutex<HashMap<String, watch_channel::Receiver<()>>>,
    /// Logins that wait for an owner's word.
    logins: Mutex<Logins>,
    /// Read while a session is made of a revision, written while revisions go.
    revisions: RwLock<()>,
    /// No new runs.
    stop: CancellationToken,
    /// When those that are going on must be over.
    deadline: OnceLock<Instant>,
    tasks: TaskTracker,
    /// All is over: nothing will change any more.
    closed: CancellationToken,
}

impl Platform {
    /// Takes over what an earlier server left: runs that were going on have failed, what has expired is ended.
    pub async fn open(
        options: Options,
        store: Store,
        sandbox: Result<Arc<dyn Sandbox>, Refusal>,
        clock: Clock,
    ) -> Result<Self> {
        let home = options.home.clone();
        let platform = Self(Arc::new(Inner {
            layout: blocking(move || Layout::new(&home)).await?,
            options,
            store,
            sandbox,
            clock,
            actors: Mutex::default(),
            going: Mutex::default(),
            ears: Mutex::default(),
            live_agents: Arc::default(),
            warm: Warm::default(),
            ports: ports::Ports::default(),
            deploying: tokio::sync::Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
            secrets: tokio::sync::Mutex::default(),
            installing: Mutex::default(),
            logins: Mutex::default(),
            revisions: RwLock::default(),
            stop: CancellationToken::new(),
            deadline: OnceLock::new(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }));
        platform.recover().await?;
        platform.expire_due().await;
        Ok(platform)
    }

    /// What is going on.
    pub async fn activity(&self) -> Activity {
        let sessions = self.0.store.count_sessions().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot count the sessions");
            0
        });
        let active_runs = self.0.going.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        Activity { sessions, active_runs, live_agents: self.0.live_agents.load(Ordering::Relaxed) }
    }

    /// Where all that happens here is counted.
    pub fn metrics(&self) -> &Metrics {
        self.0.store.metrics()
    }

    /// How agents are kept apart from the machine, or why they can't be.
    pub fn isolation(&self) -> Result<Isolation, Refusal> {
        self.0.sandbox.as_ref().map(|sandbox| sandbox.isolation()).map_err(Clone::clone)
    }

    /// Refuses new runs, gives those that are going on `drain`, ends all agents; nothing is left when it answers.
    pub async fn shut_down(&self) {
        let _ = self.0.deadline.set(Instant::now() + self.0.options.drain);
        {
            // Whoever asks after this finds either a task that is still there or a refusal.
            let _actors = self.0.actors.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.stop.cancel();
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.closed.cancel();
    }

    /// Asks something of a session's task, which is started if there is none.
    async fn ask<T>(&self, id: &SessionId, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (answer, reply) = oneshot::channel();
        self.post(id, command(answer))?;
        reply.await.unwrap_or_else(|_| {
            let stopping = self.0.stop.is_cancelled();
            Err(if stopping { Error::ShuttingDown } else { Error::Internal("answering for a session") })
        })
    }

    fn post(&self, id: &SessionId, command: Command) -> Result<()> {
        let letter = Letter { command, span: Span::current() };
        let mut actors = self.0.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let letter = match actors.get(id) {
            Some(mailbox) => match mailbox.send(letter) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None if self.0.stop.is_cancelled() => return Err(Error::ShuttingDown),
            None => letter,
        };
        let (mailbox, messages) = mpsc::unbounded_channel();
        // The receiver is right here.
        let _ = mailbox.send(letter);
        actors.insert(id.clone(), mailbox);
        self.0.tasks.spawn(Actor::new(self.0.clone(), id.clone(), messages).run());
        Ok(())
    }
}

impl Inner {
    /// A stored session as it is shown.
    fn view(&self, mut session: Session) -> Session {
        session.expires_at = self.expires_at(&session);
        session
    }

    /// The host uid that a session's files belong to, where the server is a privileged root.
    fn uid(&self, stored: &StoredSession) -> u32 {
        self.options.uid_base.saturating_add(u32::try_from(stored.seq).unwrap_or(u32::MAX))
    }

    fn expires_at(&self, session: &Session) -> Option<Timestamp> {
        let after = self.options.expire_after.filter(|_| session.status != Status::Ended)?;
        let since = session.last_activity_at.unwrap_or(session.created_at);
        Some(since.plus_millis(millis(after)))
    }

    /// Whether nothing has happened in the session for so long that it ends. Never while it is active.
    fn is_due(&self, session: &Session) -> bool {
        session.status != Status::Active
            && self.expires_at(session).is_some_and(|at| at.as_millis() <= self.clock.now_millis())
    }

    /// Answers when the server shuts down and the time for running turns is over.
    async fn turns_must_end(&self) {
        self.stop.cancelled().await;
        if let Some(deadline) = self.deadline.get() {
            tokio::time::sleep_until(*deadline).await;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or(Err(Error::Internal("working with files")))
}
