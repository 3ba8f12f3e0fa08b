//! A file on its way into a workspace: it has no name until it is whole, and then takes its place at once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, linkat, mkdirat, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;

use super::files::{checked, entry, not_a_file, not_usable, shown};
use super::tree::{Node, Tree, by_descriptor, or_unlocked};
use super::{Error, Result};
use crate::wire::file::FileEntry;

/// Whose the files of a session are, where it has a uid of its own.
#[derive(Clone, Copy, Debug)]
pub struct Owner(pub Option<u32>);

/// What a folder takes that is locked by whoever owns it.
const ALL: u32 = 0o700;

/// Such a file.
pub struct Draft {
    tree: Tree,
    pub file: File,
    /// Its name at the workspace's top, where files need one.
    name: Option<String>,
}

impl Draft {
    /// An empty one.
    pub fn begin(tree: Tree) -> Result<Self> {
        let make = || -> io::Result<(OwnedFd, Option<String>)> {
            let top = tree.top()?;
            let top = top.place.as_fd();
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let nameless = or_unlocked(top, ALL, || openat(top, ".", flags | OFlags::TMPFILE, mode));
            match nameless {
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
                file => return Ok((file?, None)),
            }
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            loop {
                let name = new_name();
                match or_unlocked(top, ALL, || openat(top, &name, flags, mode)) {
                    Err(Errno::EXIST) => {}
                    file => return Ok((file?, Some(name))),
                }
            }
        };
        let (file, name) = make().map_err(failed)?;
        Ok(Self { tree, file: file.into(), name })
    }

    /// Puts it where it belongs.
    pub fn place(self, path: &[u8], owner: Owner, executable: bool) -> Result<FileEntry> {
        let parts = checked(path)?;
        let Some((name, above)) = parts.split_last() else { return Err(Error::FileNotFound(shown(path))) };
        let mut folder = self.tree.top().map_err(failed)?;
        for part in above {
            folder = descend(&folder, part, owner).map_err(|error| not_usable(path, error.into()))?;
        }
        if folder.kind() != FileType::Directory {
            return Err(not_usable(path, Errno::NOTDIR.into()));
        }
        let mut mode = if executable { 0o755 } else { 0o644 };
        match folder.child(name) {
            Ok(old) => match not_a_file(path, &old) {
                Some(error) => return Err(error),
                None if executable => mode = (old.about.st_mode & 0o777) | 0o111,
                None => mode = old.about.st_mode & 0o777,
            },
            Err(Errno::NOENT) => {}
            Err(error) => return Err(not_usable(path, error.into())),
        }
        if let Owner(Some(uid)) = owner {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            fchown(&self.file, Some(user), Some(group)).map_err(|error| failed(error.into()))?;
        }
        fchmod(&self.file, Mode::from_raw_mode(mode)).map_err(|error| failed(error.into()))?;
        self.link(&folder, name).map_err(|error| not_usable(path, error.into()))?;
        let node = folder.child(name).map_err(|error| not_usable(path, error.into()))?;
        Ok(entry(&parts.join(&b'/'), &node))
    }

    /// Gives it its name: at once, or in place of what has it.
    fn link(&self, folder: &Node, name: &[u8]) -> rustix::io::Result<()> {
        let here = folder.place.as_fd();
        let own = by_descriptor(self.file.as_fd());
        loop {
            let new = new_name();
            match or_unlocked(here, ALL, || linkat(CWD, &own, here, &new, AtFlags::SYMLINK_FOLLOW)) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error),
            }
            // What the name leads to by now may be another's: then that takes the place, which could have been put there anyway.
            let moved = or_unlocked(here, ALL, || renameat(here, &new, here, name));
            match moved {
                Err(Errno::NOENT) => {}
                Ok(()) => return Ok(()),
                Err(error) => {
                    let _ = or_unlocked(here, ALL, || unlinkat(here, &new, AtFlags::empty()));
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let (Some(name), Ok(top)) = (&self.name, self.tree.top()) {
            let _ = unlinkat(&top.place, name, AtFlags::empty());
        }
    }
}

/// The folder of this name, which is made if there is nothing.
fn descend(folder: &Node, name: &[u8], owner: Owner) -> rustix::io::Result<Node> {
    if folder.kind() != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    match folder.child(name) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let here = folder.place.as_fd();
    match or_unlocked(here, ALL, || mkdirat(here, name, Mode::from_raw_mode(0o755))) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let made = folder.child(name)?;
    // Ours, and so the one that was just made, or another that this server made and did not get to give away.
    if let Owner(Some(uid)) = owner
        && made.kind() == FileType::Directory
        && made.about.st_uid == rustix::process::geteuid().as_raw()
    {
        chownat(&made.place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)), AtFlags::EMPTY_PATH)?;
    }
    Ok(made)
}

fn new_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".superserve-{}-{count}.tmp", std::process::id())
}

/// Why a draft could not be written.
pub fn failed(source: io::Error) -> Error {
    Error::Folder { doing: "write to", path: PathBuf::from("/workspace"), source }
}
