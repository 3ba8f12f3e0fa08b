//! Any bytes from an agent: lines are the same however they are cut, and each is a frame or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use superserve::harness::{Frame, Lines};

fn lines(limit: usize, pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, Vec<u8>>> {
    let mut found = Vec::new();
    let mut lines = Lines::up_to(limit);
    for piece in pieces {
        lines.feed(piece, |line| found.push(line.map(<[u8]>::to_vec).map_err(<[u8]>::to_vec)));
    }
    found
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (limit, cut, bytes) = input;
    let limit = usize::from(limit) + 1;
    let whole = lines(limit, &[bytes]);
    let (one, other) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(whole, lines(limit, &[one, other]), "cut at {cut}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(whole, lines(limit, &single), "cut everywhere");
    for line in bytes.split(|byte| *byte == b'\n').chain([bytes]) {
        let frame = Frame::parse(line);
        let signal = Frame::parse_signal(line);
        assert!(frame.is_none() || frame == signal || line.trim_ascii() == b"turn_done");
        // What is no object is none.
        assert!(frame.is_none() || line.trim_ascii_start().starts_with(b"{"));
    }
});
