//! A session's messages and an agent's reply, as scripts hold them.

use std::rc::Rc;

use rhai::ImmutableString;
use rhai::plugin::*;
use serde_json::{Value, json};

use super::duration::Span;
use super::time::Moment;
use crate::wire;

/// One entry of a transcript. `Message` in scripts.
#[derive(Clone, Debug)]
pub struct Message(pub Rc<wire::Message>);

impl Message {
    pub const FIELDS: [&'static str; 5] = ["role", "content", "at", "run_id", "partial"];

    pub fn field(&self, name: &str) -> Option<Dynamic> {
        Some(match name {
            "at" => Dynamic::from(Moment(self.0.at)),
            "content" => self.0.content.as_str().into(),
            "partial" => self.0.partial.into(),
            "role" => self.0.role.as_str().into(),
            "run_id" => self.0.run_id.as_str().into(),
            _ => return None,
        })
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(&*self.0).unwrap_or_default()
    }
}

/// What an agent answered. `Reply` in scripts.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub text: ImmutableString,
    pub took: Span,
}

impl Reply {
    pub fn to_json(&self) -> Value {
        json!({ "text": self.text.as_str(), "duration_ms": self.took.0 })
    }
}

/// A transcript's entries, and replies.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod message_methods {
    use super::Moment as Time;
    use super::Span as Duration;

    /// Who said it: `user` or `agent`.
    ///
    /// ```rhai
    /// let asked = list()[0].messages().filter(|m| m.role == "user");
    /// ```
    #[rhai_fn(get = "role", pure)]
    pub fn role(message: &mut Message) -> String {
        message.0.role.as_str().to_owned()
    }

    /// What was said.
    ///
    /// ```rhai
    /// print(list()[0].messages()[0].content);
    /// ```
    #[rhai_fn(get = "content", pure)]
    pub fn content(message: &mut Message) -> String {
        message.0.content.clone()
    }

    /// When it was said.
    ///
    /// ```rhai
    /// print(list()[0].messages()[0].at);
    /// ```
    #[rhai_fn(get = "at", pure)]
    pub fn at(message: &mut Message) -> Time {
        Moment(message.0.at)
    }

    /// The run that it belongs to: a message and the reply to it have the same.
    ///
    /// ```rhai
    /// print(list()[0].messages()[0].run_id);
    /// ```
    #[rhai_fn(get = "run_id", pure)]
    pub fn run_id(message: &mut Message) -> String {
        message.0.run_id.to_string()
    }

    /// Whether a reply was cut short: cancelled, failed or interrupted.
    ///
    /// ```rhai
    /// print(list()[0].messages()[0].partial);
    /// ```
    #[rhai_fn(get = "partial", pure)]
    pub fn partial(message: &mut Message) -> bool {
        message.0.partial
    }

    /// A message as text: its content.
    ///
    /// ```rhai
    /// print(list()[0].messages()[0]);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn message_to_string(message: &mut Message) -> String {
        message.0.content.clone()
    }

    /// The whole reply.
    ///
    /// ```rhai
    /// print(sessions::create("notes").send("what do you know?").text);
    /// ```
    #[rhai_fn(get = "text", pure)]
    pub fn text(reply: &mut Reply) -> ImmutableString {
        reply.text.clone()
    }

    /// How long the run took.
    ///
    /// ```rhai
    /// print(sessions::create("notes").send("what do you know?").duration);
    /// ```
    #[rhai_fn(get = "duration", pure)]
    pub fn duration(reply: &mut Reply) -> Duration {
        reply.took
    }

    /// A reply as text.
    ///
    /// ```rhai
    /// print(sessions::create("notes").send("what do you know?"));
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn reply_to_string(reply: &mut Reply) -> ImmutableString {
        reply.text.clone()
    }
}
