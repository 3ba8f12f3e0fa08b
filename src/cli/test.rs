//! `superserve test`: each `test_` function of a script in a world of its own, against a server that is thrown away.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::command::{self, Globals, Invocation};
use super::error::{FAILED, INTERRUPTED, Report};
use super::scripts::Catalog;
use super::ui::Ui;
use super::{access, bad_header, connection, limits, read_script, sandbox_of, server, shell, told_on};
use crate::client::{self, Client};
use crate::clock::{Clock, Hand};
use crate::config::{self, Config};
use crate::daemon::Throwaway;
use crate::render;
use crate::script::{
    self, Access, Amount, Args, Bar, Connection, Engine, Failure, Host, Interrupt, Limits, Line, Options,
    Outcome, Ran, Script, Terminal, World, on_script_thread,
};
use crate::wire;

/// Where each test's clock stands at first: 2026-03-09T10:15:00Z, a Monday, in milliseconds since the Unix epoch.
const BEGIN: i64 = 1_773_051_300_000;
/// From which number the IDs of fixtures follow. The server's own follow from another one.
const SEED: u64 = 1_000_000;
/// What a test may print, in bytes.
const MAX_OUTPUT: usize = 16 << 20;
/// How deep folders of tests may be nested.
const DEPTH: usize = 8;

/// Runs the tests; the exit code.
pub fn run(
    config: Config,
    catalog: &Catalog,
    globals: Globals,
    paths: &[PathBuf],
    filter: Option<String>,
) -> server::Result {
    let scripts = files(paths)?;
    let catalog = catalog.clone();
    let interrupt = Interrupt::default();
    connection::watch_signals(interrupt.clone(), globals.allow_sh);
    let access = access(&config, &globals)?;
    let limits = limits(&globals);
    on_script_thread(move || {
        let ui = Ui::new(globals.colour);
        let surroundings = Rc::new(Surroundings { config, catalog, interrupt, access, limits });
        let mut results = Results::new(&ui, globals.options.json, scripts.len() > 1);
        let run = run_all(&surroundings, &scripts, filter.as_deref(), &mut results);
        run.and_then(|()| results.finish()).unwrap_or_else(|report| report.tell(&ui, globals.options.json))
    })
    .map_err(|error| Report::io(&error))
}

/// What all tests have of this machine.
struct Surroundings {
    config: Config,
    catalog: Catalog,
    interrupt: Interrupt,
    /// What tests may touch. What runs inside of them may do no more.
    access: Access,
    limits: Limits,
}

/// A file of tests.
struct File {
    script: Script,
    /// Whether it was named, and not only found in a folder: then it must hold a test.
    is_named: bool,
}

/// The files that are meant, read.
fn files(paths: &[PathBuf]) -> Result<Vec<File>, Report> {
    let mut files = Vec::new();
    for path in paths {
        let mut found = Vec::new();
        if path.is_dir() {
            collect(path, DEPTH, &mut found).map_err(|error| Report::io(&error))?;
            found.sort();
        } else {
            found.push(path.clone());
        }
        for file in found {
            let (script, header) = read_script(&file)?;
            header.map_err(|error| bad_header(&script, &error))?;
            files.push(File { script, is_named: file == *path });
        }
    }
    Ok(files)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(about) = path.metadata() else { continue };
        if about.is_dir() && depth > 1 {
            collect(&path, depth - 1, found)?;
        } else if about.is_file() && path.extension().is_some_and(|ending| ending == "rhai") {
            found.push(path);
        }
    }
    Ok(())
}

fn run_all(
    surroundings: &Rc<Surroundings>,
    files: &[File],
    filter: Option<&str>,
    results: &mut Results,
) -> Result<(), Report> {
    let mut has_any = false;
    for File { script, is_named } in files {
        let stage = Stage::new(surroundings, script);
        let terminal = Rc::new(Captured::default());
        let tests = Engine::for_test(stage.host(&terminal, Options::default(), Vec::new()), stage.clone())
            .tests(script);
        let tests = match tests {
            Ok(tests) => tests,
            // A file that can't be read fails as a whole; the others are still worth running.
            Err(error) => {
                has_any = true;
                results.add(Tested::failed(&script.name, None, Report::from(&error)))?;
                continue;
            }
        };
        for name in &tests.with_parameters {
            results.ui.err(&format!("{name} in {} is no test, since it takes parameters\n", script.name));
        }
        if *is_named && tests.names.is_empty() {
            return Err(Report::usage(
                format!("there are no tests in {}", script.name),
                "A test is a function without parameters whose name begins with test_.",
            ));
        }
        for name in tests.names.iter().filter(|name| filter.is_none_or(|part| name.contains(part))) {
            has_any = true;
            results.add(run_one(surroundings, script, name))?;
            if surroundings.interrupt.is_set() {
                results.interrupted = true;
                return Ok(());
            }
        }
    }
    match (has_any, filter) {
        (true, _) => Ok(()),
        (false, Some(filter)) => Err(Report::usage(
            format!("no test's name contains '{filter}'"),
            "Leave --filter out to run all.",
        )),
        (false, None) => Err(Report::usage(
            "there are no tests in these folders",
            "A test is a function without parameters whose name begins with test_, in a file that ends in .rhai.",
        )),
    }
}

