//! Lists of sessions, what `end` did with one, and the calls that find, make and end sessions.

use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};

use super::agents::Agent;
use super::ending::{self, Target};
use super::failure::{At, Failure, Fallible};
use super::listing::{Listing, named};
use super::output;
use super::predicate::Predicate;
use super::runtime::{Change, Runtime};
use super::sequence::List;
use super::session::{OptionMap, Session};
use super::value;
use crate::client::{self, Client};
use crate::wire::{CreateSession, SessionQuery, Status};

pub use super::ending::{Done, DoneRow};

/// Sessions in an order. `Sessions` in scripts.
pub type Sessions = List<Session>;

async fn get_session(client: Client, text: String) -> crate::client::Result<crate::wire::Session> {
    let id = client.resolve(&text).await?;
    client.session(&id).await
}

fn resume_session(runtime: &Runtime, text: String) -> Result<Session, Failure> {
    client::digits(&text)?;
    if runtime.options().dry_run {
        let session = runtime.call(|client| get_session(client, text))?;
        runtime.would(&format!("resume {}", session.id.short()))?;
        return Ok(session.into());
    }
    let session = runtime.call(|client| async move {
        let id = client.resolve(&text).await?;
        client.resume_session(&id).await
    })?;
    runtime.changed(Change::ResumeSession);
    Ok(session.into())
}

fn last_session(runtime: &Runtime, agent: Option<String>) -> Result<Dynamic, Failure> {
    let status = Status::ALL.into_iter().filter(|status| *status != Status::Ended).collect();
    let agent = agent.into_iter().collect();
    let query = SessionQuery { status, agent, limit: Some(1), ..SessionQuery::default() };
    let page = runtime.call(|client| async move { client.sessions(&query).await })?;
    Ok(page
        .sessions
        .into_iter()
        .next()
        .map_or(Dynamic::UNIT, |session| Dynamic::from(Session::from(session))))
}

/// Whose session is made.
pub enum Whose {
    Agent(Agent),
    /// A name or an ID.
    Text(String),
}

pub fn create_session(runtime: &Runtime, whose: Whose, title: Option<String>) -> Result<Session, Failure> {
    if runtime.options().dry_run {
        let agent = match whose {
            // It may be one that was not deployed either.
            Whose::Agent(agent) => agent.wire().clone(),
            Whose::Text(name) => runtime.call(|client| async move { client.agent(&name).await })?,
        };
        runtime.would(&format!("create a session of {}", agent.name))?;
        return Ok(Session::not_made(&agent, title, runtime.now()));
    }
    let agent = match whose {
        Whose::Agent(agent) => agent.id(),
        Whose::Text(name) => name,
    };
    let wanted = CreateSession { agent_id: agent, title, idle_timeout_seconds: None };
    let session = runtime.call(|client| async move { client.create_session(&wanted).await })?;
    runtime.changed(Change::CreateSession);
    Ok(session.into())
}

