//! The calls about the files of a session's workspace.

use reqwest::{Body, Method};

use super::download::Download;
use super::request::Lines;
use super::{Client, Error, Result};
use crate::wire::file::{self, FileRow};
use crate::wire::{FileEntry, SessionId};

impl Client {
    /// `GET /sessions/{id}/files/{path}?list=true`: what is in a folder, and in those below if it is `deep`; of something else
    /// itself. In order of the paths.
    pub async fn files(&self, id: &SessionId, path: &str, deep: bool) -> Result<Vec<FileEntry>> {
        let mut query = vec![("list", "true")];
        if deep {
            query.push(("recursive", "true"));
        }
        let request = self.request(Method::GET, &address(id, path)?).query(&query);
        let mut rows = Lines::of(self.ask(request).await?);
        let mut entries = Vec::new();
        while let Some(row) = rows.next().await {
            match row? {
                FileRow::Entry(entry) => entries.push(entry),
                FileRow::Error { error } => {
                    return Err(Error::api(error.details.code, error.message, error.details.hint));
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// `GET /sessions/{id}/files/{path}`: a file's content, as it comes.
    pub async fn read_file(&self, id: &SessionId, path: &str) -> Result<Download> {
        let request = self.request(Method::GET, &address(id, path)?);
        Ok(Download(self.ask(request).await?))
    }

    /// `PUT /sessions/{id}/files/{path}`: a file's new content.
    pub async fn write_file(
        &self,
        id: &SessionId,
        path: &str,
        content: impl Into<Content>,
        executable: bool,
    ) -> Result<FileEntry> {
        let mut request = self.request(Method::PUT, &address(id, path)?);
        if executable {
            request = request.query(&[("executable", "true")]);
        }
        request = match content.into() {
            Content::Text(text) => request.body(text),
            // Told beforehand, so that one that is too large is not sent in vain.
            Content::File(file, length) => {
                request.header("content-length", length).body(Body::wrap_stream(pieces(file, length)))
            }
        };
        let body = self.ask(request).await?.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))
    }

    /// `GET /sessions/{id}/export`: the session as an archive (tar, gzipped), as it comes.
    pub async fn export(&self, id: &SessionId) -> Result<Download> {
        let request = self.request(Method::GET, &format!("/sessions/{id}/export"));
        Ok(Download(self.ask(request).await?))
    }
}

/// What is put into a workspace.
#[derive(Debug)]
pub enum Content {
    Text(String),
    /// An open file and its length in bytes.
    File(std::fs::File, u64),
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<(std::fs::File, u64)> for Content {
    fn from((file, length): (std::fs::File, u64)) -> Self {
        Self::File(file, length)
    }
}

fn pieces(
    file: std::fs::File,
    length: u64,
) -> impl futures_util::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    use tokio::io::AsyncReadExt as _;
    let file = tokio::fs::File::from_std(file).take(length);
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then_some((piece, file)))
    })
}

/// So many bytes of a file are sent at a time.
const PIECE: usize = 256 << 10;

/// Why this path names nothing in a workspace, if it doesn't: told before anything is asked.
pub fn not_in_workspace(path: &str) -> Option<Error> {
    let error = file::parts(path.as_bytes()).err()?;
    Some(Error::Input {
        message: format!("the path '{path}' {error}"),
        hint: Some("Give a path inside of the workspace, such as notes/today.txt.".into()),
    })
}

/// Where a path of a workspace is asked for. Its parts are those that stand there: what a URL would take for something else
/// (`.`, `..`) is not among them.
fn address(id: &SessionId, path: &str) -> Result<String> {
    let parts = file::parts(path.as_bytes())
        .map_err(|_| not_in_workspace(path).unwrap_or(Error::Protocol("a path".into())))?;
    let mut address = format!("/sessions/{id}/files");
    for part in parts {
        address.push('/');
        address.push_str(&file::encode(part));
    }
    // Whoever writes it means a folder.
    if path.ends_with('/') && path.len() > 1 {
        address.push('/');
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_reaches_another_route() {
        let id = SessionId::from_random(1);
        let address =
            |path: &str| address(&id, path).map(|text| text.replace(&format!("/sessions/{id}"), "S"));
        for (path, expected) in [
            ("", "S/files"),
            ("/", "S/files"),
            ("/workspace/a b", "S/files/a%20b"),
            ("a/./b?x#y%2e", "S/files/a/b%3Fx%23y%252e"),
            ("é\n", "S/files/%C3%A9%0A"),
            ("a/", "S/files/a/"),
        ] {
            assert_eq!(address(path).expect("an address"), expected, "{path}");
        }
        for path in ["..", "a/../../x", "/etc/passwd", "a\0"] {
            assert!(address(path).is_err(), "{path}");
        }
    }
}
