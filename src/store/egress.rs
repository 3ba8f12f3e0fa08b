//! What was decided about the network of each session: the latest of it.

use super::{Result, Store, signed, unsigned};
use crate::wire::network::Decision;
use crate::wire::{Egress, SessionId, Timestamp};

/// So many decisions of a session are kept.
pub const KEPT: i64 = 1000;

#[derive(sqlx::FromRow)]
struct EgressRow {
    at: i64,
    allowed: bool,
    host: String,
    port: Option<i64>,
    sent: i64,
    received: i64,
    reason: Option<String>,
}

impl EgressRow {
    fn read(self) -> Egress {
        Egress {
            at: Timestamp::from_millis(self.at),
            decision: if self.allowed { Decision::Allowed } else { Decision::Denied },
            host: self.host,
            port: self.port.and_then(|port| u16::try_from(port).ok()),
            sent: unsigned(self.sent),
            received: unsigned(self.received),
            reason: self.reason,
        }
    }
}

impl Store {
    /// Keeps a decision, and forgets the session's oldest if there are too many; its number.
    pub async fn add_egress(&self, session: &SessionId, egress: &Egress) -> Result<i64> {
        let mut transaction = self.write.begin().await?;
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO egress (session_id, at, allowed, host, port, sent, received, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq",
        )
        .bind(session.as_str())
        .bind(egress.at.as_millis())
        .bind(egress.decision == Decision::Allowed)
        .bind(&egress.host)
        .bind(egress.port.map(i64::from))
        .bind(signed(egress.sent))
        .bind(signed(egress.received))
        .bind(&egress.reason)
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM egress WHERE session_id = $1 AND seq <=
                 (SELECT seq FROM egress WHERE session_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2)",
        )
        .bind(session.as_str())
        .bind(KEPT)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(number)
    }

    /// Adds to a decision how its connection went. One that is forgotten is none.
    pub async fn end_egress(
        &self,
        number: i64,
        sent: u64,
        received: u64,
        reason: Option<&str>,
    ) -> Result<()> {
        sqlx::query("UPDATE egress SET sent = $2, received = $3, reason = $4 WHERE seq = $1")
            .bind(number)
            .bind(signed(sent))
            .bind(signed(received))
            .bind(reason)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// What was decided about a session's network, the oldest first.
    pub async fn egress(&self, session: &SessionId) -> Result<Vec<Egress>> {
        let rows: Vec<EgressRow> = sqlx::query_as(
            "SELECT at, allowed, host, port, sent, received, reason FROM egress WHERE session_id = $1 ORDER BY seq",
        )
        .bind(session.as_str())
        .fetch_all(&self.read)
        .await?;
        Ok(rows.into_iter().map(EgressRow::read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NewRevision, NewSession};
    use crate::wire::{AgentConfig, AgentId};

    #[tokio::test]
    async fn the_latest_decisions_are_kept_and_go_with_the_session() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("superserve.db")).await.expect("a store");
        let (agent_id, id) = (AgentId::from_random(1), SessionId::from_random(2));
        let revision = NewRevision {
            id: agent_id.clone(),
            name: "a".to_owned(),
            revision: 1,
            command: "cat".to_owned(),
            config: AgentConfig::default(),
            source_hash: String::new(),
            deps: None,
            at: 0,
        };
        store.put_revision(&revision).await.expect("an agent");
        let (title, idle_timeout_seconds) = (None, 1);
        let new = NewSession { id: id.clone(), agent_id, revision: 1, title, idle_timeout_seconds, at: 0 };
        store.insert_session(&new).await.expect("a session");
        let entry = |at: i64| Egress {
            at: Timestamp::from_millis(at),
            decision: if at % 2 == 0 { Decision::Allowed } else { Decision::Denied },
            host: format!("h{at}"),
            port: (at % 3 == 0).then_some(443),
            sent: 0,
            received: 0,
            reason: (at % 2 == 1).then(|| "no rule".to_owned()),
        };
        let mut last = 0;
        for at in 0..KEPT + 5 {
            last = store.add_egress(&id, &entry(at)).await.expect("kept");
        }
        store.end_egress(last, 7, 9, Some("reset")).await.expect("ended");
        store.end_egress(1, 7, 9, None).await.expect("forgotten");
        let kept = store.egress(&id).await.expect("entries");
        assert_eq!((kept.len(), &kept[0]), (1000, &entry(5)));
        let ended = Egress { sent: 7, received: 9, reason: Some("reset".to_owned()), ..entry(KEPT + 4) };
        assert_eq!(kept.last(), Some(&ended));
        sqlx::query("DELETE FROM sessions").execute(&store.write).await.expect("forgotten");
        assert_eq!(store.egress(&id).await.expect("entries"), []);
        store.close().await;
    }

    /// What stood in the database before there were rules.
    #[tokio::test]
    async fn an_agent_that_was_deployed_without_rules_keeps_what_it_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("superserve.db")).await.expect("a store");
        for statement in [
            "INSERT INTO agents (id, name, revision, created_at, updated_at) VALUES ('agt_0123456789ab', 'old', 1, 0, 0)",
            r#"INSERT INTO revisions (agent_id, revision, command, config, source_hash, created_at)
               VALUES ('agt_0123456789ab', 1, 'sh agent.sh', '{"name":"old","command":"sh agent.sh","network":"none"}', '', 0)"#,
        ] {
            sqlx::query(statement).execute(&store.write).await.expect("a row");
        }
        let agent = store.agent("old").await.expect("an answer").expect("the agent");
        assert_eq!(agent.network, crate::wire::Network::None);
        let revision = store.revision(&agent.id, 1).await.expect("an answer").expect("the revision");
        assert_eq!(revision.config.network, crate::wire::Network::None);
        store.close().await;
    }
}
