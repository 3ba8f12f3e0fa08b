//! A body that is too large to hold, on its way from the server into a file.

use std::io::Write;
use std::path::Path;

use reqwest::Response;

use super::{Error, Result};

/// What the server sends, not read yet.
#[derive(Debug)]
pub struct Download(pub(super) Response);

impl Download {
    /// The next piece; `None` at the end. A connection that breaks before that is an error.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.chunk().await?.map(|piece| piece.to_vec()))
    }

    /// Writes all of it to a file that only its owner may read, and answers how many bytes. A file that is there is
    /// replaced once the new one is whole and on the disk; what fails leaves it as it was.
    pub async fn save(mut self, path: &Path) -> Result<u64> {
        let failed = |error: std::io::Error| Error::Input {
            message: format!("cannot write {}: {error}", path.display()),
            hint: Some("Name a file in a folder that you may write.".to_owned()),
        };
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
