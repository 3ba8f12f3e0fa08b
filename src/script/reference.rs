//! The functions as pages for people: in groups, found by name, told on a terminal, in Markdown and in JSON.
//!
//! What they say comes from [`FunctionDoc`]s, and so from the source of what runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::FunctionDoc;
use super::suggestion;

/// Where the language itself is described.
const BOOK: &str = "https://rhai.rs/book/";

/// The groups in their order, each with what stands above it. Others follow by name, then the modules of `std/`.
const GROUPS: [(&str, &str); 19] = [
    (
        GLOBAL,
        "Under their own names, everywhere; those about sessions can be written `sessions::name(…)` too.",
    ),
    ("sessions::", "Written `sessions::name(…)`."),
    ("agents::", "Written `agents::name(…)`."),
    ("secrets::", "Written `secrets::name(…)`: what agents keep secret. Values go in, and never come out."),
    ("Session", "One session, as it was when it was asked for: `refresh()` asks again."),
    (
        LISTS,
        "What lists of sessions (`Sessions`), of agents (`Agents`), of the rows of `end` (`Done`) and arrays have, and \
         streams (`Stream`), which come a page at a time. `List` stands for whichever it is. A list asks the server when it \
         is looked at.",
    ),
    ("Server", "A server that a script names with `at`, beside the one that its command speaks to."),
    ("Agent", "One deployed agent."),
    (DONE, "What `end` answers of many sessions: a list with a row (`DoneRow`) a session."),
    ("Reply", "What an agent answered to `send`."),
    ("Message", "One entry of a transcript."),
    ("Error", "What `catch` catches when a function of these pages fails."),
    (
        DURATION,
        "A span of time in whole milliseconds. Durations compare with durations alone, add and subtract, and are \
         multiplied and divided by an `Int`.",
    ),
    (
        TIME,
        "A moment. Times compare with times alone; the difference of two is a duration, which can be added to one.",
    ),
    (TEXT, "Besides what the language has for strings."),
    (OUTPUT, "Data goes to stdout, everything else to stderr."),
    (CONTROL, "Questions, input and the end of a script."),
    (
        FILES,
        "Files in the working folder, and in those that `--allow-path` adds; other programs, with `--allow-sh` alone.",
    ),
    ("fixture::", "Written `fixture::name(…)`, in scripts that `superserve test` runs alone."),
];

const GLOBAL: &str = "Global";
const LISTS: &str = "Lists";
const DONE: &str = "Done";
const DURATION: &str = "Duration";
const TIME: &str = "Time";
const TEXT: &str = "Text";
const OUTPUT: &str = "Output";
const CONTROL: &str = "Control";
const FILES: &str = "Files and programs";

/// The group of functions that are no type's own.
const PLACES: [(&str, &str); 39] = [
    ("ago", TIME),
    ("append_file", FILES),
    ("blob", TEXT),
    ("columns", TEXT),
    ("confirm", CONTROL),
    ("duration", DURATION),
    ("env", CONTROL),
    ("exists", FILES),
    ("exit", CONTROL),
    ("failure", OUTPUT),
    ("fields_of", TEXT),
    ("is_folder", FILES),
    ("json", OUTPUT),
    ("list_files", FILES),
    ("lower", TEXT),
    ("now", TIME),
    ("pad", TEXT),
    ("parse_json", TEXT),
    ("print", OUTPUT),
    ("progress", OUTPUT),
    ("prompt", CONTROL),
    ("read_file", FILES),
    ("read_lines", CONTROL),
    ("replace", TEXT),
    ("sh", FILES),
    ("shorten", TEXT),
    ("show", OUTPUT),
    ("sleep", CONTROL),
    ("stdin_is_terminal", CONTROL),
    ("success", OUTPUT),
    ("table", OUTPUT),
    ("terminal_width", OUTPUT),
    ("time", TIME),
    ("trimmed", TEXT),
    ("upper", TEXT),
    ("usage_error", CONTROL),
    ("warn", OUTPUT),
    ("width", TEXT),
    ("write_file", FILES),
];

/// What `list[place]` is called.
const INDEX: &str = "[ ]";

/// The kinds of lists, in the order in which they are named.
const KINDS_OF_LISTS: [&str; 5] = ["Sessions", "Agents", "Done", "Array", "Stream"];

