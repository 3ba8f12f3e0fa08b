//! Lists of sessions, and the calls that find, make and end sessions.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};

use super::agents::Agent;
use super::condition::{self, Condition, Relation, Understood};
use super::ending;
use super::failure::{At, Failure, Fallible};
use super::field::Field;
use super::listing::{self, Listing, named};
use super::output;
use super::record::Reader;
use super::runtime::{Change, Runtime};
use super::sequence::{Key, List, Listed, Question, Sequence as _, Source, Step, Test, count, mean, sorted};
use super::session::{OptionMap, Session};
use super::stream::Stream;
use super::target::Target;
use super::time::Moment;
use super::value;
use crate::client::{self, Client};
use crate::wire::{
    CreateSession, Extreme, Grouping, Measure, Number, SessionQuery, SessionStats, StatsQuery, Status,
};

pub use super::ending::{Done, DoneRow};

/// Sessions in an order. `Sessions` in scripts. A question to the server is asked when its answer is looked at; what fits
/// on a page is then kept, and of more the server is asked for sums and counts.
#[derive(Clone)]
pub struct Sessions(Rc<State>);

struct State {
    asked: Option<(Runtime, Listing)>,
    found: OnceCell<List<Session>>,
    /// More than a page: when that was seen, in milliseconds since the Unix epoch.
    many_since: Cell<Option<i64>>,
}

impl From<List<Session>> for Sessions {
    fn from(found: List<Session>) -> Self {
        Self(Rc::new(State { asked: None, found: found.into(), many_since: Cell::default() }))
    }
}

impl From<Vec<Session>> for Sessions {
    fn from(found: Vec<Session>) -> Self {
        Self::from(List::from(found))
    }
}

impl Sessions {
    /// Those of this listing, once somebody looks at them.
    pub fn asked(runtime: &Runtime, listing: Listing) -> Self {
        let asked = Some((runtime.clone(), listing));
        Self(Rc::new(State { asked, found: OnceCell::new(), many_since: Cell::default() }))
    }

    /// The same where the answer is never to be held whole.
    pub fn many(runtime: &Runtime, listing: Listing) -> Self {
        let sessions = Self::asked(runtime, listing);
        sessions.0.many_since.set(Some(runtime.now()));
        sessions
    }

    /// The question, as long as nobody has looked at the answer.
    fn open(&self) -> Option<&(Runtime, Listing)> {
        self.0.asked.as_ref().filter(|_| self.0.found.get().is_none())
    }

    /// All of them; asks the server at the first time.
    pub fn load(&self) -> Result<List<Session>, Failure> {
        if !self.peek()?
            && let Some((runtime, listing)) = self.open()
        {
            let listing = listing.clone();
            let found = runtime.call(|client| async move { listing.whole(&client).await })?;
            let _ = self.0.found.set(found.into());
        }
        Ok(self.0.found.get().cloned().unwrap_or_default())
    }

    /// All of them, to act on: none that came after their number was asked for, since somebody may have agreed to that.
    pub fn load_to_act(&self) -> Result<List<Session>, Failure> {
        if let (Some(since), Some((runtime, listing))) = (self.0.many_since.get(), self.open())
            && !listing.is_cut()
        {
            let known = Condition::Number(Field::LastActivityAt, Relation::AtMost, since);
            let listing = listing.clone().narrowed(known);
            return runtime.call(|client| async move { listing.whole(&client).await }).map(List::from);
        }
        self.load()
    }

    /// Looks at the first page; whether that was all of them.
    fn peek(&self) -> Result<bool, Failure> {
        let Some((runtime, listing)) = self.open() else { return Ok(true) };
        if self.0.many_since.get().is_some() {
            return Ok(false);
        }
        let since = runtime.now();
        let asked = listing.clone();
        let (head, whole) = runtime.call(|client| async move { asked.head(&client).await })?;
        match whole {
            true => {
                let _ = self.0.found.set(head.into());
            }
            false => self.0.many_since.set(Some(since)),
        }
        Ok(whole)
    }

    /// The latest; `()` of none.
    fn first(&self) -> Result<Dynamic, Failure> {
        let list = match self.open() {
            Some((runtime, listing)) if listing.exact().is_some() => {
                let asked = listing.clone().cut(1);
                runtime.call(|client| async move { asked.head(&client).await })?.0
            }
            _ => self.load()?.iter().take(1).cloned().collect(),
        };
        Ok(list.into_iter().next().map_or(Dynamic::UNIT, Dynamic::from))
    }

