//! The REPL's side of the engine: lines that leave their variables, functions and imports to the next ones.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use rhai::{AST, Array, Dynamic, EvalAltResult, Expr, FnAccess, Ident, Module, Position, Scope, Stmt, Token};

use super::catalogue::Catalogue;
use super::completion::{self, Completion, Names};
use super::engine::{Complete, Engine, Outcome, check_first};
use super::functions::FunctionDoc;
use super::highlight::{self, Span};
use super::kind::Kind;
use super::live::Answers;
use super::manual::{Manual, Page};
use super::pieces::{Piece, PieceKind, pieces};
use super::resolver::{read_text, sentence, without_interpreter};
use super::runtime::Runtime;
use super::{Error, completeness, functions, output, value};

/// The variable that holds the last value.
const LAST: &str = "_";

/// What stays from one line to the next.
pub struct Repl {
    scope: Scope<'static>,
    /// Each with the name that it has here.
    imports: Vec<(String, Stmt)>,
    functions: AST,
    lines: usize,
    /// Modules that were imported, with their functions and whether they take anything.
    modules: BTreeMap<String, Vec<(String, bool)>>,
    /// What was done, to be saved.
    inputs: Vec<Input>,
    underscores: Underscores,
    answers: Answers,
    catalogue: OnceCell<Catalogue>,
    docs: OnceCell<Vec<FunctionDoc>>,
}

/// An input that went well.
struct Input {
    text: String,
    /// Whether it gave a value, which the next `_` means.
    gives: bool,
}

/// Where a text that is being compiled says `_` and means the last value: lines and columns. The language keeps `_` for
/// the last case of a `switch`.
#[derive(Clone, Default)]
pub struct Underscores(Rc<RefCell<Vec<(usize, usize)>>>);

impl Underscores {
    /// Makes an engine read them as a variable.
    pub fn teach(&self, engine: &mut rhai::Engine) {
        let places = self.clone();
        #[expect(deprecated, reason = "the call is stable in all but name")]
        engine.on_parse_token(move |token, position, _| match token {
            Token::Underscore if places.has(position) => Token::Identifier(Box::new(LAST.into())),
            token => token,
        });
    }

    fn has(&self, position: Position) -> bool {
        let place = (position.line().unwrap_or_default(), position.position().unwrap_or_default());
        self.0.borrow().contains(&place)
    }

    /// Compiles with those of this text.
    fn during<T>(&self, text: &str, compile: impl FnOnce() -> T) -> T {
        let place = |piece: Piece| {
            let before = &text[..piece.start];
            let line = before.rfind('\n').map_or(0, |end| end + 1);
            (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
        };
        *self.0.borrow_mut() = underscores(text).into_iter().map(place).collect();
        let compiled = compile();
        self.0.borrow_mut().clear();
        compiled
    }
}

/// Every `_` that means the last value: neither the last case of a `switch` nor a name that is given.
fn underscores(text: &str) -> Vec<Piece> {
    let found: Vec<Piece> = pieces(text).into_iter().filter(Piece::counts).collect();
    let is_value = |at: usize| {
        let before = at.checked_sub(1).map_or("", |before| found[before].text(text));
        found[at].is(text, LAST)
            && !["as", "const", "fn", "for", "let", "|"].contains(&before)
            && !found.get(at + 1).is_some_and(|next| next.is(text, "=>"))
    };
    (0..found.len()).filter(|at| is_value(*at)).map(|at| found[at]).collect()
}

impl Repl {
    pub fn new(runtime: &Runtime) -> Self {
        let mut scope = Scope::new();
        scope.push_dynamic(LAST, Dynamic::UNIT);
        Self {
            scope,
            imports: Vec::new(),
            functions: AST::empty(),
            lines: 0,
            modules: BTreeMap::new(),
            inputs: Vec::new(),
            underscores: Underscores::default(),
            answers: Answers::new(runtime),
            catalogue: OnceCell::new(),
            docs: OnceCell::new(),
        }
    }

    pub fn underscores(&self) -> &Underscores {
        &self.underscores
    }
}

impl Names for Repl {
    fn variables(&self) -> Vec<String> {
        self.scope.iter_raw().map(|(name, ..)| name.to_owned()).filter(|name| name != LAST).collect()
    }

