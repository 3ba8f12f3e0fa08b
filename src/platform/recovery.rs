//! What an earlier server left undone, done before anything else happens.

use std::path::PathBuf;

use super::failure::Failure;
use super::{Error, Inner, Platform, Result, blocking};
use crate::store::{OpenRun, RunEnd};
use crate::wire::{EndReason, NumberedEvent, RunEvent, Status};

/// So many events are read at a time.
const PAGE: u32 = 1000;

impl Platform {
    /// Runs that were going on have failed, ends that were begun are finished, what lies about is swept away.
    pub(super) async fn recover(&self) -> Result<()> {
        // Folders are made at the beginning of a run, so that half made ones are those of runs that were going on.
        let mut half_made: Vec<PathBuf> = Vec::new();
        for run in self.0.store.open_runs().await? {
            let folders = self.0.layout.session(&run.session);
            half_made.extend(folders.half_made());
            // One that can't be closed now, since the disk is full, say, is closed when its session is next used.
            if let Err(error) = self.0.close_interrupted(&run).await {
                tracing::error!(session = %run.session, %error, "cannot note that a run was interrupted");
            }
        }
        for session in self.0.store.sessions_ending().await? {
            // The reason that was noted stays.
            if let Err(error) = self.end_for(&session, EndReason::User).await {
                tracing::warn!(%session, %error, "cannot finish the end of a session");
            }
        }
        for agent in self.0.store.deleted_agents().await? {
            if let Err(error) = self.finish_deletion(&agent).await {
                tracing::warn!(%agent, %error, "cannot finish the deletion of an agent");
            }
        }
        let layout = self.0.layout.clone();
        let emptied = blocking(move || {
            half_made.extend(layout.half_deployed());
            half_made.push(layout.aside());
            for folder in half_made {
                if let Err(error) = layout.wipe(&folder) {
                    tracing::warn!(%error, "what was half made stays");
                }
            }
            if let Err(error) = crate::sandbox::empty_trash(&layout.trash()) {
                tracing::warn!(%error, "the trash cannot be emptied");
                return Ok(false);
            }
            Ok::<_, Error>(true)
        })
        .await?;
        if emptied && let Err(error) = self.0.store.finish_receipts(self.0.clock.now_millis()).await {
            tracing::warn!(%error, "cannot note that sessions are wiped");
        }
        // Last: what is installed wipes its folder first, by way of the trash, which nobody may empty under it.
        if let Err(error) = self.recover_dependencies().await {
            tracing::warn!(%error, "cannot go on with installing dependencies");
        }
        Ok(())
    }
}

impl Inner {
    /// Gives a run that nobody works at any more its last event: it was interrupted.
    pub(super) async fn close_interrupted(&self, run: &OpenRun) -> Result<()> {
        let (mut number, mut reply) = (0, String::new());
        loop {
            let events = self.store.events(&run.id, number, PAGE).await?;
            let Some(last) = events.last() else { break };
            number = last.number;
            for event in &events {
                if let RunEvent::Delta { content } = &event.event {
                    reply.push_str(content);
                }
            }
        }
        let failure = Failure::interrupted();
        let last = NumberedEvent {
            run_id: run.id.clone(),
            number: number + 1,
            event: RunEvent::Failed { error: failure.to_error() },
        };
        let end = RunEnd {
            id: run.id.clone(),
            session: run.session.clone(),
            events: vec![last],
            reply,
            partial: true,
            status: Status::Failed,
            error: Some(failure.sentence()),
            activity: false,
            at: self.clock.now_millis(),
        };
        self.store.finish_run(&end).await?;
        tracing::info!(session = %run.session, turn = run.turn, "a run was interrupted when the server stopped");
        Ok(())
    }
}
