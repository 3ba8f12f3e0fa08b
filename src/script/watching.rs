//! Lists that are kept as things are: drawn on the terminal, or a line for each change.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rhai::plugin::*;
use rhai::{Array, EvalAltResult, FnPtr, Map, NativeCallContext};
use serde_json::Value;
use tokio::time::Instant;

use super::failure::{At, Failure, Fallible};
use super::host::{FullScreen, ScreenEvent};
use super::listing;
use super::output;
use super::runtime::Runtime;
use super::session::{OptionMap, Session};
use super::sessions::Sessions;
use super::view::{Change, Known, View};
use crate::client::{self, Client};
use crate::render;
use crate::wire::{ErrorCode, SessionEvent};

/// How often ages are drawn anew while nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// The least time between two pictures: what happens meanwhile is drawn at once.
const PICTURE: Duration = Duration::from_millis(80);
/// How many changes are taken in before the next picture, at most.
const BATCH: usize = 1000;
/// How long a server that has gone is asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first pause before another question is; each is twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

type Events = Pin<Box<dyn Stream<Item = client::Result<SessionEvent>> + Send>>;

/// How changes are shown.
struct How {
    /// Of a table, or of a line.
    columns: Option<Array>,
    /// A line for each change, even on a terminal.
    lines: bool,
    /// So many changes, and it ends.
    changes: Option<u64>,
}

impl How {
    /// Takes its own options out of the map.
    fn take(options: &mut Map) -> Result<Self, Failure> {
        const OWN: [&str; 3] = ["columns", "lines", "changes"];
        let own: Map = OWN.iter().filter_map(|key| Some(((*key).into(), options.remove(*key)?))).collect();
        if options.get("idle_over").is_some_and(|value| !value.is_unit()) {
            return Err(Failure::hinted(
                "watch has no option `idle_over`",
                "Use a condition: where: \"idle > 2.hours\".",
            ));
        }
        let mut own = OptionMap::new(own, "watch", &OWN)?;
        let columns = own.take("columns").map(|columns| {
            columns.into_array().map_err(|_| own.wrong("columns", "an array of fields or expressions"))
        });
        let changes = own.take("changes").map(|number| {
            let number = number.as_int().ok().and_then(|number| u64::try_from(number).ok());
            number.filter(|number| *number > 0).ok_or_else(|| own.wrong("changes", "a whole number above 0"))
        });
        Ok(Self { columns: columns.transpose()?, lines: own.flag("lines")?, changes: changes.transpose()? })
    }
}

/// What has happened.
enum Next {
    Events(Vec<SessionEvent>),
    /// Changes were missed: what is there must be looked at again.
    Missed,
    Resized,
    /// Nothing, for a while.
    Tick,
    /// The program is to end with this code.
    Told(i32),
}

struct Watch<'a, 'b> {
    ctx: &'a NativeCallContext<'b>,
    runtime: Runtime,
    view: View,
    how: How,
    function: Option<FnPtr>,
    screen: Option<Box<dyn FullScreen>>,
    /// `None` once changes were missed.
    events: Option<Events>,
    drawn: Option<Instant>,
    /// So many changes were told.
    told: u64,
}

fn watch(ctx: &NativeCallContext, mut options: Map, function: Option<FnPtr>) -> Fallible<()> {
    let runtime = Runtime::of(ctx)?;
    let how = How::take(&mut options).at(ctx)?;
    let view = View::new(listing::Options::read(ctx, options, runtime.now())?);
    let mut watch =
        Watch { ctx, runtime, view, how, function, screen: None, events: None, drawn: None, told: 0 };
    let ended = watch.run();
    // The terminal is as it was before anything is said.
    drop(watch.screen.take());
    ended
}

impl Watch<'_, '_> {
    fn run(&mut self) -> Fallible<()> {
        let client = self.runtime.call(|client| async move { Ok(client) }).at(self.ctx)?;
        self.look(client).map_err(|failure| self.stopped(failure))?;
        self.view.begin(self.ctx)?;
        if self.function.is_none() && !self.how.lines && !self.runtime.options().json {
            self.screen = self.runtime.host().terminal.full_screen();
        }
        loop {
            self.draw()?;
            match self.next().map_err(|failure| self.stopped(failure))? {
                Next::Events(events) => {
                    for event in events {
                        let change = self.view.apply(event);
                        // What is drawn needs no word.
                        if (self.screen.is_none() || self.how.changes.is_some())
                            && self.view.is_told(self.ctx, &change)?
                            && self.tell(&change)?
                        {
                            return Ok(());
                        }
                    }
                }
                Next::Missed => {
                    let before = self.view.known();
                    self.look_again().map_err(|failure| self.stopped(failure))?;
                    for change in self.since(&before)? {
                        if self.view.is_told(self.ctx, &change)? && self.tell(&change)? {
                            return Ok(());
                        }
                    }
                }
                Next::Resized | Next::Tick => {}
                Next::Told(code) => return Err(self.runtime.exit(code).at(self.ctx)),
            }
        }
    }

