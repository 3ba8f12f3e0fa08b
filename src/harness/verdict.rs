//! From scans to a verdict: whether the agent waits for its next message. Pure: no clock, no I/O.
//!
//! Word from inside an interpreter (it is about to block in a read of stdin) would be one more input to [`Watch::see`].

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { quiet: Duration::from_secs(5), certain_only: false };

    fn task(tid: i32, pid: i32, parent: i32, stdin: Stdin, rest: Rest) -> Task {
        Task { pid, tid, parent, runtime: (1, 1), stdin, rest }
    }

    fn scan(tasks: &[Task]) -> Result<Scan, Unreadable> {
        Ok(Scan { tasks: tasks.to_vec(), unread: 0 })
    }

    /// Sees the same scan whenever the watch asks for one; after how long it gives a sign, and which. `None` within
    /// a minute means never.
    fn sign(
        rules: Rules,
        ends_line: Option<bool>,
        mut scan: impl FnMut(u32) -> Result<Scan, Unreadable>,
    ) -> Option<(Sign, Duration)> {
        let start = Instant::now();
        let mut watch = Watch::new(rules, start);
        for count in 0.. {
            let now = watch.next();
            if now - start > Duration::from_secs(60) {
                return None;
            }
            if let Some(sign) = watch.see(scan(count), now, now, ends_line) {
                return Some((sign, now - start));
            }
        }
        None
    }

    const READER: (Stdin, Rest) = (Stdin::Reads, Rest::Asleep);

    #[test]
    fn two_equal_scans_are_needed() {
        let reader = task(1, 1, 0, READER.0, READER.1);
        assert_eq!(sign(RULES, None, |_| scan(&[reader])), Some((Sign::Parked, Duration::from_millis(3))));
        // It runs between all scans: the quiet rule is not for it either, for it is parked each time we look.
        let runs = |count: u32| scan(&[Task { runtime: (u64::from(count), 1), ..reader }]);
        assert_eq!(sign(RULES, None, runs).map(|(sign, _)| sign), None);
        let unread = |_| Ok(Scan { tasks: vec![reader], unread: 1 });
        assert_eq!(sign(RULES, Some(true), unread), None);
    }

    #[test]
    fn a_thread_of_the_reader_may_work_but_no_sibling() {
        let main = task(2, 2, 1, READER.0, READER.1);
        let shell = task(1, 1, 0, Stdin::No, Rest::Asleep);
        let thread = task(3, 2, 1, Stdin::No, Rest::Timed);
        let child = task(4, 4, 2, Stdin::No, Rest::Busy);
        let sibling = task(5, 5, 1, Stdin::No, Rest::Timed);
        let (found, after) = sign(RULES, None, |_| scan(&[shell, main, thread, child])).unwrap();
        assert_eq!(found, Sign::ParkedMain);
        assert!(after >= MAIN && after < MAIN * 2, "{after:?}");
        assert_eq!(Verdict::of(&scan(&[shell, main, sibling])), Verdict::Ambiguous);
        let certain = Rules { certain_only: true, ..RULES };
        assert_eq!(sign(certain, None, |_| scan(&[shell, main, thread])), None);
    }

    #[test]
    fn silence_counts_from_the_last_stir() {
        let polls = task(1, 1, 0, Stdin::Waits, Rest::Timed);
        let quiet = |ends_line| {
            let (sign, after) = sign(RULES, ends_line, |_| scan(&[polls])).unwrap();
            assert_eq!(sign, Sign::Quiet);
            after.as_secs()
        };
        assert_eq!((quiet(Some(true)), quiet(Some(false)), quiet(None)), (5, 8, 8));
        assert_eq!(sign(RULES, Some(true), |_| Err(Unreadable)).map(|(sign, _)| sign), Some(Sign::Quiet));
        let busy = Task { rest: Rest::Busy, ..task(2, 1, 0, Stdin::No, Rest::Busy) };
        // Now and then something runs for a moment: no work. Three looks in four it runs: work.
        let seldom = |count: u32| if count.is_multiple_of(4) { scan(&[polls, busy]) } else { scan(&[polls]) };
        let often = |count: u32| if count.is_multiple_of(4) { scan(&[polls]) } else { scan(&[polls, busy]) };
        assert_eq!(sign(RULES, Some(true), seldom).map(|(sign, _)| sign), Some(Sign::Quiet));
        assert_eq!(sign(RULES, Some(true), often), None);
    }

    #[test]
    fn output_begins_everything_anew() {
        let reader = task(1, 1, 0, READER.0, READER.1);
        let mut watch = Watch::new(RULES, Instant::now());
        for _ in 0..20 {
            let now = watch.next();
            assert_eq!(watch.see(scan(&[reader]), now, now, None), None);
            watch.stir(now);
        }
    }

    fn any_task() -> impl Strategy<Value = Task> {
        let stdin = prop_oneof![3 => Just(Stdin::No), 1 => Just(Stdin::Waits), 1 => Just(Stdin::Reads)];
        let rest = prop_oneof![
            4 => Just(Rest::Asleep), 1 => Just(Rest::Timed), 1 => Just(Rest::Net), 1 => Just(Rest::Busy)
        ];
        (1..5i32, 0..3i32, stdin, rest).prop_map(|(pid, thread, stdin, rest)| {
            // Process 1 is the first, its children are 2 and 3, and 4 is that of 3.
            let parent = [0, 0, 1, 1, 3][usize::try_from(pid).unwrap()];
            task(if thread == 0 { pid } else { pid * 10 + thread }, pid, parent, stdin, rest)
        })
    }

    proptest! {
        #[test]
        fn verdicts_keep_their_word(tasks in proptest::collection::vec(any_task(), 0..8), unread in 0u64..2) {
            let waits = tasks.iter().any(|task| task.stdin != Stdin::No);
            let verdict = Verdict::of(&Ok(Scan { tasks: tasks.clone(), unread }));
            if unread > 0 || !waits {
                prop_assert_eq!(verdict, Verdict::Busy);
            }
            let asleep = tasks.iter().all(|task| task.rest == Rest::Asleep);
            prop_assert_eq!(verdict == Verdict::Parked, unread == 0 && waits && asleep);
            match verdict {
                Verdict::ParkedMain(main) => {
                    prop_assert!(tasks.iter().any(|task| (task.tid, task.pid, task.stdin) == (main, main, Stdin::Reads)));
                    let family: &[i32] = [&[][..], &[1, 2, 3, 4], &[2], &[3, 4], &[4]][usize::try_from(main).unwrap()];
                    // A process whose parent is not in the scan is nobody's family, so only the other way round.
                    let outside = tasks.iter().filter(|task| !family.contains(&task.pid));
                    prop_assert!(outside.map(|task| task.rest).all(|rest| rest == Rest::Asleep));
                }
                Verdict::Ambiguous => prop_assert!(tasks.iter().all(|task| task.rest != Rest::Busy)),
                Verdict::Parked | Verdict::Busy => {}
            }
        }

        #[test]
        fn whoever_runs_is_not_parked(tasks in proptest::collection::vec(any_task(), 1..6), steps in proptest::collection::vec(0u64..2, 2..12)) {
            let start = Instant::now();
            let mut watch = Watch::new(RULES, start);
            let (mut runtime, mut slept) = (0, 0);
            for step in steps {
                runtime += step;
                slept = if step == 0 { slept + 1 } else { 0 };
                let mut tasks = tasks.clone();
                tasks[0].runtime = (runtime, 1);
                let now = watch.next();
                if watch.see(scan(&tasks), now, now, None) == Some(Sign::Parked) {
                    prop_assert!(slept > 0);
                }
            }
        }
    }
}
