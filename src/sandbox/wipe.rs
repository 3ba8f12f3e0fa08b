//! Deletes a folder for good, whatever an agent has put into it: folders without rights, thousands deep, links out.
//!
//! Every folder that is found is first moved up into one flat folder of numbered ones, so that neither open
//! descriptors nor path lengths grow with depth. No link is ever followed.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::fault;

pub(super) const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const NAMES_AT_ONCE: usize = 1000;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wiped {
    /// Everything that was not a folder.
    pub files: u64,
    /// The sizes of the regular files.
    pub bytes: u64,
}

impl std::ops::AddAssign for Wiped {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// Deletes `victim`, which may be missing, by way of the folder `trash`, which is made and must be on the same file
/// system. `victim` is out of its place first of all, so that a wipe that fails or is cut short leaves the rest in
/// the trash alone: see [`empty_trash`]. Goes on after an entry that can't be deleted and answers with the first
/// error. Its processes must have ended. Blocks.
pub fn wipe(trash: &Path, victim: &Path) -> io::Result<Wiped> {
    fs::create_dir_all(trash)?;
    if fs::symlink_metadata(victim).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(Wiped::default());
    }
    let trash = openat(CWD, trash, FOLDER, Mode::empty())?;
    let (batch, folder) = new_batch(&trash)?;
    if let Ok(found) = statat(CWD, victim, AtFlags::SYMLINK_NOFOLLOW)
        && FileType::from_raw_mode(found.st_mode) == FileType::Directory
    {
        // A folder that its owner can't write to can't be moved either.
        allow(&openat(CWD, victim, OFlags::PATH | FOLDER, Mode::empty())?)?;
    }
    if let Err(error) = fault::step("trash.rename", || renameat(CWD, victim, &folder, "0")) {
        unlinkat(&trash, batch, AtFlags::REMOVEDIR)?;
        return Err(error.into());
    }
    let wiped = flatten(&folder)?;
    unlinkat(&trash, batch, AtFlags::REMOVEDIR)?;
    Ok(wiped)
}

/// Deletes what wipes that were cut short have left in `trash`, which may be missing.
pub fn empty_trash(trash: &Path) -> io::Result<Wiped> {
    let left = match fs::read_dir(trash) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Wiped::default()),
        other => other?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
    };
    let (mut wiped, mut first_error) = (Wiped::default(), None);
    for path in left {
        match fault::step("trash.empty", || wipe(trash, &path)) {
            Ok(more) => wiped += more,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(wiped), Err)
}

/// A folder in the trash that nobody else has.
fn new_batch(trash: &OwnedFd) -> io::Result<(String, OwnedFd)> {
    let mut number = 0_u64;
    loop {
        let name = format!("{}-{number}", std::process::id());
        match mkdirat(trash, &name, Mode::RWXU) {
            Ok(()) => {
                let folder = openat(trash, &name, FOLDER, Mode::empty())?;
                return Ok((name, folder));
            }
            Err(Errno::EXIST) => number += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives the owner all rights on a folder that was opened by O_PATH: by way of /proc, since no call of its own takes
/// such a descriptor on every kernel.
pub(super) fn allow(folder: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), Mode::RWXU)
}

/// Empties a folder that holds one entry, `0`.
fn flatten(batch: &OwnedFd) -> io::Result<Wiped> {
    let mut state = Flatten { batch, last: 0, wiped: Wiped::default(), first_error: None };
    let root = statat(batch, "0", AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(root.st_mode) == FileType::Directory {
        let mut next = 0;
        while next <= state.last {
            if let Err(error) = state.empty(next) {
                state.first_error.get_or_insert(error.into());
            }
            next += 1;
        }
    } else {
        state.remove(batch, c"0", &root)?;
    }
    state.first_error.map_or(Ok(state.wiped), Err)
}

/// Some of a folder's entries, so that a folder of millions doesn't fill the memory. They are read before any goes, as
/// a folder that changes while it is read may skip some.
fn some_names(folder: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
        if names.len() == NAMES_AT_ONCE {
            break;
        }
    }
    Ok(names)
}

struct Flatten<'a> {
    batch: &'a OwnedFd,
    /// The highest number that a folder in the batch has got.
    last: u64,
    wiped: Wiped,
    first_error: Option<io::Error>,
}

