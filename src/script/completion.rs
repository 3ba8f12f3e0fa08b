//! What could stand where somebody types: a text and a cursor in, candidates out.

use super::catalogue::{Callable, Catalogue, Form};
use super::inference::Known;
use super::kind::Kind;
use super::pieces::{KEYWORDS, Piece, PieceKind, pieces};
use crate::wire::Status;

/// What could be put in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub text: String,
    /// As it stands among others.
    pub shown: String,
}

impl Candidate {
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { shown: text.clone(), text }
    }
}

/// What could replace the text from `start` to the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// In bytes.
    pub start: usize,
    /// Sorted; sessions by their last activity.
    pub candidates: Vec<Candidate>,
}

/// A session that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    pub short_id: String,
    pub agent: String,
    pub title: String,
    pub is_ended: bool,
}

/// What exists outside of the script. Answers at once, and with nothing if nothing is known.
pub trait Live {
    /// Agents' names.
    fn agents(&self) -> Vec<String>;
    /// Sessions, latest activity first; of those whose ID begins so at least.
    fn sessions(&self, prefix: &str) -> Vec<LiveSession>;
    /// What `import` finds, beginning so.
    fn modules(&self, prefix: &str) -> Vec<String>;
}

/// What the REPL's own lines have made.
pub trait Names {
    fn variables(&self) -> Vec<String>;
    fn variable(&self, name: &str) -> Option<Kind>;
    /// Functions by name, and whether they take anything.
    fn functions(&self) -> Vec<(String, bool)>;
    /// Modules that were imported, with their functions.
    fn modules(&self) -> Vec<(String, Vec<(String, bool)>)>;
}

/// The longest text that is looked at, in bytes: what is longer was not typed.
const LONGEST: usize = 64 << 10;
/// How many columns of a title stand beside its session.
const TITLE: usize = 40;

/// What could stand before the cursor, in bytes.
pub fn complete(
    catalogue: &Catalogue,
    names: &dyn Names,
    live: &dyn Live,
    text: &str,
    cursor: usize,
) -> Completion {
    let Some((before, after)) = text.split_at_checked(cursor).filter(|_| text.len() <= LONGEST) else {
        return Completion { start: cursor, candidates: Vec::new() };
    };
    let all = pieces(before);
    let counting: Vec<Piece> = all.iter().copied().filter(Piece::counts).collect();
    let variable = |name: &str| names.variable(name);
    let known = Known::new(catalogue, &variable, before, &counting);
    let place = Place { known, names, live, after };
    match all.last().map(|last| (last.kind, last)) {
        Some((PieceKind::Comment { is_open }, last)) => {
            // Behind a whole `/* … */` everything may stand.
            let is_over = !is_open && last.text(before).starts_with("/*");
            if is_over {
                place.word(cursor, "")
            } else {
                Completion { start: cursor, candidates: Vec::new() }
            }
        }
        Some((PieceKind::Text { is_open: true, quote }, last)) if !last.text(before).ends_with("${") => {
            place.inside_text(last, quote)
        }
        Some((PieceKind::Text { is_open: false, .. } | PieceKind::Number, _)) => {
            Completion { start: cursor, candidates: Vec::new() }
        }
        Some((PieceKind::Word, last)) => place.word(last.start, last.text(before)),
        _ => place.word(cursor, ""),
    }
}

struct Place<'a> {
    known: Known<'a>,
    names: &'a dyn Names,
    live: &'a dyn Live,
    /// What stands behind the cursor.
    after: &'a str,
}

