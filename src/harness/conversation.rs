//! One conversation with an agent process: its start, the time between its turns, its end.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::fstat;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::diary::Diary;
use super::exchange::{Address, Piece, knock};
use super::frames::{self, Frame, Lines};
use super::pipes::{CHUNK, Sink, Source};
use super::redaction::Redaction;
use super::reply::Banner;
use super::scan::{self, Scan, scan};
use super::shim::{Shims, Word};
use super::verdict::{Rules, Sign, Watch};
use super::{Limits, Output};
use crate::sandbox::{Exit, Process, Tree};

/// Between turns the agent's output is only logged, and not faster than one piece in this time.
pub(super) const BETWEEN: Duration = Duration::from_millis(5);

/// The runtime's timers go by whole milliseconds and come up to one late, which is much where two make a turn's end.
/// So they are asked for that much earlier; the one that comes too early is asked for again.
const LATE: Duration = Duration::from_micros(900);

/// So long after its start an HTTP agent is first asked whether it listens; each time twice as long, up to the last.
const KNOCK_FIRST: Duration = Duration::from_millis(5);
const KNOCK_LAST: Duration = Duration::from_millis(50);

/// The time so much later. A limit of hundreds of years is none.
pub(super) fn after(now: Instant, limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    now.checked_add(limit).unwrap_or(now + YEAR)
}

/// A conversation. Dropping it kills the agent and all that it started.
pub struct Conversation {
    pub(super) stdin: Sink,
    pub(super) stdout: Source,
    pub(super) stderr: Source,
    /// Not before this is more of it read.
    pub(super) stderr_from: Instant,
    pub(super) fifo: Source,
    pub(super) tree: Box<dyn Tree>,
    pub(super) limits: Limits,
    pub(super) mode: Mode,
    /// The agent's stdout in frames mode.
    pub(super) lines: Lines,
    /// The FIFO.
    pub(super) signals: Lines,
    pub(super) shims: Shims,
    pub(super) diary: Diary,
    pub(super) exit: Option<Exit>,
    /// The agent has said on the FIFO when it was done, so it will do so again: no rule with a timer applies to it.
    pub(super) says_when: bool,
    /// The owner has been told that the turns of this agent end by timer.
    pub(super) told: bool,
}

/// How an agent talks.
#[derive(Debug)]
pub(super) enum Mode {
    /// A line in, text out.
    Plain { prompt: String },
    /// JSON lines in both directions.
    Frames { cancel: bool, history: bool },
    /// A request a turn. `unseen`: the agent has not taken the connection of the last one.
    Http { address: Address, unseen: bool },
}

/// Why a conversation did not come about. Nothing of the agent is left then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The agent ended before it waited for its first message.
    #[error("the agent ended before it read its first message")]
    Exited { exit: Exit, stderr: String },
    /// It did not wait for its first message in time.
    #[error("the agent did not get ready for its first message in time")]
    TimedOut { stderr: String },
    /// It did not listen on its port in time.
    #[error("the agent did not listen on port {port} in time")]
    NotListening { port: u16, stderr: String },
    /// Our own side failed.
    #[error("cannot talk to the agent: {0}")]
    Io(#[from] io::Error),
}

/// What the loop waits for, besides the pipes and the agent's end.
#[derive(Default)]
pub(super) struct Wait<'a> {
    /// Whether stdout and the FIFO may be read.
    pub(super) reading: bool,
    pub(super) until: Option<Instant>,
    pub(super) room: Option<&'a mpsc::Sender<Output>>,
    pub(super) cancel: Option<&'a CancellationToken>,
    /// An HTTP agent's answer, read as stdout is.
    pub(super) answer: Option<&'a mut mpsc::Receiver<Piece>>,
}

/// What came.
pub(super) enum Event {
    Exited(Exit),
    Stdin,
    Stdout,
    Stderr,
    Signal,
    Answer(Option<Piece>),
    Room,
    Cancelled,
    Time,
}

