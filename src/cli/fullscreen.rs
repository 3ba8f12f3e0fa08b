//! The terminal's screen, drawn anew and again: a line is written only if it has changed, all of them at once, on a screen of
//! its own, so that what stood there before is there again afterwards.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::script::{FullScreen, ScreenEvent};

/// A screen of its own, no cursor, lines that are cut at the edge.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Around a picture, so that a terminal that knows it never shows half of one.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// Where the size can't be had.
const USUAL: (usize, usize) = (24, 80);

/// Whether this process is on a screen of its own.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal its own screen back, if it is drawn on: whoever ends the program at once calls it before.
pub fn leave() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        // Nobody is left to tell if stdout is gone.
        let _ = write(LEAVE);
    }
}

/// The screen; the terminal is as it was when this is dropped.
pub struct Screen {
    /// How the terminal read keys, if they come from it.
    before: Option<Termios>,
    drawn: RefCell<Drawn>,
    signals: RefCell<Option<Signals>>,
}

/// What stands there.
#[derive(Default)]
struct Drawn {
    size: (usize, usize),
    lines: Vec<String>,
}

/// Those that concern who draws on a screen.
struct Signals {
    resized: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ScreenEvent> {
        let told = |kind: SignalKind| Poll::Ready(ScreenEvent::Told(128 + kind.as_raw_value()));
        if self.terminated.poll_recv(context).is_ready() {
            return told(SignalKind::terminate());
        }
        if self.hung_up.poll_recv(context).is_ready() {
            return told(SignalKind::hangup());
        }
        self.resized.poll_recv(context).map(|_| ScreenEvent::Resized)
    }
}

impl Screen {
    /// Takes the terminal on stdout. Error: it can't be written.
    pub fn open() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = if io::stdin().is_terminal() { tcgetattr(stdin).ok() } else { None };
        if let Some(before) = &before {
            // What is typed would stand in the picture. Ctrl-C is a signal as ever.
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            tcsetattr(stdin, OptionalActions::Now, &quiet)?;
        }
        let screen = Self { before, drawn: RefCell::default(), signals: RefCell::default() };
        IS_OPEN.store(true, Ordering::SeqCst);
        write(ENTER)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
        if let Some(before) = &self.before {
            // With what was typed meanwhile: it was meant for nobody. A terminal that is gone needs nothing.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, before);
        }
    }
}

impl FullScreen for Screen {
    fn size(&self) -> (usize, usize) {
        match tcgetwinsize(rustix::stdio::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
            _ => USUAL,
        }
    }

    fn draw(&self, lines: &[String]) -> io::Result<()> {
        let size = self.size();
        let mut drawn = self.drawn.borrow_mut();
        let lines = &lines[..lines.len().min(size.0)];
        let before = if drawn.size == size { Some(drawn.lines.as_slice()) } else { None };
        let text = picture(before, lines);
        *drawn = Drawn { size, lines: lines.to_vec() };
        drop(drawn);
        if text.is_empty() { Ok(()) } else { write(&format!("{BEGIN}{text}{END}")) }
    }

    fn note(&self, text: &str) -> io::Result<()> {
        let (rows, _) = self.size();
        let mut lines = self.drawn.borrow().lines.clone();
        lines.resize(rows.max(1), String::new());
        if let Some(last) = lines.last_mut() {
            *last = text.to_owned();
        }
        self.draw(&lines)
    }

    fn event(&self) -> LocalBoxFuture<'_, ScreenEvent> {
        Box::pin(poll_fn(|context| {
            let mut signals = self.signals.borrow_mut();
            if signals.is_none() {
                // Without them a new size is seen at the next picture, and the terminal stays drawn on if we are killed.
                *signals = Signals::new().ok();
            }
            signals.as_mut().map_or(Poll::Pending, |signals| signals.poll(context))
        }))
    }
}

/// What has to be written so that these lines stand there, where those of `before` stood; of `None` nobody knows what stood.
fn picture(before: Option<&[String]>, lines: &[String]) -> String {
    let mut text = if before.is_none() { "\x1b[2J".to_owned() } else { String::new() };
    for (place, line) in lines.iter().enumerate() {
        if before.and_then(|before| before.get(place)) != Some(line) {
            let _ = write!(text, "\x1b[{};1H{line}\x1b[m\x1b[K", place + 1);
        }
    }
    // Never below the last row, where the terminal would take the last row itself.
    if before.is_some_and(|before| before.len() > lines.len()) {
        let _ = write!(text, "\x1b[{};1H\x1b[J", lines.len() + 1);
    }
    text
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn only_what_has_changed_is_written() {
        let first = lines("header|one|two");
        assert_eq!(
            picture(None, &first),
            "\x1b[2J\x1b[1;1Hheader\x1b[m\x1b[K\x1b[2;1Hone\x1b[m\x1b[K\x1b[3;1Htwo\x1b[m\x1b[K"
        );
        assert_eq!(picture(Some(&first), &first), "");
        assert_eq!(picture(Some(&first), &lines("header|1|two")), "\x1b[2;1H1\x1b[m\x1b[K");
        assert_eq!(picture(Some(&first), &lines("header|one")), "\x1b[3;1H\x1b[J");
        assert_eq!(picture(Some(&first), &lines("header|one|two|three")), "\x1b[4;1Hthree\x1b[m\x1b[K");
    }
}
