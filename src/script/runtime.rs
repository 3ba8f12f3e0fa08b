//! What a running script shares with the functions that it calls: the way to the server, output, and how it was stopped.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rhai::{Dynamic, NativeCallContext};

use super::failure::{Failure, Fallible};
use super::fixture::World;
use super::session::Session;
use super::{Host, Options};
use crate::client::{self, Client};
use crate::memory;
use crate::render::{self, Style};
use crate::wire::{self, Timestamp};

/// Cheap to clone; every native function finds it in its call's context.
#[derive(Clone)]
pub struct Runtime {
    state: Rc<State>,
    /// The server that a script has named; none is the one that a command speaks to.
    server: Option<Arc<str>>,
}

struct State {
    host: Host,
    /// Those of the host at first.
    options: Cell<Options>,
    tokio: OnceCell<tokio::runtime::Runtime>,
    /// By the server's name.
    clients: RefCell<HashMap<Option<Arc<str>>, Client>>,
    /// The code of `exit(code)`, once it was called.
    exit: Cell<Option<i32>>,
    args: RefCell<Dynamic>,
    /// Why stdout couldn't be written, where no call could throw it.
    output_error: RefCell<Option<String>>,
    /// Whether the program ends after the script.
    is_last: Cell<bool>,
    /// What was changed on the server, counted by sort.
    changes: RefCell<Vec<(Change, usize)>>,
    /// Where a test runs.
    world: Option<Rc<dyn World>>,
    /// When the script must have ended.
    deadline: Cell<Option<Instant>>,
    /// The steps of the engine since the script began.
    steps: Cell<u64>,
    /// At which step the script is stopped for good, once it has passed a limit.
    last_step: Cell<u64>,
    /// The limit that has stopped the script.
    passed: Cell<Option<Passed>>,
}

/// A limit that a script has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    Levels,
    Memory,
    Steps,
    Time,
}

/// After how many steps of the engine the clock is looked at; a step takes less than a microsecond.
const STEPS_A_LOOK: u64 = 1 << 10;
/// How many steps a script may take that has passed a limit. What stops it for good has no place inside of a function, so
/// that the next look at a variable is given the chance to stop it with one.
const LAST_STEPS: u64 = 2000;

/// The exit code of what Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// A sort of change, for what an interrupted script says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    CancelRun,
    CreateSession,
    DeleteAgent,
    DeleteSecret,
    DeleteSession,
    DeployAgent,
    EndSession,
    ResumeSession,
    SendMessage,
    SetSecret,
    WriteFile,
}

impl Change {
    fn told(self, count: usize) -> String {
        let (done, one) = match self {
            Self::CancelRun => ("cancelled", "run"),
            Self::CreateSession => ("created", "session"),
            Self::DeleteAgent => ("deleted", "agent"),
            Self::DeleteSecret => ("deleted", "secret"),
            Self::DeleteSession => ("deleted", "session"),
            Self::DeployAgent => ("deployed", "agent"),
            Self::EndSession => ("ended", "session"),
            Self::ResumeSession => ("resumed", "session"),
            Self::SendMessage => ("sent", "message"),
            Self::SetSecret => ("set", "secret"),
            Self::WriteFile => ("wrote", "file"),
        };
        format!("{done} {count} {one}{}", if count == 1 { "" } else { "s" })
    }
}

impl Runtime {
    pub fn new(host: Host) -> Self {
        Self::in_world(host, None)
    }

    /// The runtime of a script under test, if there is a `world`.
    pub fn in_world(host: Host, world: Option<Rc<dyn World>>) -> Self {
        let state = State {
            options: Cell::new(host.options),
            host,
            tokio: OnceCell::new(),
            clients: RefCell::default(),
            exit: Cell::new(None),
            args: RefCell::new(Dynamic::UNIT),
            output_error: RefCell::new(None),
            is_last: Cell::new(false),
            changes: RefCell::new(Vec::new()),
            world,
            deadline: Cell::new(None),
            steps: Cell::new(0),
            last_step: Cell::new(u64::MAX),
            passed: Cell::new(None),
        };
        Self { state: Rc::new(state), server: None }
    }

    /// A script begins: its time runs from now.
    pub fn begin(&self) {
        self.state.passed.set(None);
        self.state.steps.set(0);
        self.state.last_step.set(u64::MAX);
        self.state
            .deadline
            .set(self.state.host.limits.time.and_then(|time| Instant::now().checked_add(time)));
    }

