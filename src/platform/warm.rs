//! Which agents stay while they wait: the least recently used make room when there are too many or memory runs short.
//! And when an agent that crashes as it starts is started again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::SessionId;

/// How long after its first, second and any later crash at its start an agent is started again.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];
/// Memory runs short when less than this part of it is available.
const SHORT: f64 = 0.1;

/// What is known of all agents together. Of those that have gone with their sessions nothing stays.
#[derive(Default)]
pub struct Warm(Mutex<State>);

#[derive(Default)]
struct State {
    /// Since when agents have been waiting for their next message.
    waiting: HashMap<SessionId, Instant>,
    /// Those that had to make room, and have lost what they had in memory.
    lost: HashSet<SessionId>,
    /// How often in a row they have crashed as they started, and when last.
    crashes: HashMap<SessionId, (usize, Instant)>,
}

impl Warm {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's agent waits for its next message.
    pub fn waits(&self, id: &SessionId, now: Instant) {
        self.state().waiting.insert(id.clone(), now);
    }

    /// It does no longer: it works, or it is gone.
    pub fn waits_no_more(&self, id: &SessionId) {
        self.state().waiting.remove(id);
    }

    /// The session has ended: nothing of it is kept.
    pub fn forget(&self, id: &SessionId) {
        let mut state = self.state();
        state.waiting.remove(id);
        state.lost.remove(id);
        state.crashes.remove(id);
    }

    /// Those that must make room for one more agent, so that no more than `most` wait.
    pub fn too_many(&self, most: usize) -> Vec<SessionId> {
        let mut waiting: Vec<(SessionId, Instant)> =
            self.state().waiting.iter().map(|(id, since)| (id.clone(), *since)).collect();
        waiting.sort_unstable_by_key(|(_, since)| *since);
        let mut count = (waiting.len() + 1).saturating_sub(most.max(1));
        if count == 0 && is_short(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()) {
            count = 1;
        }
        waiting.into_iter().take(count).map(|(id, _)| id).collect()
    }

    /// The agent is stopped, and what it had in its memory is lost.
    pub fn loses(&self, id: &SessionId) {
        self.state().lost.insert(id.clone());
    }

    /// Whether the agent that is started now has lost its memory, which is told once.
    pub fn has_lost(&self, id: &SessionId) -> bool {
        self.state().lost.remove(id)
    }

    /// It has crashed as it started.
    pub fn crashed(&self, id: &SessionId, now: Instant) {
        let mut state = self.state();
        let crashes = state.crashes.entry(id.clone()).or_insert((0, now));
        *crashes = (crashes.0 + 1, now);
    }

    /// It has started.
    pub fn started(&self, id: &SessionId) {
        self.state().crashes.remove(id);
    }

    /// How often in a row it has crashed as it started, and until when it is not started again.
    pub fn not_before(&self, id: &SessionId, now: Instant) -> Option<(usize, Instant)> {
        let (count, last) = self.state().crashes.get(id).copied()?;
        let wait = WAITS.get(count.saturating_sub(1)).or(WAITS.last()).copied().unwrap_or_default();
        Some((count, last + wait)).filter(|(_, until)| *until > now)
    }
}

/// Whether little memory is available, by `/proc/meminfo`.
fn is_short(text: &str) -> bool {
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    match (of("MemAvailable:"), of("MemTotal:")) {
        (Some(available), Some(total)) => available < total * SHORT,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> SessionId {
        SessionId::from_random(number << 64)
    }

    #[test]
    fn the_longest_waiting_make_room() {
        let (warm, begun) = (Warm::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for number in 1..=3 {
            warm.waits(&id(number.into()), at(number));
        }
        assert!(warm.too_many(4).len() <= 1, "none, unless this machine is short of memory");
        assert_eq!(warm.too_many(3), [id(1)]);
        assert_eq!(warm.too_many(2), [id(1), id(2)]);
        warm.waits(&id(1), at(4));
        warm.waits_no_more(&id(2));
        assert_eq!(warm.too_many(2), [id(3)]);
        warm.loses(&id(3));
        assert_eq!((warm.has_lost(&id(3)), warm.has_lost(&id(3))), (true, false));
    }

    #[test]
    fn crashes_at_the_start_are_waited_out() {
        let (warm, one, mut now) = (Warm::default(), id(1), Instant::now());
        for (count, seconds) in [(1, 1), (2, 4), (3, 16), (4, 16)] {
            warm.crashed(&one, now);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(warm.not_before(&one, now), Some((count, until)));
            now = until;
            assert_eq!(warm.not_before(&one, now), None);
        }
        warm.started(&one);
        assert_eq!(warm.not_before(&one, now), None);
    }

    #[test]
    fn memory_is_short_below_a_tenth() {
        let text =
            |available: u32| format!("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
        assert!(is_short(&text(99)) && !is_short(&text(100)) && !is_short(""));
    }
}
