//! Agents: deployed, listed, deleted.

use std::path::Path;

use futures_util::stream::{self, StreamExt};
use tracing::Instrument;

use super::archive::{self, Bounds};
use super::plan::Plan;
use super::workspace::NEW;
use super::{ENDS_AT_ONCE, Error, Platform, Result, Upload, blocking, command};
use crate::fault;
use crate::store::NewRevision;
use crate::wire::agent::{DepsStatus, MAX_NAME, is_agent_name};
use crate::wire::{self, AgentId, EndReason};

impl Platform {
    /// Deploys an agent; the same name again is a new revision of it, unless nothing has changed.
    ///
    /// Errors: a bad name, no command, an archive that is none, is too large, or would leave its folder.
    pub async fn deploy(&self, upload: Upload) -> Result<wire::Agent> {
        if self.0.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        if !is_agent_name(&upload.name) {
            return Err(Error::Invalid {
                // The old clients show the message alone, and name an agent as its folder is called.
                message: format!(
                    "'{}' is no name for an agent: one begins with a-z, goes on with a-z, 0-9 and -, and has at most \
                     {MAX_NAME} characters",
                    upload.name.chars().take(100).collect::<String>()
                ),
                hint: Some("Give it another: name in superserve.yaml.".to_owned()),
            });
        }
        if upload.archive.len() as u64 > self.0.options.max_upload {
            return Err(Error::TooLarge {
                what: "The agent's archive",
                limit: format!("{} MiB", self.0.options.max_upload >> 20),
            });
        }
        if let Some(message) = upload.config.limits.nonsense() {
            return Err(Error::Invalid {
                message,
                hint: Some("Correct it in the agent's configuration.".into()),
            });
        }
        if let Some(message) = upload.config.mode_nonsense() {
            return Err(Error::Invalid {
                message: message.to_owned(),
                hint: Some("An HTTP agent has the port on which it listens: port: 8000.".into()),
            });
        }
        let given = upload.command.as_deref().or(upload.config.command.as_deref());
        let line =
            given.map(str::trim).filter(|line| !line.is_empty()).ok_or_else(command::no_command)?.to_owned();
        command::argv(&line)?;
        // As a task of its own: a caller that goes away leaves no deployment half done.
        let platform = self.clone();
        let done = self.0.tasks.spawn(async move { platform.put(upload, line).await }.in_current_span());
        done.await.unwrap_or(Err(Error::Internal("deploying an agent")))
    }

    async fn put(&self, upload: Upload, line: String) -> Result<wire::Agent> {
        let _deploying = self.0.deploying.lock().await;
        let Upload { name, config, archive, .. } = upload;
        let current = self.0.store.agent(&name).await?.filter(|agent| agent.name == name);
        let (id, revision) = match &current {
            Some(agent) => (agent.id.clone(), agent.revision + 1),
            None => (AgentId::from_random(self.0.clock.random()), 1),
        };
        let place = self.0.layout.revision(&id, revision);
        let new = place.with_extension(NEW);
        let layout = self.0.layout.clone();
        let read = {
            let (layout, new, config) = (layout.clone(), new.clone(), config.clone());
            let (line, path) = (line.clone(), self.0.options.path.clone());
            blocking(move || {
                layout.wipe(&new)?;
                make(new.parent().unwrap_or(&new))?;
                make(&new)?;
                let hash = archive::unpack(&archive, &new.join("src"), Bounds::default())?.finish(&config);
                let plan = Plan::of(&new.join("src"), &line, &path, &hash)?;
                Ok((hash, plan.map(|plan| plan.hash)))
            })
            .await
        };
        let unchanged = |hash: &str| {
            current
                .as_ref()
                .filter(|agent| agent.source_hash == hash && agent.command.as_deref() == Some(&line))
                .cloned()
        };
        let keep = match &read {
            Ok((hash, _)) => unchanged(hash),
            Err(_) => None,
        };
        if keep.is_some() || read.is_err() {
            let first = current.is_none();
            blocking(move || layout.wipe(if first { new.parent().unwrap_or(&new) } else { &new })).await?;
            return match (read, keep) {
                (Err(error), _) => Err(error),
                (Ok(_), Some(agent)) => self.try_again(agent).await,
                (Ok(_), None) => Err(Error::Internal("comparing revisions")),
            };
        }
        let (source_hash, deps) = read?;
        blocking(move || {
            // What a deployment left that was never finished.
            layout.wipe(&place)?;
            fault::step("agent.rename", || std::fs::rename(&new, &place)).map_err(|source| Error::Folder {
                doing: "rename",
                path: new,
                source,
            })
        })
        .await?;
        let at = self.0.clock.now_millis();
        let put =
            NewRevision { id: id.clone(), name, revision, command: line, config, source_hash, deps, at };
        self.0.store.put_revision(&put).await?;
        if let Err(error) = self.drop_unused(&id, false).await {
            tracing::warn!(agent = %id, %error, "old revisions of an agent cannot be removed");
        }
        self.install_for(&id, revision, false).await?;
        self.agent(id.as_str()).await
    }

