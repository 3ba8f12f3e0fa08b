//! One task a session, while anything happens in it: it alone changes the session and owns its agent, so that what
//! is asked of a session happens one thing after the other.

use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::files::Work;
use super::room::Known;
use super::start::Agent;
use super::stream::{Broadcast, RunStream};
use super::{Error, Inner, Result, blocking};
use crate::fault;
use crate::sandbox::Wiped;
use crate::store::{OpenRun, RunEnd, StoredSession};
use crate::wire::{EndReason, FileEntry, Receipt, RunId, Session, SessionId, Status, Timestamp};

/// How long between two attempts to store the end of a run.
const SETTLE_AGAIN: Duration = Duration::from_secs(1);

/// Where the answer to a command goes.
pub type Answer<T> = oneshot::Sender<Result<T>>;

/// What is asked of a session.
pub enum Command {
    Send {
        prompt: String,
        /// The ID that the run gets, if its client has made one.
        run: Option<RunId>,
        answer: Answer<RunStream>,
    },
    Cancel {
        answer: Answer<Session>,
    },
    Resume {
        answer: Answer<Session>,
    },
    End {
        reason: EndReason,
        /// Not while a run is going on.
        unless_active: bool,
        answer: Answer<Session>,
    },
    /// Ends the session if it is due.
    Expire {
        answer: Answer<Session>,
    },
    Forget {
        answer: Answer<()>,
    },
    /// Stops the agent if it waits, so that another one has room.
    MakeRoom,
    /// Does something to the workspace.
    Work {
        work: Work,
        answer: Answer<Option<FileEntry>>,
    },
}

/// A command with the request on whose behalf it is sent, so that what is logged names it.
pub struct Letter {
    pub command: Command,
    pub span: Span,
}

/// A session's task.
pub struct Actor {
    pub(super) inner: Arc<Inner>,
    pub(super) id: SessionId,
    pub(super) mailbox: mpsc::UnboundedReceiver<Letter>,
    pub(super) agent: Option<Agent>,
    /// What is known of how full its folders are.
    pub(super) known: Known,
    /// The end of a run that could not be stored yet.
    pub(super) unsettled: Option<RunEnd>,
}

/// What the task woke up for.
enum Woken {
    Letter(Option<Letter>),
    AgentGone,
    IdleTooLong,
    SettleAgain,
    Stop,
}

impl Actor {
    pub fn new(inner: Arc<Inner>, id: SessionId, mailbox: mpsc::UnboundedReceiver<Letter>) -> Self {
        Self { inner, id, mailbox, agent: None, known: Known::default(), unsettled: None }
    }

    /// Serves the session until there is nothing left to hold on to.
    pub async fn run(mut self) {
        while !self.has_left() {
            match self.wake().await {
                Woken::Letter(Some(Letter { command, span })) => self.obey(command).instrument(span).await,
                Woken::Letter(None) => break,
                Woken::AgentGone => {
                    tracing::info!(session = %self.id, "the agent has ended while it waited for a message");
                    self.kill_agent().await;
                }
                Woken::IdleTooLong => {
                    tracing::debug!(session = %self.id, "the idle agent is stopped");
                    self.end_agent().await;
                }
                Woken::SettleAgain => {
                    let _ = self.settle().await;
                }
                Woken::Stop => {
                    self.end_agent().await;
                    if let Err(error) = self.settle().await {
                        tracing::error!(session = %self.id, %error, "the end of a run could not be stored");
                        self.unsettled = None;
                    }
                }
            }
        }
    }

