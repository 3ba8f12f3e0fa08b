//! Agents, sessions and turns: the rules, without HTTP, SQL or processes.

mod error;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;

use crate::clock::Clock;
use crate::harness;
use crate::sandbox::{Refusal, Sandbox};
use crate::store::Store;
use crate::wire::{
    self, AgentConfig, CreateSession, EndRow, Isolation, Message, NumberedEvent, Session, SessionId,
    SessionPage, SessionQuery,
};

pub use error::{Error, Result};

/// What the platform is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub home: PathBuf,
    /// The times after which a turn is decided.
    pub limits: harness::Limits,
    /// After how much time without activity a session ends; `None`: never.
    pub expire_after: Option<Duration>,
    /// The host uid of the session with slot 0, where the server is a privileged root.
    pub uid_base: u32,
    /// How long an agent gets to leave by itself when its session ends.
    pub end_grace: Duration,
    /// How long running turns get when the server shuts down.
    pub drain: Duration,
    /// The largest archive that a deployment may carry, in bytes, compressed.
    pub max_upload: u64,
    /// The PATH on which interpreters are looked up.
    pub path: String,
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

/// The events of one run, in order, as they come. Dropping it cancels nothing.
pub struct RunStream(Pin<Box<dyn Stream<Item = NumberedEvent> + Send>>);

impl Stream for RunStream {
    type Item = NumberedEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<NumberedEvent>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The platform; cheap to clone.
#[derive(Clone)]
pub struct Platform(#[expect(dead_code, reason = "read as soon as the bodies are there")] Arc<Inner>);

#[expect(dead_code, reason = "read as soon as the bodies are there")]
struct Inner {
    options: Options,
    store: Store,
    sandbox: Result<Arc<dyn Sandbox>, Refusal>,
    clock: Clock,
}

impl Platform {
    /// Takes over what an earlier server left: runs that were going on have failed, what has expired is ended.
    pub async fn open(
        options: Options,
        store: Store,
        sandbox: Result<Arc<dyn Sandbox>, Refusal>,
        clock: Clock,
    ) -> Result<Self> {
        Ok(Self(Arc::new(Inner { options, store, sandbox, clock })))
    }

    /// Deploys an agent; the same name again is a new revision of it, unless nothing has changed.
    pub async fn deploy(&self, upload: Upload) -> Result<wire::Agent> {
        Err(Error::AgentNotFound(upload.name))
    }

    /// All agents, latest deployment first.
    pub async fn agents(&self, limit: Option<u32>) -> Result<Vec<wire::Agent>> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// An agent by its name or ID.
    pub async fn agent(&self, name_or_id: &str) -> Result<wire::Agent> {
        Err(Error::AgentNotFound(name_or_id.into()))
    }

    /// Deletes an agent and ends its sessions.
    pub async fn delete_agent(&self, name_or_id: &str) -> Result<()> {
        Err(Error::AgentNotFound(name_or_id.into()))
    }

    pub async fn create_session(&self, create: CreateSession) -> Result<Session> {
        Err(Error::AgentNotFound(create.agent_id))
    }

    pub async fn sessions(&self, query: &SessionQuery) -> Result<SessionPage> {
        let _ = query;
        Ok(SessionPage::default())
    }

    pub async fn session(&self, id: &SessionId) -> Result<Session> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// The sessions whose digits begin with `prefix`, at most 1000.
    pub async fn resolve(&self, prefix: &str) -> Result<Vec<SessionId>> {
        let _ = prefix;
        Ok(Vec::new())
    }

    /// Ends a session: its agent is gone and its workspace wiped when this answers. Ending it again is no error.
    pub async fn end_session(&self, id: &SessionId) -> Result<Session> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// Ends many, eight at a time. Dropping the stream stops it after those in flight.
    pub fn end_many(&self, ids: Vec<String>) -> impl Stream<Item = EndRow> + Send + 'static {
        let _ = ids;
        futures_util::stream::empty()
    }

    pub async fn resume_session(&self, id: &SessionId) -> Result<Session> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// Cancels the run that is going on, if there is one.
    pub async fn cancel_session(&self, id: &SessionId) -> Result<Session> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// The transcript.
    pub async fn messages(&self, id: &SessionId) -> Result<Vec<Message>> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// Forgets an ended session.
    pub async fn delete_session(&self, id: &SessionId) -> Result<()> {
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// Sends a message and answers with the events of the run that it starts.
    pub async fn send(&self, id: &SessionId, prompt: &str) -> Result<RunStream> {
        let _ = prompt;
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// The events of the latest run after the first `after`, then those to come.
    pub async fn events(&self, id: &SessionId, after: u64) -> Result<RunStream> {
        let _ = after;
        Err(Error::SessionNotFound(id.to_string()))
    }

    /// What is going on.
    pub async fn activity(&self) -> Activity {
        Activity::default()
    }

    /// How agents are kept apart from the machine, or why they can't be.
    pub fn isolation(&self) -> Result<Isolation, Refusal> {
        Ok(Isolation::None)
    }

    /// Refuses new runs, gives those that are going on `drain`, ends all agents; nothing is left when it answers.
    pub async fn shut_down(&self) {}

    /// Ends the sessions that have expired.
    pub async fn expire_due(&self) {}
}
