//! How much a session's folders hold, found by walking them, while an agent may be at work in them.
//!
//! No tree leads the walk astray or holds it up for long: no link is followed, descriptors don't grow with depth, it
//! ends as soon as a bound is passed, and a folder without rights is opened for the moment that it takes.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, statat};
use rustix::io::Errno;

use super::wipe::{FOLDER, allow};

/// So many levels of folders are held open. Below them the way up is `..`, which leads to where the agent may have
/// moved the folder meanwhile, so that it is believed only if it is where the walk came from.
const HELD: usize = 32;
/// The clock is looked at after so many entries.
const BETWEEN_LOOKS: u64 = 256;

/// What folders hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What they take on the disk, in bytes.
    pub bytes: u64,
    /// Files and folders, and whatever else has a name.
    pub files: u64,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    Within(Usage),
    /// More than they may; how much it was when that was seen.
    Over(Usage),
    /// There was not enough time, or the tree changed too much on the way.
    Unknown,
}

/// Measures folders together, as far as `most` and, if it is given, until that moment. What can't be read for want of
/// rights or because it has gone counts as nothing. Blocks.
pub fn measure(folders: &[&Path], most: Usage, until: Option<Instant>) -> Measured {
    let mut walk = Walk { most, until, found: Usage::default(), torn: false };
    for folder in folders {
        if let Err(stopped) = walk.tree(folder) {
            return stopped;
        }
    }
    match walk.torn {
        true => Measured::Unknown,
        false => Measured::Within(walk.found),
    }
}

struct Walk {
    most: Usage,
    until: Option<Instant>,
    found: Usage,
    /// A folder was moved away under the walk, so that a part was not seen.
    torn: bool,
}

/// A folder on the way from the top to where the walk is.
struct Level {
    identity: (u64, u64),
    folder: Option<OwnedFd>,
    /// Its folders that were not walked yet.
    left: Vec<CString>,
    /// The rights that it had.
    restore: Option<Mode>,
}

impl Level {
    fn leave(&mut self) {
        if let (Some(folder), Some(mode)) = (&self.folder, self.restore.take()) {
            // If it has gone meanwhile, so have its rights.
            let _ = fchmod(folder, mode);
        }
    }
}

impl Walk {
    fn tree(&mut self, top: &Path) -> Result<(), Measured> {
        let Ok((folder, restore)) = open(CWD, top) else { return Ok(()) };
        let mut levels: Vec<Level> = Vec::new();
        let walked = self.levels(&mut levels, folder, restore);
        levels.iter_mut().for_each(Level::leave);
        walked
    }