impl Conversation {
    /// Waits until a started agent is ready for its first message. `fifo` is the turn FIFO as the host sees it;
    /// An agent with an `http` address is ready when it takes connections. `session` goes to the log, which, as errors, never tells what `redaction` takes out.
    ///
    /// # Errors
    /// If the agent ends before that, or takes longer than it may. The agent has been killed then.
    pub async fn open(
        process: Process,
        fifo: &Path,
        limits: Limits,
        session: &str,
        redaction: &Redaction,
        http: Option<Address>,
    ) -> Result<Self, OpenError> {
        let Process { stdin, stdout, stderr, tree, .. } = process;
        let pipe = fstat(&stdin).map_err(io::Error::from)?.st_ino;
        let mut this = Self {
            stdin: Sink::new(stdin)?,
            stdout: Source::new(stdout)?,
            stderr: Source::new(stderr)?,
            stderr_from: Instant::now(),
            fifo: Source::fifo(fifo)?,
            tree,
            limits,
            mode: match http {
                Some(address) => Mode::Http { address, unseen: true },
                None => Mode::Plain { prompt: String::new() },
            },
            lines: Lines::default(),
            signals: Lines::default(),
            shims: Shims::new(pipe),
            diary: Diary::new(session, redaction.clone()),
            exit: None,
            says_when: false,
            told: false,
        };
        let started = match &this.mode {
            Mode::Http { address, .. } => {
                let port = address.port;
                this.start_http(port).await
            }
            _ => this.start().await,
        };
        match started {
            Ok(()) => Ok(this),
            Err(error) => {
                this.tree.kill().await;
                Err(error)
            }
        }
    }

