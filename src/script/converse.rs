//! Messages to an agent and its replies: quietly, and as the dialogue of `run` and `resume`.

use rhai::Map;
use serde_json::Value;

use super::Line;
use super::agents::Agent;
use super::duration::Span;
use super::failure::Failure;
use super::message::Reply;
use super::output;
use super::runtime::{Change, Runtime};
use super::session::{OptionMap, Session};
use super::sessions::{Whose, create_session};
use crate::client;
use crate::render::{self, Cleaner, clean_line};
use crate::wire::event::RunError;
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
        let title = match clean_line(&session.title()) {
            title if title.is_empty() => "Untitled".to_owned(),
            title => format!("\"{title}\""),
        };
        runtime.err(&format!("Resumed: {title} ({})\n\n", session.agent()));
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

fn cancelled() -> Failure {
    Failure::Run { message: "the run was cancelled".into(), code: Some("cancelled".into()), stderr: None }
}

fn failed(error: RunError) -> Failure {
    Failure::Run { message: error.message, code: error.code, stderr: error.stderr }
}

/// A failed run, where the dialogue goes on after it.
fn tell(runtime: &Runtime, error: &RunError) {
    let terminal = &runtime.host().terminal;
    let mark = output::mark(terminal.as_ref(), false);
    terminal.err(&format!("{mark} {}\n", clean_line(&error.message)));
    for line in error.stderr.iter().flat_map(|text| text.lines()) {
        terminal.err(&format!("  {}\n", clean_line(line)));
    }
}

/// How a turn ended.
enum Ended {
    Completed(Span),
    Cancelled {
        /// By Ctrl-C here.
        by_us: bool,
    },
    Failed(RunError),
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
    let run = RunId::from_random(runtime.host().clock.random() ^ u128::from(std::process::id()));
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
            match event {
                RunEvent::Completed { duration_ms, max_turns_message, .. } => {
                    if let Some(message) = max_turns_message {
                        runtime.host().terminal.err(&format!("! {}\n", clean_line(&message)));
                    }
                    return Ok(Ended::Completed(Span(i64::try_from(duration_ms).unwrap_or(i64::MAX))));
                }
                RunEvent::Failed { error } => return Ok(Ended::Failed(error)),
                RunEvent::Cancelled {} => return Ok(Ended::Cancelled { by_us }),
                _ => {}
            }
        }
    })
}

/// Where one turn is shown: the reply on stdout, everything about it on stderr.
struct Screen<'a> {
    runtime: &'a Runtime,
    json: bool,
    cleaner: Cleaner,
    /// `Agent > ` is written.
    begun: bool,
    /// Newlines of the reply that are written only if more follows.
    held: usize,
    /// `[tool] …` is written without the end of its line.
    tool_open: bool,
}

/// How much of a tool's input is shown, in characters.
const TOOL_INPUT: usize = 50;

impl<'a> Screen<'a> {
    fn new(runtime: &'a Runtime, json: bool) -> Self {
        Self { runtime, json, cleaner: Cleaner::default(), begun: false, held: 0, tool_open: false }
    }

    fn show(&mut self, event: &RunEvent) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(event).unwrap_or_default();
            return self.runtime.out_json(&format!("{line}\n"));
        }
        match event {
            RunEvent::Delta { content } => self.reply(content),
            RunEvent::ToolStart { tool, input } => {
                self.tool(tool, input);
                Ok(())
            }
            RunEvent::ToolEnd { duration_ms } => {
                if std::mem::take(&mut self.tool_open) {
                    self.runtime.err(&format!(" ({})\n", render::duration(*duration_ms)));
                }
                Ok(())
            }
            RunEvent::Started { .. }
            | RunEvent::Status(_)
            | RunEvent::Heartbeat(_)
            | RunEvent::Completed { .. }
            | RunEvent::Failed { .. }
            | RunEvent::Cancelled {} => Ok(()),
        }
    }

    fn reply(&mut self, content: &str) -> Result<(), Failure> {
        let text = if self.runtime.host().terminal.out_is_terminal() {
            self.cleaner.feed(content)
        } else {
            content.to_owned()
        };
        if text.is_empty() {
            return Ok(());
        }
        self.close_tool();
        let body = text.trim_end_matches('\n');
        let trailing = text.len() - body.len();
        if body.is_empty() {
            self.held += trailing;
            return Ok(());
        }
        let begin = if self.begun { "" } else { "Agent > " };
        self.begun = true;
        let newlines = "\n".repeat(std::mem::replace(&mut self.held, trailing));
        self.runtime.out(&format!("{begin}{newlines}{body}"))
    }

    fn tool(&mut self, tool: &str, input: &Value) {
        self.close_tool();
        let terminal = &self.runtime.host().terminal;
        if self.begun && terminal.out_is_terminal() && terminal.err_is_terminal() {
            // Both end up on one screen, where the reply stands in the middle of a line.
            terminal.err("\n");
            self.held = self.held.saturating_sub(1);
        }
        let text = match input {
            Value::Null => tool.to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = clean_line(&text);
        let mut shown: String = text.chars().take(TOOL_INPUT).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        terminal.err(&format!("[tool] {shown}"));
        self.tool_open = true;
    }

    fn close_tool(&mut self) {
        if std::mem::take(&mut self.tool_open) {
            self.runtime.host().terminal.err("\n");
        }
    }

    /// Ends the line that is open.
    fn break_line(&mut self) -> Result<(), Failure> {
        self.close_tool();
        if std::mem::take(&mut self.begun) { self.runtime.out("\n") } else { Ok(()) }
    }

    fn finish(&mut self, ended: &Ended) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        if let Ended::Completed(took) = ended {
            self.close_tool();
            if !self.begun {
                self.runtime.out("Agent > ")?;
            }
            self.runtime.out("\n")?;
            self.runtime
                .host()
                .terminal
                .err(&format!("\nCompleted in {}\n", render::duration(took.0.unsigned_abs())));
            return Ok(());
        }
        self.break_line()
    }
}
