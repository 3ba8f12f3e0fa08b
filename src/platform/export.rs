//! A session as an archive (tar, gzipped): its record, its transcript and its workspace, made a piece at a time.
//!
//! The workspace may be hostile and change meanwhile. Every entry holds exactly as many bytes as its header says; links are
//! kept as links; pipes, sockets and devices are left out; no entry carries rights beyond those of plain files, and none
//! comes after a link of the same name. What could not be kept stands in the last entry, `export.json`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{FileType, SeekFrom};
use tar::{EntryType, GnuExtSparseHeader, Header};

use super::tree::{Found, Node, Step, Walk};
use crate::wire::file::{ExportNote, ExportNotes};

/// Where the workspace lies in the archive.
const WORKSPACE: &[u8] = b"workspace";
/// A piece of the archive has about so many bytes.
const PIECE: usize = 128 << 10;
/// So much is read of a file at a time.
const CHUNK: usize = 128 << 10;
/// After so many bytes of the workspace a step ends, however little has come out of them.
const WORK: u64 = 8 << 20;
/// So many notes are kept, of each sort.
const MOST_NOTES: usize = 1000;
/// Holes smaller than this are written as zeros.
const LEAST_HOLE: u64 = 64 << 10;
/// A file in more pieces than this is written with its holes from there on.
const MOST_SEGMENTS: usize = 50_000;
/// In a header, and in one that extends it.
const SEGMENTS_HERE: usize = 4;

