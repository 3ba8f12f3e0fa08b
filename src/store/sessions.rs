//! Sessions: one row each, and the lists over them.

use serde::Deserialize;
use sqlx::{QueryBuilder, Sqlite};

use super::cursor::Cursor;
use super::{Result, Store, parse, parse_json, signed, time, to_json, unsigned};
use crate::fault;
use crate::metrics::Operation;
use crate::wire::{
    AgentId, EndReason, Field, Isolation, Order, Receipt, Session, SessionId, SessionPage, SessionQuery,
    Status, Timestamp,
};

/// The most sessions on a page.
const MAX_PAGE: u32 = 1000;

/// A session that is to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub agent_id: AgentId,
    pub revision: u64,
    pub title: Option<String>,
    pub idle_timeout_seconds: u64,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
}

/// A session with what only the server knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Without `expires_at`, which is the platform's to say.
    pub session: Session,
    /// The slot that gives the session its uid; never used again.
    pub seq: u64,
    /// The agent's revision that it runs.
    pub revision: u64,
    /// Why it is being ended.
    pub ending: Option<EndReason>,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    seq: i64,
    id: String,
    agent_id: String,
    agent_name: String,
    revision: i64,
    status: String,
    title: Option<String>,
    message_count: i64,
    created_at: i64,
    last_activity_at: Option<i64>,
    idle_timeout_seconds: i64,
    ending: Option<String>,
    ended_at: Option<i64>,
    end_reason: Option<String>,
    error: Option<String>,
    isolation: Option<String>,
    receipt: Option<String>,
}

/// What every question about sessions asks for.
const SELECT: &str = "SELECT s.seq, s.id, s.agent_id, a.name AS agent_name, s.revision, s.status, s.title, \
     s.message_count, s.created_at, s.last_activity_at, s.idle_timeout_seconds, s.ending, s.ended_at, \
     s.end_reason, s.error, s.isolation, s.receipt FROM sessions s JOIN agents a ON a.id = s.agent_id";

fn reason(word: &str) -> Result<EndReason> {
    match word {
        "agent_deleted" => Ok(EndReason::AgentDeleted),
        "expired" => Ok(EndReason::Expired),
        "user" => Ok(EndReason::User),
        _ => Err(super::StoreError::Row { what: "a session's end", reason: format!("'{word}'") }),
    }
}

fn isolation(word: &str) -> Result<Isolation> {
    match word {
        "full" => Ok(Isolation::Full),
        "none" => Ok(Isolation::None),
        "reduced" => Ok(Isolation::Reduced),
        _ => Err(super::StoreError::Row { what: "a session's isolation", reason: format!("'{word}'") }),
    }
}

impl SessionRow {
    fn read(self) -> Result<StoredSession> {
        Ok(StoredSession {
            seq: unsigned(self.seq),
            revision: unsigned(self.revision),
            ending: self.ending.as_deref().map(reason).transpose()?,
            session: Session {
                id: parse("a session's ID", &self.id)?,
                agent_id: parse("an agent's ID", &self.agent_id)?,
                agent_name: Some(self.agent_name),
                status: parse("a session's status", &self.status)?,
                title: self.title,
                message_count: unsigned(self.message_count),
                created_at: Timestamp::from_millis(self.created_at),
                last_activity_at: time(self.last_activity_at),
                idle_timeout_seconds: Some(unsigned(self.idle_timeout_seconds)),
                expires_at: None,
                ended_at: time(self.ended_at),
                end_reason: self.end_reason.as_deref().map(reason).transpose()?,
                error: self.error,
                isolation: self.isolation.as_deref().map(isolation).transpose()?,
                receipt: self.receipt.as_deref().map(|text| parse_json("a receipt", text)).transpose()?,
            },
        })
    }
}

/// A session of a page, as one array of JSON: SQLite writes a page of them faster than it hands out rows.
#[derive(Deserialize)]
struct Listed(
    SessionId,
    AgentId,
    Option<String>,
    Status,
    Option<String>,
    u64,
    i64,
    Option<i64>,
    u64,
    Option<i64>,
    Option<EndReason>,
    Option<String>,
    Option<Isolation>,
    Option<Receipt>,
);

