//! What an expression gives, told from its text alone: nothing is run, nothing is asked.

use std::cell::Cell;

use super::catalogue::{Catalogue, Form};
use super::kind::Kind;
use super::pieces::{KEYWORDS, Piece, PieceKind};

/// How deep an expression is followed, and how many parts of it are looked at. One that somebody types is never that long.
const STEPS: usize = 64;
const PARTS: usize = 2000;

/// What is known where an expression stands.
pub struct Known<'a> {
    pub catalogue: &'a Catalogue,
    /// The kinds of variables.
    pub variable: &'a dyn Fn(&str) -> Option<Kind>,
    pub text: &'a str,
    /// The text's pieces that count, up to where somebody types.
    pub pieces: &'a [Piece],
    parts: Cell<usize>,
}

impl<'a> Known<'a> {
    pub fn new(
        catalogue: &'a Catalogue,
        variable: &'a dyn Fn(&str) -> Option<Kind>,
        text: &'a str,
        pieces: &'a [Piece],
    ) -> Self {
        Self { catalogue, variable, text, pieces, parts: Cell::new(0) }
    }

    pub fn word(&self, at: usize) -> &str {
        self.pieces.get(at).map_or("", |piece| piece.text(self.text))
    }

    pub fn is(&self, at: usize, sign: &str) -> bool {
        self.pieces.get(at).is_some_and(|piece| piece.is(self.text, sign))
    }

    fn is_name(&self, at: usize) -> bool {
        self.pieces.get(at).is_some_and(|piece| piece.kind == PieceKind::Word)
            && !KEYWORDS.contains(&self.word(at))
    }

    /// The place of the bracket that the one before `end` closes.
    pub fn opening(&self, end: usize) -> Option<usize> {
        let mut depth = 0;
        for at in (0..end).rev() {
            depth -= self.pieces[at].depth(self.text);
            if depth <= 0 {
                return Some(at);
            }
        }
        None
    }

    /// The place of the bracket that is still open before `end`.
    pub fn enclosing(&self, end: usize) -> Option<usize> {
        let mut depth = 0;
        for at in (0..end).rev() {
            depth += self.pieces[at].depth(self.text);
            if depth > 0 {
                return Some(at);
            }
        }
        None
    }

    /// What the expression gives that ends before the piece `end`.
    pub fn before(&self, end: usize) -> Kind {
        self.ending(end, STEPS)
    }

    fn ending(&self, end: usize, steps: usize) -> Kind {
        let (Some(last), Some(steps)) = (end.checked_sub(1), steps.checked_sub(1)) else {
            return Kind::unknown();
        };
        self.parts.set(self.parts.get() + 1);
        if self.parts.get() > PARTS {
            return Kind::unknown();
        }
        let piece = self.pieces[last];
        match (piece.kind, self.word(last)) {
            (PieceKind::Text { quote: '\'', .. }, _) => Kind::plain("Char"),
            (PieceKind::Text { .. }, _) => Kind::plain("String"),
            (PieceKind::Number, text) => {
                let is_float = text.contains('.') || (!text.starts_with("0x") && text.contains(['e', 'E']));
                Kind::plain(if is_float { "Float" } else { "Int" })
            }
            (PieceKind::Word, "true" | "false") => Kind::plain("Bool"),
            (PieceKind::Word, name) if !KEYWORDS.contains(&name) => self.named(last, steps),
            (PieceKind::Sign, ")") => self.called(end, steps),
            (PieceKind::Sign, "]") => {
                let Some(open) = self.opening(end) else { return Kind::unknown() };
                match open.checked_sub(1).filter(|before| self.ends_expression(*before)) {
                    Some(_) if self.is(open, "[") || self.is(open, "?[") => self.indexed(open, last, steps),
                    _ => Kind::array(self.first_inside(open, last, steps)),
                }
            }
            (PieceKind::Sign, "}") => match self.opening(end) {
                Some(open) if self.is(open, "#{") => Kind::map(self.literal_keys(open, last, steps)),
                _ => Kind::unknown(),
            },
            _ => Kind::unknown(),
        }
    }

    pub fn ends_expression(&self, at: usize) -> bool {
        match self.pieces[at].kind {
            PieceKind::Word => !KEYWORDS.contains(&self.word(at)),
            PieceKind::Text { .. } => true,
            PieceKind::Sign => matches!(self.word(at), ")" | "]"),
            _ => false,
        }
    }

