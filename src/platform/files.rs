//! The files of a session's workspace: listed, read, written, and exported with its record and transcript.
//!
//! Reading needs nobody's leave, whatever the agent does meanwhile. A write is put into its place by the session's own task,
//! so that it can't come into the way of the session's end.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use futures_util::stream::{self, Stream, StreamExt};
use rustix::fs::FileType;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Command};
use super::export::Export;
use super::put::{self, Draft, Owner};
use super::tree::{Found, Node, Step, Tree, Walk};
use super::workspace::Folders;
use super::{Error, Platform, Result, blocking};
use crate::store::StoredSession;
use crate::wire::file::{self, FileEntry, FileKind, FileRow};
use crate::wire::session::EndError;
use crate::wire::{EndReason, ErrorCode, ErrorDetails, Session, SessionId, Status, Timestamp};

/// The largest file that can be put into a workspace, in bytes.
pub const MAX_FILE: u64 = 4 << 30;
/// So many bytes of a file are read, or written, at a time.
const CHUNK: usize = 256 << 10;
/// So many rows of a listing are made at a time.
const ROWS: usize = 500;

/// A file's content. It ends with an error if it can't be read to its end, or the server stops.
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    pub pieces: Pieces,
}

/// What comes a piece at a time.
pub type Pieces = stream::BoxStream<'static, io::Result<Vec<u8>>>;

/// What is done to a session's workspace by its task.
pub type Work = Box<dyn FnOnce(Owner) -> Result<Option<FileEntry>> + Send>;

/// A path as its parts, or the error that says what is wrong with it.
pub fn checked(path: &[u8]) -> Result<Vec<&[u8]>> {
    file::parts(path).map_err(|error| Error::Invalid {
        message: format!("The path '{}' {error}", shown(path)),
        hint: Some("Give a path inside of the workspace, such as notes/today.txt.".into()),
    })
}

/// A path as a sentence has it.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).collect()
}

/// Why this path can't be used so.
pub fn not_usable(path: &[u8], error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Error::FileNotFound(shown(path)),
        Some(Errno::NOTDIR) => Error::Invalid {
            message: format!("'{}' lies below something that is no folder, or is a link", shown(path)),
            hint: Some("Links are not followed: name the file itself.".into()),
        },
        Some(Errno::AGAIN) => Error::Invalid {
            message: format!("'{}' is held by the agent", shown(path)),
            hint: Some("Try again in a minute.".into()),
        },
        _ => Error::Folder { doing: "use", path: PathBuf::from(shown(path)), source: error },
    }
}

/// Why what is there is no file.
pub fn not_a_file(path: &[u8], node: &Node) -> Option<Error> {
    let (what, hint) = match node.kind() {
        FileType::RegularFile => return None,
        FileType::Directory => {
            ("a folder", "Name a file in it: superserve sessions files ID ls shows them.".to_owned())
        }
        FileType::Symlink => {
            let target = node.target().unwrap_or_default();
            ("a link", format!("It leads to {}: name the file itself.", shown(target.to_bytes())))
        }
        FileType::Fifo => ("a pipe", "Only files can be read and written.".to_owned()),
        FileType::Socket => ("a socket", "Only files can be read and written.".to_owned()),
        _ => ("a device", "Only files can be read and written.".to_owned()),
    };
    Some(Error::Invalid { message: format!("'{}' is {what}, not a file", shown(path)), hint: Some(hint) })
}

pub fn entry(path: &[u8], node: &Node) -> FileEntry {
    let kind = match node.kind() {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    };
    let millis = node.about.st_mtime.saturating_mul(1000);
    let is_text = std::str::from_utf8(path).is_ok();
    FileEntry {
        path: String::from_utf8_lossy(path).into_owned(),
        kind,
        size: if kind == FileKind::File { node.size() } else { 0 },
        modified_at: Timestamp::from_millis(millis),
        executable: kind == FileKind::File && node.about.st_mode & 0o100 != 0,
        target: (kind == FileKind::Link)
            .then(|| node.target().map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())),
        encoded: (!is_text).then(|| file::encode(path)),
    }
}

