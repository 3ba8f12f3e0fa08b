//! What an agent's owner allows it: `limits` of its configuration.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Bounds on one session of an agent. What is not given has the server's default.
///
/// In `superserve.yaml` a time is written `10m`, a size `512MiB`; either may be a plain number, of seconds or bytes,
/// and is one over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentLimits {
    /// How long a run may take, in seconds.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31622400)]
    pub run: Option<u64>,
    /// How many messages a session takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000000000)]
    pub turns: Option<u64>,
    /// How much the agent may say in one reply, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_125_899_906_842_624_i64)]
    pub reply: Option<u64>,
    /// How many processes and threads its sandbox may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4000000)]
    pub processes: Option<u64>,
    /// How much memory: of each process, and where the machine has control groups of all together, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16777216, maximum = 1_125_899_906_842_624_i64)]
    pub memory: Option<u64>,
    /// How many files a process may hold open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16, maximum = 1073741824)]
    pub open_files: Option<u64>,
    /// How large a file may be that a process writes, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 4096, maximum = 1_125_899_906_842_624_i64)]
    pub file_size: Option<u64>,
    /// How much `/workspace` and the home folder may hold together, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1048576, maximum = 1_125_899_906_842_624_i64)]
    pub workspace: Option<u64>,
    /// How many files and folders they may hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000000000)]
    pub files: Option<u64>,
    /// How much `/tmp` may hold, in bytes.
    #[serde(default, deserialize_with = "bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1048576, maximum = 1_125_899_906_842_624_i64)]
    pub tmp: Option<u64>,
}

/// What a limit counts, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Bytes,
    Things,
}

impl AgentLimits {
    /// Every limit by its key, with what it counts, and the least and the most that make sense.
    fn rows(&self) -> [(&'static str, Option<u64>, Unit, u64, u64); 10] {
        use Unit::{Bytes, Seconds, Things};
        const MIB: u64 = 1 << 20;
        const MOST_BYTES: u64 = 1 << 50;
        const MOST: u64 = 1_000_000_000;
        [
            ("run", self.run, Seconds, 1, 366 * 24 * 60 * 60),
            ("turns", self.turns, Things, 1, MOST),
            ("reply", self.reply, Bytes, 1, MOST_BYTES),
            ("processes", self.processes, Things, 1, 4_000_000),
            // An interpreter that can't even begin is of no use to anybody.
            ("memory", self.memory, Bytes, 16 * MIB, MOST_BYTES),
            ("open_files", self.open_files, Things, 16, 1 << 30),
            ("file_size", self.file_size, Bytes, 4096, MOST_BYTES),
            ("workspace", self.workspace, Bytes, MIB, MOST_BYTES),
            ("files", self.files, Things, 1, MOST),
            ("tmp", self.tmp, Bytes, MIB, MOST_BYTES),
        ]
    }

    /// The first limit that makes no sense, as a sentence that names its key.
    pub fn nonsense(&self) -> Option<String> {
        self.rows().into_iter().find_map(|(key, value, unit, least, most)| {
            let value = value?;
            let (what, bound) = match value {
                value if value < least => ("at least", least),
                value if value > most => ("at most", most),
                _ => return None,
            };
            Some(format!("limits.{key} is {}, but must be {what} {}", unit.text(value), unit.text(bound)))
        })
    }

    /// The limits that are set, as a person writes them: `run 10m, memory 512 MiB`.
    pub fn summary(&self) -> String {
        let set = self.rows().into_iter().filter_map(|(key, value, unit, ..)| {
            Some(format!("{} {}", key.replace('_', " "), unit.text(value?)))
        });
        set.collect::<Vec<_>>().join(", ")
    }
}

impl Unit {
    fn text(self, value: u64) -> String {
        match self {
            Self::Seconds => humantime::format_duration(std::time::Duration::from_secs(value)).to_string(),
            Self::Bytes => size_text(value),
            Self::Things => value.to_string(),
        }
    }
}

/// Bytes in the largest unit that shows them well: `512 MiB`, `1.5 GiB`, `700 B`.
pub fn size_text(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, power)) = units.into_iter().find(|(_, power)| bytes >> power > 0) else {
        return format!("{bytes} B");
    };
    let tenths = u128::from(bytes) * 10 / (1 << power);
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
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
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 30) + 1, "1 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = |limits: &str| serde_json::from_str::<AgentLimits>(limits).expect("limits").nonsense();
        assert_eq!(wrong("{}"), None);
        let all = r#"{"run":1,"turns":1,"reply":1,"processes":1,"memory":16777216,"open_files":16,
            "file_size":4096,"workspace":1048576,"files":1,"tmp":1048576}"#;
        assert_eq!(wrong(all), None);
        for key in [
            "run",
            "turns",
            "reply",
            "processes",
            "memory",
            "open_files",
            "file_size",
            "workspace",
            "files",
            "tmp",
        ] {
            let zero = wrong(&format!(r#"{{"{key}":0}}"#)).expect("a complaint");
            assert!(zero.starts_with(&format!("limits.{key} is 0")) && zero.contains("at least"), "{zero}");
            let vast = wrong(&format!(r#"{{"{key}":{}}}"#, u64::MAX)).expect("a complaint");
            assert!(vast.contains(key) && vast.contains("at most"), "{vast}");
        }
        assert_eq!(
            wrong(r#"{"memory":"1KiB"}"#).as_deref(),
            Some("limits.memory is 1 KiB, but must be at least 16 MiB")
        );
    }

    #[test]
    fn the_schema_has_the_same_bounds() {
        use utoipa::PartialSchema;
        let schema = serde_json::to_value(AgentLimits::schema()).expect("a schema");
        for (key, _, _, least, most) in AgentLimits::default().rows() {
            let field = &schema["properties"][key];
            assert_eq!(
                (field["minimum"].as_u64(), field["maximum"].as_u64()),
                (Some(least), Some(most)),
                "{key}"
            );
        }
        assert_eq!(schema["properties"].as_object().expect("fields").len(), 10);
    }

    #[test]
    fn what_is_set_is_summed_up() {
        let limits: AgentLimits =
            serde_json::from_str(r#"{"run":"10m","memory":"512MiB","open_files":64}"#).expect("limits");
        assert_eq!(limits.summary(), "run 10m, memory 512 MiB, open files 64");
        assert_eq!(AgentLimits::default().summary(), "");
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