/// An archive in the making.
pub struct Export {
    out: GzEncoder<Vec<u8>>,
    /// What comes first: names and contents.
    records: VecDeque<(&'static str, Vec<u8>)>,
    /// When these were made, in seconds since the Unix epoch.
    at: u64,
    walk: Option<Walk>,
    workspace: PathBuf,
    file: Option<Copying>,
    notes: ExportNotes,
    is_done: bool,
}

/// A file that is being written.
struct Copying {
    file: File,
    path: Vec<u8>,
    /// Offsets and lengths of what is still to come.
    segments: VecDeque<(u64, u64)>,
    /// So many bytes of it have been written.
    written: u64,
    /// As the header has it.
    size: u64,
    became_smaller: bool,
}

impl Export {
    /// `walk` goes over what is at `workspace`, deep; `None` where there is nothing. `at` in seconds since the epoch.
    pub fn new(
        records: Vec<(&'static str, Vec<u8>)>,
        at: u64,
        walk: Option<Walk>,
        workspace: PathBuf,
    ) -> Self {
        Self {
            out: GzEncoder::new(Vec::new(), Compression::fast()),
            records: records.into(),
            at,
            walk,
            workspace,
            file: None,
            notes: ExportNotes::default(),
            is_done: false,
        }
    }

    /// The next piece, which may be empty; `None` at the end. Error: the archive can't be made whole. Blocks.
    pub fn step(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_done {
            return Ok(None);
        }
        let mut work = 0;
        while !self.is_done && work < WORK && self.out.get_ref().len() < PIECE {
            work += 512;
            if let Some(copying) = &mut self.file {
                let read = copying.copy(&mut self.out)?;
                work += read;
                if copying.segments.is_empty() {
                    self.finish_file()?;
                }
            } else if let Some((name, content)) = self.records.pop_front() {
                self.record(name, &content)?;
            } else {
                self.look_on()?;
            }
        }
        Ok(Some(std::mem::take(self.out.get_mut())))
    }

    fn look_on(&mut self) -> io::Result<()> {
        let step = match &mut self.walk {
            Some(walk) => walk.next()?,
            None => None,
        };
        match step {
            Some(Step::Found(found)) => self.add(found),
            Some(Step::Unread(path, error)) => {
                self.missing(&path, &error.to_string());
                Ok(())
            }
            Some(Step::Replaced(path)) => {
                self.note(&path, "it replaced a link of the same name while the workspace was read");
                Ok(())
            }
            None => self.end(),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        // One that was wiped meanwhile only seems to hold so little.
        if self.walk.as_ref().is_some_and(|walk| !walk.tree().is_still(&self.workspace)) {
            return Err(io::Error::other("the session ended while its workspace was read"));
        }
        let notes = serde_json::to_vec_pretty(&self.notes)?;
        self.record(ExportNotes::NAME, &notes)?;
        self.out.write_all(&[0; 1024])?;
        self.out.try_finish()?;
        self.is_done = true;
        Ok(())
    }

    fn record(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = header(EntryType::Regular, 0o644, self.at);
        header.set_size(content.len() as u64);
        self.head(header, name.as_bytes(), &[])?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn add(&mut self, found: Found) -> io::Result<()> {
        let Found { path, node } = found;
        let name = [WORKSPACE, b"/", &path].concat();
        let modified = u64::try_from(node.about.st_mtime).unwrap_or(0);
        let mode = node.about.st_mode & 0o777;
        match node.kind() {
            FileType::Directory => {
                self.head(
                    header(EntryType::Directory, mode | 0o700, modified),
                    &[&name, &b"/"[..]].concat(),
                    &[],
                )?;
            }
            FileType::Symlink => match node.target() {
                Ok(target) => {
                    self.head(header(EntryType::Symlink, 0o777, modified), &name, target.to_bytes())?;
                }
                Err(error) => {
                    self.missing(&path, &io::Error::from(error).to_string());
                    return Ok(());
                }
            },
            FileType::RegularFile => {
                match node.open().and_then(|file| segments(&node, &file).map(|s| (file, s))) {
                    Ok((file, segments)) => {
                        self.begin_file(
                            header(EntryType::Regular, mode | 0o600, modified),
                            &name,
                            &node,
                            &segments,
                        )?;
                        self.file = Some(Copying {
                            file,
                            path,
                            segments: segments.into(),
                            written: 0,
                            size: node.size(),
                            became_smaller: false,
                        });
                    }
                    Err(error) => {
                        self.missing(&path, &error.to_string());
                        return Ok(());
                    }
                }
            }
            other => {
                let what = match other {
                    FileType::Fifo => "a pipe",
                    FileType::Socket => "a socket",
                    _ => "a device",
                };
                self.note(&path, &format!("{what} can't be kept"));
                return Ok(());
            }
        }
        self.notes.entries += 1;
        Ok(())
    }

    fn begin_file(
        &mut self,
        mut header: Header,
        name: &[u8],
        node: &Node,
        segments: &[(u64, u64)],
    ) -> io::Result<()> {
        let kept: u64 = segments.iter().map(|(_, length)| length).sum();
        header.set_size(kept);
        let is_sparse = kept < node.size();
        let segments = if is_sparse { ended(segments, node.size()) } else { Vec::new() };
        let (here, more) = segments.split_at(segments.len().min(SEGMENTS_HERE));
        if is_sparse {
            header.set_entry_type(EntryType::GNUSparse);
            if let Some(gnu) = header.as_gnu_mut() {
                gnu.set_real_size(node.size());
                for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(here) {
                    slot.set_offset(*offset);
                    slot.set_length(*length);
                }
                gnu.set_is_extended(!more.is_empty());
            }
        }
        self.head(header, name, &[])?;
        let mut more = more;
        while !more.is_empty() {
            let mut extension = GnuExtSparseHeader::new();
            let (here, rest) = more.split_at(more.len().min(extension.sparse.len()));
            for (slot, (offset, length)) in extension.sparse.iter_mut().zip(here) {
                slot.set_offset(*offset);
                slot.set_length(*length);
            }
            extension.set_is_extended(!rest.is_empty());
            self.out.write_all(extension.as_bytes())?;
            more = rest;
        }
        Ok(())
    }

    fn finish_file(&mut self) -> io::Result<()> {
        let Some(copying) = self.file.take() else { return Ok(()) };
        self.pad(copying.written)?;
        if copying.became_smaller {
            self.note(&copying.path, "it became smaller while it was read: zeros stand for the rest");
        } else if copying.file.metadata()?.len() > copying.size {
            self.note(&copying.path, "it grew while it was read: only its beginning is kept");
        }
        Ok(())
    }

    /// A header with its name and, of a link, its target, byte by byte as they are; whatever does not fit into the header goes
    /// before it, in the way of GNU tar.
    fn head(&mut self, mut header: Header, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.long(b'K', target)?;
        self.long(b'L', name)?;
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.name.iter_mut().zip(name).for_each(|(slot, byte)| *slot = *byte);
            gnu.linkname.iter_mut().zip(target).for_each(|(slot, byte)| *slot = *byte);
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn long(&mut self, kind: u8, text: &[u8]) -> io::Result<()> {
        if text.len() < 100 {
            return Ok(());
        }
        let mut header = header(EntryType::new(kind), 0o644, 0);
        let length = text.len() as u64 + 1;
        header.set_size(length);
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.name.iter_mut().zip(b"././@LongLink").for_each(|(slot, byte)| *slot = *byte);
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(text)?;
        self.out.write_all(&[0])?;
        self.pad(length)
    }

    /// Zeros up to a whole block.
    fn pad(&mut self, length: u64) -> io::Result<()> {
        let over = usize::try_from(length % 512).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; 512][over..]) }
    }

    fn note(&mut self, path: &[u8], reason: &str) {
        add_note(&mut self.notes.notes, &mut self.notes.more_notes, path, reason);
    }

    fn missing(&mut self, path: &[u8], reason: &str) {
        add_note(&mut self.notes.missing, &mut self.notes.more_missing, path, reason);
    }
}

fn add_note(notes: &mut Vec<ExportNote>, more: &mut u64, path: &[u8], reason: &str) {
    if notes.len() == MOST_NOTES {
        *more += 1;
    } else {
        let path: String = std::ffi::OsStr::from_bytes(path).to_string_lossy().chars().take(1000).collect();
        notes.push(ExportNote { path, reason: reason.to_owned() });
    }
}

impl Copying {
    /// Writes the next bytes; how many.
    fn copy(&mut self, out: &mut impl io::Write) -> io::Result<u64> {
        let Some((offset, length)) = self.segments.front_mut() else { return Ok(0) };
        let mut buffer = vec![0; CHUNK];
        let most = usize::try_from(*length).unwrap_or(CHUNK).min(CHUNK);
        let buffer = &mut buffer[..most];
        let read = self.file.read_at(buffer, *offset)?;
        if read == 0 {
            // Zeros fill the place, so that what follows is where it belongs.
            self.became_smaller = true;
            buffer.fill(0);
        }
        let bytes = if read == 0 { most } else { read };
        out.write_all(&buffer[..bytes])?;
        let done = bytes as u64;
        *offset += done;
        *length -= done;
        self.written += done;
        if *length == 0 {
            self.segments.pop_front();
        }
        Ok(done)
    }
}

/// With an empty one at the file's end, which says how long the file is where it ends in a hole.
fn ended(segments: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let mut segments = segments.to_vec();
    if segments.last().is_none_or(|(offset, length)| offset + length < size) {
        segments.push((size, 0));
    }
    segments
}

/// Offsets and lengths of what a file holds besides holes.
fn segments(node: &Node, file: &File) -> io::Result<Vec<(u64, u64)>> {
    let size = node.size();
    let blocks = u64::try_from(node.about.st_blocks).unwrap_or(0);
    if size == 0 {
        return Ok(Vec::new());
    }
    if blocks.saturating_mul(512) >= size {
        return Ok(vec![(0, size)]);
    }
    let mut segments: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // Nothing but a hole.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows of no holes.
            Err(_) if segments.is_empty() => return Ok(vec![(0, size)]),
            Err(error) => return Err(error.into()),
        };
        if data >= size {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size);
        if end <= data {
            break;
        }
        // Readers take each for whole blocks.
        let (data, end) = (data - data % 512, end.next_multiple_of(512).min(size));
        let is_full = segments.len() == MOST_SEGMENTS;
        match segments.last_mut() {
            Some((offset, length)) if is_full => {
                *length = size - *offset;
                break;
            }
            Some((offset, length)) if data.saturating_sub(*offset + *length) < LEAST_HOLE => {
                *length = end - *offset
            }
            _ => segments.push((data, end - data)),
        }
        at = end;
    }
    Ok(segments)
}

fn header(kind: EntryType, mode: u32, modified: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(modified);
    header
}
