//! "Did you mean …?"

/// The known word that is nearest to `word`, as a sentence; nothing if none is near.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("Did you mean `{near}`?"))
}

/// The known word that is nearest to `word`: at most a third of its letters off.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    // Of one or two letters everything is near.
    let allowed = if letters < 3 { 0 } else { letters.div_ceil(3).min(4) };
    known
        .filter(|known| *known != word && known.starts_with(|c: char| c.is_alphabetic()))
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, known)| *distance <= allowed || (word.len() >= 4 && known.starts_with(word)))
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["message_count", "title", "status", "idle"];
        assert_eq!(nearest("mesage_count", known.into_iter()), Some("message_count"));
        assert_eq!(nearest("message", known.into_iter()), Some("message_count"));
        assert_eq!(nearest("staus", known.into_iter()), Some("status"));
        assert_eq!(nearest("xyz", known.into_iter()), None);
    }
}
