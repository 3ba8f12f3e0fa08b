//! One turn of a session: a message to its agent, the reply as events, the state in which it leaves the session.

use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::actor::{Actor, Answer, Command, Letter};
use super::error::Holder;
use super::failure::Failure;
use super::files::do_work;
use super::ledger::Listening;
use super::room::Room;
use super::start::{self, Agent, Starting, idle_timeout};
use super::stream::{Broadcast, RunStream};
use super::{Error, Inner, Result};
use crate::fault;
use crate::harness::{Output, TurnEnd};
use crate::metrics::{Outcome as Became, RunTimer};
use crate::sandbox::{Exit, Limits};
use crate::store::{HistoryLine, NewRun, Revision, RunEnd, Store, StoredSession};
use crate::wire::session::MAX_PROMPT;
use crate::wire::{EndReason, NumberedEvent, Role, RunEvent, RunId, Session, SessionId, Status, Timestamp};

/// So much of the first message becomes the title, in characters.
const TITLE: usize = 200;
/// The most that an agent may say in one turn, in bytes.
const MAX_OUTPUT: usize = 64 << 20;
/// The deepest JSON that an event carries as such.
const MAX_DEPTH: usize = 64;
/// So many pieces of output wait to be stored, and go into one transaction.
const BATCH: usize = 64;

/// A run that is going on.
pub struct Run {
    id: RunId,
    stored: StoredSession,
    revision: Revision,
    prompt: String,
    turn: u64,
    started: i64,
    timer: RunTimer,
    going: Going,
    /// The number of its last event.
    number: u64,
    reply: String,
    /// How much the agent has said, in bytes, and may say.
    said: usize,
    most: usize,
    /// Events that are not stored yet.
    pending: Vec<NumberedEvent>,
}

/// A run's entry among those that are going on. Dropping it takes it out and lets its readers go.
struct Going {
    inner: Arc<Inner>,
    session: SessionId,
    broadcast: Arc<Broadcast>,
}

impl Going {
    fn new(inner: &Arc<Inner>, session: &SessionId, run: RunId) -> Self {
        let broadcast = Broadcast::new(run);
        let mut all = inner.going.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(session.clone(), broadcast.clone());
        Self { inner: inner.clone(), session: session.clone(), broadcast }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.inner.going.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
        self.broadcast.close();
    }
}

/// Why a turn was stopped from outside.
enum Stop {
    End(EndReason),
    Shutdown,
    Store(Error),
    TooMuch,
    Outgrown(Failure),
}

/// How a turn went.
enum Outcome {
    /// As the agent, or a cancellation, would have it.
    Ended(Result<TurnEnd, Failure>),
    Stopped(Stop),
}

/// Those who wait for the turn to be over.
#[derive(Default)]
struct Waiting {
    cancels: Vec<Answer<Session>>,
    ends: Vec<Answer<Session>>,
}

impl Run {
    /// The run's events, from its first.
    pub fn follow(&self, store: &Store) -> RunStream {
        RunStream::live(store.clone(), self.going.broadcast.clone(), 0)
    }

    fn push(&mut self, event: RunEvent) {
        self.number += 1;
        self.pending.push(NumberedEvent { run_id: self.id.clone(), number: self.number, event });
    }

    fn take(&mut self, output: Output) {
        self.timer.said();
        let event = match output {
            Output::Text(mut content) => {
                // What is beyond the limit by a piece is cut off, so that the limit is one.
                if self.said < self.most && self.said + content.len() > self.most {
                    let end = content.floor_char_boundary(self.most - self.said);
                    self.said += content.len() - end;
                    content.truncate(end);
                }
                self.said += content.len();
                self.reply.push_str(&content);
                RunEvent::Delta { content }
            }
            Output::Status(value) => {
                self.said += value.to_string().len();
                RunEvent::Status(flat(value))
            }
            Output::ToolStart { tool, input } => {
                self.said += tool.len() + input.to_string().len();
                RunEvent::ToolStart { tool, input: flat(input) }
            }
            Output::ToolEnd { duration_ms } => {
                self.said += size_of::<u64>();
                RunEvent::ToolEnd { duration_ms }
            }
        };
        self.push(event);
    }

    /// Stores what is pending, then shows it.
    async fn flush(&mut self, store: &Store) -> Result<()> {
        store.append_events(&self.pending).await?;
        fault::step("event.publish", || self.going.broadcast.publish(self.pending.drain(..)));
        Ok(())
    }

