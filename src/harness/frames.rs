//! The frame protocol: one JSON object a line, between us and an agent that speaks it.

use serde_json::{Map, Value, json};

use super::shim::Report;

/// The longest line that is read, in bytes without its newline. A longer one is passed over.
pub const MAX_LINE: usize = 1024 * 1024;

/// What an agent says, as one line.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// It waits for its first message, and speaks frames.
    Ready {
        capabilities: Vec<String>,
    },
    Text(String),
    /// All fields but `type`.
    Status(Value),
    Metadata(Value),
    ToolStart {
        tool: String,
        input: Value,
    },
    ToolEnd {
        /// If the agent has measured it.
        duration_ms: Option<u64>,
    },
    Error {
        message: String,
        /// Whether the turn has failed with it.
        fatal: bool,
    },
    /// The turn is over; its number, if the agent says it.
    TurnDone {
        turn: Option<u64>,
    },
    /// What the shim in an interpreter says; on the FIFO alone.
    Shim(Report),
    /// A type that we don't know, for the log.
    Unknown(String),
}

impl Frame {
    /// The frame on this line; `None` if it is not a JSON object with a `type`. A field that is missing or
    /// of a wrong type counts as empty: an agent's slip must not end its session.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (kind, fields) = object(line)?;
        Some(Self::of(kind, fields))
    }

    fn of(kind: String, mut fields: Map<String, Value>) -> Self {
        match kind.as_str() {
            "ready" => Self::Ready { capabilities: words(fields.get("capabilities")) },
            "text" => Self::Text(text_of(&mut fields, "content")),
            "status" => Self::Status(Value::Object(fields)),
            "metadata" => Self::Metadata(fields.shift_remove("data").unwrap_or(Value::Null)),
            "tool_start" => Self::ToolStart {
                // The second is how the event is called that clients get.
                tool: Some(text_of(&mut fields, "name"))
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| text_of(&mut fields, "tool")),
                input: fields.shift_remove("input").unwrap_or(Value::Null),
            },
            "tool_end" => Self::ToolEnd { duration_ms: milliseconds(fields.get("duration_ms")) },
            "error" => Self::Error {
                message: text_of(&mut fields, "message"),
                fatal: fields.get("fatal").and_then(Value::as_bool).unwrap_or(false),
            },
            "turn_done" => Self::TurnDone { turn: fields.get("turn").and_then(Value::as_u64) },
            _ => Self::Unknown(kind),
        }
    }

    /// What a line on the turn FIFO says: a frame, or the bare word `turn_done`.
    pub fn parse_signal(line: &[u8]) -> Option<Self> {
        if line.trim_ascii() == b"turn_done" {
            return Some(Self::TurnDone { turn: None });
        }
        let (kind, fields) = object(line)?;
        Some(match Report::parse(&kind, &fields) {
            Some(report) => Self::Shim(report),
            None => Self::of(kind, fields),
        })
    }
}

/// The `type` of the object on a line, and its other fields.
fn object(line: &[u8]) -> Option<(String, Map<String, Value>)> {
    // Most lines of a plain agent are no JSON: don't bother the parser with them.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) else {
        return None;
    };
    match fields.shift_remove("type") {
        Some(Value::String(kind)) => Some((kind, fields)),
        _ => None,
    }
}

fn words(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The field as text; what is no string is shown as JSON.
fn text_of(fields: &mut Map<String, Value>, name: &str) -> String {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    }
}

/// Milliseconds; an agent may measure them as a float.
fn milliseconds(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and that is right"
    )]
    value.as_u64().or_else(|| value.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
}

/// The line that gives the agent a message.
pub fn message(content: &str, id: &str, turn: u64) -> Vec<u8> {
    line(&json!({"type": "message", "content": content, "id": id, "turn": turn}))
}

/// The line that asks the agent to give up its turn.
pub fn cancel(turn: u64) -> Vec<u8> {
    line(&json!({"type": "cancel", "turn": turn}))
}

/// The line that tells the agent that no message will follow.
pub fn end() -> Vec<u8> {
    line(&json!({"type": "end"}))
}

fn line(frame: &Value) -> Vec<u8> {
    let mut line = frame.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct Lines {
    /// The longest line, in bytes without its newline.
    limit: usize,
    partial: Vec<u8>,
    /// The current line was too long; the rest of it is being passed over.
    skipping: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::up_to(MAX_LINE)
    }
}

