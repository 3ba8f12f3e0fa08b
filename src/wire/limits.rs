//! What an agent's owner allows it: `limits` of its configuration.

use serde::{Deserialize, Deserializer, Serialize};

/// Bounds on one session of an agent. What is not given has the server's default.
///
/// In `superserve.yaml` a time is written `10m`, a size `512MiB`; either may be a plain number, of seconds or bytes,
/// and is one over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentLimits {
    /// How long a run may take, in seconds.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// How many messages a session takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// How much the agent may say in one reply, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    pub reply: Option<u64>,
    /// How many processes and threads its sandbox may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// How much memory: of each process, and where the machine has control groups of all together, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How many files a process may hold open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// How large a file may be that a process writes, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// How much `/workspace` and the home folder may hold together, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    pub workspace: Option<u64>,
    /// How many files and folders they may hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// How much `/tmp` may hold, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    pub tmp: Option<u64>,
}

/// A number, or a text that means one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    written(deserializer, "a time such as 90s, 10m or 2h", |text| {
        humantime::parse_duration(text).ok().map(|time| time.as_secs())
    })
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    written(deserializer, "a size such as 64KiB, 512MiB or 2GiB", size)
}

fn written<'de, D: Deserializer<'de>>(
    deserializer: D,
    form: &str,
    parse: impl Fn(&str) -> Option<u64>,
) -> Result<Option<u64>, D::Error> {
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => parse(text.trim())
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not {form}"))),
    }
}

/// The number of bytes that a text means: `512`, `64K`, `64KiB`, `1.5 GiB`. Units count by 1024, however they are
/// written, since that is what people mean by them.
pub fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024_f64.powi(power);
    // Far beyond any disk; what is below is exact enough.
    (bytes.is_finite() && bytes < 1e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64K", 64 << 10),
            ("64 KiB", 64 << 10),
            ("512MB", 512 << 20),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-1", "1e9", "GiB", "1..2M"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn limits_are_numbers_or_texts_and_nothing_else() {
        let limits: AgentLimits =
            serde_json::from_str(r#"{"run":"10m","memory":"512MiB","turns":3,"reply":7}"#).expect("limits");
        assert_eq!((limits.run, limits.memory), (Some(600), Some(512 << 20)));
        assert_eq!((limits.turns, limits.reply, limits.tmp), (Some(3), Some(7), None));
        assert_eq!(
            serde_json::to_string(&limits).expect("json"),
            r#"{"run":600,"turns":3,"reply":7,"memory":536870912}"#
        );
        for wrong in [r#"{"run":"soon"}"#, r#"{"memory":"much"}"#, r#"{"cpu":1}"#, r#"{"turns":-1}"#] {
            assert!(serde_json::from_str::<AgentLimits>(wrong).is_err(), "{wrong}");
        }
    }
}
