//! What is let go of in time: events of runs that are long over, sessions that ended long ago, code and folders that
//! nobody needs. And a copy of all that is kept.

use std::path::PathBuf;

use super::{Platform, Result, blocking, millis};
use crate::wire::server::Freed;
use crate::wire::{AgentId, SessionId, Status};

impl Platform {
    /// Lets go of what the settings say, or only counts it. Runs that go on and sessions that have not ended are never
    /// touched, but for the events of their runs that are long over.
    ///
    /// # Errors
    /// If the store can't be read or written; what was let go of until then stays gone.
    pub async fn collect(&self, dry_run: bool) -> Result<Freed> {
        // One after the other: two would only count the same.
        let _collecting = self.0.collecting.lock().await;
        let before = |after| Some(self.0.clock.now_millis().saturating_sub(millis(after?)));
        let (events, ended) = (before(self.0.options.keep_events), before(self.0.options.keep_ended));
        let store = &self.0.store;
        let mut freed = Freed { dry_run, database_before: store.size().await?.whole, ..Freed::default() };
        match ended {
            Some(before) if dry_run => freed.sessions = store.count_ended(before).await?,
            Some(before) => loop {
                let gone = store.forget_ended(before).await?;
                if gone.is_empty() {
                    break;
                }
                freed.sessions += gone.len() as u64;
            },
            None => {}
        }
        match events {
            Some(before) if dry_run => freed.events = store.count_old_events(before).await?,
            Some(before) => loop {
                let gone = store.drop_events(before).await?;
                if gone == 0 {
                    break;
                }
                freed.events += gone;
            },
            None => {}
        }
        if !dry_run {
            store.forget_deleted_agents().await?;
        }
        freed.revisions = self.drop_all_unused(dry_run).await?;
        freed.folders = self.drop_strays(dry_run).await?;
        if !dry_run {
            store.shrink().await?;
        }
        freed.database_after = store.size().await?.whole;
        if !dry_run && freed.is_something() {
            tracing::info!(
                sessions = freed.sessions,
                events = freed.events,
                revisions = freed.revisions,
                folders = freed.folders,
                database_before = freed.database_before,
                database_after = freed.database_after,
                "let go of what is past its time"
            );
        }
        Ok(freed)
    }

    /// Removes the code of revisions that neither their agent nor a session needs; how many there were.
    async fn drop_all_unused(&self, dry_run: bool) -> Result<u64> {
        let agents = self.0.layout.agents();
        let ids = blocking(move || Ok(names::<AgentId>(agents))).await?;
        let mut count = 0;
        for (id, folder) in ids {
            let _deploying = self.0.deploying.lock().await;
            count += match self.0.store.agent_id(id.as_str()).await? {
                Some(_) => self.drop_unused(&id, dry_run).await?,
                // It was deployed by nobody that is known.
                None => self.wipe(folder, dry_run).await?,
            };
        }
        Ok(count)
    }

    /// Removes the folders of sessions that have ended or that nobody knows; how many there were.
    async fn drop_strays(&self, dry_run: bool) -> Result<u64> {
        let sessions = self.0.layout.sessions();
        // The folders first: whatever is there then had its row before.
        let ids = blocking(move || Ok(names::<SessionId>(sessions))).await?;
        let mut count = 0;
        for (id, folder) in ids {
            let stored = self.0.store.session(&id).await?;
            if stored.is_none_or(|stored| stored.session.status == Status::Ended) {
                count += self.wipe(folder, dry_run).await?;
            }
        }
        Ok(count)
    }

    async fn wipe(&self, folder: PathBuf, dry_run: bool) -> Result<u64> {
        let layout = self.0.layout.clone();
        if !dry_run {
            blocking(move || layout.wipe(&folder)).await?;
        }
        Ok(1)
    }
}

/// The folders there whose names are IDs. What else lies there is not ours.
fn names<T: std::str::FromStr>(folder: PathBuf) -> Vec<(T, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}
