//! Word from inside the agent's interpreter: whether its main thread waits for a message. Python and node load the
//! two files beside this one before the agent's own code; what they say comes on the turn FIFO.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// For a folder in `PYTHONPATH`, under the name `sitecustomize.py`.
pub const PYTHON: &str = include_str!("shim/sitecustomize.py");
/// Beside it, under the name `app.py`.
pub const APP: &str = include_str!("shim/app.py");
/// For node's `--require`.
pub const NODE: &str = include_str!("shim/node.cjs");

/// Processes of one agent that are listened to. Of more we know too little to say that all of them wait.
const MAX_PROCESSES: usize = 64;
/// An agent whose shim was wrong so often is no longer waited for longer than one without.
const TRUSTED: u32 = 2;
/// Begins an escape in what is sent to an agent that undoes it.
const MARK: char = '\u{1f}';

/// What a shim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its process, by the number that it has inside; good for telling one from another.
    pub pid: u64,
    /// The inode of what it reads as stdin: what a child reads from another pipe is none of ours.
    pub stdin: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing is under way but waiting for stdin.
    Idle,
    /// It has got something from stdin.
    Busy,
    /// Who reads next undoes the escapes of [`line`].
    Decodes(bool),
}

impl Report {
    /// The report in a frame of this type.
    pub fn parse(kind: &str, fields: &Map<String, Value>) -> Option<Self> {
        let what = match kind {
            "idle" => What::Idle,
            "busy" => What::Busy,
            "decodes" => What::Decodes(true),
            "raw" => What::Decodes(false),
            _ => return None,
        };
        let number = |name| fields.get(name).and_then(Value::as_u64);
        Some(Self { pid: number("pid")?, stdin: number("stdin")?, what })
    }
}

/// What all shims of an agent say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    None,
    /// Somebody is at work on the message.
    Busy,
    /// The message has been read, and all wait for the next one.
    Idle,
}

/// The shims of one agent.
#[derive(Debug)]
pub struct Shims {
    /// The inode of the agent's stdin.
    pipe: u64,
    /// Who has said something this turn, and whether it waits.
    waits: HashMap<u64, bool>,
    /// Somebody has got something from stdin this turn. What waited before that waits for this message.
    taken: bool,
    decodes: bool,
    overruled: u32,
}

impl Shims {
    /// Of an agent that has not got a message yet.
    pub fn new(pipe: u64) -> Self {
        Self { pipe, waits: HashMap::new(), taken: true, decodes: false, overruled: 0 }
    }

    pub fn hear(&mut self, report: Report) {
        if report.stdin != self.pipe {
            return;
        }
        let waits = match report.what {
            What::Decodes(decodes) => {
                self.decodes = decodes;
                return;
            }
            What::Idle => true,
            What::Busy => false,
        };
        self.taken |= !waits;
        if self.waits.len() < MAX_PROCESSES || self.waits.contains_key(&report.pid) {
            self.waits.insert(report.pid, waits);
        } else {
            self.waits.insert(0, false);
        }
    }

    /// A message is about to be sent.
    pub fn begin_turn(&mut self) {
        self.waits.clear();
        self.taken = false;
    }

    pub fn word(&self) -> Word {
        if self.waits.values().any(|waits| !waits) {
            Word::Busy
        } else if self.waits.is_empty() || !self.taken {
            Word::None
        } else {
            Word::Idle
        }
    }

    /// The turn was over by the timer.
    pub fn end_by_timer(&mut self) {
        self.overruled += u32::from(self.word() == Word::Busy);
    }

    /// [`Self::word`], without a claim to be at work that was wrong too often.
    pub fn trusted_word(&self) -> Word {
        match self.word() {
            Word::Busy if self.overruled >= TRUSTED => Word::None,
            word => word,
        }
    }

    /// Whether whoever reads the next message undoes escapes.
    pub fn decode(&self) -> bool {
        self.decodes
    }
}

/// A message as one line. Escaped, its reader gets back every character; otherwise new lines stay the two
/// characters `\n`.
pub fn line(content: &str, escaped: bool) -> Vec<u8> {
    let mut line = String::with_capacity(content.len() + 1);
    let mut rest = content.chars().peekable();
    while let Some(character) = rest.next() {
        let letter = match character {
            '\n' => 'n',
            '\r' if !escaped && rest.peek() == Some(&'\n') => continue,
            '\r' => 'r',
            // Node takes these for the end of a line as well.
            '\u{2028}' if escaped => 's',
            '\u{2029}' if escaped => 'p',
            MARK if escaped => 'u',
            _ => {
                line.push(character);
                continue;
            }
        };
        line.push(if escaped { MARK } else { '\\' });
        line.push(letter);
    }
    line.push('\n');
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: u64 = 7;

    fn after(reports: &[(u64, What)]) -> Word {
        let mut shims = Shims::new(PIPE);
        shims.begin_turn();
        for &(pid, what) in reports {
            shims.hear(Report { pid, stdin: PIPE, what });
        }
        shims.word()
    }

    #[test]
    fn idle_counts_once_the_message_has_been_taken() {
        use What::{Busy, Idle};
        assert_eq!(after(&[]), Word::None);
        assert_eq!(after(&[(1, Idle)]), Word::None, "that was about the message before");
        assert_eq!(after(&[(1, Busy)]), Word::Busy);
        assert_eq!(after(&[(1, Idle), (1, Busy), (1, Idle)]), Word::Idle);
        assert_eq!(after(&[(1, Busy), (2, Busy), (1, Idle)]), Word::Busy);
        assert_eq!(after(&[(1, Busy), (2, Idle), (1, Idle)]), Word::Idle);
        let crowd: Vec<_> = (1..=100).flat_map(|pid| [(pid, Busy), (pid, Idle)]).collect();
        assert_eq!(after(&crowd), Word::Busy);
    }

    #[test]
    fn before_the_first_message_idle_is_enough() {
        let mut shims = Shims::new(PIPE);
        shims.hear(Report { pid: 1, stdin: PIPE, what: What::Idle });
        assert_eq!(shims.word(), Word::Idle);
    }

    #[test]
    fn who_reads_another_pipe_is_none_of_ours() {
        let mut shims = Shims::new(PIPE);
        for what in [What::Busy, What::Decodes(true)] {
            shims.hear(Report { pid: 1, stdin: PIPE + 1, what });
        }
        assert_eq!((shims.word(), shims.decode()), (Word::None, false));
    }

    #[test]
    fn who_was_wrong_twice_is_not_waited_for() {
        let mut shims = Shims::new(PIPE);
        for _ in 0..TRUSTED {
            shims.begin_turn();
            shims.hear(Report { pid: 1, stdin: PIPE, what: What::Busy });
            assert_eq!(shims.trusted_word(), Word::Busy);
            shims.end_by_timer();
        }
        assert_eq!(shims.trusted_word(), Word::None);
        shims.hear(Report { pid: 1, stdin: PIPE, what: What::Idle });
        assert_eq!(shims.trusted_word(), Word::Idle);
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(line("a\nb\r\nc\rd\\n\u{1f}", false), b"a\\nb\\nc\\rd\\n\x1f\n");
        assert_eq!(line("a\nb\r\n\\n\u{1f}\u{2028}", true), b"a\x1fnb\x1fr\x1fn\\n\x1fu\x1fs\n");
        assert_eq!(line("", true), b"\n");
    }
}
