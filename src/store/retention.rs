//! What the store lets go of in time, and how its file gives the room back; a copy of it while it is in use.

use std::path::Path;

use super::{Result, Store, parse, to_json, unsigned};
use crate::fault;
use crate::wire::SessionId;

/// So many sessions or runs go in one transaction, so that nobody waits long for the writer.
const BATCH: u32 = 200;
/// So many pages are given back in one step.
const PAGES: u32 = 2000;

/// How large the database is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub whole: u64,
    /// What of it holds nothing.
    pub free: u64,
}

impl Store {
    /// How many sessions have ended before that moment, in milliseconds since the Unix epoch.
    pub async fn count_ended(&self, before: i64) -> Result<u64> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sessions WHERE status = 'ended' AND ended_at < $1")
                .bind(before)
                .fetch_one(&self.read)
                .await?;
        Ok(unsigned(count))
    }

    /// Forgets sessions that have ended before that moment, with their runs and messages: at most a batch, so ask
    /// until it answers that none was left.
    pub async fn forget_ended(&self, before: i64) -> Result<Vec<SessionId>> {
        let ids: Vec<String> = fault::around(
            "retention.sessions",
            sqlx::query_scalar(
                "DELETE FROM sessions WHERE id IN
                 (SELECT id FROM sessions WHERE status = 'ended' AND ended_at < $1 LIMIT $2) RETURNING id",
            )
            .bind(before)
            .bind(BATCH)
            .fetch_all(&self.write),
        )
        .await?;
        let ids: Vec<SessionId> = ids.iter().map(|id| parse("a session's ID", id)).collect::<Result<_>>()?;
        for id in &ids {
            self.tell(id).await;
        }
        Ok(ids)
    }

    /// How many events [`drop_events`](Self::drop_events) would drop in all.
    pub async fn count_old_events(&self, before: i64) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum((SELECT count(*) FROM events e WHERE e.run_id = r.id) - 1), 0)
             FROM runs r WHERE r.ended_at < $1 AND EXISTS (SELECT 1 FROM events e WHERE e.run_id = r.id)",
        )
        .bind(before)
        .fetch_one(&self.read)
        .await?;
        Ok(unsigned(count))
    }

    /// Drops the events of runs that ended before that moment, but for each run's last one, by which a reader who comes
    /// later sees how it ended; the reply stays in the transcript. At most a batch of runs; answers how many events.
    pub async fn drop_events(&self, before: i64) -> Result<u64> {
        let runs: Vec<String> = sqlx::query_scalar(
            "SELECT r.id FROM runs r WHERE r.ended_at < $1
                 AND (SELECT count(*) FROM (SELECT 1 FROM events e WHERE e.run_id = r.id LIMIT 2)) = 2 LIMIT $2",
        )
        .bind(before)
        .bind(BATCH)
        .fetch_all(&self.read)
        .await?;
        if runs.is_empty() {
            return Ok(0);
        }
        let done = fault::around(
            "retention.events",
            sqlx::query(
                "DELETE FROM events WHERE run_id IN (SELECT value FROM json_each($1))
                 AND number < (SELECT max(number) FROM events l WHERE l.run_id = events.run_id)",
            )
            .bind(to_json("runs", &runs)?)
            .execute(&self.write),
        )
        .await?;
        Ok(done.rows_affected())
    }

    /// How large the database is.
    pub async fn size(&self) -> Result<Size> {
        let (pages, free, page): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT page_count FROM pragma_page_count()), (SELECT freelist_count FROM pragma_freelist_count()),
                 (SELECT page_size FROM pragma_page_size())",
        )
        .fetch_one(&self.read)
        .await?;
        Ok(Size { whole: unsigned(pages * page), free: unsigned(free * page) })
    }

    /// Gives pages that hold nothing back to the disk.
    pub async fn shrink(&self) -> Result<()> {
        let mut free = self.size().await?.free;
        while free > 0 {
            // Step by step: between two of them others write.
            let steps = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES})"));
            sqlx::query(steps).fetch_all(&self.write).await?;
            let left = self.size().await?.free;
            if left >= free {
                break;
            }
            free = left;
        }
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&self.write).await?;
        Ok(())
    }

    /// Writes a copy of the whole database as it is at this moment to a new file; others go on reading and writing.
    ///
    /// # Errors
    /// If the file is there already or its disk is full.
    pub async fn copy_to(&self, file: &Path) -> Result<()> {
        sqlx::query("VACUUM INTO $1").bind(file.to_string_lossy()).execute(&self.read).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NewRevision, NewRun, NewSession, RunEnd};
    use crate::wire::Receipt;
    use crate::wire::{AgentConfig, AgentId, EndReason, NumberedEvent, RunEvent, RunId, Status};

    /// A store with `sessions` sessions, each with a run of `events` pieces that ended at `at`.
    async fn filled(path: &Path, sessions: u64, events: u64, at: i64) -> (Store, Vec<SessionId>) {
        let store = Store::open(path).await.expect("a store");
        let agent = AgentId::from_random(1 << 80);
        let revision = NewRevision {
            id: agent.clone(),
            name: "a".into(),
            revision: 1,
            command: "c".into(),
            config: AgentConfig::default(),
            source_hash: String::new(),
            deps: None,
            at: 0,
        };
        store.put_revision(&revision).await.expect("an agent");
        let mut ids = Vec::new();
        for number in 0..sessions {
            let id = SessionId::from_random(u128::from(number + 1) << 64);
            let new = NewSession {
                id: id.clone(),
                agent_id: agent.clone(),
                revision: 1,
                title: None,
                idle_timeout_seconds: 60,
                at: 0,
            };
            store.insert_session(&new).await.expect("a session");
            let run = RunId::from_random(u128::from(number + 1) << 64);
            let event = |number: u64, event: RunEvent| NumberedEvent { run_id: run.clone(), number, event };
            let started = RunEvent::Started { run_id: run.clone(), session_id: id.clone() };
            let begin = NewRun {
                id: run.clone(),
                session: id.clone(),
                prompt: "p".into(),
                title: "t".into(),
                started: event(1, started),
                at: 0,
            };
            store.begin_run(&begin).await.expect("a run");
            let piece = |number| event(number, RunEvent::Delta { content: "x".repeat(500) });
            store.append_events(&(2..=events).map(piece).collect::<Vec<_>>()).await.expect("events");
            let last =
                RunEvent::Completed { duration_ms: 1, max_turns_reached: None, max_turns_message: None };
            let end = RunEnd {
                id: run.clone(),
                session: id.clone(),
                events: vec![event(events + 1, last)],
                reply: "reply".into(),
                partial: false,
                status: Status::Idle,
                error: None,
                activity: true,
                at,
            };
            store.finish_run(&end).await.expect("an end");
            ids.push(id);
        }
        (store, ids)
    }

    #[tokio::test]
    async fn events_go_but_the_last_and_the_reply_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, ids) = filled(&folder.path().join("db"), 3, 20, 1000).await;
        assert_eq!(store.count_old_events(1000).await.expect("a count"), 0);
        assert_eq!(store.count_old_events(1001).await.expect("a count"), 60);
        assert_eq!(store.drop_events(1000).await.expect("none"), 0);
        assert_eq!(store.drop_events(1001).await.expect("all"), 60);
        assert_eq!(store.drop_events(1001).await.expect("none left"), 0);
        for id in &ids {
            let run = store.latest_run(id).await.expect("an answer").expect("a run").id;
            let events = store.events(&run, 0, 100).await.expect("events");
            assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [21]);
            assert_eq!(store.messages(id, None).await.expect("messages").len(), 2);
        }
        store.close().await;
    }

    #[tokio::test]
    async fn ended_sessions_go_with_all_that_is_theirs_and_the_file_shrinks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, ids) = filled(&folder.path().join("db"), 250, 20, 1000).await;
        for id in &ids[..240] {
            store.finish_session(id, EndReason::User, None, &Receipt::default(), 2000).await.expect("ended");
        }
        assert_eq!(store.count_ended(2000).await.expect("a count"), 0);
        assert_eq!(store.count_ended(2001).await.expect("a count"), 240);
        let before = store.size().await.expect("a size").whole;
        let mut batches = Vec::new();
        while let Some(gone) =
            Some(store.forget_ended(2001).await.expect("an answer").len()).filter(|gone| *gone > 0)
        {
            batches.push(gone);
        }
        assert_eq!(batches, [200, 40]);
        assert_eq!(store.count_sessions().await.expect("a count"), 10);
        assert!(store.session(&ids[0]).await.expect("an answer").is_none());
        assert!(store.messages(&ids[0], None).await.expect("messages").is_empty());
        store.shrink().await.expect("shrunk");
        let after = store.size().await.expect("a size");
        assert!(after.whole < before / 5 && after.free == 0, "{before} {after:?}");
        store.close().await;
    }

    #[tokio::test]
    async fn a_copy_is_whole_while_others_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, ids) = filled(&folder.path().join("db"), 20, 20, 1000).await;
        let copy = folder.path().join("copy's.db");
        let ending = async {
            for id in &ids {
                store
                    .finish_session(id, EndReason::User, None, &Receipt::default(), 2000)
                    .await
                    .expect("ended");
            }
        };
        let (copied, ()) = tokio::join!(store.copy_to(&copy), ending);
        copied.expect("a copy");
        assert!(store.copy_to(&copy).await.is_err(), "it is there already");
        let restored = Store::open(&copy).await.expect("a store");
        for id in &ids {
            assert_eq!(restored.messages(id, None).await.expect("messages").len(), 2);
        }
        restored.close().await;
        store.close().await;
    }
}
