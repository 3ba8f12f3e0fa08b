//! Server-sent events: how a run's stream is written, and how it is read back.

use serde_json::Value;

use super::{NumberedEvent, RunEvent, RunId};

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

/// Puts a stream of bytes, cut anywhere, back together into events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    overlong: bool,
    after_cr: bool,
    id: String,
    name: String,
    data: Option<String>,
}

impl Decoder {
    /// The events that are whole after these bytes. An event of a type that we don't know is passed over.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<NumberedEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    if std::mem::take(&mut self.overlong) {
                        self.data = None;
                        self.name.clear();
                    } else if let Some(event) = self.take_line(&String::from_utf8_lossy(&line)) {
                        events.push(event);
                    }
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => self.overlong = true,
            }
        }
        events
    }

    fn take_line(&mut self, line: &str) -> Option<NumberedEvent> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data: Value = serde_json::from_str(&self.data.take()?).ok()?;
            let (run_id, number) = self.id.rsplit_once(':')?;
            let event = RunEvent::from_parts(&name, data)?;
            return Some(NumberedEvent {
                run_id: run_id.parse::<RunId>().ok()?,
                number: number.parse().ok()?,
                event,
            });
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
