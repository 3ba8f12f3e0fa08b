//! The terminal: the only owner of stdin, stdout and stderr.

use std::cell::RefCell;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice};
use rustyline::config::{Behavior, Configurer};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use crate::script::{Line, Terminal};

/// Whether a line is being waited for. The editor reads Ctrl-C as a key; where it can't (TERM=dumb), the signal comes.
static AT_PROMPT: AtomicBool = AtomicBool::new(false);

/// Whether a line is being waited for, so that Ctrl-C means to leave.
pub fn is_at_prompt() -> bool {
    AT_PROMPT.load(Ordering::SeqCst)
}

/// What `--color` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    Always,
    #[default]
    Auto,
    Never,
}

/// The terminal of this process.
pub struct Ui {
    out_colour: bool,
    err_colour: bool,
    editor: RefCell<Option<rustyline::Editor<(), MemHistory>>>,
}

impl Ui {
    /// The terminal, with colours as `--color`, NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM say.
    pub fn new(colour: Colour) -> Self {
        let choice = |automatic: ColorChoice| match colour {
            Colour::Always => true,
            Colour::Auto => automatic != ColorChoice::Never,
            Colour::Never => false,
        };
        Self {
            out_colour: choice(AutoStream::choice(&io::stdout())),
            err_colour: choice(AutoStream::choice(&io::stderr())),
            editor: RefCell::new(None),
        }
    }

    /// A line edited on the terminal itself, so that a redirected stdout stays clean.
    fn edit_line(&self, prompt: &str) -> io::Result<Line> {
        let mut slot = self.editor.borrow_mut();
        let editor = match &mut *slot {
            Some(editor) => editor,
            None => {
                let config = rustyline::Config::builder().behavior(Behavior::PreferTerm).build();
                let mut editor =
                    rustyline::Editor::with_history(config, MemHistory::new()).map_err(io::Error::other)?;
                editor.set_auto_add_history(true);
                slot.insert(editor)
            }
        };
        AT_PROMPT.store(true, Ordering::SeqCst);
        let read = editor.readline(prompt);
        AT_PROMPT.store(false, Ordering::SeqCst);
        match read {
            Ok(text) => Ok(Line::Text(text)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Terminal for Ui {
    fn out(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn err(&self, text: &str) {
        // Nobody is left to tell if stderr is gone.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn out_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    fn err_is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    fn in_is_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn out_colour(&self) -> bool {
        self.out_colour
    }

    fn err_colour(&self) -> bool {
        self.err_colour
    }

    fn width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|width| *width > 0)
    }

    fn read_line(&self, prompt: &str) -> io::Result<Line> {
        if self.in_is_terminal() {
            return self.edit_line(prompt);
        }
        let mut bytes = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Line::End);
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok(Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()))
    }
}
