//! Sessions' changes on their way to those who look on.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Error, Inner, Platform, Result};
use crate::store::Change;
use crate::wire::{SessionEvent, SessionId};

/// The most sessions that one watch names.
const MAX_WATCHED: usize = 1000;

/// Changes of sessions as they come. It ends when the server shuts down, and, where no session is named, when changes
/// were missed.
pub struct SessionStream(Pin<Box<dyn Stream<Item = SessionEvent> + Send>>);

impl Stream for SessionStream {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        self.0.as_mut().poll_next(context)
    }
}

struct Watcher {
    inner: Arc<Inner>,
    changes: Receiver<Change>,
    /// All sessions, if none is named.
    ids: Vec<SessionId>,
    named: HashSet<SessionId>,
    ready: VecDeque<SessionEvent>,
}

impl Platform {
    /// The present states of the named sessions, then a session whenever its status changes, it is made, or forgotten:
    /// one of those named, or any if none is. A reader that is too slow gets the present states again.
    ///
    /// Errors: a session that is not there; too many.
    pub async fn watch(&self, ids: Vec<SessionId>) -> Result<SessionStream> {
        if ids.len() > MAX_WATCHED {
            return Err(Error::Invalid {
                message: format!("At most {MAX_WATCHED} sessions can be watched at a time"),
                hint: Some("Name none to watch all of them.".into()),
            });
        }
        if self.0.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        // Before the states are read, so that nothing that happens afterwards is lost.
        let changes = self.0.store.changes();
        let mut ready = VecDeque::with_capacity(ids.len());
        for id in &ids {
            ready.push_back(SessionEvent::Updated(self.session(id).await?));
        }
        let named = ids.iter().cloned().collect();
        let watcher = Watcher { inner: self.0.clone(), changes, ids, named, ready };
        Ok(SessionStream(Box::pin(stream::unfold(watcher, Watcher::next))))
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(SessionEvent, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let change = tokio::select! {
                // What has happened up to the end is told.
                biased;
                change = self.changes.recv() => change,
                () = self.inner.closed.cancelled() => return None,
            };
            match change {
                Ok(Change::Updated(stored)) if self.is_of(&stored.session.id) => {
                    self.ready.push_back(SessionEvent::Updated(self.inner.view(stored.session.clone())));
                }
                Ok(Change::Deleted(id)) if self.is_of(&id) => {
                    self.ready.push_back(SessionEvent::Deleted(id));
                }
                Ok(Change::Updated(_) | Change::Deleted(_)) => {}
                Ok(Change::Unknown) | Err(RecvError::Lagged(_)) => {
                    if !self.look_again().await {
                        return None;
                    }
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn is_of(&self, id: &SessionId) -> bool {
        self.named.is_empty() || self.named.contains(id)
    }

    /// Reads the present states after changes were missed; false where nobody can say of which sessions, or the store
    /// does not answer.
    async fn look_again(&mut self) -> bool {
        // What is still waiting is older than what is read now.
        self.changes = self.inner.store.changes();
        for id in &self.ids {
            match self.inner.store.session(id).await {
                Ok(Some(stored)) => {
                    self.ready.push_back(SessionEvent::Updated(self.inner.view(stored.session)));
                }
                Ok(None) => self.ready.push_back(SessionEvent::Deleted(id.clone())),
                Err(error) => {
                    tracing::warn!(session = %id, %error, "cannot read a session that is watched");
                    return false;
                }
            }
        }
        !self.ids.is_empty()
    }
}
