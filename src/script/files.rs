//! Files that scripts read and write: those in the working folder, and in folders that a flag allows.
//!
//! A path is followed to where it leads, links and `..` included, and must lead into such a folder; then the file is
//! opened from there part by part without following a link, so that nothing that changes meanwhile leads elsewhere.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rhai::plugin::*;
use rhai::{Array, NativeCallContext};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};

use super::failure::{At, Failure, Fallible};
use super::resolver::sentence;
use super::runtime::Runtime;

/// A place that a script may touch: a folder that is open, and the name there. The folder itself has no name.
struct Spot {
    folder: OwnedFd,
    name: Option<OsString>,
}

/// A file in the making, beside the one whose place it takes when it is whole.
pub struct NewFile {
    spot: Spot,
    path: String,
    temporary: String,
    file: File,
    is_new: bool,
    is_placed: bool,
}

impl NewFile {
    /// Errors: a script may not go there, or can't write there; with `is_new`, something is there already.
    pub fn begin(runtime: &Runtime, path: &str, is_new: bool) -> Result<Self, Failure> {
        let (spot, mode) = look(runtime, path, is_new)?;
        let (temporary, file) = spot.create(mode).map_err(|error| failed("write", path, &error))?;
        Ok(Self { path: path.to_owned(), temporary, file: file.into(), is_new, is_placed: false, spot })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, &error))
    }

    /// The same file, to read from its beginning.
    pub fn read_back(&self) -> Result<File, Failure> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.spot.folder, &self.temporary, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| failed("read", &self.path, &error.into()))
    }

    /// Puts it into its place, once it is on the disk. `executable`: whoever may read it may run it.
    pub fn place(mut self, executable: bool) -> Result<(), Failure> {
        let placed = || -> io::Result<()> {
            let name = self.spot.name()?;
            if executable {
                let mode = rustix::fs::fstat(&self.file)?.st_mode & 0o777;
                rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode | (mode & 0o444) >> 2))?;
            }
            self.file.sync_all()?;
            let flags = if self.is_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
            let folder = &self.spot.folder;
            rustix::fs::renameat_with(folder, &self.temporary, folder, name, flags)?;
            // The name too; a folder that can't be synced is one of a file system that needs it not.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(folder) = rustix::fs::openat(&self.spot.folder, ".", flags, Mode::empty()) {
                let _ = rustix::fs::fsync(&folder);
            }
            Ok(())
        };
        let placed = placed().map_err(|error| failed("write", &self.path, &error));
        self.is_placed = placed.is_ok();
        placed
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = rustix::fs::unlinkat(&self.spot.folder, &self.temporary, AtFlags::empty());
        }
    }
}

/// Where a file is to be written, and with what rights. Errors: those of [`NewFile::begin`].
fn look(runtime: &Runtime, path: &str, is_new: bool) -> Result<(Spot, Mode), Failure> {
    let spot = spot(runtime, path)?;
    let looked = || -> io::Result<Mode> {
        spot.name()?;
        let Some(old) = spot.about()? else { return Ok(Mode::from_raw_mode(0o666)) };
        match refusal(FileType::from_raw_mode(old.st_mode)) {
            Some(refused) => Err(refused),
            None if is_new => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(Mode::from_raw_mode(old.st_mode & 0o777)),
        }
    };
    let mode = looked().map_err(|error| failed("write", path, &error))?;
    Ok((spot, mode))
}

/// Whether a file could be begun there, as far as that can be known without.
pub fn may_write(runtime: &Runtime, path: &str, is_new: bool) -> Result<(), Failure> {
    look(runtime, path, is_new).map(|_| ())
}

/// Opens a file to be read to its end; its length in bytes, and whether it may be run. Errors: those of `read_file`.
pub fn open_file(runtime: &Runtime, path: &str) -> Result<(File, u64, bool), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let spot = spot(runtime, path)?;
    let opened = || -> io::Result<(File, u64, bool)> {
        let file = spot.open(OFlags::RDONLY)?;
        let about = file.metadata()?;
        Ok((file, about.len(), about.permissions().mode() & 0o100 != 0))
    };
    opened().map_err(|error| failed("read", path, &error))
}

