//! Which sessions are meant: what the server is asked, and what is tested on its answer.

use std::cmp::Reverse;

use rhai::{Array, Dynamic, FnPtr, Map, NativeCallContext};

use super::agents::Agent;
use super::condition::{Condition, Relation};
use super::duration::Span;
use super::expression::Expression;
use super::failure::{At, Failure, Fallible};
use super::field::Field;
use super::record::{Page, Reader};
use super::sequence::{SortBy, Test};
use super::session::{OptionMap, Session};
use crate::client::{self, Client};
use crate::wire::session::ParseStatusError;
use crate::wire::{Order, SessionQuery};

/// How many sessions are asked for at once: the most that the server gives.
pub const PAGE: u32 = 1000;

/// Sessions, latest activity first.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Without order, limit and cursor.
    query: SessionQuery,
    /// What the server can't answer.
    rest: Condition,
    limit: Option<usize>,
    /// What idle times and ages count to: milliseconds since the Unix epoch.
    now: i64,
}

/// What `list` was told.
pub struct Options {
    pub listing: Listing,
    pub condition: Option<Test>,
    pub sort: Option<SortBy>,
    pub limit: Option<usize>,
}

/// An agent's name or ID. An empty one is a variable that is not set: it must not mean the sessions of all.
pub(super) fn named(agent: String) -> Result<String, Failure> {
    match agent.is_empty() {
        true => Err(Failure::Usage {
            message: "the agent is empty".into(),
            hint: Some("Give an agent's name or ID, or leave the option out.".into()),
        }),
        false => Ok(agent),
    }
}

impl Options {
    /// Reads the options of `list`; `now` in milliseconds since the Unix epoch.
    pub fn read(ctx: &NativeCallContext, options: Map, now: i64) -> Fallible<Self> {
        Self::read_map(ctx, options, now).at(ctx)
    }

    fn read_map(ctx: &NativeCallContext, options: Map, now: i64) -> Result<Self, Failure> {
        let known = &["agent", "status", "idle_over", "title", "where", "sort", "limit"];
        let mut map = OptionMap::new(options, "list", known)?;
        let title = map.text("title")?;
        // As with an empty agent: a variable that is not set must not mean all.
        if title.as_deref() == Some("") {
            return Err(Failure::Usage {
                message: "the title is empty".into(),
                hint: Some("Give a part of a title, or leave the option out.".into()),
            });
        }
        let mut query = SessionQuery { title_contains: title, ..SessionQuery::default() };
        let mut rest = Condition::Always(true);
        let mut values = |key| {
            let values = map.take(key).map(several);
            // An array of agents or statuses that has none: no session fits.
            if values.as_ref().is_some_and(Vec::is_empty) {
                rest = Condition::Always(false);
            }
            values.unwrap_or_default()
        };
        let (agents, statuses) = (values("agent"), values("status"));
        for agent in agents {
            query.agent.push(match agent.clone().try_cast::<Agent>() {
                Some(agent) => agent.id(),
                None => named(agent.into_string().map_err(|_| map.wrong("agent", "text or an agent"))?)?,
            });
        }
        for status in statuses {
            let word = status.into_string().map_err(|_| map.wrong("status", "text"))?;
            query.status.push(word.parse().map_err(|error: ParseStatusError| Failure::Usage {
                message: format!("unknown status '{}'", error.0),
                hint: Some(
                    "Use active, idle, completed, ended, failed or pending; running and error are aliases of active and failed.".into(),
                ),
            })?);
        }
        let mut listing = Listing { query, rest, limit: None, now };
        if let Some(value) = map.take("idle_over") {
            let over = match value.clone().try_cast::<Span>() {
                Some(span) => span,
                None => Span::parse(
                    &value
                        .into_string()
                        .map_err(|_| map.wrong("idle_over", "a duration: 2.hours or \"2h\""))?,
                )?,
            };
            listing = listing.narrowed(Condition::Number(Field::Idle, Relation::More, over.0));
        }
        let limit = match map.take("limit") {
            None => None,
            Some(value) => {
                let wrong = || Failure::Usage {
                    message: "the limit must be a whole number above 0".into(),
                    hint: None,
                };
                let number = match value.as_int() {
                    Ok(number) => number,
                    Err(_) => {
                        value.into_string().ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?
                    }
                };
                Some(usize::try_from(number).ok().filter(|limit| *limit > 0).ok_or_else(wrong)?)
            }
        };
        let wrong = |map: &OptionMap, key| map.wrong(key, "a function or an expression as text");
        let condition = match map.take("where") {
            None => None,
            Some(value) => Some(match value.clone().try_cast::<FnPtr>() {
                Some(function) => Test::Function(function),
                None => {
                    let text = value.into_string().map_err(|_| wrong(&map, "where"))?;
                    Test::Expression(Box::new(Expression::compile(ctx.engine(), &text)?))
                }
            }),
        };
        let sort = match map.take("sort") {
            None => None,
            Some(value) => Some(match value.clone().try_cast::<FnPtr>() {
                Some(function) => SortBy::function(function),
                None => {
                    let text = value.into_string().map_err(|_| wrong(&map, "sort"))?;
                    SortBy::compile(ctx.engine(), &text)?
                }
            }),
        };
        Ok(Self { listing, condition, sort, limit })
    }
}

