//! Where `import` finds modules: `std/…` in the binary, everything else beside the file that imports it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rhai::{Engine, EvalAltResult, Module, ModuleResolver, ParseError, Position, Scope};

use super::failure::Failure;
use super::suggestion;

/// The standard library: name and text.
pub const STANDARD: [(&str, &str); 6] = [
    ("std/check", include_str!("../../stdlib/check.rhai")),
    ("std/report", include_str!("../../stdlib/report.rhai")),
    ("std/retention", include_str!("../../stdlib/retention.rhai")),
    ("std/selection", include_str!("../../stdlib/selection.rhai")),
    ("std/text", include_str!("../../stdlib/text.rhai")),
    ("std/time", include_str!("../../stdlib/time.rhai")),
];

/// As the engine keeps modules.
type SharedModule = Rc<Module>;

/// The largest file that is read as a script, in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// The texts of all scripts that were read, by the name under which errors tell of them.
#[derive(Clone, Debug, Default)]
pub struct Sources(Rc<RefCell<BTreeMap<String, Source>>>);

#[derive(Clone, Debug)]
struct Source {
    text: Rc<str>,
    path: Option<PathBuf>,
}

impl Sources {
    pub fn add(&self, name: &str, text: &str, path: Option<PathBuf>) {
        self.0.borrow_mut().insert(name.to_owned(), Source { text: text.into(), path });
    }

    /// The line of this number, from 1.
    pub fn line(&self, name: &str, number: usize) -> Option<String> {
        let sources = self.0.borrow();
        sources.get(name)?.text.lines().nth(number.checked_sub(1)?).map(str::to_owned)
    }

    /// The number of lines.
    pub fn lines(&self, name: &str) -> usize {
        self.0.borrow().get(name).map_or(0, |source| source.text.lines().count())
    }

    pub fn folder(&self, name: &str) -> Option<PathBuf> {
        self.0.borrow().get(name)?.path.as_deref().and_then(Path::parent).map(Path::to_owned)
    }
}

/// A script's text as the engine reads it: a `#!` line is cut up to, not including, its end, so that line numbers hold.
pub fn without_interpreter(text: &str) -> &str {
    if text.starts_with("#!") { &text[text.find('\n').unwrap_or(text.len())..] } else { text }
}

/// Resolves and keeps modules.
pub struct Resolver {
    sources: Sources,
    loaded: RefCell<BTreeMap<String, SharedModule>>,
    /// Those that are being read, to find a circle.
    loading: RefCell<Vec<String>>,
}

impl Resolver {
    pub fn new(sources: Sources) -> Self {
        Self { sources, loaded: RefCell::default(), loading: RefCell::default() }
    }

    /// The module's name in errors, its text and its path.
    fn read(
        &self,
        importer: Option<&str>,
        wanted: &str,
    ) -> Result<(String, String, Option<PathBuf>), Failure> {
        if wanted.starts_with("std/") {
            let names = STANDARD.iter().map(|(name, _)| *name);
            return match STANDARD.iter().find(|(name, _)| *name == wanted) {
                Some((name, text)) => Ok(((*name).to_owned(), (*text).to_owned(), None)),
                None => Err(Failure::hinted(
                    format!("the standard library has no module `{wanted}`"),
                    suggestion::did_you_mean(wanted, names.clone())
                        .unwrap_or_else(|| format!("Modules: {}.", names.collect::<Vec<_>>().join(", "))),
                )),
            };
        }
        let folder =
            importer.and_then(|name| self.sources.folder(name)).unwrap_or_else(|| PathBuf::from("."));
        let mut path = folder.join(wanted);
        if path.extension().is_none_or(|ending| ending != "rhai") {
            path.as_mut_os_string().push(".rhai");
        }
        let missing = |error: &dyn std::fmt::Display| {
            Failure::hinted(
                format!("cannot read the module `{wanted}`: {}: {error}", path.display()),
                "A module lies beside the script that imports it, or in the standard library (std/…).",
            )
        };
        let whole = path.canonicalize().map_err(|error| missing(&error))?;
        let size = whole.metadata().map_err(|error| missing(&error))?.len();
        if size > MAX_FILE {
            return Err(missing(&"it is too large for a script"));
        }
        let text = std::fs::read_to_string(&whole).map_err(|error| missing(&error))?;
        Ok((whole.display().to_string(), text, Some(whole)))
    }

    fn load(&self, engine: &Engine, name: &str, text: &str) -> Result<Module, Box<EvalAltResult>> {
        let mut ast = engine
            .compile(without_interpreter(text))
            .map_err(|ParseError(error, position)| EvalAltResult::ErrorParsing(*error, position))
            .map_err(|error| in_module(name, error.into()))?;
        ast.set_source(name);
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(|error| in_module(name, error))
    }
}

/// The error with the module's name as its source, so that the report finds the text.
fn in_module(name: &str, error: Box<EvalAltResult>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorInModule(name.to_owned(), error, Position::NONE).into()
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<SharedModule, Box<EvalAltResult>> {
        let (name, text, file) = self.read(source, path).map_err(|error| error.at_position(position))?;
        if let Some(module) = self.loaded.borrow().get(&name) {
            return Ok(module.clone());
        }
        if self.loading.borrow().contains(&name) {
            return Err(Failure::script(format!("the module `{path}` imports itself")).at_position(position));
        }
        self.sources.add(&name, &text, file);
        self.loading.borrow_mut().push(name.clone());
        let module = self.load(engine, &name, &text);
        self.loading.borrow_mut().pop();
        let module: SharedModule = module?.into();
        self.loaded.borrow_mut().insert(name, module.clone());
        Ok(module)
    }
}