    fn variable(&self, name: &str) -> Option<Kind> {
        self.scope.get(name).map(Kind::of)
    }

    fn functions(&self) -> Vec<(String, bool)> {
        self.functions
            .iter_functions()
            .filter(|function| !function.name.contains('$'))
            .map(|function| (function.name.to_owned(), !function.params.is_empty()))
            .collect()
    }

    fn modules(&self) -> Vec<(String, Vec<(String, bool)>)> {
        self.modules.iter().map(|(name, functions)| (name.clone(), functions.clone())).collect()
    }
}

impl Engine {
    /// Evaluates a line of the REPL and prints its value; variables, functions and imports stay, and `_` is the last
    /// value that there was.
    pub fn line(&mut self, line: &str) -> Result<Outcome, Error> {
        let name = self.begin_line();
        self.sources.add(&name, line, None);
        let result = self.evaluate_line(&name, line).and_then(|(value, from)| {
            output::show(&self.engine, &self.runtime, &from, &value)?;
            let gives = !value.is_unit();
            if gives {
                self.repl.scope.set_value(LAST, value);
            }
            self.repl.inputs.push(Input { text: line.to_owned(), gives });
            Ok(())
        });
        self.end_line(&name, result)
    }

    /// Runs a file as if it had been typed: its variables, functions and imports stay. An `exit` ends it and nothing more.
    pub fn load(&mut self, path: &Path) -> Result<Outcome, Error> {
        self.begin_line();
        let name = path.display().to_string();
        let text = read_text(path, self.runtime.host().limits.text as u64).map_err(|error| Error::Usage {
            code: "usage",
            message: format!("cannot read the script {name}: {}", sentence(&error)),
            hint: Some("Check its path.".into()),
            place: None,
        })?;
        self.sources.add(&name, &text, Some(path.to_owned()));
        let text = without_interpreter(&text);
        let result = self.evaluate_line(&name, text).map(|_| {
            self.repl.inputs.push(Input { text: text.to_owned(), gives: false });
        });
        self.end_line(&name, result)
    }

    /// What an expression gives: the type's name and what it is in words. It is evaluated on a copy of the variables and
    /// as with `--dry-run`, so that nothing is changed and nothing stays.
    pub fn type_of(&mut self, expression: &str) -> Result<String, Error> {
        let name = self.begin_line();
        self.sources.add(&name, expression, None);
        let options = self.runtime.options();
        let kept = (self.repl.scope.clone(), self.repl.imports.clone(), self.repl.functions.clone());
        self.runtime.set_options(super::Options { dry_run: true, ..options });
        let result = self.evaluate_line(&name, expression);
        self.runtime.set_options(options);
        (self.repl.scope, self.repl.imports, self.repl.functions) = kept;
        let mut told = String::new();
        let result = result.map(|(value, _)| {
            let kind = Kind::of(&value);
            told = match kind.name.as_str() {
                "()" => "(), nothing".to_owned(),
                "value" => value::type_name(&value).to_owned(),
                name => format!("{name}, {}", value::type_name(&value)),
            };
        });
        match self.end_line(&name, result)? {
            Outcome::Done => Ok(told),
            Outcome::Exit(_) => Ok("nothing: it ends the script".to_owned()),
        }
    }

    /// What was typed and went well, as a script: `_` becomes a variable. Error: it can't be said in a script.
    pub fn transcript(&self) -> Result<String, Error> {
        let mut script = String::from("//! Saved from the REPL.\n\n");
        let uses: Vec<bool> =
            self.repl.inputs.iter().map(|input| !underscores(&input.text).is_empty()).collect();
        let mut last = None;
        for (place, input) in self.repl.inputs.iter().enumerate() {
            let mut text = input.text.trim().to_owned();
            for piece in underscores(&text).into_iter().rev() {
                let name = last.as_ref().map_or_else(|| "()".to_owned(), |number| format!("value_{number}"));
                text.replace_range(piece.start..piece.end, &name);
            }
            if input.gives {
                // Whether somebody asks for it before the next value comes.
                let next = (place + 1..uses.len()).find(|next| uses[*next] || self.repl.inputs[*next].gives);
                if next.is_some_and(|next| uses[next]) {
                    let at = last_statement(&text);
                    text.insert_str(at, &format!("let value_{} = ", place + 1));
                }
                last = Some(place + 1);
            }
            script.push_str(&text);
            script.push_str(ending(&text));
            script.push('\n');
        }
        let engine = rhai::Engine::new();
        match engine.compile(&script) {
            Ok(_) => Ok(script),
            Err(_) => Err(Error::Script {
                message:
                    "what was typed makes no script: a value that `_` means stands at the end of a block"
                        .into(),
                hint: Some("Give the value a name with let, and use that instead of `_`.".into()),
                place: None,
            }),
        }
    }