    fn levels(
        &mut self,
        levels: &mut Vec<Level>,
        top: OwnedFd,
        restore: Option<Mode>,
    ) -> Result<(), Measured> {
        if let Some(level) = self.enter(top, restore)? {
            levels.push(level);
        }
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some(name) = level.left.pop() else {
                let mut done = level.folder.take();
                let restore = level.restore.take();
                levels.pop();
                Self::up(levels, &mut done, &mut self.torn);
                if let (Some(folder), Some(mode)) = (done, restore) {
                    let _ = fchmod(folder, mode);
                }
                continue;
            };
            let Some(folder) = &level.folder else { return Ok(()) };
            let Ok((below, restore)) = open(folder, &*name) else { continue };
            if depth > HELD && level.restore.is_none() {
                level.folder = None;
            }
            match self.enter(below, restore)? {
                Some(below) => levels.push(below),
                None => return Ok(()),
            }
        }
    }

    /// Finds the descriptor of the folder above the one that is done with.
    fn up(levels: &mut Vec<Level>, done: &mut Option<OwnedFd>, torn: &mut bool) {
        let Some(above) = levels.last_mut() else { return };
        if above.folder.is_some() {
            return;
        }
        let opened = done.as_ref().and_then(|done| openat(done, "..", FOLDER, Mode::empty()).ok());
        match opened.filter(|folder| fstat(folder).is_ok_and(|found| identity(&found) == above.identity)) {
            Some(folder) => above.folder = Some(folder),
            None => {
                *torn = true;
                while levels.last().is_some_and(|level| level.folder.is_none()) {
                    levels.pop();
                }
            }
        }
    }

    /// Counts what is in a folder.
    fn enter(&mut self, folder: OwnedFd, restore: Option<Mode>) -> Result<Option<Level>, Measured> {
        let Ok(found) = fstat(&folder) else { return Ok(None) };
        let mut level = Level { identity: identity(&found), folder: None, left: Vec::new(), restore };
        let counted = self.count_in(&folder, &mut level.left);
        level.folder = Some(folder);
        if let Err(stopped) = counted {
            level.leave();
            return Err(stopped);
        }
        Ok(Some(level))
    }

    fn count_in(&mut self, folder: &OwnedFd, folders: &mut Vec<CString>) -> Result<(), Measured> {
        let Ok(entries) = Dir::read_from(folder) else { return Ok(()) };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(found) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.count(&found)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                folders.push(name.to_owned());
            }
        }
        Ok(())
    }

    fn count(&mut self, found: &Stat) -> Result<(), Measured> {
        let bytes = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        // Each of a file's names takes its part, so that all of them together take what the file does.
        let names = if is_folder { 1 } else { found.st_nlink.max(1) };
        self.found.bytes = self.found.bytes.saturating_add(bytes / names);
        self.found.files += 1;
        if self.found.bytes > self.most.bytes || self.found.files > self.most.files {
            return Err(Measured::Over(self.found));
        }
        let look = self.found.files.is_multiple_of(BETWEEN_LOOKS);
        match look && self.until.is_some_and(|until| Instant::now() >= until) {
            true => Err(Measured::Unknown),
            false => Ok(()),
        }
    }
}

