//! An agent's bytes on their way to being a reply: decoded, coalesced, without the prompt at their end.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Output;

/// Text waits at most this long for more.
const COALESCE: Duration = Duration::from_millis(10);
/// Text of this many bytes waits no longer.
const ENOUGH: usize = 4 * 1024;
/// No more is read from the agent while this many bytes wait for the receiver.
const MAX_WAITING: usize = 64 * 1024;
/// A longer last line of a banner is no prompt.
const MAX_PROMPT: usize = 1024;

/// Bytes to text, whatever pieces they come in. Invalid bytes become U+FFFD.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a character whose end has not come yet: at most three bytes.
    partial: Vec<u8>,
}

impl Decoder {
    /// Appends the text of the next bytes to `text`.
    pub fn decode(&mut self, bytes: &[u8], text: &mut String) {
        let joined;
        let bytes = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            &joined
        };
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // At the very end it may be the first half of a character.
            if chunks.peek().is_none() && may_continue(invalid) {
                self.partial = invalid.to_vec();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// There is no more: half a character is an invalid one.
    pub fn finish(&mut self, text: &mut String) {
        if !self.partial.is_empty() {
            self.partial.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether these bytes, which are no character, could become one with more bytes.
fn may_continue(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

/// What an agent prints before its first message. Its last line, if it has no newline, is the prompt.
#[derive(Debug, Default)]
pub struct Banner {
    decoder: Decoder,
    line: String,
    too_long: bool,
}

impl Banner {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = match bytes.iter().rposition(|&byte| byte == b'\n') {
            None => bytes,
            Some(end) => {
                *self = Self::default();
                &bytes[end + 1..]
            }
        };
        if self.line.len() + bytes.len() > MAX_PROMPT {
            self.too_long = true;
        }
        if !self.too_long {
            self.decoder.decode(bytes, &mut self.line);
        }
    }

    /// The prompt; empty if there is none.
    pub fn into_prompt(mut self) -> String {
        self.decoder.finish(&mut self.line);
        if self.too_long { String::new() } else { self.line }
    }
}

/// The reply of one turn, from the agent's bytes to the receiver's pieces.
#[derive(Debug, Default)]
pub struct Reply {
    decoder: Decoder,
    /// The prompt of a plain agent, which comes again at the end of each reply.
    prompt: String,
    /// What could be the end of the reply, of which the final newline and the prompt are no part.
    held: String,
    /// Text that waits for more, since when.
    text: String,
    since: Option<Instant>,
    /// What waits for the receiver.
    queue: VecDeque<Output>,
    /// The bytes of text in `queue`.
    waiting: usize,
    /// Whether the last text that the agent printed ended in a newline; `None` if it printed nothing.
    ends_line: Option<bool>,
}

impl Reply {
    /// An empty reply of an agent with this prompt.
    pub fn new(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), ..Self::default() }
    }

    /// Takes what a plain agent printed.
    pub fn push_bytes(&mut self, bytes: &[u8], now: Instant) {
        let mut new = std::mem::take(&mut self.held);
        self.decoder.decode(bytes, &mut new);
        if let Some(last) = bytes.last() {
            self.ends_line = Some(*last == b'\n');
        }
        self.held = new.split_off(new.len() - held_back(&new, &self.prompt));
        self.add(&new, now);
    }

    /// Takes the text of a frame, which is exact.
    pub fn push_text(&mut self, text: &str, now: Instant) {
        if let Some(last) = text.as_bytes().last() {
            self.ends_line = Some(*last == b'\n');
        }
        let held = std::mem::take(&mut self.held);
        self.add(&held, now);
        self.add(text, now);
    }

    /// Takes something else than text, after all text before it.
    pub fn push(&mut self, output: Output) {
        let held = std::mem::take(&mut self.held);
        self.text.push_str(&held);
        self.enqueue_text();
        // Its size is that of a line at most, so counting the pieces bounds the memory well enough.
        self.waiting += ENOUGH;
        self.queue.push_back(output);
    }

    /// The reply is over: what was held back is the final newline and the prompt, or text.
    pub fn finish(&mut self) {
        let mut last = std::mem::take(&mut self.held);
        self.decoder.finish(&mut last);
        if !self.prompt.is_empty() && last.ends_with(&self.prompt) {
            last.truncate(last.len() - self.prompt.len());
        }
        if last.ends_with('\n') {
            last.pop();
        }
        self.text.push_str(&last);
        self.enqueue_text();
    }

    /// Whether the agent printed something and ended its last line.
    pub fn ends_line(&self) -> Option<bool> {
        self.ends_line
    }

    /// Whether more may be read from the agent.
    pub fn has_room(&self) -> bool {
        self.waiting + self.text.len() < MAX_WAITING
    }

    /// When waiting text is due, if there is any.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + COALESCE)
    }

    /// Whether something waits for the receiver.
    pub fn is_waiting(&mut self, now: Instant) -> bool {
        if self.text.len() >= ENOUGH || self.due().is_some_and(|due| due <= now) {
            self.enqueue_text();
        }
        !self.queue.is_empty()
    }

    /// The next piece for the receiver.
    pub fn pop(&mut self) -> Option<Output> {
        let output = self.queue.pop_front()?;
        self.waiting -= size(&output);
        Some(output)
    }

    /// Puts a piece back that the receiver had no room for.
    pub fn put_back(&mut self, output: Output) {
        self.waiting += size(&output);
        self.queue.push_front(output);
    }

    fn add(&mut self, text: &str, now: Instant) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.since.get_or_insert(now);
        }
    }

    fn enqueue_text(&mut self) {
        self.since = None;
        if !self.text.is_empty() {
            let output = Output::Text(std::mem::take(&mut self.text));
            self.waiting += size(&output);
            self.queue.push_back(output);
        }
    }
}

