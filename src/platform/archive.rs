//! An agent's archive, unpacked so that nothing of it lands or points outside its folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::EntryType;

use super::{Error, Result};
use crate::wire::agent::SourceHash;

/// How much an archive may unpack to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub entries: u64,
    /// Of all files together.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 100_000, bytes: 1 << 30 }
    }
}

/// The tar stream on its way to the reader: hashed, and cut where it is larger than any archive within bounds.
struct Stream<'a> {
    gzip: GzDecoder<&'a [u8]>,
    hash: SourceHash,
    left: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.gzip.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(count)
    }
}

/// Unpacks a gzipped tar into `folder`, which is made and must not exist. Answers with the hash of the tar stream.
///
/// Links stay links; modes lose setuid, setgid and sticky. On an error the folder is left half full.
pub fn unpack(archive: &[u8], folder: &Path, bounds: Bounds) -> Result<SourceHash> {
    make_folder(folder)?;
    // An entry takes a header and padding beside its bytes, and may have long names.
    let left = bounds.bytes.saturating_add(bounds.entries.saturating_mul(2048));
    let mut stream = Stream { gzip: GzDecoder::new(archive), hash: SourceHash::default(), left };
    let mut unpacked = Unpacked { root: folder, bounds, entries: 0, bytes: 0 };
    {
        let mut tar = tar::Archive::new(&mut stream);
        for entry in tar.entries().map_err(unreadable)? {
            unpacked.take(entry.map_err(unreadable)?)?;
        }
    }
    // What follows the last entry is part of the stream, and so of the hash.
    io::copy(&mut stream, &mut io::sink()).map_err(unreadable)?;
    Ok(stream.hash)
}

struct Unpacked<'a> {
    root: &'a Path,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
}

impl Unpacked<'_> {
    fn take<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<()> {
        self.entries += 1;
        if self.entries > self.bounds.entries {
            return Err(Error::TooLarge {
                what: "The number of files in the agent's archive",
                limit: self.bounds.entries.to_string(),
            });
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let named = entry.path().map_err(unreadable)?.into_owned();
        let name = inside(&named).ok_or_else(|| refused(&named, "lies outside its folder"))?;
        if name.as_os_str().is_empty() {
            return Ok(());
        }
        let path = self.place(&name)?;
        match kind {
            EntryType::Directory => match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => Ok(()),
                Ok(_) => Err(refused(&name, "is both a folder and a file")),
                Err(_) => make_folder(&path),
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
                let mut file = self.make_file(&name, &path, mode)?;
                self.copy(&mut entry, &mut file, &path)
            }
            EntryType::Symlink => {
                let target = link_target(&entry, &name)?;
                let from = name.parent().unwrap_or(Path::new(""));
                if target.is_absolute() || inside(&from.join(&target)).is_none() {
                    return Err(refused(&name, "is a link that points outside the agent's folder"));
                }
                self.clear(&name, &path)?;
                std::os::unix::fs::symlink(&target, &path).map_err(|error| cannot_write(&path, error))
            }
            EntryType::Link => {
                let target = link_target(&entry, &name)?;
                let target = inside(&target)
                    .ok_or_else(|| refused(&name, "is a link that points outside the agent's folder"))?;
                let source = self.place(&target)?;
                let meta = source
                    .symlink_metadata()
                    .ok()
                    .filter(|meta| meta.is_file())
                    .ok_or_else(|| refused(&name, "is a link to a file that is not in the archive"))?;
                if source == path {
                    return Ok(());
                }
                let mut from = File::open(&source).map_err(|error| cannot_write(&source, error))?;
                let mut file = self.make_file(&name, &path, meta.permissions().mode() & 0o777)?;
                self.copy(&mut from, &mut file, &path)
            }
            _ => Err(refused(&name, "is neither a file, a folder nor a link")),
        }
    }

    /// The place of an entry, with the folders above it made. None of them may be a link.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let mut path = self.root.to_owned();
        let mut parts = name.components().peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_none() {
                break;
            }
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(refused(name, "lies under something that is no folder")),
                Err(_) => make_folder(&path)?,
            }
        }
        Ok(path)
    }

    /// Makes room for an entry that comes a second time.
    fn clear(&self, name: &Path, path: &Path) -> Result<()> {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => Err(refused(name, "is both a folder and a file")),
            Ok(_) => std::fs::remove_file(path).map_err(|error| cannot_write(path, error)),
            Err(_) => Ok(()),
        }
    }

    fn make_file(&self, name: &Path, path: &Path, mode: u32) -> Result<File> {
        self.clear(name, path)?;
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let file = made.map_err(|error| cannot_write(path, error))?;
        // Again, past the umask: a script that was executable for all stays so.
        file.set_permissions(PermissionsExt::from_mode(mode)).map_err(|error| cannot_write(path, error))?;
        Ok(file)
    }

    fn copy(&mut self, from: &mut impl Read, to: &mut File, path: &Path) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                return Ok(());
            }
            self.bytes += count as u64;
            if self.bytes > self.bounds.bytes {
                return Err(too_large(self.bounds));
            }
            to.write_all(buffer.get(..count).unwrap_or_default())
                .map_err(|error| cannot_write(path, error))?;
        }
    }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, name: &Path) -> Result<PathBuf> {
    match entry.link_name().map_err(unreadable)? {
        Some(target) if !target.as_os_str().is_empty() => Ok(target.into_owned()),
        _ => Err(refused(name, "is a link to nothing")),
    }
}

/// A path without `.` and `..`, if it stays inside the folder that it starts in.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            Component::ParentDir | Component::Prefix(_) | Component::RootDir => return None,
        }
    }
    Some(inside)
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o755).create(path).map_err(|error| cannot_write(path, error))
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    // A name that the file system doesn't take is the archive's fault, not the disk's.
    match source.kind() {
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
            refused(path, "has a name that cannot be stored")
        }
        _ => Error::Folder { doing: "write", path: path.to_owned(), source },
    }
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return too_large(Bounds::default());
    }
    Error::Invalid {
        message: format!("The agent's archive cannot be read: {error}"),
        hint: Some("It must be a gzipped tar: superserve deploy makes one.".into()),
    }
}

fn refused(name: &Path, why: &str) -> Error {
    Error::Invalid {
        message: format!("The agent's archive cannot be used: '{}' {why}", name.display()),
        hint: Some("Name it under ignore in superserve.yaml, or take it out of the folder.".into()),
    }
}

fn too_large(bounds: Bounds) -> Error {
    Error::TooLarge {
        what: "The unpacked archive of the agent",
        limit: format!("{} MiB", bounds.bytes >> 20),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