    /// The end of the run, with the session's new state.
    fn end(&mut self, now: i64, verdict: Verdict) -> RunEnd {
        let completed = matches!(verdict, Verdict::Completed(_));
        self.timer.over(match verdict {
            Verdict::Completed(_) => Became::Completed,
            Verdict::Cancelled => Became::Cancelled,
            Verdict::Failed(_) => Became::Failed,
        });
        let (event, status, error) = match verdict {
            Verdict::Completed(status) => {
                let duration_ms = u64::try_from(now.saturating_sub(self.started)).unwrap_or_default();
                let reached = self.revision.config.limits.turns.filter(|turns| self.turn >= *turns);
                let max_turns_reached = reached.map(|_| true);
                let max_turns_message = reached.map(|turns| {
                    format!("This was message {turns} of {turns} that this agent takes in a session")
                });
                (RunEvent::Completed { duration_ms, max_turns_reached, max_turns_message }, status, None)
            }
            Verdict::Cancelled => (RunEvent::Cancelled {}, Status::Idle, None),
            Verdict::Failed(failure) => {
                (RunEvent::Failed { error: failure.to_error() }, Status::Failed, Some(failure.sentence()))
            }
        };
        self.push(event);
        RunEnd {
            id: self.id.clone(),
            session: self.stored.session.id.clone(),
            events: std::mem::take(&mut self.pending),
            reply: std::mem::take(&mut self.reply),
            partial: !completed,
            status,
            error,
            activity: true,
            at: now,
        }
    }

    /// What the turn adds to the session's history.
    fn history(&self, end: &RunEnd) -> Vec<HistoryLine> {
        let mut lines = vec![HistoryLine {
            turn: self.turn,
            role: Role::User,
            content: self.prompt.clone(),
            at: Timestamp::from_millis(self.started),
            interrupted: end.partial && end.reply.is_empty(),
        }];
        if !end.reply.is_empty() {
            lines.push(HistoryLine {
                turn: self.turn,
                role: Role::Agent,
                content: end.reply.clone(),
                at: Timestamp::from_millis(end.at),
                interrupted: end.partial,
            });
        }
        lines
    }
}

/// What became of a run.
enum Verdict {
    Completed(Status),
    Cancelled,
    Failed(Failure),
}

impl Actor {
    /// Begins a run, if the session and the machine allow one.
    pub(super) async fn begin(&mut self, prompt: &str, wanted: Option<RunId>) -> Result<Run> {
        if self.inner.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let timer = self.inner.store.metrics().run();
        let stored = self.usable().await?;
        if stored.session.status == Status::Active {
            return Err(Error::Busy(None));
        }
        if let Err(refusal) = &self.inner.sandbox {
            return Err(Error::Sandbox(refusal.clone()));
        }
        let revision = self.inner.store.revision(&stored.session.agent_id, stored.revision).await?;
        let revision = revision.ok_or(Error::Internal("finding the session's revision of its agent"))?;
        let name = stored.session.agent_name.as_deref().unwrap_or(stored.session.agent_id.as_str());
        self.inner.check_required(&stored.session.agent_id, name, &revision.config.secrets).await?;
        let most = revision.config.limits.reply.and_then(|most| usize::try_from(most).ok());
        let most = most.unwrap_or(MAX_OUTPUT).min(MAX_OUTPUT);
        if let Some(limit) = revision.config.limits.turns
            && stored.session.message_count >= limit
        {
            let agent = stored.session.agent_name.clone();
            let agent = agent.unwrap_or_else(|| stored.session.agent_id.to_string());
            return Err(Error::MaxTurns { limit, agent });
        }
        let id = match wanted {
            Some(id) if self.inner.store.has_run(&id).await? => return Err(Error::RunTaken(id)),
            Some(id) => id,
            None => RunId::from_random(self.inner.clock.random()),
        };
        let started = self.inner.clock.now_millis();
        let first = NumberedEvent {
            run_id: id.clone(),
            number: 1,
            event: RunEvent::Started { run_id: id.clone(), session_id: self.id.clone() },
        };
        let new = NewRun {
            id: id.clone(),
            session: self.id.clone(),
            prompt: prompt.to_owned(),
            title: prompt.trim().chars().take(TITLE).collect(),
            started: first.clone(),
            at: started,
        };
        // Before the row is there, so that nobody finds a run that is going on and can't be followed.
        let going = Going::new(&self.inner, &self.id, id.clone());
        let turn = self.inner.store.begin_run(&new).await?;
        going.broadcast.publish([first]);
        Ok(Run {
            id,
            stored,
            revision,
            prompt: prompt.to_owned(),
            turn,
            started,
            timer,
            going,
            number: 1,
            reply: String::new(),
            said: 0,
            most,
            pending: Vec::new(),
        })
    }

