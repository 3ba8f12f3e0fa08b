//! A body that is too large to hold, on its way from the server.

use std::io::Write;
use std::path::Path;

use reqwest::Response;

use super::{Error, Result};
use crate::wire::file::EXECUTABLE;

/// What the server sends, not read yet.
#[derive(Debug)]
pub struct Download(pub(super) Response);

impl Download {
    /// Whether it is a file that its owner may execute.
    pub fn is_executable(&self) -> bool {
        self.0.headers().get(EXECUTABLE).is_some_and(|value| value == "true")
    }

    /// The next piece; `None` after the last. Error: they broke off.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self.0.chunk().await {
            Ok(piece) => Ok(piece.map(Into::into)),
            Err(_) => Err(Error::Unreachable {
                message: "the server's answer broke off before its end".into(),
                hint: Some("superserve server logs says why.".into()),
            }),
        }
    }

    /// Writes all of it to a file that only its owner may read, and answers how many bytes. A file that is there is
    /// replaced once the new one is whole and on the disk; what fails leaves it as it was. A link is followed. Error: what
    /// is there is no file.
    pub async fn save(mut self, path: &Path) -> Result<u64> {
        let failed = |error: std::io::Error| Error::Input {
            message: format!("cannot write {}: {error}", path.display()),
            hint: Some("Name a file in a folder that you may write, or - for stdout.".to_owned()),
        };
        let target = std::fs::canonicalize(path);
        let path = target.as_deref().unwrap_or(path);
        // A device or a pipe would be replaced too, and be missed by every other program.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(failed(std::io::Error::other("it is no file")));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut bytes = 0;
        while let Some(piece) = self.next().await? {
            file.write_all(&piece).map_err(failed)?;
            bytes += piece.len() as u64;
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(bytes)
    }
}