    /// Asks the server for sums and counts, if there are many and it can tell.
    fn stats(&self, wanted: &StatsQuery) -> Result<Option<SessionStats>, Failure> {
        let Some((runtime, listing)) = self.open() else { return Ok(None) };
        let Some(query) = listing.exact().cloned() else { return Ok(None) };
        if self.peek()? {
            return Ok(None);
        }
        let wanted = wanted.clone();
        runtime.call(|client| async move { client.stats(&query, &wanted).await }).map(Some)
    }
}

/// What a test asks, as far as that needs no engine; `now` in milliseconds since the Unix epoch.
pub(super) fn understood(ctx: &NativeCallContext, test: &Test, now: i64) -> Understood {
    match test {
        Test::Expression(expression) => expression.understood(now),
        Test::Fields(fields) => condition::of_fields(fields),
        Test::Function(function) => condition::of_closure(ctx, function, now),
    }
}

/// The field that a key is.
fn field(ctx: &NativeCallContext, key: &Key) -> Option<Field> {
    match key {
        Key::Function(function) => condition::field_of_closure(ctx, function),
        key => key.field(),
    }
}

fn number(field: Option<Field>) -> Option<Number> {
    (field? == Field::MessageCount).then_some(Number::MessageCount)
}

fn measure(field: Option<Field>) -> Option<Measure> {
    match field? {
        Field::CreatedAt => Some(Measure::CreatedAt),
        Field::LastActivityAt => Some(Measure::LastActivityAt),
        Field::MessageCount => Some(Measure::MessageCount),
        _ => None,
    }
}

fn grouping(field: Option<Field>) -> Option<Grouping> {
    match field? {
        Field::Agent => Some(Grouping::Agent),
        Field::AgentId => Some(Grouping::AgentId),
        Field::Status => Some(Grouping::Status),
        _ => None,
    }
}

fn extreme_of(value: Option<Extreme>) -> Dynamic {
    match value {
        None => Dynamic::UNIT,
        Some(Extreme::Count(n)) => count(n),
        Some(Extreme::Moment(at)) => Dynamic::from(Moment(at)),
    }
}

impl Source for Sessions {
    fn walk(&self, ctx: &NativeCallContext, visit: &mut dyn FnMut(Dynamic) -> Step) -> Fallible<()> {
        self.load().at(ctx)?.walk(ctx, visit)
    }

