//! One session, as scripts hold it: its fields and what can be done with it.

use std::rc::Rc;
use std::sync::Arc;

use rhai::plugin::*;
use rhai::{Array, ImmutableString, Map, NativeCallContext};
use serde_json::Value;

use super::attach::{Attachment, attach as look_on};
use super::converse::{self, Dialogue, With};
use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::field::Field;
use super::message::{Message, Reply};
use super::record::Record;
use super::runtime::{Change, Runtime};
use super::suggestion;
use super::time::Moment;
use crate::render;
use crate::wire::{self, SessionId, Status, Timestamp};

/// A session as the server last told it. `Session` in scripts.
#[derive(Clone, Debug)]
pub struct Session(pub Rc<Record>);

impl From<wire::Session> for Session {
    fn from(session: wire::Session) -> Self {
        Self::of(session, None)
    }
}

impl Session {
    /// A session as this server has told it; none is the one that a command speaks to.
    pub fn of(session: wire::Session, server: Option<Arc<str>>) -> Self {
        Self(Rc::new(Record::of(session, server)))
    }

    /// The server that it is on, where a script has named one.
    pub fn server(&self) -> Option<Arc<str>> {
        self.0.agent.server.clone()
    }
}

impl Session {
    /// The field of this name; `now` in milliseconds since the Unix epoch.
    pub fn field(&self, name: &str, now: i64) -> Option<Dynamic> {
        match Field::named(name) {
            Some(field) => Some(field.of(self, now)),
            // For tables alone: as `sessions list` shows it.
            None if name == "last_active" => {
                Some(render::ago(self.last_activity(), Timestamp::from_millis(now)).into())
            }
            None => None,
        }
    }

    /// What `--dry-run` gives for a session that was not created: pending, with an ID of zeros.
    pub fn not_made(agent: &wire::Agent, title: Option<String>, now: i64) -> Self {
        Self::from(wire::Session {
            id: SessionId::from_random(0),
            agent_id: agent.id.clone(),
            agent_name: Some(agent.name.clone()),
            status: Status::Pending,
            title,
            message_count: 0,
            created_at: Timestamp::from_millis(now),
            last_activity_at: None,
            idle_timeout_seconds: None,
            expires_at: None,
            ended_at: None,
            end_reason: None,
            error: None,
            isolation: None,
            receipt: None,
        })
    }

    /// The agent's name, or its ID if the server gave none.
    pub fn agent(&self) -> &ImmutableString {
        &self.0.agent.called
    }

    pub fn title(&self) -> ImmutableString {
        self.0.title.clone().unwrap_or_default()
    }

    /// How many messages the user has sent.
    pub fn message_count(&self) -> i64 {
        i64::try_from(self.0.message_count).unwrap_or(i64::MAX)
    }

    /// When something last happened; its creation if nothing has.
    pub fn last_activity(&self) -> Timestamp {
        self.0.last_activity_at.unwrap_or(self.0.created_at)
    }

    /// 0 while a run is going on, else since the last activity.
    pub fn idle(&self, now: i64) -> Span {
        match self.0.status {
            Status::Active => Span(0),
            _ => Span(now.saturating_sub(self.last_activity().as_millis()).max(0)),
        }
    }

    pub fn age(&self, now: i64) -> Span {
        Span(now.saturating_sub(self.0.created_at.as_millis()).max(0))
    }

    /// Keys in the order of the page, then ours.
    pub fn to_json(&self) -> Value {
        render::session_json(&self.0.to_wire())
    }
}

/// Reads a script's map of options; refuses keys that it doesn't know. A key whose value is `()` counts as not given.
pub struct OptionMap {
    map: Map,
    of: &'static str,
    known: &'static [&'static str],
}

impl OptionMap {
    pub fn new(map: Map, of: &'static str, known: &'static [&'static str]) -> Result<Self, Failure> {
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(Self { map, of, known }),
            Some(key) => Err(Failure::hinted(
                format!("{of} has no option `{key}`"),
                suggestion::did_you_mean(key, known.iter().copied())
                    .unwrap_or_else(|| format!("Options: {}.", known.join(", "))),
            )),
        }
    }

    /// The option's value, if it was given.
    pub fn take(&mut self, key: &str) -> Option<Dynamic> {
        debug_assert!(self.known.contains(&key), "{key} is read but not known");
        self.map.remove(key).filter(|value| !value.is_unit())
    }