/// The types whose first place in a call means that the function is theirs: `s.cancel()`.
const TYPES: [(&str, &str); 16] = [
    ("Agent", "Agent"),
    ("Agents", LISTS),
    ("Array", LISTS),
    ("Done", LISTS),
    ("DoneRow", DONE),
    ("Duration", DURATION),
    ("Error", "Error"),
    ("Int", DURATION),
    ("Message", "Message"),
    ("Ran", FILES),
    ("Reply", "Reply"),
    ("Server", "Server"),
    ("Session", "Session"),
    ("Sessions", LISTS),
    ("Stream", LISTS),
    ("Time", TIME),
];

/// The language's own types: a function that begins with one is nobody's method.
const PLAIN: [&str; 10] =
    ["Blob", "Bool", "Char", "Float", "Function", "Map", "Range", "String", "Timestamp", "value"];

/// One function with the ways to write it that share its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `filter`; without its type or module.
    pub name: String,
    /// The group's title: `Session`, `Lists`, `sessions::`, `std/check`.
    pub group: String,
    /// As it is written: `List.filter(test: Function) -> List`, `Session.idle -> Duration`.
    pub signatures: Vec<String>,
    /// The kinds of lists that have it, where `List` stands for several.
    pub on: Vec<String>,
    /// Markdown, without the examples.
    pub doc: String,
    pub examples: Vec<String>,
    /// The types and modules under which it is found.
    owners: BTreeSet<String>,
}

/// All functions, grouped.
#[derive(Clone, Debug)]
pub struct Reference {
    entries: Vec<Entry>,
    language: Vec<Entry>,
}