    /// The script has passed a limit, and is stopped: give the failure back.
    pub fn pass(&self, limit: Passed) -> Failure {
        self.state.passed.set(Some(limit));
        self.state.last_step.set(self.state.steps.get().saturating_add(LAST_STEPS));
        Failure::Passed(limit)
    }

    /// The limit that the script has passed.
    pub fn passed(&self) -> Option<Passed> {
        self.state.passed.get()
    }

    /// The same, once.
    pub fn take_passed(&self) -> Option<Passed> {
        self.state.passed.take()
    }

    /// The runtime of the engine that made this call.
    pub fn of(context: &NativeCallContext) -> Fallible<Self> {
        context.tag().and_then(|tag| tag.clone().try_cast::<Self>()).ok_or_else(|| {
            Failure::script("this function works only inside superserve's own engine").at(context)
        })
    }

    /// The same, on the server of this session.
    pub fn of_session(context: &NativeCallContext, session: &Session) -> Fallible<Self> {
        Ok(Self::of(context)?.at(session.server()))
    }

    /// The same, on the server of this name; none is the one that a command speaks to.
    pub fn at(self, server: Option<Arc<str>>) -> Self {
        Self { server, ..self }
    }

    /// The server that a script has named; none is the one that a command speaks to.
    pub fn server(&self) -> Option<Arc<str>> {
        self.server.clone()
    }

    /// A session as this runtime's server has told it.
    pub fn session(&self, session: wire::Session) -> Session {
        Session::of(session, self.server.clone())
    }

    pub fn host(&self) -> &Host {
        &self.state.host
    }

    /// The world in which a test runs; `None` outside of tests.
    pub fn world(&self) -> Option<Rc<dyn World>> {
        self.state.world.clone()
    }

    pub fn options(&self) -> Options {
        self.state.options.get()
    }

    /// From now on.
    pub fn set_options(&self, options: Options) {
        self.state.options.set(options);
    }