    pub fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        self.take(key).map(|value| value.into_string().map_err(|_| self.wrong(key, "text"))).transpose()
    }

    pub fn flag(&mut self, key: &str) -> Result<bool, Failure> {
        self.take(key)
            .map(|value| value.as_bool().map_err(|_| self.wrong(key, "true or false")))
            .transpose()
            .map(Option::unwrap_or_default)
    }

    pub fn wrong(&self, key: &str, wanted: &str) -> Failure {
        Failure::script(format!("the option `{key}` of {} must be {wanted}", self.of))
    }
}

/// A decision about a session's network, as scripts see it.
fn decided(entry: wire::Egress) -> Map {
    let number = |count: u64| Dynamic::from_int(i64::try_from(count).unwrap_or(i64::MAX));
    Map::from([
        ("at".into(), Dynamic::from(Moment(entry.at))),
        ("decision".into(), entry.decision.as_str().into()),
        ("host".into(), entry.host.into()),
        ("port".into(), entry.port.map_or(Dynamic::UNIT, |port| Dynamic::from_int(i64::from(port)))),
        ("sent".into(), number(entry.sent)),
        ("received".into(), number(entry.received)),
        ("reason".into(), entry.reason.unwrap_or_default().into()),
    ])
}

/// A session's fields, and what can be done with one.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod session_methods {
    use super::Moment as Time;
    use super::Span as Duration;

    /// The whole ID: `ses_` and 32 hex digits.
    ///
    /// ```rhai
    /// print(list()[0].id);
    /// ```
    #[rhai_fn(get = "id", pure)]
    pub fn id(session: &mut Session) -> String {
        session.0.id.to_string()
    }

    /// The first 12 digits of the ID, as `sessions list` shows them.
    ///
    /// ```rhai
    /// print(list()[0].short_id);
    /// ```
    #[rhai_fn(get = "short_id", pure)]
    pub fn short_id(session: &mut Session) -> String {
        session.0.id.short().to_owned()
    }

    /// The agent's name.
    ///
    /// ```rhai
    /// print(list()[0].agent);
    /// ```
    #[rhai_fn(get = "agent", pure)]
    pub fn agent(session: &mut Session) -> ImmutableString {
        Session::agent(session).clone()
    }

    /// The agent's ID: `agt_` and 12 hex digits.
    ///
    /// ```rhai
    /// print(list()[0].agent_id);
    /// ```
    #[rhai_fn(get = "agent_id", pure)]
    pub fn agent_id(session: &mut Session) -> String {
        session.0.agent.id.to_string()
    }

    /// The title: the first message, unless one was given. `""` if there is none.
    ///
    /// ```rhai
    /// let demos = list().filter(|s| s.title.contains("demo"));
    /// ```
    #[rhai_fn(get = "title", pure)]
    pub fn title(session: &mut Session) -> ImmutableString {
        Session::title(session)
    }

    /// `active`, `idle`, `completed`, `ended`, `failed` or `pending`.
    ///
    /// ```rhai
    /// let open = list().filter(|s| s.status != "ended");
    /// ```
    #[rhai_fn(get = "status", pure)]
    pub fn status(session: &mut Session) -> String {
        session.0.status.as_str().to_owned()
    }

    /// How many messages the user has sent.
    ///
    /// ```rhai
    /// print(list()[0].message_count);
    /// ```
    #[rhai_fn(get = "message_count", pure)]
    pub fn message_count(session: &mut Session) -> i64 {
        Session::message_count(session)
    }

    /// When it was created.
    ///
    /// ```rhai
    /// let old = list().filter(|s| s.created_at < ago(7.days));
    /// ```
    #[rhai_fn(get = "created_at", pure)]
    pub fn created_at(session: &mut Session) -> Time {
        Moment(session.0.created_at)
    }

    /// When something last happened in it; when it was created if nothing has.
    ///
    /// ```rhai
    /// print(list()[0].last_activity_at);
    /// ```
    #[rhai_fn(get = "last_activity_at", pure)]
    pub fn last_activity_at(session: &mut Session) -> Time {
        Moment(session.last_activity())
    }

    /// How long ago it was created.
    ///
    /// ```rhai
    /// let old = list().filter(|s| s.age > 7.days);
    /// ```
    #[rhai_fn(get = "age", pure, return_raw)]
    pub fn age(ctx: NativeCallContext, session: &mut Session) -> Fallible<Duration> {
        Ok(Session::age(session, Runtime::of(&ctx)?.now()))
    }

    /// How long nothing has happened in it: 0 while a run is going on, since its creation while it is pending.
    ///
    /// ```rhai
    /// let stale = list().filter(|s| s.idle > 2.hours);
    /// ```
    #[rhai_fn(get = "idle", pure, return_raw)]
    pub fn idle(ctx: NativeCallContext, session: &mut Session) -> Fallible<Duration> {
        Ok(Session::idle(session, Runtime::of(&ctx)?.now()))
    }

    /// When it ended; `()` if it hasn't.
    ///
    /// ```rhai
    /// let open = list().filter(|s| s.ended_at == ());
    /// ```
    #[rhai_fn(get = "ended_at", pure)]
    pub fn ended_at(session: &mut Session) -> Dynamic {
        session.field("ended_at", 0).unwrap_or_default()
    }

    /// Why it ended: `user`, `expired`, `agent_deleted`; `""` if it hasn't.
    ///
    /// ```rhai
    /// let expired = list().filter(|s| s.end_reason == "expired");
    /// ```
    #[rhai_fn(get = "end_reason", pure)]
    pub fn end_reason(session: &mut Session) -> String {
        session.0.end_reason.map(wire::EndReason::as_str).unwrap_or_default().to_owned()
    }

    /// When it will expire if nothing happens in it; `()` if it won't.
    ///
    /// ```rhai
    /// print(list()[0].expires_at);
    /// ```
    #[rhai_fn(get = "expires_at", pure)]
    pub fn expires_at(session: &mut Session) -> Dynamic {
        session.field("expires_at", 0).unwrap_or_default()
    }

    /// Why it failed; `""` if it hasn't.
    ///
    /// ```rhai
    /// for s in list(#{ status: "failed" }) { print(`${s.short_id} ${s.error}`); }
    /// ```
    #[rhai_fn(get = "error", pure)]
    pub fn error(session: &mut Session) -> ImmutableString {
        session.0.error.clone().unwrap_or_default()
    }

    /// All fields as a map.
    ///
    /// ```rhai
    /// print(list()[0].to_map().title);
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn to_map(ctx: NativeCallContext, session: &mut Session) -> Fallible<Map> {
        let now = Runtime::of(&ctx)?.now();
        Ok(Field::ALL.iter().map(|field| (field.name().into(), field.of(session, now))).collect())
    }

    /// Two sessions are the same if their IDs are.
    ///
    /// ```rhai
    /// print(list()[0] == list()[0]);   // true
    /// ```
    #[rhai_fn(name = "==")]
    pub fn equal(a: Session, b: Session) -> bool {
        a.0.id == b.0.id
    }

    /// Two sessions are different if their IDs are.
    ///
    /// ```rhai
    /// print(list()[0] != list()[0]);   // false
    /// ```
    #[rhai_fn(name = "!=")]
    pub fn unequal(a: Session, b: Session) -> bool {
        a.0.id != b.0.id
    }

    /// The session as text: its short ID.
    ///
    /// ```rhai
    /// print(`first: ${list()[0]}`);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(session: &mut Session) -> String {
        session.0.id.short().to_owned()
    }

    /// The session as the server knows it now. Errors: `not_found`.
    ///
    /// ```rhai
    /// print(list()[0].refresh().status);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn refresh(ctx: NativeCallContext, session: &mut Session) -> Fallible<Session> {
        let id = session.0.id.clone();
        let runtime = Runtime::of_session(&ctx, session)?;
        let session = runtime.call(|client| async move { client.session(&id).await }).at(&ctx)?;
        Ok(runtime.session(session))
    }

    /// The transcript: an array of messages, each with `.role` (`user` or `agent`), `.content`, `.at`, `.run_id`,
    /// `.partial`. Error: `not_found`.
    ///
    /// ```rhai
    /// for m in list()[0].messages() { print(`${m.role}: ${m.content}`); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn messages(ctx: NativeCallContext, session: &mut Session) -> Fallible<Array> {
        let id = session.0.id.clone();
        let messages = Runtime::of_session(&ctx, session)?
            .call(|client| async move { client.messages(&id).await })
            .at(&ctx)?;
        Ok(messages.into_iter().map(|message| Dynamic::from(Message(Rc::new(message)))).collect())
    }

    /// What was decided about its network, the oldest first: an array of maps with `at`, `decision` (`allowed` or
    /// `denied`), `host`, `port` (`()` for a name that was refused), `sent` and `received` in bytes, `reason` (`""` if there
    /// is none). The latest 1000. Error: `not_found`.
    ///
    /// ```rhai
    /// for e in list()[0].network() { print(`${e.decision} ${e.host} ${e.reason}`); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn network(ctx: NativeCallContext, session: &mut Session) -> Fallible<Array> {
        let id = session.0.id.clone();
        let entries = Runtime::of_session(&ctx, session)?
            .call(|client| async move { client.network(&id).await })
            .at(&ctx)?;
        Ok(entries.into_iter().map(|entry| Dynamic::from(decided(entry))).collect())
    }

    /// Cancels the run that is going on. Gives the session as it is then; without a run nothing happens. Errors:
    /// `not_found`, `ended`.
    ///
    /// ```rhai
    /// for s in list(#{ status: "active" }) { s.cancel(); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn cancel(ctx: NativeCallContext, session: &mut Session) -> Fallible<Session> {
        let runtime = Runtime::of_session(&ctx, session)?;
        if runtime.options().dry_run {
            runtime.would(&format!("cancel the run of {}", session.0.id.short())).at(&ctx)?;
            return Ok(session.clone());
        }
        let id = session.0.id.clone();
        let session = runtime.call(|client| async move { client.cancel_session(&id).await }).at(&ctx)?;
        runtime.changed(Change::CancelRun);
        Ok(runtime.session(session))
    }

    /// Forgets a session that has ended: its transcript is gone for good. Errors: `conflict` if it hasn't ended.
    ///
    /// ```rhai
    /// for s in list(#{ status: "ended" }) { s.delete(); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn delete(ctx: NativeCallContext, session: &mut Session) -> Fallible<()> {
        let runtime = Runtime::of_session(&ctx, session)?;
        if runtime.options().dry_run {
            return runtime.would(&format!("delete {}", session.0.id.short())).at(&ctx);
        }
        let id = session.0.id.clone();
        runtime.call(|client| async move { client.delete_session(&id).await }).at(&ctx)?;
        runtime.changed(Change::DeleteSession);
        Ok(())
    }

    /// Sends a message and waits for the whole reply; nothing is printed. Ctrl-C cancels the run.
    /// Errors: `busy`, `ended`, `expired`; of a failed run its own word (`timeout`, `agent_exited`, …).
    ///
    /// ```rhai
    /// let s = sessions::create("notes");
    /// print(s.send("remember to buy milk").text);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn send(ctx: NativeCallContext, session: &mut Session, text: &str) -> Fallible<Reply> {
        converse::send(&Runtime::of_session(&ctx, session)?, session, text).at(&ctx)
    }

    /// Shows the run that is going on, from its first event to its last, as `superserve run` shows its own: to look on from
    /// a second terminal. If none is, it says so. Options: `follow` (goes on with the next runs, until the session ends),
    /// `json` (one event a line). Ctrl-C ends the script with 130; the run goes on. Errors: an unknown option; `ended`,
    /// `expired`, `not_found`; of a failed run its own word (`timeout`, `agent_exited`, …), of a cancelled one `cancelled`,
    /// but not with `follow`, which tells them.
    ///
    /// ```rhai
    /// for s in list(#{ status: "active" }) { s.attach(#{ follow: false }); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn attach(ctx: NativeCallContext, session: &mut Session, options: Map) -> Fallible<()> {
        let runtime = Runtime::of_session(&ctx, session)?;
        let how = Attachment::read(options, &runtime).at(&ctx)?;
        look_on(&runtime, session, how).at(&ctx)
    }

    /// Shows the run that is going on, from its first event to its last. Errors: those of `attach` with options.
    ///
    /// ```rhai
    /// for s in list(#{ status: "active" }) { s.attach(); }
    /// ```
    #[rhai_fn(name = "attach", pure, volatile, return_raw)]
    pub fn attach_plainly(ctx: NativeCallContext, session: &mut Session) -> Fallible<()> {
        attach(ctx, session, Map::new())
    }

    /// The dialogue of `superserve run` and `superserve sessions resume`, until the user leaves it. Options: `prompt`
    /// (the first message), `single` (leave after one turn), `json` (one event a line), `resumed` (say first which
    /// session this is). A prompt that was given with no terminal to go on at is the only turn. Errors: an unknown
    /// option; `busy`, `ended`, `expired`; of a failed run its own word (`timeout`, `agent_exited`, …).
    ///
    /// ```rhai
    /// sessions::create("notes").converse(#{ prompt: "remember to buy milk", single: true });
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn converse(ctx: NativeCallContext, session: &mut Session, options: Map) -> Fallible<()> {
        let runtime = Runtime::of_session(&ctx, session)?;
        let dialogue = Dialogue::read(options, &runtime).at(&ctx)?;
        converse::converse(&runtime, With::Session(session), dialogue).at(&ctx)
    }

    /// The dialogue, from the user's first line on. Errors: those of the dialogue with options.
    ///
    /// ```rhai
    /// sessions::create("notes").converse();
    /// ```
    #[rhai_fn(name = "converse", pure, volatile, return_raw)]
    pub fn converse_plainly(ctx: NativeCallContext, session: &mut Session) -> Fallible<()> {
        converse(ctx, session, Map::new())
    }
}
