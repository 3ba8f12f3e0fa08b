//! Secrets on their way to the server, and what may be one. Values go over the wire in one direction alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A text that nobody may read by accident: it shows itself as `[secret]`, and its memory is wiped when it goes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl PartialSchema for Secret {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
            .description(Some("A secret's value. It goes to the server and never comes back."))
            .max_length(Some(MAX_VALUE))
            .write_only(true)
            .build()
            .into()
    }
}

impl ToSchema for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// `PATCH /agents/{id}/secrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetSecrets {
    /// By key.
    pub secrets: BTreeMap<String, Secret>,
}

/// What every call about secrets answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretKeys {
    pub keys: Vec<String>,
}

/// The longest key, in bytes.
pub const MAX_KEY: usize = 255;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 64 << 10;
/// The most secrets that an agent may have.
pub const MAX_SECRETS: usize = 100;

/// Variables that decide what is run and how superserve talks with it: an agent gets them from superserve alone.
const RESERVED: [&str; 20] = [
    "BASH_ENV",
    "ENV",
    "HOME",
    "IFS",
    "LANG",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PWD",
    "PYTHONHOME",
    "PYTHONIOENCODING",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONUNBUFFERED",
    "SHELL",
    "TERM",
    "TMPDIR",
    "USER",
    "VIRTUAL_ENV",
    "_STDBUF_O",
];
const RESERVED_BEGINNINGS: [&str; 2] = ["LD_", "SUPERSERVE"];

/// What is wrong with a secret's key, as a sentence; none if it can be one.
pub fn wrong_key(key: &str) -> Option<String> {
    let shown: String = key.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
    if key.is_empty() {
        Some("A secret's key is empty".to_owned())
    } else if key.len() > MAX_KEY {
        Some(format!("The key '{shown}…' is longer than {MAX_KEY} bytes"))
    } else if key.contains(['=', '\0']) {
        Some(format!("'{shown}' can't be a secret's key: it contains '=' or a NUL character"))
    } else if [".", ".."].contains(&key) {
        Some(format!("'{shown}' can't be a secret's key: no address can name it"))
    } else if RESERVED.contains(&key) || RESERVED_BEGINNINGS.iter().any(|start| key.starts_with(start)) {
        Some(format!("'{shown}' can't be a secret's key: superserve sets this variable itself"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let set: SetSecrets = serde_json::from_str(r#"{"secrets":{"KEY":"hunter2"}}"#).expect("secrets");
        assert_eq!(set.secrets["KEY"].reveal(), "hunter2");
        assert_eq!(format!("{set:?}"), r#"SetSecrets { secrets: {"KEY": [secret]} }"#);
    }

    #[test]
    fn keys_are_names_that_are_free() {
        for key in ["OPENAI_API_KEY", "a b", "ä/%", "path", "LDX", "-", "a.b", "1"] {
            assert_eq!(wrong_key(key), None, "{key}");
        }
        for key in ["", "A=B", "a\0", "..", "PATH", "LD_PRELOAD", "SUPERSERVE_TURN", &"k".repeat(256)] {
            assert!(wrong_key(key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(RESERVED.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
