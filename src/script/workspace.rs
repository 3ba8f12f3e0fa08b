//! The files of a session's workspace, as scripts list, read, write and keep them.

use std::io::Read as _;

use flate2::read::GzDecoder;
use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};

use super::failure::{At, Failure, Fallible};
use super::files::{self, NewFile};
use super::runtime::{Change, Runtime};
use super::session::{OptionMap, Session};
use super::time::Moment;
use crate::client;
use crate::render::Cleaner;
use crate::wire::file::{ExportNote, ExportNotes};
use crate::wire::{ErrorCode, FileEntry, Status};

/// The most that `export.json` of an archive may be, in bytes.
const MOST_NOTES: u64 = 16 << 20;
/// How often in a piece Ctrl-C is looked for while an archive is read back, in bytes.
const LOOK: usize = 1 << 20;

/// One thing as a map: `path`, `kind`, `size`, `modified_at`, `executable`, `target` of a link.
fn row(entry: &FileEntry) -> Dynamic {
    let mut map = Map::new();
    map.insert("path".into(), entry.path.as_str().into());
    map.insert("kind".into(), entry.kind.as_str().into());
    map.insert("size".into(), i64::try_from(entry.size).unwrap_or(i64::MAX).into());
    map.insert("modified_at".into(), Dynamic::from(Moment(entry.modified_at)));
    map.insert("executable".into(), entry.executable.into());
    map.insert("target".into(), entry.target.as_deref().map_or(Dynamic::UNIT, Into::into));
    map.into()
}

fn list(runtime: &Runtime, session: &Session, path: &str, deep: bool) -> Result<Array, Failure> {
    let id = session.0.id.clone();
    let entries = runtime.call(|client| async move { client.files(&id, path, deep).await })?;
    Ok(entries.iter().map(row).collect())
}

fn read(runtime: &Runtime, session: &Session, path: &str) -> Result<String, Failure> {
    let most = runtime.host().limits.string;
    let bytes = runtime.block_on(async {
        let mut download = runtime.client().await?.read_file(&session.0.id, path).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = download.next().await? {
            if bytes.len() + piece.len() > most {
                let limit = most >> 20;
                return Err(Failure::script(format!("{path} is larger than a text may be: {limit} MiB")));
            }
            runtime.room(piece.len() as u64)?;
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to() + 1;
        Failure::hinted(
            format!("{path} is no text: byte {at} is not UTF-8"),
            "session.download(path, file) gets any file.",
        )
    })
}

fn write(
    runtime: &Runtime,
    session: &Session,
    path: &str,
    content: client::Content,
    executable: bool,
) -> Result<(), Failure> {
    let id = session.0.id.clone();
    runtime.call(|client| async move { client.write_file(&id, path, content, executable).await })?;
    runtime.changed(Change::WriteFile);
    Ok(())
}

/// Writes a file of the workspace to stdout: as it is, but what a terminal would obey does not reach one.
fn print(runtime: &Runtime, session: &Session, path: &str) -> Result<(), Failure> {
    let is_terminal = runtime.host().terminal.out_is_terminal();
    let mut cleaner = Cleaner::default();
    let mut cut: Vec<u8> = Vec::new();
    runtime.block_on(async {
        let mut download = runtime.client().await?.read_file(&session.0.id, path).await?;
        while let Some(piece) = download.next().await? {
            if !is_terminal {
                runtime.out_bytes(&piece)?;
                continue;
            }
            cut.extend_from_slice(&piece);
            // A letter that a piece cuts in two waits for its rest.
            let whole = match std::str::from_utf8(&cut) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => cut.len(),
            };
            let text: Vec<u8> = cut.drain(..whole).collect();
            runtime.out(&cleaner.feed(&String::from_utf8_lossy(&text)))?;
        }
        runtime.out(&cleaner.feed(&String::from_utf8_lossy(&cut)))
    })
}

