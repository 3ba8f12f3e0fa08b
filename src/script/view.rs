//! The sessions that fit a question, kept as they are by the changes that the server tells.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use rhai::{Dynamic, NativeCallContext};

use super::condition::Understood;
use super::failure::Fallible;
use super::listing::{Listing, Options};
use super::runtime::Runtime;
use super::sequence::{List, Test, sorted};
use super::session::Session;
use super::sessions::{Sessions, understood};
use crate::wire::{SessionEvent, SessionId};

/// Sessions by their IDs.
pub type Known = HashMap<SessionId, Session>;

/// What has become of a session.
#[derive(Clone, Debug)]
pub struct Change {
    /// As it was known.
    pub before: Option<Session>,
    /// `None`: it was forgotten.
    pub now: Option<Session>,
}

/// What is asked, and the sessions that the server's part of it fits; what the rest says of them can depend on the time.
pub struct View {
    asked: Options,
    known: Known,
    /// Those that were the first so many when that was last looked at.
    first: HashSet<SessionId>,
}

impl View {
    pub fn new(asked: Options) -> Self {
        Self { asked, known: HashMap::new(), first: HashSet::new() }
    }

    /// What the server is asked.
    pub fn listing(&self) -> &Listing {
        &self.asked.listing
    }

    /// These are all that there are now.
    pub fn set(&mut self, found: Vec<Session>) {
        self.known = found.into_iter().map(|session| (session.0.id.clone(), session)).collect();
    }

    /// Remembers which are the first so many.
    pub fn begin(&mut self, ctx: &NativeCallContext) -> Fallible<()> {
        if self.asked.limit.is_some() {
            self.first = self.shown(ctx)?.into_iter().map(|session| session.0.id.clone()).collect();
        }
        Ok(())
    }

    /// All that are known now.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// Takes a change in.
    pub fn apply(&mut self, event: SessionEvent) -> Change {
        let (id, now) = match event {
            SessionEvent::Updated(session) => (session.id.clone(), Some(Session::from(session))),
            SessionEvent::Deleted(id) => (id, None),
        };
        let before = match &now {
            Some(now) if self.asked.listing.is_of(now) => self.known.insert(id, now.clone()),
            _ => self.known.remove(&id),
        };
        Change { before, now }
    }

    /// What has changed since these were known, the longest ago first.
    pub fn since(&self, before: &Known) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, now) in &self.known {
            let before = before.get(id).cloned();
            if before.as_ref().is_none_or(|before| !is_same(before, now)) {
                changes.push(Change { before, now: Some(now.clone()) });
            }
        }
        let gone = before.iter().filter(|(id, _)| !self.known.contains_key(*id));
        changes.extend(gone.map(|(_, before)| Change { before: Some(before.clone()), now: None }));
        changes.sort_by_cached_key(|change| {
            let session = change.now.as_ref().or(change.before.as_ref());
            session.map(|session| (session.last_activity(), session.0.id.clone()))
        });
        changes
    }

    /// Whether a change is of a session that fits now, or did before. Where only the first so many count: that is one of
    /// them now, or was when this was last asked.
    pub fn is_told(&mut self, ctx: &NativeCallContext, change: &Change) -> Fallible<bool> {
        let now = Runtime::of(ctx)?.now();
        let test = self.asked.condition.as_ref().map(|test| (test, understood(ctx, test, now)));
        let is_of = |session: &&Session| self.asked.listing.is_of(session);
        let mut fits = false;
        for session in [&change.before, &change.now].into_iter().flatten().filter(is_of) {
            fits = fits || holds(ctx, test.as_ref(), session, now)?;
        }
        if self.asked.limit.is_none() {
            return Ok(fits);
        }
        let before = std::mem::take(&mut self.first);
        self.begin(ctx)?;
        let id = change.now.as_ref().or(change.before.as_ref()).map(|session| &session.0.id);
        Ok(fits && id.is_some_and(|id| before.contains(id) || self.first.contains(id)))
    }

    /// Those that fit now, in their order.
    pub fn shown(&self, ctx: &NativeCallContext) -> Fallible<Vec<Session>> {
        let now = Runtime::of(ctx)?.now();
        let test = self.asked.condition.as_ref().map(|test| (test, understood(ctx, test, now)));
        let mut found: Vec<Session> = Vec::with_capacity(self.known.len());
        for session in self.known.values() {
            if holds(ctx, test.as_ref(), session, now)? {
                found.push(session.clone());
            }
        }
        found.sort_by(|a, b| {
            (Reverse(a.last_activity()), &a.0.id).cmp(&(Reverse(b.last_activity()), &b.0.id))
        });
        if let Some(by) = &self.asked.sort {
            let list = List::from(found);
            let keys = by.all(ctx, &Sessions::from(list.clone()))?;
            found = sorted(ctx, &list, &keys)?.iter().cloned().collect();
        }
        found.truncate(self.asked.limit.unwrap_or(usize::MAX));
        Ok(found)
    }
}

fn holds(
    ctx: &NativeCallContext,
    test: Option<&(&Test, Understood)>,
    session: &Session,
    now: i64,
) -> Fallible<bool> {
    let Some((test, understood)) = test else { return Ok(true) };
    let may = understood.condition.holds(session, now);
    if !may || understood.whole { Ok(may) } else { test.holds(ctx, Dynamic::from(session.clone()), now) }
}

/// Whether nothing has happened to it that anybody would be told.
fn is_same(a: &Session, b: &Session) -> bool {
    let state = |session: &Session| {
        (session.0.status, session.0.message_count, session.0.last_activity_at, session.0.ended_at)
    };
    state(a) == state(b)
}
