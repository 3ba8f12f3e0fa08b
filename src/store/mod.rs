//! Where agents, sessions, runs, events and messages are kept. The only place that speaks SQL.
//!
//! Not here: what a change of state means (platform). Every method that writes is one transaction.

mod agents;
mod changes;
mod cursor;
mod dependencies;
mod egress;
mod error;
mod import;
mod open;
mod retention;
mod runs;
mod secrets;
mod sessions;
mod stats;
mod tokens;

use sqlx::SqlitePool;

use crate::metrics::{Metrics, Operation, Timer};
use crate::wire::Timestamp;

pub use agents::{NewRevision, Revision};
pub use changes::Change;
pub use error::StoreError;
pub use retention::Size;
pub use runs::{HistoryLine, NewRun, OpenRun, RunEnd, RunState};
pub use secrets::StoredSecret;
pub use sessions::{NewSession, StoredSession};
pub use tokens::StoredToken;

/// What the store answers.
type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection: SQLite has one writer, and queueing for it here is fairer than by time-outs there.
    write: SqlitePool,
    read: SqlitePool,
    changes: changes::Changes,
    metrics: Metrics,
}

impl Store {
    /// Where this store counts what it does, and whoever uses it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Times an operation until the timer is dropped.
    fn timed(&self, operation: Operation) -> Option<Timer<'_>> {
        self.metrics.store(operation)
    }

    /// Writes what is left and closes the file. Calls that come later fail.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

#[cfg(test)]
impl Store {
    /// Has every write fail as on a full disk, or no longer.
    pub(crate) async fn fill_disk(&self, full: bool) {
        let pages = if full { 1 } else { i64::from(u32::MAX - 1) };
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let set: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(pragma)).fetch_one(&self.write).await.expect("a limit");
        assert!(set > 0);
    }
}

/// A number as the database holds it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that the database holds and that is never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

/// Reads back a word or an ID that this program has written.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(what: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| StoreError::Row { what, reason: error.to_string() })
}

/// Reads back JSON that this program has written.
fn parse_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Row { what, reason: error.to_string() })
}

fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Row { what, reason: error.to_string() })
}
