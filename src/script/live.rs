//! What exists on the server, for whoever types: asked in a moment or not at all, and kept for a few seconds.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use super::completion::{Live, LiveSession};
use super::failure::Failure;
use super::resolver::STANDARD;
use super::runtime::Runtime;
use crate::client::{self, Client};
use crate::render;
use crate::wire::{self, SessionQuery, Status};

/// How long somebody who pressed Tab is kept waiting.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(3);
/// How many sessions are asked for.
const SESSIONS: u32 = 200;
/// How many files of a folder are looked at.
const FILES: usize = 1000;

/// The last answers.
pub struct Answers {
    runtime: Runtime,
    /// Of the server that answered last.
    client: RefCell<Option<Client>>,
    agents: RefCell<Answer<String>>,
    sessions: RefCell<Answer<LiveSession>>,
}

/// What was answered, and until when it holds. Afterwards it is better than nothing.
struct Answer<T> {
    values: Vec<T>,
    until: Option<Instant>,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self { values: Vec::new(), until: None }
    }
}

impl Answers {
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.clone(),
            client: RefCell::default(),
            agents: RefCell::default(),
            sessions: RefCell::default(),
        }
    }

    /// Something may have been changed: the next one who asks is told anew.
    pub fn expire(&self) {
        self.agents.borrow_mut().until = None;
        self.sessions.borrow_mut().until = None;
    }

    /// One call to a server that runs already; nothing if it doesn't answer in time.
    fn ask<T, F: Future<Output = client::Result<T>>>(&self, call: impl FnOnce(Client) -> F) -> Option<T> {
        let known = self.client.take();
        let asked = async {
            let client = match known {
                Some(client) => client,
                None => self.runtime.host().connection.running().await?,
            };
            let answer = call(client.clone()).await;
            // One that fails may be of a server that has gone.
            if !matches!(answer, Err(client::Error::Unreachable { .. })) {
                *self.client.borrow_mut() = Some(client);
            }
            answer.ok()
        };
        let in_time = async { Ok::<_, Failure>(tokio::time::timeout(PATIENCE, asked).await.ok().flatten()) };
        self.runtime.block_on_through(in_time).ok().flatten()
    }

    fn kept<T: Clone>(slot: &RefCell<Answer<T>>, ask: impl FnOnce() -> Option<Vec<T>>) -> Vec<T> {
        let is_fresh = slot.borrow().until.is_some_and(|until| Instant::now() < until);
        if !is_fresh && let Some(values) = ask() {
            *slot.borrow_mut() = Answer { values, until: Some(Instant::now() + FRESH) };
        }
        slot.borrow().values.clone()
    }
}

fn told(session: &wire::Session) -> LiveSession {
    let line = |text: Option<&str>| render::clean_line(text.unwrap_or_default());
    LiveSession {
        short_id: session.id.short().to_owned(),
        agent: line(session.agent_name.as_deref()),
        title: line(session.title.as_deref()),
        is_ended: session.status == Status::Ended,
    }
}

impl Live for Answers {
    fn agents(&self) -> Vec<String> {
        Self::kept(&self.agents, || {
            let agents = self.ask(|client| async move { client.agents().await })?;
            Some(agents.into_iter().map(|agent| render::clean_line(&agent.name)).collect())
        })
    }

    fn sessions(&self, prefix: &str) -> Vec<LiveSession> {
        let mut found = Self::kept(&self.sessions, || {
            let query = SessionQuery { limit: Some(SESSIONS), ..SessionQuery::default() };
            let page = self.ask(|client| async move { client.sessions(&query).await })?;
            Some(page.sessions.iter().map(told).collect())
        });
        // One that nobody has touched for long.
        let is_of_id = prefix.len() >= 2 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_of_id && !found.iter().any(|session| session.short_id.starts_with(prefix)) {
            let asked = prefix.to_owned();
            let old = self.ask(|client| async move {
                let id = client.resolve(&asked).await?;
                client.session(&id).await
            });
            found.extend(old.as_ref().map(told));
        }
        found
    }

    fn modules(&self, prefix: &str) -> Vec<String> {
        let mut found: Vec<String> = STANDARD.iter().map(|(name, _)| (*name).to_owned()).collect();
        let (folder, head) = match prefix.rfind('/') {
            Some(slash) => (Path::new(&prefix[..=slash]), &prefix[..=slash]),
            None => (Path::new("."), ""),
        };
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES);
        found.extend(files.filter_map(|file| {
            let name = file.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
            if file.path().is_dir() {
                return Some(format!("{head}{name}/"));
            }
            Some(format!("{head}{}", name.strip_suffix(".rhai")?))
        }));
        found.sort();
        found
    }
}
