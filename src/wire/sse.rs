//! Server-sent events: how a stream of a run's events or of sessions' changes is written, and how it is read back.

use serde_json::Value;

use super::{NumberedEvent, RunEvent, RunId, SessionEvent};

/// What keeps a silent connection warm; clients pass over comments.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// The longest line that the decoder takes, in bytes; a longer one is dropped with its event.
const MAX_LINE: usize = 8 << 20;

/// One event as bytes: `id`, `event`, `data`, each with a space after the colon, which the old parsers require.
pub fn encode(event: &NumberedEvent) -> String {
    format!(
        "id: {}:{}\nevent: {}\ndata: {}\n\n",
        event.run_id,
        event.number,
        event.event.name(),
        event.event.data()
    )
}

/// One change of a session as bytes.
pub fn encode_change(event: &SessionEvent) -> String {
    format!("event: {}\ndata: {}\n\n", event.name(), event.data())
}

/// A comment as bytes, for people who read along; `text` is one line.
pub fn comment(text: &str) -> String {
    format!(": {text}\n\n")
}

/// One event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Frame {
    /// The last ID that was given, with this event or an earlier one.
    id: String,
    name: String,
    data: String,
}

/// Puts a stream of bytes, cut anywhere, back together into frames.
#[derive(Debug, Default)]
struct Frames {
    line: Vec<u8>,
    overlong: bool,
    after_cr: bool,
    id: String,
    name: String,
    data: Option<String>,
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    if std::mem::take(&mut self.overlong) {
                        self.data = None;
                        self.name.clear();
                    } else if let Some(frame) = self.take_line(&String::from_utf8_lossy(&line)) {
                        frames.push(frame);
                    }
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => self.overlong = true,
            }
        }
        frames
    }

    fn take_line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = self.data.take()?;
            return Some(Frame { id: self.id.clone(), name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = value.to_owned(),
            "event" => self.name = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

/// Reads the events of a run out of a stream of bytes, cut anywhere. An event of a type that we don't know is passed
/// over.
#[derive(Debug, Default)]
pub struct Decoder(Frames);

impl Decoder {
    /// The events that are whole after these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<NumberedEvent> {
        let read = |frame: Frame| {
            let data: Value = serde_json::from_str(&frame.data).ok()?;
            let (run_id, number) = frame.id.rsplit_once(':')?;
            let event = RunEvent::from_parts(&frame.name, data)?;
            Some(NumberedEvent { run_id: run_id.parse::<RunId>().ok()?, number: number.parse().ok()?, event })
        };
        self.0.feed(bytes).into_iter().filter_map(read).collect()
    }
}

/// Reads the changes of sessions out of a stream of bytes, cut anywhere.
#[derive(Debug, Default)]
pub struct ChangeDecoder(Frames);

impl ChangeDecoder {
    /// The changes that are whole after these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<SessionEvent> {
        let frames = self.0.feed(bytes);
        frames.iter().filter_map(|frame| SessionEvent::from_parts(&frame.name, &frame.data)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(number: u64, content: &str) -> NumberedEvent {
        NumberedEvent {
            run_id: RunId::from_random(7),
            number,
            event: RunEvent::Delta { content: content.to_owned() },
        }
    }

    #[test]
    fn is_framed_as_the_old_parsers_need_it() {
        assert_eq!(
            encode(&event(2, "a\nb")),
            "id: run_00000000000000000000000000000007:2\nevent: message.delta\ndata: {\"content\":\"a\\nb\"}\n\n"
        );
    }

    #[test]
    fn passes_over_comments_and_unknown_types() {
        let text = format!(
            "{KEEP_ALIVE}id: x:1\r\nevent: new.kind\r\ndata: {{}}\r\n\r\n{}",
            encode(&event(1, "hi"))
        );
        assert_eq!(Decoder::default().feed(text.as_bytes()), vec![event(1, "hi")]);
    }

    proptest! {
        #[test]
        fn any_text_survives_any_cut(contents in prop::collection::vec(".*", 1..5), cut in 1usize..64) {
            let events: Vec<_> = contents.iter().zip(1..).map(|(text, n)| event(n, text)).collect();
            let bytes: Vec<u8> = events.iter().flat_map(|e| encode(e).into_bytes()).collect();
            let mut decoder = Decoder::default();
            let read: Vec<_> = bytes.chunks(cut).flat_map(|chunk| decoder.feed(chunk)).collect();
            prop_assert_eq!(read, events);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            Decoder::default().feed(&bytes);
        }
    }
}
