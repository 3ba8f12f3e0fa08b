//! Whether a text is whole, or the REPL must read on.

use rhai::{Engine, LexError, ParseErrorType, Scope};

use super::engine::Complete;
use super::pieces::{PieceKind, pieces};

/// Incomplete is what more text could make right; what is wrong already is complete.
pub fn completeness(engine: &Engine, scope: &Scope, text: &str) -> Complete {
    if has_open_comment(text) {
        return Complete::Incomplete;
    }
    let lines = text.lines().count();
    let last = text.trim_end().lines().last().unwrap_or_default().trim_start();
    if last.starts_with("///") && !last.starts_with("////") {
        return Complete::Incomplete;
    }
    let Err(error) = engine.compile_with_scope(scope, text) else {
        return Complete::Complete;
    };
    let past_the_end = match error.position().line() {
        None => false,
        Some(line) => {
            let length = text.lines().nth(line - 1).map_or(0, |text| text.trim_end().chars().count());
            line > lines || (line == lines && error.position().position().unwrap_or(0) > length)
        }
    };
    match error.err_type() {
        ParseErrorType::VariableUndefined(_) | ParseErrorType::ModuleUndefined(_) => Complete::Complete,
        ParseErrorType::UnexpectedEOF => Complete::Incomplete,
        ParseErrorType::BadInput(LexError::UnterminatedString) => {
            let opener =
                error.position().line().and_then(|line| text.lines().nth(line - 1)).and_then(|line| {
                    line.chars().nth(error.position().position().unwrap_or(1).saturating_sub(1))
                });
            if matches!(opener, Some('`' | '#')) { Complete::Incomplete } else { Complete::Complete }
        }
        _ if past_the_end => Complete::Incomplete,
        _ => Complete::Complete,
    }
}

/// Whether a `/*` is open at the end; the engine takes that without a word.
fn has_open_comment(text: &str) -> bool {
    open_comment(text).is_some()
}

/// Where a `/*` stands that is open at the end: its line and column, from 1.
pub fn open_comment(text: &str) -> Option<(usize, usize)> {
    // Most texts have none, and are not cut.
    text.find("/*")?;
    let last = pieces(text).pop().filter(|last| last.kind == PieceKind::Comment { is_open: true })?;
    let before = &text[..last.start];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    Some((before.matches('\n').count() + 1, before[line..].chars().count() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_lines_are_asked_for_only_where_they_help() {
        let mut engine = Engine::new();
        engine.set_strict_variables(true);
        let mut scope = Scope::new();
        scope.push("x", 1_i64);
        for text in [
            "fn f() {",
            "let x = [1,",
            "if true {\n",
            "list(",
            "`a",
            "/* a",
            "x.",
            "1 +",
            "let x =",
            "/// doc",
            "#{ a: 1,",
            "fn f(a",
            "list().filter(|s|",
            "/* a /* b */",
        ] {
            assert_eq!(completeness(&engine, &scope, text), Complete::Incomplete, "{text}");
        }
        for text in [
            "1 + 1",
            "let x = 1;",
            "\"a",
            ")",
            "let 1",
            "unknown",
            "fn f() { 1 }",
            "/* a */ 1",
            "\"/*\"",
            "// /*",
            "",
        ] {
            assert_eq!(completeness(&engine, &scope, text), Complete::Complete, "{text}");
        }
    }
}