impl Platform {
    /// What is in a folder of the workspace, and in the folders below if it is `deep`, in no order; of something else itself.
    /// A workspace in which nothing has run yet is empty. Errors: no such session, or it has ended; nothing is there.
    pub async fn list_files(
        &self,
        id: &SessionId,
        path: &[u8],
        deep: bool,
    ) -> Result<impl Stream<Item = io::Result<Vec<FileRow>>> + Send + 'static> {
        let folders = self.readable(id).await?;
        let parts: Vec<Vec<u8>> = checked(path)?.into_iter().map(<[u8]>::to_vec).collect();
        let path = path.to_vec();
        let listing = blocking(move || {
            let Some(tree) = opened(&folders)? else {
                return if parts.is_empty() {
                    Ok(Listing::Done)
                } else {
                    Err(Error::FileNotFound(shown(&path)))
                };
            };
            let node = tree.find(&parts).map_err(|error| not_usable(&path, error))?;
            if node.kind() != FileType::Directory {
                return Ok(Listing::One(Box::new(entry(&parts.join(&b'/'), &node))));
            }
            let walk = Walk::new(node.into(), deep).map_err(|error| not_usable(&path, error))?;
            Ok(Listing::Of { walk, below: parts.join(&b'/') })
        })
        .await?;
        Ok(steps(listing, self.0.stop.clone(), Listing::rows))
    }

    /// A file's content, as long as it is now. Errors: no such session, or it has ended; there is none; it is no file.
    pub async fn read_file(&self, id: &SessionId, path: &[u8]) -> Result<Content> {
        let folders = self.readable(id).await?;
        let path = path.to_vec();
        let (file, node) = blocking(move || {
            let parts = checked(&path)?;
            let Some(tree) = opened(&folders)? else { return Err(Error::FileNotFound(shown(&path))) };
            let node = tree.find(&parts).map_err(|error| not_usable(&path, error))?;
            if let Some(error) = not_a_file(&path, &node) {
                return Err(error);
            }
            Ok((node.open().map_err(|error| not_usable(&path, error))?, node))
        })
        .await?;
        let (size, executable) = (node.size(), entry(b"", &node).executable);
        let reading = Reading { file, at: 0, size };
        Ok(Content { size, executable, pieces: steps(reading, self.0.stop.clone(), Reading::next).boxed() })
    }

    /// Puts a file into the workspace, in place of what was there: whole or not at all. Folders on the way are made. Errors: no
    /// such session, or it has ended; what is there is no file; it is too large; the machine refuses the sandbox, and so can't
    /// say whose file it would be.
    pub async fn write_file(
        &self,
        id: &SessionId,
        path: &[u8],
        executable: bool,
        mut content: impl Stream<Item = Result<Vec<u8>>> + Unpin + Send,
    ) -> Result<FileEntry> {
        if checked(path)?.is_empty() || path.ends_with(b"/") {
            return Err(Error::Invalid {
                message: format!("'{}' names no file", shown(path)),
                hint: Some("Give the name that it is to have in the workspace.".into()),
            });
        }
        // Makes the workspace, where nothing has run yet.
        self.work_on(id, Box::new(|_| Ok(None))).await?;
        let folders = self.0.layout.session(id);
        let mut draft = blocking(move || match opened(&folders)? {
            Some(tree) => Draft::begin(tree),
            None => Err(Error::Internal("finding the workspace")),
        })
        .await?;
        let mut waiting = Vec::new();
        let mut size = 0;
        loop {
            let piece = content.next().await.transpose()?;
            let is_last = piece.is_none();
            if let Some(piece) = piece {
                size += piece.len() as u64;
                if size > MAX_FILE {
                    return Err(too_large());
                }
                waiting.extend_from_slice(&piece);
            }
            if waiting.len() >= CHUNK || is_last {
                let bytes = std::mem::take(&mut waiting);
                draft = blocking(move || {
                    draft.file.write_all(&bytes).map_err(put::failed)?;
                    Ok(draft)
                })
                .await?;
            }
            if is_last {
                break;
            }
        }
        let path = path.to_vec();
        let placed =
            self.work_on(id, Box::new(move |owner| draft.place(&path, owner, executable).map(Some))).await?;
        placed.ok_or(Error::Internal("putting a file into its place"))
    }

    /// The session as an archive (tar, gzipped), a piece at a time. It ends with an error if it can't be made whole. Errors: no
    /// such session, or it has ended.
    pub async fn export(&self, id: &SessionId) -> Result<Pieces> {
        let folders = self.readable(id).await?;
        let session = self.session(id).await?;
        let messages = self.0.store.messages(id, None).await?;
        let at = u64::try_from(self.0.clock.now_millis() / 1000).unwrap_or(0);
        let export = blocking(move || {
            let record =
                |value: serde_json::Result<Vec<u8>>| value.map_err(|_| Error::Internal("writing a record"));
            let records = vec![
                ("session.json", record(serde_json::to_vec_pretty(&session))?),
                ("transcript.json", record(serde_json::to_vec_pretty(&messages))?),
            ];
            let walk = match opened(&folders)? {
                Some(tree) => Some(Walk::new(tree, true).map_err(|error| not_usable(b"/workspace", error))?),
                None => None,
            };
            Ok(Export::new(records, at, walk, folders.workspace))
        })
        .await?;
        let id = id.clone();
        let pieces = steps(export, self.0.stop.clone(), Export::step).map(move |piece| {
            piece.inspect_err(|error| tracing::warn!(session = %id, %error, "an export was broken off"))
        });
        Ok(pieces.boxed())
    }

    /// The folders of a session that has not ended.
    async fn readable(&self, id: &SessionId) -> Result<Folders> {
        let session = self.session(id).await?;
        match session.status {
            Status::Ended => Err(wiped(&session, session.end_reason)),
            _ => Ok(self.0.layout.session(id)),
        }
    }

    async fn work_on(&self, id: &SessionId, work: Work) -> Result<Option<FileEntry>> {
        self.ask(id, |answer| Command::Work { work, answer }).await
    }
}

