//! Looking on at a session's runs from somewhere else than where they were started. Nothing here changes anything.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use rhai::Map;

use super::failure::Failure;
use super::runtime::Runtime;
use super::screen::{self, Ended, Screen, cancelled, failed, tell};
use super::session::{OptionMap, Session};
use crate::client::{self, Client};
use crate::render;
use crate::wire::{self, EndReason, ErrorCode, Role, RunId, SessionEvent, SessionId, Status};

/// What is looked at, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attachment {
    /// Go on with the next runs, until the session ends.
    follow: bool,
    /// One event a line on stdout.
    json: bool,
}

impl Attachment {
    /// Reads the options of `attach`.
    pub fn read(options: Map, runtime: &Runtime) -> Result<Self, Failure> {
        let mut map = OptionMap::new(options, "attach", &["follow", "json"])?;
        Ok(Self { follow: map.flag("follow")?, json: map.flag("json")? || runtime.options().json })
    }
}

/// Shows the run that is going on, and with `follow` those that come.
pub fn attach(runtime: &Runtime, session: &Session, how: Attachment) -> Result<(), Failure> {
    let id = session.0.id.clone();
    let session = {
        let id = id.clone();
        runtime.call(|client| async move { client.session(&id).await })?
    };
    let mut onlooker = Onlooker { runtime, id, how, shown: None };
    match session.status {
        Status::Ended => return Err(over(&session)),
        Status::Active => {}
        _ if how.follow => {}
        status => {
            let short = session.id.short();
            runtime.err(&format!(
                "Session {short} is {status}: there is no run to follow. Wait for the next one with: superserve sessions attach {short} --follow\n"
            ));
            return Ok(());
        }
    }
    if !how.json {
        let called = screen::called(&runtime.session(session.clone()));
        runtime.err(&format!("Attached: {called}. Ctrl-C leaves, and the run goes on.\n\n"));
    }
    if how.follow {
        return onlooker.follow(&session);
    }
    match onlooker.run()? {
        None | Some(Ended::Completed(_)) => Ok(()),
        Some(Ended::Cancelled { .. }) => Err(cancelled()),
        Some(Ended::Failed(error)) => Err(failed(error)),
    }
}

/// A session that no run will ever be in again.
fn over(session: &wire::Session) -> Failure {
    let short = session.id.short();
    let (code, has) = match session.end_reason {
        Some(EndReason::Expired) => (ErrorCode::Expired, "expired"),
        _ => (ErrorCode::Ended, "ended"),
    };
    let hint = format!("superserve sessions messages {short} shows what was said.");
    client::Error::api(code, format!("Session {short} has {has}: there is nothing to follow"), hint).into()
}

type Changes = Pin<Box<dyn Stream<Item = client::Result<SessionEvent>> + Send>>;

struct Onlooker<'a> {
    runtime: &'a Runtime,
    id: SessionId,
    how: Attachment,
    /// The run that was shown last.
    shown: Option<RunId>,
}

