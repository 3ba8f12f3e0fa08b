//! Messages to an agent and its replies: quietly, and as the dialogue of `run` and `resume`.

use rhai::Map;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Line;
use super::agents::Agent;
use super::failure::Failure;
use super::message::Reply;
use super::runtime::{Change, Runtime};
use super::screen::{self, Ended, Screen, cancelled, failed, tell};
use super::session::{OptionMap, Session};
use super::sessions::{Whose, create_session};
use crate::client;
use crate::wire::session::MAX_PROMPT;
use crate::wire::{RunEvent, RunId, SessionId};

/// How a dialogue goes.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    /// The first message; then stdin is read only if it is a terminal.
    pub prompt: Option<String>,
    /// Leave after one turn.
    pub single: bool,
    /// One event a line on stdout.
    pub json: bool,
    /// Say first which session this is.
    pub resumed: bool,
}

impl Dialogue {
    /// Reads the options of `converse`.
    pub fn read(options: Map, runtime: &Runtime) -> Result<Self, Failure> {
        let mut map = OptionMap::new(options, "converse", &["prompt", "single", "json", "resumed"])?;
        Ok(Self {
            prompt: map.text("prompt")?,
            single: map.flag("single")?,
            json: map.flag("json")? || runtime.options().json,
            resumed: map.flag("resumed")?,
        })
    }
}

/// Sends one message and collects the reply.
pub fn send(runtime: &Runtime, session: &Session, text: &str) -> Result<Reply, Failure> {
    if runtime.options().dry_run {
        would_send(runtime, session, text)?;
        return Ok(Reply::default());
    }
    let mut reply = String::new();
    let ended = turn(runtime, &session.0.id, text, &mut |event| {
        if let RunEvent::Delta { content } = event {
            reply.push_str(content);
        }
        Ok(())
    })?;
    match ended {
        Ended::Completed(took) => Ok(Reply { text: reply.into(), took }),
        Ended::Cancelled { by_us: true } => Err(stop(runtime)),
        Ended::Cancelled { by_us: false } => Err(cancelled()),
        Ended::Failed(error) => Err(failed(error)),
    }
}

/// Whom a dialogue is with.
pub enum With<'a> {
    Session(&'a Session),
    /// A session of this agent, which is made when there is a first message: leaving before leaves nothing behind.
    New(&'a Agent),
}

impl With<'_> {
    fn session(&self, runtime: &Runtime) -> Result<Session, Failure> {
        match self {
            Self::Session(session) => Ok((*session).clone()),
            Self::New(agent) => create_session(runtime, Whose::Agent((*agent).clone()), None),
        }
    }
}

/// Talks until the user leaves.
pub fn converse(runtime: &Runtime, with: With<'_>, dialogue: Dialogue) -> Result<(), Failure> {
    if let Some(prompt) = &dialogue.prompt {
        check(prompt)?;
    }
    if runtime.options().dry_run {
        let session = with.session(runtime)?;
        return match &dialogue.prompt {
            Some(prompt) => would_send(runtime, &session, prompt),
            None => runtime.would(&format!("talk with {}", named(&session))),
        };
    }
    let terminal = runtime.host().terminal.clone();
    if let With::Session(session) = &with
        && dialogue.resumed
        && !dialogue.json
    {
        runtime.err(&format!("Resumed: {}\n\n", screen::called(session)));
    }
    let asks = terminal.in_is_terminal();
    let goes_on = !dialogue.single && (asks || dialogue.prompt.is_none());
    let mut prompt = dialogue.prompt;
    let mut first = true;
    let mut session = None;
    loop {
        let message = match prompt.take() {
            Some(prompt) => prompt,
            None => match next_message(runtime, asks, first)? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        first = false;
        check(&message)?;
        let session: &mut Session = match &mut session {
            Some(session) => session,
            None => session.insert(with.session(runtime)?),
        };
        let mut screen = Screen::new(runtime, dialogue.json);
        let ended = turn(runtime, &session.0.id, &message, &mut |event| screen.show(event));
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                screen.break_line()?;
                return Err(lost(error, session));
            }
        };
        screen.finish(&ended)?;
        match ended {
            Ended::Completed(_) => {}
            Ended::Cancelled { by_us } if asks && goes_on => {
                runtime.err(if by_us { "Cancelled\n" } else { "Cancelled by another client\n" });
            }
            Ended::Cancelled { by_us: true } => return Err(stop(runtime)),
            Ended::Cancelled { by_us: false } => return Err(cancelled()),
            Ended::Failed(error) if asks && goes_on && !dialogue.json => tell(runtime, &error),
            Ended::Failed(error) => return Err(failed(error)),
        }
        if !goes_on {
            return Ok(());
        }
    }
}