    async fn wake(&mut self) -> Woken {
        let unsettled = self.unsettled.is_some();
        let (idle_until, gone) = match &mut self.agent {
            Some(agent) => (Some(agent.idle_until), Some(agent.conversation.idle())),
            None => (None, None),
        };
        let gone = async {
            match gone {
                Some(gone) => gone.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            letter = self.mailbox.recv() => Woken::Letter(letter),
            () = self.inner.stop.cancelled() => Woken::Stop,
            _ = gone => Woken::AgentGone,
            () = tokio::time::sleep_until(idle_until.unwrap_or_else(Instant::now)), if idle_until.is_some() =>
                Woken::IdleTooLong,
            () = tokio::time::sleep(SETTLE_AGAIN), if unsettled => Woken::SettleAgain,
        }
    }

    /// Leaves, unless there is an agent, a debt, or something in the mailbox.
    fn has_left(&mut self) -> bool {
        if self.agent.is_some() || self.unsettled.is_some() {
            return false;
        }
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let leaves = self.mailbox.is_empty();
        if leaves {
            actors.remove(&self.id);
        }
        leaves
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Send { prompt, run, answer } => match self.begin(&prompt, run).await {
                Ok(run) => {
                    let _ = answer.send(Ok(run.follow(&self.inner.store)));
                    self.run_turn(run).await;
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            },
            Command::Cancel { answer } => {
                let _ = answer.send(self.view().await);
            }
            Command::Resume { answer } => {
                let _ = answer.send(self.resume().await);
            }
            Command::End { reason, answer, .. } => {
                let _ = answer.send(self.end(reason, None).await);
            }
            Command::Expire { answer } => {
                let _ = answer.send(self.expire().await);
            }
            Command::Forget { answer } => {
                let _ = answer.send(self.forget().await);
            }
            Command::MakeRoom => {
                if let Some(agent) = &self.agent {
                    tracing::debug!(session = %self.id, "the agent makes room for another");
                    if !agent.conversation.keeps_history() {
                        self.inner.warm.loses(&self.id);
                    }
                    self.end_agent().await;
                }
            }
            Command::Work { work, answer } => {
                let _ = answer.send(self.work(work).await);
            }
        }
    }

    pub(super) async fn load(&self) -> Result<StoredSession> {
        let stored = self.inner.store.session(&self.id).await?;
        stored.ok_or_else(|| Error::SessionNotFound(self.id.to_string()))
    }

    pub(super) async fn view(&self) -> Result<Session> {
        Ok(self.inner.view(self.load().await?.session))
    }

    /// The session, if messages can be sent to it. One that is due expires by this.
    pub(super) async fn usable(&mut self) -> Result<StoredSession> {
        self.settle().await?;
        let mut stored = self.load().await?;
        if stored.session.status == Status::Active
            && let Some(run) = self.inner.store.latest_run(&self.id).await?
            && run.going_on
        {
            // This task works at none: it is one that an earlier task or server could not close.
            let run = OpenRun { id: run.id, session: self.id.clone(), turn: run.turn };
            self.inner.close_interrupted(&run).await?;
            stored = self.load().await?;
        }
        if stored.session.status != Status::Ended
            && stored.ending.is_none()
            && self.inner.is_due(&stored.session)
        {
            self.end(EndReason::Expired, None).await?;
            return Err(ended(&stored.session, Some(EndReason::Expired)));
        }
        match (stored.session.status, stored.ending) {
            (Status::Ended, _) => Err(ended(&stored.session, stored.session.end_reason)),
            (_, Some(reason)) => Err(ended(&stored.session, Some(reason))),
            (_, None) => Ok(stored),
        }
    }

    async fn resume(&mut self) -> Result<Session> {
        let stored = self.usable().await?;
        match stored.session.status {
            Status::Active => Err(Error::Busy(None)),
            Status::Completed | Status::Failed => {
                self.inner.store.set_status(&self.id, Status::Idle).await?;
                self.view().await
            }
            Status::Ended | Status::Idle | Status::Pending => Ok(self.inner.view(stored.session)),
        }
    }

    async fn expire(&mut self) -> Result<Session> {
        let stored = self.load().await?;
        if stored.ending.is_some() || self.inner.is_due(&stored.session) {
            return self.end(EndReason::Expired, None).await;
        }
        Ok(self.inner.view(stored.session))
    }

    async fn forget(&mut self) -> Result<()> {
        let stored = self.load().await?;
        if stored.session.status != Status::Ended {
            return Err(Error::NotEnded(self.id.clone()));
        }
        self.inner.store.delete_session(&self.id).await?;
        Ok(self.inner.store.forget_deleted_agents().await?)
    }

    /// Ends the session: the agent first, then its folders, then its row, and with it the run that was going on.
    pub(super) async fn end(
        &mut self,
        reason: EndReason,
        run: Option<(RunEnd, &Broadcast)>,
    ) -> Result<Session> {
        let stored = self.load().await?;
        if stored.session.status == Status::Ended {
            return Ok(self.inner.view(stored.session));
        }
        // A full disk must not keep a session from being ended: that is what would free it.
        if let Err(error) = self.inner.store.mark_ending(&self.id, reason).await {
            tracing::warn!(session = %self.id, %error, "cannot note that the session is being ended");
        }
        let processes = self.agent.as_ref().map_or(0, |agent| agent.conversation.processes());
        self.end_agent().await;
        self.inner.warm.forget(&self.id);
        let receipt = match self.wipe(processes).await {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::error!(session = %self.id, %error, "the session's folders cannot be wiped");
                if let Some((end, broadcast)) = run {
                    self.finish(end, broadcast).await;
                }
                return Err(error);
            }
        };
        let now = self.inner.clock.now_millis();
        let (debt, end) = (self.unsettled.take(), run.as_ref().map(|(end, _)| end));
        let store = &self.inner.store;
        let finished = store.finish_session(&self.id, reason, end.or(debt.as_ref()), &receipt, now).await;
        if let Err(error) = finished {
            self.unsettled = debt;
            if let Some((end, broadcast)) = run {
                self.finish(end, broadcast).await;
            }
            return Err(error.into());
        }
        if let Some((end, broadcast)) = run {
            fault::step("event.publish", || broadcast.publish(end.events));
        }
        self.view().await
    }

