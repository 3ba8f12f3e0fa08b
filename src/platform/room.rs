//! Whether a session's folders keep to their limits: looked at while a turn goes on and at its end.
//!
//! Machines that can't be made to say "no space left" for one session alone leave it to this.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::workspace::Folders;
use crate::sandbox::{Limits, Measured, Usage, measure};

/// How often it is looked at during a turn.
const EVERY: Duration = Duration::from_secs(10);
/// Looking takes no more than this part of the time, however much there is to look at.
const PART: u32 = 20;
/// The end of a turn waits no longer for it.
const AT_END: Duration = Duration::from_millis(50);

/// What is known of a session's folders from turn to turn.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// They held too much when they were last seen whole.
    over: bool,
    /// Somebody looks at them after the end of a turn.
    looking: bool,
    /// When that may be done again.
    again: Option<Instant>,
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders of one session, and what they may hold.
#[derive(Clone, Debug)]
pub struct Room {
    folders: [PathBuf; 2],
    most: Usage,
    known: Known,
}

impl Room {
    pub fn new(folders: Folders, limits: &Limits, known: &Known) -> Self {
        Self {
            folders: [folders.workspace, folders.home],
            most: Usage { bytes: limits.workspace, files: limits.files },
            known: known.clone(),
        }
    }

    /// Answers when the folders hold more than they may. Not at once: an agent that was told so must be able to tidy up.
    pub async fn outgrown(&self) -> Failure {
        let mut wait = EVERY;
        loop {
            tokio::time::sleep(wait).await;
            let begun = Instant::now();
            if let Measured::Over(usage) = self.look(None).await {
                return self.failure(usage);
            }
            wait = EVERY.max(begun.elapsed() * PART);
        }
    }

    /// A quick look at the end of a turn. What it doesn't see to the end is looked at after it, and if that finds too
    /// much, it is the next turn whose end waits for the whole truth.
    pub async fn outgrown_at_end(&self) -> Option<Failure> {
        let until = match self.known.state().over {
            true => None,
            false => Some(Instant::now() + AT_END),
        };
        match self.look(until).await {
            Measured::Over(usage) => return Some(self.failure(usage)),
            Measured::Within(_) => {}
            Measured::Unknown => self.look_on(),
        }
        None
    }

    /// Looks at everything, with nobody waiting for it.
    fn look_on(&self) {
        let mut state = self.known.state();
        if state.looking || state.again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        state.looking = true;
        drop(state);
        let room = self.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            room.look(None).await;
            let mut state = room.known.state();
            state.looking = false;
            state.again = Some(Instant::now() + begun.elapsed() * PART);
        });
    }

    async fn look(&self, until: Option<Instant>) -> Measured {
        let (folders, most) = (self.folders.clone(), self.most);
        let looked = tokio::task::spawn_blocking(move || {
            measure(&folders.each_ref().map(PathBuf::as_path), most, until)
        });
        let measured = looked.await.unwrap_or(Measured::Unknown);
        match measured {
            Measured::Over(_) => self.known.state().over = true,
            Measured::Within(_) => self.known.state().over = false,
            Measured::Unknown => {}
        }
        measured
    }

    fn failure(&self, usage: Usage) -> Failure {
        Failure::outgrown(usage, self.most)
    }
}
