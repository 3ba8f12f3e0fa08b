//! A script's text cut into pieces: words, texts, numbers, signs, comments. Tolerates anything, as somebody types it.
//!
//! The engine's own lexer gives no ends of tokens and stops inside an open text; this one covers every byte.

/// One piece of a text, by the bytes that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub kind: PieceKind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    Space,
    /// `is_open`: a `/*` that has no end yet.
    Comment {
        is_open: bool,
    },
    /// A text between quotes, or a part of one between its beginning, `${…}` and its end.
    Text {
        quote: char,
        /// Whether it goes on: inside `${`, or since its quote is missing.
        is_open: bool,
    },
    Number,
    Word,
    Sign,
}

impl Piece {
    pub fn text<'a>(&self, whole: &'a str) -> &'a str {
        &whole[self.start..self.end]
    }

    /// Whether it is neither space nor comment.
    pub fn counts(&self) -> bool {
        !matches!(self.kind, PieceKind::Space | PieceKind::Comment { .. })
    }

    pub fn is(&self, whole: &str, text: &str) -> bool {
        self.counts() && !matches!(self.kind, PieceKind::Text { .. }) && self.text(whole) == text
    }

    /// 1 if it opens a bracket, -1 if it closes one.
    pub fn depth(&self, whole: &str) -> i32 {
        match (self.kind, self.text(whole)) {
            (PieceKind::Sign, "(" | "[" | "{" | "#{" | "?[") => 1,
            (PieceKind::Sign, ")" | "]" | "}") => -1,
            (PieceKind::Text { quote: '`', .. }, text) => {
                i32::from(text.ends_with("${")) - i32::from(text.starts_with('}'))
            }
            _ => 0,
        }
    }

    /// What stands between a text's quotes.
    pub fn content<'a>(&self, whole: &'a str) -> &'a str {
        let text = self.text(whole);
        let PieceKind::Text { quote, is_open } = self.kind else { return text };
        let text = text.trim_start_matches('#');
        let text = text.strip_prefix([quote, '}']).unwrap_or(text);
        if is_open {
            return text.strip_suffix("${").unwrap_or(text);
        }
        text.trim_end_matches('#').strip_suffix(quote).unwrap_or(text)
    }
}

/// The words that the language keeps for itself.
pub const KEYWORDS: [&str; 26] = [
    "as", "break", "catch", "const", "continue", "do", "else", "export", "false", "fn", "for", "if",
    "import", "in", "let", "loop", "private", "return", "switch", "this", "throw", "true", "try", "type_of",
    "until", "while",
];

/// Signs of more than one letter, the longer first.
const SIGNS: [&str; 32] = [
    "<<=", ">>=", "**=", "..=", "...", "#{", "::", "=>", "==", "!=", "<=", ">=", "&&", "||", "..", "?.",
    "?[", "??", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", ">>", "**", "->", "<-", ":=",
];

