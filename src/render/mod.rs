//! Values to text: tables, details, ages. Returns text, never prints.

mod age;
mod agent;
mod escape;
mod json;
mod session;
mod table;

pub use age::{ago, duration, moment, span};
pub use agent::{agent, agents};
pub use escape::{Cleaner, clean, clean_line};
pub use json::{escape_json, only, pretty, session_json};
pub use session::{message, session, sessions, shorten, width};
pub use table::{fields, grid, rows};

use crate::wire::Timestamp;

/// How a text is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal; `None` if there is none, and nothing is fitted.
    pub width: Option<usize>,
    pub colour: bool,
    /// Titles are cut to 50 columns, and tables to the width of the terminal.
    pub truncate: bool,
    /// What ages count to.
    pub now: Timestamp,
}

impl Style {
    /// How many columns a table may take; `None` if nothing is to be cut.
    pub fn room(&self) -> Option<usize> {
        self.width.filter(|_| self.truncate)
    }
}