impl Place<'_> {
    fn word(&self, start: usize, prefix: &str) -> Completion {
        let end = self.known.pieces.len() - usize::from(!prefix.is_empty());
        let mut candidates = match end.checked_sub(1) {
            Some(dot) if self.known.is(dot, ".") || self.known.is(dot, "?.") => {
                self.members(&self.known.before(dot), prefix)
            }
            Some(colons) if self.known.is(colons, "::") => {
                self.of_module(colons.checked_sub(1).map_or("", |module| self.known.word(module)))
            }
            // A name that is yet to be given.
            Some(word) if ["as", "const", "fn", "let"].contains(&self.known.word(word)) => Vec::new(),
            _ if self.is_key(end) => Vec::new(),
            _ => self.anything(end),
        };
        candidates.retain(|candidate| candidate.text.starts_with(prefix));
        candidates.sort();
        candidates.dedup_by(|a, b| a.text == b.text);
        Completion { start, candidates }
    }

    /// Whether the key of a map stands there.
    fn is_key(&self, end: usize) -> bool {
        let opens = |open: usize| self.known.is(open, "#{");
        match end.checked_sub(1) {
            Some(last) if opens(last) => true,
            Some(last) if self.known.is(last, ",") => self.known.enclosing(end).is_some_and(opens),
            _ => false,
        }
    }

    fn call(&self, name: &str, takes: bool) -> Candidate {
        let text = match (self.after.starts_with('('), takes) {
            (true, _) => name.to_owned(),
            (false, true) => format!("{name}("),
            (false, false) => format!("{name}()"),
        };
        Candidate { text, shown: if takes { format!("{name}(…)") } else { format!("{name}()") } }
    }

    /// Functions, each name once; a field stands without brackets.
    fn callables<'c>(&self, callables: impl Iterator<Item = &'c Callable>, given: usize) -> Vec<Candidate> {
        let mut found: Vec<(&str, bool, bool)> = Vec::new();
        for one in callables.filter(|one| !matches!(one.name.as_str(), "to_debug" | "to_string")) {
            let (is_field, takes) = (one.form == Form::Field, one.parameters.len() > given);
            match found.iter_mut().find(|(name, ..)| *name == one.name) {
                Some((_, field, any)) => {
                    *field |= is_field;
                    *any |= takes;
                }
                None => found.push((&one.name, is_field, takes)),
            }
        }
        let candidate = |(name, is_field, takes): (&str, bool, bool)| match is_field {
            true => Candidate::plain(name),
            false => self.call(name, takes),
        };
        found.into_iter().map(candidate).collect()
    }

    fn members(&self, kind: &Kind, prefix: &str) -> Vec<Candidate> {
        // Of what nobody knows everything could be there; a letter at least says what is meant.
        if kind.is_unknown() {
            let ours = self.known.catalogue.callables.iter().filter(|one| {
                one.is_ours && one.form != Form::Index && one.receiver().is_some() && !prefix.is_empty()
            });
            return self.callables(ours, 1);
        }
        // `print` can be called behind a dot, but is never meant so.
        let members = self.known.catalogue.members(&kind.name).filter(|one| one.is_ours || !one.is_free());
        let mut found = self.callables(members, 1);
        found.extend(kind.keys.iter().filter(|(key, _)| is_word(key)).map(|(key, _)| Candidate::plain(key)));
        found
    }

    fn of_module(&self, module: &str) -> Vec<Candidate> {
        let own = self.names.modules().into_iter().find(|(name, _)| name == module);
        if let Some((_, functions)) = own {
            return functions.iter().map(|(name, takes)| self.call(name, *takes)).collect();
        }
        self.callables(self.known.catalogue.callables.iter().filter(|one| one.module == module), 0)
    }

    fn anything(&self, end: usize) -> Vec<Candidate> {
        let catalogue = self.known.catalogue;
        let mut found = self
            .callables(catalogue.callables.iter().filter(|one| one.module.is_empty() && one.is_free()), 0);
        found.extend(self.names.functions().iter().map(|(name, takes)| self.call(name, *takes)));
        found.extend(self.names.variables().into_iter().map(Candidate::plain));
        found.extend(catalogue.modules().iter().map(|module| Candidate::plain(format!("{module}::"))));
        found.extend(self.names.modules().iter().map(|(name, _)| Candidate::plain(format!("{name}::"))));
        found.extend(KEYWORDS.iter().filter(|word| **word != "type_of").map(|word| Candidate::plain(*word)));
        found.push(self.call("type_of", true));
        // Names that this very text gives.
        for at in 1..end {
            let gives = matches!(self.known.word(at - 1), "let" | "const" | "for" | "|");
            if gives && self.known.pieces[at].kind == PieceKind::Word {
                found.push(Candidate::plain(self.known.word(at)));
            }
        }
        found
    }

    fn inside_text(&self, piece: &Piece, quote: char) -> Completion {
        let text = self.known.text;
        let content = piece.content(text);
        let start = piece.end - content.len();
        let at = self.known.pieces.len() - 1;
        let role = self.role(at);
        if let Role::Fields(kind) = &role {
            let word = content
                .rfind(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
                .map_or(0, |place| place + content[place..].chars().next().map_or(1, char::len_utf8));
            let prefix = &content[word..];
            let of = &kind.name;
            let fields = self.known.catalogue.members(of).filter(|one| one.form == Form::Field);
            let mut candidates = self.callables(fields, 1);
            candidates.extend(kind.keys.iter().map(|(key, _)| Candidate::plain(key)));
            candidates.retain(|candidate| candidate.text.starts_with(prefix));
            candidates.sort();
            return Completion { start: start + word, candidates };
        }
        let mut candidates = self.texts(&role, content);
        candidates.retain(|candidate| candidate.text.starts_with(content));
        if !self.after.starts_with(quote) {
            for candidate in candidates.iter_mut().filter(|candidate| !candidate.text.ends_with(['/', ':'])) {
                candidate.text.push(quote);
            }
        }
        Completion { start, candidates }
    }

    fn texts(&self, role: &Role, content: &str) -> Vec<Candidate> {
        let plain = |words: Vec<String>| words.into_iter().map(Candidate::plain).collect();
        match role {
            Role::Agents => plain(self.live.agents()),
            Role::Keys(keys) => plain(keys.clone()),
            Role::Modules => plain(self.live.modules(content)),
            Role::Sessions { ended } => self.sessions(content, *ended),
            Role::Statuses => Status::ALL.iter().map(|status| Candidate::plain(status.as_str())).collect(),
            Role::Fields(_) | Role::Nothing => Vec::new(),
        }
    }

    fn sessions(&self, content: &str, ended: bool) -> Vec<Candidate> {
        if content.starts_with("@last:") {
            let agents = self.live.agents().into_iter();
            return agents.map(|agent| Candidate::plain(format!("@last:{agent}"))).collect();
        }
        if content.starts_with('@') {
            return vec![Candidate::plain("@last"), Candidate::plain("@last:")];
        }
        let prefix = content.strip_prefix("ses_").unwrap_or(content);
        let head = &content[..content.len() - prefix.len()];
        let sessions = self.live.sessions(prefix).into_iter().filter(|session| ended || !session.is_ended);
        let mut found: Vec<Candidate> = sessions
            .map(|session| Candidate {
                shown: format!(
                    "{}  {}  {}",
                    session.short_id,
                    session.agent,
                    crate::render::shorten(&session.title, TITLE)
                )
                .trim_end()
                .to_owned(),
                text: format!("{head}{}", session.short_id),
            })
            .collect();
        if content.is_empty() && !found.is_empty() {
            found.push(Candidate::plain("@last"));
        }
        found
    }

    /// What the text at this piece is for.
    fn role(&self, at: usize) -> Role {
        let Some(last) = at.checked_sub(1) else { return Role::Nothing };
        let known = &self.known;
        match known.word(last) {
            "import" => return Role::Modules,
            "==" | "!=" if last >= 2 && known.is(last - 2, ".") => return of_field(known.word(last - 1)),
            ":" if last >= 1 => {
                let key = known.pieces[last - 1].content(known.text);
                let in_map = known.enclosing(last).is_some_and(|open| known.is(open, "#{"));
                let sessions = || Role::Fields(Kind::plain("Session"));
                return match key {
                    "sort" | "where" if in_map => sessions(),
                    _ if in_map => of_field(key),
                    _ => Role::Nothing,
                };
            }
            "[" | "," | "(" => {}
            _ => return Role::Nothing,
        }
        let Some(open) = known.enclosing(at) else { return Role::Nothing };
        match known.word(open) {
            "[" | "?[" if open > 0 && known.ends_expression(open - 1) => {
                let keys = known.before(open).keys.into_iter().map(|(key, _)| key);
                Role::Keys(keys.collect())
            }
            // One of many.
            "[" => self.role(open),
            "(" => self.argument(open, at),
            _ => Role::Nothing,
        }
    }

    /// What an argument is for, by the name of its parameter.
    fn argument(&self, open: usize, at: usize) -> Role {
        let known = &self.known;
        let Some(call) = open.checked_sub(1) else { return Role::Nothing };
        let name = known.word(call);
        let (mut depth, mut place) = (0, 0);
        for inside in open + 1..at {
            place += usize::from(depth == 0 && known.is(inside, ","));
            depth += known.pieces[inside].depth(known.text);
        }
        let before = call.checked_sub(1);
        let is_member = before.is_some_and(|dot| known.is(dot, ".") || known.is(dot, "?."));
        let module = before.filter(|colons| known.is(*colons, "::")).and_then(|colons| colons.checked_sub(1));
        let module = module.map_or("", |module| known.word(module));
        let kind = if is_member { before.map(|dot| known.before(dot)) } else { None };
        let place = place + usize::from(is_member);
        let parameters = known.catalogue.callables.iter().filter(|one| {
            one.form == Form::Function
                && one.name == name
                && one.module == module
                && kind.as_ref().is_none_or(|kind| one.receiver() == Some(&kind.name))
        });
        let names: Vec<&str> = parameters
            .filter_map(|one| one.parameters.get(place).map(|parameter| parameter.name.as_str()))
            .collect();
        let any = |name: &str| names.contains(&name);
        if let Some(kind) = kind {
            let is_key = any("key") || any("condition");
            return if is_key { Role::Fields(kind.element()) } else { Role::Nothing };
        }
        if any("agent") || (module == "agents" && any("name")) {
            return Role::Agents;
        }
        if any("id") || any("ids") {
            return Role::Sessions { ended: !matches!(name, "end" | "resume") };
        }
        Role::Nothing
    }
}

/// What a text is for.
enum Role {
    Agents,
    /// Of what a list holds.
    Fields(Kind),
    /// Of a map.
    Keys(Vec<String>),
    Modules,
    Nothing,
    Sessions {
        /// Whether ended ones count.
        ended: bool,
    },
    Statuses,
}

fn of_field(name: &str) -> Role {
    match name {
        "agent" => Role::Agents,
        "status" => Role::Statuses,
        _ => Role::Nothing,
    }
}

/// Whether it can be written behind a dot.
fn is_word(key: &str) -> bool {
    key.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
