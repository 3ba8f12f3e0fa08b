//! A folder that somebody hostile writes to, looked at from its top: never out of it, never through a link, never into a
//! pipe or a device, however it changes meanwhile.
//!
//! Everything is first opened as a mere place (`O_PATH`), which waits for nothing and does nothing, then looked at, and only
//! a file or a folder is opened in earnest: the very one that was looked at, by way of /proc.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmod, fstat, openat, readlinkat};
use rustix::io::Errno;

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const EARNEST: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// So many folders of a walk are held open; those above are found again when the walk comes back to them.
const OPEN_FOLDERS: usize = 32;
/// The most that a walk sees, so that one comes to its end where an agent makes files faster than they are seen.
const MOST: u64 = 5_000_000;

/// Such a folder.
pub struct Tree {
    top: OwnedFd,
}

/// Something in it, looked at and not opened.
pub struct Node {
    pub place: OwnedFd,
    pub about: Stat,
}

impl Node {
    fn of(place: OwnedFd) -> rustix::io::Result<Self> {
        let about = fstat(&place)?;
        Ok(Self { place, about })
    }

    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.about.st_mode)
    }

    /// The size of a file.
    pub fn size(&self) -> u64 {
        u64::try_from(self.about.st_size).unwrap_or(0)
    }

    /// Opens the file that it is, for reading.
    pub fn open(&self) -> io::Result<File> {
        if self.kind() != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.reopen(OFlags::RDONLY, 0o400)?.into())
    }

    /// Reads the folder that it is.
    fn read(&self) -> rustix::io::Result<Dir> {
        if self.kind() != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Dir::new(self.reopen(OFlags::RDONLY | OFlags::DIRECTORY, 0o500)?)
    }

    fn reopen(&self, flags: OFlags, rights: u32) -> rustix::io::Result<OwnedFd> {
        let open = || openat(CWD, by_descriptor(self.place.as_fd()), flags | EARNEST, Mode::empty());
        or_unlocked(self.place.as_fd(), rights, open)
    }

    /// Where the link that it is leads, as it is written there.
    pub fn target(&self) -> rustix::io::Result<CString> {
        readlinkat(&self.place, "", Vec::new())
    }

    /// What is called so in the folder that it is; nothing is followed.
    pub fn child(&self, name: &[u8]) -> rustix::io::Result<Self> {
        child(self.place.as_fd(), name)
    }
}