    async fn start(&mut self) -> Result<(), OpenError> {
        let begin = Instant::now();
        let deadline = after(begin, self.limits.startup);
        let mut watch = Watch::new(self.rules(), begin, None);
        let mut banner = Banner::default();
        let ready = loop {
            let until = Some(deadline.min(watch.next()));
            match self.next(Wait { reading: true, until, ..Wait::default() }).await {
                Event::Exited(exit) => return Err(self.ended_early(exit)),
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    if !bytes.is_empty() {
                        watch.stir(Instant::now(), self.shims.trusted_word());
                    }
                    if self.hear_banner(&bytes, &mut banner) {
                        return Ok(());
                    }
                }
                Event::Stderr => self.read_stderr(),
                Event::Signal => {
                    let bytes = self.fifo.read();
                    if self.hears_ready(&bytes) {
                        break true;
                    }
                    if self.shims.word() == Word::Idle {
                        watch.hurry(Instant::now());
                    }
                }
                Event::Time => {
                    let now = Instant::now();
                    if now >= deadline {
                        self.read_stderr_rest();
                        return Err(OpenError::TimedOut { stderr: self.stderr_tail() });
                    }
                    if now >= watch.next() && self.look(&mut watch, None).is_some() {
                        let bytes = self.stdout.read_now();
                        if bytes.is_empty() {
                            let signals = self.fifo.read_now();
                            break self.hears_ready(&signals);
                        }
                        watch.stir(Instant::now(), self.shims.trusted_word());
                        if self.hear_banner(&bytes, &mut banner) {
                            return Ok(());
                        }
                    }
                }
                Event::Answer(_) | Event::Stdin | Event::Room | Event::Cancelled => {}
            }
        };
        if ready {
            let bytes = self.stdout.rest();
            if self.hear_banner(&bytes, &mut banner) {
                return Ok(());
            }
        }
        self.lines = Lines::default();
        self.mode = Mode::Plain { prompt: banner.into_prompt() };
        Ok(())
    }

    /// The agent has ended before its first message.
    fn ended_early(&mut self, exit: Exit) -> OpenError {
        self.exit = Some(exit);
        self.read_stderr_rest();
        OpenError::Exited { exit, stderr: self.stderr_tail() }
    }

    /// Waits until an HTTP agent takes connections.
    async fn start_http(&mut self, port: u16) -> Result<(), OpenError> {
        let deadline = after(Instant::now(), self.limits.startup);
        let mut pause = KNOCK_FIRST;
        let mut next = after(Instant::now(), pause);
        loop {
            let until = Some(deadline.min(next));
            match self.next(Wait { reading: true, until, ..Wait::default() }).await {
                Event::Exited(exit) => return Err(self.ended_early(exit)),
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    self.hear_stray(&bytes);
                }
                Event::Stderr => self.read_stderr(),
                Event::Signal => {
                    let bytes = self.fifo.read();
                    self.hear_stray_signals(&bytes);
                }
                Event::Time if Instant::now() >= deadline => {
                    self.read_stderr_rest();
                    return Err(OpenError::NotListening { port, stderr: self.stderr_tail() });
                }
                Event::Time => {
                    if Instant::now() >= next {
                        if knock(self.tree.as_ref(), port).await {
                            return Ok(());
                        }
                        pause = (pause * 2).min(KNOCK_LAST);
                        next = after(Instant::now(), pause);
                    }
                }
                Event::Answer(_) | Event::Stdin | Event::Room | Event::Cancelled => {}
            }
        }
    }

    /// Takes what the agent prints before its first message; whether it speaks frames and is ready.
    fn hear_banner(&mut self, bytes: &[u8], banner: &mut Banner) -> bool {
        banner.push(bytes);
        let mut capabilities = None;
        let (lines, diary) = (&mut self.lines, &mut self.diary);
        lines.feed(bytes, |line| match line.ok().and_then(Frame::parse) {
            Some(Frame::Ready { capabilities: found }) => capabilities = Some(found),
            _ => diary.log("stdout", line.unwrap_or_else(|beginning| beginning)),
        });
        let Some(capabilities) = capabilities else { return false };
        let can = |what: &str| capabilities.iter().any(|capability| capability == what);
        self.mode = Mode::Frames { cancel: can("cancel"), history: can("history") };
        true
    }

    /// Takes signals before the first message; whether one says that the agent waits for it.
    fn hears_ready(&mut self, bytes: &[u8]) -> bool {
        let mut ready = false;
        let shims = &mut self.shims;
        self.signals.feed(bytes, |line| match line.ok().and_then(Frame::parse_signal) {
            Some(Frame::Ready { .. } | Frame::TurnDone { .. }) => ready = true,
            Some(Frame::Shim(report)) => shims.hear(report),
            _ => {}
        });
        self.says_when |= ready;
        ready
    }

    /// Waits for whatever comes first.
    pub(super) async fn next(&self, wait: Wait<'_>) -> Event {
        let Wait { reading, until, room, cancel, answer } = wait;
        let room = async {
            match room {
                // Full or not, closed or not: the hand-over finds out.
                Some(output) => drop(output.reserve().await),
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            match cancel {
                Some(cancel) => cancel.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let stderr = async {
            if self.stderr_from > Instant::now() {
                tokio::time::sleep_until(self.stderr_from).await;
            }
            self.stderr.ready().await;
        };
        let time = async {
            match until {
                Some(until) => {
                    let early = until.checked_sub(LATE).filter(|early| *early > Instant::now());
                    let at = early.unwrap_or(until);
                    tokio::time::sleep_until(at).await;
                }
                None => std::future::pending().await,
            }
        };
        let answer = async {
            match answer {
                Some(pieces) => pieces.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = self.tree.exited() => Event::Exited(exit),
            () = self.stdin.ready() => Event::Stdin,
            () = self.stdout.ready(), if reading => Event::Stdout,
            () = stderr => Event::Stderr,
            () = self.fifo.ready(), if reading => Event::Signal,
            piece = answer, if reading => Event::Answer(piece),
            () = room => Event::Room,
            () = cancelled => Event::Cancelled,
            () = time => Event::Time,
        }
    }

    pub(super) fn look(&mut self, watch: &mut Watch, ends_line: Option<bool>) -> Option<Sign> {
        let begun = Instant::now();
        let mut seen = scan(self.tree.root(), self.tree.root_is_init(), self.stdin.fd());
        // How much of the message is unread we see even where the kernel tells nothing else.
        if seen.is_err() && self.stdin.is_unread() {
            seen = Ok(Scan { tasks: Vec::new(), unread: 1 });
        }
        watch.see(seen, begun, Instant::now(), ends_line, self.shims.trusted_word())
    }

    pub(super) fn rules(&self) -> Rules {
        Rules { quiet: self.limits.quiet, certain_only: self.says_when }
    }

    /// Between turns: logs what the agent says, and answers when its main process has ended. May be dropped and
    /// asked again.
    pub async fn idle(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.exit {
                return exit;
            }
            match self.next(Wait { reading: true, ..Wait::default() }).await {
                Event::Exited(exit) => {
                    self.exit = Some(exit);
                    self.read_stderr_rest();
                    let stray = self.stdout.rest();
                    self.hear_stray(&stray);
                    continue;
                }
                Event::Stdin => self.stdin.write(),
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    self.hear_stray(&bytes);
                }
                Event::Stderr => self.read_stderr(),
                Event::Signal => {
                    let bytes = self.fifo.read();
                    self.hear_stray_signals(&bytes);
                }
                Event::Answer(_) | Event::Room | Event::Cancelled | Event::Time => {}
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    pub(super) fn hear_stray(&mut self, bytes: &[u8]) {
        match self.mode {
            Mode::Plain { .. } | Mode::Http { .. } => self.diary.stray(bytes),
            Mode::Frames { .. } => {
                let diary = &mut self.diary;
                self.lines
                    .feed(bytes, |line| diary.log("stdout", line.unwrap_or_else(|beginning| beginning)));
            }
        }
    }

    pub(super) fn hear_stray_signals(&mut self, bytes: &[u8]) {
        let (diary, says_when, shims) = (&mut self.diary, &mut self.says_when, &mut self.shims);
        self.signals.feed(bytes, |line| {
            let frame = line.ok().and_then(Frame::parse_signal);
            if let Some(Frame::Shim(report)) = frame {
                shims.hear(report);
                return;
            }
            // It came too late for its turn, which a timer has ended; the next one will be waited for.
            *says_when |= matches!(frame, Some(Frame::TurnDone { .. }));
            diary.log("turn fifo", line.unwrap_or_else(|beginning| beginning));
        });
    }

    pub(super) fn read_stderr(&mut self) {
        let bytes = self.stderr.read();
        if bytes.len() >= CHUNK {
            // A flood: only the log takes it, so nothing else would set its pace.
            self.stderr_from = Instant::now() + BETWEEN;
        }
        self.diary.stderr(&bytes);
    }

    pub(super) fn read_stderr_rest(&mut self) {
        let bytes = self.stderr.rest();
        self.diary.stderr(&bytes);
    }

    /// The last 4 KiB that the agent wrote on stderr, in whole lines.
    pub fn stderr_tail(&self) -> String {
        self.diary.tail()
    }

    /// Whether the agent has left part of what it was sent unread. If it has ended, then it never saw that.
    pub fn is_unread(&self) -> bool {
        match self.mode {
            Mode::Http { unseen, .. } => unseen,
            Mode::Plain { .. } | Mode::Frames { .. } => self.stdin.is_unread(),
        }
    }

    /// Whether the agent picks up by itself where it was, from the history of its session.
    pub fn keeps_history(&self) -> bool {
        matches!(self.mode, Mode::Frames { history: true, .. })
    }

    /// How many processes the agent consists of at this moment.
    pub fn processes(&self) -> u64 {
        scan::processes(self.tree.root(), self.tree.root_is_init())
    }

    /// Ends the agent: tells it, gives it `grace` to go, then kills it and whatever it started. Nothing of it is
    /// left when this answers.
    pub async fn end(mut self, grace: Duration) {
        if let Mode::Frames { .. } = self.mode
            && self.exit.is_none()
        {
            self.stdin.send(&frames::end());
        }
        self.stdin.close();
        self.tree.terminate();
        // A time-out is no error: what is left is killed either way.
        let _ = tokio::time::timeout(grace, self.idle()).await;
        self.tree.kill().await;
    }

    /// Kills the agent and whatever it started. Nothing of it is left when this answers.
    pub async fn kill(self) {
        self.tree.kill().await;
    }
}