/// Runs one test in a world of its own, which is gone when this answers.
fn run_one(surroundings: &Rc<Surroundings>, script: &Script, name: &str) -> Tested {
    let begun = Instant::now();
    let stage = Stage::new(surroundings, script);
    let terminal = Rc::new(Captured::default());
    let mut engine = Engine::for_test(stage.host(&terminal, Options::default(), Vec::new()), stage.clone());
    let error = match engine.test(script, name) {
        Ok(Outcome::Done) => None,
        Ok(Outcome::Exit(code)) => Some(Report {
            code: "script",
            message: format!("the test ended by exit({code})"),
            hint: Some("A script that ends so can be run by fixture::run and fixture::run_script.".into()),
            exit: FAILED,
            ..Report::default()
        }),
        Err(error) => Some(Report::from(&error)),
    };
    drop(engine);
    drop(stage);
    Tested {
        file: script.name.clone(),
        name: Some(name.to_owned()),
        error,
        stdout: terminal.out.take(),
        stderr: terminal.err.take(),
        millis: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// What became of a test, or of a file that couldn't be read.
struct Tested {
    file: String,
    /// `None`: the file as a whole.
    name: Option<String>,
    error: Option<Report>,
    stdout: String,
    stderr: String,
    millis: u64,
}

impl Tested {
    fn failed(file: &str, name: Option<String>, error: Report) -> Self {
        let (stdout, stderr) = Default::default();
        Self { file: file.to_owned(), name, error: Some(error), stdout, stderr, millis: 0 }
    }

    fn to_text(&self, colour: bool) -> String {
        let style = |style: Style| if colour { style } else { Style::new() };
        let mark = style(if self.error.is_none() { AnsiColor::Green } else { AnsiColor::Red }.on_default());
        let sign = if self.error.is_none() { "✓" } else { "✗" };
        let name = self.name.as_deref().unwrap_or(&self.file);
        let mut text = format!("{mark}{sign}{mark:#} {name}\n");
        let Some(error) = &self.error else { return text };
        let dim = style(Style::new().dimmed());
        let mut add = |lines: &str, before: &str| {
            for line in lines.lines() {
                text.push_str(format!("  {before}{line}").trim_end());
                text.push('\n');
            }
        };
        add(&error.sentence_and_place(colour), "");
        for (stream, printed) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !printed.trim().is_empty() {
                add(&format!("{stream}:"), "");
                add(&render::clean(printed), &format!("{dim}|{dim:#} "));
            }
        }
        text
    }

    fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "name": self.name,
            "ok": self.error.is_none(),
            "duration_ms": self.millis,
            "error": self.error.as_ref().map(Report::to_value),
            "stdout": self.stdout,
            "stderr": self.stderr,
        })
    }
}

/// What is told of all tests.
struct Results<'a> {
    ui: &'a Ui,
    json: bool,
    /// Whether files are named.
    many: bool,
    /// The file that was named last.
    file: String,
    passed: usize,
    failed: usize,
    rows: Vec<Value>,
    interrupted: bool,
}

impl<'a> Results<'a> {
    fn new(ui: &'a Ui, json: bool, many: bool) -> Self {
        Self {
            ui,
            json,
            many,
            file: String::new(),
            passed: 0,
            failed: 0,
            rows: Vec::new(),
            interrupted: false,
        }
    }

    fn out(&self, text: &str) -> Result<(), Report> {
        self.ui.out(text).map_err(|error| Report::io(&error))
    }

    fn add(&mut self, tested: Tested) -> Result<(), Report> {
        match tested.error {
            None => self.passed += 1,
            Some(_) => self.failed += 1,
        }
        if self.json {
            self.rows.push(tested.to_json());
            return Ok(());
        }
        if self.many && self.file != tested.file {
            let blank = if self.file.is_empty() { "" } else { "\n" };
            self.out(&format!("{blank}{}\n", render::clean_line(&tested.file)))?;
            self.file.clone_from(&tested.file);
        }
        self.out(&tested.to_text(self.ui.out_colour()))
    }