    /// Milliseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.state.host.clock.now_millis()
    }

    /// How texts on stdout are laid out.
    pub fn style(&self) -> Style {
        let terminal = &self.state.host.terminal;
        Style {
            width: terminal.width(),
            colour: terminal.out_colour(),
            truncate: !self.options().no_trunc,
            now: Timestamp::from_millis(self.now()),
        }
    }

    /// Runs `work` to its end, or until Ctrl-C.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let interrupt = self.state.host.interrupt.clone();
        self.block_on_through(async move {
            tokio::select! {
                biased;
                () = interrupt.wait() => Err(Failure::Stopped),
                result = work => result,
            }
        })
    }

    /// Runs `work` to its end, or until the script's time is over; it looks after Ctrl-C itself.
    pub fn block_on_through<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        // One that has caught that may do nothing more.
        if self.passed().is_some() {
            return Err(Failure::Stopped);
        }
        let deadline = self.state.deadline.get();
        let work = async move {
            let Some(deadline) = deadline else { return work.await };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline.into()) => Err(self.pass(Passed::Time)),
                result = work => result,
            }
        };
        let tokio = match self.state.tokio.get() {
            Some(tokio) => tokio,
            None => {
                let made = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                self.state.tokio.get_or_init(|| made)
            }
        };
        tokio.block_on(work)
    }

    /// The client; connects at the first call, and at the first one after a pause.
    pub async fn client(&self) -> Result<Client, client::Error> {
        let known = self.state.clients.borrow().get(&self.server).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let connection = &self.state.host.connection;
        let client = match &self.server {
            None => connection.connect().await?,
            Some(name) => connection.at(name).await?.named(name.clone()),
        };
        self.state.clients.borrow_mut().insert(self.server.clone(), client.clone());
        Ok(client)
    }

    /// Says that time has passed, in which the server may have gone: the next call connects anew.
    pub fn paused(&self) {
        self.state.clients.take();
    }

    /// One call to the server.
    pub fn call<T, F: Future<Output = Result<T, client::Error>>>(
        &self,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Failure> {
        self.block_on(async { Ok(call(self.client().await?).await?) })
    }

    /// Writes to stdout as is. A reader that has gone ends the script quietly.
    pub fn out(&self, text: &str) -> Result<(), Failure> {
        self.state.host.terminal.out(text).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe { self.exit(0) } else { Failure::from(error) }
        })
    }

    /// Writes bytes to stdout as they are.
    pub fn out_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.state.host.terminal.out_bytes(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe { self.exit(0) } else { Failure::from(error) }
        })
    }

    /// Writes text that may come from the server to stdout: cleaned if that is a terminal.
    pub fn out_text(&self, text: &str) -> Result<(), Failure> {
        if self.state.host.terminal.out_is_terminal() {
            self.out(&render::clean(text))
        } else {
            self.out(text)
        }
    }

    /// Writes JSON to stdout: on a terminal with escapes for what that would obey.
    pub fn out_json(&self, json: &str) -> Result<(), Failure> {
        if self.state.host.terminal.out_is_terminal() {
            self.out(&render::escape_json(json))
        } else {
            self.out(json)
        }
    }

    /// What `print` writes. It can't throw: what fails stops the script.
    pub fn print(&self, text: &str) {
        match self.out_text(text) {
            Ok(()) | Err(Failure::Stopped) => {}
            Err(error) => {
                self.state.output_error.borrow_mut().get_or_insert(error.to_string());
            }
        }
    }

    pub fn take_output_error(&self) -> Option<String> {
        self.state.output_error.take()
    }

    /// Writes text that may come from the server to stderr, cleaned.
    pub fn err(&self, text: &str) {
        self.state.host.terminal.err(&render::clean(text));
    }

    /// Tells what `--dry-run` withheld: on stdout, or on stderr if stdout is for JSON.
    pub fn would(&self, what: &str) -> Result<(), Failure> {
        let line = format!("would {}\n", render::clean_line(what));
        if self.options().json {
            self.err(&line);
            Ok(())
        } else {
            self.out(&line)
        }
    }

    /// Ends the script with this code, from any depth: give the failure back.
    pub fn exit(&self, code: i32) -> Failure {
        self.state.exit.set(Some(code));
        Failure::Stopped
    }

    /// Says that the program ends after the script.
    pub fn set_last(&self) {
        self.state.is_last.set(true);
    }

    /// The user has left, by Ctrl-C, what ends in no other way: there is nothing to tell, but to whoever waits at a REPL for
    /// what follows. Give the failure back.
    pub fn left(&self) -> Failure {
        if self.state.is_last.get() { self.exit(INTERRUPTED) } else { Failure::Stopped }
    }

    pub fn take_exit(&self) -> Option<i32> {
        self.state.exit.take()
    }

    /// Whether the engine must stop now; asked at its every step.
    pub fn is_stopped(&self) -> bool {
        let steps = self.state.steps.get() + 1;
        self.state.steps.set(steps);
        if self.state.passed.get().is_none() {
            self.look_at_limits(steps);
        }
        steps > self.state.last_step.get()
            || self.state.exit.get().is_some()
            || self.state.host.interrupt.is_set()
            || self.state.output_error.borrow().is_some()
    }

    /// Refuses what would take so many bytes at once, before it does.
    pub fn room(&self, bytes: u64) -> Result<(), Failure> {
        if memory::held().saturating_add(bytes) > self.state.host.limits.memory {
            Err(self.pass(Passed::Memory))
        } else {
            Ok(())
        }
    }

    fn look_at_limits(&self, steps: u64) {
        let limits = &self.state.host.limits;
        if steps > limits.operations {
            self.pass(Passed::Steps);
        } else if memory::held() > limits.memory {
            self.pass(Passed::Memory);
        } else if steps.is_multiple_of(STEPS_A_LOOK)
            && self.state.deadline.get().is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.pass(Passed::Time);
        }
    }

    pub fn args(&self) -> Dynamic {
        self.state.args.borrow().clone()
    }

    pub fn set_args(&self, args: Dynamic) {
        *self.state.args.borrow_mut() = args;
    }

    /// Remembers that something was changed.
    pub fn changed(&self, change: Change) {
        let mut changes = self.state.changes.borrow_mut();
        match changes.iter_mut().find(|(known, _)| *known == change) {
            Some((_, count)) => *count += 1,
            None => changes.push((change, 1)),
        }
    }

    /// What was changed since this was last asked, as a sentence's part: `ended 3 sessions, sent 1 message`.
    pub fn take_changes(&self) -> String {
        let changes = self.state.changes.take();
        changes.into_iter().map(|(change, count)| change.told(count)).collect::<Vec<_>>().join(", ")
    }
}
