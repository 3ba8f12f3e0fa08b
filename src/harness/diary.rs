//! What an agent says besides its replies: to the log, and the last of its stderr kept for the one who asks why.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::frames::Lines;
use super::redaction::Redaction;

/// So much of stderr is kept, in bytes.
const KEPT: usize = 4 * 1024;
/// A longer line is cut in the log, at this many characters.
const MAX_LOGGED: usize = 2000;
/// So many lines are logged in [`WINDOW`]; the rest is counted.
const MAX_LINES: u32 = 200;
const WINDOW: Duration = Duration::from_secs(1);

/// The stderr of an agent, and its stray lines.
#[derive(Debug)]
pub struct Diary {
    log: Log,
    stderr: Lines,
    stray: Lines,
    tail: VecDeque<u8>,
}

/// The log, which no agent may fill.
#[derive(Debug)]
struct Log {
    session: String,
    redaction: Redaction,
    window: Option<Instant>,
    logged: u32,
    dropped: u64,
}

impl Diary {
    /// An empty one; `session` is named in each line of the log. What `redaction` takes out is never told.
    pub fn new(session: &str, redaction: Redaction) -> Self {
        Self {
            log: Log { session: session.to_owned(), redaction, window: None, logged: 0, dropped: 0 },
            stderr: Lines::up_to(MAX_LOGGED * 4),
            stray: Lines::up_to(MAX_LOGGED * 4),
            tail: VecDeque::new(),
        }
    }

    /// Takes what the agent wrote on stderr.
    pub fn stderr(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEPT)..];
        // One byte more is kept: it says whether the first line is whole.
        let over = (self.tail.len() + new.len()).saturating_sub(KEPT + 1);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(new);
        self.log.lines(&mut self.stderr, "stderr", bytes);
    }

    /// Takes what the agent printed outside of a turn.
    pub fn stray(&mut self, bytes: &[u8]) {
        self.log.lines(&mut self.stray, "stdout", bytes);
    }

    /// Takes one line of the given origin.
    pub fn log(&mut self, from: &str, line: &[u8]) {
        self.log.line(from, line);
    }

    /// Says something of our own about the agent.
    pub fn note(&self, note: &str) {
        tracing::warn!(target: "agent", session = %self.log.session, "{note}");
    }

    /// The last 4 KiB of stderr, from the first whole line on.
    pub fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let whole = match bytes.iter().position(|&byte| byte == b'\n') {
            // Its beginning was cut off. A single line that is too long is better than nothing.
            Some(end) if bytes.len() > KEPT && end + 1 < bytes.len() => &bytes[end + 1..],
            _ => &bytes[..],
        };
        let text = String::from_utf8_lossy(whole).into_owned();
        let redaction = &self.log.redaction;
        if bytes.len() > KEPT { redaction.cut_text(text) } else { redaction.text(text) }
    }
}

impl Log {
    fn lines(&mut self, lines: &mut Lines, from: &str, bytes: &[u8]) {
        lines.feed(bytes, |line| self.line(from, line.unwrap_or_else(|beginning| beginning)));
    }

    fn line(&mut self, from: &str, line: &[u8]) {
        let now = Instant::now();
        if self.window.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            if self.dropped > 0 {
                tracing::warn!(target: "agent", session = %self.session, lines = self.dropped, "too many lines: left out");
            }
            (self.window, self.logged, self.dropped) = (Some(now), 0, 0);
        }
        if self.logged >= MAX_LINES {
            self.dropped += 1;
            return;
        }
        self.logged += 1;
        // A character is at most four bytes, so no more than these need be decoded.
        let is_cut = line.len() >= MAX_LOGGED * 4;
        let line = String::from_utf8_lossy(&line[..line.len().min(MAX_LOGGED * 4)]).into_owned();
        let line = if is_cut { self.redaction.cut_text(line) } else { self.redaction.text(line) };
        let text: String = line.chars().take(MAX_LOGGED).collect();
        // `?` keeps escape sequences out of the log's terminal.
        tracing::info!(target: "agent", session = %self.session, from, line = ?text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_with_a_whole_line() {
        let mut diary = Diary::new("ses_1", Redaction::default());
        diary.stderr(b"one\n");
        assert_eq!(diary.tail(), "one\n");
        for number in 0..2000 {
            diary.stderr(format!("line {number}\n").as_bytes());
        }
        let tail = diary.tail();
        assert!(tail.len() <= KEPT && tail.len() > KEPT - 20, "{}", tail.len());
        assert!(tail.starts_with("line ") && tail.ends_with("line 1999\n"));
        diary.stderr(&vec![b'x'; 100_000]);
        assert!(diary.tail().len() <= KEPT + 1);
    }

    #[test]
    fn a_tail_of_just_4_kib_is_whole() {
        let mut diary = Diary::new("ses_1", Redaction::default());
        diary.stderr(format!("{}\n", "a".repeat(9)).repeat(409).as_bytes());
        diary.stderr(b"12345\n");
        assert_eq!(diary.tail().len(), KEPT);
        diary.stderr(b"x");
        assert!(diary.tail().len() <= KEPT);
        assert!(diary.tail().starts_with("aaaaaaaaa\n"));
    }

    #[test]
    fn the_tail_tells_no_secret() {
        let secret = crate::wire::Secret::new("hunter2-and-more".into());
        let mut diary = Diary::new("ses_1", Redaction::new([&secret]));
        diary.stderr(b"key: hunter2-and-more\n");
        assert_eq!(diary.tail(), "key: [secret]\n");
        diary.stderr(&b"hunter2-and-more".repeat(1000));
        let tail = diary.tail();
        assert!(!tail.contains("hunter2") && !tail.contains("more"), "{tail}");
    }
}
