//! Agents and their revisions.

use super::{Result, Store, parse, parse_json, signed, to_json, unsigned};
use crate::fault;
use crate::metrics::Operation;
use crate::wire::agent::DepsStatus;
use crate::wire::{Agent, AgentConfig, AgentId, Timestamp};

/// A deployment that is to become an agent's current revision.
#[derive(Clone, Debug)]
pub struct NewRevision {
    /// A new agent's ID, or that of the agent of this name.
    pub id: AgentId,
    pub name: String,
    pub revision: u64,
    pub command: String,
    pub config: AgentConfig,
    pub source_hash: String,
    /// The hash of what it asks to have installed.
    pub deps: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
}

/// What a session of this revision runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub command: String,
    pub config: AgentConfig,
    /// The hash of what it asks to have installed.
    pub deps: Option<String>,
}

#[derive(sqlx::FromRow)]
struct AgentRow {
    id: String,
    name: String,
    revision: i64,
    created_at: i64,
    updated_at: i64,
    command: String,
    config: String,
    source_hash: String,
    /// A JSON array.
    secret_keys: String,
    deps: Option<String>,
    deps_status: Option<String>,
    deps_error: Option<String>,
}

impl AgentRow {
    fn read(self) -> Result<Agent> {
        let config: AgentConfig = parse_json("an agent's configuration", &self.config)?;
        Ok(Agent {
            id: parse("an agent's ID", &self.id)?,
            name: self.name,
            command: Some(self.command),
            environment_keys: parse_json("the keys of an agent's secrets", &self.secret_keys)?,
            required_secrets: config.secrets,
            deps_status: match (self.deps, self.deps_status) {
                (None, _) => DepsStatus::None,
                (Some(_), None) => DepsStatus::Building,
                (Some(_), Some(status)) => parse("the state of dependencies", &status)?,
            },
            deps_error: self.deps_error,
            created_at: Timestamp::from_millis(self.created_at),
            updated_at: Timestamp::from_millis(self.updated_at),
            revision: unsigned(self.revision),
            source_hash: self.source_hash,
            network: config.network,
            limits: config.limits,
        })
    }
}

impl Store {
    /// Makes a deployment its agent's current revision, and the agent if there is none yet.
    pub async fn put_revision(&self, new: &NewRevision) -> Result<()> {
        let _timed = self.timed(Operation::PutAgent);
        let mut transaction = self.write.begin().await?;
        sqlx::query(
            "INSERT INTO agents (id, name, revision, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, updated_at = excluded.updated_at",
        )
        .bind(new.id.as_str())
        .bind(&new.name)
        .bind(signed(new.revision))
        .bind(new.at)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO revisions (agent_id, revision, command, config, source_hash, created_at, deps)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(new.id.as_str())
        .bind(signed(new.revision))
        .bind(&new.command)
        .bind(to_json("an agent's configuration", &new.config)?)
        .bind(&new.source_hash)
        .bind(new.at)
        .bind(&new.deps)
        .execute(&mut *transaction)
        .await?;
        if let Some(deps) = &new.deps {
            sqlx::query(
                "INSERT INTO dependencies (hash, status, updated_at) VALUES ($1, 'building', $2)
                 ON CONFLICT (hash) DO NOTHING",
            )
            .bind(deps)
            .bind(new.at)
            .execute(&mut *transaction)
            .await?;
        }
        fault::around("agent.store", transaction.commit()).await?;
        Ok(())
    }

    /// The agents that are not deleted, latest deployment first.
    pub async fn agents(&self, limit: Option<u32>) -> Result<Vec<Agent>> {
        let rows: Vec<AgentRow> = sqlx::query_as(
            "SELECT a.id, a.name, a.revision, a.created_at, a.updated_at, r.command, r.config, r.source_hash,
             (SELECT json_group_array(key) FROM (SELECT key FROM secrets WHERE agent_id = a.id ORDER BY key)) AS secret_keys,
             r.deps, d.status AS deps_status, d.error AS deps_error
             FROM agents a JOIN revisions r ON r.agent_id = a.id AND r.revision = a.revision
             LEFT JOIN dependencies d ON d.hash = r.deps
             WHERE a.deleted_at IS NULL ORDER BY a.updated_at DESC, a.name LIMIT $1",
        )
        .bind(limit.map_or(i64::MAX, i64::from))
        .fetch_all(&self.read)
        .await?;
        rows.into_iter().map(AgentRow::read).collect()
    }

