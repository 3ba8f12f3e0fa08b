//! One conversation with an agent process: its start, its turns, the time between them, its end.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::diary::Diary;
use super::frames::{self, Frame, Lines};
use super::pipes::{Sink, Source};
use super::reply::{Banner, Reply};
use super::scan::{Scan, scan};
use super::verdict::{Rules, Sign, Watch};
use super::{Limits, Output};
use crate::sandbox::{Exit, Process, Tree};

/// Between turns the agent's output is only logged, and not faster than one piece in this time.
const BETWEEN: Duration = Duration::from_millis(5);

/// The runtime's timers go by whole milliseconds and come up to one late, which is much where two make a turn's end.
/// So they are asked for that much earlier; the one that comes too early is asked for again.
const LATE: Duration = Duration::from_micros(900);

/// A conversation. Dropping it kills the agent and all that it started.
pub struct Conversation {
    stdin: Sink,
    stdout: Source,
    stderr: Source,
    fifo: Source,
    tree: Box<dyn Tree>,
    limits: Limits,
    mode: Mode,
    /// The agent's stdout in frames mode.
    lines: Lines,
    /// The FIFO.
    signals: Lines,
    diary: Diary,
    exit: Option<Exit>,
    /// The agent has said on the FIFO when it was done, so it will do so again: no rule with a timer applies to it.
    says_when: bool,
    /// The owner has been told that the turns of this agent end by timer.
    told: bool,
}

/// How an agent talks.
#[derive(Debug)]
enum Mode {
    /// A line in, text out.
    Plain { prompt: String },
    /// JSON lines in both directions.
    Frames { cancel: bool },
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
    /// Our own side failed.
    #[error("cannot talk to the agent: {0}")]
    Io(#[from] io::Error),
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// The agent waits for its next message.
    Done,
    /// Its main process has ended.
    Exited(Exit),
    /// It was cancelled; `exited` if the agent did not survive that.
    Cancelled { exited: bool },
    /// It took longer than it may; the agent has been killed.
    TimedOut,
    /// The agent says that it has failed. It has not ended.
    Failed { message: String },
}

/// What the loop waits for, besides the pipes and the agent's end.
#[derive(Default)]
struct Wait<'a> {
    /// Whether stdout and the FIFO may be read.
    reading: bool,
    until: Option<Instant>,
    room: Option<&'a mpsc::Sender<Output>>,
    cancel: Option<&'a CancellationToken>,
}

enum Event {
    Exited(Exit),
    Stdin,
    Stdout,
    Stderr,
    Signal,
    Room,
    Cancelled,
    Time,
}

/// One turn.
struct Turn {
    number: u64,
    reply: Reply,
    /// From the time at which the agent has got its whole message.
    watch: Option<Watch>,
    stage: Stage,
    deadline: Instant,
    /// Nobody listens any more.
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Asked to give up, because of the user or because of the time.
    Cancelling,
    TimingOut,
}

impl Turn {
    /// The end that an agent's own end of this turn means.
    fn ended(&self, end: TurnEnd) -> TurnEnd {
        match self.stage {
            Stage::Running => end,
            Stage::Cancelling => TurnEnd::Cancelled { exited: matches!(end, TurnEnd::Exited(_)) },
            Stage::TimingOut => TurnEnd::TimedOut,
        }
    }
}

impl Conversation {
    /// Waits until a started agent is ready for its first message. `fifo` is the turn FIFO as the host sees it;
    /// `session` goes to the log.
    ///
    /// # Errors
    /// If the agent ends before that, or takes longer than it may. The agent has been killed then.
    pub async fn open(
        process: Process,
        fifo: &Path,
        limits: Limits,
        session: &str,
    ) -> Result<Self, OpenError> {
        let Process { stdin, stdout, stderr, tree } = process;
        let mut this = Self {
            stdin: Sink::new(stdin)?,
            stdout: Source::new(stdout)?,
            stderr: Source::new(stderr)?,
            fifo: Source::fifo(fifo)?,
            tree,
            limits,
            mode: Mode::Plain { prompt: String::new() },
            lines: Lines::default(),
            signals: Lines::default(),
            diary: Diary::new(session),
            exit: None,
            says_when: false,
            told: false,
        };
        match this.start().await {
            Ok(()) => Ok(this),
            Err(error) => {
                this.tree.kill().await;
                Err(error)
            }
        }
    }

