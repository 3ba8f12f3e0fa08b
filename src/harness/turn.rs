//! One turn of a conversation: a message, its reply, and when that is over.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Output;
use super::answer::{Answer, Said};
use super::conversation::{BETWEEN, Conversation, Event, Mode, Wait, after};
use super::exchange::{Exchange, Piece};
use super::frames::{self, Frame};
use super::reply::Reply;
use super::scan::{Scan, scan};
use super::shim::{self, Word};
use super::verdict::{Sign, Verdict, Watch};
use crate::sandbox::Exit;

/// So long an agent that looked done gets to prove it before it is interrupted.
const SETTLING: Duration = Duration::from_millis(200);

/// So much is kept of what an HTTP agent says about a failure, in bytes.
const MAX_REFUSAL: usize = 2000;

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

/// One turn.
struct Turn {
    number: u64,
    reply: Reply,
    /// What the agent did before it got its message.
    before: Option<Scan>,
    /// From the time at which the agent has got its whole message.
    watch: Option<Watch>,
    stage: Stage,
    deadline: Instant,
    /// Of an HTTP agent.
    request: Option<Request>,
    /// When the last tool began, unless it has ended.
    tool_since: Option<Instant>,
    /// Nobody listens any more.
    gone: bool,
}

/// An HTTP agent's turn.
struct Request {
    exchange: Exchange,
    answer: Answer,
    /// The status that means that there is no reply, and the beginning of what the agent says about it.
    refused: Option<(u16, Vec<u8>)>,
}

impl Request {
    /// What a refusal says.
    fn failure(&self) -> Option<TurnEnd> {
        let (status, body) = self.refused.as_ref()?;
        let body = String::from_utf8_lossy(body);
        let said = match body.trim() {
            "" => String::new(),
            said => format!(": {}", said.chars().take(MAX_REFUSAL / 4).collect::<String>()),
        };
        Some(TurnEnd::Failed { message: format!("The agent answered with status {status}{said}") })
    }
}

/// What came of an HTTP agent's answer.
enum Heard {
    More,
    End(TurnEnd),
    /// The connection is lost, for this reason.
    Lost(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Cancelled when it looked as if the agent was done already: an interrupt would only end it.
    Settling,
    /// Asked to give up, because of the user or because of the time.
    Cancelling,
    TimingOut,
}

impl Turn {
    /// The end that an agent's own end of this turn means.
    fn ended(&self, end: TurnEnd) -> TurnEnd {
        match self.stage {
            Stage::Running => end,
            Stage::Settling | Stage::Cancelling => {
                TurnEnd::Cancelled { exited: matches!(end, TurnEnd::Exited(_)) }
            }
            Stage::TimingOut => TurnEnd::TimedOut,
        }
    }

    /// Whether the reply still takes something. It always does while the agent runs, for then no more is read
    /// than there is room for.
    fn takes(&self) -> bool {
        !self.gone && (self.stage == Stage::Running || self.reply.has_room())
    }
}

impl Conversation {
    /// One message to the agent and its reply, which goes to `output` piece by piece. `number` counts the turns of
    /// the session. After `Exited` and `TimedOut`, and `Cancelled` with `exited`, there is no further turn.
    ///
    /// A receiver that takes nothing holds the agent up, but neither the limits nor `cancel`; one that is gone
    /// loses what is said. Don't drop the future: what the agent still says would belong to the next turn.
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
        if let Mode::Http { unseen, .. } = &mut self.mode {
            *unseen = true;
        }
        if let Some(exit) = self.exit {
            return TurnEnd::Exited(exit);
        }
        // What the agent has said up to here belongs to no turn.
        let (stray, signals) = (self.stdout.rest(), self.fifo.rest());
        self.hear_stray(&stray);
        self.hear_stray_signals(&signals);

