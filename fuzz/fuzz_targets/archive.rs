//! Any bytes as an agent's archive: it is unpacked or refused, and nothing lies or leads outside its folder.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use superserve::platform::{Bounds, unpack};

const BLOCK: usize = 512;

/// Corrects the checksums of what is read as headers: a mutation that is refused by them teaches nothing.
fn mend(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = String::from_utf8_lossy(&header[124..136]).into_owned();
        let size = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or_default();
        at += BLOCK + size.min(1 << 20).next_multiple_of(BLOCK);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let archive = if *first == 0xff {
        rest.to_vec()
    } else {
        let mut tar = rest.to_vec();
        mend(&mut tar);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
        gzip.write_all(&tar).unwrap();
        gzip.finish().unwrap()
    };
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = place.path().join("src");
    let unpacked = unpack(&archive, &folder, Bounds { entries: 50, bytes: 1 << 20 });
    assert!(std::fs::read_dir(place.path()).unwrap().count() <= 1, "something lies outside");
    if unpacked.is_err() {
        return;
    }
    let inside = folder.canonicalize().unwrap();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            assert!(kind.is_dir() || kind.is_file() || kind.is_symlink());
            if let Ok(real) = path.canonicalize() {
                assert!(real.starts_with(&inside), "{} leads to {}", path.display(), real.display());
            }
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
});
