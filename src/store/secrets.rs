//! What agents keep secret, as the vault has sealed it.

use super::{Result, Store, signed, unsigned};
use crate::fault;
use crate::wire::AgentId;

/// A secret of an agent, encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSecret {
    pub key: String,
    /// Counts the values of this key, from 1.
    pub version: u64,
    /// Which master key it was encrypted with.
    pub key_id: String,
    pub nonce: Vec<u8>,
    pub sealed: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Row {
    key: String,
    version: i64,
    key_id: String,
    nonce: Vec<u8>,
    sealed: Vec<u8>,
}

impl Store {
    /// Sets secrets of an agent, all or none; says whether the agent is there.
    pub async fn put_secrets(&self, agent: &AgentId, secrets: &[StoredSecret], at: i64) -> Result<bool> {
        let mut transaction = self.write.begin().await?;
        let there: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM agents WHERE id = $1 AND deleted_at IS NULL")
                .bind(agent.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
        if there.is_none() {
            return Ok(false);
        }
        for secret in secrets {
            sqlx::query(
                "INSERT INTO secrets (agent_id, key, version, key_id, nonce, sealed, set_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (agent_id, key) DO UPDATE SET version = excluded.version, key_id = excluded.key_id,
                 nonce = excluded.nonce, sealed = excluded.sealed, set_at = excluded.set_at",
            )
            .bind(agent.as_str())
            .bind(&secret.key)
            .bind(signed(secret.version))
            .bind(&secret.key_id)
            .bind(&secret.nonce)
            .bind(&secret.sealed)
            .bind(at)
            .execute(&mut *transaction)
            .await?;
        }
        fault::around("secret.store", transaction.commit()).await?;
        Ok(true)
    }

    /// The secrets of an agent, by key.
    pub async fn secrets(&self, agent: &AgentId) -> Result<Vec<StoredSecret>> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT key, version, key_id, nonce, sealed FROM secrets WHERE agent_id = $1 ORDER BY key",
        )
        .bind(agent.as_str())
        .fetch_all(&self.read)
        .await?;
        let read = |Row { key, version, key_id, nonce, sealed }| StoredSecret {
            key,
            version: unsigned(version),
            key_id,
            nonce,
            sealed,
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// The keys of an agent's secrets.
    pub async fn secret_keys(&self, agent: &AgentId) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT key FROM secrets WHERE agent_id = $1 ORDER BY key")
            .bind(agent.as_str())
            .fetch_all(&self.read)
            .await?)
    }

    /// Removes a secret; says whether it was there.
    pub async fn delete_secret(&self, agent: &AgentId, key: &str) -> Result<bool> {
        let delete = sqlx::query("DELETE FROM secrets WHERE agent_id = $1 AND key = $2")
            .bind(agent.as_str())
            .bind(key)
            .execute(&self.write);
        let done = fault::around("secret.delete", delete).await?;
        Ok(done.rows_affected() > 0)
    }
}