    /// Installs again what could not be installed before.
    async fn try_again(&self, agent: wire::Agent) -> Result<wire::Agent> {
        if agent.deps_status != DepsStatus::Failed {
            return Ok(agent);
        }
        self.install_for(&agent.id, agent.revision, true).await?;
        self.agent(agent.id.as_str()).await
    }

    /// Begins to install what a revision asks for, unless it is there, or could not be installed and is not to be tried `again`.
    async fn install_for(&self, id: &AgentId, number: u64, again: bool) -> Result<()> {
        let revision = self.0.store.revision(id, number).await?;
        let Some(hash) = revision.and_then(|revision| revision.deps) else { return Ok(()) };
        let status =
            self.0.store.dependencies(&hash).await?.map_or(DepsStatus::Building, |(status, _)| status);
        match status {
            DepsStatus::Building => {}
            DepsStatus::Failed if again => {
                let at = self.0.clock.now_millis();
                self.0.store.set_dependencies(&hash, DepsStatus::Building, None, at).await?;
            }
            DepsStatus::Failed | DepsStatus::None | DepsStatus::Ready => return Ok(()),
        }
        self.0.install(&hash, id, number).await.map(drop)
    }

    /// Removes the code of the revisions that nobody needs any more, or only counts them.
    pub(super) async fn drop_unused(&self, id: &AgentId, dry_run: bool) -> Result<u64> {
        let revisions = self.0.revisions.write().await;
        let used = self.0.store.used_revisions(id).await?;
        let (layout, folder) = (self.0.layout.clone(), self.0.layout.agent(id));
        let count = blocking(move || {
            let mut count = 0;
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
                if number.is_some_and(|number| !used.contains(&number)) {
                    count += 1;
                    if !dry_run {
                        layout.wipe(&entry.path())?;
                    }
                }
            }
            Ok(count)
        })
        .await?;
        drop(revisions);
        if !dry_run {
            self.drop_unused_dependencies().await?;
        }
        Ok(count)
    }

    /// All agents, latest deployment first.
    pub async fn agents(&self, limit: Option<u32>) -> Result<Vec<wire::Agent>> {
        Ok(self.0.store.agents(limit).await?)
    }

    /// An agent by its name or ID.
    pub async fn agent(&self, name_or_id: &str) -> Result<wire::Agent> {
        let agent = self.0.store.agent(name_or_id).await?;
        agent.ok_or_else(|| Error::AgentNotFound(name_or_id.chars().take(100).collect()))
    }

    /// Deletes an agent and ends its sessions.
    pub async fn delete_agent(&self, name_or_id: &str) -> Result<()> {
        if self.0.stop.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let id = self.agent(name_or_id).await?.id;
        let platform = self.clone();
        let deleting = async move {
            let _deploying = platform.0.deploying.lock().await;
            {
                // No session of it is being made now, and none can be afterwards.
                let _revisions = platform.0.revisions.write().await;
                platform.0.store.mark_agent_deleted(&id, platform.0.clock.now_millis()).await?;
            }
            platform.finish_deletion(&id).await
        };
        let done = self.0.tasks.spawn(deleting.in_current_span());
        done.await.unwrap_or(Err(Error::Internal("deleting an agent")))
    }

    /// Ends the sessions of a deleted agent, and removes its code.
    pub(super) async fn finish_deletion(&self, id: &AgentId) -> Result<()> {
        let sessions = self.0.store.sessions_of(id).await?;
        let failed = stream::iter(sessions)
            .map(|session| async move { self.end_for(&session, EndReason::AgentDeleted).await })
            .buffer_unordered(ENDS_AT_ONCE)
            .filter_map(|ended| async move { ended.err() })
            .collect::<Vec<_>>()
            .await;
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        let (layout, folder) = (self.0.layout.clone(), self.0.layout.agent(id));
        blocking(move || layout.wipe(&folder)).await?;
        self.0.store.forget_deleted_agents().await?;
        self.drop_unused_dependencies().await
    }
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Folder {
        doing: "make",
        path: folder.to_owned(),
        source,
    })
}