    /// Runs a turn to its end, whatever is asked of the session meanwhile.
    pub(super) async fn run_turn(&mut self, mut run: Run) {
        self.inner.warm.waits_no_more(&self.id);
        let mut waiting = Waiting::default();
        let mut starting = Starting::default();
        let limits = Limits::from(&run.revision.config.limits);
        let room = Room::new(self.inner.layout.session(&self.id), &limits, &self.known);
        let mut outcome = self.attend(&mut run, &room, &mut waiting, &mut starting).await;
        starting.abort().await;
        let done = matches!(outcome, Outcome::Ended(Ok(TurnEnd::Done | TurnEnd::Exited(Exit::Code(0)))));
        if done && let Some(failure) = room.outgrown_at_end().await {
            outcome = Outcome::Stopped(Stop::Outgrown(failure));
        }
        if let Outcome::Stopped(Stop::End(reason)) = outcome {
            let end = run.end(self.inner.clock.now_millis(), Verdict::Cancelled);
            let broadcast = run.going.broadcast.clone();
            let session = self.end(reason, Some((end, &broadcast))).await;
            drop(run);
            self.answer(waiting, session).await;
            return;
        }
        let verdict = self.judge(outcome, &run).await;
        let end = run.end(self.inner.clock.now_millis(), verdict);
        let history = run.history(&end);
        let broadcast = run.going.broadcast.clone();
        // Before the last event: who has seen it may send the next message.
        if let Err(error) = self.inner.layout.session(&self.id).append_history(&history) {
            tracing::debug!(session = %self.id, %error, "no history is there to add to");
        }
        self.finish(end, &broadcast).await;
        if let Some(agent) = &mut self.agent {
            agent.idle_until = Instant::now() + idle_timeout(&run.stored);
            self.inner.warm.waits(&self.id, Instant::now());
        }
        drop(run);
        let session = self.view().await;
        self.answer(waiting, session).await;
    }

    /// Waits for the end of the turn, stores what the agent says, and answers what can't wait for the end.
    async fn attend(
        &mut self,
        run: &mut Run,
        room: &Room,
        waiting: &mut Waiting,
        starting: &mut Starting,
    ) -> Outcome {
        let Self { inner, agent, mailbox, id, .. } = self;
        let (run_id, run_started) = (run.id.clone(), run.started);
        let cancel = CancellationToken::new();
        let (output, mut said) = mpsc::channel(BATCH);
        let _listening = Listening::new(inner, id, output.clone());
        let order = Order {
            inner: inner.clone(),
            stored: run.stored.clone(),
            revision: run.revision.clone(),
            prompt: run.prompt.clone(),
            turn: run.turn,
            run: run.id.clone(),
        };
        let holder = |inner: &Inner| {
            let millis =
                u64::try_from(inner.clock.now_millis().saturating_sub(run_started)).unwrap_or_default();
            Error::Busy(Some(Holder { run: run_id.clone(), seconds: millis / 1000 }))
        };
        let outcome = {
            let work = order.work(agent, starting, &output, &cancel);
            let outgrown = room.outgrown();
            tokio::pin!(work, outgrown);
            loop {
                tokio::select! {
                    biased;
                    Some(Letter { command, span }) = mailbox.recv() => {
                        let attended = attend_command(inner, id, command, waiting, &cancel, &holder);
                        if let Some(stop) = attended.instrument(span).await {
                            break Outcome::Stopped(stop);
                        }
                    }
                    failure = &mut outgrown => break Outcome::Stopped(Stop::Outgrown(failure)),
                    () = inner.turns_must_end() => break Outcome::Stopped(Stop::Shutdown),
                    Some(first) = said.recv() => {
                        run.take(first);
                        while run.pending.len() < BATCH && let Ok(more) = said.try_recv() {
                            run.take(more);
                        }
                        if run.said > run.most {
                            break Outcome::Stopped(Stop::TooMuch);
                        }
                        if let Err(error) = run.flush(&inner.store).await {
                            break Outcome::Stopped(Stop::Store(error));
                        }
                    }
                    end = &mut work => break Outcome::Ended(end),
                }
            }
        };
        while let Ok(rest) = said.try_recv() {
            run.take(rest);
        }
        outcome
    }