/// Global functions, and the same in `sessions::`.
#[export_module]
pub mod session_calls {
    /// All sessions, latest activity first.
    ///
    /// ```rhai
    /// print(list().sum("message_count"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn list(ctx: NativeCallContext) -> Fallible<Sessions> {
        list_some(ctx, Map::new())
    }

    /// Sessions that fit all the options, latest activity first: `agent` (a name, an ID, an agent), `status` (with the
    /// aliases `running` and `error`), `idle_over` (a duration: idle for longer), `title` (a part of it, any case),
    /// `limit` (at most so many), `where` (a function, or an expression over a session's fields as text).
    /// Arrays of agents or statuses mean any of them, so empty ones mean none; `()` means not given.
    /// Errors: an unknown option, status or agent; a condition that makes no sense.
    ///
    /// ```rhai
    /// let stale = list(#{ agent: "notes", status: ["idle", "completed"], idle_over: 2.hours, limit: 10 });
    /// let long = list(#{ where: "message_count > 3 && title.contains(\"milk\")" });
    /// ```
    #[rhai_fn(name = "list", volatile, return_raw)]
    pub fn list_some(ctx: NativeCallContext, options: Map) -> Fallible<Sessions> {
        Listing::read(&ctx, options)?.run(&ctx).map(Sessions::from)
    }

    /// The session with this ID: whole or any unique beginning, with or without `ses_`; `@last` and `@last:AGENT` too.
    /// Errors: `not_found`, `ambiguous`.
    ///
    /// ```rhai
    /// print(get("5a3f").title);
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn get(ctx: NativeCallContext, id: &str) -> Fallible<Session> {
        client::digits(id).at(&ctx)?;
        let id = id.to_owned();
        Runtime::of(&ctx)?.call(|client| get_session(client, id)).map(Session::from).at(&ctx)
    }

    /// Makes a session ready for its next message, and gives it back. Errors: `ended`, `expired`, `busy`, `not_found`.
    ///
    /// ```rhai
    /// resume("5a3f").send("what do you know?");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn resume(ctx: NativeCallContext, id: &str) -> Fallible<Session> {
        resume_session(&Runtime::of(&ctx)?, id.to_owned()).at(&ctx)
    }

    /// Makes a session ready for its next message, and gives it back as it is then.
    ///
    /// ```rhai
    /// sessions::last("notes").resume().send("what do you know?");
    /// ```
    #[rhai_fn(name = "resume", volatile, return_raw)]
    pub fn resume_this(ctx: NativeCallContext, session: Session) -> Fallible<Session> {
        resume_session(&Runtime::of(&ctx)?, session.0.id.to_string()).at(&ctx)
    }

    /// Ends the session with this ID and wipes its workspace; gives the session as it is then. Ending one that has
    /// ended does nothing. Errors: `not_found`, `ambiguous`.
    ///
    /// ```rhai
    /// print(end("5a3f").status);   // ended
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn end(ctx: NativeCallContext, id: &str) -> Fallible<Session> {
        ending::one(&Runtime::of(&ctx)?, Target::Text(id.to_owned())).at(&ctx)
    }

    /// Ends this session and wipes its workspace; gives the session as it is then.
    ///
    /// ```rhai
    /// print(get("5a3f").end().status);   // ended
    /// ```
    #[rhai_fn(name = "end", volatile, return_raw)]
    pub fn end_this(ctx: NativeCallContext, session: Session) -> Fallible<Session> {
        ending::one(&Runtime::of(&ctx)?, Target::Session(session)).at(&ctx)
    }

    /// Ends all of these in one request. What couldn't be ended is told in the answer's rows: `.ok` counts those that
    /// were ended, `.failed` are the rows of those that weren't.
    ///
    /// ```rhai
    /// let done = list(#{ status: "idle" }).end();
    /// print(`ended ${done.ok}, failed ${done.failed.len}`);
    /// ```
    #[rhai_fn(name = "end", volatile, return_raw)]
    pub fn end_these(ctx: NativeCallContext, sessions: Sessions) -> Fallible<Done> {
        let targets = sessions.iter().cloned().map(Target::Session).collect();
        ending::many(&Runtime::of(&ctx)?, targets).at(&ctx)
    }

    /// Ends all sessions of an array: IDs, beginnings of IDs, sessions. One that isn't found is a row of the answer.
    ///
    /// ```rhai
    /// let done = end(["5a3f", list()[0]]);
    /// ```
    #[rhai_fn(name = "end", volatile, return_raw)]
    pub fn end_array(ctx: NativeCallContext, ids: Array) -> Fallible<Done> {
        let targets = ids.into_iter().map(Target::read).collect::<Result<Vec<_>, _>>().at(&ctx)?;
        ending::many(&Runtime::of(&ctx)?, targets).at(&ctx)
    }
}

/// Functions that exist in `sessions::` alone.
#[export_module]
pub mod session_module {
    /// The session of latest activity that hasn't ended; `()` if there is none.
    ///
    /// ```rhai
    /// let s = sessions::last();
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn last(ctx: NativeCallContext) -> Fallible<Dynamic> {
        last_session(&Runtime::of(&ctx)?, None).at(&ctx)
    }

    /// The same of one agent: its name or ID. Error: there is no such agent.
    ///
    /// ```rhai
    /// let s = sessions::last("notes");
    /// ```
    #[rhai_fn(name = "last", volatile, return_raw)]
    pub fn last_of(ctx: NativeCallContext, agent: &str) -> Fallible<Dynamic> {
        let runtime = Runtime::of(&ctx)?;
        named(agent.to_owned()).and_then(|agent| last_session(&runtime, Some(agent))).at(&ctx)
    }