impl Reference {
    /// The pages for our functions and the language's own.
    pub fn new(ours: &[FunctionDoc], language: &[FunctionDoc]) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for function in ours.iter().filter(|function| function.name != "to_debug") {
            let entry = Entry::of(function, ours);
            match entries.iter_mut().find(|known| known.is_like(&entry)) {
                Some(known) => known.take_up(entry),
                None => entries.push(entry),
            }
        }
        entries.iter_mut().for_each(Entry::settle);
        // Of equal names the one that is written without an argument first, and fields before methods.
        entries.sort_by_cached_key(|entry| {
            let is_method = entry.signatures.first().is_none_or(|first| first.contains('('));
            let sorts_types = entry.group == DONE || entry.group == DURATION;
            let owner = entry.owners.iter().next().filter(|_| sorts_types).cloned();
            (rank(&entry.group), owner, is_method, entry.name.clone(), entry.signatures.first().cloned())
        });
        let mut own: Vec<Entry> = Vec::new();
        let is_shown = |name: &str| !HIDDEN.contains(&name) && !name.contains('$');
        for function in language.iter().filter(|function| is_shown(&function.name)) {
            let entry = Entry::of_language(function);
            match own.iter_mut().find(|known| known.is_like(&entry)) {
                Some(known) => known.take_up(entry),
                None => own.push(entry),
            }
        }
        own.sort_by_cached_key(|entry| (entry.group.clone(), entry.name.clone()));
        Self { entries, language: own }
    }

    /// Every entry of ours, group by group.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries that a name means: `filter`, `Session.idle`, `sessions::each`, `std/check`, a group's title.
    /// The language's own functions count if none of ours is called so. None if nothing is.
    pub fn find(&self, name: &str) -> Vec<&Entry> {
        let name = name.trim().trim_end_matches("()").trim_end_matches("::").trim_end_matches('.');
        let of = |entries: &'_ [Entry]| -> Vec<usize> {
            let exact = |test: &dyn Fn(&Entry) -> bool| -> Vec<usize> {
                entries.iter().enumerate().filter(|(_, entry)| test(entry)).map(|(at, _)| at).collect()
            };
            let named = exact(&|entry| entry.is_called(name));
            if named.is_empty() { exact(&|entry| entry.group.trim_end_matches("::") == name) } else { named }
        };
        let ours = of(&self.entries);
        if ours.is_empty() {
            return of(&self.language).into_iter().map(|at| &self.language[at]).collect();
        }
        ours.into_iter().map(|at| &self.entries[at]).collect()
    }

    /// What somebody may have meant by a name that means nothing, as a sentence.
    pub fn suggestion(&self, name: &str) -> Option<String> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        for entry in &self.entries {
            known.insert(entry.group.trim_end_matches("::").to_owned());
            known.insert(entry.name.clone());
            known.extend(entry.owners.iter().map(|owner| entry.called(owner)));
        }
        known.extend(self.language.iter().map(|entry| entry.name.clone()));
        suggestion::did_you_mean(name, known.iter().map(String::as_str))
    }

    /// Every name that [`find`](Self::find) takes, with the first sentence about it.
    pub fn names(&self) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> = Vec::new();
        for entry in &self.entries {
            let owned = entry.owners.iter().map(|owner| entry.called(owner));
            let plain = entry.owners.is_empty().then(|| entry.name.clone());
            names.extend(owned.chain(plain).map(|name| (name, entry.summary())));
        }
        names.dedup_by(|a, b| a.0 == b.0);
        names
    }

    /// Everything, a line a name.
    pub fn overview(&self) -> String {
        let width = self.entries.iter().map(|entry| entry.short().chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        let mut group = "";
        let mut last = String::new();
        for entry in &self.entries {
            if entry.group != group {
                let gap = if group.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}{}", entry.group);
                group = &entry.group;
                last.clear();
            }
            let short = entry.short();
            if short != last {
                let _ = writeln!(text, "  {short:width$}  {}", entry.summary());
                last = short;
            }
        }
        let _ = writeln!(
            text,
            "\nsuperserve help functions NAME tells all of one: filter, Session.idle, sessions::each.\n\
             The language's own functions (push, keys, split, …) are told by their names too, and in {BOOK}."
        );
        text
    }

    /// The page `docs/functions.md`.
    pub fn markdown(&self) -> String {
        let mut text = INTRODUCTION.to_owned();
        let mut group = "";
        let mut name = "";
        for entry in &self.entries {
            if entry.group != group {
                let title = if entry.group.contains([':', '/']) {
                    format!("`{}`", entry.group)
                } else {
                    entry.group.clone()
                };
                let _ = writeln!(text, "\n## {title}");
                let about = about(&entry.group);
                if !about.is_empty() {
                    let _ = writeln!(text, "\n{about}");
                }
                group = &entry.group;
                name = "";
            }
            if entry.name != name {
                let _ = writeln!(text, "\n### `{}`", entry.name);
                name = &entry.name;
            }
            text.push('\n');
            for signature in &entry.signatures {
                let _ = writeln!(text, "- `{signature}`");
            }
            if !entry.on.is_empty() {
                let on: Vec<String> = entry.on.iter().map(|kind| format!("`{kind}`")).collect();
                let _ = writeln!(text, "- `List` is {}", joined(&on, "or"));
            }
            let _ = writeln!(text, "\n{}", entry.doc);
            for example in &entry.examples {
                let _ = writeln!(text, "\n```rhai\n{example}\n```");
            }
        }
        let _ = writeln!(
            text,
            "\n## The language's own\n\nRhai has these besides; the [book]({BOOK}) describes them, and `superserve help \
             functions NAME` tells what each does.\n\n| of | functions |\n| --- | --- |"
        );
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for entry in &self.language {
            match groups.last_mut().filter(|(group, _)| *group == entry.group) {
                Some((_, names)) if names.last() == Some(&entry.name.as_str()) => {}
                Some((_, names)) => names.push(&entry.name),
                None => groups.push((&entry.group, vec![&entry.name])),
            }
        }
        for (group, names) in groups {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(text, "| {group} | {} |", names.join(" "));
        }
        text
    }
}

/// What stands above all groups in `docs/functions.md`.
const INTRODUCTION: &str = "\
# Functions

What scripts, `superserve eval`, the REPL and functions given to lists can call. This page is what
`superserve help functions --markdown` prints; `superserve help functions NAME` tells one function on the terminal.

**Types.** `Int` is a whole number of 64 bits, `Float` one with a fraction, `Bool` true or false, `String` text, `Array`
`[1, 2]`, `Map` `#{ a: 1 }`, `Function` a closure such as `|s| s.idle > 2.hours` or a function's name. `value` is any of them,
and `()` is no value. `Duration`, `Time`, `Session` and the others have a chapter each.

**Units.** Spans of time are durations (`2.hours`), never numbers, but for `sleep`, which takes seconds too; moments are
times. Both are exact to the millisecond.