    /// The agent of this name or ID that is not deleted.
    pub async fn agent(&self, name_or_id: &str) -> Result<Option<Agent>> {
        let _timed = self.timed(Operation::GetAgent);
        let row: Option<AgentRow> = sqlx::query_as(
            "SELECT a.id, a.name, a.revision, a.created_at, a.updated_at, r.command, r.config, r.source_hash,
             (SELECT json_group_array(key) FROM (SELECT key FROM secrets WHERE agent_id = a.id ORDER BY key)) AS secret_keys,
             r.deps, d.status AS deps_status, d.error AS deps_error
             FROM agents a JOIN revisions r ON r.agent_id = a.id AND r.revision = a.revision
             LEFT JOIN dependencies d ON d.hash = r.deps
             WHERE (a.id = $1 OR a.name = $1) AND a.deleted_at IS NULL",
        )
        .bind(name_or_id)
        .fetch_optional(&self.read)
        .await?;
        row.map(AgentRow::read).transpose()
    }

    /// The ID behind an agent's name or ID; that of a deleted one, too, if sessions still name it.
    pub async fn agent_id(&self, name_or_id: &str) -> Result<Option<AgentId>> {
        let id: Option<String> = sqlx::query_scalar(
            "SELECT id FROM agents WHERE id = $1 OR (name = $1 AND deleted_at IS NULL) LIMIT 1",
        )
        .bind(name_or_id)
        .fetch_optional(&self.read)
        .await?;
        id.map(|id| parse("an agent's ID", &id)).transpose()
    }

    /// All that have or had one of these names.
    pub async fn agents_called(&self, names: &[String]) -> Result<Vec<AgentId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM agents WHERE name IN (SELECT value FROM json_each($1)) ORDER BY id",
        )
        .bind(to_json("agents' names", &names)?)
        .fetch_all(&self.read)
        .await?;
        ids.iter().map(|id| parse("an agent's ID", id)).collect()
    }

    /// What a session of this agent's revision runs.
    pub async fn revision(&self, agent: &AgentId, revision: u64) -> Result<Option<Revision>> {
        let row: Option<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT command, config, deps FROM revisions WHERE agent_id = $1 AND revision = $2",
        )
        .bind(agent.as_str())
        .bind(signed(revision))
        .fetch_optional(&self.read)
        .await?;
        row.map(|(command, config, deps)| {
            Ok(Revision { command, config: parse_json("an agent's configuration", &config)?, deps })
        })
        .transpose()
    }

    /// The revisions that the agent or a session that has not ended needs.
    pub async fn used_revisions(&self, agent: &AgentId) -> Result<Vec<u64>> {
        let revisions: Vec<i64> = sqlx::query_scalar(
            "SELECT revision FROM agents WHERE id = $1 AND deleted_at IS NULL
             UNION SELECT revision FROM sessions WHERE agent_id = $1 AND status <> 'ended'",
        )
        .bind(agent.as_str())
        .fetch_all(&self.read)
        .await?;
        Ok(revisions.into_iter().map(unsigned).collect())
    }

    /// Marks an agent as deleted: its name is free again, its secrets are gone, and no session of it can be made.
    pub async fn mark_agent_deleted(&self, agent: &AgentId, at: i64) -> Result<()> {
        let mut transaction = self.write.begin().await?;
        sqlx::query("UPDATE agents SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL")
            .bind(agent.as_str())
            .bind(at)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM secrets WHERE agent_id = $1")
            .bind(agent.as_str())
            .execute(&mut *transaction)
            .await?;
        fault::around("agent.delete", transaction.commit()).await?;
        Ok(())
    }

    /// The deleted agents, whose folders may go.
    pub async fn deleted_agents(&self) -> Result<Vec<AgentId>> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM agents WHERE deleted_at IS NOT NULL")
            .fetch_all(&self.read)
            .await?;
        ids.iter().map(|id| parse("an agent's ID", id)).collect()
    }

    /// Forgets the deleted agents that no session names any more.
    pub async fn forget_deleted_agents(&self) -> Result<()> {
        fault::around(
            "agent.forget",
            sqlx::query(
                "DELETE FROM agents WHERE deleted_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.agent_id = agents.id)",
            )
            .execute(&self.write),
        )
        .await?;
        Ok(())
    }
}
