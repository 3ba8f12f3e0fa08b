//! Why the store could not do what it was asked.

use std::path::PathBuf;

use crate::wire::ErrorCode;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is no database, is damaged, or belongs to another program. It was left as it is.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    /// The file was written by a later version of this program. It was left as it is.
    #[error(
        "the database {} was written by a newer superserve (schema {found}; this one knows up to {known})",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// The file can't be opened or made.
    #[error("cannot open the database {}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    /// The disk is full, the file can't be written, or another process holds it.
    #[error("the database cannot be read or written: {reason}")]
    Unavailable { reason: String },
    /// A row holds what this version can't have written.
    #[error("the database holds {what} that cannot be read: {reason}")]
    Row { what: &'static str, reason: String },
    /// A cursor that no page of ours has given.
    #[error("the cursor '{0}' is not one that a list of sessions has given")]
    Cursor(String),
}

impl StoreError {
    /// What programs test.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Cursor(_) => ErrorCode::Invalid,
            Self::Row { .. } => ErrorCode::Internal,
            Self::Newer { .. } | Self::Open { .. } | Self::Unavailable { .. } | Self::Unusable { .. } => {
                ErrorCode::StoreUnavailable
            }
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cursor(_) => Some("Pass next_cursor of the page before, as it is.".into()),
            Self::Newer { .. } => {
                Some("Install that version of superserve, or choose another SUPERSERVE_HOME.".into())
            }
            Self::Open { .. } => Some("Check that its folder exists and is yours to write.".into()),
            Self::Row { .. } => None,
            Self::Unavailable { .. } => Some(
                "Check that the disk is not full and that the file can be written, then try again.".into(),
            ),
            Self::Unusable { path, .. } => Some(format!(
                "It was left untouched. Move it away, or put a backup in its place: mv {0} {0}.bad",
                path.display()
            )),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Row { what: "a row", reason: error.to_string() }
            }
            sqlx::Error::Database(error) => Self::Unavailable { reason: error.message().to_owned() },
            sqlx::Error::PoolTimedOut => Self::Unavailable { reason: "it is busy".into() },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}