    fn walk_keys(
        &self,
        ctx: &NativeCallContext,
        key: &Key,
        visit: &mut dyn FnMut(Dynamic) -> Step,
    ) -> Fallible<()> {
        let list = self.load().at(ctx)?;
        let now = Runtime::of(ctx)?.now();
        let field = field(ctx, key);
        for session in list.iter() {
            let value = match (field, key) {
                (Some(field), _) => field.of(session, now),
                (None, Key::Expression(expression)) => expression.value(ctx, session, now)?,
                (None, key) => key.of(ctx, Dynamic::from(session.clone()), now)?,
            };
            if visit(value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, ctx: &NativeCallContext, question: Question) -> Fallible<Option<Dynamic>> {
        let asked = match question {
            Question::Count => Some(StatsQuery::default()),
            Question::Sum(key) | Question::Average(key) => number(field(ctx, key))
                .map(|number| StatsQuery { sum: vec![number], ..StatsQuery::default() }),
            Question::Smallest(key) => measure(field(ctx, key))
                .map(|measure| StatsQuery { min: vec![measure], ..StatsQuery::default() }),
            Question::Largest(key) => measure(field(ctx, key))
                .map(|measure| StatsQuery { max: vec![measure], ..StatsQuery::default() }),
            Question::CountBy(key) => grouping(field(ctx, key))
                .map(|grouping| StatsQuery { count_by: vec![grouping], ..StatsQuery::default() }),
            Question::First => return self.first().map(Some).at(ctx),
        };
        let Some(asked) = asked else { return Ok(None) };
        let Some(stats) = self.stats(&asked).at(ctx)? else {
            let known = self.0.found.get().filter(|_| matches!(question, Question::Count));
            return Ok(known.map(|found| count(found.count() as u64)));
        };
        Ok(Some(match question {
            Question::Sum(_) => count(stats.sum.into_values().next().unwrap_or_default()),
            Question::Average(_) if stats.count == 0 => Dynamic::UNIT,
            Question::Average(_) => {
                let total = stats.sum.into_values().next().unwrap_or_default();
                mean(&count(total), i64::try_from(stats.count).unwrap_or(i64::MAX))
            }
            Question::Smallest(_) => extreme_of(stats.min.into_values().next().flatten()),
            Question::Largest(_) => extreme_of(stats.max.into_values().next().flatten()),
            Question::CountBy(_) => {
                let counts = stats.counts.into_values().next().unwrap_or_default();
                counts.into_iter().map(|(name, n)| (name.into(), count(n))).collect::<Map>().into()
            }
            Question::Count | Question::First => count(stats.count),
        }))
    }

    fn find(&self, ctx: &NativeCallContext, test: &Test, wanted: bool) -> Fallible<Option<Dynamic>> {
        if let Some((runtime, listing)) = self.open().filter(|(_, listing)| !listing.is_cut()) {
            let Understood { condition, whole } = understood(ctx, test, listing.now());
            if whole {
                let condition = if wanted { condition } else { condition.negated() };
                let narrowed = Self::asked(runtime, listing.clone().narrowed(condition));
                let found = narrowed.answer(ctx, Question::First)?;
                return Ok(found.filter(|found| !found.is_unit()));
            }
        }
        self.load().at(ctx)?.find(ctx, test, wanted)
    }

    fn keep(&self, ctx: &NativeCallContext, test: Test, wanted: bool) -> Fallible<Self> {
        let now = self
            .open()
            .map_or_else(|| Runtime::of(ctx).map(|runtime| runtime.now()), |(_, l)| Ok(l.now()))?;
        let understood = understood(ctx, &test, now);
        let condition = match wanted {
            true => understood.condition,
            false if understood.whole => understood.condition.negated(),
            // Those for which the part that is understood doesn't hold are among those that are wanted.
            false => Condition::Always(true),
        };
        let narrowed = match self.open().filter(|(_, listing)| !listing.is_cut()) {
            Some((runtime, listing)) => Self::asked(runtime, listing.clone().narrowed(condition)),
            None => {
                let fitting = self.load().at(ctx)?;
                fitting.iter().filter(|s| condition.holds(s, now)).cloned().collect::<Vec<_>>().into()
            }
        };
        match understood.whole {
            true => Ok(narrowed),
            false => narrowed.load().at(ctx)?.keep(ctx, test, wanted).map(Self::from),
        }
    }

    fn take(&self, ctx: &NativeCallContext, n: usize) -> Fallible<Self> {
        match self.open() {
            Some((runtime, listing)) => Ok(Self::asked(runtime, listing.clone().cut(n))),
            None => self.load().at(ctx)?.take(ctx, n).map(Self::from),
        }
    }

    fn skip(&self, ctx: &NativeCallContext, n: usize) -> Fallible<Self> {
        self.load().at(ctx)?.skip(ctx, n).map(Self::from)
    }
}

impl Listed for Sessions {
    type List = List<Session>;

    fn list(&self, ctx: &NativeCallContext) -> Fallible<Self::List> {
        self.load().at(ctx)
    }
}

/// For `for`: the error of a question that fails is the first value.
impl IntoIterator for Sessions {
    type Item = Fallible<Dynamic>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item>>;

    fn into_iter(self) -> Self::IntoIter {
        match self.load() {
            Ok(list) => Box::new(list.into_iter().map(Ok)),
            Err(failure) => Box::new(std::iter::once(Err(failure.at_position(rhai::Position::NONE)))),
        }
    }
}

async fn get_session(client: Client, text: String) -> crate::client::Result<crate::wire::Session> {
    let id = client.resolve(&text).await?;
    client.session(&id).await
}

/// The sessions that options choose.
pub(super) fn listed(
    ctx: &NativeCallContext,
    runtime: &Runtime,
    asked: listing::Options,
) -> Fallible<Sessions> {
    let mut sessions = Sessions::asked(runtime, asked.listing);
    if let Some(test) = asked.condition {
        sessions = sessions.keep(ctx, test, true)?;
    }
    if let Some(by) = asked.sort {
        sessions = sorted(ctx, &sessions.list(ctx)?, &by.all(ctx, &sessions)?)?.into();
    }
    match asked.limit {
        Some(limit) => sessions.take(ctx, limit),
        None => Ok(sessions),
    }
}

pub(super) fn get(runtime: &Runtime, text: String) -> Result<Session, Failure> {
    runtime.call(|client| get_session(client, text)).map(|session| runtime.session(session))
}

pub(super) fn resume_session(runtime: &Runtime, text: String) -> Result<Session, Failure> {
    client::digits(&text)?;
    if runtime.options().dry_run {
        let session = runtime.call(|client| get_session(client, text))?;
        runtime.would(&format!("resume {}", session.id.short()))?;
        return Ok(runtime.session(session));
    }
    let session = runtime.call(|client| async move {
        let id = client.resolve(&text).await?;
        client.resume_session(&id).await
    })?;
    runtime.changed(Change::ResumeSession);
    Ok(runtime.session(session))
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
        .map_or(Dynamic::UNIT, |session| Dynamic::from(runtime.session(session))))
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
    Ok(runtime.session(session))
}

/// Global functions, and the same in `sessions::`.
#[export_module]
pub mod session_calls {
    /// All sessions, latest activity first. The server is asked when they are looked at; of very many, sums and counts
    /// are asked of the server alone.
    ///
    /// ```rhai
    /// print(list().sum("message_count"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn list(ctx: NativeCallContext) -> Fallible<Sessions> {
        let runtime = Runtime::of(&ctx)?;
        Ok(Sessions::asked(&runtime, Listing::all(runtime.now())))
    }