    /// The last line, and the exit code.
    fn finish(self) -> server::Result {
        let (passed, failed) = (self.passed, self.failed);
        if self.json {
            let all = json!({ "passed": passed, "failed": failed, "tests": self.rows });
            self.out(&render::pretty(&all))?;
        } else {
            let blank = if self.many { "\n" } else { "" };
            self.out(&format!("{blank}{passed} passed, {failed} failed\n"))?;
        }
        Ok(match (self.interrupted, failed) {
            (true, _) => INTERRUPTED,
            (false, 0) => 0,
            (false, _) => FAILED,
        })
    }
}

/// The world of one test: a clock, and a server that is started when it is first needed.
struct Stage {
    surroundings: Rc<Surroundings>,
    /// The folder of the test's file.
    beside: PathBuf,
    hand: Hand,
    clock: Clock,
    server: RefCell<Option<Throwaway>>,
    /// Itself, for the commands that run inside.
    this: Weak<Self>,
}

impl Stage {
    fn new(surroundings: &Rc<Surroundings>, script: &Script) -> Rc<Self> {
        let hand = Hand::new(BEGIN);
        let beside = script.path.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        Rc::new_cyclic(|this| Self {
            surroundings: surroundings.clone(),
            beside: beside.to_owned(),
            clock: Clock::system().by_hand(hand.clone()).seeded(SEED),
            hand,
            server: RefCell::new(None),
            this: this.clone(),
        })
    }

    /// What an engine in this world is given.
    fn host(&self, terminal: &Rc<Captured>, options: Options, fields: Vec<String>) -> Host {
        let connection: Rc<dyn Connection> = match self.this.upgrade() {
            Some(stage) => stage,
            None => Rc::new(Gone),
        };
        Host {
            connection,
            terminal: terminal.clone(),
            clock: self.clock.clone(),
            options,
            fields: fields.into(),
            interrupt: self.surroundings.interrupt.clone(),
            limits: self.surroundings.limits,
            shell: Rc::new(shell::LocalShell),
            access: self.surroundings.access.clone(),
            env: Rc::new(config::environment),
        }
    }

    async fn start(&self) -> client::Result<()> {
        if self.server.borrow().is_none() {
            let server = Throwaway::start(&self.surroundings.config, self.hand.get()).await?;
            *self.server.borrow_mut() = Some(server);
        }
        Ok(())
    }

    /// Does something with the server.
    fn with<T>(&self, work: impl FnOnce(&Throwaway) -> client::Result<T>) -> client::Result<T> {
        match &*self.server.borrow() {
            Some(server) => work(server),
            None => Err(gone()),
        }
    }

    /// Runs what was typed; the exit code.
    fn invoke(
        &self,
        globals: Globals,
        invocation: Invocation,
        terminal: &Rc<Captured>,
    ) -> Result<server::Result, Failure> {
        let run = |globals: Globals, script: &Script, args: Args, is_bundled: bool| {
            // Only its spelling: how agents are isolated is the world's.
            sandbox_of(&args)?;
            let place = if is_bundled { Report::without_place } else { Report::whole };
            self.finish(terminal, globals, place, |engine| {
                if is_bundled {
                    engine.check_fields()?;
                }
                engine.run(script, args)
            })
        };
        Ok(match invocation {
            Invocation::Eval(expression) => {
                self.finish(terminal, globals, Report::without_own_place, |engine| engine.eval(&expression))
            }
            Invocation::Script { name, args } => match self.surroundings.catalog.find(&name) {
                None => Err(Report::usage(format!("there is no command '{name}'"), "See superserve --help.")),
                Some(command) => match &command.header {
                    Err(error) => Err(bad_header(&command.script, error)),
                    Ok(_) => run(globals, &command.script, args, command.is_bundled),
                },
            },
            Invocation::ScriptFile { file, rest } => read_script(&file).and_then(|(script, header)| {
                let header = header.map_err(|error| bad_header(&script, &error))?;
                let json = globals.options.json;
                match command::parse_file(&script.name, &header, rest, globals) {
                    Ok((globals, args)) => run(globals, &script, args, false),
                    Err(error) => Ok(told_on(terminal.as_ref(), &error, json)),
                }
            }),
            _ => {
                return Err(Failure::hinted(
                    "this command can't be run in a test",
                    "Those that are scripts can, and script and eval.",
                ));
            }
        })
    }

    fn finish(
        &self,
        terminal: &Rc<Captured>,
        globals: Globals,
        place: fn(Report) -> Report,
        work: impl FnOnce(&mut Engine) -> Result<Outcome, script::Error>,
    ) -> server::Result {
        match work(&mut Engine::new(self.host(terminal, globals.options, globals.fields))) {
            Ok(Outcome::Done) => Ok(0),
            Ok(Outcome::Exit(code)) => Ok(code),
            Err(error) => Err(place(Report::from(&error))),
        }
    }
}

