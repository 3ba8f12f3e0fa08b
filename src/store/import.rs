//! Many sessions at once, as they are: for homes that are filled instead of lived in.

use sqlx::{Connection, SqliteConnection};

use super::{Result, Store, StoreError, signed, to_json};
use crate::wire::{EndReason, Isolation, Session, Status, Timestamp};

/// So many sessions go into one statement.
const BATCH: usize = 5000;
/// How much of the database is held in memory meanwhile, in KiB: IDs have no order, so that every page of the index
/// over them is written to again and again.
const CACHE: u32 = 256 << 10;
/// How much of it is held otherwise, in KiB: what SQLite takes by itself.
const USUAL_CACHE: u32 = 2000;

/// A session as one array, in the order of the statement's columns.
type Row<'a> = (
    (&'a str, &'a str, &'static str, Option<&'a str>, i64),
    (i64, Option<i64>, i64, i64),
    (Option<i64>, Option<&'static str>, Option<&'a str>, Option<&'static str>),
);

impl Store {
    /// Makes sessions as they are given, each of its agent's current revision: all of them, or none on an error. They
    /// have neither runs nor a transcript. What a session says of its agent's name and of its expiry doesn't count.
    ///
    /// Errors: an ID that is there already; an agent that is not.
    pub async fn import_sessions(&self, sessions: impl IntoIterator<Item = Session>) -> Result<u64> {
        let mut connection = self.write.acquire().await?;
        set_cache(&mut connection, CACHE).await?;
        let imported = import(&mut connection, sessions.into_iter()).await;
        set_cache(&mut connection, USUAL_CACHE).await?;
        imported
    }
}

async fn set_cache(connection: &mut SqliteConnection, kib: u32) -> Result<()> {
    let pragma = format!("PRAGMA cache_size = -{kib}");
    sqlx::query(sqlx::AssertSqlSafe(pragma)).execute(connection).await?;
    Ok(())
}

async fn import(
    connection: &mut SqliteConnection,
    mut sessions: impl Iterator<Item = Session>,
) -> Result<u64> {
    let mut transaction = connection.begin().await?;
    // Sorting once costs a fraction of keeping an order row by row.
    let indexes = drop_indexes(&mut transaction).await?;
    let mut imported = 0;
    loop {
        let mut batch: Vec<Session> = sessions.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        // In the order of the index that costs most.
        batch.sort_by(|a, b| a.id.cmp(&b.id));
        let rows: Vec<Row> = batch.iter().map(row).collect();
        let done = sqlx::query(
            "INSERT INTO sessions (id, agent_id, revision, status, title, message_count, created_at,
                 last_activity_at, activity_at, idle_timeout_seconds, ended_at, end_reason, error, isolation)
             SELECT s.value ->> '$[0][0]', a.id, a.revision, s.value ->> '$[0][2]', s.value ->> '$[0][3]',
                 s.value ->> '$[0][4]', s.value ->> '$[1][0]', s.value ->> '$[1][1]', s.value ->> '$[1][2]',
                 s.value ->> '$[1][3]', s.value ->> '$[2][0]', s.value ->> '$[2][1]', s.value ->> '$[2][2]',
                 s.value ->> '$[2][3]'
             FROM json_each($1) s JOIN agents a ON a.id = s.value ->> '$[0][1]'",
        )
        .bind(to_json("sessions", &rows)?)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() != batch.len() as u64 {
            return Err(StoreError::Row { what: "a session", reason: "its agent is not there".into() });
        }
        imported += done.rows_affected();
    }
    for sql in indexes {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(imported)
}

/// Drops the indexes over sessions as long as there are none; the statements that make them anew.
async fn drop_indexes(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_master
         WHERE type = 'index' AND tbl_name = 'sessions' AND sql IS NOT NULL AND NOT EXISTS (SELECT * FROM sessions)",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (name, _) in &indexes {
        let sql = format!("DROP INDEX \"{name}\"");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(indexes.into_iter().map(|(_, sql)| sql).collect())
}

fn row(session: &Session) -> Row<'_> {
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    (
        (
            session.id.as_str(),
            session.agent_id.as_str(),
            Status::as_str(session.status),
            session.title.as_deref(),
            signed(session.message_count),
        ),
        (
            session.created_at.as_millis(),
            millis(session.last_activity_at),
            session.last_activity_at.unwrap_or(session.created_at).as_millis(),
            signed(session.idle_timeout_seconds.unwrap_or_default()),
        ),
        (
            millis(session.ended_at),
            session.end_reason.map(EndReason::as_str),
            session.error.as_deref(),
            session.isolation.map(Isolation::as_str),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn indexes(store: &Store) -> Vec<(String, Option<String>)> {
        let mut connection = store.write.acquire().await.expect("a connection");
        sqlx::query_as("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name")
            .fetch_all(&mut *connection)
            .await
            .expect("indexes")
    }

    #[tokio::test]
    async fn the_indexes_are_there_afterwards_however_it_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("superserve.db")).await.expect("a store");
        let before = indexes(&store).await;
        assert!(before.iter().any(|(_, sql)| sql.as_ref().is_some_and(|sql| sql.contains("sessions"))));
        assert_eq!(store.import_sessions([]).await.expect("none"), 0);
        assert_eq!(indexes(&store).await, before);
        let lost: Session = serde_json::from_value(serde_json::json!({
            "id": "ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c", "agent_id": "agt_abc123def456", "status": "idle",
            "message_count": 1, "created_at": "2026-03-09T10:15:00Z",
        }))
        .expect("a session");
        store.import_sessions([lost]).await.expect_err("an agent that is not there");
        assert_eq!(indexes(&store).await, before);
    }
}