impl Onlooker<'_> {
    /// Shows the latest run from its first event to its last; `None` if that is the one that was shown before.
    fn run(&mut self) -> Result<Option<Ended>, Failure> {
        let runtime = self.runtime;
        let mut screen = Screen::new(runtime, self.how.json);
        let known = self.shown.clone();
        let (id, shown, follow) = (&self.id, &mut self.shown, self.how.follow);
        let ended = until_left(runtime, async |client: Client| {
            let mut stream = client.events(id, 0).await?;
            while let Some(event) = stream.next().await {
                let event = event?;
                if known.as_ref() == Some(&event.run_id) {
                    return Ok(None);
                }
                if known.is_some() && shown.as_ref() == known.as_ref() && !self.how.json {
                    runtime.err("\n");
                }
                if shown.as_ref() != Some(&event.run_id) && !self.how.json {
                    question(runtime, &client, id, &event.run_id).await;
                }
                *shown = Some(event.run_id);
                screen.show(&event.event)?;
                screen::warn_of_limit(runtime, &event.event);
                if let Some(ended) = Ended::of(event.event, false) {
                    return Ok(Some(ended));
                }
            }
            Err(client::Error::Protocol("the run's stream ended before the run did".into()).into())
        });
        match ended {
            Ok(None) => Ok(None),
            Ok(Some(ended)) => {
                screen.finish(&ended)?;
                match &ended {
                    Ended::Cancelled { .. } if follow && !self.how.json => runtime.err("Cancelled\n"),
                    Ended::Failed(error) if follow && !self.how.json => tell(runtime, error),
                    _ => {}
                }
                Ok(Some(ended))
            }
            Err(error) => {
                let is_open = screen.is_open();
                screen.break_line()?;
                Err(self.left(error, is_open))
            }
        }
    }

    /// Shows every run from now on until the session ends.
    fn follow(&mut self, session: &wire::Session) -> Result<(), Failure> {
        let mut changes = self.watch()?;
        // A message is a run: so it is known which changes tell of a new one, and how many were never seen.
        let mut seen = match session.status {
            Status::Active => session.message_count.saturating_sub(1),
            _ => session.message_count,
        };
        loop {
            let next = until_left(self.runtime, async |_| Ok(changes.next().await));
            let change = match next.map_err(|error| self.left(error, false))? {
                Some(change) => change?,
                None => return Err(gone()),
            };
            let now = match change {
                SessionEvent::Updated(now) => now,
                SessionEvent::Deleted(_) => return self.ended("was deleted"),
            };
            if now.message_count > seen {
                let missed = now.message_count - seen - 1;
                if missed > 0 && !self.how.json {
                    self.missed(missed);
                }
                seen = now.message_count;
                self.run()?;
            }
            if now.status == Status::Ended {
                let has =
                    if now.end_reason == Some(EndReason::Expired) { "has expired" } else { "has ended" };
                return self.ended(has);
            }
        }
    }

    fn watch(&self) -> Result<Changes, Failure> {
        let id = [self.id.clone()];
        self.runtime.call(|client| async move { Ok(Box::pin(client.watch(&id).await?) as Changes) })
    }

    fn missed(&self, runs: u64) {
        let (short, many) = (self.id.short(), if runs == 1 { "run was" } else { "runs were" });
        self.runtime.err(&format!(
            "{runs} {many} missed: superserve sessions messages {short} shows what was said.\n"
        ));
    }

    fn ended(&self, has: &str) -> Result<(), Failure> {
        if !self.how.json {
            self.runtime.err(&format!("Session {} {has}\n", self.id.short()));
        }
        Ok(())
    }

    /// What is said when Ctrl-C was pressed; other errors stay as they are, and a server that has gone takes nothing along.
    /// `ended_line`: the line in which the terminal showed `^C` is ended.
    fn left(&self, error: Failure, ended_line: bool) -> Failure {
        let terminal = &self.runtime.host().terminal;
        match error {
            Failure::Stopped if self.runtime.host().interrupt.is_set() => {
                let shows_key = terminal.in_is_terminal() && terminal.err_is_terminal();
                let begin = if shows_key && !ended_line { "\n" } else { "" };
                self.runtime
                    .err(&format!("{begin}Left session {}; what runs there goes on.\n", self.id.short()));
                self.runtime.left()
            }
            error => error,
        }
    }
}

/// Shows what a run was asked. The reply is worth showing without it.
async fn question(runtime: &Runtime, client: &Client, id: &SessionId, run: &RunId) {
    let messages = client.messages_of(id, run).await.unwrap_or_default();
    if let Some(asked) = messages.iter().find(|message| message.role == Role::User) {
        runtime.err(&format!("You > {}\n\n", render::clean(asked.content.trim_end())));
    }
}

/// Runs `work` until Ctrl-C.
fn until_left<T>(
    runtime: &Runtime,
    work: impl AsyncFnOnce(Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    runtime.block_on(async { work(runtime.client().await?).await })
}

fn gone() -> Failure {
    client::Error::Unreachable {
        message: "the server has stopped telling what happens".into(),
        hint: Some("Run superserve server status to see whether it runs.".into()),
    }
    .into()
}