        self.shims.begin_turn();
        let (message, prompt, before) = match &self.mode {
            Mode::Plain { prompt } => {
                let before = scan(self.tree.root(), self.tree.root_is_init(), self.stdin.fd()).ok();
                (shim::line(content, self.shims.decode()), prompt.as_str(), before)
            }
            Mode::Frames { .. } => (frames::message(content, message_id, number), "", None),
            Mode::Http { .. } => (Vec::new(), "", None),
        };
        let request = match &self.mode {
            Mode::Http { address, .. } => Some(Request {
                exchange: Exchange::begin(self.tree.as_ref(), address, content, number).await,
                answer: Answer::Unknown,
                refused: None,
            }),
            Mode::Plain { .. } | Mode::Frames { .. } => None,
        };
        let mut turn = Turn {
            number,
            reply: Reply::new(prompt),
            before,
            watch: None,
            stage: Stage::Running,
            deadline: after(Instant::now(), self.limits.turn),
            request,
            tool_since: None,
            gone: false,
        };
        self.stdin.send(&message);
        let end = self.run(&mut turn, output, cancel).await;
        self.read_stderr_rest();
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
                turn.watch = Some(Watch::new(self.rules(), now, turn.before.take()));
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
                answer: turn.request.as_mut().map(|request| &mut request.exchange.pieces),
            };
            let end = match self.next(wait).await {
                // What it started may live on.
                Event::Exited(_) if turn.stage == Stage::TimingOut => return self.kill_turn(turn).await,
                Event::Exited(exit) => {
                    let answered = self.hear_rest(turn).await;
                    return self.ended(exit, turn, answered);
                }
                Event::Answer(piece) => {
                    if turn.gone {
                        tokio::time::sleep(BETWEEN).await;
                    }
                    match self.hear_piece(piece, turn) {
                        Heard::More => None,
                        Heard::End(end) => Some(end),
                        Heard::Lost(why) => Some(self.lost(why).await),
                    }
                }
                Event::Stdin => {
                    self.stdin.write();
                    None
                }
                Event::Stdout => {
                    let bytes = self.stdout.read();
                    if turn.gone {
                        // No receiver sets the pace any more.
                        tokio::time::sleep(BETWEEN).await;
                    }
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
                    self.cancel(turn);
                    None
                }
                Event::Time if Instant::now() >= turn.deadline => match turn.stage {
                    Stage::Running => {
                        self.stop(turn, Stage::TimingOut);
                        None
                    }
                    Stage::Settling => {
                        self.stop(turn, Stage::Cancelling);
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

    /// Takes what the agent printed; the end of the turn, if it says so.
    fn hear(&mut self, bytes: &[u8], turn: &mut Turn) -> Option<TurnEnd> {
        if bytes.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(watch) = &mut turn.watch {
            watch.stir(now, self.shims.trusted_word());
            if self.shims.word() == Word::Idle {
                watch.hurry(now);
            }
        }
        if let Mode::Plain { .. } = self.mode {
            if turn.takes() {
                turn.reply.push_bytes(bytes, now);
            }
            return None;
        }
        if let Mode::Http { .. } = self.mode {
            self.hear_stray(bytes);
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
        if let Mode::Http { .. } = self.mode {
            self.hear_stray_signals(bytes);
            return None;
        }
        let mut signals = std::mem::take(&mut self.signals);
        let mut end = None;
        signals.feed(bytes, |line| match line.ok().and_then(Frame::parse_signal) {
            Some(frame) if end.is_none() => end = self.obey(frame, turn),
            _ => self.diary.log("turn fifo", line.unwrap_or_else(|beginning| beginning)),
        });
        self.signals = signals;
        if self.shims.word() == Word::Idle
            && let Some(watch) = &mut turn.watch
        {
            watch.hurry(Instant::now());
        }
        if end.is_some() {
            self.says_when = true;
            // What it printed before it said so is in the pipe.
            let rest = self.stdout.rest();
            self.hear(&rest, turn);
        }
        end
    }

    /// Takes what came of an HTTP agent's answer.
    fn hear_piece(&mut self, piece: Option<Piece>, turn: &mut Turn) -> Heard {
        let Some(request) = &mut turn.request else { return Heard::More };
        let (said, end) = match piece {
            Some(Piece::Connected) => {
                if let Mode::Http { unseen, .. } = &mut self.mode {
                    *unseen = false;
                }
                return Heard::More;
            }
            Some(Piece::Head { status, content_type }) => {
                request.answer = Answer::new(&content_type);
                request.refused = (!(200..300).contains(&status)).then(|| (status, Vec::new()));
                return Heard::More;
            }
            Some(Piece::Body(bytes)) => match &mut request.refused {
                Some((_, body)) => {
                    body.extend_from_slice(bytes.get(..MAX_REFUSAL).unwrap_or(&bytes));
                    let enough = body.len() >= MAX_REFUSAL;
                    return request.failure().filter(|_| enough).map_or(Heard::More, Heard::End);
                }
                None => (request.answer.feed(&bytes), Heard::More),
            },
            Some(Piece::End) => match request.failure() {
                Some(failure) => return Heard::End(failure),
                None => (request.answer.finish(), Heard::End(TurnEnd::Done)),
            },
            Some(Piece::Broken(why)) => match request.failure() {
                Some(failure) => return Heard::End(failure),
                None => (request.answer.finish(), Heard::Lost(why)),
            },
            None => return Heard::Lost("nothing more came".to_owned()),
        };
        let mut over = None;
        for said in said {
            match said {
                Said::Frame(frame) if over.is_none() => over = self.obey(frame, turn),
                Said::Bytes(bytes) if over.is_none() && turn.takes() => {
                    turn.reply.push_bytes(&bytes, Instant::now());
                }
                Said::Stray(line) => self.diary.log("answer", &line),
                Said::Frame(_) | Said::Bytes(_) => {}
            }
        }
        over.map_or(end, Heard::End)
    }

    /// What has come of an answer by the time at which the agent has ended; the end of the turn, if that has.
    async fn hear_rest(&mut self, turn: &mut Turn) -> Option<TurnEnd> {
        let until = after(Instant::now(), SETTLING);
        loop {
            let pieces = &mut turn.request.as_mut()?.exchange.pieces;
            let piece = tokio::time::timeout_at(until, pieces.recv()).await.ok()?;
            match self.hear_piece(piece, turn) {
                Heard::More => {}
                Heard::End(end) => return Some(end),
                Heard::Lost(_) => return None,
            }
        }
    }

    /// The connection to an HTTP agent is lost: mostly because it ends.
    async fn lost(&mut self, why: String) -> TurnEnd {
        match tokio::time::timeout(SETTLING, self.tree.exited()).await {
            Ok(exit) => {
                self.exit = Some(exit);
                self.read_stderr_rest();
                TurnEnd::Exited(exit)
            }
            Err(_still_there) => {
                TurnEnd::Failed { message: format!("The connection to the agent was lost: {why}") }
            }
        }
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
            Frame::ToolStart { tool, input } if takes => {
                turn.tool_since = Some(Instant::now());
                turn.reply.push(Output::ToolStart { tool, input });
            }
            Frame::ToolEnd { duration_ms } if takes => {
                let since = turn.tool_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                let measured = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                turn.reply.push(Output::ToolEnd { duration_ms: duration_ms.unwrap_or(measured) });
            }
            Frame::Metadata(data) => self.diary.log("metadata", data.to_string().as_bytes()),
            Frame::Shim(report) => self.shims.hear(report),
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
            watch.stir(Instant::now(), self.shims.trusted_word());
            return self.hear_signals(&signals, turn);
        }
        if sign == Sign::Quiet {
            self.shims.end_by_timer();
            if !self.told {
                self.told = true;
                self.diary.note(
                    "turns of this agent end by timer; use the SDK or write turn_done to $SUPERSERVE_TURN",
                );
            }
        }
        Some(TurnEnd::Done)
    }

    /// The user gives the turn up.
    fn cancel(&mut self, turn: &mut Turn) {
        let parked = turn.watch.is_some() && {
            let seen = scan(self.tree.root(), self.tree.root_is_init(), self.stdin.fd());
            matches!(Verdict::of(&seen, None), Verdict::Parked | Verdict::ParkedMain(_))
        };
        if parked {
            turn.stage = Stage::Settling;
            turn.deadline = after(Instant::now(), SETTLING.min(self.limits.cancel_grace));
        } else {
            self.stop(turn, Stage::Cancelling);
        }
    }

    /// Asks the agent to give up its turn.
    fn stop(&mut self, turn: &mut Turn, stage: Stage) {
        turn.stage = stage;
        let now = Instant::now();
        turn.deadline = after(now, self.limits.cancel_grace);
        if let Some(watch) = &mut turn.watch {
            watch.stir(now, self.shims.trusted_word());
        }
        if let Some(request) = &turn.request {
            request.exchange.hang_up();
        }
        match self.mode {
            Mode::Frames { cancel: true, .. } if stage == Stage::Cancelling => {
                self.stdin.send(&frames::cancel(turn.number));
            }
            _ => self.tree.interrupt(),
        }
    }

    /// The agent did not give up: it is killed.
    async fn kill_turn(&mut self, turn: &mut Turn) -> TurnEnd {
        self.tree.kill().await;
        let exit = self.tree.exited().await;
        self.ended(exit, turn, None)
    }

    /// The agent's main process has ended. What it said before that still counts.
    fn ended(&mut self, exit: Exit, turn: &mut Turn, answered: Option<TurnEnd>) -> TurnEnd {
        self.exit = Some(exit);
        self.read_stderr_rest();
        let bytes = self.stdout.rest();
        let said = self.hear(&bytes, turn);
        let signals = self.fifo.rest();
        let signalled = self.hear_signals(&signals, turn);
        let end = match (turn.stage, answered.or(said).or(signalled)) {
            (Stage::Running, Some(end)) => end,
            _ => TurnEnd::Exited(exit),
        };
        turn.ended(end)
    }

    /// Gives the receiver what is left of the reply. One that takes nothing can't hold the session up for ever.
    async fn deliver(&self, mut turn: Turn, output: &mpsc::Sender<Output>, cancel: &CancellationToken) {
        let grace = self.limits.cancel_grace;
        let until = turn.deadline.max(after(Instant::now(), grace));
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