    /// Sessions that fit all the options, latest activity first: `agent` (a name, an ID, an agent), `status` (with the
    /// aliases `running` and `error`), `idle_over` (a duration: idle for longer), `title` (a part of it, any case),
    /// `where` (a function, or an expression over a session's fields as text), `sort` (as `sort_by` takes it:
    /// `"agent, -message_count"`), `limit` (the first so many).
    /// Arrays of agents or statuses mean any of them, so empty ones mean none; `()` means not given.
    /// Errors: an unknown option, status or agent; a condition that makes no sense.
    ///
    /// ```rhai
    /// let stale = list(#{ agent: "notes", status: ["idle", "completed"], idle_over: 2.hours, limit: 10 });
    /// let long = list(#{ where: "message_count > 3 && title.contains(\"milk\")" });
    /// ```
    #[rhai_fn(name = "list", volatile, return_raw)]
    pub fn list_some(ctx: NativeCallContext, options: Map) -> Fallible<Sessions> {
        let runtime = Runtime::of(&ctx)?;
        let asked = listing::Options::read(&ctx, options, runtime.now())?;
        super::listed(&ctx, &runtime, asked)
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
        super::get(&Runtime::of(&ctx)?, id).at(&ctx)
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

    /// Makes a session ready for its next message, and gives it back as it is then. Errors: `ended`, `expired`, `busy`,
    /// `not_found`.
    ///
    /// ```rhai
    /// sessions::last("notes").resume().send("what do you know?");
    /// ```
    #[rhai_fn(name = "resume", volatile, return_raw)]
    pub fn resume_this(ctx: NativeCallContext, session: Session) -> Fallible<Session> {
        resume_session(&Runtime::of_session(&ctx, &session)?, session.0.id.to_string()).at(&ctx)
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

    /// Ends this session and wipes its workspace; gives the session as it is then. Error: `not_found`.
    ///
    /// ```rhai
    /// print(get("5a3f").end().status);   // ended
    /// ```
    #[rhai_fn(name = "end", volatile, return_raw)]
    pub fn end_this(ctx: NativeCallContext, session: Session) -> Fallible<Session> {
        ending::one(&Runtime::of_session(&ctx, &session)?, Target::Session(session)).at(&ctx)
    }

    /// Ends all of these in one request. What couldn't be ended is told in the answer's rows: `.ok` counts those that
    /// were ended, `.failed` are the rows of those that weren't. One that has begun to work on a message since it was
    /// listed is not ended: its row says `busy`.
    ///
    /// ```rhai
    /// let done = list(#{ status: "idle" }).end();
    /// print(`ended ${done.ok}, failed ${done.failed.len}`);
    /// ```
    #[rhai_fn(name = "end", volatile, return_raw)]
    pub fn end_these(ctx: NativeCallContext, sessions: Sessions) -> Fallible<Done> {
        let sessions = sessions.load_to_act().at(&ctx)?;
        let targets = sessions.iter().cloned().map(Target::Session).collect();
        ending::many(&Runtime::of(&ctx)?, targets).at(&ctx)
    }

    /// Ends all sessions of an array: IDs, beginnings of IDs, sessions. One that isn't found is a row of the answer, and so
    /// is a session that has begun to work on a message since it was listed. Error: the array holds something else.
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
    /// All sessions, oldest first, as a stream: any number of them in constant memory, a page at a time. It has `filter`,
    /// `map`, `take`, `each`, `sum`, `count_by` and the rest as lists have.
    ///
    /// ```rhai
    /// let total = 0;
    /// for s in sessions::each() { total += s.message_count; }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn each(ctx: NativeCallContext) -> Fallible<Stream> {
        Ok(Stream::all(&Runtime::of(&ctx)?))
    }

    /// Sessions out of JSON: an array of them as `sessions list --json` prints it. They are as they were then; what is
    /// done with them asks the server. Error: it is something else.
    ///
    /// ```rhai
    /// let kept = sessions::from_json(list().to_json());
    /// print(kept.sum("message_count"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn from_json(ctx: NativeCallContext, text: &str) -> Fallible<Sessions> {
        let sessions = Reader::default().array(text);
        let wrong = |error: serde_json::Error| {
            Failure::hinted(
                format!("this is not a list of sessions: {error}"),
                "It must be an array as superserve sessions list --json prints it.",
            )
        };
        sessions.map(Sessions::from).map_err(wrong).at(&ctx)
    }

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