/// Whether there is a folder; an error where a script may not go.
pub fn is_folder(runtime: &Runtime, path: &str) -> Result<bool, Failure> {
    match spot(runtime, path) {
        Ok(spot) => {
            let about = spot.about().map_err(|error| failed("find", path, &error))?;
            Ok(about.is_some_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Directory))
        }
        Err(Failure::File { kind: io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Where a path leads, if a script may go there.
fn spot(runtime: &Runtime, path: &str) -> Result<Spot, Failure> {
    let access = &runtime.host().access;
    if path.is_empty() {
        return Err(Failure::script("a file's path is empty"));
    }
    if path.contains('\0') {
        return Err(Failure::script("a file's path can't hold a NUL character"));
    }
    let whole = leads_to(&access.folder.join(path)).map_err(|error| failed("find", path, &error))?;
    let mut roots =
        [&access.folder].into_iter().chain(&access.paths).filter_map(|root| root.canonicalize().ok());
    let Some(root) = roots.find(|root| whole.starts_with(root)) else {
        let folder = whole.parent().unwrap_or(Path::new("/"));
        return Err(Failure::Forbidden {
            message: format!("{path} lies outside of the working folder"),
            hint: format!("Allow its folder: --allow-path {}", folder.display()),
        });
    };
    let rest = whole.strip_prefix(&root).unwrap_or(Path::new(""));
    walk(&root, rest).map_err(|error| failed("open", path, &error))
}

/// The path without links and `..`, as far as it exists; what doesn't exist follows as it is.
fn leads_to(path: &Path) -> io::Result<PathBuf> {
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(whole) => return Ok(missing.iter().rev().fold(whole, |whole, name| whole.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Of `missing/..` nobody can say where it leads, and a link into nothing leads nowhere.
                let is_link = at.symlink_metadata().is_ok();
                let (Some(name), Some(parent), false) = (at.file_name(), at.parent(), is_link) else {
                    return Err(error);
                };
                missing.push(name);
                at = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Opens the folder of `rest` below `root`, part by part, following no link.
fn walk(root: &Path, rest: &Path) -> io::Result<Spot> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(root, flags, Mode::empty())?;
    let mut parts = rest.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        if parts.peek().is_none() {
            return Ok(Spot { folder, name: Some(name.to_owned()) });
        }
        folder = rustix::fs::openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(Spot { folder, name: None })
}

fn failed(what: &str, path: &str, error: &io::Error) -> Failure {
    Failure::File { message: format!("cannot {what} {path}: {}", sentence(error)), kind: error.kind() }
}

/// Why this is not opened: only what holds bytes is, since it never has to be waited for.
fn refusal(kind: FileType) -> Option<io::Error> {
    let what = match kind {
        FileType::RegularFile => return None,
        FileType::Directory => return Some(io::ErrorKind::IsADirectory.into()),
        FileType::Fifo => "it is a pipe, not a file",
        FileType::Socket => "it is a socket, not a file",
        FileType::Symlink => "it is a link",
        _ => "it is a device, not a file",
    };
    Some(io::Error::other(what))
}

impl Spot {
    /// What stands here, without following a link; `None` if nothing does.
    fn about(&self) -> io::Result<Option<rustix::fs::Stat>> {
        let name = self.name.as_deref().unwrap_or(OsStr::new("."));
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn name(&self) -> io::Result<&OsStr> {
        self.name.as_deref().ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    /// Opens the file here.
    fn open(&self, flags: OFlags) -> io::Result<File> {
        let name = self.name()?;
        let refused = self.about()?.and_then(|about| refusal(FileType::from_raw_mode(about.st_mode)));
        if let Some(refused) = refused {
            return Err(refused);
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, name, flags, Mode::from_raw_mode(0o666))?;
        // Something else may have been put in its place since.
        match refusal(FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode)) {
            None => Ok(File::from(file)),
            Some(refused) => Err(refused),
        }
    }

    fn read(&self, most: usize) -> io::Result<String> {
        let file = self.open(OFlags::RDONLY)?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let too_large = || io::Error::other(format!("it is larger than a text may be: {} MiB", most >> 20));
        if size > most {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(size + 1);
        // Files that the kernel makes up have no size.
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > most {
            return Err(too_large());
        }
        String::from_utf8(bytes).map_err(|error| {
            io::Error::other(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1))
        })
    }

    /// Puts a new file in the place of what is here, whole or not at all.
    fn write(&self, text: &str) -> io::Result<()> {
        let name = self.name()?;
        let old = self.about()?;
        let mut mode = Mode::from_raw_mode(0o666);
        if let Some(old) = &old {
            if let Some(refused) = refusal(FileType::from_raw_mode(old.st_mode)) {
                return Err(refused);
            }
            // A file that may not be written is not replaced either.
            rustix::fs::accessat(&self.folder, name, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)?;
            mode = Mode::from_raw_mode(old.st_mode & 0o777);
        }
        let (temporary, file) = self.create(mode)?;
        let written = self
            .fill(File::from(file), text, old.as_ref(), mode)
            .and_then(|()| Ok(rustix::fs::renameat(&self.folder, &temporary, &self.folder, name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        written
    }

    fn fill(&self, mut file: File, text: &str, old: Option<&rustix::fs::Stat>, mode: Mode) -> io::Result<()> {
        if let Some(old) = old {
            // Only root can give it back to its owner.
            let (user, group) =
                (rustix::fs::Uid::from_raw(old.st_uid), rustix::fs::Gid::from_raw(old.st_gid));
            let _ = rustix::fs::fchown(&file, Some(user), Some(group));
            rustix::fs::fchmod(&file, mode)?;
        }
        file.write_all(text.as_bytes())
    }

    /// A new file beside this one.
    fn create(&self, mode: Mode) -> io::Result<(String, OwnedFd)> {
        thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let count = COUNT.replace(COUNT.get().wrapping_add(1));
            let name = format!(".superserve-{}-{count}.tmp", std::process::id());
            match rustix::fs::openat(&self.folder, &name, flags, mode) {
                Ok(file) => return Ok((name, file)),
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn append(&self, text: &str) -> io::Result<()> {
        self.open(OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?.write_all(text.as_bytes())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = self.name.as_deref().unwrap_or(OsStr::new("."));
        let folder = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            // A name that is not UTF-8 could not be given back.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |about| FileType::from_raw_mode(about.st_mode)),
                kind => kind,
            };
            names.push(if kind == FileType::Directory { format!("{name}/") } else { name.to_owned() });
        }
        names.sort();
        Ok(names)
    }
}

pub fn bytes(text: &str) -> String {
    format!("{} byte{}", text.len(), if text.len() == 1 { "" } else { "s" })
}

/// Files. A path is taken from the working folder. It must lead into it, or into a folder that was allowed with
/// `--allow-path`.
#[export_module]
pub mod file_functions {
    /// The text of a file. Errors: there is none, it is not UTF-8, it is larger than a text may be (256 MiB), it lies
    /// outside of the working folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// write_file("greeting.txt", "hello");
    /// print(read_file("greeting.txt"));   // hello
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn read_file(ctx: NativeCallContext, path: &str) -> Fallible<String> {
        let runtime = Runtime::of(&ctx)?;
        let spot = spot(&runtime, path).at(&ctx)?;
        let most = runtime.host().limits.string;
        spot.read(most).map_err(|error| failed("read", path, &error)).at(&ctx)
    }

    /// Writes a text as a file, in place of what was there: whole or not at all. With `--dry-run` it is told, not done.
    /// Errors: as of `read_file`, and what is there is no file or may not be written.
    ///
    /// ```rhai
    /// write_file("counts.json", to_json(list().count_by("agent")));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn write_file(ctx: NativeCallContext, path: &str, text: &str) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        let spot = spot(&runtime, path).at(&ctx)?;
        if runtime.options().dry_run {
            return runtime.would(&format!("write {} to {path}", bytes(text))).at(&ctx);
        }
        spot.write(text).map_err(|error| failed("write", path, &error)).at(&ctx)
    }

    /// Writes a text at the end of a file, which is made if there is none. With `--dry-run` it is told, not done. Errors: it
    /// can't be written, it lies outside of the working folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// append_file("log.txt", `${now()} ${list().len} sessions\n`);
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn append_file(ctx: NativeCallContext, path: &str, text: &str) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        let spot = spot(&runtime, path).at(&ctx)?;
        if runtime.options().dry_run {
            return runtime.would(&format!("append {} to {path}", bytes(text))).at(&ctx);
        }
        spot.append(text).map_err(|error| failed("write", path, &error)).at(&ctx)
    }

    /// Whether there is a file or a folder. Error: it would lie outside of the working folder and of those allowed with
    /// `--allow-path`.
    ///
    /// ```rhai
    /// print(exists("no-such-file.txt"));   // false
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn exists(ctx: NativeCallContext, path: &str) -> Fallible<bool> {
        match spot(&Runtime::of(&ctx)?, path) {
            Ok(spot) => spot
                .about()
                .map(|about| about.is_some())
                .map_err(|error| failed("find", path, &error))
                .at(&ctx),
            // A link into nothing, or something on the way that is no folder.
            Err(Failure::File { kind: io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, .. }) => {
                Ok(false)
            }
            Err(failure) => Err(failure.at(&ctx)),
        }
    }

    /// Whether there is a folder. Error: it would lie outside of the working folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// print(is_folder("."));   // true
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn is_folder(ctx: NativeCallContext, path: &str) -> Fallible<bool> {
        super::is_folder(&Runtime::of(&ctx)?, path).at(&ctx)
    }

    /// The names in a folder, in order, as an array; those of folders end in `/`. Errors: there is none, it lies outside of
    /// the working folder and of those allowed with `--allow-path`.
    ///
    /// ```rhai
    /// for name in list_files(".") { if name.ends_with(".json") { print(name); } }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn list_files(ctx: NativeCallContext, folder: &str) -> Fallible<Array> {
        let spot = spot(&Runtime::of(&ctx)?, folder).at(&ctx)?;
        let names = spot.list().map_err(|error| failed("list", folder, &error)).at(&ctx)?;
        Ok(names.into_iter().map(Dynamic::from).collect())
    }
}
