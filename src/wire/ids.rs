//! Identifiers: a prefix that names the kind, then hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A text that is not an identifier of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {kind} ID")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $digits:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What every ID of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// An ID whose digits are the 32 hex digits of `random`, cut to this kind's length.
            pub fn from_random(random: u128) -> Self {
                let digits = format!("{random:032x}");
                Self(format!("{}{}", $prefix, &digits[..$digits]))
            }

            /// The whole ID, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The hex digits, without the prefix.
            pub fn digits(&self) -> &str {
                &self.0[$prefix.len()..]
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                match text.strip_prefix($prefix) {
                    Some(digits)
                        if digits.len() == $digits
                            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
                    {
                        Ok(Self(text.to_owned()))
                    }
                    _ => Err(ParseIdError { text: text.to_owned(), kind: $kind }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(concat!("The ID of ", $kind, ".")))
                    .pattern(Some(format!("^{}[0-9a-f]{{{}}}$", $prefix, $digits)))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// `ses_` and 32 hex digits.
    SessionId, "ses_", 32, "a session"
);
id!(
    /// `agt_` and 12 hex digits.
    AgentId, "agt_", 12, "an agent"
);
id!(
    /// `run_` and 32 hex digits: one message and the reply to it.
    RunId, "run_", 32, "a run"
);

impl SessionId {
    /// How many digits a list shows.
    pub const SHORT: usize = 12;

    /// The digits of an ID, or of its beginning, as people and the original clients write it: `ses_` before them and
    /// dashes among them don't count.
    pub fn written_digits(text: &str) -> String {
        text.strip_prefix(Self::PREFIX).unwrap_or(text).chars().filter(|c| *c != '-').collect()
    }

    /// A whole ID as people and the original clients write it.
    pub fn from_written(text: &str) -> Result<Self, ParseIdError> {
        format!("{}{}", Self::PREFIX, Self::written_digits(text)).parse()
    }

    /// The first 12 digits, as lists show them.
    pub fn short(&self) -> &str {
        &self.digits()[..Self::SHORT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_strictly() {
        let id: SessionId = "ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c".parse().expect("a session ID");
        assert_eq!(id.short(), "5a3f7b9c2e1d");
        for wrong in
            ["", "ses_", "5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c", "ses_5A3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c", "agt_1"]
        {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
        let written = "5a3f7b9c-2e1d-4f6a-8b0c-9d1e2f3a4b5c";
        assert_eq!(SessionId::from_written(written), Ok(id.clone()));
        assert_eq!(SessionId::from_written(&format!("ses_{written}")), Ok(id));
        assert_eq!(SessionId::written_digits("ses_5a-3F"), "5a3F");
        assert!(SessionId::from_written("5a3f").is_err());
        assert_eq!(AgentId::from_random(0xabc).as_str(), "agt_000000000000");
    }
}