    /// A new session of the agent with this name or ID. Error: there is no such agent.
    ///
    /// ```rhai
    /// let s = sessions::create("notes");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn create(ctx: NativeCallContext, agent: &str) -> Fallible<Session> {
        create_session(&Runtime::of(&ctx)?, Whose::Text(agent.to_owned()), None).at(&ctx)
    }

    /// A new session of this agent.
    ///
    /// ```rhai
    /// let s = sessions::create(agents::get("notes"));
    /// ```
    #[rhai_fn(name = "create", volatile, return_raw)]
    pub fn create_of(ctx: NativeCallContext, agent: Agent) -> Fallible<Session> {
        create_session(&Runtime::of(&ctx)?, Whose::Agent(agent), None).at(&ctx)
    }

    /// A new session with a title: the option `title`.
    ///
    /// ```rhai
    /// let s = sessions::create("notes", #{ title: "shopping" });
    /// ```
    #[rhai_fn(name = "create", volatile, return_raw)]
    pub fn create_with(ctx: NativeCallContext, agent: Dynamic, options: Map) -> Fallible<Session> {
        let title =
            OptionMap::new(options, "create", &["title"]).and_then(|mut map| map.text("title")).at(&ctx)?;
        let whose = match agent.clone().try_cast::<Agent>() {
            Some(agent) => Whose::Agent(agent),
            None => agent
                .into_string()
                .map(Whose::Text)
                .map_err(|_| Failure::script("an agent is its name, its ID or an Agent"))
                .at(&ctx)?,
        };
        create_session(&Runtime::of(&ctx)?, whose, title).at(&ctx)
    }
}

/// What only lists of sessions have.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod sessions_methods {
    /// The whole IDs, as an array.
    ///
    /// ```rhai
    /// for id in list(#{ status: "idle" }).ids { print(id); }
    /// ```
    #[rhai_fn(get = "ids", pure)]
    pub fn ids(sessions: &mut Sessions) -> Array {
        sessions.iter().map(|session| session.0.id.as_str().into()).collect()
    }

    /// Those for which an expression over a session's fields holds. Errors: as of `list(#{ where: … })`.
    ///
    /// ```rhai
    /// let stale = list().filter("status == \"idle\" && idle > 2.hours");
    /// ```
    #[rhai_fn(name = "filter", pure, volatile, return_raw)]
    pub fn filter_by_text(
        ctx: NativeCallContext,
        sessions: &mut Sessions,
        condition: &str,
    ) -> Fallible<Sessions> {
        let now = Runtime::of(&ctx)?.now();
        let predicate = Predicate::compile(ctx.engine(), condition).at(&ctx)?;
        predicate.select(&ctx, sessions.iter().cloned().collect(), now).map(Sessions::from)
    }

    /// Prints them as a table, as `sessions list` does.
    ///
    /// ```rhai
    /// list().table();
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn table(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<()> {
        output::table(&Runtime::of(&ctx)?, &Dynamic::from(sessions.clone()), None).at(&ctx)
    }

    /// Prints these fields of them as a table.
    ///
    /// ```rhai
    /// list().table(["short_id", "title", "idle"]);
    /// ```
    #[rhai_fn(name = "table", pure, volatile, return_raw)]
    pub fn table_of(ctx: NativeCallContext, sessions: &mut Sessions, columns: Array) -> Fallible<()> {
        output::table(&Runtime::of(&ctx)?, &Dynamic::from(sessions.clone()), Some(columns)).at(&ctx)
    }

    /// They as JSON: an array with the keys of `sessions list --json`.
    ///
    /// ```rhai
    /// print(list().to_json());
    /// ```
    #[rhai_fn(pure)]
    pub fn to_json(sessions: &mut Sessions) -> String {
        output::pretty(&value::to_json(&Dynamic::from(sessions.clone())))
    }

    /// They as text: their short IDs.
    ///
    /// ```rhai
    /// print(`${list()}`);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(sessions: &mut Sessions) -> String {
        format!("[{}]", sessions.iter().map(|session| session.0.id.short()).collect::<Vec<_>>().join(", "))
    }
}