impl Lines {
    /// Of lines of at most so many bytes, without their newlines.
    pub fn up_to(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), skipping: false }
    }

    /// Takes the next bytes and gives `each` the lines that they complete, without their newlines. Of a line that
    /// is too long, only its beginning is given, as `Err`, and once.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Result<&[u8], &[u8]>)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.add(head, &mut each);
            if !self.skipping {
                each(Ok(&self.partial));
            }
            self.skipping = false;
            self.partial.clear();
            bytes = rest;
        }
        self.add(bytes, &mut each);
        // One long line must not hold its memory for as long as the session lives.
        self.partial.shrink_to(64 * 1024);
    }

    fn add(&mut self, bytes: &[u8], each: &mut impl FnMut(Result<&[u8], &[u8]>)) {
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() > self.limit {
            self.partial.extend_from_slice(&bytes[..self.limit - self.partial.len()]);
            each(Err(&self.partial));
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shim::What;
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, |line| found.push(line.unwrap_or(b"too long").to_vec()));
        }
        found
    }

    #[test]
    fn frames_are_read() {
        let parse = |line: &str| Frame::parse(line.as_bytes());
        assert_eq!(parse(r#"{"type":"ready"}"#), Some(Frame::Ready { capabilities: vec![] }));
        assert_eq!(
            parse(r#" {"type":"ready","protocol":1,"capabilities":["cancel",3]}"#),
            Some(Frame::Ready { capabilities: vec!["cancel".into()] })
        );
        assert_eq!(parse(r#"{"type":"text","content":"a\nb"}"#), Some(Frame::Text("a\nb".into())));
        assert_eq!(parse(r#"{"type":"text","content":5}"#), Some(Frame::Text("5".into())));
        assert_eq!(parse(r#"{"type":"status","content":"x"}"#), Some(Frame::Status(json!({"content": "x"}))));
        assert_eq!(
            parse(r#"{"type":"tool_start","id":"1","name":"ls","input":{"a":1}}"#),
            Some(Frame::ToolStart { tool: "ls".into(), input: json!({"a": 1}) })
        );
        assert_eq!(
            parse(r#"{"type":"tool_end","duration_ms":2.9}"#),
            Some(Frame::ToolEnd { duration_ms: Some(2) })
        );
        for unmeasured in [r#"{"type":"tool_end","duration_ms":-1}"#, r#"{"type":"tool_end"}"#] {
            assert_eq!(parse(unmeasured), Some(Frame::ToolEnd { duration_ms: None }));
        }
        assert_eq!(
            parse(r#"{"type":"tool_start","tool":"ls"}"#),
            Some(Frame::ToolStart { tool: "ls".into(), input: Value::Null })
        );
        assert_eq!(parse(r#"{"type":"turn_done","turn":7}"#), Some(Frame::TurnDone { turn: Some(7) }));
        assert_eq!(parse(r#"{"type":"nonsense"}"#), Some(Frame::Unknown("nonsense".into())));
        for none in ["", "hello", "{", r#"{"type":1}"#, r#"["type"]"#, "{}", "turn_done"] {
            assert_eq!(parse(none), None, "{none}");
        }
        assert_eq!(Frame::parse_signal(b"turn_done\r"), Some(Frame::TurnDone { turn: None }));
        let idle = br#"{"type":"idle","pid":5,"stdin":9}"#;
        assert_eq!(
            Frame::parse_signal(idle),
            Some(Frame::Shim(Report { pid: 5, stdin: 9, what: What::Idle }))
        );
        assert_eq!(
            Frame::parse(idle),
            Some(Frame::Unknown("idle".into())),
            "on stdout it is the agent's own"
        );
        assert_eq!(Frame::parse_signal(br#"{"type":"busy"}"#), Some(Frame::Unknown("busy".into())));
    }

    #[test]
    fn deep_nesting_is_no_frame() {
        let deep = format!("{{\"type\":{}", "[".repeat(100_000));
        assert_eq!(Frame::parse(deep.as_bytes()), None);
    }

    #[test]
    fn a_long_line_is_passed_over_and_the_next_one_read() {
        let long = vec![b'x'; MAX_LINE + 1];
        assert_eq!(cut(&[&long, b"yy\nnext\n"]), [b"too long".to_vec(), b"next".to_vec()]);
    }

    proptest! {
        #[test]
        fn messages_survive_the_way(content in any::<String>(), id in "[a-z0-9_]{1,20}", turn in any::<u64>()) {
            let line = message(&content, &id, turn);
            prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let back: Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(&back["content"], &json!(content));
            prop_assert_eq!(&back["turn"], &json!(turn));
        }

        #[test]
        fn any_bytes_parse_without_panic(bytes in any::<Vec<u8>>()) {
            let _ = Frame::parse_signal(&bytes);
        }

        #[test]
        fn lines_do_not_depend_on_the_cuts(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..8)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&pieces), cut(&[bytes]));
            let whole: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            prop_assert_eq!(cut(&[bytes]), &whole[..whole.len() - 1]);
        }
    }
}