fn download(runtime: &Runtime, session: &Session, path: &str, file: &str) -> Result<(), Failure> {
    if let Some(error) = client::not_in_workspace(path) {
        return Err(error.into());
    }
    if runtime.options().dry_run {
        if file == "-" {
            return runtime.would(&format!("print {path} of {}", session.0.id.short()));
        }
        // What would be refused is refused.
        files::may_write(runtime, file, false)?;
        return runtime.would(&format!("write {path} of {} to {file}", session.0.id.short()));
    }
    if file == "-" {
        return print(runtime, session, path);
    }
    runtime.block_on(async {
        let mut download = runtime.client().await?.read_file(&session.0.id, path).await?;
        let mut new = NewFile::begin(runtime, file, false)?;
        while let Some(piece) = download.next().await? {
            new.write(&piece)?;
        }
        new.place(download.is_executable())
    })
}

fn upload(runtime: &Runtime, session: &Session, file: &str, path: &str) -> Result<(), Failure> {
    if let Some(error) = client::not_in_workspace(path) {
        return Err(error.into());
    }
    let (content, length, executable) = files::open_file(runtime, file)?;
    if runtime.options().dry_run {
        return runtime.would(&format!("put {file} into {} as {path}", session.0.id.short()));
    }
    write(runtime, session, path, (content, length).into(), executable)
}

/// What an archive says of itself.
struct Kept {
    bytes: u64,
    notes: ExportNotes,
}

fn archive(
    runtime: &Runtime,
    session: &Session,
    file: &str,
    is_new: bool,
    settled: bool,
) -> Result<Kept, Failure> {
    let id = session.0.id.clone();
    let mut bytes = 0;
    let new = runtime.block_on(async {
        let client = runtime.client().await?;
        let before = client.session(&id).await?;
        if settled && before.status == Status::Active {
            return Err(at_work());
        }
        let mut download = client.export(&id).await?;
        let mut new = NewFile::begin(runtime, file, is_new)?;
        while let Some(piece) = download.next().await? {
            new.write(&piece)?;
            bytes += piece.len() as u64;
        }
        let after = client.session(&id).await?;
        if settled && (after.status, after.message_count) != (before.status, before.message_count) {
            return Err(at_work());
        }
        Ok(new)
    })?;
    let interrupt = runtime.host().interrupt.clone();
    let notes = read_notes(new.read_back()?, || interrupt.is_set()).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => Failure::Stopped,
        _ => Failure::script(format!("what was written to {file} is no whole archive: {error}")),
    })?;
    if !notes.is_whole() {
        return Err(not_whole(&notes));
    }
    new.place(false)?;
    Ok(Kept { bytes, notes })
}

/// What is written while it is read would not be in the archive.
fn at_work() -> Failure {
    client::Error::api(
        ErrorCode::Busy,
        "Session is at work, so not all of it would be kept",
        "Wait for it, or cancel its run, then try again.".to_owned(),
    )
    .into()
}

/// Reads an archive to its end, as it lies on the disk: what its last entry says.
fn read_notes(file: std::fs::File, stopped: impl Fn() -> bool) -> std::io::Result<ExportNotes> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)));
    let mut notes = None;
    let mut buffer = vec![0; LOOK];
    for entry in archive.entries()? {
        let mut entry = entry?;
        notes = None;
        if *entry.path_bytes() == *ExportNotes::NAME.as_bytes() {
            notes = Some(serde_json::from_reader((&mut entry).take(MOST_NOTES))?);
        }
        while entry.read(&mut buffer)? > 0 {
            if stopped() {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
        }
    }
    // What follows the last entry belongs to the archive as well, its check sum at its very end.
    let mut rest = archive.into_inner();
    while rest.read(&mut buffer)? > 0 {}
    notes.ok_or_else(|| std::io::Error::other("its last entry is missing"))
}

fn not_whole(notes: &ExportNotes) -> Failure {
    let first = notes.missing.first().map_or_else(String::new, told);
    let count = notes.missing.len() as u64 + notes.more_missing;
    let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
    Failure::hinted(
        format!("the archive would not be whole, so it was not kept: {first}{more}"),
        "superserve sessions export ID - writes it all the same: its last entry, export.json, says what is missing.",
    )
}

fn told(note: &ExportNote) -> String {
    format!("{}: {}", note.path, note.reason)
}

