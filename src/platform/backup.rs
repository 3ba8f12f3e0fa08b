//! A copy of what is kept: the database as it is at one moment, and the code of all agents. Workspaces are not in it, nor is
//! the key of the secrets.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;

use super::workspace::Layout;
use super::{Error, Platform, Result, blocking};

/// So many pieces wait to be read.
const PIECES: usize = 16;
/// How large a piece is, in bytes.
const PIECE: usize = 64 * 1024;

impl Platform {
    /// A tar, gzipped, that makes a home when it is unpacked into an empty one. It is put aside first, so that a slow
    /// reader holds nobody up; a stream that is dropped leaves nothing behind.
    ///
    /// # Errors
    /// If the store can't be read or there is no room to put the copy aside. What fails later ends the stream with an error.
    pub async fn backup(&self) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + use<>> {
        let aside =
            Aside { layout: self.0.layout.clone(), name: format!("{:016x}", self.0.clock.random() >> 64) };
        {
            // Code and database are of one moment.
            let _deploying = self.0.deploying.lock().await;
            let _revisions = self.0.revisions.read().await;
            let (layout, folder) = (self.0.layout.clone(), aside.folder());
            blocking(move || {
                let failed = |doing| {
                    let path = folder.clone();
                    move |source| Error::Folder { doing, path, source }
                };
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(failed("make"))?;
                link(&layout.agents(), &folder.join("agents")).map_err(failed("fill"))
            })
            .await?;
            self.0.store.copy_to(&aside.folder().join("superserve.db")).await?;
        }
        let (pieces, ready) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let to = Pieces { to: pieces.clone(), waiting: Vec::with_capacity(PIECE) };
            if let Err(error) = pack(&aside.folder(), to) {
                // Whoever has gone away needs no error.
                let _ = pieces.blocking_send(Err(error));
            }
            drop(aside);
        });
        Ok(stream::unfold(ready, |mut ready| async move { Some((ready.recv().await?, ready)) }))
    }
}

/// A folder beside the others, gone with this.
struct Aside {
    layout: Layout,
    name: String,
}

impl Aside {
    fn folder(&self) -> std::path::PathBuf {
        self.layout.aside().join(&self.name)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = self.layout.wipe(&self.folder()) {
            tracing::warn!(%error, "what was put aside for a backup stays until the next start");
        }
    }
}

/// The same tree with the same files, which are never written again; links as links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        std::fs::DirBuilder::new().mode(0o700).create(&to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((source, target));
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(source)?, target)?;
            } else {
                std::fs::hard_link(source, target)?;
            }
        }
    }
    Ok(())
}

fn pack(folder: &Path, to: Pieces) -> io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(to, Compression::fast()));
    tar.follow_symlinks(false);
    tar.append_path_with_name(folder.join("superserve.db"), "superserve.db")?;
    tar.append_dir_all("agents", folder.join("agents"))?;
    tar.into_inner()?.finish()?.flush()
}

/// Hands on what is written, in pieces.
struct Pieces {
    to: mpsc::Sender<io::Result<Vec<u8>>>,
    waiting: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.waiting);
        match piece.is_empty() {
            true => Ok(()),
            false => self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }
}