    /// Wipes the session's folders and sees to it that nothing is left where they were. What takes longer than its time
    /// is out of its place by then, and goes on by itself: the receipt has its time when the last byte is gone.
    async fn wipe(&self, processes: u64) -> Result<Receipt> {
        let (layout, folder) = (self.inner.layout.clone(), self.inner.layout.session(&self.id).all);
        let place = folder.clone();
        let mut wiping = tokio::spawn(blocking(move || layout.wipe(&folder)).in_current_span());
        let is_gone = || place.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let done = loop {
            match tokio::time::timeout(self.inner.options.wipe_within, &mut wiping).await {
                Ok(done) => break Some(done.unwrap_or(Err(Error::Internal("wiping a session's folders")))?),
                Err(_elapsed) if is_gone() => break None,
                Err(_elapsed) => {}
            }
        };
        let receipt = move |wiped: Option<Wiped>, at| Receipt {
            files: wiped.map_or(0, |wiped| wiped.files),
            bytes: wiped.map_or(0, |wiped| wiped.bytes),
            processes,
            wiped_at: at,
        };
        let Some(wiped) = done else {
            let (inner, id) = (self.inner.clone(), self.id.clone());
            tokio::spawn(
                async move {
                    let Ok(Ok(wiped)) = wiping.await else { return };
                    let at = Timestamp::from_millis(inner.clock.now_millis());
                    if let Err(error) = inner.store.set_receipt(&id, &receipt(Some(wiped), Some(at))).await {
                        tracing::warn!(session = %id, %error, "cannot note that a session is wiped");
                    }
                }
                .in_current_span(),
            );
            return Ok(receipt(None, None));
        };
        if !is_gone() {
            return Err(Error::Internal("wiping a session's folders: something is there again"));
        }
        Ok(receipt(Some(wiped), Some(Timestamp::from_millis(self.inner.clock.now_millis()))))
    }

    /// Stores the end of a run that could not be stored when it came.
    pub(super) async fn settle(&mut self) -> Result<()> {
        if let Some(end) = &self.unsettled {
            self.inner.store.finish_run(end).await?;
            self.unsettled = None;
        }
        Ok(())
    }

    /// Ends the agent in good manners; nothing of it is left when this answers.
    pub(super) async fn end_agent(&mut self) {
        self.inner.warm.waits_no_more(&self.id);
        if let Some(agent) = self.agent.take() {
            agent.conversation.end(self.inner.options.end_grace).await;
        }
    }

    /// Kills the agent; nothing of it is left when this answers.
    pub(super) async fn kill_agent(&mut self) {
        self.inner.warm.waits_no_more(&self.id);
        if let Some(agent) = self.agent.take() {
            agent.conversation.kill().await;
        }
    }
}

fn ended(session: &Session, reason: Option<EndReason>) -> Error {
    let agent = session.agent_name.clone().unwrap_or_else(|| session.agent_id.to_string());
    match reason {
        Some(EndReason::Expired) => Error::Expired { agent },
        _ => Error::Ended { agent },
    }
}