    /// Ctrl-C is how one leaves.
    fn stopped(&self, failure: Failure) -> Box<EvalAltResult> {
        let is_left = matches!(failure, Failure::Stopped) && self.runtime.host().interrupt.is_set();
        if is_left { self.runtime.left().at(self.ctx) } else { failure.at(self.ctx) }
    }

    /// Asks for what is there, and for every change of it.
    fn look(&mut self, client: Client) -> Result<(), Failure> {
        let listing = self.view.listing().clone();
        let (events, found) = self.runtime.block_on(async move {
            // Before the states are read, so that nothing that happens afterwards is lost.
            let events: Events = Box::pin(client.watch(&[]).await?);
            let found = if listing.is_empty() { Vec::new() } else { listing.whole(&client).await? };
            Ok((events, found))
        })?;
        self.events = Some(events);
        self.view.set(found);
        Ok(())
    }

    /// The same after the server has dropped us. It may be on its way back; none is started for this.
    fn look_again(&mut self) -> Result<(), Failure> {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            // Also where nothing is wrong but that more happens than we can follow.
            self.runtime.block_on(async {
                tokio::time::sleep(pause).await;
                Ok(())
            })?;
            pause = (pause * 2).min(LAST_PAUSE);
            let connection = self.runtime.host().connection.clone();
            let refused = match self.runtime.block_on(async { Ok(connection.running().await) })? {
                None => gone(),
                Some(client) => match self.look(client) {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
            };
            if !may_pass(&refused) || begun.elapsed() > PATIENCE {
                return Err(refused);
            }
            if let Some(screen) = &self.screen {
                screen.note("The server doesn't answer; asking again…")?;
            }
        }
    }

    /// What has happened since these were known. Who is no longer in the list may be in another state, or forgotten.
    fn since(&mut self, before: &Known) -> Fallible<Vec<Change>> {
        if self.screen.is_some() && self.how.changes.is_none() {
            return Ok(Vec::new());
        }
        let mut changes = self.view.since(before);
        for change in &mut changes {
            if let (Some(was), None) = (&change.before, &change.now) {
                let id = was.0.id.clone();
                match self.runtime.call(|client| async move { client.session(&id).await }) {
                    Ok(now) => change.now = Some(now.into()),
                    Err(Failure::Api(client::Error::Api { code: ErrorCode::NotFound, .. })) => {}
                    Err(failure) => return Err(self.stopped(failure)),
                }
            }
        }
        Ok(changes)
    }

    /// The next thing that happens.
    fn next(&mut self) -> Result<Next, Failure> {
        let Some(mut events) = self.events.take() else { return Ok(Next::Missed) };
        let screen = self.screen.as_deref();
        // What comes before the next picture is due goes into it.
        let due = self.drawn.map_or_else(Instant::now, |drawn| drawn + PICTURE);
        let (next, events) = self.runtime.block_on(async {
            let first = tokio::select! {
                event = events.next() => event,
                event = asked_by(screen) => {
                    let next = match event {
                        ScreenEvent::Resized => Next::Resized,
                        ScreenEvent::Told(code) => Next::Told(code),
                    };
                    return Ok((next, Some(events)));
                }
                () = tokio::time::sleep(TICK), if screen.is_some() => return Ok((Next::Tick, Some(events))),
            };
            // A stream that broke is asked for anew, as one that has ended.
            let Some(Ok(first)) = first else { return Ok((Next::Missed, None)) };
            let mut batch = vec![first];
            while screen.is_some() && batch.len() < BATCH {
                match tokio::time::timeout_at(due, events.next()).await {
                    Err(_) => break,
                    Ok(Some(Ok(event))) => batch.push(event),
                    Ok(_) => return Ok((Next::Events(batch), None)),
                }
            }
            Ok((Next::Events(batch), Some(events)))
        })?;
        self.events = events;
        Ok(next)
    }

