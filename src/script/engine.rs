//! The ways to run a script and an expression; those of the REPL are in `repl`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use rhai::{
    AST, Array, CallFnOptions, Dynamic, EvalAltResult, Map, Module, OptimizationLevel, Position, Scope,
};

use super::check::{self, Depth};
use super::diagnostic::Reporter;
use super::expression::Expression;
use super::failure::Fallible;
use super::functions::{self, FunctionDoc};
use super::reference::Reference;
use super::repl::Repl;
use super::resolver::{Sources, in_module, without_interpreter};
use super::runtime::Runtime;
use super::{Arg, Args, Error, Host, World, assembly, column, output};

/// A script's text and what it is called in errors.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    /// Where it lies; imports are looked for beside it.
    pub path: Option<PathBuf>,
    pub text: Cow<'static, str>,
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At its end.
    Done,
    /// By `exit(code)`.
    Exit(i32),
}

/// Whether a text is a whole line of the REPL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    Complete,
    /// More lines must follow.
    Incomplete,
}

/// The functions of a script that are tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// Those that can be run, in the order of the text.
    pub names: Vec<String>,
    /// Those that can't, since they want to be given something.
    pub with_parameters: Vec<String>,
}

/// Runs scripts. Not to be used on a worker of an async runtime: calls block on a runtime of its own.
pub struct Engine {
    pub(super) engine: rhai::Engine,
    pub(super) runtime: Runtime,
    pub(super) sources: Sources,
    pub(super) repl: Repl,
    /// Whether the program ends after the next script.
    is_last: bool,
}

impl Engine {
    /// An engine with everything that scripts can call. Makes no connection.
    pub fn new(host: Host) -> Self {
        Self::of(Runtime::new(host))
    }

    /// An engine for one test in this world.
    pub fn for_test(host: Host, world: Rc<dyn World>) -> Self {
        Self::of(Runtime::in_world(host, Some(world)))
    }

    fn of(runtime: Runtime) -> Self {
        let access = &runtime.host().access;
        let sources = Sources::with_folders(access.modules.iter().chain(&access.paths).cloned().collect());
        let repl = Repl::new(&runtime);
        let mut engine = assembly::assemble(&runtime, &sources);
        repl.underscores().teach(&mut engine);
        Self { engine, runtime, sources, repl, is_last: false }
    }

    /// Says that the program ends after the next script: what that has made is left to the system.
    pub fn is_last(&mut self) {
        self.is_last = true;
        self.runtime.set_last();
    }

    /// Runs a script from its beginning, in a scope of its own.
    pub fn run(&mut self, script: &Script, args: Args) -> Result<Outcome, Error> {
        self.evaluate(script, args, |_, _, _, _| Ok(()))
    }

    /// Evaluates and prints: a string raw, unit nothing, sessions as a table; with `--json` everything as JSON.
    pub fn eval(&mut self, expression: &str) -> Result<Outcome, Error> {
        let script = Script { name: "eval".into(), path: None, text: expression.to_owned().into() };
        self.evaluate(&script, Args::default(), output::show)
    }