**Errors.** A function that asks the server fails with the code `unreachable` if the server can't be reached or started;
a function that is given one fails as that one fails; a duration or a time that is out of range is an error. That isn't said
again below. Every error can be caught, `try { … } catch (e) { … }`, and read: see `Error`.
With `--dry-run`, what would change something is told and not done, and gives what success would give.
";

/// The language's functions that are of no use here, or are told above under ours.
const HIDDEN: [&str; 6] = ["debug", "get_fn_metadata_list", "print", "to_debug", "to_string", "set_tag"];

impl Entry {
    fn of(function: &FunctionDoc, all: &[FunctionDoc]) -> Self {
        let FunctionDoc { module, name, signature, doc, examples } = function;
        let entry = |group: &str, owner: Option<&str>, signature: String| Self {
            name: if name.starts_with("index$") { INDEX.to_owned() } else { name.clone() },
            group: group.to_owned(),
            signatures: vec![signature],
            on: Vec::new(),
            doc: without_examples(doc),
            examples: examples.clone(),
            owners: owner.map(str::to_owned).into_iter().collect(),
        };
        if !module.is_empty() {
            // Those that are global too are told there.
            let is_global = all
                .iter()
                .any(|other| other.module.is_empty() && other.signature == *signature && other.doc == *doc);
            let group = match module.as_str() {
                "sessions" if is_global => GLOBAL.to_owned(),
                module if module.contains('/') => module.to_owned(),
                module => format!("{module}::"),
            };
            let alias = module.rsplit('/').next().unwrap_or(module);
            let signature = if group == GLOBAL { signature.clone() } else { format!("{alias}::{signature}") };
            return entry(&group, Some(module), signature);
        }
        let in_sessions = all.iter().any(|other| other.module == "sessions" && other.signature == *signature);
        let first = first_type(signature);
        if in_sessions {
            let owner = TYPES.iter().find(|(kind, _)| Some(*kind) == first).map(|(kind, _)| *kind);
            return entry(GLOBAL, owner, signature.clone());
        }
        let place = PLACES.iter().find(|(known, _)| known == name).map(|(_, group)| *group);
        if let Some((kind, group)) = TYPES.iter().find(|(kind, _)| Some(*kind) == first)
            && (place.is_none()
                || KINDS_OF_LISTS.contains(kind)
                || signature.starts_with(&format!("{kind}.")))
        {
            return entry(group, Some(kind), as_method(signature, kind));
        }
        if let Some(group) = place {
            return entry(group, None, signature.clone());
        }
        match (name.as_str(), first) {
            ("to_json", _) => entry(TEXT, None, signature.clone()),
            // A type that this page doesn't know yet is a group of its own.
            (_, Some(kind)) if !PLAIN.contains(&kind) => entry(kind, Some(kind), as_method(signature, kind)),
            _ => entry(GLOBAL, None, signature.clone()),
        }
    }

