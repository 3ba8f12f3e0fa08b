//! What scripts can call, as documentation: read back from the engine, so that it can't differ from what runs.

use std::any::TypeId;
use std::collections::HashSet;

use rhai::{Array, FnAccess, FuncMetadata};
use serde_json::Value;

use super::agents::Agents;
use super::ending::Done;
use super::resolver::STANDARD;
use super::sessions::Sessions;
use super::stream::Stream;

/// One function, getter or operator that scripts can call, from the same text that documents it in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionDoc {
    /// `sessions` of `sessions::list`, `std/report` of what that module of the standard library has; empty for global
    /// functions and methods.
    pub module: String,
    /// `end`, or `idle` of a getter.
    pub name: String,
    /// As it is written: `list(options: Map) -> Sessions`, `Session.idle -> Duration`.
    pub signature: String,
    /// Markdown, without the comment's slashes.
    pub doc: String,
    /// The text of each block marked `rhai`.
    pub examples: Vec<String>,
}

/// All of ours, sorted. What several kinds of lists have stands here once, as of a `List`.
pub fn all(engine: &rhai::Engine) -> Vec<FunctionDoc> {
    sorted(engine.collect_fn_metadata(None, |info| documented(info.metadata, &info.namespace, None), false))
}

/// All of ours, sorted. What several kinds of lists have stands here once for each.
pub fn of_each_list(engine: &rhai::Engine) -> Vec<FunctionDoc> {
    let of = |metadata: &FuncMetadata, module: &str| {
        let list = metadata.param_types.first().copied().and_then(list_type);
        documented(metadata, module, list)
    };
    sorted(engine.collect_fn_metadata(None, |info| of(info.metadata, &info.namespace), false))
}

/// The language's own functions, with its own documentation: those that none of ours hides, sorted.
pub fn language(engine: &rhai::Engine) -> Vec<FunctionDoc> {
    let key = |metadata: &FuncMetadata| (metadata.name.to_string(), metadata.param_types.to_vec());
    let ours: HashSet<_> =
        engine.collect_fn_metadata(None, |info| Some(key(info.metadata)), false).into_iter().collect();
    let every = engine.collect_fn_metadata(
        None,
        |info| {
            let is_plain = info.namespace.is_empty() && !info.metadata.comments.is_empty();
            let doc = documented(info.metadata, "", None).filter(|_| is_plain)?;
            Some((key(info.metadata), doc))
        },
        true,
    );
    sorted(every.into_iter().filter(|(key, _)| !ours.contains(key)).map(|(_, doc)| doc).collect())
}

fn sorted(mut found: Vec<FunctionDoc>) -> Vec<FunctionDoc> {
    found.sort();
    found.dedup();
    found
}

/// The functions of the standard library, sorted: from the same texts that are imported as `std/…`. Their parameters
/// have names and no types.
pub fn standard_library(engine: &rhai::Engine) -> Vec<FunctionDoc> {
    let mut found = Vec::new();
    for (module, text) in STANDARD {
        // A text that can't be read has no functions; that each can be read is tested.
        let Ok(ast) = engine.compile(text) else { continue };
        // Closures have names of the engine's own making.
        let is_told = |function: &rhai::ScriptFnMetadata| {
            function.access == FnAccess::Public && !function.name.contains('$')
        };
        for function in ast.iter_functions().filter(is_told) {
            let lines = function.comments.iter().map(|lines| without_slashes(lines));
            let doc = lines.collect::<Vec<_>>().join("\n");
            found.push(FunctionDoc {
                module: module.to_owned(),
                name: function.name.to_owned(),
                signature: format!("{}({})", function.name, function.params.join(", ")),
                examples: examples(&doc),
                doc,
            });
        }
    }
    found.sort();
    found
}

/// The names of everything that can be called, the language's own functions among them; getters as `get$name`.
pub fn names(engine: &rhai::Engine) -> Vec<String> {
    let metadata = engine.gen_fn_metadata_to_json(true).unwrap_or_default();
    let Ok(metadata) = serde_json::from_str::<Value>(&metadata) else { return Vec::new() };
    let of = |value: &Value| -> Vec<String> {
        let functions = value["functions"].as_array().into_iter().flatten();
        functions.filter_map(|function| function["name"].as_str().map(str::to_owned)).collect()
    };
    let mut names = of(&metadata);
    names.extend(
        metadata["modules"].as_object().into_iter().flat_map(|modules| modules.values()).flat_map(of),
    );
    names.sort();
    names.dedup();
    names
}

