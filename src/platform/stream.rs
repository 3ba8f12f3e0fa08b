//! A run's events on their way to those who read along: stored first, then shown, in order, to any number of readers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use tokio::sync::watch;

use crate::store::Store;
use crate::wire::{NumberedEvent, RunId};

/// How many events are kept in memory; who is further behind reads from the store.
const RECENT: usize = 256;
/// How many events are read from the store at a time.
const PAGE: u32 = 256;

/// The events of one run, in order, as they come. Dropping it cancels nothing.
pub struct RunStream(Pin<Box<dyn Stream<Item = NumberedEvent> + Send>>);

impl Stream for RunStream {
    type Item = NumberedEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<NumberedEvent>> {
        self.0.as_mut().poll_next(context)
    }
}

/// A run that is going on, as its readers see it.
pub struct Broadcast {
    run: RunId,
    recent: Mutex<Recent>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Recent {
    events: VecDeque<NumberedEvent>,
    /// Nothing will follow.
    closed: bool,
}

/// What a reader finds.
enum Next {
    Events(Vec<NumberedEvent>),
    /// What it wants is no longer in memory; this is the first that is.
    Gap(u64),
    Nothing,
    Closed,
}

impl Broadcast {
    pub fn new(run: RunId) -> Arc<Self> {
        Arc::new(Self { run, recent: Mutex::default(), changed: watch::Sender::new(()) })
    }

    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Shows events that are stored.
    pub fn publish(&self, events: impl IntoIterator<Item = NumberedEvent>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            recent.closed |= event.event.is_last();
            recent.events.push_back(event);
        }
        let surplus = recent.events.len().saturating_sub(RECENT);
        recent.events.drain(..surplus);
        drop(recent);
        self.changed.send_replace(());
    }

    /// Lets readers go, whatever has come.
    pub fn close(&self) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.send_replace(());
    }

    fn after(&self, number: u64) -> Next {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.events.front().map_or(u64::MAX, |event| event.number);
        if number.saturating_add(1) < first && first != u64::MAX {
            return Next::Gap(first);
        }
        let events: Vec<_> = recent.events.iter().filter(|event| event.number > number).cloned().collect();
        match (events.is_empty(), recent.closed) {
            (false, _) => Next::Events(events),
            (true, true) => Next::Closed,
            (true, false) => Next::Nothing,
        }
    }
}

struct Reader {
    run: RunId,
    store: Store,
    broadcast: Option<(Arc<Broadcast>, watch::Receiver<()>)>,
    /// The number of the last event that was read.
    number: u64,
    buffer: VecDeque<NumberedEvent>,
    finished: bool,
}

impl RunStream {
    /// The events after the first `after` of a run that is going on.
    pub fn live(store: Store, broadcast: Arc<Broadcast>, after: u64) -> Self {
        let changed = broadcast.changed.subscribe();
        Self::new(store, broadcast.run.clone(), Some((broadcast, changed)), after)
    }

    /// The events after the first `after` of a run that is over.
    pub fn stored(store: Store, run: RunId, after: u64) -> Self {
        Self::new(store, run, None, after)
    }

    fn new(
        store: Store,
        run: RunId,
        broadcast: Option<(Arc<Broadcast>, watch::Receiver<()>)>,
        after: u64,
    ) -> Self {
        let reader =
            Reader { run, store, broadcast, number: after, buffer: VecDeque::new(), finished: false };
        Self(Box::pin(stream::unfold(reader, Reader::next)))
    }
}

impl Reader {
    async fn next(mut self) -> Option<(NumberedEvent, Self)> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                self.number = event.number;
                self.finished = event.event.is_last();
                return Some((event, self));
            }
            if self.finished {
                return None;
            }
            let Some((broadcast, changed)) = &mut self.broadcast else {
                self.buffer = self.read_stored().await.into();
                self.finished = self.buffer.is_empty();
                continue;
            };
            // Before the look, so that what comes between the look and the wait wakes us.
            changed.mark_unchanged();
            match broadcast.after(self.number) {
                Next::Events(events) => self.buffer = events.into(),
                Next::Gap(first) => {
                    self.buffer = self.read_stored().await.into();
                    if self.buffer.is_empty() {
                        // The store has forgotten them, since a later run has begun: go on with what is there.
                        self.number = first.saturating_sub(1);
                    }
                }
                Next::Nothing => {
                    if changed.changed().await.is_err() {
                        return None;
                    }
                }
                Next::Closed => return None,
            }
        }
    }

    async fn read_stored(&self) -> Vec<NumberedEvent> {
        self.store.events(&self.run, self.number, PAGE).await.unwrap_or_else(|error| {
            tracing::warn!(run = %self.run, %error, "cannot read a run's events");
            Vec::new()
        })
    }
}
