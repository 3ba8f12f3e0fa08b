//! Which parts of a script's text have which colour.

use super::pieces::{KEYWORDS, Piece, PieceKind, pieces};

/// What a part of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Comment,
    /// A function that exists.
    Function,
    Keyword,
    Number,
    Text,
}

/// A part of a text, in bytes, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    pub paint: Paint,
}

/// The parts that have a colour, one after another.
pub fn spans(text: &str, is_function: impl Fn(&str) -> bool) -> Vec<Span> {
    let all = pieces(text);
    let counting: Vec<&Piece> = all.iter().filter(|piece| piece.counts()).collect();
    let is_called = |start: usize| {
        let place = counting.partition_point(|piece| piece.start <= start);
        counting.get(place).is_some_and(|next| next.is(text, "("))
    };
    let paint = |piece: &Piece| {
        Some(match piece.kind {
            PieceKind::Comment { .. } => Paint::Comment,
            PieceKind::Number => Paint::Number,
            PieceKind::Text { .. } => Paint::Text,
            PieceKind::Word => match piece.text(text) {
                word if KEYWORDS.contains(&word) => Paint::Keyword,
                word if is_called(piece.start) && is_function(word) => Paint::Function,
                _ => return None,
            },
            PieceKind::Sign | PieceKind::Space => return None,
        })
    };
    all.iter()
        .filter_map(|piece| Some(Span { start: piece.start, end: piece.end, paint: paint(piece)? }))
        .collect()
}

/// The bracket that belongs to the one at `at`, in bytes. Brackets in texts and comments don't count.
pub fn matching_bracket(text: &str, at: usize) -> Option<usize> {
    let all = pieces(text);
    let place = all.iter().position(|piece| piece.start <= at && at < piece.end)?;
    let is_bracket = |piece: &Piece| piece.kind == PieceKind::Sign && piece.depth(text) != 0;
    if !is_bracket(&all[place]) {
        return None;
    }
    let step = all[place].depth(text);
    let mut depth = 0;
    let mut place = place;
    loop {
        depth += all[place].depth(text);
        if depth == 0 {
            // Of `#{` the brace.
            return Some(all[place].end - 1);
        }
        place = if step > 0 { place + 1 } else { place.checked_sub(1)? };
        if place >= all.len() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_colours() {
        let text = "let x = list(\"a\") + 1; // b";
        let found: Vec<(&str, Paint)> = spans(text, |name| name == "list")
            .iter()
            .map(|span| (&text[span.start..span.end], span.paint))
            .collect();
        assert_eq!(
            found,
            [
                ("let", Paint::Keyword),
                ("list", Paint::Function),
                ("\"a\"", Paint::Text),
                ("1", Paint::Number),
                ("// b", Paint::Comment)
            ]
        );
        assert!(spans("nope(x)", |_| false).is_empty());
        assert_eq!(spans("\"open", |_| true).len(), 1);
    }

    #[test]
    fn brackets_belong_together() {
        let text = "f(\")\", [1], #{ a: (2) })";
        assert_eq!(matching_bracket(text, 1), Some(text.len() - 1));
        assert_eq!(matching_bracket(text, text.len() - 1), Some(1));
        assert_eq!(matching_bracket(text, 3), None, "inside a text");
        assert_eq!(matching_bracket(text, 7), Some(9));
        assert_eq!(matching_bracket("(", 0), None);
        assert_eq!(matching_bracket("}", 0), None);
        assert_eq!(matching_bracket("#{}", 2), Some(1));
    }
}
