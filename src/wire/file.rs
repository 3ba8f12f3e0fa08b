//! What a session's workspace holds, and how its files are named.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use super::session::EndError;

/// Where the agent sees its workspace.
const WORKSPACE: &[u8] = b"workspace";

/// The header that says of a file whether its owner may execute it.
pub const EXECUTABLE: &str = "x-superserve-executable";

/// One thing in a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileEntry {
    /// From the workspace's top, parts divided by `/`. What is not UTF-8 in it stands as U+FFFD.
    pub path: String,
    pub kind: FileKind,
    /// In bytes; 0 of what is no file.
    pub size: u64,
    pub modified_at: Timestamp,
    /// Whether its owner may execute it; of files alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Where a link leads, as it is written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The path as a URL has it, where `path` is not exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded: Option<String>,
}

/// What sort of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    File,
    Folder,
    Link,
    /// A pipe, a socket or a device: nothing that could be read.
    Other,
}

impl FileKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Link => "link",
            Self::Other => "other",
        }
    }
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FileRow {
    Entry(FileEntry),
    /// The listing ends here, and is not whole.
    Error {
        error: EndError,
    },
}

/// The last entry of an exported archive, `export.json`: what its reader must know of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportNotes {
    /// How many files, folders and links of the workspace are there.
    pub entries: u64,
    /// What has no place in an archive, and what another writer changed while it was read.
    pub notes: Vec<ExportNote>,
    /// What could not be read: without it the archive is not whole.
    pub missing: Vec<ExportNote>,
    /// How many more there were of both, once the lists were long enough.
    #[serde(default)]
    pub more_notes: u64,
    #[serde(default)]
    pub more_missing: u64,
}

impl ExportNotes {
    /// The name of its entry.
    pub const NAME: &'static str = "export.json";

    /// Whether all that can be kept is there.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.more_missing == 0
    }
}

/// Why something is not, or not quite, in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportNote {
    pub path: String,
    pub reason: String,
}

/// Why a path names nothing in a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("has a part '..', which could lead out of the workspace")]
    Dots,
    #[error("has a part that is longer than 255 bytes")]
    Long,
    #[error("holds a NUL character")]
    Nul,
    #[error("lies outside of /workspace")]
    Outside,
}

/// The parts of a path in a workspace; of the workspace itself none. `notes/a.txt`, `./notes/a.txt` and
/// `/workspace/notes/a.txt` are the same.
pub fn parts(path: &[u8]) -> Result<Vec<&[u8]>, BadPath> {
    if path.contains(&0) {
        return Err(BadPath::Nul);
    }
    let mut parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if path.starts_with(b"/") && !parts.is_empty() && parts.remove(0) != WORKSPACE {
        return Err(BadPath::Outside);
    }
    if parts.iter().any(|part| *part == b"..") {
        return Err(BadPath::Dots);
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err(BadPath::Long);
    }
    Ok(parts)
}

/// A path as it stands in a URL: every byte but the plainest as `%41`.
pub fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'/' | b'.' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The bytes that a URL's path means. A `%` that no two hex digits follow stands for itself.
pub fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_cut_into_parts_and_lead_nowhere_else() {
        let text = |path: &str| {
            let parts = parts(path.as_bytes())?;
            Ok(parts
                .iter()
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect::<Vec<_>>()
                .join("|"))
        };
        for (path, expected) in [
            ("", Ok("")),
            ("/", Ok("")),
            ("/workspace", Ok("")),
            ("a", Ok("a")),
            ("./a//b/", Ok("a|b")),
            ("/workspace/a/b", Ok("a|b")),
            ("workspace/a", Ok("workspace|a")),
            ("...", Ok("...")),
            ("..", Err(BadPath::Dots)),
            ("a/../b", Err(BadPath::Dots)),
            ("/workspace/../etc/passwd", Err(BadPath::Dots)),
            ("/etc/passwd", Err(BadPath::Outside)),
            ("/workspaces/a", Err(BadPath::Outside)),
            ("a\0b", Err(BadPath::Nul)),
        ] {
            assert_eq!(text(path), expected.map(str::to_owned), "{path}");
        }
        assert_eq!(parts("x".repeat(256).as_bytes()), Err(BadPath::Long));
    }

    #[test]
    fn a_row_is_an_entry_or_the_end() {
        let row: FileRow = serde_json::from_str(
            r#"{"path":"a","kind":"link","size":0,"modified_at":"2026-03-09T10:15:00Z","target":"b"}"#,
        )
        .expect("a row");
        assert!(matches!(row, FileRow::Entry(entry) if entry.target.as_deref() == Some("b")));
        let row: FileRow =
            serde_json::from_str(r#"{"error":{"message":"no","code":"internal"}}"#).expect("a row");
        assert!(matches!(row, FileRow::Error { error } if error.message == "no"));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_url(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = encode(&path);
            prop_assert!(text.is_ascii());
            prop_assert_eq!(decode(&text), path);
        }

        #[test]
        fn any_text_is_decoded(text in any::<String>()) {
            decode(&text);
        }
    }
}
