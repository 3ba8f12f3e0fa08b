//! How far what revisions ask to have installed is.

use super::{Result, Store, parse, unsigned};
use crate::wire::AgentId;
use crate::wire::agent::DepsStatus;

/// Revisions that an agent or a session which has not ended needs.
const IN_USE: &str = "a.deleted_at IS NULL AND (r.revision = a.revision OR EXISTS (
    SELECT 1 FROM sessions s WHERE s.agent_id = r.agent_id AND s.revision = r.revision AND s.status <> 'ended'))";

impl Store {
    /// How far the dependencies of this hash are, and why they failed; none if nothing is known of them.
    pub async fn dependencies(&self, hash: &str) -> Result<Option<(DepsStatus, Option<String>)>> {
        let row: Option<(String, Option<String>)> =
            sqlx::query_as("SELECT status, error FROM dependencies WHERE hash = $1")
                .bind(hash)
                .fetch_optional(&self.read)
                .await?;
        row.map(|(status, error)| Ok((parse("the state of dependencies", &status)?, error))).transpose()
    }

    /// Notes how far dependencies are.
    pub async fn set_dependencies(
        &self,
        hash: &str,
        status: DepsStatus,
        error: Option<&str>,
        at: i64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO dependencies (hash, status, error, updated_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (hash) DO UPDATE SET status = excluded.status, error = excluded.error,
             updated_at = excluded.updated_at",
        )
        .bind(hash)
        .bind(status.as_str())
        .bind(error)
        .bind(at)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Those that are not there yet.
    pub async fn building_dependencies(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT hash FROM dependencies WHERE status = 'building' ORDER BY hash")
            .fetch_all(&self.read)
            .await?)
    }

    /// A revision in use that asks for them.
    pub async fn revision_of_dependencies(&self, hash: &str) -> Result<Option<(AgentId, u64)>> {
        let row: Option<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT r.agent_id, r.revision FROM revisions r JOIN agents a ON a.id = r.agent_id
             WHERE r.deps = $1 AND {IN_USE} LIMIT 1"
        )))
        .bind(hash)
        .fetch_optional(&self.read)
        .await?;
        row.map(|(agent, revision)| Ok((parse("an agent's ID", &agent)?, unsigned(revision)))).transpose()
    }

    /// Those that no revision in use asks for.
    pub async fn unused_dependencies(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT d.hash FROM dependencies d WHERE NOT EXISTS (
                 SELECT 1 FROM revisions r JOIN agents a ON a.id = r.agent_id WHERE r.deps = d.hash AND {IN_USE})"
        )))
        .fetch_all(&self.read)
        .await?)
    }

    /// Forgets dependencies.
    pub async fn forget_dependencies(&self, hash: &str) -> Result<()> {
        sqlx::query("DELETE FROM dependencies WHERE hash = $1").bind(hash).execute(&self.write).await?;
        Ok(())
    }
}
