//! Text from the server, made fit for a terminal: escape sequences and control characters taken out.

/// Takes escape sequences and control characters out of a text that comes in pieces; newline and tab stay.
/// Marks that turn the direction of text are taken out too, since they can make a line say something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleaner {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte: one final byte follows.
    Intermediate,
    /// Inside a control sequence (ESC `[`), up to its final byte.
    Control,
    /// Inside a string (OSC, DCS, SOS, PM, APC), up to BEL or ST.
    String,
    /// Inside a string, after ESC.
    StringEscape,
}

impl Cleaner {
    /// The next piece, cleaned. A sequence that a piece cuts in two is taken out whole.
    pub fn feed(&mut self, text: &str) -> String {
        text.chars().filter(|c| self.keeps(*c)).collect()
    }

    fn keeps(&mut self, c: char) -> bool {
        let (next, keep) = match (*self, c) {
            (Self::String, '\x1b') => (Self::StringEscape, false),
            (Self::StringEscape, '\\') => (Self::Text, false),
            (_, '\x1b') => (Self::Escape, false),
            // CAN and SUB abandon any sequence, as in terminals.
            (Self::String, '\x07' | '\x18' | '\x1a' | '\u{9c}') => (Self::Text, false),
            (Self::String, _) => (Self::String, false),
            // ESC and anything but a backslash ends the string and begins a new sequence.
            (Self::StringEscape | Self::Escape, '[') => (Self::Control, false),
            (Self::StringEscape | Self::Escape, ']' | 'P' | 'X' | '^' | '_') => (Self::String, false),
            (Self::StringEscape | Self::Escape | Self::Intermediate, ' '..='/') => {
                (Self::Intermediate, false)
            }
            (Self::StringEscape | Self::Escape | Self::Intermediate, '0'..='~') => (Self::Text, false),
            (Self::Control, ' '..='?') => (Self::Control, false),
            (Self::Control, '@'..='~') => (Self::Text, false),
            (_, '\u{9b}') => (Self::Control, false),
            (_, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => (Self::String, false),
            (_, c) => (Self::Text, is_plain(c)),
        };
        *self = next;
        keep
    }
}

/// Whether a terminal shows it, and obeys nothing.
pub fn is_plain(c: char) -> bool {
    matches!(c, '\n' | '\t')
        || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// A whole text, cleaned.
pub fn clean(text: &str) -> String {
    Cleaner::default().feed(text)
}

/// A text for one line: cleaned, and its newlines and tabs made spaces.
pub fn clean_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_go_and_text_stays() {
        for (text, expected) in [
            ("a\x1b[31mred\x1b[0m\tb\n", "ared\tb\n"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]8;;http://e\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPq#0\x1b\\y", "y"),
            ("\x1b(Bz\x1b7\x07\x08\r", "z"),
            ("\u{9b}31mk\u{9d}t\u{9c}l", "kl"),
            ("\x1b]0;title\x18x\x1bPq\x1ay", "xy"),
            ("user\u{202e}txt", "usertxt"),
            ("grüße 👩‍👩‍👧", "grüße 👩‍👩‍👧"),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(text in "[\\x00-\\x1b\\[\\]0-9;m\\\\a-zP\u{9b}\u{9c}\u{9d}]{0,60}", cut in 1usize..8) {
            let mut cleaner = Cleaner::default();
            let letters: Vec<char> = text.chars().collect();
            let pieces: String = letters.chunks(cut).map(|piece| cleaner.feed(&piece.iter().collect::<String>())).collect();
            prop_assert_eq!(&pieces, &clean(&text));
            prop_assert!(!pieces.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
