//! The terminal: the only owner of stdin, stdout and stderr.

use std::cell::{OnceCell, RefCell};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustyline::config::{Behavior, Configurer};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::fullscreen::Screen;
use super::hidden;
use crate::config;
use crate::script::{Amount, Bar, FullScreen, Line, Terminal};

/// What is done sooner than this is not worth a bar.
const BAR_AFTER: Duration = Duration::from_millis(300);

/// Who waits for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPrompt {
    Nobody,
    /// Ctrl-C means to leave.
    Question,
    /// Ctrl-C means another line.
    Repl,
}

/// An [`AtPrompt`]. The editor reads Ctrl-C as a key; where it can't (TERM=dumb), the signal comes.
static AT_PROMPT: AtomicU8 = AtomicU8::new(AtPrompt::Nobody as u8);

/// Who waits for a line, so that it is known what Ctrl-C means.
pub fn at_prompt() -> AtPrompt {
    match AT_PROMPT.load(Ordering::SeqCst) {
        known if known == AtPrompt::Question as u8 => AtPrompt::Question,
        known if known == AtPrompt::Repl as u8 => AtPrompt::Repl,
        _ => AtPrompt::Nobody,
    }
}

/// Runs `read`, which waits for a line.
pub fn at_prompt_of<T>(who: AtPrompt, read: impl FnOnce() -> T) -> T {
    AT_PROMPT.store(who as u8, Ordering::SeqCst);
    let read = read();
    AT_PROMPT.store(AtPrompt::Nobody as u8, Ordering::SeqCst);
    read
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
    /// What is drawn at the bottom of the terminal now.
    bar: Rc<RefCell<Option<ProgressBar>>>,
}

/// A bar that begins to show when the work takes longer than a moment.
struct LazyBar {
    shown: Rc<RefCell<Option<ProgressBar>>>,
    own: OnceCell<ProgressBar>,
    what: String,
    amount: Amount,
    begun: Instant,
    colour: bool,
}

impl LazyBar {
    fn draw(&self) -> ProgressBar {
        let paint = if self.colour { ".cyan" } else { "" };
        let (template, total) = match self.amount {
            Amount::Count(total) => {
                (format!("{{msg}} [{{bar:30{paint}}}] {{pos}}/{{len}} {{elapsed}}"), Some(total))
            }
            Amount::Bytes(total) => {
                (format!("{{msg}} [{{bar:30{paint}}}] {{bytes}}/{{total_bytes}} {{elapsed}}"), Some(total))
            }
            Amount::SomeBytes => (format!("{{spinner:{paint}}} {{msg}} {{bytes}} {{elapsed}}"), None),
            Amount::Time => (format!("{{spinner:{paint}}} {{msg}} {{elapsed}}"), None),
        };
        // A template that is wrong would be a plain bar.
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(self.what.clone())
            .with_elapsed(self.begun.elapsed());
        *self.shown.borrow_mut() = Some(bar.clone());
        bar
    }
}

impl Bar for LazyBar {
    fn set(&self, done: u64) {
        if self.begun.elapsed() >= BAR_AFTER {
            let bar = self.own.get_or_init(|| self.draw());
            bar.set_position(done);
            bar.tick();
        }
    }
}

impl Drop for LazyBar {
    fn drop(&mut self) {
        if let Some(bar) = self.own.get() {
            bar.finish_and_clear();
            self.shown.take();
        }
    }
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
            bar: Rc::default(),
        }
    }

    /// Takes away a bar that nobody has finished.
    pub fn clear_bar(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    /// Writes while no bar is in the way.
    fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
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
        match at_prompt_of(AtPrompt::Question, || editor.readline(prompt)) {
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
        self.beside_bar(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    fn out_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.beside_bar(|| {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        })
    }

    fn err(&self, text: &str) {
        // Nobody is left to tell if stderr is gone.
        let _ = self.beside_bar(|| io::stderr().lock().write_all(text.as_bytes()));
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

    fn read_hidden(&self, prompt: &str) -> io::Result<Line> {
        if self.in_is_terminal() {
            return hidden::read(prompt);
        }
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        if text.is_empty() {
            return Ok(Line::End);
        }
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Line::Text(text))
    }

    fn bar(&self, what: &str, amount: Amount) -> Box<dyn Bar> {
        if !self.err_is_terminal() {
            return Box::new(());
        }
        Box::new(LazyBar {
            shown: self.bar.clone(),
            own: OnceCell::new(),
            what: what.to_owned(),
            amount,
            begun: Instant::now(),
            colour: self.err_colour,
        })
    }

    fn full_screen(&self) -> Option<Box<dyn FullScreen>> {
        // One that can't move its cursor would show what it should obey.
        let moves = config::environment("TERM").is_some_and(|term| term != "dumb");
        if !self.out_is_terminal() || !moves {
            return None;
        }
        Screen::open().ok().map(|screen| Box::new(screen) as Box<dyn FullScreen>)
    }
}
