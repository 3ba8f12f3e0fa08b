//! What `list` asks the server, and what it does itself with the answer.

use std::cmp::Reverse;

use rhai::{Array, Dynamic, FnPtr, Map, NativeCallContext};

use super::agents::Agent;
use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::predicate::Predicate;
use super::runtime::Runtime;
use super::sequence::{Sequence as _, Test, places};
use super::session::{OptionMap, Session};
use super::sessions::Sessions;
use crate::client::{self, Client};
use crate::wire::session::ParseStatusError;
use crate::wire::{self, Order, SessionQuery, Status};

/// How many sessions are asked for at once: the most that the server gives.
const PAGE: u32 = 1000;

enum Condition {
    Expression(Predicate),
    Function(FnPtr),
}

/// A question about sessions.
#[derive(Default)]
pub struct Listing {
    /// Any of these; all if empty.
    agents: Vec<String>,
    statuses: Vec<Status>,
    idle_over: Option<Span>,
    title: Option<String>,
    limit: Option<usize>,
    condition: Option<Condition>,
    /// An array of agents or statuses has none, so no session fits.
    none: bool,
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

impl Listing {
    /// Reads the options of `list`.
    pub fn read(ctx: &NativeCallContext, options: Map) -> Fallible<Self> {
        Self::read_map(ctx, options).at(ctx)
    }

    fn read_map(ctx: &NativeCallContext, options: Map) -> Result<Self, Failure> {
        let mut map =
            OptionMap::new(options, "list", &["agent", "status", "idle_over", "title", "limit", "where"])?;
        let title = map.text("title")?;
        // As with an empty agent: a variable that is not set must not mean all.
        if title.as_deref() == Some("") {
            return Err(Failure::Usage {
                message: "the title is empty".into(),
                hint: Some("Give a part of a title, or leave the option out.".into()),
            });
        }
        let mut listing = Self { title, ..Self::default() };
        let mut values = |key| {
            let values = map.take(key).map(several);
            listing.none |= values.as_ref().is_some_and(Vec::is_empty);
            values.unwrap_or_default()
        };
        let (agents, statuses) = (values("agent"), values("status"));
        for agent in agents {
            listing.agents.push(match agent.clone().try_cast::<Agent>() {
                Some(agent) => agent.id(),
                None => named(agent.into_string().map_err(|_| map.wrong("agent", "text or an agent"))?)?,
            });
        }
        for status in statuses {
            let word = status.into_string().map_err(|_| map.wrong("status", "text"))?;
            listing.statuses.push(word.parse().map_err(|error: ParseStatusError| Failure::Usage {
                message: format!("unknown status '{}'", error.0),
                hint: Some(
                    "Use active, idle, completed, ended, failed or pending; running and error are aliases of active and failed.".into(),
                ),
            })?);
        }
        listing.idle_over = match map.take("idle_over") {
            None => None,
            Some(value) => Some(match value.clone().try_cast::<Span>() {
                Some(span) => span,
                None => Span::parse(
                    &value
                        .into_string()
                        .map_err(|_| map.wrong("idle_over", "a duration: 2.hours or \"2h\""))?,
                )?,
            }),
        };
        listing.limit = match map.take("limit") {
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
        listing.condition = match map.take("where") {
            None => None,
            Some(value) => Some(match value.clone().try_cast::<FnPtr>() {
                Some(function) => Condition::Function(function),
                None => {
                    let text = value
                        .into_string()
                        .map_err(|_| map.wrong("where", "a function or an expression as text"))?;
                    Condition::Expression(Predicate::compile(ctx.engine(), &text)?)
                }
            }),
        };
        Ok(listing)
    }

    /// Asks, and gives the sessions, latest activity first.
    pub fn run(self, ctx: &NativeCallContext) -> Fallible<Vec<Session>> {
        if self.none {
            return Ok(Vec::new());
        }
        let runtime = Runtime::of(ctx)?;
        let query = SessionQuery {
            status: self.statuses,
            idle_longer_than: self.idle_over.map(|span| u64::try_from(span.0.div_euclid(1000)).unwrap_or(0)),
            title_contains: self.title,
            ..SessionQuery::default()
        };
        // Only the server's own order and conditions can be cut by the server.
        let cut = self
            .limit
            .filter(|_| self.condition.is_none() && self.idle_over.is_none() && self.agents.len() < 2);
        let agents: Vec<Option<String>> = match self.agents.len() {
            0 => vec![None],
            _ => self.agents.into_iter().map(Some).collect(),
        };
        let found = runtime
            .call(|client| async move {
                let mut found = Vec::new();
                for agent in agents {
                    found.extend(
                        pages(
                            &client,
                            SessionQuery { agent: agent.into_iter().collect(), ..query.clone() },
                            cut,
                        )
                        .await?,
                    );
                }
                Ok(found)
            })
            .at(ctx)?;
        let now = runtime.now();
        let mut sessions: Vec<Session> = found.into_iter().map(Session::from).collect();
        // The server counts whole seconds.
        if let Some(over) = self.idle_over {
            sessions.retain(|session| session.idle(now) > over);
        }
        sessions.sort_by_cached_key(|session| (Reverse(session.last_activity()), session.0.id.clone()));
        sessions.dedup_by(|a, b| a.0.id == b.0.id);
        let mut sessions = match self.condition {
            None => sessions,
            Some(Condition::Expression(predicate)) => predicate.select(ctx, sessions, now)?,
            Some(Condition::Function(function)) => {
                let all = Sessions::from(sessions);
                let places = places(ctx, &all, &Test::Function(function), true)?;
                all.pick(&places).iter().cloned().collect()
            }
        };
        sessions.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(sessions)
    }
}

/// One value, or the values of an array.
fn several(value: Dynamic) -> Array {
    value.clone().into_array().unwrap_or_else(|_| vec![value])
}

/// All pages, or as many as `cut` sessions need. Without a cut they are asked for in the order of creation, since a
/// session that becomes active between two pages would move in the other one.
async fn pages(
    client: &Client,
    mut query: SessionQuery,
    cut: Option<usize>,
) -> client::Result<Vec<wire::Session>> {
    let mut found = Vec::new();
    query.order = if cut.is_some() { Order::Activity } else { Order::Created };
    loop {
        let missing = cut.map_or(PAGE, |cut| u32::try_from(cut - found.len()).unwrap_or(PAGE).min(PAGE));
        query.limit = Some(missing);
        let page = client.sessions(&query).await?;
        let empty = page.sessions.is_empty();
        found.extend(page.sessions);
        if cut.is_some_and(|cut| found.len() >= cut) || empty {
            break;
        }
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => break,
        }
    }
    found.truncate(cut.unwrap_or(usize::MAX));
    Ok(found)
}