    /// Draws what is there, if there is a screen.
    fn draw(&mut self) -> Fallible<()> {
        let Some(screen) = &self.screen else { return Ok(()) };
        let shown = self.view.shown(self.ctx)?;
        let (rows, _) = screen.size();
        // The header; and if not all of them fit, a line that says so.
        let room = if shown.len() < rows { shown.len() } else { rows.saturating_sub(2) };
        let mut lines = vec!["No sessions.".to_owned()];
        if !shown.is_empty() {
            let top: Vec<Session> = shown.iter().take(room).cloned().collect();
            let (top, columns) = (Dynamic::from(Sessions::from(top)), self.how.columns.clone());
            let text = output::table_text(self.ctx.engine(), &self.runtime, &top, columns)?;
            lines = text.lines().map(str::to_owned).collect();
        }
        if shown.len() > room {
            lines.push(format!("... and {} more", shown.len() - room));
        }
        screen.draw(&lines).at(self.ctx)?;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// Tells of a change where nothing is drawn; whether that was enough.
    fn tell(&mut self, change: &Change) -> Fallible<bool> {
        if self.screen.is_none() && !self.tell_one(change)? {
            return Ok(true);
        }
        self.told += 1;
        Ok(self.how.changes.is_some_and(|enough| self.told >= enough))
    }

    /// Whether more is wanted.
    fn tell_one(&self, change: &Change) -> Fallible<bool> {
        let Some(session) = change.now.as_ref().or(change.before.as_ref()) else { return Ok(true) };
        let is_gone = change.now.is_none();
        if let Some(function) = &self.function {
            // Who is forgotten had ended, which was told.
            if is_gone {
                return Ok(true);
            }
            let answer = function.call_raw(self.ctx, None, [Dynamic::from(session.clone())])?;
            return Ok(answer.as_bool() != Ok(false));
        }
        let (runtime, engine, columns) = (&self.runtime, self.ctx.engine(), self.how.columns.as_ref());
        if runtime.options().json {
            let mut json = output::row_json(engine, runtime, session, columns)?;
            if let (true, Value::Object(fields)) = (is_gone, &mut json) {
                fields.insert("deleted".to_owned(), true.into());
            }
            runtime.out_json(&format!("{json}\n")).at(self.ctx)?;
            return Ok(true);
        }
        let line = match columns {
            Some(columns) => output::row_texts(engine, runtime, session, columns)?.join("  "),
            None => {
                let status = if is_gone { "deleted" } else { session.0.status.as_str() }.to_uppercase();
                let (id, agent, count) = (session.0.id.short(), session.agent(), session.message_count());
                format!("{id}  {agent}  {status}  {count}  {}", session.title())
            }
        };
        runtime.out(&format!("{}\n", render::clean_line(&line).trim_end())).at(self.ctx)?;
        Ok(true)
    }
}

/// What the terminal says, if it is drawn on.
async fn asked_by(screen: Option<&dyn FullScreen>) -> ScreenEvent {
    match screen {
        Some(screen) => screen.event().await,
        None => std::future::pending().await,
    }
}

fn gone() -> Failure {
    client::Error::Unreachable {
        message: "the server has gone".into(),
        hint: Some("superserve server logs shows why; the next command starts it again.".into()),
    }
    .into()
}

/// Whether it is worth asking again.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Api(client::Error::Api { code, .. }) => {
            matches!(code, ErrorCode::ShuttingDown | ErrorCode::StoreUnavailable | ErrorCode::RateLimited)
        }
        Failure::Api(client::Error::Unreachable { .. } | client::Error::Protocol(_)) => true,
        _ => false,
    }
}

/// Lists that go on.
#[export_module]
pub mod watch_functions {
    /// Shows sessions as they are, and goes on as they change, until Ctrl-C (which ends the script with 130). On a terminal
    /// the list is drawn anew with every change, as much of it as the screen takes. Elsewhere there is a line for each change
    /// of a session that fits, or did before: short ID, agent, status, messages and title; with `--json` the session as one
    /// line of JSON, with `"deleted": true` if it was forgotten. Options: `agent`, `status`, `where`, `sort`, `limit` as of
    /// `list`; `columns` (fields or expressions, of the table or the line), `lines` (also on a terminal), `changes` (ends
    /// after so many). Errors: an unknown option, status or agent; a condition that makes no sense; the server has gone.
    ///
    /// ```rhai
    /// sessions::watch(#{ agent: "notes", changes: 1 });
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn watch(ctx: NativeCallContext, options: Map) -> Fallible<()> {
        super::watch(&ctx, options, None)
    }

    /// Calls the function with each session that has changed, if it fits the options or did before: it is new, or in another
    /// state. Ends when the function answers `false`. Errors: those of `watch` without a function; that of the function.
    ///
    /// ```rhai
    /// sessions::watch(#{ agent: "notes" }, |s| {
    ///     if s.status == "failed" { warn(s.error); }
    ///     s.status == "active"
    /// });
    /// ```
    #[rhai_fn(name = "watch", volatile, return_raw)]
    pub fn watch_with(ctx: NativeCallContext, options: Map, function: FnPtr) -> Fallible<()> {
        super::watch(&ctx, options, Some(function))
    }
}