impl Listed {
    fn read(self) -> Session {
        let Self(
            id,
            agent_id,
            agent_name,
            status,
            title,
            message_count,
            created_at,
            last_activity_at,
            idle_timeout,
            ended_at,
            end_reason,
            error,
            isolation,
            receipt,
        ) = self;
        Session {
            id,
            agent_id,
            agent_name,
            status,
            title,
            message_count,
            created_at: Timestamp::from_millis(created_at),
            last_activity_at: time(last_activity_at),
            idle_timeout_seconds: Some(idle_timeout),
            expires_at: None,
            ended_at: time(ended_at),
            end_reason,
            error,
            isolation,
            receipt,
        }
    }
}

/// Adds a query's conditions to a statement over `sessions s`; `agents` are the query's agents, resolved.
pub(super) fn conditions(sql: &mut QueryBuilder<Sqlite>, query: &SessionQuery, agents: &[AgentId], now: i64) {
    // `+` keeps a condition out of the choice of an index. With one status, the index over status gives the rows in
    // order; with several, only the index over the order itself does; and so with agents.
    sql.push(" WHERE TRUE");
    match agents {
        [] => {}
        [one] => {
            sql.push(" AND s.agent_id = ").push_bind(one.as_str().to_owned());
        }
        many => {
            sql.push(" AND +s.agent_id IN (");
            let mut ids = sql.separated(", ");
            for agent in many {
                ids.push_bind(agent.as_str().to_owned());
            }
            sql.push(")");
        }
    }
    let mut statuses = query.status.clone();
    statuses.sort_by_key(|status| status.as_str());
    statuses.dedup();
    match statuses.as_slice() {
        [] => {}
        [one] if agents.is_empty() => {
            sql.push(" AND s.status = ").push_bind(one.as_str());
        }
        many => {
            sql.push(" AND +s.status IN (");
            let mut words = sql.separated(", ");
            for status in many {
                words.push_bind(status.as_str());
            }
            sql.push(")");
        }
    }
    if let Some(seconds) = query.idle_longer_than {
        let before = now.saturating_sub(signed(seconds).saturating_mul(1000));
        sql.push(" AND +s.status <> 'active' AND s.activity_at < ").push_bind(before);
    }
    let moments = [
        (" AND s.created_at < ", query.created_before),
        (" AND s.created_at > ", query.created_after),
        (" AND s.activity_at < ", query.active_before),
        (" AND s.activity_at > ", query.active_after),
    ];
    for (condition, at) in moments {
        if let Some(at) = at {
            sql.push(condition).push_bind(at.as_millis());
        }
    }
    if let Some(least) = query.min_messages {
        sql.push(" AND s.message_count >= ").push_bind(signed(least));
    }
    if let Some(most) = query.max_messages {
        sql.push(" AND s.message_count <= ").push_bind(signed(most));
    }
    if let Some(part) = &query.title_contains {
        sql.push(" AND instr(lower(s.title), ").push_bind(part.to_ascii_lowercase()).push(") > 0");
    }
}

