//! Runs: a message, the events of its run, the reply.

use sqlx::{Sqlite, Transaction};

use super::{Result, Store, parse, parse_json, signed, to_json, unsigned};
use crate::fault;
use crate::metrics::Operation;
use crate::wire::{
    EndReason, Message, NumberedEvent, Receipt, Role, RunEvent, RunId, SessionId, Status, Timestamp,
};

/// A run that begins.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub id: RunId,
    pub session: SessionId,
    pub prompt: String,
    /// The session's title, if it has none yet.
    pub title: String,
    /// Its first event.
    pub started: NumberedEvent,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct RunEnd {
    pub id: RunId,
    pub session: SessionId,
    /// Events that are not stored yet; the last one ends the run.
    pub events: Vec<NumberedEvent>,
    /// The whole reply; none is stored if it is empty.
    pub reply: String,
    /// The reply was cut short.
    pub partial: bool,
    /// The session's new state.
    pub status: Status,
    pub error: Option<String>,
    /// Whether the end counts as activity: recovery's doesn't.
    pub activity: bool,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
}

/// A session's latest run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    pub id: RunId,
    /// Counts the session's messages, from 1.
    pub turn: u64,
    pub going_on: bool,
}

/// A run that was going on when the server went away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRun {
    pub id: RunId,
    pub session: SessionId,
    pub turn: u64,
}

/// One line of a session's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    pub turn: u64,
    pub role: Role,
    pub content: String,
    pub at: Timestamp,
    /// The run did not come to its own end.
    pub interrupted: bool,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    role: String,
    content: String,
    at: i64,
    run_id: String,
    partial: bool,
}

fn role(word: &str) -> Result<Role> {
    match word {
        "agent" => Ok(Role::Agent),
        "user" => Ok(Role::User),
        _ => Err(super::StoreError::Row { what: "a message's role", reason: format!("'{word}'") }),
    }
}