    /// What an outcome means for the run and the session. An agent that is of no further use is gone after it.
    async fn judge(&mut self, outcome: Outcome, run: &Run) -> Verdict {
        let limits = start::limits(&self.inner, &run.revision);
        let stderr = self.agent.as_ref().map(|agent| agent.conversation.stderr_tail()).unwrap_or_default();
        let redaction = self.agent.as_ref().map(|agent| agent.redaction.clone()).unwrap_or_default();
        let verdict = match outcome {
            Outcome::Ended(Ok(TurnEnd::Done)) => return Verdict::Completed(Status::Idle),
            Outcome::Ended(Ok(TurnEnd::Cancelled { exited: false })) => return Verdict::Cancelled,
            Outcome::Ended(Ok(TurnEnd::Cancelled { exited: true })) => Verdict::Cancelled,
            Outcome::Ended(Ok(TurnEnd::Exited(Exit::Code(0)))) => Verdict::Completed(Status::Completed),
            Outcome::Ended(Ok(TurnEnd::Exited(exit))) => Verdict::Failed(Failure::exited(exit, &stderr)),
            Outcome::Ended(Ok(TurnEnd::TimedOut)) => {
                Verdict::Failed(Failure::timed_out(limits.turn, &stderr))
            }
            Outcome::Ended(Ok(TurnEnd::Failed { message })) => {
                Verdict::Failed(Failure::said(&redaction.text(message), &stderr))
            }
            Outcome::Ended(Err(failure)) => Verdict::Failed(failure),
            Outcome::Stopped(Stop::End(_)) => Verdict::Cancelled,
            Outcome::Stopped(Stop::Shutdown) => {
                self.end_agent().await;
                Verdict::Failed(Failure::shutdown())
            }
            Outcome::Stopped(Stop::Outgrown(failure)) => Verdict::Failed(failure.with_stderr(&stderr)),
            Outcome::Stopped(Stop::Store(error)) => Verdict::Failed(Failure::store(&error)),
            Outcome::Stopped(Stop::TooMuch) => Verdict::Failed(Failure::too_much(run.most)),
        };
        self.kill_agent().await;
        verdict
    }

    /// Stores the end of a run, then shows it. If it can't be stored, readers are told so, and it is tried again.
    pub(super) async fn finish(&mut self, mut end: RunEnd, broadcast: &Broadcast) {
        if let Err(error) = self.inner.store.finish_run(&end).await {
            tracing::error!(session = %self.id, %error, "the end of a run cannot be stored yet");
            let failure = Failure::store(&error);
            if let Some(last) = end.events.last_mut() {
                last.event = RunEvent::Failed { error: failure.to_error() };
            }
            end.status = Status::Failed;
            end.error = Some(failure.sentence());
            broadcast.publish(end.events.clone());
            self.unsettled = Some(end);
            return;
        }
        fault::step("event.publish", || broadcast.publish(end.events));
    }

    async fn answer(&self, waiting: Waiting, session: Result<Session>) {
        let mut first = Some(session);
        for answer in waiting.ends.into_iter().chain(waiting.cancels) {
            let session = match first.take() {
                Some(session) => session,
                None => self.view().await,
            };
            let _ = answer.send(session);
        }
    }
}

/// Answers a command that comes in the middle of a turn, or notes it; says whether it stops the turn.
async fn attend_command(
    inner: &Inner,
    id: &SessionId,
    command: Command,
    waiting: &mut Waiting,
    cancel: &CancellationToken,
    busy: &(dyn Fn(&Inner) -> Error + Sync),
) -> Option<Stop> {
    match command {
        Command::Send { answer, .. } => {
            let _ = answer.send(Err(busy(inner)));
        }
        Command::Resume { answer } => {
            let _ = answer.send(Err(busy(inner)));
        }
        Command::Expire { answer } => {
            // Never while a run is going on.
            let stored = inner.store.session(id).await;
            let _ = answer.send(match stored {
                Ok(Some(stored)) => Ok(inner.view(stored.session)),
                Ok(None) => Err(Error::SessionNotFound(id.to_string())),
                Err(error) => Err(error.into()),
            });
        }
        Command::Forget { answer } => {
            let _ = answer.send(Err(Error::NotEnded(id.clone())));
        }
        // It works: another one makes room.
        Command::MakeRoom => {}
        Command::Work { work, answer } => {
            let _ = answer.send(match inner.store.session(id).await {
                Ok(Some(stored)) => do_work(inner, &stored, work).await,
                Ok(None) => Err(Error::SessionNotFound(id.to_string())),
                Err(error) => Err(error.into()),
            });
        }
        Command::Cancel { answer } => {
            cancel.cancel();
            waiting.cancels.push(answer);
        }
        Command::End { unless_active: true, answer, .. } => {
            let _ = answer.send(Err(busy(inner)));
        }
        Command::End { reason, answer, .. } => {
            waiting.ends.push(answer);
            return Some(Stop::End(reason));
        }
    }
    None
}

