//! An agent's archive, unpacked so that nothing of it lands or points outside its folder.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::{EntryType, PaxExtensions};

use super::{Error, Result};
use crate::wire::agent::SourceHash;

/// The longest extension of an entry: a name that is too long for its header. In bytes.
const MAX_EXTENSION: u64 = 64 << 10;
/// So many links are followed.
const MAX_LINKS: usize = 40;

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
    let mut unpacked = Unpacked { root: folder, bounds, entries: 0, bytes: 0, links: BTreeSet::new() };
    {
        let mut tar = tar::Archive::new(&mut stream);
        let mut names = LongNames::default();
        // Raw, since the crate takes extensions of any size into memory.
        for entry in tar.entries().map_err(unreadable)?.raw(true) {
            let mut entry = entry.map_err(unreadable)?;
            if !names.take(&mut entry)? {
                unpacked.take(entry, std::mem::take(&mut names))?;
            }
        }
    }
    unpacked.check_links()?;
    // What follows the last entry is part of the stream, and so of the hash.
    io::copy(&mut stream, &mut io::sink()).map_err(unreadable)?;
    Ok(stream.hash)
}

/// What entries before an entry say of it: names that its header has no room for.
#[derive(Default)]
struct LongNames {
    path: Option<PathBuf>,
    link: Option<PathBuf>,
}

impl LongNames {
    /// Takes an entry that is about the next one; says whether it is one.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(name_of(&read_extension(entry)?)),
            EntryType::GNULongLink => self.link = Some(name_of(&read_extension(entry)?)),
            EntryType::XHeader => {
                let bytes = read_extension(entry)?;
                for extension in PaxExtensions::new(&bytes) {
                    let extension = extension.map_err(unreadable)?;
                    match extension.key_bytes() {
                        b"path" => self.path = Some(name_of(extension.value_bytes())),
                        b"linkpath" => self.link = Some(name_of(extension.value_bytes())),
                        // Where the next entry ends would be another place for every reader.
                        key if key == b"size" || key.starts_with(b"GNU.sparse.") => {
                            return Err(unreadable(io::Error::other("it has sparse or very large files")));
                        }
                        _ => {}
                    }
                }
            }
            // About all that follow, and nothing that we take up.
            EntryType::XGlobalHeader => drop(read_extension(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What an extension says, if it is of a sensible length.
fn read_extension<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>> {
    if entry.size() > MAX_EXTENSION {
        return Err(Error::TooLarge {
            what: "A name in the agent's archive",
            limit: format!("{} KiB", MAX_EXTENSION >> 10),
        });
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// A name, up to the NUL at its end.
fn name_of(bytes: &[u8]) -> PathBuf {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(name))
}

struct Unpacked<'a> {
    root: &'a Path,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    /// The links that were made, by their names.
    links: BTreeSet<PathBuf>,
}

impl Unpacked<'_> {
    fn take<R: Read>(&mut self, mut entry: tar::Entry<'_, R>, long: LongNames) -> Result<()> {
        self.entries += 1;
        if self.entries > self.bounds.entries {
            return Err(Error::TooLarge {
                what: "The number of files in the agent's archive",
                limit: self.bounds.entries.to_string(),
            });
        }
        let kind = entry.header().entry_type();
        let named = match long.path {
            Some(path) => path,
            None => entry.path().map_err(unreadable)?.into_owned(),
        };
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
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
                let mut file = self.make_file(&name, &path, mode)?;
                self.copy(&mut entry, &mut file, &path)
            }
            EntryType::Symlink => {
                let target = link_target(&entry, long.link, &name)?;
                let from = name.parent().unwrap_or(Path::new(""));
                if target.is_absolute() || inside(&from.join(&target)).is_none() {
                    return Err(refused(&name, "is a link that points outside the agent's folder"));
                }
                self.clear(&name, &path)?;
                std::os::unix::fs::symlink(&target, &path).map_err(|error| cannot_write(&path, error))?;
                self.links.insert(name);
                Ok(())
            }
            EntryType::Link => {
                let target = link_target(&entry, long.link, &name)?;
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

    /// Refuses links that lead out of the folder by way of other links, as `b -> a/..` does where `a -> .`. Only when all is
    /// there: a later entry may change where an earlier link leads.
    fn check_links(&self) -> Result<()> {
        match self.links.iter().find(|name| leads_outside(self.root, name)) {
            Some(name) => Err(refused(name, "is a link that points outside the agent's folder")),
            None => Ok(()),
        }
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

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, long: Option<PathBuf>, name: &Path) -> Result<PathBuf> {
    if let Some(target) = long.filter(|target| !target.as_os_str().is_empty()) {
        return Ok(target);
    }
    match entry.link_name().map_err(unreadable)? {
        Some(target) if !target.as_os_str().is_empty() => Ok(target.into_owned()),
        _ => Err(refused(name, "is a link to nothing")),
    }
}

/// Whether a path below `root` leads out of it, links followed. One that goes in a circle leads nowhere.
fn leads_outside(root: &Path, name: &Path) -> bool {
    let mut left: Vec<PathBuf> = vec![name.to_owned()];
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(path) = left.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        left.push(parts.as_path().to_owned());
        match part {
            Component::CurDir => {}
            Component::ParentDir if at.pop() => {}
            Component::ParentDir | Component::Prefix(_) | Component::RootDir => return true,
            Component::Normal(part) => {
                at.push(part);
                if let Ok(target) = std::fs::read_link(root.join(&at)) {
                    at.pop();
                    links += 1;
                    if links > MAX_LINKS {
                        return false;
                    }
                    left.push(target);
                }
            }
        }
    }
    false
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