    fn of_language(function: &FunctionDoc) -> Self {
        let kind = first_type(&function.signature).unwrap_or("nothing").to_owned();
        let group = match kind.as_str() {
            "Array" | "Blob" | "Bool" | "Char" | "Float" | "Function" | "Int" | "Map" | "Range"
            | "String" | "Timestamp" => kind.clone(),
            "ExclusiveRange" | "InclusiveRange" | "RangeInclusive" => "Range".to_owned(),
            "f32" => "Float".to_owned(),
            "nothing" => "no value".to_owned(),
            _ => "any value".to_owned(),
        };
        Self {
            name: function.name.clone(),
            group,
            signatures: vec![function.signature.clone()],
            on: Vec::new(),
            doc: without_examples(&function.doc),
            examples: function.examples.clone(),
            owners: BTreeSet::from([kind]),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.group == other.group
            && self.name == other.name
            && self.doc == other.doc
            && self.examples == other.examples
    }

    fn take_up(&mut self, other: Self) {
        for signature in other.signatures {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        self.owners.extend(other.owners);
    }

    /// Several kinds of lists with the same text become `List`; what only `end`'s rows have stands with them.
    fn settle(&mut self) {
        if self.group == LISTS {
            let kinds: Vec<&str> =
                KINDS_OF_LISTS.into_iter().filter(|kind| self.owners.contains(*kind)).collect();
            if let [DONE] = kinds.as_slice() {
                DONE.clone_into(&mut self.group);
            } else if kinds.len() > 1 {
                let mut merged: Vec<String> = Vec::new();
                for signature in &self.signatures {
                    let signature = with_list(signature);
                    if !merged.contains(&signature) {
                        merged.push(signature);
                    }
                }
                self.signatures = merged;
                self.on = kinds.into_iter().map(str::to_owned).collect();
            }
        }
        // The field before the call that says the same.
        self.signatures.sort_by_key(|signature| signature.contains('('));
    }

    /// `Session.idle`, `sessions::list`, `std/check::holds`.
    fn called(&self, owner: &str) -> String {
        let is_type = owner.starts_with(|c: char| c.is_uppercase());
        format!("{owner}{}{}", if is_type { "." } else { "::" }, self.name)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name
            || self.owners.iter().any(|owner| self.called(owner) == name)
            || (!self.on.is_empty() && name.strip_prefix("List.") == Some(&self.name))
            || (self.name == INDEX && name == "[]")
    }

    /// As the overview names it.
    fn short(&self) -> String {
        let owner = self.owners.iter().next().map_or("", String::as_str);
        let is_type = owner.starts_with(|c: char| c.is_uppercase());
        match self.group.as_str() {
            LISTS if self.on.is_empty() => format!("{owner}.{}", self.name),
            DONE | DURATION | TIME if is_type => format!("{owner}.{}", self.name),
            _ => self.name.clone(),
        }
    }

    /// The first sentence of the text.
    pub fn summary(&self) -> String {
        let text = self.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_end = |at: usize| {
            let before = &text[..at];
            let rest = &text[at + 1..];
            before.matches('(').count() == before.matches(')').count()
                && (rest.is_empty() || rest.starts_with(' '))
        };
        let mut ends = text.match_indices(['.', ';', ':']).map(|(at, _)| at);
        let end = ends.find(|at| is_end(*at)).unwrap_or(text.len());
        text[..end].to_owned()
    }

    /// All of it, for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for signature in &self.signatures {
            let _ = writeln!(text, "{signature}");
        }
        if !self.on.is_empty() {
            let _ = writeln!(text, "  List is {}.", joined(&self.on, "or"));
        }
        if self.group.contains('/') {
            let alias = self.group.rsplit('/').next().unwrap_or_default();
            let _ = writeln!(text, "  import \"{}\" as {alias};", self.group);
        }
        text.push('\n');
        for line in self.doc.lines() {
            let _ = writeln!(text, "{}", if line.is_empty() { String::new() } else { format!("  {line}") });
        }
        for example in &self.examples {
            text.push('\n');
            for line in example.lines() {
                let _ = writeln!(text, "{}", format!("    {line}").trim_end());
            }
        }
        text
    }

    /// `{name, group, signatures, on, doc, examples}`.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "group": self.group,
            "signatures": self.signatures,
            "on": self.on,
            "doc": self.doc,
            "examples": self.examples,
        })
    }
}

/// One function's documentation on a terminal, as `help functions NAME` shows it.
pub fn text(function: &FunctionDoc) -> String {
    Entry::of(function, &[]).text()
}

/// Where a group stands.
fn rank(group: &str) -> (usize, String) {
    match GROUPS.iter().position(|(title, _)| *title == group) {
        Some(place) => (place, String::new()),
        None if group.contains('/') => (GROUPS.len() + 1, group.to_owned()),
        None => (GROUPS.len(), group.to_owned()),
    }
}

fn about(group: &str) -> String {
    match GROUPS.iter().find(|(title, _)| *title == group) {
        Some((_, about)) => (*about).to_owned(),
        None if group.contains('/') => {
            let alias = group.rsplit('/').next().unwrap_or_default();
            format!("After `import \"{group}\" as {alias};`, written `{alias}::name(…)`.")
        }
        None => String::new(),
    }
}

/// `a, b or c`.
fn joined(words: &[String], last: &str) -> String {
    match words.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => String::new(),
    }
}

