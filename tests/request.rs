//! One HTTP request over the server's Unix socket, by hand: what goes over the wire, byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::process::PATIENCE;
use crate::test::Test;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without the chunks' frames.
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The events of a stream: ID, name, data.
    pub fn events(&self) -> Vec<(String, String, Value)> {
        let blocks = self.body.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
        let part = |block: &str, name: &str| -> String {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("no {name} in {block:?}")).to_owned()
        };
        blocks
            .map(|block| {
                assert_eq!(block.lines().count(), 3, "id, event and data, a line each: {block:?}");
                (
                    part(block, "id"),
                    part(block, "event"),
                    serde_json::from_str(&part(block, "data")).expect("JSON"),
                )
            })
            .collect()
    }
}

/// Sends a request as the original clients do (`Accept: */*`, a content type even without a body) and reads the answer
/// until the server has sent it whole.
pub fn request(test: &Test, method: &str, path: &str, body: Option<&str>) -> Answer {
    read(send(test, method, path, body, "close"))
}

/// The same, leaving it to the server whether the connection is closed.
pub fn keep_alive(test: &Test, method: &str, path: &str, body: Option<&str>) -> Answer {
    read_whole(send(test, method, path, body, "keep-alive"))
}

/// Reads an answer until it is whole, whether or not its connection is closed then.
/// Reads an answer to its end, and leaves the connection as it is.
pub fn read_whole(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&bytes) {
        match stream.read(&mut buffer).expect("an answer") {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    parse(&bytes)
}

/// Reads a stream of events anew, as a browser does that has read it up to the event with this ID.
pub fn events_after(test: &Test, path: &str, last: &str) -> Answer {
    read(send(test, "GET", path, None, &format!("close\r\nLast-Event-ID: {last}")))
}

/// Sends a request; the connection, on which the answer comes.
pub fn send(test: &Test, method: &str, path: &str, body: Option<&str>, connection: &str) -> UnixStream {
    let socket =
        test.json(["server", "status", "--json"])["socket"].as_str().expect("a running server").to_owned();
    let mut stream = UnixStream::connect(&socket).unwrap_or_else(|error| panic!("{socket}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let body = body.unwrap_or_default();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "{method} /v1{path} HTTP/1.1\r\nHost: anything.example\r\nAccept: */*\r\nContent-Type: application/json\r\n\
         Connection: {connection}\r\n{length}\r\n{body}"
    );
    // A server that refuses a request may answer and close before it has read it whole.
    let _ = stream.write_all(head.as_bytes());
    stream
}

/// Sends a request to an address, its whole path and its own headers given, and reads the answer.
pub fn over_tcp(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    read_whole(stream)
}

/// Reads an answer until its connection is closed.
pub fn read(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    parse(&bytes)
}

fn split(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 4..]))
}

pub fn is_whole(bytes: &[u8]) -> bool {
    let Some((head, body)) = split(bytes) else { return false };
    let head = head.to_lowercase();
    match head.lines().find_map(|line| line.strip_prefix("content-length:")) {
        Some(length) => body.len() >= length.trim().parse().expect("a length"),
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

pub fn parse(bytes: &[u8]) -> Answer {
    let (head, body) =
        split(bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { join_chunks(body) } else { body.to_vec() };
    // An archive is read as text for its head alone.
    let is_archive =
        headers.iter().any(|(name, value)| name == "content-type" && value == "application/gzip");
    let body = match is_archive {
        true => String::from_utf8_lossy(&body).into_owned(),
        false => String::from_utf8(body).expect("UTF-8"),
    };
    Answer { status, headers, body }
}

fn join_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|error| panic!("{error}: {size:?}"));
        let begin = end + 2;
        whole.extend_from_slice(&bytes[begin..begin + size]);
        bytes = &bytes[begin + size + 2..];
        if size == 0 {
            break;
        }
    }
    whole
}

#[test]
fn chunks_are_joined() {
    let answer = parse(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "abc0123456789"));
}