/// JSON that every reader can parse: parsers stop at a depth of 128, and the event's own levels are around it.
fn flat(value: Value) -> Value {
    if depth(&value) <= MAX_DEPTH { value } else { Value::String(value.to_string()) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// What a turn consists of.
struct Order {
    inner: Arc<Inner>,
    stored: StoredSession,
    revision: Revision,
    prompt: String,
    turn: u64,
    run: RunId,
}

impl Order {
    /// Starts the agent, unless it is there, and has it take its turn.
    async fn work(
        &self,
        agent: &mut Option<Agent>,
        starting: &mut Starting,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> Result<TurnEnd, Failure> {
        let message = format!("msg_{}", self.run.digits());
        let waited = agent.is_some();
        if let Some(waiting) = agent {
            let end = waiting.conversation.turn(&self.prompt, &message, self.turn, output, cancel).await;
            // An agent that left just before the message came never saw it: that is the next one's.
            let unseen = matches!(end, TurnEnd::Exited(_)) && waiting.conversation.is_unread();
            if !unseen {
                return Ok(end);
            }
        }
        if waited && let Some(gone) = agent.take() {
            gone.conversation.kill().await;
        }
        let ready = tokio::select! {
            biased;
            ready = self.wait_for_dependencies(output) => ready,
            () = cancel.cancelled() => return Ok(TurnEnd::Cancelled { exited: true }),
        };
        ready?;
        self.make_room();
        if let Some((count, until)) = self.inner.warm.not_before(&self.stored.session.id, Instant::now()) {
            let seconds = until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
            say(
                output,
                &format!("the agent has crashed as it started ({count} times): trying again in {seconds} s"),
            );
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = cancel.cancelled() => return Ok(TurnEnd::Cancelled { exited: true }),
            }
        }
        let started = tokio::select! {
            biased;
            started = start::start(&self.inner, &self.stored, &self.revision, self.turn, starting) => started?,
            () = cancel.cancelled() => return Ok(TurnEnd::Cancelled { exited: true }),
        };
        if self.inner.warm.has_lost(&self.stored.session.id) {
            say(output, "agent restarted, in-process memory lost");
        }
        let started = agent.insert(started);
        Ok(started.conversation.turn(&self.prompt, &message, self.turn, output, cancel).await)
    }
}

impl Order {
    /// Waits until what the agent needs is installed, and says so if that takes a while.
    async fn wait_for_dependencies(&self, output: &mpsc::Sender<Output>) -> Result<(), Failure> {
        let Some(hash) = &self.revision.deps else { return Ok(()) };
        let agent = &self.stored.session.agent_id;
        self.inner.wait_for_dependencies(hash, agent, self.stored.revision, output).await
    }

    /// Has the agents that wait the longest stop, if this one would be one too many.
    fn make_room(&self) {
        for id in self.inner.warm.too_many(self.inner.options.max_warm) {
            let actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mailbox) = actors.get(&id) {
                // One that leaves at this moment has made room already.
                let _ = mailbox.send(Letter { command: Command::MakeRoom, span: Span::current() });
            }
        }
    }
}

/// Tells the reader of a run what happens to its agent. Its reply has not begun, so there is room.
fn say(output: &mpsc::Sender<Output>, what: &str) {
    let _ = output.try_send(Output::Status(json!({ "content": what })));
}

/// What is wrong with a message, if anything.
pub fn check_prompt(prompt: &str) -> Result<()> {
    if prompt.trim().is_empty() {
        return Err(Error::Invalid {
            message: "The message is empty".into(),
            hint: Some("Write what the agent is to do.".into()),
        });
    }
    if prompt.len() > MAX_PROMPT {
        return Err(Error::TooLarge { what: "The message", limit: format!("{} MiB", MAX_PROMPT >> 20) });
    }
    Ok(())
}