    /// A name: of a variable or of a field.
    fn named(&self, at: usize, steps: usize) -> Kind {
        let name = self.word(at);
        match at.checked_sub(1) {
            Some(dot) if self.is(dot, ".") || self.is(dot, "?.") => {
                let before = self.ending(dot, steps);
                before.key(name).unwrap_or_else(|| self.catalogue.member_answer(&before, name, Form::Field))
            }
            Some(colons) if self.is(colons, "::") => Kind::unknown(),
            _ => self
                .introduced(name, at, steps)
                .or_else(|| (self.variable)(name))
                .unwrap_or_else(Kind::unknown),
        }
    }

    /// What a call, or what stands in brackets, gives.
    fn called(&self, end: usize, steps: usize) -> Kind {
        let Some(open) = self.opening(end) else { return Kind::unknown() };
        let Some(at) = open.checked_sub(1).filter(|at| self.is_name(*at)) else {
            // Brackets alone: what stands last in them.
            return if open + 1 < end - 1 { self.ending(end - 1, steps) } else { Kind::plain("()") };
        };
        let name = self.word(at);
        match at.checked_sub(1) {
            Some(dot) if self.is(dot, ".") || self.is(dot, "?.") => {
                let before = self.ending(dot, steps);
                let answer = self.catalogue.member_answer(&before, name, Form::Function);
                if name == "map" && before.name == "Array" { Kind::plain("Array") } else { answer }
            }
            Some(colons) if self.is(colons, "::") => {
                let module = colons.checked_sub(1).map_or("", |module| self.word(module));
                self.catalogue.answer(module, name)
            }
            _ => self.catalogue.answer("", name),
        }
    }

    fn indexed(&self, open: usize, close: usize, steps: usize) -> Kind {
        let before = self.ending(open, steps);
        if before.name == "Map" {
            let key = (close == open + 2).then(|| self.pieces[open + 1].content(self.text));
            return key.and_then(|key| before.key(key)).unwrap_or_else(Kind::unknown);
        }
        match self.catalogue.member_answer(&before, "", Form::Index) {
            answer if answer.is_unknown() => before.element(),
            answer => answer,
        }
    }

    /// What stands first between two brackets.
    fn first_inside(&self, open: usize, close: usize, steps: usize) -> Kind {
        let mut depth = 0;
        for at in open + 1..close {
            if depth == 0 && self.is(at, ",") {
                return self.ending(at, steps);
            }
            depth += self.pieces[at].depth(self.text);
        }
        if open + 1 < close { self.ending(close, steps) } else { Kind::unknown() }
    }

    fn literal_keys(&self, open: usize, close: usize, steps: usize) -> Vec<(String, Kind)> {
        let mut keys = Vec::new();
        let (mut depth, mut begun) = (0, open + 1);
        for at in open + 1..=close {
            if depth == 0 && (at == close || self.is(at, ",")) {
                if begun + 2 < at && self.is(begun + 1, ":") {
                    let key = self.pieces[begun].content(self.text).to_owned();
                    keys.push((key, self.ending(at, steps)));
                }
                begun = at + 1;
            }
            depth += self.pieces[at].depth(self.text);
        }
        keys
    }

    /// What a name is that was given to something before `end`: by `let`, by `for`, by a closure.
    fn introduced(&self, name: &str, end: usize, steps: usize) -> Option<Kind> {
        for at in
            (0..end).rev().filter(|at| self.pieces[*at].kind == PieceKind::Word && self.word(*at) == name)
        {
            let before = at.checked_sub(1)?;
            match self.word(before) {
                "let" | "const" if self.is(at + 1, "=") => {
                    let last = self.statement_end(at + 2, end);
                    return Some(self.ending(last, steps));
                }
                "for" if self.is(at + 1, "in") => {
                    let body = (at + 2..end).find(|at| self.is(*at, "{")).unwrap_or(end);
                    return Some(self.ending(body, steps).element());
                }
                "|" | "," if self.is(at + 1, "|") || self.is(at + 1, ",") => {
                    if let Some(kind) = self.closure_parameter(before, steps) {
                        return Some(kind);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn statement_end(&self, begin: usize, end: usize) -> usize {
        let mut depth = 0;
        for at in begin..end {
            if depth == 0 && self.is(at, ";") {
                return at;
            }
            depth += self.pieces[at].depth(self.text);
        }
        end
    }

    /// The first parameter of a closure that a list's function is given: one of the list's elements.
    fn closure_parameter(&self, before: usize, steps: usize) -> Option<Kind> {
        if !self.is(before, "|") {
            return None;
        }
        let open = self.enclosing(before).filter(|open| self.is(*open, "("))?;
        let dot = open.checked_sub(2).filter(|dot| self.is(*dot, ".") || self.is(*dot, "?."))?;
        Some(self.ending(dot, steps).element())
    }
}