    /// The tests in a script, in the order of the text. Error: the script's text is wrong.
    pub fn tests(&mut self, script: &Script) -> Result<Tests, Error> {
        let mut found: Vec<(Position, String, usize)> = Vec::new();
        let sources = self.sources.clone();
        self.evaluate_with(script, Args::default(), |engine, scope, ast| {
            let module: &Module = ast.as_ref();
            for (.., function) in module.iter_script_fn_info() {
                if function.name.starts_with("test_") {
                    let place = function.body.start_position();
                    found.push((place, function.name.to_string(), function.params.len()));
                }
            }
            check_first(engine, &sources, ast, scope, None)
        })?;
        found.sort_by_key(|(position, ..)| (position.line(), position.position()));
        let (tests, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, _, parameters)| *parameters == 0);
        let names = |of: Vec<(_, String, _)>| of.into_iter().map(|(_, name, _)| name).collect();
        Ok(Tests { names: names(tests), with_parameters: names(others) })
    }

    /// Runs what stands in a script outside of its functions, then one of its tests.
    pub fn test(&mut self, script: &Script, name: &str) -> Result<Outcome, Error> {
        self.evaluate_with(script, Args::default(), |engine, scope, ast| {
            let options = CallFnOptions::new().eval_ast(true).rewind_scope(true);
            engine.call_fn_with_options::<Dynamic>(options, scope, ast, name, ()).map(drop)
        })
    }

    /// Everything that can be told of a script without running it, that of the modules which it imports included; nothing if
    /// it is well.
    pub fn check(&mut self, script: &Script, args: Args) -> Vec<Error> {
        if let Err(error) = self.take(script) {
            return vec![error];
        }
        let mut scope = Scope::new();
        scope.push_dynamic("args", self.args(args));
        // What could never run is left out of a script that is to be run, and checked here.
        self.engine.set_optimization_level(OptimizationLevel::None);
        let compiled = self.engine.compile_with_scope(&scope, without_interpreter(&script.text));
        let found = match compiled {
            Err(error) => vec![self.reporter().report(&script.name, error.into(), String::new(), None)],
            Ok(mut ast) => {
                ast.set_source(&script.name);
                let found =
                    check::findings(&self.engine, &self.sources, &ast, Some(&scope), None, Depth::Whole);
                let reporter = self.reporter();
                found
                    .into_iter()
                    .map(|finding| reporter.finding(finding.source, finding.position, finding.failure))
                    .collect()
            }
        };
        self.engine.set_optimization_level(OptimizationLevel::Simple);
        found
    }

    /// Remembers a script's text for errors. Error: it is too large.
    fn take(&self, script: &Script) -> Result<(), Error> {
        let limit = self.runtime.host().limits.text;
        if script.text.len() > limit {
            return Err(Error::Usage {
                message: format!("{} is larger than a script may be: {} MiB", script.name, limit >> 20),
                hint: None,
                code: "usage",
                place: None,
            });
        }
        self.sources.add(&script.name, &script.text, script.path.clone());
        Ok(())
    }

    fn reporter(&self) -> Reporter<'_> {
        Reporter { engine: &self.engine, sources: &self.sources, limits: &self.runtime.host().limits }
    }

    fn evaluate(
        &mut self,
        script: &Script,
        args: Args,
        show: impl FnOnce(&rhai::Engine, &Runtime, &AST, &Dynamic) -> Fallible<()>,
    ) -> Result<Outcome, Error> {
        let (runtime, sources) = (self.runtime.clone(), self.sources.clone());
        // What is compiled in was checked by a test.
        let is_ours = matches!(script.text, Cow::Borrowed(_));
        self.evaluate_with(script, args, |engine, scope, ast| {
            if !is_ours {
                check_first(engine, &sources, ast, scope, None)?;
            }
            let value = engine.eval_ast_with_scope::<Dynamic>(scope, ast)?;
            show(engine, &runtime, ast, &value)
        })
    }

    /// Reads a script and does something with it.
    fn evaluate_with(
        &mut self,
        script: &Script,
        args: Args,
        work: impl FnOnce(&rhai::Engine, &mut Scope, &AST) -> Result<(), Box<EvalAltResult>>,
    ) -> Result<Outcome, Error> {
        self.take(script)?;
        let args = self.args(args);
        self.runtime.set_args(args.clone());
        self.runtime.begin();
        let mut scope = Scope::new();
        scope.push_dynamic("args", args);
        let result = self
            .engine
            .compile_with_scope(&scope, without_interpreter(&script.text))
            .map_err(Box::<EvalAltResult>::from)
            .and_then(|mut ast| {
                ast.set_source(&script.name);
                work(&self.engine, &mut scope, &ast)
            });
        if self.is_last {
            // Giving back a million values one by one takes time, and values nested deeply take stack.
            std::mem::forget(scope);
        }
        self.outcome(&script.name, result)
    }

    /// Refuses fields of `--json=FIELDS` that nothing has: a command must not act first and fail to tell of it then.
    pub fn check_fields(&self) -> Result<(), Error> {
        column::check(&self.engine, &self.runtime.host().fields).map_err(|failure| Error::Usage {
            message: failure.to_string(),
            hint: failure.hint_text().map(str::to_owned),
            code: "usage",
            place: None,
        })
    }

    /// Everything that scripts can call, the standard library too, sorted by module and name.
    pub fn functions(&self) -> Vec<FunctionDoc> {
        let mut found = functions::all(&self.engine);
        found.extend(functions::standard_library(&self.engine));
        found.sort();
        found
    }

    /// The pages about all of it and about the language's own functions.
    pub fn reference(&self) -> Reference {
        let mut ours = functions::of_each_list(&self.engine);
        ours.extend(functions::standard_library(&self.engine));
        Reference::new(&ours, &functions::language(&self.engine))
    }

    /// Checks a condition or another expression over a session's fields as `--where` does, without a server. Errors: it is no
    /// expression, names an unknown field, compares what can't be compared.
    pub fn check_expression(&self, text: &str) -> Result<(), Error> {
        Expression::compile(&self.engine, text).map(drop).map_err(|failure| Error::Usage {
            message: failure.to_string(),
            hint: failure.hint_text().map(str::to_owned),
            code: "usage",
            place: None,
        })
    }

    /// `args` as scripts see it. The flags that belong to every script stand there too.
    fn args(&self, args: Args) -> Dynamic {
        let options = self.runtime.options();
        match args {
            Args::List(list) => list.into_iter().map(Dynamic::from).collect::<Array>().into(),
            Args::Named(named) => {
                let mut map: Map = [
                    ("dry_run", options.dry_run),
                    ("json", options.json),
                    ("no_trunc", options.no_trunc),
                    ("yes", options.yes),
                ]
                .into_iter()
                .map(|(name, given)| (name.into(), given.into()))
                .collect();
                map.extend(named.into_iter().map(|(name, arg)| (name.as_str().into(), value_of(arg))));
                map.into()
            }
        }
    }

    pub(super) fn outcome(
        &self,
        main: &str,
        result: Result<(), Box<EvalAltResult>>,
    ) -> Result<Outcome, Error> {
        let changes = self.runtime.take_changes();
        let exit = self.runtime.take_exit();
        let passed = self.runtime.take_passed();
        if let Some(message) = self.runtime.take_output_error() {
            return Err(Error::Io { message });
        }
        match (exit, result) {
            (Some(code), _) => Ok(Outcome::Exit(code)),
            (None, Ok(())) => match passed {
                None => Ok(Outcome::Done),
                // It has caught what stopped it, and ended before it was stopped for good.
                Some(passed) => Err(self.reporter().passed(passed, &changes, None)),
            },
            (None, Err(error)) => Err(self.reporter().report(main, *error, changes, passed)),
        }
    }
}