async fn insert_events(transaction: &mut Transaction<'_, Sqlite>, events: &[NumberedEvent]) -> Result<()> {
    for event in events {
        sqlx::query("INSERT INTO events (run_id, number, event) VALUES ($1, $2, $3)")
            .bind(event.run_id.as_str())
            .bind(signed(event.number))
            .bind(to_json("an event", &event.event)?)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn insert_message(
    transaction: &mut Transaction<'_, Sqlite>,
    (session, run): (&SessionId, &RunId),
    role: Role,
    content: &str,
    at: i64,
    partial: bool,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO messages (session_id, run_id, role, content, at, partial) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(session.as_str())
    .bind(run.as_str())
    .bind(role.as_str())
    .bind(content)
    .bind(at)
    .bind(partial)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn close_run(transaction: &mut Transaction<'_, Sqlite>, end: &RunEnd) -> Result<()> {
    let outcome = match end.events.last().map(|last| &last.event) {
        Some(RunEvent::Completed { .. }) => "completed",
        Some(RunEvent::Cancelled {}) => "cancelled",
        _ => "failed",
    };
    insert_events(transaction, &end.events).await?;
    sqlx::query("UPDATE runs SET ended_at = $2, outcome = $3 WHERE id = $1")
        .bind(end.id.as_str())
        .bind(end.at)
        .bind(outcome)
        .execute(&mut **transaction)
        .await?;
    if !end.reply.is_empty() {
        let of = (&end.session, &end.id);
        insert_message(transaction, of, Role::Agent, &end.reply, end.at, end.partial).await?;
    }
    sqlx::query(
        "UPDATE sessions SET status = $2, error = $3,
             last_activity_at = CASE WHEN $5 THEN max($4, activity_at) ELSE last_activity_at END,
             activity_at = CASE WHEN $5 THEN max($4, activity_at) ELSE activity_at END
         WHERE id = $1 AND status <> 'ended'",
    )
    .bind(end.session.as_str())
    .bind(end.status.as_str())
    .bind(&end.error)
    .bind(end.at)
    .bind(end.activity)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl Store {
    /// Begins a run: the session is active, the message is in the transcript, the events of earlier runs are gone.
    /// Answers with the number of the session's turn, from 1.
    pub async fn begin_run(&self, new: &NewRun) -> Result<u64> {
        let _timed = self.timed(Operation::BeginRun);
        let mut transaction = self.write.begin().await?;
        sqlx::query("DELETE FROM events WHERE run_id IN (SELECT id FROM runs WHERE session_id = $1)")
            .bind(new.session.as_str())
            .execute(&mut *transaction)
            .await?;
        let turn: i64 = sqlx::query_scalar(
            "UPDATE sessions SET status = 'active', error = NULL, message_count = message_count + 1,
                 title = coalesce(title, $2), last_activity_at = max($3, activity_at),
                 activity_at = max($3, activity_at)
             WHERE id = $1 AND status <> 'ended' RETURNING message_count",
        )
        .bind(new.session.as_str())
        .bind(&new.title)
        .bind(new.at)
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO runs (id, session_id, turn, started_at) VALUES ($1, $2, $3, $4)")
            .bind(new.id.as_str())
            .bind(new.session.as_str())
            .bind(turn)
            .bind(new.at)
            .execute(&mut *transaction)
            .await?;
        insert_message(&mut transaction, (&new.session, &new.id), Role::User, &new.prompt, new.at, false)
            .await?;
        insert_events(&mut transaction, std::slice::from_ref(&new.started)).await?;
        fault::around("run.begin", transaction.commit()).await?;
        self.tell(&new.session).await;
        Ok(unsigned(turn))
    }

    /// Stores events of a run that goes on.
    pub async fn append_events(&self, events: &[NumberedEvent]) -> Result<()> {
        let _timed = self.timed(Operation::AppendEvents);
        let mut transaction = self.write.begin().await?;
        insert_events(&mut transaction, events).await?;
        fault::around("event.append", transaction.commit()).await?;
        Ok(())
    }

    /// Closes a run and puts its session into its new state.
    pub async fn finish_run(&self, end: &RunEnd) -> Result<()> {
        let _timed = self.timed(Operation::FinishRun);
        let mut transaction = self.write.begin().await?;
        close_run(&mut transaction, end).await?;
        fault::around("run.finish", transaction.commit()).await?;
        self.tell(&end.session).await;
        Ok(())
    }

    /// Ends a session for good, and with it the run that was going on.
    pub async fn finish_session(
        &self,
        id: &SessionId,
        reason: EndReason,
        run: Option<&RunEnd>,
        receipt: &Receipt,
        at: i64,
    ) -> Result<()> {
        let _timed = self.timed(Operation::EndSession);
        let mut transaction = self.write.begin().await?;
        if let Some(end) = run {
            close_run(&mut transaction, end).await?;
        }
        sqlx::query(
            "UPDATE sessions SET status = 'ended', ended_at = $3, end_reason = coalesce(ending, $2), ending = NULL,
                 receipt = $4
             WHERE id = $1 AND status <> 'ended'",
        )
        .bind(id.as_str())
        .bind(reason.as_str())
        .bind(at)
        .bind(to_json("a receipt", receipt)?)
        .execute(&mut *transaction)
        .await?;
        fault::around("session.finish", transaction.commit()).await?;
        self.tell(id).await;
        Ok(())
    }

    /// A session's latest run.
    pub async fn latest_run(&self, session: &SessionId) -> Result<Option<RunState>> {
        let row: Option<(String, i64, Option<i64>)> = sqlx::query_as(
            "SELECT id, turn, ended_at FROM runs WHERE session_id = $1 ORDER BY turn DESC LIMIT 1",
        )
        .bind(session.as_str())
        .fetch_optional(&self.read)
        .await?;
        row.map(|(id, turn, ended_at)| {
            Ok(RunState { id: parse("a run's ID", &id)?, turn: unsigned(turn), going_on: ended_at.is_none() })
        })
        .transpose()
    }

    /// Whether there is, or was, a run with this ID.
    pub async fn has_run(&self, run: &RunId) -> Result<bool> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM runs WHERE id = $1")
            .bind(run.as_str())
            .fetch_optional(&self.read)
            .await?;
        Ok(found.is_some())
    }

    /// At most `limit` events of a run after the first `after`.
    pub async fn events(&self, run: &RunId, after: u64, limit: u32) -> Result<Vec<NumberedEvent>> {
        let _timed = self.timed(Operation::ReadEvents);
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT number, event FROM events WHERE run_id = $1 AND number > $2 ORDER BY number LIMIT $3",
        )
        .bind(run.as_str())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&self.read)
        .await?;
        rows.into_iter()
            .map(|(number, event)| {
                Ok(NumberedEvent {
                    run_id: run.clone(),
                    number: unsigned(number),
                    event: parse_json("an event", &event)?,
                })
            })
            .collect()
    }

    /// The runs that have not ended.
    pub async fn open_runs(&self) -> Result<Vec<OpenRun>> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT id, session_id, turn FROM runs WHERE ended_at IS NULL")
                .fetch_all(&self.read)
                .await?;
        rows.into_iter()
            .map(|(id, session, turn)| {
                Ok(OpenRun {
                    id: parse("a run's ID", &id)?,
                    session: parse("a session's ID", &session)?,
                    turn: unsigned(turn),
                })
            })
            .collect()
    }

    /// A session's transcript, or what of it belongs to one run.
    pub async fn messages(&self, session: &SessionId, run: Option<&RunId>) -> Result<Vec<Message>> {
        let _timed = self.timed(Operation::ReadMessages);
        let rows: Vec<MessageRow> = sqlx::query_as(
            "SELECT role, content, at, run_id, partial FROM messages \
             WHERE session_id = $1 AND ($2 IS NULL OR run_id = $2) ORDER BY seq",
        )
        .bind(session.as_str())
        .bind(run.map(RunId::as_str))
        .fetch_all(&self.read)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Message {
                    role: role(&row.role)?,
                    content: row.content,
                    at: Timestamp::from_millis(row.at),
                    run_id: parse("a run's ID", &row.run_id)?,
                    partial: row.partial,
                })
            })
            .collect()
    }

    /// A session's past turns, as its agent may read them.
    pub async fn history(&self, session: &SessionId) -> Result<Vec<HistoryLine>> {
        let rows: Vec<(i64, String, String, i64, bool)> = sqlx::query_as(
            "SELECT r.turn, m.role, m.content, m.at, r.outcome <> 'completed' AND m.seq =
                 (SELECT max(seq) FROM messages l WHERE l.run_id = m.run_id)
             FROM messages m JOIN runs r ON r.id = m.run_id
             WHERE m.session_id = $1 AND r.ended_at IS NOT NULL ORDER BY m.seq",
        )
        .bind(session.as_str())
        .fetch_all(&self.read)
        .await?;
        rows.into_iter()
            .map(|(turn, word, content, at, interrupted)| {
                Ok(HistoryLine {
                    turn: unsigned(turn),
                    role: role(&word)?,
                    content,
                    at: Timestamp::from_millis(at),
                    interrupted,
                })
            })
            .collect()
    }
}
