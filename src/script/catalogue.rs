//! Everything that can be called, with its types: read from the engine, as what it runs is.

use std::collections::HashSet;

use rhai::FuncInfo;

use super::functions;
use super::kind::{self, Kind};

/// How something is written that can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `name(…)`, or `x.name(…)`.
    Function,
    /// `x.name`.
    Field,
    /// `x[…]`.
    Index,
}

/// A parameter, by the types' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub kind: String,
}

/// One function, field or index, of ours or of the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callable {
    /// `sessions` of `sessions::list`; empty for global ones.
    pub module: String,
    pub name: String,
    pub form: Form,
    pub parameters: Vec<Parameter>,
    /// What it gives.
    answer: Kind,
    /// Whether it can be written behind a dot, and whether it is meant to be written without one.
    is_method: bool,
    is_free: bool,
    /// Whether it is of superserve, and not of the language.
    pub is_ours: bool,
    /// Markdown.
    pub doc: String,
}

/// What it gives where its signature says no more than `value`: the type before it, its name, its answer.
const ANSWERS: [(&str, &str, &str); 11] = [
    ("", "last", "Session"),
    ("DoneRow", "error", "Error"),
    ("DoneRow", "session", "Session"),
    ("Session", "ended_at", "Time"),
    ("Session", "expires_at", "Time"),
    ("Session", "messages", "Array<Message>"),
    ("Session", "network", "Array<Map>"),
    ("Stream", "sort_by", "Sessions"),
    ("Stream", "to_list", "Sessions"),
    ("Stream", "unique", "Sessions"),
    ("String", "split", "Array<String>"),
];

/// Types of the language itself.
const PLAIN: [&str; 7] = ["Bool", "Char", "Float", "Function", "Int", "Map", "String"];

/// What the language itself has that is written without a dot.
const FREE: [&str; 6] = ["debug", "parse_float", "parse_int", "print", "range", "timestamp"];

/// What gives one of a list's elements.
const OF_ELEMENTS: [&str; 6] = ["find", "first", "last", "pop", "remove", "shift"];
/// What gives a list of the same elements.
const LIKE_BEFORE: [&str; 10] =
    ["filter", "reject", "take", "skip", "sort_by", "unique", "reverse", "extract", "dedup", "to_array"];

impl Callable {
    fn read(info: &FuncInfo, is_ours: bool) -> Option<Self> {
        let metadata = info.metadata;
        let (form, name) = match metadata.name.as_str() {
            name if name.starts_with("set$") || name.starts_with("index$set$") => return None,
            name if name.starts_with("index$get$") => (Form::Index, name),
            name => match name.strip_prefix("get$") {
                Some(name) => (Form::Field, name),
                None => (Form::Function, name),
            },
        };
        if form == Form::Function && !name.starts_with(|letter: char| letter.is_alphabetic()) {
            return None;
        }
        let parameters: Vec<Parameter> = metadata
            .param_types
            .iter()
            .enumerate()
            .map(|(place, id)| {
                let told = metadata.params_info.get(place).map_or("", |told| told.as_str());
                let (name, _) = told.split_once(':').unwrap_or((told, ""));
                Parameter {
                    name: name.trim().to_owned(),
                    kind: kind::name_of(*id).unwrap_or("value").to_owned(),
                }
            })
            .collect();
        let doc: Vec<String> =
            metadata.comments.iter().map(|line| functions::without_slashes(line.as_str())).collect();
        let module = info.namespace.to_string();
        // Every function can be called behind a dot; `"a title".list()` is not meant.
        let is_changeable = metadata.params_info.first().is_some_and(|told| told.contains("&mut"));
        let is_method = module.is_empty()
            && parameters.first().is_some_and(|first| {
                !is_ours
                    || form != Form::Function
                    || is_changeable
                    || first.name == "text"
                    || !PLAIN.contains(&first.kind.as_str())
            });
        let mut callable = Self {
            module,
            name: name.to_owned(),
            form,
            answer: Kind::unknown(),
            is_method,
            is_free: form == Form::Function && (is_ours && !is_changeable || FREE.contains(&name)),
            parameters,
            is_ours,
            doc: doc.join("\n"),
        };
        callable.answer = callable.answer_of(&metadata.return_type);
        Some(callable)
    }

