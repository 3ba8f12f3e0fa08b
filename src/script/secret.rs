//! Whether a text looks as if it carries a secret, so that it is not written down.

use super::pieces::{Piece, PieceKind, pieces};

/// Parts of names whose values are secret. Compared without case and without `_` and `-`.
const NAMES: [&str; 10] = [
    "accesskey",
    "apikey",
    "auth",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "token",
];
/// What secrets of known makers begin with, and how many letters must follow.
const BEGINNINGS: [(&str, usize); 13] = [
    ("AIza", 20),
    ("AKIA", 12),
    ("ASIA", 12),
    ("eyJ", 20),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghs_", 16),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("sk-", 8),
    ("sk_", 12),
    ("ss_", 12),
    ("xox", 12),
];

/// Whether it looks like that: a name such as `token` or `api_key` with a value, a token of a known form, `Bearer …`, a
/// password in an address, a private key. Rather once too often.
pub fn carries_secret(text: &str) -> bool {
    has_known_form(text) || has_named_value(text)
}

fn is_of_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')
}

fn has_known_form(text: &str) -> bool {
    if text.contains("-----BEGIN") {
        return true;
    }
    for (at, _) in text.char_indices().filter(|(at, _)| !text[..*at].ends_with(is_of_token)) {
        let rest = &text[at..];
        let follows = |beginning: &str, least: usize| {
            rest.strip_prefix(beginning)
                .is_some_and(|rest| rest.chars().take_while(|c| is_of_token(*c)).count() >= least)
        };
        if BEGINNINGS.iter().any(|(beginning, least)| follows(beginning, *least)) {
            return true;
        }
        let word = rest.get(..6).unwrap_or_default();
        let is_scheme = ["bearer", "basic "].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        let value = rest.get(6..).unwrap_or_default().trim_start();
        if is_scheme && value.chars().take_while(|c| is_of_token(*c) || "+/=.~".contains(*c)).count() >= 8 {
            return true;
        }
    }
    // https://name:password@host
    text.split("://").skip(1).any(|rest| {
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '`'))
            .unwrap_or(rest.len());
        rest[..end].split_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    name.len() <= 60 && name.chars().all(is_of_token) && NAMES.iter().any(|known| plain.contains(known))
        // Whose auth is the beginning of another word.
        && !["author", "authors"].contains(&plain.as_str())
}

/// Whether a name that says so stands before a text or a number, with a sign between that gives it or compares it.
fn has_named_value(text: &str) -> bool {
    let found: Vec<Piece> = pieces(text).into_iter().filter(Piece::counts).collect();
    found.iter().enumerate().any(|(at, piece)| {
        let name = match piece.kind {
            PieceKind::Word => piece.text(text),
            PieceKind::Text { .. } => piece.content(text),
            _ => return false,
        };
        if !is_secret_name(name) {
            return false;
        }
        let mut rest = found[at + 1..].iter().skip_while(|next| next.depth(text) < 0);
        let gives = rest.next().is_some_and(|sign| {
            matches!(sign.text(text), ":" | "=" | "==" | "!=" | "+=" | "," | "(" | "::" | "=>")
        });
        gives
            && rest.any(|value| match value.kind {
                PieceKind::Text { .. } => !value.content(text).is_empty(),
                PieceKind::Number => true,
                _ => false,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_seen() {
        for text in [
            "let token = \"abc\";",
            "#{ api_key: `x` }",
            "let MY_API_KEY = 'x'",
            "password=1234",
            "s.send(\"use sk-abcdefgh1234\")",
            "\"Authorization: Bearer abcdefgh\"",
            "let h = \"ss_Zm9vYmFyYmF6cXV4\"",
            "secrets::set(\"OPENAI\", \"v\")",
            "secrets::set(\"notes\", #{ OPENAI: \"v\" })",
            "m[\"client_secret\"] = \"v\"",
            "fetch(\"https://ann:hunter2@example.org/\")",
            "`-----BEGIN PRIVATE KEY-----`",
            "x == ghp_0123456789abcdefghij",
            "#{ \"access-key\": \"v\" }",
        ] {
            assert!(carries_secret(text), "{text}");
        }
    }

    #[test]
    fn the_rest_is_kept() {
        for text in [
            "list(#{ status: \"idle\" })",
            "list().filter(|s| s.title.contains(\"token\"))",
            "let author = \"Ann\"",
            "ask-me",
            "get(\"5a3f7b9c2e1d\").messages()",
            "let n = list().len",
            "sessions::create(\"notes\").send(\"remember to buy milk\")",
            ":type token",
            "tokens",
            "sk-1",
        ] {
            assert!(!carries_secret(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through(text in any::<String>()) {
            carries_secret(&text);
        }

        #[test]
        fn a_value_of_a_secret_name_is_never_kept(name in "[a-z_]{0,8}(token|secret|password|api_key)[a-z_]{0,5}", value in "[ -!#-\\[\\]-~]{1,20}") {
            prop_assert!(carries_secret(&format!("let {name} = \"{value}\";")), "{name} {value}");
        }
    }
}
