//! Where `import` finds modules: `std/…` in the binary, everything else beside the file that imports it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rhai::{AST, Engine, EvalAltResult, Module, ModuleResolver, ParseError, Position, Scope};
use rustix::fs::{Mode, OFlags};

use super::check;
use super::diagnostic;
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

/// What was read: the texts of all scripts, by the name under which errors tell of them, and the modules.
#[derive(Clone, Default)]
pub struct Sources(Rc<State>);

#[derive(Default)]
struct State {
    texts: RefCell<BTreeMap<String, Source>>,
    /// Modules that are read and compiled, by their names.
    prepared: RefCell<BTreeMap<String, Rc<Prepared>>>,
    /// Modules that have run, by their names.
    loaded: RefCell<BTreeMap<String, SharedModule>>,
    /// Those that are being run, to find a circle.
    loading: RefCell<Vec<String>>,
    /// Folders that modules may come from, besides the folders of scripts.
    folders: RefCell<Vec<PathBuf>>,
}

#[derive(Clone)]
struct Source {
    text: Rc<str>,
    path: Option<PathBuf>,
}

/// A module that is read and compiled.
pub struct Prepared {
    /// As errors call it.
    pub name: String,
    pub ast: AST,
}

/// Why a module can't be used.
pub struct Problem {
    pub failure: Failure,
    /// Its name and the place in it, if it was read.
    pub place: Option<(String, Position)>,
}

impl Problem {
    /// As the engine's error; `position` is the import's.
    fn at(self, position: Position) -> Box<EvalAltResult> {
        match self.place {
            None => self.failure.at_position(position),
            Some((name, place)) => in_module(&name, self.failure.at_position(place)),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self { failure, place: None }
    }
}

impl Sources {
    /// Sources whose modules may come from these folders too.
    pub fn with_folders(folders: Vec<PathBuf>) -> Self {
        let sources = Self::default();
        *sources.0.folders.borrow_mut() = folders;
        sources
    }

    pub fn add(&self, name: &str, text: &str, path: Option<PathBuf>) {
        self.0.texts.borrow_mut().insert(name.to_owned(), Source { text: text.into(), path });
    }

    /// The line of this number, from 1.
    pub fn line(&self, name: &str, number: usize) -> Option<String> {
        self.with_text(name, |text| Some(text.lines().nth(number.checked_sub(1)?)?.to_owned())).flatten()
    }

    /// The number of lines.
    pub fn lines(&self, name: &str) -> usize {
        self.with_text(name, |text| text.lines().count()).unwrap_or(0)
    }

    /// The folder of the script of this name, if it is a file.
    pub fn folder(&self, name: &str) -> Option<PathBuf> {
        self.path(name)?.parent().map(Path::to_owned)
    }

    /// What `read` makes of a script's text.
    pub fn with_text<T>(&self, name: &str, read: impl FnOnce(&str) -> T) -> Option<T> {
        let text = self.0.texts.borrow().get(name)?.text.clone();
        Some(read(&text))
    }

    /// The path of the script of this name, if it is a file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.texts.borrow().get(name)?.path.clone()
    }

    /// The module that a script imports, read and compiled; at most once.
    pub fn prepare(
        &self,
        engine: &Engine,
        importer: Option<&str>,
        wanted: &str,
    ) -> Result<Rc<Prepared>, Problem> {
        let (name, path) = self.find(importer, wanted)?;
        if let Some(prepared) = self.0.prepared.borrow().get(&name) {
            return Ok(prepared.clone());
        }
        let text = match &path {
            None => Cow::Borrowed(standard(wanted)?),
            Some(path) => {
                Cow::Owned(read_text(path, MAX_FILE).map_err(|error| unreadable(wanted, path, &error))?)
            }
        };
        self.add(&name, &text, path);
        let mut ast = engine.compile(without_interpreter(&text)).map_err(|ParseError(error, position)| {
            let (message, hint) = diagnostic::syntax(&error);
            Problem { failure: Failure::Script { message, hint }, place: Some((name.clone(), position)) }
        })?;
        ast.set_source(&name);
        let prepared = Rc::new(Prepared { name: name.clone(), ast });
        self.0.prepared.borrow_mut().insert(name, prepared.clone());
        Ok(prepared)
    }

