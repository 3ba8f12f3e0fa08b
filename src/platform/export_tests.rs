//! What an archive of a session holds, whatever its workspace holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rustix::fs::{CWD, FileType, Mode};

use super::export::Export;
use super::tree::{Tree, Walk};
use crate::wire::file::ExportNotes;

struct Yard(tempfile::TempDir);

impl Yard {
    fn new() -> Self {
        let yard = Self(tempfile::tempdir().unwrap());
        fs::create_dir(yard.top()).unwrap();
        yard
    }

    fn top(&self) -> PathBuf {
        self.0.path().join("workspace")
    }

    fn begin(&self) -> Export {
        let walk = Tree::open(&self.top()).unwrap().map(|tree| Walk::new(tree, true).unwrap());
        Export::new(vec![("session.json", b"{}".to_vec())], 1_773_051_300, walk, self.top())
    }
}

fn pieces(mut export: Export) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(piece) = export.step()? {
        whole.extend(piece);
    }
    Ok(whole)
}

/// By their names: sort, mode, and content or target.
type Entries = BTreeMap<String, (u8, u32, Vec<u8>)>;

fn entries(archive: &[u8]) -> (Entries, ExportNotes) {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let mut found = BTreeMap::new();
    let mut notes = ExportNotes::default();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = entry.link_name_bytes().map(|name| name.to_vec()).unwrap_or_default();
        if entry.header().entry_type().is_file() || entry.header().entry_type().is_gnu_sparse() {
            content.clear();
            entry.read_to_end(&mut content).unwrap();
        }
        if name == ExportNotes::NAME {
            notes = serde_json::from_slice(&content).unwrap();
        }
        let kind = entry.header().entry_type().as_byte();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        let mode = entry.header().mode().unwrap();
        assert!(found.insert(name.clone(), (kind, mode, content)).is_none(), "{name} twice");
    }
    (found, notes)
}

#[test]
fn holds_what_can_be_kept_and_says_what_can_not() {
    let yard = Yard::new();
    let top = yard.top();
    fs::create_dir(top.join("deep")).unwrap();
    fs::write(top.join("deep/file"), "content").unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(top.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(top.join("empty"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(top.join("deep"), fs::Permissions::from_mode(0o000)).unwrap();
    symlink("/etc/passwd", top.join("passwd")).unwrap();
    // Longer than a header takes, with a cut at its end that would read as `..`.
    let long = format!("{}/..{}", "x".repeat(87), "y".repeat(200));
    fs::create_dir(top.join("x".repeat(87))).unwrap();
    fs::write(top.join(&long), "long").unwrap();
    symlink("z".repeat(300), top.join("to-long")).unwrap();
    let odd = top.join(Path::new(std::str::from_utf8(b"new\nline").unwrap()));
    fs::write(&odd, "odd").unwrap();
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let (found, notes) = entries(&pieces(yard.begin()).unwrap());
    fs::set_permissions(top.join("deep"), fs::Permissions::from_mode(0o700)).unwrap();
    let text = |name: &str| {
        let (kind, mode, content) = &found[name];
        (*kind, *mode, String::from_utf8_lossy(content).into_owned())
    };
    assert_eq!(text("session.json"), (b'0', 0o644, "{}".to_owned()));
    assert_eq!(text("workspace/deep/file").2, "content");
    assert_eq!((text("workspace/deep/").0, text("workspace/deep/").1), (b'5', 0o700));
    assert_eq!(text("workspace/empty"), (b'0', 0o600, String::new()));
    assert_eq!(text("workspace/tool"), (b'0', 0o755, "#!/bin/sh\n".to_owned()), "without setuid");
    assert_eq!(text("workspace/passwd"), (b'2', 0o777, "/etc/passwd".to_owned()));
    assert_eq!(text(&format!("workspace/{long}")).2, "long");
    assert_eq!(text("workspace/to-long"), (b'2', 0o777, "z".repeat(300)));
    assert_eq!(text("workspace/new\nline").2, "odd");
    assert_eq!(found.len(), 11, "{:?}", found.keys());
    assert_eq!((notes.entries, notes.is_whole()), (9, true));
    let told: Vec<(&str, &str)> =
        notes.notes.iter().map(|note| (note.path.as_str(), note.reason.as_str())).collect();
    assert_eq!(told, [("fifo", "a pipe can't be kept")]);
}

#[test]
fn holes_stay_holes() {
    let yard = Yard::new();
    let mut file = fs::File::create(yard.top().join("sparse")).unwrap();
    // A terabyte that would take hours as zeros; more pieces than a header and its first extension take.
    let step = 16_u64 << 20;
    for number in 0..40 {
        file.seek(SeekFrom::Start(number * step)).unwrap();
        file.write_all(&[u8::try_from(number).unwrap() + 1; 5000]).unwrap();
    }
    file.set_len(1 << 40).unwrap();
    fs::File::create(yard.top().join("nothing")).unwrap().set_len(1 << 30).unwrap();
    let whole = pieces(yard.begin()).unwrap();
    assert!(whole.len() < 1 << 20, "{} bytes", whole.len());
    let mut archive = tar::Archive::new(GzDecoder::new(&whole[..]));
    let mut seen = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.path().unwrap().ends_with("sparse") {
            continue;
        }
        seen += 1;
        assert_eq!(entry.size(), 1 << 40);
        let mut beginning = vec![0; (16 << 20) + 5001];
        entry.read_exact(&mut beginning).unwrap();
        assert!(beginning[..5000].iter().all(|byte| *byte == 1));
        assert!(beginning[5000..16 << 20].iter().all(|byte| *byte == 0));
        assert!(beginning[16 << 20..(16 << 20) + 5000].iter().all(|byte| *byte == 2));
        assert_eq!(beginning[(16 << 20) + 5000], 0);
        // Reading on would take an hour; what follows it shows that its length is right.
        break;
    }
    assert_eq!(seen, 1);
}

#[test]
fn a_file_that_changes_while_it_is_read_has_the_length_that_was_told() {
    let yard = Yard::new();
    let path = yard.top().join("changing");
    // Bytes that don't get smaller, so that it takes several steps.
    let noise: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (change, note) in [(8_000_000, "grew"), (1_000_000, "smaller")] {
        fs::write(&path, &noise).unwrap();
        let mut export = yard.begin();
        let mut whole = export.step().unwrap().unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(change).unwrap();
        while let Some(piece) = export.step().unwrap() {
            whole.extend(piece);
        }
        let (found, notes) = entries(&whole);
        assert_eq!(found["workspace/changing"].2.len(), noise.len());
        assert!(notes.is_whole() && notes.notes[0].reason.contains(note), "{notes:?}");
    }
}

#[test]
fn a_workspace_that_goes_meanwhile_gives_no_whole_archive() {
    let yard = Yard::new();
    (0..3000).for_each(|number| fs::write(yard.top().join(number.to_string()), number.to_string()).unwrap());
    let mut export = yard.begin();
    fs::rename(yard.top(), yard.0.path().join("trash")).unwrap();
    let error = loop {
        match export.step() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it looks whole"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("ended while"), "{error}");
}

#[test]
fn a_session_without_a_workspace_has_its_records() {
    let yard = Yard::new();
    fs::remove_dir(yard.top()).unwrap();
    let (found, notes) = entries(&pieces(yard.begin()).unwrap());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["export.json", "session.json"]);
    assert_eq!(notes, ExportNotes::default());
}