/// The statement that answers a query with one text, an array of what `Listed` reads; `agents` are the query's agents,
/// resolved. Texts that the query doesn't ask for are null.
fn list(query: &SessionQuery, agents: &[AgentId], now: i64, limit: u32) -> Result<QueryBuilder<Sqlite>> {
    let wants = |field| query.fields.is_empty() || query.fields.contains(&field);
    let column = |field, column: &'static str| if wants(field) { column } else { "NULL" };
    // A subquery with a limit keeps its order.
    let mut sql =
        QueryBuilder::new("SELECT json_group_array(json(row)) FROM (SELECT json_array(s.id, s.agent_id, ");
    sql.push(column(Field::AgentName, "a.name")).push(", s.status, ").push(column(Field::Title, "s.title"));
    sql.push(", s.message_count, s.created_at, s.last_activity_at, s.idle_timeout_seconds, s.ended_at, s.end_reason, ");
    sql.push(column(Field::Error, "s.error")).push(", s.isolation, json(s.receipt)) AS row FROM sessions s");
    if wants(Field::AgentName) {
        sql.push(" JOIN agents a ON a.id = s.agent_id");
    }
    conditions(&mut sql, query, agents, now);
    let cursor = query.cursor.as_deref().map(|text| Cursor::decode(text, query.order)).transpose()?;
    // The first half of the condition is what the index is searched by; the second decides among equals.
    if let Some(Cursor { key, id, .. }) = cursor {
        let id = String::from(id);
        match query.order {
            Order::Activity => {
                sql.push(" AND s.activity_at <= ").push_bind(key);
                sql.push(" AND (s.activity_at < ").push_bind(key);
            }
            Order::Created => {
                sql.push(" AND s.created_at >= ").push_bind(key);
                sql.push(" AND (s.created_at > ").push_bind(key);
            }
        }
        sql.push(" OR s.id > ").push_bind(id).push(")");
    }
    sql.push(match query.order {
        Order::Activity => " ORDER BY s.activity_at DESC, s.id",
        Order::Created => " ORDER BY s.created_at, s.id",
    });
    sql.push(" LIMIT ").push_bind(i64::from(limit)).push(")");
    Ok(sql)
}

impl Store {
    /// Makes a session, `pending`.
    pub async fn insert_session(&self, new: &NewSession) -> Result<()> {
        let _timed = self.timed(Operation::CreateSession);
        fault::around(
            "session.insert",
            sqlx::query(
                "INSERT INTO sessions
                 (id, agent_id, revision, status, title, created_at, activity_at, idle_timeout_seconds)
             VALUES ($1, $2, $3, 'pending', $4, $5, $5, $6)",
            )
            .bind(new.id.as_str())
            .bind(new.agent_id.as_str())
            .bind(signed(new.revision))
            .bind(&new.title)
            .bind(new.at)
            .bind(signed(new.idle_timeout_seconds))
            .execute(&self.write),
        )
        .await?;
        self.tell(&new.id).await;
        Ok(())
    }

    /// One session.
    pub async fn session(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        let _timed = self.timed(Operation::GetSession);
        let row: Option<SessionRow> = QueryBuilder::<Sqlite>::new(SELECT)
            .push(" WHERE s.id = ")
            .push_bind(id.as_str())
            .build_query_as()
            .fetch_optional(&self.read)
            .await?;
        row.map(SessionRow::read).transpose()
    }

    /// A page of sessions. `agents` are the query's agents, resolved; `now` is what idle times count to. The name of
    /// the agent, the title and the error are there only if the query asks for them.
    pub async fn sessions(&self, query: &SessionQuery, agents: &[AgentId], now: i64) -> Result<SessionPage> {
        let _timed = self.timed(Operation::ListSessions);
        let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let text: String =
            list(query, agents, now, limit + 1)?.build_query_scalar().fetch_one(&self.read).await?;
        let mut rows: Vec<Listed> = parse_json("sessions", &text)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let sessions: Vec<Session> = rows.into_iter().map(Listed::read).collect();
        let next_cursor = sessions.last().filter(|_| more).map(|last| {
            let key = match query.order {
                Order::Activity => last.last_activity_at.unwrap_or(last.created_at),
                Order::Created => last.created_at,
            };
            Cursor { order: query.order, key: key.as_millis(), id: last.id.clone() }.encode()
        });
        Ok(SessionPage { sessions, next_cursor })
    }

    /// The sessions whose digits begin with `digits` (hex digits alone), in order of their IDs.
    pub async fn sessions_by_prefix(&self, digits: &str, limit: u32) -> Result<Vec<SessionId>> {
        let low = format!("{}{digits}", SessionId::PREFIX);
        // 'g' follows every hex digit.
        let high = format!("{low}g");
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM sessions WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3")
                .bind(low)
                .bind(high)
                .bind(i64::from(limit))
                .fetch_all(&self.read)
                .await?;
        ids.iter().map(|id| parse("a session's ID", id)).collect()
    }