impl Flatten<'_> {
    /// Deletes the folder of that number, after its folders have been moved up beside it.
    fn empty(&mut self, number: u64) -> rustix::io::Result<()> {
        let name = number.to_string();
        let folder = openat(self.batch, &name, FOLDER, Mode::empty())?;
        loop {
            let names = some_names(&folder)?;
            let mut gone = 0;
            for entry in &names {
                match self.take(&folder, entry) {
                    Ok(()) => gone += 1,
                    Err(error) => drop(self.first_error.get_or_insert(error.into())),
                }
            }
            if gone == 0 {
                break;
            }
        }
        unlinkat(self.batch, name, AtFlags::REMOVEDIR)
    }

    fn take(&mut self, folder: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return self.remove(folder, name, &found);
        }
        if found.st_mode & 0o700 != 0o700 {
            allow(&openat(folder, name, OFlags::PATH | FOLDER, Mode::empty())?)?;
        }
        // An empty one needs no number.
        if unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        renameat(folder, name, self.batch, (self.last + 1).to_string())?;
        self.last += 1;
        Ok(())
    }

    fn remove(&mut self, folder: &OwnedFd, name: &CStr, found: &rustix::fs::Stat) -> rustix::io::Result<()> {
        unlinkat(folder, name, AtFlags::empty())?;
        self.wiped.files += 1;
        if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_nlink == 1 {
            self.wiped.bytes += u64::try_from(found.st_size).unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::super::stage::dig;
    use super::*;

    struct Yard {
        folder: tempfile::TempDir,
    }

    impl Yard {
        fn new() -> Self {
            let yard = Self { folder: tempfile::tempdir().unwrap() };
            fs::create_dir(yard.victim()).unwrap();
            yard
        }

        fn victim(&self) -> PathBuf {
            self.folder.path().join("victim")
        }

        fn trash(&self) -> PathBuf {
            self.folder.path().join("trash")
        }

        fn wipe(&self) -> io::Result<Wiped> {
            let wiped = wipe(&self.trash(), &self.victim())?;
            assert!(!self.victim().exists());
            assert_eq!(fs::read_dir(self.trash()).unwrap().count(), 0);
            Ok(wiped)
        }
    }

    #[test]
    fn deep_folders_go() {
        let yard = Yard::new();
        dig(&yard.victim(), 5000, 1, b"12345");
        assert_eq!(yard.wipe().unwrap(), Wiped { files: 1, bytes: 5 });
    }

    #[test]
    fn wide_folders_go() {
        let yard = Yard::new();
        for number in 0..NAMES_AT_ONCE + 10 {
            fs::write(yard.victim().join(number.to_string()), "").unwrap();
        }
        let files = u64::try_from(NAMES_AT_ONCE).unwrap() + 10;
        assert_eq!(yard.wipe().unwrap(), Wiped { files, bytes: 0 });
    }

    #[test]
    fn hostile_entries_go_and_what_they_name_stays() {
        let yard = Yard::new();
        let outside = yard.folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let victim = yard.victim();
        symlink(&outside, victim.join("to-folder")).unwrap();
        symlink(outside.join("kept"), victim.join("to-file")).unwrap();
        symlink("nowhere", victim.join("dangling")).unwrap();
        fs::hard_link(outside.join("kept"), victim.join("hard")).unwrap();
        for name in [&b"new\nline"[..], b"-rf", b"\xff\xfe", b" ", b"0", b"1"] {
            let folder = victim.join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("x"), "abc").unwrap();
        }
        let _socket = UnixListener::bind(victim.join("socket")).unwrap();
        rustix::fs::mknodat(CWD, victim.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        for mode in [0o000, 0o111, 0o333, 0o444, 0o555] {
            let folder = victim.join(format!("mode-{mode:o}"));
            fs::create_dir_all(folder.join("inner")).unwrap();
            fs::write(folder.join("inner/file"), "abcd").unwrap();
            fs::set_permissions(folder.join("inner"), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o000)).unwrap();

        let wiped = yard.wipe().unwrap();
        assert_eq!(wiped, Wiped { files: 4 + 6 + 2 + 5, bytes: 6 * 3 + 5 * 4 });
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn a_file_a_link_and_nothing_at_all() {
        let yard = Yard::new();
        let file = yard.folder.path().join("file");
        fs::write(&file, "xy").unwrap();
        symlink(&file, yard.folder.path().join("link")).unwrap();
        assert_eq!(
            wipe(&yard.trash(), &yard.folder.path().join("link")).unwrap(),
            Wiped { files: 1, bytes: 0 }
        );
        assert_eq!(wipe(&yard.trash(), &file).unwrap(), Wiped { files: 1, bytes: 2 });
        assert_eq!(wipe(&yard.trash(), &file).unwrap(), Wiped::default());
    }

    #[test]
    fn the_trash_of_a_wipe_that_was_cut_short_is_emptied() {
        let yard = Yard::new();
        assert_eq!(empty_trash(&yard.trash()).unwrap(), Wiped::default());
        // A folder whose name this very process would take, and what another left.
        let mine = yard.trash().join(format!("{}-0", std::process::id()));
        fs::create_dir_all(mine.join("7/deep")).unwrap();
        fs::write(mine.join("7/deep/file"), "abc").unwrap();
        fs::create_dir_all(yard.trash().join("1-0/3")).unwrap();
        fs::write(yard.trash().join("stray"), "d").unwrap();
        assert_eq!(empty_trash(&yard.trash()).unwrap(), Wiped { files: 2, bytes: 4 });
        assert_eq!(fs::read_dir(yard.trash()).unwrap().count(), 0);
    }

    #[test]
    fn wipes_at_the_same_time_share_a_trash() {
        let yard = Yard::new();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let yard = &yard;
                scope.spawn(move || {
                    let victim = yard.folder.path().join(format!("v{number}"));
                    fs::create_dir(&victim).unwrap();
                    (0..50).for_each(|file| fs::write(victim.join(file.to_string()), "x").unwrap());
                    assert_eq!(wipe(&yard.trash(), &victim).unwrap(), Wiped { files: 50, bytes: 50 });
                });
            }
        });
        yard.wipe().unwrap();
    }

    /// As an ordinary user, folders without rights are an obstacle; as root they never were. So the hostile tree is
    /// wiped by a process without root's rights too.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "runs one of these tests as an ordinary user")]
    fn an_ordinary_user_wipes_as_well() {
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sandbox::wipe::tests::hostile_entries_go_and_what_they_name_stays"])
            .stdout(std::process::Stdio::null())
            .uid(65534)
            .gid(65534)
            .status()
            .unwrap();
        assert!(status.success());
    }
}
