//! What agents keep secret: set and deleted by their owners, read when an agent starts, and shown to nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Inner, Platform, Result, blocking};
use crate::store::StoredSecret;
use crate::vault::{Place, Sealed, Vault};
use crate::wire::secret::{MAX_SECRETS, MAX_VALUE, wrong_key};
use crate::wire::{AgentId, Secret};

impl Platform {
    /// The keys of an agent's secrets. Error: no such agent.
    pub async fn secret_keys(&self, agent: &str) -> Result<Vec<String>> {
        Ok(self.agent(agent).await?.environment_keys)
    }

    /// Sets secrets of an agent, all or none; the keys that it has then. Its next process gets them.
    ///
    /// Errors: no such agent; a key that is none, or superserve's own; a value or a number out of bounds; the master
    /// key can't be used.
    pub async fn set_secrets(&self, agent: &str, secrets: BTreeMap<String, Secret>) -> Result<Vec<String>> {
        for (key, value) in &secrets {
            check(key, value)?;
        }
        let _secrets = self.0.secrets.lock().await;
        let agent = self.agent(agent).await?;
        let known = self.0.store.secrets(&agent.id).await?;
        let all: BTreeSet<&str> =
            known.iter().map(|known| &known.key).chain(secrets.keys()).map(String::as_str).collect();
        if all.len() > MAX_SECRETS {
            return Err(Error::TooLarge {
                what: "The number of the agent's secrets",
                limit: MAX_SECRETS.to_string(),
            });
        }
        let versions: BTreeMap<String, u64> =
            known.into_iter().map(|known| (known.key, known.version)).collect();
        let (vault, id) = (self.0.options.vault.clone(), agent.id.clone());
        let sealed = blocking(move || {
            let seal = |(key, value): (String, Secret)| {
                let version = versions.get(&key).copied().unwrap_or_default() + 1;
                let place = Place { owner: id.as_str(), name: &key, version };
                let Sealed { key_id, nonce, bytes } =
                    vault.seal(place, &value).map_err(|error| Error::Vault { what: None, error })?;
                Ok(StoredSecret { key, version, key_id, nonce, sealed: bytes })
            };
            secrets.into_iter().map(seal).collect::<Result<Vec<_>>>()
        })
        .await?;
        if !self.0.store.put_secrets(&agent.id, &sealed, self.0.clock.now_millis()).await? {
            return Err(Error::AgentNotFound(agent.name));
        }
        Ok(self.0.store.secret_keys(&agent.id).await?)
    }

    /// Deletes a secret of an agent; the keys that are left. Errors: no such agent, no such secret.
    pub async fn delete_secret(&self, agent: &str, key: &str) -> Result<Vec<String>> {
        let _secrets = self.0.secrets.lock().await;
        let agent = self.agent(agent).await?;
        if !self.0.store.delete_secret(&agent.id, key).await? {
            let key = key.chars().take(100).collect();
            return Err(Error::SecretNotFound { agent: agent.name, key });
        }
        Ok(self.0.store.secret_keys(&agent.id).await?)
    }
}

impl Inner {
    /// The secrets of an agent, in the clear.
    ///
    /// Errors: they were encrypted with another key, or are damaged.
    pub(super) async fn unsealed(&self, agent: &AgentId) -> Result<Vec<(String, Secret)>> {
        let stored = self.store.secrets(agent).await?;
        if stored.is_empty() {
            return Ok(Vec::new());
        }
        let (vault, agent) = (self.options.vault.clone(), agent.clone());
        blocking(move || stored.into_iter().map(|stored| unseal(&vault, &agent, stored)).collect()).await
    }

    /// Refuses an agent some of whose secrets are not set.
    pub(super) async fn check_required(
        &self,
        agent: &AgentId,
        name: &str,
        required: &[String],
    ) -> Result<()> {
        if required.is_empty() {
            return Ok(());
        }
        let keys = self.store.secret_keys(agent).await?;
        let missing: Vec<&str> =
            required.iter().filter(|key| !keys.contains(key)).map(String::as_str).collect();
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(Error::Invalid {
                message: format!("The agent needs secrets that are not set: {}", missing.join(", ")),
                hint: Some(format!("Set them, one after the other: superserve secrets set {name} {first}")),
            }),
        }
    }
}

fn unseal(vault: &Vault, agent: &AgentId, stored: StoredSecret) -> Result<(String, Secret)> {
    let StoredSecret { key, version, key_id, nonce, sealed } = stored;
    let place = Place { owner: agent.as_str(), name: &key, version };
    match vault.unseal(place, &Sealed { key_id, nonce, bytes: sealed }) {
        Ok(value) => Ok((key, value)),
        Err(error) => Err(Error::Vault { what: Some(key), error }),
    }
}

fn check(key: &str, value: &Secret) -> Result<()> {
    if let Some(message) = wrong_key(key) {
        return Err(Error::Invalid {
            message,
            hint: Some("Take the name of the variable that the agent reads, OPENAI_API_KEY say.".into()),
        });
    }
    if value.reveal().contains('\0') {
        return Err(Error::Invalid {
            message: format!("The value of {key} contains a NUL character"),
            hint: Some("No variable can hold one: encode it, in base64 say.".into()),
        });
    }
    if value.reveal().len() > MAX_VALUE {
        return Err(Error::TooLarge {
            what: "The value of a secret",
            limit: format!("{} KiB", MAX_VALUE >> 10),
        });
    }
    Ok(())
}