fn size(output: &Output) -> usize {
    match output {
        Output::Text(text) => text.len(),
        _ => ENOUGH,
    }
}

/// How many bytes at the end of `text` may be a newline and (the beginning of) the prompt.
fn held_back(text: &str, prompt: &str) -> usize {
    let prompt_part = (0..=prompt.len().min(text.len()))
        .rev()
        .filter(|&length| prompt.is_char_boundary(length))
        .find(|&length| text.ends_with(&prompt[..length]))
        .unwrap_or(0);
    // A shorter part with a newline before it can reach further back than a longer one without.
    let with_newline = (0..=prompt.len().min(text.len().saturating_sub(1)))
        .rev()
        .filter(|&length| prompt.is_char_boundary(length))
        .find(|&length| text.ends_with(&prompt[..length]) && text[..text.len() - length].ends_with('\n'))
        .map_or(0, |length| length + 1);
    prompt_part.max(with_newline)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(reply: &mut Reply) -> String {
        let mut whole = String::new();
        while let Some(output) = reply.pop() {
            match output {
                Output::Text(text) => whole.push_str(&text),
                other => whole.push_str(&format!("[{other:?}]")),
            }
        }
        whole
    }

    fn reply(prompt: &str, pieces: &[&[u8]]) -> String {
        let mut reply = Reply::new(prompt);
        for piece in pieces {
            reply.push_bytes(piece, Instant::now());
        }
        reply.finish();
        let text = text(&mut reply);
        assert_eq!(reply.waiting, 0);
        text
    }

    fn prompt(pieces: &[&[u8]]) -> String {
        let mut banner = Banner::default();
        pieces.iter().for_each(|piece| banner.push(piece));
        banner.into_prompt()
    }

    #[test]
    fn one_newline_and_one_prompt_are_no_part_of_it() {
        assert_eq!(reply("", &[b"hi\n"]), "hi");
        assert_eq!(reply("", &[b"hi\n\n"]), "hi\n");
        assert_eq!(reply("", &[b""]), "");
        assert_eq!(reply("> ", &[b"hi\n> "]), "hi");
        assert_eq!(reply("> ", &[b"hi\n", b">", b" "]), "hi");
        assert_eq!(reply("> ", &[b"> "]), "");
        assert_eq!(reply("> ", &[b"hi> > "]), "hi> ");
        assert_eq!(reply("> ", &[b"hi\n> more\n"]), "hi\n> more");
        assert_eq!(reply("> ", &[b"hi\n>"]), "hi\n>");
        assert_eq!(reply("a\na", &[b"xa\na"]), "x");
    }

    #[test]
    fn a_banner_ends_in_a_prompt_or_not() {
        assert_eq!(prompt(&[b"Welcome!\nYou: "]), "You: ");
        assert_eq!(prompt(&[b"Welcome!\n"]), "");
        assert_eq!(prompt(&[b"Wel", b"come\nYo", b"u \xc3", b"\xa9"]), "You \u{e9}");
        assert_eq!(prompt(&[&[b'x'; 5000]]), "");
        assert_eq!(prompt(&[&[b'x'; 5000], b"\n> "]), "> ");
    }

    #[test]
    fn broken_characters_are_shown_as_such() {
        assert_eq!(reply("", &[b"a\xffb"]), "a\u{fffd}b");
        assert_eq!(reply("", &[b"\xe2\x82", b"\xac"]), "\u{20ac}");
        assert_eq!(reply("", &[b"a\xe2\x82"]), "a\u{fffd}");
        assert_eq!(reply("", &[b"\xe2", b"x"]), "\u{fffd}x");
    }

    #[test]
    fn other_output_keeps_its_place() {
        let mut reply = Reply::new("");
        let now = Instant::now();
        reply.push_bytes(b"a\n", now);
        reply.push(Output::ToolEnd { duration_ms: 1 });
        reply.push_text("b\n", now);
        reply.finish();
        assert_eq!(text(&mut reply), "a\n[ToolEnd { duration_ms: 1 }]b\n");
    }

    #[test]
    fn text_waits_for_ten_milliseconds_or_four_kibibytes() {
        let (mut reply, now) = (Reply::new(""), Instant::now());
        reply.push_bytes(b"a", now);
        assert!(!reply.is_waiting(now));
        assert!(reply.is_waiting(now + COALESCE));
        let mut reply = Reply::new("");
        reply.push_bytes(&[b'x'; ENOUGH], now);
        assert!(reply.is_waiting(now));
    }

    proptest! {
        #[test]
        fn the_decoder_agrees_with_the_standard_library(
            bytes in proptest::collection::vec(prop_oneof![Just(0xe2u8), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), any::<u8>()], 0..40),
            cut in 0usize..40,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let (mut decoder, mut text) = (Decoder::default(), String::new());
            decoder.decode(head, &mut text);
            decoder.decode(tail, &mut text);
            decoder.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_reply_does_not_depend_on_the_cuts(
            body in "[>\n aé]{0,30}", prompt in "[>\n aé]{0,4}", cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let whole = format!("{body}{prompt}");
            let bytes = whole.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(reply(&prompt, &pieces), body.strip_suffix('\n').unwrap_or(&body));
        }
    }
}