    /// The sessions in which nothing has happened since `before`, that are neither active nor ended.
    pub async fn sessions_due(&self, before: i64, limit: u32) -> Result<Vec<SessionId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM sessions
             WHERE status IN ('completed', 'failed', 'idle', 'pending') AND activity_at <= $1 LIMIT $2",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.read)
        .await?;
        ids.iter().map(|id| parse("a session's ID", id)).collect()
    }

    /// The sessions of an agent that have not ended.
    pub async fn sessions_of(&self, agent: &AgentId) -> Result<Vec<SessionId>> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM sessions WHERE agent_id = $1 AND status <> 'ended'")
                .bind(agent.as_str())
                .fetch_all(&self.read)
                .await?;
        ids.iter().map(|id| parse("a session's ID", id)).collect()
    }

    /// The sessions whose end was decided and has not been done.
    pub async fn sessions_ending(&self) -> Result<Vec<SessionId>> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM sessions WHERE ending IS NOT NULL")
            .fetch_all(&self.read)
            .await?;
        ids.iter().map(|id| parse("a session's ID", id)).collect()
    }

    /// How many sessions have not ended.
    pub async fn count_sessions(&self) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sessions WHERE status IN ('active', 'completed', 'failed', 'idle', 'pending')",
        )
        .fetch_one(&self.read)
        .await?;
        Ok(unsigned(count))
    }

    /// Sets a session's status and forgets its error. Nothing else moves.
    pub async fn set_status(&self, id: &SessionId, status: Status) -> Result<()> {
        let _timed = self.timed(Operation::SetStatus);
        fault::around(
            "session.resume",
            sqlx::query("UPDATE sessions SET status = $2, error = NULL WHERE id = $1 AND status <> 'ended'")
                .bind(id.as_str())
                .bind(status.as_str())
                .execute(&self.write),
        )
        .await?;
        self.tell(id).await;
        Ok(())
    }

    /// Says how the session's agent is isolated.
    pub async fn set_isolation(&self, id: &SessionId, isolation: Isolation) -> Result<()> {
        fault::around(
            "session.isolation",
            sqlx::query("UPDATE sessions SET isolation = $2 WHERE id = $1")
                .bind(id.as_str())
                .bind(isolation.as_str())
                .execute(&self.write),
        )
        .await?;
        Ok(())
    }

    /// Notes that a session is to end, so that a later server finishes it if this one can't. A reason that is
    /// noted already stays.
    pub async fn mark_ending(&self, id: &SessionId, reason: EndReason) -> Result<()> {
        fault::around(
            "session.ending",
            sqlx::query(
                "UPDATE sessions SET ending = coalesce(ending, $2) WHERE id = $1 AND status <> 'ended'",
            )
            .bind(id.as_str())
            .bind(reason.as_str())
            .execute(&self.write),
        )
        .await?;
        Ok(())
    }

    /// Notes what the end of a session has removed, or that the rest of it is gone by now.
    pub async fn set_receipt(&self, id: &SessionId, receipt: &Receipt) -> Result<()> {
        let text = to_json("a receipt", receipt)?;
        sqlx::query("UPDATE sessions SET receipt = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(text)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Notes of all ended sessions whose wipe was cut short that nothing of them is left, in milliseconds since the Unix
    /// epoch.
    pub async fn finish_receipts(&self, at: i64) -> Result<()> {
        let at = to_json("a time", &Timestamp::from_millis(at))?;
        sqlx::query(
            "UPDATE sessions SET receipt = json_set(receipt, '$.wiped_at', json($1))
             WHERE receipt IS NOT NULL AND receipt ->> '$.wiped_at' IS NULL",
        )
        .bind(at)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Forgets an ended session with its runs and messages; whether there was one.
    pub async fn delete_session(&self, id: &SessionId) -> Result<bool> {
        let done = fault::around(
            "session.forget",
            sqlx::query("DELETE FROM sessions WHERE id = $1 AND status = 'ended'")
                .bind(id.as_str())
                .execute(&self.write),
        )
        .await?;
        let gone = done.rows_affected() > 0;
        if gone {
            self.tell(id).await;
        }
        Ok(gone)
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
