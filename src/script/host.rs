//! What an engine is given from outside: the way to the server, the terminal, the clock, options and limits.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::Notify;

use crate::client::{self, Client};
use crate::clock::Clock;

/// The way to a server.
pub trait Connection {
    /// A client of a server that answers; starts the local one if need be. Asked at a script's first call,
    /// and at the first one after it has waited for somebody or for a time.
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>>;
    /// A client of the server that the user knows under this name. Error: the user knows none.
    fn at(&self, name: &str) -> LocalBoxFuture<'_, client::Result<Client>>;
    /// A client of a server that runs already; starts none.
    fn running(&self) -> LocalBoxFuture<'_, Option<Client>>;
}

/// What a reader of lines was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without its end.
    Text(String),
    /// Nothing more will come: end of file, Ctrl-D.
    End,
    /// Ctrl-C at the prompt.
    Interrupted,
}

/// How much there is to do, and how that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Count(u64),
    Bytes(u64),
    /// Nobody knows how many there will be.
    SomeBytes,
    /// Nothing but time passes.
    Time,
}

/// Shows how far something is, until it is dropped.
pub trait Bar {
    /// So many are done.
    fn set(&self, done: u64);
}

/// Shows nothing.
impl Bar for () {
    fn set(&self, _: u64) {}
}

/// The whole of the terminal, drawn anew and again; when this is dropped the terminal is as it was.
pub trait FullScreen {
    /// Rows and columns.
    fn size(&self) -> (usize, usize);
    /// Shows these lines and nothing else. What stands there already is not written again.
    fn draw(&self, lines: &[String]) -> io::Result<()>;
    /// Shows a line at the bottom until the next picture.
    fn note(&self, text: &str) -> io::Result<()>;
    /// Waits until something concerns who draws here.
    fn event(&self) -> LocalBoxFuture<'_, ScreenEvent>;
}

/// What concerns who draws on the whole of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenEvent {
    Resized,
    /// The program is told to end, by a signal: with this exit code.
    Told(i32),
}

/// The only way to the terminal.
pub trait Terminal {
    /// Writes to stdout as is.
    fn out(&self, text: &str) -> io::Result<()>;
    /// Writes to stdout as is what need not be text.
    fn out_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.out(&String::from_utf8_lossy(bytes))
    }
    /// Writes to stderr as is; what can't be written is lost.
    fn err(&self, text: &str);
    fn out_is_terminal(&self) -> bool;
    fn err_is_terminal(&self) -> bool;
    fn in_is_terminal(&self) -> bool;
    /// Whether stdout takes colours.
    fn out_colour(&self) -> bool;
    /// Whether stderr takes colours.
    fn err_colour(&self) -> bool;
    /// Columns of stdout, if it is a terminal.
    fn width(&self) -> Option<usize>;
    /// The next line of stdin; the prompt goes to stderr, and only if stdin is a terminal.
    fn read_line(&self, prompt: &str) -> io::Result<Line>;
    /// Asks for what must not be shown: at a terminal a line, typed unseen; else all of stdin, which must be UTF-8, without
    /// a final new line.
    fn read_hidden(&self, prompt: &str) -> io::Result<Line>;
    /// A bar on stderr that fills while `what` is done; nothing where stderr is no terminal.
    fn bar(&self, what: &str, amount: Amount) -> Box<dyn Bar>;
    /// Takes the whole of the terminal that stdout is; `None` if it is none, or one that can't be drawn on.
    fn full_screen(&self) -> Option<Box<dyn FullScreen>> {
        None
    }
}

/// One run of a shell's command line.
#[derive(Clone, Debug, Default)]
pub struct ShellOrder {
    pub command: String,
    /// What the command reads; nothing if not given.
    pub stdin: Option<String>,
    /// Bytes of stdout and of stderr, each, that are kept; more stops the command.
    pub most: usize,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellAnswer {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Whether it was stopped since it wrote more than is kept.
    pub too_much: bool,
}

/// The only way to other programs.
pub trait Shell {
    /// Runs a command line and waits for its end. Whoever drops the future ends the command and all that it has started.
    fn run(&self, order: ShellOrder) -> LocalBoxFuture<'_, io::Result<ShellAnswer>>;
}

/// What of this machine a script may touch.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The working folder, in which files may be read and written.
    pub folder: PathBuf,
    /// Other folders in which they may.
    pub paths: Vec<PathBuf>,
    /// Folders that modules may come from, besides the script's own.
    pub modules: Vec<PathBuf>,
    /// Whether `sh` runs commands.
    pub sh: bool,
}

/// The flags that belong to every script.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Calls that would change something are told, not made.
    pub dry_run: bool,
    /// Every `confirm()` is answered with yes.
    pub yes: bool,
    /// Results are printed as JSON.
    pub json: bool,
    /// Titles are shown whole.
    pub no_trunc: bool,
}

/// Where a script is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps of the engine.
    pub operations: u64,
    /// Functions inside functions.
    pub call_levels: usize,
    /// How long a script may take, waiting included; `None` for as long as it likes.
    pub time: Option<Duration>,
    /// Bytes of memory that the script's thread may hold.
    pub memory: u64,
    /// Bytes of a text that comes from a file or from a command.
    pub string: usize,
    /// Bytes of a script's text.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations: 500_000_000,
            call_levels: 256,
            time: None,
            memory: 2 << 30,
            string: 256 << 20,
            text: 16 << 20,
        }
    }
}

/// Ctrl-C, as a script sees it. Cheap to clone; `set` may be called from any thread.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<InterruptState>);

#[derive(Debug, Default)]
struct InterruptState {
    set: AtomicBool,
    notify: Notify,
}

impl Interrupt {
    /// Stops the running script, or cancels the run that it shows.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it was set and not taken back.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// Takes it back: before a new line of the REPL, or after a run was cancelled.
    pub fn reset(&self) {
        self.0.set.store(false, Ordering::Release);
    }

    /// Returns when it is set; at once if it is.
    pub async fn wait(&self) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }
}

/// Looks a variable up.
pub type Environment = dyn Fn(&str) -> Option<String>;

/// A script's surroundings.
#[derive(Clone)]
pub struct Host {
    pub connection: Rc<dyn Connection>,
    pub terminal: Rc<dyn Terminal>,
    pub shell: Rc<dyn Shell>,
    pub access: Access,
    pub clock: Clock,
    pub options: Options,
    /// What `--json=FIELDS` names: fields, or expressions over a session's. None: all fields.
    pub fields: Rc<[String]>,
    pub interrupt: Interrupt,
    pub limits: Limits,
    /// The environment, as `env(name)` sees it.
    pub env: Rc<Environment>,
}

/// One parsed argument of a script with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A flag, given or not.
    Flag(bool),
    /// An option or a positional; `None` if it was not given.
    Text(Option<String>),
    /// A positional that takes many, or an option that may be repeated.
    Many(Vec<String>),
}

/// What `args` is inside a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Args {
    /// A script with a header: by the names there, with `_` for `-`.
    Named(BTreeMap<String, Arg>),
    /// A script without a header: an array of strings.
    List(Vec<String>),
}

impl Default for Args {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}