/// The first thing that is wrong in what is about to run, so that nothing is half done.
pub(super) fn check_first(
    engine: &rhai::Engine,
    sources: &Sources,
    ast: &AST,
    scope: &Scope,
    before: Option<&AST>,
) -> Result<(), Box<EvalAltResult>> {
    match check::findings(engine, sources, ast, Some(scope), before, Depth::BeforeRun).into_iter().next() {
        None => Ok(()),
        Some(finding) => {
            let error = finding.failure.at_position(finding.position);
            let is_own = ast.source() == Some(&finding.source);
            Err(if is_own { error } else { in_module(&finding.source, error) })
        }
    }
}

fn value_of(arg: Arg) -> Dynamic {
    match arg {
        Arg::Flag(given) => given.into(),
        Arg::Many(values) => values.into_iter().map(Dynamic::from).collect::<Array>().into(),
        Arg::Text(None) => Dynamic::UNIT,
        Arg::Text(Some(text)) => text.into(),
    }
}

/// The stacks of the thread that scripts run on: 256 levels of calls need 64 MiB in a debug build, and values that are
/// nested deeply are copied and given back level by level. Only what is used is taken.
const STACKS: [usize; 2] = [512 << 20, 64 << 20];

/// Runs `work`, which makes and uses an [`Engine`], on a thread with a stack deep enough for one.
pub fn on_script_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    // A thread that can't be made would take its work along.
    let work = Arc::new(Mutex::new(Some(work)));
    let start = |size: usize| {
        let work = work.clone();
        let begin = move || {
            let work = work.lock().ok()?.take()?;
            Some(work())
        };
        std::thread::Builder::new().name("script".into()).stack_size(size).spawn(begin)
    };
    let thread = start(STACKS[0]).or_else(|_| start(STACKS[1]))?;
    thread.join().ok().flatten().ok_or_else(|| std::io::Error::other("the script's thread panicked"))
}