    /// Whether what would change something is told and not done.
    pub fn is_dry_run(&self) -> bool {
        self.runtime.options().dry_run
    }

    /// From now on.
    pub fn set_dry_run(&mut self, dry_run: bool) {
        self.runtime.set_options(super::Options { dry_run, ..self.runtime.options() });
    }

    /// Whether the REPL must read on before it can evaluate this.
    pub fn completeness(&self, text: &str) -> Complete {
        let repl = &self.repl;
        repl.underscores.during(text, || completeness::completeness(&self.engine, &repl.scope, text))
    }

    /// What could stand before the cursor, in bytes. Waits no longer for a server than nobody notices, and starts none.
    pub fn complete(&self, text: &str, cursor: usize) -> Completion {
        completion::complete(self.catalogue(), &self.repl, &self.repl.answers, text, cursor)
    }

    /// The parts of a text that have a colour.
    pub fn spans(&self, text: &str) -> Vec<Span> {
        let own = self.repl.functions();
        highlight::spans(text, |name| {
            self.catalogue().callables.iter().any(|one| one.name == name)
                || own.iter().any(|(known, _)| known == name)
                || self.repl.modules.values().flatten().any(|(known, _)| known == name)
        })
    }

    /// The documentation of a function, a field, a type or a module. Error: a hint, if another name is near.
    pub fn manual(&self, name: &str) -> Result<Page, Option<String>> {
        let own: Vec<(String, String)> = self
            .repl
            .functions
            .iter_functions()
            .map(|function| {
                let signature = format!("{}({})", function.name, function.params.join(", "));
                let doc = function.comments.iter().map(|line| functions::without_slashes(line));
                (signature, doc.collect::<Vec<_>>().join("\n"))
            })
            .collect();
        Manual { catalogue: self.catalogue(), docs: self.docs(), own: &own }.page(name)
    }

