//! Documentation by name: of a function, a field, a type, a module.

use super::catalogue::{Callable, Catalogue, Form};
use super::functions::FunctionDoc;
use super::suggestion;

/// What is known under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Each form of a function, or a field.
    Entries(Vec<Entry>),
    /// What a type or a module has: how it is written, and what it does in a sentence.
    Members(Vec<(String, String)>),
}

/// One function or field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub signature: String,
    /// Without the examples.
    pub doc: String,
    pub examples: Vec<String>,
}

/// What is looked through.
pub struct Manual<'a> {
    pub catalogue: &'a Catalogue,
    /// All of ours.
    pub docs: &'a [FunctionDoc],
    /// The script's own functions: signature and comment.
    pub own: &'a [(String, String)],
}

impl Manual<'_> {
    /// The page of `list`, `sessions::list`, `Session.idle`, `Session`, `sessions`. Error: a hint, if a name is near.
    pub fn page(&self, name: &str) -> Result<Page, Option<String>> {
        let name = name.trim().trim_start_matches('.').split('(').next().unwrap_or_default().trim();
        if let Some((module, name)) = name.split_once("::") {
            return self
                .entries(|doc| doc.module == module && doc.name == name)
                .ok_or_else(|| self.near(name));
        }
        if let Some((kind, member)) = name.split_once('.') {
            let members: Vec<&Callable> =
                self.catalogue.members(kind).filter(|one| one.name == member).collect();
            let is_one = |doc: &FunctionDoc| {
                members.iter().any(|one| one.is_ours && one.name == doc.name && one.doc == doc.doc)
            };
            return self
                .entries(is_one)
                .or_else(|| Self::of_language(members.iter().copied()))
                .ok_or_else(|| self.near(member));
        }
        let own: Vec<Entry> = self
            .own
            .iter()
            .filter(|(signature, _)| signature.split('(').next() == Some(name))
            .map(|(signature, doc)| Entry::new(signature.clone(), doc))
            .collect();
        if !own.is_empty() {
            return Ok(Page::Entries(own));
        }
        // The global one goes before its twin in a module.
        self.entries(|doc| doc.name == name && doc.module.is_empty())
            .or_else(|| self.entries(|doc| doc.name == name))
            .or_else(|| self.members(name))
            .or_else(|| Self::of_language(self.catalogue.callables.iter().filter(|one| one.name == name)))
            .ok_or_else(|| self.near(name))
    }

    fn near(&self, name: &str) -> Option<String> {
        let docs = self.docs.iter().map(|doc| doc.name.as_str());
        let own = self.own.iter().filter_map(|(signature, _)| signature.split('(').next());
        let rest = self.catalogue.callables.iter().map(|one| one.name.as_str());
        suggestion::did_you_mean(name, docs.chain(own).chain(rest).chain(self.catalogue.modules()))
    }

    fn entries(&self, test: impl Fn(&FunctionDoc) -> bool) -> Option<Page> {
        let found: Vec<Entry> = self
            .docs
            .iter()
            .filter(|doc| test(doc))
            .map(|doc| {
                let module = if doc.module.is_empty() { String::new() } else { format!("{}::", doc.module) };
                Entry::new(format!("{module}{}", doc.signature), &doc.doc)
            })
            .collect();
        (!found.is_empty()).then_some(Page::Entries(found))
    }

    /// What a type or a module has.
    fn members(&self, name: &str) -> Option<Page> {
        let of_type: Vec<&Callable> = self.catalogue.members(name).filter(|one| one.is_ours).collect();
        let is_member = |doc: &&FunctionDoc| {
            let is_of_type =
                doc.module.is_empty() && of_type.iter().any(|one| one.name == doc.name && one.doc == doc.doc);
            doc.module == name || is_of_type
        };
        let mut found: Vec<(String, String)> = self
            .docs
            .iter()
            .filter(is_member)
            .filter(|doc| !matches!(doc.name.as_str(), "to_debug" | "to_string"))
            .map(|doc| (doc.signature.clone(), sentence(&doc.doc)))
            .collect();
        found.dedup();
        (!found.is_empty()).then_some(Page::Members(found))
    }

    /// What the language itself has: from its own comments.
    fn of_language<'c>(found: impl Iterator<Item = &'c Callable>) -> Option<Page> {
        let mut entries: Vec<Entry> = found
            .filter(|one| !one.is_ours && one.form != Form::Index)
            .map(|one| {
                let parameters = one.parameters.iter().map(|parameter| {
                    let name = if parameter.name.is_empty() { "_" } else { parameter.name.as_str() };
                    format!("{name}: {}", parameter.kind)
                });
                let parameters: Vec<String> = parameters.collect();
                let signature = match one.form {
                    Form::Function => format!("{}({})", one.name, parameters.join(", ")),
                    Form::Field | Form::Index => {
                        format!("{}.{}", one.receiver().unwrap_or("value"), one.name)
                    }
                };
                Entry::new(signature, &one.doc)
            })
            .collect();
        entries.dedup();
        (!entries.is_empty()).then_some(Page::Entries(entries))
    }
}

impl Entry {
    fn new(signature: String, doc: &str) -> Self {
        let mut text: Vec<&str> = Vec::new();
        let (mut inside, mut example) = (false, String::new());
        let mut examples = Vec::new();
        for line in doc.lines() {
            match (line.trim_start().starts_with("```"), inside) {
                (true, true) => {
                    examples.push(std::mem::take(&mut example).trim_end().to_owned());
                    inside = false;
                }
                (true, false) => inside = true,
                (false, true) => {
                    example.push_str(line);
                    example.push('\n');
                }
                (false, false) if !line.starts_with("# ") => text.push(line),
                (false, false) => {}
            }
        }
        Self { signature, doc: text.join("\n").trim().to_owned(), examples }
    }
}

/// A documentation's first sentence.
fn sentence(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = paragraph.find(". ").unwrap_or(paragraph.len());
    paragraph[..end].trim_end_matches('.').trim().to_owned()
}
