//! The engine: its assembly and limits, what scripts can call, command headers, diagnostics.
//!
//! It reaches the platform through a [`client::Client`](crate::client::Client) and the terminal through a trait,
//! both given by `cli`. It knows neither the environment nor a process.

mod agents;
mod assembly;
mod attach;
mod catalogue;
mod check;
mod column;
mod completeness;
mod completion;
mod condition;
mod control;
mod converse;
mod diagnostic;
mod duration;
mod ending;
mod engine;
mod expression;
mod failure;
mod field;
mod files;
mod fixture;
#[cfg(test)]
mod fake;
mod functions;
mod growth;
pub mod header;
mod highlight;
mod host;
mod inference;
mod kind;
mod listing;
mod lists;
mod live;
mod manual;
mod message;
mod output;
mod pieces;
mod progress;
mod record;
pub mod reference;
mod repl;
mod resolver;
mod runtime;
mod screen;
mod secret;
mod secrets;
mod sequence;
mod server;
mod session;
mod sessions;
mod shell;
mod stream;
mod suggestion;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod types;
mod value;
mod view;
mod wait;
mod watching;
mod workspace;

pub use column::split_fields as split_columns;
pub use completion::{Candidate, Completion};
pub use diagnostic::{Error, Place};
pub use engine::{Complete, Engine, Outcome, Script, Tests, on_script_thread};
pub use failure::{Failure, exit_code};
pub use field::names as field_names;
pub use fixture::{Ran, World};
pub use functions::FunctionDoc;
pub use highlight::{Paint, Span, matching_bracket};
pub use host::{
    Access, Amount, Arg, Args, Bar, Connection, FullScreen, Host, Interrupt, Limits, Line, Options,
    ScreenEvent, Shell, ShellAnswer, ShellOrder, Terminal,
};
pub use manual::{Entry, Page};
pub use output::mark;
pub use reference::Reference;
pub use resolver::{read_at_most, read_text, sentence};
pub use secret::carries_secret;
pub use suggestion::did_you_mean;