/// `list` is what its `List` is: one text documents the functions of all kinds of lists.
fn documented(function: &FuncMetadata, module: &str, list: Option<&str>) -> Option<FunctionDoc> {
    let name = function.name.as_str();
    if is_operator(name) {
        return None;
    }
    let doc = function.comments.iter().map(|lines| without_slashes(lines)).collect::<Vec<_>>().join("\n");
    Some(FunctionDoc {
        module: module.to_owned(),
        name: name.strip_prefix("get$").unwrap_or(name).to_owned(),
        signature: signature(function, list),
        examples: examples(&doc),
        doc,
    })
}

fn is_operator(name: &str) -> bool {
    !name.starts_with("index$") && !name.starts_with(|c: char| c.is_alphabetic())
}

/// Lines of one comment come as one text.
pub(super) fn without_slashes(text: &str) -> String {
    let line = |line: &str| {
        let line = line.trim_start().trim_start_matches("///");
        line.strip_prefix(' ').unwrap_or(line).to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn signature(function: &FuncMetadata, list: Option<&str>) -> String {
    let name = function.name.as_str();
    let kind = |text: &str| {
        let kind = plain_type(text);
        if kind == "List" { list.unwrap_or("List").to_owned() } else { kind }
    };
    let parameter = |parameter: &rhai::Identifier| match parameter.split_once(':') {
        Some((name, text)) => (if name == "_" { "value" } else { name }.to_owned(), kind(text)),
        None => (parameter.to_string(), "value".to_owned()),
    };
    let parameters: Vec<(String, String)> = function.params_info.iter().map(parameter).collect();
    let answer = match kind(&function.return_type).as_str() {
        "()" | "" => String::new(),
        answer => format!(" -> {answer}"),
    };
    if let Some(field) = name.strip_prefix("get$") {
        let of = parameters.first().map_or("value", |(_, kind)| kind);
        return format!("{of}.{field}{answer}");
    }
    let listed = |parameters: &[(String, String)]| {
        parameters.iter().map(|(name, kind)| format!("{name}: {kind}")).collect::<Vec<_>>().join(", ")
    };
    if name.starts_with("index$") {
        let of = parameters.first().map_or("value", |(_, kind)| kind);
        return format!("{of}[{}]{answer}", listed(parameters.get(1..).unwrap_or_default()));
    }
    format!("{name}({}){answer}", listed(&parameters))
}

/// The list that this type is, as scripts know it.
fn list_type(id: TypeId) -> Option<&'static str> {
    let known = [
        (TypeId::of::<Agents>(), "Agents"),
        (TypeId::of::<Array>(), "Array"),
        (TypeId::of::<Done>(), "Done"),
        (TypeId::of::<Sessions>(), "Sessions"),
        (TypeId::of::<Stream>(), "Stream"),
    ];
    known.into_iter().find(|(known, _)| *known == id).map(|(_, name)| name)
}

/// A type as scripts know it.
pub fn plain_type(text: &str) -> String {
    let inner = text
        .trim()
        .trim_start_matches("core::result::")
        .trim_start_matches("RhaiResultOf<")
        .trim_start_matches("Result<")
        .trim_start_matches("Fallible<")
        .trim_start_matches("&mut ")
        .trim_start_matches("std::ops::")
        .split([',', '<', '>'])
        .next()
        .unwrap_or_default()
        .trim();
    match inner.rsplit("::").next().unwrap_or(inner) {
        "&str" | "ImmutableString" | "String" | "str" | "string" => "String",
        "Dynamic" | "RhaiResult" | "?" => "value",
        "f64" | "FLOAT" => "Float",
        "FnPtr" | "Fn" => "Function",
        "Instant" => "Timestamp",
        "char" => "Char",
        "i64" | "INT" => "Int",
        "bool" => "Bool",
        other => other,
    }
    .to_owned()
}

/// The blocks of a documentation that are marked `rhai`.
pub fn examples(doc: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in doc.lines() {
        match (&mut open, line.trim()) {
            (None, "```rhai") => open = Some(Vec::new()),
            (Some(block), "```") => {
                blocks.push(block.join("\n"));
                open = None;
            }
            (Some(block), _) => block.push(line),
            (None, _) => {}
        }
    }
    blocks
}