pub fn too_large() -> Error {
    Error::TooLarge { what: "The file", limit: format!("{} GiB", MAX_FILE >> 30) }
}

fn wiped(session: &Session, reason: Option<EndReason>) -> Error {
    let agent = session.agent_name.clone().unwrap_or_else(|| session.agent_id.to_string());
    Error::Wiped { agent, expired: reason == Some(EndReason::Expired) }
}

impl Actor {
    /// Does something to the workspace, which is made if there is none yet.
    pub(super) async fn work(&mut self, work: Work) -> Result<Option<FileEntry>> {
        let stored = self.usable().await.map_err(|error| match error {
            Error::Ended { agent } => Error::Wiped { agent, expired: false },
            Error::Expired { agent } => Error::Wiped { agent, expired: true },
            other => other,
        })?;
        let folders = self.inner.layout.session(&self.id);
        if !folders.workspace.exists() {
            let sandbox = self.inner.sandbox.clone().map_err(Error::Sandbox)?;
            let history = self.inner.store.history(&self.id).await?;
            let src = self.inner.layout.revision(&stored.session.agent_id, stored.revision).join("src");
            let (folders, layout, uid) =
                (folders.clone(), self.inner.layout.clone(), self.inner.uid(&stored));
            blocking(move || folders.prepare(&src, &history, &layout, sandbox.as_ref(), uid)).await?;
        }
        do_work(&self.inner, &stored, work).await
    }
}

