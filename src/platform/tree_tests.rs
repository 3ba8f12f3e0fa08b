//! What a hostile folder can't do to whoever looks at it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, openat};

use super::tree::{Step, Tree, Walk};

struct Yard {
    folder: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let yard = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(yard.top()).unwrap();
        fs::create_dir(yard.outside()).unwrap();
        fs::write(yard.outside().join("secret"), "secret").unwrap();
        yard
    }

    fn top(&self) -> PathBuf {
        self.folder.path().join("top")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    fn tree(&self) -> Tree {
        Tree::open(&self.top()).unwrap().expect("a folder")
    }

    fn walk(&self) -> (BTreeSet<Vec<u8>>, Vec<Vec<u8>>) {
        let mut walk = Walk::new(self.tree(), true).unwrap();
        let (mut found, mut unread) = (BTreeSet::new(), Vec::new());
        while let Some(step) = walk.next().unwrap() {
            match step {
                Step::Found(one) => assert!(found.insert(one.path), "found twice"),
                Step::Unread(path, _) | Step::Replaced(path) => unread.push(path),
            }
        }
        (found, unread)
    }

    fn read(&self, path: &str) -> std::io::Result<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let mut text = String::new();
        self.tree().find(&parts)?.open()?.read_to_string(&mut text)?;
        Ok(text)
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn hostile_names_and_kinds_are_seen_and_nothing_is_followed_or_waited_for() {
    let yard = Yard::new();
    let top = yard.top();
    symlink(yard.outside(), top.join("to-folder")).unwrap();
    symlink(yard.outside().join("secret"), top.join("to-file")).unwrap();
    symlink("loop", top.join("loop")).unwrap();
    let mut expected: BTreeSet<Vec<u8>> = BTreeSet::new();
    for name in [&b"new\nline"[..], b"-rf", b"\xff\xfe", b" ", b"...", b"\x1b[31m"] {
        let folder = top.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("x"), "abc").unwrap();
        expected.insert(name.to_vec());
        expected.insert([name, b"/x"].concat());
    }
    let _socket = UnixListener::bind(top.join("socket")).unwrap();
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for mode in [0o000, 0o111, 0o333, 0o444, 0o555] {
        let name = format!("mode-{mode:o}");
        let folder = top.join(&name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), name.as_bytes()).unwrap();
        fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        expected.insert(name.clone().into_bytes());
        expected.insert(format!("{name}/file").into_bytes());
        assert_eq!(yard.read(&format!("{name}/file")).unwrap(), name);
        let after = fs::symlink_metadata(&folder).unwrap().permissions().mode() & 0o7777;
        assert_eq!(after, mode, "as it was");
    }
    for name in ["to-folder", "to-file", "loop", "socket", "fifo"] {
        expected.insert(name.as_bytes().to_vec());
        assert!(yard.read(name).is_err(), "{name}");
    }
    assert!(yard.read("to-folder/secret").is_err());
    let (found, unread) = yard.walk();
    assert_eq!((found, unread), (expected, Vec::new()));
}

/// As an ordinary user, modes are an obstacle; as root they never were.
#[test]
#[expect(clippy::disallowed_methods, reason = "runs one of these tests as an ordinary user")]
fn an_ordinary_user_sees_the_same() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "platform::tree_tests::hostile_names_and_kinds_are_seen_and_nothing_is_followed_or_waited_for",
        ])
        .stdout(std::process::Stdio::null())
        .uid(65534)
        .gid(65534)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn deep_folders_take_few_descriptors() {
    let yard = Yard::new();
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(CWD, yard.top(), folder, Mode::empty()).unwrap();
    for depth in 0..3000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        // Some after the deep one is left again, in whatever order they are read.
        if depth % 100 == 0 {
            for name in ["a", "z"] {
                mkdirat(&at, name, Mode::RWXU).unwrap();
            }
        }
        at = openat(&at, "d", folder, Mode::empty()).unwrap();
    }
    drop(at);
    let before = open_descriptors();
    let mut walk = Walk::new(yard.tree(), true).unwrap();
    let (mut count, mut most, mut longest) = (0, 0, 0);
    while let Some(step) = walk.next().unwrap() {
        let Step::Found(found) = step else { panic!("unread") };
        count += 1;
        longest = longest.max(found.path.len());
        if count % 500 == 0 {
            most = most.max(open_descriptors());
        }
    }
    assert_eq!((count, longest), (3060, 3000 * 2 - 1));
    // Other tests open some too.
    assert!(most < before + 200, "{before} before, {most} at most");
    drop(walk);
    crate::sandbox::wipe(&yard.folder.path().join("trash"), &yard.top()).unwrap();
}

#[test]
fn a_wide_folder_is_seen_whole() {
    let yard = Yard::new();
    (0..3000).for_each(|number| fs::write(yard.top().join(number.to_string()), "").unwrap());
    assert_eq!(yard.walk().0.len(), 3000);
}

/// Swaps `top/swap` between a folder with `file` in it and a link to the outside, while `look` is called.
fn while_swapped(yard: &Yard, mut look: impl FnMut()) {
    let (swap, real) = (yard.top().join("swap"), yard.top().join("real"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("secret"), "harmless").unwrap();
    let link = yard.top().join("link");
    symlink(yard.outside(), &link).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for other in [&real, &link] {
                    let _ = fs::rename(other, &swap);
                    // Each gets its time there, however many share the processors.
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    let _ = fs::rename(&swap, other);
                }
            }
        });
        for _ in 0..1000 {
            look();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_swapped_for_a_link_leads_nowhere() {
    let yard = Yard::new();
    let mut read = 0;
    while_swapped(&yard, || match yard.read("swap/secret") {
        Ok(text) => {
            assert_eq!(text, "harmless");
            read += 1;
        }
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}"),
    });
    // Without a single success the test would show nothing.
    assert!(read > 0);
}

#[test]
fn a_walk_over_what_is_swapped_stays_inside() {
    let yard = Yard::new();
    while_swapped(&yard, || {
        let mut walk = Walk::new(yard.tree(), true).unwrap();
        while let Some(step) = walk.next().unwrap() {
            let Step::Found(found) = step else { continue };
            if found.node.kind() == FileType::RegularFile {
                let mut text = String::new();
                found.node.open().unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "harmless");
            }
        }
    });
}

#[test]
fn a_folder_that_is_another_is_noticed() {
    let yard = Yard::new();
    let tree = yard.tree();
    assert!(tree.is_still(&yard.top()));
    fs::rename(yard.top(), yard.folder.path().join("elsewhere")).unwrap();
    assert!(!tree.is_still(&yard.top()));
    fs::create_dir(yard.top()).unwrap();
    assert!(!tree.is_still(&yard.top()));
    assert!(Tree::open(Path::new("/nowhere/at/all")).unwrap().is_none());
    symlink(yard.outside(), yard.folder.path().join("linked")).unwrap();
    assert!(Tree::open(&yard.folder.path().join("linked")).is_err());
}