    async fn start(&mut self) -> Result<(), OpenError> {
        let begin = Instant::now();
        let deadline = begin + self.limits.startup;
        let mut watch = Watch::new(self.rules(), begin);
        let mut banner = Banner::default();
        let ready = loop {
            let until = Some(deadline.min(watch.next()));
            match self.next(Wait { reading: true, until, ..Wait::default() }).await {
                Event::Exited(exit) => {
                    self.exit = Some(exit);
                    self.read_stderr_rest();
                    return Err(OpenError::Exited { exit, stderr: self.stderr_tail() });
                }
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    if !bytes.is_empty() {
                        watch.stir(Instant::now());
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
                            break false;
                        }
                        watch.stir(Instant::now());
                        if self.hear_banner(&bytes, &mut banner) {
                            return Ok(());
                        }
                    }
                }
                Event::Stdin | Event::Room | Event::Cancelled => {}
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
        self.mode = Mode::Frames { cancel: capabilities.iter().any(|capability| capability == "cancel") };
        true
    }

    /// Takes signals before the first message; whether one says that the agent waits for it.
    fn hears_ready(&mut self, bytes: &[u8]) -> bool {
        let mut ready = false;
        self.signals.feed(bytes, |line| {
            let frame = line.ok().and_then(Frame::parse_signal);
            ready |= matches!(frame, Some(Frame::Ready { .. } | Frame::TurnDone { .. }));
        });
        self.says_when |= ready;
        ready
    }