/// The type of what a function is called on, or of its first parameter.
fn first_type(signature: &str) -> Option<&str> {
    let is_word = |text: &str| text.starts_with(|c: char| c.is_alphabetic());
    let end = signature.find(['.', '[', '(', ' '])?;
    match signature.as_bytes()[end] {
        b'(' => {
            let parameters = signature[end + 1..].split(')').next()?;
            parameters.split(',').next()?.split_once(": ").map(|(_, kind)| kind.trim())
        }
        b'.' | b'[' if is_word(signature) => Some(&signature[..end]),
        _ => None,
    }
}

/// `cancel(session: Session) -> Session` as it is written: `Session.cancel() -> Session`.
fn as_method(signature: &str, kind: &str) -> String {
    let Some((name, rest)) = signature.split_once('(') else { return signature.to_owned() };
    if name.contains(['.', '[']) {
        return signature.to_owned();
    }
    let Some((parameters, answer)) = rest.split_once(')') else { return signature.to_owned() };
    let others = parameters.split_once(", ").map_or("", |(_, others)| others);
    format!("{kind}.{name}({others}){answer}")
}

/// The signature with `List` for the kind of list that it is on and gives.
fn with_list(signature: &str) -> String {
    let Some(kind) = KINDS_OF_LISTS
        .iter()
        .find(|kind| signature.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(['.', '['])))
    else {
        return signature.to_owned();
    };
    let rest = &signature[kind.len()..];
    let answer = format!(" -> {kind}");
    match rest.strip_suffix(&answer) {
        // An array is what it says, on whichever list.
        Some(before) if *kind != "Array" || SAME_KIND.iter().any(|name| before.starts_with(name)) => {
            format!("List{before} -> List")
        }
        _ => format!("List{rest}"),
    }
}

/// What gives an array of an array because it gives the kind of list that it is on.
const SAME_KIND: [&str; 7] =
    [".filter(", ".reject(", ".take(", ".skip(", ".sort_by(", ".unique(", ".reverse("];