/// All pieces, one after another without gaps.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut scan = Scan { text, at: 0, pieces: Vec::new(), interpolations: Vec::new() };
    while scan.at < text.len() {
        let start = scan.at;
        let kind = scan.next();
        // Whatever happens, it goes on.
        if scan.at == start {
            scan.step();
        }
        scan.pieces.push(Piece { kind, start, end: scan.at });
    }
    scan.pieces
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    pieces: Vec<Piece>,
    /// For each `${` that is open, how many braces are open inside.
    interpolations: Vec<usize>,
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn step(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn skip_while(&mut self, test: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|letter| !test(letter)).unwrap_or(rest.len());
    }

    fn next(&mut self) -> PieceKind {
        let rest = self.rest();
        let Some(first) = self.peek() else { return PieceKind::Space };
        if first.is_whitespace() {
            self.skip_while(char::is_whitespace);
            return PieceKind::Space;
        }
        if rest.starts_with("//") || (self.at == 0 && rest.starts_with("#!")) {
            self.skip_while(|letter| letter != '\n');
            return PieceKind::Comment { is_open: false };
        }
        if rest.starts_with("/*") {
            return self.comment();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            self.skip_while(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            return PieceKind::Word;
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if hashes > 0 && rest[hashes..].starts_with('"') {
            return self.raw(hashes);
        }
        match (first, self.interpolations.last_mut()) {
            ('"' | '`' | '\'', _) => {
                self.step();
                return self.quoted(first);
            }
            ('}', Some(0)) => {
                self.interpolations.pop();
                self.step();
                return self.quoted('`');
            }
            ('}', Some(open)) => *open -= 1,
            ('{', Some(open)) => *open += 1,
            ('#', Some(open)) if self.text[self.at..].starts_with("#{") => *open += 1,
            _ => {}
        }
        let length = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)).map_or(0, |sign| sign.len());
        self.at += length.max(first.len_utf8());
        PieceKind::Sign
    }

    fn comment(&mut self) -> PieceKind {
        let mut depth = 0_usize;
        while let Some(letter) = self.step() {
            match (letter, self.peek()) {
                ('/', Some('*')) => {
                    self.step();
                    depth += 1;
                }
                ('*', Some('/')) => {
                    self.step();
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
            if depth == 0 {
                return PieceKind::Comment { is_open: false };
            }
        }
        PieceKind::Comment { is_open: true }
    }

    fn number(&mut self) -> PieceKind {
        let is_prefixed =
            self.rest().starts_with('0') && self.rest()[1..].starts_with(['x', 'X', 'o', 'O', 'b', 'B']);
        if is_prefixed {
            self.at += 2;
            self.skip_while(|letter| letter.is_ascii_hexdigit() || letter == '_');
            return PieceKind::Number;
        }
        let is_digit = |letter: char| letter.is_ascii_digit() || letter == '_';
        self.skip_while(is_digit);
        let mut after = self.rest().chars();
        // `2.days` is a field, `1..4` a range, `1.5` and `1.` are numbers.
        if after.next() == Some('.') && after.next().is_some_and(|letter| letter.is_ascii_digit()) {
            self.step();
            self.skip_while(is_digit);
        }
        let rest = self.rest();
        if rest.starts_with(['e', 'E']) {
            let exponent = rest[1..].strip_prefix(['+', '-']).unwrap_or(&rest[1..]);
            if exponent.starts_with(|letter: char| letter.is_ascii_digit()) {
                self.at += rest.len() - exponent.len();
                self.skip_while(is_digit);
            }
        }
        PieceKind::Number
    }

    fn raw(&mut self, hashes: usize) -> PieceKind {
        self.at += hashes + 1;
        let end = format!("\"{}", "#".repeat(hashes));
        let found = self.rest().find(&end);
        self.at = found.map_or(self.text.len(), |place| self.at + place + end.len());
        PieceKind::Text { quote: '"', is_open: found.is_none() }
    }

    /// The rest of a text behind its quote, or behind an interpolation.
    fn quoted(&mut self, quote: char) -> PieceKind {
        let open = PieceKind::Text { quote, is_open: true };
        while let Some(letter) = self.peek() {
            if letter == '\n' && quote != '`' {
                return open;
            }
            self.step();
            match letter {
                '\\' if quote != '`' => {
                    self.step();
                }
                '\\' if self.rest().starts_with("${") => self.at += 2,
                '$' if quote == '`' && self.peek() == Some('{') => {
                    self.step();
                    self.interpolations.push(0);
                    return open;
                }
                letter if letter == quote => {
                    // Two of them stand for one.
                    if quote != '\'' && self.peek() == Some(quote) {
                        self.step();
                    } else {
                        return PieceKind::Text { quote, is_open: false };
                    }
                }
                _ => {}
            }
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rhai::{Engine, Token};

    fn cut(text: &str) -> Vec<&str> {
        pieces(text).iter().filter(|piece| piece.counts()).map(|piece| piece.text(text)).collect()
    }

    #[test]
    fn pieces_are_what_they_look_like() {
        assert_eq!(cut("let x=1.5e3+2.days;"), ["let", "x", "=", "1.5e3", "+", "2", ".", "days", ";"]);
        assert_eq!(cut("for n in 1..=0xff {}"), ["for", "n", "in", "1", "..=", "0xff", "{", "}"]);
        assert_eq!(
            cut("a::b(#{ c: \"d\\\"\" }) // e"),
            ["a", "::", "b", "(", "#{", "c", ":", "\"d\\\"\"", "}", ")"]
        );
        assert_eq!(
            cut("`a ${ f(#{x: 1}) } b ${c}`.len"),
            ["`a ${", "f", "(", "#{", "x", ":", "1", "}", ")", "} b ${", "c", "}`", ".", "len"]
        );
        assert_eq!(
            cut("#\"raw \" \"# 'c' '\\'' \"open\nx"),
            ["#\"raw \" \"#", "'c'", "'\\''", "\"open", "x"]
        );
        assert_eq!(cut("\"a\"\"b\" ``"), ["\"a\"\"b\"", "``"]);
        assert_eq!(cut("1 /* /* */ x */ 2"), ["1", "2"]);
        let text = "`a ${b} c";
        let found = pieces(text);
        let texts: Vec<&str> = found
            .iter()
            .filter(|p| matches!(p.kind, PieceKind::Text { .. }))
            .map(|p| p.content(text))
            .collect();
        assert_eq!(texts, ["a ", " c"]);
    }

    #[test]
    fn keywords_are_the_languages() {
        assert!(KEYWORDS.is_sorted());
        for word in KEYWORDS {
            let known = Token::lookup_symbol_from_syntax(word).is_some();
            assert!(known || word == "this" || word == "type_of", "{word}");
        }
    }

    /// The engine's tokens all begin where a piece does; up to the first interpolation, behind which it reads on only
    /// for its own parser.
    fn agrees(engine: &Engine, text: &str) {
        let starts: Vec<usize> = pieces(text).iter().map(|piece| piece.start).collect();
        let lines: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        for (token, position) in engine.lex(&[text]).0 {
            let (Some(line), Some(column)) = (position.line(), position.position()) else { break };
            if matches!(token, Token::EOF) {
                break;
            }
            let rest = &text[lines[line - 1]..];
            let at = lines[line - 1] + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
            // What is one token there and two pieces here, or the other way round, begins together all the same.
            let is_unit = matches!(token, Token::Unit);
            assert!(starts.contains(&at) || is_unit, "{token:?} at {position} in {text}");
            if matches!(token, Token::InterpolatedString(_) | Token::LexError(_)) {
                break;
            }
        }
    }

    #[test]
    fn they_agree_with_the_engine() {
        let engine = Engine::new();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut open = vec![folder.join("scripts"), folder.join("stdlib")];
        let mut count = 0;
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rhai") {
                    agrees(&engine, &std::fs::read_to_string(path).expect("a script"));
                    count += 1;
                }
            }
        }
        assert!(count > 5, "{count} scripts");
    }

    proptest! {
        #[test]
        fn every_text_is_covered(text in any::<String>()) {
            let found = pieces(&text);
            let again: String = found.iter().map(|piece| piece.text(&text)).collect();
            prop_assert_eq!(again, text.clone());
            prop_assert!(found.iter().all(|piece| piece.start < piece.end));
            prop_assert!(found.iter().all(|piece| piece.content(&text).len() <= piece.end - piece.start));
        }

        #[test]
        fn every_text_like_a_script_is_covered(text in "[a-z_0-9 .\"'`#${}()\\[\\]/*\\\\\n:=|]{0,40}") {
            let found = pieces(&text);
            let again: String = found.iter().map(|piece| piece.text(&text)).collect();
            prop_assert_eq!(again, text.clone());
        }

        #[test]
        fn plain_code_is_read_as_the_engine_reads_it(text in "([a-z]{1,3}|[0-9]{1,2}|\"[a-z]*\"|[-+*.,;:=<>(){}]| |\n){0,20}") {
            agrees(&Engine::new(), &text);
        }
    }
}