    /// The module's name in errors, and its path; a module of the standard library has none.
    fn find(&self, importer: Option<&str>, wanted: &str) -> Result<(String, Option<PathBuf>), Failure> {
        if wanted.starts_with("std/") {
            return standard(wanted).map(|_| (wanted.to_owned(), None));
        }
        let importer = importer.and_then(|name| self.path(name));
        let folder = importer.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut path = folder.join(wanted);
        if path.extension().is_none_or(|ending| ending != "rhai") {
            path.as_mut_os_string().push(".rhai");
        }
        let whole = path.canonicalize().map_err(|error| unreadable(wanted, &path, &error))?;
        if !self.roots().iter().any(|root| whole.starts_with(root)) {
            return Err(Failure::hinted(
                format!("the module `{wanted}` lies outside of the script's folder: {}", whole.display()),
                "Put it beside the script, or allow its folder: --allow-path DIR.",
            ));
        }
        Ok((whole.display().to_string(), Some(whole)))
    }

    /// The folders that modules may come from, without links: those that were given, those of the scripts, and the working
    /// folder for a script that is no file.
    fn roots(&self) -> Vec<PathBuf> {
        let mut roots = self.0.folders.borrow().clone();
        for source in self.0.texts.borrow().values() {
            match &source.path {
                Some(path) => {
                    roots.extend(path.parent().map(|folder| folder.join(".")));
                    roots.extend(path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned())));
                }
                None => roots.push(PathBuf::from(".")),
            }
        }
        roots.iter().filter_map(|root| root.canonicalize().ok()).collect()
    }
}

/// The text of a module of the standard library.
fn standard(wanted: &str) -> Result<&'static str, Failure> {
    let names = STANDARD.iter().map(|(name, _)| *name);
    match STANDARD.iter().find(|(name, _)| *name == wanted) {
        Some((_, text)) => Ok(text),
        None => Err(Failure::hinted(
            format!("the standard library has no module `{wanted}`"),
            suggestion::did_you_mean(wanted, names.clone())
                .unwrap_or_else(|| format!("Modules: {}.", names.collect::<Vec<_>>().join(", "))),
        )),
    }
}

fn unreadable(wanted: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::hinted(
        format!("cannot read the module `{wanted}`: {}: {}", path.display(), sentence(error)),
        "A module lies beside the script that imports it, or in the standard library (std/…).",
    )
}

/// What the system says, without its number.
pub fn sentence(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(sentence, _)| sentence).to_owned()
}

/// Reads a script's file: text of at most `most` bytes. Never waits for a pipe or a device.
pub fn read_text(path: &Path, most: u64) -> std::io::Result<String> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let file = File::from(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    // What has no size that could be trusted is read as far as it may be: a pipe of the shell's `<(…)`.
    if about.is_file() && about.len() > most {
        return Err(invalid(&too_large(most)));
    }
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    read_at_most(file, most)
}

/// Reads text of at most `most` bytes, and no more than one byte beyond.
pub fn read_at_most(from: impl Read, most: u64) -> std::io::Result<String> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(invalid(&too_large(most)));
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))
}

fn too_large(most: u64) -> String {
    format!("it is larger than a script may be: {} MiB", most >> 20)
}

/// A script's text as the engine reads it: a `#!` line is cut up to, not including, its end, so that line numbers hold.
pub fn without_interpreter(text: &str) -> &str {
    if text.starts_with("#!") { &text[text.find('\n').unwrap_or(text.len())..] } else { text }
}

/// Resolves modules at run time.
pub struct Resolver(Sources);

impl Resolver {
    pub fn new(sources: Sources) -> Self {
        Self(sources)
    }

    fn load(&self, engine: &Engine, module: &Prepared) -> Result<Module, Box<EvalAltResult>> {
        // One whose path only the running script knows has not been checked before.
        let scope = Scope::new();
        if let Some(finding) =
            check::findings(engine, &self.0, &module.ast, None, None, check::Depth::BeforeRun)
                .into_iter()
                .next()
        {
            return Err(in_module(&finding.source, finding.failure.at_position(finding.position)));
        }
        Module::eval_ast_as_new(scope, &module.ast, engine).map_err(|error| in_module(&module.name, error))
    }
}

/// The error with the module's name as its source, so that the report finds the text.
pub fn in_module(name: &str, error: Box<EvalAltResult>) -> Box<EvalAltResult> {
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
        let state = &self.0.0;
        let prepared = self.0.prepare(engine, source, path).map_err(|problem| problem.at(position))?;
        let name = &prepared.name;
        if let Some(module) = state.loaded.borrow().get(name) {
            return Ok(module.clone());
        }
        if state.loading.borrow().contains(name) {
            return Err(Failure::script(format!("the module `{path}` imports itself")).at_position(position));
        }
        state.loading.borrow_mut().push(name.clone());
        let module = self.load(engine, &prepared);
        state.loading.borrow_mut().pop();
        let module: SharedModule = module?.into();
        state.loaded.borrow_mut().insert(name.clone(), module.clone());
        Ok(module)
    }
}
