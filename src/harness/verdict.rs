//! From scans to a verdict: whether the agent waits for its next message. Pure: no clock, no I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::scan::{Rest, Scan, Stdin, Task, Unreadable};

/// What one scan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody waits for our next message, and nothing but that can wake anybody.
    Parked,
    /// This process's main thread reads our next message; what it started may still do something.
    ParkedMain(i32),
    /// Somebody waits for our next message, but timers or connections can wake the agent too. So it is also
    /// if the kernel does not tell.
    Ambiguous,
    /// The agent is at work.
    Busy,
}

impl Verdict {
    /// What this scan says.
    pub fn of(scan: &Result<Scan, Unreadable>) -> Self {
        let Ok(Scan { tasks, unread }) = scan else { return Self::Ambiguous };
        if *unread > 0 || tasks.iter().all(|task| task.stdin == Stdin::No) {
            return Self::Busy;
        }
        if tasks.iter().all(|task| task.rest == Rest::Asleep) {
            return Self::Parked;
        }
        let readers = tasks.iter().filter(|task| task.pid == task.tid && task.stdin == Stdin::Reads);
        for reader in readers {
            let family = family(tasks, reader.pid);
            if tasks.iter().all(|task| task.rest == Rest::Asleep || family.contains(&task.pid)) {
                return Self::ParkedMain(reader.pid);
            }
        }
        if tasks.iter().any(|task| task.rest == Rest::Busy) { Self::Busy } else { Self::Ambiguous }
    }
}

/// A process and all that descend from it.
fn family(tasks: &[Task], root: i32) -> Vec<i32> {
    let mut family = vec![root];
    loop {
        let before = family.len();
        for task in tasks {
            if family.contains(&task.parent) && !family.contains(&task.pid) {
                family.push(task.pid);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

/// Whether nobody ran between two scans: then what both saw was so at one instant.
fn nobody_ran(a: &Scan, b: &Scan) -> bool {
    a.tasks.len() == b.tasks.len()
        && a.tasks.iter().zip(&b.tasks).all(|(a, b)| (a.tid, a.runtime) == (b.tid, b.runtime))
}

/// Two scans of one instant are at least this far apart.
const APART: Duration = Duration::from_millis(2);
/// How long a main thread must wait for its message.
const MAIN: Duration = Duration::from_millis(100);
const FIRST: Duration = Duration::from_millis(1);
const SLOWEST: Duration = Duration::from_millis(50);
/// So slow it gets when a turn has taken [`LONG`].
const SLOWEST_LATER: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// Which rules hold for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long an ambiguous turn must be silent, if it printed a whole line; without one, 8/5 of it.
    pub quiet: Duration,
    /// The agent says itself when it is done: only what is certain counts besides.
    pub certain_only: bool,
}

/// How we know that a turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Parked,
    ParkedMain,
    Quiet,
}

/// Watches one turn.
#[derive(Debug)]
pub struct Watch {
    rules: Rules,
    start: Instant,
    /// When the agent last printed something or was at work.
    stirred: Instant,
    next: Instant,
    step: Duration,
    /// The last scan, if it was parked, and its time.
    parked: Option<(Scan, Instant)>,
    /// The main thread that reads, and since when.
    main: Option<(i32, Instant)>,
    was_busy: bool,
}

impl Watch {
    /// From the time at which the agent has got its message.
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            start: now,
            stirred: now,
            next: now + FIRST,
            step: FIRST,
            parked: None,
            main: None,
            was_busy: false,
        }
    }

    /// When to scan next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The agent printed something, or got something.
    pub fn stir(&mut self, now: Instant) {
        self.stirred = now;
        self.step = FIRST;
        self.next = now + FIRST;
        self.parked = None;
        self.main = None;
    }

    /// Takes a scan that began at `begun` and was finished at `now`. An answer holds if the agent has printed
    /// nothing up to now. `ends_line`: whether it has printed something this turn, and ended its last line.
    pub fn see(
        &mut self,
        scan: Result<Scan, Unreadable>,
        begun: Instant,
        now: Instant,
        ends_line: Option<bool>,
    ) -> Option<Sign> {
        let verdict = Verdict::of(&scan);
        let parked = self.parked.take();
        let main = self.main.take();
        let was_busy = std::mem::replace(&mut self.was_busy, verdict == Verdict::Busy);
        let mut step = self.slower(now);
        let mut sign = None;
        match (verdict, scan) {
            (Verdict::Parked, Ok(scan)) => {
                match parked {
                    Some((before, at)) if nobody_ran(&before, &scan) => {
                        if begun.saturating_duration_since(at) >= APART {
                            sign = Some(Sign::Parked);
                        }
                        // The older of the two will do for the next look as well.
                        self.parked = Some((before, at));
                    }
                    _ => self.parked = Some((scan, now)),
                }
                // That the main thread waits is no less so.
                self.main = main;
                step = APART;
            }
            (Verdict::ParkedMain(pid), _) if !self.rules.certain_only => {
                let since = main.filter(|(before, _)| *before == pid).map_or(begun, |(_, since)| since);
                if now.saturating_duration_since(since) >= MAIN {
                    sign = Some(Sign::ParkedMain);
                }
                self.main = Some((pid, since));
                step = step.min(MAIN / 5);
            }
            (Verdict::Busy, _) => {
                // Once may be a timer that did nothing; twice is work.
                if was_busy {
                    self.stirred = now;
                }
            }
            (Verdict::Parked | Verdict::ParkedMain(_) | Verdict::Ambiguous, _) => {
                let line = ends_line == Some(true);
                let quiet = if line { self.rules.quiet } else { self.rules.quiet.saturating_mul(8) / 5 };
                if !self.rules.certain_only && now.saturating_duration_since(self.stirred) >= quiet {
                    sign = Some(Sign::Quiet);
                }
            }
        }
        // A tree that takes long to scan is scanned the more seldom.
        let cost = now.saturating_duration_since(begun);
        self.next = now + step.max(cost.saturating_mul(10).min(Duration::from_secs(1)));
        sign
    }

    fn slower(&mut self, now: Instant) -> Duration {
        let slowest = if now.saturating_duration_since(self.start) >= LONG { SLOWEST_LATER } else { SLOWEST };
        self.step = (self.step * 13 / 10).min(slowest);
        self.step
    }
}
