//! Archives that mean well, and archives that don't.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::wire::{AgentConfig, ErrorCode};

/// An entry whose names are written as they are, past the checks of the crate's builder.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", content.as_bytes())
}

/// An extension of the next entry.
fn pax(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in pairs {
        let rest = format!(" {key}={value}\n");
        // The length counts its own digits.
        let length =
            (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).expect("a length");
        text += &format!("{length}{rest}");
    }
    entry(EntryType::XHeader, "extension", "", text.as_bytes())
}

fn gzip(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for entry in entries {
        gzip.write_all(entry).expect("gzip");
    }
    gzip.write_all(&[0; 1024]).expect("gzip");
    gzip.finish().expect("gzip")
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(place.0.path().join("secret"), "secret").expect("a file");
        place
    }

    fn src(&self) -> PathBuf {
        self.0.path().join("src")
    }

    fn unpack(&self, entries: &[Vec<u8>]) -> Result<SourceHash> {
        unpack(&gzip(entries), &self.src(), Bounds { entries: 20, bytes: 1 << 20 })
    }
}

/// The error, after a look that nothing lies or points outside.
fn refused(entries: &[Vec<u8>]) -> Error {
    let place = Place::new();
    let error = place.unpack(entries).err().expect("refused");
    assert_eq!(std::fs::read_to_string(place.0.path().join("secret")).expect("the file"), "secret");
    let around: Vec<_> = std::fs::read_dir(place.0.path())
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert_eq!(around.len(), 2, "{around:?}");
    error
}

#[test]
fn files_folders_links_and_modes_arrive() {
    let place = Place::new();
    let hash = place
        .unpack(&[
            entry(EntryType::Directory, "./", "", b""),
            entry(EntryType::Directory, "lib/", "", b""),
            file("./lib/a.sh", "echo a"),
            file("deep/er/b", "b"),
            entry(EntryType::Symlink, "lib/up", "../deep/er/b", b""),
            entry(EntryType::Link, "c", "lib/a.sh", b""),
            file("deep/er/b", "again"),
        ])
        .expect("unpacked");
    let src = place.src();
    assert_eq!(std::fs::read_to_string(src.join("lib/up")).expect("a link"), "again");
    assert_eq!(std::fs::read_to_string(src.join("c")).expect("a copy"), "echo a");
    let (a, c) = (src.join("lib/a.sh"), src.join("c"));
    assert_ne!(a.metadata().expect("a").ino(), c.metadata().expect("c").ino(), "no shared file");
    assert_eq!(a.metadata().expect("a").mode() & 0o7777, 0o755, "setuid is gone");
    assert_eq!(hash.finish(&AgentConfig::default()).len(), 64);
}

#[test]
fn the_hash_is_that_of_the_whole_stream() {
    let entries = [file("a", "1"), file("b", "2")];
    let mut expected = SourceHash::default();
    expected.update(&[entries.concat(), vec![0; 1024]].concat());
    let config = AgentConfig { command: Some("sh a".into()), ..AgentConfig::default() };
    let hash = Place::new().unpack(&entries).expect("unpacked").finish(&config);
    assert_eq!(hash, expected.finish(&config));
}