    /// A new session of this agent. Error: `not_found` if the agent is gone.
    ///
    /// ```rhai
    /// let s = sessions::create(agents::get("notes"));
    /// ```
    #[rhai_fn(name = "create", volatile, return_raw)]
    pub fn create_of(ctx: NativeCallContext, agent: Agent) -> Fallible<Session> {
        create_session(&Runtime::of(&ctx)?, Whose::Agent(agent), None).at(&ctx)
    }

    /// A new session of an agent (its name, its ID or itself) with a title: the option `title`, a text. Errors: there
    /// is no such agent; an unknown option.
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

/// Lines end with `\n`; what would be misread stands in quotes.
fn csv(ctx: &NativeCallContext, sessions: &Sessions, fields: Array) -> Fallible<String> {
    let now = Runtime::of(ctx)?.now();
    let names: Vec<String> = fields
        .into_iter()
        .map(|name| name.into_string().map_err(|_| Failure::script("a field's name must be text")))
        .collect::<Result<_, _>>()
        .at(ctx)?;
    let cell = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let row = |cells: Vec<String>| cells.join(",") + "\n";
    let mut text = row(names.iter().map(|name| cell(name)).collect());
    for session in sessions.load().at(ctx)?.iter() {
        let value = Dynamic::from(session.clone());
        let cells =
            names.iter().map(|name| value::field(&value, name, now).map(|v| cell(&value::to_text(&v))));
        text.push_str(&row(cells.collect::<Result<_, _>>().at(ctx)?));
    }
    text.truncate(text.len() - 1);
    Ok(text)
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
    #[rhai_fn(get = "ids", pure, return_raw)]
    pub fn ids(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<Array> {
        Ok(sessions.load().at(&ctx)?.iter().map(|session| session.0.id.as_str().into()).collect())
    }

    /// Prints them as a table, as `sessions list` does.
    ///
    /// ```rhai
    /// list().table();
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn table(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<()> {
        output::print_table(&ctx, &Dynamic::from(sessions.clone()), None)
    }

    /// Prints these fields of them as a table; `last_active` too, as in `2 minutes ago`. Error: an unknown field.
    ///
    /// ```rhai
    /// list().table(["short_id", "title", "idle"]);
    /// ```
    #[rhai_fn(name = "table", pure, volatile, return_raw)]
    pub fn table_of(ctx: NativeCallContext, sessions: &mut Sessions, columns: Array) -> Fallible<()> {
        output::print_table(&ctx, &Dynamic::from(sessions.clone()), Some(columns))
    }

    /// They as JSON: an array with the keys of `sessions list --json`.
    ///
    /// ```rhai
    /// print(list().to_json());
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn to_json(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<String> {
        let list = sessions.load().at(&ctx)?;
        Ok(output::pretty(&list.iter().map(Session::to_json).collect::<serde_json::Value>()))
    }

    /// They as CSV (RFC 4180), with a header: these fields of each; times as RFC 3339, durations as text. Error: an
    /// unknown field.
    ///
    /// ```rhai
    /// print(list().to_csv(["id", "agent", "idle"]));
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn to_csv(ctx: NativeCallContext, sessions: &mut Sessions, fields: Array) -> Fallible<String> {
        super::csv(&ctx, sessions, fields)
    }

    /// They as CSV (RFC 4180), with a header: ID, agent, title, status, number of messages, times.
    ///
    /// ```rhai
    /// print(list(#{ status: "failed" }).to_csv());
    /// ```
    #[rhai_fn(name = "to_csv", pure, volatile, return_raw)]
    pub fn to_csv_of_all(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<String> {
        let names = ["id", "agent", "title", "status", "message_count", "created_at", "last_activity_at"];
        super::csv(&ctx, sessions, names.map(Dynamic::from).to_vec())
    }

    /// They as text: their short IDs.
    ///
    /// ```rhai
    /// print(`${list()}`);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure, return_raw)]
    pub fn to_string(ctx: NativeCallContext, sessions: &mut Sessions) -> Fallible<String> {
        let list = sessions.load().at(&ctx)?;
        Ok(format!("[{}]", list.iter().map(|session| session.0.id.short()).collect::<Vec<_>>().join(", ")))
    }
}