fn identity(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// Opens a folder to read it; with the rights to be put back if they had to be given first.
fn open(
    at: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg + Copy,
) -> rustix::io::Result<(OwnedFd, Option<Mode>)> {
    match openat(&at, name, FOLDER, Mode::empty()) {
        Ok(folder) => {
            let found = fstat(&folder)?;
            // Without the right to pass through it, nothing in it can be looked at.
            if found.st_mode & 0o100 != 0 || rustix::process::geteuid().is_root() {
                return Ok((folder, None));
            }
            allow_for_now(&folder, &found).map(|mode| (folder, Some(mode)))
        }
        Err(Errno::ACCESS) => {
            let path = openat(&at, name, OFlags::PATH | FOLDER, Mode::empty())?;
            let found = fstat(&path)?;
            let mode = allow_for_now(&path, &found)?;
            let opened = openat(&at, name, FOLDER, Mode::empty());
            match opened {
                Ok(folder) => Ok((folder, Some(mode))),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn allow_for_now(folder: &OwnedFd, found: &Stat) -> rustix::io::Result<Mode> {
    allow(folder)?;
    Ok(Mode::from_raw_mode(found.st_mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::super::stage::dig;
    use super::*;

    const ANY: Usage = Usage { bytes: u64::MAX, files: u64::MAX };

    fn within(measured: Measured) -> Usage {
        match measured {
            Measured::Within(usage) => usage,
            other => panic!("{other:?}"),
        }
    }

    fn top() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        (folder, top)
    }

    #[test]
    fn everything_counts_once() {
        let (folder, top) = top();
        fs::write(top.join("one"), [1; 100_000]).unwrap();
        let one = within(measure(&[&top], ANY, None));
        assert!(one.files == 1 && (100_000..200_000).contains(&one.bytes), "{one:?}");
        fs::hard_link(top.join("one"), top.join("same")).unwrap();
        let two = within(measure(&[&top], ANY, None));
        assert_eq!((two.files, two.bytes), (2, one.bytes), "a second name takes nothing");
        // A hole takes nothing either.
        let hole = fs::File::create(top.join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        assert!(within(measure(&[&top], ANY, None)).bytes < one.bytes + 100_000);
        // Two folders are measured as one, and what is missing is empty.
        let other = folder.path().join("other");
        fs::create_dir_all(other.join("a/b")).unwrap();
        let all = within(measure(&[&top, &other, &folder.path().join("missing")], ANY, None));
        assert_eq!(all.files, 3 + 2);
    }

    #[test]
    fn links_lead_nowhere() {
        let (folder, top) = top();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        symlink(&outside, top.join("folder")).unwrap();
        symlink(outside.join("large"), top.join("file")).unwrap();
        symlink(".", top.join("loop")).unwrap();
        let usage = within(measure(&[&top], ANY, None));
        assert!(usage.files == 3 && usage.bytes < 1 << 16, "{usage:?}");
        let link = folder.path().join("link");
        symlink(&outside, &link).unwrap();
        assert_eq!(
            within(measure(&[&link], ANY, None)),
            Usage::default(),
            "the top itself is no link either"
        );
    }

    #[test]
    fn deep_trees_are_seen_to_the_bottom() {
        let (folder, top) = top();
        dig(&top, 2000, 3, &[1; 8192]);
        let usage = within(measure(&[&top], ANY, None));
        assert_eq!(usage.files, 2000 * 3 + 1);
        let most = Usage { files: 6000, ..ANY };
        assert_eq!(measure(&[&top], most, None), Measured::Over(Usage { files: 6001, ..usage }));
        super::super::wipe(&folder.path().join("trash"), &top).unwrap();
    }

    #[test]
    fn it_ends_where_a_bound_is_passed() {
        let (_folder, top) = top();
        (0..1000).for_each(|number| fs::write(top.join(number.to_string()), "x").unwrap());
        for most in [Usage { files: 10, ..ANY }, Usage { bytes: 4096 * 10, ..ANY }] {
            match measure(&[&top], most, None) {
                Measured::Over(usage) => assert_eq!(usage.files, 11),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(measure(&[&top], ANY, Some(Instant::now())), Measured::Unknown);
    }

    #[test]
    fn folders_without_rights_are_looked_into_and_get_them_back() {
        let (_folder, top) = top();
        for mode in [0o000, 0o111, 0o333, 0o444, 0o555] {
            let folder = top.join(format!("{mode:o}"));
            fs::create_dir_all(folder.join("inner")).unwrap();
            fs::write(folder.join("inner/file"), "x").unwrap();
            fs::set_permissions(folder.join("inner"), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(within(measure(&[&top], ANY, None)).files, 5 * 3);
        for mode in [0o000, 0o111, 0o333, 0o444, 0o555] {
            let folder = top.join(format!("{mode:o}"));
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, mode);
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            let inner = fs::metadata(folder.join("inner")).unwrap().permissions().mode();
            assert_eq!(inner & 0o777, mode);
            fs::set_permissions(folder.join("inner"), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// As root, folders without rights are no obstacle.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "runs one of these tests as an ordinary user")]
    fn an_ordinary_user_looks_into_them_as_well() {
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let test = "sandbox::usage::tests::folders_without_rights_are_looked_into_and_get_them_back";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .stdout(std::process::Stdio::null())
            .uid(65534)
            .gid(65534)
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_tree_that_changes_all_the_time_ends_the_walk_all_the_same() {
        let (folder, top) = top();
        dig(&top, 60, 2, &[1; 8192]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (from, to) = (top.join("0/0"), top.join("1/moved"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::rename(&from, &to);
                    let _ = fs::rename(&to, &from);
                }
            });
            for _ in 0..200 {
                assert!(!matches!(measure(&[&top], ANY, None), Measured::Over(_)));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        super::super::wipe(&folder.path().join("trash"), &top).unwrap();
    }
}
