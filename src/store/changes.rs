//! Who looks on is told of every session whose status changes, that is made or forgotten, once it is stored.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{Store, StoredSession};
use crate::wire::SessionId;

/// How many changes are kept for those who read slowly; who is further behind is told that it has missed some.
const KEPT: usize = 1024;

/// What has become of a session.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is this now, and stored.
    Updated(Arc<StoredSession>),
    Deleted(SessionId),
    /// Something has changed, and what could not be read.
    Unknown,
}

/// Where changes are told.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Change>);

impl Changes {
    pub fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Store {
    /// The changes from now on. A receiver that lags has missed some.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.0.subscribe()
    }

    /// Tells what a session has become by a change that is committed.
    pub(super) async fn tell(&self, id: &SessionId) {
        // Reading it back costs nothing as long as nobody looks on.
        if self.changes.0.receiver_count() == 0 {
            return;
        }
        let change = match self.session(id).await {
            Ok(Some(stored)) => Change::Updated(Arc::new(stored)),
            Ok(None) => Change::Deleted(id.clone()),
            Err(_) => Change::Unknown,
        };
        // The last one to look on may just have left.
        let _ = self.changes.0.send(change);
    }
}