/// Markdown without its blocks of examples.
fn without_examples(doc: &str) -> String {
    let mut text = String::new();
    let mut open = false;
    for line in doc.lines() {
        if line.trim_start().starts_with("```") {
            open = !open;
        } else if !open {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    // A heading above nothing but an example says nothing.
    let kept: Vec<&str> =
        text.lines().filter(|line| !matches!(line.trim(), "# Example" | "# Examples")).collect();
    let mut text = kept.join("\n");
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fake::host;
    use super::super::{Engine, Options};
    use super::*;

    fn reference() -> Reference {
        Engine::new(host(None, Options::default()).0).reference()
    }

    fn doc(module: &str, name: &str, signature: &str) -> FunctionDoc {
        let (module, name, signature) = (module.to_owned(), name.to_owned(), signature.to_owned());
        FunctionDoc { module, name, signature, doc: "Does it. Well.".into(), examples: vec!["it();".into()] }
    }

    #[test]
    fn each_function_stands_once_and_is_found_by_each_of_its_names() {
        let reference = reference();
        for (at, entry) in reference.entries.iter().enumerate() {
            let again = reference.entries[at + 1..].iter().find(|other| {
                other.group == entry.group
                    && other.signatures.iter().any(|one| entry.signatures.contains(one))
            });
            assert!(again.is_none(), "{again:?}");
            assert!(reference.find(&entry.name).contains(&entry), "{}", entry.name);
            for owner in &entry.owners {
                assert!(reference.find(&entry.called(owner)).contains(&entry), "{}", entry.called(owner));
            }
        }
        for (name, _) in reference.names() {
            assert!(!reference.find(&name).is_empty(), "{name}");
        }
    }

    #[test]
    fn lists_share_what_they_share() {
        let reference = reference();
        let filter = reference.find("Stream.filter");
        assert_eq!(filter.len(), 3);
        assert!(filter.iter().all(|entry| entry.on == ["Sessions", "Agents", "Done", "Array", "Stream"]));
        assert_eq!(filter[2].signatures, ["List.filter(test: Function) -> List"]);
        assert_eq!(reference.find("len")[0].signatures, ["List.len -> Int", "List.len() -> Int"]);
        assert_eq!(reference.find("Stream.map")[0].signatures, ["Stream.map(function: Function) -> Stream"]);
        assert_eq!(reference.find("Sessions.map")[0].signatures, ["List.map(function: Function) -> Array"]);
        assert_eq!(reference.find("Done.ok")[0].group, DONE);
    }

    #[test]
    fn functions_stand_where_they_are_looked_for() {
        let reference = reference();
        for (name, group, signature) in [
            ("list", GLOBAL, "list() -> Sessions"),
            ("sessions::end", GLOBAL, "end(id: String) -> Session"),
            ("Session.end", GLOBAL, "end(session: Session) -> Session"),
            ("sessions::each()", "sessions::", "sessions::each() -> Stream"),
            ("agents::get", "agents::", "agents::get(name: String) -> Agent"),
            ("Session.idle", "Session", "Session.idle -> Duration"),
            ("Reply.duration", "Reply", "Reply.duration -> Duration"),
            ("Int.days", DURATION, "Int.days -> Duration"),
            ("ago", TIME, "ago(duration: Duration) -> Time"),
            ("shorten", TEXT, "shorten(text: String, columns: Int) -> String"),
            ("table", OUTPUT, "table(rows: value)"),
            ("sleep", CONTROL, "sleep(duration: Duration)"),
            ("[]", LISTS, "List[place: Int] -> value"),
            ("push", "Array", "push(array: Array, item: value)"),
        ] {
            let found = reference.find(name);
            let stands = found.iter().any(|entry| entry.group == group && entry.signatures[0] == signature);
            assert!(stands, "{name}: {found:#?}");
        }
        assert!(reference.find("Session").len() > 20);
        assert_eq!(reference.find("filtr"), Vec::<&Entry>::new());
        assert_eq!(reference.suggestion("filtr").as_deref(), Some("Did you mean `filter`?"));
        assert_eq!(reference.suggestion("Session.idel").as_deref(), Some("Did you mean `Session.idle`?"));
    }

    #[test]
    fn what_comes_later_finds_its_place() {
        let ours = [
            doc("std/report", "summary", "summary(sessions: Sessions) -> Map"),
            doc("", "progress", "progress(title: String)"),
            doc("", "next", "next(watch: Watch, n: Int) -> Session"),
            doc("", "ticks", "Watch.ticks -> Int"),
        ];
        let reference = Reference::new(&ours, &[]);
        let groups: Vec<&str> = reference.entries().iter().map(|entry| entry.group.as_str()).collect();
        assert_eq!(groups, [OUTPUT, "Watch", "Watch", "std/report"]);
        assert_eq!(reference.find("next")[0].signatures, ["Watch.next(n: Int) -> Session"]);
        let module = reference.find("std/report");
        assert_eq!(module, reference.find("std/report::summary"));
        assert_eq!(
            module[0].text(),
            "report::summary(sessions: Sessions) -> Map\n  import \"std/report\" as report;\n\n  Does it. Well.\n\n    it();\n"
        );
        let page = reference.markdown();
        assert!(page.contains("## `std/report`\n\nAfter `import \"std/report\" as report;`"), "{page}");
        assert_eq!(text(&ours[3]), "Watch.ticks -> Int\n\n  Does it. Well.\n\n    it();\n");
    }

    /// A function that is given what can be wrong says so; what all of them fail with stands at the page's beginning.
    #[test]
    fn errors_are_told() {
        // They take whatever they are given.
        const TAKE_ANYTHING: [&str; 7] = ["env", "failure", "json", "progress", "show", "success", "warn"];
        let runtime = super::super::runtime::Runtime::new(host(None, Options::default()).0);
        let engine = super::super::assembly::assemble(&runtime, &super::super::resolver::Sources::default());
        let silent = engine.collect_fn_metadata(
            None,
            |info| {
                let metadata = info.metadata;
                let told = metadata.comments.iter().any(|text| text.contains("Error"));
                let is_ours = metadata.name.starts_with(char::is_alphabetic) && info.namespace != "fixture";
                let fails =
                    metadata.return_type.contains("Fallible") || metadata.return_type.contains("Result");
                let can_be_wrong = metadata.params_info.iter().any(|parameter| {
                    let kind = parameter.rsplit(": ").next().unwrap_or_default();
                    ["&str", "Array", "Dynamic", "FnPtr", "Map"].contains(&kind)
                });
                (fails && is_ours && can_be_wrong && !told).then(|| metadata.name.to_string())
            },
            false,
        );
        let silent: BTreeSet<&str> = silent.iter().map(String::as_str).collect();
        assert_eq!(silent, BTreeSet::from(TAKE_ANYTHING));
    }
}