/// A world whose test is over.
struct Gone;

impl Connection for Gone {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        async { Err(gone()) }.boxed_local()
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        async { None }.boxed_local()
    }

    fn at(&self, name: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        let message = format!("a test has one server, and no context '{name}'");
        async { Err(client::Error::Input { message, hint: None }) }.boxed_local()
    }
}

fn gone() -> client::Error {
    client::Error::Unreachable { message: "the test's server is gone".into(), hint: None }
}

impl Connection for Stage {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        async {
            self.start().await?;
            self.with(Throwaway::client)
        }
        .boxed_local()
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        async { self.with(Throwaway::client).ok() }.boxed_local()
    }

    fn at(&self, name: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        let message = format!("a test has one server, and no context '{name}'");
        async { Err(client::Error::Input { message, hint: None }) }.boxed_local()
    }
}

impl World for Stage {
    fn folder(&self) -> LocalBoxFuture<'_, client::Result<PathBuf>> {
        async {
            self.start().await?;
            self.with(|server| Ok(server.folder().to_owned()))
        }
        .boxed_local()
    }

    fn import(&self, sessions: Vec<wire::Session>) -> LocalBoxFuture<'_, client::Result<()>> {
        async {
            self.start().await?;
            let importing = self.with(|server| Ok(server.import(sessions)))?;
            importing.await
        }
        .boxed_local()
    }

    fn set_clock(&self, now: i64) -> io::Result<()> {
        self.hand.set(now);
        match &*self.server.borrow() {
            Some(server) => server.set_clock(now),
            None => Ok(()),
        }
    }

    fn run(&self, words: Vec<String>, stdin: &str) -> Result<Ran, Failure> {
        let terminal = Rc::new(Captured::reading(stdin));
        let json = words.iter().any(|word| word == "--json");
        let typed = std::iter::once("superserve".to_owned()).chain(words).map(OsString::from).collect();
        let exit = match command::parse(&self.surroundings.catalog, typed) {
            Err(error) => told_on(terminal.as_ref(), &error, json),
            Ok((globals, invocation)) => {
                let json = globals.options.json;
                self.invoke(globals, invocation, &terminal)?
                    .unwrap_or_else(|report| report.tell(terminal.as_ref(), json))
            }
        };
        if self.surroundings.interrupt.is_set() {
            return Err(Failure::Stopped);
        }
        Ok(Ran { exit, stdout: terminal.out.take(), stderr: terminal.err.take() })
    }

    fn beside(&self) -> &Path {
        &self.beside
    }
}

/// A terminal that is none: it remembers what is written, and reads from a text.
#[derive(Default)]
struct Captured {
    out: RefCell<String>,
    err: RefCell<String>,
    unread: RefCell<VecDeque<String>>,
}

impl Captured {
    fn reading(stdin: &str) -> Self {
        let lines = stdin.lines().map(str::to_owned).collect();
        Self { unread: RefCell::new(lines), ..Self::default() }
    }
}

impl Terminal for Captured {
    fn out(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        if out.len() + text.len() > MAX_OUTPUT {
            let limit = MAX_OUTPUT >> 20;
            return Err(io::Error::new(
                ErrorKind::FileTooLarge,
                format!("more than {limit} MiB are printed in a test"),
            ));
        }
        out.push_str(text);
        Ok(())
    }

    fn err(&self, text: &str) {
        let mut err = self.err.borrow_mut();
        if err.len() + text.len() <= MAX_OUTPUT {
            err.push_str(text);
        }
    }

    fn out_is_terminal(&self) -> bool {
        false
    }

    fn err_is_terminal(&self) -> bool {
        false
    }

    fn in_is_terminal(&self) -> bool {
        false
    }

    fn out_colour(&self) -> bool {
        false
    }

    fn err_colour(&self) -> bool {
        false
    }

    fn width(&self) -> Option<usize> {
        None
    }

    fn bar(&self, _: &str, _: Amount) -> Box<dyn Bar> {
        Box::new(())
    }

    fn read_hidden(&self, _: &str) -> io::Result<Line> {
        let rest: Vec<String> = self.unread.borrow_mut().drain(..).collect();
        Ok(if rest.is_empty() { Line::End } else { Line::Text(rest.join("\n")) })
    }

    fn read_line(&self, _: &str) -> io::Result<Line> {
        Ok(self.unread.borrow_mut().pop_front().map_or(Line::End, Line::Text))
    }
}
