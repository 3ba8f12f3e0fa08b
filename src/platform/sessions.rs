//! What can be asked of sessions.

use std::collections::{BTreeMap, HashSet};

use futures_util::stream::{self, Stream, StreamExt};

use super::actor::Command;
use super::stream::RunStream;
use super::turn::check_prompt;
use super::{ENDS_AT_ONCE, Error, IDLE_TIMEOUT_SECONDS, Platform, Result, millis};
use crate::store::{NewSession, StoreError};
use crate::wire::session::EndError;
use crate::wire::{
    AgentId, CreateSession, EndReason, EndRow, ErrorDetails, Message, RunId, Session, SessionId, SessionPage,
    SessionQuery, SessionStats, StatsQuery,
};

/// The longest title that a caller may give, in characters.
const MAX_TITLE: usize = 1000;
/// The longest idle time-out, in seconds: a year.
const MAX_IDLE: u64 = 365 * 24 * 3600;
/// The most IDs that a prefix resolves to.
const MAX_RESOLVED: u32 = 1000;
/// So many sessions expire in one go.
const MAX_DUE: u32 = 10_000;

impl Platform {
    /// Makes a session, `pending`: its agent starts with its first message.
    ///
    /// Errors: no such agent; a title or a time-out out of bounds.
    pub async fn create_session(&self, create: CreateSession) -> Result<Session> {
        if self.0.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let title = create.title.as_deref().map(str::trim).filter(|title| !title.is_empty());
        if title.is_some_and(|title| title.chars().count() > MAX_TITLE) {
            return Err(Error::Invalid {
                message: format!("The title is longer than {MAX_TITLE} characters"),
                hint: None,
            });
        }
        let idle_timeout_seconds = create.idle_timeout_seconds.unwrap_or(IDLE_TIMEOUT_SECONDS);
        if idle_timeout_seconds > MAX_IDLE {
            return Err(Error::Invalid {
                message: format!("idle_timeout_seconds is more than {MAX_IDLE}, a year"),
                hint: None,
            });
        }
        let _revisions = self.0.revisions.read().await;
        let agent = self.agent(&create.agent_id).await?;
        let new = NewSession {
            id: SessionId::from_random(self.0.clock.random()),
            agent_id: agent.id,
            revision: agent.revision,
            title: title.map(str::to_owned),
            idle_timeout_seconds,
            at: self.0.clock.now_millis(),
        };
        self.0.store.insert_session(&new).await?;
        self.stored_session(&new.id).await
    }

    /// A page of sessions. Errors: an unknown agent; a cursor that is none.
    pub async fn sessions(&self, query: &SessionQuery) -> Result<SessionPage> {
        self.expire_due().await;
        let Some(agents) = self.agents_of(query).await? else { return Ok(SessionPage::default()) };
        let now = self.0.clock.now_millis();
        let mut page = self.0.store.sessions(query, &agents, now).await?;
        page.sessions = page.sessions.into_iter().map(|session| self.0.view(session)).collect();
        Ok(page)
    }

    /// What is counted over the sessions for which the query's conditions hold. Errors: an unknown agent.
    pub async fn session_stats(&self, query: &SessionQuery, stats: &StatsQuery) -> Result<SessionStats> {
        self.expire_due().await;
        let Some(agents) = self.agents_of(query).await? else {
            return Ok(SessionStats {
                min: stats.min.iter().map(|measure| (*measure, None)).collect(),
                max: stats.max.iter().map(|measure| (*measure, None)).collect(),
                sum: stats.sum.iter().map(|number| (*number, 0)).collect(),
                counts: stats.count_by.iter().map(|grouping| (*grouping, BTreeMap::new())).collect(),
                count: 0,
            });
        };
        Ok(self.0.store.session_stats(query, &agents, self.0.clock.now_millis(), stats).await?)
    }

    /// The agents that a query is about, none for all of them; `None` if no session can fit.
    async fn agents_of(&self, query: &SessionQuery) -> Result<Option<Vec<AgentId>>> {
        let named = self.agent_ids(&query.agent).await?;
        if query.agent_name.is_empty() {
            return Ok(Some(named));
        }
        let mut called = self.0.store.agents_called(&query.agent_name).await?;
        called.retain(|id| named.is_empty() || named.contains(id));
        Ok(Some(called).filter(|ids| !ids.is_empty()))
    }

    async fn agent_ids(&self, named: &[String]) -> Result<Vec<AgentId>> {
        let mut ids = Vec::with_capacity(named.len());
        for name in named {
            let id = self.0.store.agent_id(name).await?;
            let id = id.ok_or_else(|| Error::AgentNotFound(name.chars().take(100).collect()))?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// One session.
    pub async fn session(&self, id: &SessionId) -> Result<Session> {
        let session = self.stored_session(id).await?;
        if self.0.is_due(&session) && !self.0.stop.is_cancelled() {
            return self.ask(id, |answer| Command::Expire { answer }).await;
        }
        Ok(session)
    }

    async fn stored_session(&self, id: &SessionId) -> Result<Session> {
        let stored = self.0.store.session(id).await?;
        let stored = stored.ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
        Ok(self.0.view(stored.session))
    }

    /// The sessions whose digits begin with `prefix`, at most 1000. Errors: the prefix is empty.
    pub async fn resolve(&self, prefix: &str) -> Result<Vec<SessionId>> {
        let digits = SessionId::written_digits(prefix);
        if digits.is_empty() {
            return Err(Error::Invalid {
                message: "The ID is empty: give at least its first digit".into(),
                hint: Some("Run superserve sessions list to see your sessions.".into()),
            });
        }
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Vec::new());
        }
        Ok(self.0.store.sessions_by_prefix(&digits, MAX_RESOLVED).await?)
    }