impl Listing {
    /// All sessions; `now` in milliseconds since the Unix epoch.
    pub fn all(now: i64) -> Self {
        Self { query: SessionQuery::default(), rest: Condition::Always(true), limit: None, now }
    }

    /// Whether the agents, the states and the title that the server is asked for are this session's.
    pub fn is_of(&self, session: &Session) -> bool {
        let SessionQuery { status, agent, title_contains, .. } = &self.query;
        let record = &session.0;
        let is_called =
            |agent: &String| *agent == record.agent.called.as_str() || agent == record.agent.id.as_str();
        (status.is_empty() || status.contains(&record.status))
            && (agent.is_empty() || agent.iter().any(is_called))
            && title_contains
                .as_ref()
                .is_none_or(|part| session.title().to_ascii_lowercase().contains(&part.to_ascii_lowercase()))
            && self.rest != Condition::Always(false)
    }

    pub fn now(&self) -> i64 {
        self.now
    }

    /// Those for which this holds too. Not to be asked of one that is cut.
    pub fn narrowed(mut self, condition: Condition) -> Self {
        let left = condition.narrow(&mut self.query, self.now);
        self.rest = match (self.rest, left) {
            (Condition::Always(false), _) | (_, Condition::Always(false)) => Condition::Always(false),
            (rest, left) => rest.and(left),
        };
        self
    }

    /// The first `limit`.
    pub fn cut(mut self, limit: usize) -> Self {
        self.limit = Some(self.limit.map_or(limit, |known| known.min(limit)));
        self
    }

    pub fn is_cut(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether it is known without asking that there are none.
    pub fn is_empty(&self) -> bool {
        self.rest == Condition::Always(false) || self.limit == Some(0)
    }

    /// The query that gives just these sessions, if the server can tell all of them from the others.
    pub fn exact(&self) -> Option<&SessionQuery> {
        (self.rest == Condition::Always(true) && self.limit.is_none()).then_some(&self.query)
    }

    /// Whether those that the server answers with have to be tested.
    pub fn fits(&self, session: &Session) -> bool {
        self.rest.holds(session, self.now)
    }

    /// A page of those that may fit.
    pub async fn page(
        &self,
        client: &Client,
        reader: &Reader,
        order: Order,
        limit: u32,
        cursor: Option<String>,
    ) -> client::Result<Page> {
        let query = SessionQuery { order, limit: Some(limit), cursor, ..self.query.clone() };
        let body = client.sessions_raw(&query).await?;
        reader.page(&body).map_err(|error| client::Error::Protocol(error.to_string()))
    }

    /// The latest, at most a page of them, and whether these are all.
    pub async fn head(&self, client: &Client) -> client::Result<(Vec<Session>, bool)> {
        if self.is_empty() {
            return Ok((Vec::new(), true));
        }
        let wanted = self.limit.filter(|_| self.rest == Condition::Always(true));
        let limit = wanted.and_then(|limit| u32::try_from(limit).ok()).map_or(PAGE, |limit| limit.min(PAGE));
        let page = self.page(client, &Reader::of(client.name()), Order::Activity, limit, None).await?;
        let whole = page.next_cursor.is_none() || wanted.is_some_and(|limit| page.sessions.len() >= limit);
        let mut sessions = page.sessions;
        sessions.retain(|session| self.fits(session));
        if let Some(limit) = self.limit {
            // What the rest is tested on may have been cut short by the page alone.
            if sessions.len() >= limit {
                sessions.truncate(limit);
                return Ok((sessions, true));
            }
        }
        Ok((sessions, whole))
    }

    /// All of them. They are asked for in the order of creation, since a session that becomes active between two pages
    /// would move in the other one; the first so many can be had in no order but their own.
    pub async fn whole(&self, client: &Client) -> client::Result<Vec<Session>> {
        let reader = Reader::of(client.name());
        let first = self.limit.filter(|_| self.rest == Condition::Always(true));
        let order = if first.is_some() { Order::Activity } else { Order::Created };
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.page(client, &reader, order, PAGE, cursor).await?;
            found.extend(page.sessions.into_iter().filter(|session| self.fits(session)));
            match page.next_cursor {
                Some(next) if first.is_none_or(|limit| found.len() < limit) => cursor = Some(next),
                _ => break,
            }
        }
        found.sort_by(|a, b| {
            (Reverse(a.last_activity()), &a.0.id).cmp(&(Reverse(b.last_activity()), &b.0.id))
        });
        found.dedup_by(|a, b| a.0.id == b.0.id);
        found.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(found)
    }
}

/// One value, or the values of an array.
fn several(value: Dynamic) -> Array {
    value.clone().into_array().unwrap_or_else(|_| vec![value])
}
