//! What is decided about a session's network: kept in the store, and, of what is denied, told in the run that is going on.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Inner, Platform, Result};
use crate::egress::{Ledger, Note, Outcome};
use crate::harness::Output;
use crate::wire::network::Decision;
use crate::wire::{Egress, SessionId, Timestamp};

/// So many denials are told in one run.
const MOST_TOLD: usize = 100;

/// Where the run that is going on in a session takes what it is told.
pub struct Ear {
    output: mpsc::Sender<Output>,
    /// What was told in this run.
    told: HashSet<String>,
}

/// A run's entry among those that hear of denials. Dropping it takes it out.
pub struct Listening {
    inner: Arc<Inner>,
    session: SessionId,
}

impl Listening {
    pub fn new(inner: &Arc<Inner>, session: &SessionId, output: mpsc::Sender<Output>) -> Self {
        let ear = Ear { output, told: HashSet::new() };
        inner.ears.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone(), ear);
        Self { inner: inner.clone(), session: session.clone() }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inner.ears.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

/// The ledger of one session.
pub struct Kept {
    pub inner: Arc<Inner>,
    pub session: SessionId,
}

impl Kept {
    fn tell(&self, target: String) {
        let mut ears = self.inner.ears.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ear) = ears.get_mut(&self.session) else { return };
        if ear.told.len() < MOST_TOLD && !ear.told.contains(&target) {
            let status = json!({ "content": format!("egress denied {target}") });
            // A run that can't take it now hears of it at the next attempt; the log has it.
            if ear.output.try_send(Output::Status(status)).is_ok() {
                ear.told.insert(target);
            }
        }
    }
}

impl Ledger for Kept {
    fn decided(&self, note: Note) -> BoxFuture<'_, Option<i64>> {
        async move {
            let entry = Egress {
                at: Timestamp::from_millis(self.inner.clock.now_millis()),
                decision: note.decision,
                host: note.host,
                port: note.port,
                sent: 0,
                received: 0,
                reason: note.reason,
            };
            if entry.decision == Decision::Denied {
                self.tell(entry.target());
            }
            match self.inner.store.add_egress(&self.session, &entry).await {
                Ok(number) => Some(number),
                Err(error) => {
                    let target = entry.target();
                    tracing::warn!(session = %self.session, %error, %target, "cannot keep what was decided");
                    None
                }
            }
        }
        .boxed()
    }

    fn ended(&self, number: i64, outcome: Outcome) -> BoxFuture<'_, ()> {
        async move {
            let Outcome { sent, received, failure } = outcome;
            let kept = self.inner.store.end_egress(number, sent, received, failure.as_deref()).await;
            if let Err(error) = kept {
                tracing::warn!(session = %self.session, %error, "cannot keep how a connection went");
            }
        }
        .boxed()
    }
}

impl Platform {
    /// What was decided about the session's network, the oldest first: the latest 1000.
    pub async fn egress(&self, id: &SessionId) -> Result<Vec<Egress>> {
        self.session(id).await?;
        Ok(self.0.store.egress(id).await?)
    }
}
