//! What must not be told of what an agent says besides its replies: the values of its secrets.

use std::sync::Arc;

use crate::wire::Secret;

/// What stands for a value.
const HIDDEN: &str = "[secret]";
/// Shorter values are left: they would take letters out of every other word.
const SHORTEST: usize = 4;

/// Takes the values of secrets out of texts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Redaction(Arc<[Secret]>);

impl Redaction {
    /// One of these values; of those with several lines each line, too.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut parts: Vec<Secret> = Vec::new();
        for value in values {
            let whole = value.reveal().trim();
            parts.extend(
                std::iter::once(whole)
                    .chain(whole.lines().map(str::trim))
                    .filter(|part| part.len() >= SHORTEST)
                    .map(|part| Secret::new(part.to_owned())),
            );
        }
        // The longest first: one may be the beginning of another.
        parts.sort_by_key(|part| std::cmp::Reverse(part.reveal().len()));
        parts.dedup();
        Self(parts.into())
    }

    /// The text without the values.
    pub fn text(&self, text: String) -> String {
        self.0.iter().fold(text, |text, part| {
            if text.contains(part.reveal()) { text.replace(part.reveal(), HIDDEN) } else { text }
        })
    }

    /// The same of a text that was cut: what is left of a value at its ends goes as well.
    pub fn cut_text(&self, text: String) -> String {
        let mut text = self.text(text);
        for part in self.0.iter().map(Secret::reveal) {
            let cuts = || part.char_indices().map(|(at, _)| at);
            let end = cuts().rev().find(|at| *at >= SHORTEST && text.ends_with(&part[..*at]));
            if let Some(length) = end {
                text.truncate(text.len() - length);
                text.push_str(HIDDEN);
            }
            let begin = cuts().find(|at| part.len() - at >= SHORTEST && text.starts_with(&part[*at..]));
            if let Some(at) = begin {
                text.replace_range(..part.len() - at, HIDDEN);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction(values: &[&str]) -> Redaction {
        let values: Vec<Secret> = values.iter().map(|value| Secret::new((*value).to_owned())).collect();
        Redaction::new(&values)
    }

    #[test]
    fn values_are_taken_out_wherever_they_stand() {
        let redaction = redaction(&["hunter2", "hunter2-and-more", "line one\nline two\n", "abc", ""]);
        for (text, left) in [
            ("no value", "no value"),
            ("hunter2", "[secret]"),
            ("xhunter2hunter2-and-morex", "x[secret][secret]x"),
            ("then line two.", "then [secret]."),
            ("abc", "abc"),
        ] {
            assert_eq!(redaction.text(text.to_owned()), left);
        }
    }

    #[test]
    fn of_a_text_that_was_cut_the_rest_of_a_value_goes() {
        let redaction = redaction(&["hunter2äöü"]);
        assert_eq!(redaction.cut_text("key hunter2ä".into()), "key [secret]");
        assert_eq!(redaction.cut_text("ter2äöü is it".into()), "[secret] is it");
        assert_eq!(redaction.cut_text("hunter2äöü".into()), "[secret]");
        assert_eq!(redaction.cut_text("the hun".into()), "the hun");
    }
}
