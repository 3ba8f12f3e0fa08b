//! Agents and what their owners say about them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{AgentId, AgentLimits, Network, Timestamp};

/// An agent: a folder of code with a command that starts it. The fields from `revision` on are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    pub id: AgentId,
    #[schema(pattern = "^[a-z][a-z0-9-]*$", max_length = 63)]
    pub name: String,
    #[schema(required = true)]
    pub command: Option<String>,
    #[serde(default)]
    #[schema(required = true)]
    pub environment_keys: Vec<String>,
    #[serde(default)]
    #[schema(required = true)]
    pub required_secrets: Vec<String>,
    #[serde(default)]
    #[schema(required = true)]
    pub deps_status: DepsStatus,
    #[serde(default)]
    #[schema(required = true)]
    pub deps_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Counts the deployments, from 1.
    #[serde(default)]
    #[schema(required = true, minimum = 1)]
    pub revision: u64,
    /// SHA-256 over the unpacked tar stream and the configuration, hex: see `SourceHash`.
    #[serde(default)]
    #[schema(required = true, pattern = "^[0-9a-f]{64}$")]
    pub source_hash: String,
    #[serde(default)]
    #[schema(required = true)]
    pub network: Network,
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: AgentLimits,
}

/// How far an agent's dependencies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DepsStatus {
    Building,
    Failed,
    #[default]
    None,
    Ready,
}

impl DepsStatus {
    const ALL: [Self; 4] = [Self::Building, Self::Failed, Self::None, Self::Ready];

    /// The word as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Failed => "failed",
            Self::None => "none",
            Self::Ready => "ready",
        }
    }
}

impl std::str::FromStr for DepsStatus {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|known| known.as_str() == word).ok_or_else(|| format!("'{word}' is none"))
    }
}

/// `config` of `POST /agents`: the parsed `superserve.yaml`, or what `deploy ENTRYPOINT` made up.
/// Keys that we don't know are passed over, since the original's clients send some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The script that is the agent, where no command says how it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// How it is talked to; where this isn't said, by its port if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The port of 127.0.0.1 on which an HTTP agent listens.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "port")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// Names of the secrets that must be set before it can run.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_none")]
    pub secrets: Vec<String>,
    /// Patterns, as in a .gitignore, of what is not packed.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_none")]
    pub ignore: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    pub network: Network,
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "or_none")]
    pub limits: AgentLimits,
}

/// How an agent is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Over its stdin and stdout.
    Shim,
    /// By `POST /run`.
    Http,
}

impl AgentConfig {
    /// The port of an agent that is talked to by HTTP.
    pub fn http_port(&self) -> Option<u16> {
        self.port.filter(|_| self.mode != Some(Mode::Shim))
    }

    /// What of mode and port doesn't fit together, in a sentence.
    pub fn mode_nonsense(&self) -> Option<&'static str> {
        match (self.mode, self.port) {
            (Some(Mode::Http), None) => Some("mode is http, and no port is named"),
            (Some(Mode::Shim), Some(_)) => Some("port is for an HTTP agent, and mode is shim"),
            _ => None,
        }
    }
}

/// A key with nothing behind it, which is null in YAML, is one that isn't there.
fn or_none<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A port, or a sentence that names the key.
fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(given) = Option::<serde_json::Value>::deserialize(deserializer)? else { return Ok(None) };
    match given.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0) {
        Some(port) => Ok(Some(port)),
        None => {
            Err(serde::de::Error::custom(format!("port must be a whole number from 1 to 65535, not {given}")))
        }
    }
}

fn is_default(limits: &AgentLimits) -> bool {
    *limits == AgentLimits::default()
}

/// `GET /agents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    pub agents: Vec<Agent>,
}

/// The longest name of an agent, in bytes.
pub const MAX_NAME: usize = 63;

/// Whether `name` is `[a-z][a-z0-9-]*` and at most [`MAX_NAME`] long.
pub fn is_agent_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The hash by which client and server agree whether an agent has changed since it was last deployed:
/// SHA-256 over the bytes of the unpacked tar stream, then the configuration as JSON.
#[derive(Clone, Default)]
pub struct SourceHash(Sha256);

impl SourceHash {
    /// Takes the next bytes of the unpacked tar stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash as 64 hex digits.
    pub fn finish(mut self, config: &AgentConfig) -> String {
        self.0.update(serde_json::to_vec(config).unwrap_or_default());
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_nothing_behind_it_is_none() {
        let nothing = r#"{"name":null,"command":null,"entrypoint":null,"mode":null,"port":null,"secrets":null,"ignore":null,"network":null,"limits":null}"#;
        let config: AgentConfig = serde_json::from_str(nothing).expect("a config");
        assert_eq!(config, AgentConfig::default());
    }
}