fn child(folder: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Node> {
    Node::of(or_unlocked(folder, 0o100, || openat(folder, name, PLACE, Mode::empty()))?)
}

/// The descriptor's own path: what it leads to is what is open there, whatever has its name by now.
pub fn by_descriptor(descriptor: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// Does `work`; where rights are missing once more, while the owner of `node`, a file or a folder, has these. What an agent
/// locks, it locks for itself: whoever owns the session reads it all.
pub fn or_unlocked<T>(
    node: BorrowedFd<'_>,
    rights: u32,
    work: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match work() {
        Err(Errno::ACCESS) => {}
        done => return done,
    }
    let about = fstat(node)?;
    let kind = FileType::from_raw_mode(about.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::ACCESS);
    }
    let mode = about.st_mode & 0o7777;
    chmod(by_descriptor(node), Mode::from_raw_mode(mode | rights)).map_err(|_| Errno::ACCESS)?;
    let done = work();
    let _ = chmod(by_descriptor(node), Mode::from_raw_mode(mode));
    done
}

/// A folder of a tree, as a tree of its own.
impl From<Node> for Tree {
    fn from(folder: Node) -> Self {
        Self { top: folder.place }
    }
}

impl Tree {
    /// `None` if there is no such folder.
    pub fn open(top: &Path) -> io::Result<Option<Self>> {
        match openat(CWD, top, PLACE | OFlags::DIRECTORY, Mode::empty()) {
            Ok(top) => Ok(Some(Self { top })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the folder still has this name.
    pub fn is_still(&self, top: &Path) -> bool {
        let same = |there: &Stat, here: &Stat| (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino);
        match (rustix::fs::statat(CWD, top, AtFlags::SYMLINK_NOFOLLOW), fstat(&self.top)) {
            (Ok(there), Ok(here)) => same(&there, &here),
            _ => false,
        }
    }

    /// The folder itself.
    pub fn top(&self) -> io::Result<Node> {
        Ok(Node::of(self.top.try_clone()?)?)
    }

    /// What stands at the end of these names. Errors: `NOENT` if nothing does, `NOTDIR` if there is something on the way that
    /// is no folder, a link among them.
    pub fn find<N: AsRef<[u8]>>(&self, parts: &[N]) -> io::Result<Node> {
        let mut node = self.top()?;
        for part in parts {
            if node.kind() != FileType::Directory {
                return Err(Errno::NOTDIR.into());
            }
            node = node.child(part.as_ref())?;
        }
        Ok(node)
    }
}

/// What a walk finds.
pub struct Found {
    /// From where the walk began.
    pub path: Vec<u8>,
    pub node: Node,
}

/// What a walk tells.
pub enum Step {
    Found(Found),
    /// This could not be read: its path, from where the walk began.
    Unread(Vec<u8>, io::Error),
    /// Another thing of this name was found before, which is a link: whoever follows it would be led out by this one.
    Replaced(Vec<u8>),
}

/// All that a folder holds: a folder before what is in it. Holds few descriptors and little memory, however deep the
/// folders are and however many they hold.
pub struct Walk {
    tree: Tree,
    frames: Vec<Frame>,
    /// Of the folder that is read now.
    path: Vec<u8>,
    deep: bool,
    seen: u64,
}

struct Frame {
    /// `None` where it would have been one open too many.
    dir: Option<Dir>,
    /// What to read on from.
    offset: i64,
    /// The length of the path of the folder above.
    above: usize,
    /// The links that were found in it, by their names.
    links: HashSet<u64>,
}

impl Walk {
    /// Over what is in `tree`; of its folders' own content only if it goes `deep`.
    pub fn new(tree: Tree, deep: bool) -> io::Result<Self> {
        let dir = tree.top()?.read()?;
        let first = Frame { dir: Some(dir), offset: 0, above: 0, links: HashSet::new() };
        Ok(Self { tree, frames: vec![first], path: Vec::new(), deep, seen: 0 })
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The folder at the end of the path, anew.
    fn find_again(&mut self) -> io::Result<()> {
        let parts: Vec<&[u8]> =
            self.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let mut dir = self.tree.find(&parts)?.read()?;
        if let Some(frame) = self.frames.last_mut() {
            dir.seek(frame.offset)?;
            frame.dir = Some(dir);
        }
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.above);
        }
    }

    fn enter(&mut self, name: &[u8], dir: Dir) {
        let above = self.path.len();
        self.path = self.path_of(name);
        self.frames.push(Frame { dir: Some(dir), offset: 0, above, links: HashSet::new() });
        if let Some(far) = self.frames.len().checked_sub(OPEN_FOLDERS + 1)
            && let Some(frame) = self.frames.get_mut(far)
        {
            frame.dir = None;
        }
    }

    /// The next thing; `None` at the end. Error: there is more than any walk sees.
    pub fn next(&mut self) -> io::Result<Option<Step>> {
        loop {
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let Some(dir) = &mut frame.dir else {
                let Err(error) = self.find_again() else { continue };
                let path = self.path.clone();
                self.leave();
                return Ok(Some(Step::Unread(path, error)));
            };
            let entry = match dir.read() {
                None => {
                    self.leave();
                    continue;
                }
                Some(Err(error)) => {
                    let path = self.path.clone();
                    self.leave();
                    return Ok(Some(Step::Unread(path, error.into())));
                }
                Some(Ok(entry)) => entry,
            };
            frame.offset = entry.offset();
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.seen += 1;
            if self.seen > MOST {
                return Err(io::Error::other(format!("there are more than {MOST} files and folders")));
            }
            let looked = dir.fd().and_then(|folder| child(folder, name));
            let node = match looked {
                Ok(node) => node,
                // Gone since.
                Err(Errno::NOENT) => continue,
                Err(error) => return Ok(Some(Step::Unread(self.path_of(name), error.into()))),
            };
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            let name_hash = hasher.finish();
            if node.kind() == FileType::Symlink {
                frame.links.insert(name_hash);
            } else if frame.links.contains(&name_hash) {
                return Ok(Some(Step::Replaced(self.path_of(name))));
            }
            let path = self.path_of(name);
            if self.deep && node.kind() == FileType::Directory {
                match node.read() {
                    Ok(dir) => self.enter(name, dir),
                    Err(error) => return Ok(Some(Step::Unread(path, error.into()))),
                }
            }
            return Ok(Some(Step::Found(Found { path, node })));
        }
    }
}