    /// One message to the agent and its reply, which goes to `output` piece by piece. `number` counts the turns of
    /// the session. After `Exited` and `TimedOut`, and `Cancelled` with `exited`, there is no further turn.
    ///
    /// A receiver that takes nothing holds the agent up, but neither the limits nor `cancel`; one that is gone
    /// loses what is said.
    pub async fn turn(
        &mut self,
        content: &str,
        message_id: &str,
        number: u64,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> TurnEnd {
        if cancel.is_cancelled() {
            return TurnEnd::Cancelled { exited: self.exit.is_some() };
        }
        if let Some(exit) = self.exit {
            return TurnEnd::Exited(exit);
        }
        // What the agent has said up to here belongs to no turn.
        let (stray, signals) = (self.stdout.rest(), self.fifo.rest());
        self.hear_stray(&stray);
        self.hear_stray_signals(&signals);

        let (message, prompt) = match &self.mode {
            Mode::Plain { prompt } => {
                (format!("{}\n", content.replace('\n', "\\n")).into_bytes(), prompt.as_str())
            }
            Mode::Frames { .. } => (frames::message(content, message_id, number), ""),
        };
        let mut turn = Turn {
            number,
            reply: Reply::new(prompt),
            watch: None,
            stage: Stage::Running,
            deadline: Instant::now() + self.limits.turn,
            gone: false,
        };
        self.stdin.send(&message);
        let end = self.run(&mut turn, output, cancel).await;
        turn.reply.finish();
        self.deliver(turn, output, cancel).await;
        end
    }

    async fn run(
        &mut self,
        turn: &mut Turn,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> TurnEnd {
        loop {
            let now = Instant::now();
            if turn.watch.is_none() && self.stdin.is_empty() && matches!(self.mode, Mode::Plain { .. }) {
                turn.watch = Some(Watch::new(self.rules(), now));
            }
            // An agent that has been asked to stop must be able to: what has no room then is lost.
            let reading = turn.reply.has_room() || turn.gone || turn.stage != Stage::Running;
            let look = turn.watch.as_ref().filter(|_| reading).map(Watch::next);
            let waiting = turn.reply.is_waiting(now) && !turn.gone;
            let until = [Some(turn.deadline), look, turn.reply.due()].into_iter().flatten().min();
            let wait = Wait {
                reading,
                until,
                room: waiting.then_some(output),
                cancel: (turn.stage == Stage::Running).then_some(cancel),
            };
            let end = match self.next(wait).await {
                Event::Exited(exit) => return self.ended(exit, turn),
                Event::Stdin => {
                    self.stdin.write();
                    None
                }
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    self.hear(&bytes, turn)
                }
                Event::Stderr => {
                    self.read_stderr();
                    None
                }
                Event::Signal => {
                    let bytes = self.fifo.read();
                    self.hear_signals(&bytes, turn)
                }
                Event::Room => {
                    hand_over(turn, output);
                    None
                }
                Event::Cancelled => {
                    self.stop(turn, Stage::Cancelling);
                    None
                }
                Event::Time if Instant::now() >= turn.deadline => match turn.stage {
                    Stage::Running => {
                        self.stop(turn, Stage::TimingOut);
                        None
                    }
                    Stage::Cancelling | Stage::TimingOut => return self.kill_turn(turn).await,
                },
                Event::Time => self.check(turn),
            };
            if let Some(end) = end {
                if turn.stage == Stage::TimingOut {
                    return self.kill_turn(turn).await;
                }
                return turn.ended(end);
            }
        }
    }

    /// Waits for whatever comes first.
    async fn next(&self, wait: Wait<'_>) -> Event {
        let room = async {
            match wait.room {
                // Full or not, closed or not: the hand-over finds out.
                Some(output) => drop(output.reserve().await),
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            match wait.cancel {
                Some(cancel) => cancel.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match wait.until {
                Some(until) => {
                    let early = until.checked_sub(LATE).filter(|early| *early > Instant::now());
                    let at = early.unwrap_or(until);
                    tokio::time::sleep_until(at).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = self.tree.exited() => Event::Exited(exit),
            () = self.stdin.ready() => Event::Stdin,
            () = self.stdout.ready(), if wait.reading => Event::Stdout,
            () = self.stderr.ready() => Event::Stderr,
            () = self.fifo.ready(), if wait.reading => Event::Signal,
            () = room => Event::Room,
            () = cancelled => Event::Cancelled,
            () = time => Event::Time,
        }
    }

    /// Takes what the agent printed; the end of the turn, if it says so.
    fn hear(&mut self, bytes: &[u8], turn: &mut Turn) -> Option<TurnEnd> {
        if bytes.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(watch) = &mut turn.watch {
            watch.stir(now);
        }
        if let Mode::Plain { .. } = self.mode {
            if turn.takes() {
                turn.reply.push_bytes(bytes, now);
            }
            return None;
        }
        let mut lines = std::mem::take(&mut self.lines);
        let mut end = None;
        lines.feed(bytes, |line| match line.ok().and_then(Frame::parse) {
            Some(frame) if end.is_none() => end = self.obey(frame, turn),
            _ => self.diary.log("stdout", line.unwrap_or_else(|beginning| beginning)),
        });
        self.lines = lines;
        end
    }

    /// Takes what came on the FIFO; the end of the turn, if it says so.
    fn hear_signals(&mut self, bytes: &[u8], turn: &mut Turn) -> Option<TurnEnd> {
        let mut signals = std::mem::take(&mut self.signals);
        let mut end = None;
        signals.feed(bytes, |line| match line.ok().and_then(Frame::parse_signal) {
            Some(frame) if end.is_none() => end = self.obey(frame, turn),
            _ => self.diary.log("turn fifo", line.unwrap_or_else(|beginning| beginning)),
        });
        self.signals = signals;
        if end.is_some() {
            self.says_when = true;
            // What it printed before it said so is in the pipe.
            let rest = self.stdout.rest();
            self.hear(&rest, turn);
        }
        end
    }

    /// Does what a frame says; the end of the turn, if it is that.
    fn obey(&mut self, frame: Frame, turn: &mut Turn) -> Option<TurnEnd> {
        let takes = turn.takes();
        match frame {
            Frame::TurnDone { turn: Some(number) } if number < turn.number => {
                self.diary.note("the agent ended a turn that was over: passed over");
            }
            Frame::TurnDone { .. } => return Some(TurnEnd::Done),
            Frame::Error { message, fatal: true } => return Some(TurnEnd::Failed { message }),
            Frame::Error { message, fatal: false } => {
                self.diary.log("error", message.as_bytes());
                if takes {
                    turn.reply.push(Output::Status(json!({ "error": message })));
                }
            }
            Frame::Text(text) if takes => turn.reply.push_text(&text, Instant::now()),
            Frame::Status(status) if takes => turn.reply.push(Output::Status(status)),
            Frame::ToolStart { tool, input } if takes => turn.reply.push(Output::ToolStart { tool, input }),
            Frame::ToolEnd { duration_ms } if takes => turn.reply.push(Output::ToolEnd { duration_ms }),
            Frame::Metadata(data) => self.diary.log("metadata", data.to_string().as_bytes()),
            Frame::Unknown(kind) => self.diary.log("unknown frame", kind.as_bytes()),
            Frame::Ready { .. }
            | Frame::Text(_)
            | Frame::Status(_)
            | Frame::ToolStart { .. }
            | Frame::ToolEnd { .. } => {}
        }
        None
    }

    /// Looks at the agent's processes, if it is time; the end of the turn, if they wait for the next message.
    fn check(&mut self, turn: &mut Turn) -> Option<TurnEnd> {
        let watch = turn.watch.as_mut()?;
        if Instant::now() < watch.next() {
            return None;
        }
        let sign = self.look(watch, turn.reply.ends_line())?;
        // If it had printed or signalled anything before it began to wait, that is in the pipes now.
        let bytes = self.stdout.read_now();
        if !bytes.is_empty() {
            return self.hear(&bytes, turn);
        }
        let signals = self.fifo.read_now();
        if !signals.is_empty() {
            watch.stir(Instant::now());
            return self.hear_signals(&signals, turn);
        }
        if sign == Sign::Quiet && !self.told {
            self.told = true;
            self.diary
                .note("turns of this agent end by timer; use the SDK or write turn_done to $SUPERSERVE_TURN");
        }
        Some(TurnEnd::Done)
    }

    fn look(&mut self, watch: &mut Watch, ends_line: Option<bool>) -> Option<Sign> {
        let begun = Instant::now();
        let mut seen = scan(self.tree.root(), self.tree.root_is_init(), self.stdin.fd());
        // How much of the message is unread we see even where the kernel tells nothing else.
        if seen.is_err() && self.stdin.is_unread() {
            seen = Ok(Scan { tasks: Vec::new(), unread: 1 });
        }
        watch.see(seen, begun, Instant::now(), ends_line)
    }

    fn rules(&self) -> Rules {
        Rules { quiet: self.limits.quiet, certain_only: self.says_when }
    }

    /// Asks the agent to give up its turn.
    fn stop(&mut self, turn: &mut Turn, stage: Stage) {
        turn.stage = stage;
        let now = Instant::now();
        turn.deadline = now + self.limits.cancel_grace;
        if let Some(watch) = &mut turn.watch {
            watch.stir(now);
        }
        match self.mode {
            Mode::Frames { cancel: true } if stage == Stage::Cancelling => {
                self.stdin.send(&frames::cancel(turn.number));
            }
            _ => self.tree.interrupt(),
        }
    }

    /// The agent did not give up: it is killed.
    async fn kill_turn(&mut self, turn: &mut Turn) -> TurnEnd {
        self.tree.kill().await;
        let exit = self.tree.exited().await;
        self.ended(exit, turn)
    }

    /// The agent's main process has ended. What it said before that still counts.
    fn ended(&mut self, exit: Exit, turn: &mut Turn) -> TurnEnd {
        self.exit = Some(exit);
        self.read_stderr_rest();
        let bytes = self.stdout.rest();
        let said = self.hear(&bytes, turn);
        let signals = self.fifo.rest();
        let signalled = self.hear_signals(&signals, turn);
        let end = match (turn.stage, said.or(signalled)) {
            (Stage::Running, Some(end)) => end,
            _ => TurnEnd::Exited(exit),
        };
        turn.ended(end)
    }

    /// Gives the receiver what is left of the reply. One that takes nothing can't hold the session up for ever.
    async fn deliver(&self, mut turn: Turn, output: &mpsc::Sender<Output>, cancel: &CancellationToken) {
        let grace = self.limits.cancel_grace;
        let until = turn.deadline.max(Instant::now() + grace);
        let given_up = async {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = async { cancel.cancelled().await; tokio::time::sleep(grace).await } => {}
            }
        };
        let all = async {
            while let Some(piece) = turn.reply.pop() {
                if output.send(piece).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            () = all => {}
            () = given_up => self.diary.note("nobody takes the end of the reply: it is lost"),
        }
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
                Event::Room | Event::Cancelled | Event::Time => {}
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    fn hear_stray(&mut self, bytes: &[u8]) {
        match self.mode {
            Mode::Plain { .. } => self.diary.stray(bytes),
            Mode::Frames { .. } => {
                let diary = &mut self.diary;
                self.lines
                    .feed(bytes, |line| diary.log("stdout", line.unwrap_or_else(|beginning| beginning)));
            }
        }
    }

    fn hear_stray_signals(&mut self, bytes: &[u8]) {
        let diary = &mut self.diary;
        self.signals.feed(bytes, |line| diary.log("turn fifo", line.unwrap_or_else(|beginning| beginning)));
    }

    fn read_stderr(&mut self) {
        let bytes = self.stderr.read();
        self.diary.stderr(&bytes);
    }

    fn read_stderr_rest(&mut self) {
        let bytes = self.stderr.rest();
        self.diary.stderr(&bytes);
    }

    /// The last 4 KiB that the agent wrote on stderr, in whole lines.
    pub fn stderr_tail(&self) -> String {
        self.diary.tail()
    }

    /// Whether the agent has left part of what it was sent unread. If it has ended, then it never saw that.
    pub fn is_unread(&self) -> bool {
        self.stdin.is_unread()
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

impl Turn {
    /// Whether the reply still takes something. It always does while the agent runs, for then no more is read
    /// than there is room for.
    fn takes(&self) -> bool {
        !self.gone && (self.stage == Stage::Running || self.reply.has_room())
    }
}

/// Gives the receiver what it has room for.
fn hand_over(turn: &mut Turn, output: &mpsc::Sender<Output>) {
    while let Some(piece) = turn.reply.pop() {
        match output.try_send(piece) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(piece)) => {
                turn.reply.put_back(piece);
                return;
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                turn.gone = true;
            }
        }
    }
}