fn print_archive(runtime: &Runtime, session: &Session) -> Result<(), Failure> {
    if runtime.host().terminal.out_is_terminal() {
        return Err(Failure::Usage {
            message: "an archive is nothing for a terminal".into(),
            hint: Some(
                "Name a file, or redirect it: superserve sessions export ID - > session.tar.gz".into(),
            ),
        });
    }
    let id = session.0.id.clone();
    runtime.block_on(async {
        let mut download = runtime.client().await?.export(&id).await?;
        while let Some(piece) = download.next().await? {
            runtime.out_bytes(&piece)?;
        }
        Ok(())
    })
}

/// A session's workspace. A path there is taken from its top: `notes/today.txt`; `/workspace/notes/today.txt`, as the agent
/// sees it, is the same.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod workspace_methods {
    /// What is at the top of the workspace, in order: an array of maps with `path`, `kind` (`file`, `folder`, `link`, `other`),
    /// `size` in bytes, `modified_at`, `executable` and, of a link, `target`. Nothing while the session is pending. Errors:
    /// `not_found`, `ended`, `expired`.
    ///
    /// ```rhai
    /// for file in list()[0].files() { print(`${file.path} ${file.size}`); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn files(ctx: NativeCallContext, session: &mut Session) -> Fallible<Array> {
        list(&Runtime::of_session(&ctx, session)?, session, "", false).at(&ctx)
    }

    /// What is in a folder of the workspace; of a file itself. Errors: those of `files()`; `invalid` if the path leads out of
    /// the workspace, or through a link.
    ///
    /// ```rhai
    /// print(list()[0].files("notes").len);
    /// ```
    #[rhai_fn(name = "files", pure, volatile, return_raw)]
    pub fn files_in(ctx: NativeCallContext, session: &mut Session, folder: &str) -> Fallible<Array> {
        list(&Runtime::of_session(&ctx, session)?, session, folder, false).at(&ctx)
    }

    /// The same with options: `path`, and `recursive` for what is in the folders below as well. Errors: those of `files(folder)`,
    /// an unknown option.
    ///
    /// ```rhai
    /// let all = list()[0].files(#{ recursive: true });
    /// print(all.filter(|file| file.kind == "file").len);
    /// ```
    #[rhai_fn(name = "files", pure, volatile, return_raw)]
    pub fn files_with(ctx: NativeCallContext, session: &mut Session, options: Map) -> Fallible<Array> {
        let mut options = OptionMap::new(options, "files", &["path", "recursive"]).at(&ctx)?;
        let path = options.text("path").at(&ctx)?.unwrap_or_default();
        let deep = options.flag("recursive").at(&ctx)?;
        list(&Runtime::of_session(&ctx, session)?, session, &path, deep).at(&ctx)
    }

    /// The text of a file of the workspace. Errors: `not_found`, `ended`, `expired`; `invalid` if it is no file, or the path leads
    /// out of the workspace; it is not UTF-8, or larger than a text may be (256 MiB).
    ///
    /// ```rhai
    /// print(list()[0].read("notes/today.txt"));
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn read(ctx: NativeCallContext, session: &mut Session, path: &str) -> Fallible<String> {
        super::read(&Runtime::of_session(&ctx, session)?, session, path).at(&ctx)
    }

    /// Writes a text as a file of the workspace, in place of what was there: whole or not at all. Folders on the way are made. A
    /// pending session gets its workspace by this; an agent may be at work. With `--dry-run` it is told, not done. Errors:
    /// `ended`, `expired`, `too_large`; `invalid` if what is there is no file, or the path leads out of the workspace.
    ///
    /// ```rhai
    /// list()[0].write("notes/today.txt", "buy milk\n");
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn write(ctx: NativeCallContext, session: &mut Session, path: &str, text: &str) -> Fallible<()> {
        let runtime = Runtime::of_session(&ctx, session)?;
        if let Some(error) = client::not_in_workspace(path) {
            return Err(error).at(&ctx);
        }
        if runtime.options().dry_run {
            let told = format!("write {} to {path} of {}", super::files::bytes(text), session.0.id.short());
            return runtime.would(&told).at(&ctx);
        }
        super::write(&runtime, session, path, text.to_owned().into(), false).at(&ctx)
    }

    /// Gets a file of the workspace, whatever it holds, as a file here, in place of what was there; `-` is stdout. With
    /// `--dry-run` it is told, not done. Errors: those of `read`; it can't be written here, or would lie outside of the working
    /// folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// list()[0].download("report.pdf", "report.pdf");
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn download(ctx: NativeCallContext, session: &mut Session, path: &str, file: &str) -> Fallible<()> {
        super::download(&Runtime::of_session(&ctx, session)?, session, path, file).at(&ctx)
    }

    /// Puts a file from here into the workspace, whatever it holds, as of `write`; one that may be run can be run there. With
    /// `--dry-run` it is told, not done. Errors: those of `write`; there is no such file here, or it lies outside of the working
    /// folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// list()[0].upload("data.csv", "input/data.csv");
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn upload(ctx: NativeCallContext, session: &mut Session, file: &str, path: &str) -> Fallible<()> {
        super::upload(&Runtime::of_session(&ctx, session)?, session, file, path).at(&ctx)
    }

    /// Keeps the session as a file here, in place of what was there: an archive (tar, gzipped) of its record
    /// (`session.json`), its transcript (`transcript.json`) and its `workspace`; `-` is stdout. It is read back before it gets its
    /// name. Gives a map with `file`, `bytes`, `entries` and `notes`: what was left out, such as pipes, or was changed meanwhile.
    /// With `--dry-run` it is told, not done. Errors: `not_found`, `ended`, `expired`; something could not be read, so that the
    /// archive would not be whole; it can't be written here, or would lie outside of the working folder and of those allowed
    /// with `--allow-path`.
    ///
    /// ```rhai
    /// let s = list()[0];
    /// print(s.archive(`${s.short_id}.tar.gz`).entries);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn archive(ctx: NativeCallContext, session: &mut Session, file: &str) -> Fallible<Map> {
        archive_with(ctx, session, file, Map::new())
    }

    /// The same with options: `fresh` replaces nothing; `settled` keeps only what nobody is at work on, as before it is ended.
    /// Errors: those of `archive(file)`, an unknown option; with `fresh` something is there already; with `settled` `busy`.
    ///
    /// ```rhai
    /// let s = list(#{ status: "idle" })[0];
    /// s.archive("kept.tar.gz", #{ fresh: true, settled: true });
    /// s.end();
    /// ```
    #[rhai_fn(name = "archive", pure, volatile, return_raw)]
    pub fn archive_with(
        ctx: NativeCallContext,
        session: &mut Session,
        file: &str,
        options: Map,
    ) -> Fallible<Map> {
        let runtime = Runtime::of_session(&ctx, session)?;
        let mut options = OptionMap::new(options, "archive", &["fresh", "settled"]).at(&ctx)?;
        let is_new = options.flag("fresh").at(&ctx)?;
        let settled = options.flag("settled").at(&ctx)?;
        let mut kept = Map::new();
        kept.insert("file".into(), file.into());
        if runtime.options().dry_run {
            if file != "-" {
                super::files::may_write(&runtime, file, is_new).at(&ctx)?;
            }
            runtime.would(&format!("keep {} as {file}", session.0.id.short())).at(&ctx)?;
        } else if file == "-" {
            print_archive(&runtime, session).at(&ctx)?;
        } else {
            let Kept { bytes, notes } = super::archive(&runtime, session, file, is_new, settled).at(&ctx)?;
            let number = |n: u64| Dynamic::from(i64::try_from(n).unwrap_or(i64::MAX));
            kept.insert("bytes".into(), number(bytes));
            kept.insert("entries".into(), number(notes.entries));
            let mut lines: Array = notes.notes.iter().map(|note| told(note).into()).collect();
            if notes.more_notes > 0 {
                lines.push(format!("... and {} more", notes.more_notes).into());
            }
            kept.insert("notes".into(), lines.into());
        }
        Ok(kept)
    }
}
