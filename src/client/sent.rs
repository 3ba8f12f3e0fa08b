//! How much of a body has been sent, seen from outside while it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream;
use reqwest::Body;
use reqwest::multipart::Part;

/// So many bytes are handed on at a time.
const PIECE: usize = 64 << 10;

/// Counts the bytes that were handed to the connection. Cheap to clone: all clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    /// How many bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A part of a form whose bytes are counted as they go. Its length is told beforehand.
    pub(super) fn part(&self, bytes: Vec<u8>) -> Part {
        let (count, length) = (self.0.clone(), bytes.len() as u64);
        let pieces = stream::unfold((bytes, 0), move |(bytes, begin)| {
            let end = bytes.len().min(begin + PIECE);
            let piece = bytes.get(begin..end).filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec);
            count.store(end as u64, Ordering::Relaxed);
            async move { piece.map(|piece| (Ok::<_, std::io::Error>(piece), (bytes, end))) }
        });
        Part::stream_with_length(Body::wrap_stream(pieces), length)
    }
}