    pub fn is_free(&self) -> bool {
        self.is_free
    }

    /// The type before the dot, of what can be called with one.
    pub fn receiver(&self) -> Option<&str> {
        self.parameters.first().filter(|_| self.is_method).map(|first| first.kind.as_str())
    }

    fn answer_of(&self, text: &str) -> Kind {
        let before = self.receiver().unwrap_or_default();
        let known = ANSWERS.iter().find(|(of, name, _)| *of == before && *name == self.name);
        if let Some((_, _, answer)) = known {
            return Kind::from_words(answer);
        }
        match functions::plain_type(text).as_str() {
            // Lists are called so in what they have in common.
            "List" => Kind::plain(before),
            "" => Kind::plain("()"),
            name => match name {
                "INT" => Kind::plain("Int"),
                "Range" | "ExclusiveRange" | "InclusiveRange" => Kind::plain("Range"),
                "char" => Kind::plain("Char"),
                name => Kind::plain(name),
            },
        }
    }

    /// What it gives for what stands before it.
    pub fn answer(&self, before: &Kind) -> Kind {
        let gives_element = self.form == Form::Index || OF_ELEMENTS.contains(&self.name.as_str());
        if self.answer.is_unknown() && gives_element {
            return before.element();
        }
        if self.answer.name == "Array" && self.answer.element().is_unknown() {
            if LIKE_BEFORE.contains(&self.name.as_str()) {
                return Kind::array(before.element());
            }
            if self.name == "ids" {
                return Kind::array(Kind::plain("String"));
            }
        }
        self.answer.clone()
    }
}

/// All of them.
pub struct Catalogue {
    pub callables: Vec<Callable>,
}

impl Catalogue {
    /// Reads them back from the engine.
    pub fn read(engine: &rhai::Engine) -> Self {
        let mut callables = engine.collect_fn_metadata(None, |info| Callable::read(&info, true), false);
        // Those of ours come again among all.
        let key = |one: &Callable| {
            let kinds: Vec<String> = one.parameters.iter().map(|parameter| parameter.kind.clone()).collect();
            (one.module.clone(), one.name.clone(), one.form == Form::Field, kinds)
        };
        let mut known: HashSet<_> = callables.iter().map(key).collect();
        let all = engine.collect_fn_metadata(None, |info| Callable::read(&info, false), true);
        callables.extend(all.into_iter().filter(|one| known.insert(key(one))));
        Self { callables }
    }

    /// What has this name in this module, or everywhere if that is empty.
    pub fn functions<'a>(&'a self, module: &'a str, name: &'a str) -> impl Iterator<Item = &'a Callable> {
        self.callables
            .iter()
            .filter(move |one| one.form == Form::Function && one.module == module && one.name == name)
    }

    /// The fields and functions that values of this type have.
    pub fn members<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Callable> {
        self.callables.iter().filter(move |one| one.form != Form::Index && one.receiver() == Some(kind))
    }

    /// What `x.name` or `x.name(…)` gives.
    pub fn member_answer(&self, before: &Kind, name: &str, form: Form) -> Kind {
        let answers = self
            .callables
            .iter()
            .filter(|one| {
                one.form == form
                    && one.receiver() == Some(&before.name)
                    && (one.name == name || form == Form::Index)
            })
            .map(|one| one.answer(before));
        known_of(answers)
    }

    /// What `module::name(…)` gives.
    pub fn answer(&self, module: &str, name: &str) -> Kind {
        known_of(self.functions(module, name).map(|one| one.answer(&Kind::unknown())))
    }

    /// The modules, sorted.
    pub fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.callables.iter().map(|one| one.module.as_str()).collect();
        modules.sort_unstable();
        modules.dedup();
        modules.retain(|module| !module.is_empty());
        modules
    }
}

/// The first of which more is known than that it is a value.
fn known_of(mut answers: impl Iterator<Item = Kind>) -> Kind {
    answers.find(|answer| !answer.is_unknown()).unwrap_or_else(Kind::unknown)
}
