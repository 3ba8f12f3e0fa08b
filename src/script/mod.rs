//! The engine: its assembly and limits, what scripts can call, command headers, diagnostics.
//!
//! It reaches the platform through a [`client::Client`](crate::client::Client) and the terminal through a trait,
//! both given by `cli`. It knows neither the environment nor a process.

mod diagnostic;
mod engine;
pub mod header;
mod host;

pub use diagnostic::{Error, Place};
pub use engine::{Complete, Engine, Outcome, Script, on_script_thread};
pub use functions::FunctionDoc;
pub use host::{Arg, Args, Connection, Host, Interrupt, Limits, Line, Options, Terminal};
mod functions;
