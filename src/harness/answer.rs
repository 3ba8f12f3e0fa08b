//! What an HTTP agent answers to a message: JSON, plain text, or a stream of frames by lines or by server-sent events.

use serde_json::Value;

use super::frames::{Frame, Lines};

/// A JSON answer up to this size, in bytes, is read as one. A larger one is shown as the text it is.
const MAX_JSON: usize = 16 << 20;
/// The fields of a JSON object that may be its text, the first that is there.
const TEXTS: [&str; 6] = ["output", "response", "content", "text", "result", "message"];

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A piece of plain text, wherever it was cut.
    Bytes(Vec<u8>),
    Frame(Frame),
    /// Nothing of the reply, for the log.
    Stray(Vec<u8>),
}

impl Said {
    fn text(text: impl Into<String>) -> Self {
        Self::Frame(Frame::Text(text.into()))
    }
}

/// An answer that is being read.
#[derive(Debug)]
pub enum Answer {
    /// Nothing says what it is: its first byte that is no blank will.
    Unknown,
    Text,
    /// One value, as far as it has come.
    Json(Vec<u8>),
    /// A frame a line.
    Frames(Lines),
    Events(Events),
}

impl Answer {
    /// An answer of this content type; `""` if the agent didn't say.
    pub fn new(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "" | "application/octet-stream" => Self::Unknown,
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Self::Frames(Lines::default()),
            "application/json" => Self::Json(Vec::new()),
            "text/event-stream" => Self::Events(Events::default()),
            other if other.ends_with("+json") => Self::Json(Vec::new()),
            _ => Self::Text,
        }
    }

    /// Takes the next bytes; what they say.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Said> {
        match self {
            Self::Unknown => {
                // Blanks before it are no part of it, wherever it was cut.
                let rest = bytes.trim_ascii_start();
                let Some(first) = rest.first() else { return Vec::new() };
                *self = if *first == b'{' { Self::Json(Vec::new()) } else { Self::Text };
                self.feed(rest)
            }
            Self::Text => vec![Said::Bytes(bytes.to_vec())],
            Self::Json(whole) => {
                whole.extend_from_slice(bytes);
                if whole.len() <= MAX_JSON {
                    return Vec::new();
                }
                let text = std::mem::take(whole);
                *self = Self::Text;
                vec![Said::Bytes(text)]
            }
            Self::Frames(lines) => {
                let mut said = Vec::new();
                lines.feed(bytes, |line| said.extend(of_line(line)));
                said
            }
            Self::Events(events) => events.feed(bytes),
        }
    }

    /// The answer is over; what its end still says.
    pub fn finish(&mut self) -> Vec<Said> {
        match self {
            Self::Unknown | Self::Text => Vec::new(),
            Self::Json(whole) => of_json(&std::mem::take(whole)),
            // A last line without its newline is one too.
            Self::Frames(_) => self.feed(b"\n"),
            Self::Events(events) => events.feed(b"\n\n"),
        }
    }
}

/// What a whole JSON answer says.
fn of_json(bytes: &[u8]) -> Vec<Said> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => match text_of(&value) {
            Some(text) => vec![Said::text(text)],
            None => vec![Said::text(value.to_string())],
        },
        Err(_) => {
            // Several values, a frame a line, of an agent that calls that JSON.
            let first = bytes.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
            if first.and_then(Frame::parse).is_some() {
                let mut lines = Answer::Frames(Lines::default());
                let mut said = lines.feed(bytes);
                said.extend(lines.finish());
                return said;
            }
            vec![Said::Bytes(bytes.to_vec())]
        }
    }
}

/// The text of a JSON answer that has one.
fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(fields) => TEXTS.iter().find_map(|name| fields.get(*name).and_then(Value::as_str)),
        _ => None,
    }
}

/// What a line of a stream says.
fn of_line(line: Result<&[u8], &[u8]>) -> Option<Said> {
    let line = match line {
        Ok(line) => line,
        Err(beginning) => return Some(Said::Stray(beginning.to_vec())),
    };
    if line.trim_ascii().is_empty() {
        return None;
    }
    if let Some(said) = of_value(line) {
        return Some(said);
    }
    let mut text = line.to_vec();
    text.push(b'\n');
    Some(Said::Bytes(text))
}

