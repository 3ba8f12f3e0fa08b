//! From scans to a verdict: whether the agent waits for its next message. Pure: no clock, no I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::scan::{Rest, Scan, Stdin, Task, Unreadable};
use super::shim::Word;

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
    /// What this scan says. `before` is one from before the message.
    pub fn of(scan: &Result<Scan, Unreadable>, before: Option<&Scan>) -> Self {
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
            // A thread that the message has woken may be the one that answers it.
            let free = |task: &Task| {
                family.contains(&task.pid)
                    && (task.pid != reader.pid || before.is_none_or(|before| was_restless(task, before)))
            };
            if tasks.iter().all(|task| task.rest == Rest::Asleep || free(task)) {
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

/// Whether a task could be woken by other things than our message before it came, too.
fn was_restless(task: &Task, before: &Scan) -> bool {
    before.tasks.iter().any(|old| old.tid == task.tid && old.rest != Rest::Asleep)
}

/// Whether a task has not run since then.
fn slept_since(task: &Task, before: &Scan) -> bool {
    before.tasks.iter().any(|old| (old.tid, old.runtime) == (task.tid, task.runtime))
}

/// What a scan says of an agent whose shims say that it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calm {
    /// Somebody is at work nevertheless.
    No,
    /// It waits, if nobody runs meanwhile.
    IfAsleep,
    /// It waits.
    Surely,
}

impl Calm {
    fn of(scan: &Scan, before: Option<&Scan>) -> Self {
        let tasks = &scan.tasks;
        let Some(reader) = tasks.iter().find(|task| task.stdin != Stdin::No) else { return Self::No };
        if scan.unread > 0 {
            return Self::No;
        }
        let restless = |task: &Task| before.is_some_and(|before| was_restless(task, before));
        let allowed = |task: &Task| match task.rest {
            Rest::Asleep => true,
            // Node's shim knows of its timers and connections; its platform has a thread with timers too. Of a thread
            // beside a reader no shim knows.
            Rest::Timed | Rest::Net => {
                task.pid != reader.pid || reader.stdin == Stdin::Waits || restless(task)
            }
            Rest::Paused => restless(task),
            Rest::Busy => false,
        };
        if !tasks.iter().all(allowed) {
            return Self::No;
        }
        let (Some(before), Stdin::Reads) = (before, reader.stdin) else { return Self::IfAsleep };
        let aside = |task: &Task| was_restless(task, before) || slept_since(task, before);
        let alone = tasks.iter().all(|task| task.tid == reader.tid || aside(task));
        if alone && reader.tid == reader.pid { Self::Surely } else { Self::IfAsleep }
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
/// A shim that says that the agent is at work must be silent for so many times longer.
const DENIED: u32 = 4;
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
    /// The agent's shims say so, and the kernel does not contradict.
    Shim,
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
    /// Not before this: a tree that takes long to scan is scanned the more seldom.
    rested: Instant,
    step: Duration,
    /// The last scan, if it was parked, and its time.
    parked: Option<(Scan, Instant)>,
    /// The main thread that reads, and since when.
    main: Option<(i32, Instant)>,
    /// The last scan, if it does not contradict shims that say that the agent waits, and its time.
    calm: Option<(Scan, Instant)>,
    was_busy: bool,
    /// What the agent did before it got its message.
    before: Option<Scan>,
}

impl Watch {
    /// From the time at which the agent has got its message; `before` is a scan from before that.
    pub fn new(rules: Rules, now: Instant, before: Option<Scan>) -> Self {
        Self {
            rules,
            start: now,
            stirred: now,
            next: now + FIRST,
            rested: now,
            step: FIRST,
            parked: None,
            main: None,
            calm: None,
            was_busy: false,
            before,
        }
    }

    /// When to scan next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The agent printed something, or got something. `word` is what its shims say.
    pub fn stir(&mut self, now: Instant, word: Word) {
        self.stirred = now;
        self.step = FIRST;
        self.next = now + Self::pace(FIRST, word);
        self.parked = None;
        self.main = None;
        self.calm = None;
    }

    /// The agent's shims say that it waits: look at once.
    pub fn hurry(&mut self, now: Instant) {
        self.step = FIRST;
        self.next = now.max(self.rested);
    }

    /// Takes a scan that began at `begun` and was finished at `now`. An answer holds if the agent has printed
    /// nothing up to now. `ends_line`: whether it has printed something this turn, and ended its last line. `word` is
    /// what its shims said before the scan.
    pub fn see(
        &mut self,
        scan: Result<Scan, Unreadable>,
        begun: Instant,
        now: Instant,
        ends_line: Option<bool>,
        word: Word,
    ) -> Option<Sign> {
        let verdict = Verdict::of(&scan, self.before.as_ref());
        let shim = word == Word::Idle && !self.rules.certain_only && self.confirms(&scan, begun, now);
        let parked = self.parked.take();
        let main = self.main.take();
        let was_busy = std::mem::replace(&mut self.was_busy, verdict == Verdict::Busy);
        let mut step = Self::pace(self.slower(now), word);
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
                let quiet = if word == Word::Busy { quiet.saturating_mul(DENIED) } else { quiet };
                if !self.rules.certain_only && now.saturating_duration_since(self.stirred) >= quiet {
                    sign = Some(Sign::Quiet);
                }
            }
        }
        if shim && sign != Some(Sign::Parked) {
            sign = Some(Sign::Shim);
        }
        if self.calm.is_some() {
            step = APART;
        }
        let cost = now.saturating_duration_since(begun);
        self.rested = now + cost.saturating_mul(10).min(Duration::from_secs(1));
        self.next = self.rested.max(now + step);
        sign
    }

    /// Whether a scan confirms what the shims say.
    fn confirms(&mut self, scan: &Result<Scan, Unreadable>, begun: Instant, now: Instant) -> bool {
        let last = self.calm.take();
        let calm = scan.as_ref().map_or(Calm::IfAsleep, |scan| Calm::of(scan, self.before.as_ref()));
        match (calm, last) {
            (Calm::No, _) => false,
            (Calm::Surely, _) => true,
            (Calm::IfAsleep, last) => {
                // Where the kernel tells nothing, that nothing happens for a while must do.
                let (seen, apart) = match scan {
                    Ok(scan) => (scan.clone(), APART),
                    Err(Unreadable) => (Scan::default(), MAIN),
                };
                let (seen, at) = last.filter(|(before, _)| nobody_ran(before, &seen)).unwrap_or((seen, now));
                let confirmed = begun.saturating_duration_since(at) >= apart;
                self.calm = Some((seen, at));
                confirmed
            }
        }
    }

    /// A shim that is at work will say when it waits: until then a look now and then is for those who read around it. To
    /// look after each line is what many agents that print would cost most.
    fn pace(step: Duration, word: Word) -> Duration {
        if word == Word::Busy { step.max(SLOWEST) } else { step }
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
        let mut watch = Watch::new(rules, start, None);
        for count in 0.. {
            let now = watch.next();
            if now - start > Duration::from_secs(60) {
                return None;
            }
            if let Some(sign) = watch.see(scan(count), now, now, ends_line, Word::None) {
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

    /// How the first scan that a shim calls idle is taken; `before` as it was before the message.
    fn calm(before: &[Task], now: &[Task]) -> Calm {
        let scan = |tasks: &[Task]| Scan { tasks: tasks.to_vec(), unread: 0 };
        Calm::of(&scan(now), Some(&scan(before)))
    }

    #[test]
    fn a_shim_is_believed_where_the_kernel_does_not_contradict() {
        let ran = |task: Task| Task { runtime: (2, 2), ..task };
        let reader = task(1, 1, 0, Stdin::Reads, Rest::Asleep);
        let beat = task(2, 1, 0, Stdin::No, Rest::Paused);
        let worker = task(3, 1, 0, Stdin::No, Rest::Asleep);
        assert_eq!(calm(&[reader], &[ran(reader)]), Calm::Surely);
        assert_eq!(calm(&[reader, beat], &[ran(reader), ran(beat)]), Calm::Surely, "it did so before");
        assert_eq!(calm(&[reader, worker], &[ran(reader), worker]), Calm::Surely, "it never woke");
        assert_eq!(calm(&[reader, worker], &[ran(reader), ran(worker)]), Calm::IfAsleep);
        for rest in [Rest::Timed, Rest::Net, Rest::Paused, Rest::Busy] {
            let woken = Task { rest, ..ran(worker) };
            assert_eq!(calm(&[reader, worker], &[ran(reader), woken]), Calm::No, "{rest:?}");
        }
        let polls = task(1, 1, 0, Stdin::Waits, Rest::Timed);
        let platform = task(2, 1, 0, Stdin::No, Rest::Timed);
        assert_eq!(calm(&[polls], &[ran(polls), platform]), Calm::IfAsleep);
        assert_eq!(calm(&[polls], &[ran(polls), beat]), Calm::No);
        assert_eq!(calm(&[polls], &[Task { rest: Rest::Busy, ..polls }]), Calm::No);
        let unread = Scan { tasks: vec![reader], unread: 1 };
        assert_eq!(Calm::of(&unread, None), Calm::No);
    }

    #[test]
    fn a_thread_that_the_message_woke_is_waited_for() {
        let main = task(1, 1, 0, Stdin::Reads, Rest::Asleep);
        let (idle, works) = (task(2, 1, 0, Stdin::No, Rest::Asleep), task(2, 1, 0, Stdin::No, Rest::Paused));
        let verdict = |before: Task| {
            let before = Scan { tasks: vec![main, before], unread: 0 };
            Verdict::of(&scan(&[main, works]), Some(&before))
        };
        assert_eq!(verdict(idle), Verdict::Ambiguous);
        assert_eq!(verdict(works), Verdict::ParkedMain(1));
    }

    #[test]
    fn a_shim_that_says_busy_is_waited_for_longer() {
        let polls = task(1, 1, 0, Stdin::Waits, Rest::Timed);
        let ends = |word| {
            let start = Instant::now();
            let mut watch = Watch::new(RULES, start, None);
            loop {
                let now = watch.next();
                if watch.see(scan(&[polls]), now, now, Some(true), word).is_some() {
                    return (now - start).as_secs();
                }
            }
        };
        assert_eq!((ends(Word::None), ends(Word::Busy), ends(Word::Idle)), (5, 20, 0));
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
        assert_eq!(Verdict::of(&scan(&[shell, main, sibling]), None), Verdict::Ambiguous);
        let certain = Rules { certain_only: true, ..RULES };
        assert_eq!(sign(certain, None, |_| scan(&[shell, main, thread])), None);
    }

    #[test]
    fn whose_shim_is_at_work_is_looked_at_now_and_then() {
        let now = Instant::now();
        let mut watch = Watch::new(RULES, now, None);
        for (word, pause) in [(Word::Busy, SLOWEST), (Word::None, FIRST), (Word::Idle, FIRST)] {
            watch.stir(now, word);
            assert_eq!(watch.next(), now + pause, "{word:?}");
        }
        let working = || scan(&[task(1, 1, 0, Stdin::No, Rest::Busy)]);
        assert_eq!(watch.see(working(), now, now, None, Word::Busy), None);
        assert!(watch.next() >= now + SLOWEST);
        watch.hurry(now);
        assert_eq!(watch.next(), now, "once it says that it waits");
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
        let mut watch = Watch::new(RULES, Instant::now(), None);
        for _ in 0..20 {
            let now = watch.next();
            assert_eq!(watch.see(scan(&[reader]), now, now, None, Word::None), None);
            watch.stir(now, Word::None);
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
            let verdict = Verdict::of(&Ok(Scan { tasks: tasks.clone(), unread }), None);
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
            let mut watch = Watch::new(RULES, start, None);
            let (mut runtime, mut slept) = (0, 0);
            for step in steps {
                runtime += step;
                slept = if step == 0 { slept + 1 } else { 0 };
                let mut tasks = tasks.clone();
                tasks[0].runtime = (runtime, 1);
                let now = watch.next();
                if watch.see(scan(&tasks), now, now, None, Word::None) == Some(Sign::Parked) {
                    prop_assert!(slept > 0);
                }
            }
        }
    }
}