    /// The names that [`Engine::manual`] knows and that begin like this: functions, types and modules.
    pub fn topics(&self, prefix: &str) -> Vec<String> {
        let docs = self.docs().iter().map(|doc| match doc.module.as_str() {
            "" => doc.name.clone(),
            module => format!("{module}::{}", doc.name),
        });
        let types = self.catalogue().callables.iter().filter(|one| one.is_ours);
        let types = types.filter_map(|one| one.receiver()).filter(|kind| *kind != "value").map(str::to_owned);
        let modules = self.catalogue().modules().into_iter().map(str::to_owned);
        let own = self.repl.functions().into_iter().map(|(name, _)| name);
        let mut topics: Vec<String> =
            docs.chain(types).chain(modules).chain(own).filter(|topic| topic.starts_with(prefix)).collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// The modules that need no import.
    pub fn modules(&self) -> Vec<&str> {
        self.catalogue().modules()
    }

    fn catalogue(&self) -> &Catalogue {
        self.repl.catalogue.get_or_init(|| {
            let mut catalogue = Catalogue::read(&self.engine);
            // What only tests can call is not put forward elsewhere.
            if self.runtime.world().is_none() {
                catalogue.callables.retain(|one| one.module != "fixture");
            }
            catalogue
        })
    }

    fn docs(&self) -> &[FunctionDoc] {
        self.repl.docs.get_or_init(|| functions::all(&self.engine))
    }

    /// The name of the next line.
    fn begin_line(&mut self) -> String {
        self.runtime.host().interrupt.reset();
        self.runtime.paused();
        if self.repl.lines == 0 {
            self.runtime.set_args(Dynamic::from(Array::new()));
        }
        self.repl.lines += 1;
        format!("repl {}", self.repl.lines)
    }

    fn end_line(&mut self, name: &str, result: Result<(), Box<EvalAltResult>>) -> Result<Outcome, Error> {
        self.repl.answers.expire();
        let outcome = self.outcome(name, result);
        // A Ctrl-C that came at the very end is not one for the next line.
        self.runtime.host().interrupt.reset();
        outcome
    }

    /// The value of a line, and all that it was evaluated with.
    fn evaluate_line(&mut self, name: &str, line: &str) -> Result<(Dynamic, AST), Box<EvalAltResult>> {
        let repl = &mut self.repl;
        self.runtime.begin();
        let mut ast = repl.underscores.during(line, || self.engine.compile_with_scope(&repl.scope, line))?;
        ast.set_source(name);
        let imports = repl.imports.iter().map(|(_, import)| import.clone());
        let before = AST::new(imports, Module::new()).merge(&repl.functions);
        check_first(&self.engine, &self.sources, &ast, &repl.scope, Some(&before))?;
        let mut whole = before.merge(&ast);
        whole.set_source(name);
        let value = self.engine.eval_ast_with_scope::<Dynamic>(&mut repl.scope, &whole)?;
        repl.functions = repl.functions.merge(&ast.clone_functions_only());
        for statement in ast.statements() {
            if let Stmt::Import(import, position) = statement {
                self.keep_import(name, &import.0, import.1.name.as_str(), *position);
            }
        }
        Ok((value, whole))
    }

    /// Imports are made anew with each line, wherever the first one came from.
    fn keep_import(&mut self, name: &str, path: &Expr, alias: &str, position: Position) {
        let mut path = path.clone();
        if let Expr::StringConstant(file, at) = &path {
            let folder = self.sources.folder(name).filter(|_| !file.starts_with("std/"));
            if let Ok(module) =
                self.engine.module_resolver().resolve(&self.engine, Some(name), file, position)
            {
                let mut functions: Vec<(String, bool)> = module
                    .iter_script_fn_info()
                    .filter(|(_, access, ..)| *access == FnAccess::Public)
                    .map(|(_, _, name, parameters, _)| (name.to_owned(), parameters > 0))
                    .collect();
                functions.sort();
                functions.dedup_by(|a, b| a.0 == b.0);
                self.repl.modules.insert(alias.to_owned(), functions);
            }
            if let Some(folder) = folder {
                path = Expr::StringConstant(folder.join(file.as_str()).display().to_string().into(), *at);
            }
        }
        let import = Stmt::Import(Box::new((path, Ident { name: alias.into(), pos: position })), position);
        self.repl.imports.retain(|(known, _)| known != alias);
        self.repl.imports.push((alias.to_owned(), import));
    }
}

/// Where the last statement of an input begins.
fn last_statement(text: &str) -> usize {
    let found: Vec<Piece> = pieces(text).into_iter().filter(Piece::counts).collect();
    let (mut depth, mut begun) = (0, found.first().map_or(0, |first| first.start));
    for (at, piece) in found.iter().enumerate() {
        if depth == 0 && piece.is(text, ";") {
            begun = found.get(at + 1).map_or(begun, |next| next.start);
        }
        depth += piece.depth(text);
    }
    begun
}

/// What must stand between an input and the next one.
fn ending(text: &str) -> &'static str {
    let found: Vec<Piece> = pieces(text).into_iter().filter(|piece| piece.kind != PieceKind::Space).collect();
    let first = found.iter().find(|piece| piece.counts()).map_or("", |first| first.text(text));
    let is_block =
        ["do", "fn", "for", "if", "loop", "private", "switch", "try", "until", "while", "{"].contains(&first);
    match found.last().map(|last| (last.kind, last.text(text))) {
        None | Some((_, ";")) => "",
        Some((_, "}")) if is_block => "",
        Some((PieceKind::Comment { .. }, comment)) if comment.starts_with("//") => "\n;",
        Some(_) => ";",
    }
}
