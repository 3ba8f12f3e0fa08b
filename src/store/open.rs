//! Opening the database's file: what is already there is looked at before anything is written.

use std::fs::{OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::changes::Changes;
use super::{Result, Store, StoreError};
use crate::metrics::Metrics;

/// Append-only: a migration that was released is never changed.
static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// What every SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Files up to this size are checked page by page when they are opened; larger ones would take too long.
const CHECKED: u64 = 32 << 20;
const READERS: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);

impl Store {
    /// Opens the database at `path`, or makes it (mode 0600), and brings its schema up to date.
    ///
    /// A file that is damaged, no database of ours, or of a later version is an error, and is left as it is.
    pub async fn open(path: &Path) -> Result<Self> {
        let cannot = |error: &dyn std::fmt::Display| StoreError::Open {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let size = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
                if size > 0 {
                    inspect(path, size).await?;
                }
                std::fs::set_permissions(path, Permissions::from_mode(0o600))
                    .map_err(|error| cannot(&error))?;
            }
            Err(error) => return Err(cannot(&error)),
        }
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let write = pool()
            .max_connections(1)
            // A disk that is full rolls a transaction back by itself, and the connection goes on as if one were open:
            // what is written over it from then on would never be committed. It is replaced.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            // Of new databases: room that is free goes back to the disk.
            .connect_with(connect.clone().auto_vacuum(SqliteAutoVacuum::Incremental))
            .await
            .map_err(|error| unusable(path, &error))?;
        if let Err(error) = MIGRATIONS.run(&write).await {
            write.close().await;
            return Err(refused_migration(path, error));
        }
        let read = pool().max_connections(READERS).connect_lazy_with(connect.read_only(true));
        Ok(Self { write, read, changes: Changes::new(), metrics: Metrics::default() })
    }
}

/// Whether a file that is already there can be ours. Reads alone.
async fn inspect(path: &Path, size: u64) -> Result<()> {
    let bad = |reason: &str| StoreError::Unusable { path: path.to_owned(), reason: reason.to_owned() };
    let cannot =
        |error: std::io::Error| StoreError::Open { path: path.to_owned(), reason: error.to_string() };
    let mut start = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(16).read_to_end(&mut start).map_err(cannot)?;
    if start != MAGIC {
        return Err(bad("it is not a SQLite database"));
    }
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|error| unusable(path, &error))?;
    let looked = look(&mut connection, path, size).await;
    let _ = connection.close().await;
    looked
}

async fn look(connection: &mut SqliteConnection, path: &Path, size: u64) -> Result<()> {
    let bad = |reason: String| StoreError::Unusable { path: path.to_owned(), reason };
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| unusable(path, &error))?;
    if tables.is_empty() {
        return Ok(());
    }
    if !tables.iter().any(|table| table == "_sqlx_migrations")
        || !tables.iter().any(|table| table == "sessions")
    {
        return Err(bad("it belongs to another program".into()));
    }
    let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| unusable(path, &error))?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if size <= CHECKED {
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| unusable(path, &error))?;
        if verdict != "ok" {
            return Err(bad(format!("it is damaged ({})", verdict.trim().replace('\n', " "))));
        }
    }
    Ok(())
}

fn unusable(path: &Path, error: &sqlx::Error) -> StoreError {
    let path = path.to_owned();
    let sqlx::Error::Database(database) = error else {
        return StoreError::Open { path, reason: error.to_string() };
    };
    // The low byte of an extended code is the primary one: 11 is SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    let code = database.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or_default() & 0xff;
    let reason = database.message().to_owned();
    match code {
        11 | 26 => StoreError::Unusable { path, reason: format!("it is damaged ({reason})") },
        _ => StoreError::Open { path, reason },
    }
}

fn refused_migration(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => unusable(path, &error),
        other => StoreError::Unusable { path: path.to_owned(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewRevision;
    use crate::wire::{AgentConfig, AgentId};

    async fn made() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("superserve.db");
        Store::open(&path).await.expect("a new store").close().await;
        (folder, path)
    }

    async fn is_left_alone(path: &Path) -> StoreError {
        let before = std::fs::read(path).expect("the file");
        let error = Store::open(path).await.expect_err("no store");
        assert_eq!(std::fs::read(path).expect("the file"), before, "not one byte has changed");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(error.hint().is_some());
        error
    }

    #[tokio::test]
    async fn a_new_file_is_private_and_opens_again() {
        let (_folder, path) = made().await;
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        Store::open(&path).await.expect("the store").close().await;
    }

    #[tokio::test]
    async fn what_is_written_after_a_disk_was_full_is_kept() {
        let (_folder, path) = made().await;
        let store = Store::open(&path).await.expect("the store");
        let limit = async |pages: u32| {
            let sql = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::query(sql).execute(&store.write).await.expect("a limit");
        };
        let agent = |name: &str, command: String| NewRevision {
            id: AgentId::from_random(1 << 80),
            name: name.to_owned(),
            revision: 1,
            command,
            config: AgentConfig::default(),
            source_hash: String::new(),
            deps: None,
            at: 0,
        };
        limit(1).await;
        store.put_revision(&agent("large", "x".repeat(1 << 20))).await.expect_err("no room");
        drop(store.write.begin().await.expect("a transaction that is given up"));
        limit(1 << 20).await;
        store.put_revision(&agent("small", "cat".to_owned())).await.expect("room again");
        assert!(store.agent("small").await.expect("an answer").is_some());
        store.close().await;
    }

    #[tokio::test]
    async fn what_is_no_database_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("superserve.db");
        std::fs::write(&path, "dear diary").expect("a file");
        assert!(matches!(is_left_alone(&path).await, StoreError::Unusable { .. }));
    }

    #[tokio::test]
    async fn a_damaged_database_is_left_alone() {
        let (_folder, path) = made().await;
        let whole = std::fs::read(&path).expect("the file");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("half of it");
        assert!(matches!(is_left_alone(&path).await, StoreError::Unusable { .. }));
        let mut scribbled = whole.clone();
        for byte in &mut scribbled[4096..12288] {
            *byte = b'x';
        }
        std::fs::write(&path, scribbled).expect("a scribble");
        assert!(matches!(is_left_alone(&path).await, StoreError::Unusable { .. }));
        let mut header = whole;
        header[16..100].fill(0xff);
        std::fs::write(&path, header).expect("a bad header");
        assert!(matches!(is_left_alone(&path).await, StoreError::Unusable { .. }));
    }

    #[tokio::test]
    async fn a_later_version_is_left_alone() {
        let (_folder, path) = made().await;
        let mut connection =
            SqliteConnectOptions::new().filename(&path).connect().await.expect("a connection");
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'later', TRUE, x'00', 0)",
        )
        .execute(&mut connection)
        .await
        .expect("a row");
        connection.close().await.expect("closed");
        assert!(matches!(is_left_alone(&path).await, StoreError::Newer { found: 999, .. }));
    }

    #[tokio::test]
    async fn another_programs_database_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("superserve.db");
        let mut connection = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .connect()
            .await
            .expect("a connection");
        sqlx::query("CREATE TABLE bookmarks (url TEXT)").execute(&mut connection).await.expect("a table");
        connection.close().await.expect("closed");
        assert!(matches!(is_left_alone(&path).await, StoreError::Unusable { .. }));
    }

    #[tokio::test]
    async fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Store::open(&folder.path().join("gone/superserve.db")).await.expect_err("no store");
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
    }
}