/// Does something to a workspace that is there, between other things that its session's task does, or in the middle of a run.
pub(super) async fn do_work(
    inner: &super::Inner,
    stored: &StoredSession,
    work: Work,
) -> Result<Option<FileEntry>> {
    let sandbox = inner.sandbox.clone().map_err(Error::Sandbox)?;
    let owner = Owner(sandbox.owner(inner.uid(stored)));
    let folders = inner.layout.session(&stored.session.id);
    if !folders.workspace.exists() {
        return Err(Error::Busy(None));
    }
    blocking(move || work(owner)).await
}

fn opened(folders: &Folders) -> Result<Option<Tree>> {
    let path = &folders.workspace;
    Tree::open(path).map_err(|source| Error::Folder { doing: "open", path: path.clone(), source })
}

/// What `step` gives, a call each, where it may block. Nothing is held between two calls but the state: a reader who is slow, or
/// never comes back, costs no thread.
fn steps<S: Send + 'static, T: Send + 'static>(
    state: S,
    stop: CancellationToken,
    step: fn(&mut S) -> io::Result<Option<T>>,
) -> impl Stream<Item = io::Result<T>> + Send + 'static {
    stream::unfold(Some((state, stop)), move |state| async move {
        let (mut state, stop) = state?;
        if stop.is_cancelled() {
            return Some((Err(io::Error::other("the server is shutting down")), None));
        }
        let span = tracing::Span::current();
        let stepped = tokio::task::spawn_blocking(move || {
            let made = span.in_scope(|| step(&mut state));
            (state, made)
        });
        match stepped.await {
            Ok((state, Ok(Some(made)))) => Some((Ok(made), Some((state, stop)))),
            Ok((_, Ok(None))) => None,
            Ok((_, Err(error))) => Some((Err(error), None)),
            Err(_) => Some((Err(io::Error::other("the server failed at working with files")), None)),
        }
    })
}

/// A file that is read.
struct Reading {
    file: File,
    at: u64,
    size: u64,
}

impl Reading {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = usize::try_from(self.size - self.at).unwrap_or(CHUNK).min(CHUNK);
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; left];
        let read = self.file.read_at(&mut piece, self.at)?;
        if read == 0 {
            return Err(io::Error::other("the file became smaller while it was read"));
        }
        piece.truncate(read);
        self.at += read as u64;
        Ok(Some(piece))
    }
}

/// A listing that is made.
enum Listing {
    One(Box<FileEntry>),
    Of { walk: Walk, below: Vec<u8> },
    Done,
}

impl Listing {
    fn rows(&mut self) -> io::Result<Option<Vec<FileRow>>> {
        let (walk, below) = match self {
            Self::Done => return Ok(None),
            Self::One(_) => {
                let Self::One(one) = std::mem::replace(self, Self::Done) else { return Ok(None) };
                return Ok(Some(vec![FileRow::Entry(*one)]));
            }
            Self::Of { walk, below } => (walk, below),
        };
        let whole = |path: &[u8]| {
            if below.is_empty() { path.to_vec() } else { [&below[..], b"/", path].concat() }
        };
        let mut rows = Vec::new();
        while rows.len() < ROWS {
            let told = match walk.next() {
                Ok(None) => {
                    *self = Self::Done;
                    break;
                }
                Ok(Some(Step::Found(Found { path, node }))) => {
                    rows.push(FileRow::Entry(entry(&whole(&path), &node)));
                    continue;
                }
                Ok(Some(Step::Replaced(_))) => continue,
                Ok(Some(Step::Unread(path, error))) => {
                    format!("'{}' can't be read: {error}", shown(&whole(&path)))
                }
                Err(error) => error.to_string(),
            };
            let details = ErrorDetails { code: ErrorCode::Internal, hint: None };
            rows.push(FileRow::Error { error: EndError { message: told, details } });
            *self = Self::Done;
            break;
        }
        Ok(Some(rows))
    }
}