    /// Ends a session: its agent is gone and its workspace wiped when this answers. Ending it again is no error.
    pub async fn end_session(&self, id: &SessionId) -> Result<Session> {
        self.end_for(id, EndReason::User).await
    }

    pub(super) async fn end_for(&self, id: &SessionId, reason: EndReason) -> Result<Session> {
        self.ask(id, |answer| Command::End { reason, unless_active: false, answer }).await
    }

    /// Ends many, eight at a time, and answers in their order. Dropping the stream stops it after those in flight. Those
    /// of `unless_active` are not ended while they work on a message.
    pub fn end_many(
        &self,
        ids: Vec<String>,
        unless_active: Vec<String>,
    ) -> impl Stream<Item = EndRow> + Send + 'static {
        let platform = self.clone();
        let unless_active: HashSet<String> = unless_active.into_iter().collect();
        stream::iter(ids)
            .map(move |id| {
                let platform = platform.clone();
                let unless_active = unless_active.contains(&id);
                async move { platform.end_row(id, unless_active).await }
            })
            .buffered(ENDS_AT_ONCE)
    }

    async fn end_row(&self, id: String, unless_active: bool) -> EndRow {
        let ended = match SessionId::from_written(&id) {
            Ok(session) => {
                let reason = EndReason::User;
                self.ask(&session, |answer| Command::End { reason, unless_active, answer }).await
            }
            Err(_) => Err(Error::SessionNotFound(id.clone())),
        };
        match ended {
            Ok(session) => EndRow { id, ok: true, session: Some(session), error: None },
            Err(error) => {
                let details = ErrorDetails { code: error.code(), hint: error.hint() };
                let error = EndError { message: error.to_string(), details };
                EndRow { id, ok: false, session: None, error: Some(error) }
            }
        }
    }

    /// Makes sure that a session can be gone on with: one that has failed or completed is idle again.
    pub async fn resume_session(&self, id: &SessionId) -> Result<Session> {
        self.ask(id, |answer| Command::Resume { answer }).await
    }

    /// Cancels the run that is going on, if there is one; answers when it is over.
    pub async fn cancel_session(&self, id: &SessionId) -> Result<Session> {
        self.ask(id, |answer| Command::Cancel { answer }).await
    }

    /// The transcript, or what of it belongs to one run: nothing if the session has no such run.
    pub async fn messages(&self, id: &SessionId, run: Option<&RunId>) -> Result<Vec<Message>> {
        self.stored_session(id).await?;
        Ok(self.0.store.messages(id, run).await?)
    }

    /// Forgets an ended session.
    pub async fn delete_session(&self, id: &SessionId) -> Result<()> {
        self.ask(id, |answer| Command::Forget { answer }).await
    }

    /// Sends a message and answers with the events of the run that it starts.
    pub async fn send(&self, id: &SessionId, prompt: &str) -> Result<RunStream> {
        self.send_as(id, prompt, None).await
    }

    /// The same; the run gets this ID. If the session's latest run has it already, its events are answered and nothing is
    /// sent: a client that never read the answer may ask again.
    ///
    /// Error besides those of a message: another run has this ID.
    pub async fn send_as(&self, id: &SessionId, prompt: &str, run: Option<RunId>) -> Result<RunStream> {
        check_prompt(prompt)?;
        let Some(run) = run else { return self.ask_to_send(id, prompt, None).await };
        if self.is_latest(id, &run).await? {
            return self.events(id, 0).await;
        }
        match self.ask_to_send(id, prompt, Some(run.clone())).await {
            // The same message came twice at once.
            Err(Error::Busy(Some(holder))) if holder.run == run => self.events(id, 0).await,
            Err(Error::RunTaken(_)) if self.is_latest(id, &run).await? => self.events(id, 0).await,
            other => other,
        }
    }

    async fn ask_to_send(&self, id: &SessionId, prompt: &str, run: Option<RunId>) -> Result<RunStream> {
        self.ask(id, |answer| Command::Send { prompt: prompt.to_owned(), run, answer }).await
    }

    async fn is_latest(&self, id: &SessionId, run: &RunId) -> Result<bool> {
        Ok(self.0.store.latest_run(id).await?.is_some_and(|latest| latest.id == *run))
    }

    /// The events of the latest run after the first `after`, then those to come.
    pub async fn events(&self, id: &SessionId, after: u64) -> Result<RunStream> {
        self.stored_session(id).await?;
        // Twice: a run that ends between the two looks is in the store by the second.
        for _ in 0..2 {
            let going =
                self.0.going.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned();
            if let Some(broadcast) = going {
                return Ok(RunStream::live(self.0.store.clone(), broadcast, after));
            }
            match self.0.store.latest_run(id).await? {
                None => return Err(Error::NoRun),
                Some(run) if !run.going_on => {
                    return Ok(RunStream::stored(self.0.store.clone(), run.id, after));
                }
                Some(_) => {}
            }
        }
        // It is over, and the disk is too full to say so.
        Err(StoreError::Unavailable { reason: "the end of the run is not stored yet".into() }.into())
    }

    /// Ends the sessions that have expired.
    pub async fn expire_due(&self) {
        let Some(after) = self.0.options.expire_after else { return };
        let before = self.0.clock.now_millis().saturating_sub(millis(after));
        let due = match self.0.store.sessions_due(before, MAX_DUE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "cannot look for sessions that have expired");
                return;
            }
        };
        stream::iter(due)
            .for_each_concurrent(ENDS_AT_ONCE, |id| async move {
                if let Err(error) = self.ask(&id, |answer| Command::Expire { answer }).await {
                    tracing::warn!(session = %id, %error, "cannot end a session that has expired");
                }
            })
            .await;
    }
}