/// Refuses what the server would refuse, before a session is made for it.
fn check(message: &str) -> Result<(), Failure> {
    let refused = |message: String, hint: &str| Err(Failure::Usage { message, hint: Some(hint.into()) });
    if message.trim().is_empty() {
        return refused("the message is empty".into(), "Say what the agent should do.");
    }
    if message.len() > MAX_PROMPT {
        let limit = format!("the message is larger than {} MiB", MAX_PROMPT >> 20);
        return refused(limit, "Put the long part into a file that the agent can read.");
    }
    Ok(())
}

/// A server that has gone takes nothing of the session along: what to do then is to go on with it.
fn lost(error: Failure, session: &Session) -> Failure {
    match error {
        Failure::Api(client::Error::Unreachable { message, .. }) => {
            let hint = format!("The session stays: superserve sessions resume {}", session.0.id.short());
            Failure::Api(client::Error::Unreachable { message, hint: Some(hint) })
        }
        error => error,
    }
}

/// The user's next message; `None` if the user leaves.
fn next_message(runtime: &Runtime, asks: bool, first: bool) -> Result<Option<String>, Failure> {
    let terminal = &runtime.host().terminal;
    if asks && !first {
        terminal.err("\n");
    }
    loop {
        let line = terminal.read_line("You > ")?;
        if asks {
            runtime.paused();
        }
        let line = match line {
            Line::Text(line) => line,
            Line::End => return Ok(None),
            Line::Interrupted => {
                runtime.host().interrupt.reset();
                return Ok(None);
            }
        };
        match line.trim() {
            "exit" => return Ok(None),
            "" if asks => return Ok(None),
            "" => {}
            _ => {
                if asks {
                    terminal.err("\n");
                }
                return Ok(Some(line));
            }
        }
    }
}

fn would_send(runtime: &Runtime, session: &Session, text: &str) -> Result<(), Failure> {
    runtime.would(&format!("send \"{text}\" to {}", named(session)))
}

/// What a dry run calls a session: one that was not created has no ID to be called by.
fn named(session: &Session) -> &str {
    if session.0.id.digits().bytes().all(|digit| digit == b'0') { "it" } else { session.0.id.short() }
}

fn stop(runtime: &Runtime) -> Failure {
    runtime.host().interrupt.set();
    Failure::Stopped
}

/// Sends a message and shows each event of its run. Ctrl-C cancels the run and waits for its end; a second one leaves.
fn turn(
    runtime: &Runtime,
    id: &SessionId,
    prompt: &str,
    show: &mut dyn FnMut(&RunEvent) -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    let interrupt = &runtime.host().interrupt;
    // Ours, so that the message can be sent again when a connection breaks. Commands of a test may share a seed, and must not
    // take each other's message for the same.
    let mut told_apart = DefaultHasher::new();
    (id, prompt).hash(&mut told_apart);
    let run = RunId::from_random(runtime.host().clock.random() ^ u128::from(told_apart.finish()));
    runtime.block_on_through(async {
        let client = tokio::select! {
            biased;
            () = interrupt.wait() => return Err(Failure::Stopped),
            client = runtime.client() => client?,
        };
        let mut stream = tokio::select! {
            biased;
            () = interrupt.wait() => {
                // The server may have begun the run before it answered.
                let _ = client.cancel_session(id).await;
                return Err(Failure::Stopped);
            }
            stream = client.send_as(id, prompt, run) => stream?,
        };
        runtime.changed(Change::SendMessage);
        let mut by_us = false;
        loop {
            let event = tokio::select! {
                biased;
                () = interrupt.wait() => {
                    if by_us {
                        return Err(Failure::Stopped);
                    }
                    by_us = true;
                    interrupt.reset();
                    let (client, id) = (client.clone(), id.clone());
                    // Its answer doesn't matter: the run's own last event tells what came of it.
                    tokio::spawn(async move { client.cancel_session(&id).await });
                    continue;
                }
                event = stream.next() => event,
            };
            let Some(event) = event else {
                return Err(
                    client::Error::Protocol("the run's stream ended before the run did".into()).into()
                );
            };
            let event = event?.event;
            show(&event)?;
            screen::warn_of_limit(runtime, &event);
            if let Some(ended) = Ended::of(event, by_us) {
                return Ok(ended);
            }
        }
    })
}