#[test]
fn nothing_leaves_the_folder() {
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![file("../secret", "x")],
        vec![file("a/../../secret", "x")],
        vec![file("/etc/x", "x")],
        vec![entry(EntryType::Symlink, "out", "../secret", b"")],
        vec![entry(EntryType::Symlink, "out", "/etc/passwd", b"")],
        vec![entry(EntryType::Symlink, "a/out", "../../secret", b"")],
        vec![entry(EntryType::Link, "out", "../secret", b"")],
        vec![entry(EntryType::Link, "out", "missing", b"")],
        vec![entry(EntryType::Symlink, "a", "b", b""), entry(EntryType::Link, "c", "a", b"")],
        vec![entry(EntryType::Symlink, "dir", ".", b""), file("dir/x", "x")],
        vec![entry(EntryType::Symlink, "x", "", b"")],
        vec![entry(EntryType::Symlink, "a", ".", b""), entry(EntryType::Symlink, "b", "a/..", b"")],
        // The second comes to lead out by what comes after it.
        vec![
            entry(EntryType::Directory, "d/", "", b""),
            entry(EntryType::Symlink, "d/b", "../a/../..", b""),
            entry(EntryType::Symlink, "a", "d", b""),
        ],
        vec![
            entry(EntryType::Symlink, "1", ".", b""),
            entry(EntryType::Symlink, "2", "1/1/1", b""),
            entry(EntryType::Symlink, "3", "2/2/..", b""),
        ],
        vec![pax(&[("path", "../secret")]), file("a", "x")],
        vec![pax(&[("path", "/etc/x")]), file("a", "x")],
        vec![pax(&[("linkpath", "../secret")]), entry(EntryType::Symlink, "a", "b", b"")],
        vec![pax(&[("linkpath", "/etc/passwd")]), entry(EntryType::Link, "a", "b", b"")],
        vec![pax(&[("size", "99999999999")]), file("a", "x")],
        vec![pax(&[("GNU.sparse.realsize", "99999999999")]), file("a", "x")],
        vec![entry(EntryType::GNUSparse, "a", "", b"x")],
        vec![entry(EntryType::GNULongName, "x", "", b"../secret\0"), file("a", "x")],
        vec![entry(EntryType::GNULongLink, "x", "", b"../secret"), entry(EntryType::Symlink, "a", "b", b"")],
        vec![entry(EntryType::XHeader, "x", "", b"no extension\n"), file("a", "x")],
        vec![entry(EntryType::Char, "null", "", b"")],
        vec![entry(EntryType::Block, "disk", "", b"")],
        vec![entry(EntryType::Fifo, "pipe", "", b"")],
        vec![file("a", "x"), file("a/b", "x")],
        vec![file("a/b", "x"), file("a", "x")],
    ];
    for entries in cases {
        let error = refused(&entries);
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn bombs_are_refused() {
    let zeros = "0".repeat(1 << 20);
    assert_eq!(refused(&[file("a", &zeros), file("b", "1")]).code(), ErrorCode::TooLarge);
    let copies: Vec<_> = std::iter::once(file("a", &"0".repeat(300 << 10)))
        .chain((0..9).map(|n| entry(EntryType::Link, &format!("l{n}"), "a", b"")))
        .collect();
    assert_eq!(refused(&copies).code(), ErrorCode::TooLarge);
    let many: Vec<_> = (0..30).map(|n| file(&n.to_string(), "")).collect();
    assert_eq!(refused(&many).code(), ErrorCode::TooLarge);
    // A long name of many megabytes, in an entry that the reader takes as a whole.
    let name = entry(EntryType::GNULongName, "x", "", "n".repeat(8 << 20).as_bytes());
    assert_eq!(refused(&[name, file("a", "")]).code(), ErrorCode::TooLarge);
    for kind in [EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        let name = entry(kind, "x", "", "n".repeat(100_000).as_bytes());
        assert_eq!(refused(&[name, file("a", "")]).code(), ErrorCode::TooLarge);
    }
}

#[test]
fn long_and_odd_names_arrive() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let (other, odd) = ("o".repeat(150), std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    place
        .unpack(&[
            pax(&[("mtime", "1.5"), ("path", &long)]),
            file("short", "pax"),
            entry(EntryType::GNULongName, "././@LongLink", "", format!("{other}\0").as_bytes()),
            file("short", "gnu"),
            entry(EntryType::XGlobalHeader, "global", "", b"18 comment=ignored\n"),
            entry(EntryType::GNULongLink, "././@LongLink", "", format!("{other}\0").as_bytes()),
            entry(EntryType::Symlink, "link", "x", b""),
            entry(EntryType::GNULongName, "././@LongLink", "", b"\xff\xfe"),
            file("short", "odd"),
            file("Case", "upper"),
            file("case", "lower"),
        ])
        .expect("unpacked");
    let read = |name: &Path| std::fs::read_to_string(place.src().join(name)).expect("a file");
    assert_eq!(read(Path::new(&long)), "pax");
    assert_eq!(read(Path::new(&other)), "gnu");
    assert_eq!(read(Path::new("link")), "gnu");
    assert_eq!(read(Path::new(odd)), "odd");
    assert_eq!((read(Path::new("Case")), read(Path::new("case"))), ("upper".into(), "lower".into()));
    assert!(!place.src().join("short").exists());
}

#[test]
fn links_in_a_circle_lead_nowhere() {
    let place = Place::new();
    place
        .unpack(&[
            entry(EntryType::Symlink, "a", "b/x", b""),
            entry(EntryType::Symlink, "b", "a", b""),
            entry(EntryType::Symlink, "self", "self", b""),
            entry(EntryType::Symlink, "gone", "missing/../x", b""),
        ])
        .expect("unpacked");
}

#[test]
fn half_an_archive_is_none() {
    let whole = gzip(&[file("a", &"text ".repeat(2000)), file("b", "b")]);
    for cut in [0, 5, 20, whole.len() / 2, whole.len() - 4] {
        let place = Place::new();
        let error = unpack(&whole[..cut], &place.src(), Bounds::default()).err().expect("refused");
        assert_eq!(error.code(), ErrorCode::Invalid, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any row of entries either unpacks or is refused; nothing appears outside, no link points outside.
    #[test]
    fn any_entries_stay_inside(
        entries in prop::collection::vec(
            (0u8..5, "(\\.\\./|/|\\./)?[ab](/[ab.]{1,2}){0,2}", "(\\.\\./){0,2}[ab/.]{1,4}"),
            1..8,
        )
    ) {
        let bytes: Vec<_> = entries
            .iter()
            .map(|(kind, name, link)| match kind {
                0 => entry(EntryType::Directory, name, "", b""),
                1 => entry(EntryType::Symlink, name, link, b""),
                2 => entry(EntryType::Link, name, link, b""),
                _ => file(name, "x"),
            })
            .collect();
        let place = Place::new();
        let unpacked = place.unpack(&bytes);
        prop_assert_eq!(std::fs::read_dir(place.0.path()).expect("a folder").count(), 2);
        prop_assert_eq!(std::fs::read_to_string(place.0.path().join("secret")).expect("a file"), "secret");
        let mut kinds = BTreeMap::new();
        let mut folders = vec![place.src()];
        while let Some(folder) = folders.pop() {
            for found in std::fs::read_dir(&folder).expect("a folder") {
                let path = found.expect("an entry").path();
                let kind = path.symlink_metadata().expect("it").file_type();
                prop_assert!(!kind.is_fifo() && !kind.is_char_device());
                if let Ok(real) = path.canonicalize() {
                    let inside = place.src().canonicalize().expect("it");
                    // What was refused half way may still have its links.
                    prop_assert!(unpacked.is_err() || real.starts_with(&inside), "{} leads to {}", path.display(), real.display());
                }
                if kind.is_dir() {
                    folders.push(path);
                } else {
                    kinds.insert(path, kind);
                }
            }
        }
    }
}