/// What a JSON value in a stream says; `None` if it is none.
fn of_value(bytes: &[u8]) -> Option<Said> {
    if let Some(frame) = Frame::parse(bytes) {
        return Some(Said::Frame(frame));
    }
    let first = bytes.trim_ascii_start().first()?;
    if !matches!(first, b'{' | b'"') {
        return None;
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    Some(match text_of(&value) {
        Some(text) => Said::text(text),
        None => Said::Stray(bytes.to_vec()),
    })
}

/// A stream of server-sent events, of which only their data counts.
#[derive(Debug, Default)]
pub struct Events {
    lines: Lines,
    /// The data lines of the event so far, joined by newlines.
    data: Option<Vec<u8>>,
}

impl Events {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Said> {
        let Self { lines, data } = self;
        let mut said = Vec::new();
        lines.feed(bytes, |line| match line {
            Err(beginning) => said.push(Said::Stray(beginning.to_vec())),
            Ok(line) => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.is_empty() {
                    said.extend(data.take().and_then(|data| of_event(&data)));
                } else if let Some(more) = line.strip_prefix(b"data:") {
                    let more = more.strip_prefix(b" ").unwrap_or(more);
                    let fits = data.as_ref().is_none_or(|data| data.len() + more.len() <= MAX_JSON);
                    match data {
                        Some(data) if fits => {
                            data.push(b'\n');
                            data.extend_from_slice(more);
                        }
                        Some(_) => said.push(Said::Stray(more.to_vec())),
                        None => *data = Some(more.to_vec()),
                    }
                }
            }
        });
        said
    }
}

/// What the data of an event says.
fn of_event(data: &[u8]) -> Option<Said> {
    if data.trim_ascii() == b"[DONE]" {
        return Some(Said::Frame(Frame::TurnDone { turn: None }));
    }
    match of_value(data) {
        Some(said) => Some(said),
        None if data.is_empty() => None,
        None => Some(Said::text(String::from_utf8_lossy(data))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const KINDS: [&str; 5] =
        ["", "text/plain", "application/json; charset=utf-8", "application/x-ndjson", "text/event-stream"];

    /// The text of an answer that comes in these pieces; other parts are in it as `[…]`.
    fn read(kind: &str, pieces: &[&[u8]]) -> String {
        let mut answer = Answer::new(kind);
        let mut said: Vec<Said> = pieces.iter().flat_map(|piece| answer.feed(piece)).collect();
        said.extend(answer.finish());
        let mut text = Vec::new();
        for said in said {
            match said {
                Said::Bytes(bytes) => text.extend(bytes),
                Said::Frame(Frame::Text(more)) => text.extend(more.into_bytes()),
                other => text.extend(format!("[{other:?}]").into_bytes()),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn json_has_its_text_in_one_of_these_fields() {
        for field in TEXTS {
            assert_eq!(read("application/json", &[json!({ field: "a\nb" }).to_string().as_bytes()]), "a\nb");
        }
        assert_eq!(read("application/json", &[br#"{"message":"#, br#""m","output":"o"}"#]), "o");
        assert_eq!(read("application/json", &[br#"{"output":5}"#]), r#"{"output":5}"#);
        assert_eq!(read("application/json", &[br#""words""#]), "words");
        assert_eq!(read("application/problem+json", &[b"[1, 2]"]), "[1,2]");
        assert_eq!(read("application/json", &[b"no json"]), "no json");
        assert_eq!(read("", &[b" ", br#"{"text":"t"}"#]), "t");
        assert_eq!(read("", &[b"plain"]), "plain");
    }

    #[test]
    fn lines_are_frames_or_text() {
        let lines =
            b"{\"type\":\"text\",\"content\":\"a\"}\n\nloose\n{\"content\":\"b\"}\n{\"type\":\"turn_done\"}";
        let expected = "aloose\nb[Frame(TurnDone { turn: None })]";
        assert_eq!(read("application/x-ndjson", &[lines]), expected);
        assert_eq!(read("application/json", &[lines]), expected);
        assert_eq!(read("", &[lines]), expected);
    }

    #[test]
    fn events_carry_frames_text_and_their_end() {
        let events = b": hello\r\nevent: x\r\ndata: {\"content\":\"a\"}\r\n\r\ndata: {\"type\":\"text\",\ndata: \"content\":\"b\"}\n\ndata:c\n\ndata: [DONE]\n\n";
        assert_eq!(read("text/event-stream", &[events]), "abc[Frame(TurnDone { turn: None })]");
        assert_eq!(read("text/event-stream", &[b"data: last"]), "last");
        assert_eq!(read("text/event-stream", &[b"id: 1\n\n"]), "");
    }

    #[test]
    fn json_that_is_too_large_is_text() {
        let text = format!("{{\"output\":\"{}\"}}", "x".repeat(MAX_JSON));
        assert_eq!(read("application/json", &[text.as_bytes()]), text);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_whatever_the_cuts(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'{'), Just(b'"'), Just(b'd'), Just(0xe2u8), Just(0x82), any::<u8>()], 0..80),
            cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            for kind in KINDS {
                prop_assert_eq!(read(kind, &pieces), read(kind, &[&bytes]));
            }
        }

        #[test]
        fn text_survives_every_way(text in any::<String>()) {
            let object = json!({ "output": text }).to_string();
            let frame = json!({ "type": "text", "content": text }).to_string();
            prop_assert_eq!(read("application/json", &[object.as_bytes()]), text.as_str());
            prop_assert_eq!(read("application/x-ndjson", &[frame.as_bytes()]), text.as_str());
            prop_assert_eq!(read("text/event-stream", &[format!("data: {frame}\n\n").as_bytes()]), text.as_str());
            prop_assert_eq!(read("text/plain", &[text.as_bytes()]), text.as_str());
        }
    }
}
