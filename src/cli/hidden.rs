//! A line typed at the terminal without being shown.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::script::Line;

/// The terminal as it was, which it is again when this goes.
struct Shown(Termios);

impl Drop for Shown {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Reads a line from the terminal on stdin and shows nothing of it; the prompt goes to stderr.
pub fn read(prompt: &str) -> io::Result<Line> {
    let stdin = rustix::stdio::stdin();
    let before = tcgetattr(stdin)?;
    let mut quiet = before.clone();
    // Ctrl-C comes as a key, so that no signal ends the program with a terminal that shows nothing.
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(stdin, OptionalActions::Flush, &quiet)?;
    let shown = Shown(before);
    let mut err = io::stderr().lock();
    err.write_all(prompt.as_bytes())?;
    err.flush()?;
    let line = keys(&mut io::stdin().lock());
    drop(shown);
    err.write_all(b"\n")?;
    line
}

/// The line that these keys make.
fn keys(from: &mut impl Read) -> io::Result<Line> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACKSPACE: [u8; 2] = [8, 127];
    const CTRL_U: u8 = 21;
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(4096));
    let mut key = [0];
    loop {
        match from.read(&mut key) {
            Ok(0) if line.is_empty() => return Ok(Line::End),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match key[0] {
            b'\n' | b'\r' => break,
            CTRL_C => return Ok(Line::Interrupted),
            CTRL_D if line.is_empty() => return Ok(Line::End),
            CTRL_D => break,
            CTRL_U => line.clear(),
            letter if BACKSPACE.contains(&letter) => {
                // A whole character: the bytes that go on with one, and the one that begins it.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other => line.push(other),
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Line::Text(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Line {
        keys(&mut &*bytes).expect("a line")
    }

    #[test]
    fn keys_make_a_line() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(typed(b"hunter2\nmore"), text("hunter2"));
        assert_eq!(typed("h\u{e4}\u{7f}unt\u{8}\u{8}\u{8}x\r".as_bytes()), text("hx"));
        assert_eq!(typed(b"wrong\x15right\n"), text("right"));
        assert_eq!(typed(b"\n"), text(""));
        assert_eq!(typed(b"\x7f\x7fa\x04b"), text("a"));
        assert_eq!(typed(b"half"), text("half"));
        assert_eq!(typed(b"\x04"), Line::End);
        assert_eq!(typed(b"abc\x03\n"), Line::Interrupted);
        assert!(keys(&mut &b"\xff\n"[..]).is_err());
    }
}
